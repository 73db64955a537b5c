from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import pytest

from proxy.forwarding import (
    Peer,
    client_address,
    downstream_headers,
    proxy_status,
    replace_credential,
    request_id,
    trusted_hops,
    upstream_headers,
)
from proxy.messages import Headers

SECRET = "sk-upstream"


def peer(**changes: Any) -> Peer:
    return Peer(**{"address": "192.0.2.7", "client": "192.0.2.7", "scheme": "http", "host": "api.test", **changes})


def upstream(*fields: tuple[str, str], trusted_proxies: int = 0, **changes: Any) -> Headers:
    """What goes upstream of a request with these fields."""
    return upstream_headers(Headers(fields), peer(**changes), "id-1", trusted_proxies=trusted_proxies, version="1.1")


# Request ids


@pytest.mark.parametrize("given", ["a", "0190-a.b_c:d/e+f=g@h", "x" * 128])
def test_a_usable_request_id_is_kept(given: str) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "a\n", "é", 'a"b', "a,b", "a;b", "{}", "%0a"])
def test_any_other_is_replaced_by_a_new_one(given: str | None) -> None:
    made = request_id(given)
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert request_id(given) != made


# Whom a request counts for


@pytest.mark.parametrize(
    ("trusted", "fields", "client"),
    [
        # nobody stands before us: whatever is claimed is forged
        (0, [], "peer"),
        (0, ["203.0.113.9"], "peer"),
        # one front appended whom it was reached from; all left of that is the client's own claim
        (1, ["203.0.113.9"], "203.0.113.9"),
        (1, ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        (1, ["6.6.6.6", " 203.0.113.9 "], "203.0.113.9"),
        (1, ["6.6.6.6,,203.0.113.9"], "203.0.113.9"),
        # two fronts: the last hop is the first front, as the second saw it
        (2, ["203.0.113.9, 198.51.100.1"], "203.0.113.9"),
        (2, ["6.6.6.6, 203.0.113.9", "198.51.100.1"], "203.0.113.9"),
        (2, ["6.6.6.6, 7.7.7.7, 203.0.113.9, 198.51.100.1"], "203.0.113.9"),
        # too short: it did not come through all fronts
        (1, [], "peer"),
        (2, ["203.0.113.9"], "peer"),
        # IPv6, in brackets too, always in one spelling
        (1, ["2001:db8::1"], "2001:db8::1"),
        (1, ["[2001:DB8:0:0::1]"], "2001:db8::1"),
        # with a port, as some fronts append it
        (1, ["203.0.113.9:4711"], "203.0.113.9"),
        (1, ["6.6.6.6, [2001:db8::1]:4711"], "2001:db8::1"),
        # no address
        (1, [""], "peer"),
        (1, ["unknown"], "peer"),
        (1, ["_hidden"], "peer"),
        (1, ["203.0.113.9, "], "peer"),
        (1, ["300.0.0.1"], "peer"),
        (1, ["203.0.113.9:4711:1"], "peer"),
        (1, ["203.0.113.9:"], "peer"),
        (1, ["[203.0.113.9"], "peer"),
        (1, ["[]"], "peer"),
        (1, ["[2001:db8::1]:x"], "peer"),
        (1, ["203.0.113.9\r\nX: y"], "peer"),
    ],
)
def test_client_address(trusted: int, fields: list[str], client: str) -> None:
    headers = Headers([("X-Forwarded-For", field) for field in fields])
    assert client_address(headers, "peer", trusted) == client


NETWORKS = [ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "believed"),
    [
        ("10.1.2.3", True),
        ("192.0.2.7", True),
        ("::ffff:10.1.2.3", True),  # on a listener for both
        ("fd00::1", True),
        ("", True),  # a Unix socket
        ("192.0.2.8", False),
        ("::ffff:192.0.2.8", False),
        ("2001:db8::1", False),
        ("nobody", False),
    ],
)
def test_only_fronts_are_believed(peer: str, believed: bool) -> None:
    assert trusted_hops(peer, 2, NETWORKS) == (2 if believed else 0)
    assert trusted_hops(peer, 2, ()) == 2, "where none is named, all who connect are taken for one"
    assert trusted_hops(peer, 0, NETWORKS) == 0


