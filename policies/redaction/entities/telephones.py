"""Telephone numbers, and the rows of digits that are none. What a number is, is `phones.py`'s."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .. import phones, validators
from ..entity import Entity

PHONE = Entity(  # ITU-T E.164, E.123, RFC 3966
    "PHONE", phones.INTERNATIONAL_PATTERN, before=r"[A-Za-z0-9+.]", after=r"[A-Za-z0-9]", valid=phones.international
)

NOT_PHONE = Entity(  # rows of numbers: they stay; in a longer row there are several, over one another
    "PHONE",
    f"(?:{phones.NAME_PATTERN})?{phones.NO_PHONE_PATTERN}",
    before=r"[\w.+-]",
    after=r"\w",
    valid=lambda text: phones.no_phone(text[validators.words_before_digits(text) :]),
    spares=("PHONE",),
)

# Numbers of something else, which says so.
_NUMBERED = r"(?i:order|invoice|batch|ticket|case|nhs|ref(?:erence)?|serial|part|item|tracking|isbn|article|model|lot)"
_NUMBER = r"(?i:[ _-]?(?:number|num|no|nr|id|code)\.?)"
_AMERICAN = re.compile(r"(?<!\d)\d{3}-\d{3}-\d{4}(?!\d)")
NUMBERED = Entity(  # in groups only behind more than the word: "in case 415 555 2671 is busy"
    "PHONE",
    rf"{_NUMBERED}(?:{_NUMBER}[ :=#]{{1,3}}|[:=#]{{1,2}} ?| #)\d(?:[ -]?\d){{5,12}}|{_NUMBERED} \d{{6,13}}"
    r"|(?i:batch|serial|lot|isbn|nhs|model|article|tracking) \d(?:[ -]?\d){5,12}",
    before=r"[A-Za-z]",
    after=r"[A-Za-z0-9]",
    valid=lambda text: _AMERICAN.search(text) is None,
    spares=("PHONE",),
)
NUMBERED_WHOLE = Entity(  # too short for a card of today
    "CARD",
    rf"{_NUMBERED}{_NUMBER}?[ :=#]{{1,3}}\d{{12,13}}",
    before=r"[A-Za-z]",
    after=r"[A-Za-z0-9]",
    spares=("CARD",),
)


def national(regions: Iterable[str]) -> tuple[Entity, ...]:
    """Telephone numbers as they are written inside `regions`; after a word like "phone", in any grouping."""
    regions = tuple(regions)
    return (
        Entity(
            "PHONE",
            phones.NAMED_PATTERN,
            before=r"[A-Za-z]",
            after=r"[A-Za-z0-9]",
            valid=phones.named(regions),
            context=validators.words_before_digits,
        ),
        Entity(
            "PHONE",
            phones.NATIONAL_PATTERN,
            before=r"[A-Za-z0-9_.+#$€£-]",
            after=r"[A-Za-z0-9_]",
            valid=phones.national(regions),
        ),
    )
