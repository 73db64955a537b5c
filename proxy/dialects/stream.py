"""What the streams of all dialects do alike: events that carry JSON documents, read and rewritten by their texts.

A dialect says where the texts of a document stand (`texts`); reading, rewriting and continuing follow from that one
answer, so that they cannot disagree. `framing_of` is how every dialect chooses its framing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..framing import Event, Framer, Framing, framer_for
from . import arrays, sse
from .base import EVERY_CHANNEL, AfterEnd, Channel, Delta, DialectStream, Kind, Parsed, Usage
from .documents import Slot, decode, decode_editable, encode, is_label, key_at, pointer, repeats_names, string_slots

if TYPE_CHECKING:
    from ..messages import ResponseHead

NOTHING = Parsed()
UNKNOWN = Parsed(known=False)
DONE = Parsed(ends=(EVERY_CHANNEL,))

Text = tuple[Channel, Slot]
"""A text of a document: whose it is and where it stands."""

_FRAMINGS = {
    "text/event-stream": Framing.SSE,
    "application/x-ndjson": Framing.NDJSON,
    "application/ndjson": Framing.NDJSON,
    "application/jsonl": Framing.NDJSON,
    "application/x-jsonl": Framing.NDJSON,
    "application/x-jsonlines": Framing.NDJSON,
    "application/json-lines": Framing.NDJSON,
    "application/json": Framing.JSON,
}


def media_type(head: ResponseHead) -> str:
    """The lower-cased type/subtype of the head's Content-Type, "" where it has none (RFC 9110 §8.3.1)."""
    return head.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def charset(head: ResponseHead) -> str:
    """The lower-cased `charset` of the head's Content-Type, "" where it has none (RFC 9110 §8.3.2)."""
    return head.headers.get("Content-Type", "").lower().partition("charset=")[2].partition(";")[0].strip('" ')


def framing_of(head: ResponseHead) -> Framing:
    """How the body below this head is divided into events."""
    media = media_type(head)
    return _FRAMINGS.get(media) or (Framing.JSON if media.endswith("+json") else Framing.OPAQUE)


def usage_of(document: Any) -> Usage | None:
    """What a document states in its `usage`, in the words of OpenAI or Anthropic. Embeddings have a total, but no output.

    OpenAI's Responses have it in their `response`, Ollama's last event at its top."""
    if not isinstance(document, dict):
        return None
    response = document.get("response")
    usage = document.get("usage") or (response.get("usage") if isinstance(response, dict) else None)
    if "eval_count" in document:
        usage = document
    if not isinstance(usage, dict):
        return None
    prompt = count_of(usage, "prompt_tokens", "input_tokens", "prompt_eval_count")
    output = count_of(usage, "completion_tokens", "output_tokens", "eval_count")
    total = count_of(usage, "total_tokens")
    if output is None and prompt is not None and total is not None:
        output = total - prompt
    return Usage(prompt, output)


def count_of(stated: Mapping[str, Any], *names: str) -> int | None:
    """The number that stands under the first of the names that has one."""
    return next((stated[name] for name in names if type(stated.get(name)) is int), None)


def every_text(holder: Any, key: str | int, path: tuple[str | int, ...] = ()) -> Iterable[Text]:
    """The rule for JSON of unknown shape: every string value is a channel, its index the JSON pointer."""
    return ((Channel(0, Kind.TEXT, pointer(slot.path)), slot) for slot in string_slots(holder, key, path))


def splice(raw: bytes, old: str, new: str) -> bytes | None:
    """An event with its text `old` replaced in place: every other byte stays, at a quarter of the cost of decoding and
    encoding. None where that is not possible.

    The text is looked for in the spelling that most servers use. Whether what was found was the text, and not its like
    elsewhere, has to be seen in what the result says."""
    spelt = encode(old)
    return raw.replace(spelt, encode(new)) if raw.count(spelt) == 1 else None


def with_text(event: Event | None) -> Event:
    """An event that was rewritten with texts none of which is empty: it is there."""
    assert event is not None
    return event


