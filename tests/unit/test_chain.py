"""The rules of the chain (docs/chain.md), told as transcripts: each letter is an event, and time is a number."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from proxy.chain import CLEAN_END, Chain, Link, Mark
from proxy.dialects.base import Call
from proxy.dialects.generic import Generic
from proxy.errors import COMPLETE, Outcome, OutcomeKind, PolicyError
from proxy.framing import Event
from proxy.messages import Reply, ResponseHead
from proxy.policy import Ending, Events, Pause, PolicyStream, Sees, Stage, Stop, Verdict

TEXT = Generic().open(ResponseHead(200), Call())
TRUNCATED, DEADLINE = Mark.cut("upstream_truncated"), Mark.cut("deadline")


def letters(text: str) -> Events:
    return [Event(letter.encode(), TEXT) for letter in text]


def word(events: Events) -> str:
    return b"".join(event.raw for event in events).decode()


class Transcript:
    """A chain in simulated time; every step gives what left it."""

    def __init__(self, *streams: PolicyStream | Link, limit: int = 100, started: bool = True) -> None:
        links = [stream if isinstance(stream, Link) else link(stream) for stream in streams]
        self.chain = Chain(links, limit)
        self.now = 0.0
        if started:
            assert self.start() == ""

    def start(self) -> str:
        return word(self.chain.start(self.now))

    def feed(self, text: str) -> str:
        return word(self.chain.feed(letters(text), self.now))

    def activity(self) -> str:
        return word(self.chain.activity(self.now))

    def reading(self, reading: bool) -> str:
        return word(self.chain.reading(reading, self.now))

    def finish(self, mark: Mark = CLEAN_END) -> str:
        return word(self.chain.finish(mark, self.now))

    def poke(self, stream: PolicyStream) -> str:
        return word(self.chain.poke(stream, self.now))

    def at(self, now: float) -> str:
        """Time passes, and the timer rings whenever it was asked for."""
        out: Events = []
        for _ in range(100):
            wake_at = self.chain.next_wake()
            if wake_at is None or wake_at > now:
                self.now = now
                return word(out)
            self.now = max(self.now, wake_at)
            out += self.chain.timer(self.now)
        raise AssertionError("the timer rings without end")

    @property
    def outcome(self) -> str:
        """ "going on", or how the stream ended and who ended it."""
        if self.chain.ended is None:
            return "going on"
        outcome = self.chain.ended.outcome
        return " ".join(filter(None, (outcome.kind.value, outcome.source, outcome.details)))

    @property
    def failed(self) -> list[str]:
        return [name for name, _ in self.chain.errors]


def link(stream: PolicyStream, name: str = "", stage: Stage = Stage.TRANSFORM, *, bypass: bool = False) -> Link:
    return Link(name or type(stream).__name__.lower(), stage, Sees.EVENTS, stream, bypass=bypass)


class Watch(PolicyStream):
    """Passes everything, and remembers all it is told."""

    def __init__(self, wake_at: float | None = None) -> None:
        self.told: list[str] = []
        self.wake_at = wake_at

    def on_start(self, now: float) -> None:
        self.told.append("start")

    def on_response(self, head: ResponseHead) -> Reply | None:
        self.told.append("local head" if head.local else "head")
        return None

    def on_activity(self, now: float) -> None:
        self.told.append("activity")

    def on_reading(self, reading: bool, now: float) -> None:
        self.told.append("reading" if reading else "not reading")

    def on_events(self, events: Events, now: float) -> Verdict:
        self.told.append(word(events))
        return events

    def on_timer(self, now: float) -> Events | Stop:
        self.told.append(f"timer at {now:g}")
        return []

    def on_end(self, now: float) -> Events:
        self.told.append("end")
        return []

    def on_cut(self, now: float) -> Events:
        self.told.append("cut")
        return []

    def close(self, outcome: Outcome) -> None:
        self.told.append(f"close {outcome.kind.value}")


class Sign(PolicyStream):
    """Rewrites: puts a letter behind each letter."""

    def __init__(self, letter: str) -> None:
        self._letter = letter

    def on_events(self, events: Events, now: float) -> Verdict:
        return [out for event in events for out in (event, *letters(self._letter))]


class Redact(PolicyStream):
    """Holds everything back until the end; what is not known to be harmless is dropped in a cut."""

    def __init__(self) -> None:
        self._held: Events = []

    def on_events(self, events: Events, now: float) -> Verdict:
        self._held += events
        return []

    def on_end(self, now: float) -> Events:
        return self._held


class Coalesce(Redact):
    """Holds everything back for a while; releases it at any end."""

    def __init__(self, wait: float = math.inf) -> None:
        super().__init__()
        self._wait = wait

    def on_events(self, events: Events, now: float) -> Verdict:
        self.wake_at = now + self._wait
        return super().on_events(events, now)

    def on_timer(self, now: float) -> Events | Stop:
        released, self._held = self._held, []
        return released

    def on_cut(self, now: float) -> Events:
        return self._held


class Beat(PolicyStream):
    """Injects a letter every ten seconds."""

    def __init__(self, letter: str = "*") -> None:
        self._letter = letter

    def on_start(self, now: float) -> None:
        self.wake_at = now + 10

    def on_timer(self, now: float) -> Events | Stop:
        self.wake_at = now + 10
        return letters(self._letter)


class Pace(PolicyStream):
    """Passes one letter, then pauses with what is left of the batch."""

    def __init__(self, seconds: float = 1) -> None:
        self._seconds = seconds

    def on_events(self, events: Events, now: float) -> Verdict:
        return Pause(self._seconds, events[:1], events[1:]) if len(events) > 1 else events


class Wait(PolicyStream):
    """Passes nothing until its own work, which the test does for it, is done."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.ready = False
        self._seconds = seconds

    def on_events(self, events: Events, now: float) -> Verdict:
        return events if self.ready else Pause(self._seconds, [], events)


