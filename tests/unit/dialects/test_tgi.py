"""Text Generation Inference, as events and whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.dialects import DIALECTS
from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Usage
from proxy.dialects.tgi import SPECIAL, TEXT, TGI
from proxy.errors import Problem
from proxy.framing import Event
from proxy.messages import Request
from proxy.policy import Ending

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]
Ask = Callable[..., Call]

STREAM = "written/tgi_generate_stream.sse"
AGAIN = TEXT._replace(repeated=True)
TOP = Channel(0, Kind.TEXT, "/top_tokens", repeated=True)
SILENCE = Problem.of("upstream_silence")


def token(text: str, **more: Any) -> bytes:
    document = {"index": 1, "token": {"id": 7, "text": text, "logprob": -1.5, "special": False}, "generated_text": None}
    return b"data:" + json.dumps({**document, "details": None, **more}).encode() + b"\n\n"


def test_a_stream(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("tgi"), STREAM)
    said = "The sky is blue."
    assert join(events) == {TEXT: said, SPECIAL: "</s>", AGAIN: said, TOP: said}
    assert [list(event.ends) for event in events] == [*([[]] * 5), [EVERY_CHANNEL]]
    assert [event.usage for event in events if event.usage] == [Usage(8, 6)]


def test_a_whole_reply(open_stream: Open, play: Play, join: Join) -> None:
    stream = open_stream("tgi", "application/json")
    (event,) = play(stream, "written/tgi_generate.json")
    tokens = Channel(0, Kind.TEXT, "/details/tokens", repeated=True)
    assert join([event]) == {
        TEXT: "The sky is blue.",
        Channel(1, Kind.TEXT, 0): "The sky is wide.",
        tokens: "The sky is blue.</s>",
    }
    assert (event.usage, list(event.ends)) == (Usage(None, 6), [EVERY_CHANNEL])
    stream.delivered([event])
    assert stream.finished


@pytest.mark.parametrize(
    ("document", "texts"),
    [
        ({"error": "overloaded", "error_type": "overloaded"}, ["overloaded"]),
        ({"text": "a", "meta": {"b": "c"}}, ["a", "c"]),
        ([{"generated_text": "a"}], ["a"]),
        ({"token": "a"}, ["a"]),
        ({"details": {"new": "a"}, "generated_text": 7}, ["a"]),
        (
            {"details": {"finish_reason": "a", "prefill": [{"id": 1, "text": "b"}, {"text": "c", "new": "d"}]}},
            ["d", "bc"],
        ),
        ({"details": {"best_of_sequences": [{"tokens": [{"text": "a"}, {"text": "b"}]}]}}, ["ab"]),
        ({"details": {"best_of_sequences": {"a": "b"}, "tokens": {"c": "d"}}}, ["b", "d"]),
        ({"top_tokens": [{"text": "a"}, {"text": "b"}]}, ["a\n\nb"]),
        ({"details": {"top_tokens": [[{"text": "a"}], [{"text": "b"}, 7, "c"]]}}, ["c", "a\n\nb"]),
    ],
)
def test_what_other_events_say(document: Any, texts: list[str], open_stream: Open) -> None:
    event = open_stream("tgi").event(b"data:" + json.dumps(document).encode() + b"\n\n")
    assert [text for _, text in event.deltas] == texts
    assert event.known
    if texts:
        assert event.with_deltas([(channel, "") for channel, _ in event.deltas]) is not None


def test_what_may_repeat_all_that_was_said_is_unknown(open_stream: Open) -> None:
    """In a stream: a whole reply of SGLang's has its text once."""
    document = json.dumps({"text": "Hi there", "meta_info": {"id": "a", "completion_tokens": 2}}).encode()
    assert not open_stream("tgi").event(b"data: " + document + b"\n\n").known
    whole = open_stream("tgi", "application/json").event(document)
    assert [text for _, text in whole.deltas] == ["Hi there", "a"]


def test_an_error_of_the_upstream_ends_everything(open_stream: Open) -> None:
    event = open_stream("tgi").event(b'data:{"error":"x","error_type":"generation"}\n\n')
    assert event.ends[-1] == EVERY_CHANNEL


# Rewriting


