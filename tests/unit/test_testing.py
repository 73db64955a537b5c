"""`check_policy` finds each way of breaking the contract, and nothing in policies that keep it."""

from typing import Any

import pytest

from proxy.dialects.base import EVERY_CHANNEL
from proxy.errors import COMPLETE
from proxy.policy import Encoder, Pause, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage
from proxy.testing import SAMPLE, check_policy


def policy_of(stream_class, *, sees=Sees.EVENTS, may_bypass=False, stage=Stage.TRANSFORM):
    """A factory of policies whose `admit` makes a `stream_class`, given the policy."""

    class Made(Policy[PolicyConfig]):
        Config = PolicyConfig

        async def admit(self, request):
            return stream_class(self)

    Made.stage, Made.sees, Made.may_bypass = stage, sees, may_bypass
    Made.scope = Scope.ATTACHMENT if stage >= Stage.RESTORE else Scope.EXCHANGE
    return lambda host: Made(PolicyConfig(), host)


class Stream(PolicyStream):
    def __init__(self, policy):
        self.policy = policy


def rewrite(event, change):
    rewritten = event.with_deltas([(channel, change(text)) for channel, text in event.deltas])
    return [] if rewritten is None else [rewritten]


# Policies that keep the contract


async def test_a_policy_that_does_nothing() -> None:
    await check_policy(policy_of(Stream), expected=lambda text: text)


class Upper(Stream):
    """Character by character: no cut matters."""

    def on_events(self, events, now):
        return [out for event in events for out in rewrite(event, lambda text: text.replace("a", "A"))]


async def test_a_policy_that_rewrites() -> None:
    await check_policy(policy_of(Upper), expected=lambda text: text.replace("a", "A"))


class Paced(Stream):
    """One event at a time, and a job in the background now and then."""

    last = -1.0

    def on_events(self, events, now):
        if now < self.last + 0.5:
            return Pause(self.last + 0.5 - now, [], events)
        self.last = now
        self.policy.host.spawn(self.job(), self)
        return Pause(0.5, events[:1], events[1:]) if len(events) > 1 else events

    async def job(self):
        pass


async def test_a_policy_that_pauses() -> None:
    await check_policy(policy_of(Paced, stage=Stage.PACE), expected=lambda text: text)


class HoldsBack(Stream):
    """Everything, to the end."""

    def __init__(self, policy):
        super().__init__(policy)
        self.held = []

    def on_events(self, events, now):
        self.held += events
        if any(EVERY_CHANNEL in event.ends for event in events):
            return self.on_end(now)
        return []

    def on_end(self, now):
        held, self.held = self.held, []
        return held


async def test_a_policy_that_holds_back() -> None:
    await check_policy(policy_of(HoldsBack), expected=lambda text: text)


# Policies that break it


async def broken(match, stream_class, *, rounds=10, **policy):
    with pytest.raises(AssertionError, match=match):
        await check_policy(policy_of(stream_class, **policy), rounds=rounds)


async def test_a_text_that_is_looked_for_in_single_events_only() -> None:
    class Naive(Stream):
        def on_events(self, events, now):
            return [out for event in events for out in rewrite(event, lambda text: text.replace("example", "[X]"))]

    await broken("depends on how the text is cut", Naive)


async def test_what_is_held_back_for_ever() -> None:
    class Forgets(HoldsBack):
        def on_end(self, now):
            return []

    with pytest.raises(AssertionError, match="not what is expected"):
        await check_policy(policy_of(Forgets), expected=lambda text: text)


async def test_a_whole_reply_that_is_forgotten() -> None:
    class StreamsOnly(Stream):
        def on_response(self, head):
            self.streaming = head.stream is not None and head.stream.framing.streaming

        def on_events(self, events, now):
            return Upper.on_events(self, events, now) if self.streaming else events

    await broken("whole reply", StreamsOnly)


async def test_an_outcome_that_depends_on_the_cut() -> None:
    class CountsReads(Stream):
        reads = 0

        def on_events(self, events, now):
            self.reads += 1
            if self.reads > 1:
                raise RuntimeError("too many")
            return events

    await broken("raised", CountsReads)


@pytest.mark.parametrize(("seconds", "match"), [(0.0, "without end"), (60.0, "for ever")])
async def test_a_pause_for_ever(seconds: float, match: str) -> None:
    class Never(Stream):
        def on_events(self, events, now):
            return Pause(seconds, [], events)

    await broken(match, Never)


@pytest.mark.parametrize("hook", ["on_start", "on_response", "on_events", "on_end", "on_cut", "on_reading", "close"])
async def test_a_hook_that_raises(hook: str) -> None:
    def fail(self, *args):
        raise RuntimeError(hook)

    await broken("raised", type("Fails", (Stream,), {hook: fail}))


async def test_facts_that_raise() -> None:
    class Fails(Stream):
        def facts(self):
            raise RuntimeError("facts")

    await broken("raised", Fails)


