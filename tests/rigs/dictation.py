"""Model servers that say what they are told to, in the words of each API, and in whatever pieces.

`Answer` is what a model says in one choice. An `API` sends the answers of a reply as events, or as one document; what it
has no place for is left out (`API.says`). Written after the providers' documentation, like `wires.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from .raw_upstream import chunk
from .wires import JSON, NDJSON, SSE, Document, data_event, json_bytes, named_event

TOOL = "get_weather"


class Answer(NamedTuple):
    """What a model says in one choice. `arguments` are those of the one tool that it calls, None where it calls none."""

    thoughts: str = ""
    text: str = ""
    refusal: str = ""
    arguments: Any = None

    def only(self, fields: Sequence[str]) -> Answer:
        return Answer(**{field: getattr(self, field) for field in fields})


class Piece(NamedTuple):
    """Part of one field of one choice. `begins`, `ends`: it is the field's first, or last."""

    choice: int
    field: str
    text: str
    begins: bool
    ends: bool


class API(NamedTuple):
    name: str
    path: str
    media_type: str
    fields: tuple[str, ...]
    most_choices: int
    events: Callable[[Sequence[Answer], Sequence[Piece]], Iterator[bytes]]
    whole: Callable[[Sequence[Answer]], bytes]

    def says(self, answers: Sequence[Answer]) -> list[Answer]:
        """As much of these as it has places for."""
        return [answer.only(self.fields) for answer in answers[: self.most_choices]]

    def reply(self, answers: Sequence[Answer], luck: Random, *, streamed: bool) -> bytes:
        """The bytes on the wire: texts cut into events, and those into chunks, anywhere."""
        said = self.says(answers)
        body = b"".join(self.events(said, pieces(said, luck))) if streamed else self.whole(said)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {self.media_type if streamed else JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head.encode() + b"".join(map(chunk, cut(body, luck, (20, 300, 1 << 20)))) + chunk(b"")


def cut(whole: Any, luck: Random, sizes: Sequence[int] = (1, 4, 12, 1 << 20)) -> list[Any]:
    """A text, or bytes, in pieces none of which is empty."""
    longest, parts, at = luck.choice(sizes), [], 0
    while at < len(whole):
        size = luck.randint(1, longest)
        parts.append(whole[at : at + size])
        at += size
    return parts


def pieces(answers: Sequence[Answer], luck: Random) -> list[Piece]:
    """The fields of each choice one after the other, and choices across each other, as llama.cpp sends them."""
    waiting = [list(_pieces_of(number, answer, luck)) for number, answer in enumerate(answers)]
    ordered = []
    while waiting := [left for left in waiting if left]:
        ordered.append(luck.choice(waiting).pop(0))
    return ordered


def _pieces_of(choice: int, answer: Answer, luck: Random) -> Iterator[Piece]:
    for field, value in answer._asdict().items():
        if field == "arguments":
            value = "" if value is None else json.dumps(value, ensure_ascii=luck.random() < 0.5)
        parts = cut(value, luck)
        for number, part in enumerate(parts):
            yield Piece(choice, field, part, number == 0, number == len(parts) - 1)


# OpenAI chat completions and completions

_CHAT = {"thoughts": "reasoning_content", "text": "content", "refusal": "refusal"}


def _chat_delta(piece: Piece) -> Document:
    if piece.field != "arguments":
        return {_CHAT[piece.field]: piece.text}
    named = {"id": f"call_{piece.choice}", "type": "function"} if piece.begins else {}
    function = {**({"name": TOOL} if piece.begins else {}), "arguments": piece.text}
    return {"tool_calls": [{"index": 0, **named, "function": function}]}


def _chat_events(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    def event(choice: int, delta: Document, finish: str | None = None) -> bytes:
        envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
        return data_event({**envelope, "choices": [{"index": choice, "delta": delta, "finish_reason": finish}]})

    for choice in range(len(answers)):
        yield event(choice, {"role": "assistant", "content": ""})
    for piece in said:
        yield event(piece.choice, _chat_delta(piece))
    for choice in range(len(answers)):
        yield event(choice, {}, "stop")
    yield b"data: [DONE]\n\n"


def _chat_whole(answers: Sequence[Answer]) -> bytes:
    choices = []
    for number, answer in enumerate(answers):
        message: Document = {"role": "assistant", "content": answer.text, "refusal": answer.refusal}
        message["reasoning_content"] = answer.thoughts
        if answer.arguments is not None:
            function = {"name": TOOL, "arguments": json.dumps(answer.arguments)}
            message["tool_calls"] = [{"id": "call_0", "type": "function", "function": function}]
        choices.append({"index": number, "message": message, "finish_reason": "stop"})
    return json_bytes(
        {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": choices}
    )


def _completions_events(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    def event(choice: int, text: str, finish: str | None = None) -> bytes:
        envelope = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "tiny"}
        return data_event({**envelope, "choices": [{"index": choice, "text": text, "finish_reason": finish}]})

    for piece in said:  # the last piece says that it is
        yield event(piece.choice, piece.text, "stop" if piece.ends else None)
    yield b"data: [DONE]\n\n"


def _completions_whole(answers: Sequence[Answer]) -> bytes:
    choices = [{"index": at, "text": answer.text, "finish_reason": "stop"} for at, answer in enumerate(answers)]
    return json_bytes({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "tiny", "choices": choices})


# OpenAI Responses


def _response(output: list[Document], status: str) -> Document:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None, "model": "tiny"}
    more: Document = {"incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {**head, **more, "output": output}


@dataclass(frozen=True)
class _Part:
    """A field of an answer, as an item of its own: where its text stands, and in which events it comes."""

    type: str
    delta: str
    done: str
    text: str

    def item(self, number: int, said: str) -> Document:
        """The item with this text."""
        id = f"item_{number}"
        if self.type == "reasoning":
            return {"id": id, "type": "reasoning", "summary": [{"type": "summary_text", "text": said}]}
        if self.type == "function_call":
            names = {"call_id": f"call_{number}", "name": TOOL, "status": "completed"}
            return {"id": id, "type": "function_call", "arguments": said, **names}
        part = self.part(said)
        return {"id": id, "type": "message", "role": "assistant", "status": "completed", "content": [part]}

    def part(self, said: str) -> Document:
        if self.type == "output_text":
            return {"type": self.type, "text": said, "annotations": [], "logprobs": []}
        return {"type": self.type, self.text: said}


_PARTS = {
    "thoughts": _Part("reasoning", "reasoning_summary_text.delta", "reasoning_summary_text.done", "text"),
    "text": _Part("output_text", "output_text.delta", "output_text.done", "text"),
    "refusal": _Part("refusal", "refusal.delta", "refusal.done", "refusal"),
    "arguments": _Part("function_call", "function_call_arguments.delta", "function_call_arguments.done", "arguments"),
}


def _responses_events(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    number = -1

    def event(type: str, **more: Any) -> bytes:
        nonlocal number
        number += 1
        return named_event({"type": f"response.{type}", "sequence_number": number, **more})

    yield event("created", response=_response([], "in_progress"))
    output: list[Document] = []
    whole = ""
    for piece in said:
        part, at = _PARTS[piece.field], len(output)
        place: Document = {"item_id": f"item_{at}", "output_index": at}
        if piece.field in ("text", "refusal"):
            place["content_index"] = 0
        elif piece.field == "thoughts":
            place["summary_index"] = 0
        if piece.begins:
            whole = ""
            begun = part.item(at, "")
            begun.update({name: [] for name in ("content", "summary") if name in begun})
            yield event("output_item.added", output_index=at, item=begun)
            if piece.field in ("text", "refusal"):
                yield event("content_part.added", **place, part=part.part(""))
            elif piece.field == "thoughts":
                yield event("reasoning_summary_part.added", **place, part={"type": "summary_text", "text": ""})
        more: Document = {"logprobs": []} if piece.field == "text" else {}
        yield event(part.delta, **place, delta=piece.text, **more)
        whole += piece.text
        if piece.ends:
            yield event(part.done, **place, **{part.text: whole}, **more)
            item = part.item(at, whole)
            if piece.field in ("text", "refusal"):
                yield event("content_part.done", **place, part=part.part(whole))
            elif piece.field == "thoughts":
                yield event("reasoning_summary_part.done", **place, part={"type": "summary_text", "text": whole})
            yield event("output_item.done", output_index=at, item=item)
            output.append(item)
    yield event("completed", response=_response(output, "completed"))


def _responses_whole(answers: Sequence[Answer]) -> bytes:
    (answer,) = answers
    output: list[Document] = []
    for field, value in answer._asdict().items():
        said = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        if said:
            output.append(_PARTS[field].item(len(output), said))
    return json_bytes(_response(output, "completed"))


# Anthropic

_BLOCKS: dict[str, tuple[str, Document, str, str]] = {
    "thoughts": ("thinking", {"thinking": "", "signature": ""}, "thinking_delta", "thinking"),
    "text": ("text", {"text": ""}, "text_delta", "text"),
    "arguments": ("tool_use", {"id": "toolu_1", "name": TOOL, "input": {}}, "input_json_delta", "partial_json"),
}


def _message(content: list[Document], stop: str | None) -> Document:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "tiny", "content": content}
    return {**message, "stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}


def _messages_events(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    yield named_event({"type": "message_start", "message": _message([], None)})
    index = -1
    for piece in said:
        type, empty, delta, name = _BLOCKS[piece.field]
        if piece.begins:
            index += 1
            yield named_event({"type": "content_block_start", "index": index, "content_block": {"type": type, **empty}})
        changed = {"type": delta, name: piece.text}
        yield named_event({"type": "content_block_delta", "index": index, "delta": changed})
        if piece.ends:
            yield named_event({"type": "content_block_stop", "index": index})
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    yield named_event({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 1}})
    yield named_event({"type": "message_stop"})


def _messages_whole(answers: Sequence[Answer]) -> bytes:
    (answer,) = answers
    content: list[Document] = []
    if answer.thoughts:
        content.append({"type": "thinking", "thinking": answer.thoughts, "signature": "c2ln"})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    if answer.arguments is not None:
        content.append({"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": answer.arguments})
    return json_bytes(_message(content, "end_turn"))


# Gemini


def _gemini_part(piece: Piece, answers: Sequence[Answer]) -> Document:
    if piece.field == "arguments":
        return {"functionCall": {"name": TOOL, "args": answers[piece.choice].arguments}}
    return {"text": piece.text, **({"thought": True} if piece.field == "thoughts" else {})}


def _gemini_responses(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[Document]:
    """The last piece of a choice says that it is."""
    last = {piece.choice: number for number, piece in enumerate(said)}
    for number, piece in enumerate(said):
        if piece.field == "arguments" and not piece.ends:
            continue  # they come whole
        candidate: Document = {"content": {"role": "model", "parts": [_gemini_part(piece, answers)]}}
        candidate["index"] = piece.choice
        if last[piece.choice] == number:
            candidate["finishReason"] = "STOP"
        yield {"candidates": [candidate], "modelVersion": "tiny", "responseId": "r1"}
    for choice in set(range(len(answers))) - last.keys():
        yield {"candidates": [{"index": choice, "finishReason": "STOP"}], "modelVersion": "tiny", "responseId": "r1"}


def _gemini_events(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    return map(data_event, _gemini_responses(answers, said))


def _gemini_array(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    for number, response in enumerate(_gemini_responses(answers, said)):
        yield (b",\r\n" if number else b"[") + json_bytes(response)
    yield b"\n]\n"


def _gemini_whole(answers: Sequence[Answer]) -> bytes:
    candidates = []
    for number, answer in enumerate(answers):
        fields = [(field, value) for field, value in answer._asdict().items() if value or field == "arguments"]
        parts = [
            _gemini_part(Piece(number, field, value, True, True), answers)
            for field, value in fields
            if value is not None
        ]
        candidates.append({"content": {"role": "model", "parts": parts}, "index": number, "finishReason": "STOP"})
    return json_bytes({"candidates": candidates, "modelVersion": "tiny"})


# Ollama

_OLLAMA = {"model": "tiny", "created_at": "2026-01-01T00:00:00Z"}
_OLLAMA_END = {"done": True, "done_reason": "stop", "prompt_eval_count": 1, "eval_count": 1}


def _ollama_message(piece: Piece, answers: Sequence[Answer]) -> Document:
    if piece.field == "arguments":
        call = {"function": {"name": TOOL, "arguments": answers[piece.choice].arguments}}
        return {"content": "", "tool_calls": [call]}
    return {"content": piece.text} if piece.field == "text" else {"content": "", "thinking": piece.text}


def _ollama_lines(lines: list[Document]) -> Iterator[bytes]:
    """The last one has the counts too."""
    for number, line in enumerate(lines):
        end = _OLLAMA_END if number == len(lines) - 1 else {"done": False}
        yield json_bytes({**_OLLAMA, **line, **end}) + b"\n"


def _ollama_chat(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    sent = [piece for piece in said if piece.field != "arguments" or piece.ends]
    messages = [{"role": "assistant", **_ollama_message(piece, answers)} for piece in sent]
    return _ollama_lines([{"message": message} for message in messages or [{"role": "assistant", "content": ""}]])


def _ollama_chat_whole(answers: Sequence[Answer]) -> bytes:
    (answer,) = answers
    message: Document = {"role": "assistant", "content": answer.text, "thinking": answer.thoughts}
    if answer.arguments is not None:
        message["tool_calls"] = [{"function": {"name": TOOL, "arguments": answer.arguments}}]
    return json_bytes({**_OLLAMA, "message": message, **_OLLAMA_END})


def _ollama_generate(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    def line(piece: Piece) -> Document:
        return {"response": piece.text} if piece.field == "text" else {"response": "", "thinking": piece.text}

    return _ollama_lines([*map(line, said), {"response": "", "context": [1, 2, 3]}])


def _ollama_generate_whole(answers: Sequence[Answer]) -> bytes:
    (answer,) = answers
    said = {"response": answer.text, "thinking": answer.thoughts, "context": [1, 2, 3]}
    return json_bytes({**_OLLAMA, **said, **_OLLAMA_END})


# TGI


def _tgi_events(answers: Sequence[Answer], said: Sequence[Piece]) -> Iterator[bytes]:
    """The last token says the whole text again."""
    details = {"finish_reason": "eos_token", "generated_tokens": len(said), "seed": None}
    for number, piece in enumerate(said):
        token = {"id": number, "text": piece.text, "logprob": -0.5, "special": False}
        ends = {"generated_text": answers[0].text, "details": details} if piece.ends else {}
        yield data_event({"index": number, "token": token, "generated_text": None, "details": None, **ends})


def _tgi_whole(answers: Sequence[Answer]) -> bytes:
    details = {"finish_reason": "eos_token", "generated_tokens": 1, "seed": None, "prefill": [], "tokens": []}
    return json_bytes({"generated_text": answers[0].text, "details": details})


_ALL = Answer._fields
_NO_REFUSAL = ("thoughts", "text", "arguments")

CHAT = API("OpenAI chat completions", "/v1/chat/completions", SSE, _ALL, 3, _chat_events, _chat_whole)
COMPLETIONS = API("OpenAI completions", "/v1/completions", SSE, ("text",), 3, _completions_events, _completions_whole)
RESPONSES = API("OpenAI Responses", "/v1/responses", SSE, _ALL, 1, _responses_events, _responses_whole)
MESSAGES = API("Anthropic Messages", "/v1/messages", SSE, _NO_REFUSAL, 1, _messages_events, _messages_whole)
GEMINI = API(
    "Gemini, events", "/v1beta/models/tiny:streamGenerateContent", SSE, _NO_REFUSAL, 3, _gemini_events, _gemini_whole
)
GEMINI_ARRAY = API("Gemini, array", GEMINI.path, JSON, _NO_REFUSAL, 3, _gemini_array, _gemini_whole)
OLLAMA_CHAT = API("Ollama chat", "/api/chat", NDJSON, _NO_REFUSAL, 1, _ollama_chat, _ollama_chat_whole)
OLLAMA_GENERATE = API(
    "Ollama generate", "/api/generate", NDJSON, ("thoughts", "text"), 1, _ollama_generate, _ollama_generate_whole
)
TGI = API("TGI", "/", SSE, ("text",), 1, _tgi_events, _tgi_whole)
