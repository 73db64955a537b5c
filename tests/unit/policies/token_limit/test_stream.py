"""One exchange: what is delivered is covered, waits, or is cut; and in the end only what was used is charged."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from policies.token_limit import TokenLimit
from proxy import state
from proxy.chain import Chain, Link
from proxy.dialects.base import Dialect
from proxy.dialects.openai_chat import OpenAIChat
from proxy.errors import COMPLETE, Outcome, OutcomeKind, StateError
from proxy.messages import ResponseHead
from proxy.policy import PolicyStream
from proxy.simulation import JSON, make_head, sse
from proxy.state import Short, Window
from proxy.state_memory import MemoryStore
from proxy.testing import FakeHost, Simulation, joined, make_request, texts

MakeLimit = Callable[..., TokenLimit]
Begin = Callable[..., Awaitable[Simulation]]
Charged = Callable[..., Awaitable[int]]

CUT = Outcome(OutcomeKind.STOPPED, "token_limit", "token_limit")
PROMPT = (
    3  # what is estimated for the request that `begin` makes: with the generic dialect its model and role count too
)
DONE = b"data: [DONE]\n\n"


def words(count: int) -> bytes:
    return sse(*["x"] * count)


def said(exchange: Simulation) -> int:
    """The deltas that were delivered, without the dialect's ending."""
    return sum(event.raw == sse("x") for event in exchange.delivered)


async def settle(exchange: Simulation) -> dict[str, int | str]:
    """The end: the outcome is told, and what was spawned is done."""
    facts = dict(exchange.close())
    await exchange.run_spawned()
    host = exchange.policy.host
    assert isinstance(host, FakeHost)
    await host.run_spawned()
    return facts


class Asked(MemoryStore):
    """Counts how often it is asked for tokens, and has no answer while it is `down`."""

    takes = 0
    down = False

    async def take(self, *arguments: Any) -> Any:
        self.takes += 1
        if self.down:
            raise StateError("down")
        return await super().take(*arguments)


# --- leases


async def test_what_is_covered_passes_as_it_is(begin: Begin, charged: Charged) -> None:
    exchange = await begin()
    assert joined(exchange.read(words(10) + DONE)) == words(10) + DONE
    exchange.end()
    facts = await settle(exchange)
    assert exchange.outcome == COMPLETE
    assert facts == {"input_tokens": PROMPT, "output_tokens": 10, "source": "counted"}
    assert await charged() == PROMPT + 10


async def test_the_next_lease_is_fetched_before_the_last_is_used_up(begin: Begin, charged: Charged) -> None:
    exchange = await begin(10_000, lease_tokens=100)
    exchange.read(words(49))
    assert not await exchange.run_spawned()
    assert await charged() == PROMPT + 100
    exchange.read(words(1))
    await exchange.run_spawned()
    assert await charged() == PROMPT + 200
    for _ in range(99):
        exchange.read(words(1))
        assert not exchange.chain.paused
    await exchange.run_spawned()
    assert await charged() == PROMPT + 200
    exchange.read(words(1))
    await exchange.run_spawned()
    assert await charged() == PROMPT + 300


