"""The figures that Penstock is to reach, and whether a run has them. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from .figures import BY_KEY, Failure, Round, Spread, ratios, summarise
from .scenarios import FULL, LITELLM, NGINX, PASS_THROUGH, REDIS, TWO_WORKERS


class Standing(enum.Enum):
    """How a figure stands."""

    AIM = "aim"
    REACHED = "reached"
    MISSED = "MISSED"
    FAILED = "MISSED: it failed"
    UNKNOWN = "not measured"


class Target(NamedTuple):
    """A figure of a scenario has to be at most `reach`, and should be at most `aim`.

    It is a ratio to `base`; None: the value itself. None as `reach`: it is enough that it could be measured."""

    figure: str
    scenario: str
    reach: float | None
    aim: float
    base: str | None = NGINX

    @property
    def what(self) -> str:
        figure = BY_KEY[self.figure]
        return f"{self.scenario}: {figure.title}, {figure.unit if self.base is None else 'x ' + self.base}"

    def found(self, rounds: Sequence[Round]) -> Spread | None:
        """None where it was not measured."""
        figure = BY_KEY[self.figure]
        if self.base is None:
            return summarise(figure, self.scenario, rounds).value
        together = ratios(figure, self.scenario, rounds, self.base)
        if together is not None:
            return together
        # measured in different batches: by way of nginx, which every batch has
        own, other = (ratios(figure, name, rounds) for name in (self.scenario, self.base))
        if own is None or other is None:
            return None
        return Spread(own.median / other.median, own.low / other.high, own.high / other.low)

    def standing(self, rounds: Sequence[Round], failed: Sequence[Failure] = ()) -> Standing:
        """By the median; what failed, if only in one round, is missed."""
        found = self.found(rounds)
        # a server is stopped by its first failure: where the figure was never found, one in another mode may be why
        if any(
            one.scenario in (self.scenario, self.base)
            and (found is None or one.mode in (None, BY_KEY[self.figure].mode))
            for one in failed
        ):
            return Standing.FAILED
        if found is None:
            return Standing.UNKNOWN
        if found.median <= self.aim:
            return Standing.AIM
        return Standing.REACHED if self.reach is None or found.median <= self.reach else Standing.MISSED


_EVENTS = ("cpu_saturated", "cpu_paced")
TARGETS = (
    *(Target(figure, PASS_THROUGH, 1.25, 1.1) for figure in _EVENTS),
    *(Target(figure, FULL, 3.0, 2.2) for figure in _EVENTS),
    *(Target(figure, f"{FULL}+{coding}", 3.5, 2.6) for coding in ("gzip", "zstd") for figure in _EVENTS),
    Target("ttft_p50", FULL, 4.5, 3.0),
    Target("latency_p99", FULL, 6.0, 3.0),
    Target("stream_kib", FULL, 56, 40, base=None),
    Target("stream_kib", f"{FULL}+gzip", 72, 64, base=None),
    Target("cpu_saturated", FULL, 1 / 15, 1 / 30, base=LITELLM),
    *(Target(figure, TWO_WORKERS, 1.1, 1.05, base=REDIS) for figure in _EVENTS),
    Target("crowd_p99", FULL, None, 50, base=None),
    *(Target("flood_first", scenario, 2000, 1000, base=None) for scenario in (PASS_THROUGH, FULL)),
    *(
        Target(f"{flood}_turn", scenario, 10, 10, base=None)
        for flood in ("flood", "tiny", "huge", "bytes", "unread")
        for scenario in (PASS_THROUGH, FULL)
    ),
)


def table(rounds: Sequence[Round], failed: Sequence[Failure] = ()) -> str:
    """A line for each figure to reach: what it is, with its spread, what it should be, how it stands."""
    lines = [f"{'to reach':<104}{'now (min - max)':>24}{'reach':>9}{'aim':>9}"]
    for target in TARGETS:
        found = target.found(rounds)
        now = "-" if found is None else f"{_number(found.median)} ({_number(found.low)} - {_number(found.high)})"
        reach = "-" if target.reach is None else _number(target.reach)
        standing = target.standing(rounds, failed).value
        lines.append(f"{target.what:<104}{now:>24}{reach:>9}{_number(target.aim):>9}  {standing}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
