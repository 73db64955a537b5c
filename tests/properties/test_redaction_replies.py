"""What a client gets of a reply depends on what the model said, not on how it came: in JSON, and in every dialect."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.redaction import Redaction, RedactionConfig
from policies.redaction.json_text import TextRedactor
from proxy.dialects import DIALECTS
from proxy.dialects.base import Channel, Delta, Kind
from proxy.dialects.documents import decode, encode
from proxy.errors import Outcome, OutcomeKind
from proxy.framing import Event
from proxy.policy import PolicyStream
from proxy.testing import FakeHost, Simulation, make_head, make_request, texts

FIXTURES = Path(__file__).parents[1] / "fixtures"
REPLIES = sorted(path.relative_to(FIXTURES).as_posix() for path in FIXTURES.rglob("*.sse"))
SSE, NDJSON, JSON, PLAIN = "text/event-stream", "application/x-ndjson", "application/json", "text/plain"
DONE = b"data: [DONE]\n\n"

PATTERNS = [
    {"name": "MAIL", "pattern": r"[a-c.]{1,6}@[a-c]{1,4}\.c", "before": r"[\w.]"},
    {"name": "CARD", "pattern": r"4\d{3}(?: ?1{2})?", "before": r"\d", "after": r"\d"},
    {"name": "LINES", "pattern": "b\n{1,2}c"},
    {"name": "FACE", "pattern": "a😀"},
]
CONFIG = RedactionConfig.model_validate_json(json.dumps({"entities": [], "patterns": PATTERNS}))
DEFAULTS = RedactionConfig()

# Little of everything that matters, so that random texts are full of matches and of beginnings of them.
ALPHABET = 'abc.@c 41\n"\\{}[]:,-eu0😀é'
TEXTS = st.text(alphabet=ALPHABET, max_size=40) | st.lists(
    st.sampled_from(["a.b@c.c", "4111 11", "4111", "b\n\nc", "a😀", "a", "@", " ", '"', "\\u0040", "{", "4", "\n"]), max_size=12
).map("".join)  # fmt: skip
NUMBERS = st.integers(-50000, 50000) | st.sampled_from([4111, -4111, 4111.5, 411111, 0.5, 1e300])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


def redact(text: str) -> str:
    return CONFIG.scanner.redact(text, CONFIG.writer.write)


def through(pieces: Sequence[str], *, arguments: bool = True) -> list[str]:
    """What goes out for each piece, and at the end."""
    redactor = TextRedactor(CONFIG.scanner, CONFIG.writer.write, arguments=arguments)
    return [*(redactor.feed(piece) for piece in pieces), redactor.finish()]


def cut(text: str, luck: random.Random) -> list[str]:
    pieces = []
    while text:
        size = luck.choice((1, 1, 2, 5, 50))
        pieces.append(text[:size])
        text = text[size:]
    return pieces


# JSON


def spell(document: Any, luck: random.Random) -> str:
    """The document as JSON, in any of the spellings that there are."""
    space = luck.choice(("", "", " ", "\n  "))
    if isinstance(document, str):
        return '"' + "".join(_spell_character(character, luck) for character in document) + '"'
    if isinstance(document, dict):
        members = (spell(key, luck) + space + ":" + space + spell(value, luck) for key, value in document.items())
        return "{" + space + f"{space},{space}".join(members) + space + "}"
    if isinstance(document, list):
        return "[" + space + f",{space}".join(spell(item, luck) for item in document) + space + "]"
    return json.dumps(document)


def _spell_character(character: str, luck: random.Random) -> str:
    shorts = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "/": "\\/", "\t": "\\t"}
    if character in shorts and luck.random() < 0.7:
        return shorts[character]
    if character < " " or character in '"\\' or "\ud800" <= character < "\ue000" or luck.random() < 0.3:
        units = character.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    return character


class Number(NamedTuple):
    """A number as it is spelt."""

    spelling: str


def read(text: str) -> Any:
    """The document with the order and repetition of keys, and the spelling of numbers."""
    return json.loads(text, parse_int=Number, parse_float=Number, object_pairs_hook=tuple)


def redacted(document: Any) -> Any:
    """What is to become of a document that `read` gave: every string and number on its own."""
    if isinstance(document, str):
        return redact(document)
    if isinstance(document, Number):
        changed = redact(document.spelling)
        return document if changed == document.spelling else changed
    if isinstance(document, tuple):
        return tuple((redact(key), redacted(value)) for key, value in document)
    return [redacted(item) for item in document] if isinstance(document, list) else document


@given(document=DOCUMENTS.filter(lambda document: isinstance(document, dict | list | str)), luck=st.randoms())
@settings(deadline=None)
def test_json_stays_json_and_says_what_it_said_but_for_what_was_found(document: Any, luck: random.Random) -> None:
    text = spell(document, luck)
    whole = "".join(through([text]))
    assert read(whole) == redacted(read(text))
    if redacted(read(text)) == read(text):
        assert whole == text


ANY_TEXT = DOCUMENTS.map(json.dumps) | TEXTS | st.tuples(DOCUMENTS.map(json.dumps), TEXTS).map("".join)


@given(text=ANY_TEXT, arguments=st.booleans(), luck=st.randoms())
@settings(deadline=None)
def test_however_a_text_is_cut_the_same_leaves_and_never_more_than_the_whole(
    text: str, arguments: bool, luck: random.Random
) -> None:
    """JSON or not; invariants 1 and 2. Nothing that goes out is taken back."""
    whole = "".join(through([text], arguments=arguments))
    assert "".join(through(list(text), arguments=arguments)) == whole
    assert "".join(through(cut(text, luck), arguments=arguments)) == whole
    for place in range(len(text)):
        assert "".join(through([text[:place], text[place:]], arguments=arguments)) == whole


# Replies


class Form(NamedTuple):
    """How one channel's text is sent, a piece an event."""

    dialect: str
    content_type: str
    event: Callable[[str], bytes]
    channel: Channel
    end: bytes = b""


