"""A reply's texts through a scanner, each channel on its own, whatever form the reply has.

What a channel still holds goes out in the event that ends the channel, or before it; on a clean end all of it does; on any
other end none. Text that follows an end goes on where the channel was, if nothing undecided was said for that end; else it
cannot be read any more. Where an API's ends are no ends (`AfterEnd.SAME`), such an event waits for what follows it.
What says the model's text in other forms (log probabilities) goes with the text.

A long event is read slice by slice, each in a turn of the event loop of its own: `Pause(0.0)` lets others have theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Literal, TypeAlias

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
_MOST_KEPT_BYTES = 1 << 24  # of events made of long ones; short ones are bounded by the channels
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


class _Text(TextRedactor):
    """The text of a channel that goes on. What it holds can be said in `event`, the one that the last of it came with, once
    that has been given the texts `given`, if there are any."""

    __slots__ = ("event", "given", "size")

    def __init__(self, scanner: Scanner, replace: Replace, *, arguments: bool, key: str) -> None:
        super().__init__(scanner, replace, arguments=arguments, key=key)
        self.event: Event | None = None
        self.given: Sequence[Delta] = ()
        self.size = 0  # bytes of the event, where it is made of a long one


class TextStream(PolicyStream):
    """One exchange, or one attachment. `counts`: what to say of it in the end, by name."""

    def __init__(self, scanner: Scanner, replace: Replace, on_unknown: OnUnknown, counts: Mapping[str, int]) -> None:
        self._scanner = scanner
        self._replace = replace
        self._on_unknown = on_unknown
        self._counts = counts
        self._reply: DialectStream | None = None
        self._is_whole = self._is_sse = False
        self._texts: dict[Channel, _Text] = {}  # the channels that go on
        self._kept_bytes = 0  # of events made of long ones, in which something is held that may have to be said
        self._long: _Long | None = None
        self._alone: dict[Channel, bool] = {}  # whether each text of a channel stands alone
        self._clean_lines: set[bytes] = set()
        self._clean: Template | None = None  # of events that need no change beside their text
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
        if self._last is not None:
            self._follow(DONE, released)
        for channel in list(self._texts):
            self._release(channel, released)
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
        self._long = self._last = None

    def facts(self) -> Mapping[str, int]:
        return self._counts

    # One event

    def _take(self, event: Event, passed: Events) -> None:
        """One that is not long. Nearly all of a stream differ from the one before in a text that goes on, and nothing else."""
        is_new = event.read is None  # so that a template is that of its very bytes
        parsed = event.parsed
        template = parsed.template
        if is_new and template is not None and template is self._clean and parsed.deltas:
            channel, text = parsed.deltas[0]
            going = self._texts.get(channel)
            if going is not None and not going.size:
                decided = going.feed(text)
                going.event, going.given = event, ((channel, decided),)
                changed = event if decided == text else template.rewritten(event, decided)
                if changed is not None:
                    passed.append(changed)
                return
        self._take_any(event, passed)

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
            going = self._texts.get(channel)
            if going is not None:
                decided = going.feed(text)
                self._keep(going, event, ((channel, decided),))
                return event.with_text(decided)
        deltas: list[Delta] = []
        last: dict[Channel, int] = {}  # where the channel's last text stands
        for channel, text in parsed.deltas:
            alone = self._is_whole or self._stands_alone(channel)
            if not alone:
                last[channel] = len(deltas)
            if known is not None:
                text = known[len(deltas)]
            elif alone:
                text = self._whole(channel, text, parsed)
            else:
                text = self._text(channel).feed(text)
            deltas.append((channel, text))
        for channel in last:
            self._keep(self._texts[channel], event, deltas)
        for channel in self._ending(parsed) if parsed.ends else ():
            if channel in last:
                position = last[channel]
                deltas[position] = (channel, deltas[position][1] + self._taken_out(channel).finish())
            else:
                self._release(channel, passed)
        return event.with_deltas(deltas)

    def _ending(self, parsed: Parsed) -> list[Channel]:
        """The channels whose text is to end now. Where another text would follow, one that holds nothing goes on instead: so
        the same text does too."""
        ending = [channel for channel in self._texts if _ends(parsed, channel)]
        if not ending or (self._reply is not None and self._reply.after_end is AfterEnd.NEW):
            return ending
        whole = {channel for channel, _ in parsed.deltas if channel in parsed.ends}  # in this very event
        ending = [channel for channel in ending if channel in whole or self._texts[channel].held]
        self._ended.update(channel for channel in ending if channel not in whole)
        return ending

    # What may have to be said in an event of its own

    def _keep(self, going: _Text, event: Event, given: Sequence[Delta]) -> None:
        self._kept_bytes -= going.size
        going.event, going.given, going.size = event, given, 0
        if len(event.raw) > _SLICE:
            going.event, going.given = (self._continuable(event, given), ()) if going.held else (None, ())
            going.size = len(going.event.raw) if going.event is not None else 0
            self._kept_bytes += going.size
            if self._kept_bytes > _MOST_KEPT_BYTES:
                raise BudgetExceeded

    def _taken_out(self, channel: Channel) -> _Text:
        going = self._texts.pop(channel)
        self._kept_bytes -= going.size
        return going

    def _continuable(self, event: Event, deltas: Sequence[Delta]) -> Event:
        """The event to be continued: nothing of it that was not looked at is said again. A text that is empty would not be
        there."""
        assert self._reply is not None
        return self._reply.continuable(event, [(channel, text or "-") for channel, text in deltas])

    def _release(self, channel: Channel, passed: Events) -> None:
        """The channel ends: what it holds goes in an event of its own."""
        going = self._taken_out(channel)
        text, event = going.finish(), going.event
        if text and event is not None:
            event = self._continuable(event, going.given) if going.given else event
            passed.append(event.continuation(channel, text))

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

    def _text(self, channel: Channel) -> _Text:
        found = self._texts.get(channel)
        if found is None:
            if len(self._texts) + len(self._ended) >= _MOST_CHANNELS:
                raise BudgetExceeded
            if channel in self._ended and self._on_unknown == "refuse":
                raise Unreadable  # it could complete what was said already
            found = self._texts[channel] = self._begun(channel)
        return found

    def _begun(self, channel: Channel) -> _Text:
        index = channel.index
        key = key_at(index.split("/")[1:]) if isinstance(index, str) and "/" in index else ""
        arguments = channel.kind is Kind.TOOL_ARGUMENTS
        return _Text(self._scanner, self._replace, arguments=arguments, key=key)

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
