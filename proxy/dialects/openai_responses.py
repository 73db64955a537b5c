"""OpenAI Responses: `POST .../responses`, also served by vLLM, llama.cpp, transformers and Ollama.

Its texts come twice and more often: piece by piece in `*.delta`, whole in `*.done`, and again in the parts, items and the
response that they belong to. What repeats is a `repeated` channel; so is what comes once but whole (an annotation, the
results of a search, what the response says again of the request). Where they stand is `openai_responses_texts.py`'s.

Event types that are not known here, and new ones are added often, follow the rule of all: `X.delta` adds `delta` to a
text, `X.done` says the whole, and any other says what it says whole (`X.added`): the API has no other word for a piece than
`delta`. Where a new delta has other strings than its `delta`, and in what is no event of this API (their types have a dot),
there may be pieces that cannot be told: these are unknown, and policies that have to see the text fail closed. Images and
sounds are no text; the transcript of a sound is.

Sequence numbers are the upstream's, also where a policy withheld events: they are cursors into the upstream's own record
of the response (`starting_after`), so that counting anew would make a client that resumes lose or repeat text. What a
policy adds to an event has that event's number, and the events of an ending count on. SDKs compare, and do not count.

Source: OpenAI API reference, "Responses" and its "Streaming events".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import Problem
from ..framing import Event, Framing
from ..policy import Ending
from . import openai_common, sse
from .base import EVERY_CHANNEL, Call, Channel, Delta, DialectStream, Parsed
from .documents import Path, Slot, has_more_strings, string_slots
from .generic import Generic
from .logprobs import candidates, spelt
from .openai_responses_record import Record
from .openai_responses_texts import (
    BY_EVENT,
    BY_OWNER,
    MIRROR,
    SPOKEN,
    Document,
    ends_of,
    event_texts,
    grows,
    mirrored,
    response_texts,
    split_type,
)
from .stream import NOTHING, DocumentStream, Text, every_text, framing_of, splice, usage_of

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead

_PATH = re.compile(r"/responses(/(resp_[^/]+)(/cancel)?|/compact)?/?$")


class OpenAIResponses:
    name = "openai-responses"

    def matches(self, path: str) -> bool:
        return _PATH.search(path) is not None

    def speaks(self, document: Any) -> bool:
        if not isinstance(document, dict):
            return False
        return document.get("object") == "response" or str(document.get("type")).startswith("response.")

    def read_call(self, request: Request) -> Call:
        path = _PATH.search(request.path)
        if path is not None and path[2] is not None and (request.method != "POST" or path[3]):
            query = parse_qs(request.query)
            return Call(stream=query.get("stream") == ["true"], kept_id=path[2], resumes="starting_after" in query)
        document = openai_common.read_request(request.body)
        texts = [slot.text for slot in _request_slots(document)]
        return openai_common.read_call(document, document.get("max_output_tokens"), texts)

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        return Generic().request_texts(root)

    def ask_for_usage(self, request: Request) -> bool:
        return False  # it is always stated

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return openai_common.error_body(problem)

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        if framing in (Framing.SSE, Framing.JSON):
            return ResponsesStream(framing, call)
        return Generic().open(head, call)


# Requests


def _request_slots(document: Document) -> Iterator[Slot]:
    """What a request says: instructions, and of its input the contents, reasoning, arguments and outputs of tools. Not
    images and files, which are strings too."""
    for name in ("instructions", "input"):
        if isinstance(document.get(name), str):
            yield Slot(document, name, (name,))
    items = document.get("input")
    for number in range(len(items)) if isinstance(items, list) else ():
        try:
            yield from [slot for slot in string_slots(items, number) if _is_said(slot.path)]
        except ValueError:  # nests too deeply
            continue


def _is_said(path: Path) -> bool:
    """Whether the string at `path` of an item of a request is a text."""
    match path:
        case ("content" | "output" | "arguments" | "input" | "code",):
            return True
        case ("content" | "summary" | "output", int(), "text" | "refusal"):
            return True
    return False


# A delta as nearly all are, typed: reading it costs a fifth of what reading any document does.


class _Delta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: str
    delta: str
    item_id: str | UnsetType | None = UNSET
    output_index: int | UnsetType | None = UNSET
    content_index: int | UnsetType = UNSET
    summary_index: int | UnsetType = UNSET
    sequence_number: int | UnsetType | None = UNSET
    obfuscation: str | UnsetType | None = UNSET
    logprobs: list[Any] | UnsetType | None = UNSET


class _Head(msgspec.Struct, gc=False):
    type: str
    sequence_number: int | None = None


_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_head = msgspec.json.Decoder(_Head).decode
_DELTAS = {f"response.{spoken.event}.delta": spoken for spoken in SPOKEN}


@lru_cache(1024)
def _channel(event: str, place: str | int | None, part: int) -> Channel:
    spoken = BY_EVENT[event]
    index = f"{place}/{spoken.parts}/{part}" if spoken.parts else str(place)
    return Channel(0, spoken.kind, index)


def _read_ordinary(raw: bytes, *, checked: bool = False) -> Parsed | None:
    """What an ordinary delta says; None where it is none. `checked`: no member in it is hidden by another of its name."""
    data = sse.read_data(raw) or b""
    try:
        said = _decode_delta(data)
    except (ValueError, RecursionError):
        return None
    spoken = _DELTAS.get(said.type)
    if spoken is None or said.logprobs or (not checked and has_more_strings(data, said)):
        return None
    place = said.output_index if isinstance(said.output_index, int) else said.item_id or None
    part = said.summary_index if spoken.parts == "summary" else said.content_index
    return Parsed([(_channel(spoken.event, place, part or 0), said.delta)] if said.delta else [])


class ResponsesStream(DocumentStream):
    """One reply."""

    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing)
        self.terminates = framing is Framing.SSE
        self._call = call
        self._record = Record()
        self._number: int | None = None  # the highest sequence number delivered

    # Reading

    def parse(self, raw: bytes) -> Parsed:
        parsed = _read_ordinary(raw) if self.framing is Framing.SSE else None
        return super().parse(raw) if parsed is None else parsed

    def texts(self, root: list[Any]) -> Iterable[Text]:
        document = root[0]
        if self.framing is Framing.SSE:
            yield from event_texts(document)
        elif isinstance(document, dict) and isinstance(document.get("output"), list):
            yield from response_texts(document, repeated=False)
        else:
            yield from every_text(root, 0)
            return
        for number, holder in enumerate(mirrored(document)):
            yield from candidates(0, holder, MIRROR, (number,))

    def is_complete(self, channel: Channel, document: Any) -> bool:
        return not channel.repeated and not grows(channel, document)

    def read(self, document: Any) -> Parsed:
        if not isinstance(document, dict):
            return NOTHING
        response = document.get("response", document)
        if isinstance(response, dict) and response.get("background") is True and isinstance(response.get("id"), str):
            self.kept_as = response["id"]
        usage = usage_of(document.get("response")) or usage_of(document)
        has_mirrors = next(mirrored(document), None) is not None
        return Parsed((), ends_of(document), usage, mirrored=has_mirrors)

    # Writing

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        if len(deltas) == 1 and self.framing is Framing.SSE and not event.parsed.mirrored:
            spliced = splice(event.raw, event.deltas[0][1], deltas[0][1])
            parsed = None if spliced is None else _read_ordinary(spliced, checked=True)
            if spliced is not None and parsed is not None and parsed.deltas == list(deltas):
                return Event(spliced, self, parsed)
        return super().rewrite(event, deltas)

    def edited(self, document: Any, changed: Sequence[Channel]) -> None:
        for holder in mirrored(document) if changed else ():
            holder[MIRROR] = []

    def drop_mirrors(self, root: list[Any]) -> bool:
        """Of log probabilities only those of exactly the text beside them stay."""
        others = [
            holder for holder in mirrored(root[0]) if spelt(holder[MIRROR]) != holder.get("delta", holder.get("text"))
        ]
        for holder in others:
            holder[MIRROR] = []
        return bool(others)

    def is_blank(self, document: Any) -> bool:
        return isinstance(document, dict) and split_type(str(document.get("type")))[1] == "delta"

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        root, slot = self.place(event, channel)
        document: Document = root[0]
        if channel.repeated or self.is_complete(channel, document):
            raise ValueError("only a text that goes on can be continued, not one that is whole in its event")
        name = sse.read(event.raw).event
        if split_type(str(document.get("type")))[1] == "delta":
            for _, other in list(self.texts(root)):
                other.put("")
            slot.put(text)
        elif (delta := _delta_for(document, slot, str(channel.index), text)) is not None:
            document = delta
            name = document["type"].encode() if name is not None else None
        else:
            return self.say_again(event, channel, text)
        self.edited(document, (channel,))
        return Event(self.carry(document, name).raw, self, Parsed([(channel, text)]))

    # Delivery and ends

    def delivered(self, events: Sequence[Event]) -> None:
        if self.framing is not Framing.SSE:
            self.finished = True
            return
        for event in events:
            data = self.payload(event.raw)
            if data is None:
                continue
            self._last = event.raw
            try:
                head = _decode_head(data)
            except (ValueError, RecursionError):
                head = _Head("")
            if head.sequence_number is not None:
                self._number = max(head.sequence_number, self._number or 0)
            if head.type in _DELTAS:
                for channel, text in event.deltas:
                    self._record.add(_DELTAS[head.type], channel, text)
            else:
                document = self.document(event.raw)
                if isinstance(document, dict):
                    self._record.note(head.type, document, len(event.raw))
            self.finished = self.finished or EVERY_CHANNEL in event.ends

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """LENGTH: what is open is closed, and the response is incomplete, as at the API's own limit. ERROR: an error event,
        with the error also where the SDKs look for one to raise."""
        if self.finished:
            return []
        error = openai_common.error_document(problem)["error"]
        if self.framing is not Framing.SSE:
            return [self.carry({"error": error})]
        if ending is Ending.ERROR:
            said = {name: error[name] for name in ("code", "message", "param")}
            return self._say([{"type": "error", **said, "error": error}])
        fresh = not self._last
        return self._say(self._record.incomplete(self._call.model or "", self.counted, fresh=fresh))

    def _say(self, documents: Iterable[Document]) -> list[Event]:
        """The events with these documents, numbered on; not where the upstream does not number its events (llama.cpp)."""
        number = self._number if self._last else -1
        events = []
        for document in documents:
            if number is not None:
                number += 1
                document["sequence_number"] = number
            events.append(self.carry(document, document["type"].encode()))
        return events


def _delta_for(document: Document, slot: Slot, index: str, text: str) -> Document | None:
    """A delta that adds `text` to what the event `document` began at `slot`; None where no delta could."""
    spoken = BY_OWNER.get(str(slot.holder.get("type"))) if isinstance(slot.holder, dict) else None
    if spoken is None or slot.key != spoken.field:
        return None
    delta: Document = {"type": f"response.{spoken.event}.delta"}
    delta |= {name: document[name] for name in ("sequence_number", "output_index") if name in document}
    item = document.get("item")
    delta["item_id"] = item.get("id") if isinstance(item, dict) else document.get("item_id")
    if spoken.parts:
        delta[f"{spoken.parts}_index"] = int(index.rpartition("/")[2])
    return {**delta, "delta": text, **spoken.mirrors}
