"""Anthropic Messages, and what the servers that speak it make of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import anthropic
import pytest
from multidict import CIMultiDict

from proxy.dialects.anthropic import Anthropic
from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Usage
from proxy.errors import Problem
from proxy.framing import Event
from proxy.messages import Request
from proxy.policy import Ending

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]
Ask = Callable[..., Call]

VERTEX = "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict"
Serve = Callable[..., str]

RECORDED, TOOLS = "llama_cpp/messages.sse", "written/anthropic_messages_tools.sse"
SILENCE = Problem.of("upstream_silence")
TEXT = Channel(0, Kind.TEXT, 0)


EVERY_BLOCK = Channel(0, None, None)


@pytest.fixture
def stream(open_stream: Open) -> DialectStream:
    return open_stream("anthropic", call=Call(model="m"))


def sse(document: dict[str, Any]) -> bytes:
    return f"event: {document['type']}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def delta(type: str, **said: Any) -> bytes:
    return sse({"type": "content_block_delta", "index": 0, "delta": {"type": type, **said}})


def start(type: str, **said: Any) -> bytes:
    return sse({"type": "content_block_start", "index": 0, "content_block": {"type": type, **said}})


def types(events: Iterable[Event]) -> list[str]:
    return [event.document["type"] for event in events]


def whole(kind: Kind, index: str) -> Channel:
    return Channel(0, kind, index, repeated=True)


# Reading


def test_a_recorded_stream(stream: DialectStream, play: Play, join: Join) -> None:
    events = play(stream, RECORDED)
    assert list(join(events)) == [TEXT]
    assert [end for event in events for end in event.ends] == [Channel(0, None, 0), EVERY_BLOCK, EVERY_CHANNEL]
    assert all(event.known for event in events)


def test_usage_counts_what_the_cache_spared_the_model(stream: DialectStream, play: Play) -> None:
    assert [event.usage for event in play(stream, RECORDED) if event.usage] == [Usage(14, 0), Usage(None, 12)]


def test_thinking_text_and_tools(stream: DialectStream, play: Play, join: Join) -> None:
    events = play(stream, TOOLS)
    assert join(events) == {
        Channel(0, Kind.REASONING, 0): "The user asks for weather.",
        Channel(0, Kind.TEXT, 1): "Okay, let's check.",
        Channel(0, Kind.TOOL_ARGUMENTS, 2): '{"city": "Zürich"}',
        whole(Kind.TEXT, "2/name"): "get_weather",
    }
    ends = [end for event in events for end in event.ends]
    assert ends == [Channel(0, None, 0), Channel(0, None, 1), Channel(0, None, 2), EVERY_BLOCK, EVERY_CHANNEL]
    assert all(event.known for event in events)


@pytest.mark.parametrize(
    ("raw", "deltas"),
    [
        (delta("text_delta", text="a"), [(TEXT, "a")]),
        (delta("text_delta", text=""), []),
        (delta("thinking_delta", thinking="a"), [(Channel(0, Kind.REASONING, 0), "a")]),
        (delta("input_json_delta", partial_json="{"), [(Channel(0, Kind.TOOL_ARGUMENTS, 0), "{")]),
        (delta("signature_delta", signature="c2ln"), []),
        (
            delta("citations_delta", citation={"type": "char_location", "cited_text": "c", "document_index": 0}),
            [(whole(Kind.TEXT, "0/citation/cited_text"), "c")],
        ),
        (
            delta("compaction_delta", content="sum", encrypted_content="gAAA"),
            [(Channel(0, Kind.TEXT, "0/content"), "sum")],
        ),
        (start("text", text="a"), [(TEXT, "a")]),
        (start("thinking", thinking="a", signature="c2ln"), [(Channel(0, Kind.REASONING, 0), "a")]),
        (start("tool_use", id="t", name="f", input={}), [(whole(Kind.TEXT, "0/name"), "f")]),
        (start("tool_use", id="t", input={"id": 4}), [(whole(Kind.TOOL_ARGUMENTS, 0), '{"id":4}')]),
        (start("tool_use", id="t", input=4), [(whole(Kind.TOOL_ARGUMENTS, 0), "4")]),
        (start("tool_use", id="t", input="x"), [(whole(Kind.TOOL_ARGUMENTS, 0), "x")]),
        (start("redacted_thinking", data="gAAA"), []),
        (
            start("web_search_tool_result", tool_use_id="t", content=[{"type": "r", "title": "w", "url": "u"}]),
            [(whole(Kind.TEXT, "0/content/0/title"), "w"), (whole(Kind.TEXT, "0/content/0/url"), "u")],
        ),
        (
            sse({"type": "message_start", "message": {"id": "m", "content": [{"type": "text", "text": "a"}]}}),
            [(TEXT, "a")],
        ),
        (
            sse({"type": "message_delta", "delta": {"stop_details": {"type": "refusal", "explanation": "no"}}}),
            [
                (whole(Kind.TEXT, "/delta/stop_details/type"), "refusal"),
                (whole(Kind.TEXT, "/delta/stop_details/explanation"), "no"),
            ],
        ),
        (sse({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": "x"}}), []),
        (sse({"type": "ping"}), []),
        (sse({"type": "new_event", "index": 3}), []),
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


def test_a_compaction_comes_whole_and_what_is_new_ends_with_its_block(stream: DialectStream) -> None:
    summary = stream.event(delta("compaction_delta", content="sum"))
    assert list(summary.ends) == [summary.deltas[0][0]]
    new = stream.event(delta("new_delta", words=["a"]))
    assert list(new.ends) == []
    (stop,) = stream.event(sse({"type": "content_block_stop", "index": 0})).ends
    assert stop.covers(new.deltas[0][0])
    assert EVERY_BLOCK.covers(new.deltas[0][0])


def test_what_tools_and_people_fill_has_no_words_of_the_api(stream: DialectStream) -> None:
    filled = {"name": "a", "role": "b", "type": "tool_result"}
    event = stream.event(start("mcp_tool_result", content=[filled], new={"type": "c"}))
    assert [text for _, text in event.deltas] == ["a", "b", "c"]
    event = stream.event(sse({"type": "message_delta", "metadata": {"name": "a"}, "container": {"id": "b"}}))
    assert [text for _, text in event.deltas] == ["a"]


@pytest.mark.parametrize(
    "document",
    [
        {"type": "new_event", "note": "secret"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "secret"}},
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "secret"}}]},
        {"completion": "secret"},
        ["secret"],
        "secret",
        {"type": 7},
    ],
)
def test_what_may_have_a_text_that_is_not_seen_is_unknown(document: Any, stream: DialectStream) -> None:
    """As are the events of another dialect: a policy that has to see the text fails closed."""
    event = stream.event(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert (event.known, list(event.deltas), list(event.ends)) == (False, [], [])


@pytest.mark.parametrize("type", [{"type": "error"}, {}])
def test_an_error_ends_everything_and_is_text(type: dict[str, str], stream: DialectStream) -> None:
    document = {**type, "error": {"message": "Overloaded"}}
    event = stream.event(b"event: error\ndata: " + json.dumps(document).encode() + b"\n\n")
    assert event.deltas == [(whole(Kind.TEXT, "/error/message"), "Overloaded")]
    assert list(event.ends) == [EVERY_CHANNEL]
    with pytest.raises(ValueError, match="continued"):
        event.continuation(event.deltas[0][0], "more")
    stream.delivered([event])
    assert stream.finished


# Whole replies


def test_a_whole_reply(open_stream: Open, play: Play) -> None:
    (event,) = play(open_stream("anthropic", "application/json"), "llama_cpp/messages.json")
    ((channel, text),) = event.deltas
    assert (channel, bool(text)) == (TEXT, True)
    assert (list(event.ends), event.usage) == ([EVERY_CHANNEL], Usage(14, 12))
    rewritten = event.with_deltas([(channel, "")])
    assert rewritten is not None
    assert rewritten.document == {**event.document, "content": [{"type": "text", "text": ""}]}


def test_a_whole_reply_with_a_tool(open_stream: Open) -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"city": ["b", 1.50]}}
    blocks = [{"type": "text", "text": "a"}, call]
    event = open_stream("anthropic", "application/json").event(
        json.dumps({"type": "message", "model": "m", "content": blocks}).replace("1.5", "1.50").encode()
    )
    arguments = Channel(0, Kind.TOOL_ARGUMENTS, 1)
    name = whole(Kind.TEXT, "1/name")
    assert event.deltas == [(TEXT, "a"), (name, "f"), (arguments, '{"city":["b",1.50]}')]
    rewritten = event.with_deltas([(TEXT, "a"), (name, "f"), (arguments, '{"town":["b",1.50]}')])
    assert rewritten is not None
    assert b'{"town":["b",1.50]}' in rewritten.raw


def test_a_body_of_another_shape_is_all_text(open_stream: Open) -> None:
    event = open_stream("anthropic", "application/json").event(b'{"error":{"message":"no"}}')
    assert event.deltas == [(Channel(0, Kind.TEXT, "/error/message"), "no")]


def test_other_content_types_are_generic(open_stream: Open) -> None:
    assert open_stream("anthropic", "text/plain").event(b"hello").deltas == [(Channel(0, Kind.TEXT, ""), "hello")]


# Rewriting and continuing


def test_an_error_that_says_nothing_any_more_still_ends_the_stream(stream: DialectStream) -> None:
    document = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}, "error": {"message": "no"}}
    event = stream.event(sse(document))
    rewritten = event.with_deltas([(event.deltas[0][0], "")])
    assert rewritten is not None
    assert (rewritten.document["error"], list(rewritten.ends)) == ({"message": ""}, [EVERY_CHANNEL])


def test_what_a_message_began_with_goes_on_in_a_delta(stream: DialectStream) -> None:
    content = [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}]
    event = stream.event(sse({"type": "message_start", "message": {"id": "m", "content": content}}))
    thought = Channel(0, Kind.REASONING, 1)
    continued = event.continuation(thought, "more")
    assert continued.deltas == stream.event(continued.raw).deltas == [(thought, "more")]
    assert (continued.document["type"], continued.document["index"]) == ("content_block_delta", 1)


@pytest.mark.parametrize("fixture", [RECORDED, TOOLS])
def test_texts_are_rewritten_withheld_and_continued(fixture: str, stream: DialectStream, play: Play) -> None:
    for event in play(stream, fixture):
        for channel, _ in () if event.document["type"] == "content_block_start" else event.deltas:
            rewritten = event.with_deltas([(channel, "né")])
            assert rewritten is not None
            assert stream.event(rewritten.raw).deltas == [(channel, "né")]
            assert event.with_deltas([(channel, "")]) is None
            assert event.continuation(channel, "né").raw == rewritten.raw


def test_a_delta_that_says_more_than_a_text_passes(stream: DialectStream) -> None:
    event = stream.event(delta("compaction_delta", content="sum", encrypted_content="gAAA"))
    rewritten = event.with_deltas([(event.deltas[0][0], "")])
    assert rewritten is not None
    assert rewritten.document["delta"]["encrypted_content"] == "gAAA"


@pytest.mark.parametrize(
    ("raw", "continued"),
    [
        (start("text", text="a", citations=[]), delta("text_delta", text="b")),
        (start("thinking", thinking="a", signature="x"), delta("thinking_delta", thinking="b")),
        (delta("new_delta", words="a"), delta("new_delta", words="b")),
        (delta("new_delta", words={"x": "a", "y": ""}), delta("new_delta", words={"x": "b", "y": ""})),
    ],
)
def test_what_an_event_began_goes_on_in_deltas(raw: bytes, continued: bytes, stream: DialectStream) -> None:
    event = stream.event(raw)
    channel = event.deltas[0][0]
    more = event.continuation(channel, "b")
    assert more.document == stream.event(continued).document
    assert stream.event(more.raw).deltas == more.deltas == [(channel, "b")]


def test_a_text_that_only_comes_whole_cannot_be_continued(stream: DialectStream) -> None:
    event = stream.event(start("tool_use", id="t", name="f", input={"city": "x"}))
    with pytest.raises(ValueError, match="whole"):
        event.continuation(event.deltas[0][0], "more")


# Ends


@pytest.mark.parametrize("fixture", [RECORDED, TOOLS])
def test_wherever_it_is_cut_it_ends_as_at_the_length_limit(fixture: str, open_stream: Open, play: Play) -> None:
    for cut in range(len(play(open_stream("anthropic"), fixture))):
        stream = open_stream("anthropic", call=Call(model="m"))
        delivered = play(stream, fixture)[:cut]
        stream.delivered(delivered)
        ending = stream.ending(Ending.LENGTH, SILENCE)
        said = types([*delivered, *ending])
        for once in ("message_start", "message_delta", "message_stop"):
            assert said.count(once) == 1
        assert said.count("content_block_start") == said.count("content_block_stop")
        assert (said[0], said[-1]) == ("message_start", "message_stop")
        assert all(event.raw.startswith(f"event: {event.document['type']}\n".encode()) for event in ending)
        stream.delivered(ending)
        assert stream.finished
        assert stream.ending(Ending.LENGTH, SILENCE) == []


def test_where_the_upstream_left_out_the_start_the_ending_does_not_come_with_it(
    stream: DialectStream, play: Play
) -> None:
    """Some of llama.cpp's streams begin with the first block; a start in the middle would begin a second message."""
    stream.delivered(play(stream, RECORDED)[1:4])
    assert types(stream.ending(Ending.LENGTH, SILENCE)) == ["content_block_stop", "message_delta", "message_stop"]


