"""The state of one process, in its memory. Time is a clock that is given; nothing here waits, so each call is atomic.

Bounded: what has expired is dropped, a little with each new entry, what is back at 0 at once, and of each policy no
more than `max_keys` counters are ever kept. A new one that finds no room is a `StateError`: forgetting somebody's usage
instead would let a flood of new identities lift everybody's limits. Other policies have room of their own. Leases and
places in a line are as many as the exchanges that hold them.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from math import floor, inf
from typing import NamedTuple

from limits.aio.storage import MemoryStorage

from .errors import StateError
from .state import MOST, Grant, Level, Short, Usage, Window, check_amount

_SWEPT = 4  # expired entries dropped for each new one: more than one, so that they get fewer
_SPARE = 64  # entries of the heap beyond what is needed, before it is made anew


class SlidingWindows(MemoryStorage):
    """The library's storage, with its sliding windows as they are, but for three things. Time is `now`. What is back at 0
    is gone. And what has expired is dropped in its order: the library's own sweep goes through all keys, for each hit, and
    with very many keys that stops the process for a second each time."""

    def __init__(self, max_keys: int) -> None:
        super().__init__()
        self.now = 0.0
        self._max_keys = max_keys
        self._expiring: list[tuple[float, str]] = []  # a heap; also of keys that are gone, for a while

    async def get(self, key: str) -> int:
        return self.storage.get(key, 0)  # a window's key holds its number: an old one is never asked for

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        if not amount:
            return await self.get(key)
        if key not in self.storage:
            self._sweep()
            if len(self.storage) >= self._max_keys:
                raise StateError("the memory store has no room for another counter of this policy")
            if expiry < inf:
                heappush(self._expiring, (self.now + expiry, key))
        self.storage[key] += amount
        return self.storage[key]

    async def decr(self, key: str, amount: int = 1) -> int:
        left = self.storage.get(key, 0) - amount
        if left > 0:
            self.storage[key] = left
            return left
        self.storage.pop(key, None)
        return 0

    def _sweep(self) -> None:
        for _ in range(_SWEPT):
            if not self._expiring or self._expiring[0][0] > self.now:
                break
            self.storage.pop(heappop(self._expiring)[1], None)
        if len(self._expiring) > 2 * len(self.storage) + _SPARE:  # most of them are gone
            self._expiring = [
                (at, key) for key, at in {key: at for at, key in self._expiring}.items() if key in self.storage
            ]
            heapify(self._expiring)

    def sliding_window_keys(self, key: str, expiry: int, at: float) -> tuple[str, str]:  # type: ignore[override]  # its list is of two
        return self.window_key(key, expiry, self.now - expiry), self.window_key(key, expiry, self.now)

    async def _get_sliding_window_info(
        self, previous_key: str, current_key: str, expiry: int, now: float
    ) -> tuple[int, float, int, float]:
        return self._info(previous_key, current_key, expiry)

    def usage(self, key: str, expiry: int) -> Usage:
        """The library's `get_sliding_window`, for which nothing here has to wait."""
        return self._info(*self.sliding_window_keys(key, expiry, self.now), expiry)

    def _info(self, previous_key: str, current_key: str, expiry: int) -> Usage:
        previous = self.storage.get(previous_key, 0)
        previous_ttl = (1 - (self.now - expiry) / expiry % 1) * expiry if previous else 0.0
        current_ttl = (1 - self.now / expiry % 1) * expiry + expiry
        return Usage(previous, previous_ttl, self.storage.get(current_key, 0), current_ttl)

    @staticmethod
    def window_key(key: str, expiry: int, at: float) -> str:
        """The key of the window that runs at the time `at`."""
        return f"{key}/{floor(at / expiry)}"


# The library wraps these, and what a subclass inherits or overrides once more, to translate the errors of stores that are
# elsewhere; here each wrapper cost more than what is in it.
for _method in ("get", "incr", "acquire_sliding_window_entry"):
    setattr(SlidingWindows, _method, inspect.unwrap(getattr(SlidingWindows, _method)))


class _Hold(NamedTuple):
    """A lease, or a place in a line."""

    expires_at: float
    since: float


_Holds = dict[str, dict[str, _Hold]]
"""By key and holder, what expires first first; of the keys, the one that was looked at least lately comes first."""


