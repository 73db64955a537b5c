"""JSON documents: decoded strictly, searched for texts, edited, and encoded so that what nobody touched stays.

What an edited document loses: whitespace between tokens, the spelling of escapes (``\\u00e9`` or the character itself),
all but the last of repeated keys, and the sign of an integer zero. Numbers keep their text, keys their order.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec

MAX_DEPTH = 64
"""Texts nested deeper than this are not looked for: paths would grow with the square of the document."""

Path = tuple[str | int, ...]


def _keep_text(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts (sys.set_int_max_str_digits)
        return float(digits)


def _editable_integer(digits: str) -> int | msgspec.Raw:
    try:
        return int(digits)
    except ValueError:
        return _keep_text(digits)


_decode = msgspec.json.Decoder().decode
_decode_editable = msgspec.json.Decoder(float_hook=_keep_text).decode
_encode = msgspec.json.Encoder().encode


def decode(data: bytes) -> Any:
    """The document in `data` (RFC 8259, UTF-8). Raises ValueError where there is none or it nests too deeply to decode.

    msgspec refuses two things that JSON allows and the standard library reads: lone surrogates (``"\\ud83d"``, sent by
    servers that cut UTF-16 strings anywhere) and numbers beyond a float's range or 4300 digits.
    """
    try:
        return _decode(data)
    except ValueError:
        return _decode_permissively(data, json.JSONDecoder(parse_int=_integer, parse_constant=_refuse_constant))
    except RecursionError:
        raise ValueError("the document nests too deeply") from None


def decode_editable(data: bytes) -> Any:
    """Like `decode`, for a document that will be edited and encoded: numbers that decoding would change are opaque."""
    try:
        return _decode_editable(data)
    except ValueError:
        decoder = json.JSONDecoder(parse_float=_keep_text, parse_int=_editable_integer, parse_constant=_refuse_constant)
        return _decode_permissively(data, decoder)
    except RecursionError:
        raise ValueError("the document nests too deeply") from None


def _decode_permissively(data: bytes, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(data.decode())
    except RecursionError:
        raise ValueError("the document nests too deeply") from None


def repeats_names(data: bytes, document: Any) -> bool:
    """Whether an object in `data` has a name twice, of which `document`, decoded from it, has only the last. Raises ValueError
    where it nests too deeply."""
    try:
        if not has_more_strings(data, document):
            return False
        repeated = False

        def note(pairs: list[tuple[str, Any]]) -> None:
            nonlocal repeated
            repeated = repeated or len({name for name, _ in pairs}) < len(pairs)

        json.JSONDecoder(object_pairs_hook=note, parse_int=len, parse_float=len).decode(data.decode())
    except RecursionError:
        raise ValueError("the document nests too deeply") from None
    return repeated


def has_more_strings(data: bytes, document: Any) -> bool:
    """Whether `data` may have strings that `document`, decoded from it, has not: it has more quotes than it needs. Never
    False where there are such."""
    return data.count(b'"') + data.count(b"\\u0022") > encode(document).count(b'"')


def encode(document: Any) -> bytes:
    """The document as compact JSON. Lone surrogates are written as escapes."""
    try:
        return _encode(document)
    except UnicodeEncodeError:
        return _encode_escaped(document)


def _encode_escaped(document: Any) -> bytes:
    if isinstance(document, str):
        return json.dumps(document).encode()
    if isinstance(document, Mapping):
        members = (_encode_escaped(key) + b":" + _encode_escaped(value) for key, value in document.items())
        return b"{" + b",".join(members) + b"}"
    if isinstance(document, list):
        return b"[" + b",".join(map(_encode_escaped, document)) + b"]"
    return _encode(document)


class Slot(NamedTuple):
    """A place in a document where a string stands: `holder[key]`, at `path` below where the search began."""

    holder: Any
    key: str | int
    path: Path

    @property
    def text(self) -> str:
        text: str = self.holder[self.key]
        return text

    def put(self, text: str) -> None:
        self.holder[self.key] = text


class ValueSlot(Slot):
    """A place where a value stands whose names and numbers say something too, like the arguments of a tool: its text is its
    JSON. A text that is none becomes a string."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return encode(self.holder[self.key]).decode()

    def put(self, text: str) -> None:
        value: Any = {}
        if text:
            try:
                value = decode_editable(text.encode())
            except ValueError:
                value = text
            exact = isinstance(value, dict | list) or (_says_something(value) and encode(value).decode() == text)
            was_scalar = not isinstance(self.holder[self.key], dict | list)  # its text is JSON as well: `"[CARD]"`
            if not (was_scalar and isinstance(value, str)) and not (exact and _says_something(value)):
                value = text
        self.holder[self.key] = value


