"""Anthropic Messages: `POST .../messages`, also served by llama.cpp, Ollama, vLLM and LiteLLM.

A message is a list of content blocks. In a stream each begins (`content_block_start`), grows by deltas and stops; the
message's own events stand around them. A channel's index is the number of its block; a string that is none of the texts
that come in pieces has the JSON pointer from there (`"2/citations/0/cited_text"`). In a stream such a string comes whole:
the channel is a `repeated` one, though nothing else says it, as are those of strings that stand beside the message. A
tool's `input` in a block is an object: its text is its JSON.

Delta types that are not known here add their strings to texts, which end with their block; the summary of a compaction
comes whole in one. Of an event of unknown type it must be plain that there is no text in it, or it is unknown: policies that
have to see the text fail closed. The signature of a thought stays as it is, also where a policy changes the thought: the
upstream will then refuse it in the next request.

Heartbeats are `ping` events, which the API itself sends, so that every client of it knows them; the comments of
server-sent events it never sends.

Source: Anthropic API documentation, "Messages", "Streaming messages" and "Errors".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from ..errors import Problem
from ..framing import Event, Framing
from ..policy import Ending
from . import openai_common, sse
from .base import EVERY_CHANNEL, Call, Channel, Delta, DialectStream, Kind, Parsed, Usage
from .documents import Path, Slot, encode, has_more_strings, is_filled, pointer, string_slots
from .generic import Generic
from .stream import NOTHING, DocumentStream, Text, asides, every_text, framing_of, splice

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead

MAX_BLOCKS = 1024
"""The open blocks that are kept track of, for one stream; the API has one at a time."""

_PATH = re.compile(r"^(?!.*/threads/).*/messages(/count_tokens)?/?$")  # threads have messages in OpenAI's Assistants
# Vertex AI has the model in the path. Amazon Bedrock has its own framing, which nobody here speaks.
_VERTEX = re.compile(r"/publishers/anthropic/models/(?P<model>[^/]+)(?::|%3A)(?:r|streamR)awPredict/?$")
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# Of a reply's first document: llama.cpp sends streams that have no `message_start`.
_FIRST_TYPES = ("message", "message_start", "content_block_start", "content_block_delta")
_KINDS = {"text": Kind.TEXT, "thinking": Kind.REASONING, "partial_json": Kind.TOOL_ARGUMENTS}
_DELTA_TYPES = {Kind.TEXT: "text_delta", Kind.REASONING: "thinking_delta", Kind.TOOL_ARGUMENTS: "input_json_delta"}
# Names of fields that hold the API's own words and names, and no text; the encrypted ones only Anthropic can read.
_STRUCTURE = frozenset(
    (
        "type", "id", "name", "role", "model", "tool_id", "tool_use_id", "server_name", "toolset_name", "file_id",
        "media_type", "error_code", "signature", "encrypted_content", "encrypted_index", "stop_reason", "stop_sequence",
    )
)  # fmt: skip
# And of such fields in these objects of a block, and in the items of such lists: tools may have filled the others.
_INNER = frozenset(
    (
        "type", "tool_id", "tool_use_id", "file_id", "media_type", "error_code", "encrypted_content", "encrypted_index",
    )
)  # fmt: skip
_INNER_OF = frozenset(("caller", "citation", "citations", "content", "source"))
# Objects beside the content that have fields as a block has them.
_OBJECTS = frozenset(("container", "delta", "error"))


def _error_document(problem: Problem) -> dict[str, Any]:
    """The SDKs choose the exception by status; `error_code` is where they look for the cause."""
    other = "api_error" if problem.status >= 500 else "invalid_request_error"
    error = {"type": _ERROR_TYPES.get(problem.status, other), "message": problem.message}
    return {"type": "error", "error": {**error, "details": {"error_code": problem.details}}}


class Anthropic:
    name = "anthropic"

    def matches(self, path: str) -> bool:
        return bool(_PATH.search(path) or _VERTEX.search(path))

    def speaks(self, document: Any) -> bool:
        return isinstance(document, dict) and document.get("type") in _FIRST_TYPES

    def read_call(self, request: Request) -> Call:
        document = openai_common.read_request(request.body)
        texts = [slot.text for slot in _request_slots(document)]
        call = openai_common.read_call(document, document.get("max_tokens"), texts)
        if call.model is None and (named := _VERTEX.search(request.path)):
            call.model = unquote(named["model"])
        return call

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        return Generic().request_texts(root)

    def ask_for_usage(self, request: Request) -> bool:
        return False  # it is always stated

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return "application/json", encode(_error_document(problem))

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        if framing in (Framing.SSE, Framing.JSON):
            return MessagesStream(framing, call)
        return Generic().open(head, call)


# Requests


def _request_slots(document: dict[str, Any]) -> Iterator[Slot]:
    """What a request says: the system prompt, and of its messages the texts, thoughts, tool inputs and results. Not images
    and files, which are strings too."""
    messages = document.get("messages")
    said: list[tuple[Any, str | int]] = [(document, "system")] if "system" in document else []
    said += [(messages, number) for number in range(len(messages))] if isinstance(messages, list) else []
    for holder, key in said:
        try:
            yield from [slot for slot in string_slots(holder, key, (), is_filled) if _is_said(holder[key], slot.path)]
        except ValueError:  # nests too deeply
            continue


def _is_said(owner: Any, path: Path) -> bool:
    """Whether the string at `path` of a message, of the system prompt or of a block is a text."""
    match path:
        case () | (int(), "text") | ("text" | "thinking" | "content" | "title" | "context",) | ("input", *_):
            return True
        case ("source", "data"):  # of a document; that of an image is base64
            return bool(owner["source"].get("type") == "text")
        case ("content", int(number), *rest):
            return _is_said(owner["content"][number], tuple(rest))
    return False


# Replies


def _of_block(block: Any, path: Path, index: int, *, whole: bool) -> Channel | None:
    """The channel of the string at `path` of a content block or its delta; None where it is no text."""
    match path:
        case (str(name),) if name in _KINDS:
            return Channel(0, _KINDS[name], index)
        case ("input",):  # a stream has it in pieces, and here {}
            return Channel(0, Kind.TOOL_ARGUMENTS, index, whole)
        case ("name",):  # of a tool that the model calls
            return Channel(0, Kind.TEXT, f"{index}/name", repeated=True)
        case (str(name),) if name in _STRUCTURE:
            return None
        case (str(owner), str(name)) | (str(owner), int(), str(name)) if owner in _INNER_OF and name in _INNER:
            return None
        case ("data",) if block.get("type") == "redacted_thinking":
            return None
    return Channel(0, Kind.TEXT, f"{index}{pointer(path)}", whole)


def _is_input(path: Path) -> bool:
    return path == ("input",)


def _block_texts(holder: Any, key: str | int, index: int, *, whole: bool) -> Iterator[Text]:
    for slot in string_slots(holder, key, (), _is_input):
        channel = _of_block(holder[key], slot.path, index, whole=whole)
        if channel is not None:
            yield channel, slot


def _message_texts(message: dict[str, Any], *, whole: bool) -> Iterator[Text]:
    for name in message:
        if name == "content" and isinstance(message[name], list):
            for index in range(len(message[name])):
                yield from _block_texts(message[name], index, index, whole=whole)
        else:
            yield from asides(message, (name,), _STRUCTURE, _OBJECTS)


def _event_texts(document: Any) -> Iterator[Text]:
    """The texts of an event's document. Raises ValueError where there may be some that cannot be told."""
    holder = ""
    match document:
        case {"error": error} if error:
            pass
        case {"type": "content_block_delta", "index": int(index), "delta": {"type": type}}:
            holder = "delta"
            yield from _block_texts(document, holder, index, whole=type == "citations_delta")
        case {"type": "content_block_start", "index": int(index), "content_block": {"type": _}}:
            holder = "content_block"
            yield from _block_texts(document, holder, index, whole=True)
        case {"type": "message_start", "message": dict()}:
            holder = "message"
            yield from _message_texts(document["message"], whole=True)
        case {"type": "message_delta" | "message_stop" | "content_block_stop" | "ping"}:
            pass
        case {"type": str()} if not any(asides(document, document, _STRUCTURE, _OBJECTS)):
            return  # what is new and has no text
        case _:
            raise ValueError("an event of unknown type")
    yield from asides(document, (name for name in document if name != holder), _STRUCTURE, _OBJECTS)


