"""Log probabilities: a text once more, token by token, with what might have been said instead. Pure.

They may stay where they are of exactly the text that stands beside them (`spelt`). What might have been said instead stands
nowhere else, so it is a text of its own (`candidates`): where a policy changes it, they all go.

Where nobody knows in which form they stand, they go by their names (`mirrors`): whoever sends them sends them beside the text.

Shapes: OpenAI's chat completions (lists of entries in `content` and `refusal`), completions (lists of equal length),
Responses and Ollama (one list of entries), Gemini (`chosenCandidates`, and `topCandidates` by token).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .base import Channel, Kind
from .documents import Path, Slot, is_value, pointer
from .stream import Text

_MOST_TOKENS = 1 << 20  # of a vocabulary: a number that is larger may say something else
_BETWEEN = "\n\n"
# What vLLM, SGLang, llama.cpp and those that do as they do have beside a text: the same as tokens.
_MIRRORS = frozenset(
    (
        "completion_probabilities", "input_token_ids", "input_token_logprobs", "input_top_logprobs", "logprobs",
        "logprobsResult", "output_ids", "output_token_ids", "output_token_logprobs", "output_top_logprobs", "prompt_logprobs",
        "prompt_token_ids", "token_ids", "token_logprobs", "top_logprobs",
    )
)  # fmt: skip
_SAID = ("content", "response", "text")  # beside one of these, so are `tokens`


class CandidatesSlot(Slot):
    """Where log probabilities stand. Its text are the candidates that were not chosen; changing it takes them all out."""

    __slots__ = ()

    @property
    def text(self) -> str:
        return _BETWEEN.join(_others(self.holder[self.key]))

    def put(self, text: str) -> None:
        self.holder[self.key] = [] if isinstance(self.holder[self.key], list) else None


def candidates(choice: int, holder: dict[str, Any], name: str, path: Path = ()) -> Iterator[Text]:
    """The text of the candidates in the log probabilities `holder[name]`, if they have some. `path` is that of `holder`."""
    if holder.get(name):
        slot = CandidatesSlot(holder, name, (*path, name))
        if slot.text:
            yield Channel(choice, Kind.TEXT, pointer(slot.path), repeated=True), slot


def is_mirror(path: Path) -> bool:
    """Whether what stands at `path` of a document is in what `mirrors` names there."""
    for part in path:
        if part in _MIRRORS:
            return True
        if is_value((part, "")):
            break
    return False


def mirrors(document: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Where a document says texts again as tokens: `holder[name]`. What people fill (`documents.is_value`) may have such
    names too, and says nothing again."""
    ahead = [document]
    while ahead:
        value = ahead.pop()
        if isinstance(value, list):
            ahead += [inner for inner in value if isinstance(inner, dict | list)]
        elif isinstance(value, dict):
            for name, inner in value.items():
                if not inner or not isinstance(inner, dict | list | str):
                    continue
                if name in _MIRRORS or _is_tokens(value, name):
                    yield value, name
                elif not isinstance(inner, str) and not is_value((name, "")):
                    ahead.append(inner)


def _is_tokens(holder: Mapping[str, Any], name: str) -> bool:
    """Whether there stand the numbers of the tokens of a text beside them."""
    beside = name == "tokens" and isinstance(holder[name], list) and all(type(id) is int for id in holder[name])
    return beside and any(isinstance(holder.get(said), str) for said in _SAID)


def drop(document: Any) -> bool:
    """Take them out. Whether there were any."""
    found = list(mirrors(document))
    for holder, name in found:
        del holder[name]
    return bool(found)


def spelt(logprobs: Any) -> str | None:
    """The text that log probabilities are of; None where they may say something else too."""
    if isinstance(logprobs, list):
        return _spelt_by_entries(logprobs)
    if not isinstance(logprobs, dict):
        return None
    if "tokens" in logprobs:
        return _spelt_by_lists(logprobs)
    if "chosenCandidates" in logprobs:
        top = logprobs.get("topCandidates")
        known = logprobs.keys() <= {"chosenCandidates", "topCandidates", "logProbabilitySum"}
        known = known and _is_number(logprobs.get("logProbabilitySum")) and _is_top(top)
        return _spelt_by_entries(logprobs["chosenCandidates"]) if known else None
    if not logprobs.keys() <= {"content", "refusal"}:
        return None
    texts = [_spelt_by_entries(logprobs.get(name) or []) for name in ("content", "refusal")]
    return None if None in texts else "".join(text or "" for text in texts)


def _spelt_by_entries(entries: Any) -> str | None:
    if isinstance(entries, list) and all(
        _is_entry(entry) and _is_entries(entry.get("top_logprobs")) for entry in entries
    ):
        return "".join(entry["token"] for entry in entries)
    return None


def _is_entries(entries: Any) -> bool:
    return not entries or (isinstance(entries, list) and all(_is_entry(entry, top=True) for entry in entries))


def _is_top(top: Any) -> bool:
    """Whether these are Gemini's candidates by token."""
    if not top:
        return True
    return isinstance(top, list) and all(
        isinstance(step, dict) and step.keys() <= {"candidates"} and _is_entries(step.get("candidates")) for step in top
    )


def _is_entry(entry: Any, *, top: bool = False) -> bool:
    """Whether this is a token with its probability, and nothing else; `top`: one that was not chosen."""
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        return False
    for name, value in entry.items():
        if name == "bytes":
            known = value is None or value == list(entry["token"].encode(errors="surrogatepass"))
        elif name in ("logprob", "logProbability"):
            known = _is_number(value)
        elif name in ("id", "tokenId"):
            known = type(value) is int and 0 <= value < _MOST_TOKENS
        else:
            known = name == "token" or (name == "top_logprobs" and not top)
        if not known:
            return False
    return True


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | msgspec.Raw) and not isinstance(value, bool))


def _spelt_by_lists(logprobs: Mapping[str, Any]) -> str | None:
    lists = {name: value or [] for name, value in logprobs.items()}
    if not lists.keys() <= {"tokens", "token_logprobs", "top_logprobs", "text_offset"}:
        return None
    if not all(isinstance(value, list) for value in lists.values()):
        return None
    numbers = [*lists.get("token_logprobs", ()), *lists.get("text_offset", ())]
    for top in lists.get("top_logprobs", ()):
        if not isinstance(top, dict | None):
            return None
        numbers += (top or {}).values()
    if not all(map(_is_number, numbers)) or not all(isinstance(token, str) for token in lists["tokens"]):
        return None
    return "".join(lists["tokens"])


def _others(logprobs: Any) -> Iterator[str]:
    """The candidates that were not chosen, and those that were among them."""
    if isinstance(logprobs, dict):
        for name in ("content", "refusal", "topCandidates"):
            yield from _others(logprobs.get(name))
        tops = logprobs.get("top_logprobs")
        for top in tops if isinstance(tops, list) else ():
            yield from top if isinstance(top, dict) else ()
    for entry in logprobs if isinstance(logprobs, list) else ():
        for name in ("top_logprobs", "candidates"):
            others = entry.get(name) if isinstance(entry, dict) else None
            for other in others if isinstance(others, list) else ():
                if isinstance(other, dict) and isinstance(other.get("token"), str):
                    yield other["token"]
