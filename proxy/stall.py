"""A client that does not read: whether it is slow or will never read again."""

from __future__ import annotations

from .attachment import Attachment


class StallWatch:
    """Watches how much the client takes while its buffer is full. `limit_s`: how long it may take nothing at all.

    A buffer can stay full for longer than that though the client reads, slowly, so the kernel is asked what it has taken."""

    __slots__ = ("_attachment", "_limit_s", "_taken", "due_at")

    def __init__(self, attachment: Attachment, limit_s: float) -> None:
        self._attachment = attachment
        self._limit_s = limit_s
        self._taken = 0  # of what was written, when it was last looked at
        self.due_at: float | None = None
        """When to look next, monotonic seconds; None: the client reads."""

    def begin(self, now: float) -> None:
        """The client's buffer is full."""
        self._taken = self._attachment.taken
        self.due_at = now + self._limit_s

    def end(self) -> None:
        """It has drained."""
        self.due_at = None

    def is_over(self, now: float) -> bool:
        """Whether the client is given up: it is time to look, and it has taken nothing since the last look."""
        if self.due_at is None or now < self.due_at:
            return False
        if self._attachment.taken == self._taken:
            return True
        self.begin(now)
        return False