def _says_something(value: Any) -> bool:
    """Whether a value that is no string is a text at the place of a `ValueSlot`."""
    if isinstance(value, dict | list):
        return bool(value)
    return isinstance(value, int | float | msgspec.Raw) and not isinstance(value, bool)


_MAY_HOLD = frozenset((str, dict, list))  # a string; an embedding has thousands of numbers


def string_slots(
    holder: Any, key: str | int, path: Path = (), is_value: Callable[[Path], bool] | None = None
) -> Iterator[Slot]:
    """Every non-empty string at or below `holder[key]`, in the order of the wire. Raises ValueError below `MAX_DEPTH`.

    `path` is the path of `holder[key]` itself. A slot just given may be written to. `is_value`: where something else than a
    string is one text as a whole (a `ValueSlot`).
    """
    ahead = [(holder, key, path)]
    while ahead:
        holder, key, path = ahead.pop()
        value = holder[key]
        if isinstance(value, str):
            if value:
                yield Slot(holder, key, path)
        elif is_value is not None and _says_something(value) and is_value(path):
            deque(string_slots(holder, key, path), 0)  # raises where it nests too deeply
            yield ValueSlot(holder, key, path)
        elif isinstance(value, dict | list) and value:
            if len(path) == MAX_DEPTH:
                raise ValueError("the document nests too deeply")
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            held = [
                (value, inner, (*path, inner)) for inner, it in inside if is_value is not None or type(it) in _MAY_HOLD
            ]
            ahead += reversed(held)


def token_ids(prompt: Any) -> int:
    """How many tokens a prompt has that is a list of their ids, or a list of such prompts."""
    items = prompt if isinstance(prompt, list) else ()
    return sum(type(id) is int for item in items for id in (item if isinstance(item, list) else (item,)))


_WORDS = frozenset(
    (
        "created", "created_at", "createTime", "done_reason", "event", "finishReason", "finish_reason", "id", "media_type",
        "mimeType", "mime_type", "model", "modelVersion", "name", "object", "role", "status", "stop_reason", "type",
    )
)  # fmt: skip
# More of them, of replies: what stands under these names, or under one that ends so, is no text that comes in pieces.
_LABELS = frozenset(
    (
        "agent", "author", "channel", "date", "digest", "encoding", "format", "kind", "namespace", "node", "provider",
        "service_tier", "system_fingerprint", "time", "timestamp", "tool", "version",
    )
)  # fmt: skip
_LABEL_ENDINGS = (
    "_at", "_date", "_mode", "_name", "_node", "_ns", "_path", "_reason", "_status", "_time", "_type", "_uri", "_url",
    "_version", "At", "Date", "Mode", "Name", "Node", "Path", "Reason", "Status", "Time", "Type", "Uri", "Url", "Version",
)  # fmt: skip
_LABEL_BEGINNINGS = ("langgraph_", "lc_", "ls_")  # what LangChain has beside each piece
# Below these names, and in `data` below the second, APIs have binary data. Long enough, it is not mistaken for anything.
_BINARY = frozenset(
    (
        "audio",
        "b64_json",
        "embedding",
        "encrypted_content",
        "encrypted_index",
        "file_data",
        "images",
        "partial_image_b64",
        "signature",
        "thoughtSignature",
        "thought_signature",
        "url",
    )
)
_BINARY_DATA = frozenset(("audio", "blob", "inlineData", "inline_data", "input_audio", "reasoning_details", "source"))
_LEAST_BASE64 = 64
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{{_LEAST_BASE64},}}={{0,2}}")
_DATA_URL = re.compile(
    r"data:(?:image|audio|video|font|application)/[a-z0-9.+-]{1,64}(?:;[a-z]{1,16}=[A-Za-z0-9.-]{1,32})*;base64,"
    r"[A-Za-z0-9+/_-]*={0,2}"
)
# Objects under these names hold what somebody said, and no schemas: names and numbers in them are said too.
_FILLED = frozenset(("args", "arguments", "input", "metadata", "response", "variables"))
# What lies below these names in a request is what somebody said or made up, whatever it is called there. Responses have
# `input` at the top, where the API's own words are below it.
_VALUES = frozenset(
    (
        "args",
        "arguments",
        "default",
        "enum",
        "example",
        "examples",
        "input",
        "metadata",
        "parameters",
        "properties",
        "response",
        "variables",
    )
)


