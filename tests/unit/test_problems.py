"""Whatever pydantic finds is said in plain words, at the key where the operator wrote it, without the value."""

from __future__ import annotations

import datetime
import enum
import tomllib
from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from proxy.problems import check, listed, nearest, quoted
from proxy.values import Table


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Inner(Table):
    depth: int = 0
    label: str


class Everything(Table):
    text: str = "a"
    whole: int = 1
    number: float = 1.0
    switch: bool = False
    texts: tuple[str, ...] = ()
    words: frozenset[str] = frozenset()
    few: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]  # noqa: RUF012 - the default is never edited
    short: Annotated[str, Field(min_length=2, max_length=3, pattern="^[a-z]+$")] = "ab"
    small: Annotated[int, Field(gt=0, lt=10)] = 1
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    choice: Literal["close", "bypass"] = "close"
    colour: Colour = Colour.RED
    either: float | Literal["auto"] = "auto"
    maybe: str | None = None
    inner: Inner = Inner(label="x")
    inners: tuple[Inner, ...] = ()
    when: datetime.date | None = None
    renamed: int = Field(default=1, alias="called")

    @model_validator(mode="after")
    def _no_thirteen(self) -> Everything:
        if self.whole == 13:
            raise ValueError("whole cannot be 13")
        return self


WRONG: list[tuple[str, list[str]]] = [
    ("text = 5", ["text: must be text, not a whole number"]),
    ("whole = 1.0", ["whole: must be a whole number, not a number with a decimal point"]),
    ("whole = '1'", ["whole: must be a whole number, not text"]),
    ("number = true", ["number: must be a number, not true or false"]),
    ("switch = 1", ["switch: must be true or false, not a whole number"]),
    ("switch = 'yes'", ["switch: must be true or false, not text"]),
    ("texts = 'a'", ["texts: must be a list, not text"]),
    ("texts = ['a', 5, {}]", ["texts[2]: must be text, not a whole number", "texts[3]: must be text, not a table"]),
    ("words = {}", ["words: must be a list, not a table"]),
    ("few = []", ["few: must have 1 or more items"]),
    ("few = ['a']", ["few[1]: must be a whole number, not text"]),
    ("few = [1, 2, 3]", ["few: must have 2 items at most"]),
    ("short = 'a'", ["short: must have 2 or more characters"]),
    ("short = 'abcd'", ["short: must have 3 characters at most"]),
    ("short = 'A1'", ["short: must match the pattern ^[a-z]+$"]),
    ("small = 0", ["small: must be greater than 0"]),
    ("small = 10", ["small: must be less than 10"]),
    ("share = -0.5", ["share: must be at least 0"]),
    ("share = 2", ["share: must be at most 1"]),
    ("share = nan", ["share: must be a finite number"]),
    ("share = -inf", ["share: must be a finite number"]),
    ("choice = 'bypas'", ['choice: must be "close" or "bypass" (did you mean \'bypass\'?)']),
    ("choice = 5", ['choice: must be "close" or "bypass"']),
    ("colour = 'gren'", ['colour: must be "red" or "green" (did you mean \'green\'?)']),
    ("either = 'none'", ['either: must be a number, not text, or must be "auto"']),
    ("maybe = 1", ["maybe: must be text, not a whole number"]),
    ("inner = 1", ["inner: must be a table, not a whole number"]),
    ("inner = {depth = 1}", ["inner.label: is missing"]),
    ("inner = {label = 'a', dept = 1}", ["inner.dept: unknown key"]),
    ("inners = [{label = 'a'}, {label = 1}]", ["inners[2].label: must be text, not a whole number"]),
    ("wole = 2", ["wole: unknown key (did you mean 'whole'?)"]),
    ("on_eror = 2", ["on_eror: unknown key (did you mean 'on_error'?)"]),
    ("calld = 2", ["calld: unknown key (did you mean 'called'?)"]),
    ('"a b" = 2', ['"a b": unknown key; there are called, choice, colour, ']),
    ("when = 'never'", ["when: Input should be a valid date in the format YYYY-MM-DD, input is too short"]),
    ("whole = 13", ["whole cannot be 13"]),
    ("text = 5\nwhole = 'x'\nnope = 1", ["text: must be text, ", "whole: must be a whole ", "nope: unknown key"]),
]


@pytest.mark.parametrize(("document", "messages"), WRONG)
def test_wrong(document: str, messages: list[str]) -> None:
    problems = check(Everything, tomllib.loads(document), "here", ["on_error"])
    assert isinstance(problems, list)
    told = [str(problem) for problem in problems]
    assert len(told) == len(messages)
    for text, message in zip(told, messages, strict=True):
        assert text.startswith(f"[here] {message}")
        assert "secret" not in text


def test_right() -> None:
    document = "texts = ['a']\nwords = ['b']\ncolour = 'green'\nnumber = 2\nwhen = 2030-01-02\ncalled = 3"
    everything = check(Everything, tomllib.loads(document), "here")
    assert isinstance(everything, Everything)
    assert (everything.texts, everything.words, everything.colour) == (("a",), frozenset("b"), Colour.GREEN)
    assert (everything.number, everything.when, everything.renamed) == (2.0, datetime.date(2030, 1, 2), 3)


@pytest.mark.parametrize("given", [5, "x", [], None])
def test_not_even_a_table(given: object) -> None:
    problems = check(Everything, given, "here")
    assert isinstance(problems, list)
    assert str(problems[0]).startswith("[here] must be a table, not ")


def test_no_value_is_ever_repeated() -> None:
    keys = set(Everything.model_fields) - {"text", "maybe", "renamed"}
    problems = check(Everything, dict.fromkeys(keys | {"called", "unknown"}, "sk-0123456789"), "here")
    assert isinstance(problems, list)
    assert len(problems) > 12
    assert not any("sk-0123456789" in str(problem) for problem in problems)


def test_nested_too_deeply() -> None:
    given: dict[str, object] = {}
    for _ in range(100_000):
        given = {"inner": given}
    assert [str(problem) for problem in check(Everything, given, "here")] == ["[here] is nested too deeply"]
    while given:  # freed from the outside: not even the interpreter likes to do it in one go
        given = given.pop("inner")  # type: ignore[assignment]


def test_nearest() -> None:
    assert nearest("hartbeat", ["cors", "heartbeat"]) == "heartbeat"
    assert nearest("xyz", ["cors", "heartbeat"]) == ""
    assert nearest("xyz", []) == ""


def test_names_as_toml_writes_them() -> None:
    assert [quoted(name) for name in ("a-b_1", "a b", "", 'a"\n')] == ["a-b_1", '"a b"', '""', '"a\\"\\n"']
    assert listed({"b", "a"}) == "a, b"