class Limit(PolicyStream):
    """Stops at a letter; those before it are delivered."""

    def __init__(self, letter: str = "!", reason: str = "limit", ending: Ending = Ending.LENGTH) -> None:
        self._letter = letter.encode()
        self._reason = reason
        self._ending = ending

    def on_events(self, events: Events, now: float) -> Verdict:
        for i, event in enumerate(events):
            if event.raw == self._letter:
                return Stop(self._reason, self._ending, events[:i])
        return events


class Timeout(PolicyStream):
    """Stops when its time has come, with these last letters."""

    def __init__(self, wake_at: float, reason: str = "deadline", last: str = "") -> None:
        self.wake_at = wake_at
        self._reason = reason
        self._last = last

    def on_timer(self, now: float) -> Events | Stop:
        return Stop(self._reason, events=letters(self._last))


class Answer(PolicyStream):
    """Answers in the upstream's stead."""

    def on_response(self, head: ResponseHead) -> Reply | None:
        return Reply(details="upstream_status")


def faulty(hook: str) -> Watch:
    """A stream of which one hook raises."""

    def fail(self: Watch, *args: object) -> None:
        self.told.append(f"{hook}!")
        raise RuntimeError(hook)

    stream: Watch = type("Faulty", (Watch,), {hook: fail})(wake_at=1)
    return stream


# A stream's life


def test_an_empty_chain_passes_everything() -> None:
    run = Transcript()
    assert run.feed("abc") == "abc"
    assert run.finish() == ""
    assert run.outcome == "complete"


def test_a_life_from_start_to_close() -> None:
    stream = Watch(wake_at=5)
    run = Transcript(stream)
    run.chain.response(ResponseHead(200))
    run.activity()
    assert run.feed("ab") == "ab"
    run.reading(False)
    run.at(7)
    run.reading(True)
    run.finish()
    run.chain.close(COMPLETE)
    assert stream.told == [
        "start", "head", "activity", "ab", "not reading", "timer at 5", "reading", "end", "close complete",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sees", "told"),
    [
        (Sees.NOTHING, ["start", "end"]),
        (Sees.ACTIVITY, ["start", "activity", "not reading", "end"]),
        (Sees.EVENTS, ["start", "activity", "not reading", "a", "end"]),
    ],
)
def test_a_stream_is_shown_no_more_than_it_asked_for(sees: Sees, told: list[str]) -> None:
    stream = Watch()
    run = Transcript(Link("watch", Stage.GUARD, sees, stream))
    run.activity()
    run.reading(False)
    assert run.feed("a") == "a"
    run.finish()
    assert stream.told == told


def test_streams_begin_once() -> None:
    run = Transcript(stream := Watch())
    assert run.start() == ""
    assert stream.told == ["start"]


def test_hooks_that_a_policy_left_alone_are_not_called() -> None:
    run = Transcript(PolicyStream(), PolicyStream())
    for one in run.chain.links:
        assert {one.on_start, one.on_response, one.on_events, one.on_activity, one.on_reading} == {None}
        assert {one.on_timer, one.on_end, one.on_cut} == {None}
    assert not run.chain.has_activity_hooks
    assert not run.chain.has_event_hooks
    assert Transcript(Watch()).chain.has_activity_hooks
    assert Transcript(Watch()).chain.has_event_hooks
    assert run.feed("a") == "a"
    run.finish()
    assert run.outcome == "complete"


def test_an_event_that_nobody_rewrote_is_the_same_event() -> None:
    run = Transcript(Watch(), Pace(), Watch())
    events = letters("abc")
    out = run.chain.feed(events, 0.0) + run.chain.timer(1.0) + run.chain.timer(2.0)
    assert all(one is other for one, other in zip(out, events, strict=True))


def test_before_the_start_an_end_is_told_to_nobody() -> None:
    stream = Watch(wake_at=0)
    run = Transcript(stream, started=False)
    assert run.chain.next_wake() is None
    assert run.finish(Mark.cut("client_gone")) == ""
    run.chain.close(Outcome.of("client_gone"))
    assert run.outcome == "client_gone client_gone"
    assert stream.told == ["close client_gone"]


def test_after_the_end_nothing_is_told_but_close() -> None:
    stream, reader = Watch(), Watch()
    run = Transcript(stream, reader)
    run.finish()
    stream.wake_at = 0
    assert run.chain.next_wake() is None
    assert run.feed("a") == run.activity() == run.reading(False) == run.at(1) == run.poke(stream) == ""
    assert run.finish() == run.finish(DEADLINE) == ""
    assert run.outcome == "complete"
    assert stream.told == reader.told == ["start", "end"]


def test_after_close_nothing_is_told() -> None:
    stream, waiting = Watch(wake_at=1), Wait()
    run = Transcript(stream, waiting)
    run.feed("a")
    run.chain.close(Outcome.of("client_gone"))
    before = list(stream.told)
    assert run.chain.next_wake() is None
    assert not run.chain.paused
    assert run.feed("b") == run.activity() == run.at(2) == run.poke(waiting) == run.finish() == ""
    assert stream.told == before


