"""The clients of npm, unchanged, through the proxy: `openai`, `@anthropic-ai/sdk` and Vercel's `ai`. Whole and streamed, tools,
several choices, errors, and what becomes of the model server's reply when they leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs import raw_upstream
from rigs.node import Driver, driver
from rigs.penstock import Penstock, StartPenstock, side_by_side
from rigs.raw_upstream import STREAM_HEAD, RawUpstream, chunk, reply
from rigs.wires import BY_NAME, STATED_INPUT, STATED_OUTPUT, WORDS, Stream

from proxy.errors import FAULTS

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHAT, RESPONSES = BY_NAME["OpenAI chat completions"], BY_NAME["OpenAI Responses"]
MESSAGES = BY_NAME["Anthropic Messages"]
WIRES = {"chat": CHAT, "responses": RESPONSES, "anthropic": MESSAGES}
TEXT = "".join(WORDS)
IS_JSON = "Content-Type: application/json"
CHAIN = [
    {"use": "idle_timeout", "first_byte_s": 30.0, "silence_s": 0.5},
    {"use": "token_limit", "per": "all", "windows": [{"tokens": 100_000, "window_s": "total"}]},
    {"use": "heartbeat", "interval_s": 0.1},
    {"use": "compression"},
]
WEATHER = [
    {"name": "get_weather", "input": {"city": "Zürich A"}},
    {"name": "get_time", "input": {"zone": "CET"}},
]

ASKED_CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
ASKED_RESPONSES: dict[str, Any] = {"model": "tiny", "input": "hello"}
ASKED_MESSAGES: dict[str, Any] = {**ASKED_CHAT, "max_tokens": 100}

REFUSALS = {"401": "AuthenticationError", "403": "PermissionDeniedError", "429": "RateLimitError"}
STREAMED_OR_NOT = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock({"policy": CHAIN})


@pytest.fixture(scope="module")
def refusing(penstock: StartPenstock) -> Penstock:
    """A route for each status."""
    policies = [{"use": "rig_refuse", "name": name, "status": int(name), "routes": [name]} for name in REFUSALS]
    return penstock(side_by_side(*REFUSALS), {"policy": policies})


@pytest.fixture(scope="module")
def openai() -> Iterator[Driver]:
    with driver("openai.mjs", "openai") as running:
        yield running


@pytest.fixture(scope="module")
def anthropic() -> Iterator[Driver]:
    with driver("anthropic.mjs", "@anthropic-ai/sdk") as running:
        yield running


@pytest.fixture(scope="module")
def ai() -> Iterator[Driver]:
    with driver("ai.mjs", "ai", "@ai-sdk/openai", "@ai-sdk/anthropic") as running:
        yield running


def says(wire_name: str, *, stream: bool, usage: bool = False) -> raw_upstream.Script:
    """An upstream that says one, two, three."""
    wire = WIRES[wire_name]
    if stream:
        said = wire.stream(WORDS, usage)
        return raw_upstream.streams(said.opening, *said.deltas, said.closing)
    return raw_upstream.replies(reply(wire.whole(WORDS), IS_JSON))


def replays(name: str) -> raw_upstream.Script:
    """An upstream that says what stands in a fixture."""
    body = (FIXTURES / name).read_bytes()
    if name.endswith(".sse"):
        return raw_upstream.streams(*(event + b"\n\n" for event in body.split(b"\n\n") if event))
    return raw_upstream.replies(reply(body, IS_JSON))


def begun(stream: Stream) -> bytes:
    """The head and the first text of a stream."""
    return STREAM_HEAD + chunk(stream.opening + stream.deltas[0])


# --- openai


@STREAMED_OR_NOT
async def test_openai_chat(openai: Driver, proxy: Penstock, upstream: RawUpstream, stream: bool) -> None:
    upstream.script = says("chat", stream=stream, usage=True)
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    said = await openai.ask(url=proxy.url, asked={**ASKED_CHAT, **options})
    assert (said["texts"], said["finishes"]) == ([TEXT], ["stop"])
    assert (said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"]) == (STATED_INPUT, STATED_OUTPUT)


@STREAMED_OR_NOT
async def test_openai_two_choices(openai: Driver, proxy: Penstock, upstream: RawUpstream, stream: bool) -> None:
    upstream.script = replays(f"llama_cpp/chat_n2.{'sse' if stream else 'json'}")
    said = await openai.ask(url=proxy.url, asked={**ASKED_CHAT, "n": 2, "stream": stream})
    assert len(said["texts"]) == len(said["finishes"]) == 2
    assert all(said["texts"])
    assert all(said["finishes"])


@STREAMED_OR_NOT
async def test_openai_tools(openai: Driver, proxy: Penstock, upstream: RawUpstream, stream: bool) -> None:
    upstream.script = replays(f"written/openai_chat_tools.{'sse' if stream else 'json'}")
    said = await openai.ask(url=proxy.url, asked={**ASKED_CHAT, "stream": stream})
    calls = [{"name": call["name"], "input": json.loads(call["arguments"])} for call in said["calls"]]
    assert calls == (WEATHER if stream else [{"name": "get_weather", "input": {"city": "Zürich"}}])
    assert said["finishes"] == ["tool_calls"]


@STREAMED_OR_NOT
async def test_openai_responses(openai: Driver, proxy: Penstock, upstream: RawUpstream, stream: bool) -> None:
    upstream.script = says("responses", stream=stream)
    said = await openai.ask(url=proxy.url, api="responses", asked={**ASKED_RESPONSES, "stream": stream})
    assert (said["texts"], said["status"]) == ([TEXT], "completed")
    assert said["usage"]["output_tokens"] == STATED_OUTPUT
    assert said.get("deltas", list(WORDS)) == list(WORDS)


async def test_openai_responses_tools(openai: Driver, proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = replays("written/openai_responses_tools.sse")
    said = await openai.ask(url=proxy.url, api="responses", asked={**ASKED_RESPONSES, "stream": True})
    assert [json.loads(call["arguments"]) for call in said["calls"]] == [{"city": "Zürich"}]


async def test_openai_leaving(openai: Driver, proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_stalls(begun(CHAT.stream(WORDS, False)))
    said = await openai.ask(url=proxy.url, asked={**ASKED_CHAT, "stream": True}, leave=True)
    assert said["texts"] == [WORDS[0]]
    await upstream.idle()


# --- @anthropic-ai/sdk


@STREAMED_OR_NOT
async def test_anthropic(anthropic: Driver, proxy: Penstock, upstream: RawUpstream, stream: bool) -> None:
    upstream.script = says("anthropic", stream=stream)
    said = await anthropic.ask(url=proxy.url, asked={**ASKED_MESSAGES, "stream": stream})
    message = said["message"]
    assert [block["text"] for block in message["content"]] == [TEXT]
    assert (message["stop_reason"], message["usage"]["output_tokens"]) == ("end_turn", STATED_OUTPUT)
    assert said.get("deltas", list(WORDS)) == list(WORDS)


async def test_anthropic_tools(anthropic: Driver, proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = replays("written/anthropic_messages_tools.sse")
    said = await anthropic.ask(url=proxy.url, asked={**ASKED_MESSAGES, "stream": True})
    thought, text, tool = said["message"]["content"]
    assert (thought["thinking"], text["text"]) == ("The user asks for weather.", "Okay, let's check.")
    assert (tool["name"], tool["input"]) == ("get_weather", {"city": "Zürich"})


async def test_anthropic_leaving(anthropic: Driver, proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_stalls(begun(MESSAGES.stream(WORDS, False)))
    said = await anthropic.ask(url=proxy.url, asked={**ASKED_MESSAGES, "stream": True}, leave=True)
    assert (said["deltas"], said["error"]["class"]) == ([WORDS[0]], "APIUserAbortError")
    await upstream.idle()


# --- ai


@STREAMED_OR_NOT
@pytest.mark.parametrize("api", WIRES)
async def test_ai(ai: Driver, proxy: Penstock, upstream: RawUpstream, api: str, stream: bool) -> None:
    upstream.script = says(api, stream=stream, usage=True)
    said = await ai.ask(url=proxy.url, api=api, stream=stream)
    assert (said["text"], said["finish"], said["calls"]) == (TEXT, "stop", [])
    assert said.get("deltas", list(WORDS)) == list(WORDS)
    assert (said["usage"]["inputTokens"], said["usage"]["outputTokens"]) == (STATED_INPUT, STATED_OUTPUT)


@pytest.mark.parametrize(
    ("api", "fixture", "calls"),
    [
        ("chat", "openai_chat_tools.sse", WEATHER),
        ("chat", "openai_chat_tools.json", [{"name": "get_weather", "input": {"city": "Zürich"}}]),
        ("responses", "openai_responses_tools.sse", [{"name": "get_weather", "input": {"city": "Zürich"}}]),
        ("anthropic", "anthropic_messages_tools.sse", [{"name": "get_weather", "input": {"city": "Zürich"}}]),
    ],
)
async def test_ai_tools(
    ai: Driver, proxy: Penstock, upstream: RawUpstream, api: str, fixture: str, calls: list[dict[str, Any]]
) -> None:
    upstream.script = replays(f"written/{fixture}")
    said = await ai.ask(url=proxy.url, api=api, stream=fixture.endswith(".sse"))
    assert said["calls"] == calls


@pytest.mark.parametrize("api", WIRES)
async def test_ai_leaving(ai: Driver, proxy: Penstock, upstream: RawUpstream, api: str) -> None:
    upstream.script = raw_upstream.then_stalls(begun(WIRES[api].stream(WORDS, False)))
    said = await ai.ask(url=proxy.url, api=api, stream=True, leave=True)
    assert (said["deltas"], said["aborted"]) == ([WORDS[0]], True)
    await upstream.idle()


# --- ends that the proxy makes


CLIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai, chat": ("chat", {"api": "chat", "asked": ASKED_CHAT}),
    "openai, responses": ("responses", {"api": "responses", "asked": ASKED_RESPONSES}),
    "anthropic": ("anthropic", {"asked": ASKED_MESSAGES}),
    "ai, chat": ("chat", {"api": "chat"}),
    "ai, responses": ("responses", {"api": "responses"}),
    "ai, anthropic": ("anthropic", {"api": "anthropic"}),
}
EVERY_CLIENT = pytest.mark.parametrize("client", CLIENTS)


async def ask(
    request: pytest.FixtureRequest, client: str, proxy: Penstock, *, stream: bool, route: str = ""
) -> dict[str, Any]:
    """The client's answer; with "error" where it raised."""
    url = proxy.url + route
    program: Driver = request.getfixturevalue(client.partition(",")[0])
    _, asked = CLIENTS[client]
    if "asked" in asked:
        return await program.ask(url=url, **{**asked, "asked": {**asked["asked"], "stream": stream}})
    return await program.ask(url=url, **asked, stream=stream)


