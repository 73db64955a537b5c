"""`token_limit` as the official `openai` client and raw sockets see it, in front of llama.cpp and of scripted upstreams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from rigs import raw_upstream, tiny_model
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, post
from rigs.raw_upstream import CHAT_EVENTS, STREAM_HEAD, RawUpstream, chat_event, chunk, reply

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]  # two tokens, by its size
WORD = chat_event("x")
DONE = b"data: [DONE]\n\n"
TINY: dict[str, Any] = {"model": tiny_model.NAME, "messages": MESSAGES, "extra_body": {"ignore_eos": True}}

Limited = Callable[..., Penstock]
Ask = Callable[[Penstock], AbstractAsyncContextManager[openai.AsyncOpenAI]]


@pytest.fixture
def limited(penstock: StartPenstock, request: pytest.FixtureRequest) -> Limited:
    """`limited(100, before=llama)`: a proxy with this budget of its own, of output unless `what` says otherwise."""

    def limited(
        tokens: int, *, window_s: int | str = "total", what: str = "output", before: str = "", **keys: Any
    ) -> Penstock:
        windows = [{"tokens": tokens, "window_s": window_s, "what": what}]
        name = request.node.originalname + str(abs(hash(request.node.name)))  # for each test a process of its own
        policy = {"use": "token_limit", "name": name[-60:].lstrip("_"), "per": "all", "windows": windows, **keys}
        upstreams = {"upstreams": {"model": {"url": before}}} if before else {}
        return penstock({"policy": [policy, {"use": "heartbeat", "interval_s": 0.1}]}, upstreams)

    return limited


@pytest.fixture
def ask() -> Ask:
    @asynccontextmanager
    async def ask(proxy: Penstock) -> AsyncIterator[openai.AsyncOpenAI]:
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
            yield client

    return ask


async def stream(client: openai.AsyncOpenAI, **asked: Any) -> list[ChatCompletionChunk]:
    return [part async for part in await client.chat.completions.create(**{**TINY, **asked}, stream=True)]


def contents(parts: list[ChatCompletionChunk]) -> int:
    return len([part for part in parts if part.choices and part.choices[0].delta.content])


def finishes(parts: list[ChatCompletionChunk]) -> list[str]:
    return [choice.finish_reason for part in parts for choice in part.choices if choice.finish_reason]


async def facts(proxy: Penstock, **fields: Any) -> dict[str, Any]:
    record = await proxy.log.find(**fields)
    ((_, said),) = [(name, said) for name, said in record["facts"].items() if "output_tokens" in said]
    return dict(said)


# --- what the SDK makes of it


async def test_a_stream_whose_budget_ends_looks_like_one_at_its_length_limit(
    limited: Limited, ask: Ask, llama: str
) -> None:
    proxy = limited(20, before=llama)
    async with ask(proxy) as client:
        parts = await stream(client, max_tokens=200)
        assert finishes(parts) == ["length"]
        assert 15 <= contents(parts) <= 20
        with pytest.raises(openai.RateLimitError) as caught:
            await stream(client)
    assert caught.value.code == "token_limit"
    assert caught.value.response.headers["X-Should-Retry"] == "false"
    record = await proxy.log.find(details="token_limit")
    assert record["outcome"] == "stopped"


async def test_a_refusal_says_when_to_come_again(limited: Limited, ask: Ask, upstream: RawUpstream) -> None:
    proxy = limited(5, window_s=3600, what="both")
    upstream.script = raw_upstream.streams(*CHAT_EVENTS)
    async with ask(proxy) as client:
        assert contents(await stream(client)) == 3
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**TINY)
    assert caught.value.code == "token_limit"
    headers = caught.value.response.headers
    assert 0 < int(headers["Retry-After"]) <= 7200
    assert ";q=5;" in headers["RateLimit-Policy"]
    assert ";r=0;t=" in headers["RateLimit"]
    assert len(upstream.requests) == 1
    record = await proxy.log.find(details="token_limit")
    assert (record["outcome"], record["status"]) == ("refused", 429)


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_usage_counts_and_is_shown_to_who_asked_for_it(
    limited: Limited, ask: Ask, llama: str, wants_usage: bool
) -> None:
    proxy = limited(1000, before=llama)
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    async with ask(proxy) as client:
        parts = await stream(client, max_tokens=30, **options)
    assert [part.usage.completion_tokens for part in parts if part.usage] == ([30] if wants_usage else [])
    assert [bool(part.choices) for part in parts].count(False) == wants_usage
    said = await facts(proxy)
    assert (said["output_tokens"], said["source"]) == (30, "usage")


async def test_what_a_client_gets_is_what_it_would_have_got(
    limited: Limited, penstock: StartPenstock, llama: str, ask: Ask
) -> None:
    asked: dict[str, Any] = {"max_tokens": 30, "seed": 1, "temperature": 0}
    shown = []
    for proxy in (limited(1000, before=llama), penstock({"upstreams": {"model": {"url": llama}}})):
        async with ask(proxy) as client:
            parts = [part.model_dump(exclude={"id", "created"}) for part in await stream(client, **asked)]
        shown.append([{name: value for name, value in part.items() if name != "timings"} for part in parts])
    assert shown[0] == shown[1]


async def test_a_cut_states_the_counted_usage(limited: Limited, ask: Ask, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*[WORD] * 50, DONE)
    async with ask(limited(20)) as client:
        parts = await stream(client, stream_options={"include_usage": True})
    assert finishes(parts) == ["length"]
    assert parts[-1].usage is not None
    assert (parts[-1].usage.completion_tokens, contents(parts)) == (20, 20)


async def test_a_whole_answer(limited: Limited, ask: Ask, llama: str) -> None:
    proxy = limited(50, before=llama)
    async with ask(proxy) as client:
        answer = await client.chat.completions.create(**TINY, max_tokens=30)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 30
        # The next is let in with what is left, and is too long for that. The model has written it, so it is charged.
        for outcome in ("stopped", "refused"):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**TINY, max_tokens=30)
            assert caught.value.code == "token_limit"
            assert await proxy.log.find(outcome=outcome)
        assert caught.value.response.headers["X-Should-Retry"] == "false"


async def test_a_whole_answer_that_finds_no_room_says_when_to_come_again(
    limited: Limited, ask: Ask, upstream: RawUpstream
) -> None:
    proxy = limited(100, window_s=3600)
    document = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]}
    body = json.dumps({**document, "usage": {"prompt_tokens": 2, "completion_tokens": 80}}).encode()
    upstream.script = raw_upstream.replies(reply(body, "Content-Type: application/json"))
    async with ask(proxy) as client:
        await client.chat.completions.create(**TINY)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**TINY)
    assert caught.value.code == "token_limit"
    headers = caught.value.response.headers
    assert 0 < int(headers["Retry-After"]) <= 7200
    assert ";q=100;" in headers["RateLimit-Policy"]
    assert ";r=" in headers["RateLimit"]
    assert len(upstream.requests) == 2
    record = await proxy.log.find(details="token_limit")
    assert (record["outcome"], record["status"]) == ("stopped", 429)


async def test_requests_that_use_no_tokens_are_not_limited(limited: Limited, ask: Ask, llama: str) -> None:
    async with ask(limited(1, before=llama)) as client:
        for _ in range(3):
            assert [model.id async for model in client.models.list()] == [tiny_model.NAME]


ABSURD_NUMBERS = [
    "1" + "0" * 30, "1" + "0" * 5000, "1e308", "1e999", "-1", "-1e308", "1.5", "0", '"many"', "true", "null", "[]",
]  # fmt: skip


async def test_an_absurd_output_limit_passes_and_reserves_no_more_than_a_lease(
    limited: Limited, upstream: RawUpstream
) -> None:
    """What such a number means is for the model server to say. Were it all reserved, the request would be refused."""
    proxy = limited(1000)
    for number in ABSURD_NUMBERS:
        upstream.script = raw_upstream.streams(WORD * 3, DONE)
        body = b'{"stream":true,"max_tokens":%s,"n":%s}' % (number.encode(), number.encode())
        async with connect(proxy.address) as client:
            await client.send(post("/v1/chat/completions", body))
            assert (await client.read_head()).start.endswith("200 OK")
            await client.read_until(DONE)
        assert b'"max_tokens":' + number.encode() in upstream.requests[-1].body
    assert await tokens_left(proxy, upstream) == 1000 - 3 * len(ABSURD_NUMBERS)


@pytest.mark.parametrize(
    "stated", ["-5", "-1" + "0" * 30, "1" + "0" * 30, "999999999999", "1e308", "-1e308", '"3"', "{}"]
)
@pytest.mark.parametrize("streams", [True, False])
async def test_an_absurd_usage_is_not_believed_and_counters_stay_in_bounds(
    limited: Limited, upstream: RawUpstream, stated: str, streams: bool
) -> None:
    proxy = limited(1000, what="both")
    usage = b'"usage":{"prompt_tokens":%s,"completion_tokens":%s}' % (stated.encode(), stated.encode())
    if streams:
        upstream.script = raw_upstream.streams(WORD * 7, b'data: {"choices":[],%s}\n\n' % usage, DONE)
    else:
        message = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"seven!!"}}],%s}' % usage
        upstream.script = raw_upstream.replies(reply(message, "Content-Type: application/json"))
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b'{"messages":[],"stream":%s}' % str(streams).lower().encode()))
        await client.read_until(DONE if streams else b"seven!!")
    said = await facts(proxy, outcome="complete")
    assert (said["input_tokens"], said["output_tokens"]) == (1, 7 if streams else 2)
    assert await tokens_left(proxy, upstream) == 1000 - 1 - said["output_tokens"] - 1


# --- on the wire


async def tokens_left(proxy: Penstock, upstream: RawUpstream) -> int:
    """What the reply to a request that may bring one token says is left, with that one. A connection that is still open
    may go on with the script that it began with."""
    upstream.script = raw_upstream.replies(reply(b'{"choices":[]}', "Content-Type: application/json"))
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b'{"max_tokens":1}'))
        field = (await client.read_head()).get("RateLimit")
    assert field is not None
    return int(field.partition(";r=")[2].partition(";")[0]) + 1


@pytest.mark.parametrize("how", ["the client leaves", "truncation", "reset", "a clean end", "an error"])
async def test_whatever_the_end_only_what_was_delivered_is_charged(
    limited: Limited, upstream: RawUpstream, how: str
) -> None:
    proxy = limited(1000)
    begun = STREAM_HEAD + chunk(WORD * 7)
    scripts = {
        "the client leaves": raw_upstream.then_stalls(begun),
        "truncation": raw_upstream.then_closes(begun),
        "reset": raw_upstream.then_resets(begun),
        "a clean end": raw_upstream.streams(WORD * 7, DONE),
        "an error": raw_upstream.replies(reply(b'{"error":{}}', "Content-Type: application/json", status="500 No")),
    }
    upstream.script = scripts[how]
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b'{"stream":true}'))
        await client.read_until(b'"error"' if how == "an error" else WORD * 7)
    expected = 0 if how == "an error" else 7
    said = await facts(proxy)
    assert said["output_tokens"] == expected
    assert await tokens_left(proxy, upstream) == 1000 - expected


async def test_a_paced_stream_goes_on_with_heartbeats(limited: Limited, upstream: RawUpstream) -> None:
    proxy = limited(10, window_s=1, on_exhausted="pace")
    upstream.script = raw_upstream.streams(WORD * 25, DONE)
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b'{"stream":true}'))
        body = await client.read_until(DONE)
    assert body.count(WORD) == 25
    assert b": keep-alive\n\n" in body
    record = await proxy.log.find(outcome="complete")
    assert record["duration_ms"] >= 1000


async def test_two_limits_in_one_chain(penstock: StartPenstock, upstream: RawUpstream) -> None:
    windows = [{"tokens": 100, "window_s": "total"}]
    limits = [
        {"use": "token_limit", "name": name, "per": per, "windows": windows}
        for name, per in (("a", "client"), ("b", "all"))
    ]
    usage = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 22}}
    upstream.script = raw_upstream.streams(WORD, b"data: %s\n\n" % json.dumps(usage).encode(), DONE)
    proxy = penstock({"policy": limits})
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions", b'{"stream":true}'))
        assert b"usage" not in await client.read_until(DONE)
    asked = json.loads((await upstream.request()).body)
    assert asked == {"stream": True, "stream_options": {"include_usage": True}}
    record = await proxy.log.find(outcome="complete")
    for name in ("a", "b"):
        assert (record["facts"][name]["input_tokens"], record["facts"][name]["output_tokens"]) == (11, 22)
