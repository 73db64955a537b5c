"""The admin listener: alive, ready, metrics. On a port of its own, so that clients never see it."""

from __future__ import annotations

import httpx
import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get, post
from rigs.raw_upstream import CHAT_EVENTS, RawUpstream
from rigs.waiting import until


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock({"policy": [{"use": "rig_watch"}]})


async def metrics(proxy: Penstock) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=proxy.admin_url) as client:
        text = (await client.get("/metrics")).text
    samples = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_alive_and_ready(proxy: Penstock, path: str) -> None:
    async with httpx.AsyncClient(base_url=proxy.admin_url) as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_clients_do_not_see_it(proxy: Penstock, upstream: RawUpstream, path: str) -> None:
    async with connect(proxy.address) as client:
        await client.exchange(get(path))
    assert (await upstream.request()).target == path  # it is a path of the model server's like any other


async def test_exchanges_are_counted(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.streams(*CHAT_EVENTS)
    count = 'penstock_exchanges_total{outcome="complete",route="all",status_class="2xx",upstream="model"}'
    before = (await metrics(proxy)).get(count, 0.0)
    async with connect(proxy.address) as client:
        await client.exchange(post("/v1/chat/completions", b'{"stream":true}', "X-Request-Id: counted"))
    await proxy.log.find(id="counted")
    after = await metrics(proxy)
    assert after[count] == before + 1
    where = '{route="all",upstream="model"}'
    assert after[f"penstock_events_total{where}"] >= len(CHAT_EVENTS)
    assert after[f"penstock_ttft_seconds_count{where}"] >= 1
    assert after['penstock_active_exchanges{route="all"}'] == 0


async def test_what_is_open_is_shown(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_stalls(b"")
    async with connect(proxy.address) as client:
        await client.send(get("/"))
        await upstream.request()
        shown = await metrics(proxy)
        assert shown['penstock_active_exchanges{route="all"}'] == 1
        assert shown["penstock_open_connections"] >= 1
    await upstream.idle()


async def test_labels_are_bounded(proxy: Penstock, upstream: RawUpstream) -> None:
    for number in range(50):
        async with connect(proxy.address) as client:
            fields = (f"User-Agent: agent-{number}", f"X-Request-Id: series-{number}")
            await client.exchange(get(f"/path-{number}", *fields, host=f"host-{number}"))
    await proxy.log.find(id="series-49")
    series = await metrics(proxy)
    assert not [name for name in series if "-4" in name]
    assert len(series) < 300


async def test_can_be_turned_off(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"admin": {"address": ""}})
    await until(lambda: "main" in proxy.addresses, "the main listener")
    assert set(proxy.addresses) == {"main"}
