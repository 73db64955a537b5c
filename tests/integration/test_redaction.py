"""`redaction` and `restore` as the official `openai` client and raw sockets see them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import openai
import pytest
from rigs import penstock as penstock_rig
from rigs import raw_upstream, tiny_model
from rigs.penstock import Penstock, StartPenstock, Tables
from rigs.raw_client import connect, get, post
from rigs.raw_upstream import RawUpstream, chat_event, reply
from rigs.wire import details

SECRET = "ann.smith@example.com"
CARD = "4111 1111 1111 1111"
TEXT = f"Write to {SECRET} and pay with {CARD}, please."
CLEAN = "Write to [EMAIL] and pay with [CARD], please."
DONE = b"data: [DONE]\n\n"

Redacting = Callable[..., Penstock]
Ask = Callable[[Penstock], AbstractAsyncContextManager[openai.AsyncOpenAI]]


@pytest.fixture
def redacting(penstock: StartPenstock) -> Redacting:
    """`redacting(requests=True)`: a proxy that redacts with these keys, and restores pseudonyms."""

    def redacting(*layers: Tables, **keys: Any) -> Penstock:
        policies = [{"use": "redaction", **keys}]
        if keys.get("action") == "pseudonym":
            policies.append({"use": "restore"})
        return penstock({"policy": policies}, *layers, REDACTION_KEY="sixteen bytes...")

    return redacting


@pytest.fixture
def ask() -> Ask:
    @asynccontextmanager
    async def ask(proxy: Penstock) -> AsyncIterator[openai.AsyncOpenAI]:
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
            yield client

    return ask


def chunk(delta: Mapping[str, Any] | None = None, *, index: int = 0, finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    document = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def whole(body: Any, status: str = "200 OK") -> bytes:
    return reply(json.dumps(body).encode(), "Content-Type: application/json", status=status)


async def chat(client: openai.AsyncOpenAI, content: str = "Hello", **asked: Any) -> Any:
    return await client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}], **asked)


# --- replies


async def test_a_text_a_character_at_a_time(redacting: Redacting, ask: Ask, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*map(chat_event, TEXT), chunk(finish="stop"), DONE)
    proxy = redacting()
    async with ask(proxy) as client:
        parts = [part async for part in await chat(client, stream=True)]
    assert "".join(part.choices[0].delta.content or "" for part in parts) == CLEAN
    assert parts[-1].choices[0].finish_reason == "stop"
    record = await proxy.log.find(outcome="complete")
    assert record["facts"]["redaction"] == {"EMAIL": 1, "CARD": 1}
    assert SECRET not in proxy.output


async def test_two_choices_reasoning_and_a_refusal(redacting: Redacting, ask: Ask, upstream: RawUpstream) -> None:
    events = []
    for character in TEXT:
        events += [chunk({"content": character}), chunk({"refusal": character}, index=1)]
        events.append(chunk({"reasoning_content": character}, index=1))
    ends = [chunk(index=1, finish="stop"), chunk(finish="stop"), DONE]
    upstream.script = raw_upstream.streams(*events, *ends)
    said: dict[tuple[int, str], str] = {}
    async with ask(redacting()) as client:
        async for part in await chat(client, n=2, stream=True):
            for choice in part.choices:
                for name, text in choice.delta.model_dump(exclude_none=True).items():
                    said[choice.index, name] = said.get((choice.index, name), "") + str(text)
    assert said == {(0, "content"): CLEAN, (1, "refusal"): CLEAN, (1, "reasoning_content"): CLEAN}


async def test_tool_calls(redacting: Redacting, ask: Ask, upstream: RawUpstream) -> None:
    arguments = json.dumps({"to": f"{SECRET}\n", "text": "ok", "card": 4111111111111111})
    arguments = arguments.replace("@", "\\u0040")
    events = [
        chunk(
            {
                "tool_calls": [
                    {"index": n, "id": f"call_{n}", "type": "function", "function": {"name": f"f{n}", "arguments": ""}}
                ]
            }
        )
        for n in range(2)
    ]
    for character in arguments:
        events += [chunk({"tool_calls": [{"index": n, "function": {"arguments": character}}]}) for n in range(2)]
    upstream.script = raw_upstream.streams(*events, chunk(finish="tool_calls"), DONE)
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    async with ask(redacting()) as client, client.chat.completions.stream(**asked) as stream:
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert [(call.id, call.function.name) for call in calls] == [("call_0", "f0"), ("call_1", "f1")]
    for call in calls:
        assert json.loads(call.function.arguments) == {"to": "[EMAIL]\n", "text": "ok", "card": "[CARD]"}


async def test_a_whole_answer(redacting: Redacting, ask: Ask, upstream: RawUpstream) -> None:
    message = {"role": "assistant", "content": TEXT, "refusal": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": [{"token": TEXT}]}}
    upstream.script = raw_upstream.replies(whole({"id": "c", "choices": [choice], "citations": [TEXT]}))
    async with ask(redacting()) as client:
        answer = await chat(client)
    assert (answer.choices[0].message.content, answer.choices[0].message.refusal) == (CLEAN, CLEAN)
    assert answer.choices[0].logprobs is None
    assert answer.model_dump()["citations"] == [CLEAN]


@pytest.mark.parametrize("status", ["400 No", "500 No"])
async def test_an_error_of_the_model_server(status: str, redacting: Redacting, ask: Ask, upstream: RawUpstream) -> None:
    answers = [
        whole({"error": {"message": TEXT, "code": "x"}}, status),
        reply(TEXT.encode(), "Content-Type: text/html", status=status),
    ]
    upstream.script = raw_upstream.replies(*answers)
    async with ask(redacting()) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await chat(client)
        assert caught.value.body == {"message": CLEAN, "code": "x"}
        with pytest.raises(openai.APIStatusError) as caught:
            await chat(client)
        assert caught.value.response.text == CLEAN


async def test_an_error_in_a_stream(redacting: Redacting, ask: Ask, upstream: RawUpstream) -> None:
    event = b"data: " + json.dumps({"error": {"message": TEXT}}).encode() + b"\n\n"
    upstream.script = raw_upstream.streams(chunk({"content": "ann"}), event)
    async with ask(redacting()) as client:
        stream = await chat(client, stream=True)
        with pytest.raises(openai.APIError, match=r"Write to \[EMAIL\] and"):
            [part async for part in stream]


async def test_what_is_held_when_the_upstream_breaks_off_is_dropped(
    redacting: Redacting, upstream: RawUpstream
) -> None:
    begun = raw_upstream.STREAM_HEAD + raw_upstream.chunk(chat_event("Ask ann.smith@exam"))
    for script in (raw_upstream.then_closes(begun), raw_upstream.then_resets(begun)):
        upstream.script = script
        async with connect(redacting().address) as client:
            await client.send(post("/v1/chat/completions", b'{"stream":true}', "Connection: close"))
            await client.ended()
        assert b"Ask " in client.received
        assert b"ann" not in client.received


async def test_a_match_that_stops_the_stream(redacting: Redacting, ask: Ask, upstream: RawUpstream) -> None:
    body = raw_upstream.chunk(b"".join(map(chat_event, TEXT)) + DONE) + raw_upstream.LAST_CHUNK
    upstream.script = raw_upstream.then_closes(raw_upstream.STREAM_HEAD + body)
    proxy = redacting(actions={"CARD": "stop"})
    said = []
    async with ask(proxy) as client:
        stream = await chat(client, stream=True)

        async def read() -> None:
            async for part in stream:
                said.append(part.choices[0].delta.content)

        with pytest.raises(openai.APIError) as caught:
            await read()
    assert caught.value.code == "redaction_stopped"
    assert "".join(said) == "Write to [EMAIL] and pay with "
    record = await proxy.log.find(details="redaction_stopped")
    assert record["outcome"] == "stopped"
    upstream.script = raw_upstream.then_closes(whole({"choices": [{"index": 0, "message": {"content": TEXT}}]}))
    async with ask(proxy) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await chat(client)


async def test_what_cannot_be_read_is_refused(redacting: Redacting, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_closes(reply(b"\x89PNG", "Content-Type: image/png"))
    async with connect(redacting().address) as client:
        message = await client.exchange(get("/image"))
        assert (message.status, details(message)) == (502, "redaction_unreadable")
        upstream.script = raw_upstream.then_closes(reply(b"", status="204 No Content", length=False))
        assert (await client.exchange(get("/nothing"))).status == 204
    upstream.script = raw_upstream.then_closes(reply(b"\x89PNG", "Content-Type: image/png"))
    async with connect(redacting(on_unknown="pass").address) as client:
        assert (await client.exchange(get("/image"))).body == b"\x89PNG"


async def test_in_front_of_llama_cpp(redacting: Redacting, ask: Ask, llama: str) -> None:
    """The model's own text, in which there is nothing to find, is the same with and without."""
    asked: dict[str, Any] = {"max_tokens": 30, "seed": 1, "temperature": 0, "extra_body": {"ignore_eos": True}}
    said = []
    for keys in ({}, {"replies": False, "requests": True}):
        async with ask(redacting({"upstreams": {"model": {"url": llama}}}, **keys)) as client:
            parts = [part async for part in await chat(client, stream=True, logprobs=True, **asked)]
            said.append("".join(part.choices[0].delta.content or "" for part in parts if part.choices))
            answer = await chat(client, **asked)
            assert answer.choices[0].message.content == said[-1]
            assert [model.id async for model in client.models.list()] == [tiny_model.NAME]
    assert said[0] == said[1] != ""


