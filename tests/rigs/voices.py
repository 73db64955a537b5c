"""What a model says beside its answer, on the wires that have words for it: its thoughts, and what it calls tools with.

As in `wires.py`: after the providers' documentation, not with the code under test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .wires import (
    BY_NAME,
    STATED_INPUT,
    WIRES,
    Document,
    Stream,
    Wire,
    data_event,
    json_bytes,
    named_event,
)

THOUGHTS, ARGUMENTS = "thoughts", "tool arguments"

_Streams = Callable[[Sequence[str], bool], Stream]
_Wholes = Callable[[Sequence[str]], bytes]
_Pieces = Callable[[Sequence[str]], list[str]]


def in_arguments(words: Sequence[str]) -> list[str]:
    """The pieces of the JSON document in which a tool is given these words."""
    first, *others = [json.dumps(word)[1:-1] for word in words]
    pieces = ['{"said":"' + first, *others]
    return [*pieces[:-1], pieces[-1] + '"}']


def _voice(of: str, kind: str, stream: _Streams, whole: _Wholes, **more: Any) -> Wire:
    wire = BY_NAME[of]
    return replace(wire, name=f"{wire.name}: {kind}", stream=stream, whole=whole, **more)


# OpenAI chat completions

_CHAT = {"id": "chatcmpl-1", "created": 1, "model": "tiny"}


def _chat_usage(words: Sequence[str]) -> Document:
    return {"prompt_tokens": STATED_INPUT, "completion_tokens": len(words), "total_tokens": STATED_INPUT + len(words)}


def _chat(opening: Document, said: Callable[[str], Document], pieces: _Pieces, finish: str) -> _Streams:
    head = {**_CHAT, "object": "chat.completion.chunk"}

    def stream(words: Sequence[str], usage: bool) -> Stream:
        def chunk(delta: Document, reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return data_event({**head, "choices": [choice], **({"usage": None} if usage else {})})

        last = data_event({**head, "choices": [], "usage": _chat_usage(words)}) if usage else b""
        return Stream(
            chunk({"role": "assistant", **opening}),
            [chunk(said(piece)) for piece in pieces(words)],
            chunk({}, finish) + last + b"data: [DONE]\n\n",
        )

    return stream


def _chat_whole(message: Callable[[Sequence[str]], Document], finish: str) -> _Wholes:
    def whole(words: Sequence[str]) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", **message(words)}, "finish_reason": finish}
        return json_bytes({**_CHAT, "object": "chat.completion", "choices": [choice], "usage": _chat_usage(words)})

    return whole


def _chat_call(arguments: str) -> Document:
    call = {"id": "call_1", "type": "function", "function": {"name": "say", "arguments": arguments}}
    return {"content": None, "tool_calls": [call]}


_CHAT_CALL = _chat_call("")
_CHAT_CALL["tool_calls"][0]["index"] = 0


# OpenAI Responses


def _responses(
    item: Callable[[str | None], Document],
    events: str,
    field: str,
    part: Callable[[str], Document] | None,
    pieces: _Pieces,
) -> tuple[_Streams, _Wholes]:
    """`item` is the output item with this text, None where it was only begun; `events` the name of its deltas, and `field`
    where their end has the whole; `part` of a summary, where it is said in parts."""

    def response(words: Sequence[str] | None) -> Document:
        head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "tiny", "error": None}
        if words is None:
            return {**head, "status": "in_progress", "output": [], "usage": None}
        counts = {"input_tokens": STATED_INPUT, "output_tokens": len(words), "total_tokens": STATED_INPUT + len(words)}
        return {**head, "status": "completed", "output": [item("".join(pieces(words)))], "usage": counts}

    def documents(words: Sequence[str]) -> Iterator[list[Document]]:
        at: Document = {"item_id": "item_1", "output_index": 0, **({"summary_index": 0} if part else {})}
        whole = "".join(pieces(words))
        begun: list[Document] = [
            {"type": "response.created", "response": response(None)},
            {"type": "response.output_item.added", "output_index": 0, "item": item(None)},
        ]
        done: list[Document] = [{"type": f"response.{events}.done", **at, field: whole}]
        if part:
            begun.append({"type": "response.reasoning_summary_part.added", **at, "part": part("")})
            done.append({"type": "response.reasoning_summary_part.done", **at, "part": part(whole)})
        done += [
            {"type": "response.output_item.done", "output_index": 0, "item": item(whole)},
            {"type": "response.completed", "response": response(words)},
        ]
        yield begun
        yield [{"type": f"response.{events}.delta", **at, "delta": piece} for piece in pieces(words)]
        yield done

    def stream(words: Sequence[str], usage: bool) -> Stream:
        begun, said, done = documents(words)
        for number, document in enumerate([*begun, *said, *done]):
            document["sequence_number"] = number
        return Stream(
            b"".join(map(named_event, begun)), [named_event(each) for each in said], b"".join(map(named_event, done))
        )

    return stream, lambda words: json_bytes(response(words))


def _summary_part(text: str) -> Document:
    return {"type": "summary_text", "text": text}


def _reasoning_item(text: str | None) -> Document:
    return {"id": "item_1", "type": "reasoning", "summary": [] if text is None else [_summary_part(text)]}


def _call_item(arguments: str | None) -> Document:
    head = {"id": "item_1", "type": "function_call", "call_id": "call_1", "name": "say"}
    return {**head, "arguments": arguments or "", "status": "in_progress" if arguments is None else "completed"}


# Anthropic Messages


def _anthropic(
    block: Callable[[Sequence[str]], Document],
    delta: Callable[[str], Document],
    pieces: _Pieces,
    stop_reason: str,
) -> tuple[_Streams, _Wholes]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "tiny", "stop_sequence": None}

    def stream(words: Sequence[str], usage: bool) -> Stream:
        counts = {"input_tokens": STATED_INPUT, "output_tokens": 1}
        message: Document = {**head, "content": [], "stop_reason": None, "usage": counts}
        stop = {"stop_reason": stop_reason, "stop_sequence": None}
        return Stream(
            named_event({"type": "message_start", "message": message})
            + named_event({"type": "content_block_start", "index": 0, "content_block": block(())}),
            [
                named_event({"type": "content_block_delta", "index": 0, "delta": delta(piece)})
                for piece in pieces(words)
            ],
            named_event({"type": "content_block_stop", "index": 0})
            + named_event({"type": "message_delta", "delta": stop, "usage": {"output_tokens": len(words)}})
            + named_event({"type": "message_stop"}),
        )

    def whole(words: Sequence[str]) -> bytes:
        counts = {"input_tokens": STATED_INPUT, "output_tokens": len(words)}
        return json_bytes({**head, "content": [block(words)], "stop_reason": stop_reason, "usage": counts})

    return stream, whole


def _tool_use(words: Sequence[str]) -> Document:
    given = {"said": "".join(words)} if words else {}
    return {"type": "tool_use", "id": "toolu_1", "name": "say", "input": given}


# Gemini


def _gemini_response(part: Document | None, output: int, finish: str | None = None) -> Document:
    candidate = {"content": {"parts": [] if part is None else [part], "role": "model"}, "index": 0}
    counts = {
        "promptTokenCount": STATED_INPUT,
        "candidatesTokenCount": output,
        "totalTokenCount": STATED_INPUT + output,
    }
    said = {**candidate, **({"finishReason": finish} if finish else {})}
    return {"candidates": [said], "usageMetadata": counts, "modelVersion": "tiny", "responseId": "r1"}


def _thought_part(text: str) -> Document:
    return {"text": text, "thought": True}


def _gemini_array(words: Sequence[str], usage: bool) -> Stream:
    deltas = [
        (b",\r\n" if number else b"[") + json_bytes(_gemini_response(_thought_part(word), number + 1))
        for number, word in enumerate(words)
    ]
    return Stream(b"", deltas, b",\r\n" + json_bytes(_gemini_response(None, len(words), "STOP")) + b"\n]\n")


def _gemini_sse(part: Callable[[str, bool], Document], opening: Document | None, closing: Document | None) -> _Streams:
    """`part` is that of a word, and whether more follow."""

    def stream(words: Sequence[str], usage: bool) -> Stream:
        counted = [(word, number + 1) for number, word in enumerate(words)]
        return Stream(
            b"" if opening is None else data_event(_gemini_response(opening, 0)),
            [data_event(_gemini_response(part(word, count < len(words)), count)) for word, count in counted],
            data_event(_gemini_response(closing, len(words), "STOP")),
        )

    return stream


def _partial_call(word: str, more: bool) -> Document:
    """Vertex AI's, where `streamFunctionCallArguments` is asked for."""
    argument = {"jsonPath": "$.said", "stringValue": word, **({"willContinue": True} if more else {})}
    return {"functionCall": {"partialArgs": [argument], "willContinue": True}}


