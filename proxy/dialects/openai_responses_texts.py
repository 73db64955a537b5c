"""Where an OpenAI response and its events have their texts, and which of them end; pure.

A channel's index says where in the response's `output` its text stands: "2" is the own text of an item,
"1/content/0" that of a part; "2/action/query" is a string that is none of the texts that come in pieces. Only what has
deltas goes on in later events (`grows`), and it ends with its own `*.done`, its part's or its item's; every other string is
whole in its event.

Source: OpenAI API reference, "Responses" and its "Streaming events".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .base import EVERY_CHANNEL, Channel, Kind
from .documents import Path, Slot, pointer, string_slots
from .stream import Text, asides

_TERMINALS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "error")
_WITHOUT_TEXT = ("response.audio.delta", "response.image_generation_call.partial_image")
# Names of fields that hold the API's own words and names, and no text; "encrypted_content" only OpenAI can read.
_STRUCTURE = frozenset(
    (
        "type", "id", "object", "status", "role", "name", "phase", "namespace", "model", "obfuscation", "event_id",
        "call_id", "item_id", "file_id", "container_id", "caller_id", "approval_request_id", "response_id",
        "previous_response_id", "stream_id", "server_label", "created_by", "fingerprint", "encrypted_content",
    )
)  # fmt: skip
# And of such fields in the items of lists, where tools may have filled the others.
_LISTED = frozenset(("type", "file_id", "container_id", "encrypted_content"))
# Objects beside the output that have such fields; all others are filled by people (`metadata`), or not known.
_OBJECTS = frozenset(("conversation", "error", "prompt", "tool_choice"))
# What stands in an event, by what its type begins with.
_HOLDERS = {
    "response": "response",
    "response.output_item": "item",
    "response.content_part": "part",
    "response.reasoning_summary_part": "part",
    "response.output_text.annotation": "annotation",
}

# The indices of the texts of items and parts.
_SPOKEN_AT = re.compile(r"[^/]+(/(content|summary)/\d+)*")

MIRROR = "logprobs"
"""The field in which texts are said once more, token by token, wherever it stands."""

Document = dict[str, Any]


class Spoken(NamedTuple):
    """A text that comes in pieces, `response.EVENT.delta`, and whole in `response.EVENT.done` and in its `owner`."""

    event: str
    owner: str
    """The `type` of the part or item whose text it is."""
    parts: str
    """The list of the item in which the owner stands; "" where the owner is the item itself."""
    field: str
    """Where the owner and the done event have it."""
    kind: Kind

    @property
    def mirrors(self) -> Document:
        """The fields in which its events repeat it in other forms, empty."""
        return {MIRROR: []} if self.kind is Kind.TEXT else {}


SPOKEN = (
    Spoken("output_text", "output_text", "content", "text", Kind.TEXT),
    Spoken("refusal", "refusal", "content", "refusal", Kind.REFUSAL),
    Spoken("reasoning_text", "reasoning_text", "content", "text", Kind.REASONING),
    Spoken("reasoning_summary_text", "summary_text", "summary", "text", Kind.REASONING),
    Spoken("function_call_arguments", "function_call", "", "arguments", Kind.TOOL_ARGUMENTS),
    Spoken("mcp_call_arguments", "mcp_call", "", "arguments", Kind.TOOL_ARGUMENTS),
    Spoken("custom_tool_call_input", "custom_tool_call", "", "input", Kind.TOOL_ARGUMENTS),
    Spoken("code_interpreter_call_code", "code_interpreter_call", "", "code", Kind.TOOL_ARGUMENTS),
)
BY_EVENT = {spoken.event: spoken for spoken in SPOKEN}
BY_OWNER = {spoken.owner: spoken for spoken in SPOKEN}
PART_LISTS = {"response.content_part": "content", "response.reasoning_summary_part": "summary"}


def place_of(document: Mapping[str, Any], item_id: Any) -> str:
    """Which item of the response's `output` an event is about: its number, or its id where the server (llama.cpp) leaves
    the number out."""
    number = document.get("output_index")
    return str(number if type(number) is int else item_id)


def part_of(document: Mapping[str, Any], place: str, parts: str) -> str:
    """Which part of the item at `place` an event is about."""
    number = document.get(f"{parts}_index")
    return f"{place}/{parts}/{number if type(number) is int else 0}"


def index_of(spoken: Spoken, document: Mapping[str, Any], place: str) -> str:
    """The index of the channel that an event about a text is about."""
    return part_of(document, place, spoken.parts) if spoken.parts else place


# Texts


def event_texts(document: Any) -> Iterator[Text]:
    """The texts of an event's document, in order. Raises ValueError where there may be some that cannot be told."""
    type = document.get("type") if isinstance(document, dict) else None
    if type == "error" or (isinstance(document, dict) and document.get("error")):
        yield from _asides(document, document)
        return
    if not isinstance(type, str):
        raise ValueError("an event of another shape")
    group, _, suffix = type.rpartition(".")
    holder = _HOLDERS.get(group, "")
    if not isinstance(document.get(holder), dict):
        yield from _spoken_texts(document, type)
        return
    place = place_of(document, document.get("item_id"))
    repeated = suffix != "added"
    if holder == "response":
        yield from response_texts(document["response"], repeated=True)
    elif holder == "item":
        place = place_of(document, document["item"].get("id"))
        yield from _part_texts(document, "item", place, repeated=repeated)
    elif holder == "part":
        place = part_of(document, place, PART_LISTS[group])
        yield from _part_texts(document, "part", place, repeated=repeated)
    else:
        place = part_of(document, place, "content") + pointer(("annotations", str(document.get("annotation_index"))))
        yield from _part_texts(document, "annotation", place, repeated=True)
    yield from _asides(document, (name for name in document if name != holder))


