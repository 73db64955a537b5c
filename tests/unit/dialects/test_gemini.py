"""Gemini, as server-sent events, as one array and whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.dialects import DIALECTS
from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Usage
from proxy.dialects.gemini import Gemini, GeminiStream
from proxy.errors import Problem
from proxy.framing import Event, Framing
from proxy.messages import Request, ResponseHead
from proxy.policy import Ending

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]

TEXT = Channel(0, Kind.TEXT, 0)
THOUGHT = Channel(0, Kind.REASONING, 0)
CANDIDATE = Channel(0, None, None)
SILENCE = Problem.of("upstream_silence")
ARRAY = ("gemini", "application/json", Call(stream=True))


def args(part: int) -> Channel:
    pointer = f"/content/parts/{part}/functionCall/args"
    return Channel(0, Kind.TOOL_ARGUMENTS, pointer)


def name(part: int) -> Channel:
    return Channel(0, Kind.TEXT, f"/content/parts/{part}/functionCall/name", repeated=True)


def at(place: str, *, repeated: bool = False) -> Channel:
    return Channel(0, Kind.TEXT, f"/content/parts/0/{place}", repeated)


def chunk(part: Any, **more: Any) -> bytes:
    candidate = {"content": {"parts": [part], "role": "model"}, "index": 0, **more}
    document = {"candidates": [candidate], "responseId": "r"}
    return b"data: " + json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def ends_of(events: Iterable[Event]) -> list[Channel]:
    return [end for event in events for end in event.ends]


def wire(events: Iterable[Event]) -> bytes:
    return b"".join(event.raw for event in events)


# Streams


def test_a_stream(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("gemini"), "aimock/gemini_text.sse")
    assert join(events) == {TEXT: "One two three, né 😀 four five six seven."}
    assert ends_of(events) == [CANDIDATE]
    assert all(event.known and list(event.parsed.choices) == [0] for event in events)


def test_thoughts_are_apart_from_the_text(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("gemini"), "aimock/gemini_think.sse")
    assert join(events) == {THOUGHT: "Two and two.", TEXT: "It is four."}


def test_the_arguments_of_a_function_call_are_whole(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("gemini"), "aimock/gemini_tools.sse")
    texts = {args(0): '{"city":"Zürich","days":[{"unit":"celsius"}],"count":1}', args(1): '{"zone":"CET"}'}
    names = {name(0): "get_weather", name(1): "get_time"}
    assert join(events) == {TEXT: "Let me see.", **names, **texts}
    assert ends_of(events) == [*texts, CANDIDATE]


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


def test_thoughts_count_as_output_and_tools_as_input(open_stream: Open, play: Play) -> None:
    events = play(open_stream(*ARRAY), "written/gemini_stream_array.json")
    assert [event.usage for event in events] == [Usage(9, 7), Usage(9, 11), Usage(9, 15), Usage(9, 27), None, None]
    raw = b'data: {"usageMetadata":{"promptTokenCount":3,"toolUsePromptTokenCount":4,"candidatesTokenCount":"x"}}\n\n'
    assert open_stream("gemini").event(raw).usage == Usage(7, None)


@pytest.mark.parametrize(
    ("part", "deltas"),
    [
        ({"text": "a"}, [(TEXT, "a")]),
        ({"text": ""}, []),
        ({"text": "a", "thoughtSignature": "s"}, [(TEXT, "a")]),
        ({"text": "a", "thought": True}, [(THOUGHT, "a")]),
        ({"inlineData": {"mimeType": "image/png", "data": "x"}}, []),
        ({"fileData": {"fileUri": "x"}}, []),
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
    event = open_stream("gemini").event(chunk(part))
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
    assert join(events) == {
        THOUGHT: "The user asks for [a] {list}.",
        TEXT: 'Here "it" is: }] \\ né 😀.',
        name(0): "get_weather",
        args(0): '{"city":"Zürich","days":["mon","tue"],"count":2}',
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


# Framing and ends


def head_of(content_type: str, *, status: int = 200, local: bool = False) -> ResponseHead:
    return ResponseHead(status, CIMultiDict({"Content-Type": content_type}), local=local)


@pytest.mark.parametrize(
    ("query", "content_type", "status", "framing"),
    [
        ("alt=sse", "text/event-stream", 200, Framing.SSE),
        ("", "application/json; charset=UTF-8", 200, Framing.JSON_ARRAY),
        ("", "application/json", 400, Framing.JSON),
        ("key=x&%24alt=sse", "text/event-stream", 200, Framing.SSE),
        ("", "text/plain", 200, Framing.OPAQUE),
    ],
)
def test_the_reply_decides_on_the_framing(query: str, content_type: str, status: int, framing: Framing) -> None:
    call = make_request(None, ":streamGenerateContent", query).call
    assert DIALECTS["gemini"].open(head_of(content_type, status=status), call).framing is framing


def test_a_stream_opens_early_only_where_events_are_asked_for() -> None:
    """The client that waits for an array would be given events else."""
    early = head_of("text/event-stream", local=True)
    for query, opens in (("alt=sse", True), ("$alt=sse", True), ("", False), ("alt=json", False)):
        stream = DIALECTS["gemini"].open(early, make_request(None, ":streamGenerateContent", query).call)
        assert (stream.comment() is not None) is opens


def test_a_comment_is_blank_lines(open_stream: Open) -> None:
    comment = open_stream("gemini").comment()
    assert comment is not None
    assert comment.raw == b"\n\n"
    assert open_stream("gemini", "application/json").comment() is None


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


@pytest.mark.parametrize(
    ("details", "status"),
    [
        ("unauthorized", "UNAUTHENTICATED"),
        ("body_too_large", "INVALID_ARGUMENT"),
        ("token_limit", "RESOURCE_EXHAUSTED"),
        ("upstream_reset", "UNAVAILABLE"),
        ("draining", "UNAVAILABLE"),
        ("policy_error", "INTERNAL"),
    ],
)
def test_an_error_body(details: str, status: str) -> None:
    content_type, body = DIALECTS["gemini"].error_body(Problem.of(details))
    error = json.loads(body)["error"]
    assert content_type == "application/json"
    assert (error["code"], error["status"]) == (Problem.of(details).status, status)
    assert error["details"][0]["reason"] == details


# Requests


def make_request(body: bytes | None, method: str, query: str = "", model: str = "models/gemini-2.5-flash") -> Request:
    path = f"/prefix/v1beta/{model}{method}"
    return Request(
        id="1", method="POST", path=path, query=query, headers=CIMultiDict(), dialect=DIALECTS["gemini"], body=body
    )


REQUEST: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "s"}]},
    "contents": [
        {"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "A" * 64}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": ["b"]}}, "thoughtSignature": "no"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"y": "c"}}}]},
    ],
    "generationConfig": {"maxOutputTokens": 20, "candidateCount": 2},
}


def test_a_request() -> None:
    call = make_request(json.dumps(REQUEST).encode(), ":streamGenerateContent").call
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("gemini-2.5-flash", True, 2, 20)
    assert call.texts == ["s", "a", "f", '{"x":["b"]}', "f", '{"y":"c"}']
    assert call.document == REQUEST


def test_a_request_in_the_other_spelling() -> None:
    body = {
        "system_instruction": {"parts": {"text": "s"}},
        "contents": {"parts": [{"text": "a"}]},
        "generation_config": {"max_output_tokens": 20, "candidate_count": 2},
    }
    call = make_request(json.dumps(body).encode(), "%3AgenerateContent").call
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("gemini-2.5-flash", False, 2, 20)
    assert call.texts == ["s", "a"]


@pytest.mark.parametrize("body", [None, b"", b"{", b"[1]", b'{"generationConfig":7,"contents":[1,"%s"]}' % (b"[" * 70)])
def test_what_is_no_model_call_still_has_its_path(body: bytes | None) -> None:
    call = make_request(body, ":streamGenerateContent", model="models/a%2Fb").call
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("a/b", True, 1, None)


def test_contents_that_nest_too_deeply_have_no_texts() -> None:
    deep = "[" * 70 + '"x"' + "]" * 70
    assert make_request(b'{"contents":[%s]}' % deep.encode(), ":generateContent").call.texts == []


def test_the_texts_of_a_request_can_be_changed_where_they_stand() -> None:
    """What somebody said, whatever he calls it; not words and data, nor the names that tools are declared with."""
    tools = [{"functionDeclarations": [{"name": "f", "description": "say", "parameters": {"type": "OBJECT"}}]}]
    said = {"functionResponse": {"name": "f", "response": {"name": "say"}}}
    file = {"inlineData": {"mimeType": "text/plain", "data": "YcOp"}}
    root = [{**REQUEST, "tools": tools, "contents": [{"role": "user", "parts": [{"text": "say"}, said, file]}]}]
    slots = list(Gemini().request_texts(root))
    assert [slot.text for slot in slots] == ["s", "say", "f", '{"name":"say"}', "aé", "say", "OBJECT"]
    slots[4].put("né")
    assert file["inlineData"]["data"] == "bsOp"
    slots[1].put("new")
    assert root[0]["contents"][0]["parts"][0]["text"] == "new"


def test_usage_need_not_be_asked_for() -> None:
    request = make_request(json.dumps(REQUEST).encode(), ":streamGenerateContent")
    assert not DIALECTS["gemini"].ask_for_usage(request)
    event = DIALECTS["gemini"].open(head_of("text/event-stream"), request.call).event(chunk({"text": "a"}))
    assert DIALECTS["gemini"].open(head_of("text/event-stream"), request.call).without_usage(event) is event
