"""What identifies persons and their accounts: mailboxes, payment cards, bank accounts, social security numbers."""

from __future__ import annotations

from .. import phones, validators
from ..entity import Entity

# RFC 5321 and 6531, the local part without the rarest marks; also as URLs, HTML and careful people write it. In scripts
# that put spaces between words a run ends with the word; in the others local parts are short, so that little is held.
_SPACED = r"A-Za-z0-9_+\u00c0-\u0dff\u10a0-\u13ff\u1e00-\u1fff"
_UNSPACED = r"\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_QUOTED = r"(?:[^\s\"\\]|\\[^\s]){1,40}(?: (?:[^\s\"\\]|\\[^\s]){1,20})?\""
_AT_DOMAIN = (
    r"(?:@|%40|&#64;|&#x40;|\[(?:at|@)\]|\(at\))"
    r"(?:[\w.\u0900-\u0dff-]{1,190}|\[\d{1,3}(?:\.\d{1,3}){3}\]|(?:[\w-]{1,40}(?:\.|\[dot\]|\(dot\))){1,3}[A-Za-z]{2,12})"
)
EMAIL = Entity(
    "EMAIL",
    rf"(?:[{_SPACED}][{_SPACED}.%'!=&~^-]{{0,63}}|\"{_QUOTED}){_AT_DOMAIN}",
    before=rf"[{_SPACED}]",
    after=r"[A-Za-z0-9]",
    valid=validators.email,
    context=validators.query,
)
EMAIL_QUOTED = Entity(  # ["ann"@example.com]: behind a quote that was passed as one of JSON, until more came
    "EMAIL", rf"\"{_QUOTED}{_AT_DOMAIN}", after=r"[A-Za-z0-9]", valid=validators.email, context=lambda text: 1
)
EMAIL_UNSPACED = Entity(
    "EMAIL", rf"[{_UNSPACED}]{{1,8}}{_AT_DOMAIN}", before=r"\w", after=r"[A-Za-z0-9]", valid=validators.email
)
GIT_REMOTE = Entity(  # git-scm.com/docs/git-clone, "Git URLs": no mailbox, so it stays; git@gmail.com may be one
    "EMAIL",
    r"(?:git|hg|svn)@(?:[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}(?::[A-Za-z0-9_~/.-]|/[A-Za-z0-9_~.-])"
    r"|(?:github|gitlab)\.com|bitbucket\.org|codeberg\.org)",
    before=r"[A-Za-z0-9.+-]",
    spares=("EMAIL",),
)
_GAP = r"(?:[ ._/-]{1,3}\n?|[\n\t])"
CARD = Entity(  # ISO/IEC 7812-1
    "CARD",
    "|".join(
        (
            r"\d{12,19}",
            rf"\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{4}}(?:{_GAP}\d{{1,7}}|{_GAP}\d{{4}}{_GAP}\d{{1,3}})",
            rf"\d{{4}}{_GAP}\d{{6}}{_GAP}\d{{4,5}}",
            rf"\d{{6}}{_GAP}\d{{6,13}}",
            rf"\d{{8}}{_GAP}\d{{8}}",
        )
    ),
    before=r"[A-Za-z0-9.+]",
    after=r"[A-Za-z0-9]",
    valid=validators.card,
)
CARD_TRACK = Entity(  # ISO/IEC 7813: what the magnetic stripe says
    "CARD",
    r"%[Bb]\d{12,19}",
    after=r"\d",
    valid=lambda text: validators.card(text[2:]),
    context=lambda text: 2,
)
CARD_CALLED = Entity(  # where a telephone number is expected: the whole is a card, and its beginning no such number
    "CARD",
    phones.NAME_PATTERN + r"\d{4}(?:[ .-]?\d{4}){3}",
    before=r"[A-Za-z]",
    after=r"[A-Za-z0-9]",
    valid=lambda text: validators.card(text[validators.words_before_digits(text) :]),
    context=validators.words_before_digits,
)
IBAN = Entity(  # ISO 13616, also in the paper form's groups
    "IBAN",
    r"(?:IBAN)?[A-Z]{2}[ .-]?\d{2}(?:[ .-]{0,2}\n?[A-Z0-9]){11,30}|[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}",
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9]",
    valid=validators.iban,
    context=lambda text: 4 if text.startswith("IBAN") else 0,
)
US_SSN = Entity(  # ssa.gov/employer/randomization.html
    "US_SSN",
    r"\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{3}\.\d{2}\.\d{4}",
    before=r"[A-Za-z0-9.+-]",
    after=r"[A-Za-z0-9-]",
    valid=validators.us_ssn,
)
US_SSN_NAMED = Entity(  # nine digits in one piece only where they are named
    "US_SSN",
    r"(?i:ssn|social[ _-]?security(?:[ _-]?(?:number|num|no\.?|#))?)(?i:[\"']?[ :=#]{1,3}| is | number )[\"']?"
    r"\d{3}[ -]?\d{2}[ -]?\d{4}",
    before=r"[A-Za-z]",
    after=r"[A-Za-z0-9-]",
    valid=validators.named_us_ssn,
    context=validators.words_before_digits,
)
