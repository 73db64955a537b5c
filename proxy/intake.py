"""The body of an upstream's reply on its way in, as far as the relay must know it. Pure, bounded.

`Intake` reads it: content coding undone, cut into frames, frames made events. `Unread` lets it pass as it is, and knows
only where it could be added to.
"""

from __future__ import annotations

from .decoding import Decoder, Undecodable, content_coding
from .dialects.base import DialectStream
from .errors import UpstreamGarbage, UpstreamTruncated
from .framing import Framing
from .messages import Headers
from .policy import Events

# With what bytes a read ends where an event ends with it.
_EVENT_ENDS = {Framing.SSE: (b"\n\n", b"\r\n\r\n"), Framing.NDJSON: (b"\n",)}


class Intake:
    """From bytes to events. `whole` is the body of a reply that is one event, once it is there."""

    def __init__(self, stream: DialectStream, headers: Headers, *, event_bytes: int, reply_bytes: int) -> None:
        """Takes the content coding out of `headers`. Raises `UpstreamGarbage` (upstream_coding) for an unknown one."""
        self.whole = b""
        self._stream = stream
        self._make = stream.event
        self._framer = stream.framer(reply_bytes if stream.framing is Framing.JSON else event_bytes)
        self._read_limit = reply_bytes
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
        """The events that one read completes. Raises `UpstreamGarbage`."""
        frames = self._framer.feed(data) if self._decoder is None else self._decoded(self._decoder, data)
        make = self._make
        return [make(frame) for frame in frames]

    def finish(self, *, ends_with_connection: bool) -> Events:
        """What is left at the end of the body. Raises `UpstreamTruncated` where that shows that it came too early: in the
        middle of a coded body, or of an event if nothing but the lost connection says that this is the end."""
        rest = self._framer.finish()
        if self._decoder is not None and not self._decoder.complete:
            raise UpstreamTruncated("the coded body is not complete")
        if self._stream.framing.streaming and ends_with_connection and rest.strip():
            raise UpstreamTruncated("the last event is not complete")
        self.whole = rest
        return [self._make(rest)] if rest else []

    def _decoded(self, decoder: Decoder, data: bytes) -> list[bytes]:
        """The frames in one coded read, which may stand for much: but not for more than a whole reply may have."""
        frames: list[bytes] = []
        size = 0
        try:
            for piece in decoder.feed(data):
                size += len(piece)
                if size > self._read_limit:
                    raise UpstreamGarbage("one read decodes to more than the limit", "upstream_coding")
                frames += self._framer.feed(piece)
        except Undecodable:
            raise UpstreamGarbage("the body is not in its content coding", "upstream_coding") from None
        return frames


class Unread:
    """Bytes that pass through. `last_read` is kept by the relay."""

    def __init__(self, framing: Framing, headers: Headers) -> None:
        self.last_read = b""
        coded = "Content-Encoding" in headers or "Content-Length" in headers
        self._event_ends = () if coded else _EVENT_ENDS.get(framing, ())

    @property
    def between_events(self) -> bool:
        """Whether an event can be added: where the last bytes visibly end one, if no length was promised and no coding
        hides them. Neither an injection nor an ending may split an event."""
        return bool(self._event_ends) and (not self.last_read or self.last_read.endswith(self._event_ends))
