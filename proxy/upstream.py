"""I/O. The model-server side: one pool per configured upstream, one attempt per exchange, foreign errors translated.

What is sent are the request's own method, target and header fields, what comes back the reply as it is: no cookies, no
redirects, no decompression, no total timeout, no requoting, no header field of the client library's.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from yarl import URL

from . import portable_upstream
from .aiohttp_paths import Wanted, fits
from .errors import RequestError, UpstreamError, UpstreamGarbage
from .forwarding import downstream_headers, replace_credential
from .messages import Chunks, Headers, Request, ResponseHead
from .sink import Sink

if TYPE_CHECKING:
    from .config import Limits, UpstreamConfig

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")  # methods whose requests nobody expects to have one


class Message(Protocol):
    """The head of a reply, as aiohttp's parser gives it."""

    @property
    def version(self) -> aiohttp.HttpVersion: ...
    @property
    def code(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Response(Protocol):
    """A request that was sent, and the head of its reply; the body can be handed over. The caller must `close` it."""

    @property
    def message(self) -> Message: ...

    def hand_over(self, sink: Sink) -> None:
        """From now on all of the body goes to `sink`, beginning with what is here already."""

    def pause(self) -> None:
        """Stop reading. Does nothing before `hand_over` and after the end."""

    def resume(self) -> None:
        """Go on reading, if it is stopped."""

    def close(self) -> None:
        """Nothing goes to the sink any more; what is not complete is broken off, and its connection closed."""


class Pool(Protocol):
    """The connections to one upstream: aiohttp's pool. Made on a running loop; `options` are `aiohttp.TCPConnector`'s."""

    def __init__(self, url: URL, *, connect_s: float, field_bytes: int, fields: int, **options: Any) -> None: ...

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        chunked: bool = False,
    ) -> Response:
        """Send a request and wait for the head of its reply. A body that streams is sent meanwhile, and further; `headers`
        say how it is framed.

        A connection may break just when it is taken from the pool: what can be asked twice is (RFC 9112 §9.3.1). Raises
        `RequestError` where the body failed on the way, `UpstreamGarbage`, ValueError for what would break the head,
        aiohttp's exceptions, OSError."""

    async def close(self) -> None: ...


def pool_class(wanted: Wanted) -> type[Pool]:
    """handover.py's, or where that does not fit the portable one. Needs a running loop."""
    if not fits(wanted, "upstream side", _check):
        return portable_upstream.Pool
    from . import handover

    return handover.Pool


def _check() -> None:
    from . import handover  # what it reaches into may not even be there

    handover.check()


class Attempt:
    """One request on its way at one upstream, from the head of the reply on. The caller must `close` it."""

    def __init__(self, response: Response, id: str) -> None:
        self._response = response
        message = response.message
        version = f"{message.version.major}.{message.version.minor}"
        headers = downstream_headers(message.headers, id, version=version)
        self.head = ResponseHead(message.code, headers, reason=message.reason)
        self.attach = response.hand_over
        """Let the body flow into a sink: synchronously, in the calls that receive it."""
        self.pause = response.pause
        self.resume = response.resume
        self.close = response.close
        """Release the connection: to the pool after a complete body, else by closing it."""

    @property
    def ends_with_connection(self) -> bool:
        """The body has neither a length nor chunks: its end looks the same whether or not it is complete."""
        headers = self._response.message.headers
        return "Content-Length" not in headers and "Transfer-Encoding" not in headers


class Upstream:
    """One `[upstreams.NAME]` table, running."""

    def __init__(self, name: str, config: UpstreamConfig, limits: Limits) -> None:
        self.name = name
        self._config = config
        self._limits = limits
        self._url = URL(config.url)
        self._host = self._url.host_port_subcomponent or ""
        self._base_path = self._url.raw_path.rstrip("/")
        self._pool: Pool | None = None

    async def start(self, make_pool: type[Pool]) -> None:
        """Open the pool (no connection is made yet)."""
        verify: ssl.SSLContext | bool = True
        if self._config.ca_file is not None:
            verify = ssl.create_default_context(cafile=str(self._config.ca_file))
        self._pool = make_pool(
            self._url,
            connect_s=self._config.connect_s,
            field_bytes=self._limits.header_field_bytes,
            fields=self._limits.header_fields,
            limit=self._config.connections,
            keepalive_timeout=self._config.pool_idle_s,
            ssl=verify,
            ttl_dns_cache=30,
        )

    async def stop(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def open(self, request: Request, path: str, *, identity: bool) -> Attempt:
        """Send `request` to `path` (below the upstream's own) and wait for the head of the reply.

        `identity`: policies must read the body, so ask for it uncoded and whole. Raises `RequestError` where the client's
        body failed on the way, else `UpstreamError`.
        """
        assert self._pool is not None
        headers, query = self._fields(request, identity=identity)
        body = request.chunks if request.body is None else request.body
        chunked = _frame(request.method, headers, body)
        target = f"{self._base_path}{path}{'?' + query if query else ''}"
        if isinstance(body, Chunks) and not chunked and (whole := body.whole()) is not None:
            body = whole  # nothing has to be written meanwhile
        try:
            response = await self._pool.send(request.method, target, headers, body, chunked=chunked)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise _translated(exc) from exc
        if response.message.code < 200:  # 101: nobody asked to switch protocols
            response.close()
            raise UpstreamGarbage("the reply has no final head")
        return Attempt(response, request.id)

    def _fields(self, request: Request, *, identity: bool) -> tuple[Headers, str]:
        """Header fields and query as this upstream is to get them."""
        headers = Headers(Host=request.host if self._config.preserve_host and request.host else self._host)
        headers.extend(request.headers)
        query = request.query.partition("#")[0]
        if identity:
            headers["Accept-Encoding"] = "identity"
            for name in ("Range", "If-Range"):
                headers.popall(name, None)
        if self._config.credential is not None:
            secret = self._config.credential.get_secret_value()
            query = replace_credential(headers, query, self._config.credential_header, secret)
        return headers, query


def _frame(method: str, headers: Headers, body: bytes | AsyncIterator[bytes] | None) -> bool:
    """Say in `headers` where the body ends (RFC 9112 §6); whether it is chunked."""
    if isinstance(body, bytes):
        headers.popall("Content-Length", None)
        if body:
            headers["Content-Length"] = str(len(body))
    if "Content-Length" in headers:
        return False
    if body is not None and not isinstance(body, bytes):
        headers["Transfer-Encoding"] = "chunked"
        return True
    if method not in _WITHOUT_BODY:
        headers["Content-Length"] = "0"  # RFC 9110 §8.6
    return False


def _translated(exc: Exception) -> UpstreamError | RequestError:
    """aiohttp's exceptions, in our words; the text of theirs (it can quote the peer) stays behind as the cause."""
    if isinstance(exc, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch, ssl.SSLError)):
        return UpstreamError("TLS handshake failed", "upstream_tls")
    if isinstance(exc, TimeoutError):
        return UpstreamError("no connection in time", "connect_timeout")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return UpstreamError("no connection", "upstream_unreachable")
    if isinstance(exc, (aiohttp.ClientConnectionError, ConnectionError)):
        return UpstreamError("the connection broke before the head of the reply", "upstream_reset")
    if isinstance(exc, OSError):
        return UpstreamError("no connection", "upstream_unreachable")
    return RequestError("the request cannot be sent on as it is")
