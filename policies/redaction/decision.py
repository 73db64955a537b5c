"""Where something was found: the text walked run by run, until nothing is left to decide.

`entity.py` defines what is found; here is how. Each live start has a `_Run`, which notes every end it reaches. The oldest
is decided first: as soon as its automaton cannot go on, the longest of its ends that is valid is a match, or there is
none. A match takes the runs that began inside it along; a run that began at its end or later is as good as before.
A decoy takes none along: only up to where it reaches what it spares is remembered.
"""

from __future__ import annotations

from collections.abc import Callable

from .automaton import MAX_UNSEEN, Automaton, Front, Outcome, State
from .entity import BudgetExceeded, Entity
from .folding import fold

Piece = tuple[int, str | None]
"""(consumed, replacement): so many characters of the input, in order, go as they are (None) or are replaced by a text.

An entity that commits gives its replacement once and "" for what is swallowed after it."""

Replace = Callable[[Entity, str], str]
"""What to write instead of a match: (entity, matched text as it stood in the input; where the entity commits, what its
pattern matched). What it raises passes through `feed`."""


VALIDATION_STEPS = 50
"""What a validator's call counts for."""


class _Run:
    """A possible match from one start on. All places are indices into the text at hand."""

    __slots__ = ("committed", "ends", "start", "state")

    def __init__(self, start: int, state: State) -> None:
        self.start = start
        self.state = state
        self.ends: list[tuple[int, int]] = []
        """(where, minus the entity's index): the greatest is the longest, and of those the first in the list."""
        self.committed: tuple[int, int] | None = None
        """(where, the entity's index), once one that commits has matched: the run then is decided."""


