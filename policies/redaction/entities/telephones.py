"""Telephone numbers, and the rows of digits that are none. What a number is, is `phones.py`'s."""

from __future__ import annotations

from collections.abc import Iterable

from .. import phones, validators
from ..entity import Entity

PHONE = Entity(  # ITU-T E.164, E.123, RFC 3966
    "PHONE", phones.INTERNATIONAL_PATTERN, before=r"[A-Za-z0-9+.]", after=r"[A-Za-z0-9]", valid=phones.international
)

NOT_PHONE = Entity(  # rows of numbers: they stay
    "PHONE",
    f"(?:{phones.NAME_PATTERN})?{phones.NO_PHONE_PATTERN}",
    before=r"[\w.+-]",
    after=r"\w",
    valid=lambda text: phones.no_phone(text[validators.words_before_digits(text) :]),
    context=len,
)
NUMBERED = Entity(  # numbers of something else, which says so: too short for a card of today
    "PHONE",
    r"(?i:order|invoice|batch|ticket|case|nhs|ref(?:erence)?|serial|part|item|tracking|isbn|article|model|lot)"
    r"(?i:[ _-]?(?:number|num|no|nr|id|code)\.?)?[ :=#]{1,3}\d(?:[ -]?\d){5,12}",
    before=r"[A-Za-z]",
    after=r"[A-Za-z0-9]",
    context=len,
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
