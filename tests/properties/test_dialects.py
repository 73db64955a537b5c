"""What a dialect reads in a reply depends on the reply alone, and what it writes says what it was told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.dialects import DIALECTS
from proxy.dialects.base import Call, Channel, Delta, DialectStream, Parsed
from proxy.dialects.documents import decode, decode_editable, encode, has_more_strings, is_label, repeats_names
from proxy.dialects.openai_chat import ChatStream
from proxy.dialects.sse import other_lines, read, with_data
from proxy.dialects.stream import DocumentStream
from proxy.errors import Problem
from proxy.framing import Event, Framing
from proxy.messages import Request, ResponseHead
from proxy.policy import Ending

FIXTURES = Path(__file__).parents[1] / "fixtures"
STREAMS = [path for end in ("*.sse", "*.ndjson", "*_array.json") for path in FIXTURES.rglob(end)]
REPLIES = sorted(path.relative_to(FIXTURES).as_posix() for path in STREAMS)
MEDIA_TYPES = {".sse": "text/event-stream", ".ndjson": "application/x-ndjson", ".json": "application/json"}
CONTENT_TYPES = ["text/event-stream", "application/json", "application/x-ndjson", "text/plain", "image/png"]
PROBLEM = Problem.of("upstream_silence")

ALL_DIALECTS = pytest.mark.parametrize("dialect", DIALECTS)

# Any text that JSON can carry: controls, quotes, astral characters and the halves of their pairs.
TEXTS = st.text(alphabet=st.characters() | st.sampled_from('"\\\n\r\x00\u2028é😀\ud83d\ude00'), max_size=8)


def open_stream(dialect: str, content_type: str = "text/event-stream", call: Call | None = None) -> DialectStream:
    return DIALECTS[dialect].open(ResponseHead(200, CIMultiDict({"Content-Type": content_type})), call or Call())


def play(stream: DialectStream, reads: Iterable[bytes]) -> list[Event]:
    framer = stream.framer(1 << 20)
    frames = [frame for data in reads for frame in framer.feed(data)]
    rest = framer.finish()
    return [stream.event(raw) for raw in (*frames, *([rest] if rest else ()))]


def join(events: Iterable[Event]) -> dict[Channel, str]:
    joined: dict[Channel, str] = {}
    for event in events:
        for channel, text in event.deltas:
            joined[channel] = joined.get(channel, "") + text
    return joined


def cut(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(place % (len(body) + 1) for place in cuts)
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]


def characters(text: str) -> str:
    """The text with the halves of surrogate pairs put together, as every reader of JSON does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def legible(deltas: Iterable[Delta]) -> list[Delta]:
    return [(channel, characters(text)) for channel, text in deltas if text]


# Replies

USAGE = st.none() | st.fixed_dictionaries({"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9)})
FUNCTIONS = st.fixed_dictionaries({"arguments": TEXTS}, optional={"name": TEXTS})
TOOL_CALLS = st.lists(
    st.fixed_dictionaries({"function": FUNCTIONS}, optional={"index": st.integers(0, 3), "id": TEXTS}), max_size=2
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none() | TEXTS,
        "reasoning_content": st.none() | TEXTS,
        "reasoning": TEXTS,
        "refusal": st.none() | TEXTS,
        "tool_calls": TOOL_CALLS,
        "audio": st.fixed_dictionaries({"transcript": TEXTS}),
    },
)
CHOICES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"delta": MESSAGES},
    optional={
        "index": st.integers(0, 3),
        "finish_reason": st.sampled_from([None, "", "stop", "length"]),
        "logprobs": st.none() | st.fixed_dictionaries({"content": st.just([])}),
        "text": TEXTS,
    },
)
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=3)},
    optional={"id": TEXTS, "created": st.integers() | st.floats(allow_nan=False, allow_infinity=False), "usage": USAGE},
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SPELLINGS = st.sampled_from(
    [
        lambda document: json.dumps(document),
        lambda document: json.dumps(document, separators=(",", ":")),
        lambda document: encode(document).decode(),
    ]
)


@st.composite
def chunks(draw: st.DrawFn, documents: st.SearchStrategy[Any] = CHUNKS) -> bytes:
    """An event with a chunk in one of the spellings of servers."""
    spell = draw(SPELLINGS)
    return b"data: " + str(spell(draw(documents))).encode() + b"\n\n"


