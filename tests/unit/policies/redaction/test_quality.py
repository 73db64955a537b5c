"""How well the default entities find what is labelled, and how much they touch where there is nothing.

`pytest -s tests/unit/policies/redaction/test_quality.py` prints the figures, entity by entity.
"""

from __future__ import annotations

from collections import Counter

import pytest
from rigs import redaction_blind as blind
from rigs import redaction_cases as cases

from policies.redaction.entities import entities
from policies.redaction.json_text import TextRedactor
from policies.redaction.scanner import Scanner

REGIONS = ("US", "CA", "GB", "IE", "DE", "FR", "ES", "IT", "IN", "TR", "PH", "BR")
PHONE_RECALL, OTHER_RECALL, CLEAN_TOUCHED = 0.8, 0.97, 0.015


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner(entities(REGIONS))


_PART = 4


def redact(scanner: Scanner, text: str) -> str:
    """What leaves of `text`, which is read as a model's answer is."""
    redactor = TextRedactor(scanner, lambda entity, found: "\N{BLACK SQUARE}")
    return redactor.feed(text) + redactor.finish()


def leaks(case: cases.Case, left: str) -> bool:
    """Whether anything of the secret stands in what is `left`."""
    around = case.text[: case.start] + "\0" + case.text[case.end :]
    size = min(_PART, len(case.secret))
    parts = {case.secret[at : at + size] for at in range(len(case.secret) - size + 1)}
    return left == case.text or any(part in left and part not in around for part in parts)


def test_enough_is_labelled() -> None:
    assert len(cases.positives()) >= 400
    assert len(cases.clean()) >= 300


def test_secrets_are_found_whole(scanner: Scanner) -> None:
    labelled: Counter[str] = Counter()
    found: Counter[str] = Counter()
    missed = []
    for case in cases.positives():
        labelled[case.entity] += 1
        if leaks(case, redact(scanner, case.text)):
            missed.append(case)
        else:
            found[case.entity] += 1
    for entity, count in sorted(labelled.items()):
        print(f"{entity:20} {found[entity]:4} of {count:4}  recall {found[entity] / count:.3f}")
    others = labelled.total() - labelled["PHONE"]
    assert found["PHONE"] >= PHONE_RECALL * labelled["PHONE"], missed
    assert found.total() - found["PHONE"] >= OTHER_RECALL * others, missed
    assert all(found[entity] >= 0.9 * count for entity, count in labelled.items() if entity != "PHONE"), missed


NUMBERS = (
    *("4111 1111 1111 1111", "5500005555555559", "4111-1111-1111-1111", "3782 822463 10005"),
    *("536-22-1234", "GB82 WEST 1234 5698 7654 32", "192.168.10.20", "2001:db8:85a3::8a2e:370:7334"),
    *("+1 415 555 2671", "(415) 555-2671", "415-555-2671", "ann@example.com"),
)
BEFORE = (
    *("1 ", "12 ", "2024 ", "item 7 ", "order no. ", "order: ", "invoice: ", "in case ", "ref ", "serial ", "part "),
    *("on 2024-01-01 ", "at 12:30 ", "room 12 ", "pi 3.14 ", "version ", "$ 20 ", "5500 0055 5555 5559 ", "10.0.0.1 "),
)
AFTER = (
    " 1",
    " 12/27",
    " 12/27 123",
    " 123",
    " 2024-01-01",
    ", 12",
    " 5500 0055 5555 5559",
    " 10.0.0.1",
    " - 12/27",
    "\n3 items",
)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_stands_beside_a_number_does_not_hide_it(scanner: Scanner, number: str) -> None:
    for before in ("", *BEFORE):
        for after in ("", *AFTER):
            assert number not in redact(scanner, before + number + after)


def test_clean_texts_stay_as_they_are(scanner: Scanner) -> None:
    texts = cases.clean()
    touched = [text for text in texts if redact(scanner, text) != text]
    print(f"clean texts touched: {len(touched)} of {len(texts)}")
    assert len(touched) <= CLEAN_TOUCHED * len(texts), touched


def test_national_phones_touch_no_clean_text(scanner: Scanner) -> None:
    counted: list[str] = []

    for text in cases.clean():
        scanner.redact(text, lambda entity, found: counted.append(entity.name) or "")
    assert "PHONE" not in counted


def test_a_set_that_was_written_blind(scanner: Scanner) -> None:
    labelled: Counter[str] = Counter()
    found: Counter[str] = Counter()
    clean, touched = 0, 0
    for entity, text, match in blind.cases():
        left = redact(scanner, text)
        if entity is None:
            clean += 1
            touched += left != text
        else:
            labelled[entity] += 1
            found[entity] += match not in left
    for entity, count in sorted(labelled.items()):
        print(f"{entity:20} {found[entity]:4} of {count:4}")
    print(f"clean texts touched: {touched} of {clean}")
    others = labelled.total() - labelled[blind.PHONE]
    assert (others, clean) == (569, 302)
    assert found[blind.PHONE] >= PHONE_RECALL * labelled[blind.PHONE]
    assert found.total() - found[blind.PHONE] >= OTHER_RECALL * others
    assert touched <= CLEAN_TOUCHED * clean
