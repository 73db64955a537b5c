"""Drives the policy streams of one exchange (or attachment), in order. Pure: no socket, clock, task or lock.

Rule of this file: what the chain does is decided here and nowhere else; its entry points never raise and are never
re-entered. Each takes `now` and returns the events that leave the chain. A stream's end travels through the links like
the events before it, as a `Mark`: a link that is paused queues both, in order. When the mark has left the last link,
`ended` is set and nothing comes any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeGuard

from .errors import COMPLETE, Outcome, OutcomeKind, PolicyError, Problem
from .framing import Event
from .messages import Headers, Reply, ResponseHead
from .policy import Ending, Events, Pause, PolicyStream, Sees, Stage, Stop, Verdict


class Mark:
    """The end of a stream on its way through the chain: clean, or cut with the `ending` that the client is to see. Where the
    head was not sent yet, it sees a local reply with these `headers` instead."""

    __slots__ = ("drops", "ending", "headers", "outcome", "problem")

    def __init__(
        self,
        outcome: Outcome,
        ending: Ending | None,
        problem: Problem | None = None,
        headers: Mapping[str, str] | Headers | None = None,
    ) -> None:
        self.outcome = outcome
        self.ending = ending
        self.problem = problem
        self.headers = headers
        # EOF and resets queue behind a pause; who has no time left does not wait for it.
        self.drops = outcome.kind in (OutcomeKind.TIMEOUT, OutcomeKind.SHUTDOWN, OutcomeKind.CLIENT_GONE)

    @classmethod
    def cut(cls, details: str, source: str = "", *, message: str | None = None) -> Mark:
        """Any end that is not clean and that no policy asked for; `details` as in `errors.FAULTS`, or a policy's own reason."""
        return cls(Outcome.of(details, source), Ending.ERROR, Problem.of(details, message))

    @classmethod
    def of(cls, stop: Stop, source: str) -> Mark:
        """The end that the policy `source` asks for."""
        outcome, problem = Outcome.of(stop.reason, source), Problem.of(stop.reason, stop.message)
        return cls(outcome, stop.ending, problem, stop.headers)

    @property
    def clean(self) -> bool:
        return self.ending is None


CLEAN_END = Mark(COMPLETE, None)


class _Hold:
    """What waits at a paused link: the events it did not pass and all that reached it since, then maybe the end."""

    __slots__ = ("events", "mark", "resume_at", "size")

    def __init__(self, resume_at: float) -> None:
        self.events: Events = []
        self.size = 0  # bytes
        self.mark: Mark | None = None
        self.resume_at = resume_at

    def add(self, events: Events, mark: Mark | None) -> None:
        self.events += events
        self.size += sum(len(event.raw) for event in events)
        self.mark = mark


def _are_events(given: object) -> TypeGuard[Events]:
    if not isinstance(given, list):
        return False
    for event in given:  # noqa: SIM110 - `all` would make a generator for each verdict
        if not isinstance(event, Event):
            return False
    return True


def _sound(given: object) -> Verdict:
    """`given`, if it is a verdict; PolicyError where what is wrong with it would come out far from who did it."""
    if isinstance(given, Pause):
        sound = isinstance(given.seconds, int | float) and given.seconds >= 0
        if sound and _are_events(given.passed) and _are_events(given.rest):
            return given
    elif isinstance(given, Stop):
        sound = isinstance(given.reason, str) and isinstance(given.ending, Ending)
        sound = sound and isinstance(given.message, str | None) and isinstance(given.headers, Mapping | None)
        if sound and _are_events(given.events):
            return given
    elif _are_events(given):
        return given
    raise PolicyError(f"a {type(given).__name__} that is no valid verdict")


_HOOKS = (
    "on_start", "on_response", "on_timer", "on_end", "on_cut", "on_events", "on_activity", "on_reading",
)  # fmt: skip
_NO_HOOKS = (None,) * len(_HOOKS)
_OF_EVENTS, _OF_ACTIVITY = ("on_events",), ("on_activity", "on_reading")


@lru_cache(1024)
def _hooks_of(kind: type[PolicyStream], sees: Sees) -> Callable[[PolicyStream], tuple[Any, ...]]:
    """Reads from a policy's stream, in the order of `_HOOKS`, those that it has of its own and that are to be called; the
    contract's are None, and cost nothing."""
    unseen = (_OF_EVENTS if sees < Sees.EVENTS else ()) + (_OF_ACTIVITY if sees < Sees.ACTIVITY else ())
    return attrgetter(
        *(
            "_not_overridden" if hook in unseen or getattr(kind, hook) is getattr(PolicyStream, hook) else hook
            for hook in _HOOKS
        )
    )


