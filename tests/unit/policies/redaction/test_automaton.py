"""The lazy tables: what they say, that they are shared, that they are forgotten, and what they may cost."""

from __future__ import annotations

import gc
import weakref

import pytest

from policies.redaction import automaton as module
from policies.redaction.automaton import MAX_UNSEEN, Automaton, Front
from policies.redaction.entity import BudgetExceeded, Entity


def walked(automaton: Automaton, text: str) -> Front:
    automaton.allowance = 100_000
    front = automaton.idle
    for character in text:
        front = front[character]
    return front


def test_a_front_holds_from_the_oldest_live_run_on() -> None:
    automaton = Automaton([Entity("ONE", "abcd"), Entity("TWO", "cx")])
    assert [walked(automaton, "zabcx"[:length]).hold for length in range(5)] == [0, 0, 1, 2, 3]
    assert [age for age, _ in walked(automaton, "zabc").runs] == [3, 1]


def test_where_a_run_reaches_an_end_the_walk_stays_eventful() -> None:
    automaton = Automaton([Entity("ONE", "ab")])
    assert walked(automaton, "ab") is walked(automaton, "abxyz") is automaton.eventful
    assert automaton.eventful.hold == -1


def test_an_end_that_waits_for_the_next_character_is_not_yet_eventful() -> None:
    automaton = Automaton([Entity("ONE", "ab", after="c")])
    assert walked(automaton, "ab").hold == 2
    assert walked(automaton, "abc").hold == 0
    assert walked(automaton, "abd") is automaton.eventful


def test_equal_fronts_are_one() -> None:
    automaton = Automaton([Entity("ONE", "a[bc]d")])
    assert walked(automaton, "xxab") is walked(automaton, "yac")


def test_invisible_characters_age_the_runs_and_change_nothing_else() -> None:
    automaton = Automaton([Entity("ONE", "ab", before="x")])
    assert walked(automaton, "a\u200b\u200b").hold == 3
    assert walked(automaton, "\u200b\u200b").hold == 0
    assert walked(automaton, "x\u200ba").hold == 0


def test_a_flood_of_invisible_characters_in_what_may_be_a_match_is_refused() -> None:
    automaton = Automaton([Entity("ONE", "ab")])
    walked(automaton, "\u200b" * 2 * MAX_UNSEEN)
    walked(automaton, "a" + "\u200b" * MAX_UNSEEN)
    with pytest.raises(BudgetExceeded, match="invisible"):
        walked(automaton, "a" + "\u200b" * (MAX_UNSEEN + 9))


def test_what_is_walked_again_costs_nothing() -> None:
    automaton = Automaton([Entity("ONE", "a[bc]{1,9}d")])
    front = walked(automaton, "abcbcbcb")
    automaton.allowance = 0
    again = automaton.idle
    for character in "abcbcbcb":
        again = again[character]
    assert again is front


def test_what_is_new_is_paid_for() -> None:
    automaton = Automaton([Entity("ONE", "a[bc]{1,9}d")])
    automaton.allowance = 5
    automaton.idle["b"]
    with pytest.raises(BudgetExceeded):
        automaton.idle["a"]


def test_too_many_look_ups_are_forgotten_and_streams_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 50)
    automaton = Automaton([Entity("ONE", "a[a-z]{1,30}9")])
    automaton.allowance = 1_000_000
    front = automaton.idle
    most = 0
    for number in range(1_000):
        front = front["a" if number % 40 == 0 else chr(ord("b") + number % 23) if number % 40 < 30 else " "]
        most = max(most, sum(len(table) for table in automaton._fronts.values()))
        assert front.hold == (number % 40 + 1 if number % 40 < 30 else 0)
    assert most <= 51


def test_what_nobody_stands_in_is_freed() -> None:
    automaton = Automaton([Entity("ONE", "abc")])
    gone, kept = weakref.ref(walked(automaton, "a")), walked(automaton, "ab")
    automaton.forget()
    gc.collect()
    assert gone() is None
    assert walked(automaton, "ab") is kept
