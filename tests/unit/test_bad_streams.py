"""What model servers send that is not as their API has it: passed where that does no harm, a clear error of the dialect where a
policy cannot do its work, and never a silent loss. Of every dialect, with policies that read the events."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from rigs.doubles import Loop, Reading
from rigs.matrix import REDACTED, SECRET, Run, Table, make_policy, make_request, text_of, texts
from rigs.wires import BY_NAME, NDJSON, SSE, WIRES, WORDS, Wire

from proxy.dialects.base import Channel
from proxy.errors import COMPLETE, Problem, UpstreamError

BUDGET: Table = {"use": "token_limit", "per": "all", "windows": [{"tokens": 10_000, "window_s": "total"}]}
REDACTION: Table = {"use": "redaction"}
TIGHT: Table = {**BUDGET, "windows": [{"tokens": 2, "window_s": "total", "what": "output"}]}
READING: tuple[Table, ...] = (BUDGET,)
"""Policies that have to read what they pass."""

SPEAKING = [wire for wire in WIRES if wire.error_event is not None]
KNOWN = [wire for wire in SPEAKING if wire.dialect != "generic"]
RESPONSES, ANTHROPIC = BY_NAME["OpenAI Responses"], BY_NAME["Anthropic Messages"]
ARRAY = BY_NAME["Gemini, array"]


def names(wire: Wire) -> str:
    return wire.name


EVERY_WIRE = pytest.mark.parametrize("wire", SPEAKING, ids=names)
EVERY_BUT_THE_ARRAY = pytest.mark.parametrize("wire", [wire for wire in SPEAKING if not wire.array], ids=names)
"""An array that lacks something is not complete, whatever HTTP says: see below."""
EVERY_KNOWN = pytest.mark.parametrize("wire", KNOWN, ids=names)


async def play(wire: Wire, *reads: bytes, tables: tuple[Table, ...] = READING, media_type: str = "") -> Run:
    """A stream of these bytes, on a route of this dialect, to a client that asks for the usage; not yet at its end."""
    loop = Loop()
    policies = [make_policy(table, loop) for table in tables]
    run = Run(policies, loop, make_request(wire, streamed=True, usage=True))
    await run.admit()
    run.respond(Reading(media_type or wire.media_type))
    await run.feed(*reads)
    return run


async def end(run: Run) -> Run:
    """Its body ends in good order."""
    if run.relay.outcome is None:
        run.reading.eof()
    await run.settle()
    return run


async def fail(run: Run) -> None:
    """Its connection breaks."""
    run.reading.fail(UpstreamError())
    await run.settle()


def assert_ends_with_error(wire: Wire, run: Run) -> None:
    assert run.relay.outcome is not None
    code = run.relay.outcome.details
    *_, last = wire.said(run.body)
    assert wire.error_event is not None
    ((name, error),) = wire.error_event(wire.error(502, code, ""), 0)
    assert last[0] == name
    assert last[1].keys() <= error.keys()
    assert code in json.dumps(last[1])


def charged(run: Run) -> Any:
    return run.facts()["token_limit"]["output_tokens"]


def body_of(wire: Wire) -> bytes:
    return wire.stream(WORDS, True).body


# Events of another dialect

FRAMED_ALIKE = [
    (wire, other)
    for wire in SPEAKING
    for other in WIRES
    if wire is not other and wire.media_type == other.media_type and wire.media_type in (SSE, NDJSON)
]


@pytest.mark.parametrize(("wire", "other"), FRAMED_ALIKE, ids=names)
async def test_events_of_another_dialect_pass_and_are_charged(wire: Wire, other: Wire) -> None:
    run = await end(await play(wire, body_of(other)))
    assert run.body == body_of(other)
    assert run.relay.outcome == COMPLETE
    assert charged(run) >= len(WORDS)


@pytest.mark.parametrize(("wire", "other"), FRAMED_ALIKE, ids=names)
async def test_events_of_another_dialect_are_no_way_around_a_budget(wire: Wire, other: Wire) -> None:
    """And the stream ends in the words of the route's dialect."""
    stream = other.stream(WORDS, False)
    run = await end(await play(wire, stream.opening, *stream.deltas, stream.closing, tables=(TIGHT,)))
    assert run.relay.outcome is not None
    assert run.relay.outcome.details == "token_limit"
    reply = run.request.dialect.open(run.client.head, run.request.call)
    assert not run.body.startswith(stream.body)
    last = reply.framer(1 << 20).feed(run.body)[-1]
    assert reply.event(last).ends or wire.dialect == "generic"


