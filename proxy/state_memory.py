"""The state of one process, in its memory. Time is a clock that is given; nothing here waits, so each call is atomic.

Bounded: what has expired is dropped, a little with each new entry, and no more than `max_keys` counters are ever kept.
A new one that finds no room is a `StateError`: forgetting somebody's usage instead would let a flood of new
identities lift everybody's limits. Leases are as many as the exchanges that hold them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import islice
from math import floor, inf

from limits.aio.storage import MemoryStorage

from .errors import StateError
from .state import MOST, Grant, Level, Short, Usage, Window, check_amount

_SWEPT = 4  # expired entries dropped for each new one: more than one, so that they get fewer


class SlidingWindows(MemoryStorage):
    """The library's storage, with its sliding windows as they are, but for two things. Time is `now`. And what has expired
    is dropped in its order: the library's own sweep goes through all keys, for each hit, and with very many keys that
    stops the process for a second each time."""

    def __init__(self, max_keys: int) -> None:
        super().__init__()
        self.now = 0.0
        self._max_keys = max_keys
        self._expiring: list[tuple[float, str]] = []  # a heap

    async def get(self, key: str) -> int:
        return self.storage.get(key, 0)  # a window's key holds its number: an old one is never asked for

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        if key not in self.storage:
            self._sweep()
            if len(self.storage) >= self._max_keys:
                raise StateError("the memory store has no room for another counter")
            heappush(self._expiring, (self.now + expiry, key))
        self.storage[key] += amount
        return self.storage[key]

    async def decr(self, key: str, amount: int = 1) -> int:
        if key in self.storage:
            self.storage[key] = max(0, self.storage[key] - amount)
        return self.storage.get(key, 0)

    def _sweep(self) -> None:
        for _ in range(_SWEPT):
            if not self._expiring or self._expiring[0][0] > self.now:
                return
            del self.storage[heappop(self._expiring)[1]]

    def sliding_window_keys(self, key: str, expiry: int, at: float) -> tuple[str, str]:  # type: ignore[override]
        return self.window_key(key, expiry, self.now - expiry), self.window_key(key, expiry, self.now)

    async def _get_sliding_window_info(
        self, previous_key: str, current_key: str, expiry: int, now: float
    ) -> tuple[int, float, int, float]:
        return await super()._get_sliding_window_info(previous_key, current_key, expiry, self.now)

    @staticmethod
    def window_key(key: str, expiry: int, at: float) -> str:
        """The key of the window that runs at the time `at`."""
        return f"{key}/{floor(at / expiry)}"


class MemoryStore:
    """`Store` for one process. `clock` gives seconds and never goes back."""

    shared = False

    def __init__(self, max_keys: int = 1_000_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.counters = SlidingWindows(max_keys)
        # The holders of each key and when their leases expire, the first to expire first; of the keys, the one that was
        # looked at least lately comes first.
        self.leases: dict[str, dict[str, float]] = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    # Counters

    async def take(self, key: str, windows: Sequence[Window], amount: int) -> Grant | Short:
        check_amount(amount)
        now = self._tick()
        for number, window in enumerate(windows):
            granted = False
            try:
                granted = await self._hit(key, window, amount)
            finally:
                if not granted:
                    await self.give_back(Grant(key, tuple(windows[:number]), amount, now), amount)
            if not granted:
                return (await self._usage(key, window)).short(window, amount)
        return Grant(key, tuple(windows), amount, now, tuple(await self.levels(key, windows)))

    async def give_back(self, grant: Grant, amount: int) -> None:
        check_amount(amount)
        for part, taken_at in grant.parts(amount):
            for _, seconds in grant.windows:
                name = _name(grant.key, seconds)
                if seconds is not None:
                    name = self.counters.window_key(name, seconds, taken_at)
                await self.counters.decr(name, part)

    async def charge(self, key: str, windows: Sequence[Window], amount: int) -> None:
        check_amount(amount)
        self._tick()
        for window in windows:
            await self._hit(key, window._replace(limit=sys.maxsize), min(amount, MOST))

    async def levels(self, key: str, windows: Sequence[Window]) -> list[Level]:
        self._tick()
        return [(await self._usage(key, window)).level(window) for window in windows]

    def _tick(self) -> float:
        self.counters.now = self._clock()
        return self.counters.now

    async def _hit(self, key: str, window: Window, amount: int) -> bool:
        limit, seconds = window
        name = _name(key, seconds)
        if seconds is not None:
            return await self.counters.acquire_sliding_window_entry(name, limit, seconds, amount)
        if await self.counters.get(name) + amount > limit:
            return False
        await self.counters.incr(name, inf, amount)
        return True

    async def _usage(self, key: str, window: Window) -> Usage:
        name = _name(key, window.seconds)
        if window.seconds is not None:
            return Usage(*await self.counters.get_sliding_window(name, window.seconds))
        return Usage(0, 0.0, await self.counters.get(name), inf)

    # Leases

    async def acquire(self, key: str, cap: int, holder: str, ttl_s: float) -> bool:
        now = self._clock()
        for oldest in list(islice(self.leases, _SWEPT)):
            self._live(oldest, now)
        leases = self._live(key, now)
        if holder not in leases and len(leases) >= cap:
            return False
        _put(leases, holder, now + ttl_s)
        self.leases[key] = leases
        return True

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        now = self._clock()
        renewed = []
        for key, holder in leases:
            live = self._live(key, now)
            renewed.append(holder in live)
            if holder in live:
                _put(live, holder, now + ttl_s)
        return renewed

    async def release(self, key: str, holder: str) -> None:
        self.leases.get(key, {}).pop(holder, None)
        self._live(key, self._clock())

    async def held(self, key: str) -> int:
        return len(self._live(key, self._clock()))

    def _live(self, key: str, now: float) -> dict[str, float]:
        """The leases of `key` without the expired ones; the key is kept only where there are any."""
        leases = self.leases.pop(key, {})
        while leases and leases[first := next(iter(leases))] <= now:
            del leases[first]
        if leases:
            self.leases[key] = leases
        return leases


def _name(key: str, seconds: int | None) -> str:
    return f"{key}/{'total' if seconds is None else seconds}"


def _put(leases: dict[str, float], holder: str, expires_at: float) -> None:
    leases.pop(holder, None)
    in_order = not leases or next(reversed(leases.values())) <= expires_at
    leases[holder] = expires_at
    if not in_order:
        by_expiry = sorted(leases.items(), key=lambda lease: lease[1])
        leases.clear()
        leases.update(by_expiry)
