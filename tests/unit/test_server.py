"""One worker in this process, on free ports: what it lets in, what it records of each exchange, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rigs.doubles import Hooks, raising
from rigs.raw_client import RawClient, connect, get, post
from rigs.raw_upstream import (
    LAST_CHUNK,
    STREAM_HEAD,
    RawUpstream,
    UpstreamConnection,
    chunk,
    listen,
    replies,
    reply,
    then_stalls,
)
from rigs.waiting import until
from rigs.wire import details

from proxy import listening
from proxy.accesslog import AccessLog, Record
from proxy.assembly import Assembly
from proxy.config import (
    AdminConfig,
    Config,
    Limits,
    ListenerConfig,
    LogConfig,
    PolicyEntry,
    RouteConfig,
    ServerConfig,
    StateConfig,
    UpstreamConfig,
)
from proxy.connection import Connection
from proxy.errors import OutcomeKind
from proxy.exchange import Exchange
from proxy.messages import Request
from proxy.policy import Policy, PolicyConfig, PolicyStream, Sees, Stage
from proxy.relay import Relay
from proxy.server import Server
from proxy.values import TCPAddress

EVENT = b'data: {"text": "a"}\n\n'


class Clock:
    """The event loop's clock, which can be put forward: every timer that is due then rings at once. That includes those
    of the rigs, which give up after `waiting.LIMIT_S`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ahead = 0.0
        self._time = loop.time
        loop.time = self.time  # type: ignore[method-assign]

    def time(self) -> float:
        return self._time() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
async def clock() -> Clock:
    return Clock(asyncio.get_running_loop())


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """What is written to the access log."""
    written: list[Record] = []
    monkeypatch.setattr(AccessLog, "write", lambda self, record: written.append(record))
    return written


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The server's side of every connection that was made."""
    made: list[Connection] = []
    connected = Server.connected

    def note(self: Server, connection: Connection) -> bool:
        made.append(connection)
        return connected(self, connection)

    monkeypatch.setattr(Server, "connected", note)
    return made


def configuration(
    upstream: RawUpstream,
    *policies: PolicyEntry,
    hosts: tuple[str, ...] = (),
    path: str = "/",
    admin: bool = False,
    server: dict[str, Any] | None = None,
    **limits: Any,
) -> Config:
    return Config(
        file="penstock.toml",
        data=b"",
        listeners={"main": ListenerConfig(address=TCPAddress("127.0.0.1", 0))},
        admin=AdminConfig(address=TCPAddress("127.0.0.1", 0) if admin else None),
        server=ServerConfig(**(server or {})),
        limits=Limits(**limits),
        log=LogConfig(),
        state=StateConfig(),
        upstreams={"model": UpstreamConfig(url=upstream.url)},
        routes={"all": RouteConfig(path=path, hosts=hosts, upstream="model")},
        policies=policies,
    )


def address_of(server: Server, name: str = "main") -> tuple[str, int]:
    address = server.addresses[name]
    assert isinstance(address, TCPAddress)
    return address.host, address.port


@contextlib.asynccontextmanager
async def client_of(config: Config) -> AsyncIterator[RawClient]:
    """A client of a fresh server with this configuration."""
    async with Server(config) as server, connect(address_of(server)) as client:
        yield client


def sample(server: Server, name: str, **labels: str) -> float:
    """The value of one metric; 0 where it was never touched."""
    _, page = server.metrics.expose("text/plain")
    for family in text_string_to_metric_families(page.decode()):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return found.value
    return 0.0


async def recorded(records: list[Record], count: int = 1) -> Record:
    """The last of `count` records, once it is written; there must be no more."""
    await until(lambda: len(records) >= count, f"{count} records")
    assert len(records) == count
    return records[-1]


async def streaming(connection: UpstreamConnection) -> None:
    """One event, and then silence."""
    await connection.request()
    await connection.send(STREAM_HEAD + chunk(EVENT))
    await connection.ended()


