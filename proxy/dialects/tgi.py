"""Text Generation Inference (TGI) of Hugging Face: `POST /generate` and `/generate_stream`.

Each event of a stream has one `token`. The last one says the whole text again (`generated_text`, with the prompt before it
if the request asks for `return_full_text`) and, where the request has `details`, why it ends and how many tokens it took.
Token numbers, and what other tokens there might have been, are the text in other forms: they go with a text that is
changed. What lists of tokens say beside it (the prompt, the text once more, the tokens that were not chosen) are texts of
their own; where one is changed, they all go. Special tokens (the end of the text) are no part of the text, and a channel of
their own.

SGLang has a native API at the same path. The events of its streams each have a `text`, which by default is all that was said so
far, though a server may be told to send pieces; nothing in an event tells which. They are unknown: policies that have to see
the text fail closed.

Source: Text Generation Inference documentation, "HTTP API reference" (OpenAPI description); SGLang documentation, "Sampling
parameters".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Problem
from ..framing import Event, Framing
from ..policy import Ending
from . import openai_common
from .base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Parsed, Usage
from .documents import Path, Slot, decode_editable, encode, is_blank, pointer, string_slots
from .generic import Generic
from .stream import NOTHING, DocumentStream, Text, count_of, every_text, framing_of

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead

_MOST_REPEATED_CHARACTERS = 1 << 20
"""What is kept of the text delivered, to be said again in the end."""

TEXT = Channel(0, Kind.TEXT, 0)
SPECIAL = Channel(0, Kind.TEXT, "special")


class TGI:
    name = "tgi"

    def matches(self, path: str) -> bool:
        return path.rstrip("/").endswith(("/generate", "/generate_stream"))

    def speaks(self, document: Any) -> bool:
        return isinstance(document, dict) and "generated_text" in document

    def read_call(self, request: Request) -> Call:
        """A stream is asked for by the path, or, where both kinds have one, with `stream`."""
        document = openai_common.read_request(request.body)
        parameters = document.get("parameters")
        fields = parameters if isinstance(parameters, dict) else {}
        limit, prompt = fields.get("max_new_tokens"), document.get("inputs")
        return Call(
            stream=request.path.rstrip("/").endswith("/generate_stream") or document.get("stream") is True,
            max_output_tokens=limit if type(limit) is int and limit >= 0 else None,
            wants_usage=fields.get("details") is True,
            texts=[prompt] if isinstance(prompt, str) else [],
            document=document or None,
        )

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        """Where a request's document, `root[0]`, has its texts. Raises ValueError where they nest too deeply to be found."""
        return string_slots(root, 0)

    def ask_for_usage(self, request: Request) -> bool:
        """`parameters.details`: then the last event has them."""
        if not request.call.stream or request.call.wants_usage or not request.call.document:
            return False
        document = decode_editable(request.body or b"")
        parameters = document.get("parameters")
        if not isinstance(parameters, dict | None):
            return False  # the upstream will refuse it
        document["parameters"] = {**(parameters or {}), "details": True}
        request.replace_body(encode(document))
        return True

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return "application/json", encode(_error(problem))

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        if framing in (Framing.SSE, Framing.JSON):
            return TGIStream(framing, call)
        return Generic().open(head, call)


def _error(problem: Problem) -> dict[str, Any]:
    """The clients take their class from `error_type`, and show only the text."""
    other = "generation" if problem.status >= 500 else "validation"
    type = "overloaded" if problem.status in (429, 503) else other
    return {"error": f"{problem.message} ({problem.details})", "error_type": type}


def _channel(document: Mapping[str, Any], path: Path, *, streams: bool) -> Channel | None:
    """The channel of the string at `path` of an event; None where it is no text."""
    match path:
        case ("token", "text"):
            return SPECIAL if document["token"].get("special") is True else TEXT
        case ("generated_text",):
            return TEXT._replace(repeated=streams)
        case ("details", "best_of_sequences", int(number), "generated_text"):
            return Channel(1 + number, Kind.TEXT, 0)
        case ("details", *_, "finish_reason") | ("error_type",):
            return None
        case (*_, "tokens" | "prefill", int(), "text") | (*_, "top_tokens", int(), "text"):  # `_tokens`
            return None
        case (*_, "top_tokens", int(), int(), "text"):
            return None
        case ("details" | "top_tokens", *_):
            return Channel(0, Kind.TEXT, pointer(path), repeated=True)
    return Channel(0, Kind.TEXT, pointer(path))


class _TokensSlot(Slot):
    """Where a list of tokens stands. Its text is theirs; changing it takes them all out."""

    __slots__ = ()

    @property
    def text(self) -> str:
        between = "\n\n" if self.key == "top_tokens" else ""  # each of them might have been said instead of the others
        return between.join(token["text"] for token in _tokens(self.holder[self.key]))

    def put(self, text: str) -> None:
        self.holder[self.key] = []


def _tokens(given: Any) -> Iterator[dict[str, Any]]:
    """The tokens in a list of them, or in a list of such lists."""
    for item in given if isinstance(given, list) else ():
        if isinstance(item, list):
            yield from _tokens(item)
        elif isinstance(item, dict) and isinstance(item.get("text"), str):
            yield item


