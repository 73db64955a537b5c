"""I/O. The admin listener: is the process alive, is it ready, what are its metrics.

    /healthz   200 while the process lives: restart it where this does not answer
    /readyz    200 once it serves, 503 with the reason before that and while it drains: send it no new clients
               (of several workers: 200 while one of them serves)
    /metrics   Prometheus text or OpenMetrics, as the scraper prefers

On loopback by default: what it says is for operators only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from .listening import listen
from .values import TCPAddress, UnixAddress


class Exposed(Protocol):
    """What has metrics to tell. Called in a thread."""

    def expose(self, accept: str) -> tuple[str, bytes]:
        """Content type and body of `/metrics`, in the format that this value of Accept prefers."""


async def _nothing() -> None:
    pass


class Admin:
    """`ready` gives None when new clients are welcome, else the reason why not. `refresh` is awaited before `metrics`
    are exposed."""

    def __init__(
        self, metrics: Exposed, ready: Callable[[], str | None], refresh: Callable[[], Awaitable[None]] = _nothing
    ) -> None:
        self._metrics = metrics
        self._ready = ready
        self._refresh = refresh
        self._runner: web.AppRunner | None = None
        self._address: TCPAddress | UnixAddress | None = None

    async def start(self, address: TCPAddress | UnixAddress) -> None:
        """Raises OSError where the address cannot be had."""
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._metrics_page)
        application.on_response_prepare.append(_neutral_headers)
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        self._address = await listen(self._runner, address)

    async def stop(self) -> None:
        """Works after a `start` that failed, too."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        """The TCP port it listens on; 0 on a Unix socket and before `start`."""
        return self._address.port if isinstance(self._address, TCPAddress) else 0

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._ready()
        return web.Response(text="ready\n") if reason is None else web.Response(status=503, text=f"{reason}\n")

    async def _metrics_page(self, request: web.Request) -> web.Response:
        await self._refresh()
        # In a thread: reading /proc and writing some thousand lines would hold up every stream of the process.
        accept = ",".join(request.headers.getall("Accept", ()))
        content_type, body = await asyncio.to_thread(self._metrics.expose, accept)
        return web.Response(body=body, headers={"Content-Type": content_type})


async def _neutral_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
    response.headers["Server"] = "penstock"
