"""What a pattern cannot say: checksums, ranges, shapes. Each validator is pure, sees the folded match, and is cheap.

Cheap means: a few microseconds, for they run in the hot path, once for every end that a pattern proposes. Hence the
order inside each: what refuses most, and costs least, first.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable

from .folding import fold
from .tlds import TOP_LEVEL_DOMAINS

Validator = Callable[[str], bool]

_NO_SEPARATORS = str.maketrans("", "", " -./()\t\r\n")


# -- numbers with a checksum ------------------------------------------------------------------------------------------

_DOUBLED = str.maketrans("0123456789", "0246813579")  # twice the digit, its two digits added


def luhn(digits: str) -> bool:
    """The Luhn checksum (ISO/IEC 7812-1, annex B) over a string of ASCII digits, the check digit last."""
    total = sum(map(int, digits[-1::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))
    return total % 10 == 0


# The leading digits and the lengths that the card networks issue, from their public tables (ISO/IEC 7812-1; the networks'
# own documents as collected in Wikipedia's "Payment card number").
_ISSUED = re.compile(
    r"""
      4(?:\d{12}|\d{15}|\d{18})                                                # Visa: 13, 16, 19
    | (?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}         # Mastercard: 16
    | 3[47]\d{13}                                                              # American Express: 15
    | (?:30[0-5]|3095|36|3[89])\d{10,17}(?<=\d{14})                            # Diners Club: 14 to 19
    | 35(?:2[89]|[3-8]\d)\d{12,15}                                             # JCB: 16 to 19
    | (?:6011|64[4-9]\d|65\d\d|62\d\d|60\d\d|81\d\d)\d{12,15}                  # Discover, UnionPay, RuPay: 16 to 19
    | 220[0-4]\d{12,15}                                                        # Mir: 16 to 19
    | 9792\d{12}                                                               # Troy: 16
    | 82\d{14}                                                                 # RuPay: 16
    | (?:50|5[6-8]|63|67)\d{10,17}                                             # Maestro, Verve, Dankort, Elo: 12 to 19
    """,
    re.VERBOSE,
)
_GAPS = re.compile(r"[ \t\n._/-]+")
# How cards are written, if not in one piece: in fours, the last group shorter or one more; as Amex and Diners do; or with
# the issuer's number apart.
_CARD_SHAPE = re.compile(r"\d{4} \d{4} \d{4}(?: \d{4} \d{1,3}| \d{1,7})|\d{4} \d{6} \d{4,5}|\d{6} \d{6,13}|\d{8} \d{8}")


def card(text: str) -> bool:
    """A payment card number: written as one, of a length and with a prefix that are issued, with a right check digit."""
    if not text.isdigit():
        lines = text.count("\n")
        text = _GAPS.sub(" ", text)
        if not _CARD_SHAPE.fullmatch(text) or lines not in (0, 1, text.count(" ")):
            return False
        if lines > 1 and text.split() == sorted(text.split()):  # a list of numbers
            return False
    digits = text.translate(_NO_SEPARATORS)
    return _ISSUED.fullmatch(digits) is not None and luhn(digits) and len(set(digits)) > 1


# Length of an IBAN per country: the IBAN registry of SWIFT (ISO 13616), release 98; then the countries that use IBANs
# without being in it.
IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 "
        "FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 "
        "LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 "
        "RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30 "
        "AO25 BF28 BJ28 CF27 CG27 CI28 CM27 CV25 DZ26 GA27 GQ27 GW25 IR26 KM27 MA28 MG27 ML28 MZ25 NE28 SN28 TD27 TG28",
    )
}


def iban(text: str) -> bool:
    """An IBAN (ISO 13616): the country's length, and 1 as the remainder modulo 97 (ISO 7064). In upper or lower case."""
    number = text.removeprefix("IBAN").translate(_NO_SEPARATORS).upper()
    if len(number) != IBAN_LENGTHS.get(number[:2]):
        return False
    return int("".join([str(int(character, 36)) for character in number[4:] + number[:4]])) % 97 == 1


_FIRST_DIGIT = re.compile(r"[(+]?\d")