def test_what_mirrors_a_text_goes_with_it(open_stream: Open, play: Play) -> None:
    event = play(open_stream("tgi"), STREAM)[0]
    rewritten = event.with_deltas([(TEXT, "*"), (TOP, "The")])
    assert rewritten is not None
    assert rewritten.document["token"]["id"] == 0
    assert rewritten.document["top_tokens"] == []
    assert b"The" not in rewritten.raw


def test_what_mirrors_the_text_of_a_whole_reply_goes_with_it(open_stream: Open, play: Play) -> None:
    (event,) = play(open_stream("tgi", "application/json"), "written/tgi_generate.json")
    rewritten = event.with_deltas([(channel, "*") for channel, _ in event.deltas])
    assert rewritten is not None
    assert b"sky" not in rewritten.raw
    assert rewritten.document["details"]["generated_tokens"] == 6


def test_tokens_that_were_not_chosen_go_with_what_is_changed_of_them(open_stream: Open) -> None:
    others = [{"id": 1, "text": "a", "logprob": -1.0}, {"id": 2, "text": "b", "logprob": -2.0}]
    event = open_stream("tgi").event(token("a", top_tokens=others))
    rewritten = event.with_deltas([(TEXT, "a"), (TOP, "a\n\n*")])
    assert rewritten is not None
    assert rewritten.document["top_tokens"] == []
    assert rewritten.document["token"]["text"] == "a"


def test_what_repeats_the_text_can_be_rewritten(open_stream: Open, play: Play) -> None:
    last = play(open_stream("tgi"), STREAM)[-1]
    rewritten = last.with_deltas([(SPECIAL, "</s>"), (AGAIN, "*")])
    assert rewritten is not None
    assert rewritten.document["generated_text"] == "*"
    assert rewritten.usage == Usage(8, 6)


def test_an_event_without_text_is_withheld_if_it_says_nothing_more(open_stream: Open) -> None:
    stream = open_stream("tgi")
    assert stream.event(token("x")).with_deltas([(TEXT, "")]) is None
    assert stream.event(token("x", details={"finish_reason": "length"})).with_deltas([(TEXT, "")]) is not None


def test_a_continuation_is_a_token(open_stream: Open, play: Play) -> None:
    stream = open_stream("tgi")
    events = play(stream, STREAM)
    stream.delivered(events[:2])
    continued = events[1].continuation(TEXT, "né")
    assert continued.document["token"] == {"id": 0, "text": "né", "logprob": 0.0, "special": False}
    assert continued.document["index"] == 2
    assert (continued.deltas, list(continued.ends)) == ([(TEXT, "né")], [])


@pytest.mark.parametrize(("data", "said"), [('"x"', '"né"'), ('["x"]', '["né"]')])
def test_an_event_that_is_no_object_is_continued_as_it_is(data: str, said: str, open_stream: Open) -> None:
    event = open_stream("tgi").event(f"data: {data}\n\n".encode())
    ((channel, _),) = event.deltas
    assert event.continuation(channel, "né").raw == f"data: {said}\n\n".encode()


# Ends


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "The sky"),
        ({"inputs": "Why? ", "parameters": {"return_full_text": True}}, "Why? The sky"),
        ({"inputs": "Why? ", "parameters": {"return_full_text": False}}, "The sky"),
    ],
)
def test_a_length_ending_says_what_was_delivered(document: Any, said: str, open_stream: Open, play: Play) -> None:
    stream = open_stream("tgi", call=Call(document=document, texts=["Why? "]))
    stream.delivered(play(stream, STREAM)[:2])
    (event,) = stream.ending(Ending.LENGTH, SILENCE)
    assert event.document["generated_text"] == said
    assert event.document["details"] == {"finish_reason": "length", "generated_tokens": 2, "seed": None}
    assert event.document["token"]["special"] is True
    stream.delivered([event])
    assert stream.ending(Ending.LENGTH, SILENCE) == []


def test_a_length_ending_states_the_counted_tokens(open_stream: Open) -> None:
    stream = open_stream("tgi")
    stream.counted = Usage(5, 6)
    assert stream.ending(Ending.LENGTH, SILENCE)[0].document["details"]["generated_tokens"] == 6


