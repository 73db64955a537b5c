"""The fields as draft-ietf-httpapi-ratelimit-headers-11 has them."""

from __future__ import annotations

import pytest

from proxy import ratelimit
from proxy.messages import Headers
from proxy.state import Level, Window

MINUTE, DAY, TOTAL = Window(60, 60), Window(5000, 86400), Window(100, None)


def test_the_policies() -> None:
    headers = Headers()
    ratelimit.name_windows(headers, "rate", [MINUTE, DAY, TOTAL])
    assert headers["RateLimit-Policy"] == '"rate-60s";q=60;w=60, "rate-86400s";q=5000;w=86400, "rate";q=100'


def test_what_is_counted_is_said_where_it_is_not_requests() -> None:
    headers = Headers()
    ratelimit.name_windows(headers, "cap", [Window(8, None)], ratelimit.CONCURRENT_REQUESTS)
    assert headers["RateLimit-Policy"] == '"cap";q=8;qu="concurrent-requests"'


def test_the_levels_have_the_names_of_the_policies() -> None:
    headers = Headers()
    ratelimit.state_levels(headers, "rate", [Level(MINUTE, 0, 7.2), Level(DAY, 12, 0.0), Level(TOTAL, 3, None)])
    assert headers["RateLimit"] == '"rate-60s";r=0;t=8, "rate-86400s";r=12;t=0, "rate";r=3'


def test_what_others_said_stays() -> None:
    headers = Headers([("RateLimit", '"upstream";r=5'), ("ratelimit-policy", '"upstream";q=9')])
    ratelimit.name_windows(headers, "rate", [MINUTE])
    ratelimit.state_levels(headers, "rate", [Level(MINUTE, 1, 2.0)])
    assert headers.getall("RateLimit") == ['"upstream";r=5, "rate-60s";r=1;t=2']
    assert headers.getall("RateLimit-Policy") == ['"upstream";q=9, "rate-60s";q=60;w=60']


def test_integers_have_fifteen_digits_at_most() -> None:  # RFC 9651 §3.3.1
    headers = Headers()
    huge = Window(10**20, None)
    ratelimit.name_windows(headers, "rate", [huge])
    ratelimit.state_levels(headers, "rate", [Level(huge, 10**20, None)])
    assert headers["RateLimit-Policy"] == '"rate";q=999999999999999'
    assert headers["RateLimit"] == '"rate";r=999999999999999'


@pytest.mark.parametrize(
    ("seconds", "value"),
    [([0.0], "1"), ([0.2], "1"), ([2.0], "2"), ([2.1, 1.0], "3"), ([1.0, 59.5], "60")],
)
def test_when_to_come_again(seconds: list[float], value: str) -> None:
    headers = Headers()
    ratelimit.retry_after(headers, *seconds)
    assert headers["Retry-After"] == value


@pytest.mark.parametrize("seconds", [[None], [1.0, None]])
def test_where_asking_again_is_of_no_use_nothing_is_said(seconds: list[float | None]) -> None:
    headers = Headers()
    ratelimit.retry_after(headers, *seconds)
    assert headers == Headers()
