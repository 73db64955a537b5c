"""I/O. One of several workers: a process that serves what its supervisor hands it, and the channel between the two.

A worker serves as a lone process does, but for three things. Its addresses are shared with the other workers. It has no
admin listener. And it takes orders over the channel instead of by signals: a terminal's Ctrl-C, or a service manager
that signals every process of a service, reaches the workers beside the supervisor, and would be taken for the second
signal that ends at once. A worker that is sent SIGTERM drains, however often it is sent; one whose supervisor is gone,
which is what the end of the channel means, drains too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from .accesslog import configure_logging
from .config import AdminConfig, Config, ListenerConfig, parse
from .errors import ConfigError
from .listening import listen_shared
from .merging import Collector, Snapshot, snapshot
from .serving import Stopping, begin, finish, run_loop
from .values import TCPAddress, UnixAddress

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What a worker is started with blocked, and lets in once it knows what to do."""

MAX_MESSAGE_BYTES = 1 << 26
_LENGTH_BYTES = 4
_FAREWELL_S = 1.0  # for the supervisor to take the last message

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one worker has to serve: at `addresses`, by the listeners' names, which the supervisor has reserved, with the
    `sockets` to inherit by their paths."""

    number: int
    addresses: Mapping[str, TCPAddress | UnixAddress]
    sockets: Mapping[str, socket.socket]


class Serve(msgspec.Struct, tag=True):
    """To a worker, first of all: the configuration, as the supervisor read it, and what its watched files held when they
    were right for the last time, by path."""

    file: str
    data: bytes
    last_right: dict[str, str]


class Drain(msgspec.Struct, tag=True):
    """To a worker: end, gracefully."""


class End(msgspec.Struct, tag=True):
    """To a worker: end at once."""


class Ping(msgspec.Struct, tag=True):
    """To a worker that is ready: does your event loop still turn? It answers with a `Pong`."""


class Tell(msgspec.Struct, tag=True):
    """To a worker that is ready: what are your metrics? It answers with one `Told`."""


class Ready(msgspec.Struct, tag=True):
    """From a worker: it serves."""


class Pong(msgspec.Struct, tag=True):
    """From a worker: the answer to a `Ping`."""


class Draining(msgspec.Struct, tag=True):
    """From a worker: it takes no new clients any more, whoever told it so."""


class Told(msgspec.Struct, tag=True):
    """From a worker: its metrics. None: they are too many to be told."""

    metrics: Snapshot | None


Message = Serve | Drain | End | Ping | Tell | Ready | Pong | Draining | Told

_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """As it is sent: four bytes of length, then MessagePack."""
    data = msgspec.msgpack.encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        data = msgspec.msgpack.encode(Told(None))
    return len(data).to_bytes(_LENGTH_BYTES) + data


class Channel:
    """One end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: Message) -> None:
        """Does nothing where the other end is gone. What waits to be read is bounded: one answer for each `Tell` and `Ping`."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def receive(self) -> Message | None:
        """The next message; None once the other end is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES))
            return _decoder.decode(await self._reader.readexactly(length))
        except (EOFError, ConnectionError):
            return None

    async def close(self) -> None:
        """Sends what was to be sent, for a short time."""
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._writer.wait_closed()


def work(assignment: Assignment, end: socket.socket) -> None:
    """The whole life of a worker process, with its end of the channel. Raises SystemExit."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    sys.exit(run_loop(_work(assignment, end)))


async def _work(assignment: Assignment, end: socket.socket) -> int:
    stopping = Stopping()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.drain.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    channel = await Channel.over(end)
    task = await channel.receive()
    config = _configure(assignment, task) if isinstance(task, Serve) else None
    server = await begin(config, listen_shared(assignment.sockets)) if config is not None else None
    if server is None:
        return 1
    obeying = asyncio.ensure_future(_obey(channel, stopping, server.metrics))
    channel.send(Ready())
    await stopping.drain.wait()
    channel.send(Draining())
    await finish(server, stopping)
    obeying.cancel()
    channel.send(Told(await asyncio.to_thread(snapshot, server.metrics)))
    await channel.close()
    return 0


def _configure(assignment: Assignment, task: Serve) -> Config | None:
    """The configuration with the worker's own addresses. None where it is not right any more, and the log says why."""
    who = {"worker": assignment.number, "pid": os.getpid()}
    try:
        config = parse(task.file, task.data, task.last_right)
    except ConfigError as error:  # a secret's file that is gone
        configure_logging("error", who)
        for problem in error.problems:
            logger.error("cannot start: %s", problem)
        return None
    configure_logging(config.log.level, who)
    shared = {name: ListenerConfig(address=address) for name, address in assignment.addresses.items()}
    return replace(config, listeners=shared, admin=AdminConfig(address=None))


async def _obey(channel: Channel, stopping: Stopping, metrics: Collector) -> None:
    while (order := await channel.receive()) is not None:
        match order:
            case Tell():  # in a thread, as the admin listener does
                channel.send(Told(await asyncio.to_thread(snapshot, metrics)))
            case Ping():
                channel.send(Pong())
            case Drain():
                stopping.drain.set()
            case End():
                stopping.drain.set()
                stopping.at_once.set()
    stopping.drain.set()
