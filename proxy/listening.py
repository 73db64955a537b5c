"""I/O. Binds aiohttp runners to configured addresses."""

from __future__ import annotations

from aiohttp import web

from .values import TCPAddress, UnixAddress


async def listen(runner: web.BaseRunner, address: TCPAddress | UnixAddress) -> TCPAddress | UnixAddress:
    """Listen on `address` with `runner`, which must be set up; its `cleanup` closes the socket again.

    Returns the address with the port that was given where port 0 was asked for. Raises OSError where it cannot be had.
    """
    if isinstance(address, UnixAddress):
        await web.UnixSite(runner, address.path).start()
        return address
    await web.TCPSite(runner, address.host, address.port).start()
    return TCPAddress(address.host, runner.addresses[-1][1])
