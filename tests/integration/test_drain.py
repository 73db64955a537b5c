"""SIGTERM: what runs may finish, what comes is refused, and after the limit everything ends in its dialect's words."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from rigs.penstock import Penstock, configuration, run
from rigs.raw_client import connect, get, post
from rigs.raw_upstream import CHAT_EVENTS, LAST_CHUNK, Held, RawUpstream, UpstreamConnection, reply
from rigs.waiting import until
from rigs.wire import details

pytestmark = pytest.mark.aiohttp_paths

LONG = {"server": {"drain_s": 600.0}}
SHORT = {"server": {"drain_s": 0.2}}


@pytest.fixture
def start(upstream: RawUpstream, aiohttp_path: str, tmp_path: Path) -> Iterator[Callable[..., Penstock]]:
    """A proxy of the test's own: it ends with the test."""
    client = {"server": {"aiohttp": aiohttp_path}}
    with ExitStack() as stack:
        yield lambda *layers: stack.enter_context(run(configuration(upstream.url, client, *layers), tmp_path))


async def begins_to_drain(proxy: Penstock) -> None:
    proxy.signal(signal.SIGTERM)
    await until(lambda: any('"draining"' in line for line in proxy.operational_log), "the start of the drain")


CHAT = post("/v1/chat/completions", b'{"stream":true}', "X-Request-Id: running")


async def test_running_stream_finishes(start: Callable[..., Penstock], upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start(LONG)
    async with connect(proxy.address) as client:
        await client.send(CHAT)
        await client.read_until(CHAT_EVENTS[0])
        await begins_to_drain(proxy)
        held.release.set()
        rest = await client.read_to_end()  # and the connection is not kept
        assert rest.endswith(CHAT_EVENTS[-1] + b"\r\n" + LAST_CHUNK)
    assert await proxy.exit_status() == 0
    assert (await proxy.log.find(id="running"))["outcome"] == "complete"


async def test_new_connections_are_not_accepted(start: Callable[..., Penstock], upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start(LONG)
    async with connect(proxy.address) as client:
        await client.send(CHAT)
        await client.read_until(CHAT_EVENTS[0])
        await begins_to_drain(proxy)
        with pytest.raises(ConnectionError):
            async with connect(proxy.address) as late:
                await late.exchange(get("/"))
        held.release.set()
        await client.read_to_end()
    assert await proxy.exit_status() == 0


async def test_it_is_alive_but_not_ready(start: Callable[..., Penstock], upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start(LONG)
    async with connect(proxy.address) as client, httpx.AsyncClient(base_url=proxy.admin_url) as admin:
        await client.send(CHAT)
        await client.read_until(CHAT_EVENTS[0])
        assert (await admin.get("/readyz")).status_code == 200
        await begins_to_drain(proxy)
        assert (await admin.get("/readyz")).status_code == 503
        assert (await admin.get("/healthz")).status_code == 200
        held.release.set()
        await client.read_to_end()
    assert await proxy.exit_status() == 0


async def test_idle_connections_are_closed(start: Callable[..., Penstock], upstream: RawUpstream) -> None:
    proxy = start(LONG)
    async with connect(proxy.address) as client, connect(proxy.address) as fresh:
        assert (await client.exchange(get("/"))).status == 200
        await begins_to_drain(proxy)
        assert await client.read_to_end() == b""
        await fresh.ended()
    assert await proxy.exit_status() == 0


async def test_pipelined_request_is_refused(start: Callable[..., Penstock], upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start(LONG)
    async with connect(proxy.address) as client:
        await client.send(CHAT)
        await client.read_until(CHAT_EVENTS[0])
        await client.send(get("/v1/models", "X-Request-Id: late"))
        await begins_to_drain(proxy)
        held.release.set()
        rest = await client.read_to_end()
    assert rest.count(b"HTTP/1.1 ") == 0 or b"HTTP/1.1 503" in rest  # refused, or left for the next connection
    assert len(upstream.requests) == 1
    assert await proxy.exit_status() == 0


async def test_over_the_limit_streams_end_in_the_dialects_words(
    start: Callable[..., Penstock], upstream: RawUpstream
) -> None:
    Held(upstream)
    proxy = start(SHORT, {"policy": [{"use": "rig_watch"}]})
    async with connect(proxy.address) as client:
        await client.send(CHAT)
        await client.read_until(CHAT_EVENTS[0])
        await begins_to_drain(proxy)
        answer = (await client.read_to_end()).removeprefix(b"\r\n")
    assert answer.endswith(LAST_CHUNK)
    error = json.loads(answer.partition(b"data: ")[2].partition(b"\n\n")[0])["error"]
    assert error["code"] == "shutdown"
    assert await proxy.exit_status() == 0
    record = await proxy.log.find(id="running")
    assert (record["outcome"], record["details"], record["status"]) == ("shutdown", "shutdown", 200)


async def test_over_the_limit_what_has_not_begun_is_refused(
    start: Callable[..., Penstock], upstream: RawUpstream
) -> None:
    async def silent(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.ended()

    upstream.script = silent
    proxy = start(SHORT)
    async with connect(proxy.address) as client:
        await client.send(CHAT)
        await upstream.request()
        await begins_to_drain(proxy)
        answer = await client.reply()
    assert (answer.status, details(answer)) == (503, "shutdown")
    assert await proxy.exit_status() == 0
    assert (await proxy.log.find(id="running"))["outcome"] == "shutdown"


async def test_second_signal_ends_at_once(start: Callable[..., Penstock], upstream: RawUpstream) -> None:
    Held(upstream)
    proxy = start(LONG)
    async with connect(proxy.address) as client:
        await client.send(CHAT)
        await client.read_until(CHAT_EVENTS[0])
        await begins_to_drain(proxy)
        proxy.signal(signal.SIGTERM)
        answer = await client.read_to_end()
        assert await proxy.exit_status() == 0
    assert b'"code":"shutdown"' in answer
    assert answer.endswith(LAST_CHUNK)
    assert (await proxy.log.find(id="running"))["outcome"] == "shutdown"


async def test_request_that_is_being_sent_may_finish(start: Callable[..., Penstock], upstream: RawUpstream) -> None:
    upstream.script = _echo
    proxy = start(LONG)
    async with connect(proxy.address) as client:
        await client.send(get("/", "Content-Length: 4", "Expect: 100-continue", method="POST"))
        assert (await client.read_head()).start.split(" ")[1] == "100"
        await begins_to_drain(proxy)
        await client.send(b"done")
        assert (await client.reply()).body == b"done"
    assert await proxy.exit_status() == 0


async def _echo(connection: UpstreamConnection) -> None:
    await connection.send(reply((await connection.request()).body))
