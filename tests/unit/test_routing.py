from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from proxy.errors import RequestError
from proxy.routing import RouteTable, host_name, normalise_path

# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1", "/v1/", "/v1/models", "/v1/models/", "/v1beta/models/gemini-pro:streamGenerateContent", "/.well-known/x",
        "/...", "/a..", "/..a", "/.a", "/a.", "/a.b", "/~user", "/@me", "/a,b=c;d=e", "/a;v=1/b", "/;", "/!$&'()*+",
        "/a%20b", "/%25", "/%252e%252e/x", "/%C3%A9", "/%3A", "/%40", "/%3F", "/%23", "/%5B", "/[::1]", '/a"b<c>{d}|e^f`g',
    ],
)  # fmt: skip
def test_a_path_in_its_normal_form_stays(path: str) -> None:
    assert normalise_path(path) == path


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        # repeated slashes
        ("//", "/"), ("///", "/"), ("//v1", "/v1"), ("/v1//models", "/v1/models"), ("/v1//", "/v1/"),
        # dot segments
        ("/.", "/"), ("/./", "/"), ("/v1/.", "/v1/"), ("/v1/./", "/v1/"), ("/./v1", "/v1"), ("/v1/./models", "/v1/models"),
        ("/v1/..", "/"), ("/v1/../", "/"), ("/v1/../x", "/x"), ("/v1/x/..", "/v1/"), ("/a/b/../../c", "/c"),
        ("/a/./.././b", "/b"), ("/a//../b", "/b"), ("/a/..//b", "/b"), ("/a/.../..", "/a/"),
        # dot segments in escapes
        ("/%2e", "/"), ("/v1/%2E%2e/x", "/x"), ("/v1/.%2e/x", "/x"), ("/v1/%2e./x", "/x"), ("/v1/%2e%2e", "/"),
        # escapes: of unreserved characters decoded, all others in upper case
        ("/%76%31", "/v1"), ("/%7euser", "/~user"), ("/%41%7A%30%2d%2E%5f%7E", "/Az0-._~"), ("/%c3%a9", "/%C3%A9"),
        ("/%3a%2b%3b%3D", "/%3A%2B%3B%3D"), ("/a%2561", "/a%2561"),
        ("/%f0%9f%8c%8a", "/%F0%9F%8C%8A"),
    ],
)  # fmt: skip
def test_other_spellings_of_a_path(path: str, normal: str) -> None:
    assert normalise_path(path) == normal


@pytest.mark.parametrize(
    "path",
    [
        # no absolute path
        "", "*", "v1", "v1/models", "http://host/v1", ".", "?", "/v1?x", "/v1#x",
        # dot segments that leave the root, also in escapes
        "/..", "/../", "/../etc/passwd", "/v1/../..", "/v1/../../x", "/%2e%2e/x", "/.%2E", "//..", "/./..",
        # separators that only some servers see
        "/a%2fb", "/a%2Fb", "/..%2fx", "/%2f", "/a\\b", "/..\\x", "/a%5cb", "/a%5Cb", "/%5c..%5cx",
        # dot segments that only some servers see behind a path parameter
        "/.;/x", "/..;/x", "/a/..;x=1/b", "/a/..;", "/a/%2e%2e;/b", "/a/..%3b/b", "/a/%2e%2e%3Bx/b", "/a/.%3B",
        # control characters, white space
        "/%00", "/a%00.json", "/%0d%0aX:%20y", "/%0A", "/%1f", "/%7f", "/a b", "/a\tb", "/a\r\nb", "/\x00", "/\x7f",
        # no escapes
        "/%", "/%2", "/%zz", "/%2g", "/%-1", "/%+1", "/% 1", "/%2%35", "/a%", "/%%34%31", "/%u002e",
        # beyond ASCII, raw; and escapes that are not UTF-8: overlong ("/", "."), cut, Latin-1, surrogates
        "/café", "/\uff0e\uff0e/x", "/\u2025", "/%c0%af", "/%c0%ae%c0%ae/x", "/%e0%80%af", "/%c3", "/%e9", "/%ff", "/%ed%a0%80",
    ],
)  # fmt: skip
def test_what_two_servers_could_read_differently_is_refused(path: str) -> None:
    with pytest.raises(RequestError) as caught:
        normalise_path(path)
    assert caught.value.details == "malformed_path"


