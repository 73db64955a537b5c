"""I/O. A client's connection, on what aiohttp promises to keep. takeover.py has one that costs less.

It cannot see into what aiohttp has queued. So a request's body that turns out not to be framed as its head says ends like
one that does not come, at its time limit.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Any, Protocol, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who is told when a connection's write buffer fills and drains (`exchange.Exchange`)."""

    def unwritable(self) -> None: ...
    def writable(self) -> None: ...


class ConnectionKeeper(Protocol):
    """What a connection asks of the server."""

    write_buffer_bytes: int

    def connected(self, connection: Connection) -> bool:
        """Whether the connection may stay; False: over a cap."""

    def disconnected(self, connection: Connection) -> None: ...

    def refuse_malformed(self, connection: Connection, details: str) -> Written: ...


class Connection(web.RequestHandler):
    """One client connection. `client` is its peer's address, "" on a Unix socket; `head_since` is the monotonic time since
    which a request's head is awaited: the first one from the start, a later one from its first byte; None at other times.
    `idle_since`: since when nothing is awaited, where the server is to end that; None where aiohttp does.
    """

    __slots__ = (
        "_keeper", "_probed", "_refused", "client", "closing_since", "head_since", "idle_since", "raw_transport", "watcher",
    )  # fmt: skip

    def __init__(self, manager: web.Server, keeper: ConnectionKeeper, **options: Any) -> None:
        super().__init__(manager, tcp_keepalive=False, **options)
        self._keeper = keeper
        self._probed = False
        self._refused = False
        self.watcher: Watcher | None = None
        self.raw_transport: asyncio.Transport | None = None  # aiohttp forgets its own when it closes
        self.client = ""
        self.closing_since: float | None = None
        self.head_since: float | None = None
        self.idle_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begin(cast(asyncio.Transport, transport))

    def _begin(self, transport: asyncio.Transport) -> None:
        self.raw_transport = transport
        transport.set_write_buffer_limits(high=self._keeper.write_buffer_bytes)
        peer = transport.get_extra_info("peername")
        self.client = str(peer[0]) if isinstance(peer, tuple) else ""
        self.head_since = asyncio.get_running_loop().time()
        self._refused = not self._keeper.connected(self)

    def probe(self) -> None:
        """Have the kernel ask from time to time whether the client is still there (tcp(7), SO_KEEPALIVE); for a connection
        that lives longer than a moment, once."""
        if not self._probed and self.raw_transport is not None:
            self._probed = True
            accepted = self.raw_transport.get_extra_info("socket")
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._keeper.disconnected(self)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self.idle and data.strip(b"\r\n"):  # empty lines are skipped (RFC 9112 §2.2)
            self.head_since = asyncio.get_running_loop().time()  # until the server has the request

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.watcher is not None:
            self.watcher.unwritable()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.watcher is not None:
            self.watcher.writable()

    @property
    def idle(self) -> bool:
        """Every request that has come is answered."""
        return self.watcher is None and self.head_since is None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp could not parse the request, or our handler failed."""
        details = "malformed_request"
        if status >= 500:
            details = "internal_error"
            logger.error("a request could not be handled", exc_info=exc)
        if isinstance(exc, HttpProcessingError):
            details = _too_large(exc) or details
        return self._keeper.refuse_malformed(self, details)


def _too_large(exc: HttpProcessingError) -> str:
    """Which limit a head is over, which aiohttp says in words only; "" where it is over none."""
    message = exc.message.lower()
    if message.startswith("got more than"):
        line = exc.args[0] if exc.args else b""
        target = isinstance(line, (bytes, bytearray)) and line.startswith((b"/", b"http"))
        return "uri_too_long" if target else "head_too_large"
    return "head_too_large" if "too many" in message else ""


class Written(web.StreamResponse):
    """What aiohttp is given back once everything has been written: it has nothing left to do."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._stays = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._stays

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass


STAYS, CLOSES = Written(keep_alive=True), Written(keep_alive=False)
"""For all exchanges: nothing is kept in them, and each of aiohttp's responses has fields and cookies."""
