"""I/O. The state that several processes share, in one Redis or Valkey server: `Store` over one pool of connections.

Each method is one script (`state_scripts.py`), so one round trip. Nobody who asks waits longer than `timeout_ms`, connecting
included. Whoever stops waiting, because it was too long or because he was cancelled, leaves the question on its way: a task
reads the answer all the same, and gives back what it grants. So nothing is lost in a server that is only slow.

A server that did not answer in time, broke a connection, or is none that can be written to is looked for in the
background, at once and then every second, on a new connection each time. Until it answers, or one of the questions that
are on their way is answered, everybody is told so at once. What was asked is not asked again: it may have happened.

Not supported: Redis Cluster (leases of many keys are renewed at once). It is refused at the start. A failover that keeps
the address (Sentinel behind a proxy, a managed service) is: a server that has become a replica is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from . import state_scripts as scripts
from .errors import StateError
from .state import MOST, PATIENCE_S, Grant, Level, Short, Usage, Window, check_amount

if TYPE_CHECKING:
    from .config import StateConfig
    from .state_scripts import Script

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_TELL_EVERY_S = 10.0
_LEASES, _LINE, _LEAVING = "leases", "line", "leaving"
_COUNTS = 4  # numbers that make one `Usage`

_NO_MASTER = (ReadOnlyError, MasterDownError, BusyLoadingError)
_GONE = (RedisConnectionError, RedisTimeoutError, OSError, *_NO_MASTER)

_Undo = Callable[[Any], Coroutine[Any, Any, None]]


class _NotAsked(StateError):
    """There was no connection: it has certainly not happened."""


class RedisStore:
    """`Store` in the server that `[state]` names."""

    shared = True

    def __init__(self, table: StateConfig, patience_s: float = PATIENCE_S) -> None:
        self._table = table
        self._timeout_s = table.timeout_ms / 1000
        self._patience_s = patience_s
        self._pool: BlockingConnectionPool | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asked: set[asyncio.Task[Any]] = set()  # of these, questions that are on their way
        self._looking: asyncio.Task[None] | None = None
        self._answers = asyncio.Event()  # as far as is known
        self._why = "it is not started"  # it does not
        self._failing = False
        self._tell_at = 0.0  # a failure is not logged again before then

    async def start(self) -> None:
        """Connect. A server that is not there yet is no reason not to start; one that refuses us is."""
        self._pool = self._make_pool(self._table.connections)
        self._answers.set()
        try:
            await self._ask(scripts.CHECK, self._check_keys(), ())
        except StateError as exc:
            if _refuses(exc):
                raise
            self._look()

    async def stop(self) -> None:
        """Let what is on its way arrive, within bounds, and disconnect."""
        if self._looking is not None:
            self._looking.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout_s)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        if self._pool is not None:
            await self._pool.disconnect()
            self._pool = None
            self._answers.clear()
            self._why = "it is not started"

    def _make_pool(self, connections: int) -> BlockingConnectionPool:
        table = self._table
        options: dict[str, Any] = {
            "username": table.username,
            "password": None if table.password is None else table.password.get_secret_value(),
            "max_connections": connections,
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
        await self._settle(scripts.GIVE_BACK, self._pairs(grant.key, grant.windows), arguments)

    async def charge(self, key: str, windows: Sequence[Window], amount: int) -> None:
        check_amount(amount)
        arguments = [min(amount, MOST), *_lengths(windows)]
        await self._settle(scripts.CHARGE, self._pairs(key, windows), arguments)

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

    async def acquire(
        self, key: str, cap: int, holder: str, ttl_s: float, *, waited_s: float = 0.0, keep_s: float = 0.0
    ) -> bool:
        names = self._slots(key)

        async def undo(reply: list[int]) -> None:
            """Only what was taken then: the holder may have asked again, and been answered in time."""
            _, new_until_ms = reply
            if new_until_ms or keep_s:
                await self._settle(scripts.RELEASE, names, [holder, new_until_ms])

        times = [_milliseconds(ttl_s), round(waited_s * 1000), round(keep_s * 1000)]
        held, _ = await self._ask(scripts.ACQUIRE, names, [cap, holder, *times], undo)
        return bool(held)

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        keys = [self._name(key, _LEASES) for key, _ in leases]
        arguments: list[int | str] = [_milliseconds(ttl_s), *(holder for _, holder in leases)]
        return [bool(renewed) for renewed in await self._ask(scripts.RENEW, keys, arguments)]

    async def release(self, key: str, holder: str) -> None:
        await self._settle(scripts.RELEASE, self._slots(key), [holder])

    async def held(self, key: str) -> int:
        return int(await self._ask(scripts.HELD, [self._name(key, _LEASES)], []))

    def _slots(self, key: str) -> list[str]:
        return [self._name(key, what) for what in (_LEASES, _LINE, _LEAVING)]

    # The border

    async def _ask(
        self, script: Script, keys: Sequence[str], arguments: Sequence[int | str], undo: _Undo | None = None
    ) -> Any:
        """The script's reply. Raises StateError. `undo` is given a reply that came when nobody waited any more."""
        if not self._answers.is_set():
            raise self._unavailable()
        asked = self._send(script, keys, arguments)
        try:
            await asyncio.wait((asked,), timeout=self._timeout_s)
        except asyncio.CancelledError:
            self._abandon(asked, undo)
            raise
        if asked.done() and not asked.cancelled():
            return asked.result()
        self._abandon(asked, undo)
        self._fail(f"no answer within {self._table.timeout_ms} ms")
        self._look()
        raise self._unavailable()

    async def _settle(self, script: Script, keys: Sequence[str], arguments: Sequence[int | str]) -> None:
        """Run the script once the server answers. Raises StateError where that takes too long, or nobody can say whether
        it was run. Cancelled, or too late, it is run all the same if it is on its way."""
        if self._pool is None:
            raise self._unavailable()
        asked: asyncio.Task[Any] | None = None
        try:
            async with asyncio.timeout(self._patience_s):
                while True:
                    await self._answers.wait()
                    asked = self._send(script, keys, arguments)
                    with contextlib.suppress(_NotAsked):
                        await asyncio.shield(asked)
                        return
        except TimeoutError:
            raise self._unavailable() from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if asked is None or not asked.cancelled() or task is None or task.cancelling():
                raise
            raise self._unavailable() from None  # its connection led nowhere

    def _send(self, script: Script, keys: Sequence[str], arguments: Sequence[int | str]) -> asyncio.Task[Any]:
        asked = self._spawn(self._run(self._pool, script, keys, arguments))
        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)
        return asked

    async def _run(
        self, pool: BlockingConnectionPool | None, script: Script, keys: Sequence[str], arguments: Sequence[int | str]
    ) -> Any:
        """The script's reply, for which `PATIENCE_S` is the longest anybody waits."""
        if pool is None:
            raise self._unavailable()
        asked = False
        try:
            async with asyncio.timeout(self._patience_s):
                connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's
                try:
                    asked = True
                    await connection.send_command("EVALSHA", script.name, len(keys), *keys, *arguments)
                    try:
                        reply = await connection.read_response()
                    except NoScriptError:  # the first time, and after a restart
                        await connection.send_command("EVAL", script.source, len(keys), *keys, *arguments)
                        reply = await connection.read_response()
                finally:
                    await pool.release(connection)
        except (RedisError, OSError) as exc:
            self._fail(_describe(exc))
            if isinstance(exc, _GONE):
                self._look()
            raise self._unavailable(_NotAsked if not asked or isinstance(exc, _NO_MASTER) else StateError) from exc
        if pool is self._pool:
            self._heard()
        return reply

    def _abandon(self, asked: asyncio.Task[Any], undo: _Undo | None) -> None:
        if undo is not None:
            self._spawn(self._undo(asked, undo))

    async def _undo(self, asked: asyncio.Task[Any], undo: _Undo) -> None:
        with contextlib.suppress(StateError):  # what it holds is then left to its window or lease
            await undo(await asked)

    # Where it does not answer

    def _look(self) -> None:
        self._answers.clear()
        if self._looking is None or self._looking.done():
            self._looking = self._spawn(self._look_for_it())

    async def _look_for_it(self) -> None:
        while not self._answers.is_set():
            pool = self._make_pool(1)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._run(pool, scripts.CHECK, self._check_keys(), ())
            except (StateError, TimeoutError):
                await asyncio.sleep(_LOOK_EVERY_S)
            else:
                await self._leave_the_dead()
                self._heard()
            finally:
                await pool.disconnect()

    async def _leave_the_dead(self) -> None:
        """The server has answered on a new connection: older ones, on which it does not, lead nowhere."""
        if self._asked:
            _, unanswered = await asyncio.wait(set(self._asked), timeout=self._timeout_s)
            for question in unanswered:
                question.cancel()
        if self._pool is not None:
            await self._pool.disconnect(inuse_connections=False)

    def _check_keys(self) -> list[str]:
        return [self._name(key, "check") for key in ("one", "two")]

    def _heard(self) -> None:
        self._answers.set()
        if self._failing:
            self._failing = False
            logger.info("the state store is back")

    def _fail(self, why: str) -> None:
        self._why = why
        now = asyncio.get_running_loop().time()
        if now >= self._tell_at:
            self._tell_at = now + _TELL_EVERY_S
            self._failing = True
            logger.error("the state store is unavailable: %s", why)

    def _unavailable(self, kind: type[StateError] = StateError) -> StateError:
        return kind(f"the state store is unavailable: {self._why}")

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # there may be nobody else who looks at it


