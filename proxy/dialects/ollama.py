"""Ollama: `POST /api/chat` and `/api/generate`. Streams are NDJSON, and a request that does not say is for a stream.

- A reply's text stands in `message.content` or `response`, its thoughts in `thinking`.
- The arguments of a tool call are a JSON value, and not the text of one in pieces: its JSON is one text, whole in its line.
- The last line has `done` and the counts. The `context` of a generated text is prompt and answer once more, as numbers of
  tokens: where what was delivered is not what the model said, it is taken out.
- An error is a line of its own, in a string: the SDKs raise it, and know no other field.

Source: Ollama documentation, "API" and "Errors".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Problem
from ..framing import Event, Framing
from ..policy import Ending
from . import logprobs, openai_common
from .base import EVERY_CHANNEL, Call, Channel, Delta, DialectStream, Kind, Parsed, Usage
from .documents import (
    Path,
    Slot,
    decode_editable,
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
from .stream import DocumentStream, Text, count_of, every_text, framing_of, with_text

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead

# What every line of a stream says alike, and what carries nothing worth a line of its own.
_ENVELOPE = ("model", "created_at", "remote_model", "remote_host")
_NOT_TEXT = (*_ENVELOPE, "done_reason", "logprobs", "image")
# In requests: the API's own words and names.
_WORDS = frozenset(("model", "role", "type", "id", "tool_name", "tool_call_id", "keep_alive", "think"))
_CONTEXT = b'"context"'
_SPELT = (Kind.TEXT, Kind.REASONING)  # what log probabilities are given for


class Ollama:
    name = "ollama"

    def matches(self, path: str) -> bool:
        return path.rstrip("/").endswith(("/api/chat", "/api/generate"))

    def speaks(self, document: Any) -> bool:
        return isinstance(document, dict) and isinstance(document.get("done"), bool) and _is_answer(document)

    def read_call(self, request: Request) -> Call:
        document = openai_common.read_request(request.body)
        if not document:
            return Call()
        model, options = document.get("model"), document.get("options")
        limit = options.get("num_predict") if isinstance(options, dict) else None
        return Call(
            model=model if isinstance(model, str) else None,
            stream=document.get("stream") is not False,
            max_output_tokens=limit if type(limit) is int and limit >= 0 else None,  # negative: no limit
            texts=texts_of(self.request_texts([document])),
            document=document,
        )

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        """Where a request's document, `root[0]`, has its texts. Raises ValueError where they nest too deeply to be found."""
        return (slot for slot in string_slots(root, 0, (), is_filled) if not _is_word(slot.path, slot.text))

    def ask_for_usage(self, request: Request) -> bool:
        return False  # it is always stated

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return "application/json", encode(_error(problem))

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = Framing.NDJSON if head.local else framing_of(head)  # no stream of this API opens as anything else
        if framing in (Framing.NDJSON, Framing.JSON):
            return OllamaStream(framing, call)
        return Generic().open(head, call)


def _is_word(path: Path, text: str) -> bool:
    """Whether the string at `path` of a request is one of the API's own words, a name, or an image."""
    names = [name for name in path if isinstance(name, str)]
    if is_value(path) or "tool_calls" in names or names[-1:] == ["tool_name"]:
        return names[-1] in ("id", "type") and not is_value(path)
    if names[-1:] == ["name"] and "tools" in names:  # a tool's, by which the model has to call it
        return True
    return not names or names[-1] in _WORDS or ("images" in names and is_binary(text, path))


def _error(problem: Problem) -> dict[str, Any]:
    return {"error": f"{problem.message} ({problem.details})", "code": problem.details}


def _is_structure(path: Path) -> bool:
    """Whether the string at `path` of a line is one of the API's own words or names."""
    match path:
        case ("message", "role" | "tool_call_id"):
            return True
        case ("message", "tool_calls", _, "id" | "type"):
            return True
    return False


def _channel(path: Path) -> Channel | None:
    """The channel of the string at `path` of a line; None where it is no text."""
    match path:
        case ("message", "content") | ("response",):
            return Channel(0, Kind.TEXT, 0)
        case ("message", "thinking") | ("thinking",):
            return Channel(0, Kind.REASONING, 0)
        case ("message", "tool_calls", int(number), "function", "arguments"):
            return Channel(0, Kind.TOOL_ARGUMENTS, number)  # other servers send them as the text of a document
        case ("message", "tool_name") | ("message", "tool_calls", _, "function", "name"):
            return Channel(0, Kind.TEXT, pointer(path), repeated=True)
    return None if _is_structure(path) else Channel(0, Kind.TEXT, pointer(path))


def _is_arguments(path: Path) -> bool:
    return len(path) == 5 and path[:2] == ("message", "tool_calls") and path[3:] == ("function", "arguments")