ANYTHING = st.binary(max_size=60) | chunks() | chunks(JSON)


@pytest.mark.parametrize("fixture", REPLIES)
@ALL_DIALECTS
@given(cuts=st.lists(st.integers(0, 1 << 16), max_size=8))
@settings(deadline=None)  # long replies, on machines with other work
def test_texts_do_not_depend_on_reads(fixture: str, dialect: str, cuts: list[int]) -> None:
    """Every reply, also in a dialect that is not its own: the texts, and the bytes, are those of the whole."""
    body = (FIXTURES / fixture).read_bytes()
    said = (dialect, MEDIA_TYPES[Path(fixture).suffix], Call(stream=True))
    whole = play(open_stream(*said), [body])
    events = play(open_stream(*said), cut(body, cuts))
    assert b"".join(event.raw for event in events) == body
    assert join(events) == join(whole)


@ALL_DIALECTS
@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@given(raw=ANYTHING)
def test_nothing_that_an_upstream_sends_raises(dialect: str, content_type: str, raw: bytes) -> None:
    """Nor does its delivery, nor an ending after it; what is unknown has no texts."""
    stream = open_stream(dialect, content_type)
    event = stream.event(raw)
    assert event.known or not event.deltas
    assert all(text for _, text in event.deltas)
    stream.delivered([stream.event(raw)])
    for ending in Ending:
        assert all(isinstance(last.raw, bytes) for last in stream.ending(ending, PROBLEM))
    stream.comment()


@ALL_DIALECTS
@given(body=st.none() | st.binary(max_size=30) | JSON.map(encode))
def test_nothing_that_a_client_asks_raises(dialect: str, body: bytes | None) -> None:
    request = Request(id="1", method="POST", path="/", headers=CIMultiDict(), dialect=DIALECTS[dialect], body=body)
    assert request.call.choices >= 1
    assert all(isinstance(text, str) for text in request.call.texts)


@ALL_DIALECTS
@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@given(raw=ANYTHING)
def test_the_same_texts_change_nothing(dialect: str, content_type: str, raw: bytes) -> None:
    event = open_stream(dialect, content_type).event(raw)
    same = event.with_deltas(list(event.deltas))
    assert same is not None
    assert same.deltas == event.deltas
    if content_type != "text/plain":
        assert same.raw == raw


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions", "generic"])
@given(raw=chunks() | chunks(JSON.filter(lambda document: isinstance(document, dict | list))), data=st.data())
def test_a_rewritten_event_says_what_it_was_told(dialect: str, raw: bytes, data: st.DataObject) -> None:
    """To later policies, and to who reads its bytes; what it said besides, it still says."""
    stream = open_stream(dialect)
    event = stream.event(raw)
    deltas = [(channel, data.draw(TEXTS)) for channel, _ in event.deltas]
    rewritten = event.with_deltas(deltas)
    if rewritten is None:
        assert not any(text for _, text in deltas)
        assert not event.ends
        return
    assert legible(rewritten.deltas) == legible(deltas)
    again = stream.event(rewritten.raw)
    assert legible(again.deltas) == legible(deltas)
    assert again.ends == rewritten.ends == event.ends
    assert again.usage == rewritten.usage == event.usage


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions", "generic"])
@given(raw=chunks(), data=st.data())
def test_a_continuation_says_one_thing(dialect: str, raw: bytes, data: st.DataObject) -> None:
    stream = open_stream(dialect)
    event = stream.event(raw)
    assume(event.deltas)
    channel = data.draw(st.sampled_from([channel for channel, _ in event.deltas]))
    text = data.draw(TEXTS.filter(bool))
    continued = event.continuation(channel, text)
    assert legible(continued.deltas) == legible([(channel, text)])
    assert (list(continued.ends), continued.usage) == ([], None)
    again = stream.event(continued.raw).deltas
    if dialect == "generic":  # which says the words of an unknown API again
        again = [
            delta for delta in again if delta[0] == channel or not is_label(str(delta[0].index).rpartition("/")[2])
        ]
    assert [characters(found) for _, found in again] == [characters(text)]


# The dialects whose events have a type

_PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["output_text", "refusal", "reasoning_text", "summary_text", "new"])},
    optional={"text": TEXTS, "refusal": TEXTS, "annotations": st.lists(JSON, max_size=1), "logprobs": st.just([])},
)
_ITEMS = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "reasoning", "function_call", "custom_tool_call", "mcp_call", "new"])},
    optional={
        "id": st.sampled_from(["i", "j"]),
        "content": st.lists(_PARTS, max_size=2),
        "summary": st.lists(_PARTS, max_size=2) | TEXTS,
        "arguments": TEXTS,
        "input": TEXTS,
        "output": TEXTS | st.lists(_PARTS, max_size=1),
        "status": st.just("completed"),
    },
)
_LOGPROBS = st.lists(st.fixed_dictionaries({"token": TEXTS}), max_size=1)
_RESPONSES = st.fixed_dictionaries({}, optional={"id": TEXTS, "output": st.lists(_ITEMS, max_size=2), "user": TEXTS})
RESPONSES_EVENTS = st.fixed_dictionaries(
    {
        "type": st.builds(
            "response.{}{}".format,
            st.sampled_from(
                ["output_text.", "refusal.", "reasoning_text.", "reasoning_summary_text.", "function_call_arguments.",
                 "custom_tool_call_input.", "output_item.", "content_part.", "reasoning_summary_part.", "new.", ""]
            ),
            st.sampled_from(["delta", "added", "done", "created", "completed", "incomplete", "failed"]),
        )
        | st.sampled_from(["error", "keepalive"])
    },
    optional={
        "item_id": st.sampled_from(["i", "j"]),
        "output_index": st.none() | st.integers(0, 2),
        "content_index": st.integers(0, 2),
        "summary_index": st.integers(0, 2),
        "sequence_number": st.integers(0, 99),
        "delta": TEXTS,
        "text": TEXTS,
        "arguments": TEXTS,
        "logprobs": _LOGPROBS,
        "item": _ITEMS,
        "part": _PARTS,
        "response": _RESPONSES,
        "error": st.none() | st.fixed_dictionaries({"message": TEXTS}),
    },
)  # fmt: skip
_BLOCKS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "thinking", "tool_use", "new", "text_delta", "input_json_delta", "citations_delta"]
        )
    },
    optional={"text": TEXTS, "thinking": TEXTS, "partial_json": TEXTS, "input": JSON, "signature": TEXTS, "new": TEXTS},
)
ANTHROPIC_EVENTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["content_block_delta", "content_block_start", "content_block_stop", "message_start", "message_delta",
             "message_stop", "ping", "error", "new"]
        )
    },
    optional={
        "index": st.integers(0, 2),
        "delta": _BLOCKS | st.fixed_dictionaries({"stop_reason": st.sampled_from([None, "end_turn"])}),
        "content_block": _BLOCKS,
        "message": st.fixed_dictionaries({"content": st.lists(_BLOCKS, max_size=2)}),
        "usage": st.fixed_dictionaries({"output_tokens": st.integers(0, 9)}),
        "error": st.none() | st.fixed_dictionaries({"message": TEXTS}),
        "note": TEXTS,
    },
)  # fmt: skip
EVENTS = {"openai-responses": RESPONSES_EVENTS, "anthropic": ANTHROPIC_EVENTS}
TYPED = pytest.mark.parametrize("dialect", EVENTS)


@TYPED
@given(data=st.data())
def test_a_rewritten_event_with_a_type_says_what_it_was_told(dialect: str, data: st.DataObject) -> None:
    """To later policies, and to who reads its bytes; nothing of a text that was taken out is left."""
    stream = open_stream(dialect)
    event = stream.event(data.draw(chunks(EVENTS[dialect])))
    deltas = [(channel, data.draw(TEXTS)) for channel, _ in event.deltas]
    rewritten = event.with_deltas(deltas)
    if rewritten is None:
        assert not any(text for _, text in deltas)
        assert not event.ends
        return
    assert legible(rewritten.deltas) == legible(deltas)
    again = stream.event(rewritten.raw)
    assert legible(again.deltas) == legible(deltas)
    assert list(rewritten.ends) == list(event.ends)
    emptied = {channel for channel, text in deltas if not text}  # what is not there any more does not end there
    assert list(again.ends) == [end for end in event.ends if end not in emptied]
    assert again.usage == rewritten.usage == event.usage