@pytest.mark.parametrize("batch", [1, 7, 64])
async def test_no_event_waits_for_the_store_and_it_is_asked_once_in_64_tokens(
    begin: Begin, host: FakeHost, batch: int
) -> None:
    store = host.state = Asked()
    exchange = await begin(100_000)
    assert store.takes == 1
    for _ in range(4096 // batch):
        exchange.read(words(batch))
        assert not exchange.chain.paused
        await exchange.run_spawned()
    assert 10 <= store.takes - 1 <= 4096 // 64


async def test_a_stream_that_will_not_need_it_asks_for_no_lease(make_limit: MakeLimit, host: FakeHost) -> None:
    request = make_request(dialect=OpenAIChat())
    request.replace_body(b'{"stream": true, "max_tokens": 10}')
    exchange = await Simulation.admit(make_limit(), request)
    exchange.start()
    exchange.respond()
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    exchange.read(chunk * 10)
    assert not await exchange.run_spawned()
    assert not exchange.chain.paused
    exchange.read(chunk)  # more than the upstream was allowed to say
    assert exchange.chain.paused
    await exchange.run_spawned()
    assert not exchange.chain.paused
    assert len(exchange.delivered) == 11


@pytest.mark.parametrize("on_exhausted", ["cut", "pace"])
async def test_a_batch_over_the_lease_is_delivered_as_far_as_it_is_covered(begin: Begin, on_exhausted: str) -> None:
    exchange = await begin(10_000, lease_tokens=10, on_exhausted=on_exhausted)
    exchange.read(words(35))
    assert said(exchange) == 10
    assert exchange.chain.paused
    await exchange.run_spawned()
    assert said(exchange) == 30  # who had to wait is given more
    await exchange.run_spawned()
    assert said(exchange) == 35
    assert not exchange.chain.paused


async def test_it_is_waited_for_a_slow_store(begin: Begin) -> None:
    exchange = await begin(10_000, lease_tokens=10)
    exchange.read(words(12))
    exchange.advance(30.0)
    assert said(exchange) == 10
    await exchange.run_spawned()
    assert said(exchange) == 12


async def test_an_event_that_is_more_than_a_lease_waits_for_one_that_covers_it(begin: Begin, charged: Charged) -> None:
    exchange = await begin(10_000, lease_tokens=10, tokenizer="o200k")
    event = sse("one two three four five six seven eight nine ten eleven twelve")
    exchange.read(event * 2)
    assert exchange.delivered == []
    while exchange.chain.paused:
        await exchange.run_spawned()
    assert joined(exchange.delivered) == event * 2
    exchange.end()
    facts = await settle(exchange)
    assert facts["output_tokens"] == await charged() - facts["input_tokens"]
    assert facts["output_tokens"] == 24


# --- the budget ends


async def test_a_stream_is_cut_after_the_last_event_that_is_covered(begin: Begin, charged: Charged) -> None:
    exchange = await begin(PROMPT + 100)
    exchange.read(words(300))
    while exchange.outcome is None:
        await exchange.run_spawned()
    assert said(exchange) == 100
    assert exchange.outcome == CUT
    facts = await settle(exchange)
    assert facts == {"input_tokens": PROMPT, "output_tokens": 100, "source": "counted", "cut": 1}
    assert await charged() == PROMPT + 100


async def test_events_without_text_pass_when_the_budget_is_used_up(begin: Begin) -> None:
    exchange = await begin(PROMPT + 100)
    for _ in range(100):
        exchange.read(words(1))
        await exchange.run_spawned()
    exchange.read(b": a comment\n\n" + DONE)
    exchange.end()
    assert exchange.outcome == COMPLETE
    assert said(exchange) == 100


async def test_an_event_that_is_more_than_the_budget_is_not_delivered(begin: Begin, charged: Charged) -> None:
    exchange = await begin(PROMPT + 20, tokenizer="o200k")
    exchange.read(sse("one two"))
    exchange.read(sse(" three" * 50))
    while exchange.outcome is None:
        await exchange.run_spawned()
    assert list(texts(exchange.delivered[:1]).values()) == ["one two"]
    assert exchange.outcome == CUT
    facts = await settle(exchange)
    assert facts["output_tokens"] == 2
    assert await charged() == facts["input_tokens"] + 2


async def test_a_budget_that_is_used_up_is_not_asked_for_more_with_every_event(begin: Begin, host: FakeHost) -> None:
    store = host.state = Asked()
    exchange = await begin(PROMPT + 10_000)
    await store.charge(state.key("token_limit", "both", "all"), [Window(PROMPT + 10_000, None)], 10_000)
    for _ in range(256):
        exchange.read(words(1) + b": a comment\n\n")
        await exchange.run_spawned()
    assert said(exchange) == 256
    assert 1 <= store.takes - 1 <= 10


async def test_of_a_small_budget_everything_is_used_by_whoever_needs_it(begin: Begin, charged: Charged) -> None:
    """A stream is not cut while another sits on tokens that it does not use."""
    first = await begin(4 * PROMPT + 100, lease_tokens=64)
    others = [await begin(first.policy) for _ in range(3)]
    for other in others:
        other.read(words(3))
        await other.run_spawned()
    first.read(words(200))
    while first.outcome is None:
        await first.run_spawned()
    assert said(first) == 100 - 9
    for other in others:
        other.end()
        assert (await settle(other))["output_tokens"] == 3
    await settle(first)
    assert await charged() == 4 * PROMPT + 100


async def test_others_get_what_one_did_not_use(begin: Begin, charged: Charged) -> None:
    first = await begin(2 * PROMPT + 100, lease_tokens=64)
    second = await begin(first.policy)
    first.end()
    await settle(first)
    second.read(words(99))
    while second.chain.paused:
        await second.run_spawned()
    second.end()
    assert (await settle(second))["output_tokens"] == 99


async def test_paced_it_goes_on_as_the_window_slides(begin: Begin, host: FakeHost) -> None:
    host.now = 1200.0  # where a window of 60 s begins
    exchange = await begin(120, window_s=60, on_exhausted="pace")
    exchange.now = host.now
    exchange.read(words(300))
    delivered: list[int] = []
    for _ in range(1200):
        await exchange.run_spawned()
        exchange.advance(0.25)
        host.now = exchange.now
        delivered.append(said(exchange))
    assert exchange.outcome is None
    assert delivered[0] <= 120 - PROMPT
    assert delivered[-1] == 300
    by_minute = [after - before for before, after in zip(delivered[::240], delivered[239::240], strict=True)]
    assert max(by_minute) <= 120
    in_the_second_minute = delivered[240:480]
    assert max(b - a for a, b in pairwise(in_the_second_minute)) <= 4


async def test_paced_it_waits_a_step_at_least(begin: Begin, host: FakeHost) -> None:
    host.now = 1200.0  # where a window of 60 s begins
    exchange = await begin(6000, window_s=60, what="output", on_exhausted="pace")
    store, key, windows = host.state, state.key("token_limit", "output", "all"), [Window(6000, 60)]
    await store.charge(key, windows, 6000 - 256)
    host.now = 1270.0
    await store.charge(key, windows, 1001)
    short = await store.take(key, windows, 1)
    assert isinstance(short, Short)
    assert short.retry_after_s is not None
    assert 0 < short.retry_after_s < 0.1
    exchange.read(words(257))
    await exchange.run_spawned()
    assert said(exchange) == 256
    assert exchange.chain.next_wake() == exchange.now + 0.25


@pytest.mark.parametrize("streams", [1, 10])
@pytest.mark.parametrize("at_once", [True, False])
async def test_paced_the_store_is_asked_in_steps(begin: Begin, host: FakeHost, streams: int, at_once: bool) -> None:
    host.now = 1200.0  # where a window of 60 s begins
    store = host.state = Asked(clock=host.clock)
    first = await begin(6000, window_s=60, what="output", on_exhausted="pace")
    exchanges = [first, *[await begin(first.policy) for _ in range(streams - 1)]]
    for exchange in exchanges:
        exchange.read(words(9000 if at_once else 600))
    for _ in range(40):
        for exchange in exchanges:
            await exchange.run_spawned()
            exchange.advance(0.25)
    for exchange in exchanges:
        exchange.now = 1260.0
    before, takes = sum(map(said, exchanges)), store.takes
    for step in range(1000):
        host.now = 1260.0 + step / 100
        for exchange in exchanges:
            if not at_once:
                exchange.read(words(1))
            exchange.advance(0.01)
            await exchange.run_spawned()
    assert sum(map(said, exchanges)) - before > 800
    assert store.takes - takes <= 10 / 0.25 * streams * 2


@pytest.mark.parametrize(("window_s", "at_most_s"), [("total", 60.0), (86400, 60.0)])
async def test_paced_it_is_cut_where_the_wait_would_be_too_long(
    begin: Begin, window_s: object, at_most_s: float
) -> None:
    exchange = await begin(PROMPT + 100, window_s=window_s, on_exhausted="pace", pace_at_most_s=at_most_s)
    exchange.read(words(300))
    while exchange.outcome is None:
        await exchange.run_spawned()
        exchange.advance(0.25)
    assert exchange.outcome == CUT
    assert said(exchange) == 100


async def test_a_lease_is_not_used_when_its_window_has_gone_by(begin: Begin, host: FakeHost, charged: Charged) -> None:
    exchange = await begin(10_000, window_s=60)
    exchange.read(words(10))
    exchange.advance(60.0)
    host.now = exchange.now
    exchange.read(words(1))
    assert said(exchange) == 10
    await exchange.run_spawned()
    assert said(exchange) == 11
    exchange.end()
    await settle(exchange)
    assert 1 <= await charged(window_s=60) <= 1 + PROMPT + 10  # as much of the last as is still in view


# --- the state store is down


@pytest.mark.parametrize("on_state_error", ["refuse", "allow"])
async def test_a_store_that_goes_down(begin: Begin, host: FakeHost, charged: Charged, on_state_error: str) -> None:
    store = host.state = Asked(clock=host.clock)
    exchange = await begin(10_000, lease_tokens=100, on_state_error=on_state_error)
    store.down = True
    for _ in range(100):
        exchange.read(words(1))
        assert exchange.outcome is None
        await exchange.run_spawned()
    assert said(exchange) == 100
    exchange.read(words(50))
    await exchange.run_spawned()
    store.down = False
    if on_state_error == "allow":
        assert said(exchange) == 150
        exchange.end()
        assert exchange.outcome == COMPLETE
    else:
        assert exchange.outcome == Outcome(OutcomeKind.STOPPED, "token_limit", "state_unavailable")
        assert b"state_unavailable" in exchange.delivered[-1].raw
    await settle(exchange)
    assert await charged() == PROMPT + said(exchange)
    assert 1 <= host.counts["state_errors",] <= 10


async def test_a_store_that_comes_back_in_time_is_not_noticed(begin: Begin, host: FakeHost) -> None:
    store = host.state = Asked(clock=host.clock)
    exchange = await begin(10_000, lease_tokens=100)
    for number in range(300):
        store.down = 50 <= number < 75
        exchange.read(words(1))
        assert not exchange.chain.paused
        await exchange.run_spawned()
    assert said(exchange) == 300


# --- ends


@pytest.mark.parametrize(
    "details",
    ["upstream_truncated", "upstream_reset", "upstream_garbage", "client_gone", "deadline", "shutdown", "stopped"],
)
@pytest.mark.parametrize("waiting", [False, True])
async def test_on_every_end_only_what_was_delivered_is_charged(
    begin: Begin, charged: Charged, details: str, waiting: bool
) -> None:
    exchange = await begin(10_000, lease_tokens=100)
    exchange.read(words(120 if waiting else 70))
    exchange.cut(details)
    for _ in range(3):
        await exchange.run_spawned()
    delivered = said(exchange)
    facts = await settle(exchange)
    assert (facts["input_tokens"], facts["output_tokens"]) == (PROMPT, delivered)
    assert await charged() == PROMPT + delivered


@pytest.mark.parametrize(
    ("outcome", "input_tokens"),
    [
        (Outcome(OutcomeKind.REFUSED, "parser", "body_too_large"), 0),
        (Outcome.of("upstream_unreachable"), 0),
        (Outcome.of("connect_timeout"), 0),
        (Outcome.of("first_byte_timeout"), PROMPT),
        (Outcome.of("client_gone"), PROMPT),
        (Outcome.of("shutdown"), 0),
        (Outcome.of("policy_error"), 0),
    ],
)
async def test_the_prompt_is_charged_where_it_may_have_been_read(
    make_limit: MakeLimit, charged: Charged, outcome: Outcome, input_tokens: int
) -> None:
    exchange = await Simulation.admit(make_limit(), make_request("Hi"))
    exchange.start()
    exchange.close(outcome)
    await exchange.run_spawned()
    assert await charged() == input_tokens


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_an_error_of_the_upstream_costs_nothing(make_limit: MakeLimit, charged: Charged, status: int) -> None:
    exchange = await Simulation.admit(make_limit(), make_request())
    exchange.start()
    exchange.respond(make_head(exchange.request, JSON, status=status))
    body = b'{"error": {"message": "no"}, "usage": {"prompt_tokens": 5, "completion_tokens": 5}}'
    exchange.read(body)
    exchange.end()
    assert joined(exchange.delivered) == body
    facts = await settle(exchange)
    assert (facts["input_tokens"], facts["output_tokens"]) == (0, 0)
    assert await charged() == 0


async def test_a_lease_that_was_asked_for_when_the_stream_ended(begin: Begin, charged: Charged) -> None:
    exchange = await begin(10_000, lease_tokens=100)
    exchange.read(words(80))
    exchange.cut("client_gone")
    exchange.close()  # before what was spawned has begun
    await exchange.run_spawned()
    await exchange.policy.host.run_spawned()
    assert await charged() == PROMPT + 80


# --- usage


def chunk(content: str = "x", usage: object = None, **fields: object) -> bytes:
    document: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}
    if usage is not None:
        document["usage"] = usage
    return b"data: %s\n\n" % json.dumps({**document, **fields}).encode()