def words_before_digits(text: str) -> int:
    """How many characters stand before the number that they announce."""
    number = _FIRST_DIGIT.search(text)
    return len(text) if number is None else number.start()


def named_us_ssn(text: str) -> bool:
    """`SSN: ` or the like, then a social security number."""
    return us_ssn(text[words_before_digits(text) :])


_SSN = re.compile(r"(?!000|666|9)\d{3}([ .-]?)(?!00)\d\d\1(?!0000)\d{4}")


def us_ssn(text: str) -> bool:
    """A US social security number that can be assigned: the SSA's rules since 2011 (area, group and serial)."""
    return _SSN.fullmatch(text) is not None


# -- addresses --------------------------------------------------------------------------------------------------------

_AT = re.compile(r"\[?@\]?|%40|&#64;|&#x40;|\[at\]|\(at\)")
_TOPS = frozenset(map(fold, TOP_LEVEL_DOMAINS))  # as they are seen: Cyrillic letters that look Latin are read as Latin
_LABEL = re.compile(r"(?!-)[^\W_]+(?:-+[^\W_]+)*", re.ASCII)
_LABEL_UNICODE = re.compile(r"[\w\u0900-\u0dff](?:[\w\u0900-\u0dff-]*[\w\u0900-\u0dff])?")


def email(text: str) -> bool:
    """An address whose domain can exist: labels (RFC 1035, or internationalised) below a top-level domain that does."""
    *_, local, domain = _AT.split(text)  # a quoted local part may have an at sign too
    if domain.startswith("["):
        return ipv4(domain[1:-1])
    domain = domain.replace("[dot]", ".").replace("(dot)", ".")
    *labels, top = domain.split(".")
    if top.lower() not in _TOPS or not labels:
        return False
    if local.endswith(".") or len(local) > 64:
        return False
    pattern = _LABEL if domain.isascii() else _LABEL_UNICODE
    return all(len(label) < 64 and pattern.fullmatch(label) for label in labels)


_FIELD = re.compile(
    r"(?:.*&)?(?i:[\w.-]*(?:mail|to|from|cc|user|name|login|account|contact|owner|id))="
    r"|.*&[^&=@]*=|[^&]*=[^&=@]*&|[A-Z_\d]+="
)


def query(text: str) -> int:
    """How much of `a=1&email=bob@example.com` stands before the address; nothing of `bounce=bob@example.com`."""
    found = _FIELD.match(_AT.split(text, 1)[0]) if "=" in text else None
    return 0 if found is None else found.end()


def ipv4(text: str) -> bool:
    """Four octets."""
    return all(int(octet) < 256 for octet in text.replace("[.]", ".").split("."))


_DIGITS = re.compile(r"\d+")


def begins_below(limit: int) -> Validator:
    """A validator for what has numbers, the first of them less than `limit`."""
    return lambda text: (first := _DIGITS.search(text)) is not None and int(first[0]) < limit


_HEX_WORDS = re.compile(r"[A-Fa-f]*::[A-Fa-f]*")  # `Face::add`: a name in C++, Rust, Perl or Ruby
_IDS = re.compile(r"(?:\d{1,5}:){1,2}:|[\dA-Fa-f]{1,2}::")  # `daemon:x:500:500::/home`
_SLICE = re.compile(r"\d{0,3}::(?!1$)\d{0,4}")  # `items[10::2]`; `::1` is the loopback address


def ipv6(text: str) -> bool:
    """An IPv6 address in any of its text forms (RFC 4291 section 2.2, RFC 4007 section 11), of more than two colons.

    What is more often something else is refused: slices and scoped names, and eight pairs (an EUI-64, a fingerprint).
    """
    address, _, zone = text.partition("%")
    if "%" in text and not zone:
        return False
    head, dot, _ = address.partition(".")
    groups = address.split(":")
    if dot:
        quad = groups.pop()
        if quad.count(".") != 3 or not all(octet.isdigit() and int(octet) < 256 for octet in quad.split(".")):
            return False
        groups += ["0", "0"]
    double = address.count("::")
    if double:
        if double > 1 or ":::" in address:
            return False
        filled = [group for group in groups if group]
        # An empty group is right only where the double colon is.
        if len(filled) > 7 or address[0] == ":" != address[1] or address[-1] == ":" != address[-2]:
            return False
        return not (_HEX_WORDS.fullmatch(head) or _SLICE.fullmatch(address) or _IDS.fullmatch(address))
    return len(groups) == 8 and all(groups) and not all(len(group) == 2 for group in groups)


