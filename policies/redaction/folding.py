"""Look-alikes: what each character is read as. One character becomes at most one, so where a text is cut never matters.

The scanner walks folded characters and writes unfolded ones: where nothing matches, the text stays as it was.

Read as another character: what Unicode's compatibility mapping (NFKC, UAX #15) makes a single ASCII character
(full-width forms, mathematical and circled letters, special spaces), every digit of every script (`unicodedata.digit`),
and the letters and marks below that look like ASCII in most typefaces (a small part of UTS #39's confusables: those that
can stand in a key, an address or a number). Not read at all: what is invisible (Default_Ignorable_Code_Point) and what
is drawn over the character before it (combining diacritics, the keycap), as in a card number set in keycap emoji; so a
letter with its diacritics in one character is read without them too (canonical equivalents are read alike).
"""

from __future__ import annotations

import unicodedata

_LOOKALIKES = {
    lookalike: looks_like
    for lookalikes, characters in (
        # Cyrillic
        (
            "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u04ae\u050c\u051a\u051c",
            "ABESIJKMHOPCTYXYGQW",
        ),
        # Cyrillic
        (
            "\u0430\u0441\u0501\u0435\u04bb\u0456\u0458\u04cf\u043e\u0440\u051b\u0455\u0443\u051d\u0445\u0475",
            "acdehijlopqsywxv",
        ),
        # Greek
        (
            "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03f9",
            "ABEZHIKMNOPTYXC",
        ),
        # Greek
        ("\u03b1\u03b9\u03bd\u03bf\u03c1\u03c5\u03f2\u03f3", "aivopucj"),
        # Latin
        ("\u0251\u0261\u0131\u0269\u028b\u1d04\u1d0f\u1d1c\u1d20\u1d21\u1d22\ua731", "agiiucouvwzs"),
        # hyphens, the minus; not the em dash: it separates, nobody writes it inside a number
        ("\u2010\u2011\u2012\u2013\u2212\u2043\u02d7", "-------"),
        # full stops, slashes, colons
        ("\u3002\uff61\u2024\u2044\u2215\u2236\u0589\ua4f8", "...//::."),
    )
    for lookalike, looks_like in zip(lookalikes, characters, strict=True)
}

_UNSEEN = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x0300, 0x036F),  # combining diacritics; with U+034F, the grapheme joiner
    (0x061C, 0x061C),
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x1AB0, 0x1AFF),  # more combining diacritics, up to the half marks below
    (0x1DC0, 0x1DFF),
    (0x200B, 0x200F),  # zero-width space, joiners, direction marks
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x20D0, 0x20FF),  # combining marks for symbols; U+20E3 is the keycap
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFE20, 0xFE2F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),  # tags, more variation selectors
)


def fold_character(character: str) -> str:
    """What `character` is read as: one character, or "" where it is not read at all."""
    if character.isascii():
        return character
    if character in _LOOKALIKES:
        return _LOOKALIKES[character]
    code_point = ord(character)
    if any(first <= code_point <= last for first, last in _UNSEEN):
        return ""
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    base, *marks = list(unicodedata.normalize("NFD", character))
    if marks and not any(map(fold_character, marks)):
        return fold_character(base)
    compatible = unicodedata.normalize("NFKC", character)
    return compatible if len(compatible) == 1 and compatible.isascii() else character


def fold(text: str) -> str:
    """`text` as patterns and validators see it."""
    return text if text.isascii() else "".join(map(fold_character, text))
