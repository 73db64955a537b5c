"""I/O. The only file that reaches into aiohttp's client internals: hands body bytes over in the call that received them.

aiohttp's public way to a body wakes a task per read, which costs more than everything else that is done to an event. Here
the parser's own call appends to a list, and at the end of `data_received` all that one read brought goes to the sink at
once: one `feed` a read. It also makes three ends visible that a `StreamReader` does not tell apart or does not tell at
all: a reset of a body that ends with its connection (looks like EOF), bytes that are no chunk (says nothing, ever), and
informational responses (swallowed).

`check` compares what is used here with the installed aiohttp, once, at start.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from aiohttp.streams import StreamReader

from .errors import UpstreamError, UpstreamGarbage, UpstreamTruncated
from .messages import Headers
from .sink import Informational, Sink, on_informational

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2


class _Reader(StreamReader):
    """A body on its way through. Takes the place of aiohttp's reader once the head is there: the same object, another
    class, since the parser holds on to the object."""

    __slots__ = ()
    _protocol: Any

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        self._protocol.parts.append(data)
        return False

    def feed_eof(self) -> None:
        self._protocol.body_ended = True
        self._protocol.between_chunks = False
        super().feed_eof()

    # The base class keeps the position of every chunk for a caller that asks for chunks; nobody takes them here.
    def begin_http_chunk_receiving(self) -> None:
        self._protocol.between_chunks = False

    def end_http_chunk_receiving(self) -> None:
        self._protocol.between_chunks = True


class _Protocol(ResponseHandler):
    """An upstream connection that knows where the body of its current reply goes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.sink: Sink | None = None
        self.awaits_head = False
        self.parts: list[bytes] = []
        self.body_ended = False
        self.between_chunks = False  # the parser waits for a chunk's first byte
        self.lost: BaseException | None = None
        self.on_informational: Informational | None = None

    def feed_data(self, data: Any, size: int = 0) -> None:
        status, headers = data[0].code, data[0].headers
        if not all(map(_TOKEN.fullmatch, headers)):
            # aiohttp lets "Content-Length : 0" pass, which the next hop may read as the field that it is not (RFC 9112
            # §5.1).
            self.set_exception(HttpProcessingError(message="a field name is no token"))
            self.close()
            return
        self.awaits_head = 100 <= status < 200 and status != 101
        if 100 < status < 200 and status != 101 and self.on_informational is not None:
            self.on_informational(status, Headers(headers))
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if self.between_chunks and self.sink is not None and (chunk := _only_chunk(data)):
            self.sink.feed(chunk)  # the parser need not know: before the next chunk it stands as before this one
            return
        self.between_chunks = False
        # By itself: the parser forgets a good head where something bad comes behind it in the same read.
        while self.awaits_head and not self.is_eof() and (end := data.find(b"\r\n\r\n")) >= 0:
            super().data_received(data[: end + 4])
            data = data[end + 4 :]
        super().data_received(data)
        # What follows a chunk, if it ends a line, is the whole head of the next one, and the parser has said so.
        self.between_chunks = self.between_chunks and data.endswith(b"\r\n")
        if self.sink is not None:
            self.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        super().connection_lost(exc)
        sink = self.sink
        if sink is None:
            return
        if self.body_ended and exc is None:
            self.flush()
            return
        self.sink = None
        if exc is not None:
            sink.failed(UpstreamError("the connection was reset", "upstream_reset"))
        else:
            sink.failed(UpstreamTruncated("the connection was closed before the body was complete"))

    def close(self) -> None:
        """At once, where the peer does not take what is still to be sent: it must not keep the connection open."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()

    def flush(self) -> None:
        """Give the sink what one read brought, then the end if it came with it."""
        sink, parts = self.sink, self.parts
        assert sink is not None
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            sink.feed(data)
            if self.sink is not sink:  # the sink had enough and detached
                return
        if self.body_ended:
            self.sink = None
            sink.eof()
        elif isinstance(self.exception(), HttpProcessingError):
            self.sink = None
            sink.failed(UpstreamGarbage("the body is not framed as its head says"))


def _only_chunk(data: bytes) -> bytes:
    """The data of a read that is exactly one chunk (RFC 9112 §7.1), its size spelt as everybody spells it, as nearly all
    reads of a stream are; b"" for any other read."""
    end_of_size = data.find(b"\r\n", 0, 9)
    size = len(data) - end_of_size - 4
    if size > 0 and data.endswith(b"\r\n") and data[:end_of_size] == b"%x" % size:
        return data[end_of_size + 2 : -2]
    return b""


class Response(aiohttp.ClientResponse):
    """A reply whose body can be handed over."""

    protocol: _Protocol
    _sink: Sink | None = None

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        self.protocol = connection.protocol
        self.protocol.awaits_head = True
        self.protocol.body_ended = self.protocol.between_chunks = False
        self.protocol.parts.clear()
        self.protocol.on_informational = on_informational.get()
        try:
            return await super().start(connection)
        finally:
            self.protocol.on_informational = None

    def hand_over(self, sink: Sink) -> None:
        """From now on all of the body goes to `sink`, beginning with what is here already.

        The caller must `detach` before it closes the response early."""
        reader = self.content
        if type(reader) is not StreamReader or reader.is_eof():
            parts = self._arrived(reader)
            if parts:
                sink.feed(b"".join(parts))
            if self.ends_with_connection and self.protocol.lost is not None:
                sink.failed(UpstreamError("the connection was reset", "upstream_reset"))
            else:
                sink.eof()
            return
        self.protocol.parts.extend(self._arrived(reader))
        reader.__class__ = _Reader
        if reader.exception() is not None:
            error = UpstreamTruncated() if self.protocol.lost is None else UpstreamError("", "upstream_reset")
            if self.protocol.parts:
                sink.feed(b"".join(self.protocol.parts))
            sink.failed(error)
            return
        self.protocol.sink = self._sink = sink
        self.protocol.flush()

    @property
    def ends_with_connection(self) -> bool:
        """The body has neither a length nor chunks: its end looks the same whether or not it is complete."""
        return "Content-Length" not in self.headers and "Transfer-Encoding" not in self.headers

    @property
    def _flows(self) -> bool:
        """The connection still serves this reply. With the last read of a body it is in the pool already, even before that
        read was handed over: a pause would stop the next reply."""
        return self._attached and not self.protocol.body_ended

    @property
    def _attached(self) -> bool:
        return self._sink is not None and self.protocol.sink is self._sink

    @staticmethod
    def _arrived(reader: StreamReader) -> list[bytes]:
        parts = []
        while reader.exception() is None and (data := reader.read_nowait()):
            parts.append(data)
        return parts

    def detach(self) -> None:
        """Nothing goes to the sink any more."""
        if self._attached:
            self.protocol.sink = None

    # Only the transport: aiohttp's `pause_reading` also has the parser stop after the next piece of a body, which would
    # leave what came behind that piece, maybe the end, lying in the parser.
    def pause(self) -> None:
        """Stop reading. Does nothing before `hand_over` and after the end."""
        if self._flows:
            self.protocol._pause_transport_reading()

    def resume(self) -> None:
        """Go on reading, if it is stopped."""
        if self._flows:
            self.protocol._resume_transport_reading()


def connector(**options: Any) -> aiohttp.TCPConnector:
    """A connection pool whose connections hand over."""
    made = aiohttp.TCPConnector(**options)
    factory: Any = functools.partial(_Protocol, loop=asyncio.get_running_loop())
    made._factory = factory
    return made


def check() -> None:
    """Raises RuntimeError where the installed aiohttp is not built as this file expects."""
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in (
            (StreamReader, ("_protocol", "feed_data", "feed_eof", "read_nowait", "exception", "is_eof")),
            (StreamReader, ("begin_http_chunk_receiving", "end_http_chunk_receiving")),
            (ResponseHandler, ("data_received", "connection_lost", "feed_data", "is_eof", "close", "abort")),
            (ResponseHandler, ("exception", "_pause_transport_reading", "_resume_transport_reading")),
            (aiohttp.ClientResponse, ("start",)),
        )
        for name in names
        if not hasattr(owner, name)
    ]
    if "_factory" not in inspect.getsource(aiohttp.BaseConnector.__init__):
        missing.append("BaseConnector._factory")
    if getattr(_Reader, "__basicsize__", 0) != getattr(StreamReader, "__basicsize__", 1):
        missing.append("StreamReader with __slots__")
    if missing:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} is built differently ({', '.join(missing)}); install 3.14.x")
