"""I/O. A file of the configuration that may be edited while the process runs.

What is right in it takes effect; what is not, as when an editor is half way through, leaves in force what it held before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from .secrets import read_text

T = TypeVar("T")

LOOK_EVERY_S = 1.0
"""How often whoever watches a file should `look`."""


class WatchedFile(Generic[T]):
    """`value` is what `read` made of the file's `text`, the last that it made anything of."""

    def __init__(self, path: str, read: Callable[[str], T], max_bytes: int, last_right: str | None = None) -> None:
        """`read` raises ValueError for a text that is not right; then `last_right` does, where there is one. Raises ValueError
        where nothing does."""
        self.path = path
        self._read = read
        self._max_bytes = max_bytes
        self._unreadable = ""  # why, where it could not be read at the last look
        self._stamp = self._now()
        try:
            self.text = read_text(path, max_bytes)
            self.value = read(self.text)
        except ValueError:
            if last_right is None:
                raise
            self._stamp = None  # so that the first look says what is wrong
            self.text, self.value = last_right, read(last_right)

    def look(self) -> bool:
        """Whether `value` is another than before. Raises ValueError, once for each change, where the file is not right, and
        once where it cannot be read, which is tried again at each look. Blocks as reading a file does."""
        stamp = self._now()
        if stamp is not None and stamp == self._stamp:
            return False
        try:
            text = read_text(self.path, self._max_bytes)
        except ValueError as error:
            before, self._unreadable = self._unreadable, str(error)
            if before == self._unreadable:
                return False
            raise
        self._unreadable = ""
        self._stamp = stamp
        value = self._read(text)
        changed = text != self.text
        self.text, self.value = text, value
        return changed

    def _now(self) -> tuple[int, ...] | None:
        """What changes with the file: also where another is put in its place, or behind a symbolic link. Taken before the file
        is read, so that a change meanwhile shows at the next look. None: there is none."""
        try:
            stat = Path(self.path).stat()
        except (OSError, ValueError):
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
