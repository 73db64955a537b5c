"""Gemini's replies, as server-sent events, as one array and whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Usage
from proxy.dialects.gemini_stream import GeminiStream
from proxy.errors import Problem
from proxy.framing import Event, Framing
from proxy.policy import Ending

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]

TEXT = Channel(0, Kind.TEXT, 0)
THOUGHT = Channel(0, Kind.REASONING, 0)
CANDIDATE = Channel(0, None, None)
SILENCE = Problem.of("upstream_silence")
ARRAY = ("gemini", "application/json", Call(stream=True))


def chunk(part: Any, **more: Any) -> bytes:
    candidate = {"content": {"parts": [part], "role": "model"}, "index": 0, **more}
    document = {"candidates": [candidate], "responseId": "r"}
    return b"data: " + json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def ends_of(events: Iterable[Event]) -> list[Channel]:
    return [end for event in events for end in event.ends]


def wire(events: Iterable[Event]) -> bytes:
    return b"".join(event.raw for event in events)


def test_a_stream(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("gemini"), "aimock/gemini_text.sse")
    assert join(events) == {TEXT: "One two three, né 😀 four five six seven."}
    assert ends_of(events) == [CANDIDATE]
    assert all(event.known and list(event.parsed.choices) == [0] for event in events)


def test_thoughts_count_as_output_and_tools_as_input(open_stream: Open, play: Play) -> None:
    events = play(open_stream(*ARRAY), "written/gemini_stream_array.json")
    assert [event.usage for event in events] == [Usage(9, 7), Usage(9, 11), Usage(9, 15), Usage(9, 27), None, None]
    raw = b'data: {"usageMetadata":{"promptTokenCount":3,"toolUsePromptTokenCount":4,"candidatesTokenCount":"x"}}\n\n'
    assert open_stream("gemini").event(raw).usage == Usage(7, None)


@pytest.mark.parametrize("data", [b"hello", b"{", b'{"candidates":[{"content":' + b"[" * 99])
def test_what_is_no_json_is_unknown(data: bytes, open_stream: Open) -> None:
    assert not open_stream("gemini").event(b"data: " + data + b"\n\n").known


# Rewriting


def test_log_probabilities_go_with_a_text_that_is_changed(open_stream: Open) -> None:
    event = open_stream("gemini").event(
        chunk({"text": "secret"}, logprobsResult={"chosenCandidates": [{"token": "secret"}]})
    )
    assert event.deltas == [(TEXT, "secret")]
    rewritten = event.with_deltas([(TEXT, "*")])
    assert rewritten is not None
    assert b"secret" not in rewritten.raw


def spelt(text: str, *tokens: str) -> bytes:
    chosen = [{"token": token, "logProbability": -0.5} for token in tokens]
    return chunk({"text": text}, logprobsResult={"chosenCandidates": chosen})


def test_log_probabilities_of_other_texts_go(open_stream: Open) -> None:
    """They are the text ahead, or behind: a policy may hold it, or have changed it."""
    stream = GeminiStream(Framing.SSE, Call())
    kept, ahead, alone = (stream.event(raw) for raw in (spelt("a b", "a", " b"), spelt("a", "a", " b"), spelt("", "a")))
    assert all(event.parsed.mirrored for event in (kept, ahead, alone))
    assert stream.without_mirrors(kept) is kept
    shown = stream.without_mirrors(ahead)
    assert shown is not None
    assert shown.raw == chunk({"text": "a"})
    assert stream.without_mirrors(alone) is None
    unlike = stream.without_mirrors(stream.event(chunk({"text": "a"}, logprobsResult={"chosenCandidates": ["a"]})))
    assert unlike is not None
    assert unlike.raw == chunk({"text": "a"})


def test_an_event_without_text_is_withheld_if_it_says_nothing_more(open_stream: Open) -> None:
    stream = open_stream("gemini")
    assert stream.event(chunk({"text": "x"})).with_deltas([(TEXT, "")]) is None
    for more in ({"finishReason": "STOP"}, {"groundingMetadata": {"n": 1}}):
        assert stream.event(chunk({"text": "x"}, **more)).with_deltas([(TEXT, "")]) is not None
    assert stream.event(chunk({"text": "x", "thoughtSignature": "s"})).with_deltas([(TEXT, "")]) is not None


def test_a_continuation_repeats_nothing(open_stream: Open) -> None:
    raw = chunk({"text": "x", "thought": True, "thoughtSignature": "s"}, finishReason="STOP", safetyRatings=[{}])
    continued = open_stream("gemini").event(raw).continuation(THOUGHT, "né")
    assert continued.document == {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"thought": True, "text": "né"}]}}],
        "responseId": "r",
    }
    assert (continued.deltas, list(continued.ends)) == ([(THOUGHT, "né")], [])


def test_what_is_said_of_an_error_is_continued_in_its_own_words(open_stream: Open) -> None:
    event = open_stream("gemini").event(b'data: {"candidates":[],"error":{"message":"x"}}\n\n')
    channel = event.deltas[0][0]
    assert list(event.continuation(channel, "y").deltas) == [(channel, "y")]


# The array


def test_an_array_says_what_events_say(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream(*ARRAY), "written/gemini_stream_array.json")
    call = "/content/parts/0/functionCall"
    assert join(events) == {
        THOUGHT: "The user asks for [a] {list}.",
        TEXT: 'Here "it" is: }] \\ né 😀.',
        Channel(0, Kind.TEXT, f"{call}/name", repeated=True): "get_weather",
        Channel(0, Kind.TOOL_ARGUMENTS, f"{call}/args"): '{"city":"Zürich","days":["mon","tue"],"count":2}',
    }
    assert ends_of(events)[-2:] == [CANDIDATE, EVERY_CHANNEL]
    assert all(event.known for event in events)


@pytest.mark.parametrize("kept", range(1 << 4))
def test_whatever_policies_leave_out_or_add_the_array_is_one(
    kept: int, open_stream: Open, play: Play, join: Join
) -> None:
    """The separators belong to the place and not to the element."""
    stream = open_stream(*ARRAY)
    events = play(stream, "written/gemini_stream_array.json")
    for added in (False, True):
        stream = open_stream(*ARRAY)
        delivered = [event for place, event in enumerate(events) if place == 4 or kept >> place & 1]
        if added:
            delivered.insert(kept % len(delivered), events[1].continuation(TEXT, "more"))
        for event in delivered:
            stream.delivered([event])
        elements = json.loads(wire(delivered))
        assert len(elements) == len(delivered) - 1
        assert stream.finished
        assert stream.ending(Ending.ERROR, SILENCE) == []


def test_an_array_that_is_left_alone_keeps_its_bytes(open_stream: Open, play: Play) -> None:
    stream = open_stream(*ARRAY)
    events = play(stream, "written/gemini_stream_array.json")
    before = wire(events)
    stream.delivered(events)
    assert wire(events) == before


def test_an_element_is_never_withheld(open_stream: Open, play: Play) -> None:
    """Its separator would be missing to those who rewrite it on its last way to the client."""
    event = play(open_stream(*ARRAY), b'[{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}]')[0]
    rewritten = event.with_deltas([(TEXT, "")])
    assert rewritten is not None
    assert rewritten.raw == event.raw.replace(b'"x"', b'""')


@pytest.mark.parametrize("ending", Ending)
def test_wherever_an_array_is_cut_its_ending_closes_it(ending: Ending, open_stream: Open, play: Play) -> None:
    for cut in range(5):
        stream = open_stream(*ARRAY)
        delivered = play(stream, "written/gemini_stream_array.json")[:cut]
        stream.delivered(delivered)
        elements = json.loads(wire([*delivered, *stream.ending(ending, SILENCE)]))
        assert len(elements) == cut + 1
        if ending is Ending.ERROR:
            assert elements[-1]["error"]["status"] == "DEADLINE_EXCEEDED"


def test_a_body_that_is_no_array_is_not_made_one(open_stream: Open, play: Play) -> None:
    stream = open_stream(*ARRAY)
    events = play(stream, "aimock/gemini_tools.json")
    stream.delivered(events)
    assert len(json.loads(wire(events))["candidates"]) == 1
    assert stream.finished


def test_a_heartbeat_in_an_array_is_whitespace_once_it_has_begun(open_stream: Open, play: Play) -> None:
    stream = open_stream(*ARRAY)
    assert stream.comment() is None
    events = play(stream, "written/gemini_stream_array.json")
    said = []
    for event in events:
        stream.delivered([event])
        comment = stream.comment()
        said += [event, *([comment] if comment is not None else [])]
    assert len(said) == 6 + 4
    assert len(json.loads(wire(said))) == 4


# Ends


def test_a_comment_is_blank_lines(open_stream: Open) -> None:
    comment = open_stream("gemini").comment()
    assert comment is not None
    assert comment.raw == b"\n\n"
    assert open_stream("gemini", "application/json").comment() is None


@pytest.mark.parametrize("ending", Ending)
def test_a_stream_that_goes_on_after_its_ends_is_not_finished(ending: Ending, open_stream: Open) -> None:
    """Of a server that says STOP in every event: one that is cut has an ending of its own."""
    stream = open_stream("gemini")
    stream.delivered([stream.event(chunk({"text": "a"}, finishReason="STOP"))])
    assert stream.finished
    stream.delivered([stream.event(chunk({"text": "b"}, finishReason="STOP"))])
    assert not stream.finished
    last = stream.ending(ending, SILENCE)
    assert [event.document.get("candidates", [{}])[0].get("finishReason") for event in last] == [
        "MAX_TOKENS" if ending is Ending.LENGTH else None
    ]
    stream.delivered(last)
    assert stream.finished
    assert stream.ending(ending, SILENCE) == []


def test_what_stands_beside_the_text_may_follow_the_end(open_stream: Open) -> None:
    stream = open_stream("gemini")
    stream.delivered([stream.event(chunk({"text": "a"}, finishReason="STOP"))])
    stream.delivered([stream.event(chunk({"text": ""}, groundingMetadata={"webSearchQueries": ["q"]}))])
    assert stream.finished


def test_a_stream_is_finished_once_each_candidate_is(open_stream: Open) -> None:
    stream = open_stream("gemini", call=Call(choices=2))
    for number, finished in ((1, False), (0, True)):
        stream.delivered([stream.event(chunk({"text": ""}, index=number, finishReason="STOP"))])
        assert stream.finished is finished


def test_a_length_ending_finishes_what_is_open(open_stream: Open, play: Play) -> None:
    stream = open_stream("gemini", call=Call(choices=3))
    stream.delivered(
        [stream.event(chunk({"text": "a"}, index=1)), stream.event(chunk({"text": ""}, finishReason="STOP"))]
    )
    stream.counted = Usage(5, 6)
    (event,) = stream.ending(Ending.LENGTH, SILENCE)
    document = event.document
    assert [(candidate["index"], candidate["finishReason"]) for candidate in document["candidates"]] == [
        (1, "MAX_TOKENS"),
        (2, "MAX_TOKENS"),
    ]
    assert document["usageMetadata"] == {"promptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 11}
    assert document["responseId"] == "r"
    stream.delivered([event])
    assert stream.finished


def test_a_length_ending_repeats_the_usage_that_was_said_last(open_stream: Open, play: Play) -> None:
    stream = open_stream("gemini")
    stream.delivered(play(stream, "written/gemini_grounded.sse")[:2])
    (event,) = stream.ending(Ending.LENGTH, SILENCE)
    assert event.usage == Usage(9, 9)
    assert open_stream("gemini").ending(Ending.LENGTH, SILENCE)[0].usage is None


def test_an_error_ending(open_stream: Open) -> None:
    stream = open_stream("gemini")
    (event,) = stream.ending(Ending.ERROR, SILENCE)
    assert event.raw.startswith(b'data: {"error":{"code":504,')
    stream.delivered([event])
    assert stream.finished
    (whole,) = open_stream("gemini", "application/json").ending(Ending.LENGTH, SILENCE)
    assert whole.document["error"]["status"] == "DEADLINE_EXCEEDED"
