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
        """Status and header fields. Without Content-Length the body is chunked, or ends with the connection (HTTP/1.0).

        Written with the first bytes of the body, or by `flush`, whichever is first: a write costs as much as all that is done
        to an event."""

    def flush(self) -> None:
        """No bytes of the body came with the head."""

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

    @property
    def unsent(self) -> int:
        """Bytes written that the client has not taken yet, as far as can be known."""


class EncoderFailed(Exception):
    """The encoder of `policy` raised, and what is sent can no longer be decoded."""

    def __init__(self, policy: str) -> None:
        super().__init__(policy)
        self.policy = policy


class Attachment:
    """`encoder` is the name and encoder of the policy at stage ENCODE."""

    __slots__ = (
        "_downstream", "_encoder", "_encoder_failed", "_encoding", "chain", "opened", "status", "written",
    )  # fmt: skip

    def __init__(self, chain: Chain, encoder: tuple[str, Encoder] | None, downstream: Downstream) -> None:
        self.chain = chain
        self.opened = False
        self.status = 0
        self.written = 0  # bytes of the body
        self._encoder = encoder
        self._encoder_failed = False
        self._encoding: Encoder | None = None
        self._downstream = downstream

    def show(self, head: ResponseHead) -> tuple[str, Reply] | None:
        """Show the head to the policies; (policy, reply) where one of them answers instead."""
        return self.chain.response(head)

    def open(self, head: ResponseHead, *, streaming: bool) -> tuple[str, Reply] | None:
        """Send the head that was shown; or (policy, reply) where the encoder failed: then nothing was sent."""
        if self._encoder is not None and not self._encoder_failed:
            name, encoder = self._encoder
            fields = head.headers.copy()
            try:
                self._encoding = encoder if encoder.on_response(head, streaming=streaming) else None
            except Exception as exc:
                self._encoder_failed = True
                self.chain.errors.append((name, exc))
                if not head.local:
                    return name, Reply(details="policy_error")
                head.headers = fields  # it may have promised a coding before it raised
        self._downstream.send_head(head)
        self.opened = True
        self.status = head.status
        return None

    def flush(self) -> None:
        """The head, if it was opened and nothing was written since."""
        self._downstream.flush()

    def send_informational(self, head: ResponseHead) -> None:
        """A 1xx, unseen by policies."""
        self._downstream.send_informational(head)

    def write(self, data: bytes, *, flush: bool) -> None:
        """What left the chain, coded. `flush` makes all of it decodable at once. Raises `EncoderFailed`."""
        if self._encoding is not None:
            try:
                data = self._encoding.encode(data, flush)
            except Exception as exc:
                raise self._failed(exc) from exc
            if not data:
                return
        self.written += len(data)
        self._downstream.write(data)

    def end(self) -> None:
        """The reply is complete. Raises `EncoderFailed`."""
        if self._encoding is not None:
            try:
                data = self._encoding.finish()
            except Exception as exc:
                raise self._failed(exc) from exc
            self.written += len(data)
            self._downstream.write(data)
        self._downstream.end()

    def _failed(self, exc: Exception) -> EncoderFailed:
        assert self._encoder is not None
        policy, _ = self._encoder
        self.chain.errors.append((policy, exc))
        return EncoderFailed(policy)

    def abort(self) -> None:
        """The reply is broken off."""
        self._downstream.abort()

    def answer_unseen(self, head: ResponseHead) -> None:
        """Send a head without a body, and end; no policy sees it."""
        self._downstream.send_head(head)
        self.opened = True
        self.status = head.status
        self._downstream.end()

    @property
    def taken(self) -> int:
        """Bytes of the body that the client has taken; only its growth means anything."""
        return self.written - self._downstream.unsent

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
