"""What the proxy itself refuses or breaks off, in each dialect's own body and its own event."""

from __future__ import annotations

import json

import pytest
from rigs.matrix import make_request
from rigs.wires import BY_NAME, JSON, WIRES, Wire

from proxy.errors import FAULTS, Problem
from proxy.messages import Headers, Reply, ResponseHead
from proxy.policy import Ending
from proxy.replies import early_head, local_reply

EVERY_WIRE = pytest.mark.parametrize("wire", WIRES, ids=[wire.name for wire in WIRES])
EVERY_FAULT = pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "unauthorized"),
        (403, "stopped"),
        (404, "no_route"),
        (408, "body_timeout"),
        (413, "body_too_large"),
        (429, "request_rate"),
        (429, "stream_cap"),
        (429, "token_limit"),
        (499, "client_gone"),
        (500, "policy_error"),
        (502, "upstream_unreachable"),
        (502, "upstream_truncated"),
        (503, "draining"),
        (503, "state_unavailable"),
        (504, "first_byte_timeout"),
        (504, "deadline"),
    ],
)


@EVERY_WIRE
@EVERY_FAULT
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
def test_a_local_reply(wire: Wire, status: int, code: str, streamed: bool) -> None:
    """Is one document either way: no client reads a stream below such a status."""
    head, body = local_reply(Reply(details=code), make_request(wire, streamed=streamed))
    assert (head.status, head.headers["Content-Type"]) == (status, JSON)
    assert json.loads(body) == wire.error(status, code, FAULTS[code].message)


@EVERY_WIRE
@EVERY_FAULT
def test_an_error_in_a_stream(wire: Wire, status: int, code: str) -> None:
    request = make_request(wire, streamed=True)
    head = ResponseHead(200, Headers({"Content-Type": wire.media_type}))
    stream = request.dialect.open(head, request.call)
    ending = b"".join(event.raw for event in stream.ending(Ending.ERROR, Problem.of(code)))
    if wire.error_event is None:
        assert ending == b""
    else:
        assert wire.said(ending) == wire.error_event(wire.error(status, code, FAULTS[code].message), None)


@EVERY_WIRE
@EVERY_FAULT
def test_an_error_in_a_stream_that_opened_before_its_upstream_answered(wire: Wire, status: int, code: str) -> None:
    """Whatever would have come of an API that nobody knows, it opens as server-sent events."""
    request = make_request(wire, streamed=True)
    stream = request.dialect.open(early_head(request), request.call)
    ending = b"".join(event.raw for event in stream.ending(Ending.ERROR, Problem.of(code)))
    words = BY_NAME["unknown, events with JSON"] if wire.dialect == "generic" else wire
    assert words.error_event is not None
    assert words.said(ending) == words.error_event(wire.error(status, code, FAULTS[code].message), None)