def asides(
    holder: dict[str, Any], names: Iterable[str], words: Collection[str], objects: Collection[str]
) -> Iterable[Text]:
    """Whole texts of their own that stand beside what the model says: the strings of the members of `holder` with these
    `names`, but for fields at its top, and of the `objects` there, whose names are `words`: they hold an API's own words.
    Other objects may be filled by people and tools, who use the same names for what they say."""
    for name in names:
        for slot in string_slots(holder, name, (name,)):
            inner = slot.path[1:]
            is_word = not inner or (len(inner) == 1 and name in objects)
            if not (is_word and slot.path[-1] in words):
                yield Channel(0, Kind.TEXT, pointer(slot.path), repeated=True), slot


class Stream(DialectStream):
    """The part of a stream that is the same for all."""

    terminates = False
    after_end = AfterEnd.NOTHING

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.finished = False
        self.counted: Usage | None = None
        self.kept_as: str | None = None

    def framer(self, max_event_bytes: int) -> Framer:
        return framer_for(self.framing, max_event_bytes)

    def event(self, raw: bytes) -> Event:
        return Event(raw, self)

    def continuable(self, event: Event, deltas: Sequence[Delta]) -> Event:
        return with_text(self.rewrite(event, deltas))

    def joined(self, continuations: list[Event]) -> list[Event]:
        return continuations

    def without_usage(self, event: Event) -> Event | None:
        return event

    def without_mirrors(self, event: Event) -> Event | None:
        return event