def usage_chunk(prompt: object, completion: object) -> bytes:
    return chunk(usage={"prompt_tokens": prompt, "completion_tokens": completion}, choices=[])


FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


async def chat(limit: TokenLimit, *, wants_usage: bool = False, stream: bool = True) -> Simulation:
    request = make_request("Hello, world", stream=stream, dialect=OpenAIChat())
    if wants_usage:
        request.replace_body(b'{"stream": true, "stream_options": {"include_usage": true}, "messages": []}')
    exchange = await Simulation.admit(limit, request)
    exchange.start()
    if stream:
        exchange.respond()
    return exchange


async def test_the_upstreams_usage_counts(make_limit: MakeLimit, charged: Charged) -> None:
    exchange = await chat(make_limit(10_000))
    exchange.read(chunk() * 20 + FINISH + usage_chunk(30, 45) + DONE)
    exchange.end()
    facts = await settle(exchange)
    assert facts == {"input_tokens": 30, "output_tokens": 45, "source": "usage"}
    assert await charged() == 75


async def test_usage_that_only_the_proxy_asked_for_is_hidden(make_limit: MakeLimit) -> None:
    exchange = await chat(make_limit())
    exchange.read(chunk(usage=None) * 2)
    exchange.read(chunk().replace(b"}\n\n", b', "usage": null}\n\n') + FINISH)
    exchange.read(usage_chunk(3, 3) + DONE)
    exchange.end()
    assert b"usage" not in joined(exchange.delivered)
    assert joined(exchange.delivered).endswith(FINISH + DONE)
    assert len(exchange.delivered) == 5


