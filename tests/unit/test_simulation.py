import pytest

from proxy.dialects.base import Channel, Kind
from proxy.errors import Outcome, OutcomeKind
from proxy.messages import Reply
from proxy.policy import Events, Pause, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage, Stop
from proxy.simulation import FakeHost, Simulation, joined, make_head, make_request, sse, texts
from proxy.state import Grant, Window

TEXT = Channel(0, Kind.TEXT, "/text")


class Scripted(Policy[PolicyConfig]):
    """Admits with the stream (or whatever else) that it was made with."""

    stage = Stage.PACE
    sees = Sees.EVENTS
    Config = PolicyConfig

    def __init__(self, stream, host=None, scope=Scope.EXCHANGE):
        super().__init__(PolicyConfig(), host or FakeHost())
        self.stream = stream
        self.scope = scope

    async def admit(self, request):
        return self.stream


class Diary(PolicyStream):
    """Writes down what it is told."""

    def __init__(self):
        self.lines = []

    def on_start(self, now):
        self.lines.append(("start", now))

    def on_response(self, head):
        self.lines.append(("response", head.status, head.local))

    def on_activity(self, now):
        self.lines.append(("activity", now))

    def on_reading(self, reading, now):
        self.lines.append(("reading", reading))

    def on_events(self, events, now):
        self.lines.append(("events", len(events), now))
        return events

    def on_end(self, now):
        self.lines.append(("end", now))
        return []

    def on_cut(self, now):
        self.lines.append(("cut", now))
        return []

    def close(self, outcome):
        self.lines.append(("close", outcome.kind))

    def facts(self):
        return {"lines": len(self.lines)}


async def test_an_exchange_from_start_to_end() -> None:
    exchange = await Simulation.admit(Scripted(Diary()))
    exchange.start()
    exchange.respond()
    exchange.advance(1.5)
    left = exchange.read(sse("Hel", "lo") + b"data: half")
    exchange.reading(False)
    exchange.advance(1.0)
    assert joined(exchange.end()) == b"data: half"
    assert exchange.close() == {"lines": 8}
    assert joined(left) == sse("Hel", "lo")
    assert texts(left) == {TEXT: "Hello"}
    assert joined(exchange.delivered) == sse("Hel", "lo") + b"data: half"
    assert exchange.stream.lines == [
        ("start", 1000.0),
        ("response", 200, False),
        ("activity", 1001.5),
        ("events", 2, 1001.5),
        ("reading", False),
        ("events", 1, 1002.5),
        ("end", 1002.5),
        ("close", OutcomeKind.COMPLETE),
    ]


async def test_a_cut_is_followed_by_the_dialects_ending() -> None:
    exchange = await Simulation.admit(Scripted(Diary()))
    exchange.start()
    exchange.respond()
    left = exchange.cut("upstream_reset")
    assert b"upstream_reset" in joined(left)
    assert exchange.delivered == left
    assert exchange.outcome == Outcome(OutcomeKind.UPSTREAM_ERROR, "", "upstream_reset")


async def test_a_whole_reply_has_no_ending() -> None:
    exchange = await Simulation.admit(Scripted(Diary()))
    exchange.start()
    exchange.respond(make_head(exchange.request, "application/json"))
    assert exchange.read(b'{"text": "Hel') == []
    assert exchange.cut("upstream_truncated") == []


async def test_a_reply_that_the_policy_gives_instead() -> None:
    class Refuses(PolicyStream):
        def on_response(self, head):
            return Reply(details="too_late", status=409)

    exchange = await Simulation.admit(Scripted(Refuses()))
    exchange.start()
    answer = exchange.respond()
    assert answer is not None
    assert answer.status == 409


@pytest.mark.parametrize(("scope", "heads"), [(Scope.ATTACHMENT, [True]), (Scope.EXCHANGE, [False])])
async def test_what_is_said_before_the_head_opens_the_reply(scope: Scope, heads: list[bool]) -> None:
    class Early(Diary):
        def on_start(self, now):
            self.wake_at = now + 1.0

        def on_timer(self, now):
            return [make_head(make_request()).stream.comment()]

    exchange = await Simulation.admit(Scripted(Early(), scope=scope))
    exchange.start()
    assert joined(exchange.advance(1.0)) == b": keep-alive\n\n"
    exchange.respond()
    assert [line[2] for line in exchange.stream.lines if line[0] == "response"] == heads
    assert joined(exchange.read(sse("a"))) == sse("a")


