"""For tests (`testing.py`): what a policy is given, and one exchange through it on the real chain in simulated time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Self

from .chain import CLEAN_END, Chain, Link, Mark
from .dialects.base import Channel, Dialect, DialectStream
from .dialects.generic import Generic
from .errors import Outcome
from .framing import Event, Framer
from .messages import Headers, Reply, Request, ResponseHead
from .policy import Events, Host, Policy, PolicyStream, Scope
from .state import Store
from .state_memory import MemoryStore

SSE = "text/event-stream"
JSON = "application/json"
EVENT_BYTES = HOLD_BYTES = 1 << 20
_MOST_RINGS = 1000


class FakeHost(Host):
    """A host whose clock stands still, and whose background work waits for `run_spawned`."""

    def __init__(self, name: str = "policy", now: float = 1000.0) -> None:
        self.name = name
        self.now = now
        self.state: Store = MemoryStore(clock=self.clock)
        self.counts: Counter[tuple[str, ...]] = Counter()  # by (name of the counter, label values ...)
        self.gauges: dict[str, Callable[[], float]] = {}
        self._spawned: list[tuple[Coroutine[Any, Any, None], PolicyStream | None]] = []

    def clock(self) -> float:
        return self.now

    def spawn(self, work: Coroutine[Any, Any, None], stream: PolicyStream | None = None) -> None:
        self._spawned.append((work, stream))

    async def run_spawned(self, stream: PolicyStream | None = None) -> bool:
        """Do what was spawned for `stream`, and what was spawned for none; whether there was anything."""
        due = [work for work, waiting in self._spawned if waiting in (stream, None)]
        self._spawned = [(work, waiting) for work, waiting in self._spawned if waiting not in (stream, None)]
        for work in due:
            await work
        return bool(due)

    def counter(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> Callable[..., None]:
        def count(amount: int, *values: str) -> None:
            if len(values) != len(labels):
                raise ValueError(f"counter {name} has the labels {labels}, not {len(values)} of them")
            self.counts[(name, *values)] += amount

        return count

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        self.gauges[name] = read


def make_request(
    text: str = "Hello",
    *,
    stream: bool = True,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    headers: Mapping[str, str] | None = None,
    dialect: Dialect | None = None,
) -> Request:
    """A model call that says `text`, with its body."""
    document = {"model": "test", "stream": stream, "messages": [{"role": "user", "content": text}]}
    fields = Headers({"Content-Type": JSON, **(headers or {})})
    return Request(
        id="test",
        method=method,
        path=path,
        headers=fields,
        dialect=dialect or Generic(),
        body=json.dumps(document).encode(),
    )


def make_head(
    request: Request,
    content_type: str = SSE,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    local: bool = False,
) -> ResponseHead:
    """A head, of the upstream's if it is not `local`, with the stream that the request's dialect opens for it."""
    head = ResponseHead(status, Headers({"Content-Type": content_type, **(headers or {})}), local=local)
    head.stream = request.dialect.open(head, request.call)
    return head


def sse(*texts: str) -> bytes:
    """Server-sent events that add one text each, in the one channel that the generic dialect reads in them."""
    return b"".join(b"data: %s\n\n" % json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts)


def joined(events: Iterable[Event]) -> bytes:
    """The events as they stand on the wire."""
    return b"".join(event.raw for event in events)


def texts(events: Iterable[Event]) -> dict[Channel, str]:
    """What the events add to each channel, merged: the same however it was cut."""
    merged: dict[Channel, str] = {}
    for event in events:
        for channel, text in event.deltas:
            merged[channel] = merged.get(channel, "") + text
    return merged


class Simulation:
    """One exchange through one policy, in simulated time: each step returns the events that leave the policy.

    `admit`, `start`, `respond`, then any of `read` / `reading` / `advance` / `run_spawned`, then `end` or `cut`, then
    `close`. `delivered` has all that left so far, the dialect's ending too. As in the relay, what a policy says before
    `respond` opens the reply early.
    """

    def __init__(self, policy: Policy[Any], stream: PolicyStream, request: Request) -> None:
        self.policy = policy
        self.stream = stream
        self.request = request
        self.now = policy.host.clock()
        self.chain = Chain([Link(policy.host.name, policy.stage, policy.sees, stream)], HOLD_BYTES)
        self.delivered: Events = []
        self._reply: DialectStream | None = None
        self._framer: Framer | None = None
        self._shown = False
        self._ending_due = True
        self._closed = False

    @classmethod
    async def admit(cls, policy: Policy[Any], request: Request | None = None) -> Self:
        """Admission. Raises AssertionError where the policy refuses the request or stays out of it."""
        request = request or make_request()
        if not policy.needs_body:
            request.body = None
        stream = await policy.admit(request)
        if not isinstance(stream, PolicyStream):
            raise AssertionError(f"admit gave {type(stream).__name__}, not a PolicyStream")
        return cls(policy, stream, request)

    @property
    def outcome(self) -> Outcome | None:
        """How the stream ended, None while it goes on."""
        return None if self.chain.ended is None else self.chain.ended.outcome

    def start(self) -> Events:
        """Every policy has admitted the request."""
        return self._left(self.chain.start(self.now))

    def respond(self, head: ResponseHead | None = None) -> Reply | None:
        """The upstream's head, by default of an event stream; returned is what the policy answers in its stead."""
        head = head or make_head(self.request)
        self._reply = self._reply or head.stream
        self._framer = self._reply.framer(EVENT_BYTES) if self._reply is not None else None
        return self._show(head)

    def read(self, data: bytes) -> Events:
        """What one read from the upstream brings. Raises ValueError before `respond`."""
        if self._framer is None:
            raise ValueError("there is no body to read")
        left = self._left(self.chain.activity(self.now))
        return left + self._feed(self._framer.feed(data))

    def reading(self, reading: bool) -> Events:
        """The relay stops or resumes reading from the upstream."""
        return self._left(self.chain.reading(reading, self.now))

    def advance(self, seconds: float) -> Events:
        """Time passes, and timers ring when they are due. Raises AssertionError where they ring without end."""
        until = self.now + seconds
        left: Events = []
        rings = 0  # at one moment
        while (wake_at := self.chain.next_wake()) is not None and wake_at <= until:
            rings = 0 if wake_at > self.now else rings + 1
            if rings > _MOST_RINGS:
                raise AssertionError("a pause or a timer that is over at once comes again and again, without end")
            self.now = max(self.now, wake_at)
            left += self._left(self.chain.timer(self.now))
        self.now = until
        if isinstance(self.policy.host, FakeHost):
            self.policy.host.now = max(self.policy.host.now, until)
        return left

    async def run_spawned(self) -> Events:
        """What the policy spawned on its `FakeHost` is done, and the stream is told unless it is closed."""
        host = self.policy.host
        if isinstance(host, FakeHost) and await host.run_spawned(self.stream) and not self._closed:
            return self._left(self.chain.poke(self.stream, self.now))
        return []

    def end(self) -> Events:
        """The body ends cleanly."""
        rest = self._framer.finish() if self._framer is not None else b""
        left = self._feed([rest] if rest else [])
        return left + self._left(self.chain.finish(CLEAN_END, self.now))

    def cut(self, details: str) -> Events:
        """The stream ends in any other way; `details` as in `errors.FAULTS`."""
        return self._left(self.chain.finish(Mark.cut(details), self.now))

    def close(self, outcome: Outcome | None = None) -> Mapping[str, int | str]:
        """The last call: what the access log is told."""
        self._closed = True
        self.chain.close(outcome or self.outcome or Outcome.of("client_gone"))
        return self.chain.facts().get(self.policy.host.name, {})

    def _show(self, head: ResponseHead) -> Reply | None:
        """A stream of one attachment is shown the head that is really sent, so never a second one."""
        if self._shown and self.policy.scope is Scope.ATTACHMENT:
            return None
        self._shown = True
        answer = self.chain.response(head)
        return None if answer is None else answer[1]

    def _open_early(self) -> DialectStream:
        head = make_head(self.request, local=True)
        self._reply = self.request.dialect.open(head, self.request.call)
        if self.policy.scope is Scope.ATTACHMENT:
            self._show(head)
        return self._reply

    def _feed(self, frames: Sequence[bytes]) -> Events:
        if not frames or self._reply is None:
            return []
        return self._left(self.chain.feed([self._reply.event(frame) for frame in frames], self.now))

    def _left(self, events: Events) -> Events:
        """What left the chain is delivered; after a cut the dialect's ending follows."""
        if events:
            (self._reply or self._open_early()).delivered(events)
        mark, reply = self.chain.ended, self._reply
        if mark is not None and mark.ending is not None and mark.problem is not None and self._ending_due:
            self._ending_due = False
            if reply is not None and reply.framing.streaming:
                events = events + self.chain.deliver_ending(reply.ending(mark.ending, mark.problem), self.now)
        self.delivered += events
        return events
