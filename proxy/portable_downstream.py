"""I/O. The client side on nothing but what aiohttp promises to keep: for an aiohttp that downstream.py does not know.

It cannot see into what aiohttp has queued. So a request's body that turns out not to be framed as its head says ends like
one that does not come, at its time limit.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from .downstream import Connection


class PortableConnection(Connection):
    """`downstream.Connection`, without what that takes from aiohttp's internals."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        web.RequestHandler.data_received(self, data)
        if self.watcher is None and self.head_since is None and data.strip(b"\r\n"):
            self.head_since = asyncio.get_running_loop().time()  # until `Server.handle` has the request

    @property
    def idle(self) -> bool:
        return self.watcher is None and self.head_since is None
