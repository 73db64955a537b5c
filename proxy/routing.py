"""Which route a request takes. Pure.

A path is normalised *before* it is matched, and sent upstream in the normalised form: what was matched is what the model
server sees, so that no spelling of a path slips past the route (and its policies) that was meant for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from .errors import RequestError

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# Nothing to normalise: the common case.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~:@!$&'()*+,=-][A-Za-z0-9._~:@!$&'()*+,=-]*)+")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_FORBIDDEN = re.compile(r"[^\x21-\x7e]|[\\#?]")
_PARAMETERS = re.compile(r"(?:;|%3B)[^/]*")


def _unescape(match: re.Match[str]) -> str:
    """RFC 3986 §6.2.2: escapes of unreserved characters are decoded, all others stand in upper case."""
    byte = int(match[1], 16) if match[1] else -1
    # An escaped slash or backslash is a separator to some servers and not to others; a control character to none.
    if byte < 0x20 or byte in (0x2F, 0x5C, 0x7F):
        raise RequestError(f"the path has the escape {match[0]!r}", "malformed_path")
    return chr(byte) if byte in _UNRESERVED else match[0].upper()


def normalise_path(path: str) -> str:
    """The one spelling of an absolute path (RFC 3986 §6.2.2): escapes, dot segments and repeated slashes resolved.

    Raises `RequestError` (malformed_path) for what two servers could read differently: escaped separators, control
    characters, backslashes, escapes that are not UTF-8, dot segments that leave the root or have a path parameter.
    """
    if _PLAIN.fullmatch(path):
        return path
    if not path.startswith("/") or _FORBIDDEN.search(path):
        raise RequestError("the path is not an absolute path of printable ASCII", "malformed_path")
    path = _ESCAPE.sub(_unescape, path)
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise RequestError("the path has escapes that are not UTF-8", "malformed_path") from None
    segments: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        name = _PARAMETERS.sub("", part)
        if name not in (".", ".."):
            if part:
                segments.append(part)
        elif part != name or (name == ".." and not segments):
            raise RequestError("the path has a dot segment that leads nowhere", "malformed_path")
        elif name == "..":
            segments.pop()
    directory = parts[-1] in ("", ".", "..") and segments
    return "/" + "/".join(segments) + ("/" if directory else "")


def host_name(authority: str) -> str:
    """The lower-case host of a `Host` field or authority, without port and trailing dot."""
    host = authority.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")


class Place(Protocol):
    """What a route says of where it applies (`config.RouteConfig` does)."""

    @property
    def path(self) -> str: ...
    @property
    def hosts(self) -> Iterable[str]: ...


PlaceT = TypeVar("PlaceT", bound=Place)


def _as_lenient(path: str) -> str:
    """A normalised path as those servers read it that decode every escape and drop path parameters (RFC 3986 §3.3)."""
    return re.sub("/+", "/", unquote(_PARAMETERS.sub("", path)))


def _longest(routes: Iterable[PlaceT], path: str, spell: Callable[[str], str] = str) -> PlaceT | None:
    """The first of `routes` (sorted, longest first) with a prefix of `path`, both spelt with `spell`."""
    path = spell(path)
    for route in routes:
        prefix = spell(route.path).rstrip("/")
        if path == prefix or path.startswith(prefix + "/"):
            return route
    return None


class RouteTable(Generic[PlaceT]):
    """Finds the route of a request: a host's own routes before those for all hosts, then the longest path prefix.

    Prefixes are whole segments: "/v1" matches "/v1" and "/v1/models", not "/v10".
    """

    def __init__(self, routes: Iterable[PlaceT]) -> None:
        self._hosts: dict[str, list[PlaceT]] = {}
        self._any: list[PlaceT] = []
        for route in sorted(routes, key=lambda route: route.path.rstrip("/").count("/"), reverse=True):
            for host in route.hosts:
                self._hosts.setdefault(host_name(host), []).append(route)
            if not list(route.hosts):
                self._any.append(route)

    def find(self, host: str, path: str) -> PlaceT:
        """The route for a normalised `path`. Raises `RequestError`: unknown_host where no route is meant for the host,
        no_route where none of them has the path, malformed_path where a lenient server would read another one's."""
        own = self._hosts.get(host_name(host), [])
        routes = (*own, *self._any)
        route = _longest(routes, path)
        if route is None:
            if self._hosts and not routes:
                raise RequestError("no route for this host", "unknown_host")
            raise RequestError("no route for this path", "no_route")
        if ("%" in path or ";" in path) and _longest(routes, path, _as_lenient) is not route:
            raise RequestError("the path can be read as one of another route", "malformed_path")
        return route
