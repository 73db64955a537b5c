"""The default entities: that they compile, what each says of itself, what stays around them, and that none is left untested."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs import redaction_cases as cases

from policies.redaction.entities import DEFAULTS, entities
from policies.redaction.scanner import Scanner

Redact = Callable[[str], str]

DOCUMENTATION = Path(__file__).parents[5] / "docs" / "redaction.md"


def test_each_is_named_and_described() -> None:
    for entity, what in DEFAULTS:
        assert re.fullmatch("[A-Z][A-Z0-9_]*", entity.name)
        assert what
        assert "\n" not in what
        assert len(what) < 100
    assert len({what for _, what in DEFAULTS}) == len(DEFAULTS)


def test_each_stands_in_the_documentation_as_it_is_described_here() -> None:
    described: dict[str, list[str]] = {}
    for entity, what in DEFAULTS:
        described.setdefault(entity.name, []).append(what)
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*) \|$", DOCUMENTATION.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {name: "; ".join(whats) for name, whats in described.items()}
    assert len(rows) == len(described)


def test_each_has_labelled_cases() -> None:
    assert {entity.name for entity, _ in DEFAULTS} == {case.entity for case in cases.positives()}


def test_little_is_held_at_the_most(scanner: Scanner) -> None:
    assert scanner.width <= 400


def test_little_is_held_in_scripts_without_spaces(scanner: Scanner) -> None:
    redactor = scanner.redactor(lambda entity, found: "#")
    held = []
    for character in "我们今天下午要在图书馆里讨论这个问题并且写下所有人的意见" * 4:
        redactor.feed(character)
        held.append(redactor.held)
    assert max(held) <= 9


def test_regions_are_added_once_and_only_if_asked_for() -> None:
    assert len(entities(["US", "US"])) == len(entities(["US"])) > len(entities())
    scanner = Scanner(entities())
    assert scanner.redact("(212) 555-0123", lambda entity, found: "#") == "(212) 555-0123"
    assert scanner.redact("+1 212 555 0123", lambda entity, found: "#") == "#"


def test_a_region_without_a_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="'Mars'"):
        entities(["Mars"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail bob@example.com.", "Mail [EMAIL]."),
        ("IP 192.0.2.1, port 80", "IP [IPV4], port 80"),
        ("http://[2001:db8::1]:80/", "http://[[IPV6]]:80/"),
        ("postgres://app:s3cret@db/x", "postgres://[URL_CREDENTIALS]db/x"),
        ("AccountKey=" + "aB3/xY7+kLm9" * 7 + "aB==;x=1", "AccountKey=[AZURE_KEY];x=1"),
        ("SSN: 123456789.", "SSN: [US_SSN]."),
        ("call me at 4155552671 now", "call me at [PHONE] now"),
        ('"api_key": "a94a8fe5ccb19ba61c4c0873d391e987"', '"api_key": "[SECRET]"'),
        ("IBANDE89370400440532013000", "IBAN[IBAN]"),
        ("(+44 20 7946 0958)", "([PHONE])"),
        ("ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a请保密", "[GITHUB_TOKEN]请保密"),
        ("请发送到zhang@example.com或者打电话", "请发送到[EMAIL]或者打电话"),
    ],
)
def test_what_stands_around_a_secret_stays(redact: Redact, text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "version 1.2.3.4",
        "1.3.6.1.4.1.311.2",
        "git@github.com:org/repo.git",
        "1234 5678 9012 3456",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "-----BEGIN PRIVATE KEY----- is how it starts",
        "eyJhbGciOiJIUzI1NiJ9 is a header",
    ],
)
def test_what_only_looks_like_one_stays(redact: Redact, text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1&email=bob@example.com&b=2", "a=1&email=[EMAIL]&b=2"),
        ("a=1&bob@example.com", "a=1&[EMAIL]"),
        ("OWNER=bob@example.com", "OWNER=[EMAIL]"),
        ("bounce=bob@example.com", "[EMAIL]"),
        ("email=a&b@example.com", "email=[EMAIL]"),
        ('say "ann smith"@example.com', "say [EMAIL]"),
        ("jdbc:x://h/d?user=u&password=copper-26", "jdbc:x://h/d?user=u&password=[SECRET]"),
        ("<password>c0pper</password>", "<password>[SECRET]</password>"),
        ("curl -u app:c0pper$battery https://x", "curl -u app:[SECRET] https://x"),
        ("docker login -p 7f3a9c51e2b84d60a1c5f7e9d3b20846 r", "docker login -p [SECRET] r"),
        ("303  331  359", "303  331  359"),
    ],
)
def test_what_names_a_value_stays(redact: Redact, text: str, expected: str) -> None:
    assert redact(text) == expected
