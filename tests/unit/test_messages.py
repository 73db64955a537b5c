from __future__ import annotations

from typing import Any

import pytest

from proxy.dialects.base import Call
from proxy.dialects.generic import Generic
from proxy.dialects.openai_chat import OpenAIChat
from proxy.messages import Headers, Reply, Request, ResponseHead, end_to_end, head_bytes, tokens


class Counting(Generic):
    """A dialect that counts how often it reads a request."""

    def __init__(self) -> None:
        self.reads = 0

    def read_call(self, request: Request) -> Call:
        self.reads += 1
        return super().read_call(request)


def request(**fields: Any) -> Request:
    return Request(**{"id": "1", "method": "POST", "path": "/", "headers": Headers(), "dialect": Generic(), **fields})


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], []),
        (["close"], ["close"]),
        (["Keep-Alive, X-One", "x-two ,\tCLOSE"], ["keep-alive", "x-one", "x-two", "close"]),
        ([" , ,", ""], []),
    ],
)
def test_tokens(values: list[str], found: list[str]) -> None:
    assert tokens(values) == found


def test_a_head_on_the_wire() -> None:
    fields = Headers([("Host", "a"), ("x-one", "1"), ("X-One", "\u00e9"), ("X-Empty", "")])
    assert head_bytes("GET / HTTP/1.1", fields) == (
        b"GET / HTTP/1.1\r\nHost: a\r\nx-one: 1\r\nX-One: \xc3\xa9\r\nX-Empty: \r\n\r\n"
    )
    assert head_bytes("HTTP/1.1 200 OK", Headers({"X": "\udcff"}), errors="surrogateescape").count(b"\xff") == 1


@pytest.mark.parametrize(
    ("start", "fields"),
    [
        ("GET /\r\nX: 1 HTTP/1.1", {}),
        ("GET / HTTP/1.1", {"X": "1\nY: 2"}),
        ("GET / HTTP/1.1", {"X": "1\r"}),
        ("GET / HTTP/1.1", {"X": "\0"}),
        ("GET / HTTP/1.1", {"X:": "1"}),
        ("GET / HTTP/1.1", {"": "1"}),
        ("GET / HTTP/1.1", {"X": "\udcff"}),
    ],
)
def test_what_would_break_a_head_does_not_go_out(start: str, fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"token|line break|surrogates"):
        head_bytes(start, Headers(fields))


def test_end_to_end_drops_what_ends_at_this_hop() -> None:
    received = Headers(
        [
            ("Connection", "keep-alive, X-Secret"), ("Keep-Alive", "timeout=5"), ("X-Secret", "1"), ("x-secret", "2"),
            ("connection", "TE , x-other"), ("X-Other", "3"), ("TE", "trailers"), ("Trailer", "X-Sum"),
            ("Transfer-Encoding", "chunked"), ("Upgrade", "h2c"), ("Proxy-Authorization", "Basic Og=="),
            ("Proxy-Authenticate", "Basic"), ("Proxy-Authentication-Info", "x"), ("Proxy-Connection", "close"),
            ("Accept", "a"), ("Content-Length", "3"), ("accept", "b"), ("Cookie", "c"),
        ]
    )  # fmt: skip
    kept = end_to_end(received)
    assert list(kept.items()) == [("Accept", "a"), ("Content-Length", "3"), ("accept", "b"), ("Cookie", "c")]
    assert len(received) == 18


def test_end_to_end_takes_any_mapping() -> None:
    assert list(end_to_end({"TE": "trailers", "Accept": "a"}).items()) == [("Accept", "a")]


def test_a_call_is_read_once_and_anew_after_an_edit() -> None:
    dialect = Counting()
    asked = request(dialect=dialect, body=b'{"model": "small", "stream": true}')
    assert (asked.call.model, asked.call.stream) == ("small", True)
    assert asked.call.model == "small"
    assert dialect.reads == 1
    asked.replace_body(b'{"model": "large"}')
    assert (asked.call.model, asked.call.stream) == ("large", False)
    assert dialect.reads == 2


def test_a_streamed_body_is_no_call_and_cannot_be_replaced() -> None:
    asked = request()
    assert (asked.call.model, asked.call.stream, asked.call.choices) == (None, False, 1)
    with pytest.raises(ValueError, match="needs_body"):
        asked.replace_body(b"{}")


def test_usage_is_asked_for_once_and_hidden_by_the_last_who_asked() -> None:
    body = b'{"stream":true}'
    asked = request(dialect=OpenAIChat(), body=body)
    for hider in ("first", "last"):
        asked.ask_for_usage(hider)
        assert asked.usage_hidden_by == hider
        assert asked.body == b'{"stream":true,"stream_options":{"include_usage":true}}'
        assert not asked.call.wants_usage
    asked.replace_body(asked.body)  # as a later policy may
    assert not asked.call.wants_usage


def test_usage_that_the_client_asked_for_is_hidden_by_nobody() -> None:
    asked = request(dialect=OpenAIChat(), body=b'{"stream":true,"stream_options":{"include_usage":true}}')
    asked.ask_for_usage("policy")
    assert asked.usage_hidden_by is None
    assert asked.call.wants_usage


def test_a_head_has_headers_of_its_own() -> None:
    one, other = ResponseHead(200), ResponseHead(200)
    one.headers["X-One"] = "1"
    assert "X-One" not in other.headers
    assert (one.local, one.stream, one.reason) == (False, None, "")


def test_a_replys_status_and_words_are_those_of_its_details() -> None:
    reply = Reply(details="body_too_large")
    assert (reply.status, reply.problem.status) == (413, 413)
    assert "larger" in reply.problem.message
    assert (reply.body, len(reply.headers)) == (None, 0)


def test_a_reply_can_say_it_otherwise() -> None:
    given = {"Retry-After": "9"}
    reply = Reply(429, details="budget", message="Come back later.", headers=given, body=b"later")
    assert (reply.status, reply.details, reply.body) == (429, "budget", b"later")
    assert (reply.problem.status, reply.problem.details) == (429, "budget")
    assert reply.problem.message == "Come back later."
    reply.headers["X-More"] = "1"
    assert (reply.headers["retry-after"], given) == ("9", {"Retry-After": "9"})
