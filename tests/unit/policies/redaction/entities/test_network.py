"""Addresses of machines, and what looks like them: in the ways that people write versions."""

from __future__ import annotations

import pytest

from policies.redaction.entities import entities
from policies.redaction.scanner import Scanner

SCANNER = Scanner(entities())


@pytest.mark.parametrize(
    "text",
    [
        "version 10.1.2.3",
        "Release: v12.1.0.2",
        "app-12.1.0.2.zip",
        "torch==12.1.3.1",
        "Upgraded to 8.0.0.1",
        "build 8.1.2.3",
        "foo-1.2.3.4-linux",
        "section 3.2.1.4.5",
        "Chrome/126.0.0.0",
        "1.3.6.1.4.1.311.2",
    ],
)
def test_what_says_that_it_is_none_and_begins_with_a_small_number_stays(text: str) -> None:
    assert SCANNER.redact(text, lambda entity, found: "#") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version 192.0.2.1", "version #"),
        ("updated 8.0.0.1", "updated #"),
        ("updated to 10.1.2.3", "updated to #"),
        ("build 203.0.113.7", "build #"),
        ("table 10.0.0.1", "table #"),
        ("if host==8.8.8.8:", "if host==#:"),
        ("ip.addr == 203.0.113.7", "ip.addr == #"),
        ("IP 8.8.8.8.53 > 203.0.113.7.4711: UDP", "IP #.53 > #.4711: UDP"),
        ("52.1.2.3-windows", "#-windows"),
        ("203.0.113.7.tar", "#.tar"),
    ],
)
def test_what_may_be_an_address_is_one(text: str, expected: str) -> None:
    assert SCANNER.redact(text, lambda entity, found: "#") == expected
