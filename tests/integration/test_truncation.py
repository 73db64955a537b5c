"""Half a reply never passes for a whole one: of every API, streamed and whole, however its body was to end, and whether or not
a policy reads it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock, side_by_side
from rigs.raw_client import connect, post
from rigs.raw_upstream import RawUpstream, chunk
from rigs.wire import Message, details
from rigs.wires import JSON, WIRES, WORDS, Wire

pytestmark = pytest.mark.aiohttp_paths

ROUTES = ("unread", "read", "redacted")
ENDS: dict[str, Callable[[str, bytes], bytes]] = {
    "its connection": lambda head, body: f"{head}\r\n".encode() + body,
    "a last chunk": lambda head, body: f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk(body),
    "a length": lambda head, body: f"{head}Content-Length: {len(body) + 9}\r\n\r\n".encode() + body,
}
"""What was to end the body, and does not, or comes too early."""

TELLING = [wire for wire in WIRES if wire.has_terminal]
EVERY_ROUTE = pytest.mark.parametrize("route", ROUTES)
EVERY_END = pytest.mark.parametrize("end", ENDS)
EVERY_WIRE = pytest.mark.parametrize("wire", TELLING, ids=[wire.name for wire in TELLING])


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    policies = [{"use": "rig_watch", "routes": ["read"]}, {"use": "redaction", "routes": ["redacted"]}]
    return penstock(side_by_side(*ROUTES), {"policy": policies})


async def ask(proxy: Penstock, route: str, wire: Wire, *, stream: bool) -> Message | None:
    """What a client gets; None where the transfer itself is visibly cut."""
    asked = wire.ask(stream, False)
    target = f"/{route}{asked.path}{'?' + asked.query if asked.query else ''}"
    async with connect(proxy.address) as client:
        await client.send(post(target, json.dumps(asked.document).encode()))
        try:
            return await client.reply()
        except (EOFError, ConnectionError):
            return None


async def outcome(proxy: Penstock, count: int) -> str:
    """That of the exchange with this number."""
    await proxy.log.find(lambda record: len(proxy.log.records) > count)
    return str(proxy.log.records[count]["outcome"])


@EVERY_WIRE
@EVERY_END
@EVERY_ROUTE
async def test_half_a_whole_reply(proxy: Penstock, upstream: RawUpstream, wire: Wire, end: str, route: str) -> None:
    body = wire.whole(WORDS)
    before = len(proxy.log.records)
    upstream.script = raw_upstream.then_closes(ENDS[end](f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\n", body[:-9]))
    answer = await ask(proxy, route, wire, stream=False)
    if route == "unread":
        assert answer is None
    else:
        assert answer is not None
        assert (answer.status, details(answer)) == (502, "upstream_truncated")
    assert await outcome(proxy, before) == "upstream_truncated"


@EVERY_WIRE
@EVERY_END
@EVERY_ROUTE
@pytest.mark.parametrize("within", [True, False], ids=["within an event", "between events"])
async def test_half_a_stream(
    proxy: Penstock, upstream: RawUpstream, wire: Wire, end: str, route: str, within: bool
) -> None:
    said = wire.stream(WORDS, False)
    half = said.opening + said.deltas[0] + (said.deltas[1][:-9] if within else b"")
    before = len(proxy.log.records)
    upstream.script = raw_upstream.then_closes(
        ENDS[end](f"HTTP/1.1 200 OK\r\nContent-Type: {wire.media_type}\r\n", half)
    )
    answer = await ask(proxy, route, wire, stream=True)
    assert await outcome(proxy, before) == "upstream_truncated"
    if answer is not None:
        assert wire.error_event is not None
        ((name, error),) = wire.error_event(wire.error(502, "upstream_truncated", ""), None)
        last_name, last = wire.said(answer.body)[-1]
        assert (last_name, last.keys()) == (name, error.keys() & last.keys())
        assert "truncated" in json.dumps(last)
    else:
        assert route == "unread"


@EVERY_WIRE
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@EVERY_ROUTE
async def test_a_whole_one_is_whole(
    proxy: Penstock, upstream: RawUpstream, wire: Wire, stream: bool, route: str
) -> None:
    """Also where only its own words say so."""
    body = wire.stream(WORDS, False).body if stream else wire.whole(WORDS)
    media_type = wire.media_type if stream else JSON
    before = len(proxy.log.records)
    upstream.script = raw_upstream.then_closes(
        ENDS["its connection"](f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\n", body)
    )
    answer = await ask(proxy, route, wire, stream=stream)
    assert answer is not None
    assert answer.status == 200
    assert route == "redacted" or answer.body == body
    assert await outcome(proxy, before) == "complete"
