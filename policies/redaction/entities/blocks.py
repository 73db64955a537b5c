"""Blocks and links that are secrets, or have one in them: private keys, JSON Web Tokens, URLs with a password, webhooks."""

from __future__ import annotations

from .. import validators
from ..entity import Entity

# RFC 7468 (PEM), RFC 1421 section 4.6 (its headers), RFC 4880 section 6.2 (OpenPGP), RFC 4716 (SSH2, with four hyphens),
# PuTTY's PPK, age. Line ends may be written as \n or <br>, lines may be indented, quoted, numbered, or those of a diff.
# What is swallowed ends behind the END line, or before what cannot stand in a block.
_LINE_END = r"(?:[\s\"'+,.>|#-]|\\{1,2}[nrt]|<br ?/?>|\d{1,4}[:.)]){0,40}"
_BLOCK_BEGINS = r"(?:[A-Za-z0-9+/]{12}|(?:Proc-Type|DEK-Info|Version|Comment|Subject|Charset|Hash|x-[a-z-]{1,30}): )"
_IN_BLOCK = r"[A-Za-z0-9+/=:,.;()\\\s\"'|>#]"
PRIVATE_KEY = Entity(
    "PRIVATE_KEY",
    "|".join(
        (
            rf"-----BEGIN (?:[A-Z0-9]{{1,12}} ){{0,4}}PRIVATE KEY(?: BLOCK)?-----{_LINE_END}{_BLOCK_BEGINS}",
            rf"---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----{_LINE_END}{_BLOCK_BEGINS}",
            r"PuTTY-User-Key-File-\d: [a-z]",
            r"Private-Lines: \d",
            r"AGE-SECRET-KEY-1[0-9A-Z]{20}",
            # In base64, where the frame is missing: "openssh-key-v1" and its zero byte; the DER beginnings of PKCS #1 and
            # of RSA keys in PKCS #8 (RFC 8017 appendix A.1.2, RFC 5958): the version 0, then a modulus or "rsaEncryption".
            r"b3BlbnNzaC1rZXktdjEA",
            r"MII[A-Za-z0-9+/]{2}[AQgw]IBAAKC[A-Za-z0-9+/]{10}",
            r"MII[A-Za-z0-9+/]{2}[AQgw]IBADANBgkqhkiG9w0BAQEFAAS[A-Za-z0-9+/]{10}",
        )
    ),
    swallow=rf"{_IN_BLOCK}*(?:(?:-{_IN_BLOCK}|<br ?/?>){_IN_BLOCK}*)*(?:-{{4,6}} ?END [A-Z0-9 ]{{0,50}}-{{4,5}})?",
)

# RFC 7515 to 7519: base64url of a JSON object, then dots. It commits at the first dot, or, where the header is too long
# to be held, inside it: these are the beginnings of headers in base64url ({"alg":", {"typ":", {"kid":", ...).
JWT = Entity(
    "JWT",
    r"(?:eyJ|eyA|ewog|ewoJ|ew0K)[A-Za-z0-9_-]{9,240}\.\.?[A-Za-z0-9_-]{3}"
    r"|eyJ(?:hbGciOi|0eXAiOi|raWQiOi|lbmMiOi|jdHkiOi|4NWMiO|4NXQ|qd2siO|qa3UiO)[A-Za-z0-9_-]{230}",
    before=r"[A-Za-z0-9_-]",
    swallow=r"(?:[A-Za-z0-9_-]|\.{1,2}[A-Za-z0-9_-])*",
)

# RFC 3986 section 3.2.1; also where the password holds a colon or an at sign that should have been escaped.
URL_CREDENTIALS = Entity(
    "URL_CREDENTIALS",
    r"[A-Za-z][A-Za-z0-9+.-]{1,24}:(?:\\?/){2}"
    r"(?:[^\s/?#@:\"'<>`]{0,128}:[^\s/?\"'`]{1,200}|[^\s/?#@:\"'<>`]{16,200})@",
    before=r"[A-Za-z0-9]",
    valid=validators.url_credentials,
    context=validators.scheme,
)

JDBC_CREDENTIALS = Entity(  # Oracle's JDBC Developer's Guide, "Data Sources and URLs"
    "URL_CREDENTIALS",
    r"jdbc:oracle:[a-z0-9]{2,6}:[^\s/@:\"'<>`]{1,64}/[^\s/@\"'<>`]{1,128}@",
    before=r"[A-Za-z0-9]",
    context=lambda text: text.rindex(":", 0, text.index("/")) + 1,
)

# docs.slack.dev (incoming webhooks), discord.com/developers (Webhook), Teams' and Zapier's manuals: who has the link may
# write.
WEBHOOK = Entity(
    "WEBHOOK",
    "|".join(
        (
            r"(?:https?://)?hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{16}",
            r"(?:https?://)?(?:[a-z]{2,8}\.)?discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/\d{16,20}/[A-Za-z0-9_-]{20}",
            r"(?:https?://)?[a-z0-9-]{1,63}\.webhook\.office\.com/webhookb2/[A-Za-z0-9@-]{20}",
            r"(?:https?://)?hooks\.zapier\.com/hooks/catch/\d{4,12}/[a-z0-9]{5}",
        )
    ),
    before=r"[A-Za-z0-9]",
    swallow=r"[A-Za-z0-9+/_@=-]*",
)
