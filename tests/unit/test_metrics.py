from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.accesslog import Record
from proxy.errors import OutcomeKind
from proxy.metrics import MAX_POLICY_SERIES, OTHER, Metrics

DONE = Record(
    time=0.0,
    id="an-id",
    client="192.0.2.7",
    method="POST",
    path="/a/path",
    route="chat",
    upstream="model",
    dialect="openai_chat",
    status=200,
    outcome=OutcomeKind.COMPLETE,
    source="a-source",
    details="some-details",
    ttft_ms=300.0,
    duration_ms=4000.0,
    events=7,
    request_bytes=11,
    upstream_bytes=22,
    downstream_bytes=33,
)
PLACE = {"route": "chat", "upstream": "model"}


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    content_type, body = metrics.expose("")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def done(**changes: Any) -> Metrics:
    metrics = Metrics()
    record = replace(DONE, **changes)
    metrics.exchange_started(record.route)
    metrics.exchange_done(record)
    return metrics


def test_an_exchange_is_active_until_it_is_done() -> None:
    metrics = Metrics()
    metrics.exchange_started("chat")
    metrics.exchange_started("chat")
    assert value(metrics, "penstock_active_exchanges", route="chat") == 2
    metrics.exchange_done(DONE)
    assert value(metrics, "penstock_active_exchanges", route="chat") == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("penstock_events_total", 7),
        ("penstock_request_bytes_total", 11),
        ("penstock_upstream_bytes_total", 22),
        ("penstock_downstream_bytes_total", 33),
        ("penstock_ttft_seconds_count", 1),
        ("penstock_ttft_seconds_sum", 0.3),
        ("penstock_exchange_duration_seconds_count", 1),
        ("penstock_exchange_duration_seconds_sum", 4.0),
    ],
)
def test_a_done_exchange_is_counted_by_route_and_upstream(name: str, expected: float) -> None:
    assert value(done(), name, **PLACE) == expected


@pytest.mark.parametrize("outcome", OutcomeKind)
def test_each_outcome_is_counted_on_its_own(outcome: OutcomeKind) -> None:
    metrics = done(outcome=outcome)
    counted = {key: count for key, count in samples(metrics).items() if key[0] == "penstock_exchanges_total"}
    labels = {**PLACE, "outcome": outcome.value, "status_class": "2xx"}
    assert counted == {("penstock_exchanges_total", frozenset(labels.items())): 1}


def test_it_is_counted_which_policy_refused_or_stopped() -> None:
    metrics = Metrics()
    for policy in ("caps", "budget"):
        metrics.expect_refusals(policy)
    for outcome in OutcomeKind:
        for source in ("caps", "parser", ""):
            record = replace(DONE, outcome=outcome, source=source)
            metrics.exchange_started(record.route)
            metrics.exchange_done(record)
    counted = {labels: count for (name, labels), count in samples(metrics).items() if "policy_refusals_total" in name}
    assert counted == {
        frozenset({("policy", "caps"), ("outcome", "refused")}): 1,
        frozenset({("policy", "caps"), ("outcome", "stopped")}): 1,
    }


@pytest.mark.parametrize(("status", "status_class"), [(204, "2xx"), (499, "4xx"), (502, "5xx"), (0, "none")])
def test_statuses_are_counted_by_class(status: int, status_class: str) -> None:
    labels = {**PLACE, "outcome": "complete", "status_class": status_class}
    assert value(done(status=status), "penstock_exchanges_total", **labels) == 1


def test_an_exchange_without_content_has_no_ttft() -> None:
    assert value(done(ttft_ms=None), "penstock_ttft_seconds_count", **PLACE) is None


def test_nothing_unbounded_becomes_a_label() -> None:
    told = done().expose("")[1].decode()
    for unbounded in (DONE.id, DONE.client, DONE.path, DONE.source, DONE.details):
        assert unbounded not in told


def test_connections_and_lost_lines_are_counted() -> None:
    metrics = Metrics()
    metrics.connection_opened()
    metrics.connection_opened()
    metrics.connection_closed()
    metrics.access_log_dropped()
    assert value(metrics, "penstock_open_connections") == 1
    assert value(metrics, "penstock_access_log_dropped_total") == 1


def test_it_says_what_is_running() -> None:
    (labels,) = [dict(labels) for name, labels in samples(Metrics()) if name == "penstock_build_info"]
    assert set(labels) == {"version", "python"}


def test_two_objects_share_nothing() -> None:
    done()
    assert value(Metrics(), "penstock_events_total", **PLACE) is None


def test_all_of_it_can_be_collected_for_another_process() -> None:
    collected = {sample.name: sample.value for family in done().collect() for sample in family.samples}
    assert collected["penstock_events_total"] == 7


def test_a_scraper_that_asks_for_openmetrics_gets_it() -> None:
    content_type, body = done().expose("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert b"# TYPE penstock_exchanges counter\n" in body
    assert body.endswith(b"# EOF\n")


def test_policies_that_ask_for_the_same_counter_share_it() -> None:
    metrics = Metrics()
    first = metrics.policy_counter("first", "replies", "Replies that were encoded.", ("coding",))
    second = metrics.policy_counter("second", "replies", "Replies that were encoded.", ("coding",))
    first(1, "gzip")
    first(2, "gzip")
    second(5, "br")
    name = "penstock_policy_replies_total"
    assert value(metrics, name, policy="first", coding="gzip") == 3
    assert value(metrics, name, policy="second", coding="br") == 5


def test_a_policy_counter_needs_no_labels() -> None:
    metrics = Metrics()
    metrics.policy_counter("heartbeat", "heartbeats", "Heartbeats sent.")(1)
    assert value(metrics, "penstock_policy_heartbeats_total", policy="heartbeat") == 1


def test_policies_that_disagree_on_labels_are_told() -> None:
    metrics = Metrics()
    metrics.policy_counter("first", "replies", "Replies.", ("coding",))
    with pytest.raises(ValueError, match="replies"):
        metrics.policy_counter("second", "replies", "Replies.", ("type",))


@pytest.mark.parametrize("name", ["", "a name", "größe", "2nd", "a\nb"])
def test_a_name_that_not_every_prometheus_takes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        Metrics().policy_counter("first", name, "Replies.")


def test_label_values_without_bound_are_counted_together() -> None:
    metrics = Metrics()
    count = metrics.policy_counter("careless", "replies", "Replies.", ("path",))
    for number in range(MAX_POLICY_SERIES + 5):
        count(1, f"/{number}")
    count(1, "/0")
    name = "penstock_policy_replies_total"
    assert value(metrics, name, policy="careless", path=OTHER) == 5
    assert value(metrics, name, policy="careless", path="/0") == 2, "what has a series keeps it"
    assert len([key for key in samples(metrics) if key[0] == name]) == MAX_POLICY_SERIES + 1