@TYPED
@given(data=st.data())
def test_a_text_that_an_event_adds_to_can_be_continued(dialect: str, data: st.DataObject) -> None:
    """Or there was no more to come of it."""
    stream = open_stream(dialect)
    event = stream.event(data.draw(chunks(EVENTS[dialect])))
    assume(event.deltas)
    channel = data.draw(st.sampled_from([channel for channel, _ in event.deltas]))
    text = data.draw(TEXTS.filter(bool))
    try:
        continued = event.continuation(channel, text)
    except ValueError:
        assert channel.repeated or not event.document["type"].endswith("delta")
        return
    assert legible(continued.deltas) == legible([(channel, text)])
    assert (list(continued.ends), continued.usage) == ([], None)
    assert legible(stream.event(continued.raw).deltas) == legible([(channel, text)])


@TYPED
@given(data=st.data())
def test_a_typed_event_says_what_it_says_as_a_document(dialect: str, data: st.DataObject) -> None:
    stream = open_stream(dialect)
    assert isinstance(stream, DocumentStream)
    raw = data.draw(chunks(EVENTS[dialect]) | chunks(JSON))
    fast, slow = stream.parse(raw), DocumentStream.parse(stream, raw)
    assert list(fast.deltas) == list(slow.deltas)
    assert list(fast.ends) == list(slow.ends)
    assert (fast.usage, fast.known, fast.mirrored) == (slow.usage, slow.known, slow.mirrored)


@TYPED
@given(data=st.data())
def test_an_ending_with_types_does_not_depend_on_who_read_the_events(dialect: str, data: st.DataObject) -> None:
    """And it is the end: nothing comes after it, whatever came before."""
    others = st.sampled_from([b": c\n\n", b"data: [DONE]\n\n", b"data: {\n\n"])
    raws = data.draw(st.lists(chunks(EVENTS[dialect]) | others, max_size=6))
    read_before, unread = open_stream(dialect), open_stream(dialect)
    for raw in raws:
        event = read_before.event(raw)
        assert event.parsed
        read_before.delivered([event])
        unread.delivered([unread.event(raw)])
    assert read_before.finished == unread.finished
    one, other = read_before.ending(Ending.LENGTH, PROBLEM), unread.ending(Ending.LENGTH, PROBLEM)
    assert [event.raw for event in one] == [event.raw for event in other]
    read_before.delivered(one)
    assert read_before.finished
    assert read_before.ending(Ending.LENGTH, PROBLEM) == []


# The two ways of the chat dialect: by type and by document


class Slow(ChatStream):
    """Reads and rewrites every chunk as any document."""

    def parse(self, raw: bytes) -> Parsed:
        return DocumentStream.parse(self, raw)

    def rewrite(self, event: Event, deltas: Any) -> Event | None:
        return DocumentStream.rewrite(self, event, deltas)


@given(raw=chunks() | chunks(JSON))
def test_a_typed_chunk_says_what_it_says_as_a_document(raw: bytes) -> None:
    fast, slow = ChatStream(Framing.SSE, Call()).parse(raw), Slow(Framing.SSE, Call()).parse(raw)
    assert list(fast.deltas) == list(slow.deltas)
    assert list(fast.ends) == list(slow.ends)
    assert (fast.usage, list(fast.choices), fast.known) == (slow.usage, list(slow.choices), slow.known)


@given(raw=chunks(), data=st.data())
def test_a_text_replaced_in_place_makes_the_same_document(raw: bytes, data: st.DataObject) -> None:
    fast, slow = ChatStream(Framing.SSE, Call()).event(raw), Slow(Framing.SSE, Call()).event(raw)
    deltas = [(channel, data.draw(TEXTS)) for channel, _ in fast.deltas]
    in_place, anew = fast.with_deltas(deltas), slow.with_deltas(deltas)
    if in_place is None or anew is None:
        assert in_place is anew
    else:
        assert in_place.document == anew.document


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions"])
@given(raws=st.lists(chunks() | st.sampled_from([b": c\n\n", b"data: [DONE]\n\n", b"data: {\n\n"]), max_size=5))
def test_an_ending_does_not_depend_on_who_read_the_events(dialect: str, raws: list[bytes]) -> None:
    call = Call(choices=2, wants_usage=True)
    read_before, unread = open_stream(dialect, call=call), open_stream(dialect, call=call)
    for raw in raws:
        event = read_before.event(raw)
        assert event.parsed
        read_before.delivered([event])
        unread.delivered([unread.event(raw)])
    assert read_before.finished == unread.finished
    for ending in Ending:
        one, other = read_before.ending(ending, PROBLEM), unread.ending(ending, PROBLEM)
        assert [event.raw for event in one] == [event.raw for event in other]


