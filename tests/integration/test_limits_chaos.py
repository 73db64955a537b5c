"""The limits in a storm: 200 streams of one key at once, four processes, one Redis; clients leave, a process is killed.

A word of a reply is an event is a token. What is delivered is counted at the clients; how many requests the model has at
once, at the model; what is charged, and which slots are taken, in Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rigs.penstock import Penstock, configuration, run
from rigs.raw_client import RawClient, connect, post
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chat_event, chunk
from rigs.redis import RedisServer
from rigs.waiting import LIMIT_S, until, until_answered, within_limit

from proxy import state
from proxy.state import Window
from proxy.state_redis import RedisStore

STREAMS = 200
WORKERS = 4
MOST_WORDS = 120
LEASE_TOKENS = 32
MOST_UNUSED = LEASE_TOKENS + LEASE_TOKENS // 2
"""What one stream can hold: the next lease comes when half of the last is used."""
PLENTY = 1_000_000
LATELY_S = 3  # a window that can be waited for
KEY = "sk-alice-0123456789"
WORD = chat_event("x")
DONE = chunk(b"data: [DONE]\n\n") + LAST_CHUNK


class Books:
    """What Redis has for the key."""

    def __init__(self, store: RedisStore, prefix: str, budget: int) -> None:
        self._store = store
        self._budget = Window(budget, None)
        self.slots_key = state.key("stream_cap", "key:alice")
        self.slots_name = f"{prefix}:{{{self.slots_key}}}:leases"

    async def charged(self) -> int:
        return await self._charged("token_limit", self._budget)

    async def charged_lately(self) -> int:
        return await self._charged("lately", Window(PLENTY, LATELY_S))

    async def _charged(self, policy: str, window: Window) -> int:
        (level,) = await self._store.levels(state.key(policy, "output", "key:alice"), [window])
        return window.limit - level.remaining

    async def slots(self) -> int:
        return await self._store.held(self.slots_key)


class Model:
    """Says as many words as it is asked for, once `speak` is set; and counts the requests that it has at once."""

    def __init__(self, upstream: RawUpstream) -> None:
        self.speak = asyncio.Event()
        self.said: Counter[str] = Counter()  # words, by the request's id
        self.most_at_once = 0
        self._answering: dict[UpstreamConnection, str] = {}
        upstream.script = self._script

    @property
    def answering(self) -> set[str]:
        """The requests of now. One whose connection the proxy has closed is none, whether its script knows or not."""
        return {id for connection, id in self._answering.items() if not connection.at_end()}

    async def _script(self, connection: UpstreamConnection) -> None:
        while True:
            asked = await connection.request()
            id = asked.head.get("X-Request-Id") or ""
            self._answering[connection] = id
            self.most_at_once = max(self.most_at_once, len(self.answering))
            try:
                await self.speak.wait()
                await connection.send(STREAM_HEAD)
                for _ in range(json.loads(asked.body)["words"]):
                    self.said[id] += 1
                    await connection.send_chunk(WORD)
                    await asyncio.sleep(0)
            finally:
                del self._answering[connection]
            await connection.send(DONE)


@dataclass
class Stream:
    """One client, and what it got."""

    id: str
    words_asked: int
    leaves_after: int | None = None  # so many words
    worker: int = 0
    status: int = 0
    words: int = 0
    ended: bool = False
    ended_well: bool = False

    @classmethod
    def draw(cls, id: str, luck: random.Random) -> Stream:
        words = luck.randrange(MOST_WORDS + 1)
        leaves_after = luck.choice((0, luck.randrange(words + 1))) if luck.random() < 0.25 else None
        return cls(id, words, leaves_after)

    @property
    def request(self) -> bytes:
        fields = (f"Authorization: Bearer {KEY}", f"X-Request-Id: {self.id}", "Connection: close")
        return post("/v1/chat/completions", b'{"stream":true,"words":%d}' % self.words_asked, *fields)

    async def run(self, proxy: Penstock, model: Model) -> None:
        with contextlib.suppress(ConnectionError, EOFError):
            async with connect(proxy.address) as client:
                try:
                    await client.send(self.request)
                    await self._read(client, model)
                finally:
                    self.words = client.received.count(WORD)
        self.ended = True

    async def _read(self, client: RawClient, model: Model) -> None:
        if self.leaves_after == 0:
            await model.speak.wait()
        else:
            head = await client.read_head()
            self.status, self.worker = int(head.start.split(" ")[1]), int(head.get("X-Pid") or "0")
            while self.leaves_after is None or client.received.count(WORD) < self.leaves_after:
                if not await client.read_some():
                    self.ended_well = client.received.endswith(LAST_CHUNK)
                    return
        client.reset()


class Storm:
    """A proxy, and all that ask it at once."""

    def __init__(self, proxy: Penstock, model: Model, books: Books, seed: int) -> None:
        luck = random.Random(seed)
        self.proxy = proxy
        self.model = model
        self.books = books
        self.streams = [Stream.draw(f"stream-{number}", luck) for number in range(STREAMS)]

    @contextlib.asynccontextmanager
    async def raging(self) -> AsyncIterator[None]:
        """Every client asks; at the end of the block those who are left are waited for."""
        await within_limit(self._some_leave_at_once(), "those who do not wait")
        async with asyncio.TaskGroup() as clients:
            for stream in self.streams:
                clients.create_task(stream.run(self.proxy, self.model))
            yield

    async def _some_leave_at_once(self) -> None:
        """While they are admitted, or before."""
        for number in range(STREAMS // 5):
            async with connect(self.proxy.address) as client:
                await client.send(Stream(f"hasty-{number}", MOST_WORDS).request)
                client.reset()

    @property
    def delivered(self) -> int:
        return sum(stream.words for stream in self.streams)

    def charges(self) -> dict[str, int]:
        """Of the exchanges that have ended, by their ids: the tokens that each says it was charged."""
        facts = {record["id"]: record["facts"].get("token_limit", {}) for record in self.proxy.log.records}
        return {id: said.get("output_tokens", 0) for id, said in facts.items()}

    async def settled(self) -> None:
        """Return once Redis has charged what the exchanges say, and no slot is taken."""
        await until_answered(self.books.slots, lambda slots: slots == 0, "all slots")
        await until_answered(
            self.books.charged, lambda charged: charged == sum(self.charges().values()), "a settlement to what was used"
        )


Brew = Callable[..., AbstractAsyncContextManager[Storm]]


@pytest.fixture
def brew(upstream: RawUpstream, shared_redis: RedisServer, tmp_path: Path) -> Brew:
    """`brew(seed=1, budget=500, cap=10)`: a storm on a proxy of its own, with this budget of output and so many slots."""

    @contextlib.asynccontextmanager
    async def brew(
        seed: int, budget: int, *, cap: int = STREAMS, lease_s: float = 600.0, timeout_s: float = LIMIT_S
    ) -> AsyncIterator[Storm]:
        table = shared_redis.config(prefix=f"storm-{seed}", timeout_ms=int(timeout_s * 1000))
        queue = {"queue_length": 2 * STREAMS, "queue_wait_s": 600.0}
        total = [{"tokens": budget, "window_s": "total", "what": "output"}]
        lately = [{"tokens": PLENTY, "window_s": LATELY_S, "what": "output"}]
        policies = [
            {"use": "auth", "keys": [{"id": "alice", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]},
            {"use": "stream_cap", "cap": cap, "lease_s": lease_s, **queue},
            {"use": "rig_worker"},
            {"use": "token_limit", "windows": total, "lease_tokens": LEASE_TOKENS},
            {"use": "token_limit", "name": "lately", "windows": lately, "lease_tokens": LEASE_TOKENS},
        ]
        server = {"server": {"workers": WORKERS}, "state": table.model_dump(exclude_defaults=True)}
        store = RedisStore(shared_redis.config(prefix=table.prefix, timeout_ms=int(LIMIT_S * 1000)))
        with run(configuration(upstream.url, server, {"policy": policies}), tmp_path) as proxy:
            await until(lambda: len(proxy.events("worker_ready")) == WORKERS, f"{WORKERS} workers")
            await store.start()
            try:
                yield Storm(proxy, Model(upstream), Books(store, table.prefix, budget), seed)
            finally:
                await store.stop()

    return brew


async def test_whatever_is_not_used_comes_back(brew: Brew) -> None:
    async with brew(seed=1, budget=PLENTY) as storm:
        async with storm.raging():
            await until(lambda: storm.model.answering >= {it.id for it in storm.streams}, "all streams at once")
            storm.model.speak.set()
        await storm.settled()
        charges = storm.charges()
    assert len({stream.worker for stream in storm.streams if stream.worker}) == WORKERS
    for stream in storm.streams:
        if stream.leaves_after is None:
            assert stream.ended_well, stream
            assert stream.words == stream.words_asked == charges[stream.id], stream
        else:
            assert stream.words <= charges[stream.id] <= stream.words_asked, stream


async def test_never_more_than_the_budget_and_all_of_it(brew: Brew) -> None:
    budget = 4000
    async with brew(seed=2, budget=budget) as storm:
        asked = {stream.id for stream in storm.streams}
        assert sum(stream.words_asked for stream in storm.streams) > 2 * budget
        async with storm.raging():
            await until(lambda: storm.model.answering | storm.charges().keys() >= asked, "all streams, or refusals")
            storm.model.speak.set()
        await storm.settled()
        charges = storm.charges()
        assert 0.8 * budget < storm.delivered <= sum(charges.values()) <= budget
        for stream in storm.streams:
            assert stream.words <= charges[stream.id], stream
            if stream.leaves_after is None:
                assert stream.ended_well or stream.status == 429, stream
                assert stream.words == charges[stream.id], stream
        left = budget - sum(charges.values())
        last, refused = Stream("last", 2 * budget), Stream("refused", 1)
        await last.run(storm.proxy, storm.model)
        await storm.settled()
        await refused.run(storm.proxy, storm.model)
        assert (last.words, last.status) == (left, 200 if left else 429)
        assert refused.status == 429
        assert await storm.books.charged() == budget


@pytest.mark.parametrize("budget", [PLENTY, 6000], ids=["ample", "tight"])
async def test_a_killed_worker(brew: Brew, shared_redis: RedisServer, budget: int) -> None:
    """What it held is lost to a total, comes back to a window that slides, and its slots are free when their leases end."""
    cap, lease_s = 120, 5.0
    admin: Any = shared_redis.admin
    async with brew(seed=budget, budget=budget, cap=cap, lease_s=lease_s, timeout_s=0.4) as storm:
        async with storm.raging():
            await until(lambda: len(storm.model.answering) >= cap, "as many streams as may be at once")
            storm.model.speak.set()
            await until(lambda: storm.model.said.total() > 1500, "words")
            running = Counter(stream.worker for stream in storm.streams if stream.worker and not stream.ended)
            ((killed, _),) = running.most_common(1)
            os.kill(killed, signal.SIGKILL)
            await until(lambda: storm.proxy.events("worker_ended", pid=killed), "the end of the worker")
            ((_, last_ends_ms),) = admin.zrange(storm.books.slots_name, -1, -1, withscores=True)
            seconds, microseconds = admin.time()
            assert last_ends_ms <= 1000 * (seconds + lease_s) + microseconds / 1000
        assert storm.model.most_at_once == cap
        victims = {stream.id for stream in storm.streams if stream.worker == killed}
        assert any(not stream.ended_well for stream in storm.streams if stream.id in victims)

        await until_answered(storm.books.slots, lambda slots: slots == 0, "all slots")
        await until_answered(
            storm.books.charged_lately, lambda charged: charged == 0, "the whole of the sliding window"
        )

        # Those whose end nobody has told were the dead worker's. Each may have used what the model has said to it.
        charges = storm.charges()
        told = sum(charges.values())
        untold = {stream.id for stream in storm.streams} - charges.keys()
        most = told + sum(storm.model.said[id] for id in untold) + MOST_UNUSED * len(untold | victims)
        charged = await until_answered(
            storm.books.charged, lambda charged: charged <= most, "what the others did not use"
        )
        assert storm.delivered <= charged <= budget
        assert charged >= told + sum(stream.words for stream in storm.streams if stream.id in untold)
        for stream in storm.streams:
            if stream.leaves_after is None and stream.id not in untold | victims:
                assert stream.ended_well or stream.status != 200, stream
                assert stream.words == charges[stream.id], stream