@pytest.mark.parametrize(("wire", "other"), FRAMED_ALIKE, ids=names)
async def test_events_of_another_dialect_are_redacted_or_end_the_stream(wire: Wire, other: Wire) -> None:
    """Also for a client that understands them."""
    stream = other.stream(SECRET, False)
    run = await end(await play(wire, stream.opening, *stream.deltas, stream.closing, tables=(REDACTION,)))
    assert "ann@example.org" not in text_of(other, run.body)
    assert not re.search(rb"ann@example|mple\.org", run.body)
    if run.relay.outcome == COMPLETE:
        assert text_of(other, run.body) == REDACTED
    else:
        assert_ends_with_error(wire, run)


@EVERY_WIRE
async def test_what_redaction_cannot_read_ends_the_stream(wire: Wire) -> None:
    broken = b'{"text":"ann@example.org'
    event = b"data: " + broken + b"\n\n" if wire.media_type == SSE else b"[" * wire.array + broken + b"\n"
    run = await end(await play(wire, event, tables=(REDACTION,)))
    if wire.dialect == "generic" and wire.media_type == SSE:  # a text like any other
        said = run.body.replace(b"\n\ndata: ", b"")  # maybe in more events than one
        assert (run.relay.outcome, said) == (COMPLETE, event.replace(b"ann@example.org", b"[EMAIL]"))
    else:
        assert b"ann@" not in run.body
        assert_ends_with_error(wire, run)


@EVERY_WIRE
async def test_another_framing_passes_and_is_charged(wire: Wire) -> None:
    """Such as a page of HTML with status 200."""
    page = b"<html>" + b"x" * 400
    run = await end(await play(wire, page, media_type="text/html"))
    assert (run.body, run.relay.outcome) == (page, COMPLETE)
    assert charged(run) >= 100


# Event types that nobody knows

NEW = {"type": "response.brand_new.happened", "object": "new", "note": {"of": ["something", 1]}}


_TYPED = ("openai-responses", "anthropic")
"""Each of their events says its type. What has none that could be theirs may have pieces of texts anywhere."""


def said(wire: Wire, body: bytes) -> dict[Channel, str]:
    """Without the words that an event which is continued says again."""
    return {channel: text for channel, text in texts(wire, body).items() if channel.index not in ("/type", "/object")}


def _is_typed(wire: Wire, document: Any) -> bool:
    return document is NEW and wire.dialect == "openai-responses"


@EVERY_WIRE
@pytest.mark.parametrize("document", [NEW, {}, [], 7, None, "text", {"error": None}], ids=json.dumps)
@pytest.mark.parametrize("tables", [READING, (REDACTION,)], ids=["counted", "redacted"])
async def test_events_of_unknown_types_pass(wire: Wire, document: Any, tables: tuple[Table, ...]) -> None:
    stream = wire.stream(WORDS, True)
    new = json.dumps(document).encode()
    if wire.media_type == SSE:
        new = b"event: brand_new\ndata: " + new + b"\n\n"
    elif wire.array:
        new = b"," + new if isinstance(document, dict | list) else b",{}"  # its elements are nothing else
    else:
        new += b"\n"
    first, *others = stream.deltas
    reads = (stream.opening + first, new, *others, stream.closing)
    run = await end(await play(wire, *reads, tables=tables))
    if tables is not READING and wire.dialect in _TYPED and not _is_typed(wire, document):
        assert run.relay.outcome is not None
        assert run.relay.outcome.details == "redaction_unreadable"
        assert_ends_with_error(wire, run)
        return
    assert run.relay.outcome == COMPLETE
    if tables is READING:
        assert run.body == b"".join(reads)
        assert charged(run) >= len(WORDS)
    else:  # texts come where they are certain
        assert said(wire, run.body) == said(wire, b"".join(reads))
        assert run.body.count(b"event: brand_new\n") >= (wire.media_type == SSE and document != "text")


@EVERY_BUT_THE_ARRAY
async def test_broken_events_pass_and_are_charged(wire: Wire) -> None:
    """Half a document is no text that could be read: it counts by its size."""
    broken = b'{"choices":[{"delta":{"content":"' + b"x" * 400
    event = b"data: " + broken + b"\n\n" if wire.media_type == SSE else broken + b"\n"
    run = await end(await play(wire, event))
    assert (run.body, run.relay.outcome) == (event, COMPLETE)
    assert charged(run) >= (1 if wire.dialect == "generic" and wire.media_type == SSE else 100)  # a text like any other


# Terminals


