"""Slots on the wire: taken while a stream runs, and back whatever its end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import openai
import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, post
from rigs.raw_upstream import CHAT_EVENTS, STREAM_HEAD, Held, RawUpstream, chunk
from rigs.redis import RedisServer
from rigs.waiting import within_limit

from policies.stream_cap import StreamCap, StreamCapConfig
from proxy.assembly import PolicyHost
from proxy.errors import COMPLETE
from proxy.metrics import Metrics
from proxy.policy import PolicyStream
from proxy.state_redis import RedisStore
from proxy.testing import make_request

CAP: dict[str, Any] = {"use": "stream_cap", "cap": 2, "per": "all"}
ASK = post("/v1/chat/completions", b'{"model": "m", "stream": true, "messages": []}')
ROUTED = {"a": "model", "b": "model", "c": "other"}
STALLS = raw_upstream.then_stalls(STREAM_HEAD + chunk(CHAT_EVENTS[0]))


@pytest.fixture
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock({"policy": [CAP]})


async def assert_both_slots_are_free(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = STALLS
    async with connect(proxy.address) as one, connect(proxy.address) as two, connect(proxy.address) as three:
        heads = []
        for client in (one, two, three):
            await client.send(ASK)
            heads.append(await client.read_head())
    assert [head.start.split(" ")[1] for head in heads] == ["200", "200", "429"]
    await upstream.idle()


async def test_the_third_is_refused_until_one_has_ended(proxy: Penstock, upstream: RawUpstream) -> None:
    held = Held(upstream)
    async with connect(proxy.address) as one, connect(proxy.address) as two, connect(proxy.address) as three:
        for client in (one, two):
            await client.send(ASK)
            await client.read_until(CHAT_EVENTS[0])
        refused = await three.exchange(ASK)
        assert (refused.status, refused.head.get("Retry-After")) == (429, "1")
        assert refused.head.get("RateLimit-Policy") == '"stream_cap";q=2;qu="concurrent-requests"'
        held.release.set()
        await one.read_until(CHAT_EVENTS[-1])
        assert (await three.exchange(ASK)).status == 200


async def test_an_upstream_has_its_slots_whatever_the_route(penstock: StartPenstock, upstream: RawUpstream) -> None:
    routes = {name: {"path": f"/{name}", "upstream": upstreamed} for name, upstreamed in ROUTED.items()}
    upstreams = {"other": {"url": upstream.url}}
    proxy = penstock({"policy": [{**CAP, "per": "upstream", "cap": 1}], "routes": routes, "upstreams": upstreams})
    upstream.script = STALLS
    async with connect(proxy.address) as one, connect(proxy.address) as two, connect(proxy.address) as three:
        statuses = []
        for client, path in ((one, "a"), (two, "b"), (three, "c")):
            await client.send(post(f"/{path}", b'{"stream":true}'))
            statuses.append((await client.read_head()).start.split(" ")[1])
    assert statuses == ["200", "429", "200"]


@pytest.mark.parametrize("reset", [False, True])
async def test_clients_that_leave_take_nothing_with_them(proxy: Penstock, upstream: RawUpstream, reset: bool) -> None:
    upstream.script = STALLS
    for _ in range(3):
        async with connect(proxy.address) as one, connect(proxy.address) as two:
            for client in (one, two):
                await client.send(ASK)
                await client.read_until(CHAT_EVENTS[0])
            for client in (one, two):
                client.reset() if reset else client.close()
            await upstream.idle()
    await assert_both_slots_are_free(proxy, upstream)


@pytest.mark.parametrize(
    "script",
    [
        raw_upstream.then_closes(b""),
        raw_upstream.then_resets(STREAM_HEAD + chunk(CHAT_EVENTS[0])),
        raw_upstream.then_closes(STREAM_HEAD + chunk(CHAT_EVENTS[0]) + b"zz\r\n"),
    ],
    ids=["nothing", "reset", "garbage"],
)
async def test_nor_do_upstreams(proxy: Penstock, upstream: RawUpstream, script: raw_upstream.Script) -> None:
    upstream.script = script
    for _ in range(4):
        async with connect(proxy.address) as client:
            assert (await client.exchange(ASK)).status in (200, 502)
    await assert_both_slots_are_free(proxy, upstream)


async def test_the_queue(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"policy": [{**CAP, "cap": 1, "queue_length": 2, "queue_wait_s": 600.0}]})
    held = Held(upstream)
    async with (
        connect(proxy.address) as one,
        connect(proxy.address) as gone,
        connect(proxy.address) as two,
        connect(proxy.address) as three,
    ):
        await one.send(ASK)
        await one.read_until(CHAT_EVENTS[0])
        await gone.send(ASK)
        await two.send(ASK)
        assert (await three.exchange(ASK)).status == 429
        gone.reset()
        held.release.set()
        await within_limit(two.read_until(CHAT_EVENTS[-1]), "the slot of the one before")


async def test_the_openai_client_raises_its_own_error(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = STALLS
    async with connect(proxy.address) as one, connect(proxy.address) as two:
        for client in (one, two):
            await client.send(ASK)
            await client.read_until(CHAT_EVENTS[0])
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as sdk:
            with pytest.raises(openai.RateLimitError) as caught:
                await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    assert caught.value.code == "stream_cap"
    await upstream.idle()


async def test_two_processes_and_one_real_line(redis: RedisServer) -> None:
    """One client of a process is served at least about as often as each of those who crowd another."""
    served = {"busy": 0, "quiet": 0}
    active = most = 0

    async def client(policy: StreamCap, name: str) -> None:
        nonlocal active, most
        while served["busy"] < 60:
            stream = await policy.admit(make_request())
            assert isinstance(stream, PolicyStream)
            active += 1
            most = max(most, active)
            for _ in range(30):  # so long as this takes, or who waits could hardly ask meanwhile
                await policy.host.state.held("elsewhere")
            active -= 1
            stream.close(COMPLETE)
            served[name] += 1

    async with contextlib.AsyncExitStack() as stack:
        policies = {}
        for name in served:
            store = RedisStore(redis.config(timeout_ms=1000))
            await store.start()
            stack.push_async_callback(store.stop)
            host = PolicyHost("stream_cap", Metrics(), store)
            stack.push_async_callback(host.drain, 5.0)
            policies[name] = StreamCap(
                StreamCapConfig(cap=2, per="all", queue_length=10, queue_wait_s=60.0, lease_s=30.0), host
            )
        clients = [client(policies["busy"], "busy") for _ in range(6)] + [client(policies["quiet"], "quiet")]
        await within_limit(asyncio.gather(*clients), "so many turns")
    assert most == 2
    assert served["quiet"] >= 5
    assert redis.admin.keys("*") == []  # no slot and no place is left
