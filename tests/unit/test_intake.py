"""The body on its way in: coding undone, events made, and what an early end looks like."""

from __future__ import annotations

import zlib

import pytest

from proxy.dialects import choose
from proxy.dialects.base import Call, DialectStream
from proxy.errors import UpstreamGarbage, UpstreamTruncated
from proxy.framing import Framing, SSEFramer
from proxy.intake import TURN_EVENTS, Intake, Unread
from proxy.messages import Headers, ResponseHead

SSE, NDJSON, JSON = "text/event-stream", "application/x-ndjson", "application/json"


def stream(media_type: str) -> DialectStream:
    return choose("generic", "/").open(ResponseHead(200, Headers({"Content-Type": media_type})), Call())


def intake(media_type: str = SSE, coding: str | None = None, *, ends_with_connection: bool = False) -> Intake:
    headers = Headers() if coding is None else Headers({"Content-Encoding": coding})
    reply = stream(media_type)
    made = Intake(reply, headers, event_bytes=100, reply_bytes=200, ends_with_connection=ends_with_connection)
    assert "Content-Encoding" not in headers
    return made


def gzip(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=31)
    return coder.compress(data) + coder.flush()


def test_a_read_gives_the_events_that_it_completes() -> None:
    body = intake()
    assert [event.raw for event in body.feed(b"data: a\n\ndata: b\n\ndata")] == [b"data: a\n\n", b"data: b\n\n"]
    assert [event.raw for event in body.feed(b": c\n\n")] == [b"data: c\n\n"]
    assert body.finish() == []
    assert not body.decodes


def test_a_whole_body_is_one_event_at_its_end() -> None:
    body = intake(JSON, ends_with_connection=True)
    assert body.feed(b'{"a":') == []
    assert body.feed(b'"b"}') == []
    assert [event.raw for event in body.finish()] == [b'{"a":"b"}']
    assert body.whole == b'{"a":"b"}'


def test_the_limit_is_that_of_an_event_in_a_stream_and_that_of_a_reply_in_a_whole_body() -> None:
    with pytest.raises(UpstreamGarbage) as caught:
        intake(SSE).feed(b"data: " + b"x" * 150 + b"\n\n")
    assert caught.value.details == "event_too_large"
    assert intake(JSON).feed(b"x" * 150) == []


def test_a_coded_body_is_decoded() -> None:
    body = intake(coding="gzip")
    coded = gzip(b"data: a\n\ndata: b\n\n")
    events = [event.raw for i in range(len(coded)) for event in body.feed(coded[i : i + 1])]
    assert events == [b"data: a\n\n", b"data: b\n\n"]
    assert body.decodes
    assert body.finish() == []


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_a_coding_that_cannot_be_undone_is_refused(coding: str) -> None:
    with pytest.raises(UpstreamGarbage) as caught:
        intake(coding=coding)
    assert caught.value.details == "upstream_coding"


def test_what_is_not_in_its_coding_is_refused() -> None:
    with pytest.raises(UpstreamGarbage) as caught:
        intake(coding="gzip").feed(b"data: a\n\n")
    assert caught.value.details == "upstream_coding"


def test_a_large_read_is_cut_as_its_events_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """To cut tens of thousands of tiny events takes longer than all that else is done in a turn."""

    class Counting(SSEFramer):
        cut = 0

        def feed(self, data: bytes) -> list[bytes]:
            self.cut += len(data)
            return super().feed(data)

    framer = Counting(100)
    reply = stream(SSE)
    monkeypatch.setattr(reply, "framer", lambda limit: framer)
    body = Intake(reply, Headers(), event_bytes=100, reply_bytes=200)
    events = [event.raw for event in body.feed(b"data: 1\n\n" * 30_000)]
    assert len(events) == TURN_EVENTS
    assert framer.cut < 30_000
    while body.more:
        events += [event.raw for event in body.go_on()]
    assert events == [b"data: 1\n\n"] * 30_000


def test_many_events_come_in_turns_and_lose_nothing() -> None:
    events = b": x\n\n" * 1000
    for body, read in ((intake(), events), (intake(coding="gzip"), gzip(events))):
        got = [body.feed(read)]
        while body.more:
            got.append(body.go_on())
        assert max(map(len, got)) == TURN_EVENTS
        assert b"".join(event.raw for turn in got for event in turn) == events


def test_what_comes_while_there_is_more_waits_behind_it() -> None:
    body = intake()
    got = [body.feed(b": x\n\n" * (TURN_EVENTS + 4)), body.feed(b"data: last\n\n")]
    while body.more:
        got.append(body.go_on())
    assert [len(turn) for turn in got] == [TURN_EVENTS, 4, 1]
    assert got[-1][0].raw == b"data: last\n\n"


