"""Client connections on aiohttp's public API: when a head is awaited, when nothing is, and what is found out too late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rigs.aiohttp_paths import told
from rigs.penstock import configuration, toml
from rigs.raw_client import RawClient, connect, get, post
from rigs.raw_upstream import RawUpstream, listen, replies, reply, then_stalls
from rigs.waiting import until
from rigs.wire import details

from proxy.config import load
from proxy.downstream import Connection
from proxy.portable_downstream import PortableConnection
from proxy.server import Server
from proxy.values import TCPAddress


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    with listen() as listener:
        async with RawUpstream(listener) as server:
            server.script = replies(reply(b"{}"))
            yield server


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that were made."""
    connections: list[Connection] = []
    connected = Server.connected

    def watched(self: Server, connection: Connection) -> bool:
        connections.append(connection)
        return connected(self, connection)

    monkeypatch.setattr(Server, "connected", watched)
    return connections


@pytest.fixture
async def client(upstream: RawUpstream, made: list[Connection], tmp_path: Path) -> AsyncIterator[RawClient]:
    tables = {"server": {"aiohttp": "portable"}, "limits": {"body_s": 0.1}, "log": {"access": False}}
    (tmp_path / "penstock.toml").write_text(toml(configuration(upstream.url, tables)))
    async with Server(load(tmp_path / "penstock.toml")) as server:
        bound = server.addresses["main"]
        assert isinstance(bound, TCPAddress)
        async with connect((bound.host, bound.port)) as connected:
            yield connected


async def test_it_is_made_where_it_is_wanted(client: RawClient, made: list[Connection]) -> None:
    assert (await client.exchange(post("/", b"{}"))).body == b"{}"
    assert [type(connection) for connection in made] == [PortableConnection]
    assert (made[0].client, made[0].raw_transport is not None) == ("127.0.0.1", True)


async def test_a_head_is_awaited_from_the_start_and_then_from_its_first_byte(
    client: RawClient, made: list[Connection]
) -> None:
    await until(lambda: made, "the connection")
    (connection,) = made
    assert connection.head_since is not None
    await client.exchange(get("/"))
    await until(lambda: connection.idle, "the end of the exchange")
    assert connection.head_since is None
    await client.send(b"\r\n")  # that is nothing (RFC 9112 §2.2)
    await client.exchange(get("/"))
    await until(lambda: connection.idle, "the end of the exchange")
    await client.send(b"G")
    began = await until(lambda: connection.head_since, "the first byte")
    assert began <= asyncio.get_running_loop().time()
    assert not connection.idle
    await client.send(get("/").removeprefix(b"G"))
    await client.reply()
    assert connection.head_since is None


async def test_a_connection_with_a_request_is_not_idle(
    client: RawClient, upstream: RawUpstream, made: list[Connection]
) -> None:
    upstream.script = then_stalls(b"")
    await client.send(get("/"))
    await upstream.request()
    assert not made[0].idle


async def test_a_body_that_is_badly_framed_ends_like_one_that_does_not_come(
    client: RawClient, upstream: RawUpstream
) -> None:
    upstream.script = then_stalls(b"")
    await client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    await until(lambda: upstream.connections, "the request")
    await client.send(b"zz\r\n")
    assert details(await client.reply()) == told("portable", "a request body that is badly framed", "malformed_body")


async def test_a_connection_over_the_cap_is_not_read(
    upstream: RawUpstream, made: list[Connection], tmp_path: Path
) -> None:
    tables = {"server": {"aiohttp": "portable"}, "limits": {"connections": 1}, "log": {"access": False}}
    (tmp_path / "penstock.toml").write_text(toml(configuration(upstream.url, tables)))
    async with Server(load(tmp_path / "penstock.toml")) as server:
        bound = server.addresses["main"]
        assert isinstance(bound, TCPAddress)
        async with connect((bound.host, bound.port)) as first:
            await first.exchange(get("/"))
            async with connect((bound.host, bound.port)) as second:
                await second.send(get("/"))
                assert details(await second.reply()) == "too_many_connections"
    assert len(upstream.requests) == 1
