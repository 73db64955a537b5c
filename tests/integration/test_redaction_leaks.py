"""The leak test: 1,000 streams of random documents with secrets in them, cut anywhere, ended anyhow.

What left the proxy is always a prefix of the redacted whole, channel by channel; all of it where the exchange was
complete. No secret stands in what a client got, in what the model server got, in a log line or in a metric.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import string
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import pytest
from rigs.aiohttp_paths import told
from rigs.penstock import Penstock, Record, StartPenstock, Tables, side_by_side
from rigs.raw_client import RawClient, connect, post
from rigs.raw_upstream import LAST_CHUNK, RawUpstream, UpstreamConnection, chunk
from rigs.waiting import until, within_limit

from policies.redaction import RedactionConfig
from policies.redaction.json_text import TextRedactor
from proxy.dialects import choose
from proxy.dialects.base import Call, Channel, Kind
from proxy.messages import Headers, ResponseHead

pytestmark = pytest.mark.aiohttp_paths

STREAMS = 1000
AT_ONCE = 40
MOST_S = 240.0

CONFIG = RedactionConfig()

# --- documents

Make = Callable[[random.Random], str]


def _letters(luck: random.Random, count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(luck.choices(alphabet, k=count))


def _card(luck: random.Random) -> str:
    digits = [4, *(luck.randrange(10) for _ in range(14))]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[::2]]
    digits.append(-(sum(doubled) + sum(digits[1::2])) % 10)
    number = "".join(map(str, digits))
    return number if luck.random() < 0.5 else " ".join(number[at : at + 4] for at in range(0, 16, 4))


def _pem(luck: random.Random) -> str:
    lines = "\n".join(_letters(luck, 64) for _ in range(luck.randrange(2, 8)))
    return f"-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----"


SECRETS: list[Make] = [
    lambda luck: f"{_letters(luck, 8, string.ascii_lowercase)}.{_letters(luck, 5, string.ascii_lowercase)}@example.com",
    _card,
    _pem,
    lambda luck: f"sk-proj-{_letters(luck, 48)}",
    lambda luck: f"ghp_{_letters(luck, 36)}",
    lambda luck: f"postgres://app:{_letters(luck, 20)}@db.internal/app",
]
PROSE = (
    "The quick brown fox, so it is said, jumps over 12 lazy dogs. ",
    "Version 2.10 costs $4.99 (or 3 for $12); see section 7.1. ",
    "naïve café 日本語 \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301. ",
    "a.b-c_d sk- ghp 4111 1111 eyJ at@ @home ---- BEGIN ",
    "\n\n```json\n{\"a\": [1, 2]}\n```\n",
    "Write to ",
    "x",
)  # fmt: skip


def document(luck: random.Random, secrets: list[str]) -> str:
    """Some prose, with secrets in it that are also added to `secrets`."""
    parts = []
    for _ in range(luck.randrange(1, 8)):
        parts.append(luck.choice(PROSE))
        if luck.random() < 0.5:
            secrets.append(luck.choice(SECRETS)(luck))
            parts += [" ", secrets[-1], luck.choice((" ", ". ", "\n", ", "))]
    return "".join(parts)


def cut(luck: random.Random, text: str) -> list[str]:
    """The text in pieces as tokens are, or in single characters, or in one."""
    longest = luck.choice((1, 4, 12, 10_000))
    pieces = []
    while text:
        size = luck.randrange(1, longest + 1)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


# --- forms of replies


class Form(NamedTuple):
    """How a text is sent: one event a piece, in one channel."""

    dialect: str
    content_type: str
    channel: Channel
    event: Callable[[str], bytes]
    end: bytes = b""


def _chat(**delta: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c", "choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def _arguments(piece: str) -> bytes:
    return _chat(tool_calls=[{"index": 1, "function": {"arguments": piece}}])


def _unknown(piece: str) -> bytes:
    return b'data: {"t": %s}\n\n' % json.dumps(piece).encode()


def _line(piece: str) -> bytes:
    return b'{"t": %s}\n' % json.dumps(piece).encode()


DONE = b"data: [DONE]\n\n"
SSE = "text/event-stream"
FORMS: dict[str, Form] = {
    "text": Form("openai-chat", SSE, Channel(0, Kind.TEXT, 0), lambda piece: _chat(content=piece), DONE),
    "reasoning": Form("openai-chat", SSE, Channel(0, Kind.REASONING, 0), lambda piece: _chat(reasoning_content=piece), DONE),
    "arguments": Form("openai-chat", SSE, Channel(0, Kind.TOOL_ARGUMENTS, 1), _arguments, DONE),
    "unknown": Form("generic", SSE, Channel(0, Kind.TEXT, "/t"), _unknown),
    "lines": Form("generic", "application/x-ndjson", Channel(0, Kind.TEXT, "/t"), _line),
    "plain": Form("generic", "text/plain", Channel(0, Kind.TEXT, ""), str.encode),
}  # fmt: skip

UPSTREAM_ENDS = ("well", "well", "well", "resets", "truncates", "stalls")
CLIENT_ENDS = ("reads", "reads", "reads", "leaves")


class Plan(NamedTuple):
    """One stream."""

    id: str
    form: Form
    route: str
    pieces: list[str]
    prompt: str
    upstream: str
    client: str
    cut_at: float  # where the upstream or the client ends it, as a share of the whole
    seed: float

    @property
    def whole(self) -> str:
        return "".join(self.pieces)

    @classmethod
    def draw(cls, number: int, luck: random.Random, secrets: list[str]) -> Plan:
        name = luck.choice(list(FORMS))
        text = document(luck, secrets)
        if name == "arguments":
            fields = {"note": text, "list": [1.5, None, text[:50]], text[:9]: True}
            text = json.dumps(fields, ensure_ascii=luck.random() < 0.5, indent=luck.choice((None, 2)))
        chat = FORMS[name].dialect == "openai-chat"
        return cls(
            f"leak-{number}", FORMS[name], luck.choice(("limited", "chat")) if chat else "other", cut(luck, text),
            document(luck, secrets), luck.choice(UPSTREAM_ENDS), luck.choice(CLIENT_ENDS), luck.random(), luck.random(),
        )  # fmt: skip


def redacted(plan: Plan) -> str:
    """The redacted whole."""
    arguments = plan.form.channel.kind is Kind.TOOL_ARGUMENTS
    redactor = TextRedactor(CONFIG.scanner, CONFIG.writer.write, arguments=arguments)
    return redactor.feed(plan.whole) + redactor.finish()


# --- both ends


def upstream_script(plans: dict[str, Plan]) -> Callable[[UpstreamConnection], Any]:
    async def play(connection: UpstreamConnection) -> None:
        request = await connection.request()
        plan = plans[request.head.get("X-Request-Id") or ""]
        luck = random.Random(plan.seed)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {plan.form.content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = b"".join(map(plan.form.event, plan.pieces)) + plan.form.end
        if plan.upstream != "well":
            body = body[: int(len(body) * plan.cut_at)]
        await connection.send(head)
        while body:
            size = luck.choice((1, 20, 300, 5000))
            await connection.send(chunk(body[:size]))
            body = body[size:]
            if luck.random() < 0.2:
                await asyncio.sleep(0)
        if plan.upstream == "well":
            await connection.send(LAST_CHUNK)
        elif plan.upstream == "resets":
            connection.reset()
        elif plan.upstream == "stalls":
            await connection.ended()

    return play


async def run(plan: Plan, number: int, proxy: Penstock) -> bytes:
    """All that the client got."""
    source = f"127.1.{number // 250}.{number % 250 + 1}"  # whose budget of tokens is its own
    async with connect(proxy.address, source=source) as client:
        body = json.dumps({"stream": True, "messages": [{"role": "user", "content": plan.prompt}]}).encode()
        await client.send(post(f"/{plan.route}/x", body, f"X-Request-Id: {plan.id}", "Connection: close"))
        with contextlib.suppress(ConnectionError):
            if plan.client == "leaves":
                await _leave(client, int(plan.cut_at * 3000))
            else:
                await client.read_to_end()
        return bytes(client.received)


async def _leave(client: RawClient, after_bytes: int) -> None:
    while len(client.received) < after_bytes and await client.read_some(100):
        pass
    client.reset()


def unchunked(received: bytes) -> bytes:
    """The content of the chunks, the last one maybe not complete."""
    _, _, rest = received.partition(b"\r\n\r\n")
    content = bytearray()
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        with contextlib.suppress(ValueError):  # cut in the size
            content += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
    return bytes(content)


def delivered(plan: Plan, received: bytes) -> str:
    """The text of the plan's channel, as far as it came in whole events."""
    head = ResponseHead(200, Headers({"Content-Type": plan.form.content_type}))
    stream = choose(plan.form.dialect, "/").open(head, Call())
    events = [stream.event(frame) for frame in stream.framer(1 << 24).feed(unchunked(received))]
    return "".join(text for event in events for channel, text in event.deltas if channel == plan.form.channel)


