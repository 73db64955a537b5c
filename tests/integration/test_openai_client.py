"""The official `openai` client, unchanged, against llama.cpp's own server through the proxy and the example chain."""

from __future__ import annotations

import json
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolParam
from rigs import raw_upstream, tiny_model
from rigs.aiohttp_paths import told
from rigs.penstock import Penstock, StartPenstock, Tables
from rigs.raw_upstream import CHAT_EVENTS, STREAM_HEAD, RawUpstream, chunk, reply

MODEL = tiny_model.NAME
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
TOOLS: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "set_unit",
            "parameters": {
                "type": "object",
                "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
                "required": ["unit"],
                "additionalProperties": False,
            },
        },
    }
]


@pytest.fixture(scope="module")
def example_chain() -> Tables:
    example = Path(__file__).parents[2] / "config.example.toml"
    return {"policy": tomllib.loads(example.read_text())["policy"]}


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock, llama: str, example_chain: Tables) -> Penstock:
    """In front of llama.cpp."""
    return penstock(example_chain, {"upstreams": {"model": {"url": llama}}})


@pytest.fixture
async def client(proxy: Penstock) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_whole_answer(client: openai.AsyncOpenAI, proxy: Penstock) -> None:
    raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, max_tokens=12)
    answer = raw.parse()
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 12
    record = await proxy.log.find(id=raw.headers["x-request-id"])
    assert (record["outcome"], record["status"]) == ("complete", 200)


async def test_stream(client: openai.AsyncOpenAI, proxy: Penstock) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = [part async for part in stream]
    finishes = [choice.finish_reason for part in chunks for choice in part.choices if choice.finish_reason]
    assert finishes == ["length"]
    assert len([part for part in chunks if part.choices and part.choices[0].delta.content]) > 20
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 40
    record = await proxy.log.find(id=stream.response.headers["x-request-id"])
    assert record["events"] == len(chunks) + 1  # and [DONE]
    assert record["ttft_ms"] is not None


async def test_stream_says_what_the_whole_answer_says(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 30, "temperature": 0, "seed": 1}
    whole = await client.chat.completions.create(**asked)
    streamed = [part async for part in await client.chat.completions.create(**asked, stream=True)]
    assert "".join(part.choices[0].delta.content or "" for part in streamed if part.choices) == (
        whole.choices[0].message.content
    )


async def test_two_choices(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 10, "n": 2}
    whole = await client.chat.completions.create(**asked)
    assert sorted(choice.index for choice in whole.choices) == [0, 1]
    streamed: list[ChatCompletionChunk] = [
        part async for part in await client.chat.completions.create(**asked, stream=True)
    ]
    finished = {choice.index for part in streamed for choice in part.choices if choice.finish_reason}
    assert finished == {0, 1}


async def test_tools(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": MESSAGES,
        "tools": TOOLS,
        "tool_choice": "required",
        "max_tokens": 300,
        "logit_bias": tiny_model.CALL_A_TOOL,
    }
    whole = await client.chat.completions.create(**asked)
    calls = whole.choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert json.loads(calls[0].function.arguments)["unit"] in ("celsius", "kelvin")
    arguments = ""
    async for part in await client.chat.completions.create(**asked, stream=True):
        for call in part.choices[0].delta.tool_calls or [] if part.choices else []:
            if call.index == 0 and call.function is not None:
                arguments += call.function.arguments or ""
    assert json.loads(arguments)["unit"] in ("celsius", "kelvin")


async def test_completions(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model=MODEL, prompt="hello", max_tokens=8)
    assert whole.choices[0].text
    streamed = [
        part async for part in await client.completions.create(model=MODEL, prompt="hello", max_tokens=8, stream=True)
    ]
    assert streamed[-1].choices[0].finish_reason in ("length", "stop")


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]


def test_synchronous_client(proxy: Penstock) -> None:
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=5, stream=True)
        assert list(stream)[-1].choices[0].finish_reason in ("length", "stop")


