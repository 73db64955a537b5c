"""`cors` over the wire: preflights, replies of the upstream, and the proxy's own replies, readable by a browser."""

from __future__ import annotations

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get, post
from rigs.raw_upstream import RawUpstream, reply
from rigs.wire import details

ORIGIN = "Origin: https://app.example.test"
PREFLIGHT = (
    ORIGIN,
    "Access-Control-Request-Method: POST",
    "Access-Control-Request-Headers: authorization, x-stainless-os",
)


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    allow = ["https://app.example.test", "https://*.preview.test"]
    return penstock(
        {
            "policy": [{"use": "cors", "allow_origins": allow}],
            "limits": {"body_bytes": 1000},
            "routes": {"all": {"path": "/v1"}},
        }
    )


async def test_preflight_is_answered_here(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(
            get("/v1/chat/completions", *PREFLIGHT, "X-Request-Id: preflight", method="OPTIONS")
        )
    assert answer.status == 204
    assert answer.head.get("Access-Control-Allow-Origin") == "https://app.example.test"
    assert "POST" in (answer.head.get("Access-Control-Allow-Methods") or "")
    allowed = (answer.head.get("Access-Control-Allow-Headers") or "").lower().replace(" ", "").split(",")
    assert {"authorization", "x-stainless-os"} <= set(allowed)
    assert "origin" in (answer.head.get("Vary") or "").lower()
    assert upstream.requests == []
    record = await proxy.log.find(id="preflight")
    assert (record["outcome"], record["source"], record["status"]) == ("complete", "cors", 204)


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "https://app.example.test.evil.test", "null", "https://preview.test"]
)
async def test_other_origins_get_nothing(proxy: Penstock, upstream: RawUpstream, origin: str) -> None:
    async with connect(proxy.address) as client:
        preflight = await client.exchange(get("/v1/x", f"Origin: {origin}", PREFLIGHT[1], method="OPTIONS"))
        answer = await client.exchange(get("/v1/x", f"Origin: {origin}"))
    assert preflight.status == 403
    for head in (preflight.head, answer.head):
        assert head.get("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize(
    "fields",
    [
        ("Access-Control-Allow-Origin: ",),  # llama.cpp's, without an Origin
        ("Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true"),
        ("Access-Control-Allow-Origin: https://evil.test", "Access-Control-Expose-Headers: X-Secret"),
        ("Access-Control-Allow-Origin: a", "Access-Control-Allow-Origin: b"),
    ],
)
async def test_upstreams_own_fields_are_replaced(
    proxy: Penstock, upstream: RawUpstream, fields: tuple[str, ...]
) -> None:
    upstream.script = raw_upstream.replies(reply(b"{}", *fields, "Vary: Accept"))
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/v1/x", ORIGIN))
    assert answer.head.get("Access-Control-Allow-Origin") == "https://app.example.test"
    assert answer.head.get("Access-Control-Allow-Credentials") is None
    assert "X-Secret" not in (answer.head.get("Access-Control-Expose-Headers") or "")
    assert {"accept", "origin"} <= {name.strip().lower() for name in (answer.head.get("Vary") or "").split(",")}


async def test_pattern(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/v1/x", "Origin: https://pr-7.preview.test"))
    assert answer.head.get("Access-Control-Allow-Origin") == "https://pr-7.preview.test"


async def test_local_replies_can_be_read_by_a_page(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_closes(b"")
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b"{}", ORIGIN))
    assert details(answer) == "upstream_reset"
    assert answer.head.get("Access-Control-Allow-Origin") == "https://app.example.test"


async def test_refusal_of_a_later_policy_can_be_read_by_a_page(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"policy": [{"use": "cors", "allow_origins": ["*"]}, {"use": "rig_refuse"}]})
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b"{}", ORIGIN))
    assert (answer.status, details(answer)) == (429, "rig_refused")
    assert answer.head.get("Access-Control-Allow-Origin") == "*"
    assert answer.head.get("Retry-After") == "7"
    assert "retry-after" in (answer.head.get("Access-Control-Expose-Headers") or "").lower()


async def test_stream_with_cors(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*raw_upstream.CHAT_EVENTS)
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b'{"stream":true}', ORIGIN))
    assert answer.head.get("Access-Control-Allow-Origin") == "https://app.example.test"
    assert answer.body == b"".join(raw_upstream.CHAT_EVENTS)
