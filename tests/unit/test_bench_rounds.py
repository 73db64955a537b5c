"""The order of measurements: servers side by side, one kind of load after the other, and what is left out when one fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rigs.bench_rounds import measurement

from bench import rounds
from bench.figures import Failure
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
        return msgspec.structs.replace(measurement(1.0, 1.0), events=len(self.measured))

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


def _stolen(monkeypatch: pytest.MonkeyPatch, *each: float) -> None:
    """What the host steals of both cores, in seconds, in one measurement after the other; nothing of later ones."""
    so_far = [0.0, *accumulate(each)]
    told = iter([value for pair in pairwise(so_far) for value in pair for _ in Cores(0, 1)])
    monkeypatch.setattr(rounds, "stolen_s", lambda core: next(told, so_far[-1]))


def test_what_the_host_stole_from_is_measured_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _stolen(monkeypatch, 100.0, 200.0, 0.0)
    found = bench(bench.scenario("a", Mode.PACED), bench.scenario("b", Mode.PACED))
    assert [name for name, _ in bench.measured] == ["a", "a", "a", "b"]
    assert found.rounds[0]["a"].modes[Mode.PACED].stolen == 0


def test_of_a_machine_that_is_always_stolen_from_the_best_measurement_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = [400.0, 100.0, *(400.0 for _ in range(rounds.MOST_TRIES - 2))]
    _stolen(monkeypatch, *tries)
    found = bench(bench.scenario("a", Mode.PACED))
    assert len(bench.measured) == rounds.MOST_TRIES
    assert found.rounds[0]["a"].modes[Mode.PACED].events == 2


def test_memory_is_not_measured_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _stolen(monkeypatch, 100.0)
    bench(bench.scenario("a", Mode.HOLD))
    assert len(bench.measured) == 1


def test_a_server_that_fails_is_stopped_and_the_others_go_on(bench: Bench) -> None:
    bench.fails["a", Mode.SERIAL] = BenchError("it hangs")
    found = bench(bench.scenario("a", Mode.SERIAL, Mode.PACED), bench.scenario("b", Mode.SERIAL), round_count=2)
    assert found.failed == [Failure("a", Mode.SERIAL, "it hangs")]
    # its next life leaves out what it failed in
    assert bench.measured == [("a", Mode.SERIAL), ("b", Mode.SERIAL), ("b", Mode.SERIAL), ("a", Mode.PACED)]
    assert not bench.running


def test_what_is_not_installed_is_named_once_and_left_out(bench: Bench) -> None:
    bench.fails["a", None] = MissingError("a is missing")
    found = bench(bench.scenario("a", Mode.SERIAL), bench.scenario("b", Mode.SERIAL), round_count=2)
    assert found.missing == ["a is missing; left out: a"]
    assert [set(round_) for round_ in found.rounds] == [{"b"}, {"b"}]
