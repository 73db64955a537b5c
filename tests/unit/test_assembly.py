"""From a configuration to what runs: who is started and stopped, in which order, and what a policy is given."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

import pytest
from rigs.doubles import Hooks, raising

from proxy.assembly import Assembly, PolicyHost, describe, make_store
from proxy.config import (
    AdminConfig,
    Config,
    Limits,
    ListenerConfig,
    LogConfig,
    PolicyEntry,
    RouteConfig,
    ServerConfig,
    StateConfig,
    UpstreamConfig,
)
from proxy.errors import PolicyError, StateError
from proxy.metrics import Metrics
from proxy.policy import Host, Policy, PolicyConfig, Stage
from proxy.state import Window
from proxy.state_memory import MemoryStore
from proxy.state_redis import RedisStore
from proxy.upstream import Upstream
from proxy.values import TCPAddress

URL = "http://127.0.0.1:9"


class Noted(Policy[PolicyConfig]):
    """It writes down what happens to it, and fails where it is told to."""

    stage = Stage.GUARD
    Config = PolicyConfig
    notes: ClassVar[list[str]]
    fails_in: ClassVar[set[str]]

    def __init__(self, config: PolicyConfig, host: Host) -> None:
        super().__init__(config, host)
        self._note("made")

    async def start(self) -> None:
        self._note("started")

    async def stop(self) -> None:
        self._note("stopped")

    def _note(self, what: str) -> None:
        what = f"{self.host.name} {what}"
        self.notes.append(what)
        if what in self.fails_in:
            raise KeyError("the author's mistake")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What policies, upstreams and the store have written down, in order."""
    written: list[str] = []
    monkeypatch.setattr(Noted, "notes", written, raising=False)
    monkeypatch.setattr(Noted, "fails_in", set(), raising=False)
    for what in ("start", "stop"):
        original = getattr(Upstream, what)

        async def note(self: Upstream, *given: Any, what: str = what, original: Any = original) -> None:
            written.append(f"{self.name} {what}")
            await original(self, *given)

        monkeypatch.setattr(Upstream, what, note)

        async def note_store(self: MemoryStore, what: str = what) -> None:
            written.append(f"store {what}")

        monkeypatch.setattr(MemoryStore, what, note_store)
    return written


def entry(name: str, *routes: str, bypass: bool = False) -> PolicyEntry:
    on_error = "bypass" if bypass else "close"
    label, on = f"policy[1] ({name})", frozenset(routes) if routes else None
    return PolicyEntry(label, "noted", name, on, on_error, Noted, PolicyConfig())


def configuration(*policies: PolicyEntry) -> Config:
    return Config(
        file="penstock.toml",
        data=b"",
        listeners={"main": ListenerConfig(address=TCPAddress("127.0.0.1", 0))},
        admin=AdminConfig(),
        server=ServerConfig(),
        limits=Limits(),
        log=LogConfig(),
        state=StateConfig(),
        upstreams={"model": UpstreamConfig(url=URL), "other": UpstreamConfig(url=URL)},
        routes={
            "chat": RouteConfig(path="/v1/chat", hosts=("a.test",), upstream="model", dialect="generic", rewrite="/v2"),
            "rest": RouteConfig(upstream="other"),
        },
        policies=policies,
    )


# The assembly


async def test_routes_have_their_upstream_and_their_policies_in_file_order(notes: list[str]) -> None:
    config = configuration(entry("cors"), entry("caps", "chat"), entry("beat", "rest", bypass=True), entry("last"))
    assembly = Assembly(config, Metrics())
    chat, rest = assembly.routes.find("a.test", "/v1/chat"), assembly.routes.find("a.test", "/v1")
    assert (chat.name, chat.path, chat.dialect, chat.rewrite) == ("chat", "/v1/chat", "generic", "/v2")
    assert (chat.upstream.name, rest.upstream.name) == ("model", "other")
    assert [place.name for place in chat.places] == ["cors", "caps", "last"]
    assert [(place.name, place.bypass) for place in rest.places] == [("cors", False), ("beat", True), ("last", False)]
    assert chat.places[0].policy is rest.places[0].policy