# Rule 1: one order


def test_rule_1_events_meet_the_policies_in_file_order() -> None:
    assert Transcript(Sign("1"), Sign("2")).feed("a") == "a212"
    assert Transcript(Sign("2"), Sign("1")).feed("a") == "a121"


def test_rule_1_nothing_reaches_those_behind_one_that_holds_back() -> None:
    late = Watch()
    assert Transcript(Redact(), late).feed("a") == ""
    assert late.told == ["start"]


# Rule 2: what policy i makes goes to i+1 ... n only


def test_rule_2_what_a_policy_injects_goes_to_later_policies_only() -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Beat(), late, Sign("1"))
    assert run.feed("a") == "a1"
    assert run.at(10) == "*1"
    assert early.told == ["start", "a"]
    assert late.told == ["start", "a", "*"]


def test_rule_2_what_a_policy_releases_goes_to_later_policies_only() -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Coalesce(3), late)
    assert run.feed("a") == run.feed("b") == ""
    assert run.at(3) == "ab"
    assert early.told == ["start", "a", "b"]
    assert late.told == ["start", "ab"]


def test_timers_ring_in_file_order() -> None:
    run = Transcript(Beat("1"), Beat("2"), Sign("."))
    assert run.at(20) == "1.2.1.2."


# Rule 3: a clean end


class Farewell(PolicyStream):
    """Has a last word: one letter at a clean end, another in a cut."""

    def __init__(self, end: str, cut: str = "") -> None:
        self._end = end
        self._cut = cut

    def on_end(self, now: float) -> Events:
        return letters(self._end)

    def on_cut(self, now: float) -> Events:
        return letters(self._cut)


def test_rule_3_each_policy_sees_what_earlier_ones_released_and_then_releases_itself() -> None:
    watch = Watch()
    run = Transcript(Farewell("1"), watch, Farewell("2"), Sign("."), Farewell("3"))
    assert run.finish() == "1.2.3"
    assert watch.told == ["start", "1", "end"]
    assert run.outcome == "complete"


def test_rule_3_a_clean_end_loses_nothing() -> None:
    run = Transcript(Redact(), Coalesce(), Redact())
    assert run.feed("ab") == run.feed("c") == ""
    assert run.finish() == "abc"


def test_nothing_is_fed_after_the_end() -> None:
    run = Transcript(Watch())
    run.finish()
    assert run.feed("a") == ""


# Rule 4: every other end


def test_rule_4_a_stop_silences_earlier_policies_and_cuts_later_ones() -> None:
    early, late = Watch(wake_at=5), Watch()
    run = Transcript(early, Limit("!"), late)
    assert run.feed("ab!c") == "ab"
    assert run.outcome == "stopped limit limit"
    assert early.told == ["start", "ab!c"]
    assert late.told == ["start", "ab", "cut"]
    assert run.feed("d") == run.at(5) == run.finish() == run.activity() == ""
    assert early.told == ["start", "ab!c"]


def test_rule_4_who_stops_is_told_nothing_more() -> None:
    class Quit(Watch):
        def on_events(self, events: Events, now: float) -> Verdict:
            super().on_events(events, now)
            return Stop("limit", events=events)

    stream = Quit(wake_at=1)
    run = Transcript(stream, Watch())
    assert run.feed("ab") == "ab"
    assert run.at(1) == run.feed("c") == run.finish(TRUNCATED) == run.poke(stream) == ""
    assert stream.told == ["start", "ab"]


def test_rule_4_in_a_cut_redaction_drops_what_it_holds_and_coalescing_releases_it() -> None:
    assert Transcript(Limit(), Redact()).feed("ab!") == ""
    assert Transcript(Limit(), Coalesce()).feed("ab!") == "ab"


def test_rule_4_a_stop_leaves_what_earlier_policies_hold_where_it_is() -> None:
    run = Transcript(Coalesce(), Wait(), Timeout(5))
    assert run.feed("a") == run.at(5) == ""
    assert not run.chain.paused
    assert run.outcome == "timeout timeout deadline"


@pytest.mark.parametrize("details", ["upstream_truncated", "upstream_reset", "deadline", "shutdown", "client_gone"])
def test_rule_4_in_any_cut_every_policy_is_told_and_sees_what_earlier_ones_released(details: str) -> None:
    first, last = Watch(), Watch()
    run = Transcript(first, Farewell("end", "1"), Coalesce(), last, Farewell("end", "2"))
    assert run.feed("a") == ""
    assert run.finish(Mark.cut(details)) == "a12"
    assert first.told == ["start", "a", "cut"]
    assert last.told == ["start", "a1", "cut"]
    assert run.chain.ended is not None
    assert run.chain.ended.outcome == Outcome.of(details)
    assert run.chain.ended.ending is Ending.ERROR


def test_rule_4_a_timer_can_stop_and_have_last_words() -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Timeout(5, last="z"), late, Sign("."))
    assert run.at(5) == "z."
    assert late.told == ["start", "z", "cut"]
    assert early.told == ["start"]
    assert run.outcome == "timeout timeout deadline"


