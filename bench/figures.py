"""The figures: what is read from a measurement, its ratio to nginx, medians and spread over rounds. Pure.

What a proxy adds is its figure minus the direct connection's median in the same round; its ratio is its figure over
nginx's in the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from .loadgen import LOADS, Load, Measurement, Mode
from .scenarios import DIRECT, NGINX


class Run(msgspec.Struct, frozen=True):
    """One life of one server: how long its start took, and what was measured then."""

    start_ms: float | None
    modes: Mapping[Mode, Measurement]


Round = Mapping[str, Run]
"""The references and the scenarios of a batch, measured in one go; by scenario."""


class Failure(NamedTuple):
    """What went wrong with a scenario, in a mode or (None) as it started."""

    scenario: str
    mode: Mode | None
    error: str

    def __str__(self) -> str:
        return f"{self.scenario if self.mode is None else f'{self.scenario}, {self.mode.value}'}: {self.error}"


class Figure(NamedTuple):
    """One block of the table: an attribute of what was measured in a mode (None: of the run), in parts of `per`.

    `beyond` is an attribute of the direct connection that is taken off it. For every percentile of a latency that is the
    median: the direct connection's tail is the load generator's own, every proxy has it too, and the difference of two
    tails is noise."""

    key: str
    title: str
    unit: str
    mode: Mode | None
    attribute: str
    per: float = 1.0
    beyond: str | None = None
    more_is_better: bool = False

    def value(self, round_: Round, scenario: str) -> float | None:
        """None where this round does not have it."""
        own = self._read(round_, scenario, self.attribute)
        if own is None or self.beyond is None:
            return own
        direct = self._read(round_, DIRECT, self.beyond)
        return None if direct is None else own - direct

    def ratio(self, round_: Round, scenario: str, base: str = NGINX) -> float | None:
        """None where this round does not have it, or noise left the base nothing to compare with."""
        own, other = self.value(round_, scenario), self.value(round_, base)
        return None if own is None or other is None or other <= 0 else own / other

    def _read(self, round_: Round, scenario: str, attribute: str) -> float | None:
        run = round_.get(scenario)
        found: object = run if run is None or self.mode is None else run.modes.get(self.mode)
        for name in attribute.split("."):
            found = getattr(found, name, None)
        return found / self.per if isinstance(found, int | float) else None


class Spread(NamedTuple):
    """Of the rounds' values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None


class Summary(NamedTuple):
    """One line of the table: one figure of one scenario over all rounds. None: no round had it. `compared` is how many
    had the ratio."""

    value: Spread | None
    ratio: Spread | None
    compared: int


def summarise(figure: Figure, scenario: str, rounds: Sequence[Round]) -> Summary:
    """Median, smallest and largest over the rounds that have the figure."""
    values = [value for round_ in rounds if (value := figure.value(round_, scenario)) is not None]
    found = _ratios(figure, scenario, rounds, NGINX)
    return Summary(Spread.of(values), Spread.of(found), len(found))


def ratios(figure: Figure, scenario: str, rounds: Sequence[Round], base: str = NGINX) -> Spread | None:
    """Of a scenario's figure over another's in the same rounds."""
    return Spread.of(_ratios(figure, scenario, rounds, base))


def _ratios(figure: Figure, scenario: str, rounds: Sequence[Round], base: str) -> list[float]:
    return [ratio for round_ in rounds if (ratio := figure.ratio(round_, scenario, base)) is not None]


def _streams(load: Load) -> str:
    return f"{load.streams:,} streams x {load.events_per_s} events/s"


_PACED, _CROWD = _streams(LOADS[Mode.PACED]), _streams(LOADS[Mode.CROWD])
_SATURATED = f"{LOADS[Mode.SATURATED].streams} streams, one event in flight each"
_SERIAL = "one exchange at a time"
_FLOODS = {
    "events": "",
    "tiny": ", events of 10 bytes",
    "huge": ", events of 1 MB",
    "bytes": ", byte by byte",
    "unread": ", slow readers",
}


def _floods(load: Load) -> str:
    return f"{load.streams - 1} flooding upstreams{_FLOODS[load.flood]}"


_FLOOD = _floods(LOADS[Mode.FLOOD])

FIGURES = (
    Figure("cpu_saturated", f"CPU per event, {_SATURATED}", "µs", Mode.SATURATED, "cpu_us_per_event"),
    Figure("cpu_paced", f"CPU per event, {_PACED}", "µs", Mode.PACED, "cpu_us_per_event"),
    Figure(
        "events_per_s",
        f"events/s on one core, {_SATURATED}",
        "1/s",
        Mode.SATURATED,
        "events_per_s",
        more_is_better=True,
    ),
    Figure(
        "latency_p50",
        f"added latency per event p50, {_PACED}",
        "µs",
        Mode.PACED,
        "latency_us.p50",
        beyond="latency_us.p50",
    ),
    Figure(
        "latency_p99",
        f"added latency per event p99, {_PACED}",
        "µs",
        Mode.PACED,
        "latency_us.p99",
        beyond="latency_us.p50",
    ),
    Figure("ttft_p50", f"TTFT p50, {_SERIAL}", "µs", Mode.SERIAL, "ttft_us.p50"),
    Figure("ttft_p99", f"TTFT p99, {_SERIAL}", "µs", Mode.SERIAL, "ttft_us.p99"),
    Figure("cpu_exchange", f"CPU per exchange, {_SERIAL}", "µs", Mode.SERIAL, "cpu_us_per_event"),
    Figure("stream_kib", "memory per open stream", "KiB", Mode.HOLD, "stream_kib"),
    Figure("start_ms", "start, until it accepts", "ms", None, "start_ms"),
    Figure("crowd_cpu", f"CPU per event, {_CROWD}", "µs", Mode.CROWD, "cpu_us_per_event"),
    Figure("crowd_p50", f"latency per event p50, {_CROWD}", "ms", Mode.CROWD, "latency_us.p50", 1e3),
    Figure("crowd_p99", f"latency per event p99, {_CROWD}", "ms", Mode.CROWD, "latency_us.p99", 1e3),
    Figure("flood_first", f"the last stream's first byte, {_FLOOD}", "ms", Mode.FLOOD, "ttft_us.max", 1e3),
    Figure("flood_wait", f"longest wait of a paced stream beside {_FLOOD}", "ms", Mode.FLOOD, "latency_us.max", 1e3),
    *(
        Figure(
            f"{mode.value}_turn", f"longest turn of the event loop, {_floods(LOADS[mode])}", "ms", mode, "turn_us", 1e3
        )
        for mode in (Mode.FLOOD, Mode.TINY, Mode.HUGE, Mode.BYTES, Mode.UNREAD)
    ),
)
BY_KEY: Mapping[str, Figure] = {figure.key: figure for figure in FIGURES}
