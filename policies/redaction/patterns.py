r"""Restricted regular expressions: from `re` syntax to a position automaton of bounded size, or a `PatternError`.

The parser is the standard library's own (`re._parser`): patterns then mean here exactly what they mean in `re`, and there
is no second grammar to keep. It is private, but has kept its shape since Python 2; `test_patterns.py` reads every
construct that is used here on each Python that is tested.

The automaton is Glushkov's: one *position* per character class of the expanded pattern, `follow` says which positions
may come next. There are no empty moves, repetition is unrolled in nested form (`x{0,3}` is `(x(x(x)?)?)?`), which keeps
the sets that a walk meets small. In a bounded pattern `follow` leads forward only.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from re import _constants as op  # type: ignore[attr-defined]  # re's own parser, which typeshed does not show
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from .entity import PatternError
from .folding import fold_character

MAX_POSITIONS = 5_000
"""Of one pattern, with repetition unrolled: some 10 MB and a tenth of a second to build."""
MAX_MOVES = 50_000
MAX_WIDTH = 1_024
"""Characters: the most that one pattern may make a channel hold."""

_IGNORE_CASE, _DOT_ALL, _ASCII = re.IGNORECASE.value, re.DOTALL.value, re.ASCII.value
_ALLOWED_FLAGS = _IGNORE_CASE | _DOT_ALL | _ASCII | re.VERBOSE.value | re.UNICODE.value

_REFUSED = {
    op.GROUPREF: "a back-reference cannot be decided in bounded memory",
    op.GROUPREF_EXISTS: "a conditional group cannot be decided in bounded memory",
    op.ASSERT: "look-ahead and look-behind are not supported: use the guards `before` and `after`",
    op.ASSERT_NOT: "look-ahead and look-behind are not supported: use the guards `before` and `after`",
    op.AT: r"anchors and \b are not supported: use the guards `before` and `after`",
    op.ATOMIC_GROUP: "atomic groups are not supported: every match is a longest match here",
    op.POSSESSIVE_REPEAT: "possessive repetition is not supported: every match is a longest match here",
    op.FAILURE: "it can never match",
}


class Charset(NamedTuple):
    """A class of characters, as `re` reads it. `items` are the parser's own: (LITERAL, 97), (RANGE, (97, 122)), ..."""

    items: tuple[tuple[Any, Any], ...]
    negated: bool
    ignore_case: bool
    ascii_only: bool

    def holds(self, character: str) -> bool:
        """Whether `character` (folded) is one of them."""
        candidates = readings(character) if self.ignore_case else (character,)
        return any(self._lists(candidate) for candidate in candidates) is not self.negated

    def _lists(self, character: str) -> bool:
        code_point = ord(character)
        for kind, value in self.items:
            if kind is op.LITERAL:
                found = code_point == value
            elif kind is op.RANGE:
                found = value[0] <= code_point <= value[1]
            else:
                found = self._in_category(value, character)
            if found:
                return True
        return False

    def _in_category(self, category: Any, character: str) -> bool:
        """As `re` defines them: \\d \\s \\w and their opposites."""
        known = not self.ascii_only or character.isascii()
        if category in (op.CATEGORY_DIGIT, op.CATEGORY_NOT_DIGIT):
            return (known and character.isdecimal()) is (category is op.CATEGORY_DIGIT)
        if category in (op.CATEGORY_SPACE, op.CATEGORY_NOT_SPACE):
            return (known and character.isspace()) is (category is op.CATEGORY_SPACE)
        return (known and (character.isalnum() or character == "_")) is (category is op.CATEGORY_WORD)


def readings(character: str) -> tuple[str, ...]:
    """`character` and its other cases, where those are one character too."""
    return tuple(reading for reading in (character, character.lower(), character.upper()) if len(reading) == 1)


