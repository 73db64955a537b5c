"""Bytes to events and back, for SSE, NDJSON, JSON (whole, or an array in pieces) and opaque bodies; bounded, sans-IO.

A framer cuts the body of a reply into frames without losing or changing a byte: the frames joined, plus what `finish`
returns, are the bytes that were fed. What a frame *means* is the dialect's (`dialects/`). An `Event` is one frame with its
meaning read lazily, at most once.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import msgspec

from .errors import EventTooLarge, UpstreamTruncated

if TYPE_CHECKING:
    from .dialects.base import Channel, Delta, DialectStream, Parsed, Usage


_BLANK_LINES = (b"\n\n", b"\n\r\n", b"\n\r", b"\r\r")  # at the end of an event


class Framing(enum.Enum):
    """How a body is divided into events."""

    SSE = "sse"  # text/event-stream (WHATWG HTML §9.2)
    NDJSON = "ndjson"  # one JSON document a line
    JSON_ARRAY = "json-array"  # the body is one array, each element an event
    JSON = "json"  # the whole body is one event
    OPAQUE = "opaque"  # each read is an event

    @property
    def streaming(self) -> bool:
        """Whether the reply is delivered in events, so that it may be flushed, injected into and ended in words."""
        return self in (Framing.SSE, Framing.NDJSON, Framing.JSON_ARRAY)

    def missing_end(self, frame: bytes) -> bytes:
        """What the last frame of a body lacks to be complete, so that another may follow it."""
        if self is Framing.NDJSON:
            return b"" if frame.endswith(b"\n") else b"\n"
        if self is not Framing.SSE or frame.endswith(_BLANK_LINES) or frame in (b"\n", b"\r\n", b"\r"):
            return b""
        return b"\n" if frame.endswith((b"\n", b"\r")) else b"\n\n"


class Event(msgspec.Struct, eq=False, gc=False):  # made for each frame: a third of what `__init__` would cost
    """One complete SSE event (a comment and `[DONE]` too), NDJSON line, array element or whole body.

    `raw` are its bytes, terminator included, re-emitted untouched unless a policy replaced the event.
    """

    raw: bytes
    stream: DialectStream
    read: Parsed | None = None
    """What `parsed` gives, once somebody has asked for it."""

    def __repr__(self) -> str:  # content never reaches a log, not even by a traceback
        return f"<Event of {len(self.raw)} bytes>"

    @property
    def parsed(self) -> Parsed:
        """What the dialect reads in the event; read at the first call only."""
        found = self.read
        if found is None:
            found = self.read = self.stream.parse(self.raw)
        return found

    @property
    def deltas(self) -> Sequence[Delta]:
        """The texts it adds: (channel, text) pairs in wire order."""
        return self.parsed.deltas

    @property
    def ends(self) -> Sequence[Channel]:
        """The channels that end with it; may contain "every" fields."""
        return self.parsed.ends

    @property
    def usage(self) -> Usage | None:
        return self.parsed.usage

    @property
    def document(self) -> Any:
        """The JSON document it carries, None where it carries none; decoded anew at each call."""
        return self.stream.document(self.raw)

    @property
    def known(self) -> bool:
        """False for a shape that the dialect cannot read texts in."""
        return self.parsed.known

    def with_deltas(self, deltas: Sequence[Delta]) -> Event | None:
        """This event with other texts: one entry for each of `self.deltas`, same channels, same order.

        The event itself where the texts are its own. None where it would carry nothing any more and is to be withheld.
        Raises ValueError if the channels differ.
        """
        own = self.parsed.deltas
        changed, same_channels = False, len(deltas) == len(own)
        for (channel, text), (own_channel, own_text) in zip(deltas, own):  # noqa: B905 - lengths are compared above
            same_channels = same_channels and channel == own_channel
            changed = changed or text != own_text
        if not same_channels:
            raise ValueError("with_deltas needs one text for each channel of the event, in its order")
        return self.stream.rewrite(self, deltas) if changed else self

    def with_text(self, text: str) -> Event | None:
        """`with_deltas` for an event with one text. Raises ValueError for any other."""
        [(channel, own)] = (self.read or self.parsed).deltas
        return self if text == own else self.stream.rewrite(self, [(channel, text)])

    def continuation(self, channel: Channel, text: str) -> Event:
        """A new event that adds `text` to `channel`, one of this event's, and repeats nothing that this one said once.

        Raises ValueError where the event has no such channel or is a whole body.
        """
        return self.stream.continuation(self, channel, text)


class Framer(Protocol):
    """Cuts a body into frames. `pending` is the number of bytes of the frame that is not complete yet."""

    pending: int

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes. Raises `EventTooLarge` over the limit, at this call and at all that follow; the
        frames that `data` completes before the large one go with it."""

    def finish(self) -> bytes:
        """At the end of the body: the bytes of the frame that was not completed, b"" for none. Raises like `feed`, and
        `UpstreamTruncated` where a body that shows its own end has not come to it."""


