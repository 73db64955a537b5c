"""From `re` syntax to positions: what each construct means, what is refused and why, and which characters a class holds."""

from __future__ import annotations

import re
import sys
from itertools import product

import pytest

from policies.redaction.entity import PatternError
from policies.redaction.patterns import (
    MAX_POSITIONS,
    MAX_WIDTH,
    Alphabet,
    Positions,
    compile_charset,
    compile_pattern,
)


def matches(positions: Positions, text: str) -> bool:
    """Walk all of `text`; the plainest reading of what positions are."""
    ahead, ended = set(positions.first), False
    for character in text:
        reached = {position for position in ahead if positions.charsets[position].holds(character)}
        ahead = {after for position in reached for after in positions.follow[position]}
        ended = bool(reached & positions.last)
    return ended


@pytest.mark.parametrize(
    "pattern",
    [
        "abc",
        "a|bc|",
        "a?b",
        "(?:ab){2}",
        "(ab){1,3}c",
        "a{0,3}b",
        "(?P<name>a)(?#comment)b",
        "a{0,2}?b??c",
        "[ab][^ab]",
        "[^c]b",
        ".b",
        "(?s:.)b",
        "(?s).\n",
        r"\w\d",
        r"[\w-]\W",
        r"\s\S",
        r"(?a:\w)b",
        "(?i)aB",
        "(?i:[a-b])C",
        "(?i:[^a])b",
        "(?i)a(?-i:b)",
        "(?x) a b # spaces do not count",
        "(?:a?b?){1,3}c",
        "(?:(?:a|ab)(?:c|bc)){1,2}",
        "(?:a{0,2}){2}b",
    ],
)
def test_a_pattern_means_what_it_means_in_re(pattern: str) -> None:
    reference = re.compile(pattern)
    if reference.fullmatch(""):
        with pytest.raises(PatternError, match="empty text"):
            compile_pattern(pattern)
        return
    compiled = compile_pattern(pattern)
    for text in [
        *(text for length in range(1, 4) for text in map("".join, product("abcABC1 \n\u00e9", repeat=length))),
        *map("".join, product("abc", repeat=5)),
    ]:
        assert matches(compiled, text) is (reference.fullmatch(text) is not None), text
        assert reference.fullmatch(text) is None or len(text) <= compiled.width


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a)\\1", "back-reference"),
        ("(a)?(?(1)b|c)", "conditional group"),
        ("(?=a)b", "use the guards"),
        ("(?<!a)b", "use the guards"),
        ("^a", "use the guards"),
        (r"a\b", "use the guards"),
        ("(?>a)", "atomic"),
        ("a++b", "possessive"),
        ("a*b", "unbounded repetition"),
        ("a{3,}", "unbounded repetition"),
        ("a(?!)", "use the guards|never match"),
        ("a{0,3}", "empty text"),
        ("", "empty text"),
        ("[a-z", "not a valid regular expression"),
        ("a{2,1}", "not a valid regular expression"),
        ("(?m:a)", "flags"),
        ("(?L)a", "not a valid|flags"),
        ("\u200b", r"'\\u200b' is not read"),
        ("[a\u0301]", r"is not read"),
        (f"a{{{MAX_WIDTH + 1}}}", f"may hold {MAX_WIDTH + 1} characters"),
        ("(?:a{100}){100}", f"more than {MAX_POSITIONS} positions"),
        ("(?:(?:(?:a{1000}){1000}){1000}){1000}", "too large"),
        ("(?:" + "|".join(map("".join, product("abcdefghij", "klmnopqrst", "x"))) + "){9}", "too ambiguous"),
        ("(" * 10_000 + "a" + ")" * 10_000, "not a valid regular expression"),
    ],
)
def test_what_is_refused_and_why(pattern: str, reason: str) -> None:
    with pytest.raises(PatternError, match=reason):
        compile_pattern(pattern)


def test_nothing_repeated_without_end_is_still_nothing() -> None:
    assert matches(compile_pattern("a(?:){1000000}b(?:(?:){9}){0,4000000}"), "ab")


@pytest.mark.parametrize(
    ("pattern", "undecided"),
    [
        ("", 1),
        ("a*", 1),
        ("(?:[ab]|c[ab])*", 2),
        ("[a-z]*(?:--END [A-Z]{0,9}--)?", 17),
        ("(?:abc)+", 3),
        ("a{2,}", 2),
    ],
)
def test_unbounded_patterns_are_bounded_where_they_do_not_match(pattern: str, undecided: int) -> None:
    positions = compile_pattern(pattern, unbounded=True)
    assert positions.width == undecided
    for length in range(7):
        for text in map("".join, product("abc", repeat=length)):
            if text:
                assert matches(positions, text) is (re.fullmatch(pattern, text) is not None), text


@pytest.mark.parametrize("pattern", ["a*b", "(?:ab*c)*", "x(?:[^y]*)y", "a(?:b|cd)*e"])
def test_an_unbounded_pattern_that_may_go_on_undecided_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError, match="without bound before it is known"):
        compile_pattern(pattern, unbounded=True)


@pytest.mark.parametrize("guard", [r"\w", "[^a-z]", r"[\w.+-]", "x", "(?i:[a-f])"])
def test_a_guard_is_one_class(guard: str) -> None:
    charset = compile_charset(guard)
    for character in map(chr, range(0x250)):
        assert charset.holds(character) is (re.fullmatch(guard, character) is not None), character


@pytest.mark.parametrize("guard", ["ab", "a?", "(?:a|bc)", "[a-"])
def test_what_is_not_one_class_is_no_guard(guard: str) -> None:
    with pytest.raises(PatternError):
        compile_charset(guard)


CLASSES = [
    "a",
    "(?i:k)",
    "[^b]",
    "[a-fx]",
    "(?i:[g-k])",
    r"\w",
    r"\W",
    r"\d",
    r"\s",
    r"(?a:\w)",
    "[\u00e0-\u00ff]",
    "_",
]


def test_an_alphabet_knows_of_every_character_which_classes_hold_it() -> None:
    alphabet = Alphabet()
    charsets = {alphabet.bit(charset): charset for charset in map(compile_charset, CLASSES)}
    assert sorted(charsets) == [1 << number for number in range(len(CLASSES))]
    assert alphabet.bit(compile_charset("a")) == 1
    for code_point in [*range(0x3000), *range(0xFF00, 0xFFF0), *range(sys.maxunicode - 9, sys.maxunicode + 1)]:
        held = alphabet.holding(chr(code_point))
        assert held == sum(bit for bit, charset in charsets.items() if charset.holds(chr(code_point))), hex(code_point)


def test_an_alphabet_gives_an_example_of_whatever_its_classes_tell_apart() -> None:
    alphabet = Alphabet()
    bits = [alphabet.bit(compile_charset(source)) for source in CLASSES]
    held = {alphabet.holding(example) for example in alphabet.examples()}
    assert all(any(bit & one for one in held) for bit in bits)
    assert any(not bits[0] & one for one in held)


def test_a_character_is_read_as_those_of_texts_are() -> None:
    charsets = compile_pattern("\uff14[\u00e9x][^\u00e9]").charsets
    assert [[character for character in "4ex\u00e9" if charset.holds(character)] for charset in charsets] == [
        ["4"],
        ["e", "x"],
        ["4", "e", "x"],
    ]
