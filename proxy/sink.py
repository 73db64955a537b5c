"""Where a reply's body goes: the seam between an upstream, whatever it is built on, and the relay. Knows no HTTP framework."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Protocol

from .errors import PenstockError
from .messages import Headers


class Sink(Protocol):
    """Called synchronously, in the calls that receive the bytes; must not raise. After `eof` or `failed` nothing follows."""

    def feed(self, data: bytes) -> None: ...
    def eof(self) -> None: ...
    def failed(self, error: PenstockError) -> None: ...


Informational = Callable[[int, Headers], None]

on_informational: contextvars.ContextVar[Informational | None] = contextvars.ContextVar(
    "on_informational", default=None
)
"""Set by the exchange before it asks: called for each 1xx (not 100, not 101) before the final head (RFC 9110 §15.2)."""
