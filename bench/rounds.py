"""Measures the batches, round after round. Starts processes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from .figures import Failure, Round, Run
from .loadgen import LIBRARIES, LOADS, STOLEN_LIMIT, BenchError, LoadGenerator, Measurement, MissingError, Mode
from .machine import Cores, stolen_s
from .scenarios import Scenario
from .servers import Server

SETTLE_S = 0.2  # before a measurement: the proxy sees that the last one's connections to the mock upstream are gone
MOST_TRIES = 4  # at a measurement of which the host stole too much


class Measured(NamedTuple):
    """All rounds, what was left out and why (something is missing), and what failed."""

    rounds: list[Round]
    missing: list[str]
    failed: list[Failure]


def measure(
    batches: Sequence[Sequence[Scenario]], round_count: int, seconds: float, cores: Cores, open_files: int
) -> Measured:
    """Measure every batch in every round. What is missing or fails once is left out from then on.

    Raises `BenchError` where the load generator cannot be built. `open_files` is how many a process may have."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        generator = stack.enter_context(LoadGenerator(directory, cores.load))
        runs = _Runs(generator, directory, cores, seconds, open_files)
        rounds: list[Round] = []
        for number in range(1, round_count + 1):
            for batch in batches:
                print(f"round {number} of {round_count}: {', '.join(s.name for s in batch)}", file=sys.stderr)
                # there and back, so that a drift within rounds does not favour one end of the list
                found = runs.of(batch if number % 2 else batch[::-1])
                rounds.append({s.name: found[s.name] for s in batch if s.name in found})
        return Measured(rounds, list(runs.missing), list(runs.failed))


class _Life:
    """A server of a batch, from its start to its end: closing `stack` ends it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.stack = ExitStack()
        self.server: Server | None = None
        self.measured: dict[Mode, Measurement] = {}
        self.failed = False


class _Runs:
    def __init__(
        self, generator: LoadGenerator, directory: Path, cores: Cores, seconds: float, open_files: int
    ) -> None:
        self._generator = generator
        self._directory = directory
        self._cores = cores
        self._seconds = seconds
        self._open_files = open_files
        self._left_out: set[tuple[str, Mode | None]] = set()  # None: the whole scenario
        self.missing: dict[str, None] = {}
        self.failed: dict[Failure, None] = {}

    def of(self, batch: Sequence[Scenario]) -> dict[str, Run]:
        """One life of each server of the batch. All stand ready while one is measured, so that what is compared is measured
        within seconds: a machine drifts more from one minute to the next than between two of its processes."""
        lives = [_Life(scenario) for scenario in batch if (scenario.name, None) not in self._left_out]
        with ExitStack() as stack:
            for life in lives:
                stack.push(life.stack)
                self._try(life, self._start)
            started = [life for life in lives if life.server is not None]
            for mode in Mode:
                for life in started:
                    if mode in life.scenario.modes and (life.scenario.name, mode) not in self._left_out:
                        self._try(life, self._measure, mode)
        return {
            life.scenario.name: Run(life.server.start_ms, life.measured) for life in started if life.server is not None
        }

    def _try(self, life: _Life, step: Callable[..., None], mode: Mode | None = None) -> None:
        """One step of a life that has not failed. What goes wrong is noted, and not tried again in later rounds."""
        if life.failed:
            return
        name = life.scenario.name
        try:
            step(life, *(() if mode is None else (mode,)))
            return
        except MissingError as error:
            self.missing[f"{error}; left out: {name if mode is None else f'{name}, {mode.value}'}"] = None
        except BenchError as error:
            self.failed[Failure(name, mode, str(error))] = None
            life.failed = True
            life.stack.close()  # what this server does now is anybody's guess; its next life leaves the mode out
        self._left_out.add((name, mode))

    def _start(self, life: _Life) -> None:
        scenario = life.scenario
        if scenario.coding is not None and scenario.coding not in self._generator.codings:
            header, _, package = LIBRARIES[scenario.coding]
            raise MissingError(f"{header} is missing (Debian: {package})")
        own = Path(life.stack.enter_context(tempfile.TemporaryDirectory(dir=self._directory)))
        life.server = life.stack.enter_context(scenario.serve(self._generator.upstream_port, own, self._cores.proxy))

    def _measure(self, life: _Life, mode: Mode) -> None:
        assert life.server is not None
        scenario, server = life.scenario, life.server
        needed = LOADS[mode].open_files
        if needed > self._open_files:
            raise MissingError(f"{mode.value} needs {needed} open files, raise `ulimit -n`")
        # memory is told by a process that has not done anything before, and nobody can steal it
        tries = 1 if mode is Mode.HOLD else MOST_TRIES
        found = [self._once(scenario, server, mode)]
        while found[-1].stolen > STOLEN_LIMIT and len(found) < tries:
            found.append(self._once(scenario, server, mode))
        life.measured[mode] = min(found, key=attrgetter("stolen"))

    def _once(self, scenario: Scenario, server: Server, mode: Mode) -> Measurement:
        time.sleep(SETTLE_S)
        if server.turns is not None:
            server.turns.forget()
        began, before = time.monotonic(), [stolen_s(core) for core in self._cores]
        found = self._generator.measure(
            mode,
            server.port,
            pids=server.pids,
            headers=[line.format(upstream=self._generator.upstream_url) for line in scenario.headers],
            coding=scenario.coding,
            seconds=self._seconds,
        )
        took = time.monotonic() - began
        stolen = max(stolen_s(core) - was for core, was in zip(self._cores, before, strict=True)) / took
        turn_us = None if server.turns is None else server.turns.longest_us
        return msgspec.structs.replace(found, stolen=stolen, turn_us=turn_us)