# The dialects whose events are whole replies: Gemini, Ollama, TGI

_ARGUMENTS = st.dictionaries(TEXTS, JSON, max_size=2)
_GEMINI_PARTS = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "thought": st.booleans(),
        "thoughtSignature": TEXTS,
        "functionCall": st.fixed_dictionaries(
            {"name": TEXTS},
            optional={
                "args": _ARGUMENTS,
                "partialArgs": st.lists(
                    st.fixed_dictionaries(
                        {"jsonPath": st.sampled_from(["$.a", "$.b"]), "stringValue": TEXTS},
                        optional={"willContinue": st.booleans()},
                    ),
                    max_size=2,
                ),
            },
        ),
        "executableCode": st.fixed_dictionaries({"language": st.just("PYTHON"), "code": TEXTS}),
        "new": JSON,
    },
)
_CANDIDATES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 2),
        "content": st.fixed_dictionaries(
            {"parts": st.lists(_GEMINI_PARTS, max_size=3)}, optional={"role": st.just("model")}
        ),
        "finishReason": st.sampled_from([None, "STOP", "MAX_TOKENS"]),
        "logprobsResult": st.fixed_dictionaries(
            {"chosenCandidates": st.lists(st.fixed_dictionaries({"token": TEXTS}), max_size=2)}
        ),
        "groundingMetadata": JSON,
    },
)
GEMINI_EVENTS = st.fixed_dictionaries(
    {"candidates": st.lists(_CANDIDATES, max_size=2)},
    optional={
        "usageMetadata": st.fixed_dictionaries({"promptTokenCount": st.integers(0, 9)}),
        "promptFeedback": st.fixed_dictionaries({"blockReason": TEXTS}),
        "responseId": TEXTS,
        "error": st.none() | st.fixed_dictionaries({"message": TEXTS}),
        "new": JSON,
    },
)
_TOOLS = st.lists(
    st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": TEXTS, "arguments": _ARGUMENTS | TEXTS})})
)
OLLAMA_EVENTS = st.fixed_dictionaries(
    {"done": st.booleans()},
    optional={
        "model": TEXTS,
        "message": st.fixed_dictionaries(
            {"role": st.just("assistant")},
            optional={
                "content": TEXTS,
                "thinking": TEXTS,
                "tool_calls": _TOOLS,
                "images": st.none() | st.just(["i"]),
            },
        ),
        "response": TEXTS,
        "thinking": TEXTS,
        "context": st.lists(st.integers(0, 9), max_size=3),
        "eval_count": st.integers(0, 9),
        "logprobs": st.lists(st.fixed_dictionaries({"token": TEXTS}), max_size=2),
        "error": TEXTS,
    },
)
_TOKENS = st.fixed_dictionaries({"id": st.integers(0, 9), "text": TEXTS, "special": st.booleans()})
TGI_EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 9),
        "token": _TOKENS,
        "top_tokens": st.lists(_TOKENS, max_size=1),
        "generated_text": st.none() | TEXTS,
        "details": st.none() | st.fixed_dictionaries({"generated_tokens": st.integers(0, 9)}),
        "error": st.none() | TEXTS,
        "new": JSON,
    },
)
WHOLES = {
    "gemini": (GEMINI_EVENTS, "text/event-stream", Call(), b"data: %s\n\n"),
    "gemini array": (GEMINI_EVENTS, "application/json", Call(stream=True), b"\n,\r\n%s"),
    "ollama": (OLLAMA_EVENTS, "application/x-ndjson", Call(), b"%s\n"),
    "tgi": (TGI_EVENTS, "text/event-stream", Call(), b"data:%s\n\n"),
}
ALL_WHOLES = pytest.mark.parametrize("name", WHOLES)


