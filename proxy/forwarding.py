"""What the proxy says of itself and of the client in header fields: Via, Forwarded, X-Forwarded-*, request id, credentials.

Pure. Sources: RFC 9110 §7.6.3 (Via), RFC 7239 (Forwarded), RFC 9209 (Proxy-Status).
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from .fields import append
from .messages import Fields, Headers, drop, end_to_end

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PSEUDONYM = "penstock"
REQUEST_ID = "X-Request-Id"
CREDENTIAL_FIELDS = ("Authorization", "x-api-key", "x-goog-api-key", "api-key")  # OpenAI, Anthropic, Gemini, Azure
_CREDENTIAL_QUERY = ("key",)  # Gemini's ?key=
_USABLE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_PLAIN_STRING = re.compile(r"[ !#-\[\]-~]*")  # RFC 8941 §3.3.3, what needs no escape
_WITH_PORT = re.compile(r"(?:\[([^\]]*)\]|([0-9.]+))(?::[0-9]{1,5})?")  # as Azure's fronts and RFC 7239 §6 have it
_OF_THIS_HOP = frozenset(("expect", "host", "http2-settings"))
_CLAIMS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-real-ip")
_NOT_BELIEVED = _OF_THIS_HOP.union(_CLAIMS)


class Peer(NamedTuple):
    """The client as the connection shows it, and as the trusted fronts before it say it is."""

    address: str  # of the TCP connection; "" on a Unix socket
    client: str  # whom the request counts for
    scheme: str
    host: str


def request_id(given: str | None) -> str:
    """The client's own id where it can be passed on and logged as it is, else a new one."""
    return given if given is not None and _USABLE_ID.fullmatch(given) else os.urandom(16).hex()


def trusted_hops(peer: str, hops: int, fronts: Collection[Network]) -> int:
    """How many hops before this peer, itself included, are believed: `hops` where the peer is one of the `fronts`, else
    none. Without `fronts` everybody is; a Unix socket (`peer` "") is always: whoever can reach it was let in by its mode."""
    return hops if not fronts or not peer or _is_in(peer, fronts) else 0


def _is_in(peer: str, networks: Collection[Network]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def client_address(headers: Fields, peer: str, trusted_proxies: int) -> str:
    """Whom the request counts for: the address that the outermost of `trusted_proxies` fronts saw.

    Each front appends to X-Forwarded-For the address it was reached from, so what counts is read from the right; all
    that stands further left is the client's own claim. Some append the port, too. A field that is too short or no address
    counts for the peer.
    """
    if not came_through(headers, trusted_proxies):
        return peer
    hop = _hops(headers)[-trusted_proxies]
    with_port = _WITH_PORT.fullmatch(hop)
    try:
        return str(ipaddress.ip_address(hop if with_port is None else with_port[1] or with_port[2] or ""))
    except ValueError:
        return peer


def came_through(headers: Fields, trusted_proxies: int) -> bool:
    """Whether there are trusted fronts, and each of them left its mark; else the client can have got past them."""
    return 0 < trusted_proxies <= len(_hops(headers))


def _hops(headers: Fields) -> list[str]:
    return [hop.strip() for value in headers.getall("X-Forwarded-For", ()) for hop in value.split(",")]


def _node(address: str) -> str:
    """RFC 7239 §6: IPv6 in brackets and quotes; what is no address stays hidden."""
    if not address:
        return "unknown"
    return f'"[{address}]"' if ":" in address else address


def upstream_headers(received: Fields, peer: Peer, id: str, *, trusted_proxies: int, version: str) -> Headers:
    """The header fields of a request as it goes on, before policies and the upstream's credential.

    From a client that no trusted front stands before, claims of where it came from are dropped, not passed on.
    """
    headers = end_to_end(received)
    drop(headers, _OF_THIS_HOP if trusted_proxies else _NOT_BELIEVED)
    append(headers, "X-Forwarded-For", peer.address or "unknown")
    headers.setdefault("X-Forwarded-Proto", peer.scheme)
    if peer.host:
        headers.setdefault("X-Forwarded-Host", peer.host)
    host = f';host="{peer.host}"' if peer.host and '"' not in peer.host and "\\" not in peer.host else ""
    append(headers, "Forwarded", f"for={_node(peer.address)}{host};proto={peer.scheme}")
    append(headers, "Via", f"{version} {PSEUDONYM}")
    headers[REQUEST_ID] = id
    return headers


def downstream_headers(received: Mapping[str, str], id: str, *, version: str) -> Headers:
    """The header fields of an upstream's reply as they go on, before policies."""
    headers = end_to_end(received)
    append(headers, "Via", f"{version} {PSEUDONYM}")
    headers[REQUEST_ID] = id
    return headers


def take_credentials(headers: Headers, query: str) -> tuple[list[tuple[str, str]], str]:
    """Take out whatever the client sent as a credential, in any provider's place: (place, value) of each, and the query
    string without them."""
    found = [(name, value) for name in CREDENTIAL_FIELDS for value in headers.popall(name, ())]
    kept: list[str] = []
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if unquote_plus(name) in _CREDENTIAL_QUERY:
            found.append((f"query:{unquote_plus(name)}", unquote_plus(value)))
        else:
            kept.append(pair)
    return found, "&".join(kept)


def replace_credential(headers: Headers, query: str, place: str, secret: str) -> str:
    """Put the upstream's credential where the provider looks for it and take out whatever the client sent there.

    `place` is a header name or "query:NAME". Returns the query string to send.
    """
    _, query = take_credentials(headers, query)
    kept = [query] if query else []
    if place.startswith("query:"):
        kept.append(f"{place.removeprefix('query:')}={quote(secret, safe='')}")
    elif place.lower() == "authorization":
        headers["Authorization"] = secret if " " in secret else f"Bearer {secret}"
    else:
        headers[place] = secret
    return "&".join(kept)


def proxy_status(details: str) -> str:
    """RFC 9209: says, on a local reply, that it is ours and why, in a form that machines read whatever the dialect."""
    return f'{PSEUDONYM}; details="{details}"' if _PLAIN_STRING.fullmatch(details) else PSEUDONYM
