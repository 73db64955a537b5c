"""Text that may be JSON: strings and numbers one by one, everything else as it was."""

from __future__ import annotations

import json

import pytest

from policies.redaction.entity import Entity
from policies.redaction.json_text import TextRedactor
from policies.redaction.scanner import Scanner

SCANNER = Scanner(
    [
        Entity("EMAIL", r"[a-z0-9.]{1,20}@[a-z0-9]{1,10}\.com", before=r"[\w.]"),
        Entity("CARD", r"\d{16}", before=r"\d", after=r"\d"),
        Entity("LINES", r"BEGIN\n[a-z]{3}\nEND"),
        Entity("SMILE", "😀x"),
        Entity("KEY", r"sk-\d{4}", swallow=r"\d*"),
        Entity("QUOTED", '"q"!a', context=lambda text: 1),
        Entity("SSN", r'ssn(?:": "|": \'|: ?)\d{9}', after=r"\d", context=lambda text: len(text) - 9),
    ]
)


def placeholder(entity: Entity, text: str) -> str:
    return f"[{entity.name}]"


def quoting(entity: Entity, text: str) -> str:
    return '"\\\n'


def redact(text: str, pieces: int, *, arguments: bool = False, replace=placeholder) -> str:
    """`text` through a redactor, so many characters at a time."""
    redactor = TextRedactor(SCANNER, replace, arguments=arguments)
    parts = [redactor.feed(text[at : at + pieces]) for at in range(0, len(text), pieces)]
    return "".join([*parts, redactor.finish()])


CASES = [
    ("write to john@x.com now", "write to [EMAIL] now"),
    ("", ""),
    ("  \n", "  \n"),
    ('{"a": "john@x.com", "b": [1, "k@x.com"]}', '{"a": "[EMAIL]", "b": [1, "[EMAIL]"]}'),
    ('{"john@x.com": {}}', '{"[EMAIL]": {}}'),
    (r'{"a": "john\u0040x\u002ecom"}', '{"a": "[EMAIL]"}'),
    (r'{"a": "\u0041\n\/ é\u00e9"}', r'{"a": "\u0041\n\/ é\u00e9"}'),
    (r'{"a": "x\njohn@x.com\t"}', r'{"a": "x\n[EMAIL]\t"}'),
    (r'{"a": "BEGIN\nabc\nEND"}', '{"a": "[LINES]"}'),
    (r'{"a": "\ud83d\ude00x", "b": "\ud83d\ude00y"}', r'{"a": "[SMILE]", "b": "\ud83d\ude00y"}'),
    (r'{"a": "\ud83d", "b": "\ud83d\ud83d\ude00x\ude00"}', r'{"a": "\ud83d", "b": "\ud83d[SMILE]\ude00"}'),
    ('{"a": 4111111111111111}', '{"a": "[CARD]"}'),
    ("[-4111111111111111 ,1.50e+3, true,false , null]", '["-[CARD]" ,1.50e+3, true,false , null]'),
    ('{"a": "john@x", "b": ".com"}', '{"a": "john@x", "b": ".com"}'),
    ('["sk-12345678", "9"]', '["[KEY]", "9"]'),
    ('{} {"a": "john@x.com"}\n[]', '{} {"a": "[EMAIL]"}\n[]'),
    # a value stands behind its key
    ('{"ssn": "123456789", "x": "123456789"}', '{"ssn": "[SSN]", "x": "123456789"}'),
    ('{"a": {"ssn" :\n123456789}, "b": 123456789}', '{"a": {"ssn" :\n"[SSN]"}, "b": 123456789}'),
    ('{"ssn": ["123456789", {"a": "123456789"}, 123456789]}', '{"ssn": ["[SSN]", {"a": "123456789"}, "[SSN]"]}'),
    (r'{"\u0073sn": "12345678\u0039"}', r'{"\u0073sn": "[SSN]"}'),
    ('{"' + "x" * 70 + 'ssn": "123456789"}', '{"' + "x" * 70 + 'ssn": "[SSN]"}'),
    ('{"john@x.com": "a", "ssn": "1234567890"}', '{"[EMAIL]": "a", "ssn": "1234567890"}'),
    ('{"ssn": 123456789 x}', '{"ssn": [SSN] x}'),
    # not JSON, from somewhere on
    ("[true@x.com, null@x.com]", "[[EMAIL], [EMAIL]]"),
    ("[null@x.com]", "[[EMAIL]]"),
    ("[true ", "[true "),
    ("[john@x.com](mailto:john@x.com)", "[[EMAIL]](mailto:[EMAIL])"),
    ("{'a': 'john@x.com'}", "{'a': '[EMAIL]'}"),
    ('{"a": True, "b": "john@x.com"}', '{"a": True, "b": "[EMAIL]"}'),
    ('{"a" "john@x.com"}', '{"a" "[EMAIL]"}'),
    ('{"a": 1 john@x.com}', '{"a": 1 [EMAIL]}'),
    ("[411111111 1111111]", "[411111111 1111111]"),
    ("[4111@x.com]", "[[EMAIL]]"),
    ("[4111111111111111 x]", "[[CARD] x]"),
    (r'{"a": "john\@x.com and k@x.com"}', r'{"a": "john\@x.com and [EMAIL]"}'),
    ('{"a": "john@x.com\n"}', '{"a": "[EMAIL]\n"}'),
    ("[1] 4111111111111111", "[1] [CARD]"),
    ("[01, 1.]", "[01, 1.]"),
    ("[truely@x.com]", "[[EMAIL]]"),
    ("[n", "[n"),
    # a string that was none: what follows its quote says so
    ('["q"!a, "b"]', '["[QUOTED], "b"]'),
    ('["x", "q" , "q"!a]', '["x", "q" , "[QUOTED]]'),
    ('{"q"!a: 1}', '{"[QUOTED]: 1}'),
    ('{"q": "q"!a}', '{"q": "[QUOTED]}'),
    ('["BEGIN\\nabc\\n" "END"]', '["BEGIN\\nabc\\n" "END"]'),
    ('["sk-1234" 567, "k"]', '["[KEY]" 567, "k"]'),
    ("{\"ssn\": '123456789'}", "{\"ssn\": '[SSN]'}"),
    ('["q" : "john@x.com"]', '["q" : "[EMAIL]"]'),
    ('["q"' + " " * 1200 + ', "john@x.com"]', '["q"' + " " * 1200 + ', "[EMAIL]"]'),
    # cut off
    ('["q"', '["q"'),
    ('{"q" ', '{"q" '),
    ('{"a": "john@x.com', '{"a": "[EMAIL]'),
    ('{"a": "john', '{"a": "john'),
    (r'{"a": "jo\u00', r'{"a": "jo\u00'),
    ('{"a": 4111111111111111', '{"a": "[CARD]"'),
    ("[12 ", "[12 "),
    ("[tru", "[tru"),
    ('{"a": "\\ud83d', '{"a": "\\ud83d'),
]


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize(("text", "expected"), CASES)
def test_texts(text: str, expected: str, pieces: int) -> None:
    assert redact(text, pieces) == expected
    assert redact(text, pieces, arguments=True) == expected


