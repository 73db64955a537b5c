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

from .attachment import Attachment, EncoderFailed
from .chain import CLEAN_END, Chain, Mark
from .decoding import Decoder, Undecodable, content_coding
from .dialects.base import DialectStream
from .errors import Outcome, OutcomeKind, UpstreamError, UpstreamGarbage, fault
from .forwarding import REQUEST_ID, proxy_status
from .framing import Event, Framer, Framing
from .handover import Sink
from .messages import BYTE_EXACT, Headers, Reply, Request, ResponseHead, end_to_end
from .policy import Ending, Events, PolicyStream, Stage

P = ParamSpec("P")

# How many events are looked at for the first content (TTFT) before it is given up: each look is a parse.
_CONTENT_LOOKS = 16

# With what bytes a read ends where an event ends with it.
_EVENT_ENDS = {Framing.SSE: (b"\n\n", b"\r\n\r\n"), Framing.NDJSON: (b"\n",)}


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
        self._request = request
        self._chain = chain
        self._attachment = attachment
        self._limits = limits
        self._loop = loop
        self._clock = clock
        self._source: Source | None = None
        self._head: ResponseHead | None = None  # the upstream's, where it is the reply's
        self._stream: DialectStream | None = None
        self._framer: Framer | None = None  # None: bytes pass through
        self._decoder: Decoder | None = None
        self._streaming = False
        self._flush = True  # what is written can be read at once; a body that is written in one piece has no use for it
        self._whole: Events | None = None  # a whole reply waits for its end: until then its head can still change
        self._received_whole = b""
        self._body: list[bytes] | None = None  # what of it has left the attachment part
        self._event_ends: tuple[bytes, ...] = ()  # of a body that passes unread; empty: no event may be added to it
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
        self._errors: list[tuple[str, Exception]] = []

    @property
    def errors(self) -> list[tuple[str, Exception]]:
        """(policy or "relay", what was raised), for the host to log without content."""
        return [*self._errors, *self._chain.errors, *self._attachment.chain.errors]

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
        """The request is not let in, or a policy answers it (a preflight)."""
        if self.outcome is None:
            kind = OutcomeKind.REFUSED if reply.status >= 400 else OutcomeKind.COMPLETE
            outcome = fault(reply.details).outcome
            self._reply(reply, Outcome(kind if outcome is OutcomeKind.STOPPED else outcome, source, reply.details))

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
            self._abandon(Mark.cut("client_gone"), self._clock())

    # The reply

    @_guarded
    def respond(self, source: Source) -> None:
        """The head of the upstream's reply is there; its body will come from `source`, which the relay closes."""
        if self.outcome is not None:
            source.close()
            return
        now = self._begin()
        self._source = source
        if self._attachment.opened:
            self._continue_early(source.head, now)
        else:
            self._begin_reply(source.head, now)
        self._settle(now)
        if self.outcome is None and not self._end_passed:
            source.attach(self)
            if not self._reading:
                source.pause()  # what is not attached yet cannot be paused

    def _begin_reply(self, head: ResponseHead, now: float) -> None:
        """Choose how the body goes through, show the head to the policies, and send it unless the body decides on it."""
        self._head = head
        stream = self._stream = self._request.dialect.open(head, self._request.call)
        bodiless = self._request.method == "HEAD" or head.status in (204, 304)
        self._streaming = stream.framing.streaming and not bodiless
        read = self._has_event_hooks(keepalive=stream.framing.streaming)
        if bodiless:
            if read:
                head.headers.popall("Content-Length", None)  # of a body before the policies (RFC 9110 §8.6)
        elif not read:
            if "Content-Encoding" not in head.headers and "Content-Length" not in head.headers:
                self._event_ends = _EVENT_ENDS.get(stream.framing, ())
        else:
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
        head.stream = self._stream
        answer = self._chain.response(head)
        if answer is not None:
            self._finish(Mark.cut(answer[1].details, answer[0], message=answer[1].problem.message), now)
        elif head.status >= 300:
            self._finish(
                Mark.cut("upstream_status", message=f"The model server answered with status {head.status}."), now
            )
        elif self._request.dialect.open(head, self._request.call).framing is not Framing.SSE:
            self._finish(Mark.cut("upstream_garbage"), now)
        elif not self._decode(head):
            self._finish(Mark.cut("upstream_coding"), now)
        else:
            self._framer = self._stream.framer(self._limits.event_bytes)

    def _decode(self, head: ResponseHead) -> bool:
        """Prepare to undo the body's content coding, if it has one; whether that is possible."""
        coding = content_coding(", ".join(head.headers.getall("Content-Encoding", ())))
        if coding:
            try:
                self._decoder = Decoder(coding)
            except ValueError:
                return False
            _drop_byte_exact(head.headers)
        head.headers.popall("Content-Encoding", None)
        return True

    def _open(self, head: ResponseHead) -> None:
        answer = self._attachment.show(head) or self._attachment.open(head, streaming=self._streaming)
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
            frames = framer.feed(data) if self._decoder is None else self._decoded(self._decoder, framer, data)
        except UpstreamGarbage as exc:
            self._finish(Mark.cut(exc.details), now)
        except Undecodable:
            self._finish(Mark.cut("upstream_coding"), now)
        else:
            if frames:
                self._deliver(self._chain.feed([make(frame) for frame in frames], now), now)

    def _decoded(self, decoder: Decoder, framer: Framer, data: bytes) -> list[bytes]:
        """The frames in one coded read, which may stand for much: but not for more than a whole reply may have."""
        frames: list[bytes] = []
        size = 0
        for piece in decoder.feed(data):
            size += len(piece)
            if size > self._limits.reply_bytes:
                raise UpstreamGarbage("one read decodes to more than the limit", "upstream_coding")
            frames += framer.feed(piece)
        return frames

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

    @_guarded
    def informational(self, status: int, headers: Headers) -> None:
        """The upstream sent a 1xx before its head."""
        if self.outcome is None and not self._attachment.opened:
            self._attachment.send_informational(ResponseHead(status, end_to_end(headers)))

    # What comes out of the chain

    def _begin(self) -> float:
        self._busy = True
        return self._clock()

    def _finish(self, mark: Mark, now: float) -> None:
        """The stream's end, of whatever kind. Where one has passed the exchange part already, this may be one that
        cannot wait for what the attachment part holds."""
        self._deliver(self._chain.finish(mark, now), now)
        if self._end_passed:
            self._emit(self._attachment.chain.finish(mark, now), now)

    def _deliver(self, events: Events, now: float) -> None:
        """What left the exchange part goes to the attachment."""
        if not events:
            return
        self._know_stream().delivered(events)
        self.events += len(events)
        if self._whole is not None:
            self._whole += events
            return
        if self.first_content_at is None:
            self._look_for_content(events, now)
        self._emit(self._attachment.chain.feed(events, now), now)

    def _emit(self, events: Events, now: float) -> None:
        """What left the attachment part goes to the client, if it can stand there."""
        if self._whole is not None and events and not self._attachment.opened:
            if self._body is not None:  # else a heartbeat, in what is no stream
                self._body += [event.raw for event in events]
        elif events and self._between_events:
            self._write(events[0].raw if len(events) == 1 else b"".join([event.raw for event in events]), now)

    @property
    def _between_events(self) -> bool:
        """Whether an event can be added to the body. To bytes that pass unread it can where the last of them visibly end
        one, if no length was promised and no coding hides them: neither an injection nor an ending may split an event."""
        if self._framer is not None or self._head is None:
            return True
        return bool(self._event_ends) and (not self._last_read or self._last_read.endswith(self._event_ends))

    def _write(self, data: bytes, now: float) -> None:
        if self.outcome is not None:
            return
        if not self._attachment.opened:
            self._open_early()
            if self.outcome is not None:
                return
        try:
            self._attachment.write(data, flush=self._flush)
        except EncoderFailed as failed:
            self._encoder_failed(failed)

    def _encoder_failed(self, failed: EncoderFailed) -> None:
        self._attachment.abort()
        self._close(Outcome.of("policy_error", failed.policy))

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
        if self.outcome is None and mark is not None and not self._end_passed:
            self._end_passed = True
            if mark.clean and self._whole is not None:
                self._show_whole(self._whole, now)
            if self.outcome is None:
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
            if self._body is not None:
                self._send_whole(self._body, now)
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

    def _show_whole(self, events: Events, now: float) -> None:
        """A whole reply has passed the exchange part: its head, then its body, go to the attachment's policies."""
        assert self._head is not None
        answer = self._attachment.show(self._head)
        if answer is not None:
            self._answer(*answer)
            return
        self._body = []
        if events:
            self.first_content_at = now
            self._emit(self._attachment.chain.feed(events, now), now)

    def _send_whole(self, parts: list[bytes], now: float) -> None:
        """It has passed those too: now its length is known, and whether anybody changed it."""
        assert self._head is not None
        body = b"".join(parts)
        if body != self._received_whole:
            _drop_byte_exact(self._head.headers)
        self._head.headers["Content-Length"] = str(len(body))
        self._flush = False
        answer = self._attachment.open(self._head, streaming=False)
        if answer is not None:
            self._answer(*answer)
        elif body:
            self._write(body, now)

    def _end_body(self, outcome: Outcome) -> None:
        if self.outcome is not None:
            return
        try:
            self._attachment.end()
        except EncoderFailed as failed:
            self._encoder_failed(failed)
        self._close(outcome)

    def _ending(self, mark: Mark) -> list[Event] | None:
        """The dialect's last events, or None where nothing can be said that would not spoil the body."""
        if self._stream is None or mark.ending is None or mark.problem is None:
            return None
        if not self._streaming or not self._between_events:
            return None
        # Of what passed unread the dialect knows nothing that it could end like the API's own limit.
        unread = self._framer is None and self._head is not None
        return self._stream.ending(Ending.ERROR if unread else mark.ending, mark.problem)

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
        self._streaming = self._flush = False
        self._whole = self._body = None
        self._attachment.show(head)
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
        self._chain.close(outcome)
        self._attachment.close(outcome)
        if not self.done.done():
            self.done.set_result(outcome)
        if self.on_finished is not None:
            self.on_finished()
        if self._source is not None:
            self._source.close()

    def _abandon(self, mark: Mark, now: float) -> None:
        """End an exchange whose client cannot be told anything any more; the policies are."""
        self._chain.finish(mark, now)
        self._attachment.chain.finish(mark, now)
        self._close(mark.outcome)

    def crashed(self, exc: Exception) -> None:
        """A fault of our own: the exchange ends here and now, visibly."""
        self._errors.append(("relay", exc))
        if self.outcome is not None:
            return
        outcome = Outcome.of("internal_error", "relay")
        try:
            if self._attachment.opened:
                self._attachment.abort()
            else:
                self._reply(Reply(details="internal_error"), outcome)
        except Exception as again:
            self._errors.append(("relay", again))
            self._attachment.abort()
        self._close(outcome)

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
            self._abandon(Mark.cut("write_stall"), now)
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
