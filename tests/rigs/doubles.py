"""Stand-ins for what stands around one exchange: the loop's clock, the upstream's reply, the client, policies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from proxy.errors import Outcome, UpstreamError
from proxy.messages import Headers, Reply, ResponseHead
from proxy.policy import Encoder, Events, PolicyStream, Stop, Verdict
from proxy.sink import Sink


@dataclass(frozen=True)
class StreamLimits:
    """Small ones."""

    event_bytes: int = 1000
    reply_bytes: int = 3000
    write_stall_s: float = 30.0
    body_bytes: int = 2000
    pause_bytes: int = 1000


class Timer:
    """What `Loop.call_at` gives back."""

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """As much of an event loop as the relay has, in simulated time."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.timers: list[Timer] = []
        """Every timer that was ever set."""
        self.soon: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def call_soon(self, callback: Callable[[], object]) -> Timer:
        self.soon.append(Timer(self.now, callback))
        return self.soon[-1]

    def turn(self) -> bool:
        """One turn of the loop: what was asked for before it. False: nothing was."""
        due, self.soon = self.soon, []
        for each in due:
            each.callback()
        return bool(due)

    @property
    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        """Time passes, and timers ring when they are due."""
        until = self.now + seconds
        while due := [timer for timer in self.pending if timer.when <= until]:
            timer = min(due, key=lambda timer: timer.when)
            self.now = max(self.now, timer.when)
            timer.cancelled = True
            timer.callback()
        self.now = until

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast(asyncio.AbstractEventLoop, self))

    def get_debug(self) -> bool:
        return False


