"""I/O. What must hold across processes: token counters with refunds, and leases of slots; in memory or in Redis.

`memory://` is the embedded default for one process, `redis://` (Redis or Valkey) the shared engine for several workers,
replicas and hosts. Counters are the `limits` library's sliding-window counters on both; what it lacks (refunds, charges
above the limit, leases) is small scripts beside it, atomic per key. Nothing here waits longer than the configured bound:
a store that is slow or down raises `StateError`, and the policy that asked has a stated answer to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Window(NamedTuple):
    """At most `limit` units in any `seconds`; `seconds` None: in all, for ever (a total)."""

    limit: int
    seconds: int | None


@dataclass(frozen=True, slots=True)
class Level:
    """How full one window is. `remaining` is never negative; `reset_s` is when, in seconds from now, more of it is free
    (None: never)."""

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
    taken_at: float  # the store's time, seconds since the epoch


class Store(Protocol):
    """Every method raises `StateError` (a `PenstockError`) where the store is down or slower than its bound; then what was
    asked for may or may not have happened, and nothing may be concluded from it but what the policy states.

    Keys are text without control characters, made by `key(...)`, hashed where a part may be long or secret. Cancelled at an
    await, a method holds nothing: what it may have taken meanwhile it gives back in the background.
    """

    shared: bool
    """Other processes see the same state."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def take(self, key: str, windows: Sequence[Window], amount: int) -> Grant | Short:
        """Charge `amount` in all windows or in none: atomic per window, in order, rolled back where a later one is short."""

    async def give_back(self, grant: Grant, amount: int) -> None:
        """Refund `amount` of `grant`; never below zero, and only to windows that still count what was taken then."""

    async def charge(self, key: str, windows: Sequence[Window], amount: int) -> None:
        """Charge `amount` whatever the limit: what was really used beyond what was granted."""

    async def levels(self, key: str, windows: Sequence[Window]) -> list[Level]:
        """How full the windows are, for the RateLimit fields."""

    async def acquire(self, key: str, cap: int, holder: str, ttl_s: float) -> bool:
        """Take one of `cap` slots for `ttl_s`; False where none is free. Expired leases are free. Idempotent per holder."""

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        """Renew (key, holder) pairs, all in one round trip; False for each that had expired and whose slot is gone."""

    async def release(self, key: str, holder: str) -> None:
        """Give the slot back. Does nothing where the holder has none."""

    async def held(self, key: str) -> int:
        """How many slots are taken now."""
