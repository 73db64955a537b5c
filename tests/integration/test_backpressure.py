"""A side that does not read stops the side that sends: memory stays bounded, nothing is lost."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get
from rigs.raw_upstream import (
    CHAT_EVENTS,
    LAST_CHUNK,
    STREAM_HEAD,
    RawUpstream,
    UpstreamConnection,
    chat_event,
    chunk,
    reply,
)
from rigs.waiting import until
from rigs.wire import Wire

pytestmark = pytest.mark.aiohttp_paths

MiB = 1 << 20
TOTAL_BYTES = 96 * MiB
# What the kernel itself may hold (tcp_wmem and tcp_rmem, on both connections); the proxy's own share is far smaller.
KERNEL_BYTES = 32 * MiB
PROXY_BYTES = 16 * MiB


@pytest.fixture(params=["pass-through", "reading"], scope="module")
def proxy(penstock: StartPenstock, request: pytest.FixtureRequest) -> Penstock:
    policies = [] if request.param == "pass-through" else [{"use": "rig_watch"}]
    return penstock({"policy": policies, "limits": {"body_bytes": 2 * TOTAL_BYTES}})


def memory_bytes(proxy: Penstock) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{proxy.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def stopped(proxy: Penstock, sender: Wire) -> None:
    """Return once `sender` cannot send any more, although other exchanges go on: measured in their round trips."""
    still = -1
    for _ in range(1000):
        before = sender.sent_bytes
        for _ in range(20):
            async with connect(proxy.address) as other:
                await other.exchange(get("/other"))
        still = sender.sent_bytes
        if still == before and still:
            return
    pytest.fail(f"after {still} bytes it is still sending")


async def test_slow_client_stops_the_upstream(proxy: Penstock, upstream: RawUpstream) -> None:
    event = chat_event("x" * 4000) * 10
    count = TOTAL_BYTES // len(event)
    flood: list[UpstreamConnection] = []

    async def script(connection: UpstreamConnection) -> None:
        while (await connection.request()).target == "/other":
            await connection.send(reply())
        flood.append(connection)
        await connection.send(STREAM_HEAD)
        for _ in range(count):
            await connection.send(chunk(event))
        await connection.send(LAST_CHUNK)

    upstream.script = script
    async with connect(proxy.address, receive_buffer_bytes=4096) as client:
        await client.exchange(get("/other"))
        before = memory_bytes(proxy)
        await client.send(get("/"))
        await until(lambda: flood, "the flood")
        await stopped(proxy, flood[0])
        assert flood[0].sent_bytes < KERNEL_BYTES
        assert memory_bytes(proxy) - before < PROXY_BYTES
        answer = await client.reply()
    assert answer.body == event * count


async def test_slow_upstream_stops_the_client(proxy: Penstock, upstream: RawUpstream) -> None:
    async def script(connection: UpstreamConnection) -> None:
        head = await connection.request_head()
        while head.start.split(" ")[1] == "/other":
            await connection.send(reply())
            head = await connection.request_head()
        await released.wait()
        await connection.request_body(head)
        await connection.send(reply(b"all of it"))

    released = asyncio.Event()
    upstream.script = script
    body = bytes(range(256)) * (TOTAL_BYTES // 256)
    async with connect(proxy.address) as client:
        await client.exchange(get("/other"))
        before = memory_bytes(proxy)
        sending = asyncio.ensure_future(client.send(get("/", f"Content-Length: {len(body)}", method="POST") + body))
        await stopped(proxy, client)
        assert client.sent_bytes < KERNEL_BYTES
        assert memory_bytes(proxy) - before < PROXY_BYTES
        released.set()
        await sending
        assert (await client.reply()).body == b"all of it"
    assert upstream.requests[-1].body == body


async def test_client_that_reads_slowly_gets_everything(proxy: Penstock, upstream: RawUpstream) -> None:
    event = CHAT_EVENTS[0] * 50
    upstream.script = raw_upstream.streams(*([event] * 200))
    received = bytearray()
    async with connect(proxy.address, receive_buffer_bytes=4096) as client:
        await client.send(get("/"))
        await client.read_head()
        while data := await client.read_chunk():
            received += data
    assert bytes(received) == event * 200


async def test_connection_whose_last_read_filled_the_client_is_not_left_paused(
    penstock: StartPenstock, upstream: RawUpstream
) -> None:
    """What came with the body's end stopped the reading; the next exchange on the same connection must be read again."""
    body = b"x" * (4 * MiB)
    upstream.script = raw_upstream.replies(reply(body))
    proxy = penstock({"limits": {"write_buffer_bytes": 1}})
    for _ in range(5):
        async with connect(proxy.address, receive_buffer_bytes=4096) as client:
            assert (await client.exchange(get("/"))).body == body
    assert len(upstream.connections) == 1