class MemoryStore:
    """`Store` for one process. `clock` gives seconds and never goes back. `max_keys` are each policy's."""

    shared = False

    def __init__(self, max_keys: int = 1_000_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self.counters: dict[str, SlidingWindows] = {}  # by policy
        self.leases: _Holds = {}
        self.lines: _Holds = {}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    # Counters

    async def take(self, key: str, windows: Sequence[Window], amount: int) -> Grant | Short:
        check_amount(amount)
        counters = self._of(key)
        taken_at = counters.now
        for number, window in enumerate(windows):
            granted = False
            try:
                granted = await _hit(counters, key, window, amount)
            finally:
                if not granted:
                    await self.give_back(Grant(key, tuple(windows[:number]), amount, taken_at), amount)
            if not granted:
                return _usage(counters, key, window).short(window, amount)
        levels = tuple([_usage(counters, key, window).level(window) for window in windows])
        return Grant(key, tuple(windows), amount, taken_at, levels)

    async def give_back(self, grant: Grant, amount: int) -> None:
        check_amount(amount)
        counters = self._of(grant.key)
        for part, taken_at in grant.parts(amount):
            for _, seconds in grant.windows:
                name = _name(grant.key, seconds)
                if seconds is not None:
                    name = counters.window_key(name, seconds, taken_at)
                await counters.decr(name, part)

    async def charge(self, key: str, windows: Sequence[Window], amount: int) -> None:
        check_amount(amount)
        counters = self._of(key)
        for window in windows:
            await _hit(counters, key, window._replace(limit=sys.maxsize), min(amount, MOST))

    async def levels(self, key: str, windows: Sequence[Window]) -> list[Level]:
        counters = self._of(key)
        return [_usage(counters, key, window).level(window) for window in windows]

    def _of(self, key: str) -> SlidingWindows:
        """The counters of the policy that `key` begins with, at the time that it is."""
        policy = key.partition("/")[0]
        counters = self.counters.get(policy)
        if counters is None:
            counters = self.counters[policy] = SlidingWindows(self._max_keys)
        counters.now = self._clock()
        return counters

    # Leases

    async def acquire(
        self, key: str, cap: int, holder: str, ttl_s: float, *, waited_s: float = 0.0, keep_s: float = 0.0
    ) -> bool:
        now = self._clock()
        for holds in (self.leases, self.lines):
            for oldest in list(islice(holds, _SWEPT)):
                _live(holds, oldest, now)
        leases, line = _live(self.leases, key, now), _live(self.lines, key, now)
        since = now - waited_s
        line.pop(holder, None)
        before = sum(place.since < since for place in line.values())
        taken = holder in leases or len(leases) + before < cap
        if taken:
            _put(leases, holder, _Hold(now + ttl_s, now))
            self.leases[key] = leases
        elif keep_s > 0:
            _put(line, holder, _Hold(now + keep_s, since))
            self.lines[key] = line
        _live(self.lines, key, now)
        return taken

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        now = self._clock()
        renewed = []
        for key, holder in leases:
            live = _live(self.leases, key, now)
            renewed.append(holder in live)
            if holder in live:
                _put(live, holder, _Hold(now + ttl_s, now))
        return renewed

    async def release(self, key: str, holder: str) -> None:
        for holds in (self.leases, self.lines):
            holds.get(key, {}).pop(holder, None)
            _live(holds, key, self._clock())

    async def held(self, key: str) -> int:
        return len(_live(self.leases, key, self._clock()))


async def _hit(counters: SlidingWindows, key: str, window: Window, amount: int) -> bool:
    limit, seconds = window
    name = _name(key, seconds)
    if seconds is not None:
        return await counters.acquire_sliding_window_entry(name, limit, seconds, amount)
    if await counters.get(name) + amount > limit:
        return False
    await counters.incr(name, inf, amount)
    return True


def _usage(counters: SlidingWindows, key: str, window: Window) -> Usage:
    name = _name(key, window.seconds)
    if window.seconds is not None:
        return counters.usage(name, window.seconds)
    return Usage(0, 0.0, counters.storage.get(name, 0), inf)


def _live(all_holds: _Holds, key: str, now: float) -> dict[str, _Hold]:
    """Those of `key` without the expired ones; the key is kept only where there are any."""
    holds = all_holds.pop(key, {})
    while holds and holds[first := next(iter(holds))].expires_at <= now:
        del holds[first]
    if holds:
        all_holds[key] = holds
    return holds


def _name(key: str, seconds: int | None) -> str:
    return f"{key}/{'total' if seconds is None else seconds}"


def _put(holds: dict[str, _Hold], holder: str, hold: _Hold) -> None:
    holds.pop(holder, None)
    in_order = not holds or next(reversed(holds.values())) <= hold
    holds[holder] = hold
    if not in_order:
        by_expiry = sorted(holds.items(), key=lambda item: item[1])
        holds.clear()
        holds.update(by_expiry)
