"""Which patterns cost too much, tried before any text comes."""

from __future__ import annotations

import pytest

from policies.redaction.cost import check_cost
from policies.redaction.entities import entities
from policies.redaction.entity import Entity, PatternError


@pytest.mark.parametrize("pattern", ["(?:[ab]{0,200}a[ab]{14})c", "(?:a{1,30}){1,30}b", "(?:.{0,20}a.{0,20}){3}z"])
def test_a_pattern_that_a_hostile_text_makes_costly_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(PatternError, match=r"^MINE: it is too costly: a hostile text"):
        check_cost([Entity("FINE", "x"), Entity("MINE", pattern)])


@pytest.mark.parametrize("pattern", ["ACME-[A-Z0-9]{8,40}", r"\d{4}-\d{6}", "[ab]{0,200}c", r"\w{1,50} \w{1,50}", "a"])
def test_a_pattern_as_operators_write_them_is_not(pattern: str) -> None:
    check_cost([Entity("MINE", pattern)])


def test_patterns_that_are_only_costly_together_are_refused_together() -> None:
    many = [Entity(f"E{number}", f"[ab]{{0,40}}{letter}[ab]{{14}}{number}") for number, letter in enumerate("ab")]
    for one in many:
        check_cost([one])
    with pytest.raises(PatternError, match="E0, E1: together they are too costly"):
        check_cost(many)


def test_the_default_entities_are_not_costly() -> None:
    for entity in entities():
        check_cost([entity])
