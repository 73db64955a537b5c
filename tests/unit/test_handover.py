"""Bodies are handed over in the call that receives them, on real connections: one `feed` a read, and every end by its
own name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader
from rigs.aiohttp_paths import BEHIND_THE_HEAD, ENDS, Behind, End, Receiver, ask, opened, played, text_of
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, replies, reply
from rigs.waiting import until

from proxy import handover
from proxy.errors import UpstreamGarbage
from proxy.handover import Pool
from proxy.messages import Headers
from proxy.sink import on_informational


@pytest.fixture
async def pool(upstream: RawUpstream) -> AsyncIterator[Pool]:
    async with opened(Pool, upstream) as made:
        yield made


async def test_what_came_with_the_head_is_first(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD + chunk(b"one") + chunk(b" two")) as (connection, response):
        response.hand_over(sink := Receiver())
        assert sink.reads == [b"one two"]
        await connection.send(chunk(b"three"))
        await until(lambda: len(sink.reads) == 2, "the second read")
        assert sink.reads[1] == b"three"


def reads_of(owner: type, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What `owner`'s `data_received` is given from now on."""
    reads: list[bytes] = []
    data_received = owner.data_received  # type: ignore[attr-defined]

    def watched(self: object, data: bytes) -> None:
        reads.append(data)
        data_received(self, data)

    monkeypatch.setattr(owner, "data_received", watched)
    return reads