def test_a_ping_is_no_start(stream: DialectStream, play: Play) -> None:
    ping = stream.comment()
    assert ping is not None
    stream.delivered([ping, *play(stream, b": c\n\n")])
    assert types(stream.ending(Ending.LENGTH, SILENCE))[0] == "message_start"


def test_an_ending_states_the_usage(stream: DialectStream, play: Play) -> None:
    """What a policy has counted; else what the upstream said last."""
    stream.delivered(play(stream, TOOLS)[:4])
    assert stream.ending(Ending.LENGTH, SILENCE)[-2].document["usage"] == {"output_tokens": 2}
    stream.counted = Usage(7, 5)
    assert stream.ending(Ending.LENGTH, SILENCE)[-2].document["usage"] == {"output_tokens": 5}


def test_an_error_ending(stream: DialectStream, play: Play) -> None:
    stream.delivered(play(stream, RECORDED)[:4])
    (event,) = stream.ending(Ending.ERROR, SILENCE)
    assert event.raw.startswith(b"event: error\ndata: ")
    assert event.document["error"]["type"] == "timeout_error"
    stream.delivered([event])
    assert stream.ending(Ending.ERROR, SILENCE) == []


def test_a_whole_reply_has_nothing_to_end(open_stream: Open, play: Play) -> None:
    stream = open_stream("anthropic", "application/json")
    assert stream.ending(Ending.LENGTH, SILENCE)[0].document["type"] == "error"
    stream.delivered(play(stream, "llama_cpp/messages.json"))
    assert stream.ending(Ending.LENGTH, SILENCE) == []
    assert stream.comment() is None


