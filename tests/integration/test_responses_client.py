"""OpenAI Responses with the official `openai` client, unchanged: its accumulator, against llama.cpp's own server and
scripted upstreams, through the proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam
from rigs import raw_upstream, tiny_model
from rigs import sdk as sdks
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply

MODEL = tiny_model.NAME
FIXTURE = Path(__file__).parents[1] / "fixtures" / "written" / "openai_responses_tools.sse"
EVENTS = [event + b"\n\n" for event in FIXTURE.read_bytes().split(b"\n\n")[:-1]]
ANSWER = next(number for number, event in enumerate(EVENTS) if b"output_text.delta" in event)
BEAT = b": keep-alive\n\n"
TOOL: FunctionToolParam = {
    "type": "function",
    "name": "set_unit",
    "strict": None,
    "parameters": {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
        "required": ["unit"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def model(penstock: StartPenstock, llama: str) -> Penstock:
    return sdks.before_model(penstock, llama)


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return sdks.before_script(penstock)


def sdk(proxy: Penstock, prefix: str = "/v1") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=proxy.url + prefix, api_key="none", max_retries=0)


@pytest.fixture
async def client(model: Penstock) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(model) as client:
        yield client


@pytest.fixture
async def scripted(proxy: Penstock) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(proxy) as client:
        yield client


# --- llama.cpp


async def test_whole_answer(client: openai.AsyncOpenAI, model: Penstock) -> None:
    raw = await client.responses.with_raw_response.create(model=MODEL, input="hello", max_output_tokens=12)
    answer = raw.parse()
    assert answer.output_text
    assert answer.usage is not None
    assert answer.usage.output_tokens <= 12
    record = await model.log.find(id=raw.headers["x-request-id"])
    assert (record["outcome"], record["status"]) == ("complete", 200)


async def test_stream(client: openai.AsyncOpenAI, model: Penstock) -> None:
    stream = await client.responses.create(
        model=MODEL, input="hello", max_output_tokens=40, stream=True, extra_body={"ignore_eos": True}
    )
    events = [event async for event in stream]
    last = events[-1]
    assert last.type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == (
        last.response.output_text
    )
    record = await model.log.find(id=stream.response.headers["x-request-id"])
    assert record["events"] == len(events)
    assert record["ttft_ms"] is not None


async def test_tools(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "input": "hello",
        "tools": [TOOL],
        "tool_choice": "required",
        "max_output_tokens": 300,
        "extra_body": {"logit_bias": tiny_model.CALL_A_TOOL},
    }
    whole = await client.responses.create(**asked)
    calls = [item for item in whole.output if item.type == "function_call"]
    assert json.loads(calls[0].arguments)["unit"] in ("celsius", "kelvin")
    arguments: dict[str, str] = {}
    async for event in await client.responses.create(**asked, stream=True):
        if event.type == "response.function_call_arguments.delta":
            arguments[event.item_id] = arguments.get(event.item_id, "") + event.delta
    assert json.loads(next(iter(arguments.values())))["unit"] in ("celsius", "kelvin")


async def test_leaving_early_frees_the_model(client: openai.AsyncOpenAI, model: Penstock) -> None:
    stream = await client.responses.create(
        model=MODEL,
        input="hello",
        max_output_tokens=4000,
        stream=True,
        extra_body={"ignore_eos": True, "n_predict": 4000},
    )
    await anext(aiter(stream))
    await stream.close()
    record = await model.log.find(id=stream.response.headers["x-request-id"])
    assert record["outcome"] == "client_gone"


async def test_an_error_of_the_model_server(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model=MODEL, input="x " * 40_000)


# --- scripted: the accumulator


async def test_the_accumulated_response_is_the_upstreams(scripted: openai.AsyncOpenAI, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*EVENTS)
    async with scripted.responses.stream(model=MODEL, input="hello") as stream:
        numbers = [event.sequence_number async for event in stream]
        final = await stream.get_final_response()
    assert numbers == list(range(len(EVENTS)))
    assert final.output_text == "Looking it up."
    assert final.output[2].type == "function_call"
    assert json.loads(final.output[2].arguments) == {"city": "Zürich"}


async def test_nothing_is_changed_on_its_way(scripted: openai.AsyncOpenAI, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*EVENTS)
    async with scripted.responses.with_streaming_response.create(model=MODEL, input="hello", stream=True) as reply:
        assert reply.headers["content-encoding"] in ("gzip", "br", "zstd")
        assert b"".join([data async for data in reply.iter_bytes()]) == b"".join(EVENTS)


async def test_heartbeats_in_a_silence_are_comments(scripted: openai.AsyncOpenAI, upstream: RawUpstream) -> None:
    beats = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(b"".join(EVENTS[:ANSWER])))
        await beats.wait()
        await connection.send(chunk(b"".join(EVENTS[ANSWER:])) + LAST_CHUNK)

    upstream.script = script
    async with scripted.responses.with_streaming_response.create(model=MODEL, input="hello", stream=True) as reply:
        body = b""
        async for data in reply.iter_bytes():
            body += data
            if body.count(BEAT) >= 2:
                beats.set()
    assert body.replace(BEAT, b"") == b"".join(EVENTS)


# --- ends


async def test_a_cut_looks_like_the_length_limit(penstock: StartPenstock, upstream: RawUpstream) -> None:
    """What had been delivered is in the last response, and nothing else; it counts what was delivered."""
    upstream.script = raw_upstream.streams(*EVENTS)
    windows = [{"tokens": 3, "window_s": "total", "what": "output"}]
    budget = {"use": "token_limit", "name": "responses-cut", "per": "all", "windows": windows}
    async with (
        sdk(penstock({"policy": [budget]})) as client,
        client.responses.stream(model=MODEL, input="hello") as stream,
    ):
        events = [event async for event in stream]
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.status == "incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert last.response.output_text == (snapshots[-1] if snapshots else "")
    assert last.response.usage is not None
    assert last.response.usage.output_tokens == 3
    assert last.response.output_text == "Looking"


@sdks.breaks_off(ANSWER)
async def test_a_stream_that_breaks_off_raises(
    scripted: openai.AsyncOpenAI, upstream: RawUpstream, end: Any, delivered: int, code: str
) -> None:
    upstream.script = end(STREAM_HEAD + b"".join(map(chunk, EVENTS[:delivered])))
    seen = []

    async def read() -> None:
        async for event in await scripted.responses.create(model=MODEL, input="hello", stream=True):
            seen.append(event.type)

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert caught.value.code == code
    assert len(seen) == delivered


@pytest.mark.parametrize(
    ("script", "prefix", "content", "raised", "code"),
    [
        (raw_upstream.then_closes(b""), "/v1", "x", openai.InternalServerError, "upstream_reset"),
        (raw_upstream.replies(reply()), "/v2", "x", openai.NotFoundError, "no_route"),
        (raw_upstream.replies(reply()), "/v1", "x" * 2 * sdks.BODY_BYTES, openai.APIStatusError, "body_too_large"),
    ],
    ids=["502", "404", "413"],
)
@sdks.STREAM_OR_WHOLE
async def test_errors_of_the_proxy(
    proxy: Penstock,
    upstream: RawUpstream,
    script: raw_upstream.Script,
    prefix: str,
    content: str,
    raised: type[openai.APIStatusError],
    code: str,
    stream: bool,
) -> None:
    upstream.script = script
    async with sdk(proxy, prefix) as client:
        with pytest.raises(raised) as caught:
            await client.responses.create(model=MODEL, input=content, stream=stream)
    assert caught.value.code == code


async def test_a_refusal_of_a_policy(penstock: StartPenstock) -> None:
    async with sdk(penstock({"policy": [{"use": "rig_refuse"}]})) as client:
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(model=MODEL, input="hello")
