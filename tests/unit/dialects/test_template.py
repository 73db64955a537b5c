"""Events that differ in one text: read and written without being parsed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai_chat import ChatStream, OpenAIChat
from proxy.framing import Framing
from proxy.simulation import make_head, make_request

HEAD = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":'
TAIL = b'},"finish_reason":null}]}\n\n'


def fresh() -> ChatStream:
    request = make_request(dialect=OpenAIChat())
    stream = make_head(request).stream
    assert isinstance(stream, ChatStream)
    return stream


def learned(head: bytes = HEAD, tail: bytes = TAIL) -> ChatStream:
    """A stream that has read two events with these bytes around their texts."""
    stream = fresh()
    for text in (b'"one"', b'"two"'):
        stream.parse(head + text + tail)
    return stream


def test_what_stays_is_learned_from_two_events() -> None:
    stream = fresh()
    read = [stream.parse(HEAD + text + TAIL).template is not None for text in (b'"one"', b'"two"', b'"three"')]
    assert read == [False, False, True]


def test_an_event_is_written_around_its_text() -> None:
    stream = learned()
    event = stream.event(HEAD + b'"three"' + TAIL)
    rewritten = event.with_deltas([(event.deltas[0][0], 'a "b"\n\ud83d')])
    assert rewritten is not None
    assert rewritten.raw == HEAD + rb'"a \"b\"\n\ud83d"' + TAIL
    assert list(rewritten.deltas) == list(stream.event(rewritten.raw).deltas)


def test_without_its_text_it_is_withheld_if_it_says_nothing_else() -> None:
    event = learned().event(HEAD + b'"three"' + TAIL)
    assert event.with_deltas([(event.deltas[0][0], "")]) is None


def test_it_is_kept_for_what_else_it_says() -> None:
    head = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":'
    event = learned(head).event(head + b'"three"' + TAIL)
    kept = event.with_deltas([(event.deltas[0][0], "")])
    assert kept is not None
    assert kept.raw == head + b'""' + TAIL
    continued = event.continuation(event.deltas[0][0], "more")
    assert b"role" not in continued.raw


def test_it_continues_as_it_stands_if_it_says_nothing_else() -> None:
    event = learned().event(HEAD + b'"three"' + TAIL)
    assert event.continuation(event.deltas[0][0], "more").raw == HEAD + b'"more"' + TAIL


def test_an_event_whose_other_lines_were_changed_is_rewritten_with_them() -> None:
    stream = learned(b": secret\n" + HEAD)
    event = stream.event(b": secret\n" + HEAD + b'"three"' + TAIL)
    assert event.parsed.template is not None
    changed = type(event)(b": hidden\n" + HEAD + b'"three"' + TAIL, stream, event.parsed)
    rewritten = changed.with_deltas([(event.deltas[0][0], "four")])
    assert rewritten is not None
    assert b"secret" not in rewritten.raw


@pytest.mark.parametrize(
    "head",
    [
        b'data: {"id":"%s","choices":[{"index":0,"delta":{"content":',  # the text might as well be the id
        b'data: {"choices":[{"index":0,"delta":{"content":"a","content":',
        b'data: { "choices": [{"index": 0, "delta": {"content":  ',
        b'data: {"choices":[{"index":1,"delta":{"reasoning_content":',
        b'data: {"usage":{"content":"%s"},"choices":[{"index":0,"delta":{"content":',
        b"event: x\ndata: " + HEAD[6:],
    ],
)
@given(text=st.text(), spelling=st.booleans())
def test_what_is_read_is_what_reading_in_full_gives(head: bytes, text: str, spelling: bool) -> None:
    stream = learned(head)
    spelt = json.dumps(text, ensure_ascii=spelling).encode(errors="surrogatepass")
    read, full = stream.parse(head + spelt + TAIL), fresh().parse(head + spelt + TAIL)
    assert list(read.deltas) == list(full.deltas)
    assert (list(read.ends), read.usage, list(read.choices), read.known) == (
        list(full.ends), full.usage, list(full.choices), full.known,
    )  # fmt: skip


@given(middle=st.binary(max_size=12) | st.text('",:{}[]\\aub0 \n', max_size=12).map(str.encode))
def test_nor_does_anything_else_between_them_pass_for_a_text(middle: bytes) -> None:
    raw = HEAD + middle + TAIL
    read, full = learned().parse(raw), fresh().parse(raw)
    assert list(read.deltas) == list(full.deltas)
    assert (list(read.ends), read.known) == (list(full.ends), full.known)


def test_other_framings_have_none() -> None:
    request = make_request(dialect=OpenAIChat())
    stream = ChatStream(Framing.JSON, request.call)
    for text in (b'"one"', b'"two"', b'"three"'):
        assert stream.parse(HEAD[6:] + text + TAIL).template is None
