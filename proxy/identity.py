"""Who a request counts for, in limits, caps and the access log. Pure.

What is known of a client comes from three places, each believed only as far as it goes: an API key (policy `auth`), the
name that a trusted front gives it in a header field (`auth`, only behind `[server] trusted_proxies`), and its address.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

if TYPE_CHECKING:
    from .messages import Request

Fact = Literal["key", "tenant", "subject", "front", "pseudonyms"]
"""What must be told of a client by somebody before it can be known: "front", that a trusted proxy sent the request;
"pseudonyms", what stands in it for the client's own data (`Request.pseudonyms`)."""


class CountsBy:
    """Marks the type of a configuration key whose value, where it is a `Fact`, is of no use without it."""


Per = Annotated[
    Literal["identity", "key", "tenant", "subject", "client", "model", "route", "upstream", "all"], CountsBy()
]
"""What a limit counts by. Requests that have no such thing (no key, no tenant ...) share one count."""

_SITE_BITS = 64  # RFC 6177: a single customer has at least so many addresses, and can take a new one for every request


@dataclass(frozen=True, slots=True)
class Identity:
    """Empty where nothing is known. A key's id and tenant are the operator's words, the subject is the front's."""

    key_id: str = ""
    tenant: str = ""
    subject: str = ""
    client: str = ""  # IP address; empty on a Unix socket


def of(per: Per, request: Request) -> str:
    """The name under which `request` is counted: "key:alice", "client:192.0.2.7", "all" ...

    "identity" is the most specific that is known: a subject, else a key, else a client. Names of different kinds differ,
    and keys and subjects are told apart by tenant. IPv6 clients count by /64. "model" needs the request's body. "upstream"
    is the one that the first attempt goes to. The name may be long and have any character in it: `state.key` makes a key
    of it.
    """
    who = request.identity
    if per == "identity":
        per = "subject" if who.subject else "key" if who.key_id else "client"
    match per:
        case "key":
            key_id = _escaped(who.key_id)
            return f"key:{_escaped(who.tenant)}/{key_id}" if who.tenant else f"key:{key_id}"
        case "tenant":
            return f"tenant:{who.tenant}"
        case "subject":
            return f"subject:{_escaped(who.tenant)}/{who.subject}"
        case "client":
            return f"client:{_site(who.client)}"
        case "model":
            return f"model:{request.call.model or ''}"
        case "route":
            return f"route:{request.route}"
        case "upstream":
            return f"upstream:{request.upstream}"
        case _:
            return "all"


def digest(key: str) -> bytes:
    """The form in which an API key is configured and looked up: SHA-256.

    Slow, salted hashes (RFC 9106) protect passwords, which can be guessed. A random key of 128 bits or more cannot, and
    a slow hash on every request would be an attack on the proxy itself.
    """
    return hashlib.sha256(key.encode()).digest()


def _escaped(part: str) -> str:
    """`part` without the "/" that could move the border to what stands beside it."""
    return part.replace("%", "%25").replace("/", "%2F")


def _site(client: str) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv4Address):
        return client
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), _SITE_BITS), strict=False))
