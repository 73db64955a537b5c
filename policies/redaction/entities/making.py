"""What the tables of entities are made with.

A token that begins with its maker's mark commits early: once the mark and enough of what follows have been seen, the
placeholder goes out and the rest is swallowed, however long the maker makes its tokens next year. "Enough" is fewer
characters than any issued token has, so that a token cut short goes too, and they must differ (`varied`), so that
`ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxx` in a manual stays.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import validators
from ..entity import Entity


class Described(NamedTuple):
    """An entity with what the documentation says of it."""

    entity: Entity
    what: str
    """One line: what it finds."""


def token(
    name: str, *starts: str, rest: str = "[A-Za-z0-9_-]", joined: str = "", before: str = "[A-Za-z0-9]"
) -> Entity:
    """Tokens known by their start, where they commit. `rest` is what goes on; characters in `joined` only inside."""
    swallow = f"(?:{rest}|[{joined}]{rest})*" if joined else f"{rest}*"
    return Entity(name, "|".join(starts), before=before, valid=validators.varied, swallow=swallow)
