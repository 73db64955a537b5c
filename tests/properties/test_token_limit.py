"""However many streams share a budget, and however their events, the store's answers and their ends fall: the tokens that are
delivered never exceed the budget, in the configured counter; and when all have ended, just what was used is charged.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.token_limit import TokenLimit, TokenLimitConfig
from proxy import state
from proxy.dialects.base import Parsed
from proxy.dialects.openai_chat import OpenAIChat
from proxy.errors import COMPLETE
from proxy.policy import PolicyStream
from proxy.state import Window
from proxy.testing import FakeHost, Simulation, joined, make_head, make_request, sse, texts
from proxy.tokens import Tokenizer, counter

WORDS = st.sampled_from(
    ["x", " and", "\n\n", " antidisestablishmentarianism", "日本", "0.5", " one two three four five"]
)
BATCHES = st.lists(WORDS, min_size=1, max_size=30)
ENDS = st.sampled_from(["end", "client_gone", "upstream_reset", "deadline", "shutdown"])
STEPS = st.lists(
    st.tuples(
        st.integers(0, 4),  # which stream
        st.one_of(BATCHES, BATCHES, BATCHES, ENDS, st.just("admit")),
        st.integers(0, 3),  # how many answers of the store it gets then
    ),
    min_size=25,  # or examples are short, and no budget is ever used up
    max_size=60,
)


class World:
    """Streams under one policy; the store answers a stream's question when it is that step's turn."""

    def __init__(self, limit: int, what: str, tokenizer: Tokenizer, lease_tokens: int, on_exhausted: str) -> None:
        windows: list[dict[str, Any]] = [{"tokens": limit, "window_s": "total", "what": what}]
        if what != "input":
            windows.append({"tokens": 10**6, "window_s": "total", "what": "input"})
        config = TokenLimitConfig.model_validate(
            {
                "per": "all",
                "windows": tuple(windows),
                "tokenizer": tokenizer,
                "lease_tokens": lease_tokens,
                "on_exhausted": on_exhausted,
            }
        )
        self.limit = limit
        self.what = what
        self.host = FakeHost("token_limit")
        self.policy = TokenLimit(config, self.host)
        self.counter = counter(tokenizer)
        self.open: dict[int, Simulation] = {}
        self.used = 0  # by those that have ended
        self.cuts = 0

    async def step(self, number: int, action: str | list[str], answers: int) -> None:
        exchange = self.open.get(number)
        if exchange is None:
            if action == "admit":
                await self._admit(number)
        elif isinstance(action, list):
            exchange.read(sse(*action))
            for _ in range(answers):
                await exchange.run_spawned()
        elif action != "admit":
            if action == "end":
                exchange.end()
            else:
                exchange.cut(action)
            self._leave(number)
        for number, other in list(self.open.items()):
            if other.outcome is not None:
                self.cuts += 1
                self._leave(number)

    async def _admit(self, number: int) -> None:
        request = make_request("Hi")
        stream = await self.policy.admit(request)
        if isinstance(stream, PolicyStream):
            exchange = self.open[number] = Simulation(self.policy, stream, request)
            exchange.start()
            exchange.respond()

    def _leave(self, number: int) -> None:
        exchange = self.open.pop(number)
        facts = exchange.close()
        assert facts["output_tokens"] == self._delivered(exchange)
        self.used += self._tokens(int(facts["input_tokens"]), self._delivered(exchange))

    def _delivered(self, exchange: Simulation) -> int:
        """Counted anew, from what the client got; the ending is the proxy's."""
        said = [event for event in exchange.delivered if b'"code"' not in event.raw]
        if self.policy.config.tokenizer == "deltas":
            return len(said)
        return sum(self.counter.estimate([text]) for text in texts(said).values())

    def _tokens(self, prompt: int, output: int) -> int:
        return (prompt if self.what != "output" else 0) + (output if self.what != "input" else 0)

    def check(self) -> None:
        running = sum(self._tokens(0, self._delivered(exchange)) for exchange in self.open.values())
        assert self.used + running <= self.limit

    async def charged(self) -> int:
        (level,) = await self.host.state.levels(state.key("token_limit", self.what, "all"), [Window(state.MOST, None)])
        return state.MOST - level.remaining


