"""I/O. One reply, written straight to its connection's transport.

Head and body: header fields exactly as the upstream and the policies leave them, and body bytes without a task wake-up.
"""

from __future__ import annotations

import asyncio
import email.utils
import fcntl
import http
import re
import sys
import termios
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from aiohttp import EMPTY_PAYLOAD, StreamReader

from .messages import ResponseHead, drop, head_bytes

if TYPE_CHECKING:
    from .connection import Connection

_FRAMING = frozenset(("connection", "keep-alive", "transfer-encoding"))
_LENGTH = re.compile(r"[0-9]+")


class ClientReply:
    """`attachment.Downstream` on one connection. After `end` or `abort` nothing may be written. `content` is the body of
    the request, as far as it has come."""

    __slots__ = (
        "_chunked", "_connection", "_content", "_delimited", "_head", "_head_only", "_http_1_0", "_left", "keep_alive",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        *,
        method: str,
        http_1_0: bool,
        keep_alive: bool,
        content: StreamReader = EMPTY_PAYLOAD,
    ) -> None:
        self.keep_alive = keep_alive
        self._connection = connection
        self._content = content
        self._head = b""  # that waits for the first bytes of the body
        self._http_1_0 = http_1_0
        self._head_only = method == "HEAD"
        self._chunked = False
        self._delimited = True
        self._left: int | None = None  # bytes of the Content-Length still to come

    def send_head(self, head: ResponseHead) -> None:
        """How the body is framed is decided here, whatever `head` says of it. Raises ValueError for what would break the
        head or the framing (RFC 9110 §5.5, §8.6)."""
        headers = head.headers
        drop(headers, _FRAMING)
        lengths = headers.getall("Content-Length", ())
        if len(lengths) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
            raise ValueError("Content-Length is not one number")
        if head.local and not self._content.is_eof():
            self.keep_alive = False  # what is still to come of the request will not be read (RFC 9110 §10.1.1)
        bodiless = self._head_only or head.status in (204, 304)
        self._head_only = bodiless
        if head.status == 204:
            headers.popall("Content-Length", None)  # RFC 9110 §8.6
        elif lengths and not bodiless:
            self._left = int(lengths[0])
        elif not bodiless:
            if self._http_1_0:
                self._delimited = self.keep_alive = False
            else:
                self._chunked = True
                headers["Transfer-Encoding"] = "chunked"
        if "Date" not in headers:
            headers["Date"] = _date(int(time.time()))
        if not self.keep_alive:
            headers["Connection"] = "close"
        elif self._http_1_0:
            headers["Connection"] = "keep-alive"
        self._head = _head_bytes(head)

    def flush(self) -> None:
        if self._head:
            self._write(b"")

    def send_informational(self, head: ResponseHead) -> None:
        if not self._http_1_0:
            self._write(_head_bytes(head))

    def write(self, data: bytes) -> None:
        if self._left is not None:
            if len(data) > self._left:  # the client would take the rest for the next reply
                data = data[: self._left]
                self.keep_alive = False
            self._left -= len(data)
        if self._head_only or not data:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        transport = self._connection.raw_transport
        if self._head or transport is None or transport.is_closing():
            self._write(data)
        else:  # for each event: a call less
            transport.write(data)

    def end(self) -> None:
        if self._left:
            self.abort()
        elif self._chunked and not self._head_only:
            self._write(b"0\r\n\r\n")
        else:
            self.flush()

    def abort(self) -> None:
        self.keep_alive = False
        self.flush()
        transport = self._connection.raw_transport
        if transport is None:
            return
        if self._delimited:
            transport.close()  # no last chunk, or too few bytes: the client can tell, and gets all that was written
        else:
            transport.abort()  # only a reset tells a body that ends with its connection from a complete one

    def reset(self) -> None:
        self.keep_alive = False
        if self._connection.raw_transport is not None:
            self._connection.raw_transport.abort()

    @property
    def unsent(self) -> int:
        transport = self._connection.raw_transport
        if transport is None or transport.is_closing():
            return 0
        return transport.get_write_buffer_size() + _unsent_in_kernel(transport)

    def continue_(self) -> None:
        """The client may send its body (RFC 9110 §10.1.1)."""
        if not self._http_1_0:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        transport = self._connection.raw_transport
        if transport is not None and not transport.is_closing():
            transport.write(data)


def _unsent_in_kernel(transport: asyncio.Transport) -> int:
    """Bytes in the socket's send queue that the peer has not acknowledged (tcp(7), SIOCOUTQ); 0 where nobody says."""
    try:
        answer = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, AttributeError):
        return 0
    return int.from_bytes(answer, sys.byteorder)


def _head_bytes(head: ResponseHead) -> bytes:
    if not 100 <= head.status <= 999:
        raise ValueError("a status has three digits")
    # What the upstream made up is text that no policy has seen: where one sees the events, clients can do without it
    # (RFC 9112 §4).
    own = "" if head.stream is not None or head.status < 200 else head.reason
    return head_bytes(f"HTTP/1.1 {head.status} {own or _reason(head.status)}", head.headers, errors="surrogateescape")


@lru_cache(1024)  # there are no more than 900
def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else ""


_last_date = (0, "")


def _date(second: int) -> str:
    """An IMF-fixdate (RFC 9110 §5.6.7); made once a second."""
    global _last_date
    if _last_date[0] != second:
        _last_date = (second, email.utils.formatdate(second, usegmt=True))
    return _last_date[1]
