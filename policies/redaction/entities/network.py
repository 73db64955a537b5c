"""Addresses of machines, and the numbers with dots that are none."""

from __future__ import annotations

from .. import validators
from ..entity import Entity

IPV4 = Entity(  # RFC 791; also with the dots taken out of action, as security reports have them
    "IPV4",
    r"\d{1,3}(?:(?:\.|\[\.\])\d{1,3}){3}",
    before=r"[A-Za-z0-9.]",
    after=r"[A-Za-z0-9]",
    valid=validators.ipv4,
)
IPV4_NAMED = Entity(  # filters, and tcpdump(1), which puts the port behind one more dot: no decoy below begins before it
    "IPV4",
    r"(?:(?i:addr|ip|host|src|dst)(?: ?[=!]=? ?| )|> )\d{1,3}(?:\.\d{1,3}){3}",
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9]",
    valid=lambda text: validators.ipv4(text[validators.words_before_digits(text) :]),
    context=validators.words_before_digits,
)

# Versions, sections, object identifiers: they stay. They begin with a small number; an address seldom does.
_NUMBERS = r"\d{1,5}(?:\.\d{1,5}){3,9}"
VERSION = Entity(
    "IPV4",
    "|".join(
        (
            rf"(?i:version|ver|release|firmware|oid|section|chapter|clause|v)[ .:=#]{{1,2}}v?{_NUMBERS}",
            r"\d{1,5}(?:\.\d{1,5}){3}[.-](?:cp|py|tar|zip|whl|dll|exe|msi|jar|deb|rpm|x86)\w{0,8}",
            r"\d{1,5}(?:\.\d{1,5}){3}\.1?\d",  # no port
        )
    ),
    before=r"[A-Za-z0-9.]",
    after=r"[A-Za-z0-9]",
    valid=validators.begins_below(100),
    spares=("IPV4",),
)
PINNED = Entity(  # package==1.2.3.4
    "IPV4",
    r"[=<>~!]=\d{1,5}(?:\.\d{1,5}){3}",
    after=r"[A-Za-z0-9]",
    valid=validators.begins_below(100),
    spares=("IPV4",),
)
PERHAPS_VERSION = Entity(
    "IPV4",
    "|".join(
        (
            rf"(?i:build|driver|table|(?:upgraded?|updated?) (?:to|from))[ .:=#]{{1,2}}v?{_NUMBERS}",
            r"\d{1,5}(?:\.\d{1,5}){3}-(?:linux|win)\w{0,8}",
            r"\d{1,8}(?:\.\d{1,8}){4}",  # or an address and a port
        )
    ),
    before=r"[A-Za-z0-9.]",
    after=r"[A-Za-z0-9]",
    valid=validators.begins_below(10),
    spares=("IPV4",),
)
NEVER_IPV4 = Entity(
    "IPV4",
    r"(?:(?:Headless)?Chrom(?:e|ium)|Edg(?:e|A|iOS)?|OPR|CriOS|Version|Electron|Vivaldi)/\d{1,5}(?:\.\d{1,5}){3}"
    r"|\d{1,8}(?:\.\d{1,8}){5,20}",
    before=r"[A-Za-z0-9.]",
    after=r"[A-Za-z0-9]",
    spares=("IPV4",),
)
IPV6 = Entity(  # RFC 4291, RFC 4007
    "IPV6",
    r"(?:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}|:)(?::[0-9A-Fa-f]{0,4}){1,7}(?:\d{0,2}(?:\.\d{1,3}){3})?"
    r"(?:%[A-Za-z0-9][\w.-]{0,15})?",
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9]",
    valid=validators.ipv6,
)