async def test_pauses_end_when_their_time_has_come() -> None:
    class Slow(PolicyStream):
        def on_events(self, events: Events, now: float):
            return Pause(2.0, events[:1], events[1:]) if len(events) > 1 else events

    exchange = await Simulation.admit(Scripted(Slow()))
    exchange.start()
    exchange.respond()
    assert joined(exchange.read(sse("a", "b", "c"))) == sse("a")
    assert exchange.end() == []
    assert exchange.advance(1.9) == []
    assert joined(exchange.advance(0.1)) == sse("b")
    assert exchange.outcome is None
    assert joined(exchange.advance(2.0)) == sse("c")
    assert exchange.outcome is not None


async def test_a_stop() -> None:
    class Stops(PolicyStream):
        def on_events(self, events, now):
            return Stop("enough", events=events)

    exchange = await Simulation.admit(Scripted(Stops(), FakeHost("budget")))
    exchange.start()
    exchange.respond()
    left = exchange.read(sse("a"))
    assert joined(left[:1]) == sse("a")
    assert exchange.outcome == Outcome(OutcomeKind.STOPPED, "budget", "enough")


async def test_a_timer_that_never_rests_is_found() -> None:
    class Restless(PolicyStream):
        def on_start(self, now):
            self.wake_at = now

        def on_timer(self, now):
            self.wake_at = now
            return []

    exchange = await Simulation.admit(Scripted(Restless()))
    exchange.start()
    with pytest.raises(AssertionError, match="without end"):
        exchange.advance(1.0)


async def test_spawned_work_wakes_its_stream() -> None:
    class Waits(PolicyStream):
        ready = False

        def on_events(self, events, now):
            if self.ready:
                return events
            host.spawn(self.work(), self)
            return Pause(1000.0, [], events)

        async def work(self):
            self.ready = True

    host = FakeHost()
    exchange = await Simulation.admit(Scripted(Waits(), host))
    exchange.start()
    exchange.respond()
    assert await exchange.run_spawned() == []
    assert exchange.read(sse("a")) == []
    assert joined(await exchange.run_spawned()) == sse("a")


async def test_what_was_spawned_in_close_is_done_but_nobody_is_told() -> None:
    class Leaves(PolicyStream):
        def on_timer(self, now):
            raise AssertionError("after close")

        def close(self, outcome):
            host.spawn(self.work(), self)

        async def work(self):
            done.append(self)

    host, done = FakeHost(), []
    exchange = await Simulation.admit(Scripted(Leaves(), host))
    exchange.start()
    exchange.close()
    assert await exchange.run_spawned() == []
    assert exchange.chain.errors == []
    assert done == [exchange.stream]


async def test_work_is_done_for_the_stream_that_waits_for_it() -> None:
    host, done = FakeHost(), []

    async def work(name):
        done.append(name)

    one, other = PolicyStream(), PolicyStream()
    host.spawn(work("one"), one)
    host.spawn(work("other"), other)
    host.spawn(work("nobody's"))
    assert await host.run_spawned(one)
    assert done == ["one", "nobody's"]
    assert not await host.run_spawned(one)
    assert await host.run_spawned(other)


async def test_what_does_not_take_part_cannot_be_simulated() -> None:
    for made in (None, Reply(details="stopped")):
        with pytest.raises(AssertionError, match=type(made).__name__):
            await Simulation.admit(Scripted(made))


async def test_there_is_no_body_before_the_head() -> None:
    exchange = await Simulation.admit(Scripted(Diary()))
    exchange.start()
    with pytest.raises(ValueError, match="no body"):
        exchange.read(b"data: a\n\n")


async def test_the_body_is_there_for_policies_that_need_it() -> None:
    policy = Scripted(Diary())
    assert (await Simulation.admit(policy)).request.body is None
    policy.needs_body = True
    exchange = await Simulation.admit(policy, make_request("Hello", stream=True))
    assert exchange.request.call.stream
    assert "Hello" in exchange.request.call.texts


def test_counters_are_kept_by_label() -> None:
    host = FakeHost("budget")
    count = host.counter("refused", "Requests refused.", ("reason",))
    count(1, "tokens")
    count(2, "tokens")
    assert host.counts == {("refused", "tokens"): 3}
    with pytest.raises(ValueError, match="labels"):
        count(1)


def test_the_clock_stands_still() -> None:
    host = FakeHost(now=5.0)
    assert host.clock() == host.clock() == 5.0


async def test_time_passes_for_the_host_and_its_store_too() -> None:
    minute = Window(10, 60)
    exchange = await Simulation.admit(Scripted(PolicyStream()))
    host = exchange.policy.host
    await host.state.take("a", [minute], 10)
    exchange.advance(150.0)
    assert host.clock() == exchange.now
    assert isinstance(await host.state.take("a", [minute], 10), Grant)
