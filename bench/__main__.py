"""Command line of the benchmark.

Exit status: 0 all of it was measured and no limit is broken; 1 pass-through is over its limit; 2 something that the run
needs is missing or failed (it is named, and what can be measured without it still is).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from . import machine, report
from .loadgen import BenchError, LoadGenerator, Measurement, MissingError, Mode
from .scenarios import REFERENCES, SCENARIOS, Scenario
from .servers import Server

OUT = Path(__file__).parent / "out"
Number = TypeVar("Number", int, float)


def main() -> int:
    """Measure, print the table, write the JSON file; the exit status of the process."""
    arguments = _arguments()
    if sys.platform != "linux":
        print("bench: needs Linux: it reads /proc and pins processes to cores", file=sys.stderr)
        return 2
    wanted = [s for s in SCENARIOS if not arguments.only or s.name in (*REFERENCES, *arguments.only)]
    cores = machine.pick_cores()
    facts = machine.facts(cores)
    notes = [] if facts["uvloop"] else ["uvloop is not installed: penstock runs on asyncio's own event loop"]
    if cores.load == cores.proxy:
        notes.append("only one core is usable: the load generator and the proxies share it, latencies mean little")
    try:
        rounds, missing = _run(wanted, arguments.rounds, arguments.seconds, cores)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    holds, sentence = report.verdict(rounds)
    print(report.table(rounds))
    notes += report.doubts(rounds)
    for note in notes:
        print(f"note: {note}")
    for what in missing:
        print(f"MISSING: {what}")
    print(sentence)
    print(f"written: {_write(report.document(rounds, {**facts, 'missing': missing, 'notes': notes}))}")
    if holds is False:
        return 1
    return 2 if missing else 0


def _run(
    wanted: Sequence[Scenario], round_count: int, seconds: float, cores: machine.Cores
) -> tuple[list[report.Round], list[str]]:
    """All rounds, and the names of what was left out. Every server runs, idle, while the others are measured."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        generator = stack.enter_context(LoadGenerator(directory, cores.load))
        missing: list[str] = []
        running: list[tuple[Scenario, Server]] = []
        for scenario in wanted:
            try:
                if scenario.gzip and not generator.decodes_gzip:
                    raise MissingError("zlib.h is missing (Debian: zlib1g-dev)")
                own = directory / scenario.name
                own.mkdir()
                server = stack.enter_context(scenario.serve(generator.upstream_port, own, cores.proxy))
            except MissingError as error:
                missing.append(f"{error}; left out: {scenario.name}")
            else:
                running.append((scenario, server))
        rounds: list[report.Round] = []
        for number in range(1, round_count + 1):
            print(f"round {number} of {round_count}", file=sys.stderr)
            # there and back, so that a drift within rounds does not favour one end of the list
            order = running if number % 2 else running[::-1]
            measured = {scenario.name: _measure(generator, scenario, server, seconds) for scenario, server in order}
            rounds.append({scenario.name: measured[scenario.name] for scenario, _ in running})
        return rounds, missing


def _measure(
    generator: LoadGenerator, scenario: Scenario, server: Server, seconds: float
) -> Mapping[Mode, Measurement]:
    measured = {}
    for mode in scenario.modes:
        try:
            one = generator.measure(mode, server.port, pids=server.pids, headers=scenario.headers, seconds=seconds)
        except BenchError as error:
            raise BenchError(f"{scenario.name}, {mode.value}: {error}") from None
        if bool(one.coded_streams) is not scenario.gzip:
            raise BenchError(f"{scenario.name}, {mode.value}: {one.coded_streams} replies were compressed")
        measured[mode] = one
    return measured


def _write(document: Mapping[str, object]) -> Path:
    OUT.mkdir(exist_ok=True)
    path = OUT / f"bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _positive(kind: Callable[[str], Number]) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("has to be more than 0")
        return value

    return read


def _arguments() -> argparse.Namespace:
    rows = "\n".join(f"  {scenario.name:<14}{scenario.what}" for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what Penstock adds to a stream, as ratios to nginx in the same run.",
        epilog=f"scenarios:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=_positive(int), default=5, help="each measures every scenario once (default 5)"
    )
    parser.add_argument("--seconds", type=_positive(float), default=1.2, help="of one measurement (default 1.2)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="SCENARIO",
        choices=[scenario.name for scenario in SCENARIOS],
        help=f"these scenarios, and always {' and '.join(REFERENCES)}",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
