"""A client's connection without a client: its transport and its server are stand-ins."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from proxy.connection import CLOSES, STAYS, Connection, Written


class Transport(asyncio.Transport):
    """A socket that takes everything and sends nothing."""

    def __init__(self, peer: object = ("192.0.2.7", 1)) -> None:
        super().__init__({"peername": peer})
        self.sent = b""
        self.end = ""
        self.high = 0
        self.paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.end = self.end or "close"

    def abort(self) -> None:
        self.end = "abort"

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return bool(self.end)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0


class Keeper:
    """A `ConnectionKeeper` that writes down what it is told."""

    write_buffer_bytes = 1234

    def __init__(self) -> None:
        self.told: list[str] = []
        self.stays = True
        self.requests: list[web.BaseRequest] = []
        self.answer = asyncio.Event()
        self.fails = False
        self.reads = self.stays_open = True

    def connected(self, connection: Connection) -> bool:
        self.told.append(f"connected {connection.client}")
        return self.stays

    def disconnected(self, connection: Connection) -> None:
        self.told.append("disconnected")

    def refuse_malformed(self, connection: Connection, details: str) -> Written:
        self.told.append(details)
        return CLOSES

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self.fails:
            raise KeyError("a mistake of ours")
        try:
            if self.reads:
                await request.content.read()
        except web.RequestPayloadError:
            self.told.append("malformed body")
            return CLOSES
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise
        return STAYS if self.stays_open else CLOSES


class Watcher:
    def __init__(self) -> None:
        self.told: list[str] = []

    def unwritable(self) -> None:
        self.told.append("unwritable")

    def writable(self) -> None:
        self.told.append("writable")


class Scene:
    """A connection of an aiohttp server, on a transport that is a stand-in."""

    def __init__(self, make_connection: type[Connection]) -> None:
        self._make_connection = make_connection
        self.keeper = Keeper()
        self.transport = Transport()
        self.serve()

    def serve(self, **options: Any) -> Scene:
        self.server = web.Server(self.keeper.handle, handler_cancellation=True)
        self.connection = self._make_connection(
            self.server,
            self.keeper,
            loop=asyncio.get_running_loop(),
            access_log=None,
            max_line_size=100,
            max_field_size=200,
            max_headers=5,
            **options,
        )
        return self

    def connect(self) -> Scene:
        self.connection.connection_made(self.transport)
        return self

    async def turn(self) -> None:
        """Let everything that is due happen."""
        for _ in range(10):
            await asyncio.sleep(0)

    def leave(self) -> None:
        self.connection.connection_lost(None)

    async def end(self) -> None:
        if self.connection.transport is not None:
            self.leave()
        await self.turn()