def _spoken_texts(document: Document, type: str) -> Iterator[Text]:
    """The texts of a delta, of what says the whole of one, and of what is unknown."""
    if type in _WITHOUT_TEXT:
        return
    event, suffix = split_type(type)
    spoken, index = BY_EVENT.get(event), _index(document, event)
    kind = Kind.TEXT if spoken is None else spoken.kind
    field = "delta" if suffix == "delta" else spoken.field if spoken is not None and suffix == "done" else ""
    in_full = Kind.TOOL_ARGUMENTS is kind
    for slot in string_slots(document, field, (), lambda path: in_full and not path) if field in document else ():
        yield Channel(0, kind, index + pointer(slot.path), suffix == "done"), slot
    others = list(_asides(document, (name for name in document if name != field)))
    if spoken is not None and isinstance(document.get("name"), str):  # of the tool that the model calls
        others.append((Channel(0, Kind.TEXT, "/name", repeated=True), Slot(document, "name", ("name",))))
    is_new = spoken is None and suffix != "done"
    if is_new and others and (suffix == "delta" or "." not in type):
        raise ValueError("an event of unknown type")
    for channel, slot in others:
        yield channel._replace(repeated=not is_new), slot


def _channel_at(owner: Any, path: Path, place: str, *, repeated: bool) -> Channel | None:
    """The channel of the string at `path` of a part or item; None where it is no text."""
    match path:
        case _ if MIRROR in path:
            return None
        case ("content" | "summary" as parts, int(number), _, *_):
            return _channel_at(owner[parts][number], path[2:], f"{place}/{parts}/{number}", repeated=repeated)
        case (str(name),):
            type = str(owner.get("type"))
            spoken = BY_OWNER.get(type)
            if spoken is not None and spoken.field == name:
                return Channel(0, spoken.kind, place, repeated)
            if name == "name":  # of the tool that the model calls, or wants to
                return Channel(0, Kind.TEXT, f"{place}/name", repeated=True)
            if name in _STRUCTURE or (type, name) == ("image_generation_call", "result"):
                return None
        case (str(), int(), str(name)) if name in _LISTED:
            return None
    return Channel(0, Kind.TEXT, place + pointer(path), repeated)


def _part_texts(holder: Any, key: str | int, place: str, *, repeated: bool) -> Iterator[Text]:
    """The texts of a part, or of an item with its parts."""
    owner = holder[key]
    spoken = BY_OWNER.get(str(owner.get("type"))) if isinstance(owner, dict) else None
    arguments = (spoken.field,) if spoken is not None and spoken.kind is Kind.TOOL_ARGUMENTS else None
    for slot in string_slots(holder, key, (), lambda path: path == arguments):
        channel = _channel_at(holder[key], slot.path, place, repeated=repeated)
        if channel is not None:
            yield channel, slot


def response_texts(response: Document, *, repeated: bool) -> Iterator[Text]:
    """The texts of a response; what stands beside its output is whole in any case."""
    for name in response:
        if name == "output" and isinstance(response["output"], list):
            for number in range(len(response["output"])):
                yield from _part_texts(response["output"], number, str(number), repeated=repeated)
        else:
            yield from _asides(response, (name,))


def _asides(holder: Document, names: Iterable[str]) -> Iterator[Text]:
    found = asides(holder, names, _STRUCTURE, _OBJECTS)
    return ((channel, slot) for channel, slot in found if MIRROR not in slot.path)


def split_type(type: str) -> tuple[str, str]:
    """("output_text", "delta") of "response.output_text.delta"."""
    event, _, suffix = type.removeprefix("response.").rpartition(".")
    return event, suffix


def _index(document: Mapping[str, Any], event: str) -> str:
    """The index of the channel that a `.delta` or `.done` is about."""
    place, spoken = place_of(document, document.get("item_id")), BY_EVENT.get(event)
    if spoken is not None:
        return index_of(spoken, document, place)
    numbers = [value for name, value in document.items() if name.endswith("_index") and name != "output_index"]
    return place + pointer((event, *(number for number in numbers if type(number) is int)))


# What else an event says


def ends_of(document: Document) -> Sequence[Channel]:
    """The channels that end with an event."""
    type = document.get("type")
    if document.get("error") or type in _TERMINALS:
        return (EVERY_CHANNEL,)
    event, suffix = split_type(str(type))
    if suffix != "done":
        return ()
    item = document.get("item")
    if event == "output_item" and isinstance(item, dict):
        return (Channel(0, None, place_of(document, item.get("id"))),)
    if (parts := PART_LISTS.get(f"response.{event}")) is not None:
        return (Channel(0, None, part_of(document, place_of(document, document.get("item_id")), parts)),)
    spoken = BY_EVENT.get(event)
    return (Channel(0, Kind.TEXT if spoken is None else spoken.kind, _index(document, event)),)


def grows(channel: Channel, document: Document) -> bool:
    """Whether a text of this channel, new in the event with this document, goes on in later ones: it came in a delta, or
    stands where deltas add to it."""
    return split_type(str(document.get("type")))[1] == "delta" or _SPOKEN_AT.fullmatch(str(channel.index)) is not None


def mirrored(document: Any) -> Iterator[Document]:
    """What has log probabilities."""
    ahead = [document]
    while ahead:
        value = ahead.pop()
        if isinstance(value, dict):
            if value.get(MIRROR):
                yield value
            ahead += value.values()
        elif isinstance(value, list):
            ahead += value
