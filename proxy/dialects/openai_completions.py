"""OpenAI completions, the API before chat: `POST .../completions`, also served by vLLM, SGLang and llama.cpp.

A choice's text stands in `text`, in chunks and whole replies alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import Problem
from ..framing import Framing
from . import openai_common
from .base import Call, Channel, DialectStream, Kind
from .documents import Slot, is_filled, pointer, string_slots
from .generic import Generic
from .stream import Text, framing_of

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead


class OpenAICompletions:
    name = "openai-completions"

    def matches(self, path: str) -> bool:
        path = path.rstrip("/")
        return path.endswith("/completions") and not path.endswith("/chat/completions")

    def speaks(self, document: Any) -> bool:
        return openai_common.is_object(document, "text_completion")

    def read_call(self, request: Request) -> Call:
        document = openai_common.read_request(request.body)
        texts = openai_common.strings([document.get("prompt"), document.get("suffix")])
        return openai_common.read_call(document, document.get("max_tokens"), texts)

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        return Generic().request_texts(root)

    def ask_for_usage(self, request: Request) -> bool:
        return openai_common.ask_for_usage(request)

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return openai_common.error_body(problem)

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        if framing in (Framing.SSE, Framing.JSON):
            return CompletionsStream(framing, call)
        return Generic().open(head, call)


class CompletionsStream(openai_common.OpenAIStream):
    """One reply."""

    object_name = "text_completion"

    def choice_texts(self, index: int, choice: dict[str, Any]) -> Iterable[Text]:
        for name in choice:
            if name in ("text", "delta", "message"):  # the others are chat's, but who mixes the two up sends them
                for slot in string_slots(choice, name, (name,), is_filled):
                    place = 0 if slot.path == ("text",) else pointer(slot.path)
                    yield Channel(index, Kind.TEXT, place, not openai_common.grows(slot.path[1:])), slot

    def empty_choice(self, *, first: bool) -> dict[str, Any]:
        return {"text": "", "logprobs": None, "finish_reason": "length"}
