"""The chain agrees with its rules (docs/chain.md), for whatever policies do and however events and time come.

Policies are scripts: what one does at an event depends on the event's letter. `Model` has the rules once more, as plainly
as they can be put, over strings; `Subject` is the real chain with the same scripts in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.chain import CLEAN_END, Chain, Link, Mark
from proxy.dialects.base import Call
from proxy.dialects.generic import Generic
from proxy.errors import COMPLETE, Outcome
from proxy.framing import Event
from proxy.messages import ResponseHead
from proxy.policy import Events, Pause, PolicyStream, Sees, Stage, Stop, Verdict

LETTERS = "abcdefgh"
INJECTED = "*000"
NO_TIME_LEFT = ("deadline", "client_gone")
LIMIT = 4  # events behind one pause


# What policies do


@dataclass(frozen=True)
class Script:
    """`acts` says what becomes of an event, by its letter; `tick` what the timer does every `period` seconds."""

    acts: dict[str, str]
    period: int = 0
    tick: str = "nothing"
    at_end: str = "release"
    at_cut: str = "nothing"
    pause_s: int = 1
    reason: str = "limit"
    bypass: bool = False


class Stopped(NamedTuple):
    reason: str
    last: list[str]


class Paused(NamedTuple):
    seconds: int
    passed: list[str]
    rest: list[str]


Decision = list[str] | Stopped | Paused


class FailedError(Exception):
    pass


class Actor:
    """Plays a script. Events are strings: a letter and a number that makes it one of a kind."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.wake_at: float | None = None
        self._held: list[str] = []
        self._paused_at: set[str] = set()

    def begin(self, now: float) -> None:
        self.wake_at = now + self.script.period if self.script.period else None

    def see(self, events: list[str]) -> Decision:
        out: list[str] = []
        for i, event in enumerate(events):
            act = self.script.acts.get(event[0], "pass")
            if act == "raise":
                raise FailedError
            if act == "stop":
                return Stopped(self.script.reason, out)
            if act == "pause" and event not in self._paused_at:
                self._paused_at.add(event)
                return Paused(self.script.pause_s, out, events[i:])
            if act == "release":
                out += self._release()
            if act == "hold" or self._held:
                self._held.append(event)
            elif act != "drop":
                out += [event] * (2 if act == "double" else 1)
        return out

    def tick(self, now: float) -> list[str] | Stopped:
        self.begin(now)
        if self.script.tick == "stop":
            return Stopped(self.script.reason, self._release())
        return [INJECTED] if self.script.tick == "inject" else self.last_word(self.script.tick)

    def last_word(self, what: str) -> list[str]:
        if what == "raise":
            raise FailedError
        return self._release() if what == "release" else []

    def _release(self) -> list[str]:
        released, self._held = self._held, []
        return released


# The rules, plainly

End = tuple[str, str]  # who ended the stream, and why
CLEAN: End = ("", "")


class Place:
    """Of one policy in the model. `queue` is None where it does not pause, `open` until the end has passed."""

    def __init__(self, name: str, script: Script) -> None:
        self.name = name
        self.actor = Actor(script)
        self.open = True
        self.failed = False
        self.queue: list[str] | None = None
        self.end_in_queue: End | None = None
        self.resume_at = 0.0


