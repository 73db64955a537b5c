"""What an entity is; what it means that one matches is tested where it happens (scanner, decision)."""

from __future__ import annotations

import pytest

from policies.redaction import entity as entities
from policies.redaction.entity import Entity, PatternError, dictionary
from policies.redaction.scanner import Scanner


def test_a_dictionary_is_whole_words_in_any_case() -> None:
    made = dictionary("NAME", iter(["Anna", "Mary Ann"]))
    assert made == Entity("NAME", words=("Anna", "Mary Ann"), ignore_case=True, before=r"\w", after=r"\w")


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
