"""What a scanner looks for: `Entity`, and exactly what it means for one to match. Data only; imported by all the rest.

Everything is defined on the *folded* text (`folding.py`): each character becomes at most one character (full-width and
other look-alikes become the ASCII they look like; zero-width characters vanish). `pattern`, guards, validators and
`swallow` see folded characters only; a match covers the raw characters from its first to its last folded one, with the
invisible ones between them (those before and after it stay).

The matches of a text are found from left to right. From a position on (the text's start, or the end of the last match):

1. *Leftmost*: the match begins at the first start at which any entity matches.
2. An entity **matches** from start s to end e > s where `pattern` matches exactly [s, e), the character before s (if
   there is one, also where it belongs to the last match) is not in `before`, the one at e (if there is one) is not in
   `after`, and `valid([s, e))` holds.
3. At that start, an entity that **commits** (`swallow` is set) goes before all others: of those that match there, the
   one that matches with the *smallest* e, ties by list order. Its match is decided at e, whatever follows: the
   replacement goes out at once. Then the match is extended to the largest t >= e for which `swallow` matches exactly
   [e, t) (t = e if there is none), and what it covers vanishes without being held. `after` must be empty.
4. Where none commits: the *longest* matching end, ties by list order. An end that `valid` or a guard refuses leaves the
   shorter ends (and the other entities) possible.
5. The search goes on at the match's end.
6. A *decoy* (`spares` is set) replaces nothing, and takes no text from others. Where it would be the match at a start, by
   rules 2 and 4, no match counts that lies within it, at this start or further on, and is of an entity that it
   spares; an entity that commits, or a decoy, is not spared. All else is found there as if the decoy were not.

A text may stand behind a *context*: what gives it its meaning, such as the key of a value in JSON. The matches are then
those of both in one piece, but the context is not written, and a match that begins in it counts only where all that it
replaces is in the text (`Entity.context`), as a decoy does wherever it begins.

Nothing here depends on how the text was cut. Text is held from the first start at which some continuation could still
make an entity match, never more than `Scanner.width` folded characters.

Patterns are written in Python's `re` syntax and mean the same, with what would make them unbounded or undecidable
refused (`PatternError`): back-references, look-around and anchors (use the guards), atomic groups, possessive and
unbounded repetition, matching nothing. A single character is read as those of a text are (`é` as e); in ranges and negated
classes only what texts are read as matters. Greedy and lazy repetition are the same thing here. Of the flags, `i`, `s`, `x`
and `a` are allowed, for the whole or in groups: `(?i:...)`. In `swallow`, and only there, unbounded repetition is
allowed, as long as the stretches on which it is *not* matching are bounded: `[\\w-]*`; `(?:[\\w-]|\\.[\\w-])*` (does not
eat the full stop behind it); `[A-Za-z0-9+/=\\s]*(?:-----END [A-Z ]{0,40}KEY-----)?`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple
from unicodedata import normalize


class PatternError(ValueError):
    """An entity that a scanner refuses; the message gives the entity's name and the reason."""


class BudgetExceeded(Exception):
    """One feed would cost more than its bound. Whoever feeds must fail closed: the redactor is of no further use."""


class Entity(NamedTuple):
    """One kind of thing to find. Either `pattern` or `words` is set."""

    name: str
    """As it stands in placeholders and metrics: `[A-Z][A-Z0-9_]*`."""
    pattern: str = ""
    before: str = ""
    """A character class (`[\\w.+-]`, `\\d`) that must not stand directly before the match; "" for no guard."""
    after: str = ""
    """A character class that must not stand directly after the match."""
    valid: Callable[[str], bool] | None = None
    """Pure and fast, called with the folded match (of an entity that commits: with what `pattern` matched)."""
    swallow: str = ""
    """Commit as soon as `pattern` matches, then swallow what this pattern matches (rule 3)."""
    words: tuple[str, ...] = ()
    """Instead of a pattern: literal words or phrases, thousands of them if need be (`dictionary`)."""
    ignore_case: bool = False
    """Whether `words` match in any case."""
    context: Callable[[str], int] | None = None
    """How many leading characters of a decided (folded) match only give the rest its meaning, as `ssn: ` does: they go
    as they are."""
    spares: tuple[str, ...] = ()
    """It is a decoy: a version that looks like an address. The names of the entities that must not be found in it."""


def dictionary(name: str, words: Iterable[str], *, ignore_case: bool = True) -> Entity:
    """An entity of literal `words`, found where no letter or digit of a script that puts spaces between words stands on
    either side: in the others, and with the marks of emphasis (`_Anna_`), nothing shows where a word ends.

    A character that a text has in several (a letter and its marks, a syllable in its letters) is the same word. Where case
    is ignored, so are `ß` and `ss`: STRASSE is `Straße`."""
    spelt: dict[str, None] = {}
    for word in words:
        spellings = [normalize("NFKC", word)]
        if ignore_case:
            lower = spellings[0].lower()
            spellings = [lower, lower.replace("ß", "ss"), lower.replace("ss", "ß")]
        for spelling in spellings:
            spelt |= {spelling: None, normalize("NFD", spelling): None}
    return Entity(name, words=tuple(spelt), ignore_case=ignore_case, before=_SPACED, after=_SPACED)


# Not Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese, and Korean, which joins its particles.
_SPACED = (
    r"[^\W_\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff"
    r"\u3005-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
