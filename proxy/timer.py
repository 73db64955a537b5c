"""I/O. The one lazy timer of an exchange: policies move their `wake_at` at every event, so it is not set anew for each.

It is set only where it must ring earlier than it is set to. What it was set to may have passed when it rings; then nothing
is due, and it is set to what is due next.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from .chain import Chain
from .turns import Turns


class LazyTimer:
    """Wakes up for what the policies of `chains` wait for. Calls `ring` when the time may have come; `arm` it again then.

    Must be cancelled, which lets go of `ring`: who owns it is in no cycle with it any more."""

    __slots__ = ("_chains", "_handle", "_loop", "_ring", "_rings_at", "_timed", "_turns")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, turns: Turns, chains: Sequence[Chain], ring: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._turns = turns
        self._chains = chains
        self._timed = [link.stream for chain in chains for link in chain.links if link.on_timer]
        self._ring: Callable[[], None] | None = ring
        self._rings_at = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, also_at: float | None, now: float, *, steady: bool) -> None:
        """See that it rings at the next time that a chain waits for, and at `also_at`, all monotonic seconds. Who waits for
        what is not later than `now` has more to do than one turn has time for, and gets the next.

        `steady`: no chain is paused and there is no `also_at`, so that only a policy's `wake_at` can ask for it."""
        if steady:
            rings_at = self._rings_at
            for stream in self._timed:
                if stream.wake_at is not None and stream.wake_at < rings_at:
                    break
            else:
                return
        wake_at = math.inf if also_at is None else also_at
        for chain in self._chains:
            due_at = chain.next_wake()
            if due_at is not None and due_at < wake_at:
                wake_at = due_at
        if wake_at >= self._rings_at:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._rings_at = wake_at
        if wake_at > now:
            self._handle = self._loop.call_at(wake_at, self._rung)
        else:
            self._handle = None
            self._turns.wait(self._rung)

    def cancel(self) -> None:
        """The last call."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._ring = None

    def _rung(self) -> None:
        self._handle = None
        self._rings_at = math.inf
        if self._ring is not None:
            self._ring()
