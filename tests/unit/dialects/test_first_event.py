"""Where the path says nothing, the first event of the reply tells whose it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from rigs.wires import JSON, NDJSON, SSE, WIRES, WORDS, Wire

from proxy.dialects import DIALECTS, choose
from proxy.dialects.base import Call, Channel, DialectStream, Kind, Usage
from proxy.errors import Problem
from proxy.framing import Event
from proxy.messages import Headers, ResponseHead
from proxy.policy import Ending

Play = Callable[..., list[Event]]

PROBLEM = Problem.of("token_limit")
COMMENT = b": hello\n\n"
KNOWN = [wire for wire in WIRES if wire.dialect != "generic" and not wire.array]
EVERY_KNOWN = pytest.mark.parametrize("wire", KNOWN, ids=[wire.name for wire in KNOWN])


def open_unknown(media_type: str = SSE, call: Call | None = None) -> DialectStream:
    """A reply to a request for a path that says nothing."""
    return choose("auto", "/speak").open(_head(media_type), call or Call())


def _head(media_type: str) -> ResponseHead:
    return ResponseHead(200, Headers({"Content-Type": media_type}))


def raws(events: Iterable[Event]) -> list[bytes]:
    return [event.raw for event in events]


def begun(stream: DialectStream, wire: Wire) -> list[Event]:
    """Its first two texts, delivered."""
    said = wire.stream(WORDS, False)
    framer = stream.framer(1 << 20)
    events = [stream.event(raw) for raw in framer.feed(said.opening + b"".join(said.deltas[:2]))]
    stream.delivered(events)
    return events


@EVERY_KNOWN
def test_a_stream_is_read_and_ended_as_its_own_dialect_would(wire: Wire) -> None:
    told, own = open_unknown(wire.media_type), DIALECTS[wire.dialect].open(_head(wire.media_type), Call())
    assert [event.deltas for event in begun(told, wire)] == [event.deltas for event in begun(own, wire)]
    for ending in Ending:
        assert raws(told.ending(ending, PROBLEM)) == raws(own.ending(ending, PROBLEM)) != []


@EVERY_KNOWN
def test_a_whole_reply_is_read_as_its_own_dialect_would(wire: Wire, play: Play) -> None:
    told, own = open_unknown(JSON), DIALECTS[wire.dialect].open(_head(JSON), Call())
    (event,), (same,) = play(told, wire.whole(WORDS)), play(own, wire.whole(WORDS))
    assert (event.deltas, event.usage) == (same.deltas, same.usage)
    assert event.usage is not None


@EVERY_KNOWN
def test_a_stream_that_is_complete_has_ended(wire: Wire, play: Play) -> None:
    stream = open_unknown(wire.media_type)
    events = play(stream, wire.stream(WORDS, False).body)
    assert not stream.finished
    stream.delivered(events)
    assert stream.finished
    assert stream.terminates


def test_comments_tell_nothing() -> None:
    stream = open_unknown()
    stream.delivered([stream.event(COMMENT), stream.event(b"\n\n")])
    begun(stream, KNOWN[0])
    assert b'"finish_reason":"length"' in b"".join(raws(stream.ending(Ending.LENGTH, PROBLEM)))


@pytest.mark.parametrize(
    "first", [b"data: hello\n\n", b'data: {"text": "hello"}\n\n', b'data: "hello"\n\n', b"data: [DONE]\n\n"]
)
def test_only_the_first_event_tells(first: bytes) -> None:
    stream = open_unknown()
    stream.delivered([stream.event(first)])
    begun(stream, KNOWN[0])
    assert b"finish_reason" not in b"".join(raws(stream.ending(Ending.LENGTH, PROBLEM)))


def test_a_framing_that_the_dialect_does_not_have_stays_generic(play: Play) -> None:
    """Chat completions in lines: nobody's, so every string is a text."""
    (event,) = play(open_unknown(NDJSON), b'{"object":"chat.completion.chunk","choices":[]}\n')
    assert event.deltas == [(Channel(0, Kind.TEXT, "/object"), "chat.completion.chunk")]


def test_a_route_that_says_generic_is_generic(play: Play) -> None:
    stream = choose("generic", "/speak").open(_head(SSE), Call())
    begun(stream, KNOWN[0])
    assert b"finish_reason" not in b"".join(raws(stream.ending(Ending.LENGTH, PROBLEM)))


def test_what_was_counted_is_said_in_the_ending() -> None:
    stream = open_unknown(call=Call(wants_usage=True))
    begun(stream, KNOWN[0])
    stream.counted = Usage(5, 2)
    assert stream.counted == Usage(5, 2)
    assert stream.kept_as is None
    assert b'"completion_tokens":2' in b"".join(raws(stream.ending(Ending.LENGTH, PROBLEM)))


def test_bytes_of_no_kind_are_opaque() -> None:
    assert not open_unknown("image/png").framing.streaming


def test_texts_are_rewritten_by_the_dialect_that_was_told() -> None:
    stream = open_unknown()
    event = begun(stream, KNOWN[0])[-1]
    (channel, _), *_ = event.deltas
    rewritten = event.with_deltas([(channel, "x")])
    assert rewritten is not None
    assert stream.parse(rewritten.raw).deltas == stream.rewrite(event, [(channel, "x")]).deltas  # type: ignore[union-attr]
    assert stream.continuation(event, channel, "y").deltas == [(channel, "y")]
    assert stream.document(event.raw)["object"] == "chat.completion.chunk"
    assert stream.without_usage(event) is event
    assert stream.comment() is not None
