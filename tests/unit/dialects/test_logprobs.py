"""What log probabilities say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.dialects import logprobs
from proxy.dialects.base import Channel, Kind
from proxy.dialects.logprobs import candidates, spelt


def entry(token: str, **more: Any) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), **more}


def gemini(*tokens: str, **more: Any) -> dict[str, Any]:
    return {"chosenCandidates": [{"token": token, "tokenId": 7, "logProbability": -0.5} for token in tokens], **more}


@pytest.mark.parametrize(
    ("logprobs", "text"),
    [
        ([], ""),
        ([entry("a"), entry("é", top_logprobs=[entry("b"), {"token": "c"}])], "aé"),
        ([entry("a", bytes=None, id=7, top_logprobs=None)], "a"),
        ([entry("a", logprob=msgspec.Raw(b"-0.50"))], "a"),
        ({"content": [entry("a")], "refusal": None}, "a"),
        ({"content": None, "refusal": [entry("b")]}, "b"),
        ({"tokens": ["a", "b"], "token_logprobs": [None, -1.5], "top_logprobs": [None, {"c": -2}]}, "ab"),
        ({"tokens": ["a"], "text_offset": [0]}, "a"),
        ({"tokens": ["a"], "token_logprobs": None}, "a"),
        (gemini("a", "b", topCandidates=[{"candidates": [{"token": "c", "logProbability": -1}]}, {}]), "ab"),
        (gemini("a", logProbabilitySum=-1), "a"),
    ],
)  # fmt: skip
def test_the_text_that_they_are_of(logprobs: Any, text: str) -> None:
    assert spelt(logprobs) == text


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        "a",
        ["a"],
        [{"token": 7}],
        [{"logprob": 1}],
        [entry("a", bytes=[98])],
        [entry("a", bytes="a")],
        [entry("a", text="b")],
        [entry("a", logprob="b")],
        [entry("a", logprob=True)],
        [entry("a", id="7")],
        [entry("a", id=4111111111111111)],
        [entry("a", top_logprobs={"b": 1})],
        [entry("a", top_logprobs=["b"])],
        [entry("a", top_logprobs=[entry("b", bytes=[97])])],
        [entry("a", top_logprobs=[entry("b", top_logprobs=[])])],
        {"content": [entry("a")], "new": "b"},
        {"content": "a"},
        {"tokens": "a"},
        {"tokens": [7]},
        {"tokens": ["a"], "new": ["b"]},
        {"tokens": ["a"], "token_logprobs": ["b"]},
        {"tokens": ["a"], "text_offset": ["b"]},
        {"tokens": ["a"], "top_logprobs": ["b"]},
        {"tokens": ["a"], "top_logprobs": [{"b": "c"}]},
        gemini("a", new="b"),
        gemini("a", topCandidates=[{"candidates": [{"token": "b", "new": "c"}]}]),
        gemini("a", topCandidates=[{"candidates": [], "new": "c"}]),
        gemini("a", topCandidates="b"),
        gemini("a", logProbabilitySum="b"),
    ],
)
def test_what_may_say_something_else_is_of_no_text(logprobs: Any) -> None:
    assert spelt(logprobs) is None


@pytest.mark.parametrize(
    ("logprobs", "text"),
    [
        ([entry("a", top_logprobs=[entry("b"), entry("c")]), entry("d", top_logprobs=[entry("e")])], "b\n\nc\n\ne"),
        ({"content": [entry("a", top_logprobs=[entry("b")])], "refusal": [entry("a", top_logprobs=[entry("c")])]}, "b\n\nc"),
        ({"tokens": ["a"], "top_logprobs": [None, {"b": -1, "c": -2}]}, "b\n\nc"),
        (gemini("a", topCandidates=[{"candidates": [{"token": "b"}, {"token": "c"}]}]), "b\n\nc"),
    ],
)  # fmt: skip
def test_the_candidates_that_were_not_chosen_are_a_text_of_their_own(logprobs: Any, text: str) -> None:
    holder = {"logprobs": logprobs}
    ((channel, slot),) = candidates(1, holder, "logprobs", ("choices", 0))
    assert channel == Channel(1, Kind.TEXT, "/choices/0/logprobs", repeated=True)
    assert slot.text == text
    slot.put(text.replace("b", "[MAIL]"))
    assert not holder["logprobs"]


@pytest.mark.parametrize(
    "logprobs", [None, [], 7, "a", [7], [entry("a")], {"top_logprobs": 7}, {"content": [entry("a")]}]
)
def test_without_candidates_there_is_no_text(logprobs: Any) -> None:
    assert not list(candidates(0, {"logprobs": logprobs}, "logprobs"))
    assert not list(candidates(0, {}, "logprobs"))


# By their names


def test_what_says_a_text_again_is_known_by_its_name_wherever_it_stands() -> None:
    entry = {"id": 1, "token": "ann", "bytes": [97, 110, 110]}
    document = {
        "content": "ann",
        "tokens": [1, 2],
        "completion_probabilities": [entry],
        "choices": [{"message": {"content": "ann", "logprobs": {"content": [entry]}}}],
        "prompt_logprobs": [None, {"1": {"decoded_token": "ann"}}],
        "output": [{"text": "ann", "token_ids": [1]}],
        "logprobs": "ann",
    }
    assert logprobs.drop(document)
    left = {"content": "ann", "choices": [{"message": {"content": "ann"}}], "output": [{"text": "ann"}]}
    assert document == left
    assert not logprobs.drop(document)


@pytest.mark.parametrize(
    "document",
    [
        {"tokens": [1, 2]},  # what was asked for, and nothing beside it
        {"content": "a", "tokens": 7},
        {"content": "a", "tokens": ["a"]},
        {"logprobs": None, "top_logprobs": 5},
        {"arguments": {"logprobs": ["a"]}},
    ],
)
def test_other_things_have_such_names_too(document: dict[str, Any]) -> None:
    before = json.dumps(document)
    assert not logprobs.drop(document)
    assert json.dumps(document) == before


def test_a_path_says_the_same() -> None:
    assert logprobs.is_mirror(("choices", 0, "logprobs", "content", 0, "token"))
    assert not logprobs.is_mirror(("arguments", "logprobs", 0))
    assert not logprobs.is_mirror(("content",))