@st.composite
def wholes(draw: st.DrawFn, name: str) -> tuple[DialectStream, Event]:
    documents, content_type, call, frame = WHOLES[name]
    stream = open_stream(name.partition(" ")[0], content_type, call)
    return stream, stream.event(frame % str(draw(SPELLINGS)(draw(documents))).encode())


def without_tokens(deltas: Sequence[Delta]) -> list[Delta]:
    """But for lists of tokens, which go with what is changed beside them."""
    return [delta for delta in deltas if not str(delta[0].index).endswith("tokens")]


@ALL_WHOLES
@given(data=st.data())
def test_a_rewritten_whole_says_what_it_was_told(name: str, data: st.DataObject) -> None:
    stream, event = data.draw(wholes(name))
    deltas = [  # Gemini's pieces are told apart by their paths; tokens that are changed are taken out
        (channel, text if str(channel.index).endswith(("/jsonPath", "tokens")) else data.draw(TEXTS))
        for channel, text in event.deltas
    ]
    rewritten = event.with_deltas(deltas)
    answers_end = [end for end in event.ends if end.kind is None]
    if rewritten is None:
        assert not any(text for _, text in without_tokens(deltas))
        assert not answers_end
        return
    assert legible(without_tokens(rewritten.deltas)) == legible(without_tokens(deltas))
    again = stream.event(rewritten.raw)
    assert legible(again.deltas) == legible(rewritten.deltas)
    assert list(rewritten.ends) == list(event.ends)
    assert [end for end in again.ends if end.kind is None] == answers_end
    assert again.usage == rewritten.usage == event.usage


@ALL_WHOLES
@given(data=st.data())
def test_a_whole_without_mirrors_says_the_same(name: str, data: st.DataObject) -> None:
    stream, event = data.draw(wholes(name))
    if not event.parsed.mirrored:
        return
    shown = stream.without_mirrors(event)  # type: ignore[attr-defined,unused-ignore]
    if shown is None:
        assert not event.deltas
        return
    assert list(stream.event(shown.raw).deltas) == list(event.deltas)


@ALL_WHOLES
@given(data=st.data())
def test_a_text_that_goes_on_can_be_continued(name: str, data: st.DataObject) -> None:
    """Or it ended with its event."""
    stream, event = data.draw(wholes(name))
    going_on = [
        channel
        for channel, _ in event.deltas
        if not channel.repeated and not any(end.covers(channel) for end in event.ends)
    ]
    if not going_on:
        return
    channel = data.draw(st.sampled_from(going_on))
    text = data.draw(TEXTS.filter(bool))
    continued = event.continuation(channel, text)
    assert legible(continued.deltas) == legible([(channel, text)])
    assert (list(continued.ends), continued.usage) == ([], None)
    again = [delta for delta in stream.event(continued.raw).deltas if not str(delta[0].index).endswith("/jsonPath")]
    assert legible(again) == legible([(channel, text)])


@ALL_WHOLES
@pytest.mark.parametrize("ending", Ending)
@given(data=st.data())
def test_an_ending_is_the_end(name: str, ending: Ending, data: st.DataObject) -> None:
    """Whatever came before it, and nothing comes after it."""
    _, content_type, call, _ = WHOLES[name]
    stream = open_stream(name.partition(" ")[0], content_type, call)
    said = [data.draw(wholes(name))[1] for _ in range(data.draw(st.integers(0, 3)))]
    stream.delivered(said)
    last = stream.ending(ending, PROBLEM)
    if stream.framing is Framing.JSON_ARRAY:
        assert len(decode(b"".join(event.raw for event in [*said, *last]))) == len(said) + 1
    stream.delivered(last)
    assert stream.finished
    assert stream.ending(ending, PROBLEM) == []


