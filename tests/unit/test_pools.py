"""What a pool does whichever way it is made, on real connections: bodies, ends, and requests that stream or go twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from rigs.aiohttp_paths import Receiver, ask, opened, parts, played, text_of
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, replies, reply
from rigs.waiting import until

from proxy import handover, portable_upstream
from proxy.upstream import Pool


@pytest.fixture(params=[handover.Pool, portable_upstream.Pool], ids=["handover", "portable"])
async def pool(request: pytest.FixtureRequest, upstream: RawUpstream) -> AsyncIterator[Pool]:
    async with opened(request.param, upstream) as made:
        yield made


async def test_one_read_is_one_feed(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        response.hand_over(sink := Receiver())
        await connection.send(chunk(b"one") + chunk(b" two") + chunk(b" three"))
        await until(lambda: sink.reads, "the first read")
        await connection.send(chunk(b"four") + LAST_CHUNK)
        assert await sink.ended() == "eof"
        assert sink.reads == [b"one two three", b"four"]


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        ("GET", reply(b"whole"), b"whole"),
        ("GET", STREAM_HEAD + chunk(b"whole") + LAST_CHUNK, b"whole"),
        ("GET", reply(b""), b""),
        ("GET", reply(status="204 No Content", body=b"", length=False), b""),
        ("HEAD", reply(b"", "Content-Length: 5", length=False), b""),
    ],
    ids=["length", "chunked", "empty", "204", "HEAD"],
)
async def test_a_reply_that_came_whole(
    upstream: RawUpstream, pool: Pool, method: str, answer: bytes, body: bytes
) -> None:
    async with played(upstream, pool, answer, method) as (_, response):
        response.hand_over(sink := Receiver())
        assert (sink.body, sink.end) == (body, "eof")


async def test_what_stands_before_a_bad_chunk_is_delivered(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        response.hand_over(sink := Receiver())
        await connection.send(chunk(b"good"))
        await until(lambda: sink.reads, "the first read")
        await connection.send(b"zz\r\n")
        assert await sink.ended() == "upstream_garbage"
        assert sink.body == b"good"


async def test_nothing_comes_after_closing(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        sink = Receiver()
        sink.on_feed = response.close
        response.hand_over(sink)
        await connection.send(chunk(b"enough") + LAST_CHUNK)
        await connection.ended()
        assert (sink.reads, sink.end) == ([b"enough"], "")


async def test_a_body_that_streams_is_sent_in_chunks(upstream: RawUpstream, pool: Pool) -> None:
    response = await ask(pool, "POST", parts(b"", b"one", b"", b"two"))  # an empty chunk would be the last one
    assert await text_of(response) == b"{}"
    assert (upstream.requests[0].body, upstream.requests[0].ends) == (b"onetwo", "chunked")
    assert await text_of(await ask(pool)) == b"{}"
    assert len(upstream.connections) == 1


async def test_a_reply_may_come_before_the_request_is_sent(upstream: RawUpstream, pool: Pool) -> None:
    """The connection cannot be used again: the rest of the request would be taken for the next one."""
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"some"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        await connection.send(reply(b"no", status="413 Content Too Large"))
        await connection.ended()

    upstream.script = script
    response = await ask(pool, "POST", body())
    assert response.message.code == 413
    assert await text_of(response) == b"no"
    await closed.wait()
    await (await upstream.connection()).ended()


@pytest.mark.parametrize(("method", "connections"), [("GET", 2), ("POST", 1)])
async def test_what_can_be_asked_twice_is(upstream: RawUpstream, pool: Pool, method: str, connections: int) -> None:
    """A connection may break just when it is taken from the pool."""

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        if len(upstream.requests) == 1:
            await connection.send(reply(b"{}"))
            await connection.request_head()
            connection.close()
        else:
            await connection.send(reply(b"{}"))

    upstream.script = script
    await text_of(await ask(pool))
    if connections == 2:
        await text_of(await ask(pool, method))
    else:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(pool, method)
    assert len(upstream.connections) == connections


async def test_a_connection_on_which_more_comes_is_not_used_again(upstream: RawUpstream, pool: Pool) -> None:
    """It would be taken for the next request's reply."""
    first, gone = asyncio.Event(), asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(reply(b"first"))
        await first.wait()
        await connection.send(reply(b"stray"))
        await connection.ended()
        gone.set()

    upstream.script = script
    assert await text_of(await ask(pool)) == b"first"
    first.set()
    await gone.wait()
    upstream.script = replies(reply(b"second"))
    assert await text_of(await ask(pool)) == b"second"
