"""What must hold across processes: counters with refunds, and leases. The interface, and the arithmetic of a window.

`memory://` (`state_memory.py`) is the embedded default for one process, `redis://` (`state_redis.py`: Redis or Valkey) the
shared engine for several workers, replicas and hosts. On both a window is counted as the `limits` library's
sliding-window counter does it, to which refunds, charges above the limit, totals and leases are added.

The sliding-window counter keeps two counts, of the window that runs now and of the one before it, and takes the units of
the previous one to have been spent evenly: what counts is `floor(previous * share of it still in view) + current`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor
from typing import NamedTuple, Protocol

MOST = 1 << 48
"""The largest limit. A larger amount is charged as this one: it is over every limit, and no sum of them overflows."""

PATIENCE_S = 10.0
"""How long what settles an account is tried, and how long an answer is read for which nobody waits any more."""

_TICK_S = 0.001  # what Redis rounds times to
_PLAIN = re.compile(r"[A-Za-z0-9_.:@+-]{1,64}")


def key(*parts: str) -> str:
    """One key of the store for `parts`, the policy's name first; no two lists of parts have the same.

    A part that is long, empty or holds anything but plain characters stands there as a hash, so whatever a client sent
    can be one. What is secret does not belong into a key: the hash of a guess is easily compared."""
    return "/".join(part if _PLAIN.fullmatch(part) else _hashed(part) for part in parts)


def _hashed(part: str) -> str:
    digest = hashlib.blake2b(part.encode("utf-8", "surrogatepass"), digest_size=16)
    return f"#{digest.hexdigest()}"  # no plain part begins so


def check_amount(amount: int) -> None:
    """Raises ValueError where `amount` is negative: it would lift the limit instead of counting against it."""
    if amount < 0:
        raise ValueError(f"an amount cannot be negative: {amount}")


class Window(NamedTuple):
    """At most `limit` units (up to `MOST`) in any `seconds`; `seconds` None: in all, for ever (a total).

    A key has one counter for each length, whatever the limit: the windows of one call differ in their lengths, and a
    limit that is changed later applies to what was already used."""

    limit: int
    seconds: int | None


@dataclass(frozen=True, slots=True)
class Level:
    """How full one window is. `remaining` is never negative; `reset_s` is when, in seconds from now, more of it is free
    (0 where all of it is, None: never)."""

    window: Window
    remaining: int
    reset_s: float | None


class Short(NamedTuple):
    """Not granted: which window is too full, and when asking for the same amount again can succeed (None: never)."""

    level: Level
    retry_after_s: float | None


class Grant(NamedTuple):
    """Granted: `amount` units are charged in every window. Keep it: a refund goes to the windows it was taken from."""

    key: str
    windows: tuple[Window, ...]
    amount: int
    taken_at: float  # seconds, on the store's clock
    levels: tuple[Level, ...] = ()  # of each window, after it
    earlier: Grant | None = None  # of the same key and windows; so what was taken bit by bit is given back at once

    def after(self, earlier: Grant | None) -> Grant:
        """Both as one. The levels are dropped: a long stream has very many grants."""
        return self._replace(levels=(), earlier=earlier)

    def parts(self, amount: int) -> Iterator[tuple[int, float]]:
        """`amount` by when it was taken, the latest first."""
        grant = self
        while grant.earlier is not None and amount > grant.amount:
            yield grant.amount, grant.taken_at
            amount -= grant.amount
            grant = grant.earlier
        yield amount, grant.taken_at


class Usage(NamedTuple):
    """What is counted in one window: units, and for how many seconds from now they count. A total has only `current`."""

    previous: int
    previous_s: float
    current: int
    current_s: float

    def counted(self, window: Window) -> int:
        if window.seconds is None:
            return self.current
        return floor(self.previous * self.previous_s / window.seconds) + self.current

    def level(self, window: Window) -> Level:
        remaining = max(0, window.limit - self.counted(window))
        return Level(window, remaining, 0.0 if remaining == window.limit else self.fits_in_s(window, remaining + 1))

    def short(self, window: Window, amount: int) -> Short:
        return Short(self.level(window), self.fits_in_s(window, amount))

    def fits_in_s(self, window: Window, amount: int) -> float | None:
        """When, in seconds from now, `amount` more fit into the window if nothing else is taken; None: never."""
        allowed = window.limit - amount  # what may still be counted then
        if allowed < 0:
            return None
        if self.counted(window) <= allowed:
            return 0.0
        if window.seconds is None:
            return None
        if self.current <= allowed:  # it is enough that the previous window slides out of view
            share_s = (allowed - self.current + 1) * window.seconds / self.previous
            return self.previous_s - share_s + _TICK_S
        share_s = (allowed + 1) * window.seconds / self.current  # the current one, once it is the previous
        return self.current_s - share_s + _TICK_S


class Store(Protocol):
    """What asks (`take`, `levels`, `acquire`, `renew`, `held`) is prompt: it raises `StateError` (a `PenstockError`) where the
    store is down, or slower than its bound. Cancelled at an await, or slower than its bound, it holds nothing: what it may
    have taken meanwhile is given back in the background, as soon as the store answers.

    What settles (`give_back`, `charge`, `release`) is patient: where the store is down it is done once the store is back,
    and raises `StateError` only where that takes longer than `PATIENCE_S`, or where a connection broke so that nobody can
    say whether it was done. So no client should wait for it.

    Keys are made by `key(...)`: each policy, by its name, has its own share of a store that is bounded. An amount that is
    negative is a ValueError.
    """

    shared: bool
    """Other processes see the same state."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def take(self, key: str, windows: Sequence[Window], amount: int) -> Grant | Short:
        """Charge `amount` in all windows or in none: the first that is short is named."""

    async def give_back(self, grant: Grant, amount: int) -> None:
        """Refund `amount` of `grant`, what was taken last first; never below zero, and only to windows that still count
        what was taken then."""

    async def charge(self, key: str, windows: Sequence[Window], amount: int) -> None:
        """Charge `amount` whatever the limit: what was really used beyond what was granted."""

    async def levels(self, key: str, windows: Sequence[Window]) -> list[Level]:
        """How full the windows are, for the RateLimit fields."""

    async def acquire(
        self, key: str, cap: int, holder: str, ttl_s: float, *, waited_s: float = 0.0, keep_s: float = 0.0
    ) -> bool:
        """Take one of `cap` slots for `ttl_s`; False where none is free. Expired leases are free. Idempotent per holder.

        A free slot is kept for who has waited longest: who is refused has a place in the line, for `keep_s` after he last
        asked, behind those who say that they have waited longer (`waited_s`). He gets a slot when more are free than
        there are places before his. So who does not ask again in time loses his place, but not for good."""

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        """Renew (key, holder) pairs, all in one round trip; False for each that had expired and whose slot is gone."""

    async def release(self, key: str, holder: str) -> None:
        """Give the slot back, or the place in the line. Does nothing where the holder has none."""

    async def held(self, key: str) -> int:
        """How many slots are taken now."""
