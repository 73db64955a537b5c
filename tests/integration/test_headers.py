"""Header fields: which go on, which end at the proxy, and which it adds about itself and the client."""

from __future__ import annotations

import re

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get, post
from rigs.raw_upstream import RawUpstream, reply
from rigs.wire import details

pytestmark = pytest.mark.aiohttp_paths


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock()


# --- hop by hop (RFC 9110 §7.6.1)


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5"),
        ("Connection: x-hop", "Connection: close", "X-HOP: 1"),
        ("Proxy-Connection: keep-alive",),
        ("Proxy-Authorization: Basic Zm9v",),
        ("Proxy-Authenticate: Basic",),
        ("TE: trailers", "Connection: TE"),
        ("Trailer: X-Sum",),
    ],
)
async def test_hop_by_hop_fields_end_here(proxy: Penstock, upstream: RawUpstream, fields: tuple[str, ...]) -> None:
    named = {field.partition(":")[0].lower() for field in fields} - {"connection"}
    upstream.script = raw_upstream.replies(reply(b"{}", *(field for field in fields if "lose" not in field)))
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", *fields, "X-Stays: 1"))
    request = await upstream.request()
    assert request.head.get("X-Stays") == "1"
    for head in (request.head, answer.head):
        assert not [name for name, _ in head.fields if name.lower() in named]


async def test_connection_cannot_name_what_the_proxy_says(proxy: Penstock, upstream: RawUpstream) -> None:
    named = "X-Forwarded-For, Forwarded, Via, X-Request-Id, Host"
    async with connect(proxy.address) as client:
        await client.exchange(post("/", b"{}", f"Connection: {named}, Content-Length"))
    request = await upstream.request()
    assert request.body == b"{}"
    for name in named.split(", "):
        assert len(request.head.all(name)) == 1, name


# --- Host


async def test_host_is_the_upstreams(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.exchange(get("/", host="public.test"))
    assert (await upstream.request()).head.get("Host") == f"127.0.0.1:{upstream.port}"


async def test_host_can_be_preserved(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"upstreams": {"model": {"preserve_host": True}}})
    async with connect(proxy.address) as client:
        await client.exchange(get("/", host="public.test:8443"))
    assert (await upstream.request()).head.get("Host") == "public.test:8443"


# --- where the request came from


async def test_forwarding_fields_of_an_untrusted_client_are_replaced(proxy: Penstock, upstream: RawUpstream) -> None:
    claims = (
        "X-Forwarded-For: 1.2.3.4",
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: https",
    )
    async with connect(proxy.address) as client:
        await client.exchange(get("/", *claims, "X-Real-IP: 1.2.3.4", "X-Forwarded-Port: 1", host="public.test"))
    head = (await upstream.request()).head
    assert head.get("X-Forwarded-For") == "127.0.0.1"
    assert head.get("X-Forwarded-Proto") == "http"
    assert head.get("X-Forwarded-Host") == "public.test"
    assert head.get("Forwarded") == 'for=127.0.0.1;host="public.test";proto=http'
    assert "1.2.3.4" not in str(head)
    assert (await proxy.log.find(client="127.0.0.1"))["client"] == "127.0.0.1"


async def test_forwarding_fields_of_a_trusted_front_are_added_to(
    penstock: StartPenstock, upstream: RawUpstream
) -> None:
    proxy = penstock({"server": {"trusted_proxies": 1}})
    claims = ("X-Forwarded-For: 6.6.6.6, 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: public.test")
    async with connect(proxy.address) as client:
        await client.exchange(get("/trusted", *claims, "Forwarded: for=203.0.113.7;proto=https"))
    head = (await upstream.request()).head
    assert head.get("X-Forwarded-For") == "6.6.6.6, 203.0.113.7, 127.0.0.1"
    assert head.get("X-Forwarded-Proto") == "https"
    assert head.get("X-Forwarded-Host") == "public.test"
    assert (head.get("Forwarded") or "").startswith("for=203.0.113.7;proto=https, for=127.0.0.1;")
    assert (await proxy.log.find(path="/trusted"))["client"] == "203.0.113.7"