class Model:
    def __init__(self, scripts: Sequence[Script]) -> None:
        self.places = [Place(f"p{i}", script) for i, script in enumerate(scripts)]
        self.out: list[str] = []
        self.ended: End | None = None
        self._ending = False
        self._broken: End | None = None
        for place in self.places:
            place.actor.begin(0.0)

    @property
    def paused(self) -> bool:
        return any(place.queue is not None for place in self.places)

    def next_wake(self) -> float | None:
        times = [place.resume_at for place in self.places if place.queue is not None]
        times += [place.actor.wake_at or math.inf for place in self.places if place.open and not place.failed]
        return None if self.ended is not None or min(times, default=math.inf) == math.inf else min(times)

    # What happens to the chain

    def feed(self, events: list[str], now: float) -> None:
        if not self._ending:
            self._arrive(0, events, None, now)

    def finish(self, end: End, now: float) -> None:
        if self.ended is None and (not self._ending or end[1] in NO_TIME_LEFT):
            self._ending = True
            if end != CLEAN:
                self._broken = end
            passed = sum(not place.open for place in self.places)
            self._arrive(passed, [], end, now)

    def ring(self, now: float) -> None:
        for i, place in enumerate(self.places):
            if place.queue is not None and place.resume_at <= now:
                self._resume(i, now)
            if place.open and not place.failed and place.actor.wake_at is not None and place.actor.wake_at <= now:
                self._tick(i, now)

    def poke(self, i: int, now: float) -> None:
        if i >= len(self.places):
            return
        place = self.places[i]
        if place.open and not place.failed:
            self._tick(i, now)
        if place.queue is not None:
            self._resume(i, now)

    # What happens at a place

    def _arrive(self, i: int, events: list[str], end: End | None, now: float) -> None:
        """`events`, and then maybe `end`, come to place `i`."""
        if i == len(self.places):
            self.out += events
            self.ended = end
            return
        place = self.places[i]
        if place.queue is not None and end is not None and end[1] in NO_TIME_LEFT:
            place.queue, events = None, []
        if place.queue is not None:
            place.queue += events
            place.end_in_queue = end
            if len(place.queue) > LIMIT:
                self._stop(i, [], "pause_overflow", now)
        elif not events or place.failed:
            self._leave(i, events, end, now)
        else:
            try:
                decision = place.actor.see(events)
            except FailedError:
                self._fail(i, events, end, now)
            else:
                self._decide(i, decision, end, now)

    def _decide(self, i: int, decision: Decision, end: End | None, now: float) -> None:
        place = self.places[i]
        if isinstance(decision, Stopped):
            self._stop(i, decision.last, decision.reason, now)
        elif isinstance(decision, list):
            self._leave(i, decision, end, now)
        elif end is not None and end[1] in NO_TIME_LEFT:
            self._leave(i, decision.passed, end, now)
        else:
            place.queue, place.end_in_queue, place.resume_at = decision.rest, end, now + decision.seconds
            if len(decision.rest) > LIMIT:
                self._stop(i, decision.passed, "pause_overflow", now)
            else:
                self._arrive(i + 1, decision.passed, None, now)

    def _leave(self, i: int, events: list[str], end: End | None, now: float) -> None:
        """Place `i` has dealt with `events`, and the end comes to it, if it is there."""
        place = self.places[i]
        if end is not None:
            place.open = False
            script = place.actor.script
            try:
                if not place.failed:
                    events = events + place.actor.last_word(script.at_end if end == CLEAN else script.at_cut)
            except FailedError:
                place.failed = True
                if end == CLEAN and not script.bypass:
                    end = (place.name, "policy_error")
        self._arrive(i + 1, events, end, now)

    def _tick(self, i: int, now: float) -> None:
        try:
            decision = self.places[i].actor.tick(now)
        except FailedError:
            self._fail(i, [], None, now)
        else:
            self._decide(i, decision, None, now)

    def _resume(self, i: int, now: float) -> None:
        place = self.places[i]
        queue, place.queue = place.queue or [], None
        self._arrive(i, queue, place.end_in_queue, now)

    def _fail(self, i: int, events: list[str], end: End | None, now: float) -> None:
        place = self.places[i]
        place.failed = True
        if not place.actor.script.bypass:
            self._stop(i, [], "policy_error", now)
        elif place.queue is not None:
            self._resume(i, now)
        else:
            self._leave(i, events, end, now)

    def _stop(self, i: int, last: list[str], reason: str, now: float) -> None:
        self._ending = True
        for place in self.places[: i + 1]:
            place.open = False
            place.queue = None
        self._arrive(i + 1, last, self._broken or (self.places[i].name, reason), now)