# Hosts


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("api.test", "api.test"), ("API.Test", "api.test"), ("api.test:8080", "api.test"), ("api.test.", "api.test"),
        ("api.test.:80", "api.test"), (" api.test ", "api.test"), ("127.0.0.1:80", "127.0.0.1"), ("[::1]", "[::1]"),
        ("[::1]:8080", "[::1]"), ("[FE80::A]:1", "[fe80::a]"), ("", ""), (":80", ""),
    ],
)  # fmt: skip
def test_host_name(authority: str, host: str) -> None:
    assert host_name(authority) == host


# Routes


class Place(NamedTuple):
    path: str
    hosts: Sequence[str] = ()


def found(places: Sequence[Place], path: str, host: str = "any.test") -> Place | str:
    """The place, or why there is none."""
    try:
        return RouteTable(places).find(host, normalise_path(path))
    except RequestError as refused:
        return refused.details


ROOT, V1, CHAT = Place("/"), Place("/v1"), Place("/v1/chat")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", ROOT), ("/x", ROOT), ("/v", ROOT), ("/v10", ROOT), ("/V1", ROOT), ("/x/v1", ROOT), ("/v1", V1), ("/v1/", V1),
        ("/v1/models", V1), ("/v1/chatter", V1), ("/v1/chat", CHAT), ("/v1/chat/", CHAT), ("/v1/chat/completions", CHAT),
        ("/x/../v1", V1), ("//v1", V1), ("/%76%31/x", V1), ("/v1/../x", ROOT),
    ],
)  # fmt: skip
@pytest.mark.parametrize("places", [[ROOT, V1, CHAT], [CHAT, V1, ROOT], [V1, CHAT, ROOT]])
def test_the_longest_prefix_of_whole_segments_wins(places: list[Place], path: str, place: Place) -> None:
    assert found(places, path) == place


def test_no_route() -> None:
    assert found([V1], "/") == found([V1], "/v10") == found([V1], "/v1/..") == found([], "/") == "no_route"


OWN_V1, SHARED = Place("/v1", ["api.test", "[::1]"]), Place("/v1/models")


@pytest.mark.parametrize(
    ("host", "path", "place"),
    [
        ("api.test", "/v1/models", OWN_V1), ("API.TEST.:8080", "/v1/models", OWN_V1), ("[::1]:80", "/v1", OWN_V1),
        ("api.test", "/x", ROOT), ("sub.api.test", "/v1/models", SHARED), ("", "/v1", ROOT),
    ],
)  # fmt: skip
def test_a_hosts_own_routes_come_before_those_for_all(host: str, path: str, place: Place) -> None:
    assert found([ROOT, SHARED, OWN_V1], path, host) == place


def test_unknown_host_where_no_route_is_meant_for_it() -> None:
    assert found([OWN_V1], "/v1", "other.test") == "unknown_host"
    assert found([OWN_V1], "/x", "api.test") == "no_route"
    assert found([OWN_V1, SHARED], "/v1", "other.test") == "no_route"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        # whoever drops parameters or decodes every escape reads a path of the same route
        ("/v1/models;v=1", V1), ("/x;v1", ROOT), ("/v1/a%3Ab%20c;d/e", V1), ("/x/;/v1", ROOT), ("/a:b/x", Place("/a:b")),
        # ... and here of another one
        ("/v1;x/models", "malformed_path"), ("/;x/v1", "malformed_path"), ("/v1%3Bx", "malformed_path"),
        ("/v1;/chat", "malformed_path"), ("/v1/chat;a;b", "malformed_path"), ("/v1/chat%3b/x", "malformed_path"),
        ("/a%3Ab/x", "malformed_path"), ("/a%3ab", "malformed_path"),
    ],
)  # fmt: skip
def test_no_lenient_reading_leads_past_a_route(path: str, place: Place | str) -> None:
    assert found([ROOT, V1, CHAT, Place("/a:b")], path) == place