def test_a_text_that_is_too_long_is_not_said_again(open_stream: Open) -> None:
    stream = open_stream("tgi")
    for _ in range(3):
        stream.delivered([stream.event(token("x" * (1 << 19)))])
    assert stream.ending(Ending.LENGTH, SILENCE)[0].document["generated_text"] is None


def test_an_error_ending(open_stream: Open) -> None:
    (event,) = open_stream("tgi").ending(Ending.ERROR, SILENCE)
    assert event.document == {"error": f"{SILENCE.message} (upstream_silence)", "error_type": "generation"}
    (whole,) = open_stream("tgi", "application/json").ending(Ending.LENGTH, SILENCE)
    assert whole.document["error_type"] == "generation"


@pytest.mark.parametrize(
    ("details", "type"),
    [
        ("no_route", "validation"),
        ("token_limit", "overloaded"),
        ("draining", "overloaded"),
        ("upstream_reset", "generation"),
    ],
)
def test_an_error_body(details: str, type: str) -> None:
    content_type, body = DIALECTS["tgi"].error_body(Problem.of(details))
    assert content_type == "application/json"
    assert json.loads(body) == {"error": f"{Problem.of(details).message} ({details})", "error_type": type}


# Requests


def make_request(body: bytes, path: str = "/generate_stream") -> Request:
    return Request(id="1", method="POST", path=path, headers=CIMultiDict(), dialect=DIALECTS["tgi"], body=body)


def test_a_request(ask: Ask) -> None:
    body = {"inputs": "a", "parameters": {"max_new_tokens": 20, "details": True}}
    call = ask("tgi", json.dumps(body).encode(), "/generate_stream")
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == (None, True, 1, 20)
    assert (call.wants_usage, call.texts, call.document) == (True, ["a"], body)
    assert not ask("tgi", b"{}", "/generate").stream
    assert ask("tgi", b'{"stream":true}', "/generate").stream


def test_the_texts_of_a_request_can_be_changed_where_they_stand() -> None:
    root = [{"inputs": "a", "parameters": {"stop": ["b"]}}]
    slots = list(TGI().request_texts(root))
    assert [slot.text for slot in slots] == ["a", "b"]
    slots[0].put("new")
    assert root[0]["inputs"] == "new"


@pytest.mark.parametrize("body", [None, b"", b"{", b"[1]", b"\xff", b'{"inputs":7,"parameters":7}'])
def test_what_is_no_model_call_is_neutral(body: bytes | None, ask: Ask) -> None:
    call = ask("tgi", body, "/generate")
    assert (call.stream, call.max_output_tokens, list(call.texts), call.wants_usage) == (False, None, [], False)


@pytest.mark.parametrize("body", [b'{"inputs":"a"}', b'{"inputs":"a","parameters":{"details":false}}'])
def test_usage_that_is_asked_for_can_be_taken_out_again(body: bytes, open_stream: Open, play: Play) -> None:
    request = make_request(body)
    assert DIALECTS["tgi"].ask_for_usage(request)
    assert json.loads(request.body or b"") == {"inputs": "a", "parameters": {"details": True}}
    stream = open_stream("tgi")
    shown = [stream.without_usage(event) for event in play(stream, STREAM)]
    last = shown.pop()
    assert [event and event.raw for event in shown] == [event.raw for event in play(stream, STREAM)[:-1]]
    assert last is not None
    assert (last.document["details"], last.usage, list(last.ends)) == (None, None, [EVERY_CHANNEL])


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"inputs":"a"}', "/generate"),
        (b'{"inputs":"a","parameters":{"details":true}}', "/generate_stream"),
        (b'{"inputs":"a","parameters":7}', "/generate_stream"),
        (b"{", "/generate_stream"),
    ],
)
def test_where_usage_cannot_be_asked_for_nothing_changes(body: bytes, path: str) -> None:
    request = make_request(body, path)
    assert not DIALECTS["tgi"].ask_for_usage(request)
    assert request.body == body


def test_an_event_without_details_has_none_to_take_out(open_stream: Open) -> None:
    stream = open_stream("tgi")
    for raw in (b'data:{"token":{"text":"a"}}\n\n', token('"details"'), b'data:{"details":\n\n'):
        event = stream.event(raw)
        assert stream.without_usage(event) is event