class Alphabet:
    """The classes that a program knows, a bit each, and which of them hold a character.

    Single characters are looked up; the other classes are asked once for all characters between the same borders."""

    def __init__(self) -> None:
        self._bits: dict[Charset, int] = {}
        self._literals: dict[tuple[bool, int], int] = {}
        self._classes: list[tuple[int, Charset]] = []
        self._borders = [ord("_"), ord("_") + 1, 0x80]
        self._kinds: dict[object, int] = {}

    def bit(self, charset: Charset) -> int:
        """The bit of `charset`. All have to be asked for before the first `holding`."""
        if charset not in self._bits:
            bit = self._bits[charset] = 1 << len(self._bits)
            kinds = [kind for kind, _ in charset.items]
            if kinds == [op.LITERAL] and not charset.negated:
                self._literals[charset.ignore_case, charset.items[0][1]] = bit
            else:
                self._classes.append((bit, charset))
                for kind, value in charset.items:
                    if kind is op.LITERAL:
                        insort(self._borders, value)
                        insort(self._borders, value + 1)
                    elif kind is op.RANGE:
                        insort(self._borders, value[0])
                        insort(self._borders, value[1] + 1)
        return self._bits[charset]

    def holding(self, character: str) -> int:
        """The bits of the classes that hold `character` (folded)."""
        code_points = set(map(ord, readings(character)))
        bits = self._literals.get((False, ord(character)), 0)
        for code_point in code_points:
            bits |= self._literals.get((True, code_point), 0)
        kind = tuple(
            (bisect_right(self._borders, ord(reading)), reading.isalnum(), reading.isdecimal(), reading.isspace())
            for reading in readings(character)
        )
        if kind not in self._kinds:
            self._kinds[kind] = sum(bit for bit, charset in self._classes if charset.holds(character))
        return bits | self._kinds[kind]

    def examples(self) -> list[str]:
        """Characters of every kind that the classes tell apart, and some that they do not."""
        code_points = {code_point for _, code_point in self._literals}
        code_points.update(before for border in self._borders for before in (border, border - 1) if before >= 0)
        return [*map(chr, sorted(code_points)), *"a0 -\u00e9"]


@dataclass(slots=True)
class Positions:
    """A position automaton. A match begins in `first`, goes along `follow` and may end in `last`."""

    charsets: list[Charset] = field(default_factory=list)
    follow: list[list[int]] = field(default_factory=list)
    first: tuple[int, ...] = ()
    last: frozenset[int] = frozenset()
    width: int = 0
    """Characters of the longest match; where repetition may be unbounded, of the longest stretch without a match."""


@dataclass(slots=True)
class _Part:
    """A part of a pattern: where it may begin and end, and whether it may be nothing."""

    first: list[int]
    last: list[int]
    nullable: bool


def compile_pattern(pattern: str, *, unbounded: bool = False) -> Positions:
    """Read `pattern`. With `unbounded` (what an entity swallows) it may repeat without end and match nothing.

    Raises `PatternError` with the reason."""
    try:
        tree = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"not a valid regular expression: {error}") from None
    builder = _Builder(unbounded)
    flags = tree.state.flags
    builder.check_flags(flags)
    whole = builder.sequence(tree, flags)
    if whole.nullable and not unbounded:
        raise PatternError("it matches the empty text")
    positions = Positions(builder.charsets, builder.follow, tuple(whole.first), frozenset(whole.last))
    positions.width = _longest_undecided(positions) if unbounded else _longest(positions.follow)
    if positions.width > MAX_WIDTH:
        raise PatternError(f"it may hold {positions.width} characters; at most {MAX_WIDTH} are allowed")
    return positions


def compile_charset(source: str) -> Charset:
    """Read one character class, such as `[\\w.+-]`, `\\d` or `x`. Raises `PatternError`."""
    positions = compile_pattern(source)
    if len(positions.charsets) != 1:
        raise PatternError(f"a guard is one character class, such as [\\w-]; {source!r} is not")
    return positions.charsets[0]