@EVERY_BUT_THE_ARRAY
async def test_a_missing_terminal_passes(wire: Wire) -> None:
    """Where HTTP says that the body is complete: transformers sends no `[DONE]`."""
    stream = wire.stream(WORDS, True)
    said = stream.opening + b"".join(stream.deltas)
    run = await end(await play(wire, said))
    assert (run.body, run.relay.outcome) == (said, COMPLETE)
    assert charged(run) >= len(WORDS)


@EVERY_WIRE
async def test_doubled_terminals_pass(wire: Wire) -> None:
    doubled = body_of(wire) + (b"\n" if wire.array else wire.stream(WORDS, True).closing)
    run = await end(await play(wire, doubled))
    assert (run.body, run.relay.outcome) == (doubled, COMPLETE)
    assert charged(run) == len(WORDS)


@EVERY_KNOWN
async def test_nothing_is_said_after_a_terminal(wire: Wire) -> None:
    """A reply that was complete stays so, though its connection breaks then."""
    run = await play(wire, body_of(wire))
    await fail(run)
    assert (run.body.rstrip(), run.client.end_of_body) == (body_of(wire).rstrip(), "end")
    assert run.relay.outcome is not None
    assert run.relay.outcome.details == "upstream_reset"


# Usage

_OUTPUT = re.compile(
    rb'"(completion_tokens|output_tokens|candidatesTokenCount|eval_count|generated_tokens)":\d+', re.ASCII
)


@EVERY_KNOWN
@pytest.mark.parametrize("stated", ["-1", "0", "99999999999", '"3"', "null", "1.5", "true", "[]", "{}"])
async def test_usage_that_cannot_be_passes_and_is_not_believed(wire: Wire, stated: str) -> None:
    said, times = _OUTPUT.subn(rb'"\1":' + stated.encode(), body_of(wire))
    assert times
    run = await end(await play(wire, said))
    assert (run.body, run.relay.outcome) == (said, COMPLETE)
    strings = stated.count('"3"') if wire.dialect == "ollama" else 0  # there any string that nobody knows is a text
    assert charged(run) == len(WORDS) + strings


@EVERY_KNOWN
@pytest.mark.parametrize("stated", [2, 4, 1000])
async def test_of_usage_that_contradicts_itself_the_last_is_believed(wire: Wire, stated: int) -> None:
    """The first says one thing, the next another: it was the upstream that spent them."""
    stream = wire.stream(WORDS, True)
    closing = _OUTPUT.sub(rb'"\1":%d' % stated, stream.closing)
    said = stream.opening + b"".join(stream.deltas) + closing
    run = await end(await play(wire, said))
    assert (run.body, run.relay.outcome) == (said, COMPLETE)
    assert charged(run) == stated


# OpenAI Responses


@pytest.mark.parametrize(
    "numbers", [[0, 1, 2, 9, 10], [0, 0, 0, 0, 0], [4, 3, 2, 1, 0], [None] * 5, [0, "x", 2, None, 4]], ids=str
)
async def test_gaps_in_sequence_numbers_pass_and_an_ending_counts_on(numbers: list[Any]) -> None:
    stream = RESPONSES.stream(WORDS, True)
    events = re.findall(rb"event: .*?\n\n", stream.opening + b"".join(stream.deltas[:2]), re.DOTALL)
    said = b"".join(
        re.sub(rb'"sequence_number":\d+', b'"sequence_number":' + json.dumps(number).encode(), event)
        for event, number in zip(events, numbers, strict=True)
    )
    run = await play(RESPONSES, said)
    await fail(run)
    assert run.body.startswith(said)
    ((_, error),) = RESPONSES.said(run.body[len(said) :])
    highest = max((number for number in numbers if type(number) is int), default=None)
    assert error.get("sequence_number") == (None if highest is None else highest + 1)


# Anthropic


async def test_messages_without_their_start_pass() -> None:
    """llama.cpp sends some."""
    stream = ANTHROPIC.stream(WORDS, True)
    block = stream.opening.partition(b"\n\n")[2]
    said = block + b"".join(stream.deltas) + stream.closing
    run = await end(await play(ANTHROPIC, said))
    assert (run.body, run.relay.outcome) == (said, COMPLETE)
    assert charged(run) == len(WORDS)


async def test_messages_without_their_start_can_be_cut() -> None:
    """None is made up for what has begun without."""
    stream = ANTHROPIC.stream(WORDS, True)
    block = stream.opening.partition(b"\n\n")[2]
    run = await play(ANTHROPIC, block + stream.deltas[0], *stream.deltas[1:], tables=(TIGHT,))
    rest = run.body.removeprefix(block + b"".join(stream.deltas[:2]))
    assert [name for name, _ in ANTHROPIC.said(rest)] == ["content_block_stop", "message_delta", "message_stop"]


