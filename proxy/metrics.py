"""What Prometheus is told: one `Metrics` object with a registry of its own, no globals.

Nothing here is touched per event: an exchange is counted when it starts and when it has ended, from its `Record`.
Labels are bounded: routes, upstreams and policies come from the configuration, outcomes from a closed list; a path, a
model or an identity is never a label.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, ProcessCollector
from prometheus_client.exposition import choose_encoder

from .accesslog import Record
from .errors import OutcomeKind

# A first token comes after a few milliseconds (cached, small model) or after a minute (queued, long prompt).
TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0)
# A whole answer takes a fraction of a second (embedding, error) to many minutes (reasoning, agents).
DURATION_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
MAX_POLICY_SERIES = 1000
"""Of one policy counter. Further label values are counted together, as `OTHER`."""
OTHER = "other"

_REFUSALS = (OutcomeKind.REFUSED, OutcomeKind.STOPPED)
_WHERE = ("route", "upstream")


class Metrics:
    """The metrics of one process. Everything is thread-safe."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # file descriptors, memory, CPU
        Info("penstock_build", "What is running.", registry=registry).info(
            {"version": version("penstock"), "python": platform.python_version()}
        )

        def counter(name: str, documentation: str, labels: tuple[str, ...] = _WHERE) -> _Series[Counter]:
            return _Series(Counter(f"penstock_{name}", documentation, labels, registry=registry))

        self._exchanges = counter(
            "exchanges_total", "Exchanges that ended, by how they ended.", (*_WHERE, "outcome", "status_class")
        )
        self._events = counter("events_total", "Events delivered downstream.")
        self._request_bytes = counter("request_bytes_total", "Bytes of request bodies read from clients.")
        self._upstream_bytes = counter("upstream_bytes_total", "Bytes of reply bodies read from upstreams.")
        self._downstream_bytes = counter("downstream_bytes_total", "Bytes of reply bodies written to clients.")
        self._access_log_dropped = Counter(
            "penstock_access_log_dropped_total", "Access log lines that were lost.", registry=registry
        )
        self._ttft = _Series(
            Histogram(
                "penstock_ttft_seconds",
                "Time from the request's head to the first content written downstream.",
                _WHERE,
                buckets=TTFT_BUCKETS_S,
                registry=registry,
            )
        )
        self._duration = _Series(
            Histogram(
                "penstock_exchange_duration_seconds",
                "Time from the request's head to the end of the exchange.",
                _WHERE,
                buckets=DURATION_BUCKETS_S,
                registry=registry,
            )
        )
        self._active = _Series(
            Gauge("penstock_active_exchanges", "Exchanges that have not ended.", ("route",), registry=registry)
        )
        self._connections = Gauge("penstock_open_connections", "Client connections that are open.", registry=registry)
        self._policy_counters: dict[str, _PolicyCounter] = {}
        self._policy_gauges: dict[str, Gauge] = {}
        self._refusals: dict[str, Callable[..., None]] = {}  # by policy

    def exchange_started(self, route: str) -> None:
        """Must be followed by exactly one `exchange_done` whose record has this route."""
        self._active[route,].inc()

    def exchange_done(self, record: Record) -> None:
        where = (record.route, record.upstream)
        status_class = f"{record.status // 100}xx" if record.status else "none"
        self._active[record.route,].dec()
        self._exchanges[(*where, record.outcome.value, status_class)].inc()
        self._events[where].inc(record.events)
        self._request_bytes[where].inc(record.request_bytes)
        self._upstream_bytes[where].inc(record.upstream_bytes)
        self._downstream_bytes[where].inc(record.downstream_bytes)
        self._duration[where].observe(record.duration_ms / 1000)
        if record.outcome in _REFUSALS and record.source in self._refusals:
            self._refusals[record.source](1, record.outcome.value)
        if record.ttft_ms is not None:
            self._ttft[where].observe(record.ttft_ms / 1000)

    def connection_opened(self) -> None:
        self._connections.inc()

    def connection_closed(self) -> None:
        self._connections.dec()

    def access_log_dropped(self) -> None:
        self._access_log_dropped.inc()

    def expect_refusals(self, policy: str) -> None:
        """Count the exchanges that the policy called `policy` ends."""
        self._refusals[policy] = self.policy_counter(
            policy, "refusals", "Exchanges that a policy refused, or stopped later.", ("outcome",)
        )

    def policy_counter(
        self, policy: str, name: str, documentation: str, labels: tuple[str, ...] = ()
    ) -> Callable[..., None]:
        """`Host.counter` for the policy called `policy`: call the result with the amount and the label values.

        Policies that ask for the same `name` share one metric. Raises ValueError where they disagree on its labels, or
        where `name` is not made of lower-case letters, digits and underscores.
        """
        counter = self._policy_counters.get(name)
        if counter is None:
            counter = _PolicyCounter(name, documentation, labels, self._registry)
            self._policy_counters[name] = counter
        elif counter.labels != labels:
            raise ValueError(f"the policy counter {name!r} has the labels {counter.labels}, not {labels}")

        def count(amount: float = 1, *values: str) -> None:
            counter.inc(amount, policy, values)

        return count

    def policy_gauge(self, policy: str, name: str, documentation: str, read: Callable[[], float]) -> None:
        """`Host.gauge` for the policy called `policy`. Raises ValueError where `name` is not made of lower-case letters,
        digits and underscores."""
        if name not in self._policy_gauges:
            self._policy_gauges[name] = Gauge(
                f"penstock_policy_{_plain(name)}", documentation, ("policy",), registry=self._registry
            )
        self._policy_gauges[name].labels(policy).set_function(read)

    def collect(self) -> Iterable[Metric]:
        """All that is known now, in `prometheus_client`'s own form."""
        return self._registry.collect()

    def expose(self, accept: str) -> tuple[str, bytes]:
        """Content type and body of `/metrics`, in the format that this value of Accept prefers."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)


def _plain(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):  # other names are legal since Prometheus 3 only, and in quotes
        raise ValueError(f"{name!r} is not made of lower-case letters, digits and underscores")
    return name


MetricT = TypeVar("MetricT", Counter, Gauge, Histogram)


class _Series(dict[tuple[str, ...], MetricT]):
    """The series of a metric by the values of its labels. `labels` takes a lock and makes them texts at each call."""

    def __init__(self, metric: MetricT) -> None:
        super().__init__()
        self._labels: Callable[..., MetricT] = metric.labels

    def __missing__(self, values: tuple[str, ...]) -> MetricT:
        series = self[values] = self._labels(*values)
        return series


class _PolicyCounter:
    """One `penstock_policy_<name>_total`, with a bound on its series that no policy author has to think of."""

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...], registry: CollectorRegistry) -> None:
        self.labels = labels
        self._counter = Counter(
            f"penstock_policy_{_plain(name)}_total", documentation, ("policy", *labels), registry=registry
        )
        self._series: dict[tuple[str, ...], Counter] = {}

    def inc(self, amount: float, policy: str, values: tuple[str, ...]) -> None:
        key = (policy, *values)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= MAX_POLICY_SERIES:
                self._counter.labels(policy, *(OTHER for _ in self.labels)).inc(amount)
                return
            series = self._series[key] = self._counter.labels(*key)
        series.inc(amount)