class _Bounded:
    """Holds what was searched of a frame that is not complete, within the limit, and what has to be searched again."""

    __slots__ = ("_exceeded", "_limit", "_searched", "_tail", "pending")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._searched = bytearray()  # not a list of reads: those may be a byte long each, and cost ten times that
        self._tail = b""
        self._exceeded = False
        self.pending = 0

    def _exceed(self, frames: Sequence[bytes] = ()) -> NoReturn:
        """An event is too large: those before it are still given, wherever the reads were cut, and then nothing more."""
        self._exceeded = True
        self._searched.clear()
        self.pending = self._limit
        raise EventTooLarge(self._limit, frames)

    def finish(self) -> bytes:
        if self._exceeded:
            self._exceed()
        rest = b"".join((self._searched, self._tail))
        self._searched.clear()
        self._tail = b""
        self.pending = 0
        return rest


class _Delimited(_Bounded):
    """Frames that end with a delimiter.

    A search never starts over: what was looked at stays looked at, but for the few bytes that could begin a delimiter.
    """

    __slots__ = ()

    _OVERLAP: int

    def _ends(self, buffer: bytes) -> Iterator[int]:
        """Where frames end."""
        raise NotImplementedError

    def feed(self, data: bytes) -> list[bytes]:
        if self._exceeded:
            self._exceed()
        buffer = self._tail + data
        frames: list[bytes] = []
        start = 0
        for end in self._ends(buffer):
            frame = buffer[start:end]
            if self._searched:
                frame = b"".join((self._searched, frame))
                self._searched.clear()
            if len(frame) > self._limit:
                self._exceed(frames)
            frames.append(frame)
            start = end
        searched = max(start, len(buffer) - self._OVERLAP)
        self._searched += buffer[start:searched]
        self._tail = buffer[searched:]
        self.pending = len(self._searched) + len(self._tail)
        if self.pending > self._limit:
            self._exceed(frames)
        return frames


def _ends_of(buffer: bytes, delimiter: bytes) -> Iterator[int]:
    end = 0
    while (found := buffer.find(delimiter, end)) >= 0:
        end = found + len(delimiter)
        yield end


class SSEFramer(_Delimited):
    """An event ends with a blank line; lines end with CRLF, LF or CR, in any mixture (WHATWG HTML §9.2.6).

    Where the cut between two reads falls must not matter, so a CR that may be half of a CRLF waits for the next byte;
    only after CR CR (a server that ends lines with CR alone) the event goes at once, and an LF that still follows belongs
    to the next one, where it is an empty line.
    """

    __slots__ = ()

    _END = re.compile(rb"\n\n|\n\r\n|\n\r(?=[^\n])|\r\r")
    _OVERLAP = 2

    def _ends(self, buffer: bytes) -> Iterator[int]:
        # Without a CR there is one way to end, which is found twenty times as fast: it matters in a megabyte.
        return _ends_of(buffer, b"\n\n") if b"\r" not in buffer else map(re.Match.end, self._END.finditer(buffer))

    def feed(self, data: bytes) -> list[bytes]:
        # Nearly every read of nearly every server: whole events, LF line ends.
        if not self.pending and b"\r" not in data and len(data) <= self._limit:
            if 0 <= data.find(b"\n\n") == len(data) - 2:
                return [data]
            if data.endswith(b"\n\n") and not data.endswith(b"\n\n\n"):
                return [part + b"\n\n" for part in data[:-2].split(b"\n\n")]
        return super().feed(data)


