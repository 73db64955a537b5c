"""The providers' wire formats: one file each, against the interface in `base.py`.

`stream.py` is what their streams share, `sse.py` and `documents.py` what events are made of. A new dialect is one new
file and its line in `DIALECTS`.
"""

from __future__ import annotations

from .base import Dialect
from .generic import Generic
from .openai_chat import OpenAIChat
from .openai_completions import OpenAICompletions

AUTO = "auto"
"""Let the path choose."""

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OpenAIChat(),
        OpenAICompletions(),
        Generic(),  # last: it matches everything
    )
}


def choose(setting: str, path: str) -> Dialect:
    """The dialect that a route's `dialect` setting gives to a normalised path. Raises KeyError for an unknown name."""
    if setting != AUTO:
        return DIALECTS[setting]
    return next(dialect for dialect in DIALECTS.values() if dialect.matches(path))