def test_doubled_terminals_are_harmless(stream: DialectStream, play: Play) -> None:
    events = play(stream, RECORDED)
    stream.delivered([*events, *events[-3:], *play(stream, b"data: {\n\n")])
    assert stream.finished
    assert stream.ending(Ending.LENGTH, SILENCE) == []


def test_heartbeats_are_the_apis_own(stream: DialectStream) -> None:
    ping = stream.comment()
    assert ping is not None
    assert ping.raw == b'event: ping\ndata: {"type":"ping"}\n\n'
    assert (list(ping.deltas), list(ping.ends), ping.known) == ([], [], True)


# Anthropic's own client


def cut_body(stream: DialectStream, play: Play, ending: Ending, delivered: int) -> bytes:
    events = play(stream, TOOLS)[:delivered]
    stream.delivered(events)
    ping = stream.comment()
    assert ping is not None
    return b"".join(event.raw for event in (ping, *events, ping, *stream.ending(ending, SILENCE)))


@pytest.mark.parametrize("delivered", [0, 1, 4, 9, 14])
def test_anthropics_accumulator_takes_a_cut_for_the_length_limit(
    delivered: int, stream: DialectStream, play: Play, join: Join, serve: Serve
) -> None:
    url = serve(200, "text/event-stream", cut_body(stream, play, Ending.LENGTH, delivered)).removesuffix("/v1")
    with (
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as sdk,
        sdk.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]) as events,
    ):
        message = events.get_final_message()
    assert message.stop_reason == "max_tokens"
    text = "".join(block.text for block in message.content if block.type == "text")
    joined = join(play(stream, TOOLS)[:delivered])
    assert text == joined.get(Channel(0, Kind.TEXT, 1), "")


