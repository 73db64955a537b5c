"""Entities compiled together: numbered positions, words as a trie of ranges, guards."""

from __future__ import annotations

from itertools import product

import pytest

from policies.redaction.entity import Entity, PatternError, dictionary
from policies.redaction.program import MAX_WORD, Node, Place, Program

WORDS = ["a", "ab", "abc", "b", "ba", "caa", "cab"]


def test_positions_are_numbered_through_and_know_their_entity() -> None:
    program = Program([Entity("ONE", "ab"), Entity("TWO", "cd?", swallow="e*")])
    assert [program.alphabet.holding(character) for character in "abcde"] == program.bits
    assert program.follow == [(1,), (), (3,), (), (4,)]
    assert program.ends == {1: 0, 2: 1, 3: 1, 4: 1}
    assert program.opening(0) == {0, 2}
    assert program.swallowing == [frozenset(), frozenset({4})]


def test_a_guard_keeps_its_entity_from_beginning_after_its_characters() -> None:
    program = Program([Entity("ONE", "a"), Entity("TWO", "b", before="[xy]", after="z")])
    assert program.opening(0) == {0, 1}
    assert program.opening(program.alphabet.holding("x")) == {0}
    assert program.opening(program.alphabet.holding("z")) == {0, 1}
    assert program.guards == program.alphabet.holding("y")
    assert program.after == [0, program.alphabet.holding("z")]


def test_the_width_is_that_of_the_widest_pattern_word_or_stretch_that_is_swallowed_undecided() -> None:
    assert Program([Entity("ONE", "a{1,5}"), Entity("TWO", "b")]).width == 5
    assert Program([Entity("ONE", "a"), dictionary("WORD", ["seven77", "x"])]).width == 7
    assert Program([Entity("ONE", "a", swallow="(?:bcdefgh)*")]).width == 7


def found(program: Program, text: str) -> bool:
    """Whether reading `text` from the start ends where a word ends."""
    (place,) = program.opening(0)
    node: Place | None = place
    ends = False
    for character in text:
        if node is None:
            return False
        assert isinstance(node, Node)
        bits = program.alphabet.holding(character)
        if not bits & program.mask(node):
            return False
        node, ends = program.read(node, bits)
    return ends


@pytest.mark.parametrize("ignore_case", [True, False])
def test_words_are_read_letter_by_letter(ignore_case: bool) -> None:
    program = Program([dictionary("WORD", [*WORDS, "ABC"], ignore_case=ignore_case)])
    for length in range(1, 5):
        for text in map("".join, product("abcABx", repeat=length)):
            assert found(program, text) is ((text.lower() if ignore_case else text) in [*WORDS, "ABC"]), text


def test_words_are_folded_like_the_text() -> None:
    program = Program([dictionary("WORD", ["\uff21\u200bb"])])
    assert found(program, "aB")


@pytest.mark.parametrize(
    ("entity", "reason"),
    [
        (Entity("KEY"), "either a pattern or words"),
        (Entity("KEY", "a", words=("a",)), "either a pattern or words"),
        (Entity("KEY", "a", after="b", swallow="c*"), "no guard `after`"),
        (Entity("KEY", words=("a",), swallow="c*"), "has a pattern"),
        (Entity("KEY", "a", spares=("ONE",), swallow="c*"), "replaces nothing"),
        (Entity("KEY", "a", spares=("ONE",), context=len), "replaces nothing"),
        (Entity("KEY", "a", before="ab"), "one character class"),
        (Entity("KEY", "a*"), "unbounded"),
        (Entity("KEY", words=("a", "\u200b")), "nothing of it is visible"),
        (Entity("KEY", words=("a" * (MAX_WORD + 1),)), f"at most {MAX_WORD}"),
    ],
)
def test_what_is_refused_names_the_entity_and_the_reason(entity: Entity, reason: str) -> None:
    with pytest.raises(PatternError, match=f"^KEY: .*{reason}"):
        Program([Entity("FINE", "x"), entity])
