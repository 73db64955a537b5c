"""Bytes to events: whole, byte by byte and in two cuts, nothing lost, nothing changed, nothing unbounded."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxy.dialects import choose
from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, Kind
from proxy.errors import EventTooLarge, UpstreamGarbage, UpstreamTruncated
from proxy.framing import (
    Event,
    Framer,
    Framing,
    JSONArrayFramer,
    NDJSONFramer,
    OpaqueFramer,
    SSEFramer,
    WholeFramer,
    breaks_off,
    framer_for,
)
from proxy.messages import ResponseHead

LIMIT = 64


def feed(framer: Framer, *reads: bytes) -> tuple[list[bytes], bytes]:
    """(frames, what `finish` gives)."""
    frames = [frame for read in reads for frame in framer.feed(read)]
    return frames, framer.finish()


def byte_by_byte(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


SSE_CASES: dict[str, tuple[list[bytes], bytes]] = {
    "one event": ([b"data: a\n\n"], b""),
    "several": ([b"data: a\n\n", b"event: e\ndata: b\n\n", b": c\n\n"], b""),
    "CRLF": ([b"data: a\r\n\r\n", b"data: b\r\n\r\n"], b""),
    "CR": ([b"data: a\r\r", b"data: b\r\r"], b""),
    "LF then CRLF": ([b"data: a\n\r\n", b"data: b\r\n\n"], b""),
    "LF then CR": ([b"data: a\n\r", b"data: b\n\r", b"x\n\n"], b""),
    "CRLF then CR": ([b"data: a\r\n\r", b"data: b\r\n\r", b"x\n\n"], b""),
    "LF after CR CR is an empty line of the next": ([b"data: a\r\r", b"\ndata: b\n\n"], b""),
    "lines within an event": ([b"data: a\ndata: b\r\ndata: c\rdata: d\n\n"], b""),
    "blank lines between": ([b"data: a\n\n", b"\n\n", b"data: b\n\n"], b""),
    "an odd blank line": ([b"data: a\n\n", b"\ndata: b\n\n"], b""),
    "blank lines before": ([b"\n\n", b"data: b\n\n"], b""),
    "byte order mark": ([b"\xef\xbb\xbfdata: a\n\n"], b""),
    "not complete": ([b"data: a\n\n"], b"data: b\n"),
    "ends in the middle of a blank line": ([], b"data: b\r\n\r"),
    "nothing": ([], b""),
}


@pytest.mark.parametrize(("frames", "rest"), SSE_CASES.values(), ids=SSE_CASES)
def test_sse(frames: list[bytes], rest: bytes) -> None:
    body = b"".join(frames) + rest
    assert feed(SSEFramer(LIMIT), body) == (frames, rest)
    assert feed(SSEFramer(LIMIT), *byte_by_byte(body)) == (frames, rest)
    for cut in range(len(body)):
        assert feed(SSEFramer(LIMIT), body[:cut], body[cut:]) == (frames, rest)


def test_an_event_is_not_kept_waiting() -> None:
    """Its last byte completes it, but for a CR that may be half of a CRLF."""
    for event in (b"data: a\n\n", b"data: a\r\n\r\n", b"data: a\r\r", b"data: a\n\r\n"):
        assert SSEFramer(LIMIT).feed(event) == [event]
    framer = SSEFramer(LIMIT)
    assert framer.feed(b"data: a\n\r") == []
    assert framer.pending == 9
    assert framer.feed(b"d") == [b"data: a\n\r"]


@pytest.mark.parametrize(
    ("frames", "rest"),
    [
        ([b'{"a":1}\n', b'{"b":2}\n'], b""),
        ([b'{"a":1}\r\n', b"\r\n", b"\n"], b""),
        ([b'{"a":1}\n'], b'{"b":'),
        ([b'"a\rb"\n'], b""),
        ([], b"{}"),
        ([], b""),
    ],
)
def test_ndjson(frames: list[bytes], rest: bytes) -> None:
    body = b"".join(frames) + rest
    assert feed(NDJSONFramer(LIMIT), body) == (frames, rest)
    assert feed(NDJSONFramer(LIMIT), *byte_by_byte(body)) == (frames, rest)
    for cut in range(len(body)):
        assert feed(NDJSONFramer(LIMIT), body[:cut], body[cut:]) == (frames, rest)


ARRAY_CASES: dict[str, tuple[list[bytes], bytes]] = {
    "as Gemini spells it": ([b'[{\n "a": 1}', b"\n,\r\n{}", b"\n]"], b"\n"),
    "compact": ([b"[{}", b",{}", b"]"], b""),
    "empty": ([b" [ ]"], b""),
    "nested": ([b'[{"a":[{"b":{}}]}', b",[[]]", b"]"], b""),
    "brackets in strings": ([b'[{"a":"]}["}', b',{"}":"{"}', b"]"], b""),
    "escapes": ([rb'[{"a":"\""}', rb',{"a":"\\"}', rb',{"a":"\\\"]}"}', b"]"], b""),
    "elements without brackets": ([b'[1, "a]", {}', b", null]"], b""),
    "no array": ([b'{"a":[{}]}'], b"\n"),
    "neither": ([], b"null"),
    "nothing": ([], b""),
    "brackets that do not match": ([b"[{]", b"}"], b""),
    "brackets that were not opened": ([], b"]}"),
    "more after the end": ([b"[{}", b"]"], b" true"),
}


@pytest.mark.parametrize(("frames", "rest"), ARRAY_CASES.values(), ids=ARRAY_CASES)
def test_json_array(frames: list[bytes], rest: bytes) -> None:
    body = b"".join(frames) + rest
    assert feed(JSONArrayFramer(LIMIT), body) == (frames, rest)
    assert feed(JSONArrayFramer(LIMIT), *byte_by_byte(body)) == (frames, rest)
    for cut in range(len(body)):
        assert feed(JSONArrayFramer(LIMIT), body[:cut], b"", body[cut:]) == (frames, rest)


def test_an_element_is_not_kept_waiting() -> None:
    """It is there with its last bracket, whatever may come behind it."""
    framer = JSONArrayFramer(LIMIT)
    assert framer.feed(b'[{"a":1}') == [b'[{"a":1}']
    assert framer.pending == 0


@pytest.mark.parametrize("body", [b"[", b"[{}", b"[{},", b'[{"a":"]', b"[{}, {}\n", b'{"a":', b"[{]"])
def test_an_array_that_is_not_closed_was_cut(body: bytes) -> None:
    framer = JSONArrayFramer(LIMIT)
    framer.feed(body)
    with pytest.raises(UpstreamTruncated):
        framer.finish()


def test_a_whole_body_is_complete_at_its_end() -> None:
    framer = WholeFramer(LIMIT)
    assert feed(framer, b'{"a"', b"", b":1}") == ([], b'{"a":1}')
    assert (framer.pending, framer.finish()) == (0, b"")


def test_each_opaque_read_is_a_frame() -> None:
    assert feed(OpaqueFramer(), b"a", b"", b"bc") == ([b"a", b"bc"], b"")


# Bounds


@pytest.mark.parametrize("framing", [Framing.SSE, Framing.NDJSON, Framing.JSON_ARRAY, Framing.JSON])
@pytest.mark.parametrize("size", [1, 7, LIMIT + 10])
def test_an_event_over_the_limit_is_an_error_as_soon_as_that_is_known(framing: Framing, size: int) -> None:
    framer = framer_for(framing, LIMIT)
    for _ in range(LIMIT // size):
        framer.feed(b"x" * size)
    with pytest.raises(UpstreamGarbage) as caught:
        framer.feed(b"x" * size)
    assert caught.value.details == "event_too_large"
    assert "x" not in str(caught.value)


@pytest.mark.parametrize(
    ("framing", "end"), [(Framing.SSE, b"\n\n"), (Framing.SSE, b"\r\n\r\n"), (Framing.NDJSON, b"\n")]
)
def test_the_limit_counts_the_delimiter_and_is_exact(framing: Framing, end: bytes) -> None:
    fits = b"x" * (LIMIT - len(end)) + end
    assert framer_for(framing, LIMIT).feed(fits + fits) == [fits, fits]
    assert feed(framer_for(framing, LIMIT), *byte_by_byte(fits + fits)) == ([fits, fits], b"")
    for reads in ([b"x" + fits], [b"x" + fits, b"y"], byte_by_byte(b"x" + fits)):
        with pytest.raises(UpstreamGarbage):
            feed(framer_for(framing, LIMIT), *reads)


def test_the_limit_counts_what_stands_before_an_element() -> None:
    fits = b"[{%s}" % (b" " * (LIMIT - 3))
    assert JSONArrayFramer(LIMIT).feed(fits) == [fits]
    for reads in ([b" " + fits], byte_by_byte(b" " + fits)):
        framer = JSONArrayFramer(LIMIT)
        with pytest.raises(UpstreamGarbage):
            feed(framer, *reads)
        with pytest.raises(UpstreamGarbage):
            framer.finish()


def test_elements_before_one_that_is_too_large_are_given() -> None:
    body = b"[{},{}," + b"x" * LIMIT + b"{}]"
    framer = JSONArrayFramer(LIMIT)
    for before in ([b"[{}", b",{}"], []):
        with pytest.raises(EventTooLarge) as caught:
            framer.feed(body)
        assert list(caught.value.before) == before


def test_a_whole_body_may_be_as_long_as_the_limit() -> None:
    body = b"x" * LIMIT
    assert feed(WholeFramer(LIMIT), *byte_by_byte(body)) == ([], body)


def test_events_are_not_over_the_limit_because_a_read_is() -> None:
    events = [b"data: %d\n\n" % n for n in range(100)]
    assert SSEFramer(LIMIT).feed(b"".join(events)) == events
    lines = [b"%d\n" % n for n in range(100)]
    assert NDJSONFramer(LIMIT).feed(b"".join(lines)) == lines
    elements = [b"[{}", *[b",{}"] * 100, b"]"]
    assert JSONArrayFramer(LIMIT).feed(b"".join(elements)) == elements


def test_opaque_reads_have_no_limit() -> None:
    assert framer_for(Framing.OPAQUE, 1).feed(b"abc") == [b"abc"]


@pytest.mark.parametrize("framing", [Framing.SSE, Framing.NDJSON, Framing.JSON_ARRAY, Framing.JSON])
def test_what_waits_is_known(framing: Framing) -> None:
    framer = framer_for(framing, LIMIT)
    for waiting in range(20):
        assert framer.pending == waiting
        framer.feed(b"x")
    framer.finish()
    assert framer.pending == 0


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_a_frame_that_came_in_pieces_leaves_nothing_behind(end: bytes) -> None:
    framer = SSEFramer(LIMIT)
    for _ in range(3):
        frames = [frame for read in byte_by_byte(b"data: a" + end) for frame in framer.feed(read)]
        assert frames == [b"data: a" + end]
        assert framer.pending == 0


def test_only_streams_are_delivered_in_events() -> None:
    assert [framing for framing in Framing if framing.streaming] == [
        Framing.SSE,
        Framing.NDJSON,
        Framing.JSON_ARRAY,
    ]


# Events

RAW = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\n\n'
TEXT = Channel(0, Kind.TEXT, 0)


def event() -> Event:
    head = ResponseHead(200, CIMultiDict({"Content-Type": "text/event-stream"}))
    return choose("openai-chat", "/").open(head, Call()).event(RAW)


def test_an_event_is_read_at_most_once_and_only_if_asked() -> None:
    read = event()
    assert read.read is None
    assert read.deltas == [(TEXT, "hi")]
    assert read.read is not None
    parsed = read.parsed
    assert read.ends == [Channel(0, None, None)]
    assert read.ends != [EVERY_CHANNEL]
    assert read.usage is not None
    assert read.usage.input_tokens == 1
    assert read.known
    assert read.parsed is parsed
    assert read.raw == RAW


def test_an_events_document_is_a_copy() -> None:
    read = event()
    read.document["choices"].clear()
    assert read.document["choices"]
    assert read.read is None


def test_content_is_not_in_an_events_representation() -> None:
    assert repr(event()) == f"<Event of {len(RAW)} bytes>"


def test_with_deltas_makes_a_new_event() -> None:
    read = event()
    other = read.with_deltas([(TEXT, "ho")])
    assert other is not None
    assert (read.deltas, other.deltas) == ([(TEXT, "hi")], [(TEXT, "ho")])
    assert other.raw == RAW.replace(b"hi", b"ho")


def test_with_deltas_that_change_nothing_is_the_event_itself() -> None:
    read = event()
    assert read.with_deltas([(TEXT, "hi")]) is read


@pytest.mark.parametrize("deltas", [[], [(EVERY_CHANNEL, "a")], [(TEXT, "a"), (TEXT, "b")]])
def test_with_deltas_needs_the_events_own_channels(deltas: list[tuple[Channel, str]]) -> None:
    with pytest.raises(ValueError, match="channel"):
        event().with_deltas(deltas)


def test_a_continuation_adds_to_a_channel_and_ends_nothing() -> None:
    more = event().continuation(TEXT, "more")
    assert (more.deltas, list(more.ends), more.usage) == ([(TEXT, "more")], [], None)
    with pytest.raises(ValueError, match="channel"):
        event().continuation(EVERY_CHANNEL, "more")


@pytest.mark.parametrize("cuts", ["whole", "byte by byte", "in two"])
@pytest.mark.parametrize(("framing", "end"), [(Framing.SSE, b"\n\n"), (Framing.NDJSON, b"\n")])
def test_events_before_one_that_is_too_large_are_given_wherever_the_reads_are_cut(
    framing: Framing, end: bytes, cuts: str
) -> None:
    body = b"a" + end + b"b" + end + b"x" * (LIMIT + 1) + end + b"c" + end
    reads = {"whole": [body], "byte by byte": byte_by_byte(body), "in two": [body[:3], body[3:]]}[cuts]
    framer = framer_for(framing, LIMIT)
    frames: list[bytes] = []

    def feed_all() -> None:
        for read in reads:
            frames.extend(framer.feed(read))

    with pytest.raises(EventTooLarge) as caught:
        feed_all()
    frames.extend(caught.value.before)
    assert (frames, caught.value.details) == ([b"a" + end, b"b" + end], "event_too_large")
    with pytest.raises(UpstreamGarbage):
        framer.finish()


@pytest.mark.parametrize("whole", [b'{"a": ["}", {"b": "\\" ]\\\\"}]}', b'[1, {"a": "{"}, "]"]', b'{"a": "\xff"}'])
def test_a_document_breaks_off_before_its_last_bracket(whole: bytes) -> None:
    for place in range(1, len(whole)):
        assert breaks_off(whole[:place])
        assert breaks_off(b"\n " + whole[:place])
        assert breaks_off(b"{}\n" + whole[:place])
    for body in (whole, whole + b"\n", b"{}\n" + whole, whole + b" and more"):
        assert not breaks_off(body)


@pytest.mark.parametrize(
    "body", [b"", b" ", b"12", b'"a', b"null", b"<style>b {", b"it is [no JSON", b"]", b"[not] JSON"]
)
def test_what_is_no_document_does_not_break_off(body: bytes) -> None:
    assert not breaks_off(body)


@pytest.mark.parametrize(
    ("framing", "frame", "missing"),
    [
        (Framing.SSE, b"data: a\n\n", b""),
        (Framing.SSE, b"data: a\r\n\r\n", b""),
        (Framing.SSE, b"data: a\r\r", b""),
        (Framing.SSE, b"\n", b""),
        (Framing.SSE, b"data: a\n", b"\n"),
        (Framing.SSE, b"data: a\r\n", b"\n"),
        (Framing.SSE, b"data: a", b"\n\n"),
        (Framing.NDJSON, b"{}\n", b""),
        (Framing.NDJSON, b"{}", b"\n"),
        (Framing.JSON, b"{}", b""),
    ],
)
def test_what_the_last_frame_of_a_body_lacks(framing: Framing, frame: bytes, missing: bytes) -> None:
    assert framing.missing_end(frame) == missing