class NDJSONFramer(_Delimited):
    """An event is a line, its LF included."""

    __slots__ = ()

    _OVERLAP = 0

    def _ends(self, buffer: bytes) -> Iterator[int]:
        return _ends_of(buffer, b"\n")

    def feed(self, data: bytes) -> list[bytes]:
        if not self.pending and data.endswith(b"\n") and len(data) <= self._limit:
            return data.splitlines(keepends=True) if b"\r" not in data else super().feed(data)
        return super().feed(data)


_MARK_OUTSIDE = re.compile(rb'["{}\[\]]')
_MARK_IN_STRING = re.compile(rb'["\\]')


class JSONArrayFramer(_Bounded):
    """The body is one JSON array (RFC 8259 §5). An event is an element that is an object or an array, with all that stands
    before it: the `[` that opens the body or a comma, and whitespace. What closes the body is an event too.

    An element is complete with its last bracket; nothing of what follows is waited for. Elements of other kinds, which no
    API streams, stay with the event after them. A body that is no array is one event.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._outermost = b""  # the body's first bracket
        self._depth = 0
        self._in_string = False
        self._escapes = False  # the last byte was the backslash of an escape

    def feed(self, data: bytes) -> list[bytes]:
        if self._exceeded:
            self._exceed()
        frames: list[bytes] = []
        start = 0
        for end in self._ends(data):
            frame = b"".join((self._searched, data[start:end]))
            self._searched.clear()
            if len(frame) > self._limit:
                self._exceed(frames)
            frames.append(frame)
            start = end
        self._searched += data[start:]
        self.pending = len(self._searched)
        if self.pending > self._limit:
            self._exceed(frames)
        return frames

    def _ends(self, data: bytes) -> Iterator[int]:
        """Where in `data` events end."""
        place = 1 if self._escapes else 0
        self._escapes = self._escapes and not data
        while match := (_MARK_IN_STRING if self._in_string else _MARK_OUTSIDE).search(data, place):
            mark, place = match[0], match.end()
            if mark == b'"':
                self._in_string = not self._in_string
            elif mark == b"\\":
                self._escapes = place == len(data)
                place += 1
            elif mark in b"{[":
                self._outermost = self._outermost or mark
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 0 or (self._depth == 1 and self._outermost == b"["):
                    yield place

    def finish(self) -> bytes:
        if self._depth > 0 and not self._exceeded:
            raise UpstreamTruncated("the array is not complete")
        return super().finish()


_BEGINS_DOCUMENT = re.compile(rb"[ \t\r\n]*[{\[]")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def breaks_off(body: bytes) -> bool:
    """Whether a JSON text that is an object or an array (RFC 8259 §2) stops before its last bracket. False for all else."""
    if _BEGINS_DOCUMENT.match(body) is None:
        return False
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        marks = _STRING.sub(b"", body)
        return marks.count(b"{") + marks.count(b"[") > marks.count(b"}") + marks.count(b"]")
    return False


class WholeFramer:
    """The body is one event, complete at its end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._body = bytearray()
        self.pending = 0

    def feed(self, data: bytes) -> list[bytes]:
        self.pending += len(data)
        if self.pending > self._limit:
            raise EventTooLarge(self._limit)
        self._body += data
        return []

    def finish(self) -> bytes:
        whole = bytes(self._body)
        self._body.clear()
        self.pending = 0
        return whole


class OpaqueFramer:
    """Each read is an event."""

    pending = 0

    def feed(self, data: bytes) -> list[bytes]:
        return [data] if data else []

    def finish(self) -> bytes:
        return b""


def framer_for(framing: Framing, limit: int) -> Framer:
    """A fresh framer; `limit` in bytes of one event."""
    if framing is Framing.SSE:
        return SSEFramer(limit)
    if framing is Framing.NDJSON:
        return NDJSONFramer(limit)
    if framing is Framing.JSON_ARRAY:
        return JSONArrayFramer(limit)
    if framing is Framing.JSON:
        return WholeFramer(limit)
    return OpaqueFramer()
