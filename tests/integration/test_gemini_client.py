"""The official `google-genai` client, unchanged, against a mock of Gemini's API and scripted upstreams through the proxy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from rigs import raw_upstream, sdk
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, post
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply

MODEL = "gemini-2.5-flash"
ARRAY = Path(__file__).parents[1] / "fixtures/written/gemini_stream_array.json"
ARRAY_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_PATH = f"/v1beta/models/{MODEL}:streamGenerateContent"
WEATHER = types.Tool(function_declarations=[types.FunctionDeclaration(name="get_weather", description="say")])

Client = Callable[..., genai.Client]


def event(text: str, **more: Any) -> bytes:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}
    return b"data: " + json.dumps({"candidates": [candidate]}).encode() + b"\r\n\r\n"


EVENTS = (event("one"), event(" two"), event(" three"), event("", finishReason="STOP"))


def client_of(proxy: Penstock, route: str = "") -> genai.Client:
    return genai.Client(
        api_key="none", http_options=types.HttpOptions(base_url=f"{proxy.url}/{route}", api_version="v1beta")
    )


async def stream(
    client: genai.Client, say: str = "text", **config: Any
) -> AsyncIterator[types.GenerateContentResponse]:
    return await client.aio.models.generate_content_stream(
        model=MODEL, contents=say, config=types.GenerateContentConfig(**config)
    )


async def texts(parts: AsyncIterator[types.GenerateContentResponse]) -> list[str]:
    return [part.text or "" async for part in parts]


def finish(part: types.GenerateContentResponse) -> types.FinishReason | None:
    assert part.candidates
    return part.candidates[0].finish_reason


# --- in front of the mock


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock, aimock: str) -> Penstock:
    return sdk.before_mock(penstock, aimock)


@pytest.mark.parametrize("route", ["watched", "compressed"])
async def test_stream(proxy: Penstock, route: str) -> None:
    parts = [part async for part in await stream(client_of(proxy, route))]
    assert "".join(part.text or "" for part in parts) == sdk.MOCK_SAYS
    assert len(parts) == 7
    assert finish(parts[-1]) == "STOP"
    record = await proxy.log.find(route=route, outcome="complete")
    assert record["facts"]["rig_watch"]["characters"] == len(sdk.MOCK_SAYS)
    assert ("compression" in record["facts"]) is (route == "compressed")


async def test_whole_answer(proxy: Penstock) -> None:
    answer = await client_of(proxy, "watched").aio.models.generate_content(model=MODEL, contents="text")
    assert answer.text == sdk.MOCK_SAYS


def test_synchronous_client(proxy: Penstock) -> None:
    with client_of(proxy, "watched") as client:
        parts = client.models.generate_content_stream(model=MODEL, contents="text")
        assert "".join(part.text or "" for part in parts) == sdk.MOCK_SAYS


async def test_thoughts(proxy: Penstock) -> None:
    said = {True: "", False: ""}
    async for part in await stream(client_of(proxy, "watched"), "think"):
        for piece in part.parts or []:
            said[bool(piece.thought)] += piece.text or ""
    assert said == {True: "Two and two.", False: "It is four."}


async def test_tools(proxy: Penstock) -> None:
    client = client_of(proxy, "watched")
    calls = [
        call async for part in await stream(client, "tools", tools=[WEATHER]) for call in part.function_calls or []
    ]
    config = types.GenerateContentConfig(tools=[WEATHER])
    whole = await client.aio.models.generate_content(model=MODEL, contents="tools", config=config)
    for found in (calls, whole.function_calls or []):
        assert [call.name for call in found] == ["get_weather", "get_time"]
        assert found[0].args == {"city": "Zürich", "days": [{"unit": "celsius"}], "count": 1}


async def test_errors_of_the_model_server(proxy: Penstock) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await texts(await stream(client_of(proxy, "watched"), "fail"))
    assert (caught.value.code, caught.value.message) == (400, "no such thing")


async def test_a_budget_that_ends_looks_like_the_length_limit(proxy: Penstock) -> None:
    client = client_of(proxy, "limited")
    parts = [part async for part in await stream(client)]
    assert sdk.MOCK_SAYS.startswith("".join(part.text or "" for part in parts))
    assert [finish(part) for part in parts] == [None, None, None, "MAX_TOKENS"]
    assert parts[-1].usage_metadata is not None
    assert parts[-1].usage_metadata.candidates_token_count == 3
    with pytest.raises(errors.ClientError) as caught:
        await texts(await stream(client))
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    assert caught.value.details["error"]["details"][0]["reason"] == "token_limit"


# --- in front of scripted upstreams


@pytest.fixture(scope="module")
def guarded(penstock: StartPenstock) -> Penstock:
    return sdk.guarded(penstock)


@pytest.mark.parametrize(
    ("script", "delivered", "code", "reason"),
    [
        (raw_upstream.then_closes(STREAM_HEAD + chunk(EVENTS[0])), ["one"], 502, "upstream_truncated"),
        (raw_upstream.then_closes(STREAM_HEAD + chunk(EVENTS[0] + EVENTS[1][:9])), ["one"], 502, "upstream_truncated"),
        (raw_upstream.then_stalls(STREAM_HEAD + chunk(EVENTS[0])), ["one"], 504, "upstream_silence"),
        (raw_upstream.then_stalls(b""), [], 504, "first_byte_timeout"),
        (raw_upstream.then_closes(b"what?\r\n\r\n"), [], 502, "upstream_garbage"),
    ],
    ids=["truncation", "within an event", "silence", "nothing", "garbage"],
)
@pytest.mark.parametrize("route", ["plain", "patient"])
async def test_a_stream_that_breaks_off_raises(
    guarded: Penstock, upstream: RawUpstream, route: str, script: Any, delivered: list[str], code: int, reason: str
) -> None:
    upstream.script = script
    got = []

    async def read() -> None:
        async for part in await stream(client_of(guarded, route)):
            got.append(part.text)

    with pytest.raises(errors.ServerError) as caught:
        await read()
    assert got == delivered
    assert caught.value.code == code
    assert caught.value.details["error"]["details"][0]["reason"] == reason


async def test_errors_of_the_proxy(guarded: Penstock) -> None:
    with pytest.raises(errors.ClientError) as caught:
        await client_of(guarded, "plain").aio.models.generate_content(model=MODEL, contents="x" * 2 * sdk.BODY_BYTES)
    assert (caught.value.code, caught.value.status) == (413, "INVALID_ARGUMENT")
    with pytest.raises(errors.ClientError) as caught:
        await client_of(guarded, "nowhere").aio.models.generate_content(model=MODEL, contents="x")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


async def test_heartbeats_disturb_nobody(guarded: Penstock, upstream: RawUpstream) -> None:
    async with sdk.calm(guarded, upstream) as silence:

        async def script(connection: UpstreamConnection) -> None:
            await connection.request()
            await silence()
            await connection.send(STREAM_HEAD)
            for said in EVENTS:
                await connection.send_chunk(said)
                await silence()
            await connection.send(LAST_CHUNK)

        upstream.script = script
        assert await texts(await stream(client_of(guarded, "patient"))) == ["one", " two", " three", ""]
    record = await guarded.log.find(outcome="complete", route="patient")
    assert record["facts"]["heartbeat"]["sent"] >= 3


async def test_leaving_early_frees_the_model(guarded: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD + chunk(EVENTS[0]))
    parts = await stream(client_of(guarded, "plain"))
    await anext(aiter(parts))
    await parts.aclose()  # type: ignore[attr-defined]
    await upstream.idle()  # the proxy has closed the connection
    await guarded.log.find(outcome="client_gone")


# --- the stream as one array


async def ask_for_array(proxy: Penstock, route: str) -> bytes:
    async with connect(proxy.address) as client:
        await client.send(post(f"/{route}{STREAM_PATH}", b"{}"))
        message = await client.read_body(await client.read_head(), to_close=False)
    return message.body


def array(*reads: bytes) -> bytes:
    return ARRAY_HEAD + b"".join(map(chunk, reads))


async def test_an_array_passes_byte_for_byte(guarded: Penstock, upstream: RawUpstream) -> None:
    body = ARRAY.read_bytes()
    upstream.script = raw_upstream.drips(array(body) + LAST_CHUNK)
    assert await ask_for_array(guarded, "plain") == body
    record = await guarded.log.find(outcome="complete", events=6)
    assert record["facts"]["rig_watch"]["characters"] > 50


@pytest.mark.parametrize("end", ["truncation", "silence", "a clean end too early"])
async def test_an_array_that_breaks_off_ends_with_an_error(guarded: Penstock, upstream: RawUpstream, end: str) -> None:
    begun = array(ARRAY.read_bytes()[:1200])
    scripts = {
        "truncation": raw_upstream.then_closes(begun),
        "silence": raw_upstream.then_stalls(begun),
        "a clean end too early": raw_upstream.replies(begun + LAST_CHUNK),
    }
    upstream.script = scripts[end]
    *responses, last = json.loads(await ask_for_array(guarded, "plain"))
    assert len(responses) == 2
    reasons = {
        "truncation": "upstream_truncated",
        "silence": "upstream_silence",
        "a clean end too early": "upstream_truncated",
    }
    assert last["error"]["details"][0]["reason"] == reasons[end]


async def test_heartbeats_leave_an_array(guarded: Penstock, upstream: RawUpstream) -> None:
    body = ARRAY.read_bytes()
    async with sdk.calm(guarded, upstream) as silence:

        async def script(connection: UpstreamConnection) -> None:
            await connection.request()
            await silence()  # nobody opens the reply as events meanwhile
            await connection.send(ARRAY_HEAD)
            for place in range(0, len(body), 600):
                await connection.send_chunk(body[place : place + 600])
                await silence()
            await connection.send(LAST_CHUNK)

        upstream.script = script
        got = await ask_for_array(guarded, "patient")
    assert json.loads(got) == json.loads(body)
    assert len(got) > len(body)


async def test_an_error_instead_of_an_array(guarded: Penstock, upstream: RawUpstream) -> None:
    body = b'[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]'
    upstream.script = raw_upstream.replies(reply(body, "Content-Type: application/json", status="400 Bad Request"))
    assert await ask_for_array(guarded, "plain") == body
