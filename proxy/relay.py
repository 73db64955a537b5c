"""I/O. Reads to chain to writes, pause reasons, every end: the hot path of one exchange.

`Relay` is what the upstream's bytes are handed to (`feed`, synchronously, from the call that received them) and what
the host tells of its client (`writable`, `unwritable`, `client_gone`). The rules of the stream are the chain's; here is
only who calls it when, and what becomes of what comes out.

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
from .dialects.base import DialectStream
from .errors import Outcome, OutcomeKind, PenstockError, RequestError, UpstreamError, fault
from .framing import Framing
from .intake import TURN_BYTES, Intake, Unread
from .messages import Headers, Reply, Request, ResponseHead, end_to_end
from .policy import Ending, Events, PolicyStream, Stage
from .replies import WholeReply, bare_error, drop_byte_exact, early_head, local_reply
from .sink import Sink
from .stall import StallWatch
from .timer import LazyTimer
from .turns import Turns

P = ParamSpec("P")

# A model server has no use for more than a few; a flood of them would fill the client's buffer unseen.
_MOST_INFORMATIONAL = 16

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

    __slots__ = (  # more attributes than a dict shares the keys of
        "_attachment", "_busy", "_chain", "_clock", "_end_of_body", "_end_passed", "_errors", "_flush", "_head",
        "_informational", "_intake", "_limits", "_looks", "_outer", "_passing", "_reading", "_request", "_rests",
        "_source", "_stall", "_stream", "_streaming", "_timer", "_turn_due", "_turns", "_unread", "_watched",
        "_watched_there",
        "_whole", "done", "events", "first_content_at", "on_finished", "outcome", "upstream_bytes",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        chain: Chain,
        attachment: Attachment,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,  # not loop.time(): uvloop's stands still within a turn
        turns: Turns | None = None,
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
        self._outer = attachment.chain
        self._limits = limits
        self._clock = clock
        self._source: Source | None = None
        self._head: ResponseHead | None = None  # the upstream's, where it is the reply's
        self._stream: DialectStream | None = None
        self._intake: Intake | None = None  # of a body that policies read
        self._unread: Unread | None = None  # of any other
        self._passing: Unread | None = None  # the same, once nobody has to be told of its reads
        self._whole: WholeReply | None = None
        self._streaming = False
        self._flush = True  # what is written can be read at once; a body that is written in one piece has no use for it
        self._looks = _CONTENT_LOOKS
        self._watched = chain.has_activity_hooks
        self._watched_there = attachment.chain.has_activity_hooks
        self._end_passed = False  # the exchange part's end has entered the attachment part
        self._turns = turns or Turns(loop, clock)
        self._turn_due = False
        self._rests = False  # until then nothing is read
        self._end_of_body: Callable[[], None] | None = None  # it came, but behind events that wait for their turn
        self._informational = 0
        self._reading = True
        self._busy = False
        self._stall = StallWatch(attachment, limits.write_stall_s)
        self._timer = LazyTimer(loop, self._turns, (chain, attachment.chain), self._ring)
        self._errors: list[tuple[str, Exception]] = []

    @property
    def errors(self) -> list[tuple[str, Exception]]:
        """(policy or "relay", what was raised), for the host to log without content."""
        return [*self._errors, *self._chain.errors, *self._attachment.chain.errors]

    def _reads(self, framing: Framing) -> bool:
        """Whether some policy stream reads the events of such a reply; a heartbeat has no use for those of a whole one."""
        if framing.streaming:
            return self._chain.has_event_hooks or self._attachment.chain.has_event_hooks
        links = (*self._chain.links, *self._attachment.chain.links)
        return any(link.on_events and link.stage is not Stage.KEEPALIVE for link in links)

    # Before the reply

    @_guarded
    def start(self) -> None:
        """Every policy has admitted the request."""
        now = self._begin()
        self._deliver(self._chain.start(now), now)
        self._emit(self._attachment.chain.start(now))
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
        if self.outcome is not None or self._chain.ended is not None:
            source.close()  # the exchange is over, though the attachment may still have something to say
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
        self._attachment.flush()

    def _begin_reply(self, head: ResponseHead, now: float) -> None:
        """Choose how the body goes through, show the head to the policies, and send it unless the body decides on it."""
        self._head = head
        stream = self._stream = self._request.dialect.open(head, self._request.call)
        bodiless = self._request.method == "HEAD" or head.status in (204, 304)
        self._streaming = stream.framing.streaming and not bodiless
        if not self._reads(stream.framing):
            self._unread = Unread(stream.framing, head.headers, None if bodiless else self._witness(stream, head))
        elif bodiless:
            head.headers.popall("Content-Length", None)  # of a body before the policies (RFC 9110 §8.6)
        elif not self._read(stream, head, now):
            return
        elif stream.framing is Framing.JSON:
            self._whole = WholeReply()
        answer = self._chain.response(head)
        if answer is not None:
            self._answer(*answer)
        elif self._whole is None:
            if self._intake is not None:
                drop_byte_exact(head.headers)
            self._open(head)

    def _witness(self, stream: DialectStream, head: ResponseHead) -> Intake | None:
        """What tells whether a body that nobody reads is complete, where HTTP does not."""
        if self._source is None or not self._source.ends_with_connection or head.status == 206:  # a part was asked for
            return None
        try:
            return self._make_intake(stream, head.headers.copy())
        except UpstreamError:
            return None

    def _make_intake(self, stream: DialectStream, headers: Headers) -> Intake:
        assert self._source is not None
        return Intake(
            stream,
            headers,
            event_bytes=self._limits.event_bytes,
            reply_bytes=self._limits.reply_bytes,
            ends_with_connection=self._source.ends_with_connection,
        )

    def _continue_early(self, head: ResponseHead, now: float) -> None:
        """The reply was opened before the upstream answered: what it answers must fit, or becomes an error event."""
        assert self._stream is not None
        head.stream = self._stream
        answer = self._chain.response(head)
        if answer is not None:
            self._finish(Mark.cut(answer[1].details, answer[0], message=answer[1].problem.message), now)
        elif head.status >= 300:
            message = f"The model server answered with status {head.status}."
            self._finish(Mark.cut("upstream_status", message=message), now)
        elif self._request.dialect.open(head, self._request.call).framing is not Framing.SSE:
            self._finish(Mark.cut("upstream_garbage"), now)
        else:
            self._read(self._stream, head, now)

    def _read(self, stream: DialectStream, head: ResponseHead, now: float) -> bool:
        """Prepare to read the body's events; False where it cannot be decoded, which ends the exchange."""
        head.stream = stream
        try:
            self._intake = self._make_intake(stream, head.headers)
        except UpstreamError as exc:
            self._finish(Mark.cut(exc.details), now)
            return False
        if self._intake.decodes:
            drop_byte_exact(head.headers)
        return True

    def _open(self, head: ResponseHead) -> None:
        answer = self._attachment.show(head) or self._attachment.open(head, streaming=self._streaming)
        if answer is not None:
            self._answer(*answer)

    def _answer(self, policy: str, reply: Reply) -> None:
        """A policy replaces the upstream's answer."""
        self._reply(reply, Outcome.of(reply.details, policy))

    # The body (`handover.Sink`)

    def feed(self, data: bytes) -> None:
        """All that one read brought. Called so often that what the other entry points share is written out."""
        if self.outcome is not None:
            return
        self._busy = True
        self.upstream_bytes += len(data)
        self._rests = len(data) >= TURN_BYTES
        try:
            if self._passing is not None:
                self._passing.passed(data)
                self._write(data)
                if not self._rests and self._stall.due_at is None and self.outcome is None:
                    self._busy = False
                else:
                    self._settle(self._clock())
                return
            now = self._clock()
            if self._watched and (events := self._chain.activity(now)):
                self._deliver(events, now)
            if self._watched_there:
                self._emit(self._outer.activity(now))
            if self._intake is None:
                self._pass_through(data, now)
            else:
                try:
                    events = self._intake.feed(data)
                except UpstreamError as exc:
                    self._finish(Mark.cut(exc.details), now)
                else:
                    if events:
                        self._deliver(self._chain.feed(events, now), now)
            self._settle(now)
        except Exception as exc:
            self.crashed(exc)

    @_guarded
    def _go_on(self) -> None:
        """The other streams of the process had their turn: the next events of the read, or the next read."""
        self._turn_due = False
        if self.outcome is not None or self._stall.due_at is not None:
            return
        now = self._begin()
        if self._intake is None or not self._intake.more:
            self._rests = False
        else:
            try:
                events = self._intake.go_on()
            except UpstreamError as exc:
                self._finish(Mark.cut(exc.details), now)
            else:
                self._deliver(self._chain.feed(events, now), now)
        self._settle(now)
        if self._intake is not None and not self._intake.more and self._end_of_body is not None:
            end, self._end_of_body = self._end_of_body, None
            end()

    def _waits(self, end: Callable[[], None]) -> bool:
        """Whether the end of the body, which came with `end`, has to wait for its turn."""
        if self._intake is None or not self._intake.more:
            return False
        self._end_of_body = end
        return True

    def _pass_through(self, data: bytes, now: float) -> None:
        if self.first_content_at is None:
            self.first_content_at = now
        unread = self._unread
        if unread is not None:
            unread.passed(data)
            unread.show(data)
            if unread.witness is None and not self._watched and not self._watched_there:
                self._passing = unread
        self._write(data)

    @_guarded
    def eof(self) -> None:
        """The body is complete, as far as HTTP can tell."""
        if self.outcome is not None or self._waits(self.eof):
            return
        now = self._begin()
        mark = CLEAN_END
        try:
            rest = self._last_events()
        except UpstreamError as exc:
            mark = Mark.cut(exc.details)
        else:
            if rest:
                self._deliver(self._chain.feed(rest, now), now)
        self._finish(mark, now)
        self._settle(now)

    def _last_events(self) -> Events:
        """What is left at the end of the body. Raises `UpstreamError` where that came too early."""
        if self._intake is not None:
            return self._intake.finish()
        if self._unread is not None:
            self._unread.finish()
        return []

    @_guarded
    def failed(self, error: PenstockError) -> None:
        """The body broke off, or the request's did while the upstream was answering already."""
        if self.outcome is None and not self._waits(functools.partial(self.failed, error)):
            now = self._begin()
            self._finish(Mark.cut(error.details, "parser" if isinstance(error, RequestError) else ""), now)
            self._settle(now)

    # The client

    @_guarded
    def unwritable(self) -> None:
        """The client's buffer is full."""
        self._stall.begin(self._clock())
        if not self._busy and self.outcome is None:
            self._settle(self._begin())

    @_guarded
    def writable(self) -> None:
        """The client's buffer has drained."""
        self._stall.end()
        if not self._busy and self.outcome is None:
            self._settle(self._begin())

    @_guarded
    def poke(self, stream: PolicyStream) -> None:
        """Work that a policy stream spawned is done."""
        if self.outcome is None:
            now = self._begin()
            self._deliver(self._chain.poke(stream, now), now)
            self._emit(self._attachment.chain.poke(stream, now))
            self._settle(now)

    @_guarded
    def informational(self, status: int, headers: Headers) -> None:
        """The upstream sent a 1xx before its head."""
        self._informational += 1
        if self._informational > _MOST_INFORMATIONAL:
            self.cut("upstream_garbage")
        elif self.outcome is None and not self._attachment.opened and self._stall.due_at is None:
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
            self._emit(self._attachment.chain.finish(mark, now))

    def _deliver(self, events: Events, now: float) -> None:
        """What left the exchange part goes to the attachment."""
        if not events:
            return
        (self._stream or self._know_stream()).delivered(events)
        self.events += len(events)
        if self._whole is not None:
            self._whole.waiting += events
            return
        if self.first_content_at is None:
            self._look_for_content(events, now)
        events = self._outer.feed(events, now)
        if len(events) == 1 and self._unread is None:  # nearly always: a call less
            self._write(events[0].raw)
        else:
            self._emit(events)

    def _emit(self, events: Events) -> None:
        """What left the attachment part goes to the client, if it can stand there."""
        if self._whole is not None:
            self._whole.add(events)
        elif events and (self._unread is None or self._unread.between_events):
            self._write(events[0].raw if len(events) == 1 else b"".join([event.raw for event in events]))

    def _write(self, data: bytes) -> None:
        if self.outcome is not None:
            return
        if not self._attachment.opened:
            self._open_early()
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
        head = early_head(self._request)
        head.stream = self._know_stream()
        self._open(head)

    def _know_stream(self) -> DialectStream:
        if self._stream is None:
            self._stream = self._request.dialect.open(early_head(self._request), self._request.call)
        return self._stream

    def _look_for_content(self, events: Events, now: float) -> None:
        for event in events:
            self._looks -= 1
            if self._looks < 0 or any(text for channel, text in event.deltas if not channel.repeated):
                self.first_content_at = now
                return

    # Ends

    def _settle(self, now: float) -> None:
        """The last step of every entry point."""
        chain, outer, intake = self._chain, self._outer, self._intake
        if chain.ended is not None or outer.ended is not None:
            self._pass_end(chain.ended, now)
        if self.outcome is not None:
            self._busy = False
            return
        stalled_at = self._stall.due_at
        reading = stalled_at is None and not chain.held and not outer.held
        if self._rests or (intake is not None and intake.more):
            if reading and not self._turn_due:
                self._turn_due = True
                self._turns.wait(self._go_on)
            reading = False
        if reading is not self._reading and self._source is not None:
            self._turn(reading, now)
        else:
            self._timer.arm(stalled_at, now, steady=reading)
            self._busy = False

    def _pass_end(self, mark: Mark | None, now: float) -> None:
        """The end, `mark`, has left the exchange part, or it has left the attachment part."""
        outer = self._attachment.chain
        if self.outcome is None and mark is not None and not self._end_passed:
            self._end_passed = True
            if mark.clean and self._whole is not None:
                self._show(self._whole, now)
            if self.outcome is None:
                self._emit(outer.finish(mark, now))
        mark = outer.ended
        if self.outcome is None and mark is not None:
            self._conclude(mark, now)

    def _turn(self, reading: bool, now: float) -> None:
        """Stop or resume reading from the upstream."""
        assert self._source is not None
        self._reading = reading
        if not reading:
            self._source.pause()
        self._deliver(self._chain.reading(reading, now), now)
        self._emit(self._attachment.chain.reading(reading, now))
        self._settle(now)
        if reading and self.outcome is None and self._reading:
            self._turns.lets_read()
            self._source.resume()  # last: bytes that wait may be fed from within

    def _conclude(self, mark: Mark, now: float) -> None:
        """The end has left both parts."""
        if mark.clean:
            if self._whole is not None:
                self._send(self._whole, now)
                if self.outcome is not None:
                    return
            self._end_body(mark.outcome)
        elif not self._attachment.opened:
            assert mark.problem is not None
            problem = mark.problem
            reply = Reply(problem.status, details=problem.details, message=problem.message, headers=mark.headers)
            self._reply(reply, mark.outcome)
        else:
            ending = self._ending(mark)
            if ending is None:
                self._attachment.abort()
                self._close(mark.outcome)
                return
            ending = self._attachment.chain.deliver_ending(self._chain.deliver_ending(ending, now), now)
            self._emit(ending)
            self._end_body(mark.outcome)

    def _show(self, whole: WholeReply, now: float) -> None:
        """A whole reply has passed the exchange part: its head, then its body, go to the attachment's policies."""
        assert self._head is not None
        answer = self._attachment.show(self._head)
        if answer is not None:
            self._answer(*answer)
            return
        whole.shown = True
        if whole.waiting:
            self.first_content_at = now
            self._emit(self._outer.feed(whole.waiting, now))

    def _send(self, whole: WholeReply, now: float) -> None:
        """It has passed those too."""
        assert self._head is not None
        assert self._intake is not None
        body = whole.seal(self._head, self._intake.whole)
        self._flush = False
        answer = self._attachment.open(self._head, streaming=False)
        if answer is not None:
            self._answer(*answer)
        elif body:
            self._write(body)

    def _end_body(self, outcome: Outcome) -> None:
        if self.outcome is not None:
            return
        try:
            self._attachment.end()
        except EncoderFailed as failed:
            self._encoder_failed(failed)
        self._close(outcome)

    def _ending(self, mark: Mark) -> Events | None:
        """The dialect's last events, or None where nothing can be said that would not spoil the body."""
        if self._stream is None or not self._streaming or mark.ending is None or mark.problem is None:
            return None
        if self._unread is None:
            return self._stream.ending(mark.ending, mark.problem)
        # Of what passed unread the dialect knows nothing that it could end like the API's own limit.
        return self._stream.ending(Ending.ERROR, mark.problem) if self._unread.between_events else None

    def _reply(self, reply: Reply, outcome: Outcome) -> None:
        """A local reply: the proxy answers itself. Nothing has been sent yet."""
        head, body = local_reply(reply, self._request)
        self._streaming = self._flush = False
        self._attachment.show(head)
        self._attachment.open(head, streaming=False)
        if body:
            self._write(body)
        self._end_body(outcome)

    def _close(self, outcome: Outcome) -> None:
        """The one exit: the outcome is fixed and everything is released."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self._timer.cancel()
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
            self._last_resort()
        self._close(outcome)

    def _last_resort(self) -> None:
        """Not even an error can be sent in the ordinary way: the dialect has no words for it, or a policy spoils each
        head that it is shown."""
        try:
            if not self._attachment.opened:
                self._attachment.answer_unseen(bare_error("internal_error", self._request))
                return
        except Exception as exc:
            self._errors.append(("relay", exc))
        self._attachment.abort()

    # Time

    @_guarded
    def _ring(self) -> None:
        if self.outcome is not None:
            return
        now = self._begin()
        if self._stall.is_over(now):
            self._attachment.reset()
            self._abandon(Mark.cut("write_stall"), now)
            return
        self._deliver(self._chain.timer(now), now)
        if self.outcome is None:
            self._emit(self._attachment.chain.timer(now))
            self._settle(now)
