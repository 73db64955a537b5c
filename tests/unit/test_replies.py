"""Replies that the proxy words itself, and replies that go out in one piece."""

from __future__ import annotations

import json

from proxy.framing import Event
from proxy.messages import Headers, Reply, ResponseHead
from proxy.replies import WholeReply, drop_byte_exact, early_head, local_reply
from proxy.simulation import make_head, make_request, sse


def event(text: str) -> Event:
    head = make_head(make_request())
    assert head.stream is not None
    return head.stream.event(sse(text))


def test_a_refusal_is_worded_by_the_dialect_and_says_why_to_machines() -> None:
    request = make_request(path="/v1/chat/completions")
    head, body = local_reply(Reply(details="body_too_large"), request)
    assert (head.status, head.local) == (413, True)
    assert json.loads(body)["error"]["code"] == "body_too_large"
    assert head.headers["Content-Type"].startswith("application/json")
    assert head.headers["Content-Length"] == str(len(body))
    assert head.headers["Proxy-Status"] == 'penstock; details="body_too_large"'
    assert head.headers["Cache-Control"] == "no-store"
    assert head.headers["X-Request-Id"] == request.id


def test_who_cannot_be_served_just_now_is_told_when_to_come_again() -> None:
    for details in ("state_unavailable", "draining"):
        head, _ = local_reply(Reply(details=details), make_request())
        assert (head.status, head.headers["Retry-After"]) == (503, "1")
    head, _ = local_reply(Reply(details="state_unavailable", headers={"Retry-After": "7"}), make_request())
    assert head.headers["Retry-After"] == "7"
    for other in (Reply(details="request_rate"), Reply(503, details="mine")):
        assert "Retry-After" not in local_reply(other, make_request())[0].headers


def test_a_policy_may_say_all_of_it_itself() -> None:
    reply = Reply(
        429, details="mine", headers={"Content-Type": "text/plain", "Cache-Control": "private"}, body=b"slow down"
    )
    head, body = local_reply(reply, make_request())
    assert (head.status, body) == (429, b"slow down")
    assert head.headers["Content-Type"] == "text/plain"
    assert head.headers["Cache-Control"] == "private"


def test_an_answer_that_is_no_error_is_not_called_one() -> None:
    head, body = local_reply(Reply(204, details="cors_preflight", body=b""), make_request())
    assert (head.status, body) == (204, b"")
    assert not {"Content-Length", "Proxy-Status", "Cache-Control"} & set(head.headers)


def test_an_early_head_opens_a_stream_of_server_sent_events() -> None:
    request = make_request()
    head = early_head(request)
    assert (head.status, head.local) == (200, True)
    assert head.headers["Content-Type"].startswith("text/event-stream")
    assert head.headers["X-Request-Id"] == request.id


def test_what_is_said_of_exact_bytes_is_dropped() -> None:
    headers = Headers({"etag": '"a"', "Content-Digest": "x", "Content-Type": "text/plain"})
    headers.add("Content-Length", "3")
    headers.add("Content-Length", "3")
    drop_byte_exact(headers)
    assert list(headers) == ["Content-Type"]


def test_a_whole_reply_that_nobody_changed_keeps_what_was_said_of_its_bytes() -> None:
    whole, head = WholeReply(), ResponseHead(200, Headers({"ETag": '"a"', "Content-Length": "999"}))
    whole.shown = True
    whole.add([event("a"), event("b")])
    received = sse("a") + sse("b")
    assert whole.seal(head, received) == received
    assert (head.headers["ETag"], head.headers["Content-Length"]) == ('"a"', str(len(received)))


def test_a_changed_one_does_not() -> None:
    whole, head = WholeReply(), ResponseHead(200, Headers({"ETag": '"a"'}))
    whole.shown = True
    whole.add([event("b")])
    assert whole.seal(head, sse("a")) == sse("b")
    assert "ETag" not in head.headers
    assert head.headers["Content-Length"] == str(len(sse("b")))


def test_a_heartbeat_before_the_head_does_not_get_into_the_body() -> None:
    whole = WholeReply()
    whole.add([event("too early")])
    assert whole.seal(ResponseHead(200), b"") == b""
