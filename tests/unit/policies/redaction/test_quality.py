"""How well the default entities find what is labelled, and how much they touch where there is nothing.

`pytest -s tests/unit/policies/redaction/test_quality.py` prints the figures, entity by entity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from rigs import redaction_cases as cases

from policies.redaction.entities import entities
from policies.redaction.scanner import Scanner

REGIONS = ("US", "CA", "GB", "IE", "DE", "FR", "ES", "IT", "IN", "TR", "PH", "BR")
PHONE_RECALL, OTHER_RECALL, CLEAN_TOUCHED = 0.8, 0.97, 0.015


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner(entities(REGIONS))


def replaced(scanner: Scanner, text: str) -> Iterator[int]:
    """The characters of `text` that do not leave."""
    redactor = scanner.redactor(lambda entity, found: "")
    position = 0
    for consumed, replacement in redactor.scan(text) + redactor.end():
        if replacement is not None:
            yield from range(position, position + consumed)
        position += consumed


def test_enough_is_labelled() -> None:
    assert len(cases.positives()) >= 400
    assert len(cases.clean()) >= 300


def test_secrets_are_found_whole(scanner: Scanner) -> None:
    labelled: Counter[str] = Counter()
    found: Counter[str] = Counter()
    missed = []
    for case in cases.positives():
        labelled[case.entity] += 1
        if set(range(case.start, case.end)) <= set(replaced(scanner, case.text)):
            found[case.entity] += 1
        else:
            missed.append(case)
    for entity, count in sorted(labelled.items()):
        print(f"{entity:20} {found[entity]:4} of {count:4}  recall {found[entity] / count:.3f}")
    others = labelled.total() - labelled["PHONE"]
    assert found["PHONE"] >= PHONE_RECALL * labelled["PHONE"], missed
    assert found.total() - found["PHONE"] >= OTHER_RECALL * others, missed
    assert all(found[entity] >= 0.9 * count for entity, count in labelled.items() if entity != "PHONE"), missed


def test_clean_texts_stay_as_they_are(scanner: Scanner) -> None:
    texts = cases.clean()
    touched = [text for text in texts if any(replaced(scanner, text))]
    print(f"clean texts touched: {len(touched)} of {len(texts)}")
    assert len(touched) <= CLEAN_TOUCHED * len(texts), touched


def test_national_phones_touch_no_clean_text(scanner: Scanner) -> None:
    counted: list[str] = []

    for text in cases.clean():
        scanner.redact(text, lambda entity, found: counted.append(entity.name) or "")
    assert "PHONE" not in counted
