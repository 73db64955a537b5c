"""A client that leaves: the upstream's connection is closed promptly, in every phase, and nothing is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import RawClient, connect, get, post
from rigs.raw_upstream import CHAT_EVENTS, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk
from rigs.waiting import until

pytestmark = pytest.mark.aiohttp_paths

LEAVE: dict[str, Callable[[RawClient], None]] = {"closes": RawClient.close, "resets": RawClient.reset}


@pytest.fixture(params=["pass-through", "reading", "needing the body"], scope="module")
def proxy(penstock: StartPenstock, request: pytest.FixtureRequest) -> Penstock:
    watch = {"use": "rig_watch", "needs_body": request.param == "needing the body"}
    return penstock({"policy": [] if request.param == "pass-through" else [watch]})


@pytest.fixture(params=["closes", "resets"])
def leave(request: pytest.FixtureRequest) -> Callable[[RawClient], None]:
    return LEAVE[request.param]


async def is_logged(proxy: Penstock, request_id: str) -> None:
    record = await proxy.log.find(id=request_id)
    assert (record["outcome"], record["details"]) == ("client_gone", "client_gone")


async def test_while_the_upstream_is_silent(
    proxy: Penstock, upstream: RawUpstream, leave: Callable[[RawClient], None]
) -> None:
    upstream.script = raw_upstream.then_stalls(b"")
    name = f"silent-{leave.__name__}"
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b"{}", f"X-Request-Id: {name}"))
        await upstream.request()
        leave(client)
        await upstream.idle()  # the script ends when the proxy has closed the connection
    await is_logged(proxy, name)


async def test_in_the_middle_of_the_stream(
    proxy: Penstock, upstream: RawUpstream, leave: Callable[[RawClient], None]
) -> None:
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD + chunk(CHAT_EVENTS[0]))
    name = f"middle-{leave.__name__}"
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b"{}", f"X-Request-Id: {name}"))
        await client.read_until(CHAT_EVENTS[0])
        leave(client)
        await upstream.idle()
    await is_logged(proxy, name)


async def test_while_the_upstream_is_sending(
    proxy: Penstock, upstream: RawUpstream, leave: Callable[[RawClient], None]
) -> None:
    async def flood(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD)
        while True:
            await connection.send(chunk(CHAT_EVENTS[0] * 100))

    upstream.script = flood
    name = f"sending-{leave.__name__}"
    async with connect(proxy.address, receive_buffer_bytes=4096) as client:
        await client.send(post("/v1/chat/completions", b"{}", f"X-Request-Id: {name}"))
        await client.read_until(CHAT_EVENTS[0])
        leave(client)
        await upstream.idle()
    await is_logged(proxy, name)


async def test_while_it_sends_its_body(
    proxy: Penstock, upstream: RawUpstream, leave: Callable[[RawClient], None]
) -> None:
    name = f"upload-{leave.__name__}"
    async with connect(proxy.address) as client:
        fields = ("Content-Length: 1000", "Expect: 100-continue", f"X-Request-Id: {name}")
        await client.send(get("/v1/chat/completions", *fields, method="POST"))
        assert (await client.read_head()).start.split(" ")[1] == "100"  # it reads the body now
        await client.send(b"{")
        leave(client)
    await is_logged(proxy, name)
    await upstream.idle()
    assert upstream.requests == [], "an incomplete body was completed"


async def test_while_nobody_takes_its_body(proxy: Penstock, upstream: RawUpstream) -> None:
    """The upstream does not read it, so the proxy does not either, and is not told of what happens behind it. (A FIN
    could not arrive: it waits behind the rest of the body, for which there is no room.)"""
    release = asyncio.Event()

    async def does_not_read(connection: UpstreamConnection) -> None:
        await release.wait()

    upstream.script = does_not_read
    async with connect(proxy.address) as client:
        fields = ("Content-Length: 30000000", "X-Request-Id: untaken")
        await client.send(get("/v1/chat/completions", *fields, method="POST"))
        sending = asyncio.create_task(client.send(b"x" * 29_000_000))
        await until(lambda: sending.done() or client.sent_bytes > 1_000_000, "much of the body to be sent")
        sending.cancel()
        client.reset()
    await is_logged(proxy, "untaken")
    release.set()


async def test_nothing_is_left_over(proxy: Penstock, upstream: RawUpstream, leave: Callable[[RawClient], None]) -> None:
    upstream.script = raw_upstream.then_closes(raw_upstream.reply())
    async with connect(proxy.address) as client:
        await client.exchange(get("/", "Connection: close"))
    before = proxy.open_files
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD)
    for _ in range(20):
        async with connect(proxy.address) as client:
            await client.send(get("/"))
            await client.read_head()
            leave(client)
    await upstream.idle()
    await until(lambda: proxy.open_files <= before, f"{before} open files again")