class Link:
    """One policy stream's place in a chain. `bypass`: an error takes the link out instead of ending the stream."""

    __slots__ = (
        "bypass", "hold", "name", "on_activity", "on_cut", "on_end", "on_events", "on_reading", "on_response", "on_start",
        "on_timer", "stage", "stream",
    )  # fmt: skip

    def __init__(self, name: str, stage: Stage, sees: Sees, stream: PolicyStream, *, bypass: bool = False) -> None:
        self.name = name
        self.stage = stage
        self.stream = stream
        self.bypass = bypass
        self.hold: _Hold | None = None
        self._bind(_hooks_of(type(stream), sees)(stream))  # type: ignore[arg-type]  # mypy takes no class for hashable

    def _bind(self, hooks: tuple[Any, ...]) -> None:
        (
            self.on_start, self.on_response, self.on_timer, self.on_end, self.on_cut, self.on_events, self.on_activity,
            self.on_reading,
        ) = hooks  # fmt: skip

    def take_out(self) -> None:
        """Silence the link for the rest of the stream; only `close` and `facts` still reach it."""
        self._bind(_NO_HOOKS)


class Chain:
    """The links in file order. `hold_limit` bounds the bytes that may queue behind one paused link."""

    __slots__ = (
        "_activity_hooks", "_broken", "_closed", "_ending", "_event_hooks", "_first", "_hold_limit", "_timed", "ended",
        "errors", "held", "links",
    )  # fmt: skip

    def __init__(self, links: Sequence[Link], hold_limit: int) -> None:
        self.links = list(links)
        self.ended: Mark | None = None
        self.held = 0  # how many links are paused
        self.errors: list[tuple[str, Exception]] = []  # (policy, what it raised), for the host to log without content
        self._hold_limit = hold_limit
        self._first = len(self.links)  # those before it are told nothing: not begun, or the end has passed them
        self._ending = False  # a mark has entered: nothing more is fed
        self._broken: Mark | None = None  # the mark, where the stream broke off and no policy ended it
        self._closed = False
        self._bind()

    def _bind(self) -> None:
        self._event_hooks: list[Callable[[Events, float], Verdict]] = []
        self._activity_hooks: list[tuple[int, Callable[[float], None]]] = []
        self._timed: list[tuple[int, PolicyStream]] = []
        for i, link in enumerate(self.links):
            if link.on_events:
                self._event_hooks.append(link.on_events)
            if link.on_activity:
                self._activity_hooks.append((i, link.on_activity))
            if link.on_timer:
                self._timed.append((i, link.stream))

    # What the relay asks

    @property
    def paused(self) -> bool:
        """Some policy asked for a pause: stop reading from the upstream."""
        return self.held > 0

    @property
    def has_event_hooks(self) -> bool:
        """Some policy stream reads the reply's events, so it must come uncoded and whole."""
        return bool(self._event_hooks)

    @property
    def has_activity_hooks(self) -> bool:
        return bool(self._activity_hooks)

    def next_wake(self) -> float | None:
        """When `timer` has to be called next, monotonic seconds."""
        if not (self._timed or self.held) or self.ended is not None:
            return None
        soonest = math.inf
        for i, stream in self._timed:
            wake_at = stream.wake_at
            if wake_at is not None and wake_at < soonest and i >= self._first:
                soonest = wake_at
        if self.held:
            soonest = min(soonest, min(link.hold.resume_at for link in self.links if link.hold is not None))
        return None if soonest == math.inf else soonest

    # Entry points, in the order of an exchange's life

    def start(self, now: float) -> Events:
        """After admission; a second call does nothing. An end that comes before it is told to nobody: no stream has begun."""
        if not self._first or self._ending:
            return []
        for link in self.links:
            if link.on_start is not None:
                try:
                    link.on_start(now)
                except Exception as exc:
                    if not self._bypassed(link, exc):
                        return self.finish(Mark.cut("policy_error", link.name), now)
        self._first = 0
        return []

    def response(self, head: ResponseHead) -> tuple[str, Reply] | None:
        """The head goes down the chain; (policy, reply) where a policy answers in its stead, or failed.

        Local replies and whole ones are known only when the stream has ended, so it is shown to links that the end has
        passed as well.
        """
        for link in self.links:
            if link.on_response is None:
                continue
            try:
                reply = link.on_response(head)
                if reply is not None and not isinstance(reply, Reply):
                    raise PolicyError(f"on_response returned a {type(reply).__name__}")
            except Exception as exc:
                if self._bypassed(link, exc):
                    continue
                reply = Reply(details="policy_error")
            if reply is not None and not head.local:
                return link.name, reply
        return None

    def activity(self, now: float) -> Events:
        """Bytes of the body arrived."""
        out: Events = []
        for i, hook in self._activity_hooks:
            if i >= self._first:
                try:
                    hook(now)
                except Exception as exc:
                    out += self._failed(i, exc, [], None, now)
        return out

    def reading(self, reading: bool, now: float) -> Events:
        """The relay stopped or resumed reading from the upstream."""
        out: Events = []
        for i, link in enumerate(self.links):
            if link.on_reading is not None and i >= self._first:
                try:
                    link.on_reading(reading, now)
                except Exception as exc:
                    out += self._failed(i, exc, [], None, now)
        return out

    def feed(self, events: Events, now: float) -> Events:
        """One batch from the upstream. The hot path."""
        if self._ending:
            return []
        if self.held:
            return self._pass(0, events, None, now)
        for hook in self._event_hooks:
            try:
                verdict = hook(events, now)
            except Exception as exc:
                return self._failed(self._place_of(hook), exc, events, None, now)
            if verdict is events:
                continue
            if type(verdict) is list and len(verdict) == 1 and type(verdict[0]) is Event:  # nearly always: a call less
                events = verdict
                continue
            if not _are_events(verdict):
                return self._judge(self._place_of(hook), verdict, events, None, now)
            if not verdict:
                return verdict
            events = verdict
        return events

    def _place_of(self, hook: object) -> int:
        """Of the link whose `on_events` this is."""
        return next(i for i, link in enumerate(self.links) if link.on_events is hook)

    def finish(self, mark: Mark, now: float) -> Events:
        """The stream's end enters. A second end is ignored, unless it cannot wait for what the first queues behind."""
        if self.ended is not None or (self._ending and not mark.drops):
            return []
        self._ending = True
        if not mark.clean:
            self._broken = mark
        return self._pass(self._first, [], mark, now)

    def timer(self, now: float) -> Events:
        """`next_wake` has come."""
        out: Events = []
        for i, link in enumerate(self.links):
            if i >= self._first and link.hold is not None and link.hold.resume_at <= now:
                out += self._resume(i, now)
            wake_at = link.stream.wake_at
            if i >= self._first and link.on_timer is not None and wake_at is not None and wake_at <= now:
                out += self._fire(i, now)
        return out

    def poke(self, stream: PolicyStream, now: float) -> Events:
        """Work that `stream` spawned is done: call its `on_timer`, then offer it again what it paused on."""
        out: Events = []
        for i, link in enumerate(self.links):
            if link.stream is stream and i >= self._first:
                if link.on_timer is not None:
                    out += self._fire(i, now)
                if link.hold is not None and i >= self._first:
                    out += self._resume(i, now)
        return out

    def deliver_ending(self, events: Events, now: float) -> Events:
        """The dialect's ending passes RECORD and later links only. They may add to it, but not keep it from the client."""
        for link in self.links:
            if link.stage < Stage.RECORD or link.on_events is None or not events:
                continue
            try:
                verdict = _sound(link.on_events(events, now))
            except Exception as exc:
                self._bypassed(link, exc)
                continue
            if isinstance(verdict, Pause):
                verdict = verdict.passed + verdict.rest
            elif isinstance(verdict, Stop):
                verdict = verdict.events
            events = verdict or events
        return events

    def close(self, outcome: Outcome) -> None:
        """Exactly once to every stream that was made, whatever happened. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._ending = True
        self._first = len(self.links)
        for link in self.links:
            self._release(link)
            try:
                link.stream.close(outcome)
            except Exception as exc:
                self.errors.append((link.name, exc))

    def facts(self) -> dict[str, Mapping[str, int | str]]:
        """After `close`: what each policy has to say, by its name; policies with nothing to say are left out."""
        said: dict[str, Mapping[str, int | str]] = {}
        for link in self.links:
            try:
                facts = link.stream.facts()
            except Exception as exc:
                self.errors.append((link.name, exc))
                continue
            if facts:
                said[link.name] = facts
        return said

    # The one way through the links

    def _pass(self, i: int, events: Events, mark: Mark | None, now: float) -> Events:
        """Take `events` (maybe none) and then `mark` (maybe none) from link `i` on; return what leaves the chain."""
        while i < len(self.links):
            link = self.links[i]
            if link.hold is not None:
                if mark is None or not mark.drops:
                    return self._queue(i, link.hold, events, mark, now)
                self._release(link)
                events = []  # they come after what is dropped here, and no text may have a gap
            if events and link.on_events is not None:
                try:
                    verdict = link.on_events(events, now)
                except Exception as exc:
                    return self._failed(i, exc, events, mark, now)
                if not _are_events(verdict):
                    return self._judge(i, verdict, events, mark, now)
                events = verdict
            if mark is not None:
                released, mark = self._released(i, mark, now)
                events = events + released
            elif not events:
                return events
            i += 1
        if mark is not None:
            self.ended = mark
        return events

    def _released(self, i: int, mark: Mark, now: float) -> tuple[Events, Mark]:
        """The end reaches link `i`: what it gives, and the end as it goes on. A link that fails here gives nothing, and
        what was a clean end is none any more."""
        link = self.links[i]
        self._first = i + 1
        hook = link.on_end if mark.clean else link.on_cut
        if hook is None:
            return [], mark
        try:
            events = hook(now)
            if not _are_events(events):
                raise PolicyError(f"the end gave a {type(events).__name__} that is no list of events")
            return events, mark
        except Exception as exc:
            if self._bypassed(link, exc) or not mark.clean:
                return [], mark
            return [], Mark.cut("policy_error", link.name)

    def _judge(self, i: int, given: object, events: Events, mark: Mark | None, now: float) -> Events:
        """What link `i` has `given` for `events`, where it is not simply a list."""
        link = self.links[i]
        try:
            verdict = _sound(given)
        except PolicyError as exc:
            return self._failed(i, exc, events, mark, now)
        if isinstance(verdict, Stop):
            return self._stop(i, Mark.of(verdict, link.name), verdict.events, now)
        if isinstance(verdict, list):
            return self._after(i, verdict, mark, now)
        if mark is not None and mark.drops:
            return self._after(i, verdict.passed, mark, now)
        link.hold = _Hold(now + verdict.seconds)
        self.held += 1
        link.hold.add(verdict.rest, mark)
        if link.hold.size > self._hold_limit:
            return self._overflow(i, verdict.passed, now)
        return self._pass(i + 1, verdict.passed, None, now)

    def _after(self, i: int, events: Events, mark: Mark | None, now: float) -> Events:
        """Go on behind link `i`, which has seen `events` but, if there is one, not yet the mark."""
        if mark is not None:
            released, mark = self._released(i, mark, now)
            events = events + released
        return self._pass(i + 1, events, mark, now)

    def _stop(self, i: int, mark: Mark, events: Events, now: float) -> Events:
        """Link `i` ends the stream: it and the earlier ones fall silent, the later ones get its events and the cut.

        Its end stands before any other that is on its way, and counts instead, as it would had the events come one by
        one; but a reply that broke off must not look like one that a policy ended in good order.
        """
        self._ending = True
        self._first = i + 1
        for link in self.links[: i + 1]:
            self._release(link)
        return self._pass(i + 1, events, self._broken or mark, now)

    def _failed(self, i: int, exc: Exception, events: Events, mark: Mark | None, now: float) -> Events:
        """Link `i` raised or broke the contract, given `events` and `mark`. Fail closed, or go on without the link where
        that was configured."""
        link = self.links[i]
        if not self._bypassed(link, exc):
            return self._stop(i, Mark.cut("policy_error", link.name), [], now)
        if link.hold is not None:
            return self._resume(i, now)  # nobody is left to wait for
        return self._after(i, events, mark, now)

    def _bypassed(self, link: Link, exc: Exception) -> bool:
        """Whether the stream goes on without `link`, which failed and in either case is asked nothing any more."""
        self.errors.append((link.name, exc))
        link.take_out()
        self._bind()
        return link.bypass

    def _fire(self, i: int, now: float) -> Events:
        link = self.links[i]
        link.stream.wake_at = None
        try:
            verdict = link.on_timer(now)
            if isinstance(verdict, Pause):
                raise PolicyError("on_timer cannot pause")
        except Exception as exc:
            return self._failed(i, exc, [], None, now)
        return self._judge(i, verdict, [], None, now)

    # Pauses

    def _queue(self, i: int, hold: _Hold, events: Events, mark: Mark | None, now: float) -> Events:
        hold.add(events, mark)
        return self._overflow(i, [], now) if hold.size > self._hold_limit else []

    def _overflow(self, i: int, passed: Events, now: float) -> Events:
        return self._stop(i, Mark.cut("pause_overflow", self.links[i].name), passed, now)

    def _release(self, link: Link) -> _Hold | None:
        hold, link.hold = link.hold, None
        if hold is not None:
            self.held -= 1
        return hold

    def _resume(self, i: int, now: float) -> Events:
        hold = self._release(self.links[i])
        assert hold is not None
        return self._pass(i, hold.events, hold.mark, now)