async def test_usage_that_is_stated_unasked_stays(make_limit: MakeLimit) -> None:
    stated = chunk(usage={"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.25})
    exchange = await chat(make_limit())
    exchange.read(chunk(usage=None) + stated + usage_chunk(3, 3) + DONE)
    exchange.end()
    assert joined(exchange.delivered) == chunk() + stated + DONE


async def test_it_is_hidden_also_in_front_of_an_event_that_waits(make_limit: MakeLimit) -> None:
    exchange = await chat(make_limit(10_000, lease_tokens=5))
    asked = chunk().replace(b"}\n\n", b',"usage":null}\n\n')
    exchange.read(asked * 8)
    assert exchange.chain.paused
    await exchange.run_spawned()
    assert joined(exchange.delivered) == chunk() * 8


async def test_usage_that_the_client_asked_for_is_left(make_limit: MakeLimit) -> None:
    exchange = await chat(make_limit(), wants_usage=True)
    body = chunk() + FINISH + usage_chunk(3, 1) + DONE
    exchange.read(body)
    exchange.end()
    assert joined(exchange.delivered) == body


async def test_of_several_limits_each_sees_the_usage(make_limit: MakeLimit, host: FakeHost) -> None:
    request = make_request(dialect=OpenAIChat())
    streams = [await make_limit(10_000, what=what).admit(request) for what in ("input", "output")]
    links = [
        Link(f"limit{i}", TokenLimit.stage, TokenLimit.sees, s)
        for i, s in enumerate(streams)
        if isinstance(s, PolicyStream)
    ]
    chain = Chain(links, 1 << 20)
    chain.start(0.0)
    head = make_head(request)
    chain.response(head)
    assert head.stream is not None
    passed = chain.feed([head.stream.event(raw) for raw in (chunk(), usage_chunk(30, 45))], 0.0)
    assert joined(passed) == chunk()
    chain.close(COMPLETE)
    assert [(said["input_tokens"], said["output_tokens"]) for said in chain.facts().values()] == [(30, 45), (30, 45)]
    await host.run_spawned()


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_a_cut_carries_the_counters_usage_if_the_client_asked(make_limit: MakeLimit, wants_usage: bool) -> None:
    exchange = await chat(make_limit(100, what="output"), wants_usage=wants_usage)
    exchange.read(chunk() * 300)
    while exchange.outcome is None:
        await exchange.run_spawned()
    ending = [json.loads(event.raw[6:]) for event in exchange.delivered[100:-1]]
    assert ending[0]["choices"][0]["finish_reason"] == "length"
    assert exchange.delivered[-1].raw == DONE
    usages = [document["usage"] for document in ending if document.get("usage")]
    assert usages == ([{"prompt_tokens": 1, "completion_tokens": 100, "total_tokens": 101}] if wants_usage else [])


@pytest.mark.parametrize(
    ("prompt", "completion", "ignored"),
    [
        (-1, -5, True),
        (-(10**30), -(10**30), True),
        (10**9, 10**18, True),
        (10**30, 10**30, True),
        (1e308, -1e308, False),
        ({}, [7], False),
        (0, 0, False),
        ("3", None, False),
        (True, 1.5, False),
    ],
)
async def test_absurd_usage_is_ignored(
    make_limit: MakeLimit, charged: Charged, prompt: object, completion: object, ignored: bool
) -> None:
    exchange = await chat(make_limit(10_000))
    exchange.read(chunk() * 5 + FINISH + usage_chunk(prompt, completion) + DONE)
    exchange.end()
    facts = await settle(exchange)
    assert (facts["input_tokens"], facts["output_tokens"], facts["source"]) == (3, 5, "counted")
    assert facts.get("usage_ignored", 0) == ignored
    assert await charged() == 8


async def test_usage_before_the_last_text_is_no_final_word(make_limit: MakeLimit, charged: Charged) -> None:
    exchange = await chat(make_limit(10_000))
    exchange.read(chunk(usage={"prompt_tokens": 30, "completion_tokens": 1}) + chunk() * 9)
    exchange.cut("client_gone")
    facts = await settle(exchange)
    assert (facts["input_tokens"], facts["output_tokens"], facts["source"]) == (30, 10, "counted")
    assert await charged() == 40


async def test_what_a_chunk_states_counts_at_once(make_limit: MakeLimit) -> None:
    """vLLM puts several tokens into one delta, and says with each how many there are so far."""
    exchange = await chat(make_limit(100, what="output"))
    for number in range(1, 51):
        exchange.read(chunk(usage={"prompt_tokens": 3, "completion_tokens": 8 * number}))
        while exchange.chain.paused:
            await exchange.run_spawned()
    assert exchange.outcome == CUT
    assert len(exchange.delivered) == 100 // 8 + 2  # and the ending


async def test_usage_that_comes_after_all_text_holds_nothing_back(make_limit: MakeLimit, charged: Charged) -> None:
    exchange = await chat(make_limit(100, what="output"), wants_usage=True)
    body = chunk() * 10 + FINISH + usage_chunk(3, 500) + DONE
    exchange.read(body)
    exchange.end()
    assert joined(exchange.delivered) == body
    await settle(exchange)
    assert await charged("output") == 500


async def test_usage_that_is_more_than_was_delivered_counts_also_where_it_is_not_the_last_word(
    make_limit: MakeLimit,
) -> None:
    exchange = await chat(make_limit(10_000))
    exchange.read(chunk(usage={"prompt_tokens": 30, "completion_tokens": 500}) + chunk())  # after a long thought
    exchange.cut("client_gone")
    assert (await settle(exchange))["output_tokens"] == 500


async def test_a_settlement_above_the_budget_is_charged(make_limit: MakeLimit, charged: Charged) -> None:
    exchange = await chat(make_limit(300))
    exchange.read(chunk() * 5 + FINISH + usage_chunk(250, 250) + DONE)
    exchange.end()
    await settle(exchange)
    assert await charged() == 500


# --- replies that are no streams


async def whole(
    limit: TokenLimit, document: object, content_type: str = JSON, dialect: Dialect | None = None
) -> Simulation:
    request = make_request("Hello, world", stream=False, dialect=dialect or OpenAIChat())
    exchange = await Simulation.admit(limit, request)
    exchange.start()
    exchange.respond(make_head(exchange.request, content_type))
    exchange.read(document if isinstance(document, bytes) else json.dumps(document).encode())
    exchange.end()
    return exchange


def message(content: str, **fields: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}], **fields}