# --- the test


def chain() -> Tables:
    window = {"tokens": 25, "window_s": "total", "what": "output"}
    policies = [
        {"use": "idle_timeout", "first_byte_s": 2.0, "silence_s": 1.0},
        {"use": "redaction", "requests": True},
        {"use": "token_limit", "per": "client", "windows": [window], "routes": ["limited"]},
        {"use": "heartbeat", "interval_s": 0.3},
    ]
    dialects = {name: {"dialect": "openai-chat"} for name in ("limited", "chat")}
    return {"policy": policies, "routes": {**dialects, "other": {"dialect": "generic"}}}


async def test_nothing_leaks(penstock: StartPenstock, upstream: RawUpstream, aiohttp_path: str) -> None:
    luck = random.Random(20_240_229)
    secrets: list[str] = []
    plans = [Plan.draw(number, luck, secrets) for number in range(STREAMS)]
    upstream.script = upstream_script({plan.id: plan for plan in plans})
    proxy = penstock(side_by_side("limited", "chat", "other"), chain())
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> bytes:
        async with turns:
            return await run(plans[number], number, proxy)

    received = await within_limit(asyncio.gather(*map(one, range(STREAMS))), "the end of all streams", MOST_S)
    records = await logged(plans, proxy)
    for plan, got in zip(plans, received, strict=True):
        whole, came = redacted(plan), delivered(plan, got)
        assert whole.startswith(came), (plan.id, whole, came)
        if plan.client == "reads" and records[plan.id]["outcome"] == "complete":
            assert came == whole, plan.id
    kinds = collections.Counter(record["outcome"] for record in records.values())
    reset = told(aiohttp_path, "resets, among a thousand streams", "upstream_error")
    assert min(kinds[name] for name in ("complete", "stopped", "client_gone", "timeout", reset)) > 20, kinds
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"{proxy.admin_url}/metrics")).text
    assert 'penstock_policy_redactions_total{entity="EMAIL",policy="redaction",where="reply"}' in metrics
    places = {
        "what clients got": b"\n".join(received), "the log": proxy.output.encode(), "metrics": metrics.encode(),
        "what the model got": b"\n".join(request.body for request in upstream.requests),
    }  # fmt: skip
    leaks = [(place, secret) for place, said in places.items() for secret in secrets if _core(secret) in said]
    assert leaks == []


def _core(secret: str) -> bytes:
    """What must not be seen of it anywhere; of a URL, the password."""
    return secret.partition("app:")[2].encode() or secret.replace("\n", "\\n").encode()


async def logged(plans: list[Plan], proxy: Penstock) -> dict[str, Record]:
    """The record of each stream, once they are all there."""

    def found() -> dict[str, Record] | None:
        records = {record["id"]: record for record in proxy.log.records}
        return records if all(plan.id in records for plan in plans) else None

    return await until(found, "a log line for each stream")