def test_rule_4_what_is_released_at_the_clean_end_can_be_stopped() -> None:
    late = Watch()
    run = Transcript(Redact(), Limit("!"), late)
    run.feed("ab!c")
    assert run.finish() == "ab"
    assert run.outcome == "stopped limit limit"
    assert late.told == ["start", "ab", "cut"]


def test_rule_4_a_truncated_reply_never_ends_like_a_success() -> None:
    run = Transcript(Coalesce(), Limit("!", ending=Ending.LENGTH))
    run.feed("ab!c")
    assert run.finish(TRUNCATED) == "ab"
    assert run.chain.ended is TRUNCATED


def test_rule_4_the_stop_that_stands_first_in_the_stream_counts_however_the_events_were_batched() -> None:
    for batches in (["abcd"], list("abcd")):
        run = Transcript(link(Limit("d"), "late"), link(Limit("b"), "soon"))
        assert "".join(run.feed(batch) for batch in batches) == "a"
        assert run.outcome == "stopped soon limit"


def test_a_stop_says_how_it_is_to_look() -> None:
    class Refuse(PolicyStream):
        def on_events(self, events: Events, now: float) -> Verdict:
            return Stop("budget", Ending.LENGTH, message="No tokens are left.", headers={"Retry-After": "7"})

    run = Transcript(Refuse())
    assert run.feed("a") == ""
    mark = run.chain.ended
    assert mark is not None
    assert mark.problem is not None
    assert (mark.ending, mark.clean, mark.outcome.kind) == (Ending.LENGTH, False, OutcomeKind.STOPPED)
    assert (mark.problem.details, mark.problem.status, mark.problem.message) == ("budget", 403, "No tokens are left.")
    assert mark.headers == {"Retry-After": "7"}


def test_the_dialects_ending_passes_record_and_later_stages_only() -> None:
    streams = {stage: Watch() for stage in Stage}
    run = Transcript(*(link(stream, stage=stage) for stage, stream in streams.items()))
    run.finish(TRUNCATED)
    assert word(run.chain.deliver_ending(letters("!"), 1.0)) == "!"
    for stage, stream in streams.items():
        assert stream.told == ["start", "cut", *(["!"] if stage >= Stage.RECORD else [])]


@pytest.mark.parametrize(
    ("verdict", "delivered"),
    [
        (letters("ab"), "ab"),
        ([], "!"),
        (Pause(9, letters("a"), letters("b")), "ab"),
        (Stop("again", events=letters("ab")), "ab"),
        (Stop("again"), "!"),
        ("nonsense", "!"),
        (None, "!"),
    ],
)
def test_an_ending_can_be_added_to_but_not_kept_from_the_client(verdict: object, delivered: str) -> None:
    last = Watch()
    faults = link(returning("on_events", verdict), stage=Stage.RESTORE)
    run = Transcript(faults, link(last, stage=Stage.KEEPALIVE))
    run.finish(TRUNCATED)
    assert word(run.chain.deliver_ending(letters("!"), 1.0)) == delivered
    assert last.told[-1] == delivered
    assert run.failed == ([] if isinstance(verdict, list | Pause | Stop) else ["returning"])


def test_a_policy_that_failed_is_not_asked_about_the_ending() -> None:
    stream = faulty("on_events")
    run = Transcript(link(stream, stage=Stage.KEEPALIVE))
    run.feed("a")
    assert word(run.chain.deliver_ending(letters("!"), 1.0)) == "!"
    assert stream.told == ["start", "on_events!"]


# Rule 5: pauses


def test_rule_5_rest_and_all_that_follows_wait_in_order() -> None:
    run = Transcript(Pace(1))
    assert run.feed("abc") == "a"
    assert run.chain.paused
    assert run.chain.next_wake() == 1
    assert run.feed("d") == run.at(0.9) == ""
    assert [run.at(now) for now in (1, 2, 3)] == ["b", "c", "d"]
    assert not run.chain.paused
    assert run.chain.next_wake() is None
    assert run.feed("e") == "e"


def test_rule_5_earlier_policies_go_on_and_see_each_event_once() -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Pace(1), late)
    run.feed("abc")
    run.feed("d")
    run.at(9)
    assert early.told == ["start", "abc", "d"]
    assert late.told == ["start", "a", "b", "c", "d"]


def test_rule_5_a_pause_that_leaves_nothing_over_still_holds_up_what_follows() -> None:
    class Slow(PolicyStream):
        def __init__(self) -> None:
            self.free_at = 0.0

        def on_events(self, events: Events, now: float) -> Verdict:
            if now < self.free_at:
                return Pause(self.free_at - now, [], events)
            self.free_at = now + 5
            return Pause(5, events, [])

    run = Transcript(Slow())
    assert run.feed("ab") == "ab"
    assert run.chain.paused
    assert run.feed("cd") == ""
    assert run.at(4.9) == ""
    assert run.at(5) == "cd"


def test_rule_5_each_pause_has_its_own_queue() -> None:
    run = Transcript(Pace(2), Pace(3))
    assert run.feed("abcd") == "a"
    assert [run.at(now) for now in (2, 3, 4, 5, 6, 9)] == ["b", "", "c", "", "d", ""]
    run = Transcript(Sign("."), Pace(2), Pace(3))
    assert run.feed("ab") == "a"
    run.finish()
    assert run.at(99) == ".b."
    assert run.outcome == "complete"


