"""Telephone numbers: a pattern that proposes, and validators made from the numbering plans of all countries.

The plans are the `phonenumbers` package's (Google's libphonenumber metadata). Only its data is used, once, when a
validator is made: its own parser takes 20 µs a number and region and its matcher 200 to 1400 µs a text, which a stream
of digits would multiply. What is made of the data is a table (group lengths as written -> what the digits must match),
so a candidate costs a split, a look-up and one or two `fullmatch`, however many regions are configured.

Numbers in international form are valid if the country's plan knows numbers of that form and length. National forms are
harder: nearly every order number of ten digits is a telephone number somewhere. They must be written as telephone numbers
are in one of the configured regions (grouped, or with the trunk prefix 0), unless a word like "phone" stands before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, pairwise, product
from typing import Any, NamedTuple

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, SUPPORTED_REGIONS, PhoneMetadata

Groups = tuple[int, ...]

_EXTENSION = re.compile(r"[ ,;]{0,2}(?:[Ee]xt(?:ension|n)?\.?|[Xx]|#|;ext=) ?:? ?\d{1,6}")
_NON_DIGIT = re.compile(r"\D+")
_SHORTEST = 9  # digits, with country code or trunk prefix; shorter numbers are too often something else


def _without_extension(text: str) -> str:
    found = _EXTENSION.search(text) if _LETTER.search(text) else None
    return text if found is None else text[: found.start()]


_LETTER = re.compile(r"[A-Za-z#]")


# -- international: +44 20 7946 0958, 0044 ..., 011 44 ..., with or without (0) ----------------------------------------

_DECIMAL = re.compile(r"\+\d+\.\d+")  # a coordinate, an amount
_EXIT_CODE = re.compile(r"\+|0011|011|00")
_TRUNK = re.compile(r"\( ?0 ?\)")


def _metadata(region: str, code: int = 0) -> Any:
    """The numbering plan as phonenumbers has it. Raises `ValueError` where there is none."""
    if region == "001":  # no country: satellites, international freephone
        return PhoneMetadata.metadata_for_nongeo_region(code)
    if region not in SUPPORTED_REGIONS:
        raise ValueError(f'{region!r} is no region with a numbering plan (ISO 3166: "DE", "US" ...)')
    return PhoneMetadata.metadata_for_region(region)


def _numbers(plan: Any) -> str:
    """A pattern for all national numbers of a plan, without trunk prefix."""
    lengths = "|".join(rf"\d{{{length}}}" for length in plan.general_desc.possible_length)
    return rf"(?=(?:{lengths})$)(?:{plan.general_desc.national_number_pattern})"


_CALLING_CODES = {
    str(code): re.compile("|".join(dict.fromkeys(_numbers(_metadata(region, code)) for region in regions)))
    for code, regions in COUNTRY_CODE_TO_REGION_CODE.items()
}
"""Country calling code -> what follows it, in digits. Made when this is imported: it takes a tenth of a second."""


def _brackets_inside(text: str) -> bool:
    """Brackets in pairs, and not around the whole."""
    return text.count("(") == text.count(")") and not (text[0] == "(" and text[-1] == ")")


def international(text: str) -> bool:
    """A number with its country calling code: `+` or an exit code (00, 011, 0011), then digits in any grouping."""
    if _DECIMAL.fullmatch(text) or not _brackets_inside(text):
        return False
    text = _without_extension(text)
    exit_code = _EXIT_CODE.match(text.lstrip("( "))
    digits = _NON_DIGIT.sub("", _TRUNK.sub("", text))
    if exit_code is not None and exit_code[0] != "+":
        digits = digits[len(exit_code[0]) :]
    if len(digits) < _SHORTEST:
        return False
    for length in (1, 2, 3):
        plan = _CALLING_CODES.get(digits[:length])
        if plan is not None:
            national = digits[length:]
            trunk = national[:1] == "0" and digits[0] not in "17"  # whose plans have none, or another
            return bool(plan.fullmatch(national) or (trunk and plan.fullmatch(national[1:])))
    return False


# -- national ---------------------------------------------------------------------------------------------------------

# How numbers are written beside the official formats; group lengths with the trunk prefix.
_CUSTOMARY: dict[str, tuple[Groups, ...]] = {
    "GB": ((11,), (5, 3, 3), (3, 4, 4), (4, 3, 4), (4, 7), (5, 6), (3, 8)),
    "IE": ((3, 7), (2, 7), (2, 3, 4), (3, 3, 4), (4, 6)),
    "ES": ((2, 3, 2, 2), (3, 3, 3)),
    "IT": ((3, 7),),
    "IN": ((3, 4, 4), (4, 3, 4), (4, 7), (6, 5), (3, 8), (5, 6)),
    "TR": ((4, 3, 4), (4, 7)),
    "PH": ((4, 3, 4), (4, 7), (2, 4, 4), (2, 8), (3, 3, 4)),
    "BR": ((4, 3, 4), (3, 4, 4), (3, 5, 4)),
}
_OPEN_PLANS = {"DE", "AT", "IT"}  # numbers of many lengths, grouped as one likes
_WITHOUT_TRUNK = {"IN", "TR", "PH"}  # where a mobile number is as often written without its 0


class _Form(NamedTuple):
    """One way to write numbers of a region: what the digits must match, and what must stand between them."""

    digits: re.Pattern[str]
    marks: str = ""
    """One of these characters must be there ("" for none)."""


# What else is written like that.
_OTHER = re.compile(
    r"""
      \d\.\d+[ /-] | \d[ /-]{1,3}\d+\. | \d[ ./-]{1,3}\d+[ ]?/ | -- | ^\d+\.\d+$   # a date, an amount, a range
    | ^\d{5}-\d{4}$                                                            # ZIP+4: 02110-1301
    | ^\((?:1[89]|20)\d\d\)                                                    # a year, then pages: (1978) 237-249
    | ^(?!01[5-7])\d{4}([ .-])\d{4}\1\d{4}$                                    # code points: 0633 0645 0645
    | ^\d{3}[ .]\d{3}[ .-]\d{3}$                                                  # thousands
    | ^0?123456789
    | ^[01 .-]+$                                                               # binary
    | [ ]{2}                                                                   # columns
    | ^\d\d?([-./])\d\d?\2(?:19|20)\d\d(?!\d)                                  # a date, then something
    """,
    re.VERBOSE,
)


def national(regions: Iterable[str]) -> Callable[[str], bool]:
    """A validator for national forms in `regions` (ISO 3166 codes). Raises `ValueError` for a region that is unknown."""
    forms: dict[Groups, list[_Form]] = {}
    for region in regions:
        for groups, form in _forms(region):
            known = forms.setdefault(groups, [])
            if sum(groups) >= _SHORTEST and form not in known:
                known.append(form)

    def valid(text: str) -> bool:
        text = _without_extension(text)
        groups = [group for group in _NON_DIGIT.split(text) if group]
        if text.startswith(("(0)", "0(")):
            groups[:2] = ["0" + groups[1]]
        found = forms.get(tuple(map(len, groups)))
        if found is None or _OTHER.search(text):
            return False
        digits = "".join(groups)
        return any(
            form.digits.fullmatch(digits) and (not form.marks or any(mark in text for mark in form.marks))
            for form in found
        )

    return valid


def _forms(region: str) -> Iterator[tuple[Groups, _Form]]:
    """How the numbers of a region are written: the official formats, the customary ones, in one piece."""
    plan = _metadata(region)
    numbers = _numbers(plan)
    trunk = plan.national_prefix or ""
    trunked = _Form(re.compile(rf"{trunk}(?:{numbers})"))
    for format_ in _metadata(COUNTRY_CODE_TO_REGION_CODE[plan.country_code][0]).number_format:
        for groups in _expand(format_.pattern, plan.general_desc.possible_length):
            if trunk == "0" and "0" in (format_.national_prefix_formatting_rule or ""):
                yield from ((merged, trunked) for merged in _merge((groups[0] + 1, *groups[1:])))
                if region in _WITHOUT_TRUNK and groups[0] > 2:
                    yield groups, _Form(re.compile(numbers if len(groups) > 3 else plan.mobile.national_number_pattern))
            elif len(groups) > 1 and sum(groups) >= min(plan.mobile.possible_length):
                leading = "".join(format_.leading_digits_pattern[-1:])
                yield from _without_trunk(groups, _Form(re.compile(f"(?={leading})(?:{numbers})")))
                if trunk:
                    yield (len(trunk), *groups), trunked
    yield from ((groups, _Form(re.compile(f"{trunk}(?:{numbers})"))) for groups in _CUSTOMARY.get(region, ()))
    if region in _OPEN_PLANS:
        form = _Form(re.compile(rf"(?=0[1-9]){trunk}(?:{numbers})"))
        yield from ((groups, form) for groups in _open_groups())
    if trunk == "0":
        yield from _unbroken(plan)


def _expand(pattern: str, lengths: Iterable[int]) -> Iterator[Groups]:
    r"""The group lengths that a format such as `(\d{2})(\d{4,6})` stands for."""
    spans = []
    for group in re.findall(r"\(([^)]*)\)", pattern):
        repeated = re.search(r"\{(.*)\}", group)
        low, _, high = (repeated[1] if repeated else "1").partition(",")
        spans.append(range(int(low), int(high or low) + 1))
    yield from (groups for groups in product(*spans) if sum(groups) in lengths)


def _merge(groups: Groups) -> Iterator[Groups]:
    """`groups`, and all that become of it where some of its separators are not written."""
    for count in range(1, len(groups)):
        for cuts in combinations(range(1, len(groups)), count):
            edges = (0, *cuts, len(groups))
            yield tuple(sum(groups[start:end]) for start, end in pairwise(edges))


def _without_trunk(groups: Groups, form: _Form) -> Iterator[tuple[Groups, _Form]]:
    weak = groups[0] <= 2  # looks like other numbers too
    yield groups, form._replace(marks="(-") if weak else form
    yield from ((merged, form._replace(marks="(")) for merged in _merge(groups) if merged[0] == groups[0])


def _open_groups() -> Iterator[Groups]:
    for count in (1, 2, 3):
        for first in range(2, 7):
            for rest in product(range(2, 9), repeat=count):
                if _SHORTEST <= first + sum(rest) <= 13:
                    yield (first, *rest)


def _unbroken(plan: Any) -> Iterator[tuple[Groups, _Form]]:
    """With the trunk prefix in one piece: mobile numbers, and fixed lines where all have the same length."""
    kinds = [plan.mobile]
    fixed = max(plan.fixed_line.possible_length)
    if fixed == max(plan.general_desc.possible_length) and fixed <= 10:
        kinds.append(plan.fixed_line)
    for kind in kinds:
        form = _Form(re.compile(rf"0(?:{kind.national_number_pattern})"))
        for length in kind.possible_length:
            if length >= _SHORTEST:
                yield (length + 1,), form


# -- what looks alike -------------------------------------------------------------------------------------------------

_ROW = re.compile(r"\d+([ .-])\d+(?:\1\d+)*")
_PAIRS = re.compile(r"\d\d(?:.\d\d){5,}")
_AMOUNT = re.compile(r"[1-9]\d{0,2}(?: \d{3}){2,}")


def no_phone(text: str) -> bool:
    """A row of numbers, all separated alike, of more digits or pairs than a telephone number has; or an amount."""
    row = _ROW.fullmatch(text)
    if row is None:
        return False
    digits = len(text) - text.count(row[1])
    return digits >= 14 or _PAIRS.fullmatch(text) is not None or _AMOUNT.fullmatch(text) is not None


# -- after a word that says so ----------------------------------------------------------------------------------------


_FIRST = re.compile(r"[(+]?\d")


def named(regions: Iterable[str]) -> Callable[[str], bool]:
    """A validator for a number after "phone", "call" and the like: any grouping, valid in one of `regions` or
    international (an exit code's beginning looks like a national number: the whole is the longer one)."""
    plans = []
    for region in regions:
        plan = _metadata(region)
        plans.append(re.compile(f"(?:{plan.country_code}|{plan.national_prefix or ''})?(?:{_numbers(plan)})"))

    def valid(text: str) -> bool:
        number = _FIRST.search(text)
        if number is None or international(text[number.start() :]):
            return number is not None
        digits = _NON_DIGIT.sub("", _without_extension(text))
        return len(digits) >= _SHORTEST and any(plan.fullmatch(digits) for plan in plans)

    return valid


# -- patterns ---------------------------------------------------------------------------------------------------------

_EXTENSION_PATTERN = f"(?:{_EXTENSION.pattern})?"
INTERNATIONAL_PATTERN = (
    r"\(?(?:\+|0011[ -]?|011[ -]?|00 ?)\(?[1-9]\d{0,3}\)?(?:[ ./-]{0,2}\(?\d{1,14}\)?){1,7}" + _EXTENSION_PATTERN
)
NATIONAL_PATTERN = (
    r"(?:(?:0|1[ .-]?|\(0\) ?)?\(\d{2,6}\)(?:\d{3,9})?|\(0\) ?\d{2,6}|\d{1,6})(?:[ ./-]{1,3}\d{2,9}){1,4}"
    + _EXTENSION_PATTERN
    + r"|0\d{8,12}"
)
NAME_PATTERN = (
    r"(?i:(?:tele)?phone|tel|telefon[eo]?|mobile?|movil|mob|cell(?:ulare)?|celular|handy|fax|call"
    r"|text|sms|whatsapp|ph|dial|ring|reach|contact|my number|office|landline|hotline|helpline|direct|numero"
    r"|nummer|numara|liga(?:r|ue)?|ligue|llama(?:r|me)?|appelle[rz]?|chiama(?:mi|re)?|anrufen|फोन|नंबर|电话|電話)"
    r"(?i:[ _]?(?:number|num|no|nr|me|us|him|her|them|at|on|is|es|ist|est|e|al|au|para|है)\.?){0,2}"
    r"[\"']?(?:[ :=.#]{1,3}|>)[\"']?"
)
NAMED_PATTERN = NAME_PATTERN + r"[(+]?\d(?:[ ().-]{0,2}\d){8,15}" + _EXTENSION_PATTERN
NO_PHONE_PATTERN = r"\d{1,8}(?:[ .-]\d{1,8}){2,9}"
