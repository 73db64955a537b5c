"""Ratios, their spread, the table and the JSON document. Pure: measurements in, text and plain data out.

What a proxy adds is its figure minus that of the direct connection in the same round; its ratio is its figure over
nginx's in the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from .loadgen import EVENTS_PER_S, STREAMS, Measurement, Mode
from .scenarios import DIRECT, NGINX, PASS_THROUGH

PASS_THROUGH_LIMIT = 2.0  # CPU per paced event, x nginx
OWN_BUSY_LIMIT = 0.6  # of the load generator's core in paced mode: above it, latencies are partly its own
WAITED_LIMIT = 0.05  # of a paced measurement, median: the time for which either side waited for its core

Round = Mapping[str, Mapping[Mode, Measurement]]
"""The measurements of one round, by scenario."""


class Figure(NamedTuple):
    """One block of the table, in microseconds. `added`: minus the direct connection's."""

    key: str
    title: str
    mode: Mode
    read: Callable[[Measurement], float]
    added: bool = False

    def value_us(self, round_: Round, scenario: str) -> float | None:
        """None where this round does not have it."""
        own, direct = (round_.get(name, {}).get(self.mode) for name in (scenario, DIRECT))
        if own is None or not self.added:
            return None if own is None else self.read(own)
        return None if direct is None else self.read(own) - self.read(direct)

    def ratio(self, round_: Round, scenario: str) -> float | None:
        """None where this round does not have it, or noise left nginx nothing to compare with."""
        own, nginx = self.value_us(round_, scenario), self.value_us(round_, NGINX)
        return None if own is None or nginx is None or nginx <= 0 else own / nginx


class Spread(NamedTuple):
    """Of the rounds' values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None


class Summary(NamedTuple):
    """One line of the table: one figure of one scenario over all rounds. None: no round had it."""

    value_us: Spread | None
    ratio: Spread | None


PACED = f"{STREAMS} streams x {EVENTS_PER_S} events/s"
SATURATED = f"{STREAMS} streams, one event in flight each"
SERIAL = "one exchange at a time"

PACED_CPU = Figure("cpu_paced", f"CPU per event, {PACED}", Mode.PACED, attrgetter("cpu_us_per_event"))
FIGURES = (
    PACED_CPU,
    Figure("cpu_saturated", f"CPU per event, {SATURATED}", Mode.SATURATED, attrgetter("cpu_us_per_event")),
    Figure("latency_p50", f"added latency per event p50, {PACED}", Mode.PACED, attrgetter("latency_us.p50"), True),
    Figure("latency_p99", f"added latency per event p99, {PACED}", Mode.PACED, attrgetter("latency_us.p99"), True),
    Figure("ttft_p50", f"added TTFT p50, {SERIAL}", Mode.SERIAL, attrgetter("ttft_us.p50"), True),
    Figure("ttft_p99", f"added TTFT p99, {SERIAL}", Mode.SERIAL, attrgetter("ttft_us.p99"), True),
    Figure("cpu_exchange", f"CPU per exchange, {SERIAL}", Mode.SERIAL, attrgetter("cpu_us_per_event")),
)


def summarise(figure: Figure, scenario: str, rounds: Sequence[Round]) -> Summary:
    """Median, smallest and largest over the rounds that have the figure."""
    values = [value for round_ in rounds if (value := figure.value_us(round_, scenario)) is not None]
    ratios = [ratio for round_ in rounds if (ratio := figure.ratio(round_, scenario)) is not None]
    return Summary(Spread.of(values), Spread.of(ratios))


def table(rounds: Sequence[Round]) -> str:
    """A block a figure, a line a scenario: the median, its ratio to nginx, and the smallest and largest ratio."""
    scenarios = [name for name in rounds[0] if name != DIRECT]
    lines = []
    for figure in FIGURES:
        lines.append(f"{figure.title:<62}{'µs':>9}{'x nginx':>10} (min - max)")
        for scenario in scenarios:
            value, ratio = summarise(figure, scenario, rounds)
            lines.append(f"    {scenario:<58}{_number(value, 1):>9}{_number(ratio, 2):>10}{_range(ratio)}")
        lines.append("")
    return "\n".join(lines)


def verdict(rounds: Sequence[Round]) -> tuple[bool | None, str]:
    """Whether pass-through is cheap enough, and the sentence that says so; None where it cannot be told."""
    ratio = summarise(PACED_CPU, PASS_THROUGH, rounds).ratio
    name = f"pass-through under {PASS_THROUGH_LIMIT} x nginx's CPU per event at {PACED} on one core"
    if ratio is None:
        return None, f"{name}: not measured"
    holds = ratio.median < PASS_THROUGH_LIMIT
    return holds, f"{name}: {'holds' if holds else 'DOES NOT HOLD'}, {ratio.median:.2f}{_range(ratio)}"


def doubts(rounds: Sequence[Round]) -> list[str]:
    """Why the latencies of this run should not be trusted."""
    paced = [measured[Mode.PACED] for round_ in rounds for measured in round_.values()]
    busiest = max(one.own_busy for one in paced)
    waited = statistics.median(max(one.waited, one.own_waited) for one in paced)
    found = []
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
                "scenarios": {
                    name: {
                        part: spread and spread._asdict()
                        for part, spread in summarise(figure, name, rounds)._asdict().items()
                    }
                    for name in rounds[0]
                },
            }
            for figure in FIGURES
        },
        "rounds": [
            {
                name: {mode.value: msgspec.to_builtins(one) for mode, one in measured.items()}
                for name, measured in round_.items()
            }
            for round_ in rounds
        ],
    }


def _number(spread: Spread | None, digits: int) -> str:
    return "-" if spread is None else f"{spread.median:.{digits}f}"


def _range(spread: Spread | None) -> str:
    return "" if spread is None else f" ({spread.low:.2f} - {spread.high:.2f})"
