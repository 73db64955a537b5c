"""The state store among what is assembled: which one it is, who is given it, and when it starts and stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from proxy.assembly import Assembly, make_store
from proxy.config import Config, PolicyEntry, StateConfig, load
from proxy.errors import PolicyError, StateError
from proxy.metrics import Metrics
from proxy.policy import Host, Policy, PolicyConfig, Stage
from proxy.state_memory import MemoryStore
from proxy.state_redis import RedisStore

SMALLEST = """
[listeners.main]
address = "127.0.0.1:0"
[upstreams.model]
url = "http://127.0.0.1:9"
[routes.all]
upstream = "model"
"""


PAST = {"start": "started", "stop": "stopped"}


class Noted(Policy[PolicyConfig]):
    stage = Stage.ADMIT
    Config = PolicyConfig
    notes: ClassVar[list[str]] = []
    stores: ClassVar[list[object]] = []

    def __init__(self, config: PolicyConfig, host: Host) -> None:
        super().__init__(config, host)
        self.stores.append(host.state)

    async def start(self) -> None:
        self.notes.append(f"{self.host.name} started")
        if self.host.name == "faulty":
            raise RuntimeError("on purpose")

    async def stop(self) -> None:
        self.notes.append(f"{self.host.name} stopped")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What policies and the store have been told, in order."""
    written: list[str] = []
    monkeypatch.setattr(Noted, "notes", written)
    monkeypatch.setattr(Noted, "stores", [])
    for what in PAST:

        async def note(self: MemoryStore, what: str = what) -> None:
            written.append(f"store {PAST[what]}")

        monkeypatch.setattr(MemoryStore, what, note)
    return written


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "penstock.toml"
    path.write_text(SMALLEST)
    return load(path)


def assemble(config: Config, *names: str) -> Assembly:
    entries = tuple(PolicyEntry("noted", name, None, "close", Noted, PolicyConfig()) for name in names)
    return Assembly(replace(config, policies=entries), Metrics())


async def test_it_is_there_before_the_policies_and_until_they_are_gone(notes: list[str], config: Config) -> None:
    assembly = assemble(config, "one", "two")
    await assembly.start()
    await assembly.stop()
    assert notes == ["store started", "one started", "two started", "one stopped", "two stopped", "store stopped"]


async def test_it_stops_where_a_policy_does_not_start(notes: list[str], config: Config) -> None:
    assembly = assemble(config, "faulty")
    with pytest.raises(PolicyError):
        await assembly.start()
    await assembly.stop()
    assert notes == ["store started", "faulty started", "faulty stopped", "store stopped"]


async def test_a_store_that_does_not_start_keeps_the_process_from_starting(
    notes: list[str], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Any) -> None:
        raise StateError("refused")

    monkeypatch.setattr(MemoryStore, "start", refuse)
    assembly = assemble(config, "one")
    with pytest.raises(StateError):
        await assembly.start()
    await assembly.stop()
    assert notes == ["store stopped"]  # policies whose `start` was never called are not stopped


def test_all_policies_are_given_the_same(notes: list[str], config: Config) -> None:
    assembly = assemble(config, "one", "two")
    assert Noted.stores == [assembly.state, assembly.state]


def test_the_url_says_which_it_is() -> None:
    assert isinstance(make_store(StateConfig()), MemoryStore)
    assert isinstance(make_store(StateConfig(url="redis://127.0.0.1:6379")), RedisStore)


async def test_the_memory_store_is_bounded_as_configured() -> None:
    store = make_store(StateConfig(max_keys=1))
    assert isinstance(store, MemoryStore)
    await store.counters.incr("a", 60)
    with pytest.raises(StateError):
        await store.counters.incr("b", 60)
