"""I/O. The only file that reaches into aiohttp's client internals: a request in one write, a reply's body handed over in the
call that received it.

aiohttp's public way makes four objects and a task for a request, and wakes a task per read, which costs more than
everything else that is done to an event. Here a request is bytes on a connection of aiohttp's pool. Of the reply, aiohttp's
parser reads the head; for the body its own call appends to a list, and at the end of `data_received` all that one read
brought goes to the sink at once: one `feed` a read. It also makes three ends visible that a `StreamReader` does not tell
apart or does not tell at all: a reset of a body that ends with its connection (looks like EOF), bytes that are no chunk
(says nothing, ever), and informational responses (swallowed).

`check` compares what is used here with the installed aiohttp, once, at start; where it does not fit, portable_upstream.py
stands in.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader
from yarl import URL

from .errors import PenstockError, RequestError, UpstreamError, UpstreamGarbage, UpstreamTruncated
from .messages import TOKEN, Headers, head_bytes
from .sink import Sink, on_informational

_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))  # RFC 9110 §9.2.2


class _Reader(StreamReader):
    """A body on its way through. Takes the place of aiohttp's reader once the head is there: the same object, another
    class, since the parser holds on to the object."""

    __slots__ = ()
    _protocol: Any

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        self._protocol.response.parts.append(data)
        return False

    def feed_eof(self) -> None:
        self._protocol.between_chunks = False
        if self._protocol.response is not None:
            self._protocol.response.ended = True
        super().feed_eof()

    # The base class keeps the position of every chunk for a caller that asks for chunks; nobody takes them here.
    def begin_http_chunk_receiving(self) -> None:
        self._protocol.between_chunks = False

    def end_http_chunk_receiving(self) -> None:
        self._protocol.between_chunks = True


class _Protocol(ResponseHandler):
    """An upstream connection that knows whose reply it brings."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.response: Response | None = None  # until its reply is complete
        self.between_chunks = False  # the parser waits for a chunk's first byte

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """A head, from the parser."""
        message, body = data
        response = self.response
        if response is None or not response.awaits_head:  # nobody asked for it
            self.close()
        elif not all(map(TOKEN.fullmatch, message.headers)):
            # aiohttp lets "Content-Length : 0" pass, which the next hop may read as the field that it is not (RFC 9112
            # §5.1).
            self.set_exception(HttpProcessingError(message="a field name is no token"))
            self.close()
        elif 100 <= message.code < 200 and message.code != 101:
            response.informational(message)
        else:
            parts = []
            if type(body) is StreamReader:
                while part := body.read_nowait():
                    parts.append(part)
                body.__class__ = _Reader
            response.arrived(message, parts, ended=body.is_eof())

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        super().set_exception(exc)
        if self.response is not None:
            self.response.broken(exc)

    def data_received(self, data: bytes) -> None:
        response = self.response
        if response is None:  # nothing was asked for
            self.close()
            return
        if self.between_chunks and response.sink is not None and (chunk := _only_chunk(data)):
            response.sink.feed(chunk)  # the parser need not know: before the next chunk it stands as before this one
            return
        self.between_chunks = False
        # By itself: the parser forgets a good head where something bad comes behind it in the same read.
        while response.awaits_head and (end := data.find(b"\r\n\r\n")) >= 0:
            super().data_received(data[: end + 4])
            data = data[end + 4 :]
        if data:
            super().data_received(data)
            # What follows a chunk, if it ends a line, is the whole head of the next one, and the parser has said so.
            self.between_chunks = self.between_chunks and data.endswith(b"\r\n")
        if response.ended:
            self.response = None
            response.release()
        response.flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        response = self.response
        super().connection_lost(exc)
        self.response = None
        if response is not None:
            response.lost(exc)

    def close(self) -> None:
        """At once, where the peer does not take what is still to be sent: it must not keep the connection open."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.abort()
        else:
            super().close()


def _only_chunk(data: bytes) -> bytes:
    """The data of a read that is exactly one chunk (RFC 9112 §7.1), its size spelt as everybody spells it, as nearly all
    reads of a stream are; b"" for any other read."""
    end_of_size = data.find(b"\r\n", 0, 9)
    size = len(data) - end_of_size - 4
    if size > 0 and data.endswith(b"\r\n") and data[:end_of_size] == b"%x" % size:
        return data[end_of_size + 2 : -2]
    return b""


class Response:
    """A request that was sent, and its reply, whose body can be handed over. The caller must `close` it."""

    __slots__ = (
        "_connection", "_failure", "_informational", "_writer", "awaits_head", "ended", "head", "message", "parts",
        "protocol", "sink",
    )  # fmt: skip

    message: RawResponseMessage
    """The head, once it is there."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.protocol = cast(_Protocol, connection.protocol)
        self.protocol.response = self
        self.head: asyncio.Future[None] = loop.create_future()
        self.awaits_head = True
        self.parts: list[bytes] = []  # of the body, not yet handed over
        self.ended = False  # the body came to its end
        self._failure: PenstockError | None = None  # or broke off
        self._connection = connection
        self._informational = on_informational.get()
        self.sink: Sink | None = None
        self._writer: asyncio.Task[None] | None = None  # while the body of the request is being sent

    # The request

    def send(self, head: bytes, body: bytes | AsyncIterator[bytes] | None, *, chunked: bool) -> None:
        transport = self.protocol.transport
        if transport is None:
            raise aiohttp.ServerDisconnectedError
        if body and isinstance(body, bytes):
            transport.writelines((head, body))
            return
        transport.write(head)
        if body is not None and not isinstance(body, bytes):
            self._writer = asyncio.create_task(self._send(transport, body, chunked))

    async def _send(self, transport: asyncio.Transport, body: AsyncIterator[bytes], chunked: bool) -> None:
        try:
            async for data in body:
                if data:
                    transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                await self.protocol._drain_helper()
            if chunked:
                transport.write(b"0\r\n\r\n")
            self._writer = None
        except RequestError as exc:  # told at once, after the head too: else both ends would wait for the rest
            self.broken(exc)
            self._fail(exc)
        except ConnectionError:
            pass  # `lost` tells

    # What the protocol tells

    def informational(self, message: RawResponseMessage) -> None:
        if message.code > 100 and self._informational is not None:
            self._informational(message.code, Headers(message.headers))

    def arrived(self, message: RawResponseMessage, parts: list[bytes], *, ended: bool) -> None:
        """The head, with what came of the body."""
        self.awaits_head = False
        self.message = message
        self.parts = parts
        self.ended = ended
        if not self.head.done():
            self.head.set_result(None)

    def broken(self, exc: BaseException) -> None:
        """What comes, or came, is not HTTP; or, before the head, whatever else."""
        if self.awaits_head:
            self.awaits_head = False
            if not self.head.done():
                garbage = isinstance(exc, HttpProcessingError)
                self.head.set_exception(UpstreamGarbage("the head of the reply is not HTTP") if garbage else exc)
        elif isinstance(exc, HttpProcessingError) and not self.ended:
            self._failure = UpstreamGarbage("the body is not framed as its head says")

    def lost(self, exc: BaseException | None) -> None:
        """The connection was, before the reply was complete."""
        if exc is not None:
            self.ended = False  # a body that ends with its connection does not end so
            self._fail(UpstreamError("the connection was reset", "upstream_reset"))
        elif not self.ended:
            self._fail(UpstreamTruncated("the connection was closed before the body was complete"))
        self.flush()
        self.release()

    def release(self) -> None:
        """The reply is complete: the connection goes back to the pool, unless the rest of the request would follow."""
        if self._writer is None:
            self._connection.release()
        else:
            self._writer.cancel()
            self._connection.close()

    # The reply

    def hand_over(self, sink: Sink) -> None:
        """From now on all of the body goes to `sink`, beginning with what is here already."""
        self.sink = sink
        self.flush()

    def flush(self) -> None:
        """Give the sink what one read brought, then the end if it came with it."""
        sink, parts = self.sink, self.parts
        if sink is None:
            return
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            sink.feed(data)
            if self.sink is not sink:  # it had enough, and closed this
                return
        if self._failure is not None:
            self.sink = None
            sink.failed(self._failure)
        elif self.ended:
            self.sink = None
            sink.eof()

    def _fail(self, error: PenstockError) -> None:
        if self._failure is None:
            self._failure = error
        self.flush()

    # Only the transport: aiohttp's `pause_reading` also has the parser stop after the next piece of a body, which would
    # leave what came behind that piece, maybe the end, lying in the parser. With the last read of a body the connection is
    # in the pool already, even before that read was handed over: a pause would stop the next reply.
    def pause(self) -> None:
        """Stop reading. Does nothing before `hand_over` and after the end."""
        if self.sink is not None and not self.ended:
            self.protocol._pause_transport_reading()

    def resume(self) -> None:
        """Go on reading, if it is stopped."""
        if self.sink is not None and not self.ended:
            self.protocol._resume_transport_reading()

    def close(self) -> None:
        """Nothing goes to the sink any more; what is not complete is broken off, and its connection closed."""
        self.sink = None
        if self._writer is not None:
            self._writer.cancel()
        if self.protocol.response is self:
            self.protocol.response = None
        self._connection.close()


