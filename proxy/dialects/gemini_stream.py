"""A Gemini reply: server-sent events, one JSON array or one document, and how each is brought to its end.

A stream is server-sent events where the query says `alt=sse`, else one JSON array that is sent element by element. Either
way each event is a whole `GenerateContentResponse`, whose parts clients append to those before; it has no terminal: a
candidate ends with its `finishReason`, the array with its bracket.

In an array the separators belong to the place and not to the element, so they are put right as elements are delivered.

Source: Gemini API reference, "Generating content"; google.rpc.Status and google.rpc.ErrorInfo (AIP-193) for errors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..errors import Problem
from ..framing import Event, Framing
from ..policy import Ending
from . import arrays, logprobs
from .base import EVERY_CHANNEL, AfterEnd, Call, Channel, Parsed, Usage
from .documents import is_blank, only
from .gemini_texts import ENVELOPE, candidates_of, ends_of, is_piece, reply_texts
from .stream import NOTHING, DocumentStream, Text

_MAX_CANDIDATES = 128  # that are kept track of; the API's own limit is 8

# google.rpc.Code of a status; https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}
# What carries nothing worth an event of its own, and what has to stand beside a piece of text.
_NUMBERS = ("index", "role")
_BESIDE = (*_NUMBERS, "thought", "jsonPath", "willContinue")


class GeminiStream(DocumentStream):
    """One reply."""

    terminates = True
    after_end = AfterEnd.SAME  # Vertex AI has sent `finishReason: "STOP"` in every event (BerriAI/litellm#2195)

    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing)
        self._call = call
        self._open: dict[int, bool] = {}
        """The candidates delivered so far: whether more of each may come."""
        self._goes_on = False  # text came after the end of its candidate: such ends say nothing here
        self._begun = False  # the first element of the array was delivered
        self._bare = False  # what was to be an array is none

    # Reading

    def texts(self, root: list[Any]) -> Iterable[Text]:
        return reply_texts(root)

    def is_complete(self, channel: Channel, document: Any) -> bool:
        return candidates_of(document) is not None and not (channel.repeated or is_piece(channel))

    def read(self, document: Any) -> Parsed:
        candidates = candidates_of(document)
        if candidates is None:
            ended = isinstance(document, dict) and document.get("error")
            return Parsed(ends=(EVERY_CHANNEL,)) if ended else NOTHING
        ends = [end for index, candidate in candidates for end in ends_of(index, candidate)]
        if document.get("error") or (document.get("promptFeedback") and not candidates):
            ends = [EVERY_CHANNEL]
        numbers = [index for index, _ in candidates]
        mirrored = any(candidate.get("logprobsResult") for _, candidate in candidates)
        return Parsed((), ends, _usage(document.get("usageMetadata")), numbers, mirrored=mirrored)

    # Writing

    def edited(self, document: Any, changed: Sequence[Channel]) -> None:
        numbers = {channel.choice for channel in changed}
        for index, candidate in candidates_of(document) or ():
            if index in numbers:
                candidate.pop("logprobsResult", None)

    def drop_mirrors(self, root: list[Any]) -> bool:
        """Of log probabilities only those of exactly the texts beside them stay."""
        texts: dict[int | None, str] = {}
        for channel, slot in self.texts(root):
            if channel.index == 0:
                texts[channel.choice] = texts.get(channel.choice, "") + slot.text
        dropped = False
        for index, candidate in candidates_of(root[0]) or ():
            if "logprobsResult" in candidate and logprobs.spelt(candidate["logprobsResult"]) != texts.get(index, ""):
                del candidate["logprobsResult"]
                dropped = True
        return dropped

    def is_blank(self, document: Any) -> bool:
        if self.framing is Framing.JSON_ARRAY or candidates_of(document) is None:
            return False  # an element of an array is not left out: its bracket or comma would go with it
        if document.get("promptFeedback") or document.get("error"):
            return False
        return is_blank({name: value for name, value in document.items() if name not in ENVELOPE}, _NUMBERS)

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        root, slot = self.place(event, channel)
        slot.put(text)
        for position, (index, candidate) in enumerate(candidates_of(root[0]) or ()):
            if slot.path[:2] == ("candidates", position):
                said = {"index": index, **only(candidate, slot.path[2:], _BESIDE)}
                return Event(self._say(root[0], [said]).raw, self, Parsed([(channel, text)], choices=(index,)))
        return self.say_again(event, channel, text)  # of another API

    def _say(self, like: Mapping[str, Any], candidates: list[dict[str, Any]], **more: Any) -> Event:
        """A response of the same reply."""
        envelope = {name: like[name] for name in ENVELOPE if name in like}
        return self.carry({"candidates": candidates, **more, **envelope})

    def comment(self) -> Event | None:
        """Blank lines, or whitespace where the array has begun: the SDKs take no comment for one, and fail on it."""
        if self.framing is Framing.SSE:
            return Event(b"\n\n", self, NOTHING)
        return Event(b"\n", self, NOTHING) if self._begun and not self.finished else None

    # Delivery and ends

    def delivered(self, events: Sequence[Event]) -> None:
        if self.framing is Framing.JSON:
            self.finished = True
            return
        for event in events:
            if self.framing is Framing.JSON_ARRAY:
                self._put_in_place(event)
            parsed = event.parsed
            if parsed.choices:
                self._last = event.raw
            for index in parsed.choices:
                if len(self._open) < _MAX_CANDIDATES:
                    self._open.setdefault(index, True)
            ended = [index for index, is_open in self._open.items() if not is_open]
            if any(channel.choice in ended and not channel.repeated for channel, _ in parsed.deltas):
                self._goes_on, self.finished = True, False
                self._open = dict.fromkeys(self._open, True)
            for end in parsed.ends:
                if end == EVERY_CHANNEL:
                    self.finished = self.finished or self._closes(event)
                elif end.kind is None and end.choice in self._open and not self._goes_on:
                    self._open[end.choice] = False
        if self.framing is Framing.SSE and len(self._open) >= self._call.choices:
            self.finished = self.finished or not any(self._open.values())

    def _closes(self, event: Event) -> bool:
        """Whether nothing can follow an event that ends every channel: in an array the bracket still has to."""
        return self.framing is Framing.SSE or self._bare or self.payload(event.raw) == arrays.CLOSING

    def _put_in_place(self, event: Event) -> None:
        """What comes first opens the array, whichever element that is once policies have left out or added some."""
        data = self.payload(event.raw)
        if data is None or self._bare:
            return
        if not self._begun and arrays.is_bare(event.raw):
            self._bare = self.finished = True
            return
        event.raw = arrays.in_place(event.raw, first=not self._begun)
        self._begun = True

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """LENGTH: each open candidate finishes with MAX_TOKENS. ERROR: an error object, at which the SDKs raise. In an
        array either is its last element."""
        if self.finished:
            return []
        if self.framing is Framing.JSON:
            return [self.carry(error_document(problem))]
        self._goes_on = False  # these ends are ones
        events = [self.carry(error_document(problem)) if ending is Ending.ERROR else self._finish()]
        if self.framing is Framing.JSON_ARRAY:
            events.append(self.event(b"\n" + arrays.CLOSING + b"\n"))
            for event in events:
                self._put_in_place(event)
        return events

    def _finish(self) -> Event:
        last = self.document(self._last)
        if not isinstance(last, dict):
            last = {}
        promised = range(min(self._call.choices, _MAX_CANDIDATES))
        candidates = [
            {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS", "index": index}
            for index in sorted({*promised, *self._open})
            if self._open.get(index, True)
        ]
        usage = last.get("usageMetadata") if self.counted is None else _usage_document(self.counted)
        more = {"usageMetadata": usage} if usage else {}
        return self._say(last, candidates, **more)


def error_document(problem: Problem) -> dict[str, Any]:
    """The SDK reads an error in a stream only where `error` comes first, and takes its class from `code`."""
    other = "UNAVAILABLE" if problem.status > 500 else "INVALID_ARGUMENT"
    return {
        "error": {
            "code": problem.status,
            "message": problem.message,
            "status": _STATUSES.get(problem.status, other),
            "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": problem.details, "domain": "penstock"}
            ],
        }
    }


def _usage(metadata: Any) -> Usage | None:
    """Thoughts and what tools put into the prompt are counted apart here, and not in other APIs."""
    if not isinstance(metadata, dict):
        return None
    return Usage(
        _sum(metadata, ("promptTokenCount", "toolUsePromptTokenCount")),
        _sum(metadata, ("candidatesTokenCount", "thoughtsTokenCount")),
    )


def _sum(counts: Mapping[str, Any], names: Collection[str]) -> int | None:
    stated = [counts[name] for name in names if type(counts.get(name)) is int]
    return sum(stated) if stated else None


def _usage_document(usage: Usage) -> dict[str, int]:
    prompt, output = usage.input_tokens or 0, usage.output_tokens or 0
    return {"promptTokenCount": prompt, "candidatesTokenCount": output, "totalTokenCount": prompt + output}