async def test_a_whole_reply_counts_as_its_usage_says(make_limit: MakeLimit, charged: Charged) -> None:
    exchange = await whole(make_limit(), message("Hi", usage={"prompt_tokens": 9, "completion_tokens": 30}))
    assert exchange.outcome == COMPLETE
    facts = await settle(exchange)
    assert (facts["input_tokens"], facts["output_tokens"], facts["source"]) == (9, 30, "usage")
    assert await charged() == 39


@pytest.mark.parametrize(("tokenizer", "expected"), [("deltas", 100), ("o200k", 50)])
async def test_without_usage_it_counts_by_its_text(make_limit: MakeLimit, tokenizer: str, expected: int) -> None:
    exchange = await whole(make_limit(tokenizer=tokenizer), message("x" * 400))
    assert (await settle(exchange))["output_tokens"] == expected


@pytest.mark.parametrize("tokenizer", ["deltas", "o200k"])
async def test_thoughts_that_a_chunk_says_by_two_names_count_once(make_limit: MakeLimit, tokenizer: str) -> None:
    exchange = await chat(make_limit(tokenizer=tokenizer))
    thoughts = [" one", " two", " one"]
    for choice in (0, 1):
        for thought in thoughts:
            delta = {"reasoning": thought, "reasoning_content": thought, "content": None}
            exchange.read(chunk(choices=[{"index": choice, "delta": delta, "finish_reason": None}]))
    exchange.read(chunk(" one", choices=[{"index": 0, "delta": {"content": " one"}, "finish_reason": None}]))
    assert (await settle(exchange))["output_tokens"] == 2 * len(thoughts) + 1


