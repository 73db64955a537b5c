"""Where a Gemini reply has its texts, which of them end, and texts that stand in base64; pure.

- Clients join the `text` of all parts of a candidate, and apart from them those that are a `thought`, so these are two
  channels, however many parts a reply has.
- The arguments of a function call are a JSON value, and not the text of one in pieces: its JSON is one text, whole in its
  event, its channel's index the JSON pointer below the candidate. Vertex AI can stream the strings in them in pieces
  (`partialArgs`): there the index is "/" and the JSON path that it gives.
- Any other string that is not one of the API's own words is a text too, whole in its event; it is a `repeated` one where it
  stands beside what the model says.

Source: Gemini API reference, "Generating content" and "Function calling"; Vertex AI, "FunctionCall".
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from . import logprobs
from .base import Channel, Kind
from .documents import Path, Slot, pointer, string_slots
from .stream import Text, every_text

# What every response of a stream says alike.
ENVELOPE = ("modelVersion", "responseId", "createTime")
_RESPONSE = {"candidates", "promptFeedback", "usageMetadata"}
_NO_TEXTS = {*ENVELOPE, "candidates", "usageMetadata"}


def reply_texts(root: list[Any]) -> Iterable[Text]:
    """Where a reply's document, `root[0]`, has its texts."""
    document = root[0]
    candidates = candidates_of(document)
    if candidates is None:
        yield from every_text(root, 0)
        return
    for position, (index, candidate) in enumerate(candidates):
        for slot in string_slots(candidates[position], 1, (), _is_value):
            channel = _channel(index, candidate, slot.path)
            if slot.key == "data" and _is_data(slot):
                slot = readable(slot)
                channel = channel if _is_of_text(slot) else None
            if channel is not None:
                yield channel, type(slot)(slot.holder, slot.key, ("candidates", position, *slot.path))
        if "logprobsResult" in candidate:
            yield from logprobs.candidates(index, candidate, "logprobsResult", ("candidates", position))
    for name in document:
        if name not in _NO_TEXTS:
            for slot in string_slots(document, name, (name,)):
                yield Channel(0, Kind.TEXT, pointer(slot.path), repeated=name != "error"), slot


def candidates_of(document: Any) -> list[tuple[int, dict[str, Any]]] | None:
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


def is_piece(channel: Channel) -> bool:
    """Whether more of this channel's text may come in later events."""
    return channel.index == 0 or str(channel.index).startswith("/$")


def _is_structure(path: Path) -> bool:
    """Whether the string at `path` of a candidate is one of the API's own words or names, or opaque bytes."""
    match path:
        case ("finishReason",) | ("content", "role") | ("safetyRatings", _, "category" | "probability" | "severity"):
            return True
        case ("logprobsResult", *_):  # the text once more, token by token
            return True
        case ("content", "parts", _, "thoughtSignature" | "thought_signature", *_):
            return True
        case ("content", "parts", _, "inlineData" | "inline_data" | "fileData" | "file_data", "mimeType" | "mime_type"):
            return True
        case ("content", "parts", _, "mediaResolution", *_):
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


def ends_of(index: int, candidate: Mapping[str, Any]) -> Iterable[Channel]:
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
    return str(either(slot.holder, "mimeType", "mime_type")).startswith("text/")


def readable(slot: Slot) -> Slot:
    """The slot where a text stands, also one that is in base64."""
    if _is_data(slot) and _is_of_text(slot):
        with contextlib.suppress(ValueError):  # what is no base64 is read as it stands
            base64.b64decode(slot.text, validate=True)
            return _FileSlot(*slot)
    return slot


def either(document: Any, camel: str, snake: str) -> Any:
    """A field by either of its two names (Protocol Buffers, "ProtoJSON Format": parsers accept both)."""
    if not isinstance(document, dict):
        return None
    return document.get(camel, document.get(snake))
