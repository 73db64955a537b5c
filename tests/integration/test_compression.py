"""`compression` with real clients: one continuous coded stream that every one of them can read event by event."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import shutil
import zlib
from collections.abc import AsyncIterator, Callable

import aiohttp
import brotli  # type: ignore[import-untyped]  # has no stubs
import httpx
import pytest
import zstandard
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get, post
from rigs.raw_upstream import CHAT_EVENTS, LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply
from rigs.waiting import within_limit

CODINGS = ("gzip", "br", "zstd")
DECODE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock({"policy": [{"use": "compression"}]})


class StepByStep:
    """An upstream that sends the next event only when the client has seen the one before."""

    def __init__(self, upstream: RawUpstream) -> None:
        self._seen = asyncio.Semaphore(1)
        upstream.script = self._script

    def seen(self) -> None:
        self._seen.release()

    async def _script(self, connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD)
        for event in CHAT_EVENTS:
            await self._seen.acquire()
            await connection.send_chunk(event)
        await connection.send(LAST_CHUNK)
        await connection.ended()

    async def read(self, pieces: AsyncIterator[bytes]) -> bytes:
        """All of `pieces`, each event of which has to come before the next is sent."""
        received = b""
        events = 0
        while piece := await within_limit(anext(pieces, b""), "the next event"):
            received += piece
            while received.count(b"\n\n") > events:
                events += 1
                self.seen()
        return received


# --- clients, event by event


@pytest.mark.parametrize("coding", CODINGS)
async def test_httpx_reads_event_by_event(proxy: Penstock, upstream: RawUpstream, coding: str) -> None:
    steps = StepByStep(upstream)
    async with (
        httpx.AsyncClient(base_url=proxy.url, headers={"Accept-Encoding": coding}) as client,
        client.stream("POST", "/v1/chat/completions", content=b'{"stream":true}') as answer,
    ):
        assert answer.headers["Content-Encoding"] == coding
        assert await steps.read(answer.aiter_bytes()) == b"".join(CHAT_EVENTS)


@pytest.mark.parametrize("coding", CODINGS)
async def test_aiohttp_reads_event_by_event(proxy: Penstock, upstream: RawUpstream, coding: str) -> None:
    steps = StepByStep(upstream)
    async with (
        aiohttp.ClientSession(proxy.url, headers={"Accept-Encoding": coding}) as client,
        client.post("/v1/chat/completions", data=b'{"stream":true}') as answer,
    ):
        assert answer.headers["Content-Encoding"] == coding
        assert await steps.read(answer.content.iter_any()) == b"".join(CHAT_EVENTS)


async def test_curl_reads_event_by_event(proxy: Penstock, upstream: RawUpstream) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is needed here; .ci/run installs it"
    steps = StepByStep(upstream)
    url = f"{proxy.url}/v1/chat/completions"
    process = await asyncio.create_subprocess_exec(
        curl,
        "--silent",
        "--no-buffer",
        "--compressed",
        "--data",
        '{"stream":true}',
        url,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    stdout = process.stdout

    async def pieces() -> AsyncIterator[bytes]:
        while piece := await stdout.read(65536):
            yield piece

    assert await steps.read(pieces()) == b"".join(CHAT_EVENTS)
    assert await process.wait() == 0
    assert (await upstream.request()).head.get("Accept-Encoding") is not None


# --- what is coded, and how


@pytest.mark.parametrize("coding", CODINGS)
async def test_whole_reply(proxy: Penstock, upstream: RawUpstream, coding: str) -> None:
    body = b'{"choices": [%b]}' % b", ".join([b"1"] * 2000)
    upstream.script = raw_upstream.replies(reply(body, JSON, 'ETag: "strong"', "Vary: Origin"))
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", f"Accept-Encoding: {coding}"))
    assert answer.head.get("Content-Encoding") == coding
    assert DECODE[coding](answer.body) == body
    assert len(answer.body) < len(body) / 4
    assert answer.head.get("Content-Length") in (None, str(len(answer.body)))
    assert answer.head.get("ETag") == 'W/"strong"'
    assert {name.strip().lower() for name in (answer.head.get("Vary") or "").split(",")} == {
        "origin",
        "accept-encoding",
    }


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip;q=0.1, br;q=0.9", "br"),
        ("zstd;q=0, gzip", "gzip"),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("gzip;q=0", None),
        ("deflate, compress", None),
        ("*;q=0", None),
        (None, None),
    ],
)
async def test_only_what_was_asked_for(
    proxy: Penstock, upstream: RawUpstream, accepted: str | None, coding: str | None
) -> None:
    upstream.script = raw_upstream.streams(*CHAT_EVENTS)
    fields = () if accepted is None else (f"Accept-Encoding: {accepted}",)
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b'{"stream":true}', *fields))
    assert answer.head.get("Content-Encoding") == coding
    assert (DECODE[coding](answer.body) if coding else answer.body) == b"".join(CHAT_EVENTS)


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"tiny", JSON),
        reply(b"\x89PNG" + b"x" * 5000, "Content-Type: image/png"),
        reply(gzip.compress(b"x" * 5000, mtime=0) + b"x" * 2000, JSON, "Content-Encoding: gzip"),
        reply(b"x" * 5000, JSON, "Cache-Control: no-transform"),
        reply(b"x" * 5000, JSON, "Content-Range: bytes 0-4999/10000", status="206 Partial Content"),
    ],
    ids=["small", "image", "coded already", "no-transform", "part"],
)
async def test_what_is_left_as_it_is(proxy: Penstock, upstream: RawUpstream, answer: bytes) -> None:
    upstream.script = raw_upstream.replies(answer)
    async with connect(proxy.address) as client:
        received = await client.exchange(get("/", "Accept-Encoding: gzip, br, zstd"))
    assert received.body == answer.partition(b"\r\n\r\n")[2]
    assert (received.head.get("Content-Encoding") or "") == ("gzip" if b"-Encoding: gzip" in answer else "")


async def test_head_request(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(reply(b"x" * 5000, JSON).removesuffix(b"x" * 5000))
    async with connect(proxy.address) as client:
        for _ in range(2):
            answer = await client.exchange(get("/", "Accept-Encoding: gzip", method="HEAD"), to_head=True)
            assert answer.status == 200


async def test_local_replies_are_readable(penstock: StartPenstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_closes(b"")
    proxy = penstock({"policy": [{"use": "compression", "min_bytes": 0}]})
    async with httpx.AsyncClient(base_url=proxy.url, headers={"Accept-Encoding": "gzip"}) as client:
        answer = await client.post("/v1/chat/completions", content=b"{}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_reset")


async def test_cut_stream_is_not_finished(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_resets(STREAM_HEAD + chunk(CHAT_EVENTS[0] + CHAT_EVENTS[1][:20]))
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b'{"stream":true}', "Accept-Encoding: gzip"))
        head = await client.read_head()
        coded = b""
        with contextlib.suppress(EOFError, ConnectionError):
            while data := await client.read_chunk():
                coded += data
    assert head.get("Content-Encoding") == "gzip"
    assert not client.received.endswith(LAST_CHUNK)
    decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert decoder.decompress(coded) == CHAT_EVENTS[0] + CHAT_EVENTS[1][:20]
    assert not decoder.eof


async def test_facts(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*CHAT_EVENTS)
    fields = ("Accept-Encoding: gzip", "X-Request-Id: coded")
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b'{"stream":true}', *fields))
    record = await proxy.log.find(id="coded")
    facts = record["facts"]["compression"]
    assert facts == {"coding": "gzip", "in_bytes": len(b"".join(CHAT_EVENTS)), "out_bytes": len(answer.body)}
    assert (record["upstream_bytes"], record["downstream_bytes"]) == (facts["in_bytes"], facts["out_bytes"])
