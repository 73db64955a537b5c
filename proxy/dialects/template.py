"""Events of one stream that differ in one text only, as nearly all that follow each other do: read and written at the cost
of that text. Pure.

Two documents that are the same but for one string literal say the same but for that string (RFC 8259 §7: where a literal
ends depends on nothing but itself). So once it is proved which literal of an event its text is, an event with the same
bytes before and after need not be parsed: if what stands between is one string literal, it is the text.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..framing import Event
from .base import DialectStream, Parsed
from .documents import encode

_PROBE = "penstock probe 7c1f4e9ab2d05836"
_PROBE_BYTES = _PROBE.encode()

_decode_text = msgspec.json.Decoder(str).decode


class Template:
    """`before` and `after` are the bytes of an event around the literal of its one text, `like` what such an event says,
    `blank` whether one without a text is not worth sending."""

    __slots__ = ("_after", "_before", "_channel", "_choices", "_head", "_start", "_stop", "_tail", "blank")

    def __init__(self, before: bytes, after: bytes, like: Parsed, *, blank: bool) -> None:
        self.blank = blank
        self._channel = like.deltas[0][0]
        self._choices = like.choices
        self._head, self._tail = before, after
        self._before, self._after = before + b'"', b'"' + after
        self._start, self._stop = len(before), -len(after)

    def read(self, raw: bytes) -> Parsed | None:
        """What an event says; None where it is none of these.

        Also where the text has an escape that only the permissive reading knows (a lone surrogate)."""
        text = self.text(raw)
        return None if text is None else self.says(text)

    def text(self, raw: bytes) -> str | None:
        """The text of an event; None where `read` gives None."""
        if not raw.startswith(self._before) or not raw.endswith(self._after):  # `fits`, which is one call more
            return None
        try:
            return _decode_text(raw[self._start : self._stop])
        except ValueError:
            return None

    def fits(self, raw: bytes) -> bool:
        """Whether an event that had this template still has it: what stands beside its data may have been changed."""
        return raw.startswith(self._before) and raw.endswith(self._after)

    def event(self, stream: DialectStream, text: str) -> Event:
        """An event of `stream` with this text."""
        return Event(self._head + encode(text) + self._tail, stream, self.says(text))

    def rewritten(self, event: Event, text: str) -> Event | None:
        """`event`, which has this template, with another text; None where without one it is not worth sending."""
        return self.event(event.stream, text) if text or not self.blank else None

    def says(self, text: str) -> Parsed:
        """What an event with this text says."""
        return Parsed([(self._channel, text)] if text else (), (), None, self._choices, True, False, self)


class Learner:
    """Finds the template of a stream. `parse` reads an event in full, `is_blank` says of one whose text is empty whether
    it is not worth sending.

    Only what stays is worth learning, so a template is made when two events in a row differ in their text alone."""

    __slots__ = ("_is_blank", "_parse", "_seen")

    def __init__(self, parse: Callable[[bytes], Parsed | None], is_blank: Callable[[bytes], bool]) -> None:
        self._parse = parse
        self._is_blank = is_blank
        self._seen: tuple[bytes, bytes] | None = None

    def learn(self, raw: bytes, parsed: Parsed) -> Template | None:
        """The template of an event that was read in full; None where it has none, or not yet."""
        if len(parsed.deltas) != 1 or parsed.ends:
            return None
        around = _around(raw, parsed)
        seen, self._seen = self._seen, around
        return self.prove(raw, parsed) if seen == around else None

    def prove(self, raw: bytes, parsed: Parsed) -> Template | None:
        """The template of this very event. None where it has none, or its text is spelt in an unusual way.

        The text of an event might as well stand elsewhere in it. Only if another one in this place, which stands nowhere
        else, is what is read then, this is its literal."""
        if len(parsed.deltas) != 1 or parsed.ends or parsed.usage is not None or parsed.mirrored:
            return None
        before, after = _around(raw, parsed)
        if not after or _PROBE_BYTES in before or _PROBE_BYTES in after:
            return None
        read = self._parse(before + encode(_PROBE) + after)
        if read is None:
            return None
        if read.deltas != [(parsed.deltas[0][0], _PROBE)] or read.choices != parsed.choices or read.ends:
            return None
        return Template(before, after, parsed, blank=self._is_blank(before + b'""' + after))


def _around(raw: bytes, parsed: Parsed) -> tuple[bytes, bytes]:
    """What stands before and after the first literal that is spelt like the text; nothing after it: there is none."""
    before, _, after = raw.partition(encode(parsed.deltas[0][1]))
    return before, after
