"""`heartbeat` over the wire: comments in silences, at event boundaries, and before the first byte if so configured."""

from __future__ import annotations

import asyncio
import json

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import RawClient, connect, post
from rigs.raw_upstream import CHAT_EVENTS, LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply
from rigs.wire import details

STREAMED = post("/v1/chat/completions", b'{"stream":true}')
WHOLE = post("/v1/chat/completions", b'{"stream":false}')


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock({"policy": [{"use": "heartbeat", "interval_s": 0.1}]})


@pytest.fixture(scope="module")
def early(penstock: StartPenstock) -> Penstock:
    return penstock({"policy": [{"use": "heartbeat", "interval_s": 0.1, "before_first_byte_s": 0.1}]})


async def heartbeat(client: RawClient) -> None:
    """The next chunk is a comment that stands by itself."""
    data = await client.read_chunk()
    assert data.startswith(b":")
    assert data.endswith(b"\n\n")
    assert data.count(b"\n\n") == 1


async def test_silence_is_broken_between_events(proxy: Penstock, upstream: RawUpstream) -> None:
    go_on = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD)
        await connection.send_chunk(CHAT_EVENTS[0] + CHAT_EVENTS[1][:20])  # silent within an event
        await go_on.wait()
        await connection.send_chunk(CHAT_EVENTS[1][20:] + CHAT_EVENTS[2] + CHAT_EVENTS[3] + CHAT_EVENTS[4])
        await connection.send(LAST_CHUNK)
        await connection.ended()

    upstream.script = script
    async with connect(proxy.address) as client:
        await client.send(STREAMED)
        await client.read_head()
        assert await client.read_chunk() == CHAT_EVENTS[0]
        for _ in range(3):
            await heartbeat(client)
        go_on.set()
        rest = b""
        while data := await client.read_chunk():
            rest += data
    assert b"".join(event + b"\n\n" for event in rest.split(b"\n\n")[:-1] if not event.startswith(b":")) == b"".join(
        CHAT_EVENTS[1:]
    )


async def test_whole_reply_is_never_touched(proxy: Penstock, upstream: RawUpstream) -> None:
    go_on = asyncio.Event()
    body = b'{"choices":[]}'

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(reply(body, "Content-Type: application/json")[: -len(body)] + body[:5])
        await go_on.wait()
        await connection.send(body[5:])
        await connection.ended()

    upstream.script = script
    async with connect(proxy.address) as client, connect(proxy.address) as clock:
        await client.send(WHOLE)
        await three_heartbeats_long(clock, upstream)
        go_on.set()
        answer = await client.reply()
    assert answer.body == body


async def three_heartbeats_long(client: RawClient, upstream: RawUpstream) -> None:
    """As long as another stream takes to get three heartbeats."""
    await upstream.request()
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD)
    await client.send(STREAMED)
    await client.read_head()
    for _ in range(3):
        await heartbeat(client)


async def test_before_the_first_byte(early: Penstock, upstream: RawUpstream) -> None:
    go_on = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await go_on.wait()
        await connection.send(STREAM_HEAD)
        for event in CHAT_EVENTS:
            await connection.send_chunk(event)
        await connection.send(LAST_CHUNK)
        await connection.ended()

    upstream.script = script
    async with connect(early.address) as client:
        await client.send(STREAMED)
        head = await client.read_head()
        assert head.start == "HTTP/1.1 200 OK"
        assert (head.get("Content-Type") or "").startswith("text/event-stream")
        assert head.get("X-Request-Id")
        await heartbeat(client)
        await heartbeat(client)
        go_on.set()
        rest = b""
        while data := await client.read_chunk():
            rest += b"" if data.startswith(b":") else data
    assert rest == b"".join(CHAT_EVENTS)


async def test_late_error_of_the_upstream_comes_as_an_error_event(early: Penstock, upstream: RawUpstream) -> None:
    go_on = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await go_on.wait()
        await connection.send(reply(b'{"error":{}}', "Content-Type: application/json", status="503 Busy"))
        await connection.ended()

    upstream.script = script
    async with connect(early.address) as client:
        await client.send(STREAMED.replace(b"\r\n\r\n", b"\r\nX-Request-Id: late-error\r\n\r\n", 1))
        await client.read_head()
        await heartbeat(client)
        go_on.set()
        while (data := await client.read_chunk()).startswith(b":"):
            pass
        assert json.loads(data.removeprefix(b"data: "))["error"]["code"] == "upstream_status"
        assert await client.read_chunk() == b""
    record = await early.log.find(id="late-error")
    assert (record["outcome"], record["details"], record["status"]) == ("upstream_error", "upstream_status", 200)


async def test_error_that_comes_in_time_keeps_its_status(early: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_closes(b"")
    async with connect(early.address) as client:
        answer = await client.exchange(STREAMED)
    assert (answer.status, details(answer)) == (502, "upstream_reset")


async def test_whole_reply_is_never_opened_early(early: Penstock, upstream: RawUpstream) -> None:
    go_on = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await go_on.wait()
        await connection.send(reply(b"{}", status="418 I am a teapot"))
        await connection.ended()

    upstream.script = script
    async with connect(early.address) as client, connect(early.address) as clock:
        await client.send(WHOLE)
        await three_heartbeats_long(clock, upstream)
        go_on.set()
        assert (await client.reply()).status == 418


async def test_heartbeats_are_facts_of_the_exchange(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD + chunk(CHAT_EVENTS[0]))
    async with connect(proxy.address) as client:
        await client.send(STREAMED.replace(b"\r\n\r\n", b"\r\nX-Request-Id: beats\r\n\r\n", 1))
        await client.read_head()
        await client.read_chunk()
        await heartbeat(client)
        await heartbeat(client)
    assert (await proxy.log.find(id="beats"))["facts"]["heartbeat"]["sent"] >= 2
