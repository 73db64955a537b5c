"""The metrics of several processes on one page: what each has told, summed. Pure.

Counters and histograms are summed over every worker there ever was: those of a worker that has ended stay in the sum
with what it told last, so that no sum ever goes backwards. (A worker that ends in good order tells once more at its end;
one that is killed takes along what it counted since the last scrape.) Gauges are summed over the workers that live.
`process_...`, of which there is one a process, is not summed but gets the label `process`. What is the same everywhere
(`penstock_build_info`) stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

from .metrics import MAX_POLICY_SERIES, OTHER

_ADD_UP = ("counter", "histogram", "summary")


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric with all its series. `samples`: (name, labels, value)."""

    name: str
    documentation: str
    type: str
    unit: str
    samples: list[tuple[str, dict[str, str], float]]


Snapshot = list[Family]
"""All metrics of one process at one time."""


class Collector(Protocol):
    """A `CollectorRegistry`, or a part of one."""

    def collect(self) -> Iterable[Metric]: ...


def snapshot(collector: Collector) -> Snapshot:
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            metric.unit,
            [(sample.name, sample.labels, sample.value) for sample in metric.samples],
        )
        for metric in collector.collect()
    ]


@dataclass(frozen=True, slots=True)
class _Told:
    """Replaced, never changed: a page is made in another thread than the one that is told."""

    living: Mapping[str, Snapshot] = field(default_factory=dict)
    ended: Snapshot = field(default_factory=list)


class Merged:
    """What processes have told of their metrics, and the page that it makes."""

    def __init__(self) -> None:
        self._told = _Told()

    def tell(self, process: str, told: Snapshot) -> None:
        """`told` is the newest of the process called `process`."""
        self._told = replace(self._told, living={**self._told.living, process: told})

    def end(self, process: str) -> None:
        """The process has ended; another may get its name. Does nothing where it has told nothing."""
        living = dict(self._told.living)
        last = living.pop(process, [])
        counted = [family for family in last if family.type in _ADD_UP and not _of_its_process(family)]
        self._told = _Told(living, _sum([self._told.ended, counted], bounded=True))

    def expose(self, accept: str) -> tuple[str, bytes]:
        """Content type and body of `/metrics`, in the format that this value of Accept prefers."""
        told = self._told
        parts = [_labelled(process, part) for process, part in told.living.items()]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Page(_sum([told.ended, *parts])))
        encode, content_type = choose_encoder(accept)
        return content_type, encode(registry)


class _Page:
    """A `prometheus_client` collector of what is known already."""

    def __init__(self, told: Snapshot) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        for family in self._told:
            metric = Metric(family.name, family.documentation, family.type, family.unit)
            for sample in family.samples:
                metric.add_sample(*sample)
            yield metric


def _of_its_process(family: Family) -> bool:
    return family.name.startswith("process_")


def _labelled(process: str, told: Snapshot) -> Snapshot:
    """`told` with the label `process` where a sum would say nothing."""
    return [
        msgspec.structs.replace(
            family, samples=[(name, {**labels, "process": process}, value) for name, labels, value in family.samples]
        )
        if _of_its_process(family)
        else family
        for family in told
    ]


def _sum(parts: Iterable[Snapshot], *, bounded: bool = False) -> Snapshot:
    """One family for each name, its series in the order of their first appearance.

    `bounded`: no policy counter has more series than one process may have, however many processes have been summed.
    """
    families: dict[str, Family] = {}
    sums: dict[str, _Series] = {}
    for part in parts:
        for family in part:
            first = families.setdefault(family.name, family)
            limit = MAX_POLICY_SERIES if bounded and family.name.startswith("penstock_policy_") else None
            series = sums.setdefault(family.name, _Series(first, limit))
            for sample in family.samples:
                series.add(*sample)
    return [msgspec.structs.replace(family, samples=sums[name].samples()) for name, family in families.items()]


class _Series:
    """The series of one family while they are summed."""

    def __init__(self, family: Family, limit: int | None) -> None:
        self._family = family
        self._limit = limit
        self._label_sets: set[tuple[tuple[str, str], ...]] = set()
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def add(self, name: str, labels: Mapping[str, str], value: float) -> None:
        label_set = tuple(sorted(labels.items()))
        if label_set not in self._label_sets:
            if self._limit is not None and len(self._label_sets) >= self._limit:
                label_set = tuple((key, old if key == "policy" else OTHER) for key, old in label_set)
            self._label_sets.add(label_set)
        known = self._values.get((name, label_set))
        self._values[name, label_set] = value if known is None else self._added(name, known, value)

    def _added(self, name: str, one: float, other: float) -> float:
        if name == f"{self._family.name}_created":  # since when it is counted
            return min(one, other)
        return one + other if self._family.type in (*_ADD_UP, "gauge") else max(one, other)

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        return [(name, dict(labels), value) for (name, labels), value in self._values.items()]