@pytest.mark.parametrize("delivered", [0, 4])
def test_anthropics_client_raises_at_an_error_ending(
    delivered: int, stream: DialectStream, play: Play, serve: Serve
) -> None:
    url = serve(200, "text/event-stream", cut_body(stream, play, Ending.ERROR, delivered)).removesuffix("/v1")
    with (
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as sdk,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        list(sdk.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}], stream=True))
    assert "upstream_silence" in str(caught.value.body)


@pytest.mark.parametrize(
    ("details", "raised"),
    [
        ("malformed_body", anthropic.BadRequestError),
        ("unauthorized", anthropic.AuthenticationError),
        ("stopped", anthropic.PermissionDeniedError),
        ("no_route", anthropic.NotFoundError),
        ("body_timeout", anthropic.APIStatusError),
        ("body_too_large", anthropic.APIStatusError),
        ("request_rate", anthropic.RateLimitError),
        ("client_gone", anthropic.APIStatusError),
        ("upstream_reset", anthropic.InternalServerError),
        ("draining", anthropic.InternalServerError),
        ("deadline", anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_anthropics_client_raises_its_own_error(
    details: str, raised: type[anthropic.APIStatusError], streamed: bool, serve: Serve
) -> None:
    problem = Problem.of(details)
    url = serve(problem.status, *Anthropic().error_body(problem)).removesuffix("/v1")
    messages: list[Any] = [{"role": "user", "content": "Hi"}]
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as sdk, pytest.raises(raised) as caught:
        sdk.messages.create(model="m", max_tokens=9, messages=messages, stream=streamed)
    assert caught.value.status_code == problem.status
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["details"]["error_code"] == details


# Requests and errors


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        ("/v1/messages", True),
        ("/v1/messages/", True),
        ("/anthropic/v1/messages", True),
        ("/v1/messages/count_tokens", True),
        ("/v1/messages/batches", False),
        ("/v1/threads/thread_1/messages", False),
        ("/v1/mymessages", False),
        (VERTEX, True),
        (VERTEX.replace("streamRawPredict", "rawPredict"), True),
        (VERTEX.replace("anthropic", "mistralai"), False),
    ],
)
def test_which_paths_speak_it(path: str, matches: bool) -> None:
    assert Anthropic().matches(path) is matches


def test_vertex_has_the_model_in_the_path(ask: Ask) -> None:
    call = ask("auto", b'{"anthropic_version":"vertex-2023-10-16","stream":true,"messages":[]}', VERTEX)
    assert (call.model, call.stream) == ("claude-sonnet-4-5@20250929", True)


def test_what_a_request_asks(ask: Ask) -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "iVBO"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "o"}, image]}
    body = {
        "model": "m",
        "stream": True,
        "max_tokens": 20,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": "plain"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "t"},
                    image,
                    {"type": "document", "title": "d", "source": {"type": "text", "data": "page"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "h", "signature": "c2ln"},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {"city": "c"}},
                ],
            },
            {"role": "user", "content": [result, {"type": "tool_result", "tool_use_id": "u", "content": "p"}]},
        ],
    }
    call = ask("anthropic", json.dumps(body).encode())
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("m", True, 1, 20)
    assert call.texts == ["s", "plain", "t", "d", "page", "h", '{"city":"c"}', "o", "p"]
    assert call.document == body