@pytest.mark.parametrize("mark", [CLEAN_END, TRUNCATED], ids=["EOF", "reset"])
def test_rule_5_ends_queue_behind_a_pause(mark: Mark) -> None:
    end = "end" if mark.clean else "cut"
    early, late = Watch(), Watch()
    run = Transcript(early, Pace(1), late)
    assert run.feed("abc") == "a"
    assert run.finish(mark) == ""
    assert early.told == ["start", "abc", end]
    assert late.told == ["start", "a"]
    assert [run.at(1), run.outcome] == ["b", "going on"]
    assert run.at(2) == "c"
    assert run.chain.ended is mark
    assert late.told == ["start", "a", "b", "c", end]


def test_rule_5_the_first_end_wins() -> None:
    run = Transcript(Pace(1))
    run.feed("ab")
    run.finish()
    assert run.finish(TRUNCATED) == run.finish(TRUNCATED) == ""
    assert run.at(1) == "b"
    assert run.outcome == "complete"


@pytest.mark.parametrize("details", ["deadline", "shutdown", "client_gone", "upstream_silence"])
@pytest.mark.parametrize("behind", [[], [CLEAN_END], [TRUNCATED]], ids=["", "EOF", "reset"])
def test_rule_5_who_has_no_time_left_does_not_wait(details: str, behind: list[Mark]) -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Pace(1), late)
    assert run.feed("abc") == "a"
    for mark in behind:
        run.finish(mark)
    assert run.finish(Mark.cut(details)) == ""
    assert not run.chain.paused
    assert run.chain.ended is not None
    assert run.chain.ended.outcome == Outcome.of(details)
    assert late.told == ["start", "a", "cut"]
    assert early.told.count("cut") + early.told.count("end") == 1
    assert run.at(9) == ""


def test_rule_5_nothing_is_delivered_that_came_after_what_a_deadline_drops() -> None:
    late = Watch()
    run = Transcript(Timeout(5, last="y"), Farewell("", "z"), Pace(10), late)
    assert run.feed("abc") == "a"
    assert run.at(5) == ""
    assert late.told == ["start", "a", "cut"]
    assert run.outcome == "timeout timeout deadline"


def test_rule_5_a_policy_cannot_pause_a_deadline() -> None:
    class LastWord(Pace):
        def on_cut(self, now: float) -> Events:
            return letters(".")

    run = Transcript(Coalesce(), LastWord(), Farewell("", "!"))
    run.feed("abc")
    assert run.finish(DEADLINE) == "a.!"
    assert run.outcome == "timeout deadline"


def test_rule_5_timers_go_on_so_that_heartbeats_are_sent_while_a_stream_is_paced() -> None:
    run = Transcript(Pace(25), Beat())
    assert run.feed("ab") == "a"
    assert [run.at(now) for now in (10, 20, 25, 30)] == ["*", "*", "b", "*"]


def test_rule_5_the_timer_of_the_paused_policy_itself_goes_on() -> None:
    stream = Watch(wake_at=3)
    stream.on_events = Wait().on_events  # type: ignore[method-assign]
    run = Transcript(stream)
    assert run.feed("a") == run.at(5) == ""
    assert stream.told == ["start", "timer at 3"]


def test_rule_5_what_earlier_policies_inject_queues_too() -> None:
    run = Transcript(Beat(), Pace(15))
    assert run.feed("ab") == "a"
    assert [run.at(now) for now in (10, 15, 20, 30, 31)] == ["", "b", "", "*", ""]
    assert run.at(45) == "*"


def test_rule_5_a_stop_waits_behind_a_later_policys_pause_and_drops_an_earlier_ones() -> None:
    run = Transcript(link(Wait()), link(Limit("!")), link(Pace(1)))
    waiting = run.chain.links[0].stream
    assert isinstance(waiting, Wait)
    run.feed("abc!d")
    waiting.ready = True
    assert run.poke(waiting) == "a"
    assert run.outcome == "going on"
    assert run.feed("e") == ""
    assert [run.at(now) for now in (1, 2)] == ["b", "c"]
    assert run.outcome == "stopped limit limit"
    run = Transcript(Pace(9), Timeout(5, "upstream_silence"))
    assert run.feed("ab") == "a"
    assert run.at(5) == run.at(9) == ""


def test_rule_5_a_stop_waits_behind_a_pause_that_was_there_before() -> None:
    run = Transcript(Limit("!"), Pace(1))
    assert [run.feed("ab"), run.feed("c!d")] == ["a", ""]
    assert run.chain.paused
    assert [run.at(1), run.outcome] == ["b", "going on"]
    assert [run.at(2), run.outcome] == ["c", "stopped limit limit"]


def test_rule_5_pauses_are_bounded() -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Wait(), late, limit=5)
    assert run.feed("abcde") == ""
    assert run.outcome == "going on"
    assert run.feed("f") == ""
    assert run.outcome == "policy_error wait pause_overflow"
    assert late.told == ["start", "cut"]
    assert early.told == ["start", "abcde", "f"]
    assert not run.chain.paused
    assert run.at(99) == run.feed("g") == ""


def test_rule_5_what_was_passed_before_an_overflow_is_delivered() -> None:
    run = Transcript(Pace(1), limit=5)
    assert run.feed("abcdefg") == "a"
    assert run.outcome == "policy_error pace pause_overflow"


def test_rule_5_a_queue_that_drains_has_room_again() -> None:
    run = Transcript(Pace(1), limit=2)
    out = run.feed("ab")
    for second in range(1, 9):
        out += run.feed(str(second)) + run.at(second)
    assert out == "ab1234567"
    assert run.outcome == "going on"


