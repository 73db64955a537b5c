"""Telephone numbers as they are written inside a region."""

from __future__ import annotations

import pytest

from policies.redaction.entities import entities
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("order 2125550147", "order 2125550147"),
        ("Order number 212 555 0147", "Order number 212 555 0147"),
        ("case 212 555 0147 is busy", "case # is busy"),
        ("Case no. 212-555-0147", "Case no. #"),
        ("NHS number 943 476 5870", "NHS number 943 476 5870"),
        ("order number 4222222222222", "order number 4222222222222"),
        ("order number 4111111111111111", "order number #"),
    ],
)
def test_a_number_of_something_else_stays_if_it_is_not_written_like_a_telephone_number(
    text: str, expected: str
) -> None:
    assert Scanner(entities(["US"])).redact(text, lambda entity, found: "#") == expected


def test_a_long_row_of_numbers_stays_and_little_of_it_is_held() -> None:
    row = "the years " + " ".join(map(str, range(1950, 2030)))
    redactor = Scanner(entities(["US", "GB", "DE"])).redactor(lambda entity, found: "#")
    left, held = "", []
    for character in row:
        left += redactor.feed(character)
        held.append(redactor.held)
    assert left + redactor.finish() == row
    assert max(held) <= 50