# Connections


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_connections_send_at_once_and_are_probed(
    factory: Callable[[], asyncio.AbstractEventLoop],
    connections: list[Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.server._SWEEP_S", 0.01)

    async def look() -> None:
        with listen() as listener:
            async with RawUpstream(listener) as upstream, client_of(configuration(upstream)):
                await until(lambda: connections, "the connection")
                transport = connections[0].raw_transport
                assert transport is not None
                accepted = transport.get_extra_info("socket")
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                await until(lambda: accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), "the kernel's probes")

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(look())


# What is recorded


async def test_an_exchange_is_recorded(upstream: RawUpstream, records: list[Record]) -> None:
    upstream.script = replies(reply(b'{"a": 1}', "Content-Type: application/json"))
    async with Server(configuration(upstream)) as server:
        async with connect(address_of(server)) as client:
            await client.exchange(post("/v1/models?key=secret", b"{}", "X-Request-Id: mine"))
        record = await recorded(records)
        assert sample(server, "penstock_active_exchanges", route="all") == 0
    assert (record.id, record.client, record.method, record.path) == ("mine", "127.0.0.1", "POST", "/v1/models")
    assert (record.route, record.upstream, record.dialect) == ("all", "model", "generic")
    assert (record.status, record.outcome, record.source, record.details) == (200, OutcomeKind.COMPLETE, "", "")
    assert (record.request_bytes, record.upstream_bytes, record.downstream_bytes) == (2, 8, 8)
    assert record.ttft_ms is not None
    assert 0 < record.ttft_ms <= record.duration_ms
    assert "secret" not in str(record)


async def test_an_exchange_that_runs_is_counted(upstream: RawUpstream, records: list[Record]) -> None:
    upstream.script = then_stalls(b"")
    async with Server(configuration(upstream, server={"drain_s": 0.0})) as server:
        async with connect(address_of(server)) as client:
            await client.send(get())
            await upstream.request()
            assert sample(server, "penstock_active_exchanges", route="all") == 1
            assert sample(server, "penstock_open_connections") == 1
        record = await recorded(records)
        assert sample(server, "penstock_active_exchanges", route="all") == 0
        await until(lambda: sample(server, "penstock_open_connections") == 0, "the connection's end")
    assert (record.outcome, record.status, record.ttft_ms) == (OutcomeKind.CLIENT_GONE, 499, None)


async def test_what_cannot_be_read_is_recorded_too(upstream: RawUpstream, records: list[Record]) -> None:
    async with Server(configuration(upstream)) as server:
        async with connect(address_of(server)) as client:
            answer = await client.exchange(b"nonsense\r\n\r\n")
            assert await client.read_to_end() == b""
        record = await recorded(records)
        assert sample(server, "penstock_active_exchanges", route="") == 0
    assert (answer.status, details(answer), answer.head.get("Connection")) == (400, "malformed_request", "close")
    assert (record.client, record.method, record.path, record.route) == ("127.0.0.1", "", "", "")
    assert (record.outcome, record.source, record.details) == (OutcomeKind.REFUSED, "parser", "malformed_request")
    assert record.id == answer.head.get("X-Request-Id")


class Spy(Policy[PolicyConfig]):
    """It gives every exchange the stream that the test has made."""

    stage = Stage.METER
    sees = Sees.EVENTS
    Config = PolicyConfig
    stream: PolicyStream

    async def admit(self, request: Request) -> PolicyStream:
        return self.stream


def spying(stream: PolicyStream, name: str = "spy") -> PolicyEntry:
    policy = type("SpyOn", (Spy,), {"stream": stream})
    return PolicyEntry(name, "spy", name, None, "close", policy, PolicyConfig())


async def test_facts_of_policies_are_recorded(upstream: RawUpstream, records: list[Record]) -> None:
    stream = Hooks()
    stream.facts = lambda: {"tokens": 7}  # type: ignore[method-assign]
    async with client_of(configuration(upstream, spying(stream))) as client:
        await client.exchange(get())
        record = await recorded(records)
    assert record.facts == {"spy": {"tokens": 7}}


async def test_what_a_policy_raises_is_logged_without_its_message(
    upstream: RawUpstream, records: list[Record], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise ValueError("Zanzibar-4711")

    stream = Hooks(events=fail)
    stream.facts = raising  # type: ignore[method-assign]
    upstream.script = replies(reply(b"{}", "Content-Type: application/json"))
    async with client_of(configuration(upstream, spying(stream))) as client:
        await client.exchange(get())
        await recorded(records)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 2
    assert all(line.startswith("policy spy failed: ") for line in said)
    assert "ValueError at test_server.py:" in said[0]
    assert "Zanzibar" not in caplog.text


async def test_without_an_access_log_there_are_only_metrics(upstream: RawUpstream, records: list[Record]) -> None:
    config = configuration(upstream)
    quiet = Config(**{**vars_of(config), "log": LogConfig(access=False)})
    async with Server(quiet) as server, connect(address_of(server)) as client:
        await client.exchange(get())
        labels = {"route": "all", "upstream": "model", "outcome": "complete", "status_class": "2xx"}
        await until(lambda: sample(server, "penstock_exchanges_total", **labels) == 1, "the exchange to be counted")
    assert records == []


def vars_of(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in Config.__slots__}


# What is let in


@pytest.mark.parametrize(
    ("request_bytes", "status", "refusal"),
    [
        (get("/elsewhere"), 404, "no_route"),
        (get("/v1", host="other.test"), 421, "unknown_host"),
        (get("/v1/%2e%2e%2f"), 400, "malformed_path"),
        (get("*", method="OPTIONS"), 400, "malformed_path"),
        (get("/v1", method="TRACE"), 405, "method_refused"),
        (get("proxy.test:80", method="CONNECT"), 405, "method_refused"),
        (b"GET /v1 HTTP/1.1\r\n\r\n", 400, "malformed_request"),
        (get("/v1", "Host: other.test"), 400, "malformed_request"),
        (get("/v1", host="user@proxy.test"), 400, "malformed_request"),
        (get("http://user@proxy.test/v1"), 400, "malformed_request"),
        (b"POST /v1 HTTP/1.0\r\nHost: proxy.test\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"),
        (get("/v1", "Connection: Upgrade", "Upgrade: websocket"), 501, "upgrade_refused"),
        (get("/v1", "Expect: the-unexpected"), 417, "expectation_failed"),
        (get("/v1", "Expect: 100-continue", "Expect: the-unexpected"), 417, "expectation_failed"),
        (get("/v1", "Transfer-Encoding: gzip, chunked", method="POST") + LAST_CHUNK, 501, "transfer_coding"),
    ],
)
async def test_what_no_route_allows_is_refused_before_any_policy(
    upstream: RawUpstream, records: list[Record], request_bytes: bytes, status: int, refusal: str
) -> None:
    config = configuration(upstream, spying(stream := Hooks()), hosts=("proxy.test",), path="/v1")
    async with client_of(config) as client:
        answer = await client.exchange(request_bytes)
        record = await recorded(records)
    assert (answer.status, details(answer)) == (status, refusal)
    assert (record.outcome, record.source, record.details) == (OutcomeKind.REFUSED, "parser", refusal)
    assert (answer.head.get("Allow") is not None) is (status == 405)
    assert (stream.told, upstream.requests) == ([], [])


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("proxy.test:80", method="CONNECT"),
        get("/", "Connection: Upgrade", "Upgrade: websocket"),
        get("/", "Transfer-Encoding: gzip, chunked", method="POST") + LAST_CHUNK,
    ],
    ids=["CONNECT", "Upgrade", "Transfer-Encoding"],
)
async def test_what_stands_behind_another_protocol_is_no_request(upstream: RawUpstream, request_bytes: bytes) -> None:
    async with client_of(configuration(upstream)) as client:
        answer = await client.exchange(request_bytes + get("/smuggled"))
        assert answer.head.get("Connection") == "close"
        assert await client.read_to_end() == b""
    assert upstream.requests == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/", "Transfer-Encoding: Chunked", method="POST") + LAST_CHUNK,
        b"GET /v1 HTTP/1.0\r\nHost: proxy.test\r\n\r\n",
        get("/v1", "Connection: Upgrade", "Upgrade: h2c"),
        get("/v1", "Connection: keep-alive"),
        get("/v1", host="PROXY.test:8080"),
    ],
)
async def test_what_may_pass_passes(upstream: RawUpstream, request_bytes: bytes) -> None:
    async with client_of(configuration(upstream, hosts=("proxy.test",))) as client:
        assert (await client.exchange(request_bytes)).status == 200


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("http://proxy.test/v1?a=b", "/v1?a=b"),
        ("http://proxy.test", "/"),
        ("http://proxy.test?a=b", "/?a=b"),
        ("http://proxy.test?a=/b", "/?a=/b"),
        ("HTTP://PROXY.TEST:80/v1", "/v1"),
        ("/v1?to=http://elsewhere/", "/v1?to=http://elsewhere/"),
    ],
)
async def test_the_host_of_an_absolute_target_counts(upstream: RawUpstream, target: str, sent: str) -> None:
    """RFC 9112 §3.2.2: the Host field is then ignored, so that it cannot choose another route."""
    async with client_of(configuration(upstream, hosts=("proxy.test",))) as client:
        host = "ignored.test" if "://" in target.partition("?")[0] else "proxy.test"
        assert (await client.exchange(get(target, host=host))).status == 200
        assert upstream.requests[0].target == sent
        assert upstream.requests[0].head.get("X-Forwarded-Host") in ("proxy.test", "PROXY.TEST:80")


