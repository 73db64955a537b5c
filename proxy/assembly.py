"""From a checked configuration to what runs: policies, upstreams, the route table. Nothing here sees a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from .config import Config, StateConfig
from .errors import PolicyError
from .exchange import Place, Route
from .metrics import Metrics
from .policy import Policy, PolicyStream
from .routing import RouteTable
from .state import Store
from .state_memory import MemoryStore
from .upstream import Upstream, pool_class
from .values import MEMORY

logger = logging.getLogger(__name__)

_LAST_TURNS = 3  # of the loop, for what is cancelled to end


def describe(exc: BaseException) -> str:
    """Where and what was raised, without its message: that may quote content."""
    place = ""
    trace = exc.__traceback__
    while trace is not None:
        place = f" at {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(exc).__name__}{place}"


class PolicyHost:
    """`policy.Host` for one policy: its name, the state store, the clock, supervised background work, its counters."""

    def __init__(self, name: str, metrics: Metrics, state: Store) -> None:
        self.name = name
        self.state = state
        self._metrics = metrics
        metrics.expect_refusals(name)
        self._tasks: set[asyncio.Task[None]] = set()

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    def spawn(self, work: Coroutine[Any, Any, None], stream: PolicyStream | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._finished(done, stream))

    def counter(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> Callable[..., None]:
        return self._metrics.policy_counter(self.name, name, documentation, labels)

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        self._metrics.policy_gauge(self.name, name, documentation, read)

    def _finished(self, task: asyncio.Task[None], stream: PolicyStream | None) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.error("background work of policy %s failed: %s", self.name, describe(exc))
        if stream is not None and stream._poke is not None:
            stream._poke(stream)

    async def drain(self, limit_s: float) -> None:
        """Wait for what was spawned, and what that spawns, then give up on it: what did not get through is left to its
        lease's expiry."""
        give_up_at = self.clock() + limit_s
        while self._tasks and self.clock() < give_up_at:
            await asyncio.wait(self._tasks, timeout=give_up_at - self.clock())
        for _ in range(_LAST_TURNS):  # what is cancelled may spawn once more
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0)


def make_store(table: StateConfig, policies: int = 1) -> Store:
    """The store that `[state]` asks for, not yet started. One in memory is shared out among so many `policies`."""
    if table.url == MEMORY:
        return MemoryStore(max(1, table.max_keys // max(1, policies)))
    from .state_redis import RedisStore  # its client is an extra

    return RedisStore(table)


class Assembly:
    """Everything that exchanges share. `start` before the first, `stop` after the last, also after a failed `start`."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._aiohttp = config.server.aiohttp
        self.upstreams = {name: Upstream(name, table, config.limits) for name, table in config.upstreams.items()}
        self.state = make_store(config.state, sum(entry.policy_class.needs_state for entry in config.policies))
        self._policies: list[tuple[Policy[Any], PolicyHost]] = []
        self._begun: list[tuple[Policy[Any], PolicyHost]] = []  # those whose `start` was called
        places: dict[str, Place] = {}
        for entry in config.policies:
            host = PolicyHost(entry.name, metrics, self.state)
            try:
                policy = entry.policy_class(entry.config, host)
            except Exception as exc:
                raise PolicyError(f"policy {entry.name!r} cannot be made: {exc}") from exc
            self._policies.append((policy, host))
            places[entry.name] = Place(entry.name, policy, entry.on_error == "bypass")
        self.routes = RouteTable(
            Route(
                name=name,
                path=table.path,
                hosts=table.hosts,
                dialect=table.dialect,
                rewrite=table.rewrite,
                upstream=self.upstreams[table.upstream],
                places=[places[entry.name] for entry in config.chain(name)],
            )
            for name, table in config.routes.items()
        )

    async def start(self) -> None:
        make_pool = pool_class(self._aiohttp)
        for upstream in self.upstreams.values():
            await upstream.start(make_pool)
        await self.state.start()
        for policy, host in self._policies:
            self._begun.append((policy, host))
            try:
                await policy.start()
            except Exception as exc:
                raise PolicyError(f"policy {host.name!r} does not start: {exc}") from exc

    async def stop(self, limit_s: float = 5.0) -> None:
        """`limit_s` is how long what policies do in the background may take, all together."""
        give_up_at = asyncio.get_running_loop().time() + limit_s
        while self._begun:
            policy, host = self._begun.pop(0)
            await host.drain(give_up_at - host.clock())
            try:
                await policy.stop()
            except Exception as exc:
                logger.error("policy %s did not stop: %s", host.name, describe(exc))
        await self.state.stop()
        for upstream in self.upstreams.values():
            await upstream.stop()
