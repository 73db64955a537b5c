"""I/O. The only file that reaches into aiohttp's server internals: a request is taken over in the call that received it.

aiohttp gives each connection a task that waits for requests and each request another, and wakes the one and then the other.
Here there is a task while there is a request, and it begins as soon as the head is there; timers and look-ups of a connection
that nobody needs are left out. And what is found out about a body too late, with the next request, is told to who reads it.

`check` compares what is used here with the installed aiohttp, once, at start; connection.py stands in where it does not fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import ERROR, RequestHandler, _ErrInfo

from . import connection

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

logger = logging.getLogger(__name__)

_USED = (  # of what is not documented
    "_buffer_paused", "_close", "_force_close", "_handle_request", "_lingering_time", "_loop", "_make_error_handler",
    "_manager", "_messages", "_msg_queue_resume_size", "_parser", "_reading_paused", "_request_handler",
    "_resume_reading_if_drained", "_task_handler", "force_close", "handle_error", "peername", "resume_reading", "sockname",
    "start",
)  # fmt: skip
_NOBODY: Any = None  # aiohttp's own writer, and the task that it would cancel: replies are written by us


class Connection(connection.Connection):
    """One client connection. `idle_since`: since when every request is answered and nothing of another has come."""

    __slots__ = ("_body", "_context")

    # To look a socket's own name up takes a system call, and nobody asks for it; the peer's is in `client`.
    peername = sockname = None

    def __init__(self, manager: web.Server, keeper: connection.ConnectionKeeper, **options: Any) -> None:
        super().__init__(manager, keeper, **options)
        self._body: StreamReader = EMPTY_PAYLOAD  # of the request that was read last

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not aiohttp's: beside the task it has a timer for each connection (`idle_since` does instead), and it looks for the
        # socket to set TCP_NODELAY, which event loops do themselves; to look costs more than to parse a request.
        assert self._manager is not None
        self.transport = cast(asyncio.Transport, transport)
        self._manager.connection_made(self, self.transport)
        self._context = contextvars.copy_context()
        self._begin(self.transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._body = EMPTY_PAYLOAD  # it knows its connection: nothing is left for the garbage collector to find

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        web.RequestHandler.data_received(self, data)
        if not self._messages:
            # Empty lines are skipped (RFC 9112 §2.2).
            if self._task_handler is None and self.head_since is None and data.strip(b"\r\n"):
                self.head_since = self._loop.time()
                self.idle_since = None
            return
        self.head_since = self.idle_since = None
        message, content = self._messages[-1]
        if not isinstance(message, _ErrInfo):
            self._body = content
        elif not self._body.is_eof() and self._body.exception() is None:
            # A body that turns out not to be framed as its head says is queued by aiohttp as the *next* request's
            # error, and nobody tells the handler that waits for the rest of this one.
            self._body.set_exception(web.RequestPayloadError("the body is not framed as its head says"))
        if self._task_handler is None:
            self._begin_next()

    def _begin_next(self) -> None:
        """Answer the next request that has come, if it is to be answered."""
        if self._messages and not self._close and not self._force_close:
            # Its own context: else it would begin in that of the request before it, where it is the end of that which asks.
            self._task_handler = self._loop.create_task(self.start(), context=self._context.copy())

    async def start(self) -> None:
        """One request to its answer. Cancelled when the client is gone."""
        try:
            message, content = self._messages.popleft()
            if self._parser is not None:
                self._parser.message_consumed()
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            if not await self._answer(message, content):
                self.close()
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception as exc:
            logger.error("a request could not be handled", exc_info=exc)
            self.force_close()
        finally:
            self._task_handler = None
        if self._close and self.transport is not None:
            self.transport.close()
        self._begin_next()
        if self._task_handler is None:
            self.idle_since = self._loop.time()

    async def _answer(self, message: RawRequestMessage | _ErrInfo, content: StreamReader) -> bool:
        """Whether the connection can go on behind it."""
        assert self._request_handler is not None
        handler = self._request_handler
        if isinstance(message, _ErrInfo):
            handler, message = self._make_error_handler(message), ERROR
        request = web.BaseRequest(message, content, self, _NOBODY, _NOBODY, self._loop)
        try:
            response, client_left = await self._handle_request(request, None, handler)
        except ConnectionError:
            return False
        if client_left:
            return False
        if not content.is_eof() and not self._force_close:
            await self._skip(content)
        return bool(response.keep_alive) and content.is_eof()

    async def _skip(self, content: StreamReader) -> None:
        """Read over what is left of a request's body for a moment: a client that is cut off while it sends may never see the
        answer (RFC 9112 §9.6)."""
        with contextlib.suppress(Exception):  # it breaks off, or takes too long: then it is not at its end
            async with asyncio.timeout(self._lingering_time):
                while not content.is_eof():
                    await content.readany()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # A reader of a body says so after each piece, and aiohttp would have its parser look for more each time.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    @property
    def idle(self) -> bool:
        return self.watcher is None and not self._messages


def check() -> None:
    """Raises RuntimeError where the installed aiohttp is not built as `Connection` expects. Needs a running loop."""
    missing = [name for name in _USED if not hasattr(RequestHandler, name)]
    if missing:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} is built differently: {', '.join(missing)}")
    try:
        came = _rehearse()
    except Exception as exc:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} works differently: {type(exc).__name__}") from exc
    if came != _EXPECTED:
        raise RuntimeError(f"aiohttp {aiohttp.__version__} works differently: requests do not come out as they went in")


_READS = (  # two requests at once, the second one's body in two reads; one in chunks; one whose head is none
    b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo",
    b"dy",
    b"POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    b"GET /4 HTTP/1.1\r\nHost : h\r\n\r\n",
)
_EXPECTED = ["GET /1", "POST /2", b"bo", b"dy", "POST /3", b"body", "malformed_request", "closed", "lost"]


class _Rehearsal(asyncio.Transport):
    """A transport to nowhere and who keeps its connection. `came` is what they were told, and the handler was asked."""

    write_buffer_bytes = 0

    def __init__(self) -> None:
        super().__init__()
        self.came: list[str | bytes] = []
        self.running: Coroutine[Any, Any, None] | None = None  # of the connection, instead of a task

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.came.append(f"{request.method} {request.raw_path}")
        while data := await request.content.readany():
            self.came.append(data)
        return connection.STAYS

    def go_on(self) -> None:
        while self.running is not None:
            running, self.running = self.running, None
            try:
                running.send(None)
            except StopIteration:  # its last act is to begin the next
                continue
            self.running = running  # it waits for more of a body
            break

    def connected(self, _: connection.Connection) -> bool:
        return True

    def disconnected(self, _: connection.Connection) -> None:
        self.came.append("lost")

    def refuse_malformed(self, _: connection.Connection, details: str) -> connection.Written:
        self.came.append(details)
        return connection.CLOSES

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def close(self) -> None:
        if "closed" not in self.came:  # a connection that is lost is closed once more
            self.came.append("closed")


class _Rehearsed(Connection):
    """Has no task: `_Rehearsal.go_on` does its work."""

    def _begin_next(self) -> None:
        if self._messages and not self._close:
            cast(_Rehearsal, self._keeper).running = self._task_handler = cast(Any, self.start())


def _rehearse() -> list[str | bytes]:
    """What becomes of requests on a connection to nowhere: names that are there may mean something else."""
    rehearsal = _Rehearsal()
    manager = web.Server(rehearsal.handle, handler_cancellation=True)
    connection = _Rehearsed(manager, rehearsal, loop=asyncio.get_running_loop(), access_log=None)
    connection.connection_made(rehearsal)
    for data in _READS:
        connection.data_received(data)
        rehearsal.go_on()
    connection.connection_lost(None)
    return rehearsal.came