# --- requests


async def test_a_prompt_is_redacted_before_it_reaches_the_model(
    redacting: Redacting, ask: Ask, upstream: RawUpstream
) -> None:
    upstream.script = raw_upstream.replies(whole({"choices": [{"index": 0, "message": {"content": "ok"}}]}))
    proxy = redacting(requests=True)
    async with ask(proxy) as client:
        await chat(client, TEXT)
    (message,) = json.loads((await upstream.request()).body)["messages"]
    assert message == {"role": "user", "content": CLEAN}
    record = await proxy.log.find(outcome="complete")
    assert record["facts"]["redaction"] == {"request.EMAIL": 1, "request.CARD": 1}


async def test_a_request_that_must_not_go_on(redacting: Redacting, ask: Ask, upstream: RawUpstream) -> None:
    proxy = redacting(requests=True, action="stop")
    async with ask(proxy) as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await chat(client, TEXT)
    assert caught.value.code == "redaction_stopped"
    async with connect(proxy.address) as raw:
        message = await raw.exchange(post("/v1/audio", b"\xff\xfe"))
    assert (message.status, details(message)) == (415, "redaction_unreadable")
    assert upstream.requests == []


@pytest.mark.parametrize("stream", [False, True])
async def test_pseudonyms_come_back_as_what_the_client_sent(
    stream: bool, redacting: Redacting, ask: Ask, upstream: RawUpstream
) -> None:
    """The model echoes the prompt; it has seen no more than pseudonyms, and adds an address of its own."""

    async def echo(connection: raw_upstream.UpstreamConnection) -> None:
        request = await connection.request()
        said = json.loads(request.body)["messages"][0]["content"] + " eve@example.org"
        if stream:
            await connection.send(raw_upstream.STREAM_HEAD)
            for character in said:
                await connection.send_chunk(chat_event(character))
            await connection.send_chunk(chunk(finish="stop") + DONE)
            await connection.send(raw_upstream.LAST_CHUNK)
        else:
            await connection.send(whole({"choices": [{"index": 0, "message": {"content": said}}]}))

    upstream.script = echo
    proxy = redacting(requests=True, action="pseudonym", pseudonym_key="env:REDACTION_KEY")
    async with ask(proxy) as client:
        answer = await chat(client, TEXT, stream=stream)
        if stream:
            said = "".join([part.choices[0].delta.content or "" async for part in answer])
        else:
            said = answer.choices[0].message.content
    assert said.startswith(TEXT + " EMAIL_")
    assert "eve" not in said
    seen = json.loads((await upstream.request()).body)["messages"][0]["content"]
    assert "ann" not in seen
    assert "4111" not in seen
    assert seen.startswith("Write to EMAIL_")
    record = await proxy.log.find(outcome="complete")
    assert record["facts"]["restore"] == {"restored": 2}
    assert SECRET not in proxy.output


# --- configuration


def test_check_says_what_is_wrong_with_a_pattern(tmp_path: Any) -> None:
    pattern = {"name": "TWICE", "pattern": r"(a)\1"}
    tables = penstock_rig.configuration("http://127.0.0.1:1", {"policy": [{"use": "redaction", "patterns": [pattern]}]})
    result = penstock_rig.check(tables, tmp_path)
    assert result.returncode == 2
    assert "TWICE" in result.stderr
