"""A reply's texts through a scanner, each channel on its own, whatever form the reply has.

What a channel still holds goes out in the event that ends the channel, or before it; on a clean end all of it does; on any
other end none. Text that follows an end goes on where the channel was, if nothing undecided was said for that end; else it
cannot be read any more. Where an API's ends are no ends (`AfterEnd.SAME`), such an event waits for what follows it.
What says the model's text in other forms (log probabilities) goes with the text.

A long event is read slice by slice, each in a turn of the event loop of its own: `Pause(0.0)` lets others have theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from proxy.dialects import sse
from proxy.dialects.base import EVERY_CHANNEL, AfterEnd, Channel, Delta, DialectStream, Kind, Parsed
from proxy.dialects.documents import is_binary, is_whole, key_at
from proxy.dialects.stream import DONE, charset
from proxy.dialects.template import Template
from proxy.errors import Outcome
from proxy.framing import Event, Framing
from proxy.messages import Reply, ResponseHead
from proxy.policy import Events, Pause, PolicyStream, Stop, Verdict

from .actions import StopRequested
from .entity import BudgetExceeded
from .json_text import TextRedactor
from .scanner import Replace, Scanner

OnUnknown: TypeAlias = Literal["refuse", "pass"]

_MOST_CHANNELS = 4096
_MOST_LINES, _LINE_BYTES = 64, 256  # that are known to need no change
_MOST_WAITING_BYTES = 1 << 24  # of events in which what is held may have to be said
_LEAST_SO_FAR, _SURELY_SO_FAR = 4, 8  # characters: that the next event begins with so many is no chance
_PART = re.compile(r"([^/]+/(?:content|summary))/(\d+)")  # the index of one in the Responses API
_UTF_8 = ("", "utf-8", "utf8", "us-ascii")
_TURN = 8192  # bytes of events that are read in one turn; the first that is over is the last
_SLICE = 4096  # bytes from which on an event is long, and characters of one that are read at once
_TEXT_COST = 16  # characters that beginning a text is worth


class Unreadable(Exception):
    """A form in which texts cannot be looked for."""


def reason(error: Exception) -> str:
    """The row of `errors.FAULTS` for what ended the reading of a text."""
    if isinstance(error, StopRequested):
        return "redaction_stopped"
    return "redaction_budget" if isinstance(error, BudgetExceeded) else "redaction_unreadable"


class _Long:
    """A long event that is being read: how far the work on its texts is, and what it has found."""

    def __init__(self, event: Event, reply: DialectStream) -> None:
        self.event = event
        self.stand_in = Event(b"", reply, Parsed())  # waits in the chain instead: the bytes that may are bounded there
        self.texts: list[str] = []
        self.lines: dict[bytes, bytes] = {}
        self.work: Generator[int, None, None]


class _Waiting(NamedTuple):
    """What came last of a text that is held: in this event, by this channel, and the texts that the event was given; none
    where they were given already."""

    event: Event
    channel: Channel
    deltas: Sequence[Delta]


class _Steady:
    """The last event had a template, and its text goes on in `redactor`: an event with the same template differs in that text
    alone, so nothing else of it need be looked at. What it leaves waiting is noted when one comes that is not like it."""

    __slots__ = ("channel", "decided", "event", "redactor", "template")

    def __init__(self, template: Template, channel: Channel, redactor: TextRedactor) -> None:
        self.template = template
        self.channel = channel
        self.redactor = redactor
        self.event: Event | None = None  # the last like it
        self.decided = ""  # the text that it was given


class TextStream(PolicyStream):
    """One exchange, or one attachment. `counts`: what to say of it in the end, by name."""

    def __init__(self, scanner: Scanner, replace: Replace, on_unknown: OnUnknown, counts: Mapping[str, int]) -> None:
        self._scanner = scanner
        self._replace = replace
        self._on_unknown = on_unknown
        self._counts = counts
        self._reply: DialectStream | None = None
        self._is_whole = self._is_sse = False
        self._texts: dict[Channel, TextRedactor] = {}  # the channels that go on
        self._waiting: dict[Channel, _Waiting] = {}  # what they hold
        self._waiting_bytes = 0
        self._long: _Long | None = None
        # What unknown channels said last, and how often in a row that was more of the same.
        self._said: dict[Channel, tuple[str, int]] = {}
        self._parts: dict[tuple[Kind | None, str], Channel] = {}  # the last in each list of parts
        self._alone: dict[Channel, bool] = {}  # whether each text of a channel stands alone
        self._clean_lines: set[bytes] = set()
        self._clean: Template | None = None  # of events that need no change beside their text
        self._steady: _Steady | None = None
        self._passed: Event | None = None  # the last that went on
        self._ended: set[Channel] = set()  # what they held was said as the end of their text
        self._last: tuple[Event, _Long | None] | None = None  # ends choices, if nothing follows it

    def on_response(self, head: ResponseHead) -> Reply | None:
        reply = self._reply = head.stream
        if reply is None:
            return None
        self._is_whole, self._is_sse = reply.framing is Framing.JSON, reply.framing is Framing.SSE
        # What is no text the dialect knows.
        readable = reply.parse(b"").known if reply.framing is Framing.OPAQUE else charset(head) in _UTF_8
        readable = readable or head.headers.get("Content-Length") == "0"
        return None if readable or self._on_unknown == "pass" else Reply(details="redaction_unreadable")

    def on_events(self, events: Events, now: float) -> Verdict:
        passed: Events = []
        left = _TURN
        try:
            for number, event in enumerate(events):
                if self._steady is not None and left > 0 and self._take_alike(self._steady, event, passed):
                    left -= len(event.raw)
                    continue
                if left <= 0:
                    return Pause(0.0, passed, events[number:])
                if self._last is not None:
                    self._follow(event.parsed, passed)
                size = len(event.raw)
                if size <= _SLICE and self._long is None:
                    left -= size
                    self._take(event, passed)
                    continue
                long = self._long = self._long or self._begun_long(event)
                for cost in long.work:
                    left -= cost
                    if left <= 0:
                        return Pause(0.0, passed, [long.stand_in, *events[number + 1 :]])
                self._take_any(long.event, passed, long)
                self._long = None
        except (StopRequested, BudgetExceeded, Unreadable) as error:
            return Stop(reason(error), events=passed)
        if passed:
            self._passed = passed[-1]
        return passed

    def on_end(self, now: float) -> Events:
        released: Events = []
        self._end_steady()
        if self._last is not None:
            self._follow(DONE, released)
        self._release(list(self._texts), released)
        return self._apart(released)

    def _apart(self, released: Events) -> Events:
        """The last events: each begins after the end of the one before, which a body that breaks off may lack."""
        apart: Events = []
        before = self._passed
        for event in released:
            gap = b"" if before is None or self._reply is None else self._reply.framing.missing_end(before.raw)
            if gap and self._reply is not None:
                apart.append(Event(gap, self._reply, Parsed()))
            apart.append(event)
            before = event
        return apart

    def on_cut(self, now: float) -> Events:
        """What is held is dropped: a continuation could have made it part of a match."""
        self._drop()
        return []

    def close(self, outcome: Outcome) -> None:
        self._drop()

    def _drop(self) -> None:
        self._texts.clear()
        self._waiting.clear()
        self._said.clear()
        self._long = self._last = self._steady = None

    def facts(self) -> Mapping[str, int]:
        return self._counts

    # One event

    def _take(self, event: Event, passed: Events) -> None:
        """One that is not long."""
        is_new = event.read is None  # so that a template is that of its very bytes
        parsed = event.parsed
        self._take_any(event, passed)
        template = parsed.template
        if is_new and template is not None and template is self._clean and parsed.deltas and not self._said:
            channel, _ = parsed.deltas[0]
            redactor = self._texts.get(channel)
            if redactor is not None:
                self._steady = _Steady(template, channel, redactor)

    def _take_alike(self, steady: _Steady, event: Event, passed: Events) -> bool:
        """Nearly all of a stream differ from the one before in a text that goes on, and nothing else. False: this one does
        not, or nobody can tell."""
        raw = event.raw
        if event.read is None and len(raw) <= _SLICE and (text := steady.template.text(raw)):
            steady.decided = decided = steady.redactor.feed(text)
            steady.event = event
            if decided == text:
                event.read = steady.template.says(text)
                passed.append(event)
            elif decided or not steady.template.blank:
                passed.append(steady.template.event(event.stream, decided))
            return True
        self._end_steady()
        return False

    def _end_steady(self) -> None:
        """An event comes that is not like the last: what that left waiting is noted, as after any other."""
        steady, self._steady = self._steady, None
        if steady is not None and steady.event is not None:
            event = steady.event
            if event.read is None:
                event.read = steady.template.read(event.raw)
            self._keep(steady.channel, steady.channel, event, ((steady.channel, steady.decided),))

    def _take_any(self, event: Event, passed: Events, long: _Long | None = None) -> None:
        parsed = event.parsed
        is_known = parsed.known and not (self._is_sse and b"\0" in event.raw)  # as in UTF-16
        if not is_known and self._on_unknown == "refuse":
            raise Unreadable
        if parsed.ends and self._may_go_on(parsed):
            self._last = event, long
        else:
            self._pass(event, parsed, passed, long)

    def _may_go_on(self, parsed: Parsed) -> bool:
        """Whether an event ends choices, and whether it did can only be told from what follows it."""
        if self._reply is None or self._reply.after_end is not AfterEnd.SAME or not (parsed.deltas or self._texts):
            return False
        return any(end.kind is None and end != EVERY_CHANNEL for end in parsed.ends)

    def _follow(self, following: Parsed, passed: Events) -> None:
        """The event that waits for it goes on: its choices have ended only if the reply has."""
        if not (following.deltas or following.ends or following.choices or following.usage):
            return  # a comment may go before it
        assert self._last is not None
        (event, long), self._last = self._last, None
        parsed = event.parsed
        if EVERY_CHANNEL not in following.ends:
            ends = [end for end in parsed.ends if end.kind is not None]
            parsed = Parsed(parsed.deltas, ends, known=parsed.known, mirrored=parsed.mirrored)
        self._pass(event, parsed, passed, long)

    def _pass(self, event: Event, parsed: Parsed, passed: Events, long: _Long | None) -> None:
        """The event with its texts redacted goes to `passed`. `parsed`: what of its ends is one."""
        if self._is_sse:
            event = self._with_clean_lines(event, {} if long is None else long.lines)
        changed: Event | None = event
        if parsed.deltas or (parsed.ends and self._texts):
            changed = self._rewritten(event, parsed, passed, None if long is None else long.texts)
        if changed is not None and parsed.mirrored and self._reply is not None:
            changed = self._reply.without_mirrors(changed)
        if changed is not None:
            passed.append(changed)

    def _rewritten(
        self, event: Event, parsed: Parsed, passed: Events, known: Sequence[str] | None = None
    ) -> Event | None:
        """The event with what may go now of its texts, after what it ends elsewhere went to `passed`. `known`: what may go
        of each is known already."""
        if len(parsed.deltas) == 1 and not parsed.ends and known is None:  # nearly all of a stream
            channel, text = parsed.deltas[0]
            redactor = self._texts.get(channel)
            if redactor is not None:
                if self._said:
                    self._check_pieces(channel, text)
                delta = (channel, redactor.feed(text))
                self._keep(channel, channel, event, (delta,))
                return event.with_text(delta[1])
        deltas: list[Delta] = []
        last: dict[Channel, int] = {}  # where the channel's last text stands
        for channel, text in parsed.deltas:
            alone = self._is_whole or self._stands_alone(channel)
            if not alone:
                whose = self._text_of(channel)
                last[whose] = len(deltas)
                if channel not in parsed.ends:  # of itself, so that it is whole
                    self._check_pieces(whose, text)
            if known is not None:
                text = known[len(deltas)]
            elif alone:
                text = self._whole(channel, text, parsed)
            else:
                text = self._text(channel).feed(text)
            deltas.append((channel, text))
        for whose, position in last.items():
            self._keep(whose, deltas[position][0], event, deltas)
        elsewhere = []
        for whose in self._ending(parsed) if parsed.ends else ():
            if whose in last:
                self._forget(whose)
                channel, text = deltas[last[whose]]
                deltas[last[whose]] = (channel, text + self._finish(whose))
            else:
                elsewhere.append(whose)
        self._release(elsewhere, passed)
        return event.with_deltas(deltas)

    def _ending(self, parsed: Parsed) -> list[Channel]:
        """The channels whose text is to end now. Where another text would follow, one that holds nothing goes on instead: so
        the same text does too."""
        ending = [channel for channel in self._texts if self._has_ended(channel, parsed)]
        if not ending or (self._reply is not None and self._reply.after_end is AfterEnd.NEW):
            return ending
        whole = {channel for channel, _ in parsed.deltas if channel in parsed.ends}  # in this very event
        ending = [channel for channel in ending if channel in whole or self._texts[channel].held]
        self._ended.update(channel for channel in ending if channel not in whole)
        return ending

    def _has_ended(self, whose: Channel, parsed: Parsed) -> bool:
        """Whether the text ends, or the part of it that came last, or one behind that."""
        if _ends(parsed, whose):
            return True
        kept = self._waiting.get(whose)
        part = None if kept is None else _PART.fullmatch(str(kept.channel.index))
        behind = [end for end in parsed.ends if end.kind in (None, whose.kind)] if part is not None else ()
        parts = [_PART.fullmatch(str(end.index)) for end in behind]
        return part is not None and any(it and it[1] == part[1] and int(it[2]) >= int(part[2]) for it in parts)

    # What may have to be said in an event of its own

    def _keep(self, whose: Channel, channel: Channel, event: Event, deltas: Sequence[Delta]) -> None:
        self._forget(whose)
        if len(event.raw) > _SLICE:
            if not self._texts[whose].held:
                return
            event, deltas = self._continuable(event, deltas), ()
        self._waiting[whose] = _Waiting(event, channel, deltas)
        self._waiting_bytes += len(event.raw)
        if self._waiting_bytes > _MOST_WAITING_BYTES:
            raise BudgetExceeded

    def _forget(self, whose: Channel) -> _Waiting | None:
        kept = self._waiting.pop(whose, None)
        if kept is not None:
            self._waiting_bytes -= len(kept.event.raw)
        return kept

    def _continuable(self, event: Event, deltas: Sequence[Delta]) -> Event:
        """The event to be continued: nothing of it that was not looked at is said again. A text that is empty would not be
        there."""
        assert self._reply is not None
        return self._reply.continuable(event, [(channel, text or "-") for channel, text in deltas])

    def _finish(self, whose: Channel) -> str:
        """The end of the channel: what it holds."""
        self._said.pop(whose, None)
        return self._texts.pop(whose).finish()

    def _release(self, ending: Sequence[Channel], passed: Events) -> None:
        """The channels end: what they hold goes in events of its own. What came together goes together, as far as the API
        can say it in one event: a client that takes a text from one of two places would else have it twice."""
        together: dict[int, Events] = {}
        for whose in ending:
            kept = self._forget(whose)
            text = self._finish(whose)
            if text and kept is not None:
                event = self._continuable(kept.event, kept.deltas) if kept.deltas else kept.event
                together.setdefault(id(kept.event), []).append(event.continuation(kept.channel, text))
        for events in together.values():
            passed += events if self._reply is None or len(events) < 2 else self._reply.joined(events)

    # Long events

    def _begun_long(self, event: Event) -> _Long:
        assert self._reply is not None
        long = _Long(event, self._reply)
        long.work = self._work(long)
        return long

    def _work(self, long: _Long) -> Generator[int, None, None]:
        """Reads the texts of a long event as `_rewritten` and `_line` would; says before each slice what it costs.

        Those read a text at once: as a generator that is run to its end, a short event took up to a fifth longer."""
        parsed = long.event.parsed
        for channel, text in parsed.deltas:
            alone = self._is_whole or self._stands_alone(channel)
            if alone and self._is_opaque(channel, text):
                long.texts.append(text)
                continue
            redactor = self._begun(channel) if alone else self._text(channel)
            decided = yield from _fed(redactor.feed, text)
            long.texts.append(decided + self._end_of(channel, redactor, parsed) if alone else decided)
        if self._is_sse:
            for line in sse.other_lines(long.event.raw):
                of_line = self._scanner.redactor(self._replace)
                decided = yield from _fed(of_line.feed, line.decode(errors="surrogateescape"))
                long.lines[line] = (decided + of_line.finish()).encode(errors="surrogateescape")

    def _text(self, channel: Channel) -> TextRedactor:
        whose = self._text_of(channel)
        found = self._texts.get(whose)
        if found is None:
            if len(self._texts) + len(self._ended) >= _MOST_CHANNELS:
                raise BudgetExceeded
            if whose in self._ended and self._on_unknown == "refuse":
                raise Unreadable  # it could complete what was said already
            found = self._texts[whose] = self._begun(channel)
        return found

    def _text_of(self, channel: Channel) -> Channel:
        """The channel by which its text is known. Where a part has not ended when the next begins it goes on there (vLLM
        counts `content_index` up with each delta)."""
        channel = channel.steady
        if channel in self._texts or not isinstance(channel.index, str):
            return channel
        part = _PART.fullmatch(channel.index)
        if part is None:
            return channel
        before = self._parts.get((channel.kind, part[1]))
        if before is not None and before in self._texts and before in self._waiting:
            return before
        if len(self._parts) < _MOST_CHANNELS:
            self._parts[channel.kind, part[1]] = channel
        return channel

    def _check_pieces(self, whose: Channel, text: str) -> None:
        """Raises Unreadable where events of unknown shape say all that was said so far, and no pieces: then none of the texts
        is a continuation of the one before."""
        index = whose.index
        is_unknown = isinstance(index, str) and (index.startswith("/") or (not index and self._is_sse))
        if not is_unknown or self._on_unknown == "pass":
            return
        before, times = self._said.get(whose, ("", 0))
        if len(set(before)) < _LEAST_SO_FAR or not text.startswith(before):
            times = 0
        elif any(map(str.isalnum, text[len(before) :])):  # and not only the dots of who is at work
            times += 1
        if times > 1 or (times and len(before) >= _SURELY_SO_FAR and self._scanner.redact(text, self._replace) != text):
            raise Unreadable
        self._said[whose] = (text if len(text) <= _SLICE else "", times)

    def _begun(self, channel: Channel) -> TextRedactor:
        index, key = channel.index, ""
        if isinstance(index, str) and channel.kind is not Kind.REASONING and not _PART.fullmatch(index):
            key = key_at(index.split("/")[1:])  # what the model says by itself is the value of nothing
        arguments = channel.kind is Kind.TOOL_ARGUMENTS
        return TextRedactor(self._scanner, self._replace, arguments=arguments, key=key)

    # Texts that stand alone

    def _stands_alone(self, channel: Channel) -> bool:
        """Whether a text of the channel is none that goes on in other events: in a document of unknown shape, that is an
        API's own word (a `type`) or data, which clients must have whole in each."""
        known = self._alone.get(channel)
        if known is None:
            index = channel.index
            known = (channel.repeated and not channel.grows) or (isinstance(index, str) and is_whole(index.split("/")))
            if len(self._alone) < _MOST_CHANNELS:
                self._alone[channel] = known
        return known

    def _is_opaque(self, channel: Channel, text: str) -> bool:
        """Whether a text that stands alone is data, at a place where data may stand."""
        return isinstance(channel.index, str) and is_binary(text, channel.index.split("/"))

    def _whole(self, channel: Channel, text: str, parsed: Parsed) -> str:
        """A text that stands alone; of one that repeats what still goes on, only what is decided."""
        if self._is_opaque(channel, text):
            return text
        redactor = self._begun(channel)
        decided = redactor.feed(text)
        return decided + self._end_of(channel, redactor, parsed)

    def _end_of(self, channel: Channel, redactor: TextRedactor, parsed: Parsed) -> str:
        """What goes of the end of a text that stands alone."""
        original = channel._replace(repeated=False)
        if channel.repeated and not _ends(parsed, channel):
            goes_on = original in self._texts or any(other == original for other, _ in parsed.deltas)
            if goes_on:
                return ""
        return redactor.finish()

    def _with_clean_lines(self, event: Event, known: Mapping[bytes, bytes]) -> Event:
        """The event with its comments and its fields beside the data looked through, each line as a text of its own."""
        clean = event if sse.is_bare(event.raw) else self._with_other_lines(event, known)
        template = event.parsed.template
        if clean is event and template is not None and template.fits(event.raw):
            self._clean = template
        return clean

    def _with_other_lines(self, event: Event, known: Mapping[bytes, bytes]) -> Event:
        raw = sse.with_other_lines(event.raw, lambda line: known[line] if line in known else self._line(line))
        if raw == event.raw or self._reply is None:
            return event
        return Event(raw, self._reply, event.parsed)

    def _line(self, line: bytes) -> bytes:
        if not line or line in self._clean_lines:
            return line
        text = line.decode(errors="surrogateescape")
        redacted = self._scanner.redact(text, self._replace)
        if redacted != text:
            return redacted.encode(errors="surrogateescape")
        if len(self._clean_lines) < _MOST_LINES and len(line) <= _LINE_BYTES:
            self._clean_lines.add(line)
        return line


def _ends(parsed: Parsed, channel: Channel) -> bool:
    return any(end.covers(channel) for end in parsed.ends)


def _fed(feed: Callable[[str], str], text: str) -> Generator[int, None, str]:
    """What is decided of a text that is fed slice by slice; says before each what it costs."""
    parts: list[str] = []
    for at in range(0, len(text), _SLICE):
        part = text[at : at + _SLICE]
        yield len(part) + _TEXT_COST
        parts.append(feed(part))
    return "".join(parts)
