"""A reply's texts through a scanner, each channel on its own, whatever form the reply has.

What a channel still holds goes out in the event that ends the channel, or before it; on a clean end all of it does; on any
other end none. What says the model's text in other forms (log probabilities) goes with the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from proxy.dialects import sse
from proxy.dialects.base import Channel, Delta, DialectStream, Kind, Parsed
from proxy.dialects.documents import is_binary, is_word
from proxy.framing import Event, Framing
from proxy.messages import Reply, ResponseHead
from proxy.policy import Events, PolicyStream, Stop, Verdict

from .actions import StopRequested
from .entity import BudgetExceeded
from .json_text import TextRedactor
from .scanner import Replace, Scanner

OnUnknown: TypeAlias = Literal["refuse", "pass"]

_MOST_CHANNELS = 4096
_MOST_LINES, _LINE_BYTES = 64, 256  # that are known to need no change


class Unreadable(Exception):
    """A form in which texts cannot be looked for."""


def reason(error: Exception) -> str:
    """The row of `errors.FAULTS` for what ended the reading of a text."""
    if isinstance(error, StopRequested):
        return "redaction_stopped"
    return "redaction_budget" if isinstance(error, BudgetExceeded) else "redaction_unreadable"


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
        self._latest: dict[Channel, Event] = {}  # the event that the last text of each of them came with
        self._alone: dict[Channel, bool] = {}  # whether each text of a channel stands alone
        self._clean_lines: set[bytes] = set()

    def on_response(self, head: ResponseHead) -> Reply | None:
        reply = self._reply = head.stream
        if reply is None:
            return None
        self._is_whole, self._is_sse = reply.framing is Framing.JSON, reply.framing is Framing.SSE
        readable = reply.parse(b"").known or head.headers.get("Content-Length") == "0"
        return None if readable or self._on_unknown == "pass" else Reply(details="redaction_unreadable")

    def on_events(self, events: Events, now: float) -> Verdict:
        passed: Events = []
        try:
            for event in events:
                self._take(event, passed)
        except (StopRequested, BudgetExceeded, Unreadable) as error:
            return Stop(reason(error), events=passed)
        return passed

    def on_end(self, now: float) -> Events:
        released: Events = []
        for channel in list(self._texts):
            self._release(channel, released)
        return released

    def on_cut(self, now: float) -> Events:
        """What is held is dropped: a continuation could have made it part of a match."""
        self._texts.clear()
        self._latest.clear()
        return []

    def facts(self) -> Mapping[str, int]:
        return self._counts

    # One event

    def _take(self, event: Event, passed: Events) -> None:
        parsed = event.parsed
        if not parsed.known and self._on_unknown == "refuse":
            raise Unreadable
        changed: Event | None = event
        if parsed.deltas or (parsed.ends and self._texts):
            changed = self._rewritten(event, parsed, passed)
        if changed is not None and parsed.mirrored and self._reply is not None:
            changed = self._reply.without_mirrors(changed)
        if changed is not None and self._is_sse and not sse.is_bare(changed.raw):
            changed = self._with_other_lines(changed)
        if changed is not None:
            passed.append(changed)

    def _rewritten(self, event: Event, parsed: Parsed, passed: Events) -> Event | None:
        """The event with what may go now of its texts, after what it ends elsewhere went to `passed`."""
        if len(parsed.deltas) == 1 and not parsed.ends:  # nearly all of a stream
            channel, text = parsed.deltas[0]
            known = self._texts.get(channel)
            if known is not None:
                self._latest[channel] = event
                return event.with_text(known.feed(text))
        deltas: list[Delta] = []
        last: dict[Channel, int] = {}  # where the channel's last text stands
        for channel, text in parsed.deltas:
            if self._is_whole or self._stands_alone(channel):
                deltas.append((channel, self._whole(channel, text, parsed)))
            else:
                last[channel] = len(deltas)
                deltas.append((channel, self._text(channel).feed(text)))
                self._latest[channel] = event
        for channel in [channel for channel in self._texts if _ends(parsed, channel)] if parsed.ends else ():
            if channel in last:
                del self._latest[channel]
                position = last[channel]
                deltas[position] = (channel, deltas[position][1] + self._texts.pop(channel).finish())
            else:
                self._release(channel, passed)
        return event.with_deltas(deltas)

    def _release(self, channel: Channel, passed: Events) -> None:
        """The channel ends: what it holds goes in an event of its own."""
        event = self._latest.pop(channel)
        text = self._texts.pop(channel).finish()
        if text:
            passed.append(event.continuation(channel, text))

    def _text(self, channel: Channel) -> TextRedactor:
        found = self._texts.get(channel)
        if found is None:
            if len(self._texts) == _MOST_CHANNELS:
                raise BudgetExceeded
            found = self._texts[channel] = self._begun(channel)
        return found

    def _begun(self, channel: Channel) -> TextRedactor:
        return TextRedactor(self._scanner, self._replace, arguments=channel.kind is Kind.TOOL_ARGUMENTS)

    # Texts that stand alone

    def _stands_alone(self, channel: Channel) -> bool:
        """Whether a text of the channel is none that goes on in other events: in a document of unknown shape, that is an
        API's own word (a `type`), which clients must have whole in each."""
        known = self._alone.get(channel)
        if known is None:
            index = channel.index
            known = channel.repeated or (isinstance(index, str) and is_word(index.rpartition("/")[2]))
            if len(self._alone) < _MOST_CHANNELS:
                self._alone[channel] = known
        return known

    def _whole(self, channel: Channel, text: str, parsed: Parsed) -> str:
        """A text that stands alone; of one that repeats what still goes on, only what is decided."""
        if self._is_whole and isinstance(channel.index, str) and is_binary(text):
            return text
        redactor = self._begun(channel)
        decided = redactor.feed(text)
        original = channel._replace(repeated=False)
        if channel.repeated and not _ends(parsed, channel):
            goes_on = original in self._texts or any(other == original for other, _ in parsed.deltas)
            if goes_on:
                return decided
        return decided + redactor.finish()

    def _with_other_lines(self, event: Event) -> Event:
        """The event with its comments and its fields beside the data looked through, each line as a text of its own."""
        raw = sse.with_other_lines(event.raw, self._line)
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