async def test_thoughts_that_differ_all_count(make_limit: MakeLimit) -> None:
    exchange = await chat(make_limit())
    delta = {"reasoning": "x", "reasoning_content": "y", "content": "x"}
    exchange.read(chunk(choices=[{"index": 0, "delta": delta, "finish_reason": None}]))
    assert (await settle(exchange))["output_tokens"] == 3


async def test_thoughts_of_a_whole_reply_by_two_names_count_once(make_limit: MakeLimit) -> None:
    said = {"content": "x" * 80, "reasoning": "y" * 80, "reasoning_content": "y" * 80}
    exchange = await whole(make_limit(), {"choices": [{"index": 0, "message": said}]})
    assert (await settle(exchange))["output_tokens"] == 40


async def test_what_a_whole_reply_says_twice_counts_once(make_limit: MakeLimit) -> None:
    said = {"content": "x" * 400}
    exchange = await whole(make_limit(), {"choices": [{"index": 0, "delta": said, "message": said}]})
    assert (await settle(exchange))["output_tokens"] == 100


@pytest.mark.parametrize("on_exhausted", ["cut", "pace"])
async def test_a_whole_reply_over_the_budget_is_kept_from_the_client(
    make_limit: MakeLimit, charged: Charged, on_exhausted: str
) -> None:
    limit = make_limit(1000, on_exhausted=on_exhausted)
    exchange = await whole(limit, message("Hi", usage={"prompt_tokens": 9, "completion_tokens": 1001}))
    while exchange.outcome is None:
        await exchange.run_spawned()
    assert exchange.outcome == CUT
    assert exchange.delivered == []
    facts = await settle(exchange)
    assert (facts["output_tokens"], facts["cut"]) == (1001, 1)  # the model has written them
    assert await charged() == facts["input_tokens"] + 1001


