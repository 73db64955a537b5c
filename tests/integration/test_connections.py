"""Caps on connections, in all and per address."""

from __future__ import annotations

import contextlib

import pytest
from rigs.penstock import StartPenstock
from rigs.raw_client import RawClient, connect, get
from rigs.raw_upstream import RawUpstream
from rigs.wire import details

pytestmark = pytest.mark.aiohttp_paths


async def is_refused(client: RawClient) -> None:
    """By a reply, unasked, and the end of the connection."""
    answer = await client.reply()
    assert (answer.status, details(answer)) == (503, "too_many_connections")
    assert answer.head.get("Retry-After") == "1"
    await client.ended()


async def test_cap_on_all_connections(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"limits": {"connections": 2}})
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(connect(proxy.address))
        second = await stack.enter_async_context(connect(proxy.address))
        for client in (first, second):
            assert (await client.exchange(get("/"))).status == 200
        async with connect(proxy.address) as third:
            await is_refused(third)
        assert (await first.exchange(get("/"))).status == 200  # those that are in stay in
        first.close()

        while True:  # as soon as the proxy has seen that one left
            async with connect(proxy.address) as fourth:
                with contextlib.suppress(ConnectionError):
                    if (await fourth.exchange(get("/"))).status == 200:
                        break
    record = await proxy.log.find(details="too_many_connections")
    assert (record["outcome"], record["status"]) == ("refused", 503)


async def test_cap_per_address(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"listeners": {"main": {"address": "0.0.0.0:0"}}, "limits": {"connections_per_ip": 1}})
    assert isinstance(proxy.address, tuple)
    port = proxy.address[1]
    async with connect(("127.0.0.1", port)) as first:
        assert (await first.exchange(get("/"))).status == 200
        async with connect(("127.0.0.1", port)) as second:
            await is_refused(second)
        async with connect(("127.0.0.1", port), source="127.0.0.2") as other:
            assert (await other.exchange(get("/"))).status == 200


async def test_connections_are_released(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"limits": {"connections": 1}})
    for _ in range(20):
        async with connect(proxy.address) as client:
            assert (await client.exchange(get("/", "Connection: close"))).status == 200
            await client.ended()  # the proxy has closed it, so the next may come in
