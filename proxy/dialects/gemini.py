"""Gemini: `POST .../models/MODEL:generateContent` and `:streamGenerateContent`, also as Vertex AI serves them.

This file is the requests, and which stream reads a reply: that is `gemini_stream.py`'s; where its texts stand,
`gemini_texts.py`'s.

Source: Gemini API reference, "Generating content" and "Function calling".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from ..errors import Problem
from ..framing import Framing
from . import openai_common
from .base import Call, DialectStream
from .documents import Path, Slot, encode, is_binary, is_filled, is_value, string_slots, texts_of
from .gemini_stream import GeminiStream, error_document
from .gemini_texts import either, readable
from .generic import Generic
from .stream import framing_of

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead

# The method of a model (some clients escape the colon), and models in a version that only this API has.
# Not `rawPredict` and `streamRawPredict`: with these Vertex AI lets models of others speak in their own APIs.
_PATH = re.compile(
    r"/(?:models|tunedModels|endpoints)/(?P<model>[^/]+)(?::|%3A)(?P<method>(?!(?:r|streamR)awPredict)[A-Za-z]+)/?$"
)
_MODELS = re.compile(r"/v\d+(?:alpha|beta)\d*/(?:models|tunedModels)(?:/[^/]+)?/?$")

# In requests, in either spelling: the API's words and names, and opaque bytes.
_WORDS = frozenset(
    (
        "role", "name", "id", "type", "model", "mode", "category", "threshold", "language", "outcome", "format", "mimeType",
        "mime_type",
    )
)  # fmt: skip
_CALLS = frozenset(("functionCall", "function_call", "functionResponse", "function_response"))
_OPAQUE = frozenset(
    (
        "thoughtSignature", "thought_signature", "cachedContent",
        "cached_content", "responseMimeType", "response_mime_type", "responseModalities", "response_modalities",
    )
)  # fmt: skip


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
        config = either(document, "generationConfig", "generation_config")
        limit, choices = (
            either(config, camel, snake)
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
        slots = map(readable, string_slots(root, 0, (), is_filled))
        return (slot for slot in slots if not _is_word(slot.path, slot.text))

    def ask_for_usage(self, request: Request) -> bool:
        return False  # it is always stated

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return "application/json", encode(error_document(problem))

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


def _is_word(path: Path, text: str) -> bool:
    """Whether the string at `path` of a request is one of the API's own words, a name, or opaque bytes."""
    names = [name for name in path if isinstance(name, str)]
    if is_value(path) or (names[-1:] == ["name"] and not _CALLS.isdisjoint(names)):
        return False
    if "inlineData" in names or "inline_data" in names:
        return names[-1] != "data" or is_binary(text, path)
    return not names or names[-1] in _WORDS or not _OPAQUE.isdisjoint(names)
