"""I/O. Binds aiohttp runners to configured addresses: alone, or beside other processes that listen on the same ones."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from .values import TCPAddress, UnixAddress

Listen = Callable[[web.BaseRunner, TCPAddress | UnixAddress], Awaitable[TCPAddress | UnixAddress]]
"""Listens on an address with a runner, which must be set up; its `cleanup` closes the socket again.

Returns the address with the port that was given where port 0 was asked for. Raises OSError where it cannot be had."""

_BACKLOG = 128  # as aiohttp's own


async def listen(runner: web.BaseRunner, address: TCPAddress | UnixAddress) -> TCPAddress | UnixAddress:
    """`Listen`, alone."""
    if isinstance(address, UnixAddress):
        await web.UnixSite(runner, address.path).start()
        return address
    await web.TCPSite(runner, address.host, address.port).start()
    return TCPAddress(address.host, runner.addresses[-1][1])


def listen_shared(inherited: Mapping[str, socket.socket]) -> Listen:
    """`Listen` for a process that shares its addresses with others.

    On TCP each has a socket of its own, and the kernel gives each connection to one of them (SO_REUSEPORT, socket(7)).
    Unix sockets have no such thing: all accept from one, `inherited` by its path.
    """

    async def listen(runner: web.BaseRunner, address: TCPAddress | UnixAddress) -> TCPAddress | UnixAddress:
        if isinstance(address, UnixAddress):
            await web.SockSite(runner, inherited[address.path]).start()
        else:
            await web.TCPSite(runner, address.host, address.port, reuse_port=True).start()
        return address

    return listen


class Reserved:
    """Addresses that other processes are to listen on with `listen_shared`, held until `close`."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []
        self.inherited: dict[str, socket.socket] = {}  # by path

    def reserve(self, address: TCPAddress | UnixAddress) -> TCPAddress | UnixAddress:
        """Returns the address with the port that was given where port 0 was asked for. Raises OSError where somebody
        listens there already, also where it is somebody who would share it."""
        try:
            return self._unix(address) if isinstance(address, UnixAddress) else self._tcp(address)
        except OSError as error:
            raise OSError(error.errno, f"{address}: {error.strerror}") from None

    def close(self) -> None:
        """After it, and once those who share them do not listen any more, connections are refused."""
        for held in (*self._held, *self.inherited.values()):
            held.close()
        self._held.clear()
        self.inherited.clear()

    def _tcp(self, address: TCPAddress) -> TCPAddress:
        port = address.port
        found = socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, place in dict.fromkeys((family, place) for family, _, _, _, place in found):
            if port:
                _bound(family, (place[0], port, *place[2:]), reuse_port=False).close()
            bound = _bound(family, (place[0], port, *place[2:]), reuse_port=True)
            self._held.append(bound)
            port = bound.getsockname()[1]
        return TCPAddress(address.host, port)

    def _unix(self, address: UnixAddress) -> UnixAddress:
        if os.path.exists(address.path) and stat.S_ISSOCK(os.stat(address.path).st_mode):
            os.remove(address.path)  # what an earlier process left behind, as asyncio does
        made = socket.socket(socket.AF_UNIX)
        self.inherited[address.path] = made
        made.setblocking(False)
        made.bind(address.path)
        made.listen(_BACKLOG)
        return address


def _bound(family: int, place: tuple[str | int, ...], *, reuse_port: bool) -> socket.socket:
    """As asyncio binds, but not listening: such a socket gets no connections, and keeps nobody from sharing its port."""
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
    except BaseException:
        made.close()
        raise
    return made
