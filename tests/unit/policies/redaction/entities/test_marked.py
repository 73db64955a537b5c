"""What is known by a mark of its own stays so behind any name."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from rigs import redaction_cases as cases

from policies.redaction.entities import DEFAULTS
from policies.redaction.entities.marked import MARKED, assigned, is_known

Redact = Callable[[str], str]


def test_a_value_known_by_its_mark_keeps_its_name_behind_any_other(redact: Redact) -> None:
    case = next(case for case in cases.positives() if case.entity == "GITHUB_TOKEN")
    assert redact(f"api_key = {case.secret}") == "api_key = [GITHUB_TOKEN]"


@pytest.mark.parametrize(
    "name", ["secret=", "password: ", "pass='", 'api_key: "', "DB_PASS=", "-p ", "Bearer ", "passwd is "]
)
def test_a_name_before_a_token_never_bites_a_part_off_it(redact: Redact, name: str) -> None:
    """Whoever names it begins before it, so what finds names must take the whole value or leave it to what knows it."""
    for case in cases.positives():
        if case.entity.endswith(("_KEY", "_TOKEN", "_OAUTH")) and redact(case.secret) == f"[{case.entity}]":
            left = redact(f"{name}{case.secret} x")
            assert re.fullmatch(re.escape(name) + r"\[[A-Z0-9_]+\] x", left), left


def test_what_commits_is_marked() -> None:
    """Else a name before it would take the value for its own."""
    assert [
        entity.name for entity, _ in DEFAULTS if entity.swallow and entity not in [each for each, _ in MARKED]
    ] == []


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", True),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a and more", True),  # it has committed
        ("AKIAIOSFODNN7EXAMPLE", True),
        ("AKIAIOSFODNN7EXAMPLE7", False),  # it is no whole
        ("x ghp_16C7e42F292c6912E7710c838347Ae178B4a", False),
        ("a94a8fe5ccb19ba61c4c0873d391e987", False),
    ],
)
def test_what_is_known(value: str, known: bool) -> None:
    assert is_known(value) is known
    assert assigned(lambda text: True, lambda text: 4)(f"key={value}") is not known
    assert not assigned(lambda text: False, lambda text: 4)(f"key={value}")
