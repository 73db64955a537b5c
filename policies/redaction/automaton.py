"""The automaton that redactors walk: built lazily, shared by all streams of the process, bounded in memory.

Two layers, each a table that is filled by `__missing__` as texts come, so that a step is one look-up in a dict:

`State`   one *run*: where a match that begins at one given character stands. A set of places of the program.
`Front`   all runs that are live after a character, oldest first, each with its age. Runs are never merged: a match that
          a validator refuses, or one that begins where another ends, must find its own. The age of the oldest is what
          has to be held. Walking fronts costs one look-up a character, however many runs there are; where a run
          reaches an end there is something to decide, and the walk arrives at `Automaton.eventful` and stays there.

A character is reduced to its `Signature` once: which classes hold it, and what may begin after it. Of that a state looks
only at the bits that it knows: most letters are the same to it.

When `MAX_ENTRIES` look-ups are remembered, all are forgotten. What a stream stands in lives on and fills again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple
from weakref import WeakValueDictionary

from .entity import BudgetExceeded, Entity
from .folding import fold_character
from .program import Place, Program

MAX_ENTRIES = 100_000
"""Look-ups remembered in all tables together: some 300 bytes each, with what they lead to."""
MAX_UNSEEN = 4_096
"""Invisible characters that may stand in a match beside its width. Whoever writes more of them means to hide something."""


class Signature(NamedTuple):
    """What the automaton knows of a character."""

    bits: int
    """The classes that hold it (`Alphabet`)."""
    start: State | None
    """Where a match stands that begins directly after it; None for a character that is not read at all."""


class Outcome(NamedTuple):
    """What reaching a state means."""

    ends: tuple[int, ...]
    """Entities of which a match ends here."""
    ended: tuple[int, ...]
    """Entities of which a match ended one character before: `after` allowed the character that led here."""
    undecided: tuple[int, ...]
    """Entities of which a match ends here if the next character (or the end of the text) allows it."""
    commits: tuple[int, ...]
    """Entities that commit here."""


_NOTHING = Outcome((), (), (), ())


class State(dict[int, "State"]):
    """A set of places. Its table: the bits of the next character, as far as in `mask` -> the next state."""

    __slots__ = ("__weakref__", "ahead", "alike", "automaton", "decides", "live", "mask", "outcome")
    __hash__ = object.__hash__  # type: ignore[assignment]  # a dict has none
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __init__(self, automaton: Automaton, ahead: frozenset[Place], outcome: Outcome) -> None:
        self.automaton = automaton
        self.ahead = ahead
        self.outcome = outcome
        self.decides = bool(outcome.ends or outcome.ended or outcome.commits)
        """Whether a run that comes here has reached an end, and not one that waits for the next character."""
        self.live = bool(ahead or outcome.undecided)
        """Whether what follows can still make a difference."""
        program = automaton.program
        self.alike: dict[int, list[Place]] = {}
        """The places by the bits that they go on with: there are many more of those than of these."""
        for place in ahead:
            self.alike.setdefault(program.mask(place), []).append(place)
        self.mask = 0
        for mask in self.alike:
            self.mask |= mask
        for index in outcome.undecided:
            self.mask |= program.after[index]

    def __missing__(self, bits: int) -> State:
        state = self[bits] = self.automaton.step(self, bits)
        return state


Runs = tuple[tuple[int, State], ...]
"""(age in characters of the input, state), oldest first."""


class Front(dict[str, "Front"]):
    """All live runs after a character, with the table of where the next one (unfolded) leads."""

    __slots__ = ("__weakref__", "automaton", "hold", "runs", "start")

    def __init__(self, automaton: Automaton, start: State, runs: Runs) -> None:
        self.automaton = automaton
        self.start = start
        """Where a match stands that begins with the next character."""
        self.runs = runs
        self.hold = runs[0][0] if runs else 0
        """Characters of the input, invisible ones too, that must be held here; -1: there is something to decide."""

    def __missing__(self, character: str) -> Front:
        front = self[character] = self.automaton.advance(self, character)
        return front


class _Eventful(Front):
    """Where a walk stays once a run has reached an end: the text since then has to be walked run by run."""

    __slots__ = ()

    def __init__(self, automaton: Automaton, start: State) -> None:
        super().__init__(automaton, start, ())
        self.hold = -1

    def __missing__(self, character: str) -> Front:
        return self


class _Signatures(dict[str, Signature]):
    """The signature of every character seen so far, unfolded."""

    __slots__ = ("automaton",)

    def __init__(self, automaton: Automaton) -> None:
        self.automaton = automaton

    def __missing__(self, character: str) -> Signature:
        signature = self[character] = self.automaton.sign(character)
        return signature


class Automaton:
    """The tables for one program. Raises `PatternError` for an entity that it refuses."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self.program = Program(entities)
        self.allowance = 0
        """Steps that may still be spent, some tenths of a microsecond each; whoever walks sets it first, for each
        walk: nothing that others have left, or used up, counts."""
        self._entries = 0
        self._fronts: WeakValueDictionary[tuple[State, Runs], Front] = WeakValueDictionary()
        self._states: WeakValueDictionary[tuple[frozenset[Place], Outcome], State] = WeakValueDictionary()
        self._starts: dict[int, State] = {}
        self.signatures = _Signatures(self)
        self.dead = self._state(frozenset(), _NOTHING)
        """Where a run ends that can reach nothing more."""
        start = self._start_after(0)
        self.idle = self.front(start, ())
        """The front at the start of a text."""
        self.eventful = _Eventful(self, start)

    def sign(self, character: str) -> Signature:
        """The signature of `character`; `signatures[character]` remembers it."""
        self._remember(1)
        folded = fold_character(character)
        if not folded:
            return Signature(0, None)
        bits = self.program.alphabet.holding(folded)
        return Signature(bits, self._start_after(bits))

    def _start_after(self, bits: int) -> State:
        """Where a match stands that begins directly after a character of these bits."""
        guards = bits & self.program.guards
        if guards not in self._starts:
            self._starts[guards] = self._state(self.program.opening(guards), _NOTHING)
        return self._starts[guards]

    def step(self, state: State, bits: int) -> State:
        """Where `state` leads with a character of these bits; `state[bits & state.mask]` remembers it."""
        self._remember(1 + len(state.ahead))
        program = self.program
        ahead: set[Place] = set()
        reached: set[int] = set()
        for place in chain.from_iterable(places for mask, places in state.alike.items() if mask & bits):
            if isinstance(place, int):
                ahead.update(program.follow[place])
                if place in program.ends:
                    reached.add(program.ends[place])
            else:
                node, ends_here = program.read(place, bits)
                if node is not None:
                    ahead.add(node)
                if ends_here:
                    reached.add(place.entity)
        outcome = self._outcome(sorted(reached), state.outcome.undecided, bits)
        return self._state(frozenset(ahead), outcome)

    def _outcome(self, reached: Sequence[int], undecided: Sequence[int], bits: int) -> Outcome:
        """What it means that these entities have `reached` an end, and that these were `undecided` one before."""
        if not reached and not undecided:
            return _NOTHING
        entities, after = self.program.entities, self.program.after
        ordinary = [index for index in reached if not entities[index].swallow]
        for place, index in enumerate(ordinary, 1):
            if not after[index] and self.program.certain[index]:  # those behind it in the list cannot win here
                # But where it begins in the context, and they give something else of that as theirs.
                ordinary[place:] = [index for index in ordinary[place:] if entities[index].context is not None]
                break
        return Outcome(
            ends=tuple(index for index in ordinary if not after[index]),
            ended=tuple(index for index in undecided if not after[index] & bits),
            undecided=tuple(index for index in ordinary if after[index]),
            commits=tuple(index for index in reached if entities[index].swallow),
        )

    def advance(self, front: Front, character: str) -> Front:
        """Where `front` leads with `character`; `front[character]` remembers it."""
        self._remember(1 + len(front.runs))
        bits, start = self.signatures[character]
        if start is None:
            if front.hold > self.program.width + MAX_UNSEEN:
                raise BudgetExceeded(f"more than {MAX_UNSEEN} invisible characters in what may be a match")
            return self.front(front.start, tuple([(age + 1, state) for age, state in front.runs]))
        runs = []
        for age, state in front.runs:
            reached = state[bits & state.mask]
            if reached.decides:
                return self.eventful
            if reached.live:
                runs.append((age + 1, reached))
        begun = front.start[bits & front.start.mask]
        if begun.decides:
            return self.eventful
        if begun.live:
            runs.append((1, begun))
        return self.front(start, tuple(runs))

    def front(self, start: State, runs: Runs) -> Front:
        """The one front with these live runs."""
        front = self._fronts.get((start, runs))
        if front is None:
            front = self._fronts[start, runs] = Front(self, start, runs)
        return front

    def swallowing(self, entity: int) -> State:
        """Where what `entity` swallows stands at its start; `Outcome.commits` then says that it matches so far."""
        return self._state(self.program.swallowing[entity], _NOTHING)

    def _state(self, ahead: frozenset[Place], outcome: Outcome) -> State:
        """The one state with these places and this outcome."""
        state = self._states.get((ahead, outcome))
        if state is None:
            state = self._states[ahead, outcome] = State(self, ahead, outcome)
        return state

    # bounds

    def spend(self, steps: int) -> None:
        """Count work. Raises `BudgetExceeded` when the allowance is used up."""
        self.allowance -= steps
        if self.allowance < 0:
            raise BudgetExceeded("the text makes this feed cost more than its bound")

    def _remember(self, steps: int) -> None:
        """Count a look-up that takes so many steps and will be remembered; forget all when there are too many."""
        self.spend(steps)
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            self.forget()

    def forget(self) -> None:
        """Empty all tables. States and fronts that nobody stands in go with them: only tables lead to them."""
        self._entries = 0
        self.signatures.clear()
        for front in list(self._fronts.values()):
            front.clear()
        for state in list(self._states.values()):
            state.clear()