def is_word(key: object) -> bool:
    """Whether what stands under this key is most likely one of the API's own words, a name or an identifier: something
    that is said in one piece, also where texts come piece by piece."""
    return key in _WORDS or (isinstance(key, str) and key.endswith(("_id", "Id")))


def is_label(key: str) -> bool:
    """Whether what stands under this key of a reply is such a word, or the like: it is short, and said in one piece."""
    return is_word(key) or key in _LABELS or key.endswith(_LABEL_ENDINGS) or key.startswith(_LABEL_BEGINNINGS)


def is_whole(path: Sequence[str | int]) -> bool:
    """Whether the string at `path` of a reply of unknown shape is whole in its event, also where texts come in pieces: a
    label, or data."""
    return is_label(key_at(path)) or _is_binary_place(path)


def is_value(path: Path) -> bool:
    """Whether the string at `path` of a request is in an object that people fill: no name there is the API's own."""
    return not _VALUES.isdisjoint(path[1:-1]) or (path[:1] != ("input",) and not _VALUES.isdisjoint(path[:1]))


def is_filled(path: Path) -> bool:
    """Whether what stands at `path` of a request is such an object as a whole."""
    return path[-1:] != () and path[-1] in _FILLED and path != ("input",)


def is_binary(text: str, path: Sequence[str | int]) -> bool:
    """Whether the string at `path` is data in base64 (an image, a sound, an embedding), which can be long: a data URL as a
    whole, or base64 where an API has nothing else."""
    if text.startswith("data:"):
        return _DATA_URL.fullmatch(text) is not None
    return len(text) >= _LEAST_BASE64 and _is_binary_place(path) and _BASE64.fullmatch(text) is not None


def _is_binary_place(path: Sequence[str | int]) -> bool:
    names = [part for part in path if isinstance(part, str) and not part.isdigit()]
    return names[-1:] != [] and (
        names[-1] in _BINARY or (names[-1] == "data" and not _BINARY_DATA.isdisjoint(names[-2:-1]))
    )


def texts_of(slots: Iterable[Slot]) -> list[str]:
    """The texts in their order; none where they nest too deeply."""
    try:
        return [slot.text for slot in slots]
    except ValueError:
        return []


def pointer(path: Path) -> str:
    """The JSON pointer of a path (RFC 6901 §3)."""
    return "".join(["/" + str(part).replace("~", "~0").replace("/", "~1") for part in path])


def key_at(path: Sequence[str | int]) -> str:
    """The name that what stands at `path` has: an item of a list has that of the list. "" where there is none."""
    return next((part for part in reversed(path) if isinstance(part, str) and not part.isdigit()), "")


def only(value: Any, path: Path, keep: Collection[str] = ("index", "type")) -> Any:
    """What leads to the text at `path`, without what stands beside it but for what has a name to `keep`."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(value, list):
        return [only(value[int(key)], rest, keep)]
    return {name: value[name] for name in keep if name in value} | {key: only(value[key], rest, keep)}


def is_blank(value: Any, aside: Collection[str] = ("index",)) -> bool:
    """Whether there is nothing in a value, but in the members of the names that are set `aside`."""
    if isinstance(value, dict):
        return all(name in aside or is_blank(inner, aside) for name, inner in value.items())
    if isinstance(value, list):
        return all(is_blank(inner, aside) for inner in value)
    return value is None or value == ""
