"""`langchain-openai`, unchanged, through the proxy: in front of llama.cpp's own server and of scripted upstreams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_openai import ChatOpenAI
from rigs import raw_upstream, tiny_model
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_upstream import STREAM_HEAD, RawUpstream, chunk, reply
from rigs.wires import BY_NAME, JSON, STATED_INPUT, STATED_OUTPUT, WORDS

WRITTEN = Path(__file__).parents[1] / "fixtures" / "written"
CHAT, RESPONSES = BY_NAME["OpenAI chat completions"], BY_NAME["OpenAI Responses"]
APIS = {"chat": CHAT, "responses": RESPONSES}
Model = Callable[..., ChatOpenAI]

EITHER_API = pytest.mark.parametrize("api", APIS)
CHAIN = [
    {"use": "token_limit", "per": "all", "windows": [{"tokens": 100_000, "window_s": "total"}]},
    {"use": "heartbeat", "interval_s": 0.1},
    {"use": "compression"},
]
IS_JSON = f"Content-Type: {JSON}"


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock({"policy": CHAIN})


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    """`model(proxy, "responses", n=2)`: a model behind this proxy. Its connections are this test's own: langchain would keep
    them for the next one, in whose event loop they are of no use."""
    async with openai.DefaultAsyncHttpxClient() as connections:

        def model(proxy: Penstock, api: str = "chat", **more: Any) -> ChatOpenAI:
            asked = {"base_url": f"{proxy.url}/v1", "api_key": "none", "model": tiny_model.NAME, "max_retries": 0}
            more = {**asked, "stream_usage": True, "http_async_client": connections, **more}
            return ChatOpenAI(use_responses_api=api == "responses", **more)

        yield model


async def gathered(model: ChatOpenAI) -> AIMessageChunk:
    """The chunks of a stream, added up as programs do."""
    chunks = [part async for part in model.astream("hello")]
    assert len(chunks) > 1
    whole = chunks[0]
    for part in chunks[1:]:
        whole += part
    assert isinstance(whole, AIMessageChunk)
    return whole


# --- llama.cpp


@pytest.fixture(scope="module")
def tiny(penstock: StartPenstock, llama: str) -> Penstock:
    return penstock({"policy": CHAIN}, {"upstreams": {"model": {"url": llama}}})


@EITHER_API
async def test_whole_answer(model: Model, tiny: Penstock, api: str) -> None:
    answer = await model(tiny, api, max_tokens=12).ainvoke("hello")
    assert answer.text
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] <= 12


@EITHER_API
async def test_stream(model: Model, tiny: Penstock, api: str) -> None:
    answer = await gathered(model(tiny, api, max_tokens=30, extra_body={"ignore_eos": True}))
    assert answer.text
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 30


# --- scripted


@EITHER_API
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_what_was_said(model: Model, proxy: Penstock, upstream: RawUpstream, api: str, stream: bool) -> None:
    wire = APIS[api]
    said = wire.stream(WORDS, True)
    if stream:
        upstream.script = raw_upstream.streams(said.opening, *said.deltas, said.closing)
        answer: Any = await gathered(model(proxy, api))
    else:
        upstream.script = raw_upstream.replies(reply(wire.whole(WORDS), IS_JSON))
        answer = await model(proxy, api).ainvoke("hello")
    assert answer.text == "".join(WORDS)
    usage = answer.usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"]) == (STATED_INPUT, STATED_OUTPUT)


@pytest.mark.parametrize(
    ("fixture", "calls"),
    [
        ("openai_chat_tools.sse", [("get_weather", {"city": "Zürich A"}), ("get_time", {"zone": "CET"})]),
        ("openai_chat_tools.json", [("get_weather", {"city": "Zürich"})]),
        ("openai_responses_tools.sse", [("get_weather", {"city": "Zürich"})]),
    ],
)
async def test_tools(model: Model, proxy: Penstock, upstream: RawUpstream, fixture: str, calls: list[Any]) -> None:
    body = (WRITTEN / fixture).read_bytes()
    asked = model(proxy, fixture.split("_")[1])
    if fixture.endswith(".sse"):
        upstream.script = raw_upstream.streams(*(event + b"\n\n" for event in body.split(b"\n\n") if event))
        answer: Any = await gathered(asked)
    else:
        upstream.script = raw_upstream.replies(reply(body, IS_JSON))
        answer = await asked.ainvoke("hello")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == calls


async def test_several_choices(model: Model, proxy: Penstock, upstream: RawUpstream) -> None:
    body = (WRITTEN.parent / "llama_cpp" / "chat_n2.json").read_bytes()
    upstream.script = raw_upstream.replies(reply(body, IS_JSON))
    answer = await model(proxy, n=2).agenerate([[HumanMessage("hello")]])
    assert len(answer.generations[0]) == 2


@EITHER_API
async def test_a_cut_looks_like_the_length_limit(
    model: Model, penstock: StartPenstock, upstream: RawUpstream, api: str
) -> None:
    said = APIS[api].stream(WORDS, True)
    upstream.script = raw_upstream.streams(said.opening, *said.deltas, said.closing)
    windows = [{"tokens": 2, "window_s": "total", "what": "output"}]
    policy = {"use": "token_limit", "name": f"langchain-{api}", "per": "all", "windows": windows}
    answer = await gathered(model(penstock({"policy": [policy]}), api))
    assert answer.text == "One\ttwo"
    ended = answer.response_metadata
    assert ended.get("finish_reason") == "length" or ended["incomplete_details"]["reason"] == "max_output_tokens"


@EITHER_API
async def test_a_stream_that_breaks_off_raises(model: Model, proxy: Penstock, upstream: RawUpstream, api: str) -> None:
    said = APIS[api].stream(WORDS, False)
    upstream.script = raw_upstream.then_closes(STREAM_HEAD + chunk(said.opening + said.deltas[0]))
    with pytest.raises(openai.APIError) as caught:
        await gathered(model(proxy, api))
    assert caught.value.code == "upstream_truncated"


@EITHER_API
async def test_a_refusal_of_a_policy(model: Model, penstock: StartPenstock, api: str) -> None:
    with pytest.raises(openai.RateLimitError):
        await model(penstock({"policy": [{"use": "rig_refuse"}]}), api).ainvoke("hello")


async def test_leaving(model: Model, proxy: Penstock, upstream: RawUpstream) -> None:
    said = CHAT.stream(WORDS, False)
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD + chunk(said.opening + said.deltas[0]))
    stream = model(proxy).astream("hello")
    while not (await anext(stream)).text:
        pass
    await stream.aclose()  # type: ignore[attr-defined]
    await upstream.idle()
