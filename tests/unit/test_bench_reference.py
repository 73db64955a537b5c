"""What counts as worse than the reference, and its file."""

import json
from pathlib import Path

import pytest
from rigs.bench_rounds import ROUNDS

from bench import reference
from bench.figures import BY_KEY, Spread

OLD = Spread(2.0, 1.9, 2.2)


@pytest.mark.parametrize(
    ("now", "worse"),
    [
        (Spread(2.5, 2.1, 2.6), True),
        (Spread(2.41, 2.1, 2.6), False),  # beyond the worst round, but by less than the margin
        (Spread(2.5, 1.95, 2.6), False),  # its best round is as good as ever
        (Spread(1.0, 0.9, 1.1), False),
    ],
)
def test_worse_is_beyond_the_spread_and_the_margin_in_every_round(now: Spread, worse: bool) -> None:
    found = reference.worse({"cpu_paced": {"full": OLD}}, {"cpu_paced": {"full": now}})
    assert bool(found) is worse
    if worse:
        assert found[0].startswith("full, CPU per event")
        assert "2.50 (2.10 - 2.60) x nginx, was 2.00 (1.90 - 2.20)" in found[0]


@pytest.mark.parametrize(
    ("now", "worse"),
    [(Spread(0.4, 0.35, 0.45), True), (Spread(0.4, 0.35, 0.6), False), (Spread(0.9, 0.8, 1.0), False)],
)
def test_of_events_per_second_less_is_worse(now: Spread, worse: bool) -> None:
    old = Spread(0.5, 0.45, 0.55)
    assert bool(reference.worse({"events_per_s": {"full": old}}, {"events_per_s": {"full": now}})) is worse


def test_what_only_one_of_the_two_has_is_not_compared() -> None:
    assert reference.worse({}, {"cpu_paced": {"full": OLD}}) == []
    assert reference.worse({"cpu_paced": {"full": OLD}}, {"cpu_paced": {"caddy": Spread(9, 9, 9)}}) == []


def test_what_the_reference_has_of_what_was_asked_for_and_the_run_has_not_is_named() -> None:
    old = {"cpu_paced": {"full": OLD, "caddy": OLD}, "ttft_p50": {"full": OLD, "gzip": OLD}, "start_ms": {"full": OLD}}
    now = {"cpu_paced": {"full": OLD, "gzip": OLD}, "ttft_p50": {"gzip": OLD}}
    titles = f"{BY_KEY['ttft_p50'].title}; {BY_KEY['start_ms'].title}"
    assert reference.not_compared(old, now, ["full", "gzip"]) == [f"full: {titles}"]
    assert reference.not_compared(old, now, ["caddy"]) == [f"caddy: {BY_KEY['cpu_paced'].title}"]


def test_a_run_has_ratios_of_all_but_the_references() -> None:
    found = reference.figures_of(ROUNDS)
    assert list(found["cpu_paced"]) == ["pass-through"]
    assert found["cpu_paced"]["pass-through"] == pytest.approx((1.7, 1.5, 1.9))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    assert reference.load(file) is None
    saved = reference.Reference({"cpu": "x"}, ["auth"], {"cpu_paced": {"full": OLD, "caddy": OLD}, "ttft_p50": {}})
    reference.save(saved, file)
    assert reference.load(file) == saved
    assert json.loads(file.read_text())["figures"]["cpu_paced"]["caddy"] == [2.0, 1.9, 2.2]


def test_a_figure_that_is_no_longer_measured_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    reference.save(reference.Reference({}, [], {"cpu_of_old": {"full": OLD}}), file)
    loaded = reference.load(file)
    assert loaded is not None
    assert loaded.figures == {}


def test_the_committed_reference_can_be_read() -> None:
    committed = reference.load()
    assert committed is not None
    assert committed.figures["cpu_paced"]["full"].median > 0
