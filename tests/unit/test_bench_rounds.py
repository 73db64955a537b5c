"""The order of measurements: servers side by side, one kind of load after the other, and what is left out when one fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from rigs.bench_rounds import measurement

from bench import rounds
from bench.loadgen import BenchError, MissingError, Mode
from bench.machine import Cores
from bench.scenarios import Scenario
from bench.servers import Server


class Bench:
    """Servers that are none, and a load generator that notes whom it was to measure, in which mode."""

    codings: frozenset[str] = frozenset()
    upstream_port = 0
    upstream_url = ""

    def __init__(self) -> None:
        self.measured: list[tuple[str, Mode]] = []
        self.running: list[str] = []
        self.fails: dict[tuple[str, Mode | None], BenchError] = {}
        self._ports: dict[int, str] = {}

    def scenario(self, name: str, *modes: Mode) -> Scenario:
        port = len(self._ports) + 1
        self._ports[port] = name

        @contextmanager
        def serve(upstream_port: int, directory: Path, core: int) -> Iterator[Server]:
            if error := self.fails.get((name, None)):
                raise error
            self.running.append(name)
            yield Server(port)
            self.running.remove(name)

        def serving(upstream_port: int, directory: Path, core: int) -> AbstractContextManager[Server]:
            return serve(upstream_port, directory, core)

        return Scenario(name, "", "core", serving, modes)

    def measure(self, mode: Mode, port: int, **_: Any) -> Any:
        name = self._ports[port]
        self.measured.append((name, mode))
        assert name in self.running
        if error := self.fails.get((name, mode)):
            raise error
        return measurement(1.0, 1.0)

    def __call__(self, *batch: Scenario, round_count: int = 1) -> rounds.Measured:
        return rounds.measure([batch], round_count, 1.0, Cores(0, 1), 1 << 20)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()

    @contextmanager
    def generator(directory: Path, core: int) -> Iterator[Bench]:
        yield made

    monkeypatch.setattr(rounds, "LoadGenerator", generator)
    monkeypatch.setattr(rounds, "SETTLE_S", 0)
    return made


def test_each_load_goes_through_all_servers_before_the_next_begins(bench: Bench) -> None:
    found = bench(bench.scenario("a", Mode.SERIAL, Mode.PACED), bench.scenario("b", Mode.PACED, Mode.SERIAL))
    assert bench.measured == [("a", Mode.SERIAL), ("b", Mode.SERIAL), ("a", Mode.PACED), ("b", Mode.PACED)]
    assert [set(run.modes) for run in found.rounds[0].values()] == [{Mode.SERIAL, Mode.PACED}] * 2
    assert not bench.running


def test_every_other_round_goes_backwards(bench: Bench) -> None:
    bench(bench.scenario("a", Mode.PACED), bench.scenario("b", Mode.PACED), round_count=2)
    assert [name for name, _ in bench.measured] == ["a", "b", "b", "a"]


def test_a_server_that_fails_is_stopped_and_the_others_go_on(bench: Bench) -> None:
    bench.fails["a", Mode.SERIAL] = BenchError("it hangs")
    found = bench(bench.scenario("a", Mode.SERIAL, Mode.PACED), bench.scenario("b", Mode.SERIAL), round_count=2)
    assert found.failed == ["a, serial: it hangs"]
    # its next life leaves out what it failed in
    assert bench.measured == [("a", Mode.SERIAL), ("b", Mode.SERIAL), ("b", Mode.SERIAL), ("a", Mode.PACED)]
    assert not bench.running


def test_what_is_not_installed_is_named_once_and_left_out(bench: Bench) -> None:
    bench.fails["a", None] = MissingError("a is missing")
    found = bench(bench.scenario("a", Mode.SERIAL), bench.scenario("b", Mode.SERIAL), round_count=2)
    assert found.missing == ["a is missing; left out: a"]
    assert [set(round_) for round_ in found.rounds] == [{"b"}, {"b"}]