def test_rule_5_spawned_work_wakes_its_stream_at_once() -> None:
    class Lease(Wait):
        def on_timer(self, now: float) -> Events | Stop:
            return letters("*")

    stream, late = Lease(), Watch()
    run = Transcript(Watch(), stream, late)
    assert run.feed("ab") == ""
    assert run.chain.paused
    assert run.chain.next_wake() is None
    assert run.poke(stream) == "*"
    assert run.chain.paused
    stream.ready = True
    assert run.poke(stream) == "*ab"
    assert not run.chain.paused
    assert run.poke(stream) == "*"
    assert run.poke(PolicyStream()) == ""
    assert late.told == ["start", "*", "*", "ab", "*"]


def test_rule_5_spawned_work_can_release_the_end() -> None:
    stream = Wait()
    run = Transcript(stream)
    run.feed("ab")
    run.finish()
    stream.ready = True
    assert run.poke(stream) == "ab"
    assert run.outcome == "complete"


def test_spawned_work_can_stop_the_stream() -> None:
    stream = Timeout(math.inf, "budget", last="z")
    run = Transcript(stream)
    assert run.poke(stream) == "z"
    assert run.outcome == "stopped timeout budget"
    assert run.poke(stream) == ""


# Rule 6: batches are cut at event boundaries


def test_rule_6_an_injection_is_an_event_of_its_own() -> None:
    run = Transcript(Beat())
    events = letters("ab")
    run.chain.feed(events, 9.0)
    (injected,) = run.chain.timer(10.0)
    assert injected.raw == b"*"
    assert [event.raw for event in events] == [b"a", b"b"]


# Rule 7: a policy that raises

RAISING: dict[str, Callable[[Transcript], str]] = {
    "on_start": Transcript.start,
    "on_activity": Transcript.activity,
    "on_reading": lambda run: run.reading(False),
    "on_events": lambda run: run.feed("ab"),
    "on_timer": lambda run: run.at(1),
    "on_end": Transcript.finish,
}


def with_a_faulty(hook: str, *, bypass: bool = False) -> tuple[Watch, Watch, Transcript]:
    """Two onlookers, before and behind a stream of which one hook raises."""
    early, late = Watch(), Watch()
    return early, late, Transcript(early, link(faulty(hook), bypass=bypass), late, started=hook != "on_start")


@pytest.mark.parametrize("hook", RAISING)
def test_rule_7_a_policy_that_raises_ends_the_stream(hook: str) -> None:
    early, late, run = with_a_faulty(hook)
    assert RAISING[hook](run) == ""
    assert run.outcome == "policy_error faulty policy_error"
    assert run.chain.ended is not None
    assert run.chain.ended.ending is Ending.ERROR
    assert run.failed == ["faulty"]
    assert "cut" not in early.told
    assert late.told[-1:] == ([] if hook == "on_start" else ["cut"])  # who has not begun has nothing to end
    assert "ab" not in late.told
    asked = list(early.told)
    assert run.feed("c") == run.activity() == run.finish() == ""
    assert early.told == asked


@pytest.mark.parametrize("hook", RAISING)
def test_rule_7_bypass_goes_on_without_it(hook: str) -> None:
    early, late, run = with_a_faulty(hook, bypass=True)
    out = RAISING[hook](run)
    stream = run.chain.links[1].stream
    assert isinstance(stream, Watch)
    assert run.failed == ["faulty"]
    assert stream.told.count(f"{hook}!") == 1
    asked = list(stream.told)
    assert out == ("ab" if hook == "on_events" else "")
    if hook != "on_end":
        assert late.told[1:] == early.told[1:]  # what it was told, those behind it were told nonetheless
        stream.wake_at = 2
        assert run.feed("c") == "c"
        assert run.at(3) == run.reading(False) == run.activity() == ""
        assert run.chain.response(ResponseHead(200)) is None
        assert run.finish() == ""
    assert run.outcome == "complete"
    assert late.told[-1] == "end"
    assert stream.told == asked
    assert run.failed == ["faulty"]


def test_rule_7_fail_closed_is_the_default() -> None:
    run = Transcript(Link("faulty", Stage.METER, Sees.EVENTS, faulty("on_events")))
    assert run.feed("ab") == ""
    assert run.outcome == "policy_error faulty policy_error"


def test_rule_7_what_raises_in_a_cut_leaves_the_first_outcome() -> None:
    early, late, run = with_a_faulty("on_cut")
    assert run.finish(TRUNCATED) == ""
    assert run.chain.ended is TRUNCATED
    assert run.failed == ["faulty"]
    assert (early.told[-1], late.told[-1]) == ("cut", "cut")


def test_rule_7_what_was_delivered_and_released_before_stays() -> None:
    run = Transcript(Redact(), faulty("on_end"), Farewell("end", "."))
    run.feed("ab")
    assert run.finish() == "ab."
    assert run.outcome == "policy_error faulty policy_error"


@pytest.mark.parametrize("bypass", [False, True])
def test_rule_7_what_raises_on_released_events(bypass: bool) -> None:
    late = Watch()
    run = Transcript(Redact(), link(faulty("on_events"), bypass=bypass), late)
    run.feed("ab")
    assert run.finish() == ("ab" if bypass else "")
    assert run.outcome == ("complete" if bypass else "policy_error faulty policy_error")
    assert late.told == ["start", *(["ab", "end"] if bypass else ["cut"])]


