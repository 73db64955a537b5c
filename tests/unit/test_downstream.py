"""The client's side: what one reply looks like on the wire."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.streams import StreamReader
from rigs.connections import Transport
from rigs.waiting import until

from proxy.connection import Connection
from proxy.dialects import DIALECTS
from proxy.dialects.base import Call, DialectStream
from proxy.downstream import ClientReply
from proxy.messages import Headers, ResponseHead

SEEN = DIALECTS["openai-chat"].open(ResponseHead(200, Headers({"Content-Type": "application/json"})), Call())
DATE = rb"Date: [A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\r\n"


def on(transport: Transport | None) -> Connection:
    class OnlyATransport:
        raw_transport = transport

    return cast(Connection, OnlyATransport)


def make_reply(
    transport: Transport | None,
    *,
    method: str = "GET",
    http_1_0: bool = False,
    keep_alive: bool = True,
    content: StreamReader | None = None,
) -> ClientReply:
    more: dict[str, Any] = {} if content is None else {"content": content}
    return ClientReply(on(transport), method=method, http_1_0=http_1_0, keep_alive=keep_alive, **more)


def head(
    status: int = 200, *, reason: str = "", local: bool = False, stream: DialectStream | None = None, **headers: str
) -> ResponseHead:
    fields = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return ResponseHead(status, fields, reason=reason, local=local, stream=stream)


def send_head(reply: ClientReply, head: ResponseHead) -> None:
    """Send a head of whose body nothing is there yet."""
    reply.send_head(head)
    reply.flush()


def sent(transport: Transport) -> bytes:
    """What was sent, without the date."""
    return re.sub(DATE, b"", transport.sent)


# Replies


def test_a_reply_with_a_length() -> None:
    reply = make_reply(transport := Transport())
    reply.send_head(head(Content_Length="5"))
    reply.write(b"he")
    reply.write(b"")
    reply.write(b"llo")
    reply.end()
    assert sent(transport) == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    assert re.search(DATE, transport.sent)
    assert (reply.keep_alive, transport.end) == (True, "")


def test_a_reply_without_a_length_is_chunked() -> None:
    reply = make_reply(transport := Transport())
    reply.send_head(head())
    reply.write(b"x" * 16)
    reply.write(b"")  # would be the last chunk
    reply.end()
    assert (
        sent(transport) == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"
    )


def test_a_head_is_written_with_what_comes_first_of_its_body() -> None:
    writes: list[bytes] = []
    reply = make_reply(transport := Transport())
    transport.write = writes.append  # type: ignore[method-assign,assignment]
    reply.send_head(head(Content_Length="10"))
    assert writes == []
    reply.write(b"first")
    assert len(writes) == 1
    assert writes[0].endswith(b"\r\n\r\nfirst")
    reply.flush()
    reply.write(b"later")
    assert writes[1:] == [b"later"]


@pytest.mark.parametrize("finish", [ClientReply.flush, ClientReply.end, ClientReply.abort])
def test_a_head_without_a_body_is_written_too(finish: Callable[[ClientReply], None]) -> None:
    reply = make_reply(transport := Transport())
    reply.send_head(head(204))
    finish(reply)
    reply.flush()
    assert sent(transport) == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_header_fields_stay_as_they_are() -> None:
    fields = Headers(
        [("set-cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Empty", ""), ("X-Raw", "\udcff"), ("Date", "then")]
    )
    send_head(make_reply(transport := Transport()), ResponseHead(200, fields))
    lines = transport.sent.split(b"\r\n")
    assert lines[1:6] == [b"set-cookie: a=1", b"Set-Cookie: b=2", b"X-Empty: ", b"X-Raw: \xff", b"Date: then"]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (head(204), b"HTTP/1.1 204 No Content"),
        (head(418, reason="Short and stout"), b"HTTP/1.1 418 Short and stout"),
        (head(404, reason="Ask ann@example.com", stream=SEEN), b"HTTP/1.1 404 Not Found"),
        (head(103, reason="Ask ann@example.com"), b"HTTP/1.1 103 Early Hints"),
        (head(499), b"HTTP/1.1 499 Client Closed Request"),
        (head(599), b"HTTP/1.1 599 "),
    ],
)
def test_the_reason_is_the_upstreams_or_where_policies_see_the_reply_the_usual_one(
    given: ResponseHead, line: bytes
) -> None:
    send_head(make_reply(transport := Transport()), given)
    assert transport.sent.split(b"\r\n")[0] == line


@pytest.mark.parametrize(
    "broken", [head(X_A="b\r\nX-C: d"), head(X_A="b\n"), head(X_A="b\r"), head(X_A="\0"), head(reason="a\r\nb")]
)
def test_a_field_cannot_break_out_of_the_head(broken: ResponseHead) -> None:
    reply = make_reply(transport := Transport())
    with pytest.raises(ValueError, match="line break"):
        reply.send_head(broken)
    assert transport.sent == b""


@pytest.mark.parametrize(
    "broken",
    [
        head(99),
        head(1000),
        ResponseHead(200, Headers({"X A": "1"})),
        ResponseHead(200, Headers({"X:A": "1"})),
        ResponseHead(200, Headers({"": "1"})),
        head(Content_Length="+5"),
        head(Content_Length=""),
        head(Content_Length="5, 5"),
        head(Content_Length="\u0665"),
        ResponseHead(200, Headers([("Content-Length", "5"), ("content-length", "6")])),
    ],
)
def test_a_head_that_is_none_is_not_sent(broken: ResponseHead) -> None:
    reply = make_reply(transport := Transport())
    with pytest.raises(ValueError, match=r"status|name|Content-Length"):
        reply.send_head(broken)
    assert transport.sent == b""


def test_framing_is_nobody_elses_affair() -> None:
    said = {"transfer-encoding": "gzip", "connection": "close", "Keep-Alive": "timeout=5"}
    send_head(make_reply(transport := Transport()), ResponseHead(200, Headers({"Content-Length": "0", **said})))
    send_head(make_reply(transport), ResponseHead(200, Headers(said)))
    assert sent(transport) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


def test_nothing_is_written_beyond_the_length() -> None:
    reply = make_reply(transport := Transport())
    reply.send_head(head(Content_Length="5"))
    for data in (b"hel", b"lo, world", b"!"):
        reply.write(data)
    reply.end()
    assert transport.sent.endswith(b"\r\n\r\nhello")
    assert (reply.keep_alive, transport.end) == (False, "")


def test_a_reply_that_is_shorter_than_its_length_ends_with_its_connection() -> None:
    reply = make_reply(transport := Transport())
    reply.send_head(head(Content_Length="5"))
    reply.write(b"hell")
    reply.end()
    assert transport.sent.endswith(b"\r\n\r\nhell")
    assert (reply.keep_alive, transport.end) == (False, "close")


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        ("HEAD", 200, b"Content-Length: 5\r\n"),
        ("GET", 304, b"Content-Length: 5\r\n"),
        ("GET", 204, b""),  # RFC 9110 §8.6: MUST NOT be sent
    ],
)
def test_a_reply_that_has_no_body(method: str, status: int, fields: bytes) -> None:
    reply = make_reply(transport := Transport(), method=method)
    reply.send_head(head(status, reason="R", Content_Length="5"))
    reply.write(b"never")
    reply.end()
    assert sent(transport) == b"HTTP/1.1 %d R\r\n%b\r\n" % (status, fields)
    assert reply.keep_alive


def test_a_reply_without_body_and_length_is_not_chunked() -> None:
    reply = make_reply(transport := Transport(), method="HEAD")
    reply.send_head(head())
    reply.end()
    assert sent(transport) == b"HTTP/1.1 200 OK\r\n\r\n"


def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    reply = make_reply(transport := Transport(), http_1_0=True)
    reply.send_head(head())
    reply.write(b"hello")
    reply.end()
    assert sent(transport) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"
    assert not reply.keep_alive


def test_a_client_of_http_1_0_is_told_that_its_connection_stays() -> None:
    reply = make_reply(transport := Transport(), http_1_0=True)
    send_head(reply, head(Content_Length="0"))
    assert sent(transport) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    assert reply.keep_alive


def test_a_connection_that_will_be_closed_says_so() -> None:
    send_head(make_reply(transport := Transport(), keep_alive=False), head(Content_Length="0"))
    assert sent(transport) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Unread(StreamReader):
    """A request body that has not come whole."""

    def __init__(self, *, eof: bool = False) -> None:
        self._complete = eof

    def is_eof(self) -> bool:
        return self._complete


@pytest.mark.parametrize(("local", "eof", "stays"), [(True, False, False), (True, True, True), (False, False, True)])
def test_a_refusal_of_a_request_that_is_still_being_sent_ends_the_connection(
    local: bool, eof: bool, stays: bool
) -> None:
    reply = make_reply(transport := Transport(), content=Unread(eof=eof))
    send_head(reply, head(413, local=local, Content_Length="0"))
    assert reply.keep_alive is stays
    assert (b"Connection: close" in transport.sent) is not stays


@pytest.mark.parametrize(
    ("http_1_0", "length", "end"),
    [
        (False, None, "close"),  # no last chunk
        (False, "10", "close"),  # too few bytes
        (True, None, "abort"),  # a close would look like the end
    ],
)
def test_a_reply_that_is_broken_off_cannot_be_taken_for_whole(http_1_0: bool, length: str | None, end: str) -> None:
    reply = make_reply(transport := Transport(), http_1_0=http_1_0)
    reply.send_head(head() if length is None else head(Content_Length=length))
    reply.write(b"half")
    written = transport.sent
    reply.abort()
    assert (transport.end, transport.sent, reply.keep_alive) == (end, written, False)


def test_a_client_that_does_not_read_is_dropped() -> None:
    reply = make_reply(transport := Transport())
    reply.send_head(head())
    reply.reset()
    assert (transport.end, reply.keep_alive) == ("abort", False)


def test_interim_replies() -> None:
    make_reply(transport := Transport()).send_informational(head(103, Link="</a>"))
    assert transport.sent == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    make_reply(transport := Transport()).continue_()
    assert transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_interim_replies_are_not_for_http_1_0() -> None:
    reply = make_reply(transport := Transport(), http_1_0=True)
    reply.send_informational(head(103))
    reply.continue_()
    assert transport.sent == b""


def test_nothing_is_written_to_a_connection_that_closes() -> None:
    transport = Transport()
    transport.close()
    reply = make_reply(transport)
    reply.send_head(head())
    reply.write(b"late")
    reply.end()
    assert transport.sent == b""


def test_a_connection_that_was_never_made_is_no_reason_to_fail() -> None:
    reply = make_reply(None)
    reply.send_head(head())
    reply.abort()
    reply.reset()
    assert not reply.keep_alive


# What the client has not taken


async def test_what_a_client_has_not_taken_is_known() -> None:
    here, there = socket.socketpair()
    with here, there:
        for end in (here, there):
            end.setblocking(False)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=here)
        connection = SimpleNamespace(raw_transport=transport)
        reply = ClientReply(cast(Connection, connection), method="GET", http_1_0=False, keep_alive=True)
        assert reply.unsent == 0
        reply.write(b"x" * 4_000_000)
        before = reply.unsent
        assert before > 0
        assert there.recv(1_000_000)
        await until(lambda: reply.unsent < before, "the client's reading to be seen")
        transport.abort()
    connection.raw_transport = None
    assert reply.unsent == 0
