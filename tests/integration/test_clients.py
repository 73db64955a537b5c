"""What holds for every SDK for Python alike: what it is told where something is refused or breaks off, and that the model
server is told when it leaves. What each does besides is in a file of its own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient
from rigs import clients as sdks
from rigs import raw_upstream
from rigs.aiohttp_paths import told
from rigs.clients import CLIENTS, Client, Clients
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_upstream import LAST_CHUNK, RawUpstream, Script, chunk, reply
from rigs.sdk import STREAM_OR_WHOLE
from rigs.wires import BY_NAME, JSON, STATED_OUTPUT, WORDS

from proxy.errors import Problem

EVERY_CLIENT = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
REFUSALS = {401: "unauthorized", 403: "rig_refused", 413: "rig_refused", 429: "rig_refused", 503: "rig_refused"}


def budget_of(client: str) -> str:
    return "cut-" + client.replace(", ", "-")


BUDGETS = [*map(budget_of, CLIENTS), "cut-tgi"]
KEY = {"id": "alice", "sha256": hashlib.sha256(b"sk-another").hexdigest()}


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    """A route for each refusal, one with a budget for each client and one more, one without either."""
    names = [*map(str, REFUSALS), *BUDGETS, "free", "timed", "redacted"]
    routes: dict[str, Any] = {}
    for name in names:
        routes[name] = {"path": f"/{name}", "rewrite": "/", "upstream": "model"}
        routes[f"{name}-tgi"] = {"path": f"/{name}/tgi", "rewrite": "/", "upstream": "model", "dialect": "tgi"}
    windows = [{"tokens": 2, "window_s": "total", "what": "output"}]
    policies: list[dict[str, Any]] = [
        {"use": "auth", "keys": [KEY], "routes": on("401")},
        *({"use": "rig_refuse", "name": f"{s}", "status": s, "routes": on(f"{s}")} for s in REFUSALS if s != 401),
        {"use": "idle_timeout", "first_byte_s": 0.5, "silence_s": 0.5, "routes": on("timed")},
        {"use": "redaction", "routes": on("redacted")},
        {"use": "rig_watch", "routes": [*on("free"), *on("timed")]},
        *(
            {"use": "token_limit", "name": name, "per": "all", "windows": windows, "routes": on(name)}
            for name in BUDGETS
        ),
        {"use": "heartbeat", "interval_s": 0.1, "routes": on("free")},
        {"use": "compression"},
    ]
    return penstock({"routes": routes}, {"policy": policies})


def on(name: str) -> list[str]:
    return [name, f"{name}-tgi"]


@pytest.fixture
async def free(proxy: Penstock) -> AsyncIterator[Clients]:
    async with sdks.connected(f"{proxy.url}/free") as clients:
        yield clients


def head_of(client: Client) -> bytes:
    fields = f"Content-Type: {BY_NAME[client.wire].media_type}\r\nTransfer-Encoding: chunked"
    return f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode()


def begun(client: Client) -> bytes:
    """The head and the first text of a stream."""
    said = BY_NAME[client.wire].stream(WORDS, True)
    return head_of(client) + chunk(said.opening + said.deltas[0])


def says(client: Client, *, stream: bool) -> Script:
    wire = BY_NAME[client.wire]
    if not stream:
        return raw_upstream.replies(reply(wire.whole(WORDS), f"Content-Type: {JSON}"))
    said = wire.stream(WORDS, True)
    events = [said.opening, *said.deltas, said.closing]
    return raw_upstream.replies(head_of(client) + b"".join(chunk(event) for event in events if event) + LAST_CHUNK)


async def read(clients: Clients, client: Client, *, stream: bool, got: list[str] | None = None) -> list[str]:
    """What it says; also in `got`, as far as it came."""
    got = [] if got is None else got
    async for text in client.texts(clients, stream):
        got.append(text)
    return got


@EVERY_CLIENT
@STREAM_OR_WHOLE
async def test_what_was_said(free: Clients, upstream: RawUpstream, client: Client, stream: bool) -> None:
    upstream.script = says(client, stream=stream)
    assert await read(free, client, stream=stream) == (list(WORDS) if stream else ["".join(WORDS)])


@EVERY_CLIENT
@STREAM_OR_WHOLE
@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal(proxy: Penstock, client: Client, stream: bool, status: int) -> None:
    """Raises the class that this API's own refusals have, and says why."""
    async with sdks.connected(f"{proxy.url}/{status}") as clients:
        with pytest.raises(client.raises[status]) as caught:
            await read(clients, client, stream=stream)
    assert sdks.status_of(caught.value) == status
    assert REFUSALS[status] in sdks.said_by(caught.value)


@EVERY_CLIENT
@pytest.mark.parametrize("end", [raw_upstream.then_closes, raw_upstream.then_resets], ids=["truncation", "reset"])
async def test_a_stream_that_breaks_off(
    free: Clients, upstream: RawUpstream, aiohttp_path: str, client: Client, end: Any
) -> None:
    upstream.script = end(begun(client))
    got: list[str] = []
    with pytest.raises(client.raises[None]) as caught:
        await read(free, client, stream=True, got=got)
    assert got == [WORDS[0]]
    reset = told(aiohttp_path, "resets, before a client of its own", "upstream_reset")
    assert ("upstream_truncated" if end is raw_upstream.then_closes else reset) in sdks.said_by(caught.value)


