"""How often the limits ask Redis, and that no event waits for an answer while its exchange holds what it needs."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from rigs.penstock import Penstock, configuration, run
from rigs.raw_client import connect, post
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chat_event, chunk
from rigs.redis import RedisServer
from rigs.waiting import LIMIT_S, until

from proxy import state

WORD = chat_event("x")
DONE = chunk(b"data: [DONE]\n\n") + LAST_CHUNK
STREAMS = 30
SLOT_LEASE_S = 5.0

Start = Callable[..., Penstock]


def tokens(budget: int) -> dict[str, Any]:
    """For each model a budget of its own; the leases are as large as they are if nothing is said."""
    windows = [{"tokens": budget, "window_s": "total", "what": "output"}]
    return {"use": "token_limit", "per": "model", "windows": windows}


def slots(lease_s: float = 600.0) -> dict[str, Any]:
    return {"use": "stream_cap", "cap": STREAMS, "per": "all", "lease_s": lease_s}


@pytest.fixture
def start(upstream: RawUpstream, redis: RedisServer, tmp_path: Path) -> Iterator[Start]:
    """`start(policy, ...)`: a proxy of the test's own, on its own Redis."""
    with ExitStack() as stack:

        def start(*policies: dict[str, Any], timeout_s: float = LIMIT_S) -> Penstock:
            table = redis.config(timeout_ms=int(timeout_s * 1000)).model_dump(exclude_defaults=True)
            layers = {"state": table, "policy": list(policies)}
            return stack.enter_context(run(configuration(upstream.url, layers), tmp_path))

        yield start


def ask(model: str, words: int = 0) -> bytes:
    body = json.dumps({"model": model, "stream": True, "words": words}).encode()
    return post("/v1/chat/completions", body, "Connection: close")


async def speaks(connection: UpstreamConnection) -> None:
    """So many words as the request says."""
    while True:
        request = await connection.request()
        await connection.send(STREAM_HEAD)
        for _ in range(json.loads(request.body)["words"]):
            await connection.send_chunk(WORD)
        await connection.send(DONE)


def charged(redis: RedisServer, model: str) -> int:
    """Read without a script, so that it does not count."""
    key = state.key("token_limit", "output", f"model:{model}")
    return int(redis.admin.hget(f"penstock:{{{key}}}:total", "used") or 0)


def slots_taken(redis: RedisServer) -> int:
    return int(redis.admin.zcard(f"penstock:{{{state.key('stream_cap', 'all')}}}:leases"))


async def round_trips(proxy: Penstock, redis: RedisServer, model: str, words: int) -> int:
    """The scripts that one exchange calls, once it is settled."""
    redis.admin.config_resetstat()
    async with connect(proxy.address) as client:
        await client.send(ask(model, words))
        assert (await client.read_to_end()).count(WORD) == words
    await until(lambda: charged(redis, model) == words and not slots_taken(redis), "the settlement")
    return redis.calls("evalsha") + redis.calls("eval")


@pytest.mark.parametrize("budget", [1_000_000, 1024, 300])
async def test_a_budget_is_asked_for_twice_and_for_each_begun_64_tokens(
    start: Start, upstream: RawUpstream, redis: RedisServer, budget: int
) -> None:
    upstream.script = speaks
    proxy = start(tokens(budget))
    await round_trips(proxy, redis, "warm", 200)  # Redis gets to know the scripts
    # None is a sum of leases: those need no settlement, and look settled before they are.
    for words in (0, 1, 31, 33, 63, 65, 95, 127, 129, 200, 255, 257, 400, 447, 999, 2999):
        if words <= budget - 64:
            trips = await round_trips(proxy, redis, f"model-{words}", words)
            assert 1 < trips <= 2 + math.ceil(words / 64), words


async def test_of_the_default_lease_most_is_used(start: Start, upstream: RawUpstream, redis: RedisServer) -> None:
    """With plenty left it is much less than one in 64 tokens."""
    upstream.script = speaks
    proxy = start(tokens(1_000_000))
    await round_trips(proxy, redis, "warm", 200)
    assert await round_trips(proxy, redis, "short", 100) == 2
    # One lease is fetched in advance, and one may be on its way at the end.
    assert await round_trips(proxy, redis, "long", 3000) <= 2 + 3000 / 256 + 2


async def test_a_slot_is_two_round_trips(start: Start, upstream: RawUpstream, redis: RedisServer) -> None:
    upstream.script = speaks
    proxy = start(slots())
    await round_trips(proxy, redis, "warm", 0)
    redis.admin.config_resetstat()
    for number in range(1, 4):
        async with connect(proxy.address) as client:
            await client.send(ask("any", 100))
            await client.read_to_end()
        await until(lambda: not slots_taken(redis), "the slot")
        assert redis.calls() == 2 * number


async def test_all_slots_of_a_process_are_renewed_at_once(
    start: Start, upstream: RawUpstream, redis: RedisServer
) -> None:
    release = asyncio.Event()

    async def waits(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(WORD))
        await release.wait()
        await connection.send(DONE)

    upstream.script = waits
    proxy = start(slots(SLOT_LEASE_S), timeout_s=0.4)
    leases = f"penstock:{{{state.key('stream_cap', 'all')}}}:leases"
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(proxy.address)) for _ in range(STREAMS)]
        for client in clients:
            await client.send(ask("any"))
        for client in clients:
            await client.read_until(WORD)
        redis.admin.config_resetstat()
        last = redis.admin.zrange(leases, -1, -1, withscores=True)[0][1]
        await until(lambda: redis.admin.zcount(leases, f"({last}", "+inf") == STREAMS, "later ends of all leases")
        assert 1 <= redis.calls() <= STREAMS / 10  # one, but for a machine that stood still
        release.set()
        for client in clients:
            await client.read_until(LAST_CHUNK)


async def test_events_do_not_wait_for_redis(start: Start, upstream: RawUpstream, redis: RedisServer) -> None:
    """It stands still from the second word on: renewal, settlement and the end of the slot are all on their way."""
    stalled = asyncio.Event()
    words = 250  # of a lease of 256, of which the next is asked for at the half

    async def goes_on(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(WORD))
        await stalled.wait()
        for _ in range(words - 1):
            await connection.send_chunk(WORD)
        await connection.send(DONE)

    upstream.script = goes_on
    proxy = start(slots(), tokens(1_000_000))
    async with connect(proxy.address) as client:
        await client.send(ask("any"))
        await client.read_until(WORD)
        redis.stall()
        try:
            stalled.set()
            await client.read_until(LAST_CHUNK)
            assert client.received.count(WORD) == words
        finally:
            redis.go_on()
    await until(lambda: charged(redis, "any") == words and not slots_taken(redis), "the settlement")


async def test_an_event_that_nothing_covers_waits_until_redis_is_back(
    start: Start, upstream: RawUpstream, redis: RedisServer
) -> None:
    stalled = asyncio.Event()

    async def goes_on(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(WORD))
        await stalled.wait()
        await connection.send(chunk(WORD * 500) + DONE)

    upstream.script = goes_on
    proxy = start(tokens(1_000_000))
    async with connect(proxy.address) as client:
        await client.send(ask("any"))
        await client.read_until(WORD)
        redis.stall()
        try:
            stalled.set()
            while client.received.count(WORD) < 256:
                await client.read_some()
            assert client.received.count(WORD) == 256
        finally:
            redis.go_on()
        await client.read_until(LAST_CHUNK)
        assert client.received.count(WORD) == 501
    await until(lambda: charged(redis, "any") == 501, "the settlement")
