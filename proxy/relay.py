"""I/O. Reads to chain to writes, pause reasons, every end: the hot path of one exchange.

`Relay` is what the upstream's bytes are handed to (`feed`, synchronously, from the call that received them) and what
the host tells of its client (`writable`, `unwritable`, `client_gone`). It owns the exchange's one lazy timer. The rules of
the stream are the chain's; here is only who calls it when, and what becomes of what comes out.

Every public method runs to its end without an await and finishes in `_settle`, which alone pauses and resumes reading,
arms the timer and notices that the stream has ended. The first end wins; `_close` is its one exit.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import ParamSpec, Protocol

from .attachment import Attachment
from .chain import CLEAN_END, Chain, Mark
from .decoding import Decoder, Undecodable, content_coding
from .dialects.base import DialectStream
from .errors import Outcome, OutcomeKind, UpstreamError, UpstreamGarbage
from .forwarding import REQUEST_ID, proxy_status
from .framing import Event, Framer, Framing
from .handover import Sink
from .messages import BYTE_EXACT, Headers, Reply, Request, ResponseHead
from .policy import Ending, Events, PolicyStream, Stage

P = ParamSpec("P")

# How many events are looked at for the first content (TTFT) before it is given up: each look is a parse.
_CONTENT_LOOKS = 16


class Limits(Protocol):
    """What `config.LimitsConfig` says of one stream."""

    @property
    def event_bytes(self) -> int: ...
    @property
    def reply_bytes(self) -> int: ...
    @property
    def write_stall_s(self) -> float: ...


class Source(Protocol):
    """An attempt, as far as the relay needs it (`upstream.Attempt`)."""

    head: ResponseHead

    @property
    def ends_with_connection(self) -> bool: ...
    def attach(self, sink: Sink) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


def _guarded(entry: Callable[P, None]) -> Callable[P, None]:
    """Whatever goes wrong in here must not travel into the host's or the upstream's protocol: it ends this exchange."""

    @functools.wraps(entry)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            entry(*args, **kwargs)
        except Exception as exc:
            relay = args[0]
            assert isinstance(relay, Relay)
            relay.crashed(exc)

    return guarded


class Relay:
    """One exchange from admission to its outcome. `done` is set, with `outcome`, when everything has been released."""

    def __init__(
        self,
        request: Request,
        chain: Chain,
        attachment: Attachment,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,  # not loop.time(): uvloop's stands still within a turn
    ) -> None:
        self.outcome: Outcome | None = None
        self.done: asyncio.Future[Outcome] = loop.create_future()
        self.on_finished: Callable[[], object] | None = None
        self.first_content_at: float | None = None  # monotonic seconds
        self.events = 0  # delivered by the exchange part; 0 where no policy sees events
        self.upstream_bytes = 0
        self.errors: list[tuple[str, Exception]] = []  # (where, what was raised), for the host to log without content
        self._request = request
        self._chain = chain
        self._attachment = attachment
        self._limits = limits
        self._loop = loop
        self._clock = clock
        self._source: Source | None = None
        self._head: ResponseHead | None = None  # the upstream's
        self._stream: DialectStream | None = None
        self._framer: Framer | None = None  # None: bytes pass through
        self._decoder: Decoder | None = None
        self._streaming = False
        self._whole: list[bytes] | None = None  # a whole reply that waits for its end, so that its head can still change
        self._received_whole = b""
        self._last_read = b""
        self._looks = _CONTENT_LOOKS
        self._watched = chain.has_activity_hooks or attachment.chain.has_activity_hooks
        self._end_passed = False  # the exchange part's end has entered the attachment part
        self._blocked = False  # the client does not read
        self._stalled_at: float | None = None
        self._reading = True
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def sees_events(self) -> bool:
        """Some policy stream reads the reply's events, so it must come uncoded and whole."""
        return self._has_event_hooks(keepalive=True)

    def _has_event_hooks(self, *, keepalive: bool) -> bool:
        links = (*self._chain.links, *self._attachment.chain.links)
        return any(link.on_events and (keepalive or link.stage is not Stage.KEEPALIVE) for link in links)

    # Before the reply

    @_guarded
    def start(self) -> None:
        """Every policy has admitted the request."""
        now = self._begin()
        self._deliver(self._chain.start(now), now)
        self._emit(self._attachment.chain.start(now), now)
        self._settle(now)

    @_guarded
    def refuse(self, reply: Reply, source: str) -> None:
        """The request is not let in, or a policy answers it."""
        if self.outcome is None:
            self._reply(reply, Outcome(OutcomeKind.REFUSED, source, reply.details))

    @_guarded
    def cut(self, details: str, source: str = "", message: str | None = None) -> None:
        """End the stream, whatever its state, with an error in the dialect's words; `details` as in `errors.FAULTS`."""
        if self.outcome is None:
            now = self._begin()
            self._finish(Mark.cut(details, source, message=message), now)
            self._settle(now)

    @_guarded
    def client_gone(self) -> None:
        """The client's connection is lost: nothing can be said to it any more."""
        if self.outcome is None:
            mark = Mark.cut("client_gone")
            self._chain.finish(mark, self._clock())
            self._close(mark.outcome)

    # The reply

    @_guarded
    def respond(self, source: Source) -> None:
        """The head of the upstream's reply is there; its body will come from `source`, which the relay closes."""
        if self.outcome is not None:
            source.close()
            return
        now = self._begin()
        self._source = source
        head = self._head = source.head
        if self._attachment.opened:
            self._continue_early(head, now)
        else:
            self._begin_reply(head, now)
        if self.outcome is None and not self._end_passed:
            self._settle(now)
            if self.outcome is None:
                source.attach(self)

    def _begin_reply(self, head: ResponseHead, now: float) -> None:
        """Choose how the body goes through, show the head to the policies, and send it unless the body decides on it."""
        stream = self._stream = self._request.dialect.open(head, self._request.call)
        bodiless = self._request.method == "HEAD" or head.status in (204, 304)
        self._streaming = stream.framing.streaming and not bodiless
        if not bodiless and self._has_event_hooks(keepalive=self._streaming):
            head.stream = stream
            if not self._decode(head):
                self._finish(Mark.cut("upstream_coding"), now)
                return
            whole = stream.framing is Framing.JSON
            self._framer = stream.framer(self._limits.reply_bytes if whole else self._limits.event_bytes)
            self._whole = [] if whole else None
        answer = self._chain.response(head)
        if answer is not None:
            self._answer(*answer)
        elif self._whole is None:
            if self._framer is not None:
                _drop_byte_exact(head.headers)
            self._open(head)

    def _continue_early(self, head: ResponseHead, now: float) -> None:
        """The reply was opened before the upstream answered: what it answers must fit, or becomes an error event."""
        assert self._stream is not None
        answer = self._chain.response(head)
        if answer is not None:
            self._finish(Mark.cut(answer[1].details, answer[0], message=answer[1].problem.message), now)
        elif head.status >= 300:
            self._finish(Mark.cut("upstream_status", message=f"The model server answered with status {head.status}."), now)
        elif self._request.dialect.open(head, self._request.call).framing is not Framing.SSE or not self._decode(head):
            self._finish(Mark.cut("upstream_garbage"), now)
        else:
            self._framer = self._stream.framer(self._limits.event_bytes)

    def _decode(self, head: ResponseHead) -> bool:
        """Prepare to undo the body's content coding, if it has one; whether that is possible."""
        coding = content_coding(head.headers.get("Content-Encoding"))
        if coding:
            try:
                self._decoder = Decoder(coding)
            except ValueError:
                return False
            _drop_byte_exact(head.headers)
        head.headers.popall("Content-Encoding", None)
        return True

    def _open(self, head: ResponseHead) -> None:
        answer = self._attachment.open(head, streaming=self._streaming)
        if answer is not None:
            self._answer(*answer)

    def _answer(self, policy: str, reply: Reply) -> None:
        """A policy replaces the upstream's answer."""
        self._reply(reply, Outcome.of(reply.details, policy))

    # The body (`handover.Sink`)

    @_guarded
    def feed(self, data: bytes) -> None:
        """All that one read brought."""
        if self.outcome is not None:
            return
        now = self._begin()
        self.upstream_bytes += len(data)
        if self._watched:
            self._deliver(self._chain.activity(now), now)
            self._emit(self._attachment.chain.activity(now), now)
        if self._framer is None:
            self._pass_through(data, now)
        else:
            self._feed_framed(self._framer, data, now)
        self._settle(now)

    def _pass_through(self, data: bytes, now: float) -> None:
        if self.first_content_at is None:
            self.first_content_at = now
        self._last_read = data
        self._write(data, now)

    def _feed_framed(self, framer: Framer, data: bytes, now: float) -> None:
        assert self._stream is not None
        make = self._stream.event
        try:
            if self._decoder is None:
                frames = framer.feed(data)
            else:
                frames = [frame for piece in self._decoder.feed(data) for frame in framer.feed(piece)]
        except UpstreamGarbage as exc:
            self._finish(Mark.cut(exc.details), now)
        except Undecodable:
            self._finish(Mark.cut("upstream_coding"), now)
        else:
            if frames:
                self._deliver(self._chain.feed([make(frame) for frame in frames], now), now)

    @_guarded
    def eof(self) -> None:
        """The body is complete, as far as HTTP can tell."""
        if self.outcome is not None:
            return
        now = self._begin()
        mark = CLEAN_END
        if self._framer is not None and self._stream is not None and self._source is not None:
            rest = self._framer.finish()
            cut_off = self._streaming and rest.strip() and self._source.ends_with_connection
            if cut_off or (self._decoder is not None and not self._decoder.complete):
                mark = Mark.cut("upstream_truncated")
            elif rest:
                self._received_whole = rest
                self._deliver(self._chain.feed([self._stream.event(rest)], now), now)
        self._finish(mark, now)
        self._settle(now)

    @_guarded
    def failed(self, error: UpstreamError) -> None:
        """The body broke off."""
        if self.outcome is None:
            now = self._begin()
            self._finish(Mark.cut(error.details), now)
            self._settle(now)

    # The client

    @_guarded
    def unwritable(self) -> None:
        """The client's buffer is full."""
        self._blocked = True
        self._stalled_at = self._clock() + self._limits.write_stall_s
        if not self._busy and self.outcome is None:
            self._settle(self._begin())

    @_guarded
    def writable(self) -> None:
        """The client's buffer has drained."""
        self._blocked = False
        self._stalled_at = None
        if not self._busy and self.outcome is None:
            self._settle(self._begin())

    @_guarded
    def poke(self, stream: PolicyStream) -> None:
        """Work that a policy stream spawned is done."""
        if self.outcome is None:
            now = self._begin()
            self._deliver(self._chain.poke(stream, now), now)
            self._emit(self._attachment.chain.poke(stream, now), now)
            self._settle(now)

    def informational(self, status: int, headers: Headers) -> None:
        """The upstream sent a 1xx before its head."""
        if self.outcome is None and not self._attachment.opened:
            self._attachment.send_informational(ResponseHead(status, headers))

    # What comes out of the chain

    def _begin(self) -> float:
        self._busy = True
        return self._clock()

    def _finish(self, mark: Mark, now: float) -> None:
        self._deliver(self._chain.finish(mark, now), now)

    def _deliver(self, events: Events, now: float) -> None:
        """What left the exchange part goes to the attachment."""
        if not events:
            return
        self._know_stream().delivered(events)
        self.events += len(events)
        if self.first_content_at is None:
            self._look_for_content(events, now)
        self._emit(self._attachment.chain.feed(events, now), now)

    def _emit(self, events: Events, now: float) -> None:
        """What left the attachment part goes to the client."""
        if events:
            self._write(events[0].raw if len(events) == 1 else b"".join([event.raw for event in events]), now)

    def _write(self, data: bytes, now: float) -> None:
        if self._whole is not None and not self._attachment.opened:
            self._whole.append(data)
            return
        if not self._attachment.opened:
            self._open_early()
            if self.outcome is not None:
                return
        try:
            self._attachment.write(data, flush=self._streaming)
        except Exception as exc:  # the encoder
            self._attachment.chain.errors.append(("encode", exc))
            self._attachment.abort()
            self._close(Outcome.of("policy_error", "encode"))

    def _open_early(self) -> None:
        """A policy has something to say before the upstream has: the reply opens with a local head."""
        self._streaming = True
        head = _early_head()
        self._stream = head.stream = self._know_stream()
        self._local_fields(head)
        self._open(head)

    def _know_stream(self) -> DialectStream:
        if self._stream is None:
            self._stream = self._request.dialect.open(_early_head(), self._request.call)
        return self._stream

    def _look_for_content(self, events: Events, now: float) -> None:
        for event in events:
            self._looks -= 1
            if self._looks < 0 or any(text for _, text in event.deltas):
                self.first_content_at = now
                return

    # Ends

    def _settle(self, now: float) -> None:
        """The last step of every entry point."""
        mark = self._chain.ended
        if mark is not None and not self._end_passed:
            self._end_passed = True
            self._emit(self._attachment.chain.finish(mark, now), now)
        mark = self._attachment.chain.ended
        if self.outcome is None and mark is not None:
            self._conclude(mark, now)
        if self.outcome is not None:
            self._busy = False
            return
        reading = not (self._blocked or self._chain.paused or self._attachment.chain.paused)
        if reading is not self._reading and self._source is not None:
            self._turn(reading, now)
        else:
            self._arm(now)
            self._busy = False

    def _turn(self, reading: bool, now: float) -> None:
        """Stop or resume reading from the upstream."""
        assert self._source is not None
        self._reading = reading
        if not reading:
            self._source.pause()
        self._deliver(self._chain.reading(reading, now), now)
        self._emit(self._attachment.chain.reading(reading, now), now)
        self._settle(now)
        if reading and self.outcome is None and self._reading:
            self._source.resume()  # last: bytes that wait may be fed from within

    def _conclude(self, mark: Mark, now: float) -> None:
        """The end has left both parts."""
        if mark.clean:
            if self._whole is not None and not self._attachment.opened:
                self._send_whole(self._whole)
                if self.outcome is not None:
                    return
            self._end_body(mark.outcome)
        elif not self._attachment.opened:
            assert mark.problem is not None
            problem = mark.problem
            self._reply(Reply(problem.status, details=problem.details, message=problem.message), mark.outcome)
        else:
            ending = self._ending(mark)
            if ending is None:
                self._attachment.abort()
                self._close(mark.outcome)
                return
            ending = self._attachment.chain.deliver_ending(self._chain.deliver_ending(ending, now), now)
            self._emit(ending, now)
            self._end_body(mark.outcome)

    def _send_whole(self, parts: list[bytes]) -> None:
        """A whole reply has passed the policies: now its head is known."""
        assert self._head is not None
        body = b"".join(parts)
        if body != self._received_whole:
            _drop_byte_exact(self._head.headers)
        self._head.headers["Content-Length"] = str(len(body))
        self._open(self._head)
        if self.outcome is None:
            self._write(body, 0.0)

    def _end_body(self, outcome: Outcome) -> None:
        if self.outcome is not None:
            return
        try:
            self._attachment.end()
        except Exception as exc:  # the encoder
            self._attachment.chain.errors.append(("encode", exc))
            self._attachment.abort()
        self._close(outcome)

    def _ending(self, mark: Mark) -> list[Event] | None:
        """The dialect's last events, or None where nothing can be said that would not spoil the body."""
        if self._stream is None or not self._streaming or mark.ending is None or mark.problem is None:
            return None
        if self._framer is not None or self._head is None:
            return self._stream.ending(mark.ending, mark.problem)
        # Bytes went through unread: an event can only be added where the last one visibly ended, and a length was not
        # promised.
        readable = self._stream.framing is Framing.SSE and "Content-Encoding" not in self._head.headers
        if readable and "Content-Length" not in self._head.headers and self._last_read.endswith((b"\n\n", b"\r\n\r\n")):
            return self._stream.ending(Ending.ERROR, mark.problem)
        return None

    def _reply(self, reply: Reply, outcome: Outcome) -> None:
        """A local reply: the proxy answers itself. Nothing has been sent yet."""
        kind, body = ("", reply.body) if reply.body is not None else self._request.dialect.error_body(reply.problem)
        head = ResponseHead(reply.status, reply.headers, local=True)
        if kind:
            head.headers.setdefault("Content-Type", kind)
        if reply.status not in (204, 304):
            head.headers["Content-Length"] = str(len(body))
        if reply.status >= 400:
            head.headers["Proxy-Status"] = proxy_status(reply.details)
            head.headers.setdefault("Cache-Control", "no-store")
        self._local_fields(head)
        self._streaming = False
        self._whole = None
        self._attachment.open(head, streaming=False)
        if body:
            self._write(body, 0.0)
        self._end_body(outcome)

    def _local_fields(self, head: ResponseHead) -> None:
        head.headers[REQUEST_ID] = self._request.id

    def _close(self, outcome: Outcome) -> None:
        """The one exit: the outcome is fixed and everything is released."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._source is not None:
            self._source.close()
        self._chain.close(outcome)
        self._attachment.close(outcome)
        self.errors += self._chain.errors + self._attachment.chain.errors
        if not self.done.done():
            self.done.set_result(outcome)
        if self.on_finished is not None:
            self.on_finished()

    def crashed(self, exc: Exception) -> None:
        """A fault of our own: the exchange ends here and now, visibly."""
        self.errors.append(("relay", exc))
        if self.outcome is None:
            self._attachment.abort()
            self._close(Outcome.of("internal_error", "relay"))

    # Time

    def _arm(self, now: float) -> None:
        """One lazy timer: set only where it must ring earlier than it is set to."""
        wake_at = self._chain.next_wake()
        for other in (self._attachment.chain.next_wake(), self._stalled_at):
            if other is not None and (wake_at is None or other < wake_at):
                wake_at = other
        if wake_at is None or (self._timer is not None and self._timer_at <= wake_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = wake_at
        self._timer = self._loop.call_at(wake_at, self._ring)

    @_guarded
    def _ring(self) -> None:
        self._timer = None
        if self.outcome is not None:
            return
        now = self._begin()
        if self._stalled_at is not None and self._stalled_at <= now:
            self._attachment.reset()
            self._chain.finish(Mark.cut("write_stall"), now)
            self._close(Outcome.of("write_stall"))
            return
        self._deliver(self._chain.timer(now), now)
        if self.outcome is None:
            self._emit(self._attachment.chain.timer(now), now)
            self._settle(now)


def _early_head() -> ResponseHead:
    fields = Headers({"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"})
    return ResponseHead(200, fields, local=True)


def _drop_byte_exact(headers: Headers) -> None:
    for name in BYTE_EXACT:
        headers.popall(name, None)
