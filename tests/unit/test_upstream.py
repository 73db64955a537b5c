"""One attempt at a model server: what is sent, what comes back, and every failure in our words; on real connections."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import client_proto
from aiohttp.client_reqrep import ConnectionKey
from rigs.aiohttp_paths import Receiver
from rigs.raw_upstream import (
    LAST_CHUNK,
    STREAM_HEAD,
    RawUpstream,
    UpstreamConnection,
    chunk,
    listen,
    replies,
    reply,
    then_closes,
    then_resets,
)
from rigs.wire import Message

from proxy import handover, portable_upstream
from proxy.config import Limits, UpstreamConfig
from proxy.errors import PenstockError, RequestError, UpstreamError, UpstreamGarbage
from proxy.messages import Chunks, Request
from proxy.secrets import Secret
from proxy.testing import make_request
from proxy.upstream import Attempt, Pool, Upstream, pool_class


@pytest.fixture
async def server() -> AsyncIterator[RawUpstream]:
    with listen() as listener:
        async with RawUpstream(listener) as server:
            yield server


class Upstreams:
    """Makes upstreams, and stops them all at the end."""

    def __init__(self, url: str, client: type[Pool]) -> None:
        self._url = url
        self._client = client
        self._made: list[Upstream] = []

    async def __call__(self, base_path: str = "", **keys: Any) -> Upstream:
        upstream = Upstream("model", UpstreamConfig(url=self._url + base_path, **keys), Limits())
        await upstream.start(self._client)
        self._made.append(upstream)
        return upstream

    async def stop(self) -> None:
        for upstream in self._made:
            await upstream.stop()


@pytest.fixture(params=[handover.Pool, portable_upstream.Pool], ids=["handover", "portable"])
def client(request: pytest.FixtureRequest) -> type[Pool]:
    made: type[Pool] = request.param
    return made


@pytest.fixture
async def connected(server: RawUpstream, client: type[Pool]) -> AsyncIterator[Upstreams]:
    upstreams = Upstreams(server.url, client)
    yield upstreams
    await upstreams.stop()


async def read(attempt: Attempt) -> bytes:
    """The whole body, which must end well; then the attempt is closed."""
    attempt.attach(sink := Receiver())
    assert await sink.ended() == "eof"
    attempt.close()
    return sink.body


async def sent(server: RawUpstream, upstream: Upstream, request: Request, *, identity: bool = False) -> Message:
    """The request as it came out on the other side."""
    await read(await upstream.open(request, request.path, identity=identity))
    return server.requests[-1]


# What is sent


async def test_the_request_is_sent_as_it_is(server: RawUpstream, connected: Upstreams) -> None:
    request = make_request(path="/v1/a%2Fb", headers={"X-Own": "1", "Accept-Encoding": "br", "Range": "bytes=0-1"})
    request.query = "a=%20b&c=+d"
    message = await sent(server, await connected(), request)
    assert message.head.start == "POST /v1/a%2Fb?a=%20b&c=+d HTTP/1.1"
    assert message.body == request.body
    assert dict(message.head.fields) == {
        "Host": f"127.0.0.1:{server.port}",
        "Content-Type": "application/json",
        "X-Own": "1",
        "Accept-Encoding": "br",
        "Range": "bytes=0-1",
        "Content-Length": str(len(message.body)),
    }


async def test_fields_of_one_name_all_go_on_however_they_are_spelt(server: RawUpstream, connected: Upstreams) -> None:
    request = make_request()
    request.headers.extend([("x-twice", "1"), ("X-Other", "\u00e9"), ("X-Twice", "2")])
    message = await sent(server, await connected(), request)
    assert message.head.all("X-Twice") == ["1", "2"]
    assert message.head.get("X-Other") == "\u00e9".encode().decode("latin-1")


async def test_bytes_that_would_get_lost_are_refused(server: RawUpstream, connected: Upstreams) -> None:
    upstream = await connected()
    in_a_field, in_the_query = make_request(headers={"X-Raw": "\udcff"}), make_request()
    in_the_query.query = "a=\udcff"
    for request in (in_a_field, in_the_query):
        with pytest.raises(RequestError):
            await upstream.open(request, "/", identity=False)
    assert server.connections == []


async def test_a_path_of_the_upstreams_own_comes_first(server: RawUpstream, connected: Upstreams) -> None:
    message = await sent(server, await connected("/base/"), make_request(method="GET"))
    assert message.target == "/base/v1/chat/completions"


async def test_what_policies_must_read_is_asked_for_uncoded_and_whole(
    server: RawUpstream, connected: Upstreams
) -> None:
    request = make_request(headers={"Accept-Encoding": "br", "Range": "bytes=0-1", "If-Range": '"x"'})
    message = await sent(server, await connected(), request, identity=True)
    assert message.head.get("Accept-Encoding") == "identity"
    assert (message.head.get("Range"), message.head.get("If-Range")) == (None, None)
    assert request.headers["Range"] == "bytes=0-1"  # a second attempt starts from the same request


async def test_the_clients_host_can_be_kept(server: RawUpstream, connected: Upstreams) -> None:
    request = make_request()
    request.host = "models.example"
    message = await sent(server, await connected(preserve_host=True), request)
    assert message.head.get("Host") == "models.example"


async def test_a_configured_credential_replaces_the_clients(server: RawUpstream, connected: Upstreams) -> None:
    request = make_request(headers={"Authorization": "Bearer client", "x-api-key": "client"})
    request.query = "key=client&a=b"
    upstream = await connected(credential=Secret("env:KEY", "ours"), credential_header="x-api-key")
    message = await sent(server, upstream, request)
    assert message.target == "/v1/chat/completions?a=b"
    assert (message.head.get("Authorization"), message.head.get("x-api-key")) == (None, "ours")
    assert request.headers["x-api-key"] == "client"


async def test_a_credential_in_the_query(server: RawUpstream, connected: Upstreams) -> None:
    upstream = await connected(credential=Secret("env:KEY", "o/s"), credential_header="query:key")
    message = await sent(server, upstream, make_request())
    assert message.target == "/v1/chat/completions?key=o%2Fs"


async def test_a_body_that_was_read_is_sent_with_its_length(server: RawUpstream, connected: Upstreams) -> None:
    request = make_request(headers={"Content-Length": "999"})
    request.replace_body(b"other")
    message = await sent(server, await connected(), request)
    assert (message.body, message.ends, message.head.get("Content-Length")) == (b"other", "length", "5")


async def test_an_empty_body_that_was_read_has_the_length_0(server: RawUpstream, connected: Upstreams) -> None:
    request = make_request(headers={"Content-Length": "0"})
    request.body = b""
    message = await sent(server, await connected(), request)
    assert message.head.get("Content-Length") == "0"


@pytest.mark.parametrize("length", [None, "6"])
async def test_a_body_that_streams(server: RawUpstream, connected: Upstreams, length: str | None) -> None:
    request = make_request(headers={} if length is None else {"Content-Length": length})
    request.body = None
    request.chunks = chunks(b"one", b"two")
    message = await sent(server, await connected(), request)
    assert (message.body, message.ends) == (b"onetwo", "chunked" if length is None else "length")


async def test_a_body_that_has_come_whole_is_sent_with_its_head(server: RawUpstream, connected: Upstreams) -> None:
    class Here(Chunks):
        def whole(self) -> bytes:
            return b"here"

        async def __anext__(self) -> bytes:
            raise AssertionError("nobody has to wait for it")

    request = make_request(headers={"Content-Length": "4"})
    request.body, request.chunks = None, Here()
    message = await sent(server, await connected(), request)
    assert (message.body, message.ends) == (b"here", "length")


@pytest.mark.parametrize(("method", "length"), [("GET", None), ("POST", "0"), ("DELETE", "0")])
async def test_a_request_without_a_body(
    server: RawUpstream, connected: Upstreams, method: str, length: str | None
) -> None:
    request = make_request(method=method)
    request.body = None
    assert (await sent(server, await connected(), request)).head.get("Content-Length") == length


async def test_nothing_breaks_out_of_the_head(server: RawUpstream, connected: Upstreams) -> None:
    upstream = await connected()
    in_a_field, in_a_name, in_the_query = (
        make_request(headers=given) for given in ({"X": "a\r\nY: b"}, {"X Y": "a"}, {})
    )
    in_the_query.query = "a\r\nX: b"
    for request in (in_a_field, in_a_name, in_the_query):
        with pytest.raises(RequestError):
            await upstream.open(request, "/", identity=False)
    assert server.connections == []


async def test_a_fragment_stays_here(server: RawUpstream, connected: Upstreams) -> None:
    request = make_request()
    request.query = "a=b#c"
    assert (await sent(server, await connected(), request)).target == "/v1/chat/completions?a=b"


async def chunks(*parts: bytes | RequestError) -> AsyncIterator[bytes]:
    for part in parts:
        if isinstance(part, RequestError):
            raise part
        yield part


# What comes back


async def test_the_head_as_it_goes_on(server: RawUpstream, connected: Upstreams) -> None:
    fields = ("X-Own: 1", "Set-Cookie: a=1", "Set-Cookie: b=2", "Connection: X-Hop", "X-Hop: 1", "Via: 1.0 other")
    server.script = replies(reply(b"", *fields, status="418 Short and stout"))
    attempt = await (await connected()).open(make_request(), "/", identity=False)
    head = attempt.head
    assert (head.status, head.reason, head.local) == (418, "Short and stout", False)
    assert head.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert head.headers["Via"] == "1.0 other, 1.1 penstock"
    assert head.headers["X-Request-Id"] == "test"
    assert "X-Hop" not in head.headers
    await read(attempt)


async def test_redirects_cookies_and_codings_are_the_clients_affair(server: RawUpstream, connected: Upstreams) -> None:
    answer = reply(b"coded", "Location: /other", "Set-Cookie: a=1", "Content-Encoding: gzip", status="302 Found")
    server.script = replies(answer)
    upstream = await connected()
    for _ in range(2):
        attempt = await upstream.open(make_request(), "/", identity=False)
        assert (attempt.head.status, attempt.head.headers["Content-Encoding"]) == (302, "gzip")
        assert await read(attempt) == b"coded"
    assert len(server.requests) == 2
    assert server.requests[1].head.get("Cookie") is None


@pytest.mark.parametrize(
    ("head", "expected"),
    [(STREAM_HEAD, False), (reply(b"x")[:-1], False), (b"HTTP/1.1 200 OK\r\n\r\n", True)],
)
async def test_whether_the_body_ends_with_the_connection(
    server: RawUpstream, connected: Upstreams, head: bytes, expected: bool
) -> None:
    server.script = then_closes(head)
    attempt = await (await connected()).open(make_request(), "/", identity=False)
    assert attempt.ends_with_connection is expected
    attempt.close()


async def test_a_reply_can_be_paused(server: RawUpstream, connected: Upstreams) -> None:
    server.script = replies(STREAM_HEAD + chunk(b"one") + LAST_CHUNK)
    attempt = await (await connected()).open(make_request(), "/", identity=False)
    attempt.pause()
    attempt.resume()
    assert await read(attempt) == b"one"


# The pool


async def test_a_connection_is_used_again_after_a_complete_reply(server: RawUpstream, connected: Upstreams) -> None:
    upstream = await connected()
    for _ in range(3):
        await sent(server, upstream, make_request())
    assert (len(server.requests), len(server.connections)) == (3, 1)


async def test_a_connection_is_not_used_again_after_an_early_end(server: RawUpstream, connected: Upstreams) -> None:
    server.script = replies(STREAM_HEAD + chunk(b"one"))
    upstream = await connected()
    for number in range(2):
        attempt = await upstream.open(make_request(), "/", identity=False)
        attempt.attach(Receiver())
        attempt.close()
        await (await server.connection(number)).ended()
    assert len(server.connections) == 2


async def test_an_attempt_that_is_given_up_closes_its_connection(server: RawUpstream, connected: Upstreams) -> None:
    asked = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        asked.set()
        await connection.ended()

    server.script = script
    upstream = await connected()
    task = asyncio.create_task(upstream.open(make_request(), "/", identity=False))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.idle()


async def test_stopping_closes_idle_connections(server: RawUpstream, connected: Upstreams) -> None:
    upstream = await connected()
    await sent(server, upstream, make_request())
    await upstream.stop()
    await (await server.connection()).ended()
    await upstream.stop()


async def test_a_connection_that_breaks_while_idle_is_replaced(server: RawUpstream, connected: Upstreams) -> None:
    server.script = then_closes(reply(b"{}"))
    upstream = await connected()
    for _ in range(2):
        await sent(server, upstream, make_request(method="GET"))
    assert len(server.connections) == 2


# Failures


@pytest.mark.parametrize(
    ("script", "details"),
    [
        (then_closes(b""), "upstream_reset"),
        (then_resets(b""), "upstream_reset"),
        (then_closes(b"HTTP/1.1 200"), "upstream_reset"),
        (replies(b"SSH-2.0-OpenSSH\r\n"), "upstream_garbage"),
        (replies(b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"), "upstream_garbage"),
        (replies(reply(b"", "Content-Length: 1")), "upstream_garbage"),
        (replies(reply(b"", "X-Long: " + "x" * 20000)), "upstream_garbage"),
        (replies(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "upstream_garbage"),
    ],
    ids=[
        "close",
        "reset",
        "half a head",
        "another protocol",
        "a space before the colon",
        "two lengths",
        "a long field",
        "another protocol unasked",
    ],
)
async def test_no_head_comes(server: RawUpstream, connected: Upstreams, script: Any, details: str) -> None:
    server.script = script
    upstream = await connected()
    with pytest.raises(UpstreamError) as caught:
        await upstream.open(make_request(), "/", identity=False)
    assert caught.value.details == details
    assert isinstance(caught.value, UpstreamGarbage) is (details == "upstream_garbage")


async def test_nobody_listens(client: type[Pool]) -> None:
    with listen() as listener:
        port = listener.getsockname()[1]
    upstream = Upstream("model", UpstreamConfig(url=f"http://127.0.0.1:{port}"), Limits())
    await upstream.start(client)
    with pytest.raises(UpstreamError) as caught:
        await upstream.open(make_request(), "/", identity=False)
    assert caught.value.details == "upstream_unreachable"
    assert str(port) not in str(caught.value)  # addresses of the inside stay inside
    await upstream.stop()


KEY = Mock(spec=ConnectionKey, ssl=True, host="model", port=443, is_ssl=True)
FOREIGN: list[tuple[Exception, type[PenstockError], str]] = [
    (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), UpstreamError, "upstream_unreachable"),
    (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "unknown")), UpstreamError, "upstream_unreachable"),
    (OSError(113, "no route"), UpstreamError, "upstream_unreachable"),
    (aiohttp.ConnectionTimeoutError("connect"), UpstreamError, "connect_timeout"),
    (aiohttp.SocketTimeoutError("read"), UpstreamError, "connect_timeout"),
    (aiohttp.ClientConnectorCertificateError(KEY, Exception("self-signed")), UpstreamError, "upstream_tls"),
    (aiohttp.ClientConnectorSSLError(KEY, OSError(1, "handshake")), UpstreamError, "upstream_tls"),
    (aiohttp.ServerFingerprintMismatch(b"a", b"b", "model", 443), UpstreamError, "upstream_tls"),
    (ssl.SSLError("handshake"), UpstreamError, "upstream_tls"),
    (aiohttp.ServerDisconnectedError(), UpstreamError, "upstream_reset"),
    (aiohttp.ClientOSError(104, "reset"), UpstreamError, "upstream_reset"),
    (ConnectionResetError(), UpstreamError, "upstream_reset"),
    (ValueError("a line break in a header field"), RequestError, "malformed_request"),
]


@pytest.mark.parametrize(("foreign", "kind", "details"), FOREIGN, ids=lambda value: type(value).__name__)
async def test_foreign_errors_are_translated_at_the_border(
    monkeypatch: pytest.MonkeyPatch,
    client: type[Pool],
    connected: Upstreams,
    foreign: Exception,
    kind: type[PenstockError],
    details: str,
) -> None:
    async def send(*_: object, **__: object) -> None:
        raise foreign

    monkeypatch.setattr(client, "send", send)
    upstream = await connected()
    with pytest.raises(PenstockError) as caught:
        await upstream.open(make_request(), "/", identity=False)
    assert (type(caught.value), caught.value.details) == (kind, details)
    assert caught.value.__cause__ is foreign


async def test_a_request_body_that_breaks_before_the_head_is_the_clients_fault(
    server: RawUpstream, connected: Upstreams
) -> None:
    request = make_request()
    request.body, request.chunks = None, chunks(b"some", RequestError("", "body_timeout"))
    upstream = await connected()
    with pytest.raises(RequestError) as caught:
        await upstream.open(request, "/", identity=False)
    assert caught.value.details == "body_timeout"


@pytest.mark.parametrize("attached", [True, False])
async def test_a_request_body_that_breaks_after_the_head_ends_the_reply(
    server: RawUpstream, connected: Upstreams, attached: bool
) -> None:
    """Without this the model server would wait for the rest of the request, and the client for the rest of the reply."""
    breaks = asyncio.Event()

    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        await breaks.wait()
        raise RequestError("", "malformed_body")

    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        await connection.send(STREAM_HEAD + chunk(b"early"))
        await connection.ended()

    server.script = script
    request = make_request()
    request.body, request.chunks = None, broken()
    attempt = await (await connected()).open(request, "/", identity=False)
    sink = Receiver()
    if attached:
        attempt.attach(sink)
    breaks.set()
    for _ in range(5):
        await asyncio.sleep(0)
    if not attached:
        attempt.attach(sink)
    assert await sink.ended() == "malformed_body"
    attempt.close()


# Which client


async def test_the_one_that_hands_over_where_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    assert pool_class("auto") is handover.Pool
    assert pool_class("portable") is portable_upstream.Pool
    assert caplog.records == []


async def test_the_portable_one_where_it_does_not_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(aiohttp.StreamReader, "read_nowait")
    assert pool_class("auto") is portable_upstream.Pool
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "StreamReader.read_nowait" in record.getMessage()
    reason = f"aiohttp {aiohttp.__version__} is built differently: StreamReader.read_nowait"
    assert record.__dict__["fields"] == {"event": "aiohttp_unknown", "part": "upstream side", "reason": reason}


async def test_the_portable_one_where_the_other_cannot_even_be_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "proxy.handover")
    monkeypatch.delattr("proxy.handover")
    monkeypatch.delattr(client_proto, "ResponseHandler")
    assert pool_class("auto") is portable_upstream.Pool
    assert "ResponseHandler" in caplog.text


async def test_what_is_forced_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "proxy.handover")
    monkeypatch.delattr("proxy.handover")
    assert pool_class("portable") is portable_upstream.Pool
    assert "proxy.handover" not in sys.modules
