"""However a body is cut into reads, its frames are the same, and nothing of it is lost, changed or held without bound."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects.arrays import read_data
from proxy.dialects.generic import CharacterFramer
from proxy.errors import UpstreamGarbage, UpstreamTruncated
from proxy.framing import Framer, JSONArrayFramer, NDJSONFramer, SSEFramer, WholeFramer

ENOUGH = 1 << 20

# Bodies that are mostly line ends, where all the trouble is.
PIECES = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"data: a", b": c", b"x", b"\xc3\xa9", b"\xef\xbb\xbf"]
)
BODIES = st.lists(PIECES, max_size=24).map(b"".join) | st.binary(max_size=60)

DELIMITED: list[Callable[[int], Framer]] = [SSEFramer, NDJSONFramer]


@st.composite
def cut(draw: st.DrawFn, bodies: st.SearchStrategy[bytes] = BODIES) -> tuple[bytes, list[bytes]]:
    """A body, whole and in reads."""
    body = draw(bodies)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=12)))
    return body, [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


def feed(framer: Framer, reads: list[bytes]) -> tuple[list[bytes], bytes]:
    frames = [frame for read in reads for frame in framer.feed(read)]
    return frames, framer.finish()


def dispatched(body: bytes) -> Iterator[bytes]:
    """The data of the events that a client dispatches: WHATWG HTML §9.2.6, line by line, as plainly as can be."""
    data: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", body.removeprefix(b"\xef\xbb\xbf"))[:-1]:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data = []


@pytest.mark.parametrize("make", DELIMITED)
@given(case=cut())
def test_frames_do_not_depend_on_reads(make: Callable[[int], Framer], case: tuple[bytes, list[bytes]]) -> None:
    """Whole, byte by byte, at random: the same frames; joined with what is left over they are the body."""
    body, reads = case
    frames, rest = feed(make(ENOUGH), [body])
    assert b"".join(frames) + rest == body
    assert feed(make(ENOUGH), reads) == (frames, rest)
    assert feed(make(ENOUGH), [body[i : i + 1] for i in range(len(body))]) == (frames, rest)
    assert all(frames)


@given(case=cut())
def test_a_frame_is_an_event(case: tuple[bytes, list[bytes]]) -> None:
    """Read frame by frame a client would dispatch what it dispatches reading the body; one event a frame at most."""
    body, reads = case
    frames, rest = feed(SSEFramer(ENOUGH), reads)
    apart = [list(dispatched(frame)) for frame in frames]
    assert all(len(events) <= 1 for events in apart)
    # A byte order mark is one at the start of a body only, and a last event without its blank line is dispatched by none.
    if b"\xef\xbb\xbf" not in body:
        assert [data for events in apart for data in events] + list(dispatched(rest)) == list(dispatched(body))


@pytest.mark.parametrize("make", DELIMITED)
@given(case=cut(), limit=st.integers(1, 20))
def test_no_more_than_the_limit_is_held(
    make: Callable[[int], Framer], case: tuple[bytes, list[bytes]], limit: int
) -> None:
    """Either every frame fits, and then all of them come, or the body is refused, however it was cut."""
    body, reads = case
    frames, rest = feed(make(ENOUGH), [body])
    fits = all(len(frame) <= limit for frame in [*frames, rest])
    for read_in in (reads, [body], [body[i : i + 1] for i in range(len(body))]):
        framer = make(limit)
        got: list[bytes] = []
        try:
            for read in read_in:
                got += framer.feed(read)
                assert framer.pending <= limit
            assert (got, framer.finish()) == (frames, rest)
            assert fits
        except UpstreamGarbage:
            assert not fits
            assert got == frames[: len(got)]


ELEMENTS = st.recursive(
    st.dictionaries(st.text(max_size=3), st.text(alphabet='"\\\\[]{},aé', max_size=6), max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
SPACE = st.sampled_from(["", "\n", "\r\n ", " "])


@st.composite
def arrays(draw: st.DrawFn) -> bytes:
    """A JSON array with its whitespace anywhere."""
    elements = draw(st.lists(ELEMENTS, max_size=5))
    indent = draw(st.none() | st.just(2))
    said = [draw(SPACE) + json.dumps(element, indent=indent, ensure_ascii=False) + draw(SPACE) for element in elements]
    return (draw(SPACE) + "[" + ",".join(said) + draw(SPACE) + "]" + draw(SPACE)).encode()


def feed_array(reads: list[bytes], limit: int = ENOUGH) -> tuple[list[bytes], bytes | None]:
    """Frames, and what was left over, None where the array was cut."""
    framer = JSONArrayFramer(limit)
    frames = [frame for read in reads for frame in framer.feed(read)]
    try:
        return frames, framer.finish()
    except UpstreamTruncated:
        return frames, None


@given(case=cut(arrays()))
def test_each_element_is_a_frame_wherever_the_reads_are_cut(case: tuple[bytes, list[bytes]]) -> None:
    body, reads = case
    frames, rest = feed_array(reads)
    assert (frames, rest) == feed_array([body]) == feed_array([body[i : i + 1] for i in range(len(body))])
    assert rest is not None
    assert b"".join(frames) + rest == body
    assert [json.loads(read_data(frame)) for frame in frames[:-1]] == json.loads(body)


@given(body=arrays(), place=st.integers(0, 1 << 16))
def test_an_array_that_is_cut_is_noticed(body: bytes, place: int) -> None:
    start = body.index(b"[") + 1
    end = body.rindex(b"]")
    assert feed_array([body[: start + place % (end - start + 1)]])[1] is None


@given(
    case=cut(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b",", b"a"]), max_size=20).map(b"".join))
)
def test_brackets_that_make_no_sense_do_no_harm(case: tuple[bytes, list[bytes]]) -> None:
    """The same frames in any reads, and all bytes, or the body was cut."""
    body, reads = case
    frames, rest = feed_array(reads)
    assert (frames, rest) == feed_array([body])
    if rest is not None:
        assert b"".join(frames) + rest == body


@given(case=cut(arrays()), limit=st.integers(1, 20))
def test_no_more_than_the_limit_is_held_of_an_array(case: tuple[bytes, list[bytes]], limit: int) -> None:
    body, reads = case
    frames, rest = feed_array([body])
    fits = all(len(frame) <= limit for frame in [*frames, rest or b""])
    for read_in in (reads, [body[i : i + 1] for i in range(len(body))]):
        framer = JSONArrayFramer(limit)
        got: list[bytes] = []
        try:
            for read in read_in:
                got += framer.feed(read)
                assert framer.pending <= limit
            framer.finish()
            assert fits
            assert got == frames
        except UpstreamGarbage:
            assert not fits
            assert got == frames[: len(got)]


@given(case=cut(st.binary(max_size=60)))
def test_a_whole_body_comes_back(case: tuple[bytes, list[bytes]]) -> None:
    body, reads = case
    assert feed(WholeFramer(ENOUGH), reads) == ([], body)


@settings(max_examples=200)
@given(case=cut(st.text(alphabet="aé✓😀\n", max_size=12).map(str.encode) | st.binary(max_size=20)))
def test_no_character_is_cut(case: tuple[bytes, list[bytes]]) -> None:
    """Frames of text are text where the body is, and never wait for more than one character."""
    body, reads = case
    framer = CharacterFramer()
    frames = []
    for read in reads:
        frames += framer.feed(read)
        assert framer.pending <= 3
    rest = framer.finish()
    assert b"".join(frames) + rest == body
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    assert (b"", text) == (rest, "".join(frame.decode() for frame in frames))
