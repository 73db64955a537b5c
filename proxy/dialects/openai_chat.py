"""OpenAI chat completions: `POST .../chat/completions`, which vLLM, SGLang, llama.cpp, Ollama and many others serve too.

A choice's texts stand in `delta` (chunks) or `message` (whole replies). Reasoning models of other makers put their
thoughts into `reasoning_content` or `reasoning`, or the same into both: then the second repeats the first. Where a chunk has
both `delta` and `message` (Perplexity), the message repeats the reply so far.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from ..errors import Problem
from ..framing import Event, Framing
from . import logprobs, openai_common, sse
from .base import Call, Channel, Delta, DialectStream, Kind, Parsed, Usage
from .documents import Path, Slot, decode, has_more_strings, pointer, repeats_names, string_slots
from .generic import Generic
from .openai_common import MAX_CHOICES, is_reason
from .stream import DONE, Text, framing_of, splice
from .template import Learner, Template

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead

_AZURE_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")  # the model's name there; the body need not say it


class OpenAIChat:
    name = "openai-chat"

    def matches(self, path: str) -> bool:
        return path.rstrip("/").endswith("/chat/completions")

    def speaks(self, document: Any) -> bool:
        return openai_common.is_object(document, "chat.completion")

    def read_call(self, request: Request) -> Call:
        document = openai_common.read_request(request.body)
        limit = document.get("max_completion_tokens")
        call = openai_common.read_call(
            document, document.get("max_tokens") if limit is None else limit, _request_texts(document.get("messages"))
        )
        if call.model is None and (deployment := _AZURE_DEPLOYMENT.search(request.path)):
            call.model = deployment[1]
        return call

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        return Generic().request_texts(root)

    def ask_for_usage(self, request: Request) -> bool:
        return openai_common.ask_for_usage(request)

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return openai_common.error_body(problem)

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        if framing in (Framing.SSE, Framing.JSON):
            return ChatStream(framing, call)
        return Generic().open(head, call)


def _request_texts(messages: Any) -> list[str]:
    """What the messages say: contents and their text parts, reasoning, refusals and the arguments of tool calls. Not
    images and sounds, which are strings too."""
    texts: list[str] = []
    for message in messages if isinstance(messages, list) else ():
        if _is_plain(message):
            texts += [message["content"]] if message["content"] else []
            continue
        try:
            texts += [
                slot.text for slot in string_slots([message], 0, (), _is_arguments) if _known_text(message, slot.path)
            ]
        except ValueError:  # nests too deeply
            continue
    return texts


def _is_plain(message: Any) -> bool:
    """A role and a text, as nearly every message is; and a request has all that were ever said."""
    return (
        type(message) is dict
        and len(message) == 2
        and type(message.get("role")) is str
        and type(message.get("content")) is str
    )


def _known_text(message: Any, path: Path) -> tuple[Kind, int | str] | None:
    """Kind and index of the channel whose text stands at `path` of a message; None for any other string."""
    match path:
        case ("content",) | ("content", int(), "text"):  # clients join the parts of a stream, as they do pieces
            return Kind.TEXT, 0
        case ("content", int(), "refusal"):
            return Kind.REFUSAL, 0
        case ("reasoning_content",):
            return Kind.REASONING, 0
        case ("reasoning",):  # the same by another name, which some servers have beside the first
            return Kind.REASONING, 1
        case ("refusal",):
            return Kind.REFUSAL, 0
        case ("tool_calls", int(position), "function", "arguments") | ("tool_calls", int(position), "custom", "input"):
            number = message["tool_calls"][position].get("index")
            return Kind.TOOL_ARGUMENTS, number if type(number) is int else position
        case ("function_call", "arguments"):  # the form before tool calls
            return Kind.TOOL_ARGUMENTS, "function_call"
    return None


def _is_arguments(path: Path) -> bool:
    """Whether there, in a message, stand a tool's arguments, also where they are an object."""
    match path:
        case ("tool_calls", _, "function", "arguments") | ("tool_calls", _, "custom", "input"):
            return True
        case ("function_call", "arguments"):
            return True
    return False


def _is_structure(path: Path) -> bool:
    """Whether the string at `path` of a message is one of the API's own words, and no text."""
    match path:
        case ("role",) | ("content", _, "type") | ("tool_calls", _, "id" | "type"):
            return True
    return False


# A chunk as nearly all are, typed: reading it costs a fifth of what reading any document does. What has a text in a field
# not named here, or in one that has to be null here, is read as any document.


class _Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str | UnsetType | None = UNSET
    arguments: str | UnsetType | None = UNSET


