from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.parser import text_string_to_metric_families

from proxy.merging import Family, Merged, Snapshot, snapshot
from proxy.metrics import MAX_POLICY_SERIES, OTHER


class Process:
    """One of each kind of metric, as a process has them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.exchanges = Counter("exchanges_total", "Exchanges.", ("route",), registry=self.registry)
        self.ttft = Histogram("ttft_seconds", "TTFT.", buckets=(1.0, 2.0), registry=self.registry)
        self.open = Gauge("open", "Open now.", registry=self.registry)
        Info("build", "What runs.", registry=self.registry).info({"version": "1"})

    def tell(self) -> Snapshot:
        return snapshot(self.registry)


def page(merged: Merged) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    content_type, body = merged.expose("")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(merged: Merged, name: str, **labels: str) -> float | None:
    return page(merged).get((name, frozenset(labels.items())))


def counted(*amounts: float) -> Process:
    """A process that has counted so many exchanges of the routes r0, r1 ..."""
    process = Process()
    for number, amount in enumerate(amounts):
        process.exchanges.labels(f"r{number}").inc(amount)
    return process


def test_nobody_has_told_anything() -> None:
    assert page(Merged()) == {}


def test_one_process_is_shown_as_it_is() -> None:
    process = counted(3, 4)
    process.ttft.observe(1.5)
    process.open.set(2)
    merged = Merged()
    merged.tell("worker-1", process.tell())
    alone = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in process.registry.collect()
        for sample in family.samples
    }
    assert page(merged) == alone


def test_counters_are_summed_by_their_labels() -> None:
    merged = Merged()
    merged.tell("worker-1", counted(3).tell())
    merged.tell("worker-2", counted(4, 5).tell())
    assert value(merged, "exchanges_total", route="r0") == 7
    assert value(merged, "exchanges_total", route="r1") == 5


def test_histograms_are_summed_bucket_by_bucket() -> None:
    merged = Merged()
    for number, seconds in enumerate((0.5, 1.5, 9.0)):
        process = Process()
        process.ttft.observe(seconds)
        merged.tell(f"worker-{number}", process.tell())
    assert [value(merged, "ttft_seconds_bucket", le=le) for le in ("1.0", "2.0", "+Inf")] == [1, 2, 3]
    assert (value(merged, "ttft_seconds_count"), value(merged, "ttft_seconds_sum")) == (3, 11.0)


def test_gauges_are_summed_and_what_is_the_same_everywhere_is_not() -> None:
    merged = Merged()
    for number in (1, 2):
        process = Process()
        process.open.set(number)
        merged.tell(f"worker-{number}", process.tell())
    assert value(merged, "open") == 3
    assert value(merged, "build_info", version="1") == 1


def test_the_newest_of_a_process_counts() -> None:
    merged = Merged()
    merged.tell("worker-1", counted(3).tell())
    merged.tell("worker-1", counted(8).tell())
    assert value(merged, "exchanges_total", route="r0") == 8


def test_it_is_counted_since_the_first_began() -> None:
    merged = Merged()
    for number, since in enumerate((20.0, 10.0, 30.0)):
        samples = [("n_total", {}, 1.0), ("n_created", {}, since)]
        merged.tell(f"worker-{number}", [Family("n", "A number.", "counter", "", samples)])
    assert value(merged, "n_created") == 10.0
    assert value(merged, "n_total") == 3.0


def test_what_an_ended_process_counted_stays_and_what_it_had_open_does_not() -> None:
    merged = Merged()
    ended = counted(3)
    ended.ttft.observe(1.5)
    ended.open.set(5)
    merged.tell("worker-1", ended.tell())
    merged.end("worker-1")
    assert value(merged, "exchanges_total", route="r0") == 3
    assert value(merged, "ttft_seconds_bucket", le="2.0") == 1
    assert value(merged, "open") is None
    merged.tell("worker-1", counted(1).tell())
    assert value(merged, "exchanges_total", route="r0") == 4
    assert value(merged, "open") == 0
    merged.end("worker-1")
    merged.end("worker-1")
    assert value(merged, "exchanges_total", route="r0") == 4


def test_what_is_of_one_process_gets_its_name() -> None:
    merged = Merged()
    for process, cpu in (("worker-1", 1.0), ("supervisor", 2.0)):
        merged.tell(
            process,
            [Family("process_cpu_seconds", "CPU.", "counter", "", [("process_cpu_seconds_total", {}, cpu)])],
        )
    assert value(merged, "process_cpu_seconds_total", process="worker-1") == 1.0
    assert value(merged, "process_cpu_seconds_total", process="supervisor") == 2.0
    merged.end("worker-1")
    assert value(merged, "process_cpu_seconds_total", process="worker-1") is None


def told_by_careless_policy(life: int) -> Snapshot:
    name = "penstock_policy_replies"
    labels = [{"policy": "p", "path": f"/{life}/{number}"} for number in range(MAX_POLICY_SERIES)]
    samples = [(f"{name}_total", one, 1.0) for one in labels]
    return [Family(name, "Replies.", "counter", "", samples)]


def test_series_of_policies_stay_bounded_however_many_processes_have_ended() -> None:
    merged = Merged()
    for life in range(3):
        merged.tell("worker-1", told_by_careless_policy(life))
        merged.end("worker-1")
    shown = page(merged)
    assert len(shown) == MAX_POLICY_SERIES + 1
    assert sum(shown.values()) == 3 * MAX_POLICY_SERIES
    assert value(merged, "penstock_policy_replies_total", policy="p", path=OTHER) == 2 * MAX_POLICY_SERIES


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_the_formats_a_scraper_may_prefer(accept: str) -> None:
    merged = Merged()
    merged.tell("worker-1", counted(1).tell())
    merged.tell("worker-2", counted(1, 1).tell())
    content_type, body = merged.expose(accept)
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    assert body.endswith(b"# EOF\n") == bool(accept)
    assert b'exchanges_total{route="r0"} 2.0\n' in body
