"""A client that sends exactly the bytes it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from .wire import NO_BODY_STATUS, Head, Message, Wire

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


class RawClient(Wire):
    """A connection to the proxy."""

    async def reply(self, *, to_head: bool = False, interim: list[Head] | None = None) -> Message:
        """The next final reply, its body read; interim replies (1xx) before it are added to `interim`.

        `to_head`: the request was a HEAD, so that no body follows whatever the head says (RFC 9112 §6.3)."""
        head = await self.read_head()
        while head.start.split(" ")[1].startswith("1"):
            if interim is not None:
                interim.append(head)
            head = await self.read_head()
        status = int(head.start.split(" ")[1])
        if to_head or status in NO_BODY_STATUS:
            return Message(head, ends="none")
        return await self.read_body(head, to_close=True)

    async def exchange(self, request: bytes | str, *, to_head: bool = False) -> Message:
        """Send one request and read its reply."""
        await self.send(request)
        return await self.reply(to_head=to_head)


@contextlib.asynccontextmanager
async def connect(
    address: Address, *, receive_buffer_bytes: int | None = None, source: str | None = None
) -> AsyncIterator[RawClient]:
    """A connection, closed at the end, from the address `source`.

    With a small `receive_buffer_bytes` the kernel reads little ahead of the test."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as connection:
        connection.setblocking(False)
        if receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        if source is not None:
            connection.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(connection, address)
        yield RawClient(connection)


def get(target: str = "/", *fields: str, host: str = "proxy.test", method: str = "GET") -> bytes:
    """The bytes of a request without a body."""
    return "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", "")).encode("latin-1")


def post(target: str = "/", body: bytes = b"", *fields: str, host: str = "proxy.test") -> bytes:
    """The bytes of a POST request with a Content-Length."""
    return get(target, f"Content-Length: {len(body)}", *fields, host=host, method="POST") + body
