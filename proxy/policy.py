"""THE CONTRACT of a policy: events in, a verdict out.

A policy author writes three classes in one file: a `Config` (pydantic model: the keys of the `[[policy]]` table), a
`Policy` (one per table, shared by all exchanges) whose `admit` makes a `PolicyStream` (the state for one exchange or
one attachment). The chain (`chain.py`) calls the stream; the stream never calls anybody. Everything below
`Policy.admit` is synchronous, takes `now` (monotonic seconds) as a value and must be fast: no socket, clock, task, lock.

    observe    return the list that was given           hold back   return fewer events, release later
    rewrite    return new events (`event.with_deltas`)  inject      return events from `on_timer`
    end early  return `Stop`                            slow down   return `Pause`
    stay out   return None from `admit`: costs nothing

The life of a stream: `on_start`, `on_response`, then any of `on_activity` / `on_reading` / `on_events` / `on_timer`,
then one of `on_end` / `on_cut` (neither, where the stream itself or a later one stopped), then `close`, then `facts`. The
head of a local or a whole reply is known only at its end: there `on_response` comes last before `close`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from .errors import Outcome
from .filewatch import WatchedFile
from .framing import Event
from .identity import CountsBy, Fact
from .messages import Headers, Reply, Request, ResponseHead
from .state import Store

API_VERSION = 1

Events = list[Event]
"""One batch: the complete events of one read, never empty when a hook is given it."""


class Stage(enum.IntEnum):
    """Where in the chain a policy may stand, in this order (the loader refuses any other and never sorts)."""

    ADMIT = 1  # cors, auth, request rates, caps: before anything is spent on the request
    GUARD = 2  # timeouts, validation: see what the upstream really did
    TRANSFORM = 3  # redaction, sanitising: before anything is counted, paced or recorded
    METER = 4  # token budgets, audit: count what is delivered
    PACE = 5  # coalescing, warm-up: decide when, not what
    RECORD = 6  # resume log: exactly what any attachment may be sent
    RESTORE = 7  # pseudonyms back, for the one client who sent them: never recorded
    KEEPALIVE = 8  # heartbeat: this connection only
    ENCODE = 9  # compression: last, at most one


class Scope(enum.Enum):
    """Whose state a stream is: the exchange's, or one client connection's (which a resumed exchange has several of)."""

    EXCHANGE = "exchange"
    ATTACHMENT = "attachment"


class Sees(enum.IntEnum):
    """What a stream has to be shown. The relay does no more than the highest in the chain asks for."""

    NOTHING = 0  # admission, head and ends only
    ACTIVITY = 1  # that bytes came (`on_activity`), not which
    EVENTS = 2  # `on_events`; the upstream is then asked for an uncompressed reply


class Ending(enum.Enum):
    """How a stream that the proxy ends is to look to the client, in its dialect's words."""

    LENGTH = "length"  # like that API's own output limit
    ERROR = "error"  # an error event: the SDK raises its own error class


class Pause:
    """Deliver `passed` now; offer `rest` (and what queued behind it) to this policy again in `seconds`.

    With an empty `rest` there is nothing to wait for, and nothing pauses."""

    __slots__ = ("passed", "rest", "seconds")

    def __init__(self, seconds: float, passed: Events, rest: Events) -> None:
        self.seconds = seconds
        self.passed = passed
        self.rest = rest


class Stop:
    """Deliver `events` (never a terminal), then end this stream with `ending`.

    `reason` is machine-readable. Where it is a key of `errors.FAULTS` (such as "upstream_silence") that row gives the
    outcome, and the status if the head has not been sent yet; any other reason is STOPPED(policy, reason), status 403.
    `headers` (Retry-After ...) go with that local reply; where the head was sent they come too late, and are dropped.
    """

    __slots__ = ("ending", "events", "headers", "message", "reason")

    def __init__(
        self,
        reason: str,
        ending: Ending = Ending.ERROR,
        events: Events | None = None,
        *,
        message: str | None = None,
        headers: Mapping[str, str] | Headers | None = None,
    ) -> None:
        self.reason = reason
        self.ending = ending
        self.events: Events = [] if events is None else events
        self.message = message
        self.headers = headers


Verdict = Events | Pause | Stop


