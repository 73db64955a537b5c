"""Telephone numbers: which candidates are accepted in which form and region."""

from __future__ import annotations

import re

import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType, example_number_for_type, format_number

from policies.redaction import phones
from policies.redaction.folding import fold

REGIONS = ("US", "CA", "GB", "IE", "DE", "FR", "ES", "IT", "IN", "TR", "PH", "BR")


@pytest.mark.parametrize(
    "text",
    [
        "+1 212 555 0123",
        "+442079460958",
        "+44 (0)20 7946 0958",
        "+49 (0) 30 901820",
        "(+44) 20 7946 0958",
        "0044 20 7946 0958",
        "011 49 30 901820",
        "0011 1 212 555 0123",
        "+1-212-555-0123 ext. 12",
        "+1.212.555.0123",
        "+800 1234 5678",  # freephone: of no country
    ],
)
def test_an_international_number(text: str) -> None:
    assert phones.international(text)
    assert re.fullmatch(phones.INTERNATIONAL_PATTERN, text)


@pytest.mark.parametrize(
    "text",
    [
        "+48.858370",  # a coordinate
        "+1 23 45 67",  # too short
        "+999 1234 5678",  # no such country
        "+1 112 555 0123 4567",  # too long
        "(+44 20 7946 0958)",  # the brackets are not the number's
        "+44 20) 7946 0958",
    ],
)
def test_no_international_number(text: str) -> None:
    assert not phones.international(text)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("kind", [PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE])
def test_the_examples_of_each_plan_in_each_form(region: str, kind: int) -> None:
    number = example_number_for_type(region, kind)
    assert number is not None
    national = format_number(number, PhoneNumberFormat.NATIONAL)
    if sum(map(str.isdigit, national)) > 8:  # Ireland's shortest looks like too much else
        assert phones.national([region])(national)
        assert re.fullmatch(phones.NATIONAL_PATTERN, national)
    for form in (PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL):
        assert phones.international(format_number(number, form))


@pytest.mark.parametrize(
    ("region", "text"),
    [
        ("US", "(212) 555-0123"),
        ("US", "212.555.0123"),
        ("US", "1 (800) 555-0199"),
        ("CA", "604-555-0123 x12"),
        ("GB", "020 7946 0958"),
        ("GB", "(0)20 7946 0958"),
        ("GB", "07700900123"),
        ("DE", "030/901820"),
        ("DE", "0171 123 45 67"),
        ("FR", "06.12.34.56.78"),
        ("FR", "0612345678"),
        ("ES", "612 34 56 78"),
        ("IT", "347 1234567"),
        ("IN", "98765 43210"),
        ("TR", "0(532) 123 45 67"),
        ("PH", "0917-123-4567"),
        ("BR", "11 91234-5678"),
    ],
)
def test_a_national_number_is_known_in_its_region(region: str, text: str) -> None:
    assert phones.national(REGIONS)(text)
    assert phones.national([region])(text)
    assert re.fullmatch(phones.NATIONAL_PATTERN, text)


@pytest.mark.parametrize(
    "text",
    [
        "2125550123",  # an order number as likely as not
        "123 456 7890",  # no area code begins with 1
        "123-45-6789",
        "02110-1301",
        "612 345 678",
        "01.02.2023 1234",
        "0.577215665",
        "90210-9410",
        "0633 0645 0645",
        "(1978) 237-249",
        "0123456789",
        "978-3-16-148410-0",
        "1999 2000 2001",
        "555-1234",
    ],
)
def test_what_is_more_often_something_else_is_none(text: str) -> None:
    assert not phones.national(REGIONS)(text)


def test_a_number_is_valid_in_configured_regions_only() -> None:
    assert not phones.national(["US"])("020 7946 0958")
    assert not phones.national(["GB"])("(212) 555-0123")
    assert not phones.national([])("(212) 555-0123")


def test_an_unknown_region_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'XX'"):
        phones.national(["US", "XX"])
    with pytest.raises(ValueError, match="'usa'"):
        phones.named(["usa"])


@pytest.mark.parametrize(
    "text", ["phone: 2125550123", 'tel="0612345678', "Call me at 415 555 2671", "mobile 07911123456"]
)
def test_a_word_before_it_makes_a_number_in_any_grouping_one(text: str) -> None:
    assert re.fullmatch(phones.NAMED_PATTERN, fold(text))
    assert phones.named(["US", "GB", "FR"])(text)


@pytest.mark.parametrize("text", ["call 911", "phone: 0002223334", "tel 00000000000"])
def test_a_word_before_it_does_not_make_every_number_one(text: str) -> None:
    assert not phones.named(["US", "GB", "FR"])(text)


@pytest.mark.parametrize(
    "text", ["1234 5678 9012 3456", "9400-1000-0000-0000", "05 12 23 34 45 49", "1 234 567 890", "149 597 870"]
)
def test_a_row_of_numbers_is_no_telephone_number(text: str) -> None:
    assert phones.no_phone(text)
    assert re.fullmatch(phones.NO_PHONE_PATTERN, text)


@pytest.mark.parametrize("text", ["212-555-0123 212-555-0124", "06 12 34 56 78", "020 7946 0958"])
def test_telephone_numbers_are_no_such_row(text: str) -> None:
    assert not phones.no_phone(text)


@pytest.mark.parametrize(
    ("text", "region", "is_one"),
    [
        ("(71)99233-2209", "BR", True),
        ("(212)555-0123", "US", True),
        ("232 762 45 73", "TR", True),
        ("303  331  359", "ES", False),  # columns
        ("01-01-1980 25", "FR", False),  # a date
    ],
)
def test_how_people_write_them_and_other_things(text: str, region: str, is_one: bool) -> None:
    assert phones.national([region])(text) is is_one
    assert re.fullmatch(phones.NATIONAL_PATTERN, text)


@pytest.mark.parametrize(
    "text", ["mob: 91-9876543210", "teléfono es 687.778.345", "mobile>954.396.677", "Llámame al 632 658 432"]
)
def test_a_word_that_says_so_in_other_languages_too(text: str) -> None:
    assert re.fullmatch(phones.NAMED_PATTERN, fold(text))
    assert phones.named(["IN", "ES"])(text)