# The real chain

TEXT = Generic().open(ResponseHead(200), Call())


def encoded(events: Sequence[str]) -> Events:
    return [Event(event.encode(), TEXT) for event in events]


def decoded(events: Events) -> list[str]:
    return [event.raw.decode() for event in events]


class Player(PolicyStream):
    """An actor on the real stage. `told` has a letter for each call."""

    def __init__(self, script: Script) -> None:
        self.told = ""
        self._actor = Actor(script)

    def on_start(self, now: float) -> None:
        self.told += "s"
        self._actor.begin(now)
        self.wake_at = self._actor.wake_at

    def on_events(self, events: Events, now: float) -> Verdict:
        self.told += "e"
        decision = self._actor.see(decoded(events))
        if isinstance(decision, Paused):
            return Pause(decision.seconds, encoded(decision.passed), encoded(decision.rest))
        return self._said(decision)

    def on_timer(self, now: float) -> Events | Stop:
        self.told += "t"
        decision = self._actor.tick(now)
        self.wake_at = self._actor.wake_at
        return self._said(decision)

    def on_end(self, now: float) -> Events:
        self.told += "E"
        return encoded(self._actor.last_word(self._actor.script.at_end))

    def on_cut(self, now: float) -> Events:
        self.told += "C"
        return encoded(self._actor.last_word(self._actor.script.at_cut))

    def close(self, outcome: Outcome) -> None:
        self.told += "."

    def _said(self, decision: list[str] | Stopped) -> Events | Stop:
        return (
            Stop(decision.reason, events=encoded(decision.last)) if isinstance(decision, Stopped) else encoded(decision)
        )


class Subject:
    """The real chain, with the model's interface."""

    def __init__(self, scripts: Sequence[Script], limit: int = LIMIT) -> None:
        self.players = [Player(script) for script in scripts]
        links = [
            Link(f"p{i}", Stage.TRANSFORM, Sees.EVENTS, player, bypass=scripts[i].bypass)
            for i, player in enumerate(self.players)
        ]
        self.chain = Chain(links, limit * len(INJECTED))
        self.out = decoded(self.chain.start(0.0))
        self.next_wake = self.chain.next_wake

    @property
    def paused(self) -> bool:
        return self.chain.paused

    @property
    def ended(self) -> End | None:
        mark = self.chain.ended
        return None if mark is None else (mark.outcome.source, mark.outcome.details)

    def feed(self, events: list[str], now: float) -> None:
        self.out += decoded(self.chain.feed(encoded(events), now))

    def finish(self, end: End, now: float) -> None:
        self.out += decoded(self.chain.finish(CLEAN_END if end == CLEAN else Mark.cut(end[1], end[0]), now))

    def ring(self, now: float) -> None:
        self.out += decoded(self.chain.timer(now))

    def poke(self, i: int, now: float) -> None:
        stream = self.players[i] if i < len(self.players) else PolicyStream()
        self.out += decoded(self.chain.poke(stream, now))


# What happens


class Fed(NamedTuple):
    letters: str


class Waited(NamedTuple):
    seconds: int


class Ended(NamedTuple):
    end: End


class Poked(NamedTuple):
    place: int


Step = Fed | Waited | Ended | Poked


def numbered(letters: str, first: int = 0) -> list[str]:
    return [f"{letter}{i:03}" for i, letter in enumerate(letters, first)]


def play(steps: Sequence[Step], *runs: Model | Subject) -> Iterator[float]:
    """Take all runs through the same steps, and through time; yields after each."""
    now, fed = 0.0, 0
    for step in steps:
        until = now + step.seconds if isinstance(step, Waited) else now
        while (wake_at := runs[0].next_wake()) is not None and wake_at <= until:
            now = max(now, wake_at)
            for run in runs:
                run.ring(now)
            yield now
        now = until
        for run in runs:
            if isinstance(step, Fed):
                run.feed(numbered(step.letters, fed), now)
            elif isinstance(step, Ended):
                run.finish(step.end, now)
            elif isinstance(step, Poked):
                run.poke(step.place, now)
        fed += len(step.letters) if isinstance(step, Fed) else 0
        yield now