async def test_leaving_early_frees_the_model(client: openai.AsyncOpenAI, proxy: Penstock) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=4000, stream=True, extra_body={"ignore_eos": True, "n_predict": 4000}
    )
    await anext(aiter(stream))
    await stream.close()
    record = await proxy.log.find(id=stream.response.headers["x-request-id"])
    assert record["outcome"] == "client_gone"


# --- errors: the client raises its own classes


async def test_errors_of_the_model_server(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x " * 20_000}])
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no-such-model")


@pytest.fixture(scope="module")
def guarded(penstock: StartPenstock, example_chain: Tables) -> Penstock:
    """In front of the raw upstream."""
    return penstock(example_chain, {"limits": {"body_bytes": 10_000}, "routes": {"all": {"path": "/v1"}}})


@pytest.mark.parametrize(
    ("script", "prefix", "content", "raised", "code"),
    [
        (raw_upstream.then_closes(b""), "/v1", "x", openai.InternalServerError, "upstream_reset"),
        (raw_upstream.then_closes(b"what?\r\n\r\n"), "/v1", "x", openai.InternalServerError, "upstream_garbage"),
        (raw_upstream.replies(reply()), "/v2", "x", openai.NotFoundError, "no_route"),
        (raw_upstream.replies(reply()), "/v1", "x" * 20_000, openai.APIStatusError, "body_too_large"),
    ],
    ids=["502 reset", "502 garbage", "404", "413"],
)
async def test_errors_of_the_proxy(
    guarded: Penstock,
    upstream: RawUpstream,
    script: raw_upstream.Script,
    prefix: str,
    content: str,
    raised: type[openai.APIStatusError],
    code: str,
) -> None:
    upstream.script = script
    async with openai.AsyncOpenAI(base_url=guarded.url + prefix, api_key="none", max_retries=0) as client:
        with pytest.raises(raised) as caught:
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert caught.value.code == code
    assert caught.value.request_id == (await guarded.log.find(details=code))["id"]


async def test_timeout_of_the_proxy(penstock: StartPenstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_stalls(b"")
    proxy = penstock({"policy": [{"use": "idle_timeout", "first_byte_s": 0.2}]})
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert (caught.value.status_code, caught.value.code) == (504, "first_byte_timeout")


CUTS = {
    "truncation": raw_upstream.then_closes(STREAM_HEAD + chunk(CHAT_EVENTS[0])),
    "reset": raw_upstream.then_resets(STREAM_HEAD + chunk(CHAT_EVENTS[0] + CHAT_EVENTS[1][:30])),
    "garbage": raw_upstream.then_closes(STREAM_HEAD + chunk(CHAT_EVENTS[0]) + b"zz\r\n"),
}


@pytest.mark.parametrize("case", CUTS)
async def test_stream_that_is_cut_raises(
    guarded: Penstock, upstream: RawUpstream, aiohttp_path: str, case: str
) -> None:
    upstream.script = CUTS[case]
    texts = []
    async with openai.AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key="none", max_retries=0) as client:

        async def read() -> None:
            stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            async for part in stream:
                texts.append(part.choices[0].delta.content)

        with pytest.raises(openai.APIError):
            await read()
    assert texts == told(aiohttp_path, f"{case}, with the head", ["one"])


async def test_refusal_of_a_policy(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"policy": [{"use": "rig_refuse"}]})
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.response.headers["Retry-After"] == "7"


async def test_stop_looks_like_the_length_limit(penstock: StartPenstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*CHAT_EVENTS)
    proxy = penstock({"policy": [{"use": "rig_stop", "events": 2}]})
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        parts = [part.choices[0] async for part in stream]
    assert [part.delta.content for part in parts[:2]] == ["one", " two"]
    assert [part.finish_reason for part in parts if part.finish_reason] == ["length"]