async def test_the_host_field_is_no_way_around_an_absolute_target(upstream: RawUpstream) -> None:
    async with client_of(configuration(upstream, hosts=("proxy.test",))) as client:
        answer = await client.exchange(get("http://other.test/", host="proxy.test"))
        assert details(answer) == "unknown_host"


@pytest.mark.parametrize(("given", "kept"), [("mine-1", True), ("a b", False), ("x" * 200, False)])
async def test_a_request_id_is_the_same_everywhere(
    upstream: RawUpstream, records: list[Record], given: str, kept: bool
) -> None:
    async with client_of(configuration(upstream)) as client:
        answer = await client.exchange(get("/", f"X-Request-Id: {given}"))
        record = await recorded(records)
    assert record.id == answer.head.get("X-Request-Id") == upstream.requests[0].head.get("X-Request-Id")
    assert (record.id == given) is kept


# Bodies of requests


async def test_a_client_that_asks_is_told_to_go_on_when_its_body_is_read(
    upstream: RawUpstream, records: list[Record]
) -> None:
    async with client_of(configuration(upstream)) as client:
        await client.send(get("/", "Content-Length: 2", "Expect: 100-continue", method="POST"))
        assert (await client.read_head()).start == "HTTP/1.1 100 Continue"
        await client.send(b"{}")
        assert (await client.reply()).status == 200
        assert (await recorded(records)).request_bytes == 2
    assert upstream.requests[0].body == b"{}"


