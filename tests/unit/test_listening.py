from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.listening import listen
from proxy.values import TCPAddress, UnixAddress


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", hello)
    made = web.AppRunner(application)
    await made.setup()
    yield made
    await made.cleanup()


async def answer(base_url: str, connector: aiohttp.BaseConnector | None = None) -> str:
    async with aiohttp.ClientSession(base_url, connector=connector) as session, session.get("/") as response:
        return await response.text()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_port_0_is_answered_with_the_port(runner: web.AppRunner, host: str) -> None:
    place = await listen(runner, TCPAddress(host, 0))
    assert isinstance(place, TCPAddress)
    assert place.host == host
    assert place.port != 0
    assert await answer(f"http://{place}") == "hello"


async def test_each_of_several_addresses_is_told_its_own_port(runner: web.AppRunner) -> None:
    places = [await listen(runner, TCPAddress("127.0.0.1", 0)) for _ in range(3)]
    assert len(set(places)) == 3
    assert [await answer(f"http://{place}") for place in places] == ["hello"] * 3


async def test_a_unix_socket(runner: web.AppRunner, tmp_path: Path) -> None:
    address = UnixAddress(str(tmp_path / "socket"))
    assert await listen(runner, address) == address
    assert await answer("http://host", aiohttp.UnixConnector(address.path)) == "hello"


async def test_an_address_that_cannot_be_had(runner: web.AppRunner) -> None:
    place = await listen(runner, TCPAddress("127.0.0.1", 0))
    with pytest.raises(OSError, match="in use"):
        await listen(runner, place)


async def test_the_runners_cleanup_gives_the_address_back(runner: web.AppRunner) -> None:
    place = await listen(runner, TCPAddress("127.0.0.1", 0))
    await runner.cleanup()
    with pytest.raises(aiohttp.ClientConnectorError):
        await answer(f"http://{place}")