def chains(acts: str, ticks: str = "", last_words: str = "release") -> Any:
    """Strategy of chains of one to four scripts, which do these things."""
    script = st.builds(
        Script,
        acts=st.lists(st.sampled_from(acts.split()), min_size=len(LETTERS), max_size=len(LETTERS)).map(
            lambda chosen: dict(zip(LETTERS, chosen, strict=True))
        ),
        period=st.integers(1, 4) if ticks else st.just(0),
        tick=st.sampled_from(ticks.split() or ["nothing"]),
        at_end=st.sampled_from(last_words.split()),
        at_cut=st.sampled_from(last_words.split()),
        pause_s=st.integers(1, 3),
        reason=st.sampled_from(["limit", "deadline"]),
        bypass=st.booleans(),
    )
    return st.lists(script, min_size=1, max_size=4)


fed = st.builds(Fed, st.text(LETTERS, min_size=1, max_size=8))
waited = st.builds(Waited, st.integers(0, 3))
poked = st.builds(Poked, st.integers(0, 3))
ended = st.builds(Ended, st.sampled_from([CLEAN, ("", "upstream_truncated"), ("", "deadline"), ("", "deadline")]))
going_on = st.lists(fed | fed | waited | poked, min_size=1, max_size=5)
histories = st.tuples(going_on, ended, going_on, ended, going_on).map(
    lambda parts: [*parts[0], parts[1], *parts[2], parts[3], *parts[4]]
)


# Properties


@settings(max_examples=400, deadline=None)
@given(
    chains(
        "pass pass pass pass pass pass double drop hold release pause pause stop raise",
        "nothing nothing nothing nothing inject inject release stop raise",
        "nothing release release raise",
    ),
    histories,
)
def test_the_chain_does_what_the_rules_say(chain: list[Script], steps: list[Step]) -> None:
    """After every step the same has left, ended and waits; then each stream has had one life, and one close."""
    model, subject = Model(chain), Subject(chain)
    for _ in play(steps, model, subject):
        assert (subject.out, subject.ended, subject.paused) == (model.out, model.ended, model.paused)
        assert subject.next_wake() == model.next_wake()
    for _ in range(2):
        subject.chain.close(COMPLETE)
    for player in subject.players:
        assert re.fullmatch(r"s[et]*[EC]?\.", player.told)


@settings(deadline=None)
@given(
    chains("pass pass pass hold release pause", "nothing inject release"),
    going_on,
)
def test_a_clean_end_loses_and_doubles_nothing_and_keeps_the_order(chain: list[Script], steps: list[Step]) -> None:
    """Whatever is held back and paused on the way, with time enough all of it comes out, as it went in."""
    subject = Subject(chain, limit=1000)
    for _ in play([*steps, Ended(CLEAN), Waited(1000)], subject):
        pass
    assert subject.ended == CLEAN
    sent = "".join(step.letters for step in steps if isinstance(step, Fed))
    assert [event for event in subject.out if event != INJECTED] == numbered(sent)


@settings(deadline=None)
@given(
    chains("pass pass pass double drop hold release stop", last_words="nothing release"),
    st.lists(fed, max_size=5),
    ended,
)
def test_batches_do_not_matter(chain: list[Script], batches: list[Fed], end: Ended) -> None:
    """What is delivered, and how it ends, is the same event by event; there is no batch where nobody raises or pauses."""
    whole, single = Subject(chain), Subject(chain)
    for _ in play([*batches, end], whole):
        pass
    for _ in play([*(Fed(letter) for batch in batches for letter in batch.letters), end], single):
        pass
    assert (whole.out, whole.ended) == (single.out, single.ended)
