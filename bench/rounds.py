"""Measures the batches, round after round. Starts processes."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from .figures import Round, Run
from .loadgen import LIBRARIES, LOADS, BenchError, LoadGenerator, Measurement, MissingError, Mode
from .machine import Cores
from .scenarios import Scenario
from .servers import Server

SETTLE_S = 0.2  # before a measurement: the proxy sees that the last one's connections to the mock upstream are gone


class Measured(NamedTuple):
    """All rounds, what was left out and why (something is missing), and what failed."""

    rounds: list[Round]
    missing: list[str]
    failed: list[str]


def measure(
    batches: Sequence[Sequence[Scenario]], round_count: int, seconds: float, cores: Cores, open_files: int
) -> Measured:
    """Measure every batch in every round. What is missing or fails once is left out from then on.

    Raises `BenchError` where the load generator cannot be built. `open_files` is how many a process may have."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        generator = stack.enter_context(LoadGenerator(directory, cores.load))
        runs = _Runs(generator, directory, cores.proxy, seconds, open_files)
        rounds: list[Round] = []
        for number in range(1, round_count + 1):
            for batch in batches:
                print(f"round {number} of {round_count}: {', '.join(s.name for s in batch)}", file=sys.stderr)
                # there and back, so that a drift within rounds does not favour one end of the list
                order = batch if number % 2 else batch[::-1]
                found = {scenario.name: runs.of(scenario) for scenario in order}
                rounds.append({s.name: run for s in batch if (run := found[s.name]) is not None})
        return Measured(rounds, list(runs.missing), list(runs.failed))


class _Runs:
    def __init__(self, generator: LoadGenerator, directory: Path, core: int, seconds: float, open_files: int) -> None:
        self._generator = generator
        self._directory = directory
        self._core = core
        self._seconds = seconds
        self._open_files = open_files
        self._left_out: set[tuple[str, Mode | None]] = set()  # None: the whole scenario
        self.missing: dict[str, None] = {}
        self.failed: dict[str, None] = {}

    def of(self, scenario: Scenario) -> Run | None:
        """One life of its server; None where it is left out."""
        if (scenario.name, None) in self._left_out:
            return None
        try:
            return self._run(scenario)
        except MissingError as error:
            self.missing[f"{error}; left out: {scenario.name}"] = None
        except BenchError as error:
            self.failed[f"{scenario.name}: {error}"] = None
        self._left_out.add((scenario.name, None))
        return None

    def _run(self, scenario: Scenario) -> Run:
        if scenario.coding is not None and scenario.coding not in self._generator.codings:
            header, _, package = LIBRARIES[scenario.coding]
            raise MissingError(f"{header} is missing (Debian: {package})")
        with (
            tempfile.TemporaryDirectory(dir=self._directory) as own,
            scenario.serve(self._generator.upstream_port, Path(own), self._core) as server,
        ):
            measured: dict[Mode, Measurement] = {}
            for mode in scenario.modes:
                if (scenario.name, mode) in self._left_out:
                    continue
                try:
                    measured[mode] = self._measure(scenario, mode, server)
                except MissingError as error:
                    self.missing[f"{error}; left out: {scenario.name}, {mode.value}"] = None
                    self._left_out.add((scenario.name, mode))
                except BenchError as error:
                    self.failed[f"{scenario.name}, {mode.value}: {error}"] = None
                    self._left_out.add((scenario.name, mode))
                    break  # what this server does now is nobody's guess; its next life leaves the mode out
            return Run(server.start_ms, measured)

    def _measure(self, scenario: Scenario, mode: Mode, server: Server) -> Measurement:
        needed = LOADS[mode].open_files
        if needed > self._open_files:
            raise MissingError(f"{mode.value} needs {needed} open files, raise `ulimit -n`")
        time.sleep(SETTLE_S)
        return self._generator.measure(
            mode,
            server.port,
            pids=server.pids,
            headers=[line.format(upstream=self._generator.upstream_url) for line in scenario.headers],
            coding=scenario.coding,
            seconds=self._seconds,
        )