def _refuses(exc: BaseException | None) -> bool:
    """Whether the server is there and does not let us in, or is one that we cannot use."""
    while exc is not None and not (isinstance(exc, AuthenticationError | NoPermissionError) or _is_of_cluster(exc)):
        exc = exc.__cause__  # on a Unix socket the client wraps it
    return exc is not None


def _is_of_cluster(exc: BaseException) -> bool:
    """What only a server in cluster mode says."""
    return isinstance(exc, ClusterCrossSlotError | ClusterDownError) and not isinstance(exc, MasterDownError)


def _describe(exc: Exception) -> str:
    """An error of the server's may quote keys, which name clients: only its first word is told."""
    if _is_of_cluster(exc):
        return "the server is in cluster mode, which is not supported"
    own = isinstance(exc, _GONE)
    return f"{type(exc).__name__}: {exc if own else str(exc).partition(' ')[0]}"


def _usages(counts: Sequence[int]) -> list[Usage]:
    """From counts and milliseconds, as the scripts give them."""
    rows = (counts[start : start + _COUNTS] for start in range(0, len(counts), _COUNTS))
    return [Usage(previous, previous_ms / 1000, now, now_ms / 1000) for previous, previous_ms, now, now_ms in rows]


def _lengths(windows: Sequence[Window]) -> list[int]:
    return [window.seconds or 0 for window in windows]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