@EVERY_CLIENT
@STREAMED_OR_NOT
@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal(
    request: pytest.FixtureRequest, refusing: Penstock, client: str, stream: bool, status: str
) -> None:
    error = (await ask(request, client, refusing, stream=stream, route=f"/{status}"))["error"]
    assert error["status"] == int(status)
    assert error["class"] == ("APICallError" if client.startswith("ai") else REFUSALS[status])
    assert "rig_refused" in json.dumps(error)


@EVERY_CLIENT
@STREAMED_OR_NOT
async def test_no_answer_of_the_model_server(
    request: pytest.FixtureRequest, proxy: Penstock, upstream: RawUpstream, client: str, stream: bool
) -> None:
    upstream.script = raw_upstream.then_closes(b"")
    error = (await ask(request, client, proxy, stream=stream))["error"]
    assert error["status"] == 502
    assert error["class"] == ("APICallError" if client.startswith("ai") else "InternalServerError")
    assert "upstream_reset" in json.dumps(error)


@EVERY_CLIENT
@pytest.mark.parametrize(
    ("end", "code"),
    [(raw_upstream.then_closes, "upstream_truncated"), (raw_upstream.then_stalls, "upstream_silence")],
)
async def test_a_stream_that_breaks_off(
    request: pytest.FixtureRequest, proxy: Penstock, upstream: RawUpstream, client: str, end: Any, code: str
) -> None:
    """What had come is there; then the client fails, and can tell why."""
    wire, _ = CLIENTS[client]
    upstream.script = end(begun(WIRES[wire].stream(WORDS, False)))
    said = await ask(request, client, proxy, stream=True)
    assert said.get("deltas", said.get("texts")) == [WORDS[0]]
    cause = FAULTS[code].message if client == "ai, anthropic" else code  # all that one shows is the sentence
    assert cause in json.dumps(said["error"])


@EVERY_CLIENT
async def test_a_cut(
    request: pytest.FixtureRequest, penstock: StartPenstock, upstream: RawUpstream, client: str
) -> None:
    wire, _ = CLIENTS[client]
    upstream.script = says(wire, stream=True)
    name = "cut-" + client.replace(", ", "-")  # for each client a budget of its own
    windows = [{"tokens": 2, "window_s": "total", "what": "output"}]
    proxy = penstock({"policy": [{"use": "token_limit", "name": name, "per": "all", "windows": windows}]})
    said = await ask(request, client, proxy, stream=True)
    assert "error" not in said
    if client.startswith("ai"):
        assert (said["text"], said["finish"]) == ("One\ttwo", "length")
    elif wire == "anthropic":
        message = said["message"]
        assert (message["content"][0]["text"], message["stop_reason"]) == ("One\ttwo", "max_tokens")
    else:
        assert said["texts"] == ["One\ttwo"]
        assert said.get("finishes") == ["length"] or said["incomplete"] == "max_output_tokens"
