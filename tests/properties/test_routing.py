"""No spelling of a path slips past the route that was meant for it."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import RequestError
from proxy.routing import RouteTable, normalise_path

PIECES = [
    "/", "//", "a", "v1", "admin", ".", "..", "...", "%2e", "%2E%2e", "%61", "%41", ";", ";x=1", "%3b", "%3A", ":", "%25",
    "%252e", "%2561", "%c3%a9", "~", "%7e", "+", "%20", "A",
]  # fmt: skip
REFUSED = ["%2f", "%5c", "\\", "%", "%4", "%c3", "%00", "é"]
paths = st.lists(st.sampled_from(4 * PIECES + REFUSED), max_size=8).map(lambda pieces: "/" + "".join(pieces))


def lenient(path: str) -> str:
    """How a server reads a path that forgives everything: each escape decoded, parameters dropped, separators unified."""
    path = re.sub(r"(%[0-9A-Fa-f]{2})+", lambda run: bytes.fromhex(run[0].replace("%", "")).decode("latin-1"), path)
    read: list[str] = []
    for segment in re.split(r"[/\\]+", path)[1:]:
        name = segment.partition(";")[0]
        if name == "..":
            del read[-1:]
        elif name not in ("", "."):
            read.append(name)
    return "/" + "/".join(read)


def accepted(path: str) -> str | None:
    """The normal form, or None where there is none."""
    try:
        return normalise_path(path)
    except RequestError:
        return None


@settings(deadline=None)
@given(paths | st.text(st.characters(max_codepoint=0x100)))
def test_normalising_is_idempotent_and_leaves_nothing_to_resolve(path: str) -> None:
    normal = accepted(path)
    if normal is not None:
        assert normalise_path(normal) == normal
        assert normal.startswith("/")
        assert "//" not in normal
        assert not {".", ".."} & {name.partition(";")[0] for name in normal.split("/")}
        assert re.fullmatch(r"(?:[!-$&-.0-;=?-\[\]-~/<>]|%[0-9A-F]{2})*", normal)


@settings(deadline=None)
@given(paths)
@example("/a/..%3b/admin")
def test_what_is_accepted_means_the_same_as_what_is_sent(path: str) -> None:
    normal = accepted(path)
    if normal is not None:
        assert lenient(normal) == lenient(path)


class Place(NamedTuple):
    path: str
    hosts: tuple[str, ...] = ()


PLACES = [Place(path) for path in ("/", "/v1", "/v1/admin", "/a:", "/a%C3%A9", "/admin")]


@settings(deadline=None)
@given(paths)
@example("/admin;x/y")
@example("/%61dmin%3Bx")
def test_two_spellings_that_are_read_alike_take_the_same_route_or_are_refused(path: str) -> None:
    """Then no spelling, whatever the server behind makes of it, escapes the policies of the route that it means."""
    normal = accepted(path)
    if normal is None:
        return
    meant = [place for place in PLACES if (lenient(path) + "/").startswith(lenient(place.path).rstrip("/") + "/")]
    with suppress(RequestError):
        found = RouteTable(PLACES).find("any.test", normal)
        assert found == max(meant, key=lambda place: place.path.rstrip("/").count("/"))
