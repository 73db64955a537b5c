"""The providers' wire formats: one file each, against the interface in `base.py`.

`stream.py` is what their streams share, `sse.py`, `arrays.py` and `documents.py` what events are made of. A new dialect
is one new file and its line in `DIALECTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import RequestError
from .anthropic import Anthropic
from .base import Dialect
from .documents import decode
from .first_event import ByFirstEvent
from .gemini import Gemini
from .generic import Generic
from .ollama import Ollama
from .openai_chat import OpenAIChat
from .openai_completions import OpenAICompletions
from .openai_responses import OpenAIResponses
from .tgi import TGI

if TYPE_CHECKING:
    from ..messages import Request

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


_BY_FIRST_EVENT = ByFirstEvent(DIALECTS.values())


def choose(setting: str, path: str) -> Dialect:
    """The dialect that a route's `dialect` setting gives to a normalised path. Raises KeyError for an unknown name."""
    if setting != AUTO:
        return DIALECTS[setting]
    told = next(dialect for dialect in DIALECTS.values() if dialect.matches(path))
    return _BY_FIRST_EVENT if isinstance(told, Generic) else told


def check_call(request: Request, path: str) -> None:
    """Raises `RequestError` (malformed_body) for a model call, by the `path` at which the upstream gets it, whose body is not
    what policies take it for: a JSON object in UTF-8, in which a model is text and a stream flag a boolean.

    Servers read more (other encodings, NaN, `"stream": 1`); then policies would judge another request than they answer. Of a
    shape that is unknown nothing is expected.
    """
    if not request.body or isinstance(request.dialect, Generic) or not request.dialect.matches(path):
        return
    document = request.call.document or _document(request.body)
    if (
        not isinstance(document, dict)
        or not isinstance(document.get("model"), str | None)
        or not isinstance(document.get("stream"), bool | None)
    ):
        raise RequestError("no call of this API", "malformed_body")


def _document(body: bytes) -> object:
    try:
        return decode(body)
    except ValueError:
        return None
