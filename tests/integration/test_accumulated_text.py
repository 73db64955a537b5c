"""What a client's own accumulator has made of a redacted reply is the redaction of what the model said, channel by channel:
for random texts with secrets and beginnings of secrets in them, cut into events and reads anywhere, streamed and whole.

The clients are unmodified, the proxy is real; `redaction_oracle` says what has to come of a text.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache
from random import Random
from typing import Any

import pytest
from google.genai import types
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rigs import dictation, redaction_cases
from rigs.clients import MESSAGES, Clients, connected
from rigs.dictation import API, Answer
from rigs.node import Driver, driver
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_upstream import RawUpstream, UpstreamConnection
from rigs.redaction_oracle import Oracle

from policies.redaction.entities import entities
from policies.redaction.entity import Entity
from policies.redaction.json_text import naming

# --- what is said, and what has to come of it

ORACLE = Oracle(entities(("US",)))
SECRETS = [case.secret for case in redaction_cases.positives() if len(case.secret) <= 60]
PROSE = (
    "Write to ",
    " and ",
    ". ",
    "\n",
    "naïve 日本語 😀 ",
    'a "b" \\ c',
    "version 2.10 ",
    "4111 ",
    "sk-",
    "ann@",
    "key=",
)

WHOLE_SECRETS = st.sampled_from(SECRETS)
PARTS = st.sampled_from(PROSE) | WHOLE_SECRETS | WHOLE_SECRETS.map(lambda secret: secret[:-3])
# What begins with a bracket would be looked through as JSON: `test_redaction_replies` has that.
TEXTS = st.lists(PARTS, max_size=6).map("".join).map(lambda text: "x" * text.lstrip().startswith(("{", "[")) + text)
ARGUMENTS = st.none() | st.fixed_dictionaries(
    {"note": TEXTS, "to": st.lists(TEXTS, max_size=2), "n": st.integers(0, 9)}
)
ANSWERS = st.lists(st.builds(Answer, TEXTS, TEXTS, TEXTS, ARGUMENTS), min_size=1, max_size=3)
CHANCE = st.randoms(use_true_random=False)


def written(entity: Entity, text: str) -> str:
    return f"[{entity.name}]"


@lru_cache(4096)
def redact(text: str, context: str = "") -> str:
    return ORACLE.redact(text, written, context)


def redacted(answer: Answer) -> Answer:
    texts = (redact(answer.thoughts), redact(answer.text), redact(answer.refusal))
    return Answer(*texts, redacted_value(answer.arguments))


def redacted_value(value: Any, key: str = "") -> Any:
    """Every text of a JSON value on its own, behind its key."""
    if isinstance(value, dict):
        return {redact(name): redacted_value(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [redacted_value(item, key) for item in value]
    return redact(value, naming(key)) if isinstance(value, str) else value


# --- the clients: what each has accumulated


Accumulate = Callable[[Clients, bool, int], Awaitable[list[Answer]]]
"""(clients, streamed, number of choices) to what was said."""


async def openai_chat(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "n": choices}
    if streamed:
        async with clients.openai.chat.completions.stream(**asked) as stream:
            completion: Any = await stream.get_final_completion()
    else:
        completion = await clients.openai.chat.completions.create(**asked)
    return [_of_chat(choice.message.model_dump()) for choice in completion.choices]


def _of_chat(message: dict[str, Any]) -> Answer:
    calls = message.get("tool_calls") or []
    arguments = json.loads(calls[0]["function"]["arguments"]) if calls else None
    said = (message.get(name) or "" for name in ("reasoning_content", "content", "refusal"))
    return Answer(*said, arguments)


async def openai_completions(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    asked: Any = {"model": "tiny", "prompt": "hello", "n": choices}
    if not streamed:
        completion = await clients.openai.completions.create(**asked)
        return [Answer(text=choice.text) for choice in completion.choices]
    texts = [""] * choices
    async for part in await clients.openai.completions.create(**asked, stream=True):
        for choice in part.choices:
            texts[choice.index] += choice.text
    return [Answer(text=text) for text in texts]


async def openai_responses(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    """What the last event says of all items is what their own events have said."""
    asked: Any = {"model": "tiny", "input": "hello"}
    if not streamed:
        return [_of_response((await clients.openai.responses.create(**asked)).model_dump())]
    deltas: dict[int, str] = {}
    done: dict[int, str] = {}
    async with clients.openai.responses.stream(**asked) as stream:
        async for event in stream:
            said: Any = event
            if said.type.endswith(".delta"):
                deltas[said.output_index] = deltas.get(said.output_index, "") + said.delta
            elif said.type == "response.output_item.done":
                done[said.output_index] = _text_of(said.item.model_dump())
        response = (await stream.get_final_response()).model_dump()
    assert deltas == done == {number: _text_of(item) for number, item in enumerate(response["output"])}
    return [_of_response(response)]


def _text_of(item: dict[str, Any]) -> str:
    if item["type"] == "function_call":
        return str(item["arguments"])
    (part,) = item["summary"] if item["type"] == "reasoning" else item["content"]
    return str(part["refusal"] if part["type"] == "refusal" else part["text"])


def _of_response(response: dict[str, Any]) -> Answer:
    said: dict[str, Any] = {}
    for item in response["output"]:
        names = {"function_call": "arguments", "reasoning": "thoughts"}
        name = names.get(item["type"]) or ("refusal" if item["content"][0]["type"] == "refusal" else "text")
        said[name] = json.loads(_text_of(item)) if name == "arguments" else _text_of(item)
    return Answer(**said)


async def anthropic_messages(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 9}
    if streamed:
        async with clients.anthropic.messages.stream(**asked) as stream:
            message: Any = await stream.get_final_message()
    else:
        message = await clients.anthropic.messages.create(**asked)
    return [_of_message(message.model_dump())]


def _of_message(message: dict[str, Any]) -> Answer:
    names = {"thinking": ("thoughts", "thinking"), "text": ("text", "text"), "tool_use": ("arguments", "input")}
    said = {names[block["type"]][0]: block[names[block["type"]][1]] for block in message["content"]}
    return Answer(**said)


async def google_genai(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    config = types.GenerateContentConfig(candidate_count=choices)
    asked: Any = {"model": "tiny", "contents": "hello", "config": config}
    if not streamed:
        return _of_gemini([(await clients.google.models.generate_content(**asked)).model_dump()], choices)
    parts = [part.model_dump() async for part in await clients.google.models.generate_content_stream(**asked)]
    return _of_gemini(parts, choices)


async def gemini_array(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    method = "streamGenerateContent" if streamed else "generateContent"
    config = {"generationConfig": {"candidateCount": choices}}
    said = (await clients.http.post(f"{clients.url}/v1beta/models/tiny:{method}", json=config)).json()
    return _of_gemini(said if streamed else [said], choices)


def _of_gemini(responses: list[dict[str, Any]], choices: int) -> list[Answer]:
    answers = [Answer() for _ in range(choices)]
    for response in responses:
        for candidate in response["candidates"]:
            for part in (candidate.get("content") or {}).get("parts") or []:
                at = candidate.get("index") or 0
                call = part.get("functionCall") or part.get("function_call")
                if call:
                    answers[at] = answers[at]._replace(arguments=call["args"])
                name = "thoughts" if part.get("thought") else "text"
                more = getattr(answers[at], name) + (part.get("text") or "")
                answers[at] = answers[at]._replace(**{name: more})
    return answers


async def ollama_chat(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    if streamed:
        parts = [part async for part in await clients.ollama.chat("tiny", MESSAGES, stream=True)]
    else:
        parts = [await clients.ollama.chat("tiny", MESSAGES)]
    calls = [call for part in parts for call in part.message.tool_calls or []]
    said = ("".join(getattr(part.message, name) or "" for part in parts) for name in ("thinking", "content"))
    return [Answer(*said, "", dict(calls[0].function.arguments) if calls else None)]


async def ollama_generate(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    if streamed:
        parts = [part async for part in await clients.ollama.generate("tiny", "hello", stream=True)]
    else:
        parts = [await clients.ollama.generate("tiny", "hello")]
    return [Answer(*("".join(getattr(part, name) or "" for part in parts) for name in ("thinking", "response")))]


async def hugging_face(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    """The last event's whole text is that of all events."""
    if not streamed:
        return [Answer(text=(await clients.hugging_face.text_generation("hello", details=True)).generated_text)]
    text, whole = "", None
    async for part in await clients.hugging_face.text_generation("hello", details=True, stream=True):
        text += part.token.text
        whole = part.generated_text if part.generated_text is not None else whole
    assert whole == (text or None)
    return [Answer(text=text)]


