"""What the benchmark prints and writes."""

import json

import pytest
from rigs.bench_rounds import ROUNDS, measurement, round_of

from bench import report
from bench.figures import FIGURES, Run
from bench.loadgen import Mode


def test_the_table_has_a_line_for_each_proxy_in_each_figure() -> None:
    text = report.table(ROUNDS, 3)
    for figure in FIGURES:
        block = text.partition(figure.title)[2].splitlines()[1:3]
        assert [line.split()[0] for line in block] == ["nginx", "pass-through"]
    assert "1.70 (1.50 - 1.90)" in text
    assert "rounds" not in text


def test_a_ratio_of_fewer_rounds_than_asked_for_says_of_how_many() -> None:
    noisy = round_of(direct=(0, 130), nginx=(40, 120), pass_through=(60, 170))
    text = report.table([*ROUNDS, noisy], 4)
    latency = text.partition("added latency per event p50")[2].splitlines()[2]
    assert latency.endswith("2.00 (1.50 - 2.00) in only 3 of 4 rounds")
    cpu = text.partition("CPU per event")[2].splitlines()[2]
    assert "rounds" not in cpu


def test_what_no_round_has_is_not_in_the_table() -> None:
    title, line = report.table([{"full": Run(700.0, {})}], 1).splitlines()
    assert title.startswith("start, until it accepts")
    assert line.split() == ["full", "700.0", "-"]


def test_scenarios_of_different_batches_are_in_one_table() -> None:
    rounds = [round_of(nginx=(10, 10), full=(30, 30)), round_of(nginx=(10, 10), caddy=(20, 20))]
    assert report.measured(rounds) == ["nginx", "full", "caddy"]


def test_a_load_generator_that_is_too_busy_is_told() -> None:
    assert report.doubts(ROUNDS) == []
    busy = {"direct": Run(None, {Mode.PACED: measurement(0, 20, own_busy=0.61)})}
    assert "61%" in report.doubts([*ROUNDS, busy])[0]


def test_a_machine_that_does_something_else_is_told() -> None:
    shared = {"direct": Run(None, {Mode.PACED: measurement(0, 20, waited=0.06)})}
    assert "6%" in report.doubts([shared])[0]
    assert report.doubts([{"direct": Run(None, {})}]) == []


def test_measurements_that_the_host_stole_from_are_counted() -> None:
    stolen = {"direct": Run(None, {mode: measurement(0, 20, stolen=0.02) for mode in (Mode.PACED, Mode.SERIAL)})}
    assert report.doubts([*ROUNDS, stolen])[0].startswith("of 2 of ")


def test_the_document_is_json_and_holds_facts_figures_and_every_measurement() -> None:
    document = json.loads(json.dumps(report.document(ROUNDS, {"cpu_count": 2})))
    assert document["facts"] == {"cpu_count": 2}
    assert document["figures"]["cpu_paced"]["scenarios"]["pass-through"]["ratio"]["median"] == pytest.approx(1.7)
    assert document["figures"]["cpu_paced"]["scenarios"]["pass-through"]["compared"] == 3
    assert document["rounds"][1]["nginx"]["serial"]["ttft_us"]["p50"] == 240
    assert document["rounds"][1]["nginx"]["start_ms"] == 20