async def test_via_is_added_to_on_both_ways(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(reply(b"{}", "Via: 1.1 inner"))
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", "Via: 2 outer"))
    assert (await upstream.request()).head.get("Via") == "2 outer, 1.1 penstock"
    assert answer.head.get("Via") == "1.1 inner, 1.1 penstock"


# --- request id, tracing


async def test_request_id_is_the_same_everywhere(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(reply(b"{}", "X-Request-Id: the-upstreams-own"))
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", "X-Request-Id: trace-42"))
    assert answer.head.get("X-Request-Id") == "trace-42"
    assert (await upstream.request()).head.get("X-Request-Id") == "trace-42"
    await proxy.log.find(id="trace-42")


@pytest.mark.parametrize(
    "given", [(), ("X-Request-Id: a b",), ('X-Request-Id: "<x>"',), ("X-Request-Id: " + "x" * 500,)]
)
async def test_request_id_is_made_where_there_is_no_usable_one(
    proxy: Penstock, upstream: RawUpstream, given: tuple[str, ...]
) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", *given))
    made = answer.head.get("X-Request-Id") or ""
    assert re.fullmatch(r"[0-9a-f-]{32,36}", made)
    assert (await upstream.request()).head.get("X-Request-Id") == made
    await proxy.log.find(id=made)


async def test_local_replies_have_the_request_id_too(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_closes(b"")
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", "X-Request-Id: local-1"))
    assert answer.status == 502
    assert answer.head.get("X-Request-Id") == "local-1"
    assert 'details="upstream_reset"' in (answer.head.get("Proxy-Status") or "")


async def test_trace_context_passes(proxy: Penstock, upstream: RawUpstream) -> None:
    fields = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "congo=t61rcWkgMzE",
        "baggage": "user=7",
    }
    async with connect(proxy.address) as client:
        await client.exchange(get("/", *(f"{name}: {value}" for name, value in fields.items())))
    head = (await upstream.request()).head
    assert {name: head.get(name) for name in fields} == fields


# --- nothing more, nothing less


async def test_nothing_is_made_up_or_lost(proxy: Penstock, upstream: RawUpstream) -> None:
    sent = ("X-One: 1", "Cookie: a=1", "x-twice: 1", "X-Twice: 2", "X-Empty:", "Cookie: b=2")
    async with connect(proxy.address) as client:
        await client.exchange(get("/", *sent))
    head = (await upstream.request()).head
    assert head.all("X-Twice") == ["1", "2"]  # RFC 9110 §5.3: the order within one name counts
    assert "; ".join(head.all("Cookie")) == "a=1; b=2"
    assert (head.get("X-One"), head.get("X-Empty")) == ("1", "")
    own = {"host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via", "x-request-id"}
    assert {name.lower() for name, _ in head.fields} - own == {"x-one", "cookie", "x-twice", "x-empty"}


async def test_utf_8_passes(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(reply(b"{}", "X-Text: caf\xc3\xa9"))
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", "X-Text: na\xc3\xafve"))
    assert (await upstream.request()).head.get("X-Text") == "na\xc3\xafve"
    assert answer.head.get("X-Text") == "caf\xc3\xa9"


async def test_other_bytes_pass_or_are_refused_but_never_altered(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.replies(reply(b"{}", "X-Text: caf\xe9"))
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("/"))).head.get("X-Text") == "caf\xe9"
        answer = await client.exchange(get("/", "X-Text: na\xefve"))
    if answer.status == 400:
        assert details(answer) == "malformed_request"
    else:
        assert (await upstream.request(1)).head.get("X-Text") == "na\xefve"


async def test_local_reply_says_nothing_of_the_server_software(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_closes(b"")
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/"))
    assert not re.search("aiohttp|python", str(answer.head), re.IGNORECASE)
    assert b"aiohttp" not in answer.body.lower()
