"""A policy's windows, by the tokens they count, and how much is leased at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest

from policies.token_limit.budget import Budget, Pot, TokenWindow
from proxy.state import Window
from proxy.testing import FakeHost


def budget(*given: dict[str, Any], lease_tokens: int = 256) -> Budget:
    windows = [TokenWindow(**{"tokens": 10_000, "window_s": "total", **window}) for window in given]
    return Budget(FakeHost("token_limit"), windows, lease_tokens)


def test_windows_that_count_the_same_share_a_pot() -> None:
    pots = budget({"window_s": 60}, {"what": "input"}, {"tokens": 5}).pots
    assert pots == [
        Pot("both", (Window(10_000, 60), Window(5, None))),
        Pot("input", (Window(10_000, None),)),
    ]


@pytest.mark.parametrize(("what", "amount"), [("input", 3), ("output", 5), ("both", 8)])
def test_a_pot_counts_its_kind(what: Any, amount: int) -> None:
    assert Pot(what, ()).amount(3, 5) == amount


@pytest.mark.parametrize(
    ("limit", "first", "lease"), [(10_000, 256, 256), (1024, 128, 128), (600, 75, 75), (300, 37, 64), (5, 1, 64)]
)
def test_of_a_small_budget_a_lease_is_small(limit: int, first: int, lease: int) -> None:
    made = budget({"tokens": limit})
    assert (made.first_lease_tokens, made.lease_tokens) == (first, lease)


def test_a_small_lease_can_be_asked_for() -> None:
    made = budget({}, lease_tokens=10)
    assert (made.first_lease_tokens, made.lease_tokens) == (10, 10)


def test_a_budget_of_input_makes_no_lease_small() -> None:
    made = budget({"tokens": 20, "what": "input"}, {"what": "output", "window_s": 60})
    assert (made.counts_output, made.first_lease_tokens, made.shortest_s) == (True, 256, 60)


def test_a_budget_of_input_alone_needs_no_leases() -> None:
    made = budget({"what": "input", "window_s": 1})
    assert (made.counts_output, made.shortest_s) == (False, math.inf)