class PolicyConfig(BaseModel):
    """Base of a policy's `Config`. Strict: no unknown keys, no conversions between types; frozen once read."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @property
    def state_answers_within_s(self) -> float:
        """What the policy can wait for a store that is shared: a longer `[state] timeout_ms` is a configuration error."""
        return math.inf

    @property
    def needs(self) -> Mapping[str, Fact]:
        """What must be known of a client before the policy is asked, by the key of the table that says so ("": all of it); if
        nobody before it in the chain `tells` it, that is a configuration error. Default: what keys of the type `identity.Per`
        count by."""
        marked = [name for name, field in type(self).model_fields.items() if _counts_by(field.metadata)]
        return {name: value for name in marked if (value := getattr(self, name)) in get_args(Fact)}

    @property
    def tells(self) -> Collection[Fact]:
        """What the policy finds out about clients that it lets in (`request.identity`), or does to their requests."""
        return ()

    @property
    def watched(self) -> Sequence[WatchedFile[Any]]:
        """The files among its keys that are read again when they change."""
        return ()


def _counts_by(metadata: Sequence[object]) -> bool:
    return any(isinstance(mark, CountsBy) for mark in metadata)


ConfigT = TypeVar("ConfigT", bound=PolicyConfig)


class Host(Protocol):
    """What a policy is given of the process it runs in."""

    name: str
    """The policy's own name (`name` in its table, default `use`)."""
    state: Store
    """What holds across processes. Put your `name` first in every key: `state.key(self.host.name, ...)`."""

    def clock(self) -> float:
        """Monotonic seconds, for `admit` only: streams are given `now`."""

    def spawn(self, work: Coroutine[Any, Any, None], stream: PolicyStream | None = None) -> None:
        """Run `work` in the background, supervised. When it is done `stream.on_timer` is called at once, also during a
        pause. What is spawned in `close` is awaited at shutdown."""

    def counter(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> Callable[..., None]:
        """A Prometheus counter `penstock_policy_<name>_total` with a `policy` label; call the result with the amount and
        the label values. Labels must be bounded: never an identity, a path or content."""

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A Prometheus gauge `penstock_policy_<name>` with a `policy` label, of what `read` returns when it is asked for.

        Called in another thread: read one attribute, or the length of one collection."""


class PolicyStream:
    """A policy's state for one exchange (or attachment). Override what you need: a hook not overridden costs nothing."""

    wake_at: float | None = None
    """When to call `on_timer` next, monotonic seconds; None: never. Cleared before each call of `on_timer`."""
    _poke: Callable[[PolicyStream], None] | None = None  # set by the exchange, for `Host.spawn`
    _not_overridden: ClassVar[None] = None  # what the chain has in the place of such a hook

    def on_start(self, now: float) -> None:
        """Once, after every policy admitted the request; not where a later one refused it."""

    def on_response(self, head: ResponseHead) -> Reply | None:
        """Once: the upstream's head, or the local one when the reply opens early or the proxy answers itself.

        Edit `head.headers` in place. EXCHANGE streams get the upstream's head as it comes; ATTACHMENT streams the head
        that is really sent, so never both. A returned `Reply` replaces the upstream's answer (ignored for a local head);
        it is then a new head, which ATTACHMENT streams are shown."""
        return None

    def on_activity(self, now: float) -> None:
        """Bytes of the reply's body arrived from the upstream (`sees` >= ACTIVITY)."""

    def on_reading(self, reading: bool, now: float) -> None:
        """The relay stopped (slow client, paused policy) or resumed reading from the upstream (`sees` >= ACTIVITY)."""

    def on_events(self, events: Events, now: float) -> Verdict:
        """The hot path (`sees` = EVENTS). Release a channel's held text before an event that `ends` the channel."""
        return events

    def on_timer(self, now: float) -> Events | Stop:
        """`wake_at` has come, or spawned work is done. What is returned goes to later policies only."""
        return []

    def on_end(self, now: float) -> Events:
        """The stream ended cleanly: release what is still held."""
        return []

    def on_cut(self, now: float) -> Events:
        """It ended in any other way: release only what no continuation could have changed. Default: nothing.

        At stage RECORD and later, `on_events` may follow once more with the ending."""
        return []

    def close(self, outcome: Outcome) -> None:
        """Exactly once, always. Must not raise and must release everything held."""

    def facts(self) -> Mapping[str, int | str]:
        """After `close`: what the access log says of this stream. Never content."""
        return {}


class Encoder:
    """What the one policy at stage ENCODE has instead of a `PolicyStream`: bytes in, coded bytes out."""

    def on_response(self, head: ResponseHead, *, streaming: bool) -> bool:
        """Whether to encode this reply; if so, edit `head.headers` (Content-Encoding, Vary, Content-Length, ETag).

        `streaming` tells a stream (flushed once a batch) from a whole reply. Called once, like the policies' own."""
        raise NotImplementedError

    def encode(self, data: bytes, flush: bool) -> bytes:
        """Code `data`; with `flush` everything given so far can be decoded from what was returned so far."""
        raise NotImplementedError

    def finish(self) -> bytes:
        """The end of the coded body. Not called where the body is cut."""
        raise NotImplementedError

    def close(self, outcome: Outcome) -> None:
        """Exactly once, always."""

    def facts(self) -> Mapping[str, int | str]:
        return {}


class Policy(Generic[ConfigT]):
    """One configured `[[policy]]` table, shared by all exchanges. Its constructor has no side effects."""

    api: ClassVar[int] = API_VERSION
    stage: ClassVar[Stage]
    scope: ClassVar[Scope] = Scope.EXCHANGE
    sees: ClassVar[Sees] = Sees.NOTHING
    needs_state: ClassVar[bool] = False
    """Uses `host.state`: several processes then need one that they share."""
    may_bypass: ClassVar[bool] = False
    """Whether `on_error = "bypass"` is allowed: only where the policy never holds, rewrites or stops."""
    needs_body: bool = False
    """The bounded, decoded request body is there before this policy's `admit`. May be set per instance, in `__init__`.

    It is read when the first policy that needs it is reached, so that those before it (auth, caps) can refuse a request
    without its body being held in memory."""
    Config: type[ConfigT]

    def __init__(self, config: ConfigT, host: Host) -> None:
        self.config = config
        self.host = host

    async def start(self) -> None:
        """Before the first exchange. What raises here keeps the process from starting."""

    async def stop(self) -> None:
        """After the last exchange; also after a `start` that failed."""

    async def admit(self, request: Request) -> PolicyStream | Encoder | Reply | None:
        """Let `request` in, with a stream of its own, refuse it with a `Reply`, or stay out of it with None.

        May be cancelled at any await (the client left) and must then hold nothing."""
        return None