def _parsing(field_bytes: int, fields: int) -> dict[str, Any]:
    return {
        "auto_decompress": False,
        "read_until_eof": True,
        "max_line_size": field_bytes,
        "max_field_size": field_bytes,
        "max_headers": fields,
    }


class Pool:
    """The connections to one upstream: aiohttp's pool of connections that hand over. Needs a running loop."""

    def __init__(self, url: URL, *, connect_s: float, field_bytes: int, fields: int, **options: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(**options)
        factory: Any = functools.partial(_Protocol, loop=self._loop)
        self._connector._factory = factory
        self._target = aiohttp.ClientRequest("GET", url, loop=self._loop)  # whom to connect to; never sent
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        self._parse = _parsing(field_bytes, fields)

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        chunked: bool = False,
    ) -> Response:
        """`upstream.Pool.send`."""
        head = head_bytes(f"{method} {target} HTTP/1.1", headers)
        again = method in _IDEMPOTENT and (body is None or isinstance(body, bytes))
        while True:
            connection = await self._connector.connect(self._target, [], self._timeout)
            response = Response(connection, self._loop)
            try:
                response.protocol.set_response_params(skip_payload=method == "HEAD", **self._parse)
                response.send(head, body, chunked=chunked)
                await response.head
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                response.close()
                if not again:
                    raise
                again = False
            except BaseException:
                response.close()
                raise
            else:
                return response

    async def close(self) -> None:
        await self._connector.close()


