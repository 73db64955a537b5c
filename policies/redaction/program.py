"""Compiled entities: one program of numbered positions, words and guards, which nothing changes while texts are walked.

Words (dictionaries of thousands) need no positions: the sorted list is their trie, and a node of it is the range of the
words with one prefix (`Node`). So 10,000 words cost their own memory and a sort.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from re import _constants as op  # type: ignore[attr-defined]  # re's own parser, which typeshed does not show
from typing import NamedTuple

from .entity import Entity, PatternError
from .folding import fold
from .patterns import Alphabet, Charset, Positions, compile_charset, compile_pattern

MAX_WORD = 256
"""Characters of a dictionary's longest word."""


class Node(NamedTuple):
    """All words of an entity with one prefix: those of index `first` to `end`, of which `depth` characters are read."""

    entity: int
    first: int
    end: int
    depth: int


Place = int | Node
"""A position that may come next, or a node of which one more character may be read."""


class Words(NamedTuple):
    """The words of one entity."""

    sorted: list[str]
    letters: dict[int, str]
    """The bit of a character's class (both cases, if case is ignored) -> the character, as it stands in `sorted`."""
    mask: int
    """All of these bits."""


class Program:
    """Raises `PatternError`, naming the entity."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self.entities = tuple(entities)
        self.width = 0
        """The most characters that a match may hold back."""
        self.alphabet = Alphabet()
        self.bits: list[int] = []
        """For each position the bit of its class."""
        self.follow: list[tuple[int, ...]] = []
        """For each position those that may come after it."""
        self.ends: dict[int, int] = {}
        """Positions where a match may end -> the entity."""
        self.after: list[int] = []
        """For each entity the bit of its guard `after`; 0 for none."""
        self.swallowing: list[frozenset[Place]] = []
        """For each entity the positions that what it swallows begins with."""
        spared = {name for entity in self.entities for name in entity.spares}
        self.certain = [
            entity.valid is None and not entity.spares and entity.name not in spared for entity in self.entities
        ]
        """For each entity whether a match of its pattern is one, as far as nothing stands directly behind it."""
        self.guards = 0
        """The bits of all guards `before`."""
        self._openings: list[tuple[int, tuple[Place, ...]]] = []
        self._words: dict[int, Words] = {}
        for index, entity in enumerate(self.entities):
            try:
                self._add(index, entity)
            except PatternError as error:
                raise PatternError(f"{entity.name}: {error}") from None

    def opening(self, bits: int) -> frozenset[Place]:
        """What a match may begin with, directly after a character with these `bits` (0: at the start of the text)."""
        return frozenset(place for guard, places in self._openings if not guard & bits for place in places)

    def mask(self, place: Place) -> int:
        """The bits that tell whether, and how, it goes on from `place`."""
        return self.bits[place] if isinstance(place, int) else self._words[place.entity].mask

    def read(self, node: Node, bits: int) -> tuple[Node | None, bool]:
        """The node after one more character, if any word goes on with it; and whether a word ends there."""
        index, first, end, depth = node
        words, letters, mask = self._words[index]
        letter = letters[bits & mask]
        first += len(words[first]) == depth  # the shortest comes first, and it has no more to read
        first = bisect_left(words, letter, first, end, key=lambda word: word[depth])
        end = bisect_right(words, letter, first, end, key=lambda word: word[depth])
        if first == end:
            return None, False
        ends_here = len(words[first]) == depth + 1
        return (Node(index, first, end, depth + 1) if end - first > ends_here else None), ends_here

    def _add(self, index: int, entity: Entity) -> None:
        if bool(entity.pattern) is bool(entity.words):
            raise PatternError("it needs either a pattern or words")
        if entity.swallow and (entity.after or entity.words):
            raise PatternError("what commits has a pattern, and no guard `after`: it does not wait for what follows")
        if entity.spares and (entity.swallow or entity.context):
            raise PatternError("what spares others replaces nothing: it neither commits nor has a context")
        places: tuple[Place, ...]
        if entity.words:
            places = (self._add_words(index, entity),)
        else:
            places = self._add_positions(index, compile_pattern(entity.pattern))
        before = self._guard(entity.before)
        self.guards |= before
        self._openings.append((before, places))
        self.after.append(self._guard(entity.after))
        swallowing = compile_pattern(entity.swallow, unbounded=True)  # "" is a pattern too: it swallows nothing
        self.swallowing.append(frozenset(self._add_positions(index, swallowing)))

    def _add_positions(self, index: int, positions: Positions) -> tuple[int, ...]:
        """Number `positions` on from those before; gives those that a match begins with."""
        offset = len(self.follow)
        self.follow.extend(tuple(offset + after for after in following) for following in positions.follow)
        self.bits.extend(map(self.alphabet.bit, positions.charsets))
        self.ends.update((offset + position, index) for position in positions.last)
        self.width = max(self.width, positions.width)
        return tuple(offset + position for position in positions.first)

    def _add_words(self, index: int, entity: Entity) -> Node:
        words = {fold(word) for word in entity.words}
        if entity.ignore_case:
            words = {"".join(map(_lower, word)) for word in words}
        if "" in words:
            raise PatternError("a word is empty, or nothing of it is visible")
        longest = max(map(len, words))
        if longest > MAX_WORD:
            raise PatternError(f"a word has {longest} characters; at most {MAX_WORD} are allowed")
        self.width = max(self.width, longest)
        letters = {
            self.alphabet.bit(Charset(((op.LITERAL, ord(letter)),), False, entity.ignore_case, False)): letter
            for letter in set().union(*words)
        }
        self._words[index] = Words(sorted(words), letters, sum(letters))
        return Node(index, 0, len(words), 0)

    def _guard(self, source: str) -> int:
        return self.alphabet.bit(compile_charset(source)) if source else 0


def _lower(character: str) -> str:
    """In lower case, where that is one character too."""
    lower = character.lower()
    return lower if len(lower) == 1 else character
