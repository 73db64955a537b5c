"""JSON is decoded strictly, edited and encoded so that what nobody touched stays."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.dialects.documents import (
    MAX_DEPTH,
    ValueSlot,
    decode,
    decode_editable,
    encode,
    is_binary,
    is_blank,
    is_filled,
    is_value,
    is_whole,
    is_word,
    key_at,
    only,
    pointer,
    repeats_names,
    string_slots,
    texts_of,
)


@pytest.mark.parametrize(
    ("data", "document"),
    [
        (b'{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        (b' "caf\\u00e9 \xf0\x9f\x98\x80" ', "café 😀"),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'"\\ud83d"', "\ud83d"),
        (b'{"\\ud83d": 1}', {"\ud83d": 1}),
        (b"1e400", float("inf")),
        (b"9" * 5000, float("inf")),
    ],
)
def test_decode(data: bytes, document: Any) -> None:
    assert decode(data) == document


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"{", b"[1,]", b"{'a': 1}", b"NaN", b"-Infinity", b"01", b'"\x01"', b"[DONE]", b"1 2",
        b'"\xff"', b'"\xed\xa0\xbd"', b"\xef\xbb\xbf1", '"a"'.encode("utf-16"), b"[" * 100_000 + b"]" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the message is the library's
        decode(data)
    with pytest.raises(ValueError):  # noqa: PT011
        decode_editable(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"z":1,"a":[1.10,1E5,-0.0,1e400,0.1234567890123456789],"m":{"n":null,"o":[true,false,{}]}}',
        b'{"big":123456789012345678901234567890123456789012345678901234567890,"small":-9223372036854775809}',
        b"[" + b"9" * 5000 + b"]",
        b'["\\ud83d",1.10,' + b"9" * 5000 + b',{"\\ude00":[]},null,true,1]',
        '["ünïcödé 😀"]'.encode(),
        b'["\\u0000\\n\\"\\\\"]',
    ],
)
def test_what_is_not_edited_is_encoded_as_it_was(data: bytes) -> None:
    assert encode(decode_editable(data)) == data


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        (b'{ "a" : 1 }', b'{"a":1}'),
        (b'"\\u00e9\\/"', '"é/"'.encode()),
        (b'{"a":1,"b":2,"a":3}', b'{"a":3,"b":2}'),
        (b"-0", b"0"),
    ],
)
def test_what_editing_loses(data: bytes, encoded: bytes) -> None:
    assert encode(decode_editable(data)) == encoded


def test_an_edited_document_can_hold_a_lone_surrogate() -> None:
    document = decode_editable(b'{"a":"x","n":1.50}')
    document["a"] = "\ud83d"
    assert encode(document) == b'{"a":"\\ud83d","n":1.50}'


def test_every_string_is_found_in_the_order_of_the_wire() -> None:
    document = msgspec.json.decode(b'{"b":"1","a":["2",{"x":"3","y":["4"]},"",5,null],"c":"6"}')
    slots = list(string_slots([document], 0))
    assert [slot.text for slot in slots] == ["1", "2", "3", "4", "6"]
    assert [pointer(slot.path) for slot in slots] == ["/b", "/a/0", "/a/1/x", "/a/1/y/0", "/c"]


def test_a_slot_is_written_where_it_was_found() -> None:
    root = [{"a": ["x", {"b": "y"}]}]
    for slot in string_slots(root, 0):
        slot.put(slot.text.upper())
    assert root == [{"a": ["X", {"b": "Y"}]}]


def test_a_string_that_is_the_document() -> None:
    root = ["x"]
    (slot,) = string_slots(root, 0)
    assert slot.path == ()
    slot.put("y")
    assert root == ["y"]


def test_texts_that_nest_too_deeply_are_refused() -> None:
    def nested(depth: int) -> Any:
        return decode(b"[" * depth + b'"x"' + b"]" * depth)

    assert len(list(string_slots([nested(MAX_DEPTH)], 0))) == 1
    with pytest.raises(ValueError, match="deeply"):
        list(string_slots([nested(MAX_DEPTH + 1)], 0))


def test_pointer() -> None:
    assert pointer(()) == ""
    assert pointer(("a/b", 0, "m~n", "")) == "/a~1b/0/m~0n/"


@pytest.mark.parametrize(
    ("key", "word"), [("type", True), ("call_id", True), ("responseId", True), ("text", False), (0, False)]
)
def test_words_of_an_api(key: object, word: bool) -> None:
    assert is_word(key) is word


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        (("id",), True), (("event_type",), True), (("toolCallId",), True), (("finishReason",), True), (("digest",), True),
        (("b64_json",), True), (("audio", "data"), True), (("images", 0), True), (("a", "format"), True),
        (("langgraph_node",), True), (("createdAt",), True), (("meta", "timestamp"), True), (("format_at_all",), False),
        (("delta",), False), (("data",), False), (("text", 0), False), ((), False),
    ],
)  # fmt: skip
def test_what_never_comes_in_pieces(path: tuple[str | int, ...], whole: bool) -> None:
    assert is_whole(path) is whole


@pytest.mark.parametrize(
    ("text", "binary"),
    [
        ("data:image/png;base64,AAAA", True), ("data:audio/ogg;codecs=opus;base64,AA==", True),
        ("data:;base64,x my mail is ann@example.com", False), ("data:image/png;base64,AAAA ann", False),
        ("data:text/plain;base64,AAAA", False), ("data: x", False),
        ("A" * 64, True), ("+/_-" * 200 + "==", True), ("A" * 63, False), ("A" * 512 + " b", False),
        ("A" * 600 + "\n", False), ("ann@example.com " * 100, False),
    ],
)  # fmt: skip
def test_data_in_base64(text: str, binary: bool) -> None:
    assert is_binary(text, ("content", 0, "image_url", "url")) is binary


@pytest.mark.parametrize(
    ("path", "binary"),
    [
        (("data", 0, "embedding"), True), (("data", 0, "b64_json"), True), (("images", 0), True), (("images", "0"), True),
        (("content", 0, "source", "data"), True), (("input_audio", "data"), True), (("data",), False), ((), False),
        (("content",), False), (("note", "data"), False),
    ],
)  # fmt: skip
def test_where_data_stands(path: tuple[str | int, ...], binary: bool) -> None:
    assert is_binary("A" * 600, path) is binary


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("messages", 0, "content", 0, "input", "type"), True), (("metadata", "user_id"), True), (("type",), False),
        (("input", 0, "type"), False), (("input", 0, "arguments", "id"), True), (("prompt", "id"), False),
        (("prompt", "variables", "name"), True), (("tools", 0, "type"), False), (("input",), False),
    ],
)  # fmt: skip
def test_objects_that_people_fill(path: tuple[str | int, ...], value: bool) -> None:
    assert is_value(path) is value


def test_the_texts_of_slots() -> None:
    assert texts_of(string_slots([{"a": ["b", ""], "c": "d"}], 0)) == ["b", "d"]
    deep: Any = "x"
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    assert texts_of(string_slots([["y", deep]], 0)) == []


def test_only_what_leads_to_a_text() -> None:
    """Lists keep one item of theirs, so numbers of items have to stand in them."""
    document = {"a": [{"x": 1}, {"index": 1, "type": "t", "x": 1, "b": "text"}], "index": 0, "x": 1}
    assert only(document, ("a", 1, "b")) == {"index": 0, "a": [{"index": 1, "type": "t", "b": "text"}]}
    assert only(document, ("a", 1, "b"), ("x",)) == {"x": 1, "a": [{"x": 1, "b": "text"}]}


@pytest.mark.parametrize("value", [None, "", [], {}, [None, {"a": ""}], {"index": 7, "a": [{"index": 1}]}])
def test_what_is_blank(value: Any) -> None:
    assert is_blank(value)


@pytest.mark.parametrize("value", [False, 0, "a", [0], {"a": {"b": False}}])
def test_what_is_not_blank(value: Any) -> None:
    assert not is_blank(value)
    assert is_blank({"aside": value}, ("aside",))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":[1,"b"]}', {"a": [1, "b"]}),
        ("[4]", [4]),
        ("4", 4),
        ("", {}),
        ("[CARD]", "[CARD]"),
        ("true", "true"),
        ("null", "null"),
        ('"a"', '"a"'),
        ("{}", "{}"),
        ("04", "04"),
    ],
)
def test_a_value_whose_text_is_its_json(text: str, value: object) -> None:
    holder = {"args": {"n": 1}}
    (slot,) = string_slots([holder], 0, (), lambda path: path == ("args",))
    assert isinstance(slot, ValueSlot)
    assert slot.text == '{"n":1}'
    slot.put(text)
    assert holder["args"] == value
    assert [again.text for again in string_slots([holder], 0, (), lambda path: path == ("args",))] == [text] * bool(
        text
    )


@pytest.mark.parametrize("value", [None, True, False, {}, [], ""])
def test_a_value_that_says_nothing_is_no_text(value: object) -> None:
    assert not list(string_slots([value], 0, (), lambda path: True))


def test_a_value_that_nests_too_deeply() -> None:
    deep: object = "x"
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(ValueError, match="deeply"):
        list(string_slots([deep], 0, (), lambda path: True))


@pytest.mark.parametrize(
    ("path", "filled"),
    [
        ((), False), (("input",), False), (("metadata",), True), (("input", 0, "input"), True), (("messages", 0), False),
        (("tools", 0, "parameters"), False),
    ],
)  # fmt: skip
def test_objects_that_are_read_as_a_whole(path: tuple[str | int, ...], filled: bool) -> None:
    assert is_filled(path) == filled


@pytest.mark.parametrize(
    ("path", "key"), [((), ""), ((0,), ""), (("a", "b"), "b"), (("a", 0, 1), "a"), (("a", "0"), "a")]
)
def test_the_name_that_something_stands_under(path: tuple[str | int, ...], key: str) -> None:
    assert key_at(path) == key


@pytest.mark.parametrize(
    ("data", "repeated"),
    [
        (b'{"a":1,"a":2}', True),
        (b'[{"a":{"b":1,"\\u0062":2}}]', True),
        (b'{"a":"x","a":"\\u0022\\u0022\\u0022\\u0022"}', True),
        (b'{"a":1.50,"b":{"a":1}}', False),
        (b'{"a":"\\\\u0022"}', False),
    ],
)
def test_names_that_an_object_repeats(data: bytes, repeated: bool) -> None:
    assert repeats_names(data, decode_editable(data)) == repeated
