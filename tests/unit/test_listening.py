from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.listening import Reserved, listen, listen_shared
from proxy.values import TCPAddress, UnixAddress


@contextlib.asynccontextmanager
async def serving(text: str) -> AsyncIterator[web.AppRunner]:
    """A runner that answers everything with `text`."""

    async def say(request: web.Request) -> web.Response:
        return web.Response(text=text)

    application = web.Application()
    application.router.add_get("/", say)
    made = web.AppRunner(application)
    await made.setup()
    yield made
    await made.cleanup()


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    async with serving("hello") as made:
        yield made


@pytest.fixture
def reserved() -> Iterator[Reserved]:
    made = Reserved()
    yield made
    made.close()


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


async def answers(place: TCPAddress | UnixAddress) -> str:
    connector = aiohttp.UnixConnector(place.path) if isinstance(place, UnixAddress) else None
    return await answer("http://host" if connector else f"http://{place}", connector)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_reserved_port_can_be_shared(reserved: Reserved, host: str) -> None:
    place = reserved.reserve(TCPAddress(host, 0))
    assert isinstance(place, TCPAddress)
    assert place.port != 0
    heard = set()
    async with serving("one") as one, serving("other") as other:
        for sharing in (one, other):
            assert await listen_shared({})(sharing, place) == place
        while len(heard) < 2:  # whose turn it is, the kernel says
            heard.add(await answers(place))
    assert heard == {"one", "other"}


async def test_a_reserved_port_is_still_had_after_all_who_shared_it_are_gone(reserved: Reserved) -> None:
    place = reserved.reserve(TCPAddress("127.0.0.1", 0))
    for text in ("first", "second"):
        async with serving(text) as runner:
            await listen_shared({})(runner, place)
            assert await answers(place) == text


async def test_nobody_is_connected_to_a_port_that_is_only_reserved(reserved: Reserved) -> None:
    place = reserved.reserve(TCPAddress("127.0.0.1", 0))
    with pytest.raises(aiohttp.ClientConnectionError):
        await answers(place)


def test_each_address_of_a_host_gets_the_one_port(reserved: Reserved) -> None:
    place = reserved.reserve(TCPAddress("localhost", 0))
    again = Reserved()
    assert again.reserve(place) == place
    again.close()


async def test_a_reserved_unix_socket_can_be_shared(reserved: Reserved, tmp_path: Path) -> None:
    place = UnixAddress(str(tmp_path / "socket"))
    assert reserved.reserve(place) == place
    inherited = {path: socket.dup() for path, socket in reserved.inherited.items()}  # as another process has it
    async with serving("other") as other:
        await listen_shared(reserved.inherited)(other, place)
        async with serving("one") as one:
            await listen_shared(inherited)(one, place)
        assert await answers(place) == "other"


def test_the_unix_socket_that_an_earlier_process_left_is_replaced(reserved: Reserved, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as earlier:
        earlier.bind(path)
    reserved.reserve(UnixAddress(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_what_is_no_socket_is_left_alone(reserved: Reserved, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        reserved.reserve(UnixAddress(str(file)))
    assert file.read_text() == "precious"


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_listens_on_is_not_shared_with_him(reserved: Reserved, shared: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=shared) as taken:
        place = TCPAddress("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match=f"127.0.0.1:{place.port}: Address already in use"):
            reserved.reserve(place)
    assert reserved.reserve(place) == place


def test_what_was_reserved_is_free_again(reserved: Reserved, tmp_path: Path) -> None:
    tcp, unix = reserved.reserve(TCPAddress("127.0.0.1", 0)), UnixAddress(str(tmp_path / "socket"))
    assert isinstance(tcp, TCPAddress)
    reserved.reserve(unix)
    reserved.close()
    with socket.create_server((tcp.host, tcp.port)):
        pass
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(unix.path)
