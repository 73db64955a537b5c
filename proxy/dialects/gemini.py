"""Gemini: `POST .../models/MODEL:generateContent` and `:streamGenerateContent`, also as Vertex AI serves them.

A stream is server-sent events where the query says `alt=sse`, else one JSON array that is sent element by element. Either
way each event is a whole `GenerateContentResponse`, whose parts clients append to those before; it has no terminal: a
candidate ends with its `finishReason`, the array with its bracket.

- Clients join the `text` of all parts of a candidate, and apart from them those that are a `thought`, so these are two
  channels, however many parts a reply has.
- The arguments of a function call are a JSON value, and not the text of one in pieces: its JSON is one text, whole in its
  event, its channel's index the JSON pointer below the candidate. Vertex AI can stream the strings in them in pieces
  (`partialArgs`): there the index is "/" and the JSON path that it gives.
- Any other string that is not one of the API's own words is a text too, whole in its event; it is a `repeated` one where it
  stands beside what the model says.

Source: Gemini API reference, "Generating content" and "Function calling"; Vertex AI, "FunctionCall"; google.rpc.Status and
google.rpc.ErrorInfo (AIP-193) for errors.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from ..errors import Problem
from ..framing import Event, Framing
from ..policy import Ending
from . import arrays, logprobs, openai_common
from .base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Parsed, Usage
from .documents import (
    Path,
    Slot,
    encode,
    is_binary,
    is_blank,
    is_filled,
    is_value,
    only,
    pointer,
    string_slots,
    texts_of,
)
from .generic import Generic
from .stream import NOTHING, DocumentStream, Text, every_text, framing_of

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead

# The method of a model (some clients escape the colon), and models in a version that only this API has.
_PATH = re.compile(r"/(?:models|tunedModels|endpoints)/(?P<model>[^/]+)(?::|%3A)(?P<method>[A-Za-z]+)/?$")
_MODELS = re.compile(r"/v\d+(?:alpha|beta)\d*/(?:models|tunedModels)(?:/[^/]+)?/?$")

_MAX_CANDIDATES = 128  # that are kept track of; the API's own limit is 8

# In requests, in either spelling: the API's words and names, and opaque bytes.
_WORDS = frozenset(
    ("role", "name", "id", "type", "model", "mode", "category", "threshold", "language", "outcome", "format")
)
_CALLS = frozenset(("functionCall", "function_call", "functionResponse", "function_response"))
_OPAQUE = frozenset(
    (
        "fileData", "file_data", "thoughtSignature", "thought_signature", "cachedContent",
        "cached_content", "responseMimeType", "response_mime_type", "responseModalities", "response_modalities",
    )
)  # fmt: skip

# google.rpc.Code of a status; https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}
# What every response of a stream says alike.
_ENVELOPE = ("modelVersion", "responseId", "createTime")
_RESPONSE = {"candidates", "promptFeedback", "usageMetadata"}
_NO_TEXTS = {*_ENVELOPE, "candidates", "usageMetadata"}
# What carries nothing worth an event of its own, and what has to stand beside a piece of text.
_NUMBERS = ("index", "role")
_BESIDE = (*_NUMBERS, "thought", "jsonPath", "willContinue")


class _ArrayCall(Call):
    """A request for a stream that is one JSON array."""


class Gemini:
    name = "gemini"

    def matches(self, path: str) -> bool:
        return bool(_PATH.search(path) or _MODELS.search(path))

    def speaks(self, document: Any) -> bool:
        return isinstance(document, dict) and not document.keys().isdisjoint(("candidates", "promptFeedback"))

    def read_call(self, request: Request) -> Call:
        """Model and stream flag stand in the path, so they are known without the body."""
        document = openai_common.read_request(request.body)
        named = _PATH.search(request.path)
        stream = named is not None and named["method"] == "streamGenerateContent"
        config = _either(document, "generationConfig", "generation_config")
        limit, choices = (
            _either(config, camel, snake)
            for camel, snake in (("maxOutputTokens", "max_output_tokens"), ("candidateCount", "candidate_count"))
        )
        make = _ArrayCall if stream and not _asks_for_events(request.query) else Call
        return make(
            model=unquote(named["model"]) if named is not None else None,
            stream=stream,
            choices=choices if type(choices) is int and choices > 0 else 1,
            max_output_tokens=limit if type(limit) is int and limit >= 0 else None,
            texts=texts_of(self.request_texts([document])),
            document=document or None,
        )

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        """Where a request's document, `root[0]`, has its texts. Raises ValueError where they nest too deeply to be found."""
        slots = map(_readable, string_slots(root, 0, (), is_filled))
        return (slot for slot in slots if not _is_word(slot.path, slot.text))

    def ask_for_usage(self, request: Request) -> bool:
        return False  # it is always stated

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return "application/json", encode(_error(problem))

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        if head.local and isinstance(call, _ArrayCall):
            framing = (
                Framing.JSON_ARRAY
            )  # whatever the head of a reply that opens early says: the client waits for that
        elif framing is Framing.JSON and call.stream and head.status < 400:
            framing = Framing.JSON_ARRAY
        if framing in (Framing.SSE, Framing.JSON, Framing.JSON_ARRAY):
            return GeminiStream(framing, call)
        return Generic().open(head, call)