@pytest.mark.parametrize(("completion_tokens", "when"), [(100, "later"), (300, "never")])
async def test_the_429_in_its_place_says_when_to_come_again(
    make_limit: MakeLimit, completion_tokens: int, when: str
) -> None:
    limit = make_limit(100, window_s=60, what="output")
    used = await whole(limit, message("Hi", usage={"prompt_tokens": 9, "completion_tokens": 60}))
    await settle(used)
    exchange = await whole(limit, message("Hi", usage={"prompt_tokens": 9, "completion_tokens": completion_tokens}))
    while exchange.outcome is None:
        await exchange.run_spawned()
    assert exchange.chain.ended is not None
    headers = exchange.chain.ended.headers
    assert headers is not None
    assert headers["RateLimit-Policy"] == '"token_limit-output-60s";q=100;qu="tokens";w=60'
    assert headers["RateLimit"].startswith('"token_limit-output-60s";r=')
    if when == "later":
        assert 60 <= int(headers["Retry-After"]) <= 120
    else:
        assert (headers["X-Should-Retry"], "Retry-After" in headers) == ("false", False)


async def test_paced_a_whole_reply_waits_for_its_room(make_limit: MakeLimit, host: FakeHost) -> None:
    host.now = 1200.0
    limit = make_limit(100, window_s=60, what="output", on_exhausted="pace")
    first = await whole(limit, message("Hi", usage={"prompt_tokens": 9, "completion_tokens": 90}))
    await first.run_spawned()
    assert first.outcome == COMPLETE
    await settle(first)
    host.now += 30.0
    second = await whole(limit, message("Hi", usage={"prompt_tokens": 9, "completion_tokens": 50}))
    for _ in range(400):
        await second.run_spawned()
        second.advance(0.25)
        host.now = second.now
    assert second.outcome == COMPLETE
    assert second.now > 1200.0 + 60.0


