"""What the streams of all dialects do alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from multidict import CIMultiDict

from proxy.dialects.base import Channel, DialectStream, Kind, Usage
from proxy.dialects.stream import framing_of, media_type, usage_of
from proxy.errors import UpstreamGarbage
from proxy.framing import Event, Framing
from proxy.messages import ResponseHead

Open = Callable[..., DialectStream]
DIALECTS = ["openai-chat", "openai-completions", "generic"]


@pytest.mark.parametrize(
    ("content_type", "framing"),
    [
        ("text/event-stream", Framing.SSE),
        ("Text/Event-Stream; charset=utf-8", Framing.SSE),
        ("application/x-ndjson", Framing.NDJSON),
        ("application/jsonl", Framing.NDJSON),
        ("application/x-jsonl", Framing.NDJSON),
        ("application/json-lines", Framing.NDJSON),
        ("application/json; charset=utf-8", Framing.JSON),
        ("application/problem+json", Framing.JSON),
        ("text/plain", Framing.OPAQUE),
        ("application/octet-stream", Framing.OPAQUE),
        ("", Framing.OPAQUE),
    ],
)
def test_the_content_type_decides_the_framing(content_type: str, framing: Framing, open_stream: Open) -> None:
    assert framing_of(ResponseHead(200, CIMultiDict({"Content-Type": content_type}))) is framing
    for dialect in DIALECTS:
        assert open_stream(dialect, content_type).framing is framing


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}, Usage(3, 5)),
        ({"usage": {"input_tokens": 3, "output_tokens": 5}}, Usage(3, 5)),
        ({"usage": {"output_tokens": 5}}, Usage(None, 5)),
        ({"usage": {"prompt_tokens": 3, "total_tokens": 3}}, Usage(3, 0)),  # embeddings
        ({"usage": {"total_tokens": 3}}, Usage(None, None)),
        ({"usage": {"prompt_tokens": "3", "completion_tokens": 5.0, "total_tokens": True}}, Usage(None, None)),
        ({"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 5}}}, Usage(3, 5)),
        ({"type": "response.created", "response": {"usage": None}}, None),
        ({"model": "m", "done": True, "prompt_eval_count": 3, "eval_count": 5}, Usage(3, 5)),  # Ollama
        ({"response": "text", "done": True, "eval_count": 5}, Usage(None, 5)),
        ({"response": "text", "done": False}, None),
        ({"usage": None}, None),
        ({"usage": 7}, None),
        ({}, None),
        ([], None),
        ("usage", None),
    ],
)
def test_the_usage_that_a_document_states(document: object, usage: Usage | None) -> None:
    assert usage_of(document) == usage


def test_a_reply_without_content_type_is_opaque() -> None:
    assert media_type(ResponseHead(200)) == ""
    assert framing_of(ResponseHead(200)) is Framing.OPAQUE


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_framer_is_bounded(dialect: str, open_stream: Open) -> None:
    framer = open_stream(dialect).framer(10)
    with pytest.raises(UpstreamGarbage) as caught:
        framer.feed(b"data: 12345678")
    assert caught.value.details == "event_too_large"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_comment_says_nothing(dialect: str, open_stream: Open) -> None:
    stream = open_stream(dialect)
    comment = stream.comment()
    assert comment is not None
    assert comment.raw == b": keep-alive\n\n"
    assert (comment.deltas, comment.ends, comment.known) == ((), (), True)
    assert stream.event(comment.raw).known
    assert comment.with_deltas([]) is comment


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_comment_ends_no_event_once_the_stream_has_ids(dialect: str, open_stream: Open) -> None:
    """The SDKs would dispatch an empty event at its blank line: the id makes them think that there is one."""
    stream = open_stream(dialect)
    event = stream.event(b'id: 1\ndata: {"choices":[{"index":0,"delta":{}}]}\n\n')
    comment = stream.comment()
    assert comment is not None
    stream.delivered([event, comment])
    comment = stream.comment()
    assert comment is not None
    assert comment.raw == b": keep-alive\n"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson", "text/plain", "image/png"])
def test_only_server_sent_events_have_comments(dialect: str, content_type: str, open_stream: Open) -> None:
    assert open_stream(dialect, content_type).comment() is None


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_document_of_an_event(dialect: str, open_stream: Open) -> None:
    stream = open_stream(dialect)
    assert stream.event(b'data: {"a":1.5}\n\n').document == {"a": 1.5}
    assert stream.event(b": c\n\n").document is None
    assert stream.event(b"data: {\n\n").document is None
    assert open_stream(dialect, "application/json").event(b' {"a":1}\n').document == {"a": 1}
    assert open_stream(dialect, "image/png").event(b"{}").document is None


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "raw",
    [b"data: {\n\n", b'data: {"a":"\xff"}\n\n', b"data: " + b"[" * 99_999 + b"]" * 99_999 + b"\n\n"],
    ids=["broken", "no UTF-8", "deep"],
)
def test_what_is_no_document_is_unknown_or_text(dialect: str, raw: bytes, open_stream: Open) -> None:
    """What parses as nothing must never look like an event without texts: a policy would let it pass unread."""
    event = open_stream(dialect).event(raw)
    readable = dialect == "generic" and b"\xff" not in raw
    assert event.known is readable
    assert bool(event.deltas) is readable


@pytest.mark.parametrize("dialect", DIALECTS)
def test_rewriting_keeps_everything_else(dialect: str, open_stream: Open) -> None:
    raw = b': c\r\nid: 7\r\ndata: { "x" : "a",\r\ndata: "n": 1.50, "y": "b" }\r\nevent: e\r\n\r\n'
    event = open_stream(dialect).event(raw)
    (x, _), (y, _) = event.deltas
    rewritten = event.with_deltas([(x, "new"), (y, "")])
    assert rewritten is not None
    assert rewritten.raw == b': c\r\nid: 7\r\ndata: {"x":"new","n":1.50,"y":""}\r\nevent: e\r\n\r\n'
    assert rewritten.deltas == [(x, "new")]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_rewriting_with_the_same_texts_changes_nothing(dialect: str, open_stream: Open) -> None:
    event = open_stream(dialect).event(b'data: { "x" : "a" }\n\n')
    assert event.with_deltas(list(event.deltas)) is event


def test_rewriting_needs_the_channels_of_the_event(open_stream: Open) -> None:
    event = open_stream("generic").event(b'data: {"x":"a"}\n\n')
    for deltas in ([], [(Channel(0, Kind.TEXT, "/y"), "b")], [*event.deltas, *event.deltas]):
        with pytest.raises(ValueError, match="each channel"):
            event.with_deltas(deltas)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json", "text/plain"])
def test_only_what_is_there_can_be_continued(dialect: str, content_type: str, open_stream: Open) -> None:
    event: Event = open_stream(dialect, content_type).event(b'data: {"x":"a"}\n\n')
    with pytest.raises(ValueError, match="continued"):
        event.continuation(Channel(0, Kind.TEXT, "/no-such"), "b")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_whole_body_cannot_be_continued(dialect: str, open_stream: Open) -> None:
    event = open_stream(dialect, "application/json").event(b'{"x":"a"}')
    with pytest.raises(ValueError, match="continued"):
        event.continuation(event.deltas[0][0], "b")
