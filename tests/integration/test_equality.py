"""A chain that has nothing to change changes nothing: replies of all APIs, as they were recorded or are documented, cut
anywhere, through a real proxy."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from rigs.dictation import cut
from rigs.penstock import Penstock, StartPenstock, side_by_side
from rigs.raw_client import connect, post
from rigs.raw_upstream import LAST_CHUNK, RawUpstream, chunk, replies
from rigs.wires import JSON, NDJSON, SSE

pytestmark = pytest.mark.aiohttp_paths

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
    "vercel": "/api/talk",
    "assistants": "/v1/threads/thread_1/runs",
    "openai_images": "/v1/images/generations",
    "cohere": "/v2/chat",
    "llama_completion": "/completion",
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


# What is judged is plain JSON, read without the code under test.

GROWING = re.compile(
    r"/choices/[^/]*/(text|delta/(content(/[^/]*/thinking/[^/]*/text)?|reasoning|reasoning_content|refusal"
    r"|audio/transcript|reasoning_details/[^/]*/(text|summary)|tool_calls/[^/]*/function/arguments|function_call/arguments))"
    r"|/delta(/(text|thinking|partial_json|content/[^/]*/text/value|message/content/text))?"
    r"|/candidates/[^/]*/content/parts/[^/]*/(text|functionCall/partialArgs/[^/]*/stringValue)"
    r"|/message/(content|thinking|reasoning_content)|/(response|thinking|content)|/token/text"
)
"""Where texts stand that go on in later events."""
_ENDING = re.compile(r"(^|[^a-z])(done|stop|end|completed|finish)$")
ASIDE = ("created_at", "logprobs", "obfuscation", "sequence_number", "top_tokens")
"""Members that differ from event to event, or go where their text waits for the next."""
TOKEN = ("/token/id", "/token/logprob")


class Said(NamedTuple):
    """One event: all that it says but the texts that go on, and those."""

    rest: Any
    texts: dict[str, str]
    ends: str | None
    """What the texts that end with it begin with; None: it ends none."""


def frames(file: Path, body: bytes) -> list[tuple[str, Any]]:
    """The events with their names, and their documents or else texts."""
    text = body.decode()
    if file.suffix == ".json":
        document = json.loads(text)
        return [("", item) for item in document] if isinstance(document, list) else [("", document)]
    if file.suffix == ".ndjson":
        return [("", json.loads(line)) for line in text.splitlines() if line.strip()]
    found = []
    for block in filter(None, re.split(r"(?:\r?\n){2}", text)):
        name, data = "", block
        for line in block.splitlines():
            field, _, value = line.partition(":")
            name, data = (
                (value.strip(), data) if field == "event" else (name, value.strip() if field == "data" else data)
            )
        found.append((name, json.loads(data) if data.startswith("{") else data))
    return found


def number(item: Any, at: int) -> Any:
    """Which item of a list it is. Gemini's thoughts are another text."""
    return (item.get("index", at), item.get("thought")) if isinstance(item, dict) else at


def read(name: str, document: Any) -> Said:
    texts: dict[str, str] = {}
    if isinstance(document, dict) and "token" in document:  # TGI counts them
        document.pop("index", None)

    def split(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {
                key: split(inner, f"{path}/{key}")
                for key, inner in value.items()
                if key not in ASIDE and f"{path}/{key}" not in TOKEN
            }
        if isinstance(value, list):
            return [split(item, f"{path}/{number(item, at)}") for at, item in enumerate(value)]
        if isinstance(value, str) and GROWING.fullmatch(path):
            texts[path] = texts.get(path, "") + value
            return ""
        return value

    rest = (name, split(document, ""))
    if not isinstance(document, dict):
        return Said(rest, texts, "" if document == "[DONE]" else None)
    part = "".join(f"{document.get(key, '')}/" for key in ("output_index", "content_index", "summary_index", "index"))
    choices = document.get("choices") or document.get("candidates") or [{}]
    finished = [choice for choice in choices if choice.get("finish_reason") or choice.get("finishReason")]
    whole = _ENDING.search(str(document.get("type") or document.get("event") or name)) or document.get("done") is True
    ends = "" if whole or document.get("stop") is True else None
    if finished:
        ends = f"/{'choices' if 'choices' in document else 'candidates'}/{number(finished[0], 0)}/"
    return Said(rest, {path if path.startswith("/c") else part + path: text for path, text in texts.items()}, ends)


def within(some: Any, other: Any) -> bool:
    """Whether all that `some` says `other` says too."""
    if isinstance(some, dict):
        return isinstance(other, dict) and all(within(inner, other.get(key)) for key, inner in some.items())
    if isinstance(some, list | tuple):
        return not some or (
            isinstance(other, list | tuple) and all(any(within(inner, item) for item in other) for inner in some)
        )
    return some in (None, "") or some == other


def add(texts: dict[str, str], said: Said) -> None:
    for channel, text in said.texts.items():
        texts[channel] = texts.get(channel, "") + text


def assert_same(before: Sequence[Said], after: Sequence[Said]) -> None:
    """Each event that comes out is one that went in, in order, or goes on with a text of one. One that does not come out
    has said nothing else. The texts are the same, and nothing of one comes after the event that ends it."""
    spoken: dict[str, str] = {}
    heard: dict[str, str] = {}
    at = 0
    for said in after:
        add(heard, said)
        found = next((n for n in range(at, len(before)) if before[n].rest == said.rest), None)
        if found is None or not all(any(within(gone.rest, it.rest) for it in after) for gone in before[at:found]):
            assert any(said.texts.values()), said
            assert any(within(said.rest, earlier.rest) for earlier in before[:at]), said
            continue
        for gone in before[at : found + 1]:
            add(spoken, gone)
        at = found + 1
        if said.ends is not None:
            for channel in [channel for channel in {**spoken, **heard} if channel.startswith(said.ends)]:
                assert heard.get(channel, "") == spoken.get(channel, ""), (channel, said)
    assert before[-1].rest == after[-1].rest
    for gone in before[at:]:
        add(spoken, gone)
    assert heard == spoken


@EVERY_REPLY
@pytest.mark.parametrize("route", ["unread", "read"])
async def test_byte_for_byte(proxy: Penstock, upstream: RawUpstream, route: str, file: Path) -> None:
    """Where no policy rewrites, whether or not one reads."""
    assert await through(proxy, upstream, route, file) == file.read_bytes()


READABLE = [path for path in FILES if not path.name.startswith("utf16")]


@pytest.mark.parametrize("file", READABLE, ids=[path.name for path in READABLE])
async def test_through_redaction_that_finds_nothing(proxy: Penstock, upstream: RawUpstream, file: Path) -> None:
    recorded, redacted = (
        [read(*frame) for frame in frames(file, body)]
        for body in (file.read_bytes(), await through(proxy, upstream, "redacted", file))
    )
    assert_same(recorded, redacted)
    record = await proxy.log.find(id=f"redacted-{file.name}")
    assert (record["outcome"], "redaction" in record["facts"]) == ("complete", False)
