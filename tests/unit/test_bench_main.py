"""The command line of the benchmark: what it measures, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rigs.bench_rounds import ROUNDS, round_of

from bench import __main__ as command
from bench import machine, peers, penstock, plot, reference, report
from bench.figures import BY_KEY, Failure, Spread
from bench.loadgen import BenchError, Mode
from bench.rounds import Measured

GOOD = Measured(ROUNDS, [], [])


class Command:
    """The command, run as if something had been measured. `asked` is what it wanted to have measured."""

    asked: tuple[Any, ...] = ()

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, found: Measured | Exception = GOOD) -> int:
        def measure(*asked: Any) -> Measured:
            self.asked = asked
            if isinstance(found, Exception):
                raise found
            return found

        self._monkeypatch.setattr(command, "measure", measure)
        self._monkeypatch.setattr("sys.argv", ["bench", *arguments])
        return command.main()

    @property
    def batches(self) -> set[str]:
        return {batch[-1].batch for batch in self.asked[0]}


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Its files go to a directory of the test."""
    monkeypatch.setattr(command, "OUT", tmp_path / "out")
    monkeypatch.setattr(command, "PLOT", tmp_path / "bench.svg")
    monkeypatch.setattr(peers, "versions", dict)
    load, save = reference.load, reference.save
    monkeypatch.setattr(reference, "load", lambda: load(tmp_path / "reference.json"))
    monkeypatch.setattr(reference, "save", lambda made: save(made, tmp_path / "reference.json"))
    return Command(monkeypatch)


def test_by_default_everything_is_measured_printed_and_written(
    start: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert start() == 0
    assert start.batches == {"core", "codings", "workers", "policies", "peers"}
    printed = capsys.readouterr().out
    assert "1.70 (1.50 - 1.90)" in printed
    assert "to reach" in printed
    (written,) = (tmp_path / "out").iterdir()
    assert json.loads(written.read_text())["rounds"]
    assert not (tmp_path / "reference.json").exists()


def test_quick_is_short_and_a_choice_stands(start: Command) -> None:
    start("--quick")
    assert start.batches == {"core", "codings"}
    assert start.asked[1:3] == (2, 0.5)
    start("--quick", "--only", "peers")
    assert start.batches == {"peers"}


def test_what_is_missing_is_named_and_no_failure(start: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(found=Measured(ROUNDS, ["caddy is missing (Debian: caddy); left out: caddy"], [])) == 0
    assert "MISSING: caddy is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "found", [Measured([round_of(direct=(1, 1), full=(2, 2))], ["nginx is missing"], []), BenchError("cc is missing")]
)
def test_without_nginx_there_is_nothing_to_compare_and_exit_status_2(
    start: Command, found: Measured | Exception
) -> None:
    assert start("--save-reference", found=found) == 2
    assert reference.load() is None


def test_what_failed_is_named_and_exit_status_2_and_the_rest_stands(
    start: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    failed = Measured(ROUNDS, [], [Failure("full", Mode.CROWD, "the load generator hangs")])
    assert start("--check", found=failed) == 2
    printed = capsys.readouterr().out
    assert "FAILED: full, crowd: the load generator hangs" in printed
    assert "MISSED: it failed" in printed
    (written,) = (tmp_path / "out").iterdir()
    assert json.loads(written.read_text())["facts"]["failed"] == ["full, crowd: the load generator hangs"]


def test_of_a_run_in_which_something_failed_no_reference_is_made(
    start: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    start("--save-reference")
    made, drawn = reference.load(), (tmp_path / "bench.svg").read_text()
    failed = Measured(ROUNDS[:1], [], [Failure("full", Mode.FLOOD, "the load generator hangs")])
    assert start("--save-reference", found=failed) == 2
    assert "not saved, since something failed" in capsys.readouterr().out
    assert (reference.load(), (tmp_path / "bench.svg").read_text()) == (made, drawn)


@pytest.mark.parametrize("part", [["--quick"], ["--only", "full"]])
def test_of_a_part_of_a_run_no_reference_is_made(
    start: Command, part: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        start("--save-reference", *part)
    assert exit_.value.code == 2
    assert "a reference is made of a whole run" in capsys.readouterr().err
    assert not start.asked
    assert reference.load() is None


def test_a_reference_knows_how_it_was_measured_and_what_casts_doubt_on_it(
    start: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "doubts", lambda rounds: ["other processes had the cores"])
    assert start("--save-reference", "--rounds", "3") == 0
    made = reference.load()
    assert made is not None
    assert (made.facts["rounds"], made.facts["seconds"]) == (3, 1.2)
    assert made.facts["doubts"] == ["other processes had the cores"]


def test_what_the_reference_has_and_the_check_could_not_compare_is_named(
    start: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    had = Spread(1.7, 1.5, 1.9)
    reference.save(
        reference.Reference(
            {},
            [policy["use"] for policy in penstock.chain(penstock.FULL, penstock.installed())],
            {"cpu_paced": {"full": had, "pass-through": had, "caddy": had}},
        )
    )
    assert start("--check") == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("not compared")] == [
        f"not compared: full: {BY_KEY['cpu_paced'].title}"
    ]


def test_the_reference_and_the_plot_are_made_of_a_run_and_the_next_one_is_compared(
    start: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert start("--check") == 2
    assert "make bench-reference" in capsys.readouterr().out
    assert start("--save-reference") == 0
    made = reference.load()
    assert made is not None
    assert (tmp_path / "bench.svg").read_text() == plot.svg(made.figures)
    assert start("--check") == 0
    assert "nothing got worse" in capsys.readouterr().out


def test_what_got_worse_is_named_and_exit_status_1(start: Command, capsys: pytest.CaptureFixture[str]) -> None:
    start("--save-reference")
    slower = [round_of(direct=(0, 20), nginx=(30, 100), pass_through=(90, 180))]
    assert start("--check", found=Measured(slower, [], [])) == 1
    assert "WORSE: pass-through, CPU per event" in capsys.readouterr().out


def test_a_reference_of_another_chain_is_none(start: Command, capsys: pytest.CaptureFixture[str]) -> None:
    reference.save(reference.Reference({}, ["some", "other"], {"cpu_paced": {"full": Spread(1, 1, 1)}}))
    assert start("--check") == 2
    assert "some, other" in capsys.readouterr().out


def test_it_says_when_the_interpreter_is_slower_than_the_images(
    start: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "python_build", lambda: "not optimised, libpython shared")
    start()
    assert "without --enable-optimizations" in capsys.readouterr().out
    monkeypatch.setattr(machine, "python_build", lambda: "optimised, libpython static")
    start()
    assert "without --enable-optimizations" not in capsys.readouterr().out
