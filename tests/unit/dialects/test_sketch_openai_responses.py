"""That the interface carries OpenAI Responses: a sketch of that dialect, as its one file would be, and what it must do.

Source: OpenAI API reference, "Responses" and its "Streaming events". Its texts come twice and thrice: piece by piece in
`*.delta`, whole in `*.done`, and again in the items and the response that they belong to. Those are `repeated` channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import openai
import pytest
from multidict import CIMultiDict

from proxy.dialects import openai_common
from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, Dialect, DialectStream, Kind, Parsed, Usage
from proxy.dialects.documents import decode, string_slots
from proxy.dialects.generic import Generic
from proxy.dialects.stream import DocumentStream, Text, every_text, framing_of
from proxy.errors import Problem
from proxy.framing import Event, Framing
from proxy.messages import Request, ResponseHead
from proxy.policy import Ending

# The dialect

_KINDS = {
    "response.output_text": Kind.TEXT,
    "response.refusal": Kind.REFUSAL,
    "response.reasoning_text": Kind.REASONING,
    "response.reasoning_summary_text": Kind.REASONING,
    "response.function_call_arguments": Kind.TOOL_ARGUMENTS,
}
_TERMINALS = ("response.completed", "response.incomplete", "response.failed", "error")


class OpenAIResponses:
    name = "openai-responses"

    def matches(self, path: str) -> bool:
        return path.endswith("/responses")

    def read_call(self, request: Request) -> Call:
        document = decode(request.body or b"{}")
        return Call(model=document.get("model"), stream=document.get("stream") is True, document=document)

    def ask_for_usage(self, request: Request) -> bool:
        return False  # it is always stated

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return openai_common.error_body(problem)

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        return ResponsesStream(framing) if framing in (Framing.SSE, Framing.JSON) else Generic().open(head, call)


class ResponsesStream(DocumentStream):
    def __init__(self, framing: Framing) -> None:
        super().__init__(framing)
        self._response: dict[str, Any] = {"id": "resp_0", "object": "response", "output": []}
        self._items: dict[str, dict[str, Any]] = {}  # the open ones, as far as they were delivered, by id
        self._done: list[dict[str, Any]] = []
        self._next = 0  # sequence number

    def texts(self, root: list[Any]) -> Iterable[Text]:
        document = root[0]
        if not isinstance(document, dict):
            yield from every_text(root, 0)
        elif document.get("object") == "response":
            yield from self._output(document, repeated=False)
        elif isinstance(document.get("response"), dict):
            yield from self._output(document["response"], repeated=True)
        elif isinstance(document.get("item"), dict):
            yield from self._item(document["item"], repeated=True)
        elif (kind := _KINDS.get(str(document.get("type")).rpartition(".")[0])) is not None:
            part = document.get("content_index", document.get("summary_index", 0))
            for field, repeated in (("delta", False), ("text", True), ("refusal", True), ("arguments", True)):
                for slot in string_slots(document, field) if field in document else ():
                    yield Channel(0, kind, f"{document['item_id']}/{part}", repeated), slot
        elif isinstance(document.get("part"), dict):
            part = document.get("content_index", document.get("summary_index", 0))
            for slot in string_slots(document, "part"):
                if slot.path == ("text",):
                    yield Channel(0, Kind.TEXT, f"{document['item_id']}/{part}", True), slot
        else:
            yield from every_text(root, 0)

    def _output(self, response: dict[str, Any], repeated: bool) -> Iterable[Text]:
        for item in response.get("output", ()):
            yield from self._item(item, repeated)

    def _item(self, item: dict[str, Any], repeated: bool) -> Iterable[Text]:
        for slot in string_slots([item], 0):
            match slot.path:
                case ("content", part, "text"):
                    yield Channel(0, Kind.TEXT, f"{item['id']}/{part}", repeated), slot
                case ("summary", part, "text"):
                    yield Channel(0, Kind.REASONING, f"{item['id']}/{part}", repeated), slot
                case ("arguments",):
                    yield Channel(0, Kind.TOOL_ARGUMENTS, f"{item['id']}/0", repeated), slot

    def read(self, document: Any) -> Parsed:
        type = document.get("type", "")
        usage = document.get("usage") or (document.get("response") or {}).get("usage") or {}
        counts = Usage(usage.get("input_tokens"), usage.get("output_tokens")) if usage else None
        if type in _TERMINALS:
            return Parsed(ends=(EVERY_CHANNEL,), usage=counts)
        if type == "response.output_item.done":
            return Parsed(ends=[Channel(0, None, f"{document['item']['id']}/{part}") for part in range(9)])
        if type.endswith(".done") and "item_id" in document:
            part = document.get("content_index", document.get("summary_index", 0))
            return Parsed(ends=[Channel(0, _KINDS.get(type.removesuffix(".done")), f"{document['item_id']}/{part}")])
        return Parsed(usage=counts)

    def edited(self, document: Any, changed: Sequence[Channel]) -> None:
        for holder in (document, document.get("part", {})):
            if "logprobs" in holder:
                holder["logprobs"] = []

    def is_blank(self, document: Any) -> bool:
        return str(document.get("type")).endswith(".delta")

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        root, slot = self.place(event, channel)
        slot.put(text)
        return self._say(root[0])

    def delivered(self, events: Sequence[Event]) -> None:
        for event in events:
            document = event.document or {}
            self._next = max(self._next, document.get("sequence_number", self._next) + 1)
            self._response |= document.get("response") or {}
            item = document.get("item", {})
            if document.get("type") == "response.output_item.added":
                self._items[item["id"]] = {**item, "text": {}, "output_index": document.get("output_index", 0)}
            elif document.get("type") == "response.output_item.done":
                self._items.pop(item["id"], None)
                self._done.append(item)
            for channel, text in event.deltas:
                if not channel.repeated and isinstance(channel.index, str):
                    texts = self._items[channel.index.partition("/")[0]]["text"]
                    texts[channel] = texts.get(channel, "") + text
            self.finished = self.finished or EVERY_CHANNEL in event.ends

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        if self.finished:
            return []
        error = openai_common.error_document(problem)["error"]
        if self.framing is Framing.JSON:
            return [self.carry({"error": error})]
        if ending is Ending.ERROR:
            return [self._say({"type": "error", **error, "error": error})]
        said = [event for item in self._items.values() for event in self._close(item)]
        details = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": self._done}
        return [*said, self._say({"type": "response.incomplete", "response": {**self._response, **details}})]

    def _close(self, item: dict[str, Any]) -> Iterable[Event]:
        texts, index = item.pop("text"), item.pop("output_index")
        types = {kind: type for type, kind in _KINDS.items() if type != "response.reasoning_text"}
        for channel, text in texts.items():
            part = int(channel.index.rpartition("/")[2])
            field = "arguments" if channel.kind is Kind.TOOL_ARGUMENTS else "text"
            place = {"item_id": item["id"], "output_index": index, "content_index": part}
            yield self._say({"type": types[channel.kind] + ".done", **place, field: text})
            if channel.kind is Kind.TEXT:
                item["content"] = [{"type": "output_text", "text": text, "annotations": []}]
            elif channel.kind is Kind.TOOL_ARGUMENTS:
                item["arguments"] = text
        item["status"] = "incomplete"
        self._done.append(item)
        yield self._say({"type": "response.output_item.done", "output_index": index, "item": item})

    def _say(self, document: dict[str, Any]) -> Event:
        self._next += 1
        return self.carry({**document, "sequence_number": self._next - 1}, document["type"].encode())


# What it must do

Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]
Serve = Callable[..., str]

RECORDED, WRITTEN = "llama_cpp/responses.sse", "written/openai_responses_tools.sse"
SILENCE = Problem.of("upstream_silence")
ANSWER = Channel(0, Kind.TEXT, "msg_1/0")
THOUGHT = Channel(0, Kind.REASONING, "rs_1/0")
ARGUMENTS = Channel(0, Kind.TOOL_ARGUMENTS, "fc_1/0")


def open_stream(content_type: str = "text/event-stream") -> DialectStream:
    dialect: Dialect = OpenAIResponses()
    return dialect.open(ResponseHead(200, CIMultiDict({"Content-Type": content_type})), Call())


def test_a_recorded_stream(play: Play, join: Join) -> None:
    events = play(open_stream(), RECORDED)
    joined = join(events)
    (added,) = [channel for channel in joined if not channel.repeated]
    assert joined[added._replace(repeated=True)] == joined[added] * 4
    assert events[-1].ends == (EVERY_CHANNEL,)
    assert events[-1].usage == Usage(14, 12)


def test_reasoning_text_and_tools(play: Play, join: Join) -> None:
    joined = join(play(open_stream(), WRITTEN))
    assert {channel: text for channel, text in joined.items() if not channel.repeated} == {
        THOUGHT: "Ask for the weather.",
        ANSWER: "Looking it up.",
        ARGUMENTS: '{"city":"Zürich"}',
    }


def test_a_channel_ends_where_its_whole_text_is_said(play: Play) -> None:
    """A policy lets go of what it holds before that event; the whole text in it is a channel of its own."""
    done = next(event for event in play(open_stream(), WRITTEN) if b"output_text.done" in event.raw)
    assert any(end.covers(ANSWER) for end in done.ends)
    assert done.deltas == [(ANSWER._replace(repeated=True), "Looking it up.")]


def test_a_policy_that_changes_every_channel_changes_every_copy(play: Play) -> None:
    for event in play(open_stream(), WRITTEN):
        changed = event.with_deltas([(channel, text.upper()) for channel, text in event.deltas])
        assert changed is not None
        for text in (b"Looking", b"weather.", b"city"):
            assert text not in changed.raw


def test_a_whole_reply(play: Play, join: Join) -> None:
    (event,) = play(open_stream("application/json"), "llama_cpp/responses.json")
    ((channel, text),) = event.deltas
    assert (channel.kind, channel.repeated, bool(text)) == (Kind.TEXT, False, True)
    assert event.usage == Usage(14, 12)


def test_continuing(play: Play, join: Join) -> None:
    stream = open_stream()
    event = next(event for event in play(stream, WRITTEN) if event.deltas and event.deltas[0][0] == ARGUMENTS)
    assert join([event.continuation(ARGUMENTS, "x")]) == {ARGUMENTS: "x"}
    assert event.continuation(ARGUMENTS, "x").document["item_id"] == "fc_1"


@pytest.mark.parametrize("fixture", [RECORDED, WRITTEN])
def test_wherever_it_is_cut_it_ends_as_at_the_length_limit(fixture: str, play: Play, join: Join) -> None:
    for cut in range(len(play(open_stream(), fixture))):
        stream = open_stream()
        delivered = play(stream, fixture)[:cut]
        stream.delivered(delivered)
        said = [*delivered, *stream.ending(Ending.LENGTH, SILENCE)]
        kinds = [event.document["type"] for event in said]
        assert kinds[-1] == "response.incomplete"
        assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done")
        numbers = [event.document["sequence_number"] for event in said if "sequence_number" in event.document]
        assert numbers == sorted(set(numbers))
        final = {channel._replace(repeated=False): text for channel, text in join(said[-1:]).items()}
        for channel, text in join(delivered).items():
            if not channel.repeated and channel.kind is not Kind.REASONING:
                assert final[channel] == text


def test_openais_client_sees_an_incomplete_response(play: Play, serve: Serve) -> None:
    stream = open_stream()
    delivered = play(stream, WRITTEN)[:13]
    stream.delivered(delivered)
    body = b"".join(event.raw for event in (*delivered, *stream.ending(Ending.LENGTH, SILENCE)))
    with openai.OpenAI(base_url=serve(200, "text/event-stream", body), api_key="none", max_retries=0) as sdk:
        last = list(sdk.responses.create(model="m", input="Hi", stream=True))[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output_text == "Looking it up."


def test_openais_client_raises_at_an_error_ending(play: Play, serve: Serve) -> None:
    stream = open_stream()
    delivered = play(stream, WRITTEN)[:13]
    stream.delivered(delivered)
    body = b"".join(event.raw for event in (*delivered, *stream.ending(Ending.ERROR, SILENCE)))
    url = serve(200, "text/event-stream", body)
    with pytest.raises(openai.APIError) as caught, openai.OpenAI(base_url=url, api_key="none", max_retries=0) as sdk:
        list(sdk.responses.create(model="m", input="Hi", stream=True))
    assert caught.value.code == "upstream_silence"


def test_the_error_body_is_openais() -> None:
    assert json.loads(OpenAIResponses().error_body(SILENCE)[1])["error"]["code"] == "upstream_silence"