class _ToolCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: int
    id: str | UnsetType | None = UNSET
    type: str | UnsetType | None = UNSET
    function: _Function | UnsetType | None = UNSET


class _Delta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str | UnsetType | None = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType | None = UNSET
    reasoning: str | UnsetType | None = UNSET
    refusal: str | UnsetType | None = UNSET
    tool_calls: list[_ToolCall] | UnsetType | None = UNSET


class _Choice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: int
    delta: _Delta
    finish_reason: str | UnsetType | None = UNSET
    native_finish_reason: str | UnsetType | None = UNSET
    stop_reason: int | UnsetType | None = UNSET
    matched_stop: int | UnsetType | None = UNSET
    message: UnsetType | None = UNSET
    text: UnsetType | None = UNSET
    logprobs: UnsetType | None = UNSET
    token_ids: UnsetType | None = UNSET


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    choices: list[_Choice]
    id: str | UnsetType | None = UNSET
    object: str | UnsetType | None = UNSET
    created: float | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType | None = UNSET
    service_tier: str | UnsetType | None = UNSET
    obfuscation: str | UnsetType | None = UNSET
    usage: _Usage | UnsetType | None = UNSET
    prompt_token_ids: UnsetType | None = UNSET
    error: UnsetType | None = UNSET


_DONE = sse.write(b"[DONE]")
_decode_chunk = msgspec.json.Decoder(_Chunk).decode


@lru_cache(MAX_CHOICES)
def _content(choice: int) -> Channel:
    return Channel(choice, Kind.TEXT, 0)


class ChatStream(openai_common.OpenAIStream):
    """One reply."""

    object_name = "chat.completion.chunk"

    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing, call)
        self._template: Template | None = None
        self._learner = Learner(_read_ordinary, _is_blank)

    def parse(self, raw: bytes) -> Parsed:
        if self._template is not None and (parsed := self._template.read(raw)) is not None:
            return parsed
        if self.framing is not Framing.SSE:
            return super().parse(raw)
        if raw == _DONE:  # an exception is a dear way to find out
            return DONE
        parsed = _read_ordinary(raw)
        if parsed is None:
            return super().parse(raw)
        self._template = self._learner.learn(raw, parsed) or self._template
        return parsed

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        template = event.parsed.template
        if template is not None and template.fits(event.raw):
            return template.rewritten(event, deltas[0][1])
        if len(deltas) == 1 and self.framing is Framing.SSE and not event.parsed.mirrored:
            spliced = splice(event.raw, event.deltas[0][1], deltas[0][1])
            parsed = None if spliced is None else _read_ordinary(spliced, checked=True)
            if spliced is not None and parsed is not None and parsed.deltas == [delta for delta in deltas if delta[1]]:
                return Event(spliced, self, parsed) if parsed.deltas or not _is_blank(spliced) else None
        return super().rewrite(event, deltas)

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        parsed = event.parsed
        template = self._template_of(event, parsed)
        # Blank and bare, and no other choice: beside its text the event says nothing that it would say again.
        if (
            template is not None
            and template.blank
            and parsed.deltas[0][0] == channel
            and len(parsed.choices) == 1
            and sse.is_bare(event.raw)
        ):
            return template.event(self, text)
        return super().continuation(event, channel, text)

    def joined(self, continuations: list[Event]) -> list[Event]:
        """Members of one delta, as servers say a thought twice: clients look for it in one place, and if it is not there in
        the other (`delta.reasoning_content ?? delta.reasoning`)."""
        joined: list[Event] = []
        for event in continuations:
            one = None if not joined else self._in_one(joined[-1], event)
            joined = [*joined, event] if one is None else [*joined[:-1], one]
        return joined

    def _in_one(self, one: Event, other: Event) -> Event | None:
        """Two continuations as one event; None where that could not say both."""
        document = self.document(one.raw)
        choice, beside = _only_choice(document), _only_choice(self.document(other.raw))
        if choice is None or beside is None:  # of an error, or of another shape
            return None
        delta, added = choice.pop("delta"), beside.pop("delta")
        if choice != beside or not delta.keys().isdisjoint(added):
            return None
        choice["delta"] = delta | added
        parsed = Parsed([*one.deltas, *other.deltas], choices=one.parsed.choices)
        return Event(self.carry(document).raw, self, parsed)

    def _template_of(self, event: Event, parsed: Parsed) -> Template | None:
        if parsed.template is not None and parsed.template.fits(event.raw):
            return parsed.template
        return self._learner.prove(event.raw, parsed) if self.framing is Framing.SSE else None

    def choice_texts(self, index: int, choice: dict[str, Any]) -> Iterable[Text]:
        for name in choice:
            if name in ("delta", "message", "text"):  # the last is not chat's, but who mixes the two up sends it
                message = choice[name]
                repeated = name == "message" and "delta" in choice
                for slot in string_slots(choice, name, (), _is_arguments):
                    channel = _channel(index, message, slot.path, repeated)
                    if channel is not None and not logprobs.is_mirror(slot.path):
                        yield channel, type(slot)(slot.holder, slot.key, (name, *slot.path))

    def empty_choice(self, *, first: bool) -> dict[str, Any]:
        delta = {"role": "assistant", "content": ""} if first else {}
        return {"delta": delta, "logprobs": None, "finish_reason": "length"}