def _gemini_whole(part: Callable[[str], Document]) -> _Wholes:
    return lambda words: json_bytes(_gemini_response(part("".join(words)), len(words), "STOP"))


# Ollama


def _ollama(said: Callable[[str], Document], silent: Document) -> tuple[_Streams, _Wholes]:
    head = {"model": "tiny", "created_at": "2026-01-01T00:00:00Z"}

    def end(words: Sequence[str]) -> Document:
        return {"done": True, "done_reason": "stop", "prompt_eval_count": STATED_INPUT, "eval_count": len(words)}

    def line(document: Document) -> bytes:
        return json_bytes({**head, "done": False, **document}) + b"\n"

    def stream(words: Sequence[str], usage: bool) -> Stream:
        return Stream(b"", [line(said(word)) for word in words], line({**silent, **end(words)}))

    return stream, lambda words: line({**said("".join(words)), **end(words)})


def _ollama_message(thinking: str) -> Document:
    return {"message": {"role": "assistant", "content": "", "thinking": thinking}}


# All of them

_SUMMARY_LENGTH = (
    '"type":"response.reasoning_summary_text.done"',
    '"type":"response.reasoning_summary_part.done"',
    '"type":"response.output_item.done"',
    '"incomplete_details":{"reason":"max_output_tokens"}',
)
_CALL_LENGTH = ('"type":"response.function_call_arguments.done"', *_SUMMARY_LENGTH[2:])