def test_a_small_coded_read_that_stands_for_much_is_decoded_as_it_is_taken() -> None:
    body = intake(coding="gzip")
    assert len(body.feed(gzip(b": x\n\n" * 1_000_000))) == TURN_EVENTS
    assert body.more


def test_an_error_comes_after_what_stands_before_it() -> None:
    body = intake(coding="gzip")
    events = body.feed(gzip(b": x\n\n" * 20_000)[:-8] + b"garbage!")

    def go_on_to_the_end() -> None:
        while True:
            events.extend(body.go_on())

    with pytest.raises(UpstreamGarbage):
        go_on_to_the_end()
    assert len(events) > TURN_EVENTS
    assert not body.more  # it was told, once


@pytest.mark.parametrize("good", [1, 3, TURN_EVENTS + 1])
@pytest.mark.parametrize("end", [b"", b"\n\n: behind it\n\n"])
def test_an_event_that_is_too_large_is_told_behind_those_before_it_without_another_read(good: int, end: bytes) -> None:
    read = b": x\n\n" * good + b"data: " + b"x" * 150 + end
    for body, fed in ((intake(), read), (intake(coding="gzip"), gzip(read))):
        events = [*body.feed(fed)]
        while len(events) < good:
            events += body.go_on()
        assert [event.raw for event in events] == [b": x\n\n"] * good
        assert body.more
        with pytest.raises(UpstreamGarbage) as caught:
            body.go_on()
        assert caught.value.details == "event_too_large"
        assert not body.more


CHAT_OPEN = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
CHAT_STOP = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
CHAT_USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'


@pytest.mark.parametrize(
    ("events", "complete"),
    [
        ([CHAT_OPEN], False),
        ([CHAT_STOP, CHAT_OPEN, CHAT_OPEN, CHAT_OPEN, CHAT_OPEN], False),
        ([CHAT_OPEN, CHAT_STOP], True),
        ([CHAT_OPEN, CHAT_STOP, CHAT_USAGE], True),
        ([CHAT_OPEN, CHAT_STOP, CHAT_USAGE, b"data: [DONE]\n\n"], True),
    ],
)
def test_an_answer_without_an_end_is_an_early_end_only_where_nothing_else_says_that_this_is_the_end(
    events: list[bytes], complete: bool
) -> None:
    for ends_with_connection in (False, True):
        head = ResponseHead(200, Headers({"Content-Type": SSE}))
        stream = choose("openai-chat", "/").open(head, Call())
        body = Intake(
            stream, head.headers, event_bytes=1000, reply_bytes=1000, ends_with_connection=ends_with_connection
        )
        for event in events:
            body.feed(event)
        if complete or not ends_with_connection:
            assert body.finish() == []
        else:
            with pytest.raises(UpstreamTruncated):
                body.finish()


def test_a_coded_body_that_ends_too_early_is_truncated() -> None:
    body = intake(coding="gzip")
    body.feed(gzip(b"data: a\n\n")[:-4])
    with pytest.raises(UpstreamTruncated):
        body.finish()


def test_half_an_event_is_an_early_end_only_where_nothing_else_says_that_this_is_the_end() -> None:
    for media_type in (SSE, NDJSON):
        chunked, close_delimited = intake(media_type), intake(media_type, ends_with_connection=True)
        chunked.feed(b"data: a")
        close_delimited.feed(b"data: a")
        assert [event.raw for event in chunked.finish()] == [b"data: a"]
        with pytest.raises(UpstreamTruncated):
            close_delimited.finish()


def test_an_empty_line_at_the_end_is_no_half_event() -> None:
    body = intake(ends_with_connection=True)
    body.feed(b"data: a\n\n\n")
    assert [event.raw for event in body.finish()] == [b"\n"]


@pytest.mark.parametrize(
    ("framing", "headers", "passed", "expected"),
    [
        (Framing.SSE, {}, b"", True),
        (Framing.SSE, {}, b"data: a\n\n", True),
        (Framing.SSE, {}, b"data: a\r\n\r\n", True),
        (Framing.SSE, {}, b"data: a\n", False),
        (Framing.SSE, {}, b"\n", False),
        (Framing.NDJSON, {}, b"{}\n", True),
        (Framing.NDJSON, {}, b"{", False),
        (Framing.JSON, {}, b"{}\n\n", False),
        (Framing.OPAQUE, {}, b"\n\n", False),
        (Framing.SSE, {"Content-Length": "9"}, b"data: a\n\n", False),
        (Framing.SSE, {"Content-Encoding": "gzip"}, b"data: a\n\n", False),
    ],
)
def test_where_unread_bytes_could_be_added_to(
    framing: Framing, headers: dict[str, str], passed: bytes, expected: bool
) -> None:
    whole, in_bytes = (Unread(framing, Headers(headers)) for _ in range(2))
    whole.passed(passed)
    for byte in passed:
        in_bytes.passed(bytes([byte]))
    assert whole.between_events is in_bytes.between_events is expected


