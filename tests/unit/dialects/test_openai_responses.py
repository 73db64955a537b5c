"""OpenAI Responses, and what the servers that speak it make of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import openai
import pytest
from multidict import CIMultiDict

from proxy.dialects import openai_responses_record
from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Usage
from proxy.dialects.openai_responses import OpenAIResponses, ResponsesStream
from proxy.errors import Problem
from proxy.framing import Event
from proxy.messages import Request
from proxy.policy import Ending

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]
Ask = Callable[..., Call]
Serve = Callable[..., str]

TOOLS = "written/openai_responses_tools.sse"
STREAMS = ["llama_cpp/responses.sse", "llama_cpp/responses_tools.sse", TOOLS]
SILENCE = Problem.of("upstream_silence")

THOUGHT = Channel(0, Kind.REASONING, "0/summary/0")
ANSWER = Channel(0, Kind.TEXT, "1/content/0")
ARGUMENTS = Channel(0, Kind.TOOL_ARGUMENTS, "2")


@pytest.fixture
def stream(open_stream: Open) -> DialectStream:
    return open_stream("openai-responses", call=Call(model="m"))


def sse(document: dict[str, Any]) -> bytes:
    return f"event: {document['type']}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def about(type: str, **more: Any) -> bytes:
    """An event about the first part of the first item."""
    return sse({"type": f"response.{type}", "item_id": "i", "output_index": 0, "content_index": 0, **more})


def repeated(channel: Channel) -> Channel:
    return channel._replace(repeated=True)


def types(events: Iterable[Event]) -> list[str]:
    return [event.document["type"].removeprefix("response.") for event in events]


def is_name(channel: Channel) -> bool:
    """Whether it is that of the name of a tool."""
    return str(channel.index).endswith("/name")


# Reading


@pytest.mark.parametrize("fixture", STREAMS)
def test_every_text_is_repeated_as_it_was_added(fixture: str, stream: DialectStream, play: Play, join: Join) -> None:
    """The pieces of a channel, whatever its item is called, are what the final response says."""
    events = play(stream, fixture)
    assert all(event.known for event in events)
    added = [text for channel, text in join(events).items() if not channel.repeated]
    final = join(events[-1:])
    assert all(channel.repeated for channel in final)
    assert [text for channel, text in final.items() if not is_name(channel)] == added
    assert events[-1].ends == [EVERY_CHANNEL]


def test_reasoning_text_and_tools(stream: DialectStream, play: Play, join: Join) -> None:
    joined = join(play(stream, TOOLS))
    assert {channel: text for channel, text in joined.items() if not channel.repeated} == {
        THOUGHT: "Ask for the weather.",
        ANSWER: "Looking it up.",
        ARGUMENTS: '{"city":"Zürich"}',
    }
    assert joined[repeated(ANSWER)] == "Looking it up." * 4


def test_usage_stands_in_the_final_response(stream: DialectStream, play: Play) -> None:
    assert [event.usage for event in play(stream, TOOLS) if event.usage] == [Usage(40, 22)]
    assert [event.usage for event in play(stream, STREAMS[0]) if event.usage] == [Usage(14, 12)]


def test_a_channel_ends_where_its_whole_is_said(stream: DialectStream, play: Play) -> None:
    """In the event before a policy lets go of what it holds; with the part and the item it has long ended."""
    ends: dict[Channel, list[str]] = {}
    for event in play(stream, TOOLS):
        for channel in (THOUGHT, ANSWER, ARGUMENTS):
            if any(end.covers(channel) for end in event.ends):
                ends.setdefault(channel, []).append(event.document["type"].removeprefix("response."))
    last = ["output_item.done", "completed"]
    assert ends == {
        THOUGHT: ["reasoning_summary_text.done", "reasoning_summary_part.done", *last],
        ANSWER: ["output_text.done", "content_part.done", *last],
        ARGUMENTS: ["function_call_arguments.done", *last],
    }


def test_arguments_end_with_their_item_where_nothing_else_says_so(stream: DialectStream, play: Play) -> None:
    events = play(stream, "llama_cpp/responses_tools.sse")
    added = {channel for event in events for channel, _ in event.deltas if not channel.repeated}
    done = [event for event in events if b"output_item.done" in event.raw]
    assert added
    assert all(any(end.covers(channel) for event in done for end in event.ends) for channel in added)


@pytest.mark.parametrize(
    ("raw", "deltas"),
    [
        (about("refusal.delta", delta="n"), [(Channel(0, Kind.REFUSAL, "0/content/0"), "n")]),
        (about("refusal.done", refusal="no"), [(Channel(0, Kind.REFUSAL, "0/content/0", True), "no")]),
        (about("reasoning_text.delta", delta="h"), [(Channel(0, Kind.REASONING, "0/content/0"), "h")]),
        (
            about("reasoning_summary_text.delta", delta="h", summary_index=2),
            [(Channel(0, Kind.REASONING, "0/summary/2"), "h")],
        ),
        (about("mcp_call_arguments.delta", delta="{"), [(Channel(0, Kind.TOOL_ARGUMENTS, "0"), "{")]),
        (about("mcp_call_arguments.done", arguments="{}"), [(Channel(0, Kind.TOOL_ARGUMENTS, "0", True), "{}")]),
        (about("custom_tool_call_input.delta", delta="x"), [(Channel(0, Kind.TOOL_ARGUMENTS, "0"), "x")]),
        (about("custom_tool_call_input.done", input="x"), [(Channel(0, Kind.TOOL_ARGUMENTS, "0", True), "x")]),
        (about("code_interpreter_call_code.delta", delta="p"), [(Channel(0, Kind.TOOL_ARGUMENTS, "0"), "p")]),
        (about("code_interpreter_call_code.done", code="p"), [(Channel(0, Kind.TOOL_ARGUMENTS, "0", True), "p")]),
        (about("output_text.delta", delta="t", item_id="a"), [(Channel(0, Kind.TEXT, "0/content/0"), "t")]),
        (about("output_text.delta", delta="t", output_index=None), [(Channel(0, Kind.TEXT, "i/content/0"), "t")]),
        (about("output_text.delta", delta="t", content_index=None), [(Channel(0, Kind.TEXT, "0/content/0"), "t")]),
        (about("output_text.delta", delta={"a": "t"}), [(Channel(0, Kind.TEXT, "0/content/0/a"), "t")]),
        (about("output_text.delta", delta="", logprobs=[]), []),
        (
            about("content_part.added", part={"type": "output_text", "text": "a", "annotations": []}),
            [(Channel(0, Kind.TEXT, "0/content/0"), "a")],
        ),
        (
            about("content_part.done", part={"type": "refusal", "refusal": "no"}),
            [(Channel(0, Kind.REFUSAL, "0/content/0", True), "no")],
        ),
        (
            about("content_part.done", part={"type": "new", "text": "a"}),
            [(Channel(0, Kind.TEXT, "0/content/0/text", True), "a")],
        ),
        (
            about("output_item.added", item={"id": "i", "type": "function_call", "name": "f", "arguments": "{"}),
            [(Channel(0, Kind.TEXT, "0/name", True), "f"), (Channel(0, Kind.TOOL_ARGUMENTS, "0"), "{")],
        ),
        (
            about("output_item.done", item={"id": "i", "type": "custom_tool_call", "input": {"a": [4]}}),
            [(Channel(0, Kind.TOOL_ARGUMENTS, "0", True), '{"a":[4]}')],
        ),
        (
            about("function_call_arguments.done", name="f", arguments={"a": 4}),
            [(Channel(0, Kind.TOOL_ARGUMENTS, "0", True), '{"a":4}'), (Channel(0, Kind.TEXT, "/name", True), "f")],
        ),
        (
            about("output_item.done", item={"id": "i", "type": "web_search_call", "action": {"query": "q"}}),
            [(Channel(0, Kind.TEXT, "0/action/query", True), "q")],
        ),
        (
            about("output_item.done", item={"id": "i", "type": "mcp_call", "arguments": "{}", "output": "o"}),
            [(Channel(0, Kind.TOOL_ARGUMENTS, "0", True), "{}"), (Channel(0, Kind.TEXT, "0/output", True), "o")],
        ),
        (
            about(
                "output_item.done", item={"id": "i", "type": "reasoning", "encrypted_content": "gAAA", "summary": []}
            ),
            [],
        ),
        (about("output_item.done", item={"id": "i", "type": "image_generation_call", "result": "iVBO"}), []),
        (
            about(
                "output_text.annotation.added", annotation_index=1, annotation={"type": "url_citation", "title": "t"}
            ),
            [(Channel(0, Kind.TEXT, "0/content/0/annotations/1/title", True), "t")],
        ),
        (about("audio.delta", delta="UklG"), []),
        (about("audio.transcript.delta", delta="said"), [(Channel(0, Kind.TEXT, "0/audio.transcript/0"), "said")]),
        (about("audio_transcript.delta", delta="said"), [(Channel(0, Kind.TEXT, "0/audio_transcript/0"), "said")]),
        (about("audio_transcript.done", transcript="said"), [(Channel(0, Kind.TEXT, "/transcript", True), "said")]),
        (
            about("output_item.done", item={"id": "i", "type": "image_generation_call", "revised_prompt": "p"}),
            [(Channel(0, Kind.TEXT, "0/revised_prompt", True), "p")],
        ),
        (about("image_generation_call.partial_image", partial_image_b64="iVBO", size="1x1"), []),
        (about("web_search_call.searching"), []),
        (sse({"type": "keepalive", "sequence_number": 3}), []),
    ],
)
def test_where_the_texts_of_an_event_are(raw: bytes, deltas: list[Any], stream: DialectStream) -> None:
    event = stream.event(raw)
    assert event.known
    assert list(event.deltas) == deltas
    if deltas:
        upper = [(channel, text.upper() + "é") for channel, text in deltas]
        rewritten = event.with_deltas(upper)
        assert rewritten is not None
        assert rewritten.deltas == stream.event(rewritten.raw).deltas == upper
        assert rewritten.ends == stream.event(rewritten.raw).ends == event.ends


def test_a_new_type_of_text_is_read_by_the_rule_of_all(stream: DialectStream) -> None:
    delta, done = (
        stream.event(
            sse({"type": f"response.shell_call_command.{suffix}", "output_index": 1, "command_index": 2, **said})
        )
        for suffix, said in (("delta", {"delta": "ls"}), ("done", {"command": "ls -l"}))
    )
    added = stream.event(about("shell_call_command.added", command_index=2, command="ls"))
    assert added.deltas == [(Channel(0, Kind.TEXT, "/command"), "ls")]
    assert added.ends == [Channel(0, Kind.TEXT, "/command")]
    assert delta.deltas == [(Channel(0, Kind.TEXT, "1/shell_call_command/2"), "ls")]
    assert done.deltas == [(Channel(0, Kind.TEXT, "/command", True), "ls -l")]
    assert done.ends == [Channel(0, Kind.TEXT, "1/shell_call_command/2")]


@pytest.mark.parametrize("suffix", ["added", "done"])
def test_only_what_has_deltas_goes_on_after_its_event(suffix: str, stream: DialectStream) -> None:
    action = {"type": "exec", "command": ["ls", "-l"]}
    item = {"id": "i", "type": "local_shell_call", "action": action, "arguments": "a"}
    event = stream.event(about(f"output_item.{suffix}", item=item))
    assert [text for _, text in event.deltas] == ["exec", "ls", "-l", "a"]
    assert all(channel.repeated or channel in event.ends for channel, _ in event.deltas)
    begun = stream.event(about("output_item.added", item={"type": "function_call", "arguments": "{"}))
    assert list(begun.ends) == []


def test_an_item_and_a_part_end_what_stands_below_them(stream: DialectStream) -> None:
    """Also what is new, has no event of its own at its end, and is not in the item."""
    new = stream.event(about("new_text.delta", delta={"a": "b"}))
    (item,) = stream.event(about("output_item.done", item={"id": "i"})).ends
    assert item.covers(new.deltas[0][0])
    inner = stream.event(about("output_text.delta", delta={"a": "b"}))
    (part,) = stream.event(about("content_part.done", part={"type": "output_text"})).ends
    assert part.covers(inner.deltas[0][0])
    assert not part.covers(new.deltas[0][0])


@pytest.mark.parametrize(
    "document",
    [
        {"type": "new_thing", "words": "secret"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "secret"}},
        {"type": "response.new_thing.delta", "delta": "a", "snapshot": "secret"},
        {"type": "response.new_thing.delta", "text": "secret"},
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "secret"}}]},
        {"content": "secret"},
        ["secret"],
        "secret",
    ],
)
def test_what_may_have_a_text_that_is_not_seen_is_unknown(document: Any, stream: DialectStream) -> None:
    """As are the events of another dialect: a policy that has to see the text fails closed."""
    event = stream.event(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert (event.known, list(event.deltas), list(event.ends)) == (False, [], [])


@pytest.mark.parametrize(
    "document",
    [
        {"type": "response.new_thing.updated", "words": ["a", "b"]},
        {"type": "response.metadata", "headers": {"name": "a", "x": "b"}},
        {"type": "vendor.rate_limits", "plan": "a", "limits": {"status": "b"}},
    ],
)
def test_any_other_new_event_says_what_it_says_whole(document: Any, stream: DialectStream) -> None:
    event = stream.event(sse(document))
    assert [(channel.repeated, text) for channel, text in event.deltas] == [(False, "a"), (False, "b")]
    assert list(event.ends) == [channel for channel, _ in event.deltas]


def test_metadata_has_no_words_of_the_api(stream: DialectStream) -> None:
    """Whoever made the request has filled it in."""
    names = ("name", "id", "model", "role", "status", "phase")
    response = {"id": "r", "metadata": dict.fromkeys(names, "secret"), "conversation": {"id": "conv_1"}}
    event = stream.event(sse({"type": "response.created", "response": response}))
    assert [text for _, text in event.deltas] == ["secret"] * len(names)


def test_what_the_response_repeats_of_the_request_is_whole(stream: DialectStream) -> None:
    response = {"id": "r", "instructions": "be kind", "tools": [{"type": "function", "name": "f"}], "output": []}
    event = stream.event(sse({"type": "response.created", "response": response}))
    assert [(channel.repeated, text) for channel, text in event.deltas] == [
        (True, "be kind"),
        (True, "function"),
        (True, "f"),
    ]


@pytest.mark.parametrize(
    ("document", "indices"),
    [
        ({"type": "error", "code": "server_error", "message": "overloaded", "param": None}, ["/code", "/message"]),
        ({"error": {"message": "overloaded", "code": 500}}, ["/error/message"]),
        (
            {"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}},
            ["/error/code", "/error/message"],
        ),
    ],
)
def test_an_error_ends_everything_and_is_text(document: Any, indices: list[str], stream: DialectStream) -> None:
    event = stream.event(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert [channel.index for channel, _ in event.deltas] == indices
    assert list(event.ends) == [EVERY_CHANNEL]
    with pytest.raises(ValueError, match="continued"):
        event.continuation(event.deltas[0][0], "more")
    stream.delivered([event])
    assert stream.finished


# Whole replies


def test_a_whole_reply(open_stream: Open, play: Play) -> None:
    (event,) = play(open_stream("openai-responses", "application/json"), "llama_cpp/responses.json")
    ((channel, text),) = event.deltas
    assert (channel, bool(text)) == (Channel(0, Kind.TEXT, "0/content/0"), True)
    assert (list(event.ends), event.usage) == ([EVERY_CHANNEL], Usage(14, 12))
    rewritten = event.with_deltas([(channel, "")])
    assert rewritten is not None
    assert rewritten.document["output"][0]["content"][0]["text"] == ""
    assert rewritten.document["usage"] == event.document["usage"]


def test_a_convenience_of_some_servers_repeats_the_text(open_stream: Open) -> None:
    response = {"output": [{"id": "i", "type": "message", "content": "plain"}], "output_text": "plain", "error": None}
    event = open_stream("openai-responses", "application/json").event(json.dumps(response).encode())
    assert event.deltas == [
        (Channel(0, Kind.TEXT, "0/content"), "plain"),
        (Channel(0, Kind.TEXT, "/output_text", True), "plain"),
    ]


def test_a_body_of_another_shape_is_all_text(open_stream: Open) -> None:
    event = open_stream("openai-responses", "application/json").event(b'{"error":{"message":"no"}}')
    assert event.deltas == [(Channel(0, Kind.TEXT, "/error/message"), "no")]


def test_other_content_types_are_generic(open_stream: Open) -> None:
    assert open_stream("openai-responses", "text/plain").event(b"hello").deltas == [
        (Channel(0, Kind.TEXT, ""), "hello")
    ]


# Rewriting


@pytest.mark.parametrize("fixture", STREAMS)
def test_a_policy_that_changes_every_channel_changes_every_copy(
    fixture: str, stream: DialectStream, play: Play, join: Join
) -> None:
    events = play(stream, fixture)
    texts = {text for event in events for _, text in event.deltas}
    changed = [event.with_deltas([(channel, "*") for channel, _ in event.deltas]) for event in events]
    raw = b"".join(event.raw for event in changed if event is not None)
    for text in texts:
        spelt = json.dumps(text, ensure_ascii=False)
        assert f'"{"delta"}":{spelt}'.encode() not in raw
        assert f'"text":{spelt}'.encode() not in raw
        assert f'"arguments":{spelt}'.encode() not in raw


def test_log_probabilities_go_with_their_text(stream: DialectStream) -> None:
    logprobs = [{"token": "secret", "logprob": -1.5, "bytes": [115]}]
    part = {"type": "output_text", "text": "secret", "logprobs": logprobs}
    item = {"id": "i", "type": "message", "content": [part]}
    for raw in (
        about("output_text.delta", delta="secret", logprobs=logprobs),
        about("output_text.done", text="secret", logprobs=logprobs),
        about("content_part.done", part=part),
        about("output_item.done", item=item),
        sse({"type": "response.completed", "response": {"output": [item]}}),
    ):
        event = stream.event(raw)
        assert len(event.deltas) == 1
        rewritten = event.with_deltas([(event.deltas[0][0], "*")])
        assert rewritten is not None
        assert b"secret" not in rewritten.raw
        assert b'"logprobs":[]' in rewritten.raw


def test_log_probabilities_of_other_texts_are_dropped(stream: DialectStream) -> None:
    """They came ahead of their text, or are of one that was withheld."""
    assert isinstance(stream, ResponsesStream)
    own = stream.event(about("output_text.delta", delta="ab", logprobs=[{"token": "a"}, {"token": "b"}]))
    other = stream.event(about("output_text.delta", delta="ab", logprobs=[{"token": "secret"}]))
    empty = stream.event(about("output_text.delta", delta="", logprobs=[{"token": "secret"}]))
    plain = stream.event(about("output_text.delta", delta="ab", logprobs=[]))
    assert [event.parsed.mirrored for event in (own, other, empty, plain)] == [True, True, True, False]
    assert stream.without_mirrors(own) is own
    assert stream.without_mirrors(empty) is None
    left = stream.without_mirrors(other)
    assert left is not None
    assert left.document == {**other.document, "logprobs": []}
    assert left.deltas == other.deltas


def test_a_delta_without_text_is_withheld_and_any_other_event_passes(stream: DialectStream, play: Play) -> None:
    for event in play(stream, TOOLS):
        if event.deltas:
            rewritten = event.with_deltas([(channel, "") for channel, _ in event.deltas])
            assert (rewritten is None) is event.document["type"].endswith(".delta")


def test_a_text_is_replaced_in_place(stream: DialectStream) -> None:
    """Whatever else the event says stays byte for byte; only the text, and not its like elsewhere."""
    raw = b'event: e\ndata: { "type":"response.output_text.delta", "item_id":"i" ,"delta": "a\xc3\xa9", "logprobs":[] }\n\n'
    event = stream.event(raw)
    rewritten = event.with_deltas([(event.deltas[0][0], 'say "b"')])
    assert rewritten is not None
    assert rewritten.raw == raw.replace(b'"a\xc3\xa9"', b'"say \\"b\\""')
    twice = stream.event(about("output_text.delta", item_id="i", delta="i"))
    rewritten = twice.with_deltas([(twice.deltas[0][0], "new")])
    assert rewritten is not None
    assert (rewritten.document["item_id"], rewritten.document["delta"]) == ("i", "new")


# Continuing


@pytest.mark.parametrize("fixture", STREAMS)
def test_every_channel_can_be_continued(fixture: str, stream: DialectStream, play: Play) -> None:
    for event in play(stream, fixture):
        for channel, _ in event.deltas:
            if channel.repeated:
                with pytest.raises(ValueError, match="continued"):
                    event.continuation(channel, "more")
            else:
                continued = event.continuation(channel, "more")
                assert stream.event(continued.raw).deltas == continued.deltas == [(channel, "more")]
                assert list(continued.ends) == []
                assert continued.document.get("sequence_number") == event.document.get("sequence_number")


@pytest.mark.parametrize(
    ("raw", "type"),
    [
        (about("content_part.added", part={"type": "output_text", "text": "a"}), "response.output_text.delta"),
        (
            about("reasoning_summary_part.added", summary_index=1, part={"type": "summary_text", "text": "a"}),
            "response.reasoning_summary_text.delta",
        ),
        (
            about("output_item.added", item={"id": "i", "type": "function_call", "arguments": "{"}),
            "response.function_call_arguments.delta",
        ),
    ],
)
def test_what_an_event_began_goes_on_in_deltas(raw: bytes, type: str, stream: DialectStream) -> None:
    event = stream.event(raw)
    channel = event.deltas[0][0]
    continued = event.continuation(channel, "more")
    assert stream.event(continued.raw).deltas == [(channel, "more")]
    assert continued.raw.startswith(f"event: {type}\n".encode())
    assert (continued.document["type"], continued.document["item_id"]) == (type, "i")


def test_a_text_that_no_delta_adds_to_goes_on_in_an_event_like_its_own(stream: DialectStream) -> None:
    item = {"id": "i", "type": "message", "name": "f", "content": ["o"]}
    event = stream.event(about("output_item.added", item=item))
    channel = Channel(0, Kind.TEXT, "0/content/0")
    continued = event.continuation(channel, "more")
    assert continued.deltas == [(channel, "more")]
    assert continued.document == {**event.document, "item": {**item, "content": ["more"]}}


def test_a_text_that_is_whole_in_its_event_does_not_go_on(stream: DialectStream) -> None:
    event = stream.event(about("output_item.added", item={"id": "i", "type": "mcp_call", "output": "o"}))
    with pytest.raises(ValueError, match="continued"):
        event.continuation(Channel(0, Kind.TEXT, "0/output"), "more")


def test_a_stream_without_event_names_gets_none(stream: DialectStream) -> None:
    """transformers sends none."""
    event = stream.event(b'data: {"type":"response.output_text.delta","item_id":"i","output_index":0,"delta":"a"}\n\n')
    assert event.continuation(event.deltas[0][0], "b").raw == event.raw.replace(b'"a"', b'"b"')


# Ends


def cuts(fixture: str, play: Play, open_stream: Open) -> Iterator[tuple[list[Event], list[Event], DialectStream]]:
    """Wherever the stream is cut: what was delivered, how it ends, and the stream."""
    for cut in range(len(play(open_stream("openai-responses"), fixture))):
        stream = open_stream("openai-responses", call=Call(model="m"))
        delivered = play(stream, fixture)[:cut]
        stream.delivered(delivered)
        yield delivered, stream.ending(Ending.LENGTH, SILENCE), stream


@pytest.mark.parametrize("fixture", STREAMS)
def test_wherever_it_is_cut_it_ends_as_at_the_length_limit(
    fixture: str, open_stream: Open, play: Play, join: Join
) -> None:
    """What was begun is ended, and the last response says what was delivered, no more and no less."""
    for delivered, ending, stream in cuts(fixture, play, open_stream):
        said = types([*delivered, *ending])
        assert (said[0], said[-1]) == ("created", "incomplete")
        for begun in ("output_item", "content_part", "reasoning_summary_part"):
            assert said.count(f"{begun}.added") == said.count(f"{begun}.done")
        added = {channel: text for channel, text in join(delivered).items() if not channel.repeated}
        told = join(ending[-1:]).items()
        final = {text for channel, text in told if not (is_name(channel) or str(channel.index).startswith("/tool"))}
        assert {"max_output_tokens", *added.values()} == final
        response = ending[-1].document["response"]
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert {item["status"] for item in response["output"] if "status" in item} <= {"completed", "incomplete"}
        stream.delivered(ending)
        assert stream.finished
        assert stream.ending(Ending.LENGTH, SILENCE) == []


def test_the_events_of_an_ending_are_numbered_on(open_stream: Open, play: Play) -> None:
    for delivered, ending, _ in cuts(TOOLS, play, open_stream):
        numbers = [event.document["sequence_number"] for event in (*delivered, *ending)]
        assert numbers == list(range(len(numbers)))


def test_an_ending_is_not_numbered_where_the_stream_is_not(open_stream: Open, play: Play) -> None:
    for delivered, ending, _ in cuts(STREAMS[0], play, open_stream):
        numbered = ["sequence_number" in event.document for event in ending]
        assert numbered == [not delivered] * len(ending)


def test_an_ending_repeats_what_policies_let_through(stream: DialectStream, play: Play, join: Join) -> None:
    events = play(stream, TOOLS)[:13]
    changed = [event.with_deltas([(channel, text.upper()) for channel, text in event.deltas]) for event in events]
    stream.delivered([event for event in changed if event is not None])
    raw = b"".join(event.raw for event in stream.ending(Ending.LENGTH, SILENCE))
    assert b"LOOKING IT UP." in raw
    assert b"Looking" not in raw


def test_an_ending_states_the_usage_that_was_counted(stream: DialectStream, play: Play) -> None:
    stream.delivered(play(stream, TOOLS)[:13])
    assert stream.ending(Ending.LENGTH, SILENCE)[-1].document["response"]["usage"] is None
    stream.counted = Usage(7, 5)
    ending = stream.ending(Ending.LENGTH, SILENCE)[-1]
    assert ending.usage == Usage(7, 5)
    assert ending.document["response"]["usage"]["total_tokens"] == 12


def test_an_error_ending(stream: DialectStream, play: Play) -> None:
    stream.delivered(play(stream, TOOLS)[:5])
    (event,) = stream.ending(Ending.ERROR, SILENCE)
    assert event.raw.startswith(b"event: error\n")
    document = event.document
    assert (document["type"], document["code"], document["sequence_number"]) == ("error", "upstream_silence", 5)
    stream.delivered([event])
    assert stream.ending(Ending.ERROR, SILENCE) == []


def test_a_whole_reply_and_a_finished_one_have_nothing_to_end(open_stream: Open, play: Play) -> None:
    stream = open_stream("openai-responses", "application/json")
    assert stream.ending(Ending.LENGTH, SILENCE)[0].document["error"]["code"] == "upstream_silence"
    stream.delivered(play(stream, "llama_cpp/responses.json"))
    assert stream.ending(Ending.LENGTH, SILENCE) == []


def test_doubled_terminals_and_comments_are_harmless(stream: DialectStream, play: Play) -> None:
    events = play(stream, TOOLS)
    stream.delivered([*events, events[-1], *play(stream, b": c\n\ndata: [DONE]\n\ndata: {\n\n")])
    assert stream.finished
    assert stream.ending(Ending.LENGTH, SILENCE) == []


def test_what_is_too_long_to_keep_is_not_repeated(
    stream: DialectStream, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_responses_record, "MAX_KEPT_BYTES", 100)
    stream.delivered(play(stream, TOOLS)[:13])
    (event,) = stream.ending(Ending.LENGTH, SILENCE)
    assert "output" not in event.document["response"]


# OpenAI's own client


def cut_body(stream: DialectStream, play: Play, ending: Ending, delivered: int = 13) -> bytes:
    events = play(stream, TOOLS)[:delivered]
    stream.delivered(events)
    return b"".join(event.raw for event in (*events, *stream.ending(ending, SILENCE)))


@pytest.mark.parametrize("delivered", [0, 1, 5, 13, 18])
def test_openais_accumulator_takes_a_cut_for_an_incomplete_response(
    delivered: int, stream: DialectStream, play: Play, serve: Serve
) -> None:
    url = serve(200, "text/event-stream", cut_body(stream, play, Ending.LENGTH, delivered))
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as sdk,
        sdk.responses.stream(model="m", input="Hi") as events,
    ):
        said = list(events)
    last = said[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output_text == "".join(
        event.delta for event in said if event.type == "response.output_text.delta"
    )


@pytest.mark.parametrize("delivered", [0, 13])
def test_openais_client_raises_at_an_error_ending(
    delivered: int, stream: DialectStream, play: Play, serve: Serve
) -> None:
    url = serve(200, "text/event-stream", cut_body(stream, play, Ending.ERROR, delivered))
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as sdk, pytest.raises(openai.APIError) as caught:
        list(sdk.responses.create(model="m", input="Hi", stream=True))
    assert caught.value.code == "upstream_silence"


def test_openais_accumulator_reads_what_was_changed_the_same_everywhere(
    stream: DialectStream, play: Play, serve: Serve
) -> None:
    changed = [
        event.with_deltas([(channel, text.upper()) for channel, text in event.deltas]) for event in play(stream, TOOLS)
    ]
    url = serve(200, "text/event-stream", b"".join(event.raw for event in changed if event is not None))
    with (
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as sdk,
        sdk.responses.stream(model="m", input="Hi") as events,
    ):
        snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    assert snapshots[-1] == final.output_text == "LOOKING IT UP."


def test_openais_accumulator_hears_no_heartbeat(stream: DialectStream, play: Play, serve: Serve) -> None:
    beat = stream.comment()
    assert beat is not None
    body = beat.raw + b"".join(event.raw + beat.raw for event in play(stream, TOOLS))
    with (
        openai.OpenAI(base_url=serve(200, "text/event-stream", body), api_key="none", max_retries=0) as sdk,
        sdk.responses.stream(model="m", input="Hi") as events,
    ):
        assert events.get_final_response().output_text == "Looking it up."


@pytest.mark.parametrize(
    ("details", "raised"),
    [
        ("malformed_body", openai.BadRequestError),
        ("unauthorized", openai.AuthenticationError),
        ("stopped", openai.PermissionDeniedError),
        ("no_route", openai.NotFoundError),
        ("body_timeout", openai.APIStatusError),
        ("body_too_large", openai.APIStatusError),
        ("request_rate", openai.RateLimitError),
        ("client_gone", openai.APIStatusError),
        ("upstream_reset", openai.InternalServerError),
        ("draining", openai.InternalServerError),
        ("deadline", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_openais_client_raises_its_own_error(
    details: str, raised: type[openai.APIStatusError], streamed: bool, serve: Serve
) -> None:
    problem = Problem.of(details)
    url = serve(problem.status, *OpenAIResponses().error_body(problem))
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as sdk, pytest.raises(raised) as caught:
        sdk.responses.create(model="m", input="Hi", stream=streamed)
    assert (caught.value.status_code, caught.value.code) == (problem.status, details)


# Requests


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("/v1/responses", True),
        ("/v1/responses/", True),
        ("/openai/v1/responses", True),
        ("/v1/responses/resp_123", True),
        ("/v1/responses/resp_123/cancel", True),
        ("/v1/responses/compact", True),
        ("/v1/responses/resp_123/input_items", False),
        ("/survey/responses/5", False),
        ("/v1/responsesx", False),
    ],
)
def test_which_paths_speak_it(path: str, matches: bool) -> None:
    assert OpenAIResponses().matches(path) is matches


def test_what_a_request_asks(ask: Ask) -> None:
    body = {
        "model": "m",
        "stream": True,
        "max_output_tokens": 20,
        "instructions": "s",
        "input": [
            {"role": "user", "content": "plain"},
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "t"}, {"type": "input_image", "image_url": "data:..."}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "r"}]},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "h"}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "o"},
            {"type": "custom_tool_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "p"}]},
        ],
    }
    call = ask("openai-responses", json.dumps(body).encode())
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("m", True, 1, 20)
    assert call.texts == ["s", "plain", "t", "r", "h", "{}", "o", "p"]
    assert call.document == body


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/resp_1", "", ("resp_1", False, False)),
        ("GET", "/resp_1/", "stream=true", ("resp_1", True, False)),
        ("GET", "/resp_1", "stream=true&starting_after=7", ("resp_1", True, True)),
        ("GET", "/resp_1", "stream=false&include[]=x", ("resp_1", False, False)),
        ("DELETE", "/resp_1", "", ("resp_1", False, False)),
        ("POST", "/resp_1/cancel", "", ("resp_1", False, False)),
        ("POST", "/resp_1", "stream=true", (None, False, False)),
        ("POST", "/compact", "", (None, False, False)),
        ("GET", "", "", (None, False, False)),
    ],
)
def test_a_request_about_a_reply_that_is_kept(
    method: str, path: str, query: str, expected: tuple[str | None, bool, bool]
) -> None:
    dialect, fields = OpenAIResponses(), CIMultiDict[str]()
    path = f"/v1/responses{path}"
    call = Request(id="1", method=method, path=path, query=query, headers=fields, dialect=dialect).call
    assert (call.kept_id, call.stream, call.resumes) == expected


@pytest.mark.parametrize("background", [True, False, None, "yes"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_reply_that_is_kept_says_so(open_stream: Open, play: Play, background: Any, streamed: bool) -> None:
    response = {"id": "resp_1", "object": "response", "status": "queued", "background": background, "output": []}
    stream = open_stream("openai-responses", "text/event-stream" if streamed else "application/json")
    assert stream.kept_as is None
    said = sse({"type": "response.created", "response": response}) if streamed else json.dumps(response).encode()
    for event in play(stream, said):
        assert event.parsed.known
    assert stream.kept_as == ("resp_1" if background is True else None)


def test_an_input_of_one_text(ask: Ask) -> None:
    assert ask("openai-responses", b'{"input":"Hi"}').texts == ["Hi"]


@pytest.mark.parametrize("body", ["[]", '{"input":7}', '{"input":[7]}', '{"instructions":["x"]}', None])
def test_a_request_of_another_shape_has_no_texts(body: str | None, ask: Ask) -> None:
    assert list(ask("openai-responses", body.encode() if body is not None else None).texts) == []


def test_an_item_that_nests_too_deeply_is_left_out(ask: Ask) -> None:
    deep = "[" * 70 + '"x"' + "]" * 70
    assert ask("openai-responses", b'{"input":[{"content":%s},{"content":"y"}]}' % deep.encode()).texts == ["y"]


def test_usage_is_always_stated() -> None:
    dialect, body = OpenAIResponses(), b'{"stream":true}'
    request = Request(id="1", method="POST", path="/", headers=CIMultiDict(), dialect=dialect, body=body)
    assert not dialect.ask_for_usage(request)
    assert request.body == body


def test_the_error_body_is_openais() -> None:
    assert json.loads(OpenAIResponses().error_body(SILENCE)[1])["error"]["code"] == "upstream_silence"
