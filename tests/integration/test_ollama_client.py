"""The official `ollama` client, unchanged, against a mock of Ollama's API and scripted upstreams through the proxy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import ollama
import pytest
from rigs import raw_upstream, sdk
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_upstream import LAST_CHUNK, RawUpstream, UpstreamConnection, chunk

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]


def line(text: str, **more: Any) -> bytes:
    document = {
        "model": "tiny",
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text},
    }
    return json.dumps({**document, "done": False, **more}).encode() + b"\n"


LINES = (
    line("one"),
    line(" two"),
    line(" three"),
    line("", done=True, done_reason="stop", prompt_eval_count=3, eval_count=3),
)


def client_of(proxy: Penstock, route: str) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=f"{proxy.url}/{route}")


def messages(say: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": say}]


async def stream(client: ollama.AsyncClient, say: str = "text", **asked: Any) -> AsyncIterator[ollama.ChatResponse]:
    return await client.chat("tiny", messages(say), stream=True, **asked)


# --- in front of the mock


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock, aimock: str) -> Penstock:
    return sdk.before_mock(penstock, aimock)


@pytest.mark.parametrize("route", ["watched", "compressed"])
async def test_stream(proxy: Penstock, route: str) -> None:
    parts = [part async for part in await stream(client_of(proxy, route))]
    assert "".join(part.message.content or "" for part in parts) == sdk.MOCK_SAYS
    assert [part.done for part in parts] == [*[False] * 7, True]
    record = await proxy.log.find(route=route, outcome="complete")
    assert record["facts"]["rig_watch"]["characters"] == len(sdk.MOCK_SAYS)
    assert ("compression" in record["facts"]) is (route == "compressed")


async def test_whole_answer(proxy: Penstock) -> None:
    answer = await client_of(proxy, "watched").chat("tiny", messages("text"))
    assert answer.message.content == sdk.MOCK_SAYS


async def test_generate(proxy: Penstock) -> None:
    client = client_of(proxy, "watched")
    assert (await client.generate("tiny", "text")).response == sdk.MOCK_SAYS
    assert (
        "".join([part.response async for part in await client.generate("tiny", "text", stream=True)]) == sdk.MOCK_SAYS
    )


def test_synchronous_client(proxy: Penstock) -> None:
    parts = ollama.Client(host=f"{proxy.url}/watched").chat("tiny", messages("text"), stream=True)
    assert "".join(part.message.content or "" for part in parts) == sdk.MOCK_SAYS


async def test_tools(proxy: Penstock) -> None:
    client = client_of(proxy, "watched")
    calls = [
        call async for part in await stream(client, "tools", tools=TOOLS) for call in part.message.tool_calls or []
    ]
    whole = await client.chat("tiny", messages("tools"), tools=TOOLS)
    for found in (calls, whole.message.tool_calls or []):
        assert [call.function.name for call in found] == ["get_weather", "get_time"]
        assert found[0].function.arguments == {"city": "Zürich", "days": [{"unit": "celsius"}], "count": 1}


async def test_errors_of_the_model_server(proxy: Penstock) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        await client_of(proxy, "watched").chat("tiny", messages("fail"))
    assert caught.value.status_code == 400


async def test_a_budget_that_ends_looks_like_the_length_limit(proxy: Penstock) -> None:
    client = client_of(proxy, "limited")
    parts = [part async for part in await stream(client)]
    assert sdk.MOCK_SAYS.startswith("".join(part.message.content or "" for part in parts))
    assert [part.done_reason for part in parts] == [None, None, None, "length"]
    assert (parts[-1].done, parts[-1].eval_count) == (True, 3)
    with pytest.raises(ollama.ResponseError, match="token_limit") as caught:
        [part async for part in await stream(client)]
    assert caught.value.status_code == 429


async def test_a_generated_text_is_cut_alike(proxy: Penstock) -> None:
    client = client_of(proxy, "limited-too")
    parts = [part async for part in await client.generate("tiny", "text", stream=True)]
    assert [part.done_reason for part in parts] == [None, None, None, "length"]
    assert parts[-1].response == ""


# --- in front of scripted upstreams


@pytest.fixture(scope="module")
def guarded(penstock: StartPenstock) -> Penstock:
    return sdk.guarded(penstock)


@pytest.mark.parametrize(
    ("script", "delivered", "status", "reason"),
    [
        (raw_upstream.then_closes(HEAD + chunk(LINES[0])), ["one"], -1, "upstream_truncated"),
        (raw_upstream.then_closes(HEAD + chunk(LINES[0] + LINES[1][:9])), ["one"], -1, "upstream_truncated"),
        (raw_upstream.then_stalls(HEAD + chunk(LINES[0])), ["one"], -1, "upstream_silence"),
        (raw_upstream.then_stalls(b""), [], 504, "first_byte_timeout"),
        (raw_upstream.then_closes(b"what?\r\n\r\n"), [], 502, "upstream_garbage"),
    ],
    ids=["truncation", "within a line", "silence", "nothing", "garbage"],
)
@pytest.mark.parametrize("route", ["plain", "patient"])
async def test_a_stream_that_breaks_off_raises(
    guarded: Penstock, upstream: RawUpstream, route: str, script: Any, delivered: list[str], status: int, reason: str
) -> None:
    upstream.script = script
    got = []

    async def read() -> None:
        async for part in await stream(client_of(guarded, route)):
            got.append(part.message.content)

    with pytest.raises(ollama.ResponseError, match=reason) as caught:
        await read()
    assert got == delivered
    assert caught.value.status_code == status


async def test_errors_of_the_proxy(guarded: Penstock) -> None:
    for route, say, status, reason in (
        ("plain", "x" * 2 * sdk.BODY_BYTES, 413, "body_too_large"),
        ("nowhere", "x", 404, "no_route"),
    ):
        with pytest.raises(ollama.ResponseError, match=reason) as caught:
            await client_of(guarded, route).chat("tiny", messages(say))
        assert caught.value.status_code == status


async def test_no_heartbeat_comes_between_lines(guarded: Penstock, upstream: RawUpstream) -> None:
    """Nor does one open the reply: the client decodes every line."""
    async with sdk.calm(guarded, upstream) as silence:

        async def script(connection: UpstreamConnection) -> None:
            await connection.request()
            await silence()
            await connection.send(HEAD)
            for said in LINES:
                await connection.send_chunk(said)
                await silence()
            await connection.send(LAST_CHUNK)

        upstream.script = script
        parts = [part async for part in await stream(client_of(guarded, "patient"))]
    assert [part.message.content for part in parts] == ["one", " two", " three", ""]
    assert (parts[-1].done_reason, parts[-1].eval_count) == ("stop", 3)
    record = await guarded.log.find(outcome="complete", route="patient")
    assert "heartbeat" not in record["facts"]


async def test_leaving_early_frees_the_model(guarded: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_stalls(HEAD + chunk(LINES[0]))
    parts = await stream(client_of(guarded, "plain"))
    await anext(aiter(parts))
    await parts.aclose()  # type: ignore[attr-defined]
    await upstream.idle()  # the proxy has closed the connection
    await guarded.log.find(outcome="client_gone")
