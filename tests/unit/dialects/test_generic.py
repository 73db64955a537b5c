"""APIs of unknown shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from proxy.dialects import choose
from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Usage
from proxy.dialects.generic import WHOLE_TEXT, CharacterFramer, Generic
from proxy.errors import Problem
from proxy.framing import Event
from proxy.messages import Headers, Request
from proxy.policy import Ending

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]
Ask = Callable[..., Call]

SILENCE = Problem.of("upstream_silence")


def at(pointer: str) -> Channel:
    return Channel(0, Kind.TEXT, pointer)


def rewrite(event: Event, *texts: str) -> Event:
    rewritten = event.with_deltas([(channel, text) for (channel, _), text in zip(event.deltas, texts, strict=True)])
    assert rewritten is not None
    return rewritten


# Documents


@pytest.mark.parametrize(
    ("content_type", "raw"),
    [
        ("text/event-stream", b'event: x\ndata: {"m":{"t":["a","b"]},"n":1,"":"c"}\n\n'),
        ("application/x-ndjson", b'{"m":{"t":["a","b"]},"n":1,"":"c"}\n'),
        ("application/json", b'{"m":{"t":["a","b"]},"n":1,"":"c"}'),
    ],
)
def test_every_string_value_is_a_channel(content_type: str, raw: bytes, open_stream: Open) -> None:
    event = open_stream("generic", content_type).event(raw)
    assert event.deltas == [(at("/m/t/0"), "a"), (at("/m/t/1"), "b"), (at("/"), "c")]
    assert event.known
    assert rewrite(event, "a", "B", "").raw == raw.replace(b'"b"', b'"B"').replace(b'"c"', b'""')


@pytest.mark.parametrize(
    ("content_type", "raw"),
    [
        ("text/event-stream", b'data: {"usage":{"input_tokens":3,"output_tokens":5}}\n\n'),
        ("application/x-ndjson", b'{"usage":{"input_tokens":3,"output_tokens":5}}\n'),
        ("application/json", b'{"usage":{"input_tokens":3,"output_tokens":5}}'),
    ],
)
def test_usage_is_read_where_most_apis_state_it_and_never_hidden(
    content_type: str, raw: bytes, open_stream: Open
) -> None:
    stream = open_stream("generic", content_type)
    event = stream.event(raw)
    assert event.usage == Usage(3, 5)
    assert stream.without_usage(event) is event


def test_there_is_no_switch_for_usage() -> None:
    body = b'{"stream": true}'
    request = Request(id="1", method="POST", path="/", headers=Headers(), dialect=Generic(), body=body)
    assert not request.dialect.ask_for_usage(request)
    assert request.body == body


def test_a_whole_body_ends_its_channels(open_stream: Open) -> None:
    assert open_stream("generic", "application/json").event(b'{"a":"b"}').ends == (EVERY_CHANNEL,)
    assert list(open_stream("generic", "application/x-ndjson").event(b'{"a":"b"}\n').ends) == []


@pytest.mark.parametrize(
    ("content_type", "raw", "known"),
    [
        ("application/x-ndjson", b"\n", True),
        ("application/x-ndjson", b"12\n", True),
        ("application/x-ndjson", b"{\n", False),
        ("application/x-ndjson", b"[DONE]\n", False),
        ("application/json", b"  \n", True),
        ("application/json", b"<html>", False),
        ("application/json", b'"\xff"', False),
    ],
)
def test_what_no_text_can_be_read_in(content_type: str, raw: bytes, known: bool, open_stream: Open) -> None:
    event = open_stream("generic", content_type).event(raw)
    assert (list(event.deltas), event.known) == ([], known)


def test_the_last_line_of_ndjson_may_lack_its_end(open_stream: Open, play: Play) -> None:
    stream = open_stream("generic", "application/x-ndjson")
    first, last = play(stream, b'{"a":"x"}\r\n{"a":"y"}')
    assert rewrite(first, "z").raw == b'{"a":"z"}\r\n'
    assert rewrite(last, "z").raw == b'{"a":"z"}'


def test_a_document_of_unknown_shape_is_never_withheld(open_stream: Open) -> None:
    assert rewrite(open_stream("generic").event(b'data: {"a":"x"}\n\n'), "").raw == b'data: {"a":""}\n\n'


def test_a_continuation_says_no_other_text_again(open_stream: Open) -> None:
    event = open_stream("generic").event(b'id: 1\nevent: e\ndata: {"a":"x","n":1.50,"b":"y"}\n\n')
    assert event.continuation(at("/b"), "z").raw == b'event: e\ndata: {"a":"","n":1.50,"b":"z"}\n\n'
    event = open_stream("generic", "application/x-ndjson").event(b'{"a":"x"}\n')
    assert event.continuation(at("/a"), "z").raw == b'{"a":"z"}\n'


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"type":"text-end","id":"t1"}\n\n',
        b'data: {"type":"finish"}\n\n',
        b'data: {"type":"TEXT_MESSAGE_END"}\n\n',
        b'data: {"type":"transcript.text.done","text":"x"}\n\n',
        b'data: {"event":"message_end"}\n\n',
        b'data: {"eventType":"messageEnd"}\n\n',
        b'data: {"event_type":"interaction.complete"}\n\n',
        b'data: {"content":"","stop":true}\n\n',
        b'data: {"text":"x","finish_reason":"length"}\n\n',
        b"event: thread.run.completed\ndata: {}\n\n",
        b"event: thread.run.completed\ndata: text\n\n",
        b"event: end\ndata:\n\n",
        b"event: end\n\n",
    ],
)
def test_an_event_that_says_that_something_ended_ends_what_goes_on_and_not_the_reply(
    raw: bytes, open_stream: Open
) -> None:
    stream = open_stream("generic")
    event = stream.event(raw)
    assert any(end.covers(at("/delta")) and end.covers(WHOLE_TEXT) for end in event.ends)
    stream.delivered([event])
    assert (stream.finished, stream.terminates) == (False, False)
    assert len(stream.ending(Ending.ERROR, SILENCE)) == 1
    if event.deltas:
        rewritten = event.with_deltas([(channel, "other") for channel, _ in event.deltas])
        assert rewritten is not None
        assert rewritten.ends == event.ends


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"type":"text-delta","delta":"the end"}\n\n',
        b'data: {"type":"send"}\n\n',
        b'data: {"type":"abandoned"}\n\n',
        b'data: {"type":7,"stop":false,"done":null,"finish_reason":null}\n\n',
        b'data: {"stop":["x"],"finish_reason":""}\n\n',
        b"event: message\ndata: end\n\n",
        b"data: done\n\n",
        b'data: ["done"]\n\n',
    ],
)
def test_what_ends_nothing(raw: bytes, open_stream: Open) -> None:
    assert list(open_stream("generic").event(raw).ends) == []


def test_lines_end_too(open_stream: Open) -> None:
    assert list(open_stream("generic", "application/x-ndjson").event(b'{"response":"x","done":true}\n').ends)


@pytest.mark.parametrize(("name", "whole"), [("thread.run", True), ("thread.message.delta", False), ("thread", False)])
def test_an_object_of_openais_assistants_is_whole_in_its_event(name: str, whole: bool, open_stream: Open) -> None:
    event = open_stream("generic").event(b'data: {"object":"%s","instructions":"x"}\n\n' % name.encode())
    assert (at("/instructions") in event.ends) is whole


@pytest.mark.parametrize(
    ("document", "whole"),
    [
        ({"type": "tool-output-available", "output": "x"}, True),
        ({"type": "data-x", "id": "i", "data": "x"}, True),
        ({"type": "data-x", "data": "x"}, False),
        ({"type": "data-x", "id": "i", "data": "x", "transient": True}, False),
        ({"type": "tool-input-delta", "inputTextDelta": "x"}, False),
    ],
)
def test_a_part_of_the_ai_sdks_is_whole_in_its_event(document: Any, whole: bool, open_stream: Open) -> None:
    event = open_stream("generic").event(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert (at("/" + list(document)[-1]) in event.ends or at("/data") in event.ends) is whole


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/x-ndjson", "application/json"])
def test_data_in_base64_is_no_text_that_goes_on_or_counts(content_type: str, open_stream: Open) -> None:
    data = "iVBORw0KGgoAAA" * 30
    body = json.dumps({"b64_json": data, "delta": data, "n": {"url": f"data:image/png;base64,{data}"}}).encode()
    raw = b"data: " + body + b"\n\n" if content_type.endswith("stream") else body
    event = open_stream("generic", content_type).event(raw)
    repeated = [channel.index for channel, _ in event.deltas if channel.repeated]
    assert repeated == ["/b64_json", "/n/url"]
    assert [channel.index for channel, _ in event.deltas] == ["/b64_json", "/delta", "/n/url"]


# Server-sent text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"hello", "hello"),
        (b" hello", " hello"),
        (b"4111", "4111"),
        (b"null", "null"),
        (b"true", "true"),
        (b"{", "{"),
        (b"[1", "[1"),
        (b'"caf\\u00e9"', "café"),
        (b'"open', '"open'),
        ("né".encode(), "né"),
    ],
)
def test_data_that_is_no_document_is_text(data: bytes, text: str, open_stream: Open) -> None:
    assert open_stream("generic").event(b"data: " + data + b"\n\n").deltas == [(WHOLE_TEXT, text)]


def test_text_of_several_lines(open_stream: Open) -> None:
    event = open_stream("generic").event(b"data: a\ndata: b\n\n")
    assert event.deltas == [(WHOLE_TEXT, "a\nb")]
    assert rewrite(event, "x\ny\nz").raw == b"data: x\ndata: y\ndata: z\n\n"


def test_text_without_text_is_withheld_unless_the_event_says_more(open_stream: Open) -> None:
    stream = open_stream("generic")
    assert stream.event(b": c\ndata: a\n\n").with_deltas([(WHOLE_TEXT, "")]) is None
    for field in (b"event: e", b"id: 1", b"retry: 1"):
        assert rewrite(stream.event(field + b"\ndata: a\n\n"), "").raw == field + b"\ndata: \n\n"


def test_a_string_that_is_the_document_stays_one(open_stream: Open) -> None:
    event = open_stream("generic").event(b'data: "a"\n\n')
    assert rewrite(event, 'say "b"').raw == b'data: "say \\"b\\""\n\n'
    assert event.with_deltas([(WHOLE_TEXT, "")]) is None


@pytest.mark.parametrize("text", ['"b"', "[DONE]", '{"a":"b"}'])
def test_text_that_looks_like_more_is_still_text_to_later_policies(text: str, open_stream: Open) -> None:
    event = rewrite(open_stream("generic").event(b"data: a\n\n"), text)
    assert event.deltas == [(WHOLE_TEXT, text)]
    assert list(event.ends) == []
    assert rewrite(event, "c").raw == b"data: c\n\n"


def test_text_is_continued_as_text(open_stream: Open) -> None:
    event = open_stream("generic").event(b"id: 1\ndata: a\n\n").continuation(WHOLE_TEXT, "b\nc")
    assert event.raw == b"data: b\ndata: c\n\n"
    assert event.deltas == [(WHOLE_TEXT, "b\nc")]


def test_a_lone_surrogate_that_a_policy_made_does_not_break_the_stream(open_stream: Open) -> None:
    assert rewrite(open_stream("generic").event(b"data: a\n\n"), "x\ud83d").raw == b"data: x?\n\n"


def test_done_ends_every_channel_and_the_reply(open_stream: Open) -> None:
    stream = open_stream("generic")
    done = stream.event(b"data: [DONE]\n\n")
    assert (list(done.deltas), done.ends) == ([], (EVERY_CHANNEL,))
    stream.delivered([stream.event(b'data: {"a":"[DONE]"}\n\n'), stream.event(b": [DONE]\n\n")])
    assert not stream.finished
    stream.delivered([done])
    assert stream.finished
    assert stream.ending(Ending.ERROR, SILENCE) == []


# Opaque bodies


@pytest.mark.parametrize(
    ("content_type", "readable"),
    [
        ("text/plain", True),
        ('text/html; charset="UTF-8"', True),
        ("text/plain; charset=us-ascii; x=y", True),
        ("text/plain; charset=iso-8859-1", False),
        ("audio/mpeg", False),
        ("", False),
    ],
)
def test_text_is_read_and_other_bytes_are_unknown(content_type: str, readable: bool, open_stream: Open) -> None:
    event = open_stream("generic", content_type).event(b"abc")
    assert (list(event.deltas), event.known) == ([(WHOLE_TEXT, "abc")] if readable else [], readable)


def test_text_is_rewritten_continued_and_withheld(open_stream: Open) -> None:
    event = open_stream("generic", "text/plain").event(b"abc")
    assert rewrite(event, "né").raw == "né".encode()
    assert event.with_deltas([(WHOLE_TEXT, "")]) is None
    assert event.continuation(WHOLE_TEXT, "x").raw == b"x"


def test_text_that_is_no_utf8_is_unknown(open_stream: Open) -> None:
    assert not open_stream("generic", "text/plain").event(b"ab\xff").known


def test_a_character_cut_by_a_read_is_not_cut_in_events(open_stream: Open, join: Join) -> None:
    body = "né 😀 ✓".encode()
    stream = open_stream("generic", "text/plain")
    for size in range(1, 6):
        framer = stream.framer(100)
        frames = [frame for i in range(0, len(body), size) for frame in framer.feed(body[i : i + size])]
        assert b"".join(frames) == body
        assert join(map(stream.event, frames)) == {WHOLE_TEXT: "né 😀 ✓"}


def test_a_character_that_is_never_completed_comes_at_the_end() -> None:
    framer = CharacterFramer()
    assert framer.feed(b"ab\xf0\x9f") == [b"ab"]
    assert framer.pending == 2
    assert framer.finish() == b"\xf0\x9f"
    assert (framer.pending, framer.finish()) == (0, b"")


@pytest.mark.parametrize("data", [b"\xff", b"a\x80", b"\x80\x80\x80\x80", b"\xc3\xa9", b"\xf0\x9f\x98\x80"])
def test_what_cannot_become_a_character_is_not_waited_for(data: bytes) -> None:
    framer = CharacterFramer()
    assert framer.feed(data) == [data]
    assert framer.pending == 0
    assert framer.feed(b"") == []


def test_opaque_bytes_have_no_words_for_an_end(open_stream: Open) -> None:
    stream = open_stream("generic", "image/png")
    stream.delivered([stream.event(b"\x89PNG")])
    assert not stream.finished
    assert stream.ending(Ending.ERROR, SILENCE) == []


# Ends and errors


@pytest.mark.parametrize("ending", Ending)
def test_an_ending_says_what_went_wrong(ending: Ending, open_stream: Open) -> None:
    error = {"error": {"message": SILENCE.message, "code": "upstream_silence", "status": 504}}
    text = json.dumps(error, separators=(",", ":")).encode()
    for content_type, raw in (
        ("text/event-stream", b"event: error\ndata: " + text + b"\n\n"),
        ("application/x-ndjson", text + b"\n"),
        ("application/json", text),
    ):
        assert [event.raw for event in open_stream("generic", content_type).ending(ending, SILENCE)] == [raw]


def test_a_whole_body_that_was_delivered_needs_no_ending(open_stream: Open) -> None:
    stream = open_stream("generic", "application/json")
    stream.delivered([stream.event(b"{}")])
    assert stream.finished
    assert stream.ending(Ending.ERROR, SILENCE) == []


def test_ndjson_has_no_terminal(open_stream: Open) -> None:
    stream = open_stream("generic", "application/x-ndjson")
    stream.delivered([stream.event(b'{"done":true}\n')])
    assert not stream.finished


def test_the_error_body() -> None:
    content_type, body = Generic().error_body(Problem.of("no_route"))
    assert content_type == "application/json"
    assert json.loads(body)["error"] == {"message": Problem.of("no_route").message, "code": "no_route", "status": 404}


# Requests


def test_what_most_apis_name_alike_is_read(ask: Ask) -> None:
    call = ask("generic", b'{"model":"m","stream":true,"prompt":["a",{"b":"c"}]}')
    assert (call.model, call.stream, call.texts) == ("m", True, ["m", "a", "c"])
    assert call.document == {"model": "m", "stream": True, "prompt": ["a", {"b": "c"}]}


@pytest.mark.parametrize("body", [None, b"", b"{", b"\xff", b"[" * 99_999])
def test_what_is_no_model_call_is_neutral(body: bytes | None, ask: Ask) -> None:
    call = ask("generic", body)
    assert (call.model, call.stream, list(call.texts), call.document) == (None, False, [], None)


@pytest.mark.parametrize("body", [b'{"model":1,"stream":"yes"}', b"[1]"])
def test_fields_of_another_type_count_as_not_said(body: bytes, ask: Ask) -> None:
    call = ask("generic", body)
    assert (call.model, call.stream) == (None, False)


def test_a_chat_reply_is_read_without_knowing_its_dialect(open_stream: Open, play: Play, join: Join) -> None:
    found = join(play(open_stream("generic"), "llama_cpp/chat.sse"))
    known = join(play(open_stream("openai-chat"), "llama_cpp/chat.sse"))
    assert found[at("/choices/0/delta/content")] == known[Channel(0, Kind.TEXT, 0)]


def test_a_continuation_says_again_what_kind_of_event_it_is(open_stream: Open) -> None:
    document = {
        "type": "delta",
        "id": "7",
        "index": 0,
        "delta": {"type": "text", "text": "a", "name": "b", "note": "c"},
    }
    event = open_stream("generic").event(b"event: e\ndata: " + json.dumps(document).encode() + b"\n\n")
    continued = event.continuation(at("/delta/text"), "d")
    said = {"type": "delta", "id": "7", "index": 0, "delta": {"type": "text", "text": "d", "name": "b", "note": ""}}
    assert continued.document == said
    assert continued.raw.startswith(b"event: e\n")
    assert continued.deltas == [(at("/delta/text"), "d")]


# Requests


@pytest.mark.parametrize("dialect", ["generic", "openai-chat", "openai-completions"])
def test_the_texts_of_a_request_are_all_strings_but_words_and_binary_data(dialect: str) -> None:
    document = {
        "model": "m", "n": 1, "user": "u", "input": ["a", ["b"], {"type": "text", "name": "c", "id": "d", "text": "e"}],
        "image": "data:image/png;base64,AAAA", "embedding": "A" * 1000, "ids": ["f"], "call_id": ["g"],
    }  # fmt: skip
    root = [document]
    slots = list(choose(dialect, "/").request_texts(root))
    assert [slot.text for slot in slots] == ["u", "a", "b", "c", "e", "f"]
    slots[0].put("x")
    assert document["user"] == "x"
    assert [slot.text for slot in choose(dialect, "/").request_texts(["whole"])] == ["whole"]
