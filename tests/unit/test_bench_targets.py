"""Whether a run has the figures that are to be reached."""

from pathlib import Path

import pytest
from rigs.bench_rounds import round_of

from bench.figures import BY_KEY, Failure
from bench.loadgen import Mode
from bench.scenarios import SCENARIOS
from bench.targets import TARGETS, Standing, Target, table

ROUND = round_of(direct=(0, 0), nginx=(10, 10), full=(25, 50))


@pytest.mark.parametrize(
    ("reach", "aim", "standing"),
    [(3.0, 2.5, Standing.AIM), (2.5, 2.2, Standing.REACHED), (2.4, 2.2, Standing.MISSED), (None, 2, Standing.REACHED)],
)
def test_a_figure_stands_by_its_median(reach: float | None, aim: float, standing: Standing) -> None:
    assert Target("cpu_paced", "full", reach, aim).standing([ROUND]) is standing


def test_a_figure_may_be_a_value() -> None:
    target = Target("stream_kib", "full", 56, 40, base=None)
    assert target.found([ROUND]) == (25, 25, 25)
    assert target.what.endswith("KiB")


def test_what_was_not_measured_is_not_missed() -> None:
    assert Target("cpu_paced", "full+gzip", 3.0, 2.2).standing([ROUND]) is Standing.UNKNOWN
    assert Target("cpu_paced", "full", 3.0, 2.2, base="litellm").standing([ROUND]) is Standing.UNKNOWN
    assert Target("stream_kib", "full+gzip", 3.0, 2.2, base=None).standing([ROUND]) is Standing.UNKNOWN


def test_what_failed_is_missed_though_some_round_or_another_figure_has_it() -> None:
    broken = [Failure("full", Mode.CROWD, "only 3,000 of 4,000 streams began")]
    crowd, paced = Target("crowd_p99", "full", None, 50, base=None), Target("cpu_paced", "full", 3.0, 2.5)
    assert crowd.standing([], broken) is Standing.FAILED
    assert crowd.standing([ROUND], broken) is Standing.FAILED
    assert paced.standing([ROUND], broken) is Standing.AIM
    assert paced.standing([ROUND], [Failure("full", None, "it does not start")]) is Standing.FAILED
    assert Target("cpu_paced", "pass-through", 3.0, 2.5).standing([], broken) is Standing.UNKNOWN
    (line,) = (line for line in table([ROUND], broken).splitlines() if line.startswith(crowd.what))
    assert line.endswith("MISSED: it failed")


def test_the_failure_of_what_it_is_compared_with_is_its_own() -> None:
    target = Target("cpu_saturated", "full", 1 / 15, 1 / 30, base="litellm")
    assert target.standing([ROUND], [Failure("litellm", Mode.SERIAL, "it hangs")]) is Standing.FAILED


def test_scenarios_of_different_batches_are_compared_by_way_of_nginx() -> None:
    other = [round_of(nginx=(20, 10), litellm=(1000, 10)), round_of(nginx=(10, 10), litellm=(600, 10))]
    found = Target("cpu_saturated", "full", 1 / 15, 1 / 30, base="litellm").found([ROUND, *other])
    assert found == pytest.approx((2.5 / 55, 2.5 / 60, 2.5 / 50))


def test_the_table_names_every_target_and_how_it_stands() -> None:
    assert "reach" in table([ROUND]).splitlines()[0]
    lines = table([ROUND]).splitlines()[1:]
    assert len(lines) == len(TARGETS)
    for target, line in zip(TARGETS, lines, strict=True):
        assert line.startswith(target.what)
        assert line.endswith(target.standing([ROUND]).value)


def test_targets_are_of_scenarios_that_are_measured() -> None:
    names = {scenario.name for scenario in SCENARIOS}
    assert {target.scenario for target in TARGETS} <= names
    assert {target.base for target in TARGETS} - {None} <= names


def test_the_documentation_has_every_figure_to_reach() -> None:
    text = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    for target in TARGETS:
        unit = BY_KEY[target.figure].unit if target.base is None else f"x {target.base}"
        numbers = [_written(target.reach), _written(target.aim)]
        assert any(
            f"`{target.scenario}`" in row[0] and f"`{target.figure}`" in row[1] and row[2:] == [unit, *numbers]
            for row in rows
        ), target


def _written(value: float | None) -> str:
    if value is None:
        return "-"
    return f"1/{1 / value:.0f}" if value < 1 else f"{value:g}"
