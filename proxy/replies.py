"""Replies that the proxy itself words, and replies that go out in one piece. Pure."""

from __future__ import annotations

from .errors import fault
from .forwarding import REQUEST_ID, proxy_status
from .messages import BYTE_EXACT, Headers, Reply, Request, ResponseHead, drop
from .policy import Events

_SOON_S = "1"  # what clients are told to wait where the proxy cannot serve them just now


def local_reply(reply: Reply, request: Request) -> tuple[ResponseHead, bytes]:
    """Head and body of an answer that is not the upstream's. A body that `reply` leaves open is the dialect's error body."""
    kind, body = ("", reply.body) if reply.body is not None else request.dialect.error_body(reply.problem)
    headers = Headers(reply.headers)  # a policy may keep one Reply for all exchanges
    if kind:
        headers.setdefault("Content-Type", kind)
    if reply.status not in (204, 304):
        headers["Content-Length"] = str(len(body))
    if reply.status >= 400:
        headers["Proxy-Status"] = proxy_status(reply.details)
        headers.setdefault("Cache-Control", "no-store")
    if fault(reply.details).status == 503:
        headers.setdefault("Retry-After", _SOON_S)
    headers[REQUEST_ID] = request.id
    return ResponseHead(reply.status, headers, local=True), body


def bare_error(details: str, request: Request) -> ResponseHead:
    """A head that says what a local reply would, where the dialect cannot word one."""
    headers = Headers({"Content-Length": "0", "Proxy-Status": proxy_status(details), REQUEST_ID: request.id})
    return ResponseHead(fault(details).status, headers, local=True)


def early_head(request: Request) -> ResponseHead:
    """The head of a stream that opens before the upstream has answered."""
    fields = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", REQUEST_ID: request.id}
    return ResponseHead(200, Headers(fields), local=True)


def drop_byte_exact(headers: Headers) -> None:
    """Take out what is said of the exact bytes of a body that may now have others."""
    drop(headers, BYTE_EXACT)


class WholeReply:
    """A reply that a policy must read as a whole: it waits for its end, and until then its head can still change.

    First the exchange part gives its events (`waiting`), then, once the head was shown to the attachment's policies,
    these give what is sent (`shown`).
    """

    __slots__ = ("parts", "shown", "waiting")

    def __init__(self) -> None:
        self.waiting: Events = []
        self.shown = False
        self.parts: list[bytes] = []

    def add(self, events: Events) -> None:
        """What left the attachment part. Before the head was shown that can only be a heartbeat, in what is no stream."""
        if self.shown:
            self.parts += [event.raw for event in events]

    def seal(self, head: ResponseHead, received: bytes) -> bytes:
        """The body; `head` says its length, and nothing of the `received` bytes if it has others."""
        body = b"".join(self.parts)
        if body != received:
            drop_byte_exact(head.headers)
        head.headers["Content-Length"] = str(len(body))
        return body