class _Builder:
    """Walks the parser's tree once; every part adds its positions in order."""

    def __init__(self, unbounded: bool) -> None:
        self.unbounded = unbounded
        self.charsets: list[Charset] = []
        self.follow: list[list[int]] = []
        self.moves = 0

    def check_flags(self, flags: int) -> None:
        if flags & ~_ALLOWED_FLAGS:
            raise PatternError("of the flags, only i, s, x and a are supported")

    def sequence(self, nodes: Iterable[tuple[Any, Any]], flags: int) -> _Part:
        whole = _Part([], [], True)
        for kind, value in nodes:
            whole = self._then(whole, self._node(kind, value, flags))
        return whole

    def _node(self, kind: Any, value: Any, flags: int) -> _Part:
        if kind is op.LITERAL or kind is op.NOT_LITERAL:
            return self._position([(op.LITERAL, value)], kind is op.NOT_LITERAL, flags)
        if kind is op.ANY:
            return self._position([] if flags & _DOT_ALL else [(op.LITERAL, ord("\n"))], True, flags)
        if kind is op.IN:
            negated = value[0][0] is op.NEGATE
            return self._position(value[1:] if negated else value, negated, flags)
        if kind is op.SUBPATTERN:
            _, added, removed, nodes = value
            self.check_flags(added)
            return self.sequence(nodes, (flags | added) & ~removed)
        if kind is op.BRANCH:
            return self._either([self.sequence(nodes, flags) for nodes in value[1]])
        if kind is op.MAX_REPEAT or kind is op.MIN_REPEAT:
            least, most, nodes = value
            return self._repeat(least, most, nodes, flags)
        raise PatternError(_REFUSED.get(kind, f"{str(kind).lower()} is not supported"))

    def _position(self, items: Sequence[tuple[Any, Any]], negated: bool, flags: int) -> _Part:
        if not negated:
            items = [(kind, _folded(value) if kind is op.LITERAL else value) for kind, value in items]
        self.charsets.append(Charset(tuple(items), negated, bool(flags & _IGNORE_CASE), bool(flags & _ASCII)))
        self.follow.append([])
        if len(self.charsets) > MAX_POSITIONS:
            raise PatternError(f"it is too large: more than {MAX_POSITIONS} positions with its repetitions unrolled")
        return _Part([len(self.charsets) - 1], [len(self.charsets) - 1], False)

    def _connect(self, before: Sequence[int], after: Sequence[int]) -> None:
        self.moves += len(before) * len(after)
        if self.moves > MAX_MOVES:
            raise PatternError(f"it is too ambiguous: more than {MAX_MOVES} moves with its repetitions unrolled")
        for position in before:
            self.follow[position].extend(after)

    def _then(self, left: _Part, right: _Part) -> _Part:
        self._connect(left.last, right.first)
        return _Part(
            left.first + right.first if left.nullable else left.first,
            right.last + left.last if right.nullable else right.last,
            left.nullable and right.nullable,
        )

    def _either(self, parts: list[_Part]) -> _Part:
        return _Part(
            [position for part in parts for position in part.first],
            [position for part in parts for position in part.last],
            any(part.nullable for part in parts),
        )

    def _repeat(self, least: int, most: Any, nodes: Any, flags: int) -> _Part:
        """`nodes` {least, most} times: copies in a row, the optional ones each leading to the next only."""
        endless = most is op.MAXREPEAT
        if endless and not self.unbounded:
            raise PatternError("unbounded repetition (*, +, {n,}) would hold text without bound: write {0,n}")
        copies: list[_Part] = []
        for _ in range(max(least, 1) if endless else most):
            copy = self.sequence(nodes, flags)
            if not copy.first:  # nothing, however often
                return copy
            if copies:
                self._connect(copies[-1].last, copy.first)
            copies.append(copy)
        if not copies:
            return _Part([], [], True)
        if endless:
            self._connect(copies[-1].last, copies[-1].first)
        nullable = least == 0 or copies[0].nullable
        ending = copies if nullable else copies[least - 1 :]
        return _Part(copies[0].first, [position for copy in ending for position in copy.last], nullable)


def _folded(code_point: int) -> int:
    """What a character of a pattern is read as, like those of a text."""
    folded = fold_character(chr(code_point))
    if not folded:
        raise PatternError(f"{chr(code_point)!r} is not read, so it never matches")
    return ord(folded)


def _longest(follow: Sequence[Sequence[int]]) -> int:
    """Positions on the longest way through an automaton that leads forward only."""
    lengths = [1] * len(follow)
    for position in reversed(range(len(follow))):
        lengths[position] += max((lengths[after] for after in follow[position]), default=0)
    return max(lengths, default=0)


def _longest_undecided(positions: Positions) -> int:
    """The longest stretch on which an unbounded pattern is not matching: the text held meanwhile.

    Sufficient rather than exact: every circle must consist of positions where the pattern may end."""
    lengths: dict[int, int] = {}
    for root in range(len(positions.follow)):
        way = [(root, iter(positions.follow[root]))]
        open_positions = {root}
        if root in positions.last or root in lengths:
            continue
        while way:
            position, following = way[-1]
            after = next(following, None)
            if after is None:
                way.pop()
                open_positions.discard(position)
                lengths[position] = 1 + max((lengths.get(a, 0) for a in positions.follow[position]), default=0)
            elif after in open_positions:
                raise PatternError("what is swallowed may go on without bound before it is known whether it matches")
            elif after not in positions.last and after not in lengths:
                way.append((after, iter(positions.follow[after])))
                open_positions.add(after)
    return 1 + max(lengths.values(), default=0)
