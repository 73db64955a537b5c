"""Five hundred streams at once, each with faults of its own; afterwards nothing is left and every exchange has one outcome.

The proxy runs in this process, on aiohttp's real runner, so that tasks, timers and objects can be counted too.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import json
import os
import random
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from rigs import faults
from rigs.aiohttp_paths import told
from rigs.penstock import RIG_POLICIES, Record, configuration, toml
from rigs.raw_client import Address, RawClient, connect, post
from rigs.raw_upstream import CHAT_EVENTS, LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk
from rigs.waiting import until, within_limit

from proxy.config import load
from proxy.errors import OutcomeKind
from proxy.exchange import Exchange
from proxy.relay import Relay
from proxy.server import Server
from proxy.values import TCPAddress

pytestmark = pytest.mark.aiohttp_paths

STREAMS = 500
EVENTS = 30
SILENCE_S = 8.0  # far longer than this busy loop takes to let all of them in
MOST_S = 55.0


# --- what the upstream does

Upstream = Callable[[UpstreamConnection, random.Random], Awaitable[None]]


async def _well(connection: UpstreamConnection, luck: random.Random) -> None:
    await connection.send(STREAM_HEAD)
    for number in range(EVENTS):
        await connection.send(chunk(CHAT_EVENTS[number % 3]), piece_bytes=luck.choice((7, 1 << 16)))
        if luck.random() < 0.3:
            await asyncio.sleep(0)
    await connection.send(chunk(CHAT_EVENTS[-1]) + LAST_CHUNK)


async def _stalls(connection: UpstreamConnection, luck: random.Random) -> None:
    await connection.send(STREAM_HEAD + chunk(CHAT_EVENTS[0]))
    await connection.ended()


async def _silent(connection: UpstreamConnection, luck: random.Random) -> None:
    await connection.ended()


def _broken(answer: bytes, *, reset: bool) -> Upstream:
    async def script(connection: UpstreamConnection, luck: random.Random) -> None:
        await connection.send(answer, piece_bytes=luck.choice((5, 1 << 16)))
        connection.reset() if reset else connection.close()

    return script


BEGUN = STREAM_HEAD + chunk(CHAT_EVENTS[0]) + chunk(CHAT_EVENTS[1])
UPSTREAMS: dict[str, tuple[Upstream, OutcomeKind]] = {
    "well": (_well, OutcomeKind.COMPLETE),
    "stalls": (_stalls, OutcomeKind.TIMEOUT),
    "is silent": (_silent, OutcomeKind.TIMEOUT),
    "closes": (_broken(b"", reset=False), OutcomeKind.UPSTREAM_ERROR),
    "resets": (_broken(BEGUN, reset=True), OutcomeKind.UPSTREAM_ERROR),
    "truncates": (_broken(BEGUN, reset=False), OutcomeKind.UPSTREAM_TRUNCATED),
    "truncates an event": (
        _broken(STREAM_HEAD + chunk(faults.HALF_EVENT), reset=False),
        OutcomeKind.UPSTREAM_TRUNCATED,
    ),
    "garbage head": (_broken(b"what?\r\n\r\n", reset=False), OutcomeKind.UPSTREAM_GARBAGE),
    "garbage chunk": (_broken(BEGUN + b"zz\r\n" + b"x" * 50, reset=False), OutcomeKind.UPSTREAM_GARBAGE),
}


# --- what the client does


async def _reads(client: RawClient, luck: random.Random) -> None:
    with contextlib.suppress(EOFError, ConnectionError):
        await client.reply()


async def _reads_slowly(client: RawClient, luck: random.Random) -> None:
    with contextlib.suppress(ConnectionError):
        while await client.read_some(200):
            await asyncio.sleep(0)


async def _leaves(client: RawClient, luck: random.Random) -> None:
    limit = luck.choice((0, 1, 100, 500, 2000))
    with contextlib.suppress(ConnectionError):
        while len(client.received) < limit and await client.read_some(50):
            pass
    luck.choice((RawClient.close, RawClient.reset))(client)


CLIENTS = {"reads": _reads, "reads slowly": _reads_slowly, "leaves": _leaves}


class Plan(NamedTuple):
    """One stream of the storm."""

    id: str
    upstream: str
    client: str
    path: str
    cut_request: bool  # the client leaves while it sends

    @classmethod
    def draw(cls, number: int, luck: random.Random) -> Plan:
        upstream = luck.choices(list(UPSTREAMS), [8, *([1] * (len(UPSTREAMS) - 1))])[0]
        client = luck.choices(list(CLIENTS), [5, 2, 4])[0]
        path = luck.choice(("/read", "/pass")) + "/v1/chat/completions"
        return cls(f"storm-{number}", upstream, client, path, cut_request=luck.random() < 0.05)


# --- the storm


@contextlib.asynccontextmanager
async def serving(upstream: RawUpstream, aiohttp_path: str, folder: Path) -> AsyncIterator[Server]:
    chain = [
        {"use": "cors", "allow_origins": ["*"]},
        {"use": "idle_timeout", "first_byte_s": SILENCE_S, "silence_s": SILENCE_S, "deadline_s": 40.0},
        {"use": "rig_watch", "routes": ["read"]},
        {"use": "heartbeat", "interval_s": 0.5, "before_first_byte_s": 0.5, "routes": ["read"]},
        {"use": "compression"},
    ]
    routes = {"all": {"path": "/pass"}, "read": {"path": "/read", "rewrite": "/", "upstream": "model"}}
    layer = {
        "policy": chain,
        "routes": routes,
        "upstreams": {"model": {"pool_idle_s": 0.2}},
        "server": {"aiohttp": aiohttp_path},
    }
    (folder / "penstock.toml").write_text(toml(configuration(upstream.url, layer)))
    async with Server(load(folder / "penstock.toml")) as server:
        yield server


async def storm(address: Address, upstream: RawUpstream, plans: list[Plan], luck: random.Random) -> None:
    by_id = {plan.id: plan for plan in plans}
    on_their_way = set(by_id)
    all_are_in = asyncio.Event()
    seeds = {plan.id: luck.random() for plan in plans}

    async def play(connection: UpstreamConnection) -> None:
        while connection.is_open:
            request = await connection.request()
            plan = by_id[request.head.get("X-Request-Id") or ""]
            await all_are_in.wait()
            await UPSTREAMS[plan.upstream][0](connection, random.Random(seeds[plan.id]))

    async def run(plan: Plan) -> None:
        own = random.Random(seeds[plan.id])
        async with connect(address, receive_buffer_bytes=own.choice((4096, None))) as client:
            kept = "keep-alive" if plan.client == "reads" else "close"  # the others read to the end of the connection
            coding = own.choice(("identity", "gzip", "br", "zstd"))
            fields = (f"X-Request-Id: {plan.id}", f"Connection: {kept}", f"Accept-Encoding: {coding}")
            request = post(plan.path, b'{"stream":true}', *fields)
            await client.send(request[: own.randrange(len(request))] if plan.cut_request else request)
            on_their_way.remove(plan.id)
            if not on_their_way:
                all_are_in.set()
            if not plan.cut_request:
                await CLIENTS[plan.client](client, own)

    upstream.script = play
    await asyncio.gather(*(run(plan) for plan in plans))


class Census(NamedTuple):
    """What the process holds."""

    tasks: int
    timers: int
    files: int

    @classmethod
    def take(cls) -> Census:
        scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # asyncio's own list
        timers = [handle for handle in scheduled if not handle.cancelled()]
        return cls(len(asyncio.all_tasks()), len(timers), len(os.listdir("/proc/self/fd")))


@pytest.fixture
def enough_files() -> Iterator[None]:
    """Both ends of both connections of every stream are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8 * STREAMS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("enough_files")
