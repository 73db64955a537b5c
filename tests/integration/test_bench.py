"""The benchmark measures real servers: Penstock with each coding, and the references."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import loadgen, machine, peers, rounds
from bench.loadgen import Load, Mode
from bench.scenarios import CODINGS, DIRECT, batches

SMALL = {Mode.SATURATED: Load("saturated", 4), Mode.PACED: Load("paced", 4, 50)}


def test_every_coding_is_measured_and_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs cc")
    for module in (loadgen, rounds):
        monkeypatch.setattr(module, "LOADS", SMALL)
    monkeypatch.setattr(loadgen, "WARM_S", 0.05)
    found = rounds.measure(batches(CODINGS), 1, 0.1, machine.pick_cores(), 1024)
    assert not found.failed
    (round_,) = found.rounds
    missing = [name for name in (*CODINGS, peers.NGINX.program) if any(name in what for what in found.missing)]
    assert set(round_) == {DIRECT, peers.NGINX.program, *CODINGS} - set(missing)
    for name in set(CODINGS) - set(missing):
        run = round_[name]
        assert run.start_ms is not None
        assert run.modes[Mode.PACED].cpu_us_per_event > 0
        assert run.modes[Mode.PACED].bytes < 240 * run.modes[Mode.PACED].events


def test_a_mode_that_cannot_be_had_is_left_out_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs cc")
    monkeypatch.setattr(loadgen, "LOADS", SMALL)
    monkeypatch.setattr(loadgen, "WARM_S", 0.05)
    monkeypatch.setattr(rounds, "LOADS", {**SMALL, Mode.SATURATED: Load("saturated", 1000)})
    found = rounds.measure(batches(["gzip"]), 2, 0.1, machine.pick_cores(), 1024)
    assert any("saturated needs 2200 open files" in what and "gzip" in what for what in found.missing)
    assert all(set(round_["gzip"].modes) == {Mode.PACED} for round_ in found.rounds)
