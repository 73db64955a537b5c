"""The benchmark's arithmetic and what it configures; no process is started."""

import json
import tomllib
from pathlib import Path

import pytest

from bench import chain, report
from bench.loadgen import Measurement, Mode, Percentiles
from bench.scenarios import EXAMPLE, ORIGIN, nginx_config, penstock_config


def measurement(cpu_us: float, latency_us: float, *, own_busy: float = 0.2, waited: float = 0.0) -> Measurement:
    """1,000 events at `cpu_us` each; p99 and TTFT are twice and three times the latency."""
    return Measurement(
        events=1000,
        bytes=240_000,
        seconds=1.0,
        cpu_ns=int(cpu_us * 1e6),
        waited=waited,
        own_busy=own_busy,
        own_waited=0.0,
        coded_streams=0,
        latency_us=Percentiles(latency_us, latency_us, 2 * latency_us, 2 * latency_us),
        ttft_us=Percentiles(3 * latency_us, 3 * latency_us, 3 * latency_us, 3 * latency_us),
    )


def round_of(**scenarios: tuple[float, float]) -> report.Round:
    """(CPU, latency) of each scenario, the same in every mode."""
    return {
        name.replace("_", "-"): {mode: measurement(cpu_us, latency_us) for mode in Mode}
        for name, (cpu_us, latency_us) in scenarios.items()
    }


ROUNDS = [
    round_of(direct=(0, 20), nginx=(40, 120), pass_through=(60, 170)),
    round_of(direct=(0, 30), nginx=(20, 80), pass_through=(38, 130)),
    round_of(direct=(0, 20), nginx=(30, 100), pass_through=(51, 180)),
]
CPU, LATENCY = (next(f for f in report.FIGURES if f.key == key) for key in ("cpu_paced", "latency_p50"))


def test_a_ratio_is_taken_within_its_round_and_the_median_of_the_rounds_is_reported() -> None:
    summary = report.summarise(CPU, "pass-through", ROUNDS)
    assert summary.value_us == pytest.approx((51, 38, 60))
    assert summary.ratio == pytest.approx((1.7, 1.5, 1.9))


def test_what_is_added_is_the_difference_to_the_direct_connection_of_the_same_round() -> None:
    summary = report.summarise(LATENCY, "pass-through", ROUNDS)
    assert summary.value_us == pytest.approx((150, 100, 160))
    assert summary.ratio == pytest.approx((2.0, 1.5, 2.0))


def test_a_round_in_which_nginx_added_nothing_gives_no_ratio() -> None:
    noisy = round_of(direct=(0, 130), nginx=(40, 120), pass_through=(60, 170))
    summary = report.summarise(LATENCY, "pass-through", [noisy])
    assert summary.value_us is not None
    assert summary.ratio is None


def test_without_nginx_the_proxy_is_still_compared_with_the_direct_connection() -> None:
    rounds = [round_of(direct=(0, 20), pass_through=(60, 170))]
    assert report.summarise(LATENCY, "pass-through", rounds) == (report.Spread(150, 150, 150), None)
    assert "150.0" in report.table(rounds)
    assert report.verdict(rounds)[0] is None


@pytest.mark.parametrize(("cpu_us", "holds"), [(79.9, True), (80, False)])
def test_pass_through_has_to_be_under_twice_nginx(cpu_us: float, holds: bool) -> None:
    rounds = [round_of(direct=(0, 20), nginx=(40, 120), pass_through=(cpu_us, 170))]
    assert report.verdict(rounds)[0] is holds


def test_the_table_has_a_line_for_each_proxy_in_each_figure() -> None:
    text = report.table(ROUNDS)
    for figure in report.FIGURES:
        block = text.partition(figure.title)[2].splitlines()[1:3]
        assert [line.split()[0] for line in block] == ["nginx", "pass-through"]
    assert "1.70 (1.50 - 1.90)" in text


def test_a_load_generator_that_is_too_busy_is_told() -> None:
    assert report.doubts(ROUNDS) == []
    busy = {"direct": {Mode.PACED: measurement(0, 20, own_busy=0.61)}}
    assert "61%" in report.doubts([*ROUNDS, busy])[0]


def test_a_machine_that_does_something_else_is_told() -> None:
    shared = {"direct": {Mode.PACED: measurement(0, 20, waited=0.06)}}
    assert "6%" in report.doubts([shared])[0]


def test_the_document_is_json_and_holds_facts_figures_and_every_measurement() -> None:
    document = json.loads(json.dumps(report.document(ROUNDS, {"cpu_count": 2})))
    assert document["facts"] == {"cpu_count": 2}
    assert document["figures"]["cpu_paced"]["scenarios"]["pass-through"]["ratio"]["median"] == pytest.approx(1.7)
    assert document["rounds"][1]["nginx"]["serial"]["ttft_us"]["p50"] == 240


def test_the_chain_of_a_configuration_is_the_given_one_on_every_route() -> None:
    policies = [
        {"use": "idle_timeout", "routes": ["chat"], "deadline_s": 60.0},
        {"use": "cors", "origins": ["*"], "x": True},
    ]
    config = tomllib.loads(penstock_config(8000, policies))
    assert config["policy"] == [{"use": "idle_timeout", "deadline_s": 60.0}, policies[1]]
    assert config["upstreams"]["mock"]["url"] == "http://127.0.0.1:8000"
    assert config["log"]["access"] is True


def test_pass_through_is_configured_as_nginx_is() -> None:
    config = tomllib.loads(penstock_config(8000, ()))
    assert "policy" not in config
    assert config["log"]["access"] is False
    nginx = nginx_config(8080, Path("/somewhere"), 8000)
    assert "access_log off;" in nginx
    assert "proxy_buffering off;" in nginx


async def test_each_chain_is_measured_with_and_without_the_policy() -> None:
    rounds = await chain.run(2, events=300)
    assert len(rounds) == 2
    without, *others = rounds[0].values()
    assert len(others) == 3
    assert all(cost.event_us > 0 and cost.exchange_us > 0 for cost in (without, *others))


def test_what_a_chain_costs_is_a_ratio_within_its_round() -> None:
    rounds = [
        {"without": chain.Cost(cost, 100), "token_limit": chain.Cost(ratio * cost, 300)}
        for cost, ratio in ((1.0, 2.0), (4.0, 1.5), (2.0, 1.75))
    ]
    _, without, limited = chain.table(rounds).splitlines()
    assert without.split() == ["without", "2.00", "1.00", "100"]
    assert limited.split() == ["token_limit", "3.50", "1.75", "300"]


def test_the_command_prints_a_ratio_for_each_chain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench.chain", "--rounds", "1"])
    assert chain.main() == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert "ratio" in title
    ratios = {line[:40].strip(): float(line[40:].split()[1]) for line in lines}
    assert list(ratios) == list(chain.rows())
    assert ratios["without"] == 1
    assert min(ratios.values()) > 0


def test_exact_counts_are_measured_where_they_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("o200k" in name for name in chain.rows())
    monkeypatch.setattr(chain, "installed", lambda tokenizer: False)
    assert len(chain.rows()) == 3


def test_the_origin_that_is_sent_is_one_that_the_example_allows() -> None:
    (cors,) = (policy for policy in tomllib.loads(EXAMPLE.read_text())["policy"] if policy["use"] == "cors")
    assert ORIGIN.removeprefix("Origin: ") in cors["allow_origins"]
