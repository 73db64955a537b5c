"""The table, what casts doubt on it, and the JSON document. Pure: rounds in, text and plain data out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .figures import FIGURES, Round, Spread, summarise
from .loadgen import STOLEN_LIMIT, Mode
from .scenarios import DIRECT, SCENARIOS

OWN_BUSY_LIMIT = 0.6  # of the load generator's core in paced mode: above it, latencies are partly its own
WAITED_LIMIT = 0.05  # of a paced measurement, median: the time for which either side waited for its core


def measured(rounds: Sequence[Round]) -> list[str]:
    """The scenarios that any round has, in their order."""
    return [s.name for s in SCENARIOS if any(s.name in round_ for round_ in rounds)]


def table(rounds: Sequence[Round], round_count: int) -> str:
    """A block a figure, a line a scenario: the median, its ratio to nginx, and the smallest and largest ratio.

    A ratio of fewer than the `round_count` rounds that were asked for says of how many."""
    lines = []
    for figure in FIGURES:
        block = []
        for scenario in measured(rounds):
            value, ratio, compared = summarise(figure, scenario, rounds)
            if value is not None and scenario != DIRECT:
                only = f" in only {compared} of {round_count} rounds" if 0 < compared < round_count else ""
                block.append(f"    {scenario:<58}{value.median:>10.1f}{_median(ratio):>10}{span(ratio)}{only}")
        if block:
            lines += [f"{figure.title:<62}{figure.unit:>10}{'x nginx':>10} (min - max)", *block, ""]
    return "\n".join(lines)


def doubts(rounds: Sequence[Round]) -> list[str]:
    """Why figures of this run should not be trusted."""
    every = [one for round_ in rounds for run in round_.values() for one in run.modes.values()]
    stolen = sum(one.stolen > STOLEN_LIMIT for one in every)
    found = []
    if stolen:
        found.append(
            f"of {stolen} of {len(every)} measurements the host of this machine stole more than {STOLEN_LIMIT:.0%}, "
            "though what was stolen from was measured again"
        )
    paced = [run.modes[Mode.PACED] for round_ in rounds for run in round_.values() if Mode.PACED in run.modes]
    if not paced:
        return found
    busiest = max(one.own_busy for one in paced)
    waited = statistics.median(max(one.waited, one.own_waited) for one in paced)
    if busiest > OWN_BUSY_LIMIT:
        found.append(f"the load generator's core was {busiest:.0%} busy: latencies are partly its own")
    if waited > WAITED_LIMIT:
        found.append(f"other processes had the cores for {waited:.0%} of the time: run it on an idle machine")
    return found


def document(rounds: Sequence[Round], facts: Mapping[str, object]) -> dict[str, Any]:
    """Everything that was measured and what follows from it, ready for JSON."""
    return {
        "facts": dict(facts),
        "figures": {
            figure.key: {
                "title": figure.title,
                "unit": figure.unit,
                "scenarios": {
                    name: {
                        part: found._asdict() if isinstance(found, Spread) else found
                        for part, found in summarise(figure, name, rounds)._asdict().items()
                    }
                    for name in measured(rounds)
                },
            }
            for figure in FIGURES
        },
        "rounds": [
            {
                name: {
                    "start_ms": run.start_ms,
                    **{mode.value: msgspec.to_builtins(one) for mode, one in run.modes.items()},
                }
                for name, run in round_.items()
            }
            for round_ in rounds
        ],
    }


def span(spread: Spread | None) -> str:
    """The smallest and the largest, to stand behind a median."""
    return "" if spread is None else f" ({spread.low:.2f} - {spread.high:.2f})"


def _median(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.median:.2f}"
