"""The redaction engine's oracle: what a text's matches are, straight from the definition in `policies/redaction/entity.py`.

Brute force on Python's `re`: every start, every end, the whole text at hand. It shares no code with the engine; only the
folding of single characters, which is part of the definition, is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from policies.redaction.entity import Entity
from policies.redaction.folding import fold_character


class Match(NamedTuple):
    """Raw characters [start, end) are to be replaced; `text` is what `replace` is called with."""

    entity: Entity
    start: int
    end: int
    text: str


class Oracle:
    """The entities, ready for `re`."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self._rules = [_Rule(entity) for entity in entities]

    def matches(self, text: str, context: str = "") -> Iterator[Match]:
        """The matches of `text`, which stands behind `context`, from left to right; places are those in the text."""
        before = len(context)
        seen = [
            (index - before, folded)
            for index, character in enumerate(context + text)
            if (folded := fold_character(character))
        ]
        folded = "".join(character for _, character in seen)
        given = sum(index < 0 for index, _ in seen)
        position = 0
        spared: dict[str, int] = {}
        while position < len(folded):
            found = self._first_at(folded, position, given, spared)
            if found is None:
                position += 1
                continue
            rule, matched, end = found
            start = position + rule.context(folded[position:matched])
            if start < end:
                first, last = seen[start][0], seen[end - 1][0]
                yield Match(rule.entity, first, last + 1, text[first : seen[matched - 1][0] + 1])
            position = end

    def redact(self, text: str, replace: Callable[[Entity, str], str], context: str = "") -> str:
        """`text` with its matches replaced."""
        pieces, position = [], 0
        for match in self.matches(text, context):
            pieces += [text[position : match.start], replace(match.entity, match.text)]
            position = match.end
        return "".join([*pieces, text[position:]])

    def _first_at(self, text: str, start: int, given: int, spared: dict[str, int]) -> tuple[_Rule, int, int] | None:
        """The rule that wins at `start`, where its pattern's match ends, and where the match ends with what it swallows.

        What a match replaces must stand behind the `given` first characters. `spared`, which grows here, has for an
        entity's name where the decoys that began at `start` or before end."""
        candidates = [rule for rule in self._rules if rule.may_start(text, start)]
        ends = range(start + 1, len(text) + 1)
        for end in ends:
            for rule in candidates:
                if rule.commits and rule.matches(text, start, end, given):
                    return rule, end, rule.swallowed(text, end)
        for end in reversed(ends):
            for rule in candidates:
                if rule.commits or not rule.matches(text, start, end, given):
                    continue
                for name in rule.entity.spares:
                    spared[name] = max(end, spared.get(name, 0))
                if not rule.entity.spares and spared.get(rule.entity.name, 0) < end:
                    return rule, end, end
        return None


class _Rule:
    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.commits = bool(entity.swallow)
        pattern = entity.pattern or "|".join(map(re.escape, entity.words))
        self._pattern = re.compile(pattern, re.IGNORECASE if entity.ignore_case else 0)
        self._before = re.compile(entity.before) if entity.before else None
        self._after = re.compile(entity.after) if entity.after else None
        self._swallow = re.compile(entity.swallow)

    def may_start(self, text: str, start: int) -> bool:
        if self._before is not None and start and self._before.fullmatch(text[start - 1]):
            return False
        return self._pattern.match(text, start) is not None

    def matches(self, text: str, start: int, end: int, given: int) -> bool:
        if self._pattern.fullmatch(text, start, end) is None:
            return False
        if self._after is not None and end < len(text) and self._after.fullmatch(text[end]):
            return False
        if start < given and not self.entity.spares and start + self.context(text[start:end]) < given:
            return False
        return self.entity.valid is None or self.entity.valid(text[start:end])

    def swallowed(self, text: str, end: int) -> int:
        return next(
            stop for stop in range(len(text), end - 1, -1) if stop == end or self._swallow.fullmatch(text, end, stop)
        )

    def context(self, matched: str) -> int:
        return 0 if self.entity.context is None else self.entity.context(matched)
