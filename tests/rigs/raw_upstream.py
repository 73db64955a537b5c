"""A model server that sends exactly the bytes that a test tells it to, however wrong, and keeps what it received.

A script is a coroutine function that plays one connection:

    async def reset_in_the_middle(connection):
        await connection.request()
        await connection.send(STREAM_HEAD + b"data: {}")
        connection.reset()

Most tests need only `replies(...)`. The misbehaviours that have a name stand in `faults.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from .waiting import until, within_limit
from .wire import Head, Message, Wire

LISTEN_BACKLOG = 1024


class UpstreamConnection(Wire):
    """A connection that the proxy opened."""

    def __init__(self, connected: socket.socket, requests: list[Message]) -> None:
        super().__init__(connected)
        self._requests = requests

    async def request(self) -> Message:
        """The next request, whole; also kept in the upstream's `requests`. Raises EOFError where there is none."""
        return await self.request_body(await self.request_head())

    async def request_head(self) -> Head:
        """The head only; the body is left on the wire."""
        return await self.read_head()

    async def request_body(self, head: Head) -> Message:
        message = await self.read_body(head, to_close=False)
        self._requests.append(message)
        return message


Script = Callable[[UpstreamConnection], Awaitable[None]]


class RawUpstream:
    """Plays `script` on every connection that comes to a listening socket, which it does not own."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()
        self.script: Script = replies(reply())
        self.requests: list[Message] = []
        self.connections: list[UpstreamConnection] = []
        self.failures: list[BaseException] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> RawUpstream:
        with contextlib.suppress(BlockingIOError):  # what came for the test before this one, too late for it
            while True:
                self._listener.accept()[0].close()
        self._start(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            connection.close()
        if self.failures:
            raise AssertionError("the upstream's script failed") from self.failures[0]

    async def connection(self, number: int = 0) -> UpstreamConnection:
        """The connection with that number, once it is there."""
        await until(lambda: len(self.connections) > number, f"upstream connection {number}")
        return self.connections[number]

    async def request(self, number: int = 0) -> Message:
        """The request with that number, once it has come whole."""
        await until(lambda: len(self.requests) > number, f"upstream request {number}")
        return self.requests[number]

    async def idle(self) -> None:
        """Return once every script has been played to its end."""
        scripts = [task for task in self._tasks if task.get_name() == "script"]
        await within_limit(asyncio.gather(*scripts), "the end of the upstream's scripts")

    def _start(self, work: Awaitable[None], name: str = "accept") -> None:
        task = asyncio.ensure_future(work)
        task.set_name(name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self._listener)
            connection = UpstreamConnection(accepted, self.requests)
            self.connections.append(connection)
            self._start(self._play(connection), "script")

    async def _play(self, connection: UpstreamConnection) -> None:
        try:
            await self.script(connection)
        except (EOFError, ConnectionError):  # the proxy is done with the connection
            pass
        except Exception as failure:
            self.failures.append(failure)
        finally:
            connection.close()


def listen() -> socket.socket:
    """A socket that listens on a free port of the loopback interface."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=LISTEN_BACKLOG)
    listener.setblocking(False)
    return listener


# --- bytes


def reply(body: bytes = b"{}", *fields: str, status: str = "200 OK", length: bool = True) -> bytes:
    """A whole reply; with `length`, its Content-Length is added."""
    lines = [f"HTTP/1.1 {status}", *fields, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def chat_event(text: str, *, finish: str | None = None) -> bytes:
    """An OpenAI chat completion chunk as an SSE event."""
    delta = f'{{"content":"{text}"}}' if text else "{}"
    reason = f'"{finish}"' if finish else "null"
    return (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
        f'"choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}\n\n'
    ).encode()


CHAT_EVENTS = (
    chat_event("one"),
    chat_event(" two"),
    chat_event(" three"),
    chat_event("", finish="stop"),
    b"data: [DONE]\n\n",
)


# --- scripts


def replies(*answers: bytes) -> Script:
    """Answer each request of a connection with the next of `answers`, the last one for ever."""

    async def script(connection: UpstreamConnection) -> None:
        number = 0
        while True:
            await connection.request()
            await connection.send(answers[min(number, len(answers) - 1)])
            number += 1

    return script


def then_closes(answer: bytes) -> Script:
    """Answer one request and close the connection."""

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(answer)

    return script


def then_resets(answer: bytes) -> Script:
    """Answer one request and reset the connection."""

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(answer)
        connection.reset()

    return script


def then_stalls(answer: bytes) -> Script:
    """Answer one request (with b"": not at all) and say no more, until the proxy is gone."""

    async def script(connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(answer)
        await connection.ended()

    return script


def streams(*events: bytes) -> Script:
    """Answer every request with an SSE stream of these events, a chunk and a write each."""

    async def script(connection: UpstreamConnection) -> None:
        while True:
            await connection.request()
            await connection.send(STREAM_HEAD)
            for event in events:
                await connection.send_chunk(event)
            await connection.send(LAST_CHUNK)

    return script


def drips(answer: bytes) -> Script:
    """Answer one byte a write."""

    async def script(connection: UpstreamConnection) -> None:
        while True:
            await connection.request()
            await connection.send(answer, piece_bytes=1)

    return script


class Held:
    """An upstream that streams the first chat event of a reply, and the others once `release` is set."""

    def __init__(self, upstream: RawUpstream) -> None:
        self.release = asyncio.Event()
        upstream.script = self._script

    async def _script(self, connection: UpstreamConnection) -> None:
        while True:
            await connection.request()
            await connection.send(STREAM_HEAD)
            await connection.send_chunk(CHAT_EVENTS[0])
            await self.release.wait()
            for event in CHAT_EVENTS[1:]:
                await connection.send_chunk(event)
            await connection.send(LAST_CHUNK)