def test_rule_7_nobody_waits_for_a_policy_that_was_taken_out() -> None:
    stream = faulty("on_activity")
    stream.on_events = Wait().on_events  # type: ignore[method-assign]
    run = Transcript(link(stream, bypass=True), Watch())
    assert run.feed("ab") == ""
    assert run.activity() == "ab"
    assert not run.chain.paused


@pytest.mark.parametrize("head", [ResponseHead(200), ResponseHead(502, local=True)], ids=["upstream", "local"])
@pytest.mark.parametrize("bypass", [False, True])
def test_rule_7_what_raises_at_the_head_is_answered(head: ResponseHead, bypass: bool) -> None:
    _, late, run = with_a_faulty("on_response", bypass=bypass)
    answer = run.chain.response(head)
    assert run.failed == ["faulty"]
    if head.local or bypass:
        assert answer is None
        assert late.told == ["start", "local head" if head.local else "head"]
    else:
        assert answer is not None
        assert (answer[0], answer[1].details, answer[1].status) == ("faulty", "policy_error", 500)
        assert late.told == ["start"]


NO_VERDICTS: list[Any] = [
    None, "text", (), b"a", {}, 1,
    Pause(-1, [], []), Pause(math.nan, [], []), Pause("1", [], []), Pause(1, None, []), Pause(1, [], ()),  # type: ignore[arg-type]
    Pause(1, ["a"], []), Stop(None), Stop("x", None), Stop("x", events="a"), Stop("x", message=1),  # type: ignore[arg-type,list-item]
    Stop("x", headers=[("Retry-After", "7")]),  # type: ignore[arg-type]
]  # fmt: skip
NO_EVENTS: list[Any] = [[None], ["a"], [b"a"]]


