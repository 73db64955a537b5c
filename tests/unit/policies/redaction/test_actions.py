"""What is written for a match."""

from __future__ import annotations

import re

import pytest

from policies.redaction.actions import PSEUDONYM, Actions, Mask, StopRequested, mask, pseudonym
from policies.redaction.entity import Entity
from policies.redaction.scanner import Scanner
from proxy.secrets import Secret

CARD = Entity("CARD", r"\d{16}")
KEY = Entity("KEY", "sk-", swallow=r"\w*")
SECRET = Secret("env:KEY", "k3y")


@pytest.mark.parametrize(
    ("text", "keep", "expected"),
    [
        ("4111 1111-1111 1234", 4, "**** ****-**** 1234"),
        ("4111111111111234", 0, "****************"),
        ("1234", 4, "**34"),
        ("ann@example.com", 3, "***@*******.com"),
        ("é1", 5, "*1"),
        ("a", 4, "*"),
        ("@", 4, "@"),
    ],
)
def test_a_mask_keeps_the_end_and_never_more_than_half(text: str, keep: int, expected: str) -> None:
    assert mask(text, keep) == expected


def test_a_placeholder_names_the_entity() -> None:
    assert Actions("placeholder", {}, "<{entity} {x}>", None).write(CARD, "4") == "<CARD {x}>"


def test_each_entity_may_have_its_own() -> None:
    actions = Actions("placeholder", {"CARD": Mask(mask=4)}, "[{entity}]", None)
    assert actions.write(CARD, "4111111111111234") == "************1234"
    assert actions.write(KEY, "sk-") == "[KEY]"


def test_stop_says_what_was_found_and_not_the_text() -> None:
    with pytest.raises(StopRequested) as caught:
        Actions("stop", {}, "", None).write(KEY, "sk-")
    assert str(caught.value) == "KEY"


@pytest.mark.parametrize("default", [Mask(mask=4), "pseudonym"])
def test_what_is_replaced_before_it_has_ended_has_a_placeholder(default: Mask) -> None:
    assert Actions(default, {}, "[{entity}]", SECRET).write(KEY, "sk-") == "[KEY]"


def test_a_pseudonym_is_stable_and_depends_on_key_name_and_text() -> None:
    one = pseudonym(b"key", "MAIL", "ann@example.com")
    assert one == pseudonym(b"key", "MAIL", "ann@example.com")
    assert re.fullmatch("MAIL_[a-p]{12}", one)
    others = [
        pseudonym(b"k", "MAIL", "ann@example.com"),
        pseudonym(b"key", "MAIL", "bob"),
        pseudonym(b"key", "MAI", "Lann"),
    ]
    assert len({one, *others}) == 4
    assert pseudonym(b"key", "MAIL", "\ud83d")


def test_pseudonyms_are_noted() -> None:
    noted: dict[str, str] = {}
    actions = Actions("pseudonym", {}, "", SECRET)
    written = actions.write(CARD, "4111111111111234", noted)
    assert noted == {written: "4111111111111234"}
    assert actions.write(CARD, "4111111111111234") == written


def test_a_pseudonym_is_found_again() -> None:
    written = pseudonym(b"key", "US_SSN", "x")
    found: list[str] = []

    def note(entity: Entity, text: str) -> str:
        found.append(text)
        return ""

    assert Scanner([PSEUDONYM]).redact(f"a {written}, {written}s {written}", note) == f"a , {written}s "
    assert found == [written, written]


def test_also_escaped_as_in_markdown_and_behind_another() -> None:
    written = pseudonym(b"key", "US_SSN", "x")
    escaped = written.replace("_", r"\_")
    scanner = Scanner([PSEUDONYM])
    assert scanner.redact(f"{escaped} {written}{written} _{written}_", lambda entity, text: "<>") == "<> <><> _<>_"
    assert scanner.redact(f"{written}2 {written}s", lambda entity, text: "<>") == f"{written}2 {written}s"
