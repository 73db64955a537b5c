"""The elements of a JSON array that is streamed (RFC 8259 §5), read and written with what stands around them; pure.

Where one event ends and the next begins is `framing.py`'s: an event is an element with the `[` or comma and the whitespace
before it, or what closes the array.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_SPACE = b" \t\r\n"
_BEFORE = re.compile(rb"([ \t\r\n]*)([\[,]?)([ \t\r\n]*)")

CLOSING = b"]"
"""What stands in the place of an element where the array ends."""


class _Parts(NamedTuple):
    space: bytes
    separator: bytes
    more_space: bytes
    element: bytes
    after: bytes


def _split(raw: bytes) -> _Parts:
    before = _BEFORE.match(raw)
    assert before is not None  # it matches nothing, too
    rest = raw[before.end() :]
    element = rest.rstrip(_SPACE)
    return _Parts(before[1], before[2], before[3], element, rest[len(element) :])


def read_data(raw: bytes) -> bytes:
    """The element of an event; `CLOSING` at the end of the array, b"" for whitespace."""
    return _split(raw).element


def with_data(raw: bytes, data: bytes) -> bytes:
    """The event with another element; what stands around it stays."""
    return b"".join(_split(raw)._replace(element=data))


def write(data: bytes) -> bytes:
    """An event with this element, as it follows another one."""
    return b",\n" + data


def is_bare(raw: bytes) -> bool:
    """Whether the event has an element to which no array belongs: neither `[` nor a comma stands before it."""
    parts = _split(raw)
    return not parts.separator and parts.element not in (b"", CLOSING)


def in_place(raw: bytes, *, first: bool) -> bytes:
    """The event as it must be where it comes: `[` before what comes `first` in the array, a comma before any other
    element."""
    parts = _split(raw)
    separator = b"[" if first else b"" if parts.element == CLOSING else b","
    return b"".join(parts._replace(separator=separator)) if parts.element else raw
