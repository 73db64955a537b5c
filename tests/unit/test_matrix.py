"""Every dialect under every policy, streamed and whole, to every end: `rigs/matrix.py` says what has to come of each."""

from __future__ import annotations

import json
import re

import pytest
from rigs.doubles import Loop, Reading
from rigs.matrix import (
    BEFORE,
    CLEAN,
    CUT,
    HARMLESS,
    README,
    REDACTED,
    SECRET,
    Cell,
    Expected,
    Run,
    cells,
    expected,
    make_policy,
    make_request,
    markdown,
    play,
    shown,
    text_of,
)
from rigs.voices import VOICES
from rigs.wires import JSON, STATED_INPUT, STATED_OUTPUT, WIRES, WORDS, Wire

from proxy.dialects import choose
from proxy.errors import COMPLETE, OutcomeKind, UpstreamError

EVERY = [*WIRES, *VOICES]
EVERY_VOICE = pytest.mark.parametrize("wire", EVERY, ids=[wire.name for wire in EVERY])


@pytest.mark.parametrize("cell", list(cells()), ids=str)
async def test_cell(cell: Cell) -> None:
    check(cell, await play(cell))


def test_the_path_tells_the_dialect() -> None:
    for wire in EVERY:
        for streamed in (True, False):
            assert choose("auto", wire.ask(streamed, False).path).name == wire.dialect


def test_the_readme_shows_it() -> None:
    assert shown(README.read_text()) == markdown()


def check(cell: Cell, run: Run) -> None:
    """What came of a cell is what had to. AssertionError."""
    want = expected(cell)
    client = run.client
    assert run.relay.outcome == want.outcome
    assert (client.status if client.heads else None) == want.status
    assert client.end_of_body == want.how
    body = run.body
    if run.client.heads and want.status == 200 and cell.chain.has("compression"):
        assert client.head.headers["Content-Encoding"] == "gzip"
    if cell.chain.paced and cell.streamed:  # heartbeats come when they come
        beats = cell.wire.said(cell.heartbeat)
        assert [event for event in cell.wire.said(body) if event not in beats] == cell.wire.said(cell.body)
        assert len(body) > len(cell.body) or not cell.heartbeat
        return
    if cell.chain.has("redaction") and cell.streamed and want.status == 200:
        _check_held_back(cell, body, want)
        return
    assert body.startswith(want.delivered)
    rest = body[len(want.delivered) :]
    if want.status not in (None, 200):
        assert [(None, json.loads(rest))] == want.ending
        assert client.head.headers["Content-Type"] == JSON
    elif isinstance(want.ending, tuple):
        said = [json.dumps(document, separators=(",", ":")) for _, document in cell.wire.said(rest)]
        assert len(said) == len(want.ending)
        assert all(words in event for words, event in zip(want.ending, said, strict=True))
    else:
        assert (cell.wire.said(rest) if rest else []) == want.ending
    if cell.streamed and cell.wire.array and want.status == 200 and want.how == "end" and cell.read:
        assert len(json.loads(body)) >= BEFORE + 1
    _check_facts(cell, run)


def _check_held_back(cell: Cell, body: bytes, want: Expected) -> None:
    """Texts come where they are certain, so other events have them; and where the stream is cut, the last of them do not."""
    wire = cell.wire
    said = text_of(wire, body)
    pieces = wire.pieces(WORDS)
    came = "".join(pieces if cell.end in (CLEAN, CUT) else pieces[:BEFORE])
    assert said == came if want.outcome == COMPLETE else came.startswith(said)
    beats = wire.said(cell.heartbeat)
    events = [event for event in wire.said(body) if event not in beats]
    last = events[len(events) - len(want.ending) :]
    if isinstance(want.ending, tuple):
        assert all(
            words in json.dumps(event, separators=(",", ":")) for words, event in zip(want.ending, last, strict=True)
        )
        return
    for _, document in (*last, *want.ending):
        if wire.dialect == "openai-responses":
            document.pop("sequence_number")  # events that have no text any more have none
    assert last == want.ending


@EVERY_VOICE
@pytest.mark.parametrize("ends", [True, False], ids=["complete", "cut"])
async def test_what_is_redacted_comes_in_no_event(wire: Wire, ends: bool) -> None:
    """Nor in one that says it all again; and what was held back of a stream that is cut does not come at all."""
    loop = Loop()
    run = Run([make_policy({"use": "redaction"}, loop)], loop, make_request(wire, streamed=True))
    await run.admit()
    run.respond(Reading(wire.media_type))
    stream = wire.stream(SECRET, False)
    await run.feed(stream.opening + stream.deltas[0], *stream.deltas[1:2])
    if ends:
        await run.feed(*stream.deltas[2:], *filter(None, [stream.closing]))
        run.reading.eof()
        assert text_of(wire, run.body) == "".join(wire.pieces([REDACTED]))
        assert run.relay.outcome == COMPLETE
    else:
        run.reading.fail(UpstreamError())
        assert run.relay.outcome is not None
        assert run.relay.outcome.kind is OutcomeKind.UPSTREAM_ERROR
        assert text_of(wire, run.body) == wire.pieces([HARMLESS, ""])[0]
    assert not re.search(rb"ann@|mple\.org", run.body)


@EVERY_VOICE
async def test_what_is_redacted_is_in_no_whole_reply(wire: Wire) -> None:
    loop = Loop()
    run = Run([make_policy({"use": "redaction"}, loop)], loop, make_request(wire, streamed=False))
    await run.admit()
    run.respond(Reading(JSON))
    await run.feed(wire.whole(SECRET))
    run.reading.eof()
    assert run.relay.outcome == COMPLETE
    assert REDACTED.removeprefix(HARMLESS).encode() in run.body
    assert b"ann@" not in run.body


def _check_facts(cell: Cell, run: Run) -> None:
    """What was charged is what was stated, or counted where nothing was."""
    if not cell.chain.metered or cell.end not in (CLEAN, CUT) or not cell.streamed:
        return
    facts = run.facts()["token_limit"]
    if cell.end == CUT:
        assert facts["cut"] == 1
        assert facts["output_tokens"] in (
            BEFORE,
            BEFORE + 1,
        )  # one more was spent, if it was stated with the first that is kept back
    elif cell.wire.states_usage:
        said = (facts["input_tokens"], facts["output_tokens"], facts["source"])
        assert said == (STATED_INPUT, STATED_OUTPUT, "usage")
    else:
        assert facts["source"] == "counted"
