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
NOT_IPV4 = Entity(  # versions, object identifiers, sections: they stay
    "IPV4",
    "|".join(
        (
            r"(?i:version|ver|release|build|firmware|driver|oid|section|chapter|clause|table|v|upgraded?|updated?)"
            r"(?: to| from)?[ .:=#]{1,2}v?\d{1,5}(?:\.\d{1,5}){3,9}",
            r"(?:(?:Headless)?Chrom(?:e|ium)|Edg(?:e|A|iOS)?|OPR|CriOS|Version|Electron|Vivaldi)/\d{1,5}(?:\.\d{1,5}){3}",
            r"\d{1,5}(?:\.\d{1,5}){3}[.-](?:cp|py|tar|zip|whl|dll|exe|msi|jar|deb|rpm|x86|linux|win)\w{0,8}",
            r"\d{1,8}(?:\.\d{1,8}){4,20}",
        )
    ),
    before=r"[A-Za-z0-9.]",
    after=r"[A-Za-z0-9]",
    context=len,
)
PINNED = Entity("IPV4", r"[=<>~!]=\d{1,5}(?:\.\d{1,5}){3}", after=r"[A-Za-z0-9]", context=len)  # package==1.2.3.4
IPV6 = Entity(  # RFC 4291, RFC 4007
    "IPV6",
    r"(?:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}|:)(?::[0-9A-Fa-f]{0,4}){1,7}(?:\d{0,2}(?:\.\d{1,3}){3})?"
    r"(?:%[A-Za-z0-9][\w.-]{0,15})?",
    before=r"[A-Za-z0-9]",
    after=r"[A-Za-z0-9]",
    valid=validators.ipv6,
)