class OllamaStream(DocumentStream):
    """One reply."""

    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing)
        self.terminates = framing is Framing.NDJSON
        self._call = call
        # By character, what the model said less what the policies have made of it: a text that one of them moved from
        # line to line leaves nothing.
        self._missing: Counter[str] = Counter()

    # Reading

    def texts(self, root: list[Any]) -> Iterable[Text]:
        document = root[0]
        if not isinstance(document, dict):
            yield from every_text(root, 0)
            return
        for name in document:
            if name not in _NOT_TEXT:
                for slot in string_slots(document, name, (name,), _is_arguments):
                    channel = _channel(slot.path)
                    if channel is not None and not is_binary(slot.text, slot.path):
                        yield channel, slot
        if "logprobs" in document:
            yield from logprobs.candidates(0, document, "logprobs")

    def is_complete(self, channel: Channel, document: Any) -> bool:
        return channel.kind is Kind.TOOL_ARGUMENTS or str(channel.index).startswith(
            ("/message/tool_calls/", "/message/images/")
        )

    def read(self, document: Any) -> Parsed:
        if not isinstance(document, dict):
            return Parsed()
        ended = document.get("done") is True or document.get("error") is not None
        usage = Usage(count_of(document, "prompt_eval_count"), count_of(document, "eval_count"))
        return Parsed(
            ends=(EVERY_CHANNEL,) if ended else (),
            usage=usage if usage != (None, None) else None,
            choices=(0,) if _is_answer(document) else (),
            mirrored=bool(document.get("logprobs")),
        )

    # Writing

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        for (_, old), (_, new) in zip(event.deltas, deltas, strict=True):
            if old != new:
                self._missing.update(old)
                self._missing.subtract(new)
        return super().rewrite(event, deltas)

    def continuable(self, event: Event, deltas: Sequence[Delta]) -> Event:
        return with_text(super().rewrite(event, deltas))

    def edited(self, document: Any, changed: Sequence[Channel]) -> None:
        if isinstance(document, dict):
            document.pop("logprobs", None)
            if self.framing is Framing.JSON:
                document.pop("context", None)

    def drop_mirrors(self, root: list[Any]) -> bool:
        """Of log probabilities only those of exactly the text beside them stay."""
        document = root[0]
        if not isinstance(document, dict) or not document.get("logprobs"):
            return False
        said = "".join(slot.text for channel, slot in self.texts(root) if channel.index == 0 and channel.kind in _SPELT)
        spells = logprobs.spelt(document["logprobs"]) == said
        if not spells:
            del document["logprobs"]
        return not spells

    def is_blank(self, document: Any) -> bool:
        if not isinstance(document, dict) or document.get("done") is not False or "error" in document:
            return False
        return is_blank(
            {name: value for name, value in document.items() if name not in (*_ENVELOPE, "done")}, ("role",)
        )

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        root, slot = self.place(event, channel)
        slot.put(text)
        self._missing.subtract(text)
        if not isinstance(root[0], dict):  # no line of this API's
            return self.say_again(event, channel, text)
        said = self._line(root[0], only(root[0], slot.path, ("role",)), done=False)
        if slot.path[0] == "message":
            said["message"] = {"role": "assistant", **said["message"]}
        return Event(self.carry(said).raw, self, Parsed([(channel, text)], choices=(0,)))

    def _line(self, like: Any, said: Mapping[str, Any], *, done: bool) -> dict[str, Any]:
        """A line of the same reply."""
        return {**{name: like[name] for name in _ENVELOPE if name in like}, **said, "done": done}

    # Delivery and ends

    def delivered(self, events: Sequence[Event]) -> None:
        if self.framing is Framing.JSON:
            self.finished = True
            return
        for event in events:
            if _CONTEXT in event.raw and any(self._missing.values()):
                self._take_out_context(event)
            parsed = event.parsed
            if parsed.choices:
                self._last = event.raw
            self.finished = self.finished or EVERY_CHANNEL in parsed.ends

    def _take_out_context(self, event: Event) -> None:
        document = self.document(event.raw)
        if isinstance(document, dict) and "context" in document:
            document = decode_editable(self.payload(event.raw) or b"")
            del document["context"]
            event.raw = self.with_payload(event.raw, encode(document))

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """LENGTH: the last line, with the reason that `num_predict` gives. ERROR: the line at which the SDKs raise."""
        if self.finished:
            return []
        if ending is Ending.ERROR or self.framing is Framing.JSON:
            return [self.carry(_error(problem))]
        last = self.document(self._last) or {"model": self._call.model or ""}
        asked = self._call.document or {}
        answer: dict[str, Any] = {"message": {"role": "assistant", "content": ""}}
        if "response" in last or ("message" not in last and "prompt" in asked):
            answer = {"response": ""}
        line = self._line(last, answer, done=True)
        return [self.carry({**line, "done_reason": "length", **_counts(self.counted)})]


def _is_answer(document: Mapping[str, Any]) -> bool:
    return "message" in document or "response" in document


def _counts(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    return {"prompt_eval_count": usage.input_tokens or 0, "eval_count": usage.output_tokens or 0}