def _tokens_texts(holder: Any, path: Path) -> Iterator[Text]:
    """The texts of the lists of tokens that `holder` has, which stands at `path`."""
    for name in ("prefill", "tokens", "top_tokens") if isinstance(holder, dict) else ():
        slot = _TokensSlot(holder, name, (*path, name))
        if name in holder and slot.text:
            yield Channel(0, Kind.TEXT, pointer(slot.path), repeated=True), slot


def _sequences(details: Any) -> list[Any]:
    found = details.get("best_of_sequences") if isinstance(details, dict) else None
    return found if isinstance(found, list) else []


class TGIStream(DocumentStream):
    """One reply."""

    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing)
        self.terminates = framing is Framing.SSE
        self._call = call
        self._tokens = 0
        self._said: list[str] = []
        self._said_characters = 0

    # Reading

    def texts(self, root: list[Any]) -> Iterable[Text]:
        document = root[0]
        if not isinstance(document, dict):
            yield from every_text(root, 0)
            return
        streams = self.framing is Framing.SSE
        if streams and "token" not in document and isinstance(document.get("meta_info"), dict):
            raise ValueError("an event of SGLang's")
        for name in document:
            for slot in string_slots(document, name, (name,)):
                channel = _channel(document, slot.path, streams=streams)
                if channel is not None:
                    yield channel, slot
        details = document.get("details")
        yield from _tokens_texts(document, ())
        yield from _tokens_texts(details, ("details",))
        for number, sequence in enumerate(_sequences(details)):
            yield from _tokens_texts(sequence, ("details", "best_of_sequences", number))

    def is_complete(self, channel: Channel, document: Any) -> bool:
        own = isinstance(document, dict) and ("token" in document or "generated_text" in document)
        return own and isinstance(channel.index, str) and channel != SPECIAL and not channel.repeated

    def read(self, document: Any) -> Parsed:
        if not isinstance(document, dict):
            return NOTHING
        details = document.get("details")
        ended = isinstance(document.get("generated_text"), str) or details or document.get("error") is not None
        usage = None
        if isinstance(details, dict):
            usage = Usage(count_of(details, "input_length"), count_of(details, "generated_tokens"))
        choices = (0,) if isinstance(document.get("token"), dict) else ()
        return Parsed(ends=(EVERY_CHANNEL,) if ended else (), usage=usage, choices=choices)

    # Writing

    def edited(self, document: Any, changed: Sequence[Channel]) -> None:
        if not isinstance(document, dict):
            return
        if isinstance(document.get("token"), dict) and "id" in document["token"]:
            document["token"]["id"] = 0  # a client may need one
        if "top_tokens" in document:
            document["top_tokens"] = []
        details = document.get("details")
        for said in (details, *_sequences(details)):
            if isinstance(said, dict):
                said.update({name: [] for name in ("tokens", "top_tokens") if name in said})

    def is_blank(self, document: Any) -> bool:
        if not isinstance(document, dict) or not isinstance(document.get("token"), dict):
            return False
        if any(document.get(name) is not None for name in ("generated_text", "details", "error")):
            return False
        others = {name: value for name, value in document.items() if name not in ("index", "token", "top_tokens")}
        return is_blank(others) and not document["token"].get("text")

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        _, slot = self.place(event, channel)
        if slot.path[:1] != ("token",):
            return self.say_again(event, channel, text)
        event = self._say(text, special=channel == SPECIAL)
        return Event(event.raw, self, Parsed([(channel, text)], choices=(0,)))

    def _say(self, text: str, *, special: bool, **more: Any) -> Event:
        token = {"id": 0, "text": text, "logprob": 0.0, "special": special}
        return self.carry({"index": self._tokens, "token": token, "generated_text": None, "details": None, **more})

    def without_usage(self, event: Event) -> Event | None:
        if b'"details"' not in event.raw:
            return event
        document = self.document(event.raw)
        if not isinstance(document, dict) or not document.get("details"):
            return event
        document = decode_editable(self.payload(event.raw) or b"")
        document["details"] = None
        was = event.parsed
        parsed = Parsed(was.deltas, was.ends, None, was.choices, was.known)
        return Event(self.with_payload(event.raw, encode(document)), self, parsed)

    # Delivery and ends

    def delivered(self, events: Sequence[Event]) -> None:
        if self.framing is Framing.JSON:
            self.finished = True
            return
        for event in events:
            parsed = event.parsed
            self._tokens += len(parsed.choices)
            for channel, text in parsed.deltas:
                if channel == TEXT and self._said_characters <= _MOST_REPEATED_CHARACTERS:
                    self._said.append(text)
                    self._said_characters += len(text)
            self.finished = self.finished or EVERY_CHANNEL in parsed.ends

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """LENGTH: a last token without text, the text delivered once more and the reason. ERROR: the event at which the
        clients raise."""
        if self.finished:
            return []
        if ending is Ending.ERROR or self.framing is Framing.JSON:
            return [self.carry(_error(problem))]
        counted = None if self.counted is None else self.counted.output_tokens
        tokens = self._tokens if counted is None else counted
        details = {"finish_reason": "length", "generated_tokens": tokens, "seed": None}
        return [self._say("", special=True, generated_text=self._whole_text(), details=details)]

    def _whole_text(self) -> str | None:
        """None: it is too long to be said again."""
        if self._said_characters > _MOST_REPEATED_CHARACTERS:
            return None
        asked = self._call.document or {}
        parameters = asked.get("parameters")
        full = isinstance(parameters, dict) and parameters.get("return_full_text") is True
        return "".join([*(self._call.texts if full else ()), *self._said])