async def test_a_head_that_it_does_not_expect() -> None:
    class Expects(Stream):
        def on_response(self, head):
            self.framing = head.stream.framing  # there is none on local heads

    await broken("raised", Expects)


async def test_an_event_that_it_does_not_expect() -> None:
    class Expects(Stream):
        def on_events(self, events, now):
            if not all(event.known for event in events):
                raise ValueError("what is this?")
            return events

    await broken("raised", Expects)


async def test_a_stream_that_closes_itself() -> None:
    class Eager(Stream):
        def on_end(self, now):
            self.close(COMPLETE)
            return []

    await broken("close was called 2 times", Eager)


async def test_state_that_is_shared() -> None:
    class Shared(Stream):
        def on_events(self, events, now):
            seen = self.policy.__dict__.setdefault("seen", [])
            seen.append(self)
            return [] if len({id(stream) for stream in seen}) > 1 else events

    await broken("depend on each other", Shared)


async def test_an_error_that_is_swallowed() -> None:
    class Swallows(Stream):
        def __getattribute__(self, name):
            found = super().__getattribute__(name)
            if name != "on_events" or not callable(found):
                return found

            def careful(events, now):
                try:
                    return found(events, now)
                except RuntimeError:
                    return events

            return careful

        def on_events(self, events, now):
            return events

    await broken("an error in on_events does not end the stream", Swallows)


@pytest.mark.parametrize("facts", [{"said": SAMPLE[:13]}, {SAMPLE[:20]: 1}, {"asked": "about Quito-1147"}])
async def test_facts_that_are_content(facts: dict[str, Any]) -> None:
    await broken("is content", type("Tells", (Stream,), {"facts": lambda self: facts}))


@pytest.mark.parametrize("value", [1.5, None, ["a"]])
async def test_facts_that_are_no_numbers_or_words(value: object) -> None:
    await broken("not a number or a word", type("Tells", (Stream,), {"facts": lambda self: {"it": value}}))


async def test_a_hook_by_a_wrong_name() -> None:
    class Typo(Stream):
        def on_event(self, events, now):
            return events

    await broken("on_event is not a hook; is on_events meant", Typo)


@pytest.mark.parametrize(
    ("hook", "sees"), [("on_events", Sees.ACTIVITY), ("on_activity", Sees.NOTHING), ("on_reading", Sees.NOTHING)]
)
async def test_a_hook_that_is_never_called(hook: str, sees: Sees) -> None:
    await broken(f"{hook} is never called", type("Deaf", (Stream,), {hook: lambda self, *args: args[0]}), sees=sees)


async def test_a_policy_that_must_not_be_bypassed() -> None:
    await broken("may be bypassed", Upper, may_bypass=True)


async def test_a_request_that_is_not_admitted() -> None:
    class Out(Policy[PolicyConfig]):
        stage = Stage.ADMIT
        Config = PolicyConfig

    with pytest.raises(AssertionError, match="admit gave NoneType"):
        await check_policy(lambda host: Out(PolicyConfig(), host))


# Encoders


class Doubling(Encoder):
    """Every byte twice."""

    def __init__(self, policy):
        self.policy = policy

    def on_response(self, head, *, streaming):
        head.headers["Content-Encoding"] = "double"
        head.headers.popall("Content-Length", None)
        return True

    def encode(self, data, flush):
        return bytes(byte for byte in data for _ in range(2))

    def finish(self):
        return b""


async def broken_encoder(match, **methods):
    encoder = type("Broken", (Doubling,), methods)
    with pytest.raises(AssertionError, match=match):
        await check_policy(policy_of(encoder, sees=Sees.NOTHING, stage=Stage.ENCODE))


async def test_an_encoder() -> None:
    await check_policy(policy_of(Doubling, sees=Sees.NOTHING, stage=Stage.ENCODE))


async def test_an_encoder_that_keeps_everything_to_the_end() -> None:
    await broken_encoder("a flush gave nothing", encode=lambda self, data, flush: b"")


async def test_an_encoder_that_does_not() -> None:
    await broken_encoder("does not ask for", on_response=lambda self, head, streaming: False)


async def test_an_encoder_that_does_not_say_so() -> None:
    await broken_encoder("no Content-Encoding", on_response=lambda self, head, streaming: True)


async def test_an_encoder_that_keeps_the_length() -> None:
    def on_response(self, head, *, streaming):
        head.headers["Content-Encoding"] = "double"
        return True

    await broken_encoder("Content-Length", on_response=on_response)


async def test_an_encoder_whose_state_is_shared() -> None:
    def encode(self, data, flush):
        self.policy.count = getattr(self.policy, "count", 0) + 1
        return b"%d " % self.policy.count

    await broken_encoder("depend on each other", encode=encode)


async def test_an_encoder_whose_facts_are_content() -> None:
    await broken_encoder("is content", facts=lambda self: {"said": SAMPLE[:13]})