async def test_a_client_of_http_1_0_is_never_told_to_go_on(upstream: RawUpstream) -> None:
    """RFC 9110 §10.1.1."""
    async with client_of(configuration(upstream)) as client:
        await client.send(b"POST / HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}")
        assert (await client.read_head()).start == "HTTP/1.1 200 OK"


async def test_a_connection_is_not_used_again_after_a_chunked_body(upstream: RawUpstream) -> None:
    """aiohttp takes its last trailer field for the first field of the next request, which may be another client's."""
    chunked = get("/", "Transfer-Encoding: chunked", method="POST") + b"0\r\nAuthorization: Bearer mine\r\n\r\n"
    async with client_of(configuration(upstream)) as client:
        answer = await client.exchange(chunked + get())
        assert (answer.status, answer.head.get("Connection")) == (200, "close")
        assert await client.read_to_end() == b""
    assert len(upstream.requests) == 1


async def test_a_refusal_spares_the_body_and_ends_the_connection(upstream: RawUpstream) -> None:
    async with client_of(configuration(upstream, path="/v1")) as client:
        await client.send(get("/", "Content-Length: 2", "Expect: 100-continue", method="POST"))
        answer = await client.reply()
        assert (details(answer), answer.head.get("Connection")) == ("no_route", "close")


async def test_a_body_over_the_limit(upstream: RawUpstream, records: list[Record]) -> None:
    upstream.script = then_stalls(b"")
    async with client_of(configuration(upstream, body_bytes=10)) as client:
        await client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        await client.send_chunk(b"x" * 10)
        await client.send_chunk(b"x")
        assert details(await client.reply()) == "body_too_large"
        assert (await recorded(records)).request_bytes == 11


async def test_a_body_that_does_not_come(upstream: RawUpstream, records: list[Record], clock: Clock) -> None:
    upstream.script = then_stalls(b"")
    async with client_of(configuration(upstream, body_s=5.0)) as client:
        await client.send(get("/", "Content-Length: 10", method="POST") + b"x")
        await until(lambda: upstream.connections and b"x" in upstream.connections[0].received[-1:], "the first byte")
        clock.advance(4)
        await client.send(b"y")
        await until(lambda: upstream.connections[0].received.endswith(b"xy"), "the second byte")
        assert records == []
        clock.advance(6)
        answer = await client.reply()
        assert (answer.status, details(answer), answer.head.get("Connection")) == (408, "body_timeout", "close")


