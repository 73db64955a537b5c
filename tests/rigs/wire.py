"""One TCP connection, byte for byte: what a raw client and a raw upstream have in common.

Works on the socket itself. Nothing is buffered, read ahead or retried behind the test's back, so what was sent and
received can be counted, a peer that does not read fills the kernel's buffers and no more, and a reset is a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass, field

from .waiting import within_limit

_READ_BYTES = 65536
NO_BODY_STATUS = (204, 304)


@dataclass
class Head:
    """A start line and header fields as they were on the wire; names keep their case, fields their order."""

    start: str
    fields: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The one field of that name, None where there is none; AssertionError where there are several."""
        values = self.all(name)
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None


@dataclass
class Message:
    """A request or a reply: head, body without its framing, trailer fields."""

    head: Head
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ends: str = "length"  # what delimited the body: "length", "chunked", "close" or "none"

    @property
    def method(self) -> str:
        return self.head.start.split(" ")[0]

    @property
    def target(self) -> str:
        return self.head.start.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.head.start.split(" ")[1])

    @property
    def reason(self) -> str:
        return self.head.start.partition(" ")[2].partition(" ")[2]


class Wire:
    """A connected socket. Every read gives up after a generous limit with an AssertionError."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) if connected.family != socket.AF_UNIX else None
        self._socket = connected
        self._unread = bytearray()
        self.received = bytearray()
        """Every byte that came, whether a test has looked at it or not."""
        self.sent_bytes = 0
        """What the kernel has taken."""

    # --- sending

    async def send(self, data: bytes | str, piece_bytes: int = 1 << 16) -> None:
        """Send `data`, at most `piece_bytes` a write; `sent_bytes` counts after each."""
        loop = asyncio.get_running_loop()
        whole = memoryview(data.encode("latin-1") if isinstance(data, str) else data)
        for start in range(0, len(whole), piece_bytes):
            piece = whole[start : start + piece_bytes]
            await loop.sock_sendall(self._socket, piece)
            self.sent_bytes += len(piece)

    async def send_chunk(self, data: bytes | str) -> None:
        """One chunk of a chunked body (RFC 9112 §7.1); the empty one is the last."""
        encoded = data.encode() if isinstance(data, str) else data
        await self.send(b"%x\r\n%b\r\n" % (len(encoded), encoded))

    def half_close(self) -> None:
        """Send FIN, go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def is_open(self) -> bool:
        """Whether this side has not closed it."""
        return self._socket.fileno() != -1

    # --- receiving

    def at_end(self) -> bool:
        """Whether the peer has closed or reset the connection already; takes nothing from it."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    async def read_some(self, limit_bytes: int = _READ_BYTES) -> bytes:
        """What one read gives; b"" at the end. Raises ConnectionError at a reset."""
        if self._unread:
            data = bytes(self._unread[:limit_bytes])
            del self._unread[:limit_bytes]
            return data
        loop = asyncio.get_running_loop()
        data = await within_limit(
            loop.sock_recv(self._socket, limit_bytes), f"more bytes after {self.received[-200:]!r}"
        )
        self.received += data
        return data

    async def read_until(self, mark: bytes) -> bytes:
        """Everything up to and including `mark`."""
        data = bytearray()
        while mark not in data:
            more = await self.read_some()
            if not more:
                raise EOFError(f"the connection ended before {mark!r}: {bytes(data)!r}")
            data += more
        end = data.index(mark) + len(mark)
        self._unread[:0] = data[end:]
        return bytes(data[:end])

    async def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            more = await self.read_some(count - len(data))
            if not more:
                raise EOFError(f"the connection ended after {len(data)} of {count} bytes")
            data += more
        return bytes(data)

    async def read_to_end(self) -> bytes:
        """Everything up to the FIN. Raises ConnectionError at a reset."""
        data = bytearray()
        while more := await self.read_some():
            data += more
        return bytes(data)

    async def ended(self) -> None:
        """Return once the peer has closed or reset the connection, whatever still comes before that."""
        with contextlib.suppress(ConnectionError):
            await self.read_to_end()

    async def read_head(self) -> Head:
        """A start line and its fields, up to the empty line."""
        lines = (await self.read_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        return Head(lines[0], [_field(line) for line in lines[1:]])

    async def read_body(self, head: Head, *, to_close: bool) -> Message:
        """The body that `head` announces; where it announces none, there is none, or (`to_close`) all up to the end."""
        if "chunked" in (head.get("Transfer-Encoding") or "").lower():
            body, trailers = await self._read_chunked()
            return Message(head, body, trailers, "chunked")
        length = head.get("Content-Length")
        if length is not None:
            return Message(head, await self.read_exactly(int(length)), ends="length")
        if to_close:
            return Message(head, await self.read_to_end(), ends="close")
        return Message(head, ends="none")

    async def read_chunk(self) -> bytes:
        """The content of one chunk; b"" for the last one, whose trailer section is then still to be read."""
        size = int((await self.read_until(b"\r\n")).split(b";")[0], 16)
        if not size:
            return b""
        data = await self.read_exactly(size)
        assert await self.read_exactly(2) == b"\r\n", "a chunk does not end where its size says"
        return data

    async def _read_chunked(self) -> tuple[bytes, list[tuple[str, str]]]:
        body = bytearray()
        while data := await self.read_chunk():
            body += data
        trailers = []
        while line := (await self.read_until(b"\r\n"))[:-2]:
            trailers.append(_field(line.decode("latin-1")))
        return bytes(body), trailers


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    assert colon, f"not a header field: {line!r}"
    return name, value.strip(" \t")


def details(message: Message) -> str | None:
    """Why the proxy answered itself, as its Proxy-Status says (RFC 9209); None for a reply that is not the proxy's."""
    stated = re.search(r'penstock; details="([^"]*)"', message.head.get("Proxy-Status") or "")
    return stated[1] if stated else None
