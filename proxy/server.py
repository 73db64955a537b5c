"""I/O. One worker on a running loop: listeners, one exchange per request, connection caps and time limits, the record of
each, drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .accesslog import AccessLog, Record
from .admin import Admin
from .aiohttp_paths import Wanted, fits
from .assembly import Assembly, describe
from .config import Config
from .connection import CLOSES, STAYS, Connection, Written
from .dialects import choose
from .downstream import ClientReply
from .errors import Outcome, RequestError, fault
from .exchange import Exchange, Route
from .forwarding import Peer, came_through, client_address, request_id, trusted_hops, upstream_headers
from .listening import Listen, listen
from .messages import Headers, Reply, Request
from .metrics import Metrics
from .receiving import Body, Counted, check, target_of
from .routing import normalise_path
from .turns import Turns
from .values import TCPAddress, UnixAddress

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

logger = logging.getLogger(__name__)

_CLOSING = ("method_refused", "upgrade_refused")  # what comes behind CONNECT or Upgrade may be no HTTP at all
_RETRY = {"Retry-After": "1"}
_REFUSAL_HEADERS = {
    "method_refused": {"Allow": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
    "draining": _RETRY,
    "too_many_connections": _RETRY,
}
_SWEEP_S = 1.0
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)  # only Linux has it; POLLHUP and POLLERR are always reported
_LAST_WORDS_S = 5.0  # after the drain's limit: for endings to be written and policies to let go


class _Protocols(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server.handle, handler_cancellation=True)
        self._server = server
        self._options = options
        self._make_connection = _connection_class(server.aiohttp)

    def __call__(self) -> Connection:
        return self._make_connection(self, self._server, loop=asyncio.get_running_loop(), **self._options)


def _connection_class(wanted: Wanted) -> type[Connection]:
    """takeover.py's, or where that does not fit the portable one."""
    if not fits(wanted, "client side", _check_takeover):
        return Connection
    from . import takeover

    return takeover.Connection


def _check_takeover() -> None:
    from . import takeover  # what it reaches into may not even be there

    takeover.check()