def _only_choice(document: Any) -> dict[str, Any] | None:
    """The choice of a chunk that has one, with a delta; None for a document of another shape."""
    match document:
        case {"choices": [dict(choice)]} if isinstance(choice.get("delta"), dict):
            return choice
    return None


def _channel(choice: int, message: Any, path: Path, repeated: bool) -> Channel | None:
    """The channel of the string at `path` of a message; None where it is no text."""
    known = _known_text(message, path)
    if known is not None:
        again = path == ("reasoning",) and message["reasoning"] == message.get("reasoning_content")
        return Channel(choice, *known, repeated or again, grows=again and not repeated)
    if _is_structure(path):
        return None
    match path:
        case ("reasoning_details", int(position), "text" | "summary" as name):
            # OpenRouter's: what `reasoning` says, once more in pieces. Not each chunk has all the details.
            number = message["reasoning_details"][position].get("index")
            index = f"/reasoning_details/{number if type(number) is int else position}/{name}"
            again = repeated or "reasoning" in message or "reasoning_content" in message
            return Channel(choice, Kind.REASONING, index, again, grows=again and not repeated)
        case (*_, "thinking_blocks", int(), "thinking"):  # LiteLLM's: likewise
            again = repeated or "reasoning_content" in message
            return Channel(choice, Kind.REASONING, pointer(path), again, grows=again and not repeated)
    return Channel(choice, Kind.TEXT, pointer(path), repeated or not openai_common.grows(path))


def _read_ordinary(raw: bytes, *, checked: bool = False) -> Parsed | None:
    """What an ordinary chunk says. None: it is none, or the order of its fields on the wire matters, or those that others
    of the same name hide: typing has lost them. `checked`: there are none of these."""
    data = sse.read_data(raw) or b""
    try:
        chunk = _decode_chunk(data)
        # A `usage` has more than is typed here, which may be what no JSON is.
        if not checked and (repeats_names(data, decode(data)) if chunk.usage else has_more_strings(data, chunk)):
            return None
    except (ValueError, RecursionError):
        return None
    deltas: list[Delta] = []
    ends: list[Channel] = []
    numbers: list[int] = []
    for choice in chunk.choices:
        index, delta = choice.index, choice.delta
        numbers.append(index)
        before = len(deltas)
        if delta.content:
            deltas.append((_content(index), delta.content))
        if delta.reasoning_content:
            deltas.append((Channel(index, Kind.REASONING, 0), delta.reasoning_content))
        if delta.reasoning:
            deltas.append((Channel(index, Kind.REASONING, 1), delta.reasoning))
        if delta.refusal:
            deltas.append((Channel(index, Kind.REFUSAL, 0), delta.refusal))
        if delta.tool_calls:
            if any(call.function and call.function.name for call in delta.tool_calls):
                return None
            deltas += [
                (Channel(index, Kind.TOOL_ARGUMENTS, call.index), call.function.arguments)
                for call in delta.tool_calls
                if call.function and call.function.arguments
            ]
        if len(deltas) > before + 1:
            return None
        if is_reason(choice.finish_reason):
            ends.append(Channel(index, None, None))
    usage = chunk.usage
    counts = Usage(usage.prompt_tokens, usage.completion_tokens) if usage else None
    return Parsed(deltas, ends, counts, numbers)


def _is_blank(raw: bytes) -> bool:
    """Whether an ordinary chunk is not worth sending: what `ChatStream.is_blank` says of its document."""
    chunk = _decode_chunk(sse.read_data(raw) or b"")
    return not chunk.usage and not any(map(_says_something, chunk.choices))


def _says_something(choice: _Choice) -> bool:
    delta = choice.delta
    if choice.finish_reason or choice.native_finish_reason or delta.role:
        return True
    if isinstance(choice.stop_reason, int) or isinstance(choice.matched_stop, int):
        return True
    if delta.content or delta.reasoning_content or delta.reasoning or delta.refusal:
        return True
    called = ((call, call.function or _Function()) for call in delta.tool_calls or ())
    return any(call.id or call.type or function.name or function.arguments for call, function in called)
