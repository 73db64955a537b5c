"""I/O. The upstream client on nothing but what aiohttp promises to keep: for an aiohttp that handover.py does not know.

It does what handover.py does, at the price of a task for each reply and a wake-up for each read. aiohttp tells less in this
way, and so does this:

- A reset looks like an early close, and that like the end where the body ends with its connection.
- Bytes that are no chunk are noticed by the connection that aiohttp has closed, a moment later.
- A head is lost where what stands behind it in the same read is wrong; what was received, but not yet taken, where the
  connection breaks.
- Informational responses are swallowed.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from .errors import PenstockError, RequestError, UpstreamError, UpstreamGarbage, UpstreamTruncated
from .messages import TOKEN, Headers, head_bytes
from .sink import Sink

_ADDED_BY_AIOHTTP = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_READ_BYTES = 1 << 16  # of a body; twice that can wait to be taken, then aiohttp stops reading
_LOOK_S = 0.5  # in a silence, at whether the connection is still there


class _Message(NamedTuple):
    """`upstream.Message`"""

    version: aiohttp.HttpVersion
    code: int
    reason: str
    headers: CIMultiDict[str]


class _Upload:
    """The body of a request while it is sent, with why it could not be: aiohttp says only that."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts
        self.failure: RequestError | None = None
        self.response: Response | None = None

    def __aiter__(self) -> _Upload:
        return self

    async def __anext__(self) -> bytes:
        try:
            while not (data := await anext(self._parts)):  # an empty chunk would be the last one
                pass
        except RequestError as exc:
            self.failure = exc
            if self.response is not None:  # aiohttp tells nobody any more
                self.response.broken(exc)
            raise
        return data


class Response:
    """`upstream.Response`"""

    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        assert reply.version is not None
        self.message = _Message(reply.version, reply.status, reply.reason or "", CIMultiDict(reply.headers))
        self._reply = reply
        self._connection = reply.connection  # None: the reply has come whole
        self._failure: PenstockError | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._sink: Sink | None = None
        self._carrier: asyncio.Task[None] | None = None

    def hand_over(self, sink: Sink) -> None:
        self._sink = sink
        content = self._reply.content
        if content.exception() is None and (data := content.read_nowait()):
            sink.feed(data)
        if self._failure is not None or content.at_eof():
            self._end(self._failure)
        elif self._sink is not None:  # it has not had enough
            self._carrier = asyncio.create_task(self._carry())

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._sink = None
        if self._carrier is not None:
            self._carrier.cancel()
        self._reply.close()

    def broken(self, error: PenstockError) -> None:
        """The request cannot be completed: told at once, else both ends would wait for the rest."""
        self._failure = error
        self._end(error)

    async def _carry(self) -> None:
        """Bring the body to the sink."""
        while True:
            try:
                data = await self._read()
            except UpstreamGarbage as exc:
                self._end(exc)
                return
            except aiohttp.ClientPayloadError:
                self._end(UpstreamTruncated("the connection was closed before the body was complete"))
                return
            except Exception:  # whatever it is, nothing can follow
                self._end(UpstreamError("the connection broke", "upstream_reset"))
                return
            if self._sink is None:
                return
            if not data:
                self._end(None)
                return
            self._sink.feed(data)

    async def _read(self) -> bytes:
        """What comes next, once it is wanted; b"" at the end."""
        await self._flowing.wait()
        gone = False
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    data = await self._reply.content.readany()
            except (TimeoutError, RuntimeError):  # RuntimeError: aiohttp does not wait on what is gone
                if gone:
                    raise UpstreamGarbage("the body is not framed as its head says") from None
                # Or not its own any more, because the end has come just now: the next look tells.
                gone = self._connection is not None and self._connection.closed
            else:
                await self._flowing.wait()
                return data

    def _end(self, error: PenstockError | None) -> None:
        sink, self._sink = self._sink, None
        if sink is None:
            return
        if error is None:
            sink.eof()
        else:
            sink.failed(error)


class Pool:
    """`upstream.Pool`"""

    def __init__(self, url: URL, *, connect_s: float, field_bytes: int, fields: int, **options: Any) -> None:
        self._origin = str(url.origin())
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(**options),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
            skip_auto_headers=_ADDED_BY_AIOHTTP,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            max_line_size=field_bytes,
            max_field_size=field_bytes,
            max_headers=fields,
        )

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        chunked: bool = False,
    ) -> Response:
        """`upstream.Pool.send`"""
        head_bytes(f"{method} {target} HTTP/1.1", headers)  # refuses what must not be sent
        fields = _spelt_alike(headers)
        if chunked:
            fields.popall("Transfer-Encoding")  # aiohttp adds it
        upload: _Upload | None = None
        data: _Upload | io.BytesIO | None = None
        if isinstance(body, bytes):
            data = io.BytesIO(body) if body else None  # of which aiohttp writes no more at a time than is taken
        elif body is not None:
            data = upload = _Upload(body)
        try:
            reply = await self._session.request(
                method,
                URL(self._origin + target, encoded=True),
                headers=fields,
                data=data,
                chunked=True if chunked else None,
                allow_redirects=False,
            )
        except aiohttp.ClientResponseError as exc:
            raise UpstreamGarbage("the head of the reply is not HTTP") from exc
        except aiohttp.ClientError:
            if upload is not None and upload.failure is not None:
                raise upload.failure from None
            raise
        if not all(map(TOKEN.fullmatch, reply.headers)):
            reply.close()
            raise UpstreamGarbage("a field name is no token")
        response = Response(reply)
        if upload is not None:
            upload.response = response
            if upload.failure is not None:
                response.broken(upload.failure)
        return response

    async def close(self) -> None:
        await self._session.close()


def _spelt_alike(headers: Headers) -> Headers:
    """Of fields whose names are spelt in different ways, aiohttp sends only the last one."""
    spelling: dict[str, str] = {}
    return CIMultiDict((spelling.setdefault(name.lower(), name), value) for name, value in headers.items())