async def test_nothing_happens_before_start(notes: list[str]) -> None:
    Assembly(configuration(entry("a")), Metrics())
    assert notes == ["a made"]


async def test_policies_are_started_when_upstreams_and_the_store_are_and_stopped_before_them(notes: list[str]) -> None:
    assembly = Assembly(configuration(entry("a"), entry("b")), Metrics())
    notes.clear()
    await assembly.start()
    await assembly.stop()
    assert notes == [
        *("model start", "other start", "store start", "a started", "b started"),
        *("a stopped", "b stopped", "store stop", "model stop", "other stop"),
    ]


async def test_a_policy_that_cannot_be_made_is_named(notes: list[str]) -> None:
    Noted.fails_in.add("b made")
    with pytest.raises(PolicyError, match=r"policy 'b' cannot be made: .*the author's mistake"):
        Assembly(configuration(entry("a"), entry("b")), Metrics())


async def test_what_was_started_is_stopped_after_a_start_that_failed(notes: list[str]) -> None:
    Noted.fails_in.add("b started")
    assembly = Assembly(configuration(entry("a"), entry("b"), entry("c")), Metrics())
    with pytest.raises(PolicyError, match=r"policy 'b' does not start: .*the author's mistake"):
        await assembly.start()
    notes.clear()
    await assembly.stop()
    assert notes == ["a stopped", "b stopped", "store stop", "model stop", "other stop"]


async def test_a_store_that_does_not_start_keeps_the_process_from_starting(
    notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: MemoryStore) -> None:
        raise StateError("refused")

    monkeypatch.setattr(MemoryStore, "start", refuse)
    assembly = Assembly(configuration(entry("a")), Metrics())
    with pytest.raises(StateError):
        await assembly.start()
    await assembly.stop()
    assert notes[-3:] == ["store stop", "model stop", "other stop"]
    assert "a stopped" not in notes  # its `start` was never called


