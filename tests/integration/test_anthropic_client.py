"""Anthropic Messages with the official `anthropic` client, unchanged: its accumulator, against llama.cpp's own server and
scripted upstreams, through the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam
from rigs import raw_upstream, tiny_model
from rigs import sdk as sdks
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply

MESSAGES: list[MessageParam] = [{"role": "user", "content": "hello"}]
ASKED: dict[str, Any] = {"model": tiny_model.NAME, "messages": MESSAGES, "max_tokens": 12}
FIXTURE = Path(__file__).parents[1] / "fixtures" / "written" / "anthropic_messages_tools.sse"
EVENTS = [event + b"\n\n" for event in FIXTURE.read_bytes().split(b"\n\n")[:-1]]
ANSWER = next(number for number, event in enumerate(EVENTS) if b"text_delta" in event)
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


@pytest.fixture(scope="module")
def model(penstock: StartPenstock, llama: str) -> Penstock:
    return sdks.before_model(penstock, llama)


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return sdks.before_script(penstock)


def sdk(proxy: Penstock, prefix: str = "") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=proxy.url + prefix, api_key="none", max_retries=0)


@pytest.fixture
async def client(model: Penstock) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(model) as client:
        yield client


@pytest.fixture
async def scripted(proxy: Penstock) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(proxy) as client:
        yield client


# --- llama.cpp


async def test_whole_answer(client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.create(**ASKED)
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    assert answer.usage.output_tokens <= 12


async def test_stream(client: anthropic.AsyncAnthropic) -> None:
    # llama.cpp leaves `message_start` out of an answer whose first token is no whole character, as one of random weights
    # now and then is; the likeliest token always is one.
    extra_body = {"ignore_eos": True, "temperature": 0}
    async with client.messages.stream(**{**ASKED, "max_tokens": 40}, extra_body=extra_body) as stream:
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert "".join(part.text for part in message.content if part.type == "text") == "".join(texts)
    # llama.cpp does not keep a model with random weights from ending by itself on this API.
    assert message.stop_reason == ("max_tokens" if message.usage.output_tokens == 40 else "end_turn")


async def test_counting_tokens(client: anthropic.AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(model=tiny_model.NAME, messages=MESSAGES)
    assert counted.input_tokens > 0


async def test_leaving_early_frees_the_model(client: anthropic.AsyncAnthropic, model: Penstock) -> None:
    asked = {**ASKED, "max_tokens": 4000, "extra_body": {"ignore_eos": True, "n_predict": 4000}}
    stream = await client.messages.create(**asked, stream=True)
    await anext(aiter(stream))
    await stream.close()
    record = await model.log.find(id=stream.response.headers["x-request-id"])
    assert record["outcome"] == "client_gone"


async def test_an_error_of_the_model_server(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.create(**{**ASKED, "messages": [{"role": "user", "content": "x " * 40_000}]})


# --- scripted: the accumulator


async def test_the_accumulated_message_is_the_upstreams(
    scripted: anthropic.AsyncAnthropic, upstream: RawUpstream
) -> None:
    upstream.script = raw_upstream.streams(*EVENTS)
    async with scripted.messages.stream(**ASKED) as stream:
        message = await stream.get_final_message()
    thought, text, tool = message.content
    assert thought.type == "thinking"
    assert (thought.thinking, thought.signature) == ("The user asks for weather.", "c2lnbmF0dXJl")
    assert text.type == "text"
    assert text.text == "Okay, let's check."
    assert tool.type == "tool_use"
    assert tool.input == {"city": "Zürich"}
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 89)


async def test_nothing_is_changed_on_its_way(scripted: anthropic.AsyncAnthropic, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*EVENTS)
    async with scripted.messages.with_streaming_response.create(**ASKED, stream=True) as reply:
        assert reply.headers["content-encoding"] in ("gzip", "br", "zstd")
        assert b"".join([data async for data in reply.iter_bytes()]) == b"".join(EVENTS)


async def test_heartbeats_in_a_silence_are_the_apis_own(
    scripted: anthropic.AsyncAnthropic, upstream: RawUpstream
) -> None:
    beats = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(b"".join(EVENTS[:ANSWER])))
        await beats.wait()
        await connection.send(chunk(b"".join(EVENTS[ANSWER:])) + LAST_CHUNK)

    upstream.script = script
    already = sum(event == PING for event in EVENTS[:ANSWER])
    async with scripted.messages.with_streaming_response.create(**ASKED, stream=True) as reply:
        body = b""
        async for data in reply.iter_bytes():
            body += data
            if body.count(PING) >= already + 2:
                beats.set()
    assert body.replace(PING, b"") == b"".join(EVENTS).replace(PING, b"")


# --- ends


async def test_a_cut_looks_like_the_length_limit(penstock: StartPenstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*EVENTS)
    windows = [{"tokens": 3, "window_s": "total", "what": "output"}]
    budget = {"use": "token_limit", "name": "anthropic-cut", "per": "all", "windows": windows}
    async with sdk(penstock({"policy": [budget]})) as client, client.messages.stream(**ASKED) as stream:
        message = await stream.get_final_message()
    assert message.stop_reason == "max_tokens"
    assert message.content[1].type == "text"
    assert message.content[1].text == "Okay, let's"
    assert message.usage.output_tokens == 3


@sdks.breaks_off(ANSWER)
async def test_a_stream_that_breaks_off_raises(
    scripted: anthropic.AsyncAnthropic, upstream: RawUpstream, end: Any, delivered: int, code: str
) -> None:
    upstream.script = end(STREAM_HEAD + b"".join(map(chunk, EVENTS[:delivered])))
    seen = []

    async def read() -> None:
        async for event in await scripted.messages.create(**ASKED, stream=True):
            seen.append(event.type)

    with pytest.raises(anthropic.APIStatusError) as caught:
        await read()
    assert cause(caught.value) == code
    assert len(seen) == sum(event != PING for event in EVENTS[:delivered])


def cause(error: anthropic.APIStatusError) -> Any:
    assert isinstance(error.body, dict)
    return error.body["error"]["details"]["error_code"]


@pytest.mark.parametrize(
    ("script", "prefix", "content", "raised", "code"),
    [
        (raw_upstream.then_closes(b""), "", "x", anthropic.InternalServerError, "upstream_reset"),
        (raw_upstream.replies(reply()), "/v2", "x", anthropic.NotFoundError, "no_route"),
        (raw_upstream.replies(reply()), "", "x" * 2 * sdks.BODY_BYTES, anthropic.APIStatusError, "body_too_large"),
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
    raised: type[anthropic.APIStatusError],
    code: str,
    stream: bool,
) -> None:
    upstream.script = script
    async with sdk(proxy, prefix) as client:
        with pytest.raises(raised) as caught:
            await client.messages.create(**{**ASKED, "messages": [{"role": "user", "content": content}]}, stream=stream)
    assert cause(caught.value) == code


async def test_a_refusal_of_a_policy(penstock: StartPenstock) -> None:
    async with sdk(penstock({"policy": [{"use": "rig_refuse"}]})) as client:
        with pytest.raises(anthropic.RateLimitError):
            await client.messages.create(**ASKED)
