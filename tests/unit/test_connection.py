"""Client connections: what whoever keeps them is told; and on aiohttp's public API, when a head is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
from aiohttp import web
from rigs.aiohttp_paths import told
from rigs.connections import Scene, Transport, Watcher
from rigs.penstock import configuration, toml
from rigs.raw_client import RawClient, connect, get, post
from rigs.raw_upstream import RawUpstream, replies, reply, then_stalls
from rigs.waiting import until
from rigs.wire import details

from proxy import takeover
from proxy.config import load
from proxy.connection import CLOSES, STAYS, Connection
from proxy.server import Server
from proxy.values import TCPAddress


@pytest.fixture(params=[Connection, takeover.Connection], ids=["portable", "takeover"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    scene = Scene(request.param)
    yield scene
    await scene.end()


async def test_aiohttp_has_nothing_left_to_do() -> None:
    assert STAYS.keep_alive
    assert await STAYS.prepare(cast(web.BaseRequest, None)) is None
    await STAYS.write_eof()
    assert not CLOSES.keep_alive


async def test_a_connection_is_announced_and_signed_off(scene: Scene) -> None:
    scene.connect()
    assert scene.connection.client == "192.0.2.7"
    assert scene.connection.head_since == pytest.approx(asyncio.get_running_loop().time(), abs=60)
    assert scene.transport.high == 1234
    scene.leave()
    assert scene.keeper.told == ["connected 192.0.2.7", "disconnected"]


@pytest.mark.parametrize("peer", ["", "/run/socket", None])
async def test_a_unix_socket_has_no_address(scene: Scene, peer: object) -> None:
    scene.transport = Transport(peer)
    assert scene.connect().connection.client == ""


async def test_a_refused_connection_is_not_read(scene: Scene) -> None:
    scene.keeper.stays = False
    scene.connect().connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await scene.turn()
    assert scene.keeper.requests == []


async def test_a_full_buffer_is_told_to_whoever_watches(scene: Scene) -> None:
    connection, watcher = scene.connect().connection, Watcher()
    connection.pause_writing()
    connection.resume_writing()
    connection.watcher = watcher
    connection.pause_writing()
    assert connection.writing_paused
    connection.resume_writing()
    assert watcher.told == ["unwritable", "writable"]


BAD_HEADS = {
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed_request"),
    "no colon": (b"GET / HTTP/1.1\r\nHost\r\n\r\n", "malformed_request"),
    "two lengths": (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "malformed_request"),
    "a long target": (b"GET /" + b"x" * 200 + b" HTTP/1.1\r\n\r\n", "uri_too_long"),
    "a long target in absolute form": (b"GET http://h/" + b"x" * 200 + b" HTTP/1.1\r\n\r\n", "uri_too_long"),
    "a long field": (b"GET / HTTP/1.1\r\nX: " + b"x" * 300 + b"\r\n\r\n", "head_too_large"),
    "a long name": (b"GET / HTTP/1.1\r\n" + b"x" * 300 + b": x\r\n\r\n", "head_too_large"),
    "many fields": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 9 + b"\r\n", "head_too_large"),
}


@pytest.mark.parametrize(("data", "details"), BAD_HEADS.values(), ids=list(BAD_HEADS))
async def test_what_cannot_be_parsed_is_refused_by_name(scene: Scene, data: bytes, details: str) -> None:
    scene.connect().connection.data_received(data)
    await scene.turn()
    assert scene.keeper.told[1:] == [details]
    assert scene.transport.end == "close"


async def test_a_handler_that_fails_is_answered_for(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.keeper.fails = True
    scene.connect().connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await scene.turn()
    assert scene.keeper.told[1:] == ["internal_error"]
    assert [(record.name, record.levelname) for record in caplog.records] == [("proxy.connection", "ERROR")]


async def test_a_bad_request_does_not_spoil_the_one_before_it(scene: Scene) -> None:
    connection = scene.connect().connection
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    await scene.turn()
    connection.data_received(b"nonsense\r\n\r\n")
    await scene.turn()
    assert scene.keeper.told[1:] == []
    scene.keeper.answer.set()
    await scene.turn()
    assert scene.keeper.told[1:] == ["malformed_request"]


async def test_pipelined_requests_are_answered_in_turn(scene: Scene) -> None:
    connection = scene.connect().connection
    connection.data_received(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    await scene.turn()
    assert [request.path for request in scene.keeper.requests] == ["/1"]
    scene.keeper.answer.set()
    await scene.turn()
    assert [request.path for request in scene.keeper.requests] == ["/1", "/2"]


async def test_more_pipelined_requests_than_are_kept_wait_in_the_socket(scene: Scene) -> None:
    connection = scene.connect().connection
    for _ in range(100):
        connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await scene.turn()
    scene.keeper.answer.set()
    for _ in range(100):
        await scene.turn()
    assert len(scene.keeper.requests) == 100


async def test_an_answer_that_ends_the_connection_closes_it(scene: Scene) -> None:
    scene.keeper.stays_open = False
    scene.keeper.answer.set()
    connection = scene.connect().connection
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    await scene.turn()
    assert scene.transport.end == "close"
    assert len(scene.keeper.requests) == 1
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await scene.turn()
    assert len(scene.keeper.requests) == 1


async def test_a_body_that_nobody_reads_is_skipped_before_the_next_request(scene: Scene) -> None:
    scene.keeper.reads = False
    scene.keeper.answer.set()
    connection = scene.connect().connection
    connection.data_received(b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    await scene.turn()
    connection.data_received(b"cdGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    await scene.turn()
    assert [request.path for request in scene.keeper.requests] == ["/1", "/2"]
    assert scene.transport.end == ""


async def test_a_body_that_cannot_be_skipped_in_time_ends_the_connection(scene: Scene) -> None:
    scene.keeper.reads = False
    scene.keeper.answer.set()
    connection = scene.serve(lingering_time=0.0).connect().connection
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1")
    await until(lambda: scene.transport.end, "the end")
    assert scene.transport.end == "close"


async def test_whoever_answers_is_told_that_the_client_is_gone(scene: Scene) -> None:
    scene.connect().connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await scene.turn()
    scene.leave()
    await scene.turn()
    assert scene.keeper.told[1:] == ["disconnected", "cancelled"]


# On aiohttp's public API


@pytest.fixture
def upstream(upstream: RawUpstream) -> RawUpstream:
    upstream.script = replies(reply(b"{}"))
    return upstream


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
    assert [type(connection) for connection in made] == [Connection]
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