def spelt(result: object) -> str:
    """Without addresses: the processes that share a run must know a test by the same name."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(result))


def returning(hook: str, result: object) -> PolicyStream:
    """A stream of which one hook returns `result`, and which wakes at 1."""
    stream: PolicyStream = type("Returning", (PolicyStream,), {hook: lambda self, *args: result, "wake_at": 1})()
    return stream


@pytest.mark.parametrize("result", NO_VERDICTS, ids=spelt)
def test_verdicts_are_validated(result: object) -> None:
    run = Transcript(returning("on_events", result))
    assert run.feed("ab") == ""
    assert run.outcome == "policy_error returning policy_error"
    assert isinstance(run.chain.errors[0][1], PolicyError)


@pytest.mark.parametrize("result", NO_VERDICTS, ids=spelt)
def test_what_got_no_valid_verdict_is_passed_on_by_bypass(result: object) -> None:
    run = Transcript(link(returning("on_events", result), bypass=True))
    assert run.feed("ab") == "ab"
    assert run.finish() == ""
    assert run.outcome == "complete"


@pytest.mark.parametrize("result", [*NO_VERDICTS, *NO_EVENTS], ids=spelt)
@pytest.mark.parametrize("bypass", [False, True])
def test_verdicts_on_released_events_are_validated(result: object, bypass: bool) -> None:
    run = Transcript(Redact(), link(returning("on_events", result), bypass=bypass))
    run.feed("ab")
    assert run.finish() == ("ab" if bypass else "")
    assert run.outcome == ("complete" if bypass else "policy_error returning policy_error")


@pytest.mark.parametrize("hook", ["on_timer", "on_end"])
@pytest.mark.parametrize("result", [*NO_VERDICTS, *NO_EVENTS, Pause(1, [], [])], ids=spelt)
def test_what_other_hooks_return_is_validated(hook: str, result: object) -> None:
    run = Transcript(returning(hook, result))
    assert RAISING[hook](run) == ""
    assert run.outcome == "policy_error returning policy_error"
    assert run.failed == ["returning"]


def test_what_on_response_returns_is_validated() -> None:
    run = Transcript(returning("on_response", "nonsense"))
    answer = run.chain.response(ResponseHead(200))
    assert answer is not None
    assert answer[1].details == "policy_error"


@pytest.mark.parametrize("result", [*NO_VERDICTS, *NO_EVENTS], ids=spelt)
def test_what_on_cut_returns_is_validated(result: object) -> None:
    run = Transcript(returning("on_cut", result), Farewell("", "."))
    assert run.finish(TRUNCATED) == "."
    assert run.chain.ended is TRUNCATED
    assert run.failed == ["returning"]


# Rule 8: close


def outcomes() -> list[Outcome]:
    return [Outcome(kind) for kind in OutcomeKind]


@pytest.mark.parametrize("outcome", outcomes(), ids=lambda outcome: outcome.kind.value)
@pytest.mark.parametrize("started", [False, True])
def test_rule_8_close_reaches_every_stream_exactly_once(outcome: Outcome, started: bool) -> None:
    streams = [Watch(), Watch(), Watch()]
    run = Transcript(*streams, started=started)
    run.chain.close(outcome)
    run.chain.close(COMPLETE)
    for stream in streams:
        assert stream.told == [*(["start"] if started else []), f"close {outcome.kind.value}"]


def test_rule_8_close_reaches_the_others_where_one_raises() -> None:
    early, late, run = with_a_faulty("close")
    run.chain.close(COMPLETE)
    assert (early.told[-1], late.told[-1]) == ("close complete", "close complete")
    assert run.failed == ["faulty"]


@pytest.mark.parametrize("bypass", [False, True])
def test_rule_8_close_reaches_streams_that_failed_stopped_or_wait(bypass: bool) -> None:
    failed, stopped, waiting = faulty("on_events"), Timeout(1), Watch()
    waiting.on_events = Wait().on_events  # type: ignore[method-assign]
    closed: list[PolicyStream] = []
    run = Transcript(link(failed, bypass=bypass), stopped, waiting)
    for stream in (failed, stopped, waiting):
        stream.close = lambda outcome, stream=stream: closed.append(stream)  # type: ignore[method-assign,misc]
    run.feed("a")
    run.at(2)
    run.chain.close(Outcome.of("deadline"))
    assert closed == [failed, stopped, waiting]


def test_facts_are_what_each_policy_says_by_name() -> None:
    def saying(facts: Any) -> PolicyStream:
        stream = PolicyStream()
        stream.facts = lambda: facts  # type: ignore[method-assign]
        return stream

    one, two, silent = saying({"sent": 1}), saying({"sent": 2, "why": "limit"}), PolicyStream()
    run = Transcript(link(one, "one"), link(faulty("facts"), "faulty"), link(silent, "silent"), link(two, "two"))
    run.chain.close(COMPLETE)
    assert run.chain.facts() == {"one": {"sent": 1}, "two": {"sent": 2, "why": "limit"}}
    assert run.failed == ["faulty"]


# Rule 9: heads


def test_rule_9_the_head_goes_down_the_chain_and_can_be_edited() -> None:
    class Mention(PolicyStream):
        def __init__(self, word: str) -> None:
            self._word = word

        def on_response(self, head: ResponseHead) -> Reply | None:
            head.headers.add("X-Mention", self._word)
            return None

    head = ResponseHead(200)
    assert Transcript(Mention("1"), PolicyStream(), Mention("2")).chain.response(head) is None
    assert head.headers.getall("X-Mention") == ["1", "2"]


def test_rule_9_a_policy_can_answer_in_the_upstreams_stead() -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Answer(), late)
    answer = run.chain.response(ResponseHead(200))
    assert answer is not None
    assert (answer[0], answer[1].details, answer[1].status) == ("answer", "upstream_status", 502)
    assert (early.told, late.told) == (["start", "head"], ["start"])


def test_rule_9_a_local_reply_is_shown_to_all_and_replaced_by_none() -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Answer(), late)
    assert run.chain.response(ResponseHead(429, local=True)) is None
    assert early.told == late.told == ["start", "local head"]


@pytest.mark.parametrize("started", [False, True])
def test_rule_9_the_local_reply_that_an_end_becomes_is_shown_too(started: bool) -> None:
    early, late = Watch(), Watch()
    run = Transcript(early, Timeout(1), late, started=started)
    run.at(1)
    run.finish(DEADLINE)
    run.chain.response(ResponseHead(504, local=True))
    assert early.told[-1] == late.told[-1] == "local head"


# Time


def test_next_wake_is_the_soonest_of_timers_and_pauses() -> None:
    run = Transcript(Watch(wake_at=7), Watch(wake_at=5), Watch(), Pace(3))
    assert run.chain.next_wake() == 5
    run.feed("ab")
    assert run.chain.next_wake() == 3
    run.at(3)
    assert run.chain.next_wake() == 5
    run.at(6)
    assert run.chain.next_wake() == 7
    run.at(7)
    assert run.chain.next_wake() is None


def test_a_wake_up_without_a_timer_hook_is_none() -> None:
    stream = PolicyStream()
    stream.wake_at = 1
    assert Transcript(stream).chain.next_wake() is None


def test_wake_at_is_cleared_before_the_timer_rings_and_can_be_set_anew() -> None:
    stream = Watch(wake_at=5)
    run = Transcript(stream)
    run.at(5)
    assert stream.wake_at is None
    stream.wake_at = 6
    run.at(9)
    assert stream.told == ["start", "timer at 5", "timer at 6"]


def test_a_timer_that_rings_too_early_does_nothing() -> None:
    stream = Watch(wake_at=5)
    run = Transcript(stream, Pace(5))
    run.feed("ab")
    assert run.chain.timer(4.9) == []
    assert stream.told == ["start", "ab"]
    assert run.chain.paused


# Marks


def test_a_cut_has_the_outcome_and_the_words_of_its_fault() -> None:
    mark = Mark.cut("upstream_reset")
    assert mark.outcome == Outcome(OutcomeKind.UPSTREAM_ERROR, "", "upstream_reset")
    assert mark.problem is not None
    assert (mark.problem.status, mark.ending, mark.clean) == (502, Ending.ERROR, False)
    assert (CLEAN_END.outcome, CLEAN_END.clean, CLEAN_END.problem) == (COMPLETE, True, None)


@pytest.mark.parametrize(
    ("details", "drops"),
    [
        ("deadline", True), ("upstream_silence", True), ("write_stall", True), ("shutdown", True), ("client_gone", True),
        ("upstream_truncated", False), ("upstream_reset", False), ("event_too_large", False), ("policy_error", False),
        ("budget", False),
    ],
)  # fmt: skip
def test_only_who_has_no_time_left_drops_what_is_queued(details: str, drops: bool) -> None:
    assert Mark.cut(details).drops is drops
    assert not CLEAN_END.drops
