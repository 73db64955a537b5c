"""APIs of unknown shape, told apart by content type alone.

- Server-sent events whose data is JSON, NDJSON and whole JSON: every string value is a channel, its index the JSON
  pointer. `data: [DONE]` ends every channel, and so does an event that says in the words of most APIs that something has
  ended. It is no terminal: what has ended may be a part of the answer.
- Tokens and log probabilities, which say the texts again, are none: they are told by their names (`logprobs.py`).
- Server-sent events whose data is anything else: the data is the text of the one channel with index "", as is the
  string where a whole document is one. A number is such text too, or digits sent token by token would go unseen.
- Text (`text/*` in UTF-8): one channel with index "".
- Everything else is opaque bytes, of which nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Problem
from ..framing import Event, Framer, Framing
from . import logprobs, sse
from .base import EVERY_CHANNEL, AfterEnd, Call, Channel, Delta, DialectStream, Kind, Parsed
from .documents import Slot, decode, encode, is_binary, is_filled, is_value, is_whole, string_slots
from .stream import UNKNOWN, DocumentStream, Stream, Text, charset, every_text, framing_of, media_type, usage_of

if TYPE_CHECKING:
    from ..messages import Request, ResponseHead
    from ..policy import Ending

# In requests: words that APIs define, and identifiers that a server gave out and has to know again. All else may be said by
# people, also who they are (`user_id`).
_OWN_WORDS = frozenset(
    (
        "call_id", "container_id", "created", "created_at", "file_id", "id", "item_id", "media_type", "mimeType", "mime_type",
        "model", "object", "previous_response_id", "response_id", "role", "tool_call_id", "tool_use_id", "type",
        "vector_store_id",
    )
)  # fmt: skip
WHOLE_TEXT = Channel(0, Kind.TEXT, "")
"""The channel of what is text as a whole; "" is the JSON pointer to a whole document."""

_ENDS = (Channel(0, None, None),)  # all that there are, and yet not the end of the reply
_TYPES = ("type", "event", "event_type", "eventType")
_SAYS_END = re.compile(
    r"(?:^|[^A-Za-z])(?i:end|done|stop|finish|finished|complete|completed|success|final)$"
    r"|[a-z](?:End|Done|Stop|Finish|Finished|Complete|Completed|Success|Final)$"
)
# Source: Vercel AI SDK documentation, "UI message stream protocol". An `error` is said at once in any API.
_WHOLE_PARTS = re.compile(
    r"error|message-metadata|source-(?:url|document)|tool-input-(?:available|error)|tool-output-(?:available|error|denied)"
)
_ENDED = ("stop", "done", "finished", "is_finished")
_REASONS = ("finish_reason", "finishReason", "stop_reason", "done_reason")


class Generic:
    """The dialect of whatever no other dialect knows."""

    name = "generic"

    def matches(self, path: str) -> bool:
        return True

    def speaks(self, document: Any) -> bool:
        return False

    def read_call(self, request: Request) -> Call:
        """The top-level `model` and `stream` that most APIs have, and every string as a text."""
        try:
            document = decode(request.body or b"")
            texts = [slot.text for slot in string_slots([document], 0)]
        except ValueError:
            return Call()
        fields = document if isinstance(document, dict) else {}
        model = fields.get("model")
        return Call(
            model=model if isinstance(model, str) else None,
            stream=fields.get("stream") is True,
            texts=texts,
            document=document,
        )

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        for slot in string_slots(root, 0, (), is_filled):
            key = next((part for part in reversed(slot.path) if isinstance(part, str)), "")
            is_text = key not in _OWN_WORDS or is_value(slot.path)
            if is_text and not is_binary(slot.text, slot.path):
                yield slot

    def ask_for_usage(self, request: Request) -> bool:
        return False

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return "application/json", encode(_error(problem))

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        return OpaqueStream(text=_is_text(head)) if framing is Framing.OPAQUE else GenericStream(framing)


def _error(problem: Problem) -> dict[str, Any]:
    return {"error": {"message": problem.message, "code": problem.details, "status": problem.status}}


def _is_text(head: ResponseHead) -> bool:
    return media_type(head).startswith("text/") and charset(head) in ("", "utf-8", "us-ascii")


class GenericStream(DocumentStream):
    """JSON of unknown shape, or server-sent text."""

    after_end = AfterEnd.NEW

    def texts(self, root: list[Any]) -> Iterable[Text]:
        for channel, slot in every_text(root, 0):
            if not logprobs.is_mirror(slot.path):
                is_data = is_binary(slot.text, slot.path) and is_whole(slot.path)
                yield (channel._replace(repeated=True) if is_data else channel), slot

    def read(self, document: Any) -> Parsed:
        ends = _ENDS if _says_end(document) else ()
        return Parsed(ends=ends, usage=usage_of(document), mirrored=any(logprobs.mirrors(document)))

    def drop_mirrors(self, root: list[Any]) -> bool:
        return logprobs.drop(root[0])

    def is_complete(self, channel: Channel, document: Any) -> bool:
        """OpenAI's Assistants show a run and a message whole again whenever they have changed; the AI SDK's UI message stream
        has parts that are whole beside those that come in deltas: one of data that has an id replaces that of before."""
        name, type = _word(document, "object"), _word(document, "type")
        if name.startswith("thread."):
            return not name.endswith(".delta")
        if type.startswith("data-"):
            return _word(document, "id") != "" and "data" in document and document.get("transient") is not True
        if type == "start":  # as others call the first piece of a text
            return str(channel.index).startswith("/messageMetadata/")
        return _WHOLE_PARTS.fullmatch(type) is not None

    def parse(self, raw: bytes) -> Parsed:
        parsed = super().parse(raw)
        if self.framing is not Framing.SSE or raw.startswith(b"data:"):
            return parsed
        name = (sse.read(raw).event or b"").decode("latin-1")
        return msgspec.structs.replace(parsed, ends=[*parsed.ends, *_ENDS]) if _SAYS_END.search(name) else parsed

    def load(self, data: bytes, read: Callable[[bytes], Any] = decode) -> Any:
        if self.framing is Framing.SSE and data.lstrip()[:1] not in (b"{", b"[", b'"'):
            raise ValueError("text")
        return super().load(data, read)

    def read_other(self, data: bytes) -> Parsed:
        other = super().read_other(data)
        if other is not UNKNOWN or self.framing is not Framing.SSE:
            return other
        return _read_text(data)

    def is_blank(self, document: Any) -> bool:
        return isinstance(document, str)

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        if not isinstance(event.parsed, _PlainText):
            return super().rewrite(event, deltas)
        text = deltas[0][1]
        fields = sse.read(event.raw)
        if not text and fields.event is None and fields.id is None and fields.retry_ms is None:
            return None
        return Event(sse.with_data(event.raw, _to_bytes(text)), self, _plain(text, event.ends))

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        if isinstance(event.parsed, _PlainText) and channel == WHOLE_TEXT:
            name = sse.read(event.raw).event  # by which clients may choose what they listen to
            like = b"data:\n\n" if name is None else b"event: " + name + b"\ndata:\n\n"
            return Event(sse.with_data(like, _to_bytes(text)), self, _plain(text))
        return self.say_again(event, channel, text)

    def delivered(self, events: Sequence[Event]) -> None:
        if self.framing is Framing.JSON:
            self.finished = True
        elif self.framing is Framing.SSE:
            for event in events:
                if not event.raw.startswith(b":"):
                    self._last = event.raw
                    self.finished = self.finished or (b"[DONE]" in event.raw and EVERY_CHANNEL in event.ends)

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """An error event either way: how an unknown API says that its own limit was reached cannot be known."""
        return [] if self.finished else [self.carry(_error(problem), b"error")]


class OpaqueStream(Stream):
    """Each read is an event; its text, where it is text, is one channel. Nothing can be said in it but by the model."""

    def __init__(self, *, text: bool) -> None:
        super().__init__(Framing.OPAQUE)
        self._text = text

    def framer(self, max_event_bytes: int) -> Framer:
        return CharacterFramer() if self._text else super().framer(max_event_bytes)

    def parse(self, raw: bytes) -> Parsed:
        return _read_text(raw) if self._text else UNKNOWN

    def document(self, raw: bytes) -> None:
        return None

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        text = deltas[0][1]
        return Event(_to_bytes(text), self, _plain(text)) if text else None

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        if not self._text or channel != WHOLE_TEXT:
            raise ValueError("only text can be continued")
        return Event(_to_bytes(text), self, _plain(text))

    def comment(self) -> None:
        return None

    def delivered(self, events: Sequence[Event]) -> None:
        """There is no terminal and nothing to remember."""

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        return []


class CharacterFramer:
    """Each read is an event, but for a character of UTF-8 that it cut: that one begins the next."""

    def __init__(self) -> None:
        self._cut = b""
        self.pending = 0

    def feed(self, data: bytes) -> list[bytes]:
        data = self._cut + data
        keep = len(data) - _cut_bytes(data)
        self._cut = data[keep:]
        self.pending = len(self._cut)
        return [data[:keep]] if keep else []

    def finish(self) -> bytes:
        rest, self._cut, self.pending = self._cut, b"", 0
        return rest


def _cut_bytes(data: bytes) -> int:
    """How many bytes at the end begin a character of UTF-8 and do not complete it: 0 to 3 (RFC 3629 §3)."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4 if byte < 0xF5 else 0
            return back if back < length else 0
        if byte < 0x80:
            return 0
    return 0


class _PlainText(Parsed, gc=False):
    """A payload that is text and not a document, also where the text that a policy gave it looks like one."""


def _plain(text: str, ends: Sequence[Channel] = ()) -> _PlainText:
    return _PlainText([(WHOLE_TEXT, text)] if text else (), ends)


def _word(document: Any, name: str) -> str:
    """The string that a document has under this name, "" where it has none."""
    word = document.get(name) if isinstance(document, dict) else None
    return word if isinstance(word, str) else ""


def _says_end(document: Any) -> bool:
    """Whether a document of unknown shape says that something has ended: a part of an answer, the answer, the reply."""
    if not isinstance(document, dict):
        return False
    return (
        any(isinstance(name := document.get(key), str) and _SAYS_END.search(name) for key in _TYPES)
        or any(document.get(key) is True for key in _ENDED)
        or any(isinstance(reason := document.get(key), str) and reason for key in _REASONS)
    )


def _read_text(data: bytes) -> Parsed:
    try:
        return _plain(data.decode())
    except UnicodeDecodeError:
        return UNKNOWN


def _to_bytes(text: str) -> bytes:
    return text.encode(errors="replace")  # lone surrogates, which no text that came in this way can hold
