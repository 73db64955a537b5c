"""Counting: how often the same text is looked at, and in how many pieces it comes, must not change its tokens."""

from __future__ import annotations

import re
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import tokens
from proxy.dialects.base import Channel, Kind
from proxy.tokens import ExactCounter, Tokenizer, counter, installed

TEXT = Channel(0, Kind.TEXT, 0)
EXACT: tuple[Tokenizer, ...] = ("o200k", "cl100k")
PROSE = "The quick brown fox didn't jump.\n\n  “Why not?” 日本語、12345 (maybe)…\tI'll see, it's e\u0301.\r\n" * 3
# What the encodings' patterns treat each in its own way.
TRICKY = st.text(alphabet="ab'sStTrRe T.,\n\r \t12é日本、/()-_\u0301\u200d\U0001f468{}\":", max_size=60)


def exact(tokenizer: Tokenizer) -> ExactCounter:
    return cast(ExactCounter, counter(tokenizer))


def words(text: str) -> int:
    return len(re.findall(r"\w+", text))


# --- a delta is a token


def test_a_delta_is_a_token() -> None:
    tally = counter("deltas").tally()
    assert tally.add([(TEXT, "Hello")]) == 1
    assert tally.add([]) == 1
    assert tally.add([(TEXT, " wonderful world"), (Channel(1, Kind.REASONING, 0), "Hm")]) == 3


def test_a_delta_that_is_longer_than_a_token_is_counted_by_its_size() -> None:
    assert counter("deltas").tally().add([(TEXT, "x" * 64)]) == 1
    assert counter("deltas").tally().add([(TEXT, "x" * 65)]) == 17
    assert counter("deltas").tally().add([(TEXT, "日" * 22)]) == 17
    assert counter("deltas").tally().add([(TEXT, "\ud83d" * 65)]) == 17
    assert counter("deltas").tally().add([(TEXT, "x" * 8000)]) == 2000


def test_of_a_document_of_unknown_shape_only_one_short_text_can_be_the_models() -> None:
    tally = counter("deltas").tally()
    document = [(Channel(0, Kind.TEXT, pointer), "x") for pointer in ("/type", "/model", "/message/content")]
    assert tally.add(document) == 1
    assert tally.add([*document, (Channel(0, Kind.TEXT, "/data"), "x" * 100)]) == 1 + 1 + 25
    assert (
        tally.add([(Channel(0, Kind.TEXT, ""), "text"), (Channel(0, Kind.TOOL_ARGUMENTS, "function_call"), "{")]) == 29
    )


@pytest.mark.parametrize("tokenizer", ["deltas", *EXACT])
def test_what_is_repeated_is_not_counted_again(tokenizer: Tokenizer) -> None:
    tally = counter(tokenizer).tally()
    said = tally.add([(TEXT, "Hello")])
    assert said == 1
    assert tally.add([(Channel(0, Kind.TEXT, 0, repeated=True), "Hello")]) == said


@pytest.mark.parametrize(("texts", "expected"), [([], 0), ([""], 0), (["a"], 1), (["abcd", "abcde"], 3), (["日本"], 2)])
def test_a_whole_text_is_estimated_by_its_size(texts: list[str], expected: int) -> None:
    assert counter("deltas").estimate(texts) == expected


def test_half_a_surrogate_pair_has_a_size_too() -> None:
    assert counter("deltas").estimate(["\ud83d"]) == 1


# --- exactly


@pytest.mark.parametrize(
    ("tokenizer", "text", "expected"),
    [
        # as in the OpenAI cookbook, "How to count tokens with tiktoken"
        ("o200k", "antidisestablishmentarianism", 6),
        ("cl100k", "antidisestablishmentarianism", 6),
        ("o200k", "2 + 2 = 4", 7),
        ("cl100k", "2 + 2 = 4", 7),
        ("o200k", "お誕生日おめでとう", 8),
        ("cl100k", "お誕生日おめでとう", 9),
        ("o200k", "", 0),
    ],
)
def test_the_tokens_of_a_text(tokenizer: Tokenizer, text: str, expected: int) -> None:
    assert exact(tokenizer).count(text) == expected


@pytest.mark.parametrize("tokenizer", EXACT)
def test_who_writes_a_special_token_has_written_text(tokenizer: Tokenizer) -> None:
    assert exact(tokenizer).count("<|endoftext|>") > 3


@pytest.mark.parametrize("tokenizer", EXACT)
def test_half_a_surrogate_pair_is_a_character(tokenizer: Tokenizer) -> None:
    assert exact(tokenizer).count("a\ud83d") == exact(tokenizer).count("a?")


@pytest.mark.parametrize("tokenizer", EXACT)
@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.one_of(TRICKY, st.text(max_size=20)), max_size=12))
def test_a_text_has_the_same_tokens_in_pieces(tokenizer: Tokenizer, pieces: list[str]) -> None:
    tally = counter(tokenizer).tally()
    total = 0
    for piece in pieces:
        total = tally.add([(TEXT, piece)])
    assert total == exact(tokenizer).count("".join(pieces))


@pytest.mark.parametrize("tokenizer", EXACT)
def test_character_by_character(tokenizer: Tokenizer) -> None:
    tally = counter(tokenizer).tally()
    totals = [tally.add([(TEXT, character)]) for character in PROSE]
    assert totals[-1] == exact(tokenizer).count(PROSE)


def test_channels_grow_apart() -> None:
    tally = counter("o200k").tally()
    other = Channel(1, Kind.TEXT, 0)
    tally.add([(TEXT, "hel"), (other, "wor")])
    assert tally.add([(TEXT, "lo"), (other, "ld")]) == 2


def test_what_no_continuation_can_change_is_counted_once() -> None:
    looked_at: list[str] = []

    def count(text: str) -> int:
        looked_at.append(text)
        return words(text)

    tally = ExactCounter(count).tally()
    for _ in range(1000):
        total = tally.add([(TEXT, " again")])
    assert total == 1000
    assert max(map(len, looked_at)) == len(" again")


def test_a_text_without_seams_is_not_counted_over_and_over() -> None:
    longest = 0

    def count(text: str) -> int:
        nonlocal longest
        longest = max(longest, len(text))
        return len(text)

    tally = ExactCounter(count).tally()
    for _ in range(5000):
        total = tally.add([(TEXT, "x")])
    assert total == 5000
    assert longest < 2000


def test_very_many_channels_take_no_memory() -> None:
    tally = ExactCounter(words).tally()
    for number in range(10_000):
        total = tally.add([(Channel(0, Kind.TEXT, f"/{number}"), "word")])
    assert total == 10_000
    assert len(tally._growing) < 1000  # type: ignore[attr-defined]


def test_a_long_prompt_is_judged_by_its_beginning() -> None:
    looked_at = 0

    def count(text: str) -> int:
        nonlocal looked_at
        looked_at += len(text)
        return words(text)

    estimate = ExactCounter(count).estimate
    assert estimate(["word " * 100, "", "word"]) == 101
    looked_at = 0
    assert estimate(["word " * 10, "word " * 1_000_000]) == pytest.approx(1_000_010, rel=0.001)
    assert looked_at < 20_000


# --- which there are


def test_a_counter_is_made_once() -> None:
    assert counter("o200k") is counter("o200k")


def test_without_the_extra_only_deltas_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(installed(tokenizer) for tokenizer in ("deltas", *EXACT))
    monkeypatch.setattr(tokens, "find_spec", lambda name: None)
    assert installed("deltas")
    assert not any(installed(tokenizer) for tokenizer in EXACT)
