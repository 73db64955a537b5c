"""Ollama's chat and generate, as NDJSON and whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.dialects import DIALECTS
from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Usage
from proxy.dialects.ollama import Ollama, OllamaStream
from proxy.errors import Problem
from proxy.framing import Event, Framing
from proxy.messages import ResponseHead
from proxy.policy import Ending

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]
Ask = Callable[..., Call]

TEXT = Channel(0, Kind.TEXT, 0)
THOUGHT = Channel(0, Kind.REASONING, 0)
NDJSON = "application/x-ndjson"
SILENCE = Problem.of("upstream_silence")


def args(call: int) -> Channel:
    return Channel(0, Kind.TOOL_ARGUMENTS, call)


def name(call: int) -> Channel:
    return Channel(0, Kind.TEXT, f"/message/tool_calls/{call}/function/name", repeated=True)


def line(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def chat(message: Any, **more: Any) -> bytes:
    return line({"model": "m", "created_at": "t", "message": message, "done": False, **more})


# Streams


def test_a_chat_with_thoughts(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("ollama", NDJSON), "written/ollama_chat_thinking.ndjson")
    assert join(events) == {THOUGHT: "Two and two.", TEXT: "It is né 😀."}
    assert [list(event.ends) for event in events] == [[], [], [], [], [EVERY_CHANNEL]]
    assert [event.usage for event in events if event.usage] == [Usage(26, 290)]


def test_the_arguments_of_a_tool_call_are_whole(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("ollama", NDJSON), "aimock/ollama_chat_tools.ndjson")
    texts = {args(0): '{"city":"Zürich","days":[{"unit":"celsius"}],"count":1}', args(1): '{"zone":"CET"}'}
    assert join(events) == {TEXT: "Let me see.", name(0): "get_weather", name(1): "get_time", **texts}
    assert list(events[2].ends) == [name(0), args(0), name(1), args(1)]


def test_a_generated_text(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("ollama", NDJSON), "aimock/ollama_generate.ndjson")
    assert join(events) == {TEXT: "One two three, né 😀 four five six seven."}


@pytest.mark.parametrize("fixture", ["aimock/ollama_chat_tools.json", "aimock/ollama_generate.json"])
def test_a_whole_reply(fixture: str, open_stream: Open, play: Play, join: Join) -> None:
    stream = open_stream("ollama", "application/json")
    (event,) = play(stream, fixture)
    assert join([event])[TEXT] in ("Let me see.", "One two three, né 😀 four five six seven.")
    assert (list(event.ends), event.usage) == ([EVERY_CHANNEL], Usage(0, 0))
    stream.delivered([event])
    assert stream.finished


@pytest.mark.parametrize(
    ("document", "deltas"),
    [
        ({"message": {"role": "assistant", "content": "a", "thinking": "t"}}, [(TEXT, "a"), (THOUGHT, "t")]),
        ({"message": {"content": "", "images": ["iVBORw0KGgo" * 8]}}, []),
        ({"message": {"images": ["text"]}}, [(Channel(0, Kind.TEXT, "/message/images/0"), "text")]),
        ({"message": {"tool_name": "f"}}, [(Channel(0, Kind.TEXT, "/message/tool_name", repeated=True), "f")]),
        ({"message": {"tool_calls": [{"id": "no", "function": {"name": "f", "arguments": {}}}]}}, [(name(0), "f")]),
        ({"message": {"tool_calls": [{"function": {"arguments": '{"a"'}}]}}, [(args(0), '{"a"')]),
        ({"message": {"tool_calls": [{"function": {"arguments": {"a": [4]}}}]}}, [(args(0), '{"a":[4]}')]),
        ({"message": {"reasoning_content": "r"}}, [(Channel(0, Kind.TEXT, "/message/reasoning_content"), "r")]),
        ({"message": "bare"}, [(Channel(0, Kind.TEXT, "/message"), "bare")]),
        ({"response": "a", "thinking": "t"}, [(TEXT, "a"), (THOUGHT, "t")]),
        ({"response": "", "image": "no", "remote_model": "no"}, []),
        ({"status": "pulling"}, [(Channel(0, Kind.TEXT, "/status"), "pulling")]),
        (["x"], [(Channel(0, Kind.TEXT, "/0"), "x")]),
    ],
)
def test_where_the_texts_of_a_line_are(document: Any, deltas: list[Any], open_stream: Open) -> None:
    event = open_stream("ollama", NDJSON).event(line(document))
    assert event.deltas == deltas
    if deltas:
        upper = [(channel, text.upper() + "é") for channel, text in deltas]
        rewritten = event.with_deltas(upper)
        assert rewritten is not None
        assert open_stream("ollama", NDJSON).event(rewritten.raw).deltas == upper


def test_an_error_of_the_upstream_ends_everything_and_is_text(open_stream: Open) -> None:
    event = open_stream("ollama", NDJSON).event(line({"error": "overloaded"}))
    assert event.deltas == [(Channel(0, Kind.TEXT, "/error"), "overloaded")]
    assert list(event.ends) == [EVERY_CHANNEL]


@pytest.mark.parametrize("raw", [b"hello\n", b"{\n", b'{"message":' + b"[" * 99 + b"\n"])
def test_what_is_no_json_is_unknown(raw: bytes, open_stream: Open) -> None:
    assert not open_stream("ollama", NDJSON).event(raw).known


# Rewriting


def test_log_probabilities_go_with_a_text_that_is_changed(open_stream: Open) -> None:
    raw = chat({"role": "assistant", "content": "secret"}, logprobs=[{"token": "secret"}])
    event = open_stream("ollama", NDJSON).event(raw)
    rewritten = event.with_deltas([(TEXT, "*")])
    assert rewritten is not None
    assert b"secret" not in rewritten.raw


def test_log_probabilities_of_other_texts_go(open_stream: Open) -> None:
    """They are the text ahead, or behind: a policy may hold it, or have changed it."""
    stream = OllamaStream(Framing.NDJSON, Call())
    tokens = [{"token": "a"}, {"token": " b"}]
    kept, ahead, alone, unlike = (
        stream.event(chat({"role": "assistant", "content": text}, logprobs=said))
        for text, said in (("a b", tokens), ("a", tokens), ("", tokens), ("a", ["a"]))
    )
    assert all(event.parsed.mirrored for event in (kept, ahead, alone, unlike))
    assert stream.without_mirrors(kept) is kept
    assert stream.without_mirrors(alone) is None
    for event in (ahead, unlike):
        shown = stream.without_mirrors(event)
        assert shown is not None
        assert shown.raw == chat({"role": "assistant", "content": "a"})


def test_a_line_without_text_is_withheld_if_it_says_nothing_more(open_stream: Open) -> None:
    stream = open_stream("ollama", NDJSON)
    assert stream.event(chat({"role": "assistant", "content": "x"})).with_deltas([(TEXT, "")]) is None
    assert stream.event(chat({"content": "x"}, done=True)).with_deltas([(TEXT, "")]) is not None
    assert stream.event(chat({"content": "x", "images": ["A" * 64]})).with_deltas([(TEXT, "")]) is not None


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (chat({"role": "assistant", "content": "x", "images": ["i"]}), {"message": {"role": "assistant", "content": "né"}}),
        (line({"model": "m", "created_at": "t", "response": "x", "done": True}), {"response": "né"}),
    ],
)  # fmt: skip
def test_a_continuation_repeats_nothing(raw: bytes, said: Any, open_stream: Open) -> None:
    continued = open_stream("ollama", NDJSON).event(raw).continuation(TEXT, "né")
    assert continued.document == {"model": "m", "created_at": "t", **said, "done": False}
    assert (continued.deltas, list(continued.ends)) == ([(TEXT, "né")], [])


@pytest.mark.parametrize(("raw", "said"), [(b'"x"\n', b'"n\xc3\xa9"\n'), (b'["x"]\n', b'["n\xc3\xa9"]\n')])
def test_a_line_that_is_no_object_is_continued_as_it_is(raw: bytes, said: bytes, open_stream: Open) -> None:
    event = open_stream("ollama", NDJSON).event(raw)
    ((channel, _),) = event.deltas
    assert event.continuation(channel, "né").raw == said


# The context: prompt and answer as numbers of tokens

GENERATED = "written/ollama_generate_context.ndjson"


def deliver(stream: DialectStream, events: Iterable[Event]) -> list[Any]:
    documents = []
    for event in events:
        stream.delivered([event])
        documents.append(event.document)
    return documents


def test_the_context_stays_where_nothing_was_changed(open_stream: Open, play: Play) -> None:
    stream = open_stream("ollama", NDJSON)
    assert deliver(stream, play(stream, GENERATED))[-1]["context"] == [1, 2, 3]


def test_the_context_stays_where_a_text_was_only_held_for_a_while(open_stream: Open, play: Play) -> None:
    stream = open_stream("ollama", NDJSON)
    first, second, third, *rest = play(stream, GENERATED)
    assert first.with_deltas([(TEXT, "")]) is None
    later = second.with_deltas([(TEXT, "The s")])
    assert later is not None
    shown = [later, second.continuation(TEXT, "k"), second.continuation(TEXT, "y"), third, *rest]
    assert deliver(stream, shown)[-1]["context"] == [1, 2, 3]


def test_the_context_goes_where_a_text_was_changed_in_an_earlier_line(open_stream: Open, play: Play) -> None:
    stream = open_stream("ollama", NDJSON)
    first, *rest = play(stream, GENERATED)
    changed = first.with_deltas([(TEXT, "***")])
    assert changed is not None
    last = deliver(stream, [changed, *rest])[-1]
    assert "context" not in last
    assert (last["done"], last["eval_count"]) == (True, 5)
    assert stream.finished


def test_the_context_of_a_whole_reply_goes_with_its_text(open_stream: Open) -> None:
    stream = open_stream("ollama", "application/json")
    event = stream.event(b'{"response":"a","done":true,"context":[1]}')
    changed = event.with_deltas([(TEXT, "b")])
    assert changed is not None
    assert changed.document == {"response": "b", "done": True}


def test_what_only_looks_like_a_context_stays(open_stream: Open) -> None:
    stream = open_stream("ollama", NDJSON)
    assert stream.event(chat({"content": "x"})).with_deltas([(TEXT, "")]) is None
    for raw in (chat({"content": 'the "context"'}), b'{"context":\n'):
        event = stream.event(raw)
        stream.delivered([event])
        assert event.raw == raw


# Ends


def test_nobody_is_sent_blank_lines(open_stream: Open) -> None:
    """The SDK decodes every line."""
    assert open_stream("ollama", NDJSON).comment() is None


def test_a_reply_never_opens_early_as_events() -> None:
    early = ResponseHead(200, CIMultiDict({"Content-Type": "text/event-stream"}), local=True)
    stream = DIALECTS["ollama"].open(early, Call(stream=True))
    assert (stream.framing, stream.comment()) == (Framing.NDJSON, None)
    assert DIALECTS["ollama"].open(ResponseHead(200, early.headers), Call()).framing is Framing.SSE


@pytest.mark.parametrize(
    ("fixture", "said"),
    [
        ("written/ollama_chat_thinking.ndjson", {"message": {"role": "assistant", "content": ""}}),
        (GENERATED, {"response": ""}),
    ],
)
def test_a_length_ending(fixture: str, said: Any, open_stream: Open, play: Play) -> None:
    stream = open_stream("ollama", NDJSON)
    stream.delivered(play(stream, fixture)[:2])
    stream.counted = Usage(5, 6)
    (event,) = stream.ending(Ending.LENGTH, SILENCE)
    document = event.document
    assert document.pop("model") in ("qwen3", "llama3.2")
    assert document.pop("created_at")
    assert document == {**said, "done": True, "done_reason": "length", "prompt_eval_count": 5, "eval_count": 6}
    stream.delivered([event])
    assert stream.ending(Ending.LENGTH, SILENCE) == []


@pytest.mark.parametrize(
    ("asked", "name"), [({"prompt": "p"}, "response"), ({"messages": []}, "message"), (None, "message")]
)
def test_a_length_ending_before_anything_was_said(asked: Any, name: str, open_stream: Open) -> None:
    (event,) = open_stream("ollama", NDJSON, Call(model="m", document=asked)).ending(Ending.LENGTH, SILENCE)
    assert name in event.document
    assert event.document["model"] == "m"
    assert "eval_count" not in event.document


def test_an_error_ending(open_stream: Open) -> None:
    stream = open_stream("ollama", NDJSON)
    (event,) = stream.ending(Ending.ERROR, SILENCE)
    assert event.raw.endswith(b"\n")
    assert event.document == {"error": f"{SILENCE.message} (upstream_silence)", "code": "upstream_silence"}
    stream.delivered([event])
    assert stream.finished
    (whole,) = open_stream("ollama", "application/json").ending(Ending.LENGTH, SILENCE)
    assert whole.document["code"] == "upstream_silence"


def test_an_error_body() -> None:
    content_type, body = DIALECTS["ollama"].error_body(Problem.of("no_route"))
    assert content_type == "application/json"
    assert json.loads(body) == {"error": f"{Problem.of('no_route').message} (no_route)", "code": "no_route"}


# Requests


def test_a_chat_request(ask: Ask) -> None:
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "a", "images": ["A" * 64]},
            {
                "role": "assistant",
                "thinking": "b",
                "tool_calls": [{"id": "no", "function": {"name": "f", "arguments": {"x": "c"}}}],
            },
            {"role": "tool", "tool_name": "f", "content": "d"},
        ],
        "options": {"num_predict": 20},
    }
    call = ask("ollama", json.dumps(body).encode())
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("m", True, 1, 20)
    assert call.texts == ["a", "b", "f", '{"x":"c"}', "f", "d"]
    assert call.document == body


def test_a_generate_request(ask: Ask) -> None:
    call = ask(
        "ollama", b'{"model":"m","system":"s","prompt":"p","suffix":"x","stream":false,"options":{"num_predict":-1}}'
    )
    assert (call.stream, call.max_output_tokens) == (False, None)
    assert call.texts == ["s", "p", "x"]


@pytest.mark.parametrize("body", [None, b"", b"{", b"[1]", b"\xff"])
def test_what_is_no_model_call_is_neutral(body: bytes | None, ask: Ask) -> None:
    call = ask("ollama", body)
    assert (call.model, call.stream, call.max_output_tokens, list(call.texts)) == (None, False, None, [])


def test_fields_of_another_type_count_as_not_said(ask: Ask) -> None:
    call = ask("ollama", b'{"model":1,"messages":[{"content":"y"}],"options":7}')
    assert (call.model, call.max_output_tokens, call.texts) == (None, None, ["y"])
    assert ask("ollama", b'{"messages":%s}' % ("[" * 70 + '"x"' + "]" * 70).encode()).texts == []


def test_the_texts_of_a_request_can_be_changed_where_they_stand() -> None:
    """What somebody said, whatever he calls it; not words and images, nor the names that tools are declared with."""
    call = {"function": {"name": "f", "arguments": {"name": "b"}}}
    tools = [{"type": "function", "function": {"name": "no", "description": "d"}}]
    message = {"role": "user", "content": "a", "images": ["A" * 64], "tool_calls": [call]}
    slots = list(Ollama().request_texts([{"model": "m", "messages": [message], "tools": tools}]))
    assert [slot.text for slot in slots] == ["a", "f", '{"name":"b"}', "d"]
    slots[2].put('{"name":"new"}')
    assert call["function"]["arguments"] == {"name": "new"}
