"""What goes through the proxy comes out of it: bodies byte for byte, both ways, as they come."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from pathlib import Path

import httpx
import pytest
from rigs import raw_upstream
from rigs.aiohttp_paths import told
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get, post
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply
from rigs.waiting import within_limit
from rigs.wire import Head

pytestmark = pytest.mark.aiohttp_paths

BODIES = {
    "JSON": b'{"choices": []}',
    "empty": b"",
    "SSE": b"".join(raw_upstream.CHAT_EVENTS),
    "SSE with CRLF": b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n",
    "SSE with CR": b"event: a\rdata: 1\r\rdata: 2\r\r",
    "SSE with a BOM, comments, odd fields": b"\xef\xbb\xbf: hello\n\nretry: 10\nfoo\ndata:x\n\n\n\n",
    "an event that is not finished": b"data: 1\n\ndata: 2",
    "invalid UTF-8": b"data: \xff\xfe\xc3\n\n\x00",
    "a huge event": b"data: " + b"x" * 3_000_000 + b"\n\n",
    "every byte": bytes(range(256)) * 17,
}


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("delimited", ["length", "chunked", "close"])
async def test_body_arrives_byte_for_byte(proxy: Penstock, upstream: RawUpstream, body: bytes, delimited: str) -> None:
    kind = "Content-Type: text/event-stream"
    upstream.script = {
        "length": raw_upstream.replies(reply(body, kind)),
        "chunked": raw_upstream.streams(*(body[start : start + 70_000] for start in range(0, len(body), 70_000))),
        # Of a type that does not show its end: `test_truncation` has those that do.
        "close": raw_upstream.then_closes(reply(body, "Content-Type: application/octet-stream", length=False)),
    }[delimited]
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b"{}"))
    assert answer.status == 200
    assert answer.body == body
    if delimited == "length":
        assert answer.head.get("Content-Length") == str(len(body))


async def test_content_coding_passes_untouched(proxy: Penstock, upstream: RawUpstream) -> None:
    coded = gzip.compress(b"data: 1\n\n" * 1000, mtime=0)
    upstream.script = raw_upstream.replies(reply(coded, "Content-Type: text/event-stream", "Content-Encoding: gzip"))
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", "Accept-Encoding: gzip"))
    assert answer.head.get("Content-Encoding") == "gzip"
    assert answer.head.get("Content-Length") == str(len(coded))
    assert answer.body == coded
    assert (await upstream.request()).head.get("Accept-Encoding") == "gzip"


async def test_status_reason_and_header_fields_pass(proxy: Penstock, upstream: RawUpstream) -> None:
    fields = ("Server: uvicorn", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2", 'ETag: "x"', 'X-odd-CASE: yes, "no"')
    upstream.script = raw_upstream.replies(reply(b"short and stout", *fields, status="418 I am a teapot"))
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/"))
    assert (answer.status, answer.reason) == (418, "I am a teapot")
    assert answer.head.all("Set-Cookie") == ["a=1; Path=/", "b=2"]
    assert answer.head.get("Server") == "uvicorn"
    assert answer.head.get("ETag") == '"x"'
    assert answer.head.get("X-odd-CASE") == 'yes, "no"'
    assert answer.head.all("Content-Type") == [], "a type was made up"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"])
async def test_every_ordinary_method_is_relayed(proxy: Penstock, upstream: RawUpstream, method: str) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/v1/models", "Content-Length: 2", method=method) + b"{}")
    assert answer.status == 200
    request = await upstream.request()
    assert (request.method, request.target, request.body) == (method, "/v1/models", b"{}")


async def test_request_line_and_query_pass_untouched(proxy: Penstock, upstream: RawUpstream) -> None:
    target = "/v1beta/models/m%3A1:stream?alt=sse&q=%2F+%c3%A9%20&q=&&x=[1]&y=a/../b//c?d"
    async with connect(proxy.address) as client:
        await client.exchange(get(target))
    assert (await upstream.request()).target == target


async def test_requests_without_a_body_get_none(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.exchange(get("/"))
        await client.exchange(post("/", b""))
    without, empty = await upstream.request(0), await upstream.request(1)
    assert without.ends == "none"
    assert without.head.get("Content-Type") is None
    assert (empty.ends, empty.body) == ("length", b"")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_request_body_streams_upstream_as_it_comes(proxy: Penstock, upstream: RawUpstream, framing: str) -> None:
    first_came = asyncio.Event()

    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        if framing == "length":
            assert await connection.read_exactly(5) == b"first"
        else:
            assert await connection.read_chunk() == b"first"
        first_came.set()
        if framing == "length":
            assert await connection.read_exactly(4) == b"last"
        else:
            assert await connection.read_chunk() == b"last"
            assert await connection.read_chunk() == b""
        await connection.send(reply(b"done"))

    upstream.script = script
    async with connect(proxy.address) as client:
        if framing == "length":
            await client.send(get("/", "Content-Length: 9", method="POST") + b"first")
            await within_limit(first_came.wait(), "the first half at the upstream")
            await client.send(b"last")
        else:
            await client.send(get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"first"))
            await within_limit(first_came.wait(), "the first chunk at the upstream")
            await client.send(chunk(b"last") + LAST_CHUNK)
        assert (await client.reply()).body == b"done"


async def test_events_reach_the_client_as_they_come(proxy: Penstock, upstream: RawUpstream) -> None:
    seen = asyncio.Semaphore(0)

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD)
        await seen.acquire()
        for event in raw_upstream.CHAT_EVENTS:
            await connection.send_chunk(event)
            await seen.acquire()
        await connection.send(LAST_CHUNK)
        await connection.ended()

    upstream.script = script
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b"{}"))
        assert (await client.read_head()).start == "HTTP/1.1 200 OK"  # before there is any body
        seen.release()
        for event in raw_upstream.CHAT_EVENTS:
            assert await client.read_chunk() == event
            seen.release()
        assert await client.read_chunk() == b""


async def test_reply_may_come_before_the_request_body_was_read(proxy: Penstock, upstream: RawUpstream) -> None:
    async def script(connection: UpstreamConnection) -> None:
        await connection.request_head()
        await connection.send(reply(b"enough", "Connection: close", status="413 Content Too Large"))
        await connection.ended()

    upstream.script = script
    async with connect(proxy.address) as client:
        await client.send(get("/", "Content-Length: 1000000", method="POST") + b"x" * 1000)
        answer = await client.reply()
    assert (answer.status, answer.body) == (413, b"enough")


async def test_upstream_that_sends_byte_by_byte(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.drips(STREAM_HEAD + chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + LAST_CHUNK)
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("/"))).body == b"data: 1\n\ndata: 2\n\n"


async def test_client_that_sends_byte_by_byte(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.send(post("/v1/x", b"0123456789"), piece_bytes=1)
        assert (await client.reply()).status == 200
    assert (await upstream.request()).body == b"0123456789"


# --- replies without a body


BODILESS = {
    "HEAD": ("HEAD", reply(b"x" * 10).removesuffix(b"x" * 10)),
    "HEAD with a body": ("HEAD", reply(b"a body that HEAD must not have")),
    "204": ("GET", reply(status="204 No Content", length=False, body=b"")),
    "204 with a body": ("GET", reply(b"a body that 204 must not have", status="204 No Content")),
    "304": ("GET", reply(b"", 'ETag: "x"', status="304 Not Modified", length=False)),
    "304 with a body": ("GET", reply(b"a body that 304 must not have", status="304 Not Modified")),
}


@pytest.mark.parametrize("case", BODILESS)
async def test_reply_without_a_body(proxy: Penstock, upstream: RawUpstream, aiohttp_path: str, case: str) -> None:
    method, answer = BODILESS[case]

    async def script(connection: UpstreamConnection) -> None:
        while True:
            is_first = (await connection.request()).target == "/first"
            await connection.send(answer if is_first else reply(b"the second"))

    upstream.script = script
    async with connect(proxy.address) as client:
        first = await client.exchange(get("/first", method=method), to_head=method == "HEAD")
        second = await client.exchange(get("/second"))  # on the same connection: nothing of the first is left on it
    status = int(answer[9:12])
    assert first.status == told(aiohttp_path, case, status)
    assert second.body == b"the second"
    if method == "HEAD" and first.status == status:
        assert (
            first.head.get("Content-Length") == answer.partition(b"Content-Length: ")[2].partition(b"\r\n")[0].decode()
        )
    assert first.head.get("Transfer-Encoding") is None


# --- interim replies, Expect


async def test_early_hints_are_relayed(proxy: Penstock, upstream: RawUpstream, aiohttp_path: str) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    upstream.script = raw_upstream.replies(hints + hints + reply(b"done"))
    interim: list[Head] = []
    async with connect(proxy.address) as client:
        await client.send(get("/"))
        answer = await client.reply(interim=interim)
    assert answer.body == b"done"
    hinted = [(head.start.split(" ")[1], head.get("Link")) for head in interim]
    assert hinted == told(aiohttp_path, "early hints", [("103", "</style.css>; rel=preload")] * 2)


async def test_interim_replies_are_not_sent_to_http_1_0(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + reply(b"done"))
    async with connect(proxy.address) as client:
        await client.send(b"GET / HTTP/1.0\r\nHost: proxy.test\r\n\r\n")
        head = await client.read_head()
    assert head.start.split(" ")[1] == "200"


async def test_upstream_that_says_continue_unasked(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"done"))
    async with connect(proxy.address) as client:
        assert (await client.exchange(post("/", b"{}"))).body == b"done"


async def test_expect_continue(proxy: Penstock, upstream: RawUpstream) -> None:
    interim: list[Head] = []
    async with connect(proxy.address) as client:
        await client.send(get("/", "Expect: 100-continue", "Content-Length: 2", method="POST"))
        assert (await client.read_head()).start.startswith("HTTP/1.1 100 ")
        await client.send(b"{}")
        assert (await client.reply(interim=interim)).status == 200
    assert interim == []
    assert (await upstream.request()).body == b"{}"


# --- connections


async def test_connections_are_kept_on_both_sides(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        for number in range(3):
            await client.exchange(post("/", str(number).encode()))
    assert [request.body for request in upstream.requests] == [b"0", b"1", b"2"]
    assert len(upstream.connections) == 1


async def test_pipelined_requests_are_answered_in_order(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(reply(b"one"), reply(b"two"), reply(b"three"))
    async with connect(proxy.address) as client:
        await client.send(post("/1", b"a") + get("/2") + post("/3", b"c"))
        assert [(await client.reply()).body for _ in range(3)] == [b"one", b"two", b"three"]
    assert [request.target for request in upstream.requests] == ["/1", "/2", "/3"]


async def test_connection_close_is_honoured(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", "Connection: close"))
        assert (answer.head.get("Connection") or "").lower() == "close"
        assert await client.read_some() == b""


async def test_http_1_0_client_gets_a_stream_without_chunks(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(b"data: 1\n\n", b"data: 2\n\n")
    async with connect(proxy.address) as client:
        answer = await client.exchange(b"GET / HTTP/1.0\r\nHost: proxy.test\r\n\r\n")
    assert answer.ends == "close"
    assert answer.body == b"data: 1\n\ndata: 2\n\n"


async def test_connection_that_the_upstream_closed_while_idle_is_replaced(
    proxy: Penstock, upstream: RawUpstream
) -> None:
    upstream.script = raw_upstream.then_closes(reply(b"done"))
    async with connect(proxy.address) as client:
        for _ in range(3):
            assert (await client.exchange(post("/", b"{}"))).body == b"done"
            await upstream.idle()
    assert len(upstream.connections) == 3


async def test_trailers_of_a_reply_harm_nobody(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(STREAM_HEAD + chunk(b"data: 1\n\n") + b"0\r\nX-Checksum: 1\r\n\r\n")
    async with connect(proxy.address) as client:
        for _ in range(2):
            answer = await client.exchange(get("/"))
            assert answer.body == b"data: 1\n\n"
            assert answer.head.get("X-Checksum") is None
    assert len(upstream.connections) == 1


@pytest.mark.parametrize("pipelined", [True, False])
async def test_trailers_of_a_request_harm_nobody(proxy: Penstock, upstream: RawUpstream, pipelined: bool) -> None:
    first = get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"{}")
    first += b"0\r\nX-Sum: 1\r\nAuthorization: Bearer somebody-elses\r\n\r\n"
    second = get("/next")
    async with connect(proxy.address) as client:
        await client.send(first + second if pipelined else first)
        assert (await client.reply()).status == 200
        with contextlib.suppress(EOFError, ConnectionError):  # the proxy may have had enough of this connection
            if not pipelined:
                await client.send(second)
            await client.reply()
    assert upstream.requests[0].body == b"{}"
    for request in upstream.requests:  # nor do they become header fields of the next request
        assert request.head.get("X-Sum") is None
        assert request.head.get("Authorization") is None


async def test_bytes_after_the_reply_are_nobodys(proxy: Penstock, upstream: RawUpstream) -> None:
    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(reply(b"mine") + reply(b"a reply that nobody asked for"))
        await connection.ended()

    upstream.script = script
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("/1"))).body == b"mine"
        upstream.script = raw_upstream.replies(reply(b"mine too"))
        assert (await client.exchange(get("/2"))).body == b"mine too"


# --- where it listens, where it sends


async def test_unix_socket(
    penstock: StartPenstock, upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "proxy.sock"
    proxy = penstock({"listeners": {"main": {"address": f"unix:{path}"}}})
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("/"))).status == 200
    assert proxy.address == str(path)


async def test_several_listeners_one_of_them_ipv6(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"listeners": {"six": {"address": "[::1]:0"}}})
    for name in ("main", "six"):
        async with connect(proxy.addresses[name]) as client:
            assert (await client.exchange(get("/"))).status == 200


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("/v1/x", "/base/v1/x"),
        ("/tenant/v1", "/tenant/v1"),
        ("/plain/v1", "/v1"),
        ("/plain", "/"),
        ("/api/v1?x=1", "/base/v2/v1?x=1"),
        ("/api", "/base/v2"),
    ],
)
async def test_base_path_and_rewrite(penstock: StartPenstock, upstream: RawUpstream, asked: str, sent: str) -> None:
    proxy = penstock(
        {
            "upstreams": {"based": {"url": upstream.url + "/base"}},
            "routes": {
                "all": {"upstream": "based"},
                "same": {"path": "/tenant", "upstream": "model"},
                "plain": {"path": "/plain", "rewrite": "/", "upstream": "model"},
                "api": {"path": "/api", "rewrite": "/v2", "upstream": "based"},
            },
        }
    )
    async with connect(proxy.address) as client:
        assert (await client.exchange(get(asked))).status == 200
    assert (await upstream.request()).target == sent


async def test_absolute_form_counts_for_the_host(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("http://named.test/v1/x?y=1", host="other.test"))).status == 200
    request = await upstream.request()
    assert request.target == "/v1/x?y=1"
    assert request.head.get("X-Forwarded-Host") == "named.test"  # RFC 9112 §3.2.2: not what Host said


async def test_redirects_and_cookies_are_the_clients_affair(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(
        reply(b"", "Location: http://elsewhere.test/", "Set-Cookie: session=1", status="307 Temporary Redirect"),
        reply(b"done"),
    )
    async with httpx.AsyncClient(base_url=proxy.url) as client:
        answer = await client.get("/", follow_redirects=False)
        assert answer.headers["Location"] == "http://elsewhere.test/"
        client.cookies.clear()
        await client.get("/")
    assert (await upstream.request(1)).head.get("Cookie") is None


async def test_large_bodies_both_ways(proxy: Penstock, upstream: RawUpstream, tmp_path: Path) -> None:
    body = bytes(range(256)) * 40_000
    upstream.script = raw_upstream.replies(reply(body))
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/", body))
    assert answer.body == body
    assert (await upstream.request()).body == body
