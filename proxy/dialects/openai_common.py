"""What OpenAI's chat completions and completions have in common: the envelope of a chunk, its ends, usage and errors.

Source: OpenAI API reference, "Chat Completions: streaming events" and "Completions"; what else real servers send is said
where it matters. Servers that speak this dialect add fields freely. Every string that is none of the API's own words is a
text (its channel's index is its JSON pointer): nothing the model said goes unseen. One that stands directly in a message
goes on in the chunks that follow, as do nested ones with the name of a text; any other nested string (a citation, a sound,
a signature) is whole in its chunk.
"""

from __future__ import annotations

import contextlib
import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ..errors import Problem
from ..framing import Event, Framing
from ..policy import Ending
from . import logprobs, sse
from .base import EVERY_CHANNEL, Call, Channel, Kind, Parsed, Usage
from .documents import Path, decode, decode_editable, encode, is_blank, is_label, only, pointer, string_slots, token_ids
from .stream import NOTHING, DocumentStream, Text, every_text, usage_of

if TYPE_CHECKING:
    from ..messages import Request
    from .template import Template

MAX_CHOICES = 128
"""OpenAI's own limit of `n`, and ours of the choices that are kept track of."""

_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# What every chunk of a stream says alike, and what carries nothing worth an event of its own.
_ENVELOPE = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
_SPELT = (Kind.TEXT, Kind.REFUSAL)  # what log probabilities are given for
# As the last member of a chunk, or the last but the padding: what closes the document closes the object that it stands in.
_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null(?=\s*(?:,\s*"obfuscation"\s*:\s*"[^"\\]*"\s*)?\}\s*\Z)')
_SHOWN = ("tools", "functions", "response_format")  # of a request, beside the messages
_PADDING = "obfuscation"  # random characters that even out the sizes of OpenAI's chunks
# What repeats a choice's text in other forms. Where the text was changed it would give the old one away.
_MIRRORS = ("logprobs", "token_ids")
# What of a chunk and of a choice is no text. All other strings there are: citations, a content filter's findings, what a
# server adds for debugging.
_NO_TEXTS = frozenset((*_ENVELOPE, _PADDING, "choices", "usage", "error"))
_NO_CHOICE_TEXTS = frozenset(("index", "delta", "message", "text", "finish_reason", "native_finish_reason", *_MIRRORS))


# Names that nested texts have which come in pieces, and those of objects that are whole in their chunk.
_SAID_IN_PIECES = frozenset(
    ("arguments", "reasoning", "reasoning_content", "summary", "text", "thinking", "transcript")
)
_SAID_AT_ONCE = frozenset(
    ("annotations", "citation", "citations", "context", "executed_tools", "images", "search_results")
)


def error_document(problem: Problem) -> dict[str, Any]:
    """The error object of all OpenAI APIs. Their SDKs choose the exception by status and show `code` and `type`."""
    other = "server_error" if problem.status >= 500 else "invalid_request_error"
    type = _ERROR_TYPES.get(problem.status, other)
    return {"error": {"message": problem.message, "type": type, "param": None, "code": problem.details}}


def error_body(problem: Problem) -> tuple[str, bytes]:
    """Content type and body of a local reply."""
    return "application/json", encode(error_document(problem))


def read_request(body: bytes | None) -> dict[str, Any]:
    """The request's document; empty where there is none."""
    try:
        document = decode(body or b"")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def read_call(document: Mapping[str, Any], max_output_tokens: Any, texts: Sequence[str]) -> Call:
    """The fields that both APIs name alike; a field of the wrong type counts as not said. What a model is shown of tools and
    schemas is their JSON, names included."""
    options = document.get("stream_options")
    model, n = document.get("model"), document.get("n")
    return Call(
        model=model if isinstance(model, str) else None,
        stream=document.get("stream") is True,
        choices=n if type(n) is int and n > 0 else 1,
        max_output_tokens=max_output_tokens if type(max_output_tokens) is int and max_output_tokens >= 0 else None,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
        texts=[*texts, *_shown(document)],
        token_ids=token_ids(document.get("prompt")),
        document=document or None,
    )


def _shown(document: Mapping[str, Any]) -> Iterator[str]:
    for name in _SHOWN:
        if document.get(name):
            with contextlib.suppress(RecursionError):  # nor will a server read what nests so deeply
                yield encode(document[name]).decode()


def ask_for_usage(request: Request) -> bool:
    """`stream_options.include_usage`: then every chunk has a `usage`, null in all but one more before `[DONE]`."""
    if not request.call.stream or request.call.wants_usage:
        return False
    document = decode_editable(request.body or b"")
    options = document.get("stream_options")
    if not isinstance(options, dict | None):
        return False  # the upstream will refuse it
    document["stream_options"] = {**(options or {}), "include_usage": True}
    request.replace_body(encode(document))
    return True


def grows(path: Path) -> bool:
    """Whether the string at `path` of a message, where no API documents it or not as a text of its own, goes on in the
    chunks that follow."""
    match path:
        case (str(name),):
            return not is_label(name)
        case () | ("content", _, str()) | ("tool_calls", _, "custom", "input"):
            return True
    return path[-1] in _SAID_IN_PIECES and _SAID_AT_ONCE.isdisjoint(path)


def is_object(document: Any, name: str) -> bool:
    """Whether a document says that it is this object of OpenAI's, or a chunk of one."""
    return isinstance(document, dict) and document.get("object") in (name, f"{name}.chunk")


def strings(value: Any) -> list[str]:
    """All strings at or below `value`, in order; none where they nest too deeply."""
    try:
        return [slot.text for slot in string_slots([value], 0)]
    except ValueError:
        return []


def is_reason(finish_reason: object) -> bool:
    """Whether a choice ends with this `finish_reason`: some servers have the word "null" in every chunk."""
    return bool(finish_reason) and finish_reason != "null"


class _State(msgspec.Struct, gc=False):
    """What an ending has to know of a choice."""

    index: int
    finish_reason: str | None = None


class _States(msgspec.Struct, gc=False):
    choices: list[_State]
    error: None = None


_decode_states = msgspec.json.Decoder(_States).decode


class OpenAIStream(DocumentStream):
    """One reply. The two APIs differ in where a choice has its texts and in what an empty choice looks like."""

    object_name: ClassVar[str]
    """The `object` of a chunk."""

    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing)
        self.terminates = framing is Framing.SSE
        self._call = call
        self._open: dict[int, bool] = {}
        """The choices delivered so far: whether more of each may come."""
        self._noted: Template | None = None  # of events of whose choices all is noted

    @abstractmethod
    def choice_texts(self, index: int, choice: dict[str, Any]) -> Iterable[Text]:
        """The texts of one choice, in the order of the wire."""

    @abstractmethod
    def empty_choice(self, *, first: bool) -> dict[str, Any]:
        """A choice that adds nothing, but for its index and finish_reason; `first`: the client has seen none of it."""

    # Reading

    def texts(self, root: list[Any]) -> Iterable[Text]:
        choices = _choices(root[0])
        if choices is None:
            yield from every_text(root, 0)
            return
        for index, choice in choices:
            yield from self.choice_texts(index, choice)
            yield from logprobs.candidates(index, choice, "logprobs")
            yield from _asides(index, choice, _NO_CHOICE_TEXTS)
        yield from _asides(0, root[0], _NO_TEXTS)
        if root[0].get("error"):
            yield from every_text(root[0], "error", ("error",))

    def read(self, document: Any) -> Parsed:
        if not isinstance(document, dict):
            return NOTHING
        choices = _choices(document) or []
        ends = [Channel(index, None, None) for index, choice in choices if is_reason(choice.get("finish_reason"))]
        if document.get("error"):
            ends = [EVERY_CHANNEL]
        mirrored = any(logprobs.mirrors(document))
        usage = usage_of(document) or usage_of(document.get("x_groq"))  # where Groq states it unasked
        return Parsed((), ends, usage, [index for index, _ in choices], mirrored=mirrored)

    # Writing

    def edited(self, document: Any, changed: Sequence[Channel]) -> None:
        numbers = {channel.choice for channel in changed}
        for index, choice in _choices(document) or ():
            if index in numbers:
                choice.update((name, None) for name in _MIRRORS if name in choice)

    def is_blank(self, document: Any) -> bool:
        choices = _choices(document)
        if choices is None:
            return False
        others = (value for name, value in document.items() if name not in (*_ENVELOPE, _PADDING, "choices"))
        return all(map(is_blank, others)) and all(is_blank(choice) for _, choice in choices)

    def drop_mirrors(self, root: list[Any]) -> bool:
        exact = [choice for index, choice in _choices(root[0]) or () if self._spells(index, choice)]
        dropped = False
        for holder, name in list(logprobs.mirrors(root[0])):
            if not (name == "logprobs" and any(holder is choice for choice in exact)):
                holder[name] = None
                dropped = True
        return dropped

    def _spells(self, index: int, choice: dict[str, Any]) -> bool:
        """Whether the log probabilities of a choice are of exactly its texts, and say nothing else."""
        texts = [
            slot.text
            for channel, slot in self.choice_texts(index, choice)
            if channel.kind in _SPELT and not channel.repeated
        ]
        return "logprobs" in choice and "".join(texts) == logprobs.spelt(choice["logprobs"])

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        if _choices(self.document(event.raw)) is None:
            return self.say_again(event, channel, text)
        root, slot = self.place(event, channel)
        slot.put(text)
        for index, choice in _choices(root[0]) or ():
            for _, place in self.choice_texts(index, choice):
                if place.holder is slot.holder and place.key == slot.key:
                    chunk = self._chunk(root[0], [{"index": index, **only(choice, place.path)}])
                    return Event(self.carry(chunk).raw, self, Parsed([(channel, text)], choices=(index,)))
        return self.say_again(event, channel, text)  # of an error

    def without_usage(self, event: Event) -> Event | None:
        named = event.raw.count(b'"usage"')
        if not named:
            return event
        if named == 1 and (null := _NULL_USAGE.search(event.raw)) and sse.is_bare(event.raw) and event.parsed.known:
            return Event(event.raw[: null.start()] + event.raw[null.end() :], self, event.parsed)
        document = self.document(event.raw)
        if not isinstance(document, dict) or "usage" not in document:
            return event
        if document["usage"]:  # beside a choice the upstream states it unasked (OpenRouter, Mistral)
            return event if document.get("choices") else None
        document = decode_editable(self.payload(event.raw) or b"")
        del document["usage"]
        was = event.parsed
        parsed = Parsed(was.deltas, was.ends, None, was.choices, was.known, was.mirrored)
        return Event(self.with_payload(event.raw, encode(document)), self, parsed)

    # Delivery and ends

    def delivered(self, events: Sequence[Event]) -> None:
        if self.framing is not Framing.SSE:
            self.finished = True
            return
        for event in events:
            parsed = event.read
            if parsed is not None and parsed.template is not None and parsed.template is self._noted:
                self._last = event.raw
            elif parsed is not None or not self._note_states(event.raw):
                parsed = event.parsed
                self._noted = parsed.template
                if parsed.choices:
                    self._last = event.raw
                    for index in parsed.choices:
                        if index not in self._open:
                            self._begin(index)
                for end in parsed.ends:
                    if end.choice is None:
                        self.finished = True
                    elif end.choice in self._open:
                        self._open[end.choice] = False

    def _note_states(self, raw: bytes) -> bool:
        """Look at no more of a chunk that no policy read than an ending needs; False if it is no ordinary chunk."""
        data = sse.read_data(raw)
        if data is None:  # a comment, or an empty event
            return True
        try:
            states = _decode_states(data).choices
        except (ValueError, RecursionError):
            return False
        for state in states:
            if state.index not in self._open:
                self._begin(state.index)
            if is_reason(state.finish_reason) and state.index in self._open:
                self._open[state.index] = False
        if states:  # Azure's first chunk has no choices, and an empty id
            self._last = raw
        return True

    def _begin(self, index: int) -> None:
        if len(self._open) < MAX_CHOICES:
            self._open[index] = True

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """LENGTH: each open choice finishes as at the API's own limit. ERROR: an error object in the stream, at which
        the SDKs raise; no `[DONE]` follows it, or who looks only for that would take the reply for complete."""
        if self.finished:
            return []
        if ending is Ending.ERROR or self.framing is not Framing.SSE:
            return [self.carry(error_document(problem))]
        last = self.document(self._last)
        if not isinstance(last, dict):
            last = {"id": "chatcmpl-0", "created": 0, "model": self._call.model or ""}
        promised = range(min(self._call.choices, MAX_CHOICES))
        events = [
            self.carry(self._chunk(last, [{"index": index, **self.empty_choice(first=index not in self._open)}]))
            for index in sorted({*promised, *self._open})
            if self._open.get(index, True)
        ]
        usage = last.get("usage") if self.counted is None else _usage_document(self.counted)
        if self._call.wants_usage and usage:
            events.append(self.carry({**self._chunk(last, []), "usage": usage}))
        return [*events, self.event(sse.write(b"[DONE]"))]

    def _chunk(self, like: Mapping[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A chunk of the same reply."""
        envelope = {name: like[name] for name in _ENVELOPE if name in like}
        return {**envelope, "object": self.object_name, "choices": choices}


def _choices(document: Any) -> list[tuple[int, dict[str, Any]]] | None:
    """The choices with their numbers (some servers leave them out); None for a document of another shape."""
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return None
    numbers = (choice.get("index") for choice in choices)
    return [
        (_number(number, position), choice)
        for position, (number, choice) in enumerate(zip(numbers, choices, strict=True))
    ]


def _number(stated: Any, position: int) -> int:
    """A choice's number, also where a server writes it as a string."""
    if isinstance(stated, str) and stated.isdecimal() and len(stated) < 10:
        return int(stated)
    return stated if type(stated) is int else position


def _asides(choice: int, holder: dict[str, Any], besides: Collection[str]) -> Iterator[Text]:
    """The strings that stand beside what the model says: whole texts of their own."""
    for name in holder:
        if name not in besides and not logprobs.is_mirror((name,)):
            for slot in string_slots(holder, name, (name,)):
                yield Channel(choice, Kind.TEXT, pointer(slot.path), repeated=True), slot


def _usage_document(usage: Usage) -> dict[str, int]:
    prompt, completion = usage.input_tokens or 0, usage.output_tokens or 0
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
