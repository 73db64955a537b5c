"""Clients that take their time: heads, bodies, reading, idling. Limits are short here; only their being reached counts."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get
from rigs.raw_upstream import STREAM_HEAD, RawUpstream, UpstreamConnection, chunk
from rigs.wire import details

pytestmark = pytest.mark.aiohttp_paths

FOREVER = 15_000  # bytes that a field may have


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock({"limits": {"head_s": 0.3, "body_s": 0.5, "write_stall_s": 0.3, "keepalive_s": 60.0}})


@pytest.fixture(scope="module")
def impatient(penstock: StartPenstock) -> Penstock:
    return penstock({"limits": {"head_s": 0.3, "keepalive_s": 0.3}})


async def test_head_that_does_not_end(proxy: Penstock, upstream: RawUpstream) -> None:
    before = len(proxy.log.records)
    async with connect(proxy.address) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: proxy")
        answer = await client.reply()
        await client.ended()
    assert (answer.status, details(answer)) == (408, "head_timeout")
    record = await proxy.log.find(lambda record: record in proxy.log.records[before:], details="head_timeout")
    assert (record["outcome"], record["status"]) == ("refused", 408)


@pytest.mark.parametrize("number", [1, 2], ids=["first", "second"])
async def test_head_that_comes_drop_by_drop(proxy: Penstock, upstream: RawUpstream, number: int) -> None:
    before = len(proxy.log.records)
    async with connect(proxy.address) as client:
        if number == 2:
            await client.exchange(get("/"))
        await client.send(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            await client.send(b"X-A: ")
            async with connect(proxy.address) as other:
                for _ in range(FOREVER):  # each drop comes well within the limit, the head as a whole does not
                    await client.send(b"x")
                    if client.at_end():
                        break
                    await other.exchange(get("/elsewhere"))  # so long it takes until the next
                else:
                    pytest.fail("the limit began anew with every byte")
    targets = [request.target for request in upstream.requests]
    assert targets.count("/") == number - 1
    await proxy.log.find(lambda record: record in proxy.log.records[before:], details="head_timeout")


async def test_connection_on_which_nothing_comes(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.ended()


async def test_body_that_stops(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.send(get("/", "Content-Length: 10", "X-Request-Id: slow-body", method="POST") + b"hello")
        answer = await client.reply()
        await client.ended()
    assert (answer.status, details(answer)) == (408, "body_timeout")
    record = await proxy.log.find(id="slow-body")
    assert (record["outcome"], record["details"], record["status"]) == ("refused", "body_timeout", 408)
    await upstream.idle()
    assert upstream.requests == []


async def test_body_may_take_long_while_it_moves(proxy: Penstock, upstream: RawUpstream) -> None:
    chunked = get("/", "Transfer-Encoding: chunked", method="POST")
    async with connect(proxy.address) as client:
        await client.send(chunked)
        for _ in range(2):
            async with (
                connect(proxy.address) as other,  # whose body stops, and who is told when the limit is reached
                connect(proxy.address) as third,
            ):
                await other.send(chunked)
                reached = asyncio.ensure_future(other.reply())
                while not reached.done():
                    await client.send_chunk(b"x")
                    await third.exchange(get("/elsewhere"))  # so long it takes until the next
        await client.send_chunk(b"")
        await client.send(b"\r\n")
        assert (await client.reply()).status == 200


async def test_client_that_does_not_read(proxy: Penstock, upstream: RawUpstream) -> None:
    async def flood(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD)
        while True:
            await connection.send(chunk(b"x" * 60_000))

    upstream.script = flood
    async with connect(proxy.address, receive_buffer_bytes=4096) as client:
        await client.send(get("/", "X-Request-Id: not-reading"))
        record = await proxy.log.find(id="not-reading")
        await upstream.idle()
        with contextlib.suppress(ConnectionError):
            assert not (await client.read_to_end()).endswith(raw_upstream.LAST_CHUNK)
    assert (record["outcome"], record["details"]) == ("timeout", "write_stall")


async def test_idle_connection_is_closed_without_a_word(impatient: Penstock, upstream: RawUpstream) -> None:
    async with connect(impatient.address) as client:
        await client.exchange(get("/", "X-Request-Id: then-idle"))
        assert await client.read_to_end() == b""
    assert len([record for record in impatient.log.records if record["id"] == "then-idle"]) == 1


async def test_waiting_for_the_model_is_not_idling(impatient: Penstock, upstream: RawUpstream) -> None:
    async def slow(connection: UpstreamConnection) -> None:
        await connection.request()
        for _ in range(3):
            async with connect(impatient.address) as idle:
                await idle.ended()
        await connection.send(raw_upstream.reply(b"at last"))

    upstream.script = slow
    async with connect(impatient.address) as client:
        assert (await client.exchange(get("/"))).body == b"at last"


async def test_upstream_that_does_not_accept(penstock: StartPenstock, deaf_port: int) -> None:
    proxy = penstock({"upstreams": {"model": {"url": f"http://127.0.0.1:{deaf_port}", "connect_s": 0.3}}})
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", "X-Request-Id: deaf"))
    assert (answer.status, details(answer)) == (504, "connect_timeout")
    assert (await proxy.log.find(id="deaf"))["outcome"] == "timeout"
