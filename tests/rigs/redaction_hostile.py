"""Entities made to overlap in every way, and texts made of little else than their beginnings.

Written for any source of chance with the interface of `random.Random`: hypothesis' `randoms` (which shrinks) or a seed.
"""

from __future__ import annotations

from random import Random

from policies.redaction.automaton import Automaton
from policies.redaction.entity import Entity, PatternError

CHARACTERS = "aaabbbccd"
DISGUISED = "\uff41\U0001d41b\u0441"  # they are read as a, b, c
UNSEEN = "\u200b\ufe0f"
VALIDATORS = (None, None, lambda text: len(text) % 2 == 1, lambda text: text.count("a") % 2 == 0)
CONTEXTS = (None, None, None, lambda text: text.count("a") // 2, len)
NAMES = ("E0", "E1", "E2", "E3")
SWALLOWED = ("a*", "(?:a|ba)*", "[ab]*", "c?", "b*(?:cab)?", "(?:[^c]|c[^c])*")


def pattern(chance: Random, depth: int = 3) -> str:
    """A random pattern over a, b, c, d; it may match nothing or be refused for another reason."""
    kind = chance.randint(0, 9) if depth else 0
    if kind < 4:
        return chance.choice(["a", "b", "c", "[ab]", "[^a]", "[bc]", ".", "(?i:A)"])
    if kind < 6:
        return pattern(chance, depth - 1) + pattern(chance, depth - 1)
    if kind < 8:
        return f"(?:{pattern(chance, depth - 1)}|{pattern(chance, depth - 1)})"
    return f"(?:{pattern(chance, depth - 1)}){chance.choice(['?', '{1,2}', '{0,3}', '{2}', '{1,4}', '{0,2}?'])}"


def entity(chance: Random, name: str, *, plain: bool = False) -> Entity:
    """A random entity; a `plain` one has nothing that the automaton does not know of (validator, context)."""
    while True:
        made = Entity(
            name,
            "" if (literal := chance.randint(0, 6) == 0) else pattern(chance),
            before=chance.choice(["", "", "a", "[bc]", "[^a]"]),
            after=chance.choice(["", "", "a", "[^b]"]),
            valid=None if plain else chance.choice(VALIDATORS),
            context=None if plain else chance.choice(CONTEXTS),
        )
        if literal:
            words = {"".join(chance.choice("abc") for _ in range(chance.randint(1, 4))) for _ in range(4)}
            made = made._replace(words=tuple(sorted(words)), ignore_case=chance.random() < 0.5)
        elif chance.randint(0, 3) == 0:
            made = made._replace(swallow=chance.choice(SWALLOWED), after="", context=None)
        elif not plain and chance.randint(0, 3) == 0:
            made = made._replace(spares=tuple(chance.sample(NAMES, chance.randint(1, 3))), context=None)
        try:
            Automaton([made])
        except PatternError:
            continue
        return made


def entities(chance: Random, *, plain: bool = False) -> list[Entity]:
    """One to five of them, some with one name; `plain` ones can be told apart by theirs."""
    names = chance.sample(NAMES, chance.randint(1, 4)) if plain else chance.choices(NAMES, k=chance.randint(1, 5))
    return [entity(chance, name, plain=plain) for name in names]


def text(chance: Random, longest: int, *, disguised: bool = True) -> str:
    """A text of what `entities` look for, some of it disguised."""
    characters = CHARACTERS * 4 + (DISGUISED + UNSEEN + "AC" if disguised else "")
    return "".join(chance.choice(characters) for _ in range(chance.randint(0, longest)))