def _usage_of(usage: Any) -> Usage | None:
    """Tokens that the cache spared the model are stated apart, but were sent all the same."""
    if not isinstance(usage, dict):
        return None
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    read = [usage[name] for name in names if type(usage.get(name)) is int]
    output = usage.get("output_tokens")
    return Usage(sum(read) if read else None, output if type(output) is int else None)


# A delta as nearly all are, typed: reading it costs a fifth of what reading any document does.


class _Delta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: str
    text: str | msgspec.UnsetType | None = msgspec.UNSET
    thinking: str | msgspec.UnsetType | None = msgspec.UNSET
    partial_json: str | msgspec.UnsetType | None = msgspec.UNSET


class _DeltaEvent(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: int
    delta: _Delta
    type: str


class _Head(msgspec.Struct, gc=False):
    type: str


_QUOTES = 16  # that a delta with a text needs
_decode_head = msgspec.json.Decoder(_Head).decode
_decode_delta = msgspec.json.Decoder(_DeltaEvent).decode


@lru_cache(1024)
def _channel(kind: Kind, index: int) -> Channel:
    return Channel(0, kind, index)


def _read_ordinary(raw: bytes, *, checked: bool = False) -> Parsed | None:
    """What an ordinary delta says; None where it is none. `checked`: no member in it is hidden by another of its name."""
    data = sse.read_data(raw) or b""
    try:
        event = _decode_delta(data)
    except (ValueError, RecursionError):
        return None
    delta = event.delta
    said = (Kind.TEXT, delta.text), (Kind.REASONING, delta.thinking), (Kind.TOOL_ARGUMENTS, delta.partial_json)
    deltas = [(_channel(kind, event.index), text) for kind, text in said if text]
    if event.type != "content_block_delta" or len(deltas) > 1:
        return None
    if not checked and (not deltas or data.count(b'"') > _QUOTES) and has_more_strings(data, event):
        return None
    return Parsed(deltas)


class MessagesStream(DocumentStream):
    """One reply."""

    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing)
        self.terminates = framing is Framing.SSE
        self._call = call
        self._open: dict[int, None] = {}
        """The blocks that began and have not stopped, in order."""
        self._reason_said = False
        self._output_tokens = 0  # as they were delivered last

    # Reading

    def parse(self, raw: bytes) -> Parsed:
        parsed = _read_ordinary(raw) if self.framing is Framing.SSE else None
        return super().parse(raw) if parsed is None else parsed

    def texts(self, root: list[Any]) -> Iterable[Text]:
        document = root[0]
        if self.framing is Framing.JSON:
            if isinstance(document, dict) and document.get("type") == "message":
                return _message_texts(document, whole=False)
            return every_text(root, 0)
        return _event_texts(document)

    def is_complete(self, channel: Channel, document: Any) -> bool:
        match document:
            case {"type": "content_block_delta", "delta": {"type": "compaction_delta"}}:
                return not channel.repeated
        return False

    def read(self, document: Any) -> Parsed:
        match document:
            case {"error": error} if error:
                return Parsed(ends=(EVERY_CHANNEL,))
            case {"type": "content_block_stop", "index": int(index)}:
                return Parsed(ends=(Channel(0, None, index),))
            case {"type": "message_stop" | "error"}:
                return Parsed(ends=(EVERY_CHANNEL,))
            case {"type": "message_delta", "delta": {"stop_reason": str()}}:  # no block goes on behind it
                return Parsed(ends=(Channel(0, None, None),), usage=_usage_of(document.get("usage")))
            case {"usage": usage} | {"message": {"usage": usage}}:
                return Parsed(usage=_usage_of(usage))
        return NOTHING

    # Writing

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        if len(deltas) == 1 and self.framing is Framing.SSE and not event.parsed.mirrored:
            spliced = splice(event.raw, event.deltas[0][1], deltas[0][1])
            parsed = None if spliced is None else _read_ordinary(spliced, checked=True)
            if spliced is not None and parsed is not None and parsed.deltas == list(deltas):
                return Event(spliced, self, parsed)
        return super().rewrite(event, deltas)

    def is_blank(self, document: Any) -> bool:
        match document:
            case {"type": "content_block_delta", "delta": {**delta}}:
                return not any(value for name, value in delta.items() if name != "type")
        return False

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        if channel.repeated:
            raise ValueError("a text that only comes whole cannot be continued")
        root, slot = self.place(event, channel)
        document = root[0]
        if document.get("type") == "content_block_delta":
            delta = document["delta"]
            if isinstance(channel.index, int):
                delta = {"type": delta["type"], str(slot.key): text}
            else:
                for _, other in list(self.texts(root)):
                    other.put("")
                slot.put(text)
        elif isinstance(channel.index, int) and channel.kind is not None:  # of a block that begins
            delta = {"type": _DELTA_TYPES[channel.kind], str(slot.key): text}
        else:
            return self.say_again(event, channel, text)
        index = channel.index if isinstance(channel.index, int) else document["index"]
        said = self._say({"type": "content_block_delta", "index": index, "delta": delta})
        return Event(said.raw, self, Parsed([(channel, text)]))

    def comment(self) -> Event | None:
        if self.framing is not Framing.SSE:
            return None
        return Event(self._say({"type": "ping"}).raw, self, NOTHING)

    def _say(self, document: dict[str, Any]) -> Event:
        """The SDKs heed only events that have a name."""
        return self.carry(document, document["type"].encode())

    # Delivery and ends

    def delivered(self, events: Sequence[Event]) -> None:
        if self.framing is not Framing.SSE:
            self.finished = True
            return
        for event in events:
            data = self.payload(event.raw)
            if data is None:
                continue
            try:
                type = _decode_head(data).type
            except (ValueError, RecursionError):
                type = ""
            if type != "ping":
                self._last = event.raw
            if type != "content_block_delta":
                self._note(self.document(event.raw))
                self.finished = self.finished or EVERY_CHANNEL in event.ends

    def _note(self, document: Any) -> None:
        match document:
            case {"type": "content_block_start", "index": int(index)}:
                if len(self._open) < MAX_BLOCKS:
                    self._open[index] = None
            case {"type": "content_block_stop", "index": int(index)}:
                self._open.pop(index, None)
            case {"type": "message_delta", "delta": {"stop_reason": str()}}:
                self._reason_said = True
        match document:
            case {"usage": {"output_tokens": int(output)}} | {"message": {"usage": {"output_tokens": int(output)}}}:
                self._output_tokens = output

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """LENGTH: what is open stops, and the message with it, as at the API's own limit. ERROR: an error event, at which
        the SDKs raise."""
        if self.finished:
            return []
        if ending is Ending.ERROR or self.framing is not Framing.SSE:
            return [self._say(_error_document(problem))]
        return [self._say(document) for document in self._cut()]

    def _cut(self) -> Iterator[dict[str, Any]]:
        if self.counted is not None:
            tokens, output = self.counted.input_tokens or 0, self.counted.output_tokens or 0
        else:
            tokens, output = 0, self._output_tokens
        if not self._last:
            message = {"id": "msg_0", "type": "message", "role": "assistant", "model": self._call.model or ""}
            stop = {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": tokens, "output_tokens": 0}}
            yield {"type": "message_start", "message": {**message, "content": [], **stop}}
        yield from ({"type": "content_block_stop", "index": index} for index in self._open)
        if not self._reason_said:
            delta = {"stop_reason": "max_tokens", "stop_sequence": None}
            yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}}
        yield {"type": "message_stop"}