async def langchain(clients: Clients, streamed: bool, choices: int) -> list[Answer]:
    if streamed:
        parts = [part async for part in clients.langchain.astream("hello")]
        whole: Any = parts[0]
        for part in parts[1:]:
            whole += part
    else:
        whole = await clients.langchain.ainvoke("hello")
    return [Answer(text=whole.text, arguments=whole.tool_calls[0]["args"] if whole.tool_calls else None)]


CLIENTS: dict[str, tuple[API, Accumulate]] = {
    "openai, chat": (dictation.CHAT, openai_chat),
    "openai, completions": (dictation.COMPLETIONS, openai_completions),
    "openai, responses": (dictation.RESPONSES, openai_responses),
    "anthropic": (dictation.MESSAGES, anthropic_messages),
    "google-genai": (dictation.GEMINI, google_genai),
    "httpx, Gemini's array": (dictation.GEMINI_ARRAY, gemini_array),
    "ollama, chat": (dictation.OLLAMA_CHAT, ollama_chat),
    "ollama, generate": (dictation.OLLAMA_GENERATE, ollama_generate),
    "huggingface_hub": (dictation.TGI, hugging_face),
    "langchain-openai": (dictation.CHAT._replace(fields=("text", "arguments"), most_choices=1), langchain),
}


