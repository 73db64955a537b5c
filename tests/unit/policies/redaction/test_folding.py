"""What characters are read as."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from policies.redaction.folding import fold, fold_character


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("plain ASCII\n\t\x00", "plain ASCII\n\t\x00"),
        ("\uff14\uff11\uff11\uff11", "4111"),  # full width
        ("\u0664\u0661\u06f1\u0967", "4111"),  # Arabic-Indic, Persian, Devanagari
        ("\U0001d7d2\U0001d7cf", "41"),  # mathematical bold
        ("\u2463\u2460\u00b9", "411"),  # circled, superscript
        ("4\ufe0f\u20e31\ufe0f\u20e3", "41"),  # keycaps
        ("\uff53\uff4b\uff0d\U0001d41a\u24b6", "sk-aA"),
        ("\u0430\u0412\u03bf\u0131", "aBoi"),  # Cyrillic, Greek, dotless
        ("a\u200bb\u00adc\u2060d\ufeffe\U000e0061f", "abcdef"),  # invisible
        ("e\u0301x\u0336", "ex"),  # drawn over
        ("1\u00a02\u20093\u20114\u22125\u20136", "1 2 3-4-5-6"),  # spaces, hyphens, minus, en dash
        ("a\uff20b\u3002c\uff1a", "a@b.c:"),
        ("one\u2014two", "one\u2014two"),  # the em dash separates
        ("\u00e9u\u0308\u00fc\u0130\u1e69\u0451\u03ac", "euuIsea"),  # with what is drawn over it
        (
            "\u00df\u4e2d\ufb01\uac00\U0001f600",
            "\u00df\u4e2d\ufb01\uac00\U0001f600",
        ),  # what looks like nothing else, or like two
        ("\ud800", "\ud800"),
    ],
)
def test_reading(written: str, read: str) -> None:
    assert fold(written) == read


def test_every_character_is_read_as_at_most_one_and_reading_twice_changes_nothing() -> None:
    for code_point in range(sys.maxunicode + 1):
        folded = fold_character(chr(code_point))
        assert len(folded) <= 1
        assert fold(folded) == folded


def test_a_letter_and_its_diacritics_are_read_alike_in_one_character_and_in_several() -> None:
    for character in map(chr, [*range(0xC0, 0x530), *range(0x1E00, 0x2000)]):  # Latin, Greek, Cyrillic
        assert fold(unicodedata.normalize("NFD", character)) == fold(unicodedata.normalize("NFC", character))


def test_every_digit_and_every_invisible_format_character_is_read() -> None:
    seen_marks = {"Arab", "KAIT", "SYRI"}  # prepended marks: format characters that are seen
    for code_point in range(sys.maxunicode + 1):
        character = chr(code_point)
        if character.isdecimal():
            assert fold_character(character) == str(unicodedata.digit(character))
        name = unicodedata.name(character, "").upper()
        if unicodedata.category(character) == "Cf" and not any(name.startswith(mark.upper()) for mark in seen_marks):
            if name.startswith(("EGYPTIAN", "INTERLINEAR")):  # controls that join or annotate signs: both are drawn
                continue
            assert fold_character(character) == "", name