class Decision:
    """The walk from a front on. `go` as text comes; when `front` gives one, the walk may go on with fronts."""

    __slots__ = (
        "_automaton",
        "_context",
        "_done",
        "_pieces",
        "_position",
        "_replace",
        "_runs",
        "_seen",
        "_spared",
        "_start",
        "_swallowing",
        "held",
    )

    def __init__(self, automaton: Automaton, replace: Replace, front: Front, held: str) -> None:
        self._automaton = automaton
        self._context = 0  # so many characters of `held` only stand before the text, while `go` walks
        self._replace = replace
        self.held = held
        """The text from the oldest run on."""
        self._position = len(held)
        self._start = front.start  # where a match stands that begins at `_position`
        self._runs = [_Run(len(held) - age, state) for age, state in front.runs]
        self._seen = len(held)  # where the last visible character ends
        while self._seen and self._is_unseen(self._seen - 1):
            self._seen -= 1
        self._spared: dict[str, int] = {}  # an entity's name -> its matches that end up to here are none
        self._swallowing: State | None = None
        self._done = 0  # up to here `_pieces` speak of the text
        self._pieces: list[Piece] = []

    def go(self, text: str, *, final: bool, context: int = 0) -> list[Piece]:
        """Walk `text`; what became of the characters no longer held, in order. `final`: nothing comes after it.

        `context`: so many characters of what is `held` now only stand before the text."""
        self._context = context
        self.held += text
        while self._position < len(self.held) or (final and (self._runs or self._swallowing is not None)):
            if self._swallowing is not None:
                self._swallow(final)
            elif self._position < len(self.held):
                self._walk()
            else:
                self._close()
        if self._runs:
            self._pass(self._runs[0].start)
        elif self._swallowing is None:
            self._pass(self._position)
        pieces, self._pieces = self._pieces, []
        self._forget(self._done)
        if len(self.held) > self._automaton.program.width + MAX_UNSEEN:
            raise BudgetExceeded(f"more than {MAX_UNSEEN} invisible characters in what may be a match")
        return pieces

    def front(self) -> Front | None:
        """The front with the runs at hand; None while any of them has more to say than fronts remember."""
        if self._swallowing is not None or any(run.ends or run.committed for run in self._runs):
            return None
        if self._runs and any(end > self._runs[0].start for end in self._spared.values()):
            return None
        return self._automaton.front(self._start, tuple((self._position - run.start, run.state) for run in self._runs))

    def _walk(self) -> None:
        """To the end of the text, or to where an entity commits."""
        signatures, dead = self._automaton.signatures, self._automaton.dead
        for position, character in enumerate(self.held[self._position :], self._position + 1):
            bits, start = signatures[character]
            if start is None:
                continue
            if self._start[bits & self._start.mask] is not dead:
                self._runs.append(_Run(position - 1, self._start))
            self._automaton.spend(len(self._runs))
            runs = []
            for run in self._runs:
                state = run.state
                state = run.state = state[bits & state.mask]
                if state.decides:
                    self._note(run, state.outcome, position)
                if state.live or run.ends or run.committed:
                    runs.append(run)
            self._runs = runs
            self._start = start
            self._seen = self._position = position
            self._settle()
            if self._swallowing is not None:
                return
        self._position = len(self.held)

    def _note(self, run: _Run, outcome: Outcome, position: int) -> None:
        """Remember the ends that `run` reached with the character before `position`."""
        run.ends += [(self._seen, -index) for index in outcome.ended]
        run.ends += [(position, -index) for index in outcome.ends]
        for index in outcome.commits:
            if self._is_valid(index, run.start, position):
                run.committed = position, index
                run.state = self._automaton.dead
                return

    def _is_valid(self, index: int, start: int, end: int) -> bool:
        entity = self._automaton.program.entities[index]
        if entity.valid is None and start >= self._context:
            return True
        self._automaton.spend(VALIDATION_STEPS)
        text = fold(self.held[start:end])
        if start < self._context and not entity.spares:
            replaced = start if entity.context is None else start + entity.context(text)
            if replaced < self._context:
                return False  # that would take something of the context away
        return entity.valid is None or entity.valid(text)

    def _settle(self) -> None:
        """Decide the oldest runs, as far as they can be decided."""
        while self._runs and not self._runs[0].state.live:
            run = self._runs[0]
            if run.committed:
                end, index = run.committed
                self._write(run.start, end, index)
                self._runs = []
                self._swallowing = self._automaton.swallowing(index)
                self._position = end
                self._begin_after(end)
                return
            match = self._match(run)
            if match is None:
                del self._runs[0]
            else:
                end, index = match
                self._write(run.start, end, index)
                self._runs = [later for later in self._runs if later.start >= end]

    def _match(self, run: _Run) -> tuple[int, int] | None:
        """(where it ends, the entity's index) of the match that `run` has found; what decoys longer than it spare."""
        entities, spared = self._automaton.program.entities, self._spared
        for end, negative in sorted(run.ends, reverse=True):
            entity = entities[-negative]
            new = [name for name in entity.spares or (entity.name,) if spared.get(name, 0) < end]
            if new and self._is_valid(-negative, run.start, end):
                if not entity.spares:
                    return end, -negative
                spared.update(dict.fromkeys(new, end))
        return None

    def _swallow(self, final: bool) -> None:
        """On to where what the entity swallows can go no further; then back to where it last matched."""
        state = self._swallowing
        assert state is not None
        signatures = self._automaton.signatures
        matched = self._done
        for position, character in enumerate(self.held[self._position :], self._position + 1):
            bits, start = signatures[character]
            if start is not None:
                state = state[bits & state.mask]
                if state.decides:
                    matched = position
                if not state.live:
                    final = True
                    break
        if matched > self._done:
            self._begin_after(matched)
            self._pieces.append((matched - self._done, ""))
            self._done = matched
        self._position = len(self.held)
        self._swallowing = None if final else state
        if final:
            self._position = self._done

    def _close(self) -> None:
        """The text is at its end: what waited for the next character is decided, and nothing can go on."""
        for run in self._runs:
            run.ends += [(self._seen, -index) for index in run.state.outcome.undecided]
            run.state = self._automaton.dead
        self._settle()

    def _write(self, start: int, end: int, index: int) -> None:
        """The match [start, end) is decided."""
        entity = self._automaton.program.entities[index]
        if entity.context is not None:
            context = entity.context(fold(self.held[start:end]))
            while start < end and (context or self._is_unseen(start)):
                context -= not self._is_unseen(start)
                start += 1
        self._pass(start)
        if start < end:
            self._pieces.append((end - start, self._replace(entity, self.held[start:end])))
            self._done = end

    def _is_unseen(self, position: int) -> bool:
        return self._automaton.signatures[self.held[position]].start is None

    def _pass(self, end: int) -> None:
        """The text up to `end` goes as it is."""
        if end > self._done:
            self._pieces.append((end - self._done, None))
            self._done = end

    def _begin_after(self, end: int) -> None:
        """The search goes on at `end`, which stands behind a visible character."""
        start = self._automaton.signatures[self.held[end - 1]].start
        assert start is not None
        self._start = start
        self._seen = end

    def _forget(self, end: int) -> None:
        """Let go of the text up to `end`, of which `_pieces` have told."""
        self.held = self.held[end:]
        self._position -= end
        self._seen -= end
        self._done -= end
        self._spared = {name: where - end for name, where in self._spared.items() if where > end}
        for run in self._runs:
            run.start -= end
            run.ends = [(where - end, negative) for where, negative in run.ends]
            if run.committed:
                run.committed = run.committed[0] - end, run.committed[1]
