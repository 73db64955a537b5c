"""Tokens that are known by how they start."""

from __future__ import annotations

import pytest

from policies.redaction.entities.making import token
from policies.redaction.scanner import Scanner

DIGITS = "1234567890" * 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a_{DIGITS[:10]}.", "#."),
        (f"bb-{DIGITS}.", "#."),
        (f"a_{DIGITS}.5 more", "#.5 more"),
        (f"xa_{DIGITS}", f"xa_{DIGITS}"),
        ("a_1111111111", "a_1111111111"),
        ("a_123456789", "a_123456789"),
    ],
)
def test_a_token_begins_with_its_mark_and_is_swallowed(text: str, expected: str) -> None:
    scanner = Scanner([token("T", r"a_\d{10}", r"bb-\d{10}", rest=r"\d")])
    assert scanner.redact(text, lambda entity, found: "#") == expected


def test_some_characters_stand_only_inside() -> None:
    scanner = Scanner([token("T", r"a_\d{10}", rest=r"\d", joined=".", before="-")])
    assert scanner.redact(f"xa_{DIGITS}.5.", lambda entity, found: "#") == "x#."
    assert scanner.redact(f"-a_{DIGITS}", lambda entity, found: "#") == f"-a_{DIGITS}"