def _asks_for_events(query: str) -> bool:
    fields = parse_qs(query)
    return "sse" in (*fields.get("alt", ()), *fields.get("$alt", ()))


class _FileSlot(Slot):
    """Where `inlineData` has its data, if that is text. Raises ValueError for text that is not in UTF-8."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return base64.b64decode(self.holder[self.key], validate=True).decode()

    def put(self, text: str) -> None:
        self.holder[self.key] = base64.b64encode(text.encode(errors="surrogatepass")).decode()


def _is_data(slot: Slot) -> bool:
    return slot.key == "data" and slot.path[-2:-1] in (("inlineData",), ("inline_data",))


def _is_of_text(slot: Slot) -> bool:
    return str(_either(slot.holder, "mimeType", "mime_type")).startswith("text/")


def _readable(slot: Slot) -> Slot:
    """The slot where a text stands, also one that is in base64."""
    if _is_data(slot) and _is_of_text(slot):
        with contextlib.suppress(ValueError):  # what is no base64 is read as it stands
            base64.b64decode(slot.text, validate=True)
            return _FileSlot(*slot)
    return slot


def _either(document: Any, camel: str, snake: str) -> Any:
    """A field by either of its two names (Protocol Buffers, "ProtoJSON Format": parsers accept both)."""
    if not isinstance(document, dict):
        return None
    return document.get(camel, document.get(snake))


def _is_word(path: Path, text: str) -> bool:
    """Whether the string at `path` of a request is one of the API's own words, a name, or opaque bytes."""
    names = [name for name in path if isinstance(name, str)]
    if is_value(path) or (names[-1:] == ["name"] and not _CALLS.isdisjoint(names)):
        return False
    if "inlineData" in names or "inline_data" in names:
        return names[-1] != "data" or is_binary(text, path)
    return not names or names[-1] in _WORDS or not _OPAQUE.isdisjoint(names)


def _error(problem: Problem) -> dict[str, Any]:
    """The SDK reads an error in a stream only where `error` comes first, and takes its class from `code`."""
    other = "UNAVAILABLE" if problem.status > 500 else "INVALID_ARGUMENT"
    return {
        "error": {
            "code": problem.status,
            "message": problem.message,
            "status": _STATUSES.get(problem.status, other),
            "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": problem.details, "domain": "penstock"}
            ],
        }
    }


def _is_structure(path: Path) -> bool:
    """Whether the string at `path` of a candidate is one of the API's own words or names, or opaque bytes."""
    match path:
        case ("finishReason",) | ("content", "role") | ("safetyRatings", _, "category" | "probability" | "severity"):
            return True
        case ("logprobsResult", *_):  # the text once more, token by token
            return True
        case ("content", "parts", _, "thoughtSignature" | "thought_signature", *_):
            return True
        case ("content", "parts", _, "inlineData" | "inline_data", "mimeType" | "mime_type"):
            return True
        case ("content", "parts", _, "fileData" | "file_data" | "mediaResolution", *_):
            return True
        case (
            ("content", "parts", _, "functionCall" | "function_call", "id")
            | ("content", "parts", _, "functionResponse" | "function_response", "id")
            | ("content", "parts", _, "functionCall", "partialArgs", _, "nullValue")
            | ("content", "parts", _, "executableCode", "language" | "id")
            | ("content", "parts", _, "codeExecutionResult", "outcome" | "id")
        ):
            return True
    return False


def _channel(index: int, candidate: Any, path: Path) -> Channel | None:
    """The channel of the string at `path` of a candidate; None where it is no text."""
    match path:
        case ("content", "parts", int(part), "text"):
            thought = candidate["content"]["parts"][part].get("thought") is True
            return Channel(index, Kind.REASONING if thought else Kind.TEXT, 0)
        case ("content", "parts", int(part), "functionCall", "partialArgs", int(piece), "stringValue"):
            place = candidate["content"]["parts"][part]["functionCall"]["partialArgs"][piece].get("jsonPath")
            return Channel(index, Kind.TEXT, f"/{place}")
        case _ if _is_value(path):
            return Channel(index, Kind.TOOL_ARGUMENTS, pointer(path))
    if _is_structure(path):
        return None
    return Channel(index, Kind.TEXT, pointer(path), path[0] != "content" or path[-1] in ("name", "jsonPath"))


