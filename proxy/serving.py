"""I/O. The life of a process that serves: signals, graceful drain, exit status.

`run` is the whole command where there is one worker. Of several, each is a process of worker.py's, which begins and
finishes in the same way.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from .accesslog import configure_logging
from .assembly import describe
from .config import Config
from .errors import PenstockError
from .listening import Listen, listen
from .server import Server

logger = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once. Returns the exit status."""
    configure_logging(config.log.level)
    return run_loop(_serve(config))


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """The result of `main`, on the fastest event loop that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


class Stopping:
    """How the process is asked to end: first to `drain`, then to end `at_once`."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        (self.at_once if self.drain.is_set() else self.drain).set()


async def _serve(config: Config) -> int:
    stopping = Stopping()
    for signum in (signal.SIGTERM, signal.SIGINT):  # first: as a container's process 1 it has no default handling
        asyncio.get_running_loop().add_signal_handler(signum, stopping.ask)
    server = await begin(config)
    if server is None:
        return 1
    for name, address in server.addresses.items():
        logger.info("listening", extra={"fields": {"event": "listening", "name": name, "address": str(address)}})
    logger.info("ready", extra={"fields": {"event": "ready"}})
    await stopping.drain.wait()
    await finish(server, stopping)
    return 0


async def begin(config: Config, listen: Listen = listen) -> Server | None:
    """A server that serves. None where it cannot, and the log says why."""
    asyncio.get_running_loop().set_exception_handler(_log_unhandled)
    server = None
    try:
        server = Server(config, listen)
        await server.start()
        # What is there now stays. Whoever collects garbage need not go through it again and again, which takes longer than a
        # stream may stand still.
        gc.collect()
        gc.freeze()
    except (OSError, RuntimeError, PenstockError) as exc:
        logger.error("cannot start: %s", exc)
        if server is not None:
            await server.stop()
        return None
    return server


async def finish(server: Server, stopping: Stopping) -> None:
    """Graceful drain, cut short where it is asked to end `at_once`, and the end of `server`."""
    logger.info("draining", extra={"fields": {"event": "draining"}})
    draining, hurry = asyncio.ensure_future(server.drain()), asyncio.ensure_future(stopping.at_once.wait())
    await asyncio.wait((draining, hurry), return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    draining.cancel()
    try:
        await draining
    except asyncio.CancelledError:
        await server.cut()
    await server.stop()
    logger.info("stopped", extra={"fields": {"event": "stopped"}})


def _log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """asyncio's own handler logs the exception's message, which may quote content."""
    exc = context.get("exception")
    logger.error("%s: %s", context.get("message", "unhandled"), describe(exc) if exc is not None else "no exception")
