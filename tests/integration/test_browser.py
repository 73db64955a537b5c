"""A page in headless Chromium, of another origin than the proxy: `EventSource` and `fetch`, event by event, compressed, with
errors that it can read, and until it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from rigs import raw_upstream
from rigs.node import CHROMIUM, Driver, driver
from rigs.penstock import Penstock, StartPenstock, Tables, side_by_side
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply
from rigs.wires import BY_NAME, WORDS, Stream

CODINGS = ("gzip", "br", "zstd")
CHAT, MESSAGES = BY_NAME["OpenAI chat completions"], BY_NAME["Anthropic Messages"]
UNKNOWN, LINES = BY_NAME["unknown, events with text"], BY_NAME["unknown, lines of JSON"]
ARRAY = BY_NAME["Gemini, array"]


@pytest.fixture(scope="module")
def page() -> Iterator[tuple[Driver, str]]:
    """The page, and its origin."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with driver("browser.mjs", "playwright-core", arguments=(CHROMIUM,)) as running:
        yield running, running.read()["origin"]


@pytest.fixture(scope="module")
def browser(page: tuple[Driver, str]) -> Driver:
    return page[0]


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock, page: tuple[Driver, str]) -> Penstock:
    """A route for each content coding; none for what `identity` asks for."""
    policies: list[Tables] = [
        {"use": "cors", "allow_origins": [page[1]], "expose_headers": ["X-Request-Id", "Retry-After"]},
        {"use": "rig_refuse", "routes": ["refused"]},
        {"use": "idle_timeout", "silence_s": 0.5, "routes": ["silent"]},
        {"use": "heartbeat", "interval_s": 0.1},
        *({"use": "compression", "name": coding, "codings": [coding], "routes": [coding]} for coding in CODINGS),
    ]
    return penstock(side_by_side("identity", "refused", "silent", *CODINGS), {"policy": policies})


@pytest.fixture(scope="module")
def closed(penstock: StartPenstock) -> Penstock:
    """For pages of another origin only."""
    return penstock({"policy": [{"use": "cors", "allow_origins": ["https://other.example.test"]}]})


class InPieces:
    """An upstream that says the first text of a stream, and the others once somebody has asked for /next."""

    def __init__(self, upstream: RawUpstream, stream: Stream, head: bytes = STREAM_HEAD) -> None:
        self._stream = stream
        self._head = head
        self._next = asyncio.Event()
        upstream.script = self._script

    async def _script(self, connection: UpstreamConnection) -> None:
        while True:
            request = await connection.request()
            if request.target.endswith("/next"):
                self._next.set()
                await connection.send(reply())
                continue
            first, *others = self._stream.deltas
            await connection.send(self._head + chunk(self._stream.opening + first))
            await self._next.wait()
            for delta in others:
                await connection.send_chunk(delta)
            await connection.send((chunk(self._stream.closing) if self._stream.closing else b"") + LAST_CHUNK)


async def coding_of(proxy: Penstock, route: str) -> Any:
    """What the access log says that replies on this route were coded in."""
    record = await proxy.log.find(lambda record: route in record["facts"], route=route)
    return record["facts"][route]["coding"]


@pytest.mark.parametrize("route", ["identity", *CODINGS])
async def test_event_source(browser: Driver, proxy: Penstock, upstream: RawUpstream, route: str) -> None:
    """Each event comes when it is sent: the second one is not, until the page has had the first."""
    InPieces(upstream, UNKNOWN.stream(WORDS, False))
    base = f"{proxy.url}/{route}"
    said = await browser.ask(by="source", url=f"{base}/speak", next=f"{base}/next", events=4)
    assert said["events"] == [["message", word] for word in (*WORDS, "[DONE]")]
    if route != "identity":
        assert await coding_of(proxy, route) == route


async def test_named_events(browser: Driver, proxy: Penstock, upstream: RawUpstream) -> None:
    """And a heartbeat that is an event is one to the page."""
    InPieces(upstream, MESSAGES.stream(WORDS, False))
    base = f"{proxy.url}/identity"
    said = await browser.ask(by="source", url=f"{base}/v1/messages", next=None, events=3)
    assert [name for name, _ in said["events"]] == ["message_start", "content_block_delta", "ping"]


@pytest.mark.parametrize("route", ["identity", *CODINGS])
@pytest.mark.parametrize(
    ("wire", "path"),
    [
        (CHAT, "/v1/chat/completions"),
        (LINES, "/speak"),
        (ARRAY, "/v1beta/models/tiny:streamGenerateContent"),
    ],
    ids=["events", "lines", "array"],
)
async def test_fetch(browser: Driver, proxy: Penstock, upstream: RawUpstream, route: str, wire: Any, path: str) -> None:
    """After a preflight, since it says that it sends JSON and has a key."""
    stream = wire.stream(WORDS, False)
    head = STREAM_HEAD.replace(b"text/event-stream", wire.media_type.encode())
    InPieces(upstream, stream, head)
    base = f"{proxy.url}/{route}"
    said = await browser.ask(
        by="fetch",
        url=base + path,
        next=f"{base}/next",
        asked=wire.ask(True, False).document,
        headers={"Content-Type": "application/json", "Authorization": "Bearer sk-page"},
    )
    assert (said["error"], said["status"]) == (None, 200)
    beat = wire.heartbeat.decode()
    assert wire.said(said["body"].replace(beat, "").encode() if beat.strip() else said["body"].encode()) == (
        wire.said(stream.body)
    )
    assert said["reads"] > 1
    assert said["headers"]["x-request-id"]
    if route != "identity":
        assert await coding_of(proxy, route) == route


async def test_a_refusal_can_be_read(browser: Driver, proxy: Penstock) -> None:
    said = await browser.ask(by="fetch", url=f"{proxy.url}/refused/v1/chat/completions", asked={})
    assert (said["status"], said["headers"]["retry-after"]) == (429, "7")
    assert "rig_refused" in said["body"]


async def test_a_page_of_another_origin_reads_nothing(browser: Driver, closed: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(CHAT.stream(WORDS, False).body)
    fetched = await browser.ask(by="fetch", url=f"{closed.url}/v1/chat/completions")
    assert (fetched["error"], fetched["body"]) == ("TypeError", "")
    sourced = await browser.ask(by="source", url=f"{closed.url}/v1/chat/completions", events=1)
    assert (sourced["failed"], sourced["events"]) == (True, [])


async def test_a_stream_that_breaks_off_tells_an_event_source(
    browser: Driver, proxy: Penstock, upstream: RawUpstream
) -> None:
    stream = UNKNOWN.stream(WORDS, False)
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD + chunk(stream.deltas[0]))
    said = await browser.ask(by="source", url=f"{proxy.url}/silent/speak", events=9)
    (_, first), (name, last) = said["events"]
    assert (first, name) == (WORDS[0], "error")
    assert "upstream_silence" in last


@pytest.mark.parametrize("by", ["fetch", "source"])
async def test_leaving(browser: Driver, proxy: Penstock, upstream: RawUpstream, by: str) -> None:
    """The model server is told at once."""
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD + chunk(UNKNOWN.stream(WORDS, False).deltas[0]))
    said = await browser.ask(by=by, url=f"{proxy.url}/identity/speak", leave=True)
    assert said.get("error") == ("AbortError" if by == "fetch" else None)
    await upstream.idle()