@pytest.mark.parametrize("pieces", [1, 1000])
def test_only_arguments_may_be_a_string(pieces: int) -> None:
    text = r'"john\u0040x.com"'
    assert redact(text, pieces, arguments=True) == '"[EMAIL]"'
    assert redact(text, pieces) == text


@pytest.mark.parametrize("pieces", [1, 1000])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123456789", "[SSN]"),
        ("123456789.", "[SSN]."),
        ('["123456789"]', '["[SSN]"]'),
        ('{"a": "123456789"}', '{"a": "123456789"}'),
    ],
)
def test_a_text_may_be_the_value_of_a_key(text: str, expected: str, pieces: int) -> None:
    redactor = TextRedactor(SCANNER, placeholder, key="ssn")
    parts = [redactor.feed(text[at : at + pieces]) for at in range(0, len(text), pieces)]
    assert "".join([*parts, redactor.finish()]) == expected


@pytest.mark.parametrize("pieces", [1, 1000])
def test_a_replacement_is_escaped_in_json_and_nowhere_else(pieces: int) -> None:
    assert redact('["john@x.com", 4111111111111111]', pieces, replace=quoting) == r'["\"\\\n", "\"\\\n"]'
    assert redact("john@x.com", pieces, replace=quoting) == '"\\\n'


@pytest.mark.parametrize("pieces", [7, 10_000])
@pytest.mark.parametrize("text", ["[" * 3000 + "]" * 3000, "[" + "1" * 3000 + "]", "[1" + " " * 3000 + "]"])
def test_what_is_longer_than_what_waits_is_let_go_unchanged(text: str, pieces: int) -> None:
    assert redact(text, pieces) == text


def test_a_number_waits_until_it_has_ended() -> None:
    redactor = TextRedactor(SCANNER, placeholder)
    assert redactor.feed("[41") == "["
    assert redactor.feed("11 ") == ""
    assert redactor.feed(",") == "4111 ,"


def test_nothing_waits_that_cannot_become_a_match() -> None:
    redactor = TextRedactor(SCANNER, placeholder)
    assert redactor.feed('{"A": "Hm? ') == '{"A": "Hm? '
    assert redactor.feed('jo"}') == 'jo"}'


def test_valid_json_stays_valid() -> None:
    document = {"mail": "john@x.com\nBEGIN\nabc\nEND", "cards": [4111111111111111, -1, None], "k@x.com": "\"'"}
    redacted = json.loads(redact(json.dumps(document), 1, arguments=True))
    assert redacted == {"mail": "[EMAIL]\n[LINES]", "cards": ["[CARD]", -1, None], "[EMAIL]": "\"'"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111111111111111", '"[CARD]"'),
        (" 4111111111111111 \n", ' "[CARD]" \n'),
        ("-12.5e3", "-12.5e3"),
        ("12 apples", "12 apples"),
        ("4111111111111111 john@x.com", "[CARD] [EMAIL]"),
        ("4111111111111111-", "[CARD]-"),
        ("1, 2", "1, 2"),
    ],
)
def test_arguments_may_be_a_number(text: str, expected: str) -> None:
    for pieces in (1, 3, 8, len(text)):
        assert redact(text, pieces, arguments=True) == expected
