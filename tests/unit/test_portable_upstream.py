"""On aiohttp's public API, on real connections: bodies and ends as handover.py gives them, but for what the table in
`rigs/aiohttp_paths.py` says. What both have in common stands in test_pools.py and, from the request on, in
test_upstream.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from rigs.aiohttp_paths import BEHIND_THE_HEAD, ENDS, Behind, Receiver, ask, opened, played, text_of, told
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, replies, reply
from rigs.waiting import until

from proxy import portable_upstream
from proxy.errors import RequestError, UpstreamGarbage
from proxy.messages import Headers
from proxy.portable_upstream import Pool
from proxy.sink import on_informational


@pytest.fixture
async def pool(upstream: RawUpstream) -> AsyncIterator[Pool]:
    async with opened(Pool, upstream) as made:
        yield made


# The body


async def test_what_came_with_the_head_is_first_and_waits_for_no_task(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD + chunk(b"one") + chunk(b" two")) as (connection, response):
        response.hand_over(sink := Receiver())
        assert sink.reads == [b"one two"]
        await connection.send(chunk(b"three"))
        await until(lambda: len(sink.reads) == 2, "the second read")
        assert sink.reads[1] == b"three"


@pytest.mark.parametrize("name", ENDS)
async def test_ends(upstream: RawUpstream, pool: Pool, name: str) -> None:
    case = ENDS[name]
    async with played(upstream, pool, case.head) as (connection, response):
        response.hand_over(sink := Receiver())
        if case.rest:
            await connection.send(case.rest)
        if case.end == "close":
            connection.close()
        elif case.end == "reset":
            connection.reset()
        assert await sink.ended() == told("portable", name, case.details)


@pytest.mark.parametrize("name", BEHIND_THE_HEAD)
async def test_what_is_wrong_behind_a_head_takes_the_head_with_it(upstream: RawUpstream, pool: Pool, name: str) -> None:
    """All in one read."""
    case: Behind = BEHIND_THE_HEAD[name]
    upstream.script = replies(case.answer)
    with pytest.raises(UpstreamGarbage) as caught:
        await ask(pool, case.method)
    assert caught.value.details == told("portable", name, case.end)
    await (await upstream.connection()).ended()


async def test_an_end_that_comes_when_the_connection_is_looked_at_is_no_loss(
    upstream: RawUpstream, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of a reply that is complete is not its own any more, which looks like one that is closed."""
    monkeypatch.setattr(portable_upstream, "_LOOK_S", 0.0)

    async def script(connection: UpstreamConnection) -> None:
        while True:
            await connection.request()
            for part in (STREAM_HEAD, chunk(b"one"), chunk(b"two") + LAST_CHUNK):
                await connection.send(part)
                await asyncio.sleep(0)

    upstream.script = script
    for _ in range(100):
        assert await text_of(await ask(pool)) == b"onetwo"


async def test_a_reader_that_fails_in_an_unknown_way_ends_the_reply(
    upstream: RawUpstream, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def readany(_: aiohttp.StreamReader) -> bytes:
        raise LookupError

    async with played(upstream, pool, STREAM_HEAD) as (_, response):
        monkeypatch.setattr(aiohttp.StreamReader, "readany", readany)
        response.hand_over(sink := Receiver())
        assert await sink.ended() == "upstream_reset"


# Early ends of our own


async def test_a_sink_that_has_enough_at_once(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD + chunk(b"enough")) as (connection, response):
        sink = Receiver()
        sink.on_feed = response.close
        response.hand_over(sink)
        await connection.ended()
        assert (sink.reads, sink.end) == ([b"enough"], "")


async def test_no_more_of_a_request_waits_to_be_sent_than_a_little(upstream: RawUpstream, pool: Pool) -> None:
    """Where nobody takes it, the connection must not hold all of it."""
    asked = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        asked.set()
        await asyncio.Event().wait()

    upstream.script = script
    body = b"x" * (64 << 20)
    task = asyncio.create_task(pool.send("PUT", "/", Headers({"Content-Length": str(len(body))}), body))
    await asked.wait()
    connection = await upstream.connection()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await connection.ended()
    assert len(connection.received) < 64 << 20


# Backpressure


async def test_a_paused_reply_is_not_fed(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        sink = Receiver()
        sink.on_feed = response.pause
        response.hand_over(sink)
        await connection.send(chunk(b"one"))
        await until(lambda: sink.reads, "the first read")
        await connection.send(chunk(b"two") + chunk(b" and") + LAST_CHUNK)
        upstream.script = replies(reply(b"other"))
        assert await text_of(await ask(pool)) == b"other"  # by then it would have come
        assert sink.reads == [b"one"]
        sink.on_feed = lambda: None
        response.resume()
        assert await sink.ended() == "eof"
        assert sink.reads == [b"one", b"two and"]


async def test_a_reply_that_is_paused_while_it_waits_is_not_fed_either(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        response.hand_over(sink := Receiver())
        await asyncio.sleep(0)  # it waits for the first read now
        response.pause()
        await connection.send(chunk(b"one") + LAST_CHUNK)
        upstream.script = replies(reply(b"other"))
        assert await text_of(await ask(pool)) == b"other"
        assert sink.reads == []
        response.resume()
        assert await sink.ended() == "eof"
        assert sink.reads == [b"one"]


# The request


@pytest.mark.parametrize("after_the_head", [True, False])
async def test_a_body_that_fails_is_told_of_by_its_own_name(
    upstream: RawUpstream, pool: Pool, after_the_head: bool
) -> None:
    fails = asyncio.Event()
    if not after_the_head:
        fails.set()

    async def failing() -> AsyncIterator[bytes]:
        yield b"some"
        await fails.wait()
        raise RequestError("", "body_timeout")

    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        if after_the_head:
            await connection.send(STREAM_HEAD)
        await connection.ended()

    upstream.script = script
    if after_the_head:
        response = await ask(pool, "POST", failing())
        response.hand_over(sink := Receiver())
        fails.set()
        assert await sink.ended() == "body_timeout"
        response.close()
    else:
        with pytest.raises(RequestError) as caught:
            await ask(pool, "POST", failing())
        assert caught.value.details == "body_timeout"
    await (await upstream.connection()).ended()


# What nobody asked for


async def test_interim_replies_are_swallowed(upstream: RawUpstream, pool: Pool) -> None:
    heard: list[int] = []
    upstream.script = replies(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(b"{}"))
    token = on_informational.set(lambda status, headers: heard.append(status))
    try:
        assert await text_of(await ask(pool)) == b"{}"
    finally:
        on_informational.reset(token)
    assert heard == told("portable", "early hints", [103])
