"""The two ways through a redactor, and the interface: feed and finish, scan and end."""

from __future__ import annotations

import pytest

from policies.redaction.entities import entities
from policies.redaction.entity import BudgetExceeded, Entity, PatternError
from policies.redaction.scanner import STRIDE, Scanner

MAIL = Entity("MAIL", r"[a-z.]{1,20}@[a-z]{1,20}\.com", before=r"[\w.]", after=r"\w")


def marked(entity: Entity, text: str) -> str:
    return f"[{entity.name}]"


def test_feed_gives_what_may_go_and_holds_the_rest() -> None:
    redactor = Scanner([MAIL]).redactor(marked)
    transcript = [
        (redactor.feed(delta), redactor.held) for delta in ["Write ", "to a", ".b@", "x.com", " now", "", ","]
    ]
    assert transcript == [("Write ", 0), ("to ", 1), ("", 4), ("", 9), ("[MAIL] ", 3), ("", 3), ("now,", 0)]
    assert redactor.finish() == ""


def test_finish_gives_what_was_still_held_decided() -> None:
    scanner = Scanner([MAIL])
    for text, expected in [("a@b.com", "[MAIL]"), ("a@b.co", "a@b.co"), ("", ""), ("x, ", "x, ")]:
        redactor = scanner.redactor(marked)
        assert redactor.feed(text) + redactor.finish() == expected
        assert redactor.held == 0


def test_scan_and_end_speak_of_the_same_characters() -> None:
    redactor = Scanner([MAIL]).redactor(marked)
    assert redactor.scan("to a.b") == [(3, None)]
    assert redactor.scan("@x.com") == []
    assert redactor.scan(".") == [(9, "[MAIL]"), (1, None)]
    assert redactor.scan("!") == [(1, None)]
    assert redactor.scan("") == []
    assert redactor.scan("a") == []
    assert redactor.end() == [(1, None)]


def test_a_long_text_is_walked_in_strides_without_a_seam() -> None:
    scanner = Scanner([MAIL])
    for lead in range(STRIDE - 12, STRIDE + 2):
        text = " " * lead + "a.b@x.com" + " " * 3 * STRIDE + "c@d.com"
        assert scanner.redact(text, marked) == " " * lead + "[MAIL]" + " " * 3 * STRIDE + "[MAIL]"


def test_a_long_text_behind_a_context_is_walked_without_a_seam_too() -> None:
    scanner = Scanner([MAIL])
    for lead in range(STRIDE - 12, STRIDE + 2):
        text = " " * lead + "a.b@x.com" + " " * 3 * STRIDE + "c@d.com"
        redacted = " " * lead + "[MAIL]" + " " * 3 * STRIDE + "[MAIL]"
        assert scanner.redact(text, marked, '"') == redacted
        redactor = scanner.redactor(marked, '"')
        assert redactor.feed(text[:300]) + redactor.feed(text[300:]) + redactor.finish() == redacted


def test_channels_share_the_automaton_and_nothing_else() -> None:
    scanner = Scanner([MAIL])
    one, two = scanner.redactor(marked), scanner.redactor(marked)
    assert one.feed("a@x") + two.feed("b@y") == ""
    assert one.feed(".com ") == "[MAIL] "
    assert two.feed(" ") == "b@y "


def test_many_cheap_feeds_do_not_use_up_an_allowance() -> None:
    scanner = Scanner([MAIL])
    redactor = scanner.redactor(marked)
    sent = ""
    for number in range(3):
        scanner.automaton.allowance = 0  # what others have left
        sent += redactor.feed(f"{chr(ord('a') + number)}@x.com ")
    assert sent == "[MAIL] [MAIL] [MAIL] "


def test_what_others_left_does_not_count_at_the_end_of_a_text_either() -> None:
    scanner = Scanner([MAIL])
    redactor = scanner.redactor(marked)
    redactor.feed("a@x.com")
    scanner.automaton.allowance = 0
    assert redactor.finish() == "[MAIL]"


NAMED = Entity("NAMED", r"key\W{1,4}\d{3,5}", context=lambda text: text.index('"') + 4, after=r"\d")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123", "[NAMED]"),
        ("123 123", "[NAMED] 123"),
        ("12 345", "12 345"),
        ("x123", "x123"),
        ("123456", "123456"),
        ("", ""),
        ("a@x.com", "[MAIL]"),
    ],
)
def test_a_context_gives_a_text_its_meaning_and_is_not_written(text: str, expected: str) -> None:
    scanner = Scanner([NAMED, MAIL])
    for context in ('key": "', 'k@x.com key": "', '\uff4bey\u200b": "'):
        assert scanner.redact(text, marked, context) == expected
        redactor = scanner.redactor(marked, context)
        assert "".join(map(redactor.feed, text)) + redactor.finish() == expected
        assert redactor.held == 0


def test_a_match_that_would_replace_something_of_the_context_is_none() -> None:
    scanner = Scanner([Entity("ONE", "ab"), Entity("TWO", "c", before="x"), Entity("KEY", "yy", swallow="y*")])
    assert scanner.redact("bab", marked, "a") == "b[ONE]"
    assert scanner.redact("cc", marked, "x") == "c[TWO]"
    assert scanner.redact("yyyz", marked, "y") == "[KEY]z"


def test_of_a_context_nothing_counts_as_held() -> None:
    redactor = Scanner([NAMED, MAIL]).redactor(marked, 'key": "')
    assert redactor.held == 0
    assert redactor.feed("12") == ""
    assert redactor.held == 2
    assert redactor.feed("x") == "12x"


def test_a_text_that_costs_more_than_its_bound_is_refused() -> None:
    scanner = Scanner([Entity("COSTLY", "(?:[ab]{0,200}a[ab]{14})c")])
    text = "".join("ab"[int(bit)] for number in range(1 << 9, 1 << 10) for bit in bin(number)[2:])
    with pytest.raises(BudgetExceeded):
        scanner.redact(text, marked)


def test_no_entities_find_nothing() -> None:
    assert Scanner([]).redact("a@x.com 4111 1111 1111 1111", marked) == "a@x.com 4111 1111 1111 1111"


def test_the_width_bounds_what_is_held() -> None:
    scanner = Scanner([Entity("ONE", "a{1,30}b")])
    redactor = scanner.redactor(marked)
    for _ in range(100):
        redactor.feed("a")
        assert redactor.held <= scanner.width == 31


def test_entities_that_cannot_be_compiled_are_refused() -> None:
    with pytest.raises(PatternError, match=r"^ONE: "):
        Scanner([Entity("ONE", "a*")])


def test_what_is_warm_is_hardly_built_again() -> None:
    scanner = Scanner(entities())
    scanner.warm()
    built = scanner.automaton._entries
    scanner.redact("This is what most people would say about it, and they would be right.", marked)
    assert scanner.automaton._entries - built < 20