async def test_a_body_that_is_badly_framed(upstream: RawUpstream) -> None:
    upstream.script = then_stalls(b"")
    async with client_of(configuration(upstream)) as client:
        await client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        await until(lambda: upstream.connections, "the request")
        await client.send(b"zz\r\n")
        answer = await client.reply()
        assert (answer.status, details(answer)) == (400, "malformed_body")
        assert await client.read_to_end() == b""


# Connections


async def test_connections_over_the_cap_are_refused(upstream: RawUpstream, records: list[Record]) -> None:
    async with Server(configuration(upstream, connections=1)) as server:
        async with connect(address_of(server)) as first:
            await first.exchange(get())
            async with connect(address_of(server)) as second:
                answer = await second.reply()
                assert (answer.status, details(answer)) == (503, "too_many_connections")
                assert answer.head.get("Retry-After") == "1"
                assert await second.read_to_end() == b""
            assert (await recorded(records, 2)).details == "too_many_connections"
            assert (await first.exchange(get())).status == 200
        await until(lambda: sample(server, "penstock_open_connections") == 0, "both connections' end")
        async with connect(address_of(server)) as third:
            assert (await third.exchange(get())).status == 200
        assert sample(server, "penstock_active_exchanges", route="") == 0


async def test_connections_over_the_cap_of_their_address_are_refused(upstream: RawUpstream) -> None:
    async with (
        Server(configuration(upstream, connections_per_ip=1)) as server,
        connect(address_of(server)) as first,
        connect(address_of(server), source="127.0.0.2") as other,
    ):
        assert (await first.exchange(get())).status == (await other.exchange(get())).status == 200
        async with connect(address_of(server)) as second:
            assert details(await second.reply()) == "too_many_connections"


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: "])
async def test_a_head_that_does_not_come(
    upstream: RawUpstream, records: list[Record], clock: Clock, connections: list[Connection], data: bytes
) -> None:
    async with client_of(configuration(upstream, head_s=5.0)) as client:
        await client.send(data)
        await until(lambda: connections, "the connection")
        clock.advance(3)
        await asyncio.sleep(0)
        assert records == []
        clock.advance(4)
        answer = await client.reply()
        assert (answer.status, details(answer)) == (408, "head_timeout")
        assert await client.read_to_end() == b""
        assert (await recorded(records)).details == "head_timeout"


async def test_the_time_for_a_head_ends_with_the_head(upstream: RawUpstream, clock: Clock) -> None:
    async with client_of(configuration(upstream, head_s=5.0)) as client:
        await client.exchange(get())
        clock.advance(10)
        await asyncio.sleep(0)
        assert (await client.exchange(get())).status == 200


async def test_an_idle_connection_is_closed_after_its_time(
    upstream: RawUpstream, clock: Clock, connections: list[Connection]
) -> None:
    async with client_of(configuration(upstream, keepalive_s=5.0)) as client:
        await client.exchange(get())
        await until(lambda: connections[0].idle_since, "the end of the exchange")
        clock.advance(4)
        assert (await client.exchange(get())).status == 200
        await until(lambda: connections[0].idle_since, "the end of the exchange")
        clock.advance(6)
        assert await client.read_to_end() == b""


async def test_an_exchange_leaves_nothing_for_the_garbage_collector(
    upstream: RawUpstream, records: list[Record]
) -> None:
    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(EVENT) + LAST_CHUNK)

    class Watching(Spy):
        async def admit(self, request: Request) -> PolicyStream:
            return PolicyStream()

    upstream.script = script
    watching = PolicyEntry("watch", "watch", "watch", None, "close", Watching, PolicyConfig())
    async with Server(configuration(upstream, watching)) as server:
        gc.collect()
        gc.freeze()  # what other tests have left
        gc.disable()  # what is part of a cycle stays
        try:
            async with connect(address_of(server)) as client:
                assert (await client.exchange(post("/v1/chat/completions", b"{}"))).status == 200
            await until(lambda: sample(server, "penstock_open_connections") == 0, "the connection's end")
            await asyncio.sleep(0)
            kinds = (Exchange, Relay, Connection, PolicyStream, Request)
            left = [type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds)]
        finally:
            gc.enable()
            gc.unfreeze()
    assert left == []