def _data(document: Any) -> bytes:
    return b"data: " + encode(document) + b"\n\n"


def _chat(**delta: Any) -> bytes:
    return _data({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def _end(**choice: Any) -> bytes:
    return _data({"choices": [{"index": 0, "finish_reason": "stop", **choice}]}) + DONE


FORMS = [
    Form("openai-chat", SSE, lambda piece: _chat(content=piece), Channel(0, Kind.TEXT, 0), _end(delta={})),
    Form("openai-chat", SSE, lambda piece: _chat(role="assistant", content=piece), Channel(0, Kind.TEXT, 0), DONE),
    Form("openai-chat", SSE, lambda piece: _chat(reasoning=piece), Channel(0, Kind.REASONING, 1)),
    Form(
        "openai-chat", SSE, lambda piece: _chat(tool_calls=[{"index": 2, "function": {"arguments": piece}}]),
        Channel(0, Kind.TOOL_ARGUMENTS, 2), _end(delta={}),
    ),
    Form("openai-chat", SSE, lambda piece: _data({"note": piece}), Channel(0, Kind.TEXT, "/note"), DONE),
    Form(
        "openai-completions", SSE, lambda piece: _data({"choices": [{"index": 1, "text": piece}]}),
        Channel(1, Kind.TEXT, 0), _end(text=""),
    ),
    Form("generic", SSE, lambda piece: _data({"type": "x", "d": [{"t": piece}]}), Channel(0, Kind.TEXT, "/d/0/t"), DONE),
    Form("generic", NDJSON, lambda piece: encode({"t": piece}) + b"\n", Channel(0, Kind.TEXT, "/t")),
    Form("generic", PLAIN, str.encode, Channel(0, Kind.TEXT, "")),
]  # fmt: skip


def play(config: RedactionConfig, dialect: str, content_type: str, body: bytes) -> Simulation:
    """A reply that comes whole and ends cleanly."""

    async def admit() -> Simulation:
        request = make_request(dialect=DIALECTS[dialect])
        return await Simulation.admit(Redaction(config, FakeHost("redaction")), request)

    exchange = asyncio.run(admit())
    exchange.start()
    exchange.respond(make_head(exchange.request, content_type))
    exchange.read(body)
    exchange.end()
    while exchange.chain.paused:  # much text is read in turns
        exchange.advance(0.0)
    assert exchange.chain.errors == []
    return exchange


def merged(events: Sequence[Event], channel: Channel) -> str:
    return texts(events).get(channel, "")


@pytest.mark.parametrize("form", FORMS)
@given(text=ANY_TEXT, luck=st.randoms())
@settings(max_examples=60, deadline=None)
def test_a_channel_says_the_redacted_text_however_it_came(form: Form, text: str, luck: random.Random) -> None:
    arguments = form.channel.kind is Kind.TOOL_ARGUMENTS
    expected = "".join(through([text], arguments=arguments))
    for pieces in ([text], list(text), cut(text, luck)):
        body = b"".join(form.event(piece) for piece in pieces if piece) + form.end
        exchange = play(CONFIG, form.dialect, form.content_type, body)
        assert merged(exchange.delivered, form.channel) == expected
        read_again = [exchange.delivered[0].stream.event(event.raw) for event in exchange.delivered]
        assert merged(read_again, form.channel) == expected


@given(said=st.lists(st.tuples(st.sampled_from(FORMS[:4]), TEXTS.filter(bool)), max_size=8))
@settings(deadline=None)
def test_channels_do_not_mix(said: list[tuple[Form, str]]) -> None:
    body = b"".join(form.event(text) for form, text in said)
    exchange = play(CONFIG, "openai-chat", SSE, body + DONE)
    for form in FORMS[:4]:
        text = "".join(text for other, text in said if other.channel == form.channel)
        arguments = form.channel.kind is Kind.TOOL_ARGUMENTS
        assert merged(exchange.delivered, form.channel) == "".join(through([text], arguments=arguments))


@pytest.mark.parametrize("name", ["openai-chat", "openai-completions", "generic"])
@given(first=TEXTS, second=TEXTS, beside=TEXTS)
@settings(deadline=None)
def test_a_whole_reply_says_each_text_redacted(name: str, first: str, second: str, beside: str) -> None:
    message = {"content": first, "tool_calls": [{"function": {"arguments": json.dumps([second])}}]}
    choice = {"text": first} if name == "openai-completions" else {"message": message}
    body = encode({"choices": [{"index": 0, **choice}], "citations": [beside]})
    (event,) = play(CONFIG, name, JSON, body).delivered
    document = decode(event.raw)
    (choice,) = document["choices"]
    assert document["citations"] == ["".join(through([beside], arguments=False))]
    expected = "".join(through([first], arguments=False))
    if name == "openai-completions":
        assert choice["text"] == expected
    else:
        assert choice["message"]["content"] == expected
        assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == [redact(second)]


# Nothing found


def without_candidates(said: dict[Channel, str]) -> dict[Channel, str]:
    return {
        channel: text for channel, text in said.items() if not str(channel.index).endswith(("logprobs", "top_tokens"))
    }


@pytest.mark.parametrize("fixture", REPLIES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_where_nothing_is_found_every_text_is_as_it_was(fixture: str, dialect: str) -> None:
    """Recorded replies, also in a dialect that is not theirs: the text of each channel, and the bytes of each event
    without one. Where that dialect does not know an event, nothing of it goes through. Tokens that were not chosen go
    with a text that is held."""
    body = (FIXTURES / fixture).read_bytes()
    exchange = play(DEFAULTS, dialect, SSE, body)
    stream = exchange.delivered[0].stream
    before = [stream.event(raw) for raw in stream.framer(1 << 20).feed(body)]
    known = list(takewhile(lambda event: event.known, before))
    if len(known) < len(before):
        assert exchange.outcome == Outcome(OutcomeKind.STOPPED, "redaction", "redaction_unreadable")
        said = texts(exchange.delivered)
        assert all(text.startswith(said.get(channel, "")) for channel, text in texts(known).items())
        return
    assert without_candidates(texts(exchange.delivered)) == without_candidates(texts(before))
    silent = [event.raw for event in before if not event.deltas and not event.parsed.mirrored]
    remaining = iter(event.raw for event in exchange.delivered)
    assert all(raw in remaining for raw in silent)
    assert exchange.close() == {}


QUIET = st.text(alphabet="abc 12.,é😀\n", max_size=10)


@pytest.mark.parametrize("form", FORMS)
@given(said=st.lists(QUIET | st.none(), max_size=8))
@settings(max_examples=40, deadline=None)
def test_texts_in_which_nothing_is_found(form: Form, said: list[str | None]) -> None:
    """`None` stands for an event without a text."""
    silent = b": ping\n\n" if form.content_type == SSE else b"{}\n" if form.content_type == NDJSON else b""
    body = b"".join(silent if text is None else form.event(text) for text in said) + form.end
    exchange = play(DEFAULTS, form.dialect, form.content_type, body)
    assert merged(exchange.delivered, form.channel) == "".join(filter(None, said))
    if silent:
        assert sum(event.raw == silent for event in exchange.delivered) == said.count(None)


def chunk(text: str, beside: str) -> bytes:
    """A chunk that has nothing but a text, or something `beside` it."""
    delta = {"role": "assistant", "content": text} if beside == "role" else {"content": text}
    choice = {"index": int(beside == "choice"), "delta": delta, "finish_reason": "stop" if beside == "end" else None}
    return (
        (b": a.b@c.c\n" if beside == "lines" else b"") + b"data: " + encode({"id": "a", "choices": [choice]}) + b"\n\n"
    )


def one_by_one(raws: Sequence[bytes], *, were_read: bool) -> list[list[tuple[bytes, list[Delta]]]]:
    """What goes out for each event, and at the end."""
    request = make_request(dialect=DIALECTS["openai-chat"])
    policy = asyncio.run(Redaction(CONFIG, FakeHost("redaction")).admit(request))
    head = make_head(request, SSE)
    assert isinstance(policy, PolicyStream)
    assert head.stream is not None
    policy.on_response(head)
    verdicts = []
    for raw in raws:
        event = head.stream.event(raw)
        if were_read:
            assert event.parsed
        verdicts.append(policy.on_events([event], 0.0))
    verdicts.append(policy.on_end(0.0))
    return [[(event.raw, list(event.deltas)) for event in verdict] for verdict in verdicts if isinstance(verdict, list)]


ALIKE = st.lists(
    st.tuples(st.just("") | st.sampled_from(["role", "lines", "choice", "end"]), st.lists(TEXTS, min_size=1))
)


@given(runs=ALIKE)
@settings(deadline=None)
def test_events_that_differ_in_their_text_alone_come_out_as_if_each_were_looked_at(
    runs: list[tuple[str, list[str]]],
) -> None:
    """Of an event that somebody has read before nothing is taken for granted."""
    raws = [chunk(text, beside) for beside, said in runs for text in said]
    assert one_by_one(raws, were_read=False) == one_by_one(raws, were_read=True)