@pytest.mark.parametrize("seed", [20_240_229])
async def test_storm(
    seed: int,
    upstream: RawUpstream,
    aiohttp_path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    print(f"seed {seed}")
    monkeypatch.syspath_prepend(str(RIG_POLICIES))
    luck = random.Random(seed)
    plans = [Plan.draw(number, luck) for number in range(STREAMS)]
    began = time.monotonic()
    async with serving(upstream, aiohttp_path, tmp_path) as server:
        bound = server.addresses["main"]
        assert isinstance(bound, TCPAddress)
        before = Census.take()
        await within_limit(storm((bound.host, bound.port), upstream, plans, luck), "the end of the storm", MOST_S)
        await upstream.idle()
        await until(
            lambda: all(now <= then for now, then in zip(Census.take(), before, strict=True)), f"{before} again"
        )
        gc.collect()
        left = [type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, (Exchange, Relay))]
        assert left == []
        assert b'penstock_active_exchanges{route="read"} 0.0' in server.metrics.expose("")[1]
        assert b"penstock_open_connections 0.0" in server.metrics.expose("")[1]
    assert time.monotonic() - began < MOST_S
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    ends = {name: told(aiohttp_path, f"{name}, in the storm", end) for name, (_, end) in UPSTREAMS.items()}
    each_is_logged_once(plans, ends, records, {request.head.get("X-Request-Id") for request in upstream.requests})


def each_is_logged_once(
    plans: list[Plan], ends: dict[str, OutcomeKind], records: list[Record], arrived: set[str | None]
) -> None:
    counted = collections.Counter(record["id"] for record in records if record["id"].startswith("storm-"))
    assert [name for name, count in counted.items() if count != 1] == []
    assert arrived <= counted.keys()
    outcomes = {record["id"]: OutcomeKind(record["outcome"]) for record in records}
    assert set(outcomes.values()) >= {*ends.values(), OutcomeKind.CLIENT_GONE}
    for plan in plans:
        expected = ends[plan.upstream]
        if plan.cut_request:
            assert outcomes.get(plan.id, OutcomeKind.REFUSED) in (OutcomeKind.REFUSED, OutcomeKind.CLIENT_GONE), plan
        elif plan.client == "leaves":
            assert outcomes.get(plan.id, OutcomeKind.CLIENT_GONE) in (expected, OutcomeKind.CLIENT_GONE), plan
        else:
            assert outcomes[plan.id] is expected, plan