# Upstream


def test_a_request_goes_on_with_whence_it_came() -> None:
    sent = upstream(("Accept", "a"))
    assert list(sent.items()) == [
        ("Accept", "a"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "api.test"),
        ("Forwarded", 'for=192.0.2.7;host="api.test";proto=http'),
        ("Via", "1.1 penstock"),
        ("X-Request-Id", "id-1"),
    ]


def test_what_is_for_this_hop_or_made_anew_stays_here() -> None:
    received = [
        ("Host", "api.test"),
        ("Expect", "100-continue"),
        ("HTTP2-Settings", "AAM"),
        ("Connection", "close, X-Hop"),
    ]
    sent = upstream(*received, ("X-Hop", "1"), ("TE", "trailers"), ("X-Request-Id", "theirs"))
    assert not {"host", "expect", "http2-settings", "connection", "x-hop", "te"} & {name.lower() for name in sent}
    assert sent.getall("X-Request-Id") == ["id-1"]


CLAIMS = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("x-forwarded-for", "7.7.7.7"),
    ("Forwarded", "for=6.6.6.6;proto=https"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.test"),
    ("X-Forwarded-Port", "1"),
    ("X-Real-IP", "6.6.6.6"),
]


def test_forged_claims_are_dropped_where_no_trusted_front_stands() -> None:
    assert upstream(*CLAIMS) == upstream()


def test_what_a_trusted_front_says_is_kept_and_added_to() -> None:
    sent = upstream(*CLAIMS, trusted_proxies=1)
    assert sent.getall("X-Forwarded-For") == ["6.6.6.6, 7.7.7.7, 192.0.2.7"]
    assert sent.getall("Forwarded") == ['for=6.6.6.6;proto=https, for=192.0.2.7;host="api.test";proto=http']
    assert sent.getall("X-Forwarded-Proto") == ["https"]
    assert sent.getall("X-Forwarded-Host") == ["evil.test"]
    assert sent["X-Real-IP"] == "6.6.6.6"


def test_a_trusted_front_that_says_nothing() -> None:
    assert upstream(trusted_proxies=1) == upstream()
    assert upstream(("X-Forwarded-For", ""), trusted_proxies=1) == upstream()


@pytest.mark.parametrize("trusted", [0, 1])
def test_a_client_cannot_have_the_proxys_own_fields_dropped(trusted: int) -> None:
    named = ("Connection", "X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, Forwarded, Via, X-Request-Id")
    assert upstream(named, trusted_proxies=trusted) == upstream()


@pytest.mark.parametrize(
    ("changes", "forwarded", "forwarded_for"),
    [
        ({"address": "2001:db8::1"}, 'for="[2001:db8::1]";host="api.test";proto=http', "2001:db8::1"),
        ({"address": ""}, 'for=unknown;host="api.test";proto=http', "unknown"),
        ({"scheme": "https"}, 'for=192.0.2.7;host="api.test";proto=https', "192.0.2.7"),
        ({"host": "[::1]:8080"}, 'for=192.0.2.7;host="[::1]:8080";proto=http', "192.0.2.7"),
        ({"host": 'a";for=6.6.6.6;b="'}, "for=192.0.2.7;proto=http", "192.0.2.7"),
        ({"host": "a\\"}, "for=192.0.2.7;proto=http", "192.0.2.7"),
    ],
)
def test_forwarded_is_well_formed(changes: dict[str, Any], forwarded: str, forwarded_for: str) -> None:
    sent = upstream(**changes)
    assert (sent["Forwarded"], sent["X-Forwarded-For"]) == (forwarded, forwarded_for)


def test_without_a_host_none_is_claimed() -> None:
    sent = upstream(host="")
    assert "X-Forwarded-Host" not in sent
    assert sent["Forwarded"] == "for=192.0.2.7;proto=http"