def _is_value(path: Path) -> bool:
    """Whether there, in a candidate, stands an object that a model or tool filled, or a number of one."""
    if len(path) < 5:  # nearly all
        return False
    match path:
        case ("content", "parts", _, "functionCall" | "function_call", "args"):
            return True
        case ("content", "parts", _, "functionResponse" | "function_response", "response"):
            return True
        case ("content", "parts", _, "functionCall", "partialArgs", _, "numberValue"):
            return True
    return False


def _is_piece(channel: Channel) -> bool:
    """Whether more of this channel's text may come in later events."""
    return channel.index == 0 or str(channel.index).startswith("/$")


class GeminiStream(DocumentStream):
    """One reply."""

    terminates = True

    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing)
        self._call = call
        self._open: dict[int, bool] = {}
        """The candidates delivered so far: whether more of each may come."""
        self._begun = False  # the first element of the array was delivered
        self._bare = False  # what was to be an array is none

    # Reading

    def texts(self, root: list[Any]) -> Iterable[Text]:
        document = root[0]
        candidates = _candidates(document)
        if candidates is None:
            yield from every_text(root, 0)
            return
        for position, (index, candidate) in enumerate(candidates):
            for slot in string_slots(candidates[position], 1, (), _is_value):
                channel = _channel(index, candidate, slot.path)
                if slot.key == "data" and _is_data(slot):
                    slot = _readable(slot)
                    channel = channel if _is_of_text(slot) else None
                if channel is not None:
                    yield channel, type(slot)(slot.holder, slot.key, ("candidates", position, *slot.path))
            if "logprobsResult" in candidate:
                yield from logprobs.candidates(index, candidate, "logprobsResult", ("candidates", position))
        for name in document:
            if name not in _NO_TEXTS:
                for slot in string_slots(document, name, (name,)):
                    yield Channel(0, Kind.TEXT, pointer(slot.path), repeated=name != "error"), slot

    def is_complete(self, channel: Channel, document: Any) -> bool:
        return _candidates(document) is not None and not (channel.repeated or _is_piece(channel))

    def read(self, document: Any) -> Parsed:
        candidates = _candidates(document)
        if candidates is None:
            ended = isinstance(document, dict) and document.get("error")
            return Parsed(ends=(EVERY_CHANNEL,)) if ended else NOTHING
        ends = [end for index, candidate in candidates for end in _ends(index, candidate)]
        if document.get("error") or (document.get("promptFeedback") and not candidates):
            ends = [EVERY_CHANNEL]
        numbers = [index for index, _ in candidates]
        mirrored = any(candidate.get("logprobsResult") for _, candidate in candidates)
        return Parsed((), ends, _usage(document.get("usageMetadata")), numbers, mirrored=mirrored)

    # Writing

    def edited(self, document: Any, changed: Sequence[Channel]) -> None:
        numbers = {channel.choice for channel in changed}
        for index, candidate in _candidates(document) or ():
            if index in numbers:
                candidate.pop("logprobsResult", None)

    def drop_mirrors(self, root: list[Any]) -> bool:
        """Of log probabilities only those of exactly the texts beside them stay."""
        texts: dict[int | None, str] = {}
        for channel, slot in self.texts(root):
            if channel.index == 0:
                texts[channel.choice] = texts.get(channel.choice, "") + slot.text
        dropped = False
        for index, candidate in _candidates(root[0]) or ():
            if "logprobsResult" in candidate and logprobs.spelt(candidate["logprobsResult"]) != texts.get(index, ""):
                del candidate["logprobsResult"]
                dropped = True
        return dropped

    def is_blank(self, document: Any) -> bool:
        if self.framing is Framing.JSON_ARRAY or _candidates(document) is None:
            return False  # an element of an array is not left out: its bracket or comma would go with it
        if document.get("promptFeedback") or document.get("error"):
            return False
        return is_blank({name: value for name, value in document.items() if name not in _ENVELOPE}, _NUMBERS)

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        root, slot = self.place(event, channel)
        slot.put(text)
        for position, (index, candidate) in enumerate(_candidates(root[0]) or ()):
            if slot.path[:2] == ("candidates", position):
                said = {"index": index, **only(candidate, slot.path[2:], _BESIDE)}
                return Event(self._say(root[0], [said]).raw, self, Parsed([(channel, text)], choices=(index,)))
        return self.say_again(event, channel, text)  # of another API

    def _say(self, like: Mapping[str, Any], candidates: list[dict[str, Any]], **more: Any) -> Event:
        """A response of the same reply."""
        envelope = {name: like[name] for name in _ENVELOPE if name in like}
        return self.carry({"candidates": candidates, **more, **envelope})

    def comment(self) -> Event | None:
        """Blank lines, or whitespace where the array has begun: the SDKs take no comment for one, and fail on it."""
        if self.framing is Framing.SSE:
            return Event(b"\n\n", self, NOTHING)
        return Event(b"\n", self, NOTHING) if self._begun and not self.finished else None

    # Delivery and ends

    def delivered(self, events: Sequence[Event]) -> None:
        if self.framing is Framing.JSON:
            self.finished = True
            return
        for event in events:
            if self.framing is Framing.JSON_ARRAY:
                self._put_in_place(event)
            parsed = event.parsed
            if parsed.choices:
                self._last = event.raw
            for index in parsed.choices:
                if len(self._open) < _MAX_CANDIDATES:
                    self._open.setdefault(index, True)
            for end in parsed.ends:
                if end == EVERY_CHANNEL:
                    self.finished = self.finished or self._closes(event)
                elif end.kind is None and end.choice in self._open:
                    self._open[end.choice] = False
        if self.framing is Framing.SSE and len(self._open) >= self._call.choices:
            self.finished = self.finished or not any(self._open.values())

    def _closes(self, event: Event) -> bool:
        """Whether nothing can follow an event that ends every channel: in an array the bracket still has to."""
        return self.framing is Framing.SSE or self._bare or self.payload(event.raw) == arrays.CLOSING

    def _put_in_place(self, event: Event) -> None:
        """What comes first opens the array, whichever element that is once policies have left out or added some."""
        data = self.payload(event.raw)
        if data is None or self._bare:
            return
        if not self._begun and arrays.is_bare(event.raw):
            self._bare = self.finished = True
            return
        event.raw = arrays.in_place(event.raw, first=not self._begun)
        self._begun = True

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """LENGTH: each open candidate finishes with MAX_TOKENS. ERROR: an error object, at which the SDKs raise. In an
        array either is its last element."""
        if self.finished:
            return []
        if self.framing is Framing.JSON:
            return [self.carry(_error(problem))]
        events = [self.carry(_error(problem)) if ending is Ending.ERROR else self._finish()]
        if self.framing is Framing.JSON_ARRAY:
            events.append(self.event(b"\n" + arrays.CLOSING + b"\n"))
            for event in events:
                self._put_in_place(event)
        return events

    def _finish(self) -> Event:
        last = self.document(self._last)
        if not isinstance(last, dict):
            last = {}
        promised = range(min(self._call.choices, _MAX_CANDIDATES))
        candidates = [
            {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS", "index": index}
            for index in sorted({*promised, *self._open})
            if self._open.get(index, True)
        ]
        usage = last.get("usageMetadata") if self.counted is None else _usage_document(self.counted)
        more = {"usageMetadata": usage} if usage else {}
        return self._say(last, candidates, **more)


def _candidates(document: Any) -> list[tuple[int, dict[str, Any]]] | None:
    """The candidates with their numbers (an only one has none); None for a document of another shape."""
    if not isinstance(document, dict) or not document.keys() & _RESPONSE:
        return None
    candidates = document.get("candidates", [])
    if not isinstance(candidates, list) or not all(isinstance(candidate, dict) for candidate in candidates):
        return None
    numbers = (candidate.get("index") for candidate in candidates)
    return [
        (number if type(number) is int else position, candidate)
        for position, (number, candidate) in enumerate(zip(numbers, candidates, strict=True))
    ]


def _ends(index: int, candidate: Mapping[str, Any]) -> Iterable[Channel]:
    """What ends with a candidate's part of an event, but for texts that are whole in it."""
    match candidate:
        case {"content": {"parts": list(parts)}}:
            for part in parts:
                yield from _ended_arguments(index, part)
    if candidate.get("finishReason"):
        yield Channel(index, None, None)


def _ended_arguments(index: int, part: Any) -> Iterable[Channel]:
    match part:
        case {"functionCall": {"partialArgs": list(pieces)}}:
            for piece in pieces:
                if isinstance(piece, dict) and piece.get("willContinue") is not True:
                    yield Channel(index, Kind.TEXT, f"/{piece.get('jsonPath')}")


def _usage(metadata: Any) -> Usage | None:
    """Thoughts and what tools put into the prompt are counted apart here, and not in other APIs."""
    if not isinstance(metadata, dict):
        return None
    return Usage(
        _sum(metadata, ("promptTokenCount", "toolUsePromptTokenCount")),
        _sum(metadata, ("candidatesTokenCount", "thoughtsTokenCount")),
    )


def _sum(counts: Mapping[str, Any], names: Collection[str]) -> int | None:
    stated = [counts[name] for name in names if type(counts.get(name)) is int]
    return sum(stated) if stated else None


def _usage_document(usage: Usage) -> dict[str, int]:
    prompt, output = usage.input_tokens or 0, usage.output_tokens or 0
    return {"promptTokenCount": prompt, "candidatesTokenCount": output, "totalTokenCount": prompt + output}
