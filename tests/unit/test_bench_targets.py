"""Whether a run has the figures that are to be reached."""

import pytest
from rigs.bench_rounds import round_of

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