_PLACEHOLDER = re.compile(r"[<\[{$%*].*|.*[>\]})]|x+|X+|\.+|_+")


def scheme(text: str) -> int:
    """How long the part up to the user information is."""
    separator = _AUTHORITY.search(text)
    assert separator is not None
    return separator.end()


_AUTHORITY = re.compile(r":(?:\\?/){2}")


def url_credentials(text: str) -> bool:
    """`scheme://user:secret@` or `scheme://token@`, where the secret is one and not the place for one (`${PASS}`)."""
    userinfo = text[scheme(text) : -1]
    user, colon, secret = userinfo.partition(":")
    if not colon:
        return len(user) >= 16 and random_looking(user)
    return secret != "" and not _PLACEHOLDER.fullmatch(secret)


# -- keys and tokens --------------------------------------------------------------------------------------------------


def varied(text: str) -> bool:
    """Not a mask: of the last 16 characters at least six differ, so `ghp_xxxxxxxxxxxxxxxxxxxx` is none."""
    return len(set(text[-16:])) >= 6


def varied_with_digits(text: str) -> bool:
    """The same, and with a digit somewhere: no long word."""
    return varied(text) and any(map(str.isdigit, text))


def random_looking(text: str) -> bool:
    """Made by a generator and not by a person: letters and digits mixed throughout, no long words."""
    digits = sum(map(str.isdigit, text))
    if digits == len(text) or len(set(text)) < 8 or _WORDS_JOINED.fullmatch(text):
        return False
    if _HEX.fullmatch(text):
        return digits > 1
    changes = len(_CLASS_CHANGE.findall(text))
    if not digits:
        return changes * 2 >= len(text) and not _WORD.search(text)
    if _is_camel_case(text):
        return False
    mixed = changes * 10 >= len(text) * 3 or digits * 8 >= len(text)
    return mixed and (changes * 4 >= len(text) or not _LONG_WORD.search(text))


def _is_camel_case(text: str) -> bool:
    return not text.islower() and sum(map(len, _HUMP.findall(text))) * 3 >= len(text) * 2


_HEX = re.compile(r"[0-9a-f]+")
_NAME = r"(?:(?:[A-Za-z][a-z]*|[A-Z]+)\d{0,4}|\d+)"
_WORDS_JOINED = re.compile(rf"{_NAME}(?:[._/-]+{_NAME})+|[a-z]{{2,}}(?:_[a-z]+)*\.[A-Za-z_].*|.*\.\.\.")  # names, paths
_HUMP = re.compile(r"[A-Z]?[a-z]{3,}")
_WORD = re.compile(r"[a-z]{5}")
_LONG_WORD = re.compile(r"[a-z]{9}|[A-Z]{13}")
_CLASS_CHANGE = re.compile(r"(?<=[a-z])[^a-z]|(?<=[A-Z])[^A-Z]|(?<=\d)\D|(?<=[+/])[^+/]")


def aws_secret(text: str) -> bool:
    """40 characters that look like the base64 of 30 random bytes: no path, no camel case, no hex digest."""
    upper = sum(map(str.isupper, text))
    lower = sum(map(str.islower, text))
    if text.count("/") >= 4 and _PATH_WORD.search(text):
        return False
    return (
        upper >= 6
        and lower >= 6
        and any(map(str.isdigit, text))
        and len(set(text)) >= 17
        and len(_CLASS_CHANGE.findall(text)) >= 16
        and not _LONG_WORD.search(text)
    )


ASSIGNMENT = r"[\"'] value=[\"']|[\"'`]?(?: (?:is|es|ist|lautet|est|e) | ?(?:=>|:=|[=:>]) ?|[是为は]| )[\"'`]?"
"""What stands between the name of a secret and the secret: in code, JSON, XML, on a command line, in prose."""
_PATH_WORD = re.compile(r"[a-z]{4}")
_VALUE = re.compile(rf"(?:{ASSIGNMENT})(?=\S*$)")


