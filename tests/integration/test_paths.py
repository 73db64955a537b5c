"""Which route a request takes, and that no spelling of a path or host takes it past the route that was meant for it."""

from __future__ import annotations

import pytest
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get
from rigs.raw_upstream import RawUpstream
from rigs.wire import details

PUBLIC_ONLY = {"routes": {"all": {"path": "/public", "rewrite": "/safe"}}}


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock()


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("/v1/models", "/v1/models"),
        ("/", "/"),
        ("/v1/models/", "/v1/models/"),
        ("//v1//models", "/v1/models"),
        ("/v1/./models", "/v1/models"),
        ("/v1/x/../models", "/v1/models"),
        ("/v1/x/..", "/v1/"),
        ("/v1/%6dodels", "/v1/models"),
        ("/v1/%2e%2E/models", "/models"),
        ("/v1/.%2e/models", "/models"),
        ("/v1/%7Ea%c3%a9", "/v1/~a%C3%A9"),
        ("/v1/a%20b%25", "/v1/a%20b%25"),
        ("/v1/models/a:b@c;v=1,2", "/v1/models/a:b@c;v=1,2"),
        ("/...", "/..."),
        ("/v1/%252e%252e/x", "/v1/%252e%252e/x"),
    ],
)
async def test_path_is_sent_in_its_one_spelling(proxy: Penstock, upstream: RawUpstream, asked: str, sent: str) -> None:
    async with connect(proxy.address) as client:
        assert (await client.exchange(get(asked))).status == 200
    assert (await upstream.request()).target == sent


@pytest.mark.parametrize(
    "asked",
    [
        "/v1/..%2fadmin",
        "/v1%2Fmodels",
        "/v1/..%5cadmin",
        "/v1\\models",
        "/v1/%00",
        "/v1/a%0d%0aX-Injected:%201",
        "/v1/%7f",
        "/../etc/passwd",
        "/v1/../../x",
        "/v1/%zz",
        "/v1/%",
        "/v1/%2",
        "/v1/..;/admin",
        "/v1/caf\xe9",
        "v1/models",
        "*",
    ],
)
async def test_ambiguous_path_is_refused(proxy: Penstock, upstream: RawUpstream, asked: str) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(get(asked))
    assert answer.status == 400
    assert details(answer) in ("malformed_path", "malformed_request")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "asked",
    [
        "/private",
        "/",
        "/public/../private",
        "/public/%2e%2e/private",
        "/publicity",
        "//private",
        "/PUBLIC/x",
        "/public./x",
    ],
)
async def test_no_spelling_leads_past_the_routes(penstock: StartPenstock, upstream: RawUpstream, asked: str) -> None:
    proxy = penstock(PUBLIC_ONLY)
    async with connect(proxy.address) as client:
        answer = await client.exchange(get(asked, "X-Request-Id: lost"))
    assert (answer.status, details(answer)) == (404, "no_route")
    assert upstream.requests == []
    record = await proxy.log.find(id="lost")
    assert (record["outcome"], record["details"]) == ("refused", "no_route")


@pytest.mark.parametrize("asked", ["/public/x", "//public/x", "/private/../public/x", "/%70ublic/x", "/public//x"])
async def test_every_spelling_leads_to_the_route(penstock: StartPenstock, upstream: RawUpstream, asked: str) -> None:
    async with connect(penstock(PUBLIC_ONLY).address) as client:
        assert (await client.exchange(get(asked))).status == 200
    assert (await upstream.request()).target == "/safe/x"


async def test_longest_prefix_and_own_host_win(penstock: StartPenstock, upstream: RawUpstream) -> None:
    routes = {
        "all": {"rewrite": "/all"},
        "v1": {"path": "/v1", "upstream": "model", "rewrite": "/v1-of-all"},
        "chat": {"path": "/v1/chat", "upstream": "model", "rewrite": "/chat-of-all"},
        "own": {"path": "/", "hosts": ["api.test"], "upstream": "model", "rewrite": "/own"},
    }
    async with connect(penstock({"routes": routes}).address) as client:
        for asked, host in [
            ("/x", "other.test"),
            ("/v1/x", "other.test"),
            ("/v1/chat/x", "other.test"),
            ("/v1/chatter", "other.test"),
            ("/v1/chat", "API.test:8080"),
        ]:
            assert (await client.exchange(get(asked, host=host))).status == 200
    sent = ["/all/x", "/v1-of-all/x", "/chat-of-all/x", "/v1-of-all/chatter", "/own/v1/chat"]
    assert [request.target for request in upstream.requests] == sent


async def test_unknown_host_is_misdirected(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"routes": {"all": {"hosts": ["api.test"]}}})
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("/", host="api.test"))).status == 200
        answer = await client.exchange(get("/", host="evil.test"))
    assert (answer.status, details(answer)) == (421, "unknown_host")
    assert len(upstream.requests) == 1
