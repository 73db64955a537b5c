"""What a policy costs in the chain: the arithmetic, and that it can be measured."""

import pytest

from bench import chain


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
