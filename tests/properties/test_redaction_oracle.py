"""Invariant 3 of redaction: what comes out is what the definition says, found by brute force on the whole text.

On entities that overlap in every way, and on the default ones with secrets planted among their own beginnings, each also
fed in random pieces.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs import redaction_cases as cases
from rigs import redaction_hostile as hostile
from rigs.redaction_oracle import Oracle

from policies.redaction.entities import entities
from policies.redaction.entity import Entity, dictionary
from policies.redaction.folding import fold
from policies.redaction.json_text import naming
from policies.redaction.scanner import Scanner

CHANCE = st.randoms(use_true_random=False)
DEFAULTS = entities(["US", "GB", "DE", "FR"])
SCANNER, ORACLE = Scanner(DEFAULTS), Oracle(DEFAULTS)

# What secrets are made of, what stands around them, and what looks like them.
FRAGMENTS = (
    *("@", ".com", "bob", "a.b", "://", "user:pass", "+1 ", "(212) ", "555-", "0143", "4111 ", "1111", "-", " ", "\n"),
    *(
        "eyJ",
        "sk-",
        "sk-proj-",
        "ghp_",
        "AKIA",
        "-----BEGIN ",
        "PRIVATE KEY-----",
        "-----END ",
        "::",
        "fe80",
        "10.0.0.",
    ),
    *(
        "DE89",
        "3704",
        "token=",
        "call ",
        "version ",
        "git@",
        "\u200b",
        "\uff11",
        "é",
        "中",
        "%40",
        "[at]",
        "SSN ",
        "12-34",
        "password: ",
        "pass='",
        "-u a:",
        '"ann"',
        "a=b&",
        "é es ",
    ),
)
SECRETS = [case.secret for case in cases.positives()]


def marked(entity: Entity, text: str) -> str:
    return f"<{entity.name}:{text}>"


def in_pieces(scanner: Scanner, text: str, chance: Random, expected: str, context: str = "") -> str:
    """`text` through a redactor, cut anywhere: at each cut a prefix of what is `expected`, and no more held than may be."""
    redactor = scanner.redactor(marked, context)
    sent, position = "", 0
    while position < len(text):
        step = chance.randint(1, 9)
        sent += redactor.feed(text[position : position + step])
        position = min(position + step, len(text))
        assert expected.startswith(sent)
        assert len(fold(text[position - redactor.held : position])) <= scanner.width
    return sent + redactor.finish()


@settings(max_examples=1000, deadline=None)
@given(CHANCE)
def test_hostile_entities_are_found_as_defined(chance: Random) -> None:
    found = hostile.entities(chance)
    text = hostile.text(chance, 24)
    expected = Oracle(found).redact(text, marked)
    assert Scanner(found).redact(text, marked) == expected
    assert in_pieces(Scanner(found), text, chance, expected) == expected


@settings(max_examples=1000, deadline=None)
@given(CHANCE)
def test_hostile_entities_are_found_as_defined_behind_a_context(chance: Random) -> None:
    found = hostile.entities(chance)
    context, text = hostile.text(chance, 6), hostile.text(chance, 18)
    expected = Oracle(found).redact(text, marked, context)
    assert Scanner(found).redact(text, marked, context) == expected
    assert in_pieces(Scanner(found), text, chance, expected, context) == expected


@settings(max_examples=100, deadline=None)
@given(CHANCE)
def test_default_entities_are_found_as_defined_behind_a_key(chance: Random) -> None:
    context = naming(
        chance.choice(["api_key", "ssn", "phone", "AccountKey", "a@b.com", "10.0.0.1", "note", SECRETS[0]])
    )
    text = chance.choice(SECRETS)[:90] + chance.choice(["", " ", "x", "0"]) + chance.choice(FRAGMENTS)
    expected = ORACLE.redact(text, marked, context)
    assert SCANNER.redact(text, marked, context) == expected
    assert in_pieces(SCANNER, text, chance, expected, context) == expected


@settings(max_examples=60, deadline=None)
@given(CHANCE)
def test_default_entities_are_found_as_defined_far_behind_a_context(chance: Random) -> None:
    context = naming(chance.choice(["", "note", "api_key", "phone"]))
    text = "y " * chance.randint(110, 132) + chance.choice(SECRETS)[:90] + chance.choice([" ", ".", "0"])
    text += "y " * chance.randint(0, 130) + chance.choice(SECRETS)[:90]
    expected = ORACLE.redact(text, marked, context)
    assert SCANNER.redact(text, marked, context) == expected
    assert in_pieces(SCANNER, text, chance, expected, context) == expected


@settings(max_examples=200, deadline=None)
@given(CHANCE)
def test_default_entities_are_found_as_defined_among_their_own_beginnings(chance: Random) -> None:
    text = ""
    for _ in range(chance.randint(1, 12)):
        piece = chance.choice(SECRETS) if chance.random() < 0.25 else chance.choice(FRAGMENTS)
        text += piece[chance.randint(0, 3) : 90] if chance.random() < 0.1 else piece[:90]
    expected = ORACLE.redact(text, marked)
    assert SCANNER.redact(text, marked) == expected
    assert in_pieces(SCANNER, text, chance, expected) == expected


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_default_entities_are_found_as_defined_in_the_labelled_texts(start: int) -> None:
    texts = [case.text for case in cases.positives()] + cases.clean()
    for text in texts[start : start + 100]:
        assert SCANNER.redact(text, marked) == ORACLE.redact(text, marked)


def test_the_oracle_knows_each_rule() -> None:
    """The definition's rules, by hand: else the oracle could be wrong in the same way as the engine."""
    expectations: list[tuple[list[Entity], str, str]] = [
        ([Entity("A", "ab"), Entity("B", "abc?")], "abc ab", "<B:abc> <A:ab>"),  # the longest; ties by order
        ([Entity("A", "bcd"), Entity("B", "ab")], "abcd", "<B:ab>cd"),  # the leftmost
        ([Entity("A", "a{1,3}", valid=lambda text: len(text) != 3)], "aaaa", "<A:aa><A:aa>"),  # the longest valid one
        ([Entity("A", "a", before="b", after="c")], "ba ac a", "ba ac <A:a>"),  # guards
        ([Entity("A", "ab", swallow="c*"), Entity("B", "abcd")], "abccd", "<A:ab>d"),  # commits, then swallows
        ([Entity("A", "x=a", context=lambda text: 2)], "x=a", "x=<A:a>"),  # the context stays
        ([Entity("A", "1.2", spares=("B",)), Entity("B", "2")], "1.2 2", "1.2 <B:2>"),  # a decoy
        ([Entity("A", "1.2", spares=("B",)), Entity("B", "2"), Entity("C", "1.")], "1.2 2", "<C:1.>2 <B:2>"),
        ([Entity("A", "1.2", spares=("B",)), Entity("B", "2|2 2")], "1.2 2", "1.<B:2 2>"),  # which only begins in it
        ([dictionary("W", ["Anna"])], "ANNA Annas", "<W:ANNA> Annas"),  # words
        ([Entity("A", "ab")], "\u200b\uff41\u200bb\u200b", "\u200b<A:\uff41\u200bb>\u200b"),  # look-alikes
    ]
    for found, text, expected in expectations:
        assert Oracle(found).redact(text, marked) == expected
        assert Scanner(found).redact(text, marked) == expected
