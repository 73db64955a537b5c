"""That the interface carries Anthropic Messages: a sketch of that dialect, as its one file would be, and what it must do.

Source: Anthropic API documentation, "Streaming messages" and "Errors".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, Dialect, DialectStream, Kind, Parsed, Usage
from proxy.dialects.documents import decode, encode, string_slots
from proxy.dialects.generic import Generic
from proxy.dialects.stream import DocumentStream, Text, every_text, framing_of
from proxy.errors import Problem
from proxy.framing import Event, Framing
from proxy.messages import Request, ResponseHead
from proxy.policy import Ending

# The dialect

_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_KINDS = {"text": Kind.TEXT, "thinking": Kind.REASONING, "partial_json": Kind.TOOL_ARGUMENTS}


def _error(problem: Problem) -> dict[str, Any]:
    type = _ERROR_TYPES.get(problem.status, "api_error" if problem.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": type, "message": problem.message, "code": problem.details}}


class AnthropicMessages:
    name = "anthropic-messages"

    def matches(self, path: str) -> bool:
        return path.endswith("/messages")

    def read_call(self, request: Request) -> Call:
        document = decode(request.body or b"{}")
        return Call(model=document.get("model"), stream=document.get("stream") is True, document=document)

    def ask_for_usage(self, request: Request) -> bool:
        return False  # it is always stated

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        return "application/json", encode(_error(problem))

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        framing = framing_of(head)
        known = framing in (Framing.SSE, Framing.JSON)
        return MessagesStream(framing, call) if known else Generic().open(head, call)


class MessagesStream(DocumentStream):
    def __init__(self, framing: Framing, call: Call) -> None:
        super().__init__(framing)
        self._call = call
        self._started = False
        self._open: set[int] = set()
        self._output_tokens = 0
        self._reason_said = False

    def texts(self, root: list[Any]) -> Iterable[Text]:
        document = root[0]
        match document:
            case {"type": "content_block_delta", "index": int(index), "delta": {"type": str()}}:
                yield from self._block(index, document, "delta")
            case {"type": "content_block_start", "index": int(index), "content_block": {"type": str()}}:
                yield from self._block(index, document, "content_block")
            case {"type": "message", "content": list(blocks)}:
                for index in range(len(blocks)):
                    yield from self._block(index, blocks, index)
            case {"type": "message_start" | "message_delta" | "message_stop" | "content_block_stop" | "ping"}:
                return
            case _:
                yield from every_text(root, 0)

    def _block(self, index: int, holder: Any, key: str | int) -> Iterable[Text]:
        for slot in string_slots(holder, key):
            match slot.path:
                case ("text" | "thinking" | "partial_json" as field,):
                    yield Channel(0, _KINDS[field], index), slot
                case ("type" | "id" | "name" | "signature" | "data",):
                    continue
                case path:
                    yield Channel(0, Kind.TEXT, f"{index}/{'/'.join(map(str, path))}"), slot

    def read(self, document: Any) -> Parsed:
        match document:
            case {"type": "content_block_stop", "index": int(index)}:
                return Parsed(ends=(Channel(0, None, index),))
            case {"type": "message_stop" | "error"}:
                return Parsed(ends=(EVERY_CHANNEL,))
            case {"usage": dict(usage)} | {"message": {"usage": dict(usage)}}:
                return Parsed(usage=Usage(usage.get("input_tokens"), usage.get("output_tokens")))
        return Parsed()

    def is_blank(self, document: Any) -> bool:
        return bool(document["type"] == "content_block_delta")

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        root, slot = self.place(event, channel)
        types = {Kind.TEXT: "text", Kind.REASONING: "thinking", Kind.TOOL_ARGUMENTS: "input_json"}
        assert channel.kind is not None
        delta = {"type": types[channel.kind] + "_delta", slot.key: text}
        return self._say({"type": "content_block_delta", "index": root[0]["index"], "delta": delta})

    def comment(self) -> Event | None:
        return self._say({"type": "ping"}) if self.framing is Framing.SSE else None

    def delivered(self, events: Sequence[Event]) -> None:
        for event in events:
            document = event.document or {}
            match document.get("type"):
                case "message_start":
                    self._started = True
                case "content_block_start":
                    self._open.add(document["index"])
                case "content_block_stop":
                    self._open.discard(document["index"])
                case "message_delta":
                    self._reason_said = True
            if event.usage is not None:
                self._output_tokens = event.usage.output_tokens or 0
            self.finished = self.finished or EVERY_CHANNEL in event.ends

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        if self.finished:
            return []
        if ending is Ending.ERROR or self.framing is Framing.JSON:
            return [self._say(_error(problem))]
        message: dict[str, Any] = {
            "id": "msg_0",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._call.model,
        }
        usage = {"output_tokens": self._output_tokens}
        start = [] if self._started else [self._say({"type": "message_start", "message": {**message, "usage": usage}})]
        stops = [self._say({"type": "content_block_stop", "index": index}) for index in sorted(self._open)]
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        reason = [] if self._reason_said else [self._say({"type": "message_delta", "delta": delta, "usage": usage})]
        return [*start, *stops, *reason, self._say({"type": "message_stop"})]

    def _say(self, document: dict[str, Any]) -> Event:
        return self.carry(document, document["type"].encode())


# What it must do

Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]

RECORDED, WRITTEN = "llama_cpp/messages.sse", "written/anthropic_messages_tools.sse"
SILENCE = Problem.of("upstream_silence")


def open_stream(content_type: str = "text/event-stream", call: Call | None = None) -> DialectStream:
    dialect: Dialect = AnthropicMessages()
    return dialect.open(ResponseHead(200, CIMultiDict({"Content-Type": content_type})), call or Call(model="m"))


def types(events: Iterable[Event]) -> list[str]:
    return [event.document["type"] for event in events]


def test_a_recorded_stream(play: Play, join: Join) -> None:
    events = play(open_stream(), RECORDED)
    assert list(join(events)) == [Channel(0, Kind.TEXT, 0)]
    assert [end for event in events for end in event.ends] == [Channel(0, None, 0), EVERY_CHANNEL]
    assert [event.usage for event in events if event.usage][-1] == Usage(None, 12)


def test_thinking_text_and_tools(play: Play, join: Join) -> None:
    assert join(play(open_stream(), WRITTEN)) == {
        Channel(0, Kind.REASONING, 0): "The user asks for weather.",
        Channel(0, Kind.TEXT, 1): "Okay, let's check.",
        Channel(0, Kind.TOOL_ARGUMENTS, 2): '{"city": "Zürich"}',
    }


def test_a_whole_reply(play: Play, join: Join) -> None:
    (event,) = play(open_stream("application/json"), "llama_cpp/messages.json")
    assert list(join([event])) == [Channel(0, Kind.TEXT, 0)]
    assert event.usage == Usage(1, 12)
    assert event.ends == (EVERY_CHANNEL,)


def test_texts_are_rewritten_withheld_and_continued(play: Play, join: Join) -> None:
    stream = open_stream()
    for event in play(stream, WRITTEN):
        for channel, _ in event.deltas:
            rewritten = event.with_deltas([(channel, "né")])
            assert rewritten is not None
            assert join([stream.event(rewritten.raw)]) == {channel: "né"}
            assert event.with_deltas([(channel, "")]) is None
            continued = event.continuation(channel, "né")
            assert continued.raw == rewritten.raw


@pytest.mark.parametrize("fixture", [RECORDED, WRITTEN])
def test_wherever_it_is_cut_it_ends_as_at_the_length_limit(fixture: str, play: Play) -> None:
    for cut in range(len(play(open_stream(), fixture)) + 1):
        stream = open_stream()
        delivered = play(stream, fixture)[:cut]
        stream.delivered(delivered)
        said = types([*delivered, *stream.ending(Ending.LENGTH, SILENCE)])
        assert said.count("message_start") == said.count("message_delta") == said.count("message_stop") == 1
        assert said.count("content_block_start") == said.count("content_block_stop")
        assert (said[0], said[-1]) == ("message_start", "message_stop")


def test_an_error_ending(play: Play) -> None:
    stream = open_stream()
    stream.delivered(play(stream, RECORDED)[:4])
    (event,) = stream.ending(Ending.ERROR, SILENCE)
    assert event.raw.startswith(b"event: error\ndata: ")
    assert event.document["error"]["type"] == "api_error"
    stream.delivered([event])
    assert stream.ending(Ending.ERROR, SILENCE) == []


def test_heartbeats_and_error_bodies_in_its_words() -> None:
    ping = open_stream().comment()
    assert ping is not None
    assert ping.raw == b'event: ping\ndata: {"type":"ping"}\n\n'
    body = json.loads(AnthropicMessages().error_body(Problem.of("no_route"))[1])
    assert (body["type"], body["error"]["type"], body["error"]["code"]) == ("error", "not_found_error", "no_route")


def test_what_has_another_shape_is_all_text() -> None:
    event = open_stream().event(b'data: {"type":"new_event","note":"x"}\n\n')
    assert [text for _, text in event.deltas] == ["new_event", "x"]
