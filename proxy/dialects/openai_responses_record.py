"""What was delivered of an OpenAI response, so that one that is cut can be brought to its end: its texts said again.

At the API's own output limit every open text, part and item is closed with its `*.done` event, which repeats the whole
text, and `response.incomplete` repeats them all. So a stream that may be cut has to keep what the policies let through,
up to `MAX_KEPT_BYTES`; of a longer one nothing is kept, and its end repeats nothing (`output` stays out of it).

Source: OpenAI API reference, "Responses" and its "Streaming events".
"""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any

from .base import Channel, Kind, Usage
from .openai_responses_texts import BY_EVENT, BY_OWNER, PART_LISTS, Document, Spoken, index_of, part_of, place_of

MAX_KEPT_BYTES = 1 << 20
"""Of texts and finished items, for one stream; more than a model writes in one reply."""

_PART_EVENTS = {parts: event for event, parts in PART_LISTS.items()}


class _Text:
    """A text of an open item, as far as it was delivered."""

    def __init__(self, spoken: Spoken, part: Document | None = None) -> None:
        self.spoken = spoken
        self.part = part  # as it was added, where it was
        self.said = StringIO(newline="")
        self.is_done = False  # its whole was said
        self.part_is_done = part is None  # nothing to close


class _Item:
    """An output item: open, as it was added, with its texts since; or done, as it was said then."""

    def __init__(self, document: Document, place: str, output_index: Any, size: int) -> None:
        self.document = document
        self.place = place
        self.address: Document = {"item_id": document.get("id")}
        if type(output_index) is int:
            self.address["output_index"] = output_index
        self.size = size
        self.texts: dict[str, _Text] = {}
        self.is_done = False

    def text(self, index: str, spoken: Spoken) -> _Text:
        found = self.texts.get(index) or self._going_on(spoken)
        if found is None:
            found = self.texts[index] = _Text(spoken)
        return found

    def _going_on(self, spoken: Spoken) -> _Text | None:
        """The text of a part that has not ended, where the next begins: vLLM counts `content_index` up with each delta."""
        open_texts = (text for text in self.texts.values() if text.spoken is spoken and not text.is_done)
        return next(open_texts, None) if spoken.parts else None

    def close(self) -> Iterator[Document]:
        """The events that end it as it is; then its document is whole."""
        parts: dict[str, list[Document]] = {}
        for index, text in self.texts.items():
            spoken, whole = text.spoken, text.said.getvalue()
            if not spoken.parts:
                self.document[spoken.field] = whole
                if not text.is_done:
                    yield {"type": f"response.{spoken.event}.done", **self.address, spoken.field: whole}
                continue
            address = {**self.address, f"{spoken.parts}_index": int(index.rpartition("/")[2])}
            bare = {"type": spoken.owner, **({"annotations": []} if spoken.kind is Kind.TEXT else {})}
            part = {**bare, **(text.part or {}), spoken.field: whole}
            parts.setdefault(spoken.parts, []).append(part)
            if not text.is_done:
                yield {"type": f"response.{spoken.event}.done", **address, spoken.field: whole, **spoken.mirrors}
            if not text.part_is_done:
                yield {"type": f"{_PART_EVENTS[spoken.parts]}.done", **address, "part": part}
        self.document.update(parts, status="incomplete")
        number = {name: value for name, value in self.address.items() if name == "output_index"}
        yield {"type": "response.output_item.done", **number, "item": self.document}


class Record:
    """What was delivered of one response."""

    def __init__(self) -> None:
        self._response: Document | None = None  # as it was last described, without its output
        self._items: dict[str, _Item] = {}  # by place, in the order in which they were added
        self._size = 0
        self._overflowed = False

    def add(self, spoken: Spoken, channel: Channel, text: str) -> None:
        """A delta."""
        index = str(channel.index)
        item = self._items.get(index.partition("/")[0])
        if item is not None and not item.is_done:
            item.text(index, spoken).said.write(text)
            item.size += len(text)
            self._grow(len(text))

    def note(self, type: str, document: Document, size: int) -> None:
        """Any other event, of `size` bytes."""
        response, item, part = document.get("response"), document.get("item"), document.get("part")
        if isinstance(response, dict):
            self._response = {name: value for name, value in response.items() if name != "output"}
        elif isinstance(item, dict):
            self._note_item(type, document, item, size)
        elif open_item := self._items.get(place_of(document, document.get("item_id"))):
            if isinstance(part, dict):
                self._note_part(type, document, part, open_item)
            elif type == "response.output_text.annotation.added":
                self._note_annotation(document, open_item, size)
            else:
                self._note_whole(type, document, open_item)

    def _note_item(self, type: str, document: Document, item: Document, size: int) -> None:
        place = place_of(document, item.get("id"))
        before, is_done = self._items.get(place), type.endswith(".done")
        if before is not None and not is_done:
            return  # added twice
        self._grow(size - (0 if before is None else before.size))
        if not self._overflowed:
            self._items[place] = _Item(item, place, document.get("output_index"), size)
            self._items[place].is_done = is_done

    def _note_part(self, type: str, document: Document, part: Document, item: _Item) -> None:
        spoken = BY_OWNER.get(str(part.get("type")))
        if spoken is None or not spoken.parts:
            return
        index = part_of(document, item.place, spoken.parts)
        whole = part.get(spoken.field)
        if type.endswith(".added") and index not in item.texts:
            item.texts[index] = _Text(spoken, part)
            item.texts[index].said.write(whole if isinstance(whole, str) else "")
        elif type.endswith(".done") and index in item.texts:
            item.texts[index].part = part
            item.texts[index].part_is_done = True

    def _note_annotation(self, document: Document, item: _Item, size: int) -> None:
        text = item.texts.get(part_of(document, item.place, "content"))
        if text is not None and text.part is not None:
            known = text.part.get("annotations")
            text.part["annotations"] = [*(known if isinstance(known, list) else ()), document.get("annotation")]
            item.size += size
            self._grow(size)

    def _note_whole(self, type: str, document: Document, item: _Item) -> None:
        event, _, suffix = type.removeprefix("response.").rpartition(".")
        spoken = BY_EVENT.get(event)
        if spoken is None or suffix != "done":
            return
        text = item.text(index_of(spoken, document, item.place), spoken)
        text.is_done = True
        whole = document.get(spoken.field)
        if isinstance(whole, str) and not text.said.tell():  # no pieces came before it
            text.said.write(whole)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MAX_KEPT_BYTES:
            self._overflowed = True
            self._items.clear()

    def incomplete(self, model: str, usage: Usage | None, *, fresh: bool) -> Iterator[Document]:
        """The events with which the response ends as at the API's own limit; `fresh`: nothing was delivered."""
        response = {
            "id": "resp_0",
            "object": "response",
            "created_at": 0,
            "error": None,
            "model": model,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        } | (self._response or {"status": "in_progress", "incomplete_details": None})
        if fresh:
            yield {"type": "response.created", "response": {**response, "output": [], "usage": None}}
        for item in self._items.values():
            if not item.is_done:
                yield from item.close()
        response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        if not self._overflowed:
            response["output"] = [item.document for item in self._items.values()]
        response["usage"] = None if usage is None else _usage_document(usage)
        yield {"type": "response.incomplete", "response": response}


def _usage_document(usage: Usage) -> Document:
    tokens, output = usage.input_tokens or 0, usage.output_tokens or 0
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens + output,
    }