def test_via_names_each_hop_with_its_version() -> None:
    assert upstream(("Via", "2 outer"), ("Via", "1.0 inner"))["Via"] == "2 outer, 1.0 inner, 1.1 penstock"
    sent = upstream_headers(Headers(), peer(), "id-1", trusted_proxies=0, version="1.0")
    assert sent["Via"] == "1.0 penstock"


def test_what_was_received_is_left_as_it_was() -> None:
    received = Headers(CLAIMS)
    upstream_headers(received, peer(), "id-1", trusted_proxies=0, version="1.1")
    downstream_headers(received, "id-1", version="1.1")
    assert list(received.items()) == CLAIMS


# Downstream


def test_a_reply_goes_on_with_its_end_to_end_fields() -> None:
    received = Headers(
        [
            ("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Connection", "X-Hop"),
            ("X-Hop", "1"), ("Transfer-Encoding", "chunked"), ("Via", "1.1 inner"), ("X-Request-Id", "theirs"),
        ]
    )  # fmt: skip
    sent = downstream_headers(received, "id-1", version="1.1")
    assert list(sent.items()) == [
        ("Content-Type", "text/plain"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Request-Id", "id-1"),
        ("Via", "1.1 inner, 1.1 penstock"),
    ]


# Credentials

CLIENTS = [
    ("Authorization", "Bearer c"),
    ("X-API-Key", "c"),
    ("x-goog-api-key", "c"),
    ("Api-Key", "c"),
    ("api-key", "c"),
]


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("authorization", ("Authorization", f"Bearer {SECRET}")),
        ("x-api-key", ("x-api-key", SECRET)),
        ("x-goog-api-key", ("x-goog-api-key", SECRET)),
        ("api-key", ("api-key", SECRET)),
    ],
)
def test_the_upstreams_credential_replaces_whatever_the_client_sent(place: str, field: tuple[str, str]) -> None:
    headers = Headers([*CLIENTS, ("Accept", "a")])
    assert replace_credential(headers, "alt=sse&key=c", place, SECRET) == "alt=sse"
    assert list(headers.items()) == [("Accept", "a"), field]


def test_a_credential_in_the_query() -> None:
    headers = Headers([*CLIENTS, ("Accept", "a")])
    assert (
        replace_credential(headers, "key=c&alt=sse", "query:key", "a+b/c&d=e f") == "alt=sse&key=a%2Bb%2Fc%26d%3De%20f"
    )
    assert list(headers.items()) == [("Accept", "a")]
    assert replace_credential(Headers(), "", "query:key", SECRET) == f"key={SECRET}"


def test_a_secret_with_a_scheme_of_its_own() -> None:
    headers = Headers()
    replace_credential(headers, "", "authorization", "Basic dTpw")
    assert headers["Authorization"] == "Basic dTpw"


@pytest.mark.parametrize("query", ["key=c", "key", "key=", "%6bey=c", "%6B%65%79=c", "k%65y", "key=c&key=d&%6Bey=e"])
def test_no_spelling_hides_a_credential_in_the_query(query: str) -> None:
    assert replace_credential(Headers(), query, "authorization", SECRET) == ""
    assert replace_credential(Headers(), f"a=1&{query}&b=2", "authorization", SECRET) == "a=1&b=2"


@pytest.mark.parametrize(
    "query",
    ["", "a=1&b=2", "a=%20+&b", "&a=1&&b=2&", "monkey=1", "KEY=1", "a=key", "a=1%26key=2", "k=%6bey", "%ff=1", "a;b"],
)
def test_all_else_in_the_query_stays_as_it_was(query: str) -> None:
    assert replace_credential(Headers(), query, "authorization", SECRET) == query


# Proxy-Status


@pytest.mark.parametrize("details", ["upstream_reset", "", "a b", "!#[]~"])
def test_proxy_status_says_why(details: str) -> None:
    assert proxy_status(details) == f'penstock; details="{details}"'


@pytest.mark.parametrize("details", ['a"b', "a\\b", "a\nb", "a\r\nSet-Cookie: a=b", "é", "\x7f", "a\tb"])
def test_proxy_status_says_less_where_it_could_not_be_read(details: str) -> None:
    assert proxy_status(details) == "penstock"
