"""Replies that the model server keeps: each of their tokens is charged once, however often they are handed out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from policies.token_limit import TokenLimit
from policies.token_limit.kept import REMEMBERED_S, Kept
from proxy.dialects.openai_responses import OpenAIResponses
from proxy.errors import StateError
from proxy.messages import Reply, Request
from proxy.simulation import JSON, SSE, make_head
from proxy.state import Grant, Level, Short, Window
from proxy.state_memory import MemoryStore
from proxy.testing import FakeHost, Simulation, make_request

MakeLimit = Callable[..., TokenLimit]
Charged = Callable[..., Awaitable[int]]
MakeBank = Callable[..., Any]
Document = dict[str, Any]

ID = "resp_0123abc"
PROMPT = 3  # is estimated for what `ask` asks
STATED = {"input_tokens": 20, "output_tokens": 50, "total_tokens": 70}
WORDS = 50
"""Of which each has an event, with the sequence numbers from 2 on."""


class Down(MemoryStore):
    """Has no answer to questions while it is `down`."""

    down = True

    async def take(self, key: str, windows: Sequence[Window], amount: int) -> Grant | Short:
        if self.down:
            raise StateError("down")
        return await super().take(key, windows, amount)

    async def levels(self, key: str, windows: Sequence[Window]) -> list[Level]:
        if self.down:
            raise StateError("down")
        return await super().levels(key, windows)


# --- what is remembered


async def settled(bank: Any, kept: Kept, *used: int) -> None:
    await kept.settle(bank.account(), *used)
    await bank.host.run_spawned()


@pytest.fixture
def bank(make_bank: MakeBank) -> Any:
    return make_bank({"what": "input"}, {"what": "output"})


async def test_what_was_charged_is_known_the_next_time(bank: Any) -> None:
    await settled(bank, Kept(bank.host, ID), 7, 40)
    again, another = Kept(bank.host, ID), Kept(bank.host, "resp_456")
    for kept in (again, another):
        await kept.look()
    assert (again.input_tokens, again.output_tokens) == (7, 40)
    assert again.beyond(5, 45) == (0, 5)
    assert another.beyond(5, 45) == (5, 45)
    assert (await bank.charged("input"), await bank.charged("output")) == (7, 40)


async def test_only_what_is_new_is_charged(bank: Any) -> None:
    for used in ((7, 0), (5, 40), (9, 40), (9, 30), (9, 60)):
        kept = Kept(bank.host, ID)
        await kept.look()
        await settled(bank, kept, *used)
    assert (await bank.charged("input"), await bank.charged("output")) == (9, 60)


async def test_of_exchanges_that_end_together_one_is_charged(bank: Any) -> None:
    asked = [Kept(bank.host, ID) for _ in range(5)]
    for kept in asked:
        await kept.look()
    await asyncio.gather(
        *(kept.settle(bank.account(), 7, tokens) for kept, tokens in zip(asked, (40, 30, 50, 50, 40), strict=True))
    )
    await bank.host.run_spawned()
    assert (await bank.charged("input"), await bank.charged("output")) == (7, 50)


async def test_it_is_remembered_for_a_day_at_least(bank: Any) -> None:
    await settled(bank, Kept(bank.host, ID), 7, 4000)
    bank.host.now += REMEMBERED_S / 2
    kept = Kept(bank.host, ID)
    await kept.look()
    assert kept.output_tokens == 4000
    bank.host.now += 2 * REMEMBERED_S
    await kept.look()
    assert (kept.input_tokens, kept.output_tokens) == (0, 0)


async def test_what_the_store_cannot_tell_is_charged(bank: Any) -> None:
    bank.host.state = store = Down(clock=bank.host.clock)
    await settled(bank, Kept(bank.host, ID), 7, 40)
    store.down = False
    assert (await bank.charged("input"), await bank.charged("output")) == (7, 40)
    assert not bank.hands


# --- exchanges


def response(status: str, words: int = 0, **more: Any) -> Document:
    text = "x" * words
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    said = {"id": ID, "object": "response", "status": status, "background": True, "usage": None}
    return {**said, "output": [message] if words else [], "instructions": "Say x.", **more}


QUEUED, RUNNING, DONE = response("queued"), response("in_progress"), response("completed", WORDS, usage=STATED)


def event(type: str, number: int, **said: Any) -> bytes:
    document = {"type": f"response.{type}", "sequence_number": number, **said}
    return b"event: response.%s\ndata: %s\n\n" % (type.encode(), json.dumps(document).encode())


EVENTS = [
    event("created", 0, response=QUEUED),
    event("in_progress", 1, response=RUNNING),
    *(
        event("output_text.delta", 2 + number, item_id="msg_1", output_index=0, content_index=0, delta="x")
        for number in range(WORDS)
    ),
    event("completed", 2 + WORDS, response=DONE),
]


def ask(*, stream: bool = False) -> Request:
    request = make_request(stream=stream, path="/v1/responses", dialect=OpenAIResponses())
    request.replace_body(json.dumps({"input": "Hello, world", "background": True, "stream": stream}).encode())
    return request


def ask_again(query: str = "", *, method: str = "GET", more: str = "") -> Request:
    request = make_request(method=method, path=f"/v1/responses/{ID}{more}", dialect=OpenAIResponses())
    request.query, request.body = query, None if method == "GET" else b"{}"
    return request


async def spawned(limit: TokenLimit, exchange: Simulation) -> None:
    """What was spawned is done, and what that spawns."""
    host = limit.host
    assert isinstance(host, FakeHost)
    while host._spawned:
        await exchange.run_spawned()
        await host.run_spawned()


async def exchange(limit: TokenLimit, request: Request, *said: bytes | Document, status: int = 200) -> Document:
    """With this reply, or as much of a stream as the client stays for: what the log is told."""
    exchange = await Simulation.admit(limit, request)
    exchange.start()
    exchange.respond(make_head(request, JSON if isinstance(said[0], dict) else SSE, status=status))
    for piece in said:
        exchange.read(json.dumps(piece).encode() if isinstance(piece, dict) else piece)
        await spawned(limit, exchange)
    if said[-1] == EVENTS[-1] or isinstance(said[0], dict):
        exchange.end()
        await spawned(limit, exchange)
    facts = dict(exchange.close())
    await spawned(limit, exchange)
    return {**facts, "delivered": len(exchange.delivered)}


async def test_a_finished_response_is_charged_once_however_often_it_is_polled(
    make_limit: MakeLimit, charged: Charged
) -> None:
    limit = make_limit()
    assert (await exchange(limit, ask(), QUEUED))["output_tokens"] == 0
    assert await charged() == PROMPT
    for _ in range(3):
        await exchange(limit, ask_again(), RUNNING)
    assert await charged() == PROMPT
    first = await exchange(limit, ask_again(), DONE)
    assert (first["input_tokens"], first["output_tokens"], first["source"]) == (20 - PROMPT, 50, "usage")
    assert await charged() == 70
    for _ in range(5):
        again = await exchange(limit, ask_again(), DONE)
        assert (again["input_tokens"], again["output_tokens"], again["delivered"]) == (0, 0, 1)
    assert await charged() == 70


@pytest.mark.parametrize("query", ["stream=true", "stream=true&starting_after=1"])
async def test_a_stream_is_charged_as_it_is_delivered_and_no_second_time(
    make_limit: MakeLimit, charged: Charged, query: str
) -> None:
    limit = make_limit()
    await exchange(limit, ask(), QUEUED)
    events = EVENTS if "after" not in query else EVENTS[2:]
    await exchange(limit, ask_again(query), *events[:-1])  # and leaves
    assert await charged() == PROMPT + WORDS
    for said in (events, EVENTS[2:], [DONE]):
        await exchange(limit, ask_again(query if isinstance(said[0], bytes) else ""), *said)
        assert await charged() == 70


async def test_who_resumes_a_stream_pays_for_the_rest_of_it(make_limit: MakeLimit, charged: Charged) -> None:
    limit = make_limit()
    await exchange(limit, ask(stream=True), *EVENTS[:22])
    assert await charged() == PROMPT + 20
    resumed = await exchange(limit, ask_again("stream=true&starting_after=21"), *EVENTS[22:32])
    assert resumed["output_tokens"] == 10
    assert await charged() == PROMPT + 30
    await exchange(limit, ask_again("stream=true&starting_after=31"), *EVENTS[32:])
    assert await charged() == 70


async def test_a_stream_that_broke_off_and_is_polled_is_not_charged_twice(
    make_limit: MakeLimit, charged: Charged
) -> None:
    limit = make_limit()
    await exchange(limit, ask(stream=True), *EVENTS[:22])
    polled = await exchange(limit, ask_again(), DONE)
    assert polled["output_tokens"] == 30
    assert await charged() == 70


async def test_a_stream_that_was_seen_to_its_end_costs_nothing_afterwards(
    make_limit: MakeLimit, charged: Charged
) -> None:
    limit = make_limit()
    await exchange(limit, ask(stream=True), *EVENTS)
    await exchange(limit, ask_again(), DONE)
    await exchange(limit, ask_again("stream=true"), *EVENTS)
    assert await charged() == 70


async def test_a_response_that_was_not_written_in_the_background_was_charged_with_its_request(
    make_limit: MakeLimit, charged: Charged
) -> None:
    for background in (False, None):
        facts = await exchange(make_limit(), ask_again(), {**DONE, "background": background})
        assert (facts["input_tokens"], facts["output_tokens"]) == (0, 0)
    assert await charged() == 0


async def test_to_cancel_and_to_delete_costs_nothing(make_limit: MakeLimit, charged: Charged) -> None:
    limit = make_limit()
    await exchange(limit, ask_again(method="POST", more="/cancel"), response("cancelled"))
    await exchange(limit, ask_again(method="DELETE"), {"id": ID, "object": "response", "deleted": True})
    await exchange(limit, ask_again(), {"error": {"message": "no such response"}}, status=404)
    assert await charged() == 0


async def test_a_stream_is_cut_where_the_budget_ends_and_goes_on_from_there(
    make_limit: MakeLimit, charged: Charged
) -> None:
    limit = make_limit(30, what="output")
    await exchange(limit, ask(), QUEUED)
    facts = await exchange(limit, ask_again("stream=true"), *EVENTS)
    assert (facts["output_tokens"], facts["cut"]) == (30, 1)
    more = make_limit(40, what="output")
    facts = await exchange(more, ask_again("stream=true"), *EVENTS)
    assert (facts["output_tokens"], facts["cut"]) == (10, 1)
    assert await charged("output") == 40


async def test_what_is_polled_beyond_the_budget_is_withheld_and_charged_and_comes_the_next_time(
    make_limit: MakeLimit, charged: Charged
) -> None:
    limit = make_limit(30, what="output")
    facts = await exchange(limit, ask_again(), DONE)
    assert (facts["cut"], facts["delivered"]) == (1, 0)
    assert await charged("output") == 50
    facts = await exchange(limit, ask_again(), DONE)
    assert (facts["output_tokens"], facts["delivered"]) == (0, 1)
    assert await charged("output") == 50


async def test_asking_whether_it_is_done_needs_no_room(make_limit: MakeLimit) -> None:
    limit = make_limit(1, what="input")
    assert isinstance(await limit.admit(ask()), Reply)
    assert (await exchange(limit, ask_again(), RUNNING))["delivered"] == 1
    assert not limit._hands


@pytest.mark.parametrize("on_state_error", ["refuse", "allow"])
async def test_a_store_that_is_down(make_limit: MakeLimit, host: FakeHost, on_state_error: str) -> None:
    limit = make_limit(on_state_error=on_state_error)
    host.state = Down(clock=host.clock)
    if on_state_error == "refuse":
        answer = await limit.admit(ask_again())
        assert isinstance(answer, Reply)
        assert answer.details == "state_unavailable"
    else:
        assert (await exchange(limit, ask_again(), DONE))["delivered"] == 1
        assert host.counts[("tokens", "output")] == 50
    assert host.counts[("state_errors",)] >= 1
