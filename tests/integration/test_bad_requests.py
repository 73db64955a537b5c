"""Requests that must not be let in: malformed, ambiguous, oversized or not for a proxy like this one."""

from __future__ import annotations

import contextlib
import gzip
import json

import pytest
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get, post
from rigs.raw_upstream import LAST_CHUNK, RawUpstream, chunk
from rigs.wire import Message, details

pytestmark = pytest.mark.aiohttp_paths

BODY_BYTES = 10_000


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock({"limits": {"body_bytes": BODY_BYTES, "request_line_bytes": 2000, "header_fields": 50}})


async def refusal(proxy: Penstock, request: bytes | str) -> Message:
    """The reply to `request`, after which the connection must be closed, since nobody knows where the next one begins."""
    async with connect(proxy.address) as client:
        with contextlib.suppress(ConnectionError):  # it may stop reading before all is sent
            await client.send(request)
        answer = await client.reply()
        await client.ended()
    return answer


def lines(*text: str) -> bytes:
    return "\r\n".join((*text, "", "")).encode("latin-1")


POST_LINE = ("POST /v1/chat/completions HTTP/1.1", "Host: proxy.test")
INNER = "GET /smuggled HTTP/1.1\r\nHost: proxy.test\r\n\r\n"

MALFORMED = {
    "binary": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: x\r\n\r\n",
    "spaces in the target": lines("GET /a b HTTP/1.1", "Host: proxy.test"),
    "wrong protocol": lines("GET / HTTPS/1.1", "Host: proxy.test"),
    "method is no token": lines("G(T / HTTP/1.1", "Host: proxy.test"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "field without a colon": lines("GET / HTTP/1.1", "Host: proxy.test", "Nonsense"),
    "field without a name": lines("GET / HTTP/1.1", "Host: proxy.test", ": x"),
    "space before the colon": lines("GET / HTTP/1.1", "Host: proxy.test", "X-A : 1"),
    "space before the first field": b"GET / HTTP/1.1\r\n X-A: 1\r\nHost: proxy.test\r\n\r\n",
    "NUL in a value": lines("GET / HTTP/1.1", "Host: proxy.test", "X-A: a\0b"),
    "CR in a value": lines("GET / HTTP/1.1", "Host: proxy.test", "X-A: a\rX-B: b"),
    "obsolete folding": lines("GET / HTTP/1.1", "Host: proxy.test", "X-A: 1", " 2"),
    # request smuggling: two readings of where the body ends
    "length and chunked": lines(*POST_LINE, "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + INNER.encode(),
    "chunked and length": lines(*POST_LINE, "Transfer-Encoding: chunked", "Content-Length: 0") + b"5\r\nhello\r\n0\r\n\r\n",
    "two lengths": lines(*POST_LINE, "Content-Length: 0", f"Content-Length: {len(INNER)}") + INNER.encode(),
    "a list of lengths": lines(*POST_LINE, f"Content-Length: 0, {len(INNER)}") + INNER.encode(),
    "length with a sign": lines(*POST_LINE, "Content-Length: +2") + b"{}",
    "negative length": lines(*POST_LINE, "Content-Length: -1") + b"{}",
    "hexadecimal length": lines(*POST_LINE, "Content-Length: 0x2") + b"{}",
    "length that is no number": lines(*POST_LINE, "Content-Length: two") + b"{}",
    "empty length": lines(*POST_LINE, "Content-Length: ") + b"{}",
    "gigantic length": lines(*POST_LINE, "Content-Length: 99999999999999999999999") + b"{}",
    "folded transfer coding": lines(*POST_LINE, "Transfer-Encoding:", " chunked") + LAST_CHUNK,
    "chunked twice": lines(*POST_LINE, "Transfer-Encoding: chunked, chunked") + LAST_CHUNK,
    "two transfer codings": lines(*POST_LINE, "Transfer-Encoding: identity", "Transfer-Encoding: chunked") + LAST_CHUNK,
    "chunked is not last": lines(*POST_LINE, "Transfer-Encoding: chunked, gzip") + LAST_CHUNK,
    "unknown transfer coding": lines(*POST_LINE, "Transfer-Encoding: xchunked") + LAST_CHUNK,
    "quoted transfer coding": lines(*POST_LINE, 'Transfer-Encoding: "chunked"') + LAST_CHUNK,
    "vertical tab in the transfer coding": lines(*POST_LINE, "Transfer-Encoding: \x0bchunked") + LAST_CHUNK,
    "space after the name": lines(*POST_LINE, "Transfer-Encoding : chunked") + LAST_CHUNK,
    "chunked in HTTP/1.0": lines("POST / HTTP/1.0", "Host: x", "Transfer-Encoding: chunked") + LAST_CHUNK,
}  # fmt: skip


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_head_is_refused(proxy: Penstock, upstream: RawUpstream, request_bytes: bytes) -> None:
    answer = await refusal(proxy, request_bytes)
    assert answer.status in (400, 501, 505)
    assert details(answer) == "malformed_request"
    assert upstream.requests == []


BAD_HOSTS = {
    "none": (),
    "two": ("Host: a.test", "Host: b.test"),
    "two that agree": ("Host: a.test", "Host: a.test"),
    "with a path": ("Host: a.test/b",),
    "with a user": ("Host: a@b.test",),
    "with a space": ("Host: a.test b.test",),
    "with a port that is none": ("Host: a.test:80x",),
    "a list": ("Host: a.test, b.test:1",),
}


@pytest.mark.parametrize("fields", BAD_HOSTS.values(), ids=BAD_HOSTS)
async def test_bad_host_is_refused(proxy: Penstock, upstream: RawUpstream, fields: tuple[str, ...]) -> None:
    """RFC 9112 §3.2: one that is missing, repeated or invalid gets a 400."""
    async with connect(proxy.address) as client:
        answer = await client.exchange(lines("GET / HTTP/1.1", *fields))
    assert (answer.status, details(answer)) == (400, "malformed_request")
    assert upstream.requests == []


CHUNKED = get("/v1/chat/completions", "Transfer-Encoding: chunked", method="POST")
BAD_CHUNKS = {
    "size is no number": b"zz\r\nhello\r\n0\r\n\r\n",
    "size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size with a space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "size overflows": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "data longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "line feed in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_malformed_chunks_are_refused(proxy: Penstock, upstream: RawUpstream, body: bytes) -> None:
    answer = await refusal(proxy, CHUNKED + body)
    assert answer.status == 400
    assert details(answer) in ("malformed_body", "malformed_request")
    assert upstream.requests == [], "an incomplete body was completed"


async def test_body_that_ends_early_is_not_completed(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.send(get("/", "X-Request-Id: cut-short", "Content-Length: 10", method="POST") + b"hello")
        client.half_close()
        await client.ended()
    await proxy.log.find(id="cut-short")
    await upstream.idle()
    assert upstream.requests == []


# --- sizes


async def test_long_request_line(proxy: Penstock, upstream: RawUpstream) -> None:
    answer = await refusal(proxy, get("/" + "x" * 3000))
    assert (answer.status, details(answer)) == (414, "uri_too_long")


@pytest.mark.parametrize(
    "fields",
    [["X-Long: " + "x" * 20_000], [f"X-{number}: 1" for number in range(60)]],
    ids=["one long field", "many fields"],
)
async def test_large_head(proxy: Penstock, upstream: RawUpstream, fields: list[str]) -> None:
    answer = await refusal(proxy, get("/", *fields))
    assert (answer.status, details(answer)) == (431, "head_too_large")
    assert upstream.requests == []


async def test_head_without_an_end_is_not_read_for_ever(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        with contextlib.suppress(ConnectionError):
            for number in range(100_000):
                await client.send(f"X-{number}: {'x' * 1000}\r\n" if number else "GET / HTTP/1.1\r\n")
            pytest.fail("100 MB of head were read")


async def test_body_at_the_limit_passes(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        assert (await client.exchange(post("/", b"x" * BODY_BYTES))).status == 200
        await client.send(get("/", "Transfer-Encoding: chunked", method="POST") + chunk(b"x" * BODY_BYTES) + LAST_CHUNK)
        assert (await client.reply()).status == 200
    assert [len(request.body) for request in upstream.requests] == [BODY_BYTES] * 2


async def test_announced_large_body_is_refused_unread(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.send(get("/", f"Content-Length: {BODY_BYTES + 1}", "X-Request-Id: announced", method="POST"))
        answer = await client.reply()
    assert (answer.status, details(answer)) == (413, "body_too_large")
    assert upstream.connections == []
    record = await proxy.log.find(id="announced")
    assert (record["outcome"], record["details"], record["status"]) == ("refused", "body_too_large", 413)


async def test_large_chunked_body_is_refused_on_the_way(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(CHUNKED + chunk(b"x" * BODY_BYTES) + chunk(b"x") + LAST_CHUNK)
    assert (answer.status, details(answer)) == (413, "body_too_large")
    await upstream.idle()
    assert upstream.requests == [], "the upstream took a part for the whole"


async def test_no_continue_for_a_body_that_is_too_large(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.send(get("/", f"Content-Length: {BODY_BYTES + 1}", "Expect: 100-continue", method="POST"))
        assert (await client.read_head()).start.split(" ")[1] == "413"


# --- bodies that a policy has to read


@pytest.fixture(scope="module")
def reading(penstock: StartPenstock) -> Penstock:
    return penstock({"policy": [{"use": "rig_watch", "needs_body": True}], "limits": {"body_bytes": BODY_BYTES}})


async def test_coded_body_is_undone_for_a_reader(reading: Penstock, upstream: RawUpstream) -> None:
    body = b'{"stream": false}'
    async with connect(reading.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", gzip.compress(body), "Content-Encoding: gzip"))
    assert answer.status == 200
    request = await upstream.request()
    assert (request.body, request.head.get("Content-Encoding")) == (body, None)
    assert request.ends == "length"


@pytest.mark.parametrize(
    ("body", "coding", "status", "why"),
    [
        (b"{}", "lzma2", 415, "unsupported_coding"),
        (b"this is no gzip", "gzip", 400, "malformed_body"),
        (gzip.compress(b"{}" * 100)[:-10], "gzip", 400, "malformed_body"),
        (gzip.compress(b"x" * 100_000), "gzip", 413, "body_too_large"),
    ],
    ids=["unknown", "broken", "cut", "bomb"],
)
async def test_coded_body_that_cannot_be_read(
    reading: Penstock, upstream: RawUpstream, body: bytes, coding: str, status: int, why: str
) -> None:
    async with connect(reading.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", body, f"Content-Encoding: {coding}"))
    assert (answer.status, details(answer)) == (status, why)
    assert upstream.requests == []


NO_CALLS = [b"{", b"[1, 2]", '{"model": "m"}'.encode("utf-16"), b"\xef\xbb\xbf{}", b'{"stream": "yes"}', b"[" * 9000]


@pytest.mark.parametrize("body", NO_CALLS, ids=repr)
async def test_body_that_policies_would_read_otherwise_than_the_model_server(
    reading: Penstock, proxy: Penstock, upstream: RawUpstream, body: bytes
) -> None:
    async with connect(reading.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", body))
    assert (answer.status, details(answer)) == (400, "malformed_body")
    assert json.loads(answer.body)["error"]["code"] == "malformed_body"
    assert upstream.requests == []
    async with connect(proxy.address) as client:  # where nobody reads it, it is the model server's affair
        assert (await client.exchange(post("/v1/chat/completions", body[:100]))).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", b""),
        ("/v1/chat/completions", b'{"n": 1e999}'),
        ("/v1/files", b"[1, 2"),
        ("/x", b"\xff"),
    ],
)
async def test_body_that_is_no_call_is_the_model_servers_affair(
    reading: Penstock, upstream: RawUpstream, path: str, body: bytes
) -> None:
    async with connect(reading.address) as client:
        answer = await client.exchange(post(path, body))
    assert answer.status == 200
    assert (await upstream.request()).body == body


# --- what a proxy like this one does not do


@pytest.mark.parametrize(
    ("request_bytes", "status", "why"),
    [
        (lines("CONNECT example.test:443 HTTP/1.1", "Host: example.test:443"), 405, "method_refused"),
        (get("/", method="TRACE"), 405, "method_refused"),
        (get("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x"), 501, "upgrade_refused"),
        (get("/", "Transfer-Encoding: gzip, chunked", method="POST") + LAST_CHUNK, 501, "transfer_coding"),
        (get("/", "Expect: 200-maybe", "Content-Length: 2", method="POST") + b"{}", 417, "expectation_failed"),
    ],
    ids=["CONNECT", "TRACE", "websocket", "Transfer-Encoding", "Expect"],
)
async def test_refused_ways_of_using_http(
    proxy: Penstock, upstream: RawUpstream, request_bytes: bytes, status: int, why: str
) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(request_bytes)
    assert (answer.status, details(answer)) == (status, why)
    assert upstream.requests == []
    record = await proxy.log.find(id=answer.head.get("X-Request-Id"))
    assert (record["outcome"], record["details"], record["status"]) == ("refused", why, status)


async def test_h2c_is_declined_by_answering(proxy: Penstock, upstream: RawUpstream) -> None:
    """RFC 9110 §7.8: a server may ignore Upgrade; curl offers h2c unasked."""
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    async with connect(proxy.address) as client:
        for _ in range(2):
            assert (await client.exchange(get("/", *fields))).status == 200
    for request in upstream.requests:
        assert request.head.get("Upgrade") is None
        assert request.head.get("HTTP2-Settings") is None


# --- how it is said


async def test_refusal_in_the_clients_dialect(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/v1/chat/completions", f"Content-Length: {BODY_BYTES + 1}", method="POST"))
    assert answer.head.get("Content-Type") == "application/json"
    error = json.loads(answer.body)["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert "body_too_large" in error.values()


async def test_refusal_says_nothing_of_the_inside(proxy: Penstock, upstream: RawUpstream) -> None:
    for request in (MALFORMED["NUL in a value"], MALFORMED["binary"], CHUNKED + b"zz\r\n"):
        answer = await refusal(proxy, request)
        text = (answer.body + str(answer.head).encode()).lower()
        for word in (b"traceback", b"aiohttp", b"python", b"llhttp", b"127.0.0.1", b"\\x", b"file "):
            assert word not in text


async def test_malformed_request_has_its_log_line(proxy: Penstock, upstream: RawUpstream) -> None:
    before = len(proxy.log.records)
    await refusal(proxy, MALFORMED["two lengths"])
    record = await proxy.log.find(lambda record: record in proxy.log.records[before:], details="malformed_request")
    assert (record["outcome"], record["status"]) == ("refused", 400)