# --- the tests


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    policies = [{"use": "redaction"}, {"use": "compression"}]
    return penstock(
        {"policy": policies, "routes": {"tgi": {"path": "/tgi", "rewrite": "/", "upstream": "model", "dialect": "tgi"}}}
    )


@pytest.fixture
async def clients(proxy: Penstock) -> AsyncIterator[Clients]:
    async with connected(proxy.url) as clients:
        yield clients


class Dictating:
    """An upstream that answers with what it is to say next."""

    def __init__(self, upstream: RawUpstream) -> None:
        self.answer = b""
        upstream.script = self._script

    async def _script(self, connection: UpstreamConnection) -> None:
        while True:
            await connection.request()
            await connection.send(self.answer)


@pytest.fixture
def dictating(upstream: RawUpstream) -> Dictating:
    return Dictating(upstream)


ANY_REPLY = given(answers=ANSWERS, luck=CHANCE, streamed=st.booleans())
FEW = settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.reuse, Phase.generate, Phase.shrink],  # to explain takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("client", CLIENTS)
@FEW
@ANY_REPLY
async def test_what_is_accumulated_is_the_redaction_of_what_was_said(
    clients: Clients, dictating: Dictating, client: str, answers: list[Answer], luck: Random, streamed: bool
) -> None:
    api, accumulate = CLIENTS[client]
    said = api.says(answers)
    dictating.answer = api.reply(answers, luck, streamed=streamed)
    assert await accumulate(clients, streamed, len(said)) == list(map(redacted, said))


# --- npm's

ASKED_CHAT: dict[str, Any] = {"model": "tiny", "messages": MESSAGES}
ASKED_MESSAGES: dict[str, Any] = {**ASKED_CHAT, "max_tokens": 9}


def _of_ai(said: dict[str, Any]) -> Answer:
    calls = said["calls"]
    return Answer(said.get("reasoning") or "", said["text"], "", calls[0]["input"] if calls else None)


NODE: dict[str, tuple[API, dict[str, Any], Callable[[dict[str, Any]], Answer]]] = {
    "openai, chat": (
        dictation.CHAT._replace(fields=("text", "refusal", "arguments")),  # of thoughts it keeps the last piece only
        {"api": "chat", "accumulate": True, "asked": ASKED_CHAT},
        lambda said: _of_chat(said["answer"]["choices"][0]["message"]),
    ),
    "openai, responses": (
        dictation.RESPONSES,
        {"api": "responses", "accumulate": True, "asked": {"model": "tiny", "input": "hello"}},
        lambda said: _of_response(said["answer"]),
    ),
    "anthropic": (dictation.MESSAGES, {"asked": ASKED_MESSAGES}, lambda said: _of_message(said["message"])),
    "ai, chat": (dictation.CHAT._replace(fields=("text", "arguments")), {"api": "chat"}, _of_ai),
    "ai, responses": (
        dictation.RESPONSES._replace(fields=("thoughts", "text", "arguments")),
        {"api": "responses"},
        _of_ai,
    ),
    "ai, anthropic": (dictation.MESSAGES, {"api": "anthropic"}, _of_ai),
}
PROGRAMS = {
    "openai": ("openai.mjs", "openai"),
    "anthropic": ("anthropic.mjs", "@anthropic-ai/sdk"),
    "ai": ("ai.mjs", "ai", "@ai-sdk/openai", "@ai-sdk/anthropic"),
}


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Iterator[tuple[str, Driver]]:
    with driver(*PROGRAMS[request.param]) as running:
        yield request.param, running


@settings(FEW, max_examples=20)
@ANY_REPLY
async def test_what_is_accumulated_in_node_is_too(
    proxy: Penstock,
    dictating: Dictating,
    program: tuple[str, Driver],
    answers: list[Answer],
    luck: Random,
    streamed: bool,
) -> None:
    name, running = program
    for client, (api, asked, found) in NODE.items():
        if client.partition(",")[0] != name:
            continue
        (said,) = api.says(answers[:1])
        dictating.answer = api.reply(answers[:1], luck, streamed=streamed)
        more = {"asked": {**asked["asked"], "stream": streamed}} if "asked" in asked else {"stream": streamed}
        assert found(await running.ask(url=proxy.url, **{**asked, **more})) == redacted(said), client