@EVERY_CLIENT
@STREAM_OR_WHOLE
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (raw_upstream.then_closes(b""), 502, "upstream_reset"),
        (raw_upstream.then_closes(b"what?\r\n\r\n"), 502, "upstream_garbage"),
        (raw_upstream.then_stalls(b""), 504, "first_byte_timeout"),
    ],
    ids=["reset", "garbage", "timeout"],
)
async def test_a_model_server_that_does_not_answer(
    proxy: Penstock, upstream: RawUpstream, client: Client, stream: bool, script: Script, status: int, code: str
) -> None:
    upstream.script = script
    async with sdks.connected(f"{proxy.url}/timed") as clients:
        with pytest.raises(client.raises[status]) as caught:
            await read(clients, client, stream=stream)
    assert sdks.status_of(caught.value) == status
    assert code in sdks.said_by(caught.value)
    assert Problem.of(code).message in sdks.said_by(caught.value)


@EVERY_CLIENT
async def test_a_stream_that_falls_silent(proxy: Penstock, upstream: RawUpstream, client: Client) -> None:
    upstream.script = raw_upstream.then_stalls(begun(client))
    got: list[str] = []
    async with sdks.connected(f"{proxy.url}/timed") as clients:
        with pytest.raises(client.raises[None]) as caught:
            await read(clients, client, stream=True, got=got)
    assert got == [WORDS[0]]
    assert Problem.of("upstream_silence").message in sdks.said_by(caught.value)


@EVERY_CLIENT
@pytest.mark.parametrize("route", ["free", "redacted"])
async def test_an_error_that_the_model_server_says_in_a_stream(
    proxy: Penstock, upstream: RawUpstream, client: Client, route: str
) -> None:
    """Is the client's, whoever has read the stream on its way."""
    wire = BY_NAME[client.wire]
    assert wire.error_event is not None
    said = wire.error_event(wire.error(500, "no_idea", "No more ideas."), 2)
    upstream.script = raw_upstream.replies(begun(client) + chunk(wire.spelt(said)) + LAST_CHUNK)
    got: list[str] = []
    async with sdks.connected(f"{proxy.url}/{route}") as clients:
        with pytest.raises(client.raises[None]) as caught:
            await read(clients, client, stream=True, got=got)
    assert "No more ideas." in sdks.said_by(caught.value)
    assert "".join(got) in WORDS[0]


@EVERY_CLIENT
async def test_an_answer_that_breaks_off(free: Clients, upstream: RawUpstream, client: Client) -> None:
    """Half of it is not taken for the whole, though its connection has ended in good order."""
    body = BY_NAME[client.wire].whole(WORDS)
    upstream.script = raw_upstream.then_closes(reply(body[:-9], f"Content-Type: {JSON}", length=False))
    with pytest.raises(client.raises[502]) as caught:
        await read(free, client, stream=False)
    assert sdks.status_of(caught.value) == 502
    assert "upstream_truncated" in sdks.said_by(caught.value)


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_cut(proxy: Penstock, upstream: RawUpstream, name: str) -> None:
    """Is an end like any other: the texts that the budget was for, and no error."""
    client = CLIENTS[name]
    upstream.script = says(client, stream=True)
    async with sdks.connected(f"{proxy.url}/{budget_of(name)}") as clients:
        assert await read(clients, client, stream=True) == list(WORDS[:2])
        with pytest.raises(client.raises[429]):
            await read(clients, client, stream=True)


@EVERY_CLIENT
async def test_leaving(free: Clients, upstream: RawUpstream, client: Client) -> None:
    upstream.script = raw_upstream.then_stalls(begun(client))
    texts = client.texts(free, True)
    assert await anext(texts) == WORDS[0]
    await texts.aclose()
    await upstream.idle()  # the proxy has closed the connection


async def tokens(client: AsyncInferenceClient) -> list[Any]:
    return [token async for token in await client.text_generation("hello", details=True, stream=True)]


async def test_tgi_says_how_it_ended(free: Clients, proxy: Penstock, upstream: RawUpstream) -> None:
    """The model server, or of a stream that is cut the proxy."""
    upstream.script = says(CLIENTS["huggingface_hub"], stream=True)
    last = (await tokens(free.hugging_face))[-1]
    assert (last.generated_text, last.details.finish_reason) == ("".join(WORDS), "eos_token")
    assert last.details.generated_tokens == STATED_OUTPUT
    async with sdks.connected(f"{proxy.url}/cut-tgi") as clients:
        last = (await tokens(clients.hugging_face))[-1]
    assert (last.generated_text, last.details.finish_reason) == ("".join(WORDS[:2]), "length")
    assert last.details.generated_tokens == 2


async def test_tgi_is_known_by_its_first_event(proxy: Penstock, upstream: RawUpstream) -> None:
    """On a route that does not say whose it is, to a path that does not either."""
    tgi = CLIENTS["huggingface_hub"]
    client = AsyncInferenceClient(f"{proxy.url}/free", token="none")
    upstream.script = raw_upstream.then_closes(begun(tgi))
    with pytest.raises(tgi.raises[None], match="upstream_truncated"):
        await tokens(client)
    upstream.script = says(tgi, stream=True)
    assert [token.token.text for token in await tokens(client)] == [*WORDS, ""]