# Gemini's arrays


@pytest.mark.parametrize("cut", range(1, len(body_of(ARRAY)) - 2, 5))
async def test_an_array_that_is_cut_ends_with_an_error(cut: int) -> None:
    """Anywhere, though HTTP says that the body is complete: what came whole is there, and the array can be parsed."""
    run = await end(await play(ARRAY, body_of(ARRAY)[:cut]))
    *said, last = json.loads(run.body)
    assert last == ARRAY.error(502, "upstream_truncated", Problem.of("upstream_truncated").message)
    assert said == json.loads(body_of(ARRAY))[: len(said)]
    assert run.relay.outcome is not None
    assert run.relay.outcome.details == "upstream_truncated"


async def test_what_was_to_be_an_array_and_is_an_object_passes() -> None:
    """An error with status 200, as one that no policy reads would."""
    body = json.dumps(ARRAY.error(503, "x", "Overloaded.")).encode()
    run = await end(await play(ARRAY, body))
    assert (run.body, run.relay.outcome) == (body, COMPLETE)


# All of it under a policy that holds texts back

_NUMBER = re.compile(rb'"sequence_number":\d+')


def badly(wire: Wire) -> dict[str, bytes]:
    """What is not as the API has it, and can be read all the same."""
    stream = wire.stream(WORDS, True)
    kinds = {
        "a doubled terminal": body_of(wire) + (b"\n" if wire.array else stream.closing),
        "usage that contradicts itself": _OUTPUT.sub(rb'"\1":99', body_of(wire)),
    }
    if not wire.array:
        kinds["no terminal"] = stream.opening + b"".join(stream.deltas)
    if wire is RESPONSES:
        numbers = iter(range(0, 900, 9))
        kinds["gaps in sequence numbers"] = _NUMBER.sub(
            lambda found: b'"sequence_number":%d' % next(numbers), body_of(wire)
        )
        kinds["no sequence numbers"] = _NUMBER.sub(b'"sequence_number":null', body_of(wire))
    if wire is ANTHROPIC:
        kinds["no message_start"] = body_of(wire).partition(b"\n\n")[2]
        kinds["no beginning of a block"] = b"".join(stream.deltas) + stream.closing
    return kinds


def last_event(wire: Wire, body: bytes) -> Any:
    """What a client takes for the end: nothing that was held comes after it."""
    return wire.said(body)[-1]


@pytest.mark.parametrize(
    ("wire", "kind"),
    [(wire, kind) for wire in SPEAKING for kind in badly(wire)],
    ids=lambda it: getattr(it, "name", it),
)
async def test_nothing_is_lost_where_texts_are_held_back(wire: Wire, kind: str) -> None:
    body = badly(wire)[kind]
    run = await end(await play(wire, body, tables=(REDACTION,)))
    assert run.relay.outcome == COMPLETE
    assert text_of(wire, run.body) == text_of(wire, body) == "".join(WORDS)
    if wire.has_terminal and kind not in ("no terminal", "no beginning of a block"):
        assert last_event(wire, run.body) == last_event(wire, body)


@EVERY_BUT_THE_ARRAY
async def test_what_comes_after_a_terminal_is_looked_through_too(wire: Wire) -> None:
    """A second answer behind the first: it passes, redacted, or the stream has ended in an error before it."""
    said = wire.stream(SECRET, False)
    run = await end(await play(wire, said.body, said.body, tables=(REDACTION,)))
    assert b"ann@" not in run.body
    assert run.relay.outcome is not None
    assert text_of(wire, run.body) in (REDACTED * 2, REDACTED)
    assert text_of(wire, run.body) == REDACTED * 2 or run.relay.outcome != COMPLETE


# A policy that cannot do its work


@EVERY_WIRE
async def test_who_has_to_read_what_cannot_be_read_ends_the_stream_with_an_error(wire: Wire) -> None:
    """Here by being over the limit of an event. What came before it is there."""
    stream = wire.stream(WORDS, True)
    begun = stream.opening + stream.deltas[0]
    run = await play(wire, begun, (b'data: {"' if wire.media_type == SSE else b'{"') + b"x" * (2 << 20))
    assert run.relay.outcome is not None
    assert run.relay.outcome.details == "event_too_large"
    assert run.body.startswith(begun)
    assert wire.error_event is not None
    error = wire.error(502, "event_too_large", Problem.of("event_too_large").message)
    seen = len(wire.said(begun))
    assert wire.said(run.body[len(begun) :]) == wire.error_event(error, seen)
