"""I/O. The state that several processes share, in one Redis or Valkey server: `Store` over one pool of connections.

Each method is one script (`state_scripts.py`), so one round trip. Nobody waits longer than `timeout_ms`, connecting
included. Whoever stops waiting, because it was too long or because he was cancelled, leaves the question on its way: a task
reads the answer all the same, and gives back what it grants. So nothing is lost in a server that is only slow. What is
asked of one that is gone fails at once, and is not asked again: it may have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from . import state_scripts as scripts
from .errors import StateError
from .state import MOST, Grant, Level, Short, Usage, Window, check_amount

if TYPE_CHECKING:
    from .config import StateConfig
    from .state_scripts import Script

logger = logging.getLogger(__name__)

_LATE_S = 10.0  # how long an answer is read for which nobody waits any more
_TELL_EVERY_S = 10.0
_COUNTS = 4  # numbers that make one `Usage`

_Undo = Callable[[Any], Coroutine[Any, Any, None]]


class RedisStore:
    """`Store` in the server that `[state]` names."""

    shared = True

    def __init__(self, table: StateConfig) -> None:
        self._table = table
        self._timeout_s = table.timeout_ms / 1000
        self._client: Redis | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failing = False
        self._tell_at = 0.0  # a failure is not logged again before then

    async def start(self) -> None:
        """Connect. A server that is not there yet is no reason not to start; one that refuses us is."""
        self._client = Redis(connection_pool=self._make_pool())
        try:
            await self._ask(scripts.LEVELS, (), ())
        except StateError as exc:
            if _refuses(exc):
                raise

    async def stop(self) -> None:
        """Let what is on its way arrive, within bounds, and disconnect."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout_s)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        if self._client is not None:
            await self._client.connection_pool.disconnect()
            self._client = None

    def _make_pool(self) -> BlockingConnectionPool:
        table = self._table
        options: dict[str, Any] = {
            "username": table.username,
            "password": None if table.password is None else table.password.get_secret_value(),
            "max_connections": table.connections,
            "timeout": self._timeout_s,  # for a connection that is free
            "socket_connect_timeout": self._timeout_s,
            "socket_timeout": None,  # of each read and write: the bound here is on all of them
            "retry": Retry(NoBackoff(), 0),  # nothing is asked twice: it may have happened
            "protocol": 2,  # one round trip less for each connection
        }
        if table.url.startswith("rediss:"):
            options |= {"ssl_check_hostname": True, "ssl_ca_certs": table.ca_file}
        if not table.url.startswith("unix:"):
            options["socket_keepalive"] = True
        return BlockingConnectionPool.from_url(table.url, **options)

    # Counters

    async def take(self, key: str, windows: Sequence[Window], amount: int) -> Grant | Short:
        check_amount(amount)
        limits = [number for window in windows for number in (window.limit, window.seconds or 0)]

        def read(reply: list[int]) -> Grant | Short:
            granted, now_ms, *counts = reply
            usages = _usages(counts)
            if granted < len(windows):
                return usages[0].short(windows[granted], amount)
            levels = tuple(usage.level(window) for usage, window in zip(usages, windows, strict=True))
            return Grant(key, tuple(windows), amount, now_ms / 1000, levels)

        async def undo(reply: list[int]) -> None:
            taken = read(reply)
            if isinstance(taken, Grant):
                await self.give_back(taken, amount)

        return read(await self._ask(scripts.TAKE, self._pairs(key, windows), [amount, *limits], undo))

    async def give_back(self, grant: Grant, amount: int) -> None:
        check_amount(amount)
        parts = [(part, round(taken_at * 1000)) for part, taken_at in grant.parts(amount)]
        arguments = [*_lengths(grant.windows), *chain.from_iterable(parts)]
        await self._ask(scripts.GIVE_BACK, self._pairs(grant.key, grant.windows), arguments)

    async def charge(self, key: str, windows: Sequence[Window], amount: int) -> None:
        check_amount(amount)
        arguments = [min(amount, MOST), *_lengths(windows)]
        await self._ask(scripts.CHARGE, self._pairs(key, windows), arguments)

    async def levels(self, key: str, windows: Sequence[Window]) -> list[Level]:
        counts = await self._ask(scripts.LEVELS, self._pairs(key, windows), _lengths(windows))
        return [usage.level(window) for usage, window in zip(_usages(counts), windows, strict=True)]

    def _pairs(self, key: str, windows: Sequence[Window]) -> list[str]:
        """The two keys of each window, named as the library names them for the prefix "PREFIX:{KEY}"."""
        names: list[str] = []
        for window in windows:
            if window.seconds is None:
                names += [self._name(key, "total")] * 2
            else:
                current = self._name(key, f"{{{window.seconds}}}")
                names += [f"{current}/-1", current]
        return names

    def _name(self, key: str, what: str) -> str:
        """The braces are Redis Cluster's hash tag: what one script touches is in one place."""
        return f"{self._table.prefix}:{{{key}}}:{what}"

    # Leases

    async def acquire(self, key: str, cap: int, holder: str, ttl_s: float) -> bool:
        names = [self._name(key, "leases")]

        async def undo(reply: list[int]) -> None:
            """Only what was taken then: the holder may have asked again, and been answered in time."""
            _, new_until_ms = reply
            if new_until_ms:
                await self._ask(scripts.RELEASE, names, [holder, new_until_ms])

        held, _ = await self._ask(scripts.ACQUIRE, names, [cap, holder, _milliseconds(ttl_s)], undo)
        return bool(held)

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        keys = [self._name(key, "leases") for key, _ in leases]
        arguments: list[int | str] = [_milliseconds(ttl_s), *(holder for _, holder in leases)]
        return [bool(renewed) for renewed in await self._ask(scripts.RENEW, keys, arguments)]

    async def release(self, key: str, holder: str) -> None:
        await self._ask(scripts.RELEASE, [self._name(key, "leases")], [holder])

    async def held(self, key: str) -> int:
        return int(await self._ask(scripts.HELD, [self._name(key, "leases")], []))

    # The border

    async def _ask(
        self, script: Script, keys: Sequence[str], arguments: Sequence[int | str], undo: _Undo | None = None
    ) -> Any:
        """The script's reply. Raises StateError. `undo` is given a reply that came when nobody waited any more."""
        asked = self._spawn(self._run(script, keys, arguments))
        try:
            await asyncio.wait((asked,), timeout=self._timeout_s)
        except asyncio.CancelledError:
            self._abandon(asked, undo)
            raise
        if asked.done():
            reply = asked.result()
            if self._failing:
                self._failing = False
                logger.info("the state store is back")
            return reply
        self._abandon(asked, undo)
        raise self._failed(f"no answer within {self._table.timeout_ms} ms")

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[int | str]) -> Any:
        if self._client is None:
            raise StateError("the state store is not started")
        try:
            try:
                return await self._client.evalsha(script.name, len(keys), *keys, *arguments)
            except NoScriptError:  # the first time, and after a restart
                return await self._client.eval(script.source, len(keys), *keys, *arguments)
        except (RedisError, OSError) as exc:
            raise self._failed(_describe(exc)) from exc

    def _abandon(self, asked: asyncio.Task[Any], undo: _Undo | None) -> None:
        self._spawn(self._settle(asked, undo))

    async def _settle(self, asked: asyncio.Task[Any], undo: _Undo | None) -> None:
        with contextlib.suppress(StateError, TimeoutError):  # what it holds is then left to its window or lease
            async with asyncio.timeout(_LATE_S):
                reply = await asked
            if undo is not None:
                await undo(reply)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _failed(self, why: str) -> StateError:
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:
            self._tell_at = now + _TELL_EVERY_S
            self._failing = True
            logger.error("the state store is unavailable: %s", why)
        return StateError(f"the state store is unavailable: {why}")


def _refuses(exc: BaseException | None) -> bool:
    """Whether the server is there and does not let us in."""
    while exc is not None and not isinstance(exc, AuthenticationError | NoPermissionError):
        exc = exc.__cause__  # on a Unix socket the client wraps it
    return exc is not None


def _describe(exc: Exception) -> str:
    """An error of the server's may quote keys, which name clients: only its first word is told."""
    own = isinstance(exc, RedisConnectionError | RedisTimeoutError | OSError)
    return f"{type(exc).__name__}: {exc if own else str(exc).partition(' ')[0]}"


def _usages(counts: Sequence[int]) -> list[Usage]:
    """From counts and milliseconds, as the scripts give them."""
    rows = (counts[start : start + _COUNTS] for start in range(0, len(counts), _COUNTS))
    return [Usage(previous, previous_ms / 1000, now, now_ms / 1000) for previous, previous_ms, now, now_ms in rows]


def _lengths(windows: Sequence[Window]) -> list[int]:
    return [window.seconds or 0 for window in windows]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
