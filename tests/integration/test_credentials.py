"""The upstream's credential replaces the client's, and neither is ever written anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs import raw_upstream
from rigs.penstock import StartPenstock
from rigs.raw_client import connect, get
from rigs.raw_upstream import RawUpstream

KEY = "sk-upstream-0123456789"
CLIENT_KEY = "sk-client-9876543210"
CLIENT_FIELDS = (
    f"Authorization: Bearer {CLIENT_KEY}",
    *(f"{name}: {CLIENT_KEY}" for name in ("x-api-key", "x-goog-api-key", "api-key")),
)


@pytest.mark.parametrize(
    ("place", "field", "target"),
    [
        ("authorization", ("Authorization", f"Bearer {KEY}"), "/v1/x?alt=sse&n=1"),
        ("x-api-key", ("x-api-key", KEY), "/v1/x?alt=sse&n=1"),
        ("x-goog-api-key", ("x-goog-api-key", KEY), "/v1/x?alt=sse&n=1"),
        ("api-key", ("api-key", KEY), "/v1/x?alt=sse&n=1"),
        ("query:key", None, f"/v1/x?alt=sse&n=1&key={KEY}"),
    ],
)
async def test_configured_credential_replaces_the_clients(
    penstock: StartPenstock, upstream: RawUpstream, place: str, field: tuple[str, str] | None, target: str
) -> None:
    proxy = penstock(
        {
            "upstreams": {"model": {"credential": "env:MODEL_KEY", "credential_header": place}},
            "log": {"level": "debug"},
        },
        MODEL_KEY=KEY,
    )
    async with connect(proxy.address) as client:
        asked = f"/v1/x?key={CLIENT_KEY}&alt=sse&%6bey={CLIENT_KEY}&n=1"
        answer = await client.exchange(get(asked, *CLIENT_FIELDS, "X-Request-Id: replaced"))
    request = await upstream.request()
    assert request.target == target
    if field is not None:
        assert request.head.get(field[0]) == field[1]
    assert CLIENT_KEY not in str(request)
    assert KEY not in str(answer)
    await proxy.log.find(id="replaced")
    assert KEY not in proxy.output
    assert CLIENT_KEY not in proxy.output


async def test_credential_from_a_file(penstock: StartPenstock, upstream: RawUpstream, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    proxy = penstock({"upstreams": {"model": {"credential": f"file:{tmp_path / 'key'}"}}})
    async with connect(proxy.address) as client:
        await client.exchange(get("/"))
    assert (await upstream.request()).head.get("Authorization") == f"Bearer {KEY}"


async def test_without_a_configured_credential_the_clients_passes(
    penstock: StartPenstock, upstream: RawUpstream
) -> None:
    proxy = penstock({"log": {"level": "debug"}})
    async with connect(proxy.address) as client:
        await client.exchange(get(f"/?key={CLIENT_KEY}", *CLIENT_FIELDS, "X-Request-Id: own"))
    request = await upstream.request()
    assert request.target == f"/?key={CLIENT_KEY}"
    assert str(request).count(CLIENT_KEY) == 1 + len(CLIENT_FIELDS)
    await proxy.log.find(id="own")
    assert CLIENT_KEY not in proxy.output


async def test_secrets_stay_out_of_failures(penstock: StartPenstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_resets(b"")
    model = {"credential": "env:MODEL_KEY", "credential_header": "query:key"}
    proxy = penstock({"upstreams": {"model": model}, "log": {"level": "debug"}}, MODEL_KEY=KEY)
    async with connect(proxy.address) as client:
        answer = await client.exchange(
            get(f"/?key={CLIENT_KEY}&q={CLIENT_KEY}", *CLIENT_FIELDS, "X-Request-Id: failing")
        )
    assert answer.status == 502
    await proxy.log.find(id="failing")
    for text in (proxy.output, str(answer)):
        assert KEY not in text
        assert CLIENT_KEY not in text
