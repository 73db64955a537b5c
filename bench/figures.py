"""The figures: what is read from a measurement, its ratio to nginx, medians and spread over rounds. Pure.

What a proxy adds is its figure minus that of the direct connection in the same round; its ratio is its figure over
nginx's in the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
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

Read = Callable[[Run], float | None]


class Figure(NamedTuple):
    """One block of the table. `added`: minus the direct connection's."""

    key: str
    title: str
    unit: str
    read: Read
    added: bool = False
    more_is_better: bool = False

    def value(self, round_: Round, scenario: str) -> float | None:
        """None where this round does not have it."""
        own = _read(self.read, round_, scenario)
        if own is None or not self.added:
            return own
        direct = _read(self.read, round_, DIRECT)
        return None if direct is None else own - direct

    def ratio(self, round_: Round, scenario: str, base: str = NGINX) -> float | None:
        """None where this round does not have it, or noise left the base nothing to compare with."""
        own, other = self.value(round_, scenario), self.value(round_, base)
        return None if own is None or other is None or other <= 0 else own / other


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

    value: Spread | None
    ratio: Spread | None


def summarise(figure: Figure, scenario: str, rounds: Sequence[Round]) -> Summary:
    """Median, smallest and largest over the rounds that have the figure."""
    values = [value for round_ in rounds if (value := figure.value(round_, scenario)) is not None]
    return Summary(Spread.of(values), ratios(figure, scenario, rounds))


def ratios(figure: Figure, scenario: str, rounds: Sequence[Round], base: str = NGINX) -> Spread | None:
    """Of a scenario's figure over another's in the same rounds."""
    return Spread.of([ratio for round_ in rounds if (ratio := figure.ratio(round_, scenario, base)) is not None])


def _read(read: Read, round_: Round, scenario: str) -> float | None:
    run = round_.get(scenario)
    return None if run is None else read(run)


def _of(mode: Mode, attribute: str, per: float = 1.0) -> Read:
    part, _, rest = attribute.partition(".")

    def read(run: Run) -> float | None:
        found: object = run.modes.get(mode)
        for name in (part, rest):
            found = getattr(found, name, None) if name else found
        return found / per if isinstance(found, int | float) else None

    return read


def _streams(load: Load) -> str:
    return f"{load.streams:,} streams x {load.events_per_s} events/s"


_PACED, _CROWD = _streams(LOADS[Mode.PACED]), _streams(LOADS[Mode.CROWD])
_SATURATED = f"{LOADS[Mode.SATURATED].streams} streams, one event in flight each"
_SERIAL = "one exchange at a time"
_FLOOD = f"{LOADS[Mode.FLOOD].streams - 1} flooding upstreams"

FIGURES = (
    Figure("cpu_saturated", f"CPU per event, {_SATURATED}", "µs", _of(Mode.SATURATED, "cpu_us_per_event")),
    Figure("cpu_paced", f"CPU per event, {_PACED}", "µs", _of(Mode.PACED, "cpu_us_per_event")),
    Figure(
        "events_per_s",
        f"events/s on one core, {_SATURATED}",
        "1/s",
        _of(Mode.SATURATED, "events_per_s"),
        more_is_better=True,
    ),
    Figure(
        "latency_p50", f"added latency per event p50, {_PACED}", "µs", _of(Mode.PACED, "latency_us.p50"), added=True
    ),
    Figure(
        "latency_p99", f"added latency per event p99, {_PACED}", "µs", _of(Mode.PACED, "latency_us.p99"), added=True
    ),
    Figure("ttft_p50", f"TTFT p50, {_SERIAL}", "µs", _of(Mode.SERIAL, "ttft_us.p50")),
    Figure("ttft_p99", f"TTFT p99, {_SERIAL}", "µs", _of(Mode.SERIAL, "ttft_us.p99")),
    Figure("cpu_exchange", f"CPU per exchange, {_SERIAL}", "µs", _of(Mode.SERIAL, "cpu_us_per_event")),
    Figure("stream_kib", "memory per open stream", "KiB", _of(Mode.HOLD, "stream_kib")),
    Figure("start_ms", "start, until it accepts", "ms", attrgetter("start_ms")),
    Figure("crowd_cpu", f"CPU per event, {_CROWD}", "µs", _of(Mode.CROWD, "cpu_us_per_event")),
    Figure("crowd_p50", f"latency per event p50, {_CROWD}", "ms", _of(Mode.CROWD, "latency_us.p50", 1e3)),
    Figure("crowd_p99", f"latency per event p99, {_CROWD}", "ms", _of(Mode.CROWD, "latency_us.p99", 1e3)),
    Figure("flood_first", f"the last stream's first byte, {_FLOOD}", "ms", _of(Mode.FLOOD, "ttft_us.max", 1e3)),
    Figure(
        "flood_turn", f"longest wait of a paced stream beside {_FLOOD}", "ms", _of(Mode.FLOOD, "latency_us.max", 1e3)
    ),
)
BY_KEY: Mapping[str, Figure] = {figure.key: figure for figure in FIGURES}