def test_a_system_prompt_of_one_text(ask: Ask) -> None:
    assert ask("anthropic", b'{"system":"s","messages":[]}').texts == ["s"]


@pytest.mark.parametrize(
    "body", ["[]", '{"messages":7}', '{"messages":[7]}', '{"messages":[{"content":[7,{"text":7}]}]}', None]
)
def test_a_request_of_another_shape_has_no_texts(body: str | None, ask: Ask) -> None:
    assert list(ask("anthropic", body.encode() if body is not None else None).texts) == []


def test_a_message_that_nests_too_deeply_is_left_out(ask: Ask) -> None:
    deep = "[" * 70 + '"x"' + "]" * 70
    assert ask("anthropic", b'{"messages":[{"content":%s},{"content":"y"}]}' % deep.encode()).texts == ["y"]


def test_usage_is_always_stated() -> None:
    dialect, body = Anthropic(), b'{"stream":true}'
    request = Request(id="1", method="POST", path="/", headers=CIMultiDict(), dialect=dialect, body=body)
    assert not dialect.ask_for_usage(request)
    assert request.body == body


@pytest.mark.parametrize(
    ("details", "type"),
    [
        ("unauthorized", "authentication_error"),
        ("stopped", "permission_error"),
        ("no_route", "not_found_error"),
        ("body_timeout", "timeout_error"),
        ("body_too_large", "request_too_large"),
        ("malformed_body", "invalid_request_error"),
        ("request_rate", "rate_limit_error"),
        ("client_gone", "invalid_request_error"),
        ("policy_error", "api_error"),
        ("upstream_reset", "api_error"),
        ("draining", "overloaded_error"),
        ("deadline", "timeout_error"),
    ],
)
def test_the_error_body_is_anthropics(details: str, type: str) -> None:
    problem = Problem.of(details)
    content_type, body = Anthropic().error_body(problem)
    assert content_type == "application/json"
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": type, "message": problem.message, "details": {"error_code": details}},
    }