async def test_the_next_head_has_its_time_too(
    upstream: RawUpstream, records: list[Record], clock: Clock, connections: list[Connection]
) -> None:
    async with client_of(configuration(upstream, head_s=5.0)) as client:
        await client.exchange(get())
        clock.advance(10)
        await client.send(b"GET / HTTP/1.1\r\n")
        await until(lambda: connections[0].head_since, "the first byte")
        clock.advance(3)
        await client.send(b"Host: ")
        await asyncio.sleep(0)
        assert len(records) == 1
        clock.advance(4)
        answer = await client.reply()
        assert (answer.status, details(answer)) == (408, "head_timeout")
        assert await client.read_to_end() == b""
        assert (await recorded(records, 2)).details == "head_timeout"


@pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset])
async def test_a_client_that_leaves_while_it_is_not_read_is_noticed(
    upstream: RawUpstream,
    records: list[Record],
    clock: Clock,
    connections: list[Connection],
    leave: Callable[[RawClient], None],
) -> None:
    """More requests came with the one that runs than are read ahead."""

    def paused() -> bool:
        transport = connections[0].raw_transport if connections else None
        return transport is not None and not transport.is_reading()

    upstream.script = then_stalls(b"")
    async with client_of(configuration(upstream)) as client:
        await client.send(get() * 1000)
        await until(paused, "the server to stop reading")
        clock.advance(2)
        await asyncio.sleep(0)
        assert records == []  # it is still there
        leave(client)
        clock.advance(2)
        assert (await recorded(records)).outcome is OutcomeKind.CLIENT_GONE


async def test_a_closed_connection_whose_client_takes_nothing_is_dropped(
    upstream: RawUpstream, clock: Clock, connections: list[Connection]
) -> None:
    """A reply that was broken off lies in the buffer of a client that does not read."""
    big = b"x" * (16 << 20)

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(big))

    upstream.script = script
    async with Server(configuration(upstream, write_stall_s=5.0)) as server:
        async with connect(address_of(server), receive_buffer_bytes=4096) as client:
            await client.send(get())
            await until(lambda: connections and connections[0].writing_paused, "a full buffer")
            transport = connections[0].raw_transport
            assert transport is not None
            transport.close()
            clock.advance(2)
            await until(lambda: connections[0].closing_since, "the sweep to see it")
            assert transport.get_write_buffer_size() > 0
            clock.advance(7)
            await until(lambda: transport.get_write_buffer_size() == 0, "the buffer to be given up")
        await until(lambda: sample(server, "penstock_open_connections") == 0, "the connection's end")


async def test_a_buffer_that_the_last_reply_left_full_holds_up_the_next(
    upstream: RawUpstream, connections: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Exchange, "unwritable", lambda self: told.append("unwritable"))
    async with client_of(configuration(upstream)) as client:
        await client.exchange(get())
        assert told == []
        connections[0].pause_writing()
        await client.exchange(get())
        assert told == ["unwritable"]
        connections[0].resume_writing()


async def test_nobody_watches_a_connection_between_exchanges(
    upstream: RawUpstream, connections: list[Connection], records: list[Record]
) -> None:
    async with client_of(configuration(upstream)) as client:
        for request, count in ((get(), 1), (get("/%00"), 2)):
            await client.exchange(request)
            await recorded(records, count)
            assert connections[0].watcher is None


# Life


async def test_it_can_be_started_and_leaves_nothing_behind(upstream: RawUpstream) -> None:
    before = asyncio.all_tasks()
    async with Server(configuration(upstream, admin=True)) as server:
        assert set(server.addresses) == {"main", "admin"}
        async with connect(address_of(server)) as client:
            await client.exchange(get())
    await until(lambda: asyncio.all_tasks() <= before | {asyncio.current_task()} | upstream_tasks(), "all tasks' end")
    with pytest.raises(OSError, match="failed"):
        async with connect(address_of(server)):
            pass


def upstream_tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name() in ("script", "accept")}


async def test_an_address_that_is_taken(upstream: RawUpstream) -> None:
    config = configuration(upstream)
    taken = Config(
        **{**vars_of(config), "listeners": {"main": ListenerConfig(address=TCPAddress("127.0.0.1", upstream.port))}}
    )
    server = Server(taken)
    with pytest.raises(OSError, match="in use"):
        await server.__aenter__()
    assert server.addresses == {}
    await server.stop()


