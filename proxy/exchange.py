"""One request to its one outcome: admission in order, an attempt at the upstream, the relay. Host-neutral.

Knows no HTTP framework: a host gives it a `Request` and a `Downstream`, awaits `run`, and cancels `run` when its client is
gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .attachment import Attachment, Downstream
from .chain import Chain, Link
from .decoding import Decoder, Undecodable, content_coding
from .dialects import check_call
from .errors import Outcome, PolicyError, RequestError, UpstreamError
from .messages import Chunks, Headers, Reply, Request
from .policy import Encoder, Policy, PolicyStream, Scope
from .relay import Limits as RelayLimits
from .relay import Relay
from .sink import on_informational
from .turns import Turns

if TYPE_CHECKING:
    from .upstream import Upstream


@dataclass(frozen=True, slots=True)
class Place:
    """A policy's place in a route's chain."""

    name: str
    policy: Policy[Any]
    bypass: bool  # on_error = "bypass"


@dataclass(frozen=True, slots=True)
class Route:
    """One `[routes.NAME]` table, running."""

    name: str
    path: str
    hosts: Sequence[str]
    dialect: str
    rewrite: str | None
    upstream: Upstream
    places: Sequence[Place]

    def upstream_path(self, path: str) -> str:
        """`path` with the matched prefix replaced by `rewrite`."""
        if self.rewrite is None:
            return path
        rest = path.removeprefix(self.path.rstrip("/"))
        return self.rewrite.rstrip("/") + (rest or "") or "/"


class Limits(RelayLimits, Protocol):
    @property
    def body_bytes(self) -> int: ...
    @property
    def pause_bytes(self) -> int: ...


class _Ear:
    """What is told of informational responses while the head is awaited. A connection that is opened meanwhile keeps its
    opener's context, and what was in it, as long as it lives: not the exchange then."""

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[], Relay]) -> None:
        self.begin: Callable[[], Relay] | None = begin

    def __call__(self, status: int, headers: Headers) -> None:
        if self.begin is not None:
            self.begin().informational(status, headers)