class DocumentStream(Stream):
    """A stream whose events carry JSON documents: the data of an SSE event, an NDJSON line, an element of an
    array or the whole body."""

    def __init__(self, framing: Framing) -> None:
        super().__init__(framing)
        self._last = b""
        """The last event delivered that was more than a comment."""

    @abstractmethod
    def texts(self, root: list[Any]) -> Iterable[Text]:
        """The non-empty texts of the document `root[0]`, in the order of the wire. Raises ValueError where they nest
        too deeply to be found."""

    def read(self, document: Any) -> Parsed:
        """What a document says besides its texts: a `Parsed` without deltas."""
        return NOTHING

    def is_complete(self, channel: Channel, document: Any) -> bool:
        """Whether a text of this channel is whole in the event with this document, so that the channel ends with it. Never in
        a document of unknown shape: it may be one of another API, which sends a text in pieces there."""
        return False

    def read_other(self, data: bytes) -> Parsed:
        """What a payload says that is no JSON document."""
        if self.framing is Framing.JSON_ARRAY:
            return DONE if data == arrays.CLOSING else UNKNOWN
        return DONE if self.framing is Framing.SSE and data.strip() == b"[DONE]" else UNKNOWN

    def edited(self, document: Any, changed: Sequence[Channel]) -> None:
        """The texts of `changed` were replaced: take out of the document what repeats the old ones in other forms."""

    @abstractmethod
    def is_blank(self, document: Any) -> bool:
        """Whether a document whose texts are all empty is not worth sending."""

    # base.DialectStream

    def parse(self, raw: bytes) -> Parsed:
        data = self.payload(raw)
        if data is None:
            return NOTHING
        try:
            document = self.load(data, decode_editable)
            deltas = [(channel, slot.text) for channel, slot in self.texts([document])]
            repeated = repeats_names(data, document)
        except ValueError:
            return self.read_other(data)
        found = self.read(document)
        mirrored = found.mirrored or repeated
        if self.framing is Framing.JSON:
            return Parsed(deltas, (EVERY_CHANNEL,), found.usage, found.choices, mirrored=mirrored)
        complete = [channel for channel, _ in deltas if self.is_complete(channel, document)]
        return Parsed(deltas, [*complete, *found.ends], found.usage, found.choices, mirrored=mirrored)

    def document(self, raw: bytes) -> Any:
        try:
            return self.load(self.payload(raw) or b"")
        except ValueError:
            return None

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        root = [decode_editable(self.payload(event.raw) or b"")]
        changed = []
        for (channel, slot), (_, text) in zip(list(self.texts(root)), deltas, strict=True):
            if text != slot.text:
                changed.append(channel)
                slot.put(text)
        self.edited(root[0], changed)
        if changed and any(channel.repeated for channel, _ in deltas):  # which may have gone with what was changed
            left = [(channel, slot.text) for channel, slot in self.texts(root)]
        else:
            left = [delta for delta in deltas if delta[1]]
        if not left and self._is_nothing(event, root[0]):
            return None
        was = event.parsed
        parsed = Parsed(left, was.ends, was.usage, was.choices, was.known, was.mirrored)
        return Event(self.with_payload(event.raw, encode(root[0])), self, parsed)

    def without_mirrors(self, event: Event) -> Event | None:
        data = self.payload(event.raw) or b""
        root = [decode_editable(data)]
        if not self.drop_mirrors(root) and not repeats_names(data, root[0]):
            return event
        if not event.deltas and self._is_nothing(event, root[0]):
            return None
        return Event(self.with_payload(event.raw, encode(root[0])), self, event.parsed)

    def _is_nothing(self, event: Event, document: Any) -> bool:
        """Whether an event that now has this document, without texts, is not worth sending: what ends a reply always is."""
        return EVERY_CHANNEL not in event.ends and self.is_blank(document)

    def drop_mirrors(self, root: list[Any]) -> bool:
        """Take out of the document `root[0]` what says texts in other forms, but where that says exactly the texts that it has
        itself. Whether there was any."""
        return False

    def comment(self) -> Event | None:
        if self.framing is not Framing.SSE:
            return None
        # Once a stream has used `id`, the Python SDKs of OpenAI and Anthropic dispatch an empty event at every blank
        # line and fail on its empty data; so there the comment becomes the first line of the event that follows.
        blank = b"" if sse.read(self._last).id is not None else b"\n"
        return Event(b": keep-alive\n" + blank, self, NOTHING)

    # Payloads: where in an event's bytes the document is

    def load(self, data: bytes, read: Callable[[bytes], Any] = decode) -> Any:
        """The document in a payload, as `read` reads it. Raises ValueError."""
        return read(data)

    def payload(self, raw: bytes) -> bytes | None:
        """None: the event has none (comments, empty data, blank lines)."""
        if self.framing is Framing.JSON_ARRAY:
            return arrays.read_data(raw) or None
        return (sse.read_data(raw) if self.framing is Framing.SSE else raw.strip()) or None

    def with_payload(self, raw: bytes, data: bytes) -> bytes:
        """The event with another payload; what stands around it stays."""
        if self.framing is Framing.SSE:
            return sse.with_data(raw, data)
        if self.framing is Framing.JSON_ARRAY:
            return arrays.with_data(raw, data)
        return data + raw[len(raw.rstrip()) :]

    def carry(self, document: Any, event_name: bytes | None = None) -> Event:
        """A new event with this document."""
        data = encode(document)
        if self.framing is Framing.SSE:
            return self.event(sse.write(data, event_name))
        if self.framing is Framing.JSON_ARRAY:
            return self.event(arrays.write(data))
        return self.event(data + b"\n" if self.framing is Framing.NDJSON else data)

    def place(self, event: Event, channel: Channel) -> tuple[list[Any], Slot]:
        """The event's document in an editable copy, as the one item of a list, and where in it `channel`'s text stands. It may
        have become a text that grows, or none, since it was found there: what was said twice may have been rewritten.

        Raises ValueError where there is none, or where the event is a whole body."""
        if self.framing is not Framing.JSON:
            root = [decode_editable(self.payload(event.raw) or b"")]
            for found, slot in self.texts(root):
                if found.steady == channel.steady:
                    return root, slot
        raise ValueError("only an event of a stream that has this channel can be continued")

    def say_again(self, event: Event, channel: Channel, text: str) -> Event:
        """A continuation where nothing is known of the shape: all but the texts is said again, and so are the words and
        identifiers that tell a client what it is given, but not why something ended. Raises like `place`."""
        root, slot = self.place(event, channel)
        for _, other in list(self.texts(root)):
            key = key_at(other.path)
            if not is_label(key) or key.lower().endswith("reason"):
                other.put("")
        slot.put(text)
        self.drop_mirrors(root)
        said = self.carry(root[0], sse.read(event.raw).event if self.framing is Framing.SSE else None)
        return Event(said.raw, self, Parsed([(channel, text)]))
