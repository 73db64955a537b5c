"""What an operator's pattern would cost at run time, tried out when the configuration is loaded.

Linear time is not enough: `(?:[ab]{0,200}a[ab]{14})c` is small and bounded, and yet a text of a's and b's takes its
automaton through states never seen before, each slow to build. So a text is written against the patterns: of a few
characters that they tell apart, one after which most remains possible. What walking it costs is counted in the
automaton's own steps, so that the verdict is the same on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from .automaton import Automaton, Front
from .entity import Entity, PatternError

MAX_STEPS = 500
"""For one character, on average: about a tenth of a millisecond."""
_CHARACTERS = 1_000
_TRIED = 16
_MUCH = 1 << 40


def check_cost(entities: Sequence[Entity]) -> None:
    """Raises `PatternError` for an entity that costs too much, or if all together do."""
    for entity in entities:
        if _is_costly([entity]):
            raise PatternError(f"{entity.name}: it is too costly: {_WHY}")
    if len(entities) > 1 and _is_costly(entities):
        raise PatternError(f"{', '.join(entity.name for entity in entities)}: together they are too costly: {_WHY}")


_WHY = f"a hostile text would take more than {MAX_STEPS} steps a character; shorten its repetitions"


def _is_costly(entities: Sequence[Entity]) -> bool:
    automaton = Automaton(entities)
    characters = _telling(automaton)
    chance = random.Random(0)  # noqa: S311 - the same text every time
    front = automaton.idle
    total = 0
    for _ in range(_CHARACTERS):
        reached, steps = [], [0]
        for character in chance.sample(characters, min(_TRIED, len(characters))):
            automaton.allowance = _MUCH
            reached.append(front[character])
            steps.append(_MUCH - automaton.allowance)
        total += max(steps)
        if total > MAX_STEPS * _CHARACTERS:
            return True
        best = max(map(_possibilities, reached))
        front = chance.choice([front for front in reached if 2 * _possibilities(front) >= best])
        if front is automaton.eventful:  # something was found: nothing to go on with
            front = automaton.idle
    return False


def _telling(automaton: Automaton) -> list[str]:
    """A character of each kind that `automaton` tells apart."""
    automaton.allowance = _MUCH
    kinds = {automaton.signatures[character]: character for character in automaton.program.alphabet.examples()}
    return list(kinds.values())


def _possibilities(front: Front) -> int:
    return sum(len(state.ahead) for _, state in front.runs)
