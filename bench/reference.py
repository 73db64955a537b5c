"""The committed reference, reference.json, and what got worse since. Pure but for reading and writing that file.

It holds ratios to nginx only, since machines differ. A figure got worse if its median is more than `MARGIN` beyond the
worst round of the reference, and even its best round is worse than the reference's median: the first keeps out a small
drift, the second a run in which a single round went wrong.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .figures import BY_KEY, FIGURES, Round, Spread, ratios
from .report import measured, span
from .scenarios import REFERENCES

FILE = Path(__file__).with_name("reference.json")
MARGIN = 0.10

Ratios = Mapping[str, Mapping[str, Spread]]
"""Of each figure, by its key, for each scenario, by its name."""


class Reference(NamedTuple):
    """`facts` are of the machine and the run, doubts included; `policies` are those of the full chain that were
    installed."""

    facts: Mapping[str, Any]
    policies: Sequence[str]
    figures: Ratios


def figures_of(rounds: Sequence[Round]) -> dict[str, dict[str, Spread]]:
    """The ratios of a run."""
    return {
        figure.key: {
            name: ratio
            for name in measured(rounds)
            if name not in REFERENCES and (ratio := ratios(figure, name, rounds)) is not None
        }
        for figure in FIGURES
    }


def worse(reference: Ratios, now: Ratios) -> list[str]:
    """A sentence for each figure that got worse, of those that both have."""
    found = []
    for key, scenarios in now.items():
        for name, ratio in scenarios.items():
            old = reference.get(key, {}).get(name)
            if old is not None and _is_worse(old, ratio, BY_KEY[key].more_is_better):
                found.append(
                    f"{name}, {BY_KEY[key].title}: {ratio.median:.2f}{span(ratio)} x nginx, "
                    f"was {old.median:.2f}{span(old)}"
                )
    return found


def not_compared(reference: Ratios, now: Ratios, asked: Collection[str]) -> list[str]:
    """What the reference has of the scenarios that were `asked` for, and this run does not: a line a scenario."""
    found = []
    for name in asked:
        lost = [BY_KEY[key].title for key, old in reference.items() if name in old and name not in now.get(key, {})]
        if lost:
            found.append(f"{name}: {'; '.join(lost)}")
    return found


def _is_worse(old: Spread, now: Spread, more_is_better: bool) -> bool:
    if more_is_better:
        return now.median < old.low / (1 + MARGIN) and now.high < old.median
    return now.median > old.high * (1 + MARGIN) and now.low > old.median


def load(file: Path = FILE) -> Reference | None:
    """None where there is none yet."""
    if not file.exists():
        return None
    document = json.loads(file.read_text(encoding="utf-8"))
    figures = {
        key: {name: Spread(*values) for name, values in scenarios.items()}
        for key, scenarios in document["figures"].items()
        if key in BY_KEY
    }
    return Reference(document["facts"], document["policies"], figures)


def save(reference: Reference, file: Path = FILE) -> None:
    """One line a ratio, median, smallest and largest, so that a diff shows what has changed."""
    lines = []
    for key, scenarios in reference.figures.items():
        rows = [
            f"   {json.dumps(name)}: [{', '.join(f'{value:.3f}' for value in ratio)}]"
            for name, ratio in scenarios.items()
        ]
        lines.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n  }")
    file.write_text(
        f'{{\n "facts": {json.dumps(reference.facts, ensure_ascii=False)},\n'
        f' "policies": {json.dumps(list(reference.policies))},\n'
        ' "figures": {\n' + ",\n".join(lines) + "\n }\n}\n",
        encoding="utf-8",
    )