VOICES: Sequence[Wire] = (
    _voice(
        "OpenAI chat completions",
        THOUGHTS,
        _chat({"content": None}, lambda text: {"reasoning_content": text}, list, "stop"),
        _chat_whole(lambda words: {"content": None, "reasoning_content": "".join(words)}, "stop"),
    ),
    _voice(
        "OpenAI chat completions",
        ARGUMENTS,
        _chat(
            _CHAT_CALL,
            lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]},
            in_arguments,
            "tool_calls",
        ),
        _chat_whole(lambda words: _chat_call("".join(in_arguments(words))), "tool_calls"),
        pieces=in_arguments,
    ),
    _voice(
        "OpenAI Responses",
        THOUGHTS,
        *_responses(_reasoning_item, "reasoning_summary_text", "text", _summary_part, list),
        length=_SUMMARY_LENGTH,
    ),
    _voice(
        "OpenAI Responses",
        ARGUMENTS,
        *_responses(_call_item, "function_call_arguments", "arguments", None, in_arguments),
        length=_CALL_LENGTH,
        pieces=in_arguments,
    ),
    _voice(
        "Anthropic Messages",
        THOUGHTS,
        *_anthropic(
            lambda words: {"type": "thinking", "thinking": "".join(words), "signature": ""},
            lambda text: {"type": "thinking_delta", "thinking": text},
            list,
            "end_turn",
        ),
    ),
    _voice(
        "Anthropic Messages",
        ARGUMENTS,
        *_anthropic(
            _tool_use, lambda text: {"type": "input_json_delta", "partial_json": text}, in_arguments, "tool_use"
        ),
        pieces=in_arguments,
    ),
    _voice(
        "Gemini, events",
        THOUGHTS,
        _gemini_sse(lambda word, more: _thought_part(word), None, None),
        _gemini_whole(_thought_part),
    ),
    _voice(
        "Gemini, events",
        ARGUMENTS,
        _gemini_sse(_partial_call, {"functionCall": {"name": "say", "willContinue": True}}, {"functionCall": {}}),
        _gemini_whole(lambda text: {"functionCall": {"name": "say", "args": {"said": text}}}),
    ),
    _voice("Gemini, array", THOUGHTS, _gemini_array, _gemini_whole(_thought_part)),
    _voice("Ollama chat", THOUGHTS, *_ollama(_ollama_message, {"message": {"role": "assistant", "content": ""}})),
    _voice(
        "Ollama generate",
        THOUGHTS,
        *_ollama(lambda text: {"response": "", "thinking": text}, {"response": ""}),
    ),
)

KINDS: Mapping[str, list[str]] = {
    wire.name: [voice.name.rpartition(": ")[2] for voice in VOICES if voice.name.startswith(f"{wire.name}: ")]
    for wire in WIRES
}
"""By the name of a wire: what else can be said on it."""