class Client:
    """A `Downstream` that writes down what it is told, and fails where it is told anything after the end."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.heads: list[ResponseHead] = []
        self.body = b""
        self.end_of_body = ""
        """ "end", "abort" or "reset"; "" while none of them came."""
        self.flushed = False
        """Somebody has said that no body came with the head."""
        self.unsent = 0
        self.on_write: Callable[[], object] = lambda: None

    def send_head(self, head: ResponseHead) -> None:
        assert not self.heads, "a second head"
        self._told("head", head.status)
        self.heads.append(head)

    def flush(self) -> None:
        self.flushed = True

    def send_informational(self, head: ResponseHead) -> None:
        assert not self.heads, "an interim reply after the head"
        self._told("informational", head)

    def write(self, data: bytes) -> None:
        assert self.heads, "a body without a head"
        self._told("write", data)
        self.body += data
        self.on_write()

    def end(self) -> None:
        self._finish("end")

    def abort(self) -> None:
        self._finish("abort")

    def reset(self) -> None:
        self._finish("reset")

    def _finish(self, how: str) -> None:
        self._told(how, None)
        self.end_of_body = how

    def _told(self, what: str, value: object) -> None:
        assert not self.end_of_body, f"{what} after {self.end_of_body}"
        self.calls.append((what, value))

    @property
    def head(self) -> ResponseHead:
        (head,) = self.heads
        return head

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def writes(self) -> list[object]:
        """The arguments of each `write`."""
        return [value for what, value in self.calls if what == "write"]


class Reading:
    """A `Source`: a reply whose body comes when the test says so."""

    def __init__(
        self,
        content_type: str = "text/event-stream",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        *,
        ends_with_connection: bool = False,
        arrived: Sequence[bytes] = (),
    ) -> None:
        self.head = ResponseHead(status, Headers({"Content-Type": content_type, **(headers or {})}))
        self.ends_with_connection = ends_with_connection
        self.calls: list[str] = []
        self.on_resume: Callable[[], object] = lambda: None
        self._arrived = arrived  # handed over at once, like what had come with the head
        self._sink: Sink | None = None

    @property
    def paused(self) -> bool:
        """What the last of `pause` and `resume` was."""
        said = [call for call in self.calls if call in ("pause", "resume")]
        return said[-1:] == ["pause"]

    @property
    def closed(self) -> bool:
        return "close" in self.calls

    def attach(self, sink: Sink) -> None:
        self._called("attach")
        self._sink = sink
        for data in self._arrived:
            sink.feed(data)

    def pause(self) -> None:
        self._called("pause")

    def resume(self) -> None:
        self._called("resume")
        self.on_resume()

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self._called("close")

    def _called(self, what: str) -> None:
        self.calls.append(what)

    # What happens on the connection

    @property
    def sink(self) -> Sink:
        assert self._sink is not None, "nobody is attached"
        return self._sink

    def feed(self, *reads: bytes) -> None:
        for data in reads:
            self.sink.feed(data)

    def eof(self) -> None:
        self.sink.eof()

    def fail(self, error: UpstreamError) -> None:
        self.sink.failed(error)


@dataclass
class Hooks(PolicyStream):
    """A policy stream made of whatever a test gives it; it writes down what it is told, and when it is closed.

    A hook that is not given is the contract's own, except that it writes the call down.
    """

    start: Callable[[float], None] = lambda now: None
    response: Callable[[ResponseHead], Reply | None] = lambda head: None
    activity: Callable[[float], None] = lambda now: None
    events: Callable[[Events, float], Verdict] = lambda events, now: events
    timer: Callable[[float], Events | Stop] = lambda now: []
    end: Callable[[float], Events] = lambda now: []
    cut: Callable[[float], Events] = lambda now: []
    wake_at: float | None = None
    told: list[str] = field(default_factory=list)
    heads: list[tuple[int, bool]] = field(default_factory=list)
    """(status, local) of each head it was shown."""
    outcome: Outcome | None = None

    def on_start(self, now: float) -> None:
        self._tell("start")
        self.start(now)

    def on_response(self, head: ResponseHead) -> Reply | None:
        self._tell("response")
        self.heads.append((head.status, head.local))
        return self.response(head)

    def on_activity(self, now: float) -> None:
        self._tell("activity")
        self.activity(now)

    def on_reading(self, reading: bool, now: float) -> None:
        self._tell("reading" if reading else "not reading")

    def on_events(self, events: Events, now: float) -> Verdict:
        self._tell("events")
        return self.events(events, now)

    def on_timer(self, now: float) -> Events | Stop:
        self._tell("timer")
        return self.timer(now)

    def on_end(self, now: float) -> Events:
        self._tell("end")
        return self.end(now)

    def on_cut(self, now: float) -> Events:
        self._tell("cut")
        return self.cut(now)

    def close(self, outcome: Outcome) -> None:
        self._tell("close")
        self.outcome = outcome

    def _tell(self, what: str) -> None:
        assert self.outcome is None, f"{what} after close"
        self.told.append(what)


class Shout(Encoder):
    """A content coding that can be read in a test: capitals, a bar at each flush, a full stop at the end."""

    def __init__(self, *, raises_in: str = "", declines: bool = False) -> None:
        self.closed: list[Outcome] = []
        self.streaming: bool | None = None
        self._raises_in = raises_in
        self._declines = declines

    def on_response(self, head: ResponseHead, *, streaming: bool) -> bool:
        self._may_raise("on_response")
        self.streaming = streaming
        if not self._declines:
            head.headers["Content-Encoding"] = "shout"
            head.headers.popall("Content-Length", None)
        return not self._declines

    def encode(self, data: bytes, flush: bool) -> bytes:
        self._may_raise("encode")
        return data.upper() + (b"|" if flush else b"")

    def finish(self) -> bytes:
        self._may_raise("finish")
        return b"."

    def close(self, outcome: Outcome) -> None:
        assert not self.closed, "closed twice"
        self.closed.append(outcome)
        self._may_raise("close")

    def facts(self) -> Mapping[str, int | str]:
        self._may_raise("facts")
        return {"coding": "shout"}

    def _may_raise(self, hook: str) -> None:
        if hook == self._raises_in:
            raise RuntimeError(f"the encoder's own mistake in {hook}")


def raising(*_: object, **__: object) -> Any:
    """A hook that raises."""
    raise RuntimeError("the author's mistake")


def in_turn(*results: Any) -> Callable[..., Any]:
    """A hook that gives these, one after the other, the last for ever."""
    endless = itertools.chain(results, itertools.repeat(results[-1]))
    return lambda *_: next(endless)
