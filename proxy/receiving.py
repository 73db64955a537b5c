"""I/O. What a request asks for, whether it may, and its body: from what aiohttp's parser gives, before any policy is asked.

The parser is lenient where two readers of the same bytes could differ; what is refused here could mean one thing to us
and another to the model server.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http import HttpProcessingError

from .downstream import ClientReply
from .errors import RequestError
from .messages import Chunks, Fields, tokens

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

_BROKEN = (web.RequestPayloadError, HttpProcessingError, ConnectionError, RuntimeError)
_METHODS_REFUSED = ("CONNECT", "TRACE")
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?]*)(.*)")
# RFC 3986 §3.2.2 and §3.2.3, without what only a list or a user's name would need.
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]*)(?::[0-9]*)?")


class Counted:
    """Bytes of a request body that were read so far."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


def target_of(request: BaseRequest) -> tuple[str, str, str]:
    """Host, path and query that were asked for (RFC 9112 §3.2: origin form, or absolute form, whose host counts)."""
    host, target = request.headers.get("Host", ""), request.raw_path
    if (absolute := _ABSOLUTE_FORM.fullmatch(target)) is not None:
        host, target = absolute.groups()
        target = target if target.startswith("/") else f"/{target}"
    path, _, query = target.partition("?")
    return host, path, query


def check(request: BaseRequest, headers: Fields, host: str) -> None:
    """What no route can allow. Raises `RequestError`."""
    if request.method in _METHODS_REFUSED:
        raise RequestError("a method that is not passed on", "method_refused")
    if request.version < (1, 0):
        raise RequestError("HTTP/0.9", "malformed_request")
    hosts = headers.getall("Host", ())
    if len(hosts) > 1 or (not hosts and request.version >= (1, 1)):
        raise RequestError("needs one Host field (RFC 9112 §3.2)", "malformed_request")
    if not _AUTHORITY.fullmatch(host):
        raise RequestError("the host is none", "malformed_request")
    if "Transfer-Encoding" in headers:
        if request.version < (1, 1):
            raise RequestError("HTTP/1.0 knows no transfer codings (RFC 9112 §6.1)", "malformed_request")
        if tokens(headers.getall("Transfer-Encoding")) not in ([], ["chunked"]):
            raise RequestError("only chunked is understood (RFC 9112 §6.1)", "transfer_coding")
    if "Connection" in headers and _asks_for_another(headers):
        raise RequestError("another protocol is asked for", "upgrade_refused")
    if "Expect" in headers and any(value.lower() != "100-continue" for value in headers.getall("Expect")):
        raise RequestError("only 100-continue can be expected (RFC 9110 §10.1.1)", "expectation_failed")


def _asks_for_another(headers: Fields) -> bool:
    # h2c may be ignored (RFC 9113 §3.1), and curl offers it unasked
    return "upgrade" in tokens(headers.getall("Connection")) and tokens(headers.getall("Upgrade", ())) != ["h2c"]


class Body(Chunks):
    """The request's body as it arrives. Raises `RequestError`: too large, too slow, or not framed as its head says."""

    __slots__ = ("_content", "_counted", "_expected", "_limit_bytes", "_limit_s", "_reply")

    def __init__(
        self, request: BaseRequest, reply: ClientReply, limit_bytes: int, limit_s: float, counted: Counted
    ) -> None:
        self._content = request.content
        self._reply = reply
        self._limit_bytes = limit_bytes
        self._limit_s = limit_s
        self._counted = counted
        self._expected = "Expect" in request.headers

    def whole(self) -> bytes | None:
        content = self._content
        try:
            return self._count(content.read_nowait()) if content.is_eof() else None
        except _BROKEN:
            raise _broken_off() from None

    async def __anext__(self) -> bytes:
        if self._expected:
            self._reply.continue_()
            self._expected = False
        content = self._content
        try:
            data = content.read_nowait()  # most bodies come with their heads
            if not data and not content.at_eof():
                async with asyncio.timeout(self._limit_s):
                    data = await content.readany()
        except TimeoutError:
            raise RequestError("no more of the body came", "body_timeout") from None
        except _BROKEN:
            raise _broken_off() from None
        if not data:
            raise StopAsyncIteration
        return self._count(data)

    def _count(self, data: bytes) -> bytes:
        self._counted.bytes += len(data)
        if self._counted.bytes > self._limit_bytes:
            raise RequestError("the body is over the limit", "body_too_large")
        return data


def _broken_off() -> RequestError:
    return RequestError("the body broke off", "malformed_body")