async def test_it_says_that_it_is_starting_and_is_ready_before_it_listens(
    upstream: RawUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bytes] = []

    def asking_before(step: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def ask(*given: Any) -> Any:
            async with connect(address_of(server, "admin")) as admin:
                said.append((await admin.exchange(get("/readyz"))).body)
            return await step(*given)

        return ask

    monkeypatch.setattr(Assembly, "start", asking_before(Assembly.start))
    server = Server(configuration(upstream, admin=True), asking_before(listening.listen))
    async with server:
        assert said == [b"starting\n", b"ready\n"]


async def test_readiness_follows_its_life(upstream: RawUpstream) -> None:
    upstream.script = streaming
    async with Server(configuration(upstream, admin=True)) as server, connect(address_of(server, "admin")) as admin:
        assert (await admin.exchange(get("/readyz"))).status == 200
        async with connect(address_of(server)) as client:
            await client.send(get())
            await client.read_until(EVENT)
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            answer = await admin.exchange(get("/readyz"))
            assert (answer.status, answer.body) == (503, b"draining\n")
        await draining


# Graceful drain


@pytest.fixture
def finish() -> asyncio.Event:
    """Set, it lets `until_finished` end."""
    return asyncio.Event()


@pytest.fixture
def until_finished(finish: asyncio.Event) -> Callable[[UpstreamConnection], Any]:
    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(EVENT))
        await finish.wait()
        await connection.send(chunk(EVENT) + LAST_CHUNK)

    return script


async def test_running_streams_finish_and_idle_connections_do_not_wait_for_them(
    upstream: RawUpstream, records: list[Record], finish: asyncio.Event, until_finished: Any
) -> None:
    upstream.script = until_finished
    async with (
        Server(configuration(upstream, path="/v1")) as server,
        connect(address_of(server)) as running,
        connect(address_of(server)) as idle,
    ):
        await idle.exchange(get("/elsewhere"))
        await running.send(get("/v1"))
        await running.read_until(EVENT)
        draining = asyncio.create_task(server.drain())
        assert await idle.read_to_end() == b""
        assert not draining.done()
        with pytest.raises(OSError, match="failed"):
            async with connect(address_of(server)):
                pass
        finish.set()
        assert (await running.read_to_end()).endswith(chunk(EVENT) + LAST_CHUNK)
        await draining
    assert [record.outcome for record in records] == [OutcomeKind.REFUSED, OutcomeKind.COMPLETE]


async def test_a_request_that_comes_too_late_is_refused(upstream: RawUpstream, connections: list[Connection]) -> None:
    async with Server(configuration(upstream)) as server, connect(address_of(server)) as client:
        await until(lambda: connections, "the connection")
        connections[0].data_received(get())
        await server.drain()
        answer = await client.reply()
        assert (answer.status, details(answer), answer.head.get("Connection")) == (503, "draining", "close")
        assert answer.head.get("Retry-After") == "1"
        assert await client.read_to_end() == b""


async def test_what_does_not_finish_in_time_is_ended_in_words(upstream: RawUpstream, records: list[Record]) -> None:
    upstream.script = streaming
    async with (
        Server(configuration(upstream, server={"drain_s": 0.0})) as server,
        connect(address_of(server)) as client,
    ):
        await client.send(get())
        await client.read_until(EVENT)
        await server.drain()
        rest = await client.read_to_end()
    assert b'"code":"shutdown"' in rest
    assert rest.endswith(LAST_CHUNK)
    assert [record.outcome for record in records] == [OutcomeKind.SHUTDOWN]


async def test_what_has_not_begun_in_time_is_refused(upstream: RawUpstream, records: list[Record]) -> None:
    upstream.script = then_stalls(b"")
    async with (
        Server(configuration(upstream, server={"drain_s": 0.0})) as server,
        connect(address_of(server)) as client,
    ):
        await client.send(get())
        await upstream.request()
        await server.drain()
        assert details(await client.reply()) == "shutdown"
    assert [record.outcome for record in records] == [OutcomeKind.SHUTDOWN]


async def test_a_drain_that_is_given_up_still_ends_in_words(upstream: RawUpstream, records: list[Record]) -> None:
    upstream.script = streaming
    async with Server(configuration(upstream)) as server, connect(address_of(server)) as client:
        await client.send(get())
        await client.read_until(EVENT)
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        draining.cancel()
        await server.cut()
        rest = await client.read_to_end()
    assert b'"code":"shutdown"' in rest
    assert [record.outcome for record in records] == [OutcomeKind.SHUTDOWN]