@given(data=st.data())
def test_elements_that_are_left_out_or_added_leave_an_array(data: st.DataObject) -> None:
    """Separators belong to places: whatever reaches the client, it is one array."""
    raws = [encode(document) for document in data.draw(st.lists(GEMINI_EVENTS, max_size=5))]
    body = b"[" + b"\n,\r\n".join(raws) + b"\n]\n"
    stream = open_stream("gemini", "application/json", Call(stream=True))
    kept = []
    for event in play(stream, [body]):
        closes = event.raw.strip().endswith(b"]") and event.document is None
        if closes or data.draw(st.booleans()):
            kept.append(event)
        if not closes and event.document is not None and data.draw(st.booleans()):
            kept.append(stream.event(b",\n" + raws[0]))
    elements = sum(event.document is not None for event in kept)
    for event in kept:
        stream.delivered([event])
    assert len(decode(b"".join(event.raw for event in kept))) == elements


# What events are made of


@given(document=JSON, spell=SPELLINGS)
def test_a_document_survives_editing(document: Any, spell: Any) -> None:
    data = spell(document).encode()
    again = encode(decode_editable(data))
    assert json.loads(again) == json.loads(data) == decode(data)
    assert encode(decode_editable(again)) == again


@given(
    lines=st.lists(st.sampled_from([b"data: a", b"data", b"event: e", b"id: 1", b": c", b"x: y"]), max_size=5),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    data=st.lists(st.binary(max_size=5).filter(lambda line: not {10, 13} & set(line)), min_size=1, max_size=3),
)
def test_an_event_with_other_data_says_the_rest_as_before(lines: list[bytes], end: bytes, data: list[bytes]) -> None:
    raw = end.join([b"data: first", *lines, b"", b""])
    text = b"\n".join(data)
    assert read(with_data(raw, text)) == read(raw)._replace(data=text)


# Repeated names

_NAMES = st.sampled_from(['"a"', '"b"', '"\\u0061"', '"\\""', '"\\u0022"', '"\\\\u0022"'])
_SPELT = st.recursive(
    _NAMES | st.sampled_from(["1", "1.50", "null", '"\\ud83d"', '"\\u0022\\u0022"']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(_NAMES, inner), max_size=3).map(
            lambda pairs: f"{{{','.join(f'{name}: {value}' for name, value in pairs)}}}"
        )
    ),
)


def _has_repeated_names(value: Any) -> bool:
    """Of a document whose objects are read as tuples of pairs."""
    if isinstance(value, tuple):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(_has_repeated_names(inner) for _, inner in value)
    return isinstance(value, list) and any(map(_has_repeated_names, value))


@given(text=_SPELT)
def test_names_that_an_object_repeats_are_found(text: str) -> None:
    """However they and the quotes of other strings are spelt."""
    data = text.encode()
    repeated = _has_repeated_names(json.loads(text, object_pairs_hook=tuple))
    document = decode_editable(data)
    assert repeats_names(data, document) == repeated
    assert has_more_strings(data, document) or not repeated


# What stands around a `usage` that is null: members with texts, other objects that have one, padding.
NULL_USAGES = st.fixed_dictionaries({"id": st.just(1), "usage": st.none()})
MEMBERS = st.fixed_dictionaries(
    {"choices": st.just([]) | st.just([{"index": 0, "delta": {"content": ',"usage":null}'}}])},
    optional={
        "usage": st.none(),
        "obfuscation": st.sampled_from(["", "aB3", '"}', ',"usage":null']),
        "x": NULL_USAGES | st.lists(NULL_USAGES, max_size=2) | st.just("usage"),
    },
).flatmap(lambda members: st.permutations(list(members.items())).map(dict))


@given(
    document=MEMBERS,
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :")]),
    lines=st.sampled_from(
        [b"data: %s\n\n", b"data:%s \r\n\r\n", b"data: %s\n: ,%s\n\n", b": ,%s\ndata: %s\n\n", b": ,%s\n\n"]
    ),
)
def test_usage_that_is_null_is_taken_from_the_top_alone(
    document: dict[str, Any], separators: tuple[str, str], lines: bytes
) -> None:
    """However it is spelt and wherever it stands; what has none at its top is the event itself."""
    data = json.dumps(document, separators=separators).encode()
    raw = lines.replace(b"%s", data)
    stream = open_stream("openai-chat")
    event = stream.event(raw)
    left = stream.without_usage(event)
    assert left is not None
    if event.document is None or "usage" not in document:
        assert left is event
    else:
        del document["usage"]
        assert list(left.document.items()) == list(document.items())
        assert other_lines(left.raw) == other_lines(raw)
        assert left.parsed.deltas == event.deltas
