"""Command line of the benchmark.

Exit status: 0 all that is installed was measured; 1 with --check, something got worse; 2 something failed, or what the
run cannot do without is missing (it is named, and what can be measured without it still is). Of a part of a run, or
of one in which something failed, no reference is made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from . import machine, peers, penstock, plot, reference, report, targets
from .loadgen import BenchError
from .rounds import measure
from .scenarios import BATCHES, NGINX, REFERENCES, SCENARIOS, batches

HERE = Path(__file__).parent
OUT = HERE / "out"
PLOT = HERE.parent / "docs" / "bench.svg"
CHECKED = ("core", "codings")
Number = TypeVar("Number", int, float)


def main() -> int:
    """Measure, print the tables, write the JSON file; the exit status of the process."""
    arguments = _arguments()
    if sys.platform != "linux":
        print("bench: needs Linux: it reads /proc and pins processes to cores", file=sys.stderr)
        return 2
    only = arguments.only or (CHECKED if arguments.check or arguments.quick else ())
    round_count, seconds = (2, 0.5) if arguments.quick else (arguments.rounds, arguments.seconds)
    cores, open_files = machine.pick_cores(), machine.allow_open_files()
    facts = {**machine.facts(cores), "peers": peers.versions(), "rounds": round_count, "seconds": seconds}
    asked = batches(only)
    try:
        measured = measure(asked, round_count, seconds, cores, open_files)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    rounds = measured.rounds
    policies = [policy["use"] for policy in penstock.chain(penstock.FULL, penstock.installed())]
    doubts = report.doubts(rounds)
    notes = [*_notes(facts, cores, policies), *doubts]
    print(report.table(rounds, round_count))
    print(targets.table(rounds, measured.failed))
    for note in notes:
        print(f"note: {note}")
    for what in measured.missing:
        print(f"MISSING: {what}")
    failed = [str(failure) for failure in measured.failed]
    for what in failed:
        print(f"FAILED: {what}")
    found = {"missing": measured.missing, "failed": failed, "notes": notes}
    print(f"written: {_write(report.document(rounds, {**facts, **found}))}")
    if not any(NGINX in round_ for round_ in rounds):
        return 2
    now = reference.Reference({**facts, "doubts": doubts}, policies, reference.figures_of(rounds))
    if arguments.save_reference:
        _save(now, failed)
    names = [scenario.name for batch in asked for scenario in batch if scenario.name not in REFERENCES]
    return (_check(now, names) if arguments.check else 0) or (2 if failed else 0)


def _notes(facts: Mapping[str, object], cores: machine.Cores, policies: Sequence[str]) -> list[str]:
    found = []
    if not facts["uvloop"]:
        found.append("uvloop is not installed: penstock runs on asyncio's own event loop")
    if str(facts["python_build"]).startswith("not optimised"):
        found.append(
            "this Python was built without --enable-optimizations, unlike the container image's: an event costs a fifth more"
        )
    if cores.load == cores.proxy:
        found.append("only one core is usable: the load generator and the proxies share it, latencies mean little")
    found += [f"{name} is not installed: not in the full chain" for name in penstock.FULL if name not in policies]
    return found


def _save(now: reference.Reference, failed: Sequence[str]) -> None:
    """A run in which something failed is no reference: what failed would be missing, and nothing compared with it."""
    if failed:
        print(f"not saved, since something failed: {reference.FILE.name} and the plot are as they were")
        return
    reference.save(now)
    PLOT.write_text(plot.svg(now.figures), encoding="utf-8")
    print(f"written: {reference.FILE}, {PLOT}")


def _check(now: reference.Reference, asked: Sequence[str]) -> int:
    old = reference.load()
    if old is None:
        print("there is no reference.json: make bench-reference")
        return 2
    if old.policies != now.policies:
        print(f"the reference's full chain was another ({', '.join(old.policies)}): make bench-reference")
        return 2
    found = reference.worse(old.figures, now.figures)
    for what in found:
        print(f"WORSE: {what}")
    for what in reference.not_compared(old.figures, now.figures, asked):
        print(f"not compared: {what}")
    print(f"compared with reference.json: {f'{len(found)} figures got worse' if found else 'nothing got worse'}")
    return 1 if found else 0


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
    rows = "\n".join(f"  {scenario.batch:<10}{scenario.name:<23}{scenario.what}" for scenario in SCENARIOS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what Penstock adds to a stream, as ratios to nginx in the same run.",
        epilog=f"scenarios, each in its batch:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=_positive(int), default=5, help="each measures every scenario once (default 5)"
    )
    parser.add_argument("--seconds", type=_positive(float), default=1.2, help="of one measurement (default 1.2)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[*BATCHES, *(scenario.name for scenario in SCENARIOS if scenario.name not in REFERENCES)],
        help=f"these scenarios or batches, and always {' and '.join(REFERENCES)}",
    )
    checked = " and ".join(CHECKED)
    parser.add_argument("--quick", action="store_true", help=f"two short rounds, by default of {checked}")
    parser.add_argument("--check", action="store_true", help=f"compare with reference.json, by default {checked}")
    parser.add_argument(
        "--save-reference", action="store_true", help="make this run reference.json and the plot of the README"
    )
    arguments = parser.parse_args()
    if arguments.save_reference and (arguments.quick or arguments.only):
        parser.error("a reference is made of a whole run: --save-reference goes with neither --quick nor --only")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
