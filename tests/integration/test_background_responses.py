"""OpenAI responses that are written in the background, as the official `openai` client asks for them: at once, then for what
was written, streamed or not, as often as it likes. What is charged and what is redacted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import parse_qsl

import openai
import pytest
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_upstream import LAST_CHUNK, STREAM_HEAD, RawUpstream, UpstreamConnection, chunk, reply
from rigs.redis import RedisServer
from rigs.wire import Message

ID = "resp_0123abc"
STATED = {"input_tokens": 20, "output_tokens": 7, "total_tokens": 27}
SAID = ("Write", " to", " ann", "@exa", "mple", ".org", ".")
REDACTED = "Write to [EMAIL]."
ASKED: dict[str, Any] = {"model": "tiny", "input": "hello", "background": True}  # the input is two tokens, by its size


def response(status: str, words: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": "".join(words), "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    head = {"id": ID, "object": "response", "created_at": 1, "model": "tiny", "status": status, "background": True}
    settings = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "usage": None}
    return {**head, **settings, "output": [message] if words else [], **more}


DONE = response("completed", SAID, usage=STATED)


def events() -> list[bytes]:
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = DONE["output"][0]["content"][0]
    said: list[dict[str, Any]] = [
        {"type": "response.created", "response": response("queued")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**DONE["output"][0], "content": []}},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": word, "logprobs": []} for word in SAID),
        {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": DONE["output"][0]},
        {"type": "response.completed", "response": DONE},
    ]
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n".encode()
        for number, event in enumerate(said)
    ]


EVENTS = events()
SOME = 6
"""With three of the words."""


class Background:
    """A model server: what it says of its one response when it is asked for it. The stream of the request itself comes to no
    end before its client leaves."""

    def __init__(self) -> None:
        self.now = response("in_progress")

    def answer(self, request: Message) -> bytes:
        path, _, query = request.target.partition("?")
        if path == "/v1/responses":
            streams = json.loads(request.body).get("stream")
            return STREAM_HEAD + chunk(b"".join(EVENTS[:SOME])) if streams else self.whole(response("queued"))
        if request.method == "DELETE":
            return self.whole({"id": ID, "object": "response", "deleted": True})
        if path.endswith("/cancel"):
            return self.whole(response("cancelled"))
        assert path == f"/v1/responses/{ID}"
        asked = dict(parse_qsl(query))
        if asked.get("stream") == "true":
            return STREAM_HEAD + b"".join(map(chunk, EVENTS[int(asked.get("starting_after", -1)) + 1 :])) + LAST_CHUNK
        return self.whole(self.now)

    @staticmethod
    def whole(document: dict[str, Any]) -> bytes:
        return reply(json.dumps(document).encode(), "Content-Type: application/json")

    async def script(self, connection: UpstreamConnection) -> None:
        while True:
            await connection.send(self.answer(await connection.request()))


@pytest.fixture
def model(upstream: RawUpstream) -> Background:
    model = Background()
    upstream.script = model.script
    return model


def budget(name: str, tokens: int = 1000) -> dict[str, Any]:
    windows = [{"tokens": tokens, "window_s": "total", "what": what} for what in ("input", "output")]
    return {"use": "token_limit", "name": name, "per": "all", "windows": windows}


@pytest.fixture
def proxy(penstock: StartPenstock, request: pytest.FixtureRequest) -> Penstock:
    """With budgets for this test alone."""
    return penstock({"policy": [{"use": "redaction"}, budget(request.node.originalname[-60:].lstrip("_"))]})


@pytest.fixture
async def client(proxy: Penstock, model: Background) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def charged(proxy: Penstock, raw: Any) -> tuple[int, int]:
    """What the log says of the exchange that brought this reply."""
    record = await proxy.log.find(id=raw.headers["x-request-id"])
    ((_, said),) = [(name, said) for name, said in record["facts"].items() if "output_tokens" in said]
    return said["input_tokens"], said["output_tokens"]


async def test_it_is_polled_until_it_is_done_and_charged_once(
    client: openai.AsyncOpenAI, proxy: Penstock, model: Background
) -> None:
    raw = await client.responses.with_raw_response.create(**ASKED)
    queued = raw.parse()
    assert (queued.id, queued.status, await charged(proxy, raw)) == (ID, "queued", (2, 0))
    for _ in range(2):
        raw = await client.responses.with_raw_response.retrieve(ID)
        assert (raw.parse().status, await charged(proxy, raw)) == ("in_progress", (0, 0))
    model.now = DONE
    for expected in ((18, 7), (0, 0), (0, 0)):
        raw = await client.responses.with_raw_response.retrieve(ID)
        done = raw.parse()
        assert done.output_text == REDACTED
        assert done.usage is not None
        assert (done.usage.output_tokens, await charged(proxy, raw)) == (7, expected)


async def test_it_is_streamed_and_charged_once(client: openai.AsyncOpenAI, proxy: Penstock) -> None:
    await client.responses.create(**ASKED)
    for expected in ((18, 7), (0, 0)):
        stream = await client.responses.retrieve(ID, stream=True)
        said = [event async for event in stream]
        assert "".join(event.delta for event in said if event.type == "response.output_text.delta") == REDACTED
        assert said[-1].type == "response.completed"
        assert said[-1].response.output_text == REDACTED
        assert await charged(proxy, stream.response) == expected


async def test_who_leaves_a_stream_goes_on_with_it(client: openai.AsyncOpenAI, proxy: Penstock) -> None:
    stream = await client.responses.create(**ASKED, stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    asked, before = await charged(proxy, stream.response)
    assert (asked, 0 < before < 7) == (2, True)
    resumed = await client.responses.retrieve(ID, stream=True, starting_after=event.sequence_number)
    said = [event async for event in resumed]
    assert said[0].sequence_number > event.sequence_number
    assert said[-1].type == "response.completed"
    assert await charged(proxy, resumed.response) == (18, 7 - before)


async def test_to_cancel_and_to_delete_costs_nothing(client: openai.AsyncOpenAI, proxy: Penstock) -> None:
    raw = await client.responses.with_raw_response.cancel(ID)
    assert (raw.parse().status, await charged(proxy, raw)) == ("cancelled", (0, 0))
    deleted = await client.responses.with_raw_response.delete(ID)
    assert await charged(proxy, deleted) == (0, 0)


async def test_it_is_charged_once_by_all_processes(
    penstock: StartPenstock, model: Background, shared_redis: RedisServer
) -> None:
    """Who polls one, then the other."""
    model.now = DONE
    tables = {"state": shared_redis.config(prefix="background").model_dump(exclude_defaults=True)}
    said = []
    for number in ("1", "2", "1"):
        proxy = penstock(tables, {"policy": [budget("shared")]}, PROCESS=number)
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
            raw = await client.responses.with_raw_response.retrieve(ID)
            said.append(await charged(proxy, raw))
    assert said == [(20, 7), (0, 0), (0, 0)]


async def test_what_does_not_fit_is_withheld_once(
    penstock: StartPenstock, model: Background, upstream: RawUpstream
) -> None:
    """It is charged, so that it comes when it is asked for again."""
    model.now = DONE
    proxy = penstock({"policy": [budget("withheld", 5)]})
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.responses.retrieve(ID)
        assert caught.value.code == "token_limit"
        assert await proxy.log.find(outcome="stopped", status=429)
        assert (await client.responses.retrieve(ID)).output_text == "".join(SAID)
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(**ASKED)
