"""For authors of policies: build what a policy is given, run it in simulated time, hold it to the contract. Public.

    async def test_a_silent_stream_gets_a_comment():
        exchange = await Simulation.admit(Heartbeat(HeartbeatConfig(interval_s=15.0), FakeHost()))
        exchange.start()
        exchange.respond()
        exchange.read(sse("Hello"))
        assert joined(exchange.advance(15.0)) == b": keep-alive\n\n"

    async def test_it_keeps_the_contract():
        await check_policy(lambda host: Heartbeat(HeartbeatConfig(), host))

What `check_policy` finds wrong it raises as an AssertionError with a sentence, whatever the test framework.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .dialects.base import Channel
from .errors import COMPLETE, Outcome, OutcomeKind
from .messages import Request, ResponseHead
from .policy import Encoder, Host, Policy, PolicyStream, Sees
from .simulation import JSON, SSE, FakeHost, Simulation, joined, make_head, make_request, sse, texts

__all__ = ["SAMPLE", "FakeHost", "Simulation", "check_policy", "joined", "make_head", "make_request", "sse", "texts"]

SAMPLE = 3 * (
    "Zanzibar-4711 wrote to ann@example.org on 2024-02-30: “naïve café”, then 4111 1111 1111 1111.\r\n\n"
    '```json\n{"a\\u0041": [1, 2.50]}\n```\n\tA family \U0001f468\u200d\U0001f469\u200d\U0001f467, a flag '
    "\U0001f1e9\U0001f1ea, 日本語, and e\u0301 in two. <b>data: [DONE]</b>\n\n"
)
"""A text such as models write, of all that is easily cut in the wrong place."""

_IN_REQUEST, _IN_REPLY = "Quito-1147", "Zanzibar-4711"  # content, to be recognised where it must not be
_HOOKS = [name for name in vars(PolicyStream) if name.startswith("on_")]
_NEEDS = {"on_events": Sees.EVENTS, "on_activity": Sees.ACTIVITY, "on_reading": Sees.ACTIVITY}
_CUTS = ("upstream_truncated", "upstream_reset", "upstream_garbage", "client_gone", "deadline", "shutdown", "stopped")
_DONE = b"data: [DONE]\n\n"
_STRANGE_EVENTS = (
    b": a comment\n\n",
    b"\n\n",
    b"data:\n\n",
    b"data: null\n\n",
    b'data: {"text": "bro\n\n',
    b'data: {"text": 7}\n\n',
    b'data: {"text": ""}\n\n',
    b"event: x\ndata: [1\ndata: ,2]\n\n",
    b"data: \xff\xfe\n\n",
    b"data: %s\n\n" % (b"[" * 2000),
)
_STRANGE_HEADS = ((200, ""), (200, "text/plain"), (200, "application/x-ndjson"), (204, ""), (304, SSE), (500, JSON))
_GAP_S = 0.02
_SILENCE_S = 3600.0
_MOST_WAITS = 1000

_Cuttable = TypeVar("_Cuttable", str, bytes)


async def check_policy(
    make: Callable[[Host], Policy[Any]],
    *,
    request: Callable[[str], Request] = make_request,
    text: str = SAMPLE,
    expected: Callable[[str], str] | None = None,
    rounds: int = 20,
    seed: int = 0,
) -> None:
    """Hold the policies that `make` makes to the contract. Raises AssertionError with what they break.

    `request` makes a request that is admitted, with a given text in it. `expected` says what becomes of a text of the
    model's; without it all that counts is that the cuts do not matter. Configure the policy so that it lets `text` end
    by itself, where what it delivers of a longer one depends on how that is cut.

    - However a text is cut into events and the events into reads, the same is delivered; also of a whole reply.
    - However an exchange ends, and whenever, `close` comes once, nothing raises, and no pause lasts for ever.
    - A hook that raises ends the stream, and the outcome names the policy.
    - Streams of one policy know nothing of each other.
    - Strange events and heads are no reason to raise.
    - `facts` are numbers and the policy's own words, nothing of the request or the reply.
    - Hooks have the contract's names, and `sees` lets them be called; a policy that may be bypassed changes no event.
    """
    check = _Check(make, request, random.Random(seed))  # noqa: S311 - not for secrets
    if isinstance(await make(FakeHost()).admit(request(_IN_REQUEST)), Encoder):
        await check.encoder(text)
        return
    await check.hooks()
    await check.cuts(text, expected, rounds)
    await check.ends(text)
    await check.failures(text)
    await check.isolation(text)
    await check.strange()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


class _Run(NamedTuple):
    """What one exchange came to."""

    texts: dict[Channel, str]
    outcome: Outcome
    facts: dict[str, int | str]


class _Watched(Simulation):
    """A simulation that counts the calls of `close`."""

    def __init__(self, policy: Policy[Any], stream: PolicyStream, request: Request) -> None:
        super().__init__(policy, stream, request)
        self.closed = 0
        close = stream.close

        def count(outcome: Outcome) -> None:
            self.closed += 1
            close(outcome)

        stream.close = count  # type: ignore[method-assign]  # of this one stream, whatever its class


class _Check:
    """The checks of one call of `check_policy`."""

    def __init__(
        self, make: Callable[[Host], Policy[Any]], request: Callable[[str], Request], dice: random.Random
    ) -> None:
        self._make = make
        self._request = request
        self._dice = dice

    # The checks

    async def hooks(self) -> None:
        exchange = await self._admit()
        for name in dir(type(exchange.stream)):
            if name.startswith("on_") and name not in _HOOKS:
                nearest = get_close_matches(name, _HOOKS, 1)
                raise AssertionError(f"{name} is not a hook" + (f"; is {nearest[0]} meant?" if nearest else ""))
        for name, needed in _NEEDS.items():
            idle = _overrides(exchange.stream, name) and exchange.policy.sees < needed
            _require(not idle, f"{name} is never called: `sees` is {exchange.policy.sees.name}, not {needed.name}")
        await self._finish(exchange, COMPLETE)

    async def cuts(self, text: str, expected: Callable[[str], str] | None, rounds: int) -> None:
        body = sse(text) + _DONE
        reference = await self._play([body])
        if expected is not None:
            delivered = "".join(reference.texts.values())
            _require(delivered == expected(text), "what is delivered is not what is expected of the text")
        for _ in range(rounds):
            body = sse(*self._cut(text)) + _DONE
            run = await self._play(self._cut(body))
            _require(run.texts == reference.texts, "what is delivered depends on how the text is cut")
            _require(run.outcome == reference.outcome, "the outcome depends on how the text is cut")
        whole = await self._play(self._cut(json.dumps({"text": text}).encode()), JSON)
        if whole.outcome == reference.outcome == COMPLETE:
            _require(whole.texts == reference.texts, "a whole reply is delivered differently from a stream")

    async def ends(self, text: str) -> None:
        body = sse(*self._cut(text))
        for end in ("", *_CUTS):
            for reached in range(5):
                exchange = await self._admit()
                steps: list[Callable[[], object]] = [exchange.start, exchange.respond]
                steps += [partial(exchange.read, body), partial(exchange.advance, _SILENCE_S)]
                for step in steps[:reached]:
                    step()
                    await exchange.run_spawned()
                if reached:
                    await self._end(exchange, end)
                await self._finish(
                    exchange, exchange.outcome or Outcome(OutcomeKind.REFUSED, "parser", "body_too_large")
                )
        exchange = await self._admit()
        exchange.start()
        exchange.respond(ResponseHead(429, local=True))
        await self._finish(exchange, Outcome(OutcomeKind.REFUSED, "caps", "too_many_requests"))

    async def failures(self, text: str) -> None:
        for name in _HOOKS:
            policy, request = self._make(FakeHost()), self._request(_IN_REQUEST)
            stream = (await Simulation.admit(policy, request)).stream
            if not _overrides(stream, name):
                continue
            raised: list[str] = []

            def fail(*_: object, name: str = name, raised: list[str] = raised) -> None:
                raised.append(name)
                raise RuntimeError("on purpose")

            setattr(stream, name, fail)
            exchange = _Watched(policy, stream, request)
            run = await self._run(exchange, [sse(text)], end="upstream_reset" if name == "on_cut" else "", faulty=True)
            if raised and name != "on_cut":  # which only the end of the stream calls
                blamed = run.outcome.kind is OutcomeKind.POLICY_ERROR and run.outcome.source == policy.host.name
                _require(blamed, f"an error in {name} does not end the stream")

    async def isolation(self, text: str) -> None:
        replies = [self._cut(sse(*self._cut(said)) + _DONE) for said in (text, text[::-1])]
        alone = [await self._run(await self._admit(), reply) for reply in replies]
        policy = self._make(FakeHost())
        pair = [await self._admit(policy) for _ in replies]
        together = await asyncio.gather(*map(self._run, pair, replies))
        _require(list(together) == alone, "two streams of one policy depend on each other")

    async def strange(self) -> None:
        for event in _STRANGE_EVENTS:
            await self._play([event])
        for status, content_type in _STRANGE_HEADS:
            exchange = await self._admit()
            await self._run(exchange, [b"?"], make_head(exchange.request, content_type, status=status))

    async def encoder(self, text: str) -> None:
        batches = self._cut(sse(*self._cut(text)))
        alone = await self._encode(self._make(FakeHost()), batches)
        policy = self._make(FakeHost())
        together = await asyncio.gather(self._encode(policy, batches), self._encode(policy, batches[::-1]))
        _require(together[0] == alone, "two encoders of one policy depend on each other")
        unused = await self._admit_encoder(policy, self._request(_IN_REQUEST))
        unused.close(Outcome.of("client_gone"))
        _check_facts(unused.facts())

    # Their parts

    async def _admit(self, policy: Policy[Any] | None = None) -> _Watched:
        return await _Watched.admit(policy or self._make(FakeHost()), self._request(_IN_REQUEST))

    async def _admit_encoder(self, policy: Policy[Any], request: Request) -> Encoder:
        encoder = await policy.admit(request)
        if not isinstance(encoder, Encoder):
            raise AssertionError(f"admit gave {type(encoder).__name__}, not an Encoder")
        return encoder

    def _cut(self, whole: _Cuttable) -> list[_Cuttable]:
        cuts = min(self._dice.randrange(1, 40), len(whole) - 1)
        places: list[int] = sorted(self._dice.sample(range(1, len(whole)), cuts))
        return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]

    async def _play(self, reads: Sequence[bytes], content_type: str = SSE) -> _Run:
        exchange = await self._admit()
        return await self._run(exchange, reads, make_head(exchange.request, content_type))

    async def _run(
        self,
        exchange: _Watched,
        reads: Sequence[bytes],
        head: ResponseHead | None = None,
        *,
        end: str = "",
        faulty: bool = False,
    ) -> _Run:
        """From the start to `end`, with a moment between the reads."""
        exchange.start()
        answer = exchange.respond(head)
        for read in reads if answer is None else ():
            await self._until(exchange, lambda: not exchange.chain.paused)
            exchange.read(read)
            exchange.advance(_GAP_S)
            await exchange.run_spawned()
            await asyncio.sleep(0)  # the other exchange's turn
        if answer is None:
            await self._end(exchange, end)
        answered = "" if answer is None else answer.details
        ended = exchange.outcome or Outcome.of(answered, exchange.policy.host.name)
        facts = await self._finish(exchange, ended, faulty=faulty)
        if exchange.policy.may_bypass and not faulty and answer is None:
            kept = iter(joined(exchange.delivered).splitlines())
            sent = b"".join(reads).splitlines()
            _require(all(line in kept for line in sent), "a policy that may be bypassed changed or held back an event")
        return _Run(texts(exchange.delivered), ended, facts)

    async def _end(self, exchange: _Watched, end: str) -> None:
        exchange.reading(False)
        exchange.reading(True)
        if end:
            exchange.cut(end)
        else:
            exchange.end()
        await self._until(exchange, lambda: exchange.outcome is not None)

    async def _until(self, exchange: _Watched, condition: Callable[[], bool]) -> None:
        """Let time pass and work be done until a pause is over."""
        for _ in range(_MOST_WAITS):
            if condition():
                return
            await exchange.run_spawned()
            wake_at = exchange.chain.next_wake()
            if wake_at is not None:
                exchange.advance(max(0.0, wake_at - exchange.now))
        raise AssertionError("a pause lasts for ever")

    async def _finish(self, exchange: _Watched, outcome: Outcome, *, faulty: bool = False) -> dict[str, int | str]:
        exchange.close(outcome)
        await exchange.run_spawned()
        facts = dict(exchange.close(outcome))
        if exchange.chain.errors and not faulty:
            raise AssertionError(f"a hook raised before the end {outcome}") from exchange.chain.errors[0][1]
        _require(exchange.closed == 1, f"close was called {exchange.closed} times")
        _check_facts(facts)
        return facts

    async def _encode(self, policy: Policy[Any], batches: Sequence[bytes]) -> tuple[list[bytes], dict[str, int | str]]:
        request = self._request(_IN_REQUEST)
        encoder = await self._admit_encoder(policy, request)
        head = make_head(request, headers={"Content-Length": "1000000"})
        if not encoder.on_response(head, streaming=True):
            raise AssertionError("the request does not ask for a coded event stream")
        _require("Content-Encoding" in head.headers, "a coded reply has no Content-Encoding")
        _require("Content-Length" not in head.headers, "a coded reply keeps the Content-Length of the uncoded one")
        coded = []
        for batch in batches:
            coded.append(encoder.encode(batch, True))
            await asyncio.sleep(0)  # the other encoder's turn
        _require(all(coded), "a flush gave nothing")
        coded.append(encoder.finish())
        encoder.close(COMPLETE)
        _check_facts(encoder.facts())
        return coded, dict(encoder.facts())


def _overrides(stream: PolicyStream, hook: str) -> bool:
    return getattr(type(stream), hook) is not getattr(PolicyStream, hook)


def _check_facts(facts: Mapping[str, object]) -> None:
    for name, value in facts.items():
        _require(isinstance(value, int | str), f"the fact {name} is a {type(value).__name__}, not a number or a word")
        _require(
            not any(marker in f"{name} {value}" for marker in (_IN_REQUEST, _IN_REPLY)), f"the fact {name} is content"
        )
