"""Where a Gemini reply has its texts, and which of them end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from proxy.dialects.base import EVERY_CHANNEL, Channel, DialectStream, Kind
from proxy.framing import Event

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]

TEXT = Channel(0, Kind.TEXT, 0)
THOUGHT = Channel(0, Kind.REASONING, 0)
CANDIDATE = Channel(0, None, None)


def args(part: int) -> Channel:
    pointer = f"/content/parts/{part}/functionCall/args"
    return Channel(0, Kind.TOOL_ARGUMENTS, pointer)


def name(part: int) -> Channel:
    return Channel(0, Kind.TEXT, f"/content/parts/{part}/functionCall/name", repeated=True)


def at(place: str, *, repeated: bool = False) -> Channel:
    return Channel(0, Kind.TEXT, f"/content/parts/0/{place}", repeated)


def test_the_arguments_of_a_function_call_are_whole(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("gemini"), "aimock/gemini_tools.sse")
    texts = {args(0): '{"city":"Zürich","days":[{"unit":"celsius"}],"count":1}', args(1): '{"zone":"CET"}'}
    names = {name(0): "get_weather", name(1): "get_time"}
    assert join(events) == {TEXT: "Let me see.", **names, **texts}
    assert [end for event in events for end in event.ends] == [*texts, CANDIDATE]


def test_arguments_in_pieces(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("gemini"), "written/vertex_partial_args.sse")
    city = Channel(0, Kind.TEXT, "/$.city")
    beside = "/content/parts/0/functionCall/partialArgs/0/"
    count = Channel(0, Kind.TOOL_ARGUMENTS, beside + "numberValue")
    place = Channel(0, Kind.TEXT, beside + "jsonPath", repeated=True)
    assert join(events) == {name(0): "get_weather", city: "Zürich", count: "2", place: "$.city$.city$.count"}
    assert [list(event.ends) for event in events][1:3] == [[], [city]]
    continued = events[1].continuation(city, "x")
    assert continued.document["candidates"][0]["content"]["parts"] == [
        {
            "functionCall": {
                "willContinue": True,
                "partialArgs": [{"jsonPath": "$.city", "willContinue": True, "stringValue": "x"}],
            }
        }
    ]


def test_what_a_grounded_answer_says_again_is_a_repeated_text(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("gemini"), "written/gemini_grounded.sse")
    joined = join(events)
    again = Channel(0, Kind.TEXT, "/groundingMetadata/groundingSupports/0/segment/text", repeated=True)
    assert joined[again] == joined[TEXT] == "The Rhine is 1233 km long."
    assert joined[Channel(0, Kind.TEXT, "/groundingMetadata/webSearchQueries/0", True)] == "length of the Rhine"
    rewritten = events[-1].with_deltas(
        [(channel, "*" if channel == again else text) for channel, text in events[-1].deltas]
    )
    assert rewritten is not None
    assert b"1233" not in rewritten.raw


def test_thoughts_are_apart_from_the_text(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("gemini"), "aimock/gemini_think.sse")
    assert join(events) == {THOUGHT: "Two and two.", TEXT: "It is four."}


@pytest.mark.parametrize(
    ("part", "deltas"),
    [
        ({"text": "a"}, [(TEXT, "a")]),
        ({"text": ""}, []),
        ({"text": "a", "thoughtSignature": "s"}, [(TEXT, "a")]),
        ({"text": "a", "thought": True}, [(THOUGHT, "a")]),
        ({"inlineData": {"mimeType": "image/png", "data": "x"}}, []),
        (
            {"fileData": {"fileUri": "x", "mimeType": "no"}},
            [(Channel(0, Kind.TEXT, "/content/parts/0/fileData/fileUri"), "x")],
        ),
        ({"inlineData": {"mimeType": "text/plain", "data": "YcOp"}}, [(at("inlineData/data"), "aé")]),
        (
            {"inlineData": {"mimeType": "image/png", "data": "x", "displayName": "n"}},
            [(at("inlineData/displayName"), "n")],
        ),
        ({"functionCall": {"name": "f", "id": "1", "args": {}}}, [(name(0), "f")]),
        ({"functionCall": {"args": {"a": 1}}}, [(args(0), '{"a":1}')]),
        ({"functionCall": {"args": "a"}}, [(args(0), "a")]),
        (
            {"functionResponse": {"name": "f", "response": {"a": [4111111111111111]}}},
            [
                (at("functionResponse/name", repeated=True), "f"),
                (
                    Channel(0, Kind.TOOL_ARGUMENTS, "/content/parts/0/functionResponse/response"),
                    '{"a":[4111111111111111]}',
                ),
            ],
        ),
        (
            {"executableCode": {"language": "PYTHON", "code": "c"}},
            [(Channel(0, Kind.TEXT, "/content/parts/0/executableCode/code"), "c")],
        ),
        (
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "o"}},
            [(Channel(0, Kind.TEXT, "/content/parts/0/codeExecutionResult/output"), "o")],
        ),
        ({"new": {"a": "b"}}, [(Channel(0, Kind.TEXT, "/content/parts/0/new/a"), "b")]),
        ("bare", [(Channel(0, Kind.TEXT, "/content/parts/0"), "bare")]),
    ],
)
def test_where_the_texts_of_a_part_are(part: Any, deltas: list[Any], open_stream: Open) -> None:
    candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
    event = open_stream("gemini").event(b"data: " + json.dumps({"candidates": [candidate]}).encode() + b"\n\n")
    assert event.deltas == deltas
    if deltas:
        upper = [(channel, text.upper() + "é") for channel, text in deltas]
        rewritten = event.with_deltas(upper)
        assert rewritten is not None
        assert open_stream("gemini").event(rewritten.raw).deltas == upper


@pytest.mark.parametrize(
    ("document", "ends"),
    [
        ({"error": {"code": 503, "message": "x"}}, [EVERY_CHANNEL]),
        ({"promptFeedback": {"blockReason": "x"}}, [EVERY_CHANNEL]),
        (
            {"candidates": [{"finishReason": "SAFETY", "finishMessage": "x"}]},
            [CANDIDATE],
        ),
        ({"new": "x"}, []),
        ({"candidates": "x"}, []),
        (["x"], []),
    ],
)  # fmt: skip
def test_what_other_events_say_and_end(document: Any, ends: list[Channel], open_stream: Open) -> None:
    """Of another API's a text may go on in the next one."""
    event = open_stream("gemini").event(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert [text for _, text in event.deltas] == ["x"]
    assert list(event.ends) == ends
