"""One client connection's part of an exchange: its own policy streams, the encoder, and the host's way to the client.

Nearly always an exchange has one. What it writes to (`Downstream`) is the host's: aiohttp's server here, anything else in
another host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .chain import Chain
from .errors import Outcome
from .messages import Reply, ResponseHead
from .policy import Encoder


class Downstream(Protocol):
    """The client's side of one reply. Synchronous: `write` never waits; the host tells the relay `unwritable` when its
    buffer is full and `writable` when it has drained."""

    def send_head(self, head: ResponseHead) -> None:
        """Status and header fields. Without Content-Length the body is chunked, or ends with the connection (HTTP/1.0)."""

    def send_informational(self, head: ResponseHead) -> None:
        """A 1xx before the head."""

    def write(self, data: bytes) -> None:
        """Bytes of the body, in order; dropped where the reply has none (HEAD, 204, 304)."""

    def end(self) -> None:
        """The body is complete."""

    def abort(self) -> None:
        """The body is not complete and the client must be able to tell: what was written still arrives."""

    def reset(self) -> None:
        """Drop the connection at once, with what was not read yet."""


class Attachment:
    """`encoder` is the name and encoder of the policy at stage ENCODE."""

    def __init__(self, chain: Chain, encoder: tuple[str, Encoder] | None, downstream: Downstream) -> None:
        self.chain = chain
        self.opened = False
        self.status = 0
        self.written = 0  # bytes of the body
        self._encoder = encoder
        self._encoding: Encoder | None = None
        self._downstream = downstream

    def open(self, head: ResponseHead, *, streaming: bool) -> tuple[str, Reply] | None:
        """Show the head to the policies and send it; or (policy, reply) where one of them answers instead: then nothing
        was sent."""
        answer = self.chain.response(head)
        if answer is not None:
            return answer
        if self._encoder is not None:
            name, encoder = self._encoder
            try:
                self._encoding = encoder if encoder.on_response(head, streaming=streaming) else None
            except Exception as exc:
                self.chain.errors.append((name, exc))
                self._encoder = None
                if not head.local:
                    return name, Reply(details="policy_error")
        self.opened = True
        self.status = head.status
        self._downstream.send_head(head)
        return None

    def send_informational(self, head: ResponseHead) -> None:
        """A 1xx, unseen by policies."""
        self._downstream.send_informational(head)

    def write(self, data: bytes, *, flush: bool) -> None:
        """What left the chain, coded. `flush` makes all of it decodable at once."""
        if self._encoding is not None:
            data = self._encoding.encode(data, flush)
            if not data:
                return
        self.written += len(data)
        self._downstream.write(data)

    def end(self) -> None:
        """The reply is complete."""
        if self._encoding is not None:
            data = self._encoding.finish()
            self.written += len(data)
            self._downstream.write(data)
        self._downstream.end()

    def abort(self) -> None:
        """The reply is broken off."""
        self._downstream.abort()

    def reset(self) -> None:
        """The client does not read any more."""
        self._downstream.reset()

    def close(self, outcome: Outcome) -> None:
        """The last call: every stream and the encoder are closed."""
        self.chain.close(outcome)
        if self._encoder is not None:
            name, encoder = self._encoder
            try:
                encoder.close(outcome)
            except Exception as exc:
                self.chain.errors.append((name, exc))

    def facts(self) -> dict[str, Mapping[str, int | str]]:
        said = self.chain.facts()
        if self._encoder is not None:
            name, encoder = self._encoder
            try:
                if facts := encoder.facts():
                    said[name] = facts
            except Exception as exc:
                self.chain.errors.append((name, exc))
        return said