class Exchange:
    """Runs once. `route` None: nothing was found for the request, it can only be refused. `turns`: the line that it shares with
    others, if there are others."""

    def __init__(
        self,
        request: Request,
        route: Route | None,
        downstream: Downstream,
        limits: Limits,
        turns: Turns | None = None,
    ) -> None:
        self.request = request
        self.route = route
        self.relay: Relay | None = None
        self.attachment: Attachment | None = None
        self.chain: Chain | None = None
        self._downstream = downstream
        self._limits = limits
        self._turns = turns
        self._links: list[Link] = []
        self._attachment_links: list[Link] = []
        self._encoder: tuple[str, Encoder] | None = None
        self._errors: list[tuple[str, Exception]] = []
        self._blocked = False  # the client does not read
        self._shut_down = False  # during admission
        self._task: asyncio.Task[Any] | None = None

    @property
    def errors(self) -> list[tuple[str, Exception]]:
        """What policies raised, by policy name, for the host to log without content."""
        return self._errors + (self.relay.errors if self.relay is not None else [])

    async def run(self) -> Outcome:
        """To the outcome. Cancelled: the client is gone (or `shut_down` came during admission)."""
        assert self.route is not None
        task = self._task = asyncio.current_task()
        assert task is not None
        try:
            refused = await self._admit(self.route)
            if refused is None:
                relay = await self._ask(self.route, task)
            else:
                source, reply = refused
                relay = self._make_relay()
                relay.refuse(reply, source)
            return await relay.done
        except asyncio.CancelledError:
            relay = self.relay or self._make_relay()
            if self._shut_down:
                relay.cut("shutdown")
            else:
                relay.client_gone()
            if not self._shut_down or task.uncancel() > 0:
                raise
            return await relay.done
        except Exception as exc:
            relay = self.relay or self._make_relay()
            relay.crashed(exc)
            return await relay.done
        finally:
            self._task = None
            for link in (*self._links, *self._attachment_links):
                link.stream._poke = None  # or all of an exchange would be left for the garbage collector to find

    def refuse(self, reply: Reply, source: str) -> Outcome:
        """Answer without having asked any policy."""
        relay = self._make_relay()
        relay.refuse(reply, source)
        assert relay.outcome is not None
        return relay.outcome

    def unwritable(self) -> None:
        """The client's buffer is full, maybe still with what an earlier exchange wrote."""
        self._blocked = True
        if self.relay is not None:
            self.relay.unwritable()

    def writable(self) -> None:
        """The client's buffer has drained."""
        self._blocked = False
        if self.relay is not None:
            self.relay.writable()

    def shut_down(self) -> None:
        """No time is left: end the stream in its dialect's words, or refuse what has not begun."""
        if self.relay is not None:
            self.relay.cut("shutdown")
        elif self._task is not None:
            self._shut_down = True
            self._task.cancel()

    # Admission

    async def _admit(self, route: Route) -> tuple[str, Reply] | None:
        """Ask the policies in order; (who, reply) of the first that refuses."""
        request = self.request
        for place in route.places:
            policy = place.policy
            try:
                if policy.needs_body and request.body is None:
                    await self._read_body()
                    check_call(request, route.upstream_path(request.path))
                answer = await policy.admit(request)
                if isinstance(answer, PolicyStream):
                    links = self._attachment_links if policy.scope is Scope.ATTACHMENT else self._links
                    links.append(Link(place.name, policy.stage, policy.sees, answer, bypass=place.bypass))
                elif isinstance(answer, Reply):
                    return place.name, answer
                elif isinstance(answer, Encoder):
                    self._encoder = (place.name, answer)
                elif answer is not None:
                    raise PolicyError(f"admit returned a {type(answer).__name__}")
            except RequestError as exc:
                return "parser", Reply(details=exc.details)
            except Exception as exc:
                self._errors.append((place.name, exc))
                if place.bypass:
                    continue
                return place.name, Reply(details="policy_error")
        return None

    async def _read_body(self) -> None:
        """Read the whole request body, undo its coding, both within the limit. Raises `RequestError`."""
        request = self.request
        if int(request.headers.get("Content-Length", 0)) > self._limits.body_bytes:
            raise RequestError("the body is over the limit", "body_too_large")
        coding = content_coding(", ".join(request.headers.getall("Content-Encoding", ())))
        try:
            decoder = Decoder(coding) if coding else None
        except ValueError:
            raise RequestError("unknown content coding", "unsupported_coding") from None
        if decoder is None and isinstance(request.chunks, Chunks) and (whole := request.chunks.whole()) is not None:
            self._have_body(whole)  # as nearly always: it came with its head
            return
        parts: list[bytes] = []
        size = 0
        if request.chunks is not None:
            async for chunk in request.chunks:
                try:
                    for piece in (chunk,) if decoder is None else decoder.feed(chunk):
                        size += len(piece)
                        if size > self._limits.body_bytes:
                            raise RequestError("the decoded body is over the limit", "body_too_large")
                        parts.append(piece)
                except Undecodable:
                    raise RequestError("the body is not in its content coding", "malformed_body") from None
        if decoder is not None and not decoder.complete:
            raise RequestError("the coded body ends too early", "malformed_body")
        self._have_body(b"".join(parts))

    def _have_body(self, body: bytes) -> None:
        request = self.request
        request.body = body
        request.chunks = None
        request.headers.popall("Content-Encoding", None)

    def _make_parts(self) -> tuple[Chain, Attachment]:
        """The exchange part and the attachment part, of the policies that were asked so far."""
        pause_bytes = self._limits.pause_bytes
        chain = self.chain = Chain(self._links, pause_bytes)
        attachment = Attachment(Chain(self._attachment_links, pause_bytes), self._encoder, self._downstream)
        self.attachment = attachment
        for link in (*self._links, *self._attachment_links):
            link.stream._poke = self._poke
        return chain, attachment

    def _make_relay(self) -> Relay:
        if self.chain is None or self.attachment is None:
            chain, attachment = self._make_parts()
        else:
            chain, attachment = self.chain, self.attachment
        self.relay = relay = Relay(
            self.request, chain, attachment, self._limits, asyncio.get_running_loop(), turns=self._turns
        )
        if self._blocked:
            relay.unwritable()
        return relay

    # The attempt

    async def _ask(self, route: Route, task: asyncio.Task[Any]) -> Relay:
        """Send the request and give the relay the head of the reply, or what went wrong. A relay that ends meanwhile (a
        timeout, a policy) interrupts the asking.

        The relay begins when there is something to wait for: it is not needed to ask, and the upstream is at work sooner."""
        chain, attachment = self._make_parts()
        now = time.monotonic()
        chain.start(now)
        attachment.chain.start(now)
        if chain.ended is not None or attachment.chain.ended is not None:
            return self._begin()
        request = self.request
        if int(request.headers.get("Content-Length", 0)) > self._limits.body_bytes:
            relay = self._begin()
            relay.refuse(Reply(details="body_too_large"), "parser")
            return relay
        beginning = asyncio.get_running_loop().call_soon(self._begin_meanwhile)
        ear = _Ear(self._begin_meanwhile)
        token = on_informational.set(ear)
        identity = chain.has_event_hooks or attachment.chain.has_event_hooks
        try:
            try:
                attempt = await route.upstream.open(request, route.upstream_path(request.path), identity=identity)
            finally:
                on_informational.reset(token)
                ear.begin = None
                beginning.cancel()
                relay = self._begin()
                relay.on_finished = None
        except asyncio.CancelledError:
            if relay.outcome is None or task.uncancel() > 0:
                raise
        except RequestError as exc:
            relay.cut(exc.details, "parser")
        except UpstreamError as exc:
            relay.cut(exc.details)
        else:
            relay.respond(attempt)
        return relay

    def _begin(self, on_finished: Callable[[], object] | None = None) -> Relay:
        """The relay, told once that every policy has admitted the request."""
        if self.relay is not None:
            return self.relay
        relay = self._make_relay()
        relay.on_finished = on_finished
        relay.start()
        return relay

    def _begin_meanwhile(self) -> Relay:
        """`_begin`, while the asking waits: should the relay end, it is interrupted."""
        assert self._task is not None
        return self._begin(self._task.cancel)

    def _poke(self, stream: PolicyStream) -> None:
        """Work that a policy stream spawned is done."""
        if self._task is not None:
            self._begin_meanwhile().poke(stream)