def assignment(text: str) -> int:
    """How much of `name = "value` stands before the value."""
    value = _VALUE.search(text)
    return len(text) if value is None else value.end()


def assigned_secret(text: str) -> bool:
    """`name = "value`, where the value looks random."""
    value = text[assignment(text) :].rstrip(":!")
    return varied(value) and random_looking(value) and (len(value) >= 20 or not _HEX.fullmatch(value))


def assigned_password(text: str) -> bool:
    """`password = "value`, where the value is one and not an expression, a type or the place for one.

    A mark between letters and digits is enough; without one, letters and digits are where nobody would write a name:
    in quotes, directly behind `=`, `:` or `>`, or in upper and lower case."""
    start = assignment(text)
    value, before = text[start:].rstrip(".:"), text[:start]
    quoted = before[-1] in "\"'`"
    digits = any(map(str.isdigit, value))
    if value[:1] in "$%&*=" or len(set(value)) < 5 or not any(map(str.isalpha, value)) or _NO_PASSWORD.search(value):
        return False
    if not quoted and _CALL.search(value):
        return False
    if _NAMED_PLAINLY.search(before):
        return _is_mixture(value) or (len(value) >= 12 and random_looking(value)) or (quoted and digits)
    mixed = value != value.lower() and value != value.upper()
    if _MARK.search(value[:-1]) and len(value) >= 8:
        return digits or quoted or mixed
    if not value.replace("-", "").isalnum():
        return False
    if not digits and (not mixed or len(value) < 12 or _is_camel_case(value)):
        return False
    return quoted or _CLOSE.search(before) is not None or (mixed and len(value) >= 8)


def assigned_mixture(text: str) -> bool:
    """`api_key = "value`, where the value is no name: letters, digits and marks."""
    start = assignment(text)
    value = text[start:].rstrip(".:")
    if len(value) < 12 or value[0] in "$%&*=" or _NO_PASSWORD.search(value) or _CALL.search(value):
        return False
    return _is_mixture(value) and (text[start - 1] in "\"'`=:" or text[start - 2] in ":=")


def _is_mixture(value: str) -> bool:
    marked = _STRONG_MARK.search(value[:-1]) is not None
    return marked and any(map(str.isdigit, value)) and any(map(str.isalpha, value))


_MARK = re.compile(r"[!@#$%^&*+=~?]")
_STRONG_MARK = re.compile(r"[!@#$%^*~]")
_NAMED_PLAINLY = re.compile(r"\w (?<! (?:is|es|st) )(?<! e )(?<!lautet )[\"']?\Z")
_CALL = re.compile(r"(?<=\w)\(|[)][.]|^\(")
_CLOSE = re.compile(r"[=:>]\Z|(?<! ): \Z")
_NO_PASSWORD = re.compile(
    r"(?i)^u?int\d|^utf|^sha|^md5|^base\d|^argon2|^pbkdf2|^oauth2|^x509|^aes|^rsa\d|^ed25519|^0x|your|change|example|xxx"
    r"|placeholder|redacted|\*\*\*|\?\?|&&|\+\+|^[a-z_.]+=[\w.()]*$"
)


_ARGUMENT = re.compile(r"(?:-u ?|--user[ =])[\"']?[^:]*:|-p ?[\"']?")


def argument(text: str) -> int:
    """How much of `-u name:value` or `-p value` stands before the value."""
    found = _ARGUMENT.match(text)
    return 0 if found is None else found.end()


def argument_secret(text: str) -> bool:
    """`-u name:value` or `-p value`, where the value looks random, or is a mixture."""
    value = text[argument(text) :]
    if value[0] in "$%{" or _NO_PASSWORD.search(value):
        return False
    return (len(value) >= 16 and random_looking(value)) or _is_mixture(value)


def basic_credentials(text: str) -> bool:
    """`Basic ` and the base64 of `user:password`."""
    try:
        return ":" in b64decode(text[assignment(text) :], validate=True).decode()
    except ValueError:
        return False