class Server:
    """One worker. `async with Server(config) as server` listens and serves; leaving drains."""

    def __init__(self, config: Config, listen: Listen = listen) -> None:
        self._config = config
        self._listen = listen
        self.metrics = Metrics()
        self.addresses: dict[str, TCPAddress | UnixAddress] = {}
        self.aiohttp = config.server.aiohttp
        self.write_buffer_bytes = config.limits.write_buffer_bytes
        self._assembly = Assembly(config, self.metrics)
        self._admin = Admin(self.metrics, self._readiness)
        self._access_log = AccessLog(self.metrics.access_log_dropped) if config.log.access else None
        self._runner: web.ServerRunner | None = None
        self._protocols: _Protocols | None = None
        self._connections: set[Connection] = set()
        self._per_client: Counter[str] = Counter()
        self._exchanges: set[Exchange] = set()
        self._idle = asyncio.Event()  # no exchange is running
        self._idle.set()
        self._state: str | None = "starting"  # why no new clients are welcome; None: they are
        self._sweeper: asyncio.TimerHandle | None = None
        self._turns: Turns | None = None  # needs the loop

    # Life

    async def __aenter__(self) -> Server:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()
        await self.stop()

    async def start(self) -> None:
        """Listen and serve. Raises OSError where an address cannot be had; call `stop` then too."""
        self._turns = Turns(asyncio.get_running_loop())
        if self._access_log is not None:
            self._access_log.start()
        if (address := self._config.admin.address) is not None:  # first: it says that the rest is still starting
            await self._admin.start(address)
            bound = TCPAddress(address.host, self._admin.port) if isinstance(address, TCPAddress) else address
            self.addresses["admin"] = bound
        await self._assembly.start()
        limits = self._config.limits
        self._protocols = _Protocols(
            self,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.keepalive_s,
            lingering_time=2.0,
            max_line_size=limits.request_line_bytes,
            max_field_size=limits.header_field_bytes,
            max_headers=limits.header_fields,
        )
        self._runner = web.ServerRunner(self._protocols, shutdown_timeout=1.0)
        await self._runner.setup()
        self._state = None  # before the first listener: a request may come at once
        for name, listener in self._config.listeners.items():
            self.addresses[name] = await self._listen(self._runner, listener.address)
        self._sweep()

    async def drain(self) -> None:
        """Graceful drain: no new connections, running streams finish; after the limit they end in their dialect's words."""
        self._state = "draining"
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
        for connection in list(self._connections):
            if connection.idle:
                connection.force_close()
        if not await self._wait_idle(self._config.server.drain_s):
            logger.warning("%d exchanges did not finish in time and are cut", len(self._exchanges))
            await self.cut()

    async def cut(self) -> None:
        """End what still runs, each in its dialect's words, and wait a moment for that to be done."""
        for exchange in list(self._exchanges):
            exchange.shut_down()
        await self._wait_idle(_LAST_WORDS_S)

    async def stop(self) -> None:
        """Release everything. Works after a `start` that failed, too."""
        self._state = "stopping"
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._assembly.stop()
        await self._admin.stop()
        if self._access_log is not None:
            await asyncio.to_thread(self._access_log.stop)

    async def _wait_idle(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), limit_s)
        return not self._exchanges

    def _readiness(self) -> str | None:
        return self._state

    # Connections (`downstream.ConnectionKeeper`)

    def connected(self, connection: Connection) -> bool:
        self._connections.add(connection)
        self._per_client[connection.client] += 1
        self.metrics.connection_opened()
        limits = self._config.limits
        per_client = limits.connections_per_ip if connection.client else 0  # a Unix socket's peers have no address
        if len(self._connections) <= limits.connections and (
            not per_client or self._per_client[connection.client] <= per_client
        ):
            return True
        self._refuse_connection(connection, "too_many_connections")
        return False

    def disconnected(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self._per_client[connection.client] -= 1
        if not self._per_client[connection.client]:
            del self._per_client[connection.client]
        self.metrics.connection_closed()

    def refuse_malformed(self, connection: Connection, details: str) -> Written:
        self._refuse_unread(connection, details)
        return CLOSES

    def _refuse_connection(self, connection: Connection, details: str) -> None:
        """Answer a connection that has not sent a request, and close it."""
        self._refuse_unread(connection, details)
        connection.force_close()

    def _refuse_unread(self, connection: Connection, details: str) -> None:
        """An exchange of which there is no request: refused, recorded."""
        reply = ClientReply(connection, method="", http_1_0=True, keep_alive=False)
        exchange = Exchange(_nameless(connection), None, reply, self._config.limits)
        self.metrics.exchange_started("")
        exchange.refuse(_refusal(details), "parser")
        self._record(exchange, _Started(), Counted())

    def _sweep(self) -> None:
        """What no event tells, looked at once a second instead of a timer for each connection: time limits where no
        exchange watches, and clients that left while they are not read."""
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep)
        now, limits = loop.time(), self._config.limits
        for connection in list(self._connections):
            transport = connection.raw_transport
            if transport is None:
                continue
            connection.probe()
            if transport.is_closing():
                # Closed by us, but the client does not take what is still to be sent.
                if connection.closing_since is None:
                    connection.closing_since = now
                elif now - connection.closing_since > limits.write_stall_s:
                    transport.abort()
            elif connection.head_since is not None and now - connection.head_since > limits.head_s:
                self._refuse_connection(connection, "head_timeout")
            elif connection.idle_since is not None and now - connection.idle_since > limits.keepalive_s:
                connection.force_close()
            elif connection.watcher is not None and not transport.is_reading() and _has_left(transport):
                transport.abort()

    # Requests

    async def handle(self, request: BaseRequest) -> web.StreamResponse:
        """aiohttp's handler: one exchange. Cancelled when the client is gone."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.head_since = None
        started, counted = _Started(), Counted()
        # The last trailer field of a chunked body would become a field of the connection's next request (aiohttp 3.14).
        reusable = bool(request.keep_alive) and "Transfer-Encoding" not in request.headers
        reply = ClientReply(
            connection,
            method=request.method,
            http_1_0=request.version < (1, 1),
            keep_alive=reusable and self._state is None,
            content=request.content,
        )
        exchange, refusal = self._make_exchange(connection, request, reply, counted)
        connection.watcher = exchange
        if connection.writing_paused:
            exchange.unwritable()
        self._exchanges.add(exchange)
        self._idle.clear()
        route = exchange.route.name if exchange.route is not None else ""
        self.metrics.exchange_started(route)
        try:
            if refusal is not None:
                exchange.refuse(refusal, "parser")
            else:
                await exchange.run()
        finally:
            connection.watcher = None
            self._exchanges.discard(exchange)
            if not self._exchanges:
                self._idle.set()
            self._record(exchange, started, counted)
        return STAYS if reply.keep_alive and self._state is None else CLOSES

    def _make_exchange(
        self, connection: Connection, received: BaseRequest, reply: ClientReply, counted: Counted
    ) -> tuple[Exchange, Reply | None]:
        """The exchange for a request; with a refusal where it cannot even be asked whether it is let in."""
        server, limits = self._config.server, self._config.limits
        headers = received.headers
        host, target, query = target_of(received)
        hops = trusted_hops(connection.client, server.trusted_proxies, server.trusted_from)
        peer = Peer(
            address=connection.client,
            client=client_address(headers, connection.client, hops),
            scheme="https" if received.secure else "http",
            host=host,
        )
        id = request_id(headers.get("X-Request-Id"))
        refusal: Reply | None = None
        route: Route | None = None
        path = target
        try:
            check(received, headers, host)
            path = normalise_path(target)
            if self._state is not None:
                raise RequestError("no new exchanges", "draining")
            route = self._assembly.routes.find(host, path)
        except RequestError as exc:
            refusal = _refusal(exc.details)
            if exc.details in _CLOSING:
                reply.keep_alive = False
        version = f"{received.version.major}.{received.version.minor}"
        request = Request(
            id=id,
            method=received.method,
            path=path,
            query=query,
            scheme=peer.scheme,
            host=host,
            client=peer.client,
            fronted=came_through(headers, hops),
            route=route.name if route is not None else "",
            upstream=route.upstream.name if route is not None else "",
            headers=upstream_headers(headers, peer, id, trusted_proxies=hops, version=version),
            dialect=choose(route.dialect if route is not None else "auto", path),
            chunks=Body(received, reply, limits.body_bytes, limits.body_s, counted) if received.body_exists else None,
        )
        return Exchange(request, route, reply, limits, self._turns), refusal

    def _record(self, exchange: Exchange, started: _Started, counted: Counted) -> None:
        """Tell the access log and the metrics of an exchange that has ended."""
        request, relay, attachment = exchange.request, exchange.relay, exchange.attachment
        outcome = relay.outcome if relay is not None else None
        if outcome is None:
            outcome = Outcome.of("client_gone")
        now = time.monotonic()
        ttft_at = relay.first_content_at if relay is not None else None
        facts: dict[str, Any] = {}
        if exchange.chain is not None and attachment is not None:
            facts = exchange.chain.facts() | attachment.facts()
        for policy, exc in exchange.errors:
            logger.error("policy %s failed: %s", policy, describe(exc))
        record = Record(
            time=started.wall,
            id=request.id,
            client=request.client,
            method=request.method,
            path=request.path,
            route=request.route,
            upstream=request.upstream,
            dialect=request.dialect.name,
            status=(attachment.status if attachment is not None else 0) or fault(outcome.details).status,
            outcome=outcome.kind,
            source=outcome.source,
            details=outcome.details,
            ttft_ms=None if ttft_at is None else (ttft_at - started.monotonic) * 1000,
            duration_ms=(now - started.monotonic) * 1000,
            events=relay.events if relay is not None else 0,
            request_bytes=counted.bytes,
            upstream_bytes=relay.upstream_bytes if relay is not None else 0,
            downstream_bytes=attachment.written if attachment is not None else 0,
            facts=facts,
        )
        self.metrics.exchange_done(record)
        if self._access_log is not None:
            self._access_log.write(record)


class _Started:
    """When a request's head had arrived."""

    __slots__ = ("monotonic", "wall")

    def __init__(self) -> None:
        self.wall = time.time()
        self.monotonic = time.monotonic()


def _refusal(details: str) -> Reply:
    return Reply(details=details, headers=_REFUSAL_HEADERS.get(details))


def _has_left(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed or reset its connection, asked of the socket: a transport that does not read is not
    told, neither by asyncio nor by uvloop."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _PEER_CLOSED)
    return bool(poll.poll(0))


def _nameless(connection: Connection) -> Request:
    """What stands for a request that could not be read."""
    return Request(
        id=request_id(None),
        method="",
        path="",
        client=connection.client,
        headers=Headers(),
        dialect=choose("auto", ""),
    )