def check() -> None:
    """Raises RuntimeError where the installed aiohttp is not built as this file expects. Needs a running loop."""
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in (
            (StreamReader, ("_protocol", "feed_data", "feed_eof", "read_nowait", "is_eof")),
            (StreamReader, ("begin_http_chunk_receiving", "end_http_chunk_receiving")),
            (ResponseHandler, ("data_received", "connection_lost", "feed_data", "close", "abort")),
            (ResponseHandler, ("set_exception", "set_response_params")),
            (ResponseHandler, ("_pause_transport_reading", "_resume_transport_reading", "_drain_helper")),
            (aiohttp.BaseConnector, ("connect", "close")),
            (Connection, ("protocol", "release", "close")),
        )
        for name in names
        if not hasattr(owner, name)
    ]
    if "_factory" not in inspect.getsource(aiohttp.BaseConnector.__init__):
        missing.append("BaseConnector._factory")
    if getattr(_Reader, "__basicsize__", 0) != getattr(StreamReader, "__basicsize__", 1):
        missing.append("StreamReader with __slots__")
    if missing:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} is built differently: {', '.join(missing)}")
    try:
        inspect.signature(aiohttp.BaseConnector.connect).bind(None, None, [], None)
        came = _rehearse()
    except Exception as exc:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} works differently: {type(exc).__name__}") from exc
    if came != [b"one", b"two", "released", b"three", "eof"]:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} works differently: a reply does not come out as it went in")


class _Rehearsal:
    """A `Sink`, and a `Connection` to nowhere. `came` is what it was told."""

    def __init__(self, protocol: _Protocol) -> None:
        self.protocol = protocol
        self.came: list[bytes | str] = []

    def feed(self, data: bytes) -> None:
        self.came.append(data)

    def eof(self) -> None:
        self.came.append("eof")

    def failed(self, error: PenstockError) -> None:
        self.came.append(error.details)

    def release(self) -> None:
        self.came.append("released")

    def close(self) -> None:
        pass


def _rehearse() -> list[bytes | str]:
    """What becomes of a reply on a connection to nowhere: names that are there may mean something else."""
    loop = asyncio.get_running_loop()
    protocol = _Protocol(loop)
    rehearsal = _Rehearsal(protocol)
    protocol.set_response_params(skip_payload=False, **_parsing(8190, 128))
    response = Response(cast(Connection, rehearsal), loop)
    protocol.data_received(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    protocol.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
    response.head.result()
    response.hand_over(rehearsal)
    protocol.data_received(b"3\r\ntwo\r\n")
    protocol.data_received(b"5\r\nthree\r\n0\r\n\r\n")
    return rehearsal.came
