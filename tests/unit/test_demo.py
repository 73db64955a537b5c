from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web

from proxy import demo
from proxy.listening import listen
from proxy.values import TCPAddress

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ASK: dict[str, Any] = {"model": "any-model", "messages": [{"role": "user", "content": "Good evening to you"}]}
PROMPT: dict[str, Any] = {"model": "any-model", "prompt": "Good evening"}


@pytest.fixture
async def base_url() -> AsyncIterator[str]:
    runner = web.AppRunner(demo.app(), handler_cancellation=True)
    await runner.setup()
    yield f"http://{await listen(runner, TCPAddress('127.0.0.1', 0))}"
    await runner.cleanup()


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url) as session:
        yield session


async def whole(client: aiohttp.ClientSession, path: str, document: dict[str, Any]) -> dict[str, Any]:
    async with client.post(path, json=document) as response:
        assert response.status == 200
        found = await response.json()
        assert isinstance(found, dict)
        return found


async def stream(client: aiohttp.ClientSession, path: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end with [DONE]."""
    async with client.post(path, json={**document, "stream": True}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        *data, done, rest = (await response.text()).split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in data]


def texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    """The text of each choice of a stream."""
    found: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            text = choice["text"] if "text" in choice else choice["delta"].get("content", "")
            found[choice["index"]] = found.get(choice["index"], "") + text
    return found


async def test_chat_answers_whole_and_streamed_alike(client: aiohttp.ClientSession) -> None:
    reply = await whole(client, CHAT, ASK)
    (choice,) = reply["choices"]
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "any-model"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] in demo.TEXTS
    assert choice["finish_reason"] == "stop"
    words = len(choice["message"]["content"].split())
    assert reply["usage"] == {"prompt_tokens": 4, "completion_tokens": words, "total_tokens": 4 + words}

    chunks = await stream(client, CHAT, ASK)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (words + 1) + ["stop"]
    assert all("usage" not in chunk for chunk in chunks)
    assert texts(chunks) == {0: choice["message"]["content"]}


async def test_completions_answer_whole_and_streamed_alike(client: aiohttp.ClientSession) -> None:
    asked = {**PROMPT, "prompt": ["one", "and two"]}
    reply = await whole(client, COMPLETIONS, asked)
    assert reply["object"] == "text_completion"
    assert reply["usage"]["prompt_tokens"] == 3
    answers = {choice["index"]: choice["text"] for choice in reply["choices"]}
    assert set(answers) == {0, 1}
    assert set(answers.values()) <= set(demo.TEXTS)
    chunks = await stream(client, COMPLETIONS, asked)
    assert texts(chunks) == answers
    assert {choice["finish_reason"] for chunk in chunks[-2:] for choice in chunk["choices"]} == {"stop"}


async def test_the_same_question_gets_the_same_text(client: aiohttp.ClientSession) -> None:
    assert texts(await stream(client, CHAT, ASK)) == texts(await stream(client, CHAT, ASK))


async def test_questions_differ_in_their_answers(client: aiohttp.ClientSession) -> None:
    prompts = [str(number) for number in range(demo.MAX_CHOICES)]
    reply = await whole(client, COMPLETIONS, {**PROMPT, "prompt": prompts})
    assert len({choice["text"] for choice in reply["choices"]}) > 1


async def test_several_choices_come_in_turn_and_differ(client: aiohttp.ClientSession) -> None:
    chunks = await stream(client, CHAT, {**ASK, "n": 2})
    assert [chunk["choices"][0]["index"] for chunk in chunks[:6]] == [0, 1, 0, 1, 0, 1]
    answers = texts(chunks)
    assert set(answers) == {0, 1}
    assert answers[0] != answers[1]


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
async def test_an_output_limit_is_kept(client: aiohttp.ClientSession, key: str) -> None:
    asked = {**ASK, key: 3}
    (choice,) = (await whole(client, CHAT, asked))["choices"]
    assert choice["finish_reason"] == "length"
    assert len(choice["message"]["content"].split()) == 3
    chunks = await stream(client, CHAT, asked)
    assert texts(chunks) == {0: choice["message"]["content"]}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


async def test_usage_comes_last_where_it_is_asked_for(client: aiohttp.ClientSession) -> None:
    chunks = await stream(client, CHAT, {**ASK, "max_tokens": 3, "stream_options": {"include_usage": True}})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_messages_may_come_in_parts(client: aiohttp.ClientSession) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    content = [{"type": "text", "text": "Good evening"}, image, {"type": "text", "text": "to you"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": None}]
    assert (await whole(client, CHAT, {**ASK, "messages": messages}))["usage"]["prompt_tokens"] == 4


async def test_models_and_health(client: aiohttp.ClientSession) -> None:
    async with client.get("/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == [demo.MODEL]
    async with client.get("/health") as response:
        assert await response.json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, b"", None),
        (CHAT, b"{", None),
        (CHAT, b"[" * 100_000, None),
        (CHAT, b"\xff", None),
        (CHAT, b"[]", None),
        (CHAT, {**ASK, "model": None}, "model"),
        (CHAT, {"model": "m"}, "messages"),
        (CHAT, {**ASK, "messages": []}, "messages"),
        (CHAT, {**ASK, "messages": ["hello"]}, "messages"),
        (CHAT, {**ASK, "n": 0}, "n"),
        (CHAT, {**ASK, "n": True}, "n"),
        (CHAT, {**ASK, "n": demo.MAX_CHOICES + 1}, "n"),
        (CHAT, {**ASK, "max_tokens": -1}, "max_tokens"),
        (CHAT, {**ASK, "max_completion_tokens": 1.5}, "max_completion_tokens"),
        (CHAT, {**ASK, "stream_options": 1}, "stream_options"),
        (COMPLETIONS, {"model": "m"}, "prompt"),
        (COMPLETIONS, {**PROMPT, "prompt": [1, 2]}, "prompt"),
        (COMPLETIONS, {**PROMPT, "prompt": ["a", "b"], "n": demo.MAX_CHOICES}, "prompt"),
    ],
)
async def test_what_cannot_be_done_is_told_as_openai_does(
    client: aiohttp.ClientSession, path: str, body: bytes | dict[str, Any], param: str | None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post(path, data=data) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error.pop("message")
    assert error == {"type": "invalid_request_error", "param": param, "code": None}


async def test_so_is_what_is_not_there(client: aiohttp.ClientSession) -> None:
    too_large = b" " * (demo.MAX_BODY_BYTES + 1)
    for method, path, data, status in (
        ("GET", "/v1/nothing", None, 404),
        ("GET", CHAT, None, 405),
        ("POST", CHAT, too_large, 413),
    ):
        async with client.request(method, path, data=data) as response:
            assert response.status == status
            assert (await response.json())["error"]["type"] == "invalid_request_error"
            assert ("Allow" in response.headers) == (status == 405)


async def test_text_that_is_no_unicode_is_survived(client: aiohttp.ClientSession) -> None:
    asked = {**ASK, "model": "\ud800", "messages": [{"role": "user", "content": "\udfff"}]}
    assert set(texts(await stream(client, CHAT, asked)).values()) <= set(demo.TEXTS)
    assert (await whole(client, CHAT, asked))["choices"][0]["finish_reason"] == "stop"


async def test_the_openai_client_works_unchanged(base_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused") as api:
        reply = await api.chat.completions.create(**ASK)
        pieces = [
            chunk.choices[0].delta.content or ""
            async for chunk in await api.chat.completions.create(**ASK, stream=True)
        ]
        assert "".join(pieces) == reply.choices[0].message.content
        with pytest.raises(openai.BadRequestError, match="messages"):
            await api.chat.completions.create(model="m", messages=[])


async def test_a_stream_is_paced(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    paced = [event async for event in demo.paced(iter([b"one", b"two"]), 0.5)]
    assert paced == [b"one", b"two"]
    assert pauses == [0.5, 0.5]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_serves_until_it_is_told_to_end(number: signal.Signals) -> None:
    program = "import sys; from proxy import demo; sys.exit(demo.main('127.0.0.1:0'))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode()
    url = f"http://{said.split()[-1]}{CHAT}"
    async with aiohttp.ClientSession() as client, client.post(url, json={**ASK, "stream": True}) as response:
        await response.content.readuntil(b"\n\n")
        process.send_signal(number)  # in the middle of a stream
        assert await process.wait() == 0
    assert await process.stderr.read() == b""


def test_the_command_tells_what_is_wrong_with_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main("nowhere") == 2
    assert "--listen must be" in capsys.readouterr().err


async def test_the_command_tells_that_its_port_is_taken(base_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    address = base_url.removeprefix("http://")
    assert await asyncio.to_thread(demo.main, address) == 1
    assert f"cannot listen on {address}" in capsys.readouterr().err
