"""I/O. The model-server side: one pool per configured upstream, one attempt per exchange, foreign errors translated.

The session is a proxy's, not a browser's: no cookie jar, no redirects followed, no decompression, no total timeout, no
requoting, no header of its own.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, cast

import aiohttp
from yarl import URL

from . import handover
from .errors import RequestError, UpstreamError, UpstreamGarbage
from .forwarding import downstream_headers, replace_credential
from .messages import Headers, Request, ResponseHead
from .sink import Sink

if TYPE_CHECKING:
    from .config import Limits, UpstreamConfig

_READ_BUFFER_BYTES = 65536
_OWN_HEADERS = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


class Attempt:
    """One request on its way at one upstream, from the head of the reply on. The caller must `close` it."""

    def __init__(self, response: handover.Response, id: str, body: _Body | None = None) -> None:
        self._response = response
        self._body = body
        version = response.version
        http = f"{version.major}.{version.minor}" if version is not None else "1.1"
        self.head = ResponseHead(
            response.status,
            downstream_headers(Headers(response.headers), id, version=http),
            reason=response.reason or "",
        )
        self.pause = response.pause
        self.resume = response.resume

    @property
    def ends_with_connection(self) -> bool:
        """The body's end looks the same whether or not it is complete."""
        return self._response.ends_with_connection

    def attach(self, sink: Sink) -> None:
        """Let the body flow into `sink`: synchronously, in the calls that receive it."""
        self._response.hand_over(sink)
        if self._body is not None:
            self._body.when_broken(sink.failed)

    def close(self) -> None:
        """Release the connection: to the pool after a complete body, else by closing it."""
        self._response.detach()
        self._response.close()


class Upstream:
    """One `[upstreams.NAME]` table, running."""

    def __init__(self, name: str, config: UpstreamConfig, limits: Limits) -> None:
        self.name = name
        self._config = config
        self._limits = limits
        base = URL(config.url)
        self._origin = f"{base.scheme}://{base.raw_authority}"
        self._base_path = base.raw_path.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool (no connection is made yet)."""
        verify: ssl.SSLContext | bool = True
        if self._config.ca_file is not None:
            verify = ssl.create_default_context(cafile=str(self._config.ca_file))
        self._session = aiohttp.ClientSession(
            connector=handover.connector(
                limit=self._config.connections, keepalive_timeout=self._config.pool_idle_s, ssl=verify, ttl_dns_cache=30
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            requote_redirect_url=False,
            skip_auto_headers=_OWN_HEADERS,
            response_class=handover.Response,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_s),
            read_bufsize=_READ_BUFFER_BYTES,
            max_line_size=self._limits.header_field_bytes,
            max_field_size=self._limits.header_field_bytes,
            max_headers=self._limits.header_fields,
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def open(self, request: Request, path: str, *, identity: bool) -> Attempt:
        """Send `request` to `path` (below the upstream's own) and wait for the head of the reply.

        `identity`: policies must read the body, so ask for it uncoded and whole. Raises `RequestError` where the client's
        body failed on the way, else `UpstreamError`.
        """
        assert self._session is not None
        headers, query = _one_spelling(request.headers), request.query
        if self._config.preserve_host and request.host:
            headers["Host"] = request.host
        if identity:
            headers["Accept-Encoding"] = "identity"
            for name in ("Range", "If-Range"):
                headers.popall(name, None)
        if self._config.credential is not None:
            secret = self._config.credential.get_secret_value()
            query = replace_credential(headers, query, self._config.credential_header, secret)
        if request.body is not None:
            headers.popall("Content-Length", None)
        url = URL(f"{self._origin}{self._base_path}{path}{'?' + query if query else ''}", encoded=True)
        body = _Body(request.chunks) if request.body is None and request.chunks is not None else None
        try:
            _check_text(headers, query)
            response = await self._session.request(
                request.method,
                url,
                headers=headers,
                data=(request.body or None) if body is None else aiter(body),
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            if body is not None and body.error is not None:
                raise body.error from None
            raise _translated(exc) from exc
        if response.status < 200:  # 101: nobody asked to switch protocols
            response.close()
            raise UpstreamGarbage("the reply has no final head")
        return Attempt(cast(handover.Response, response), request.id, body)


def _one_spelling(headers: Headers) -> Headers:
    """A copy in which each name is spelt as it is first: aiohttp keeps only the last of fields whose names differ in
    case."""
    spelling: dict[str, str] = {}
    return Headers([(spelling.setdefault(name.lower(), name), value) for name, value in headers.items()])


def _check_text(headers: Headers, query: str) -> None:
    """Raises ValueError for bytes that are no UTF-8 (they stand as surrogates): aiohttp would leave them out."""
    for text in (*headers.values(), query):
        if not text.isascii():
            text.encode()


class _Body:
    """A streamed request body that remembers why it broke: aiohttp reports only that it did, and only while there is no
    head; after that both ends would wait for the rest of it."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._tell: Callable[[RequestError], None] = lambda error: None
        self.error: RequestError | None = None

    def when_broken(self, tell: Callable[[RequestError], None]) -> None:
        self._tell = tell
        if self.error is not None:
            tell(self.error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks:
                yield chunk
        except RequestError as exc:
            self.error = exc
            self._tell(exc)
            raise


def _translated(exc: Exception) -> UpstreamError | RequestError:
    """aiohttp's exceptions, in our words; the text of theirs (it can quote the peer) stays behind as the cause."""
    if isinstance(exc, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch, ssl.SSLError)):
        return UpstreamError("TLS handshake failed", "upstream_tls")
    if isinstance(exc, aiohttp.ServerTimeoutError):
        return UpstreamError("no connection in time", "connect_timeout")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return UpstreamError("no connection", "upstream_unreachable")
    if isinstance(exc, aiohttp.ClientResponseError):
        return UpstreamGarbage("the head of the reply is not HTTP")
    if isinstance(exc, (aiohttp.ClientConnectionError, ConnectionError)):
        return UpstreamError("the connection broke before the head of the reply", "upstream_reset")
    if isinstance(exc, OSError):
        return UpstreamError("no connection", "upstream_unreachable")
    return RequestError("the request cannot be sent on as it is")
