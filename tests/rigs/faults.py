"""Every way in which a model server can misbehave that has a name, and what has to come of it."""

from __future__ import annotations

from typing import NamedTuple

from . import raw_upstream
from .raw_upstream import CHAT_EVENTS, LAST_CHUNK, STREAM_HEAD, Script, UpstreamConnection, chunk, reply

HALF_EVENT = CHAT_EVENTS[1][:40]
EVENT_STREAM = "Content-Type: text/event-stream"


class Misbehaviour(NamedTuple):
    """`details` (a key of `errors.FAULTS`) and `outcome` as they are to be logged."""

    script: Script
    details: str
    outcome: str


async def _resets_unread(connection: UpstreamConnection) -> None:
    await connection.read_some(1)
    connection.reset()


def _garbage(answer: bytes) -> Misbehaviour:
    return Misbehaviour(raw_upstream.then_stalls(answer), "upstream_garbage", "upstream_garbage")


def _head(*fields: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", EVENT_STREAM, *fields, "", "")).encode("latin-1")


BEFORE_THE_HEAD = {
    "resets before it has read the request": Misbehaviour(_resets_unread, "upstream_reset", "upstream_error"),
    "closes without a word": Misbehaviour(raw_upstream.then_closes(b""), "upstream_reset", "upstream_error"),
    "resets without a word": Misbehaviour(raw_upstream.then_resets(b""), "upstream_reset", "upstream_error"),
    "closes in the head": Misbehaviour(raw_upstream.then_closes(STREAM_HEAD[:30]), "upstream_reset", "upstream_error"),
    "resets in the head": Misbehaviour(raw_upstream.then_resets(STREAM_HEAD[:30]), "upstream_reset", "upstream_error"),
    "speaks another protocol": _garbage(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "speaks TLS": _garbage(b"\x15\x03\x01\x00\x02\x02\x0a\r\n\r\n"),
    "sends a body without a head": _garbage(b'{"choices": []}\r\n\r\n'),
    "has a status that is no number": _garbage(_head("Content-Length: 0", status="abc OK")),
    "has a status of two digits": _garbage(_head("Content-Length: 0", status="20 OK")),
    "has a field without a colon": _garbage(_head("Nonsense", "Content-Length: 0")),
    "has a space before the colon": _garbage(_head("Content-Length : 0")),
    "has a name that is none": _garbage(_head("X A: 1", "Content-Length: 0")),
    "has NUL in a value": _garbage(_head("X-A: a\0b", "Content-Length: 0")),
    "has a field over the limit": _garbage(_head("X-Long: " + "x" * 40_000, "Content-Length: 0")),
    "has a head without an end": _garbage(_head(*(f"X-{number}: {'x' * 1000}" for number in range(2000)))),
    "has two lengths": _garbage(_head("Content-Length: 1", "Content-Length: 2") + b"xx"),
    "has a negative length": _garbage(_head("Content-Length: -1")),
    "has length and chunks": _garbage(_head("Content-Length: 3", "Transfer-Encoding: chunked") + LAST_CHUNK),
    "switches protocols unasked": _garbage(_head("Upgrade: x", "Connection: Upgrade", status="101 Switching Protocols")),
}  # fmt: skip
"""The client gets a local reply."""


def _truncated(answer: bytes) -> Misbehaviour:
    return Misbehaviour(raw_upstream.then_closes(answer), "upstream_truncated", "upstream_truncated")


def _reset(answer: bytes) -> Misbehaviour:
    return Misbehaviour(raw_upstream.then_resets(answer), "upstream_reset", "upstream_error")


IN_THE_BODY = {
    "closes before the first event": _truncated(STREAM_HEAD),
    "closes between events": _truncated(STREAM_HEAD + chunk(CHAT_EVENTS[0])),
    "closes within an event": _truncated(STREAM_HEAD + chunk(CHAT_EVENTS[0] + HALF_EVENT)),
    "closes within a chunk": _truncated(STREAM_HEAD + b"ff\r\n" + CHAT_EVENTS[0]),
    "closes within a chunk's size": _truncated(STREAM_HEAD + chunk(CHAT_EVENTS[0]) + b"f"),
    "closes before the length is reached": _truncated(_head("Content-Length: 5000") + CHAT_EVENTS[0] + HALF_EVENT),
    "ends with the connection before the first event": _truncated(_head()),
    "ends with the connection between events": _truncated(_head() + CHAT_EVENTS[0]),
    "ends with the connection within an event": _truncated(_head() + CHAT_EVENTS[0] + HALF_EVENT),
    "resets before the first event": _reset(STREAM_HEAD),
    "resets between events": _reset(STREAM_HEAD + chunk(CHAT_EVENTS[0])),
    "resets within an event": _reset(STREAM_HEAD + chunk(CHAT_EVENTS[0] + HALF_EVENT)),
    "resets a body that ends with the connection": _reset(_head() + CHAT_EVENTS[0]),
    "has a chunk size that is no number": _garbage(STREAM_HEAD + chunk(CHAT_EVENTS[0]) + b"zz\r\n"),
    "has a chunk longer than its size": _garbage(STREAM_HEAD + b"3\r\n" + CHAT_EVENTS[0] + b"\r\n" + LAST_CHUNK),
    "has a chunk size that overflows": _garbage(STREAM_HEAD + b"f" * 20 + b"\r\nx"),
}
"""The client has the head, perhaps some events, and must be able to tell that they are not all."""


def _unreadable(answer: bytes, details: str) -> Misbehaviour:
    return Misbehaviour(raw_upstream.then_closes(answer), details, "upstream_garbage")


UNREADABLE = {
    "codes the body unasked, and badly": _unreadable(reply(b"nope", EVENT_STREAM, "Content-Encoding: gzip"), "upstream_coding"),
    "uses a coding that nobody knows": _unreadable(reply(b"xx", EVENT_STREAM, "Content-Encoding: lzma2"), "upstream_coding"),
    "sends an event over the limit": _unreadable(STREAM_HEAD + chunk(b"data: " + b"x" * 200_000), "event_too_large"),
}  # fmt: skip
"""What only a chain that reads events can know to be wrong."""
