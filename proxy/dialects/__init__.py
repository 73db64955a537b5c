"""The providers' wire formats: one file each, against the interface in `base.py`.

`stream.py` is what their streams share, `sse.py`, `arrays.py` and `documents.py` what events are made of. A new dialect
is one new file and its line in `DIALECTS`.
"""

from __future__ import annotations

from .anthropic import Anthropic
from .base import Dialect
from .gemini import Gemini
from .generic import Generic
from .ollama import Ollama
from .openai_chat import OpenAIChat
from .openai_completions import OpenAICompletions
from .openai_responses import OpenAIResponses
from .tgi import TGI

AUTO = "auto"
"""Let the path choose."""

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OpenAIChat(),
        OpenAICompletions(),
        OpenAIResponses(),
        Anthropic(),
        Gemini(),
        Ollama(),
        TGI(),  # after Ollama, whose /api/generate looks like its /generate
        Generic(),  # last: it matches everything
    )
}


def choose(setting: str, path: str) -> Dialect:
    """The dialect that a route's `dialect` setting gives to a normalised path. Raises KeyError for an unknown name."""
    if setting != AUTO:
        return DIALECTS[setting]
    return next(dialect for dialect in DIALECTS.values() if dialect.matches(path))
