"""The benchmark's arithmetic."""

import pytest
from rigs.bench_rounds import ROUNDS, round_of

from bench.figures import BY_KEY, FIGURES, Failure, Run, Spread, ratios, summarise
from bench.loadgen import Mode

CPU, LATENCY = BY_KEY["cpu_paced"], BY_KEY["latency_p50"]


def test_a_ratio_is_taken_within_its_round_and_the_median_of_the_rounds_is_reported() -> None:
    summary = summarise(CPU, "pass-through", ROUNDS)
    assert summary.value == pytest.approx((51, 38, 60))
    assert summary.ratio == pytest.approx((1.7, 1.5, 1.9))


def test_what_is_added_is_the_difference_to_the_direct_connection_of_the_same_round() -> None:
    summary = summarise(LATENCY, "pass-through", ROUNDS)
    assert summary.value == pytest.approx((150, 100, 160))
    assert summary.ratio == pytest.approx((2.0, 1.5, 2.0))


def test_of_every_percentile_the_direct_connections_median_is_taken_off() -> None:
    tail = BY_KEY["latency_p99"]
    assert [tail.value(round_, "pass-through") for round_ in ROUNDS] == [2 * 170 - 20, 2 * 130 - 30, 2 * 180 - 20]
    assert tail.ratio(ROUNDS[0], "pass-through") == (2 * 170 - 20) / (2 * 120 - 20)


def test_a_round_in_which_nginx_added_nothing_gives_no_ratio_and_those_that_do_are_counted() -> None:
    noisy = round_of(direct=(0, 130), nginx=(40, 120), pass_through=(60, 170))
    summary = summarise(LATENCY, "pass-through", [noisy])
    assert summary.value is not None
    assert summary.ratio is None
    assert summary.compared == 0
    assert summarise(LATENCY, "pass-through", [*ROUNDS, noisy]).compared == 3


def test_without_nginx_the_proxy_is_still_compared_with_the_direct_connection() -> None:
    rounds = [round_of(direct=(0, 20), pass_through=(60, 170))]
    assert summarise(LATENCY, "pass-through", rounds) == (Spread(150, 150, 150), None, 0)


def test_a_scenario_can_be_compared_with_another_than_nginx() -> None:
    rounds = [round_of(one=(10, 0), two=(11, 0)), round_of(one=(20, 0), two=(21, 0)), round_of(one=(20, 0))]
    assert ratios(CPU, "two", rounds, "one") == pytest.approx((1.075, 1.05, 1.1))


def test_a_mode_or_a_part_of_it_that_was_not_measured_is_no_figure() -> None:
    (paced,) = (run.modes[Mode.PACED] for run in round_of(direct=(0, 20)).values())
    starved = Run(None, {Mode.FLOOD: type(paced)(0, 0, 0.1, 0, 0, 0, 0, ttft_us=paced.ttft_us)})
    found = {figure.key: figure.value({"full": starved}, "full") for figure in FIGURES}
    assert found.pop("flood_first") == 60 / 1e3
    assert set(found.values()) == {None}


def test_every_figure_reads_what_a_measurement_has() -> None:
    (round_, *_) = ROUNDS
    assert all(figure.value(round_, "pass-through") is not None for figure in FIGURES)
    assert BY_KEY["events_per_s"].value(round_, "nginx") == 1000
    assert BY_KEY["start_ms"].value(round_, "nginx") == 40
    assert BY_KEY["crowd_p99"].value(round_, "nginx") == 2 * 120 / 1e3


def test_a_failure_says_of_what_and_why() -> None:
    assert str(Failure("full", Mode.CROWD, "it hangs")) == "full, crowd: it hangs"
    assert str(Failure("full", None, "it does not start")) == "full: it does not start"