@settings(deadline=None)
@given(
    limit=st.integers(1, 150),
    what=st.sampled_from(["output", "both"]),
    tokenizer=st.sampled_from(["deltas", "o200k"]),
    lease_tokens=st.sampled_from([1, 8, 64, 256]),
    on_exhausted=st.sampled_from(["cut", "pace"]),
    steps=STEPS,
)
def test_never_over_and_nothing_is_lost(
    limit: int, what: str, tokenizer: Tokenizer, lease_tokens: int, on_exhausted: str, steps: list[Any]
) -> None:
    async def play() -> None:
        world = World(limit, what, tokenizer, lease_tokens, on_exhausted)
        for number in range(3):
            await world.step(number, "admit", 0)
        for step in steps:
            await world.step(*step)
            world.check()
        for number in list(world.open):
            await world.step(number, "client_gone", 0)
        world.check()
        await world.host.run_spawned()
        for work, _ in world.host._spawned:  # what streams that have gone had asked for
            await work
        assert await world.charged() == world.used

    asyncio.run(play())


@settings(deadline=None, max_examples=30)
@given(
    limit=st.integers(50, 2000),
    streams=st.integers(1, 12),
    batch=st.integers(1, 40),
    lease=st.sampled_from([16, 64, 256]),
)
def test_streams_that_want_more_than_there_is_use_it_all(limit: int, streams: int, batch: int, lease: int) -> None:
    """The last token of a budget is delivered, not lost between leases; and the store is asked but seldom while there is
    enough for all."""

    async def play() -> None:
        world = World(limit, "output", "deltas", lease, "cut")
        for number in range(streams):
            await world.step(number, "admit", 0)
        assert len(world.open) == streams
        while world.open:
            for number in list(world.open):
                await world.step(number, ["x"] * batch, 1)
                world.check()
        await world.host.run_spawned()
        assert world.used == limit
        assert await world.charged() == limit
        assert world.cuts == streams

    asyncio.run(play())


USAGES = ("usage", "alone", "null")


def chunk(text: str, beside: str) -> bytes:
    """A chunk that has nothing but a text, or something `beside` it."""
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": "stop" if beside == "end" else None}]
    usage = {"prompt_tokens": 3, "completion_tokens": 5}
    stated = {"usage": {"usage": usage, "alone": usage, "null": None}[beside]} if beside in USAGES else {}
    document = {"id": "a", "choices": [] if beside == "alone" else choices, **stated}
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def one_by_one(
    raws: Sequence[bytes], tokenizer: Tokenizer, *, alike: bool
) -> tuple[list[bytes], Mapping[str, int | str]]:
    """What goes out for each event, and the facts. Not `alike`: it is not known which differ in their texts alone."""
    request = make_request("Hi", dialect=OpenAIChat(), stream=True)
    config = TokenLimitConfig.model_validate(
        {
            "per": "all",
            "windows": ({"tokens": 10**6, "window_s": "total"},),
            "lease_tokens": 10**5,
            "tokenizer": tokenizer,
        }
    )
    host = FakeHost("token_limit")
    stream = asyncio.run(TokenLimit(config, host).admit(request))
    head = make_head(request)
    assert isinstance(stream, PolicyStream)
    assert head.stream is not None
    stream.on_start(0.0)
    stream.on_response(head)
    out = []
    for raw in raws:
        event = head.stream.event(raw)
        if not alike:
            read = event.parsed
            event.read = Parsed(read.deltas, read.ends, read.usage, read.choices, read.known, read.mirrored)
        verdict = stream.on_events([event], 0.0)
        assert isinstance(verdict, list)
        out.append(joined(verdict))
    stream.close(COMPLETE)
    asyncio.run(host.run_spawned())
    return out, stream.facts()


ALIKE = st.lists(
    st.tuples(st.sampled_from(["", "", "end", *USAGES]), st.lists(WORDS | st.just("usage") | st.just(""), min_size=1))
)


@given(runs=ALIKE, tokenizer=st.sampled_from(("deltas", "o200k")))
@settings(deadline=None)
def test_events_that_differ_in_their_text_alone_count_as_if_each_were_looked_at(
    runs: list[tuple[str, list[str]]], tokenizer: Tokenizer
) -> None:
    raws = [chunk(text, beside) for beside, said in runs for text in said]
    assert one_by_one(raws, tokenizer, alike=True) == one_by_one(raws, tokenizer, alike=False)
