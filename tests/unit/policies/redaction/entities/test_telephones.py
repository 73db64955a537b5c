"""Telephone numbers as they are written inside a region."""

from __future__ import annotations

import pytest

from policies.redaction.entities.telephones import national
from policies.redaction.scanner import Scanner


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at (212) 555-0123.", "at #."),
        ("phone: 2125550123 now", "phone: # now"),
        ("the 2125550123 of them", "the 2125550123 of them"),
        ("$212 555 0123", "$212 555 0123"),
        ("020 7946 0958", "020 7946 0958"),
    ],
)
def test_numbers_of_a_region(text: str, expected: str) -> None:
    assert Scanner(national(["US"])).redact(text, lambda entity, found: "#") == expected


def test_numbers_of_several_regions() -> None:
    assert Scanner(national(iter(["US", "GB"]))).redact("020 7946 0958", lambda entity, found: "#") == "#"