def gemini(*parts: bytes, media_type: str, ends_with_connection: bool = True) -> Intake:
    head = ResponseHead(200, Headers({"Content-Type": media_type}))
    reply = choose("gemini", "/").open(head, Call(stream=True))
    body = Intake(reply, head.headers, event_bytes=1000, reply_bytes=1000, ends_with_connection=ends_with_connection)
    for part in parts:
        body.feed(part)
    return body


def test_the_end_of_a_part_is_not_the_end_of_an_answer() -> None:
    call = b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"args":{"a":"b"}}}]}%s}]}\n\n'
    assert gemini(call % b',"finishReason":"STOP"', media_type=SSE).finish() == []
    with pytest.raises(UpstreamTruncated):
        gemini(call % b"", media_type=SSE).finish()


@pytest.mark.parametrize("ends_with_connection", [False, True])
def test_an_array_shows_itself_whether_it_is_complete(ends_with_connection: bool) -> None:
    closed = gemini(b"[{}", b",{}", b"]\n", media_type=JSON, ends_with_connection=ends_with_connection)
    assert [event.raw for event in closed.finish()] == [b"\n"]
    with pytest.raises(UpstreamTruncated):
        gemini(b"[{}", b",{}", media_type=JSON, ends_with_connection=ends_with_connection).finish()


@pytest.mark.parametrize("whole", [b'{"a": ["}", {"b": "\\"]"}]}', b' [1, {"a": "{"}]\n'])
def test_a_document_shows_whether_it_is_complete_where_nothing_else_does(whole: bytes) -> None:
    for cut in range(1, len(whole) + 1):
        body, half = intake(JSON, ends_with_connection=True), whole[:cut]
        body.feed(half)
        if cut >= len(whole.rstrip()) or not half.strip():
            body.finish()
        else:
            with pytest.raises(UpstreamTruncated):
                body.finish()
        said_to_be_whole = intake(JSON)
        said_to_be_whole.feed(half)
        said_to_be_whole.finish()


@pytest.mark.parametrize("body", [b"", b"null", b"12", b"<style>b {", b"it is [no JSON"])
def test_what_is_no_document_is_complete_when_it_ends(body: bytes) -> None:
    read = intake(JSON, ends_with_connection=True)
    read.feed(body)
    read.finish()


# What nobody reads


def test_a_witness_is_asked_no_more_after_the_read_that_is_over_its_limit() -> None:
    unread = Unread(Framing.SSE, Headers(), intake(ends_with_connection=True))
    unread.show(b"data: a\n\ndata: " + b"x" * 150)
    assert unread.witness is None


def witnessed(body: bytes, media_type: str = SSE, coding: str | None = None) -> Unread:
    unread = Unread(Framing.SSE, Headers(), intake(media_type, coding, ends_with_connection=True))
    for place in range(0, len(body), 7):
        unread.show(body[place : place + 7])
    return unread


@pytest.mark.parametrize(
    ("media_type", "whole", "part"),
    [
        (SSE, b"data: a\n\n", b"data: a\n\ndata"),
        (NDJSON, b'{"a":1}\n', b'{"a":1}\n{'),
        (JSON, b'{"a": "b"}', b'{"a": "b"'),
    ],
)
def test_a_witness_tells_a_part_from_the_whole(media_type: str, whole: bytes, part: bytes) -> None:
    for coding in (None, "gzip"):
        coded = gzip if coding else bytes
        witnessed(coded(whole), media_type, coding).finish()
        with pytest.raises(UpstreamTruncated):
            witnessed(coded(part), media_type, coding).finish()
    with pytest.raises(UpstreamTruncated):
        witnessed(gzip(whole)[:-9], media_type, "gzip").finish()


def test_what_has_no_witness_is_believed() -> None:
    unread = Unread(Framing.SSE, Headers())
    unread.show(b"data: a")
    unread.finish()


@pytest.mark.parametrize(
    ("body", "coding"), [(b"data: " + b"x" * 200, None), (b"no gzip", "gzip"), (gzip(b"\n\n" * 9000), "gzip")]
)
def test_a_witness_that_cannot_read_it_or_has_too_much_to_read_is_asked_no_more(
    body: bytes, coding: str | None
) -> None:
    unread = witnessed(body, coding=coding)
    unread.show(b"data: the rest")
    unread.finish()
    assert unread.witness is None
