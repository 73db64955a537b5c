"""What an entity is; what it means that one matches is tested where it happens (scanner, decision)."""

from __future__ import annotations

from typing import Literal
from unicodedata import normalize

import pytest

from policies.redaction import entity as entities
from policies.redaction.entity import Entity, PatternError, dictionary
from policies.redaction.scanner import Scanner


def test_a_dictionary_is_whole_words_in_any_case() -> None:
    scanner = Scanner([dictionary("NAME", iter(["Anna", "Mary Ann", "张伟", "김철수"]))])

    def redact(text: str) -> str:
        return scanner.redact(text, lambda entity, found: "#")

    assert redact("ANNA, mary ann: Annas Joanna Anna2 éanna") == "#, #: Annas Joanna Anna2 éanna"
    assert redact("我是Anna。请找张伟先生，김철수는") == "我是#。请找#先生，#는"  # noqa: RUF001 - what is written there
    assert redact("_Anna_ **Anna**") == "_#_ **#**"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_dictionary_knows_a_word_however_its_characters_are_put_together(form: Literal["NFC", "NFD"]) -> None:
    for given in ("NFC", "NFD"):
        words = [
            normalize(given, word)
            for word in ("Jürgen Müller", "İstanbul", "STRASSE", "Wasser", "ﬁsh", "ガード", "김철수")
        ]
        scanner = Scanner([dictionary("NAME", words)])
        for text in (
            "jürgen MÜLLER",
            "istanbul",
            "ISTANBUL",
            "STRASSE",
            "straße",
            "wasser",
            "Fish",
            "ガード",
            "김철수",
        ):
            assert scanner.redact(normalize(form, text), lambda entity, found: "#") == "#"
    assert (
        Scanner([dictionary("NAME", ["Straße"], ignore_case=False)]).redact("Strasse", lambda entity, found: "")
        == "Strasse"
    )


def test_a_pattern_finds_a_letter_whether_its_marks_stand_in_it_or_behind_it() -> None:
    scanner = Scanner([Entity("NAME", "José [Gñ]arcía")])
    for form in ("NFC", "NFD"):
        assert scanner.redact(normalize(form, "José García"), lambda entity, found: "#") == "#"


def test_the_patterns_that_the_documentation_recommends_for_swallowing_compile() -> None:
    recommended = [part for part in str(entities.__doc__).split("`") if part.endswith(("*", ")?"))]
    assert len(recommended) == 3
    for swallow in recommended:
        Scanner([Entity("KEY", "sk-", swallow=swallow)])


@pytest.mark.parametrize(
    "refused",
    ["a*", "a+", "a{2,}", r"(a)\1", "^a", "a$", r"\ba", "(?=a)b", "(?<!a)b", "(?>a)b", "a?+b", "a?", "(?m:a)"],
)
def test_what_the_documentation_says_is_refused_is_refused(refused: str) -> None:
    with pytest.raises(PatternError, match=r"^KEY: "):
        Scanner([Entity("KEY", refused)])