async def test_a_policy_that_does_not_stop_stops_nobody_else(
    notes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    Noted.fails_in.add("a stopped")
    assembly = Assembly(configuration(entry("a"), entry("b")), Metrics())
    await assembly.start()
    await assembly.stop()
    assert notes[-4:] == ["b stopped", "store stop", "model stop", "other stop"]
    assert "policy a did not stop: KeyError at test_assembly.py:" in caplog.text
    assert "mistake" not in caplog.text


async def test_work_that_was_spawned_is_waited_for_before_its_policy_is_stopped(notes: list[str]) -> None:
    async def refund() -> None:
        await asyncio.sleep(0)
        notes.append("refunded")

    assembly = Assembly(configuration(entry("a")), Metrics())
    await assembly.start()
    assembly.routes.find("", "/").places[0].policy.host.spawn(refund())
    await assembly.stop()
    assert notes[-5:-3] == ["refunded", "a stopped"]


# The state


def test_all_policies_are_given_the_same_store(notes: list[str]) -> None:
    assembly = Assembly(configuration(entry("a"), entry("b")), Metrics())
    places = assembly.routes.find("", "/").places
    assert [place.policy.host.state for place in places] == [assembly.state, assembly.state]


def test_the_url_says_which_store_it_is() -> None:
    assert isinstance(make_store(StateConfig()), MemoryStore)
    assert isinstance(make_store(StateConfig(url="redis://127.0.0.1:6379")), RedisStore)


async def test_the_memory_store_is_bounded_as_configured() -> None:
    store = make_store(StateConfig(max_keys=1))
    await store.charge("limit/a", [Window(10, 60)], 1)
    with pytest.raises(StateError):
        await store.charge("limit/b", [Window(10, 60)], 1)


# The host


async def test_the_clock_is_the_loops() -> None:
    before = asyncio.get_running_loop().time()
    assert before <= PolicyHost("caps", Metrics(), MemoryStore(10)).clock() <= asyncio.get_running_loop().time()


async def test_a_stream_is_told_when_its_work_is_done() -> None:
    host = PolicyHost("caps", Metrics(), MemoryStore(10))
    stream, told = Hooks(), asyncio.Event()
    stream._poke = lambda poked: told.set() if poked is stream else None

    async def work() -> None:
        assert not told.is_set()

    host.spawn(work(), stream)
    await told.wait()


async def test_a_stream_of_no_exchange_is_told_nothing() -> None:
    host = PolicyHost("caps", Metrics(), MemoryStore(10))
    host.spawn(asyncio.sleep(0), Hooks())
    await host.drain(5.0)


async def test_work_that_fails_is_logged_without_its_message_and_told_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise ValueError("Zanzibar-4711")

    host = PolicyHost("caps", Metrics(), MemoryStore(10))
    stream, told = Hooks(), asyncio.Event()
    stream._poke = lambda poked: told.set()
    host.spawn(work(), stream)
    await told.wait()
    ((_, level, message),) = caplog.record_tuples
    assert level == logging.ERROR
    assert message.startswith("background work of policy caps failed: ValueError at test_assembly.py:")


async def test_work_that_takes_too_long_is_given_up() -> None:
    host, cancelled = PolicyHost("caps", Metrics(), MemoryStore(10)), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    host.spawn(work())
    await asyncio.sleep(0)
    await host.drain(0.0)
    await cancelled.wait()


async def test_what_spawned_work_spawns_is_waited_for_too() -> None:
    host = PolicyHost("caps", Metrics(), MemoryStore(10))
    done = asyncio.Event()

    async def undo() -> None:
        await asyncio.sleep(0)
        done.set()

    async def work() -> None:
        await asyncio.sleep(0)
        host.spawn(undo())

    host.spawn(work())
    await host.drain(5.0)
    assert done.is_set()


async def test_what_cancelled_work_spawns_is_not_left_behind() -> None:
    host = PolicyHost("caps", Metrics(), MemoryStore(10))

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            host.spawn(asyncio.sleep(3600))

    host.spawn(work())
    await asyncio.sleep(0)
    await host.drain(0.0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_all_policies_are_drained_in_the_same_time(notes: list[str]) -> None:
    assembly = Assembly(configuration(entry("a"), entry("b"), entry("c")), Metrics())
    await assembly.start()
    for _, host in assembly._policies:
        host.spawn(asyncio.sleep(3600))
    began_at = asyncio.get_running_loop().time()
    await assembly.stop(0.1)
    assert asyncio.get_running_loop().time() - began_at < 0.25


async def test_a_gauge_tells_what_is_when_it_is_asked() -> None:
    metrics, waiting = Metrics(), ["one"]
    for name in ("caps", "others"):
        PolicyHost(name, metrics, MemoryStore(10)).gauge("waiting", "Who waits.", lambda: len(waiting))
    waiting.append("two")
    _, page = metrics.expose("text/plain")
    assert 'penstock_policy_waiting{policy="caps"} 2.0' in page.decode()
    assert 'penstock_policy_waiting{policy="others"} 2.0' in page.decode()
    with pytest.raises(ValueError, match="lower-case"):
        PolicyHost("caps", metrics, MemoryStore(10)).gauge("Waiting", "", lambda: 0)


async def test_policies_share_the_memory_store_out() -> None:
    store = make_store(StateConfig(max_keys=7), 3)
    for policy in ("one", "other"):
        for number in range(2):
            await store.charge(f"{policy}/{number}", [Window(10, 60)], 1)
        with pytest.raises(StateError):
            await store.charge(f"{policy}/another", [Window(10, 60)], 1)


def test_a_counter_belongs_to_its_policy() -> None:
    metrics = Metrics()
    count = PolicyHost("caps", metrics, MemoryStore(10)).counter("denials", "Refused.", ("reason",))
    count(2, "full")
    _, page = metrics.expose("text/plain")
    assert 'penstock_policy_denials_total{policy="caps",reason="full"} 2.0' in page.decode()


def test_an_exception_is_described_by_kind_and_place() -> None:
    with pytest.raises(RuntimeError) as caught:
        raising()
    place = caught.value.__traceback__
    assert place is not None
    assert place.tb_next is not None
    assert describe(caught.value) == f"RuntimeError at doubles.py:{place.tb_next.tb_lineno}"
    assert describe(KeyError("never raised")) == "KeyError"
