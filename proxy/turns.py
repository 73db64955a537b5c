"""I/O. Whose turn it is: of the streams that have more to give than one turn of the event loop has time for."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

TURN_S = 0.002
"""What all of them together may take in one turn, and one stream's last bit of work: who comes with a single event waits
about so long. What a read brings comes on top, which is why only one stream is let read in a turn."""


class Turns:
    """The line of all streams of a process. Nobody's place in it is lost, and nobody has two turns before another has one."""

    __slots__ = ("_clock", "_is_due", "_line", "_loop", "_over")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._line: deque[Callable[[], None]] = deque()
        self._is_due = False
        self._over = False  # one was let read

    def wait(self, go_on: Callable[[], None]) -> None:
        """Have `go_on`, which does a bit of work, called in a later turn of the loop."""
        self._line.append(go_on)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._next)

    def lets_read(self) -> None:
        """Who has the turn reads on, and how much nobody knows: it is the last of the turn."""
        self._over = True

    def _next(self) -> None:
        line = self._line
        over_at = self._clock() + TURN_S
        self._over = False
        try:
            for _ in range(len(line)):  # who comes again meanwhile has had its turn
                line.popleft()()
                if self._over or self._clock() >= over_at:
                    break
        finally:
            self._is_due = bool(line)
            if line:
                self._loop.call_soon(self._next)
