"""The upstream's credential replaces the client's, and neither is ever written anywhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get
from rigs.raw_upstream import RawUpstream

KEY = "sk-upstream-0123456789"
CLIENT_KEY = "sk-client-9876543210"
CLIENT_FIELDS = (
    f"Authorization: Bearer {CLIENT_KEY}",
    *(f"{name}: {CLIENT_KEY}" for name in ("x-api-key", "x-goog-api-key", "api-key")),
)


PLACES = {
    "authorization": ("Authorization", f"Bearer {KEY}"),
    "x-api-key": ("x-api-key", KEY),
    "x-goog-api-key": ("x-goog-api-key", KEY),
    "api-key": ("api-key", KEY),
    "query:key": None,
}


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock, upstream_socket: socket.socket) -> Penstock:
    """An upstream, with a route that begins with its number, for each place where a credential can stand."""
    url = f"http://127.0.0.1:{upstream_socket.getsockname()[1]}"
    upstreams = {
        f"to-{number}": {"url": url, "credential": "env:MODEL_KEY", "credential_header": place}
        for number, place in enumerate(PLACES)
    }
    routes = {name: {"path": f"/{name}", "rewrite": "/", "upstream": name} for name in upstreams}
    return penstock({"upstreams": upstreams, "routes": routes, "log": {"level": "debug"}}, MODEL_KEY=KEY)


@pytest.mark.parametrize(("number", "field"), list(enumerate(PLACES.values())), ids=list(PLACES))
async def test_configured_credential_replaces_the_clients(
    proxy: Penstock, upstream: RawUpstream, number: int, field: tuple[str, str] | None
) -> None:
    async with connect(proxy.address) as client:
        asked = f"/to-{number}/v1/x?key={CLIENT_KEY}&alt=sse&%6bey={CLIENT_KEY}&n=1"
        answer = await client.exchange(get(asked, *CLIENT_FIELDS, f"X-Request-Id: replaced-{number}"))
    request = await upstream.request()
    if field is not None:
        assert request.target == "/v1/x?alt=sse&n=1"
        assert request.head.get(field[0]) == field[1]
    else:
        assert request.target == f"/v1/x?alt=sse&n=1&key={KEY}"
    assert CLIENT_KEY not in str(request)
    assert KEY not in str(answer)
    await proxy.log.find(id=f"replaced-{number}")
    assert KEY not in proxy.output
    assert CLIENT_KEY not in proxy.output


async def test_credential_from_a_file(penstock: StartPenstock, upstream: RawUpstream, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    proxy = penstock({"upstreams": {"model": {"credential": f"file:{tmp_path / 'key'}"}}})
    async with connect(proxy.address) as client:
        await client.exchange(get("/"))
    assert (await upstream.request()).head.get("Authorization") == f"Bearer {KEY}"


async def test_without_a_configured_credential_the_clients_passes(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.exchange(get(f"/?key={CLIENT_KEY}", *CLIENT_FIELDS, "X-Request-Id: own"))
    request = await upstream.request()
    assert request.target == f"/?key={CLIENT_KEY}"
    assert str(request).count(CLIENT_KEY) == 1 + len(CLIENT_FIELDS)
    await proxy.log.find(id="own")
    assert CLIENT_KEY not in proxy.output


@pytest.mark.parametrize("number", range(len(PLACES)))
async def test_secrets_stay_out_of_failures(proxy: Penstock, upstream: RawUpstream, number: int) -> None:
    upstream.script = raw_upstream.then_resets(b"")
    asked = f"/to-{number}/?key={CLIENT_KEY}&q={CLIENT_KEY}"
    async with connect(proxy.address) as client:
        answer = await client.exchange(get(asked, *CLIENT_FIELDS, f"X-Request-Id: failing-{number}"))
    assert answer.status == 502
    await proxy.log.find(id=f"failing-{number}")
    for text in (proxy.output, str(answer)):
        assert KEY not in text
        assert CLIENT_KEY not in text
