"""A chain that has nothing to change changes nothing: replies of all APIs, as they were recorded or are documented, cut
anywhere, through a real proxy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from rigs.dictation import cut
from rigs.penstock import Penstock, StartPenstock, side_by_side
from rigs.raw_client import connect, post
from rigs.raw_upstream import LAST_CHUNK, RawUpstream, chunk, replies
from rigs.wires import JSON, NDJSON, SSE

from proxy.dialects import choose
from proxy.dialects.base import Channel
from proxy.framing import Event
from proxy.messages import Headers, Request, ResponseHead
from proxy.testing import texts

FIXTURES = Path(__file__).parents[1] / "fixtures"
MEDIA_TYPES = {".sse": SSE, ".ndjson": NDJSON, ".json": JSON}
FILES = sorted(path for path in FIXTURES.rglob("*") if path.suffix in MEDIA_TYPES)
GEMINI = "/v1beta/models/tiny"
PATHS = {
    "gemini_tools.json": f"{GEMINI}:generateContent",
    "gemini_stream_array": f"{GEMINI}:streamGenerateContent",
    "gemini": f"{GEMINI}:streamGenerateContent?alt=sse",
    "vertex": f"{GEMINI}:streamGenerateContent?alt=sse",
    "ollama_chat": "/api/chat",
    "ollama_generate": "/api/generate",
    "tgi_generate_stream": "/generate_stream",
    "tgi_generate": "/generate",
    "anthropic": "/v1/messages",
    "messages": "/v1/messages",
    "openai_responses": "/v1/responses",
    "responses": "/v1/responses",
    "completions": "/v1/completions",
    "": "/v1/chat/completions",
}
"""Where replies come from, by what the names of their files begin with."""

EVERY_REPLY = pytest.mark.parametrize("file", FILES, ids=[path.name for path in FILES])


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    policies = [
        {"use": "idle_timeout", "silence_s": 30.0},
        {"use": "rig_watch", "routes": ["read"]},
        {"use": "redaction", "routes": ["redacted"]},
        {"use": "token_limit", "per": "all", "windows": [{"tokens": 10**9, "window_s": 60}], "routes": ["read"]},
        {"use": "heartbeat", "interval_s": 30.0},
        {"use": "compression"},
    ]
    return penstock(side_by_side("unread", "read", "redacted"), {"policy": policies})


def target_of(file: Path) -> str:
    return next(path for name, path in PATHS.items() if file.name.startswith(name))


def asked(file: Path) -> bytes:
    """Also for the usage, or what is stated of it unasked would be taken out."""
    streamed = file.suffix != ".json"
    options = {"stream_options": {"include_usage": True}, "parameters": {"details": True}}
    return json.dumps({"model": "tiny", "stream": streamed, **(options if streamed else {})}).encode()


async def through(proxy: Penstock, upstream: RawUpstream, route: str, file: Path) -> bytes:
    """What a client gets."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {MEDIA_TYPES[file.suffix]}\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = cut(file.read_bytes(), Random(file.name), (9, 200, 5000))
    upstream.script = replies(head.encode() + b"".join(map(chunk, parts)) + LAST_CHUNK)
    async with connect(proxy.address) as client:
        answer = await client.exchange(
            post(f"/{route}{target_of(file)}", asked(file), f"X-Request-Id: {route}-{file.name}")
        )
    assert answer.status == 200
    return answer.body


def events(file: Path, body: bytes) -> list[Event]:
    path, _, query = target_of(file).partition("?")
    dialect = choose("auto", path)
    request = Request(
        id="x", method="POST", path=path, query=query, headers=Headers(), dialect=dialect, body=asked(file)
    )
    stream = dialect.open(ResponseHead(200, Headers({"Content-Type": MEDIA_TYPES[file.suffix]})), request.call)
    framer = stream.framer(1 << 20)
    frames = [*framer.feed(body), framer.finish()]
    return [stream.event(frame) for frame in frames if frame]


def spoken(said: Sequence[Event]) -> dict[Channel, str]:
    """The text of every channel. Log probabilities are not among them: they go where their text waits for the next event."""
    return {channel: text for channel, text in texts(said).items() if "logprobs" not in str(channel.index)}


def silent(said: Sequence[Event]) -> list[bytes]:
    """The events without a text, of any form."""
    return [event.raw for event in said if not event.deltas and not event.parsed.mirrored]


@EVERY_REPLY
@pytest.mark.parametrize("route", ["unread", "read"])
async def test_byte_for_byte(proxy: Penstock, upstream: RawUpstream, route: str, file: Path) -> None:
    """Where no policy rewrites, whether or not one reads."""
    assert await through(proxy, upstream, route, file) == file.read_bytes()


READABLE = [path for path in FILES if not path.name.startswith("utf16")]


@pytest.mark.parametrize("file", READABLE, ids=[path.name for path in READABLE])
async def test_through_redaction_that_finds_nothing(proxy: Penstock, upstream: RawUpstream, file: Path) -> None:
    """The text of every channel, and every event without a text."""
    before, after = (
        events(file, body) for body in (file.read_bytes(), await through(proxy, upstream, "redacted", file))
    )
    assert spoken(after) == spoken(before)
    remaining = iter(event.raw for event in after)
    assert all(raw in remaining for raw in silent(before))
    record = await proxy.log.find(id=f"redacted-{file.name}")
    assert (record["outcome"], "redaction" in record["facts"]) == ("complete", False)
