"""I/O. Whose turn it is: of the streams that have more to give than one turn of the event loop has time for."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

TURN_S = 0.004
"""What all of them together may take in one turn: who came with a single event waits no longer than that, and one stream's
last bit of work."""


class Turns:
    """The line of all streams of a process. Nobody's place in it is lost, and nobody has two turns before another has one."""

    __slots__ = ("_clock", "_is_due", "_line", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._line: deque[Callable[[], None]] = deque()
        self._is_due = False

    def wait(self, go_on: Callable[[], None]) -> None:
        """Have `go_on`, which does a bit of work, called in a later turn of the loop."""
        self._line.append(go_on)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        line = self._line
        over_at = self._clock() + TURN_S
        try:
            for _ in range(len(line)):  # who comes again meanwhile has had its turn
                line.popleft()()
                if self._clock() >= over_at:
                    break
        finally:
            self._is_due = bool(line)
            if line:
                self._loop.call_soon(self._next)
