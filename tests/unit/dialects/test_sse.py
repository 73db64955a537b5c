"""The fields of one server-sent event (WHATWG HTML §9.2.6)."""

from __future__ import annotations

import pytest

from proxy.dialects.sse import Fields, is_bare, read, read_data, with_data, with_other_lines, write

CASES = {
    "one line of data": (b"data: hello\n\n", Fields(b"hello")),
    "no space after the colon": (b"data:hello\n\n", Fields(b"hello")),
    "only one space is dropped": (b"data:  hello\n\n", Fields(b" hello")),
    "lines of data are joined by LF": (b"data: a\ndata\ndata: b\n\n", Fields(b"a\n\nb")),
    "a colon in the value": (b"data: a:b\n\n", Fields(b"a:b")),
    "empty data is data": (b"data\n\n", Fields(b"")),
    "no data": (b"event: ping\n\n", Fields(None, event=b"ping")),
    "all fields": (b"event: e\nid: 7\nretry: 1500\ndata: d\n\n", Fields(b"d", b"e", b"7", 1500)),
    "CRLF": (b"event: e\r\ndata: a\r\ndata: b\r\n\r\n", Fields(b"a\nb", event=b"e")),
    "CR": (b"event: e\rdata: a\rdata: b\r\r", Fields(b"a\nb", event=b"e")),
    "mixed line ends": (b"data: a\r\ndata: b\rdata: c\n\n", Fields(b"a\nb\nc")),
    "CR alone within what looks like one line": (b"data: a\rid: 1\n\n", Fields(b"a", id=b"1")),
    "comment": (b": keep-alive\n\n", Fields(None)),
    "comment before data": (b":c\ndata: a\n\n", Fields(b"a")),
    "unknown fields": (b"data: a\nfoo: b\nDATA: c\n data: d\n\n", Fields(b"a")),
    "the last event and id win": (b"event: a\nevent: b\nid: 1\nid\ndata: x\n\n", Fields(b"x", b"b", b"")),
    "an id with a NUL is ignored": (b"id: 1\nid: 2\x003\ndata: x\n\n", Fields(b"x", id=b"1")),
    "a retry that is no number is ignored": (b"retry: -1\nretry: 1.5\nretry: \ndata: x\n\n", Fields(b"x")),
    "a retry of a thousand digits is ignored": (b"retry: " + b"9" * 1000 + b"\n\n", Fields(None)),
    "an event name before its data": (b"event: e\ndata: a\n\n", Fields(b"a", event=b"e")),
    "an event name after its data": (b"data: a\nevent: e\n\n", Fields(b"a", event=b"e")),
    "an event name between data": (b"data: a\nevent: e\ndata: b\n\n", Fields(b"a\nb", event=b"e")),
    "an event name alone": (b"event: e\n\n", Fields(None, event=b"e")),
    "not complete by a byte": (b"data: a\nb", Fields(b"a")),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", Fields(b"a")),
    "blank lines before": (b"\n\r\n\rdata: a\n\n", Fields(b"a")),
    "not complete": (b"data: a\ndata: b", Fields(b"a\nb")),
    "nothing": (b"", Fields(None)),
}


@pytest.mark.parametrize(("raw", "fields"), CASES.values(), ids=CASES)
def test_read(raw: bytes, fields: Fields) -> None:
    assert read(raw) == fields
    assert read_data(raw) == fields.data


def test_other_data_leaves_the_rest_of_the_event_as_it_was() -> None:
    raw = b"\xef\xbb\xbf: c\r\nid: 7\ndata: a\r\ndata: b\nevent: e\r\n\r\n"
    assert with_data(raw, b"new") == b"\xef\xbb\xbf: c\r\nid: 7\ndata: new\r\nevent: e\r\n\r\n"


def test_other_data_of_several_lines() -> None:
    assert with_data(b"data: a\r\n\r\n", b"x\ny\r\nz") == b"data: x\r\ndata: y\r\ndata: z\r\n\r\n"
    assert with_data(b"data: a\n\n", b"x\ry") == b"data: x\ndata: y\n\n"
    assert with_data(b"data: a", b"x\ny") == b"data: x\ndata: y\n"


def test_empty_data_stays_data() -> None:
    assert read(with_data(b"data: a\n\n", b"")) == Fields(b"")


@pytest.mark.parametrize("raw", [raw for raw, fields in CASES.values() if fields.data is not None])
@pytest.mark.parametrize("data", [b"", b"x", b"x\n\ny", b" x", b":x"])
def test_what_was_written_is_read(raw: bytes, data: bytes) -> None:
    assert read(with_data(raw, data)) == read(raw)._replace(data=data)


def test_write() -> None:
    assert write(b"{}") == b"data: {}\n\n"
    assert read(write(b"{}", b"error")) == Fields(b"{}", event=b"error")


@pytest.mark.parametrize(
    ("raw", "bare"),
    [
        (b"data: a\n\n", True), (b"data:\n\n", True), (b"data: a\r\n\r\n", False), (b"event: x\ndata: a\n\n", False),
        (b": x\n\n", False), (b"data: a\ndata: b\n\n", False), (b"\n\n", False), (b"\xef\xbb\xbfdata: a\n\n", False),
        (b"data: a\rid: b\n\n", False), (b"data: a\n", False), (b"data: a", False),
    ],
)  # fmt: skip
def test_an_event_that_is_one_line_of_data(raw: bytes, bare: bool) -> None:
    assert is_bare(raw) is bare


@pytest.mark.parametrize(
    ("raw", "changed"),
    [
        (b"data: a\n\n", b"data: a\n\n"),
        (b": a b\r\n\r\n", b":<a b\r\n\r\n"),
        (b"event: e\nid:i\nretry: 5\ndata: d\ndata\n\n", b"event:<e\nid:<i\nretry: 5\ndata: d\ndata\n\n"),
        (b"a b: c\rdata: d\r\r", b"<a b: c\rdata: d\r\r"),
        (b"\xef\xbb\xbf:x\n\n", b"\xef\xbb\xbf:<x\n\n"),
        (b"event\n\n", b"event\n\n"),
    ],
)
def test_other_lines_are_changed_and_the_data_is_not(raw: bytes, changed: bytes) -> None:
    def mark(value: bytes) -> bytes:
        return b"<" + value.removeprefix(b" ") if value else value

    assert with_other_lines(raw, mark) == changed
