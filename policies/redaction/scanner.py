"""Streaming redaction: `Scanner` (the entities, compiled once, shared by all) and `Redactor` (one channel).

What is found is defined in `entity.py`. A redactor walks fronts (`automaton.py`), one look-up a character, as long as no
run reaches an end. Where one does, it walks run by run (`decision.py`), until every run that has reached one is
decided, and goes back to fronts. Both walks know the same runs; the second one only remembers more of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from .automaton import Automaton
from .common import COMMON
from .decision import Decision, Piece, Replace
from .entity import BudgetExceeded, Entity
from .folding import fold

__all__ = ["Piece", "Redactor", "Replace", "Scanner"]

STRIDE = 256
"""Characters walked at once: longer texts are cut, which changes nothing, so that the bound below holds for each part."""
ALLOWANCE = 200_000
"""Steps that one stride may cost: no text makes it take much longer than this many tenths of a microsecond."""


class Scanner:
    """The compiled entities. Raises `PatternError` for one that it refuses."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self.automaton = Automaton(entities)

    @property
    def width(self) -> int:
        """The most folded characters that a channel ever holds."""
        return self.automaton.program.width

    def warm(self) -> None:
        """Build most of what texts will need: some tenths of a second now, and not in the first streams."""
        self.redact(COMMON, lambda entity, text: "")

    def redactor(self, replace: Replace, context: str = "") -> Redactor:
        """A redactor for one channel, which stands behind `context` (`entity.py`)."""
        return Redactor(self.automaton, replace, context)

    def redact(self, text: str, replace: Replace, context: str = "") -> str:
        """The whole of a text at once."""
        redactor = self.redactor(replace, context)
        return redactor.feed(text) + redactor.finish()


class Redactor:
    """One channel. `feed` the text as it comes, then `finish` once; or `scan` and `end`, which give pieces instead.

    After anything was raised it is of no further use: what it held is lost."""

    __slots__ = ("_automaton", "_context", "_decision", "_front", "_held", "_replace")

    def __init__(self, automaton: Automaton, replace: Replace, context: str = "") -> None:
        self._automaton = automaton
        self._replace = replace
        self._front = automaton.idle
        self._held = ""
        self._decision: Decision | None = None  # while the front is eventful
        context = fold(context)
        self._context = len(context)  # with how many characters of the context what is held begins
        if context:
            self.scan(context)

    @property
    def held(self) -> int:
        """Characters of the input held back now."""
        return len(self._held) - self._context

    def feed(self, text: str) -> str:
        """What may go now. Raises `BudgetExceeded`, and what `replace` raises."""
        front = self._front
        try:
            for character in text:
                front = front[character]
        except BudgetExceeded:  # used up what others had left: `scan` has an allowance of its own
            front = self._automaton.eventful
        hold = front.hold
        if hold < 0 or self._context:
            return self._written(self._held[self._context :] + text, self.scan(text))
        self._front = front
        text = self._held + text
        if not hold:
            self._held = ""
            return text
        go = len(text) - hold
        self._held = text[go:]
        return text[:go]

    def finish(self) -> str:
        """The end of the channel: what was still held."""
        return self._written(self._held[self._context :], self.end())

    def scan(self, text: str) -> list[Piece]:
        """Like `feed`: what became of the characters that are no longer held, in order."""
        pieces: list[Piece] = []
        for at in range(0, len(text), STRIDE):
            self._automaton.allowance = ALLOWANCE
            pieces += self._scan(text[at : at + STRIDE])
        return pieces

    def end(self) -> list[Piece]:
        """Like `finish`: what became of all that was still held."""
        self._automaton.allowance = ALLOWANCE
        return self._decide("", final=True) if self._held else []

    def _scan(self, stride: str) -> list[Piece]:
        front = self._front
        for character in stride:
            front = front[character]
        if front.hold < 0:
            return self._decide(stride)
        self._front = front
        text = self._held + stride
        go = len(text) - front.hold
        self._held = text[go:]
        return self._behind_context([(go, None)]) if go else []

    def _behind_context(self, pieces: list[Piece]) -> list[Piece]:
        """`pieces` without what they say of the context, of which so much is no longer held."""
        if not self._context:
            return pieces
        own = []
        for consumed, replacement in pieces:
            passed = min(consumed, self._context)
            self._context -= passed
            if consumed > passed:
                own.append((consumed - passed, replacement))
        return own

    @staticmethod
    def _written(text: str, pieces: list[Piece]) -> str:
        """What goes instead of the beginning of `text` that `pieces` speak of."""
        parts, at = [], 0
        for consumed, replacement in pieces:
            parts.append(text[at : at + consumed] if replacement is None else replacement)
            at += consumed
        return "".join(parts)

    def _decide(self, text: str, *, final: bool = False) -> list[Piece]:
        """Walk `text` run by run. `final`: it is the end, everything is decided."""
        automaton = self._automaton
        decision = self._decision or Decision(automaton, self._replace, self._front, self._held)
        pieces = decision.go(text, final=final, context=self._context)
        self._held = decision.held
        front = decision.front()
        self._decision = decision if front is None else None
        self._front = automaton.eventful if front is None else front
        return self._behind_context(pieces)