async def test_reads_that_are_one_chunk_do_without_the_parser(
    upstream: RawUpstream, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = reads_of(ResponseHandler, monkeypatch)
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        response.hand_over(sink := Receiver())
        for text in (b"one", b"two", b"ends with a line\r\n"):
            await connection.send(chunk(text))
            await until(lambda text=text: sink.reads[-1:] == [text], "the read")
        await connection.send(b"zz\r\n")
        assert await sink.ended() == "upstream_garbage"
        assert parsed[-2:] == [chunk(b"one"), b"zz\r\n"]


ODD_CHUNKS = b"005\r\nsmall\r\nA\r\n0123456789\r\n5;a=b\r\nnamed\r\n" + chunk(b"3\r\nabc\r\n") + LAST_CHUNK


@pytest.mark.parametrize("place", range(1, len(ODD_CHUNKS)))
async def test_chunks_may_be_cut_anywhere_after_reads_that_were_one_chunk(
    upstream: RawUpstream, pool: Pool, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """The body that is delivered is the same, wherever reads end, however sizes are spelt and whatever is in a chunk."""
    reads = reads_of(handover._Protocol, monkeypatch)
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        response.hand_over(sink := Receiver())
        for part in (chunk(b"one"), chunk(b"two"), ODD_CHUNKS[:place], ODD_CHUNKS[place:]):
            await connection.send(part)
            await until(lambda part=part: reads[-1:] == [part], "the read")
        assert await sink.ended() == "eof"
        assert sink.body == b"onetwosmall0123456789named3\r\nabc\r\n"


@pytest.mark.parametrize(
    ("reads", "body"),
    [
        ([chunk(b"two") + b"8\r\n", b"3\r\nabc\r\n", b"\r\n"], b"two3\r\nabc\r\n"),
        ([chunk(b"two") + b"1", b"3\r\nabc\r\n", b"and fourteen..\r\n"], b"twoabc\r\nand fourteen.."),
    ],
    ids=["data", "the end of a size and data"],
)
async def test_what_only_looks_like_a_chunk_is_none(
    upstream: RawUpstream,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    reads: list[bytes],
    body: bytes,
) -> None:
    seen = reads_of(handover._Protocol, monkeypatch)
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        response.hand_over(sink := Receiver())
        for part in (chunk(b"one"), *reads, LAST_CHUNK):
            await connection.send(part)
            await until(lambda part=part: seen[-1:] == [part], "the read")
        assert await sink.ended() == "eof"
        assert sink.body == b"one" + body


@pytest.mark.parametrize("case", ENDS.values(), ids=list(ENDS))
async def test_each_end_has_its_own_name(upstream: RawUpstream, pool: Pool, case: End) -> None:
    async with played(upstream, pool, case.head) as (connection, response):
        response.hand_over(sink := Receiver())
        if case.rest:
            await connection.send(case.rest)
        if case.end == "close":
            connection.close()
        elif case.end == "reset":
            connection.reset()
        assert await sink.ended() == case.details


@pytest.mark.parametrize("case", BEHIND_THE_HEAD.values(), ids=list(BEHIND_THE_HEAD))
async def test_what_is_wrong_behind_a_head_leaves_the_head_alone(
    upstream: RawUpstream, pool: Pool, case: Behind
) -> None:
    """All in one read."""
    async with played(upstream, pool, case.answer, case.method) as (connection, response):
        response.hand_over(sink := Receiver())
        assert (sink.body, sink.end) == (case.body, case.end)
        await connection.ended()  # it cannot be used again


async def test_a_connection_lost_after_a_complete_reply_was_not_lost_for_it(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, reply(b"whole")) as (connection, response):
        connection.reset()
        await until(lambda: response.protocol.transport is None, "the reset to be seen")
        response.hand_over(sink := Receiver())
        assert (sink.body, sink.end) == (b"whole", "eof")


# Early ends of our own


async def test_a_connection_that_is_left_early_is_closed(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD + chunk(b"x")) as (connection, response):
        response.hand_over(Receiver())
        response.close()
        await connection.ended()


async def test_a_connection_that_does_not_take_what_is_to_be_sent_is_closed_too(
    upstream: RawUpstream, pool: Pool
) -> None:
    asked = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        asked.set()
        await connection.send(b"")
        await asyncio.Event().wait()

    upstream.script = script
    task = asyncio.create_task(pool.send("POST", "/", Headers(), b"x" * (64 << 20)))
    await asked.wait()
    connection = await upstream.connection()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await connection.ended()
    assert len(connection.received) < 64 << 20


# Backpressure


async def test_a_paused_reply_is_not_read(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        sink = Receiver()
        sink.on_feed = response.pause
        response.hand_over(sink)
        transport = response.protocol.transport
        assert transport is not None
        await connection.send(chunk(b"one"))
        await until(lambda: sink.reads, "the first read")
        assert not transport.is_reading()
        await connection.send(chunk(b"two") + chunk(b" and") + LAST_CHUNK)
        sink.on_feed = lambda: None
        response.resume()
        assert await sink.ended() == "eof"
        assert sink.reads == [b"one", b"two and"]


async def test_pausing_is_for_what_flows(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        transport = response.protocol.transport
        assert transport is not None
        response.pause()
        assert transport.is_reading()
        response.hand_over(sink := Receiver())
        await connection.send(chunk(b"one") + LAST_CHUNK)
        await sink.ended()
        response.pause()
        assert transport.is_reading()


async def test_a_client_that_is_slow_at_the_very_end_does_not_stop_the_connection_for_the_next(
    upstream: RawUpstream, pool: Pool
) -> None:
    """The last read fills the client's buffer: by then the connection may already be in the pool."""
    async with played(upstream, pool, STREAM_HEAD) as (connection, response):
        transport = response.protocol.transport
        assert transport is not None
        sink = Receiver()
        sink.on_feed = response.pause
        response.hand_over(sink)
        await connection.send(chunk(b"all of it") + LAST_CHUNK)
        assert await sink.ended() == "eof"
        assert transport.is_reading()


async def test_a_reply_that_has_ended_leaves_the_next_one_on_its_connection_alone(
    upstream: RawUpstream, pool: Pool
) -> None:
    """A policy may hold an exchange open for long after its upstream's body has ended."""
    second = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(reply(b"first"))
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(b"one"))
        await second.wait()
        await connection.send(chunk(b"two") + LAST_CHUNK)

    upstream.script = script
    first = await ask(pool)
    first.hand_over(old := Receiver())
    await old.ended()
    other = await ask(pool)
    assert other.protocol is first.protocol
    other.hand_over(new := Receiver())
    transport = other.protocol.transport
    assert transport is not None
    first.pause()
    assert transport.is_reading()
    other.pause()
    first.resume()
    assert not transport.is_reading()
    other.resume()
    first.close()
    second.set()
    assert await new.ended() == "eof"
    assert (old.body, new.body) == (b"first", b"onetwo")


# The request


async def test_a_body_is_taken_as_fast_as_it_is_sent(upstream: RawUpstream, pool: Pool) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1 << 16
            yield bytes(1 << 16)

    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        await asyncio.Event().wait()

    upstream.script = script
    task = asyncio.create_task(ask(pool, "POST", endless()))
    await upstream.connection()
    before = -1
    while taken != before:
        before = taken
        for _ in range(100):
            await asyncio.sleep(0)
    assert taken < 64 << 20
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_is_asked_no_third_time(upstream: RawUpstream, pool: Pool) -> None:
    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        connection.close()

    upstream.script = script
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await ask(pool)
    assert len(upstream.connections) == 2


# What nobody asked for


async def test_two_replies_to_one_request(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, reply(b"one") + reply(b"two")) as (connection, response):
        assert await text_of(response) == b"one"
        await connection.ended()


async def test_a_server_that_speaks_first(upstream: RawUpstream, pool: Pool) -> None:
    async def script(connection: UpstreamConnection) -> None:
        await connection.send(b"220 mail ready\r\n\r\n")
        await connection.ended()

    upstream.script = script
    with pytest.raises((aiohttp.ServerDisconnectedError, UpstreamGarbage)):
        await ask(pool, "POST")


async def test_a_whole_reply_is_kept_until_somebody_takes_it(upstream: RawUpstream, pool: Pool) -> None:
    """Its connection may serve the next one by then."""
    upstream.script = replies(reply(b"first"), reply(b"second"))
    first = await ask(pool)
    second = await ask(pool)
    assert second.protocol is first.protocol
    assert (await text_of(first), await text_of(second)) == (b"first", b"second")


# Interim replies


async def test_interim_replies_are_told_of_and_final_ones_are_not(upstream: RawUpstream, pool: Pool) -> None:
    told: list[tuple[int, Headers]] = []
    interim = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n"]
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
    upstream.script = replies(b"".join(interim) + hints + reply(b"{}"), reply(b"{}"))
    token = on_informational.set(lambda status, headers: told.append((status, headers)))
    try:
        for _ in range(2):
            response = await ask(pool)
            assert response.message.code == 200
            await text_of(response)
    finally:
        on_informational.reset(token)
    assert [status for status, _ in told] == [102, 103]
    assert told[1][1].getall("Link") == ["</a>", "</b>"]


async def test_interim_replies_that_nobody_asked_for_are_dropped(upstream: RawUpstream, pool: Pool) -> None:
    async with played(upstream, pool, b"HTTP/1.1 103 Early Hints\r\n\r\n" + reply(b"{}")) as (_, response):
        assert response.message.code == 200


# The check at start


async def test_the_installed_aiohttp_is_as_expected() -> None:
    handover.check()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (StreamReader, "read_nowait"),
        (StreamReader, "begin_http_chunk_receiving"),
        (ResponseHandler, "set_response_params"),
        (BaseProtocol, "_pause_transport_reading"),
        (aiohttp.BaseConnector, "connect"),
    ],
)
async def test_another_aiohttp_is_named_with_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(RuntimeError, match=name):
        handover.check()


async def test_a_connector_without_our_way_in_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(self: aiohttp.BaseConnector) -> None:
        """Makes its connections in some other way."""

    monkeypatch.setattr(aiohttp.BaseConnector, "__init__", init)
    with pytest.raises(RuntimeError, match="BaseConnector"):
        handover.check()


def forgets(self: object, data: bytes, size: int = 0) -> bool:
    return False


def is_called_otherwise(self: object, *, params: object) -> None:
    pass


async def takes_more(self: object, request: object) -> None:
    pass


@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [
        (handover._Reader, "feed_data", forgets),
        (ResponseHandler, "set_response_params", is_called_otherwise),
        (aiohttp.BaseConnector, "connect", takes_more),
    ],
)
async def test_an_aiohttp_that_only_looks_the_same_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, instead: object
) -> None:
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises(RuntimeError, match="works differently"):
        handover.check()
