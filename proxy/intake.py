"""The body of an upstream's reply on its way in, as far as the relay must know it. Pure, bounded.

`Intake` reads it: content coding undone, cut into frames, frames made events. `Unread` lets it pass as it is, and knows
only where it could be added to and, of a body that ends with its connection, whether it is complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from .decoding import Decoder, Undecodable, content_coding
from .dialects.base import DialectStream
from .errors import EventTooLarge, UpstreamError, UpstreamGarbage, UpstreamTruncated
from .framing import Framing, breaks_off
from .messages import Headers
from .policy import Events

TURN_EVENTS = 32
"""How many events one stream may be given in one turn of the loop."""

TURN_BYTES = 65536
"""A read of so many bytes is one of a flood: the others have their turn before the next. An event loop would go on with the
same stream (libuv: 32 reads of 256 KiB) while new ones wait for seconds."""

_PIECE_BYTES = 16384  # of a larger read are cut at a time: 256 KiB can be tens of thousands of events

_MOST_TURNS = 128  # that one read may take of somebody who only reads along

_LATEST = 4  # an answer's end may have its usage, `[DONE]` and a comment behind it

# With what bytes a body ends, so far, where an event ends.
_EVENT_ENDS = {Framing.SSE: (b"\n\n", b"\r\n\r\n"), Framing.NDJSON: (b"\n",)}
_END_BYTES = 4  # the longest of them


class Intake:
    """From bytes to events, at most `TURN_EVENTS` of them at a time: one read can hold thousands of tiny ones, and a coded
    one millions. While there is `more`, the relay lets the other streams of the process have their turn, then goes on.

    `whole` is the body of a reply that is one event, once it is there.
    """

    __slots__ = (
        "_ahead", "_decoder", "_error", "_framer", "_latest", "_make", "_reads", "_stream", "more", "whole",
    )  # fmt: skip

    def __init__(
        self,
        stream: DialectStream,
        headers: Headers,
        *,
        event_bytes: int,
        reply_bytes: int,
        ends_with_connection: bool = False,
    ) -> None:
        """Takes the content coding out of `headers`. Raises `UpstreamGarbage` (upstream_coding) for an unknown one.

        `ends_with_connection`: nothing but the lost connection says that the body has ended."""
        self.whole = b""
        self.more = False
        """`go_on` has more to give."""
        self._stream = stream
        self._make = stream.event
        self._framer = stream.framer(reply_bytes if stream.framing is Framing.JSON else event_bytes)
        self._reads: deque[Iterator[list[bytes]]] = deque()  # frames of reads that are not used up
        self._ahead: list[bytes] = []
        self._error: UpstreamError | None = None  # found looking ahead: what came before it goes first
        self._latest: deque[bytes] | None = deque(maxlen=_LATEST) if ends_with_connection else None
        coding = content_coding(", ".join(headers.getall("Content-Encoding", ())))
        try:
            self._decoder = Decoder(coding) if coding else None
        except ValueError:
            raise UpstreamGarbage(f"content coding {coding!r}", "upstream_coding") from None
        headers.popall("Content-Encoding", None)

    @property
    def decodes(self) -> bool:
        """The body is not sent on in the bytes in which it came."""
        return self._decoder is not None

    def feed(self, data: bytes) -> Events:
        """The events that one read completes, or the first of them. Raises `UpstreamError`."""
        if self._decoder is None and not self.more and len(data) <= _PIECE_BYTES:
            try:
                frames = self._framer.feed(data)
            except EventTooLarge as exc:
                self._reads.append(_turns(exc.before, exc))
            else:
                if len(frames) == 1:  # as nearly every read
                    if self._latest is not None:
                        self._latest.append(frames[0])
                    return [self._make(frames[0])]
                if len(frames) <= TURN_EVENTS:
                    return self._events(frames)
                self._reads.append(_turns(frames))
        else:
            self._reads.append(self._frames(data))
        if not self.more:
            self._look_ahead()
        return self.go_on()

    def go_on(self) -> Events:
        """The next events of what was fed. Raises `UpstreamError`."""
        if self._error is not None and not self._ahead:
            error, self._error, self.more = self._error, None, False
            raise error
        frames, self._ahead = self._ahead, []
        self._look_ahead()
        return self._events(frames)

    def finish(self) -> Events:
        """What is left at the end of the body; not before all of it was given. Raises `UpstreamTruncated` where what came
        shows that the end came too early: in the middle of a coded body, or, if it ends with the connection, in the middle
        of a document, of an event or of an answer."""
        rest = self._framer.finish()
        if self._decoder is not None and not self._decoder.complete:
            raise UpstreamTruncated("the coded body is not complete")
        if self._latest is not None and self._breaks_off(rest, self._latest):
            raise UpstreamTruncated("the document, or the last event or answer, is not complete")
        self.whole = rest
        return [self._make(rest)] if rest else []

    def _breaks_off(self, rest: bytes, latest: Iterable[bytes]) -> bool:
        if self._stream.framing.streaming:
            return bool(rest.strip()) or self._is_open(latest)
        return self._stream.framing is Framing.JSON and breaks_off(rest)

    def _is_open(self, latest: Iterable[bytes]) -> bool:
        """No answer ends in the last events, though in this dialect a complete reply does. What ends a part is not enough."""
        ends = (end for frame in latest for end in self._make(frame).ends)
        return self._stream.terminates and not any(end.kind is None and end.index is None for end in ends)

    def _events(self, frames: list[bytes]) -> Events:
        if self._latest is not None:
            self._latest.extend(frames[-_LATEST:])
        return [self._make(frame) for frame in frames]

    def _look_ahead(self) -> None:
        try:
            while self._reads and not self._ahead:
                frames = next(self._reads[0], None)
                if frames is None:
                    self._reads.popleft()
                else:
                    self._ahead = frames
        except UpstreamError as exc:
            self._error = exc
            self._reads.clear()
        self.more = bool(self._ahead) or self._error is not None

    def _frames(self, data: bytes) -> Iterator[list[bytes]]:
        """The frames of one read, decoded and cut only as they are asked for."""
        if self._decoder is None:
            for start in range(0, len(data), _PIECE_BYTES):
                yield from self._cut(data[start : start + _PIECE_BYTES])
            return
        try:
            for piece in self._decoder.feed(data):
                yield from self._cut(piece)
        except Undecodable:
            raise UpstreamGarbage("the body is not in its content coding", "upstream_coding") from None

    def _cut(self, data: bytes) -> Iterator[list[bytes]]:
        try:
            return _turns(self._framer.feed(data))
        except EventTooLarge as exc:
            return _turns(exc.before, exc)


def _turns(frames: Sequence[bytes], error: UpstreamError | None = None) -> Iterator[list[bytes]]:
    """`error`: what follows the frames."""
    for start in range(0, len(frames), TURN_EVENTS):
        yield list(frames[start : start + TURN_EVENTS])
    if error is not None:
        raise error


class Unread:
    """Bytes that pass through, each read of which is told to `passed`.

    `witness`: reads along with a body that ends with its connection, so that a part is not taken for the whole. One that
    cannot be read, or is over the limits, passes without.
    """

    def __init__(self, framing: Framing, headers: Headers, witness: Intake | None = None) -> None:
        self.witness = witness
        self._tail = b""
        coded = "Content-Encoding" in headers or "Content-Length" in headers
        self._event_ends = () if coded else _EVENT_ENDS.get(framing, ())

    def passed(self, data: bytes) -> None:
        """What went by last, in reads that end anywhere."""
        self._tail = data[-_END_BYTES:] if len(data) >= _END_BYTES else (self._tail + data)[-_END_BYTES:]

    def show(self, data: bytes) -> None:
        """What the witness has to see."""
        witness = self.witness
        if witness is None:
            return
        try:
            witness.feed(data)
            for _ in range(_MOST_TURNS):
                if not witness.more:
                    return
                witness.go_on()
        except UpstreamError:
            pass
        self.witness = None

    def finish(self) -> None:
        """The connection has ended. Raises `UpstreamTruncated` where the body has not."""
        try:
            if self.witness is not None:
                self.witness.finish()
        except UpstreamGarbage:
            self.witness = None

    @property
    def between_events(self) -> bool:
        """Whether an event can be added: where the last bytes visibly end one, if no length was promised and no coding
        hides them. Neither an injection nor an ending may split an event."""
        return bool(self._event_ends) and (not self._tail or self._tail.endswith(self._event_ends))
