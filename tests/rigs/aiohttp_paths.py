"""The proxy's two ways, `[server] aiohttp`, and the one table of where they differ."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from yarl import URL

from proxy.errors import OutcomeKind, PenstockError
from proxy.messages import Headers
from proxy.upstream import Pool, Response

from .raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply
from .waiting import until

AIOHTTP_PATHS = ("auto", "portable")
AIOHTTP_PATH = os.environ.get("AIOHTTP_PATH", "auto")
"""What a proxy takes of which nobody says it. `AIOHTTP_PATH=portable make test` runs all tests on the portable one."""

T = TypeVar("T")
P = TypeVar("P", bound=Pool)

_TRUNCATED = ("upstream_truncated", "upstream_truncated")  # details and outcome

PORTABLE_TELLS: Mapping[str, Any] = {
    # aiohttp says that a body broke off, not how.
    "resets before the first event": _TRUNCATED,
    "resets between events": _TRUNCATED,
    "resets within an event": _TRUNCATED,
    "resets a body that ends with the connection": _TRUNCATED,
    "resets, in the ending": "upstream_truncated",
    "resets, in the storm": OutcomeKind.UPSTREAM_TRUNCATED,
    "resets, among a thousand streams": "upstream_truncated",
    "resets, before a client of its own": "upstream_truncated",
    "reset before the last chunk": "upstream_truncated",
    "reset before the length": "upstream_truncated",
    "reset where a close would be the end": "eof",
    # It parses all of a read before it gives anybody the head.
    "HEAD with a body": 502,
    "204 with a body": 502,
    "304 with a body": 502,
    "a bad chunk behind the head": "upstream_garbage",
    "a bad chunk behind a hint": "upstream_garbage",
    "garbage, with the head": [],
    "another reply behind the first": "upstream_garbage",
    "a body behind a HEAD": "upstream_garbage",
    "a body behind a 204": "upstream_garbage",
    # It swallows what comes before the final head.
    "early hints": [],
    # It has queued what is wrong as the next request.
    "a request body that is badly framed": "body_timeout",
    # It has the connection back in its pool before the reply can be refused.
    "has a space before the colon: the connection is closed": False,
}
"""What the portable path tells, by the name of the case. In all other cases it tells what the other one does."""


def told(path: str, case: str, otherwise: T) -> T:
    """What is to be expected of `path` in this case: `otherwise`, or what the table says."""
    expected: T = PORTABLE_TELLS.get(case, otherwise) if path == "portable" else otherwise
    return expected


# --- one request, one reply


class Receiver:
    """A `Sink` that writes down what it is given, and fails where it is given anything after the end."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.end = ""
        """ "eof" or the details of the failure; "" while neither came."""
        self.on_feed: Callable[[], object] = lambda: None

    def feed(self, data: bytes) -> None:
        assert not self.end, "data after the end"
        self.reads.append(data)
        self.on_feed()

    def eof(self) -> None:
        self._ended("eof")

    def failed(self, error: PenstockError) -> None:
        self._ended(error.details)

    def _ended(self, how: str) -> None:
        assert not self.end, "a second end"
        self.end = how

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)

    async def ended(self) -> str:
        return await until(lambda: self.end, "the end of the body")


@contextlib.asynccontextmanager
async def opened(make: type[P], upstream: RawUpstream) -> AsyncIterator[P]:
    """A pool of connections to `upstream`."""
    pool = make(URL(upstream.url), connect_s=5.0, field_bytes=8190, fields=128, keepalive_timeout=5.0)
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: Pool, method: str = "GET", body: bytes | AsyncIterator[bytes] | None = None) -> Response:
    """The reply to a request of this kind; a body is sent in chunks."""
    headers = Headers({"Host": "model"} if body is None else {"Host": "model", "Transfer-Encoding": "chunked"})
    return await pool.send(method, "/", headers, body, chunked=body is not None)


async def parts(*given: bytes) -> AsyncIterator[bytes]:
    for part in given:
        yield part


async def text_of(response: Response) -> bytes:
    """The whole body, which must end well; then the response is closed."""
    response.hand_over(sink := Receiver())
    assert await sink.ended() == "eof"
    response.close()
    return sink.body


@contextlib.asynccontextmanager
async def played(
    upstream: RawUpstream, pool: Pool, head: bytes, method: str = "GET"
) -> AsyncIterator[tuple[UpstreamConnection, Response]]:
    """A reply of which the upstream has sent `head`; what follows is the test's."""

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(head)
        await connection.ended()

    upstream.script = script
    response = await ask(pool, method)
    yield await upstream.connection(), response
    response.close()


UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\n\r\n"


class End(NamedTuple):
    """How a body can end, after `head` and `rest`, and what the sink is to be told then."""

    head: bytes
    rest: bytes
    end: str  # "", "close" or "reset"
    details: str


ENDS = {
    "last chunk": End(STREAM_HEAD, LAST_CHUNK, "", "eof"),
    "length reached": End(reply(b"123")[:-1], b"3", "", "eof"),
    "close, which is the end": End(UNTIL_CLOSED, b"", "close", "eof"),
    "close before the last chunk": End(STREAM_HEAD, b"", "close", "upstream_truncated"),
    "close in a chunk": End(STREAM_HEAD, b"5\r\nhal", "close", "upstream_truncated"),
    "close before the length": End(reply(b"123")[:-1], b"", "close", "upstream_truncated"),
    "reset before the last chunk": End(STREAM_HEAD, b"", "reset", "upstream_reset"),
    "reset before the length": End(reply(b"123")[:-1], b"", "reset", "upstream_reset"),
    "reset where a close would be the end": End(UNTIL_CLOSED, b"", "reset", "upstream_reset"),
    "no chunk size": End(STREAM_HEAD, b"zz\r\n", "", "upstream_garbage"),
    "a chunk longer than its size": End(STREAM_HEAD, b"1\r\nlong\r\n", "", "upstream_garbage"),
}

BODY_WHERE_THERE_IS_NONE = reply(b"", "Content-Length: 4", length=False) + b"body"


class Behind(NamedTuple):
    """What may stand behind a good head in the same read, and what becomes of the reply."""

    method: str
    answer: bytes
    body: bytes
    end: str


BEHIND_THE_HEAD = {
    "a bad chunk behind the head": Behind("GET", STREAM_HEAD + chunk(b"good") + b"zz\r\n", b"good", "upstream_garbage"),
    "a bad chunk behind a hint": Behind(
        "GET", b"HTTP/1.1 103 Early Hints\r\n\r\n" + STREAM_HEAD + b"zz\r\n", b"", "upstream_garbage"
    ),
    "another reply behind the first": Behind("GET", reply(b"whole") + b"and more", b"whole", "eof"),
    "a body behind a HEAD": Behind("HEAD", BODY_WHERE_THERE_IS_NONE, b"", "eof"),
    "a body behind a 204": Behind("GET", reply(b"body", status="204 No Content"), b"", "eof"),
}
