"""The invariants of streaming redaction, on entities that overlap in every way.

1. However a text is cut, what comes out is what comes out of the whole.
2. What has come out so far is a prefix of that, so nothing is ever taken back.
4. A character is held only while what follows can still change what becomes of it.
5. No more is held than the widest pattern has characters.
6. Channels never mix.

(3, that the whole is what the definition says, is `test_redaction_oracle.py`.)
"""

from __future__ import annotations

from itertools import accumulate, pairwise, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import redaction_hostile as hostile

from policies.redaction.entity import Entity
from policies.redaction.folding import fold
from policies.redaction.json_text import TextRedactor
from policies.redaction.scanner import Piece, Scanner

CHANCE = st.randoms(use_true_random=False)


def marked(entity: Entity, text: str) -> str:
    return f"<{entity.name}:{text}>"


@settings(max_examples=400)
@given(CHANCE)
def test_every_single_cut_gives_what_the_whole_gives_and_never_takes_anything_back(chance: Random) -> None:
    scanner = Scanner(hostile.entities(chance))
    text = hostile.text(chance, 14)
    whole = scanner.redact(text, marked)
    for cut in range(len(text) + 1):
        redactor = scanner.redactor(marked)
        first = redactor.feed(text[:cut])
        assert whole.startswith(first)
        assert first + redactor.feed(text[cut:]) + redactor.finish() == whole


@settings(max_examples=400)
@given(CHANCE)
def test_character_by_character_is_the_same_as_the_whole_and_holds_no_more_than_the_widest_pattern(
    chance: Random,
) -> None:
    scanner = Scanner(hostile.entities(chance))
    text = hostile.text(chance, 40)
    whole = scanner.redact(text, marked)
    redactor = scanner.redactor(marked)
    sent = ""
    for at, character in enumerate(text, 1):
        sent += redactor.feed(character)
        assert whole.startswith(sent)
        assert len(fold(text[at - redactor.held : at])) <= scanner.width
    assert sent + redactor.finish() == whole


@settings(max_examples=200)
@given(CHANCE)
def test_random_cuts_with_empty_feeds_give_the_same_pieces_as_the_whole(chance: Random) -> None:
    scanner = Scanner(hostile.entities(chance))
    text = hostile.text(chance, 60)
    cuts = sorted(chance.randint(0, len(text)) for _ in range(chance.randint(0, 12)))
    redactor = scanner.redactor(marked)
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces += redactor.scan(text[start:end])
        assert sum(consumed for consumed, _ in pieces) == end - redactor.held
    pieces += redactor.end()
    whole = scanner.redactor(marked)
    assert fates(pieces) == fates(whole.scan(text) + whole.end())


@settings(max_examples=100, deadline=None)
@given(CHANCE)
def test_a_long_text_behind_a_context_is_the_same_whole_cut_and_by_character(chance: Random) -> None:
    scanner = Scanner(hostile.entities(chance))
    context = hostile.text(chance, 6)
    text = "".join(hostile.text(chance, 20) + " " * chance.randint(0, 60) for _ in range(20))[:800]
    whole = scanner.redact(text, marked, context)
    cuts = sorted(chance.randint(0, len(text)) for _ in range(3))
    for edges in ([0, *cuts, len(text)], range(len(text) + 1)):
        redactor = scanner.redactor(marked, context)
        sent = ""
        for start, end in pairwise(edges):
            sent += redactor.feed(text[start:end])
            assert whole.startswith(sent)
        assert sent + redactor.finish() == whole


def fates(pieces: list[Piece]) -> list[tuple[int, str | None]]:
    """For each character what became of it: the place in its match and what was written instead."""
    return [(place if replacement else 0, replacement) for consumed, replacement in pieces for place in range(consumed)]


@settings(max_examples=100, deadline=None)
@given(CHANCE)
def test_nothing_is_held_that_no_continuation_could_change(chance: Random) -> None:
    scanner = Scanner(hostile.entities(chance, plain=True))
    text = hostile.text(chance, 8, disguised=False)
    redactor = scanner.redactor(marked)
    redactor.feed(text)
    if not redactor.held:
        return
    first_held = len(text) - redactor.held
    seen = set()
    for length in range(scanner.width + 2):
        for continuation in product("abcd", repeat=length):
            whole = scanner.redactor(marked)
            pieces = whole.scan(text + "".join(continuation)) + whole.end()
            place, replacement = fates(pieces)[first_held]
            run = next(consumed for consumed, end in zip_ends(pieces) if end > first_held)
            seen.add((place, replacement, run if replacement else 0))
            if len(seen) > 1:
                return
    pytest.fail(f"held {text[first_held:]!r} of {text!r}, but all continuations give {seen}")


def zip_ends(pieces: list[Piece]) -> list[tuple[int, int]]:
    return list(zip((consumed for consumed, _ in pieces), accumulate(consumed for consumed, _ in pieces), strict=True))


@settings(max_examples=200)
@given(CHANCE)
def test_channels_never_mix(chance: Random) -> None:
    scanner = Scanner(hostile.entities(chance))
    texts = [hostile.text(chance, 20) for _ in range(3)]
    redactors = [scanner.redactor(marked) for _ in texts]
    left, out = list(texts), ["" for _ in texts]
    while any(left):
        channel = chance.randrange(len(texts))
        size = chance.randint(0, 4)
        out[channel] += redactors[channel].feed(left[channel][:size])
        left[channel] = left[channel][size:]
    out = [sent + redactor.finish() for sent, redactor in zip(out, redactors, strict=True)]
    assert out == [scanner.redact(text, marked) for text in texts]


ALMOST_JSON = (
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    " ",
    '"',
    '"a"',
    '"ab"',
    "1",
    "12",
    "null",
    "\\",
    "\\n",
    "\\u0061",
    "a",
    "c",
    "\n",
)


@settings(max_examples=400)
@given(CHANCE)
def test_a_text_that_is_json_only_for_a_while_is_the_same_however_it_is_cut(chance: Random) -> None:
    entities = [
        *hostile.entities(chance),
        Entity("Q", '"ab?"b', context=lambda text: 1),
        Entity("K", 'a(?:"|": "|": )1', spares=("E0",)),
    ]
    scanner = Scanner(entities)
    text = chance.choice("[{") + "".join(chance.choice(ALMOST_JSON) for _ in range(chance.randint(0, 24)))
    arguments = chance.random() < 0.5
    redactor = TextRedactor(scanner, marked, arguments=arguments)
    whole = redactor.feed(text) + redactor.finish()
    redactor = TextRedactor(scanner, marked, arguments=arguments)
    sent, position = "", 0
    while position < len(text):
        step = chance.randint(1, 4)
        sent += redactor.feed(text[position : position + step])
        position += step
        assert whole.startswith(sent)
    assert sent + redactor.finish() == whole


@settings(max_examples=100)
@given(CHANCE)
def test_forgetting_what_was_built_changes_nothing(chance: Random) -> None:
    scanner = Scanner(hostile.entities(chance))
    text = hostile.text(chance, 30)
    whole = scanner.redact(text, marked)
    redactor = scanner.redactor(marked)
    sent = ""
    for character in text:
        if chance.random() < 0.3:
            scanner.automaton.forget()
        sent += redactor.feed(character)
    assert sent + redactor.finish() == whole