async def test_usage_in_a_whole_reply_is_never_hidden(make_limit: MakeLimit) -> None:
    request = make_request(dialect=OpenAIChat())  # a stream was asked for
    exchange = await Simulation.admit(make_limit(), request)
    exchange.start()
    exchange.respond(make_head(request, JSON))
    body = json.dumps(message("Hi", usage={"prompt_tokens": 9, "completion_tokens": 1})).encode()
    exchange.read(body)
    exchange.end()
    assert joined(exchange.delivered) == body


async def test_embeddings_have_no_output(make_limit: MakeLimit) -> None:
    document = {"object": "list", "data": [{"embedding": "x" * 8000}], "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    exchange = await whole(make_limit(), document, dialect=make_request().dialect)
    facts = await settle(exchange)
    assert (facts["input_tokens"], facts["output_tokens"], facts["source"]) == (7, 0, "usage")


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [("audio/mpeg", b"\xff" * 400, 100), ("text/plain", b"x" * 400, 100), ("application/json", b"[" * 400, 100)],
)
async def test_what_has_no_known_shape_counts_by_its_size(
    make_limit: MakeLimit, content_type: str, body: bytes, expected: int
) -> None:
    exchange = await whole(make_limit(), body, content_type)
    assert joined(exchange.delivered) == body
    assert (await settle(exchange))["output_tokens"] == expected


async def test_a_head_without_a_body(make_limit: MakeLimit) -> None:
    exchange = await Simulation.admit(make_limit(), make_request())
    exchange.start()
    exchange.respond(ResponseHead(204))
    exchange.end()
    assert (await settle(exchange))["output_tokens"] == 0
