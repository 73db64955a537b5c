"""Every dialect as it stands on the wire, in words of its own: what a model server sends, and what has to be said to a
client when something ends it. Written after the providers' documentation, not with the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

SSE, NDJSON, JSON, TEXT = "text/event-stream", "application/x-ndjson", "application/json", "text/plain"
PROMPT = "Say one, two and three, please."
WORDS = ("One", "\ttwo", "\tthree")
"""What is said, word by word. In a JSON string two words with a space between could begin a mail address, `"one two"@...`."""

STATED_INPUT, STATED_OUTPUT = 7, len(WORDS)
"""What model servers state that it took, where their API has words for it."""

Document = dict[str, Any]
Said = list[tuple[str | None, Any]]
"""Events as (event name, JSON document or text)."""


class Stream(NamedTuple):
    """A streamed reply: what comes before its texts, the texts, an event each, and what comes after them."""

    opening: bytes
    deltas: list[bytes]
    closing: bytes

    @property
    def body(self) -> bytes:
        return b"".join((self.opening, *self.deltas, self.closing))


class Asked(NamedTuple):
    """A request."""

    path: str
    document: Document
    query: str = ""


@dataclass(frozen=True)
class Wire:
    """One dialect in one of its framings."""

    name: str
    dialect: str
    media_type: str
    ask: Callable[[bool, bool], Asked]
    """A request for these words; (streamed, stating the usage)."""
    stream: Callable[[Sequence[str], bool], Stream]
    """(texts, stating the usage). An API that always states it does so here."""
    whole: Callable[[Sequence[str]], bytes]
    error: Callable[[int, str, str], Document]
    """The body of a local reply: (status, code, message)."""
    error_event: Callable[[Document, int | None], Said] | None
    """What says the same in a stream, after so many events were seen (None: nobody looked); None where nothing can."""
    length: tuple[str, ...]
    """What ends a stream at the output limit after two texts, with the usage: an event each, with this in it. Where the API
    has no such end, none."""
    heartbeat: bytes = b": keep-alive\n\n"
    """What breaks a silence; b"" where nothing may."""
    has_terminal: bool = True
    """A reply ends in words, so that one that only broke off can be told."""
    states_usage: bool = True
    shown_heartbeat: str = ""
    """As the README has it, where that is not the bytes."""
    pieces: Callable[[Sequence[str]], list[str]] = list
    """The texts in which words are said, an event each."""

    @property
    def array(self) -> bool:
        return self.media_type == JSON

    def said(self, body: bytes) -> Said:
        """The events of a piece of a streamed body."""
        if self.media_type == SSE:
            return [_sse_event(block) for block in body.decode().split("\n\n") if block.strip()]
        if self.array:
            text = body.decode().strip().lstrip("[,").removesuffix("]")
            return [(None, document) for document in json.loads(f"[{text}]")]
        return [(None, _document(line)) for line in body.decode().splitlines()]

    def spelt(self, events: Said) -> bytes:
        """Events as they stand in a streamed body, but for an array."""
        if self.media_type == SSE:
            return b"".join(
                (b"" if name is None else f"event: {name}\n".encode()) + data_event(document)
                for name, document in events
            )
        return b"".join(json_bytes(document) + b"\n" for _, document in events)


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sse_event(block: str) -> tuple[str | None, Any]:
    name, data = None, ""
    for line in block.split("\n"):
        field, _, value = line.partition(":")
        if field == "event":
            name = value.strip()
        elif field == "data":
            data += value.removeprefix(" ")
    return name, _document(data)


def json_bytes(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def data_event(document: Any) -> bytes:
    return b"data: " + json_bytes(document) + b"\n\n"


def named_event(document: Document) -> bytes:
    return f"event: {document['type']}\n".encode() + data_event(document)


def _unnamed(document: Document, seen: int | None) -> Said:
    return [(None, document)]


# OpenAI

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    499: "invalid_request_error",
    500: "server_error",
    502: "server_error",
    503: "server_error",
    504: "server_error",
}


def _openai_error(status: int, code: str, message: str) -> Document:
    return {"error": {"message": message, "type": _OPENAI_TYPES[status], "param": None, "code": code}}


def _openai_usage(output: int) -> Document:
    return {"prompt_tokens": STATED_INPUT, "completion_tokens": output, "total_tokens": STATED_INPUT + output}


def _chat_stream(words: Sequence[str], usage: bool) -> Stream:
    def chunk(delta: Document, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return data_event({**envelope, "choices": [choice], **({"usage": None} if usage else {})})

    envelope = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    last = data_event({**envelope, "choices": [], "usage": _openai_usage(len(words))}) if usage else b""
    return Stream(
        chunk({"role": "assistant", "content": ""}),
        [chunk({"content": word}) for word in words],
        chunk({}, "stop") + last + b"data: [DONE]\n\n",
    )


def _chat_whole(words: Sequence[str]) -> bytes:
    message = {"role": "assistant", "content": "".join(words), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    envelope = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny"}
    return json_bytes({**envelope, "choices": [choice], "usage": _openai_usage(len(words))})


def _stream_options(streamed: bool, usage: bool) -> Document:
    return {"stream": streamed, **({"stream_options": {"include_usage": True}} if streamed and usage else {})}


def _ask_chat(streamed: bool, usage: bool) -> Asked:
    messages = [{"role": "user", "content": PROMPT}]
    options = _stream_options(streamed, usage)
    return Asked("/v1/chat/completions", {"model": "tiny", "messages": messages, **options})


def _completions_stream(words: Sequence[str], usage: bool) -> Stream:
    def chunk(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return data_event({**envelope, "choices": [choice], **({"usage": None} if usage else {})})

    envelope = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "tiny"}
    last = data_event({**envelope, "choices": [], "usage": _openai_usage(len(words))}) if usage else b""
    return Stream(b"", [chunk(word) for word in words], chunk("", "stop") + last + b"data: [DONE]\n\n")


def _completions_whole(words: Sequence[str]) -> bytes:
    choice = {"index": 0, "text": "".join(words), "logprobs": None, "finish_reason": "stop"}
    envelope = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "tiny"}
    return json_bytes({**envelope, "choices": [choice], "usage": _openai_usage(len(words))})


def _ask_completions(streamed: bool, usage: bool) -> Asked:
    return Asked("/v1/completions", {"model": "tiny", "prompt": PROMPT, **_stream_options(streamed, usage)})


# OpenAI Responses


def _response(output: list[Document], status: str, usage: Document | None) -> Document:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None}
    return {**head, "incomplete_details": None, "model": "tiny", "output": output, "usage": usage}


def _responses_usage(output: int) -> Document:
    return {"input_tokens": STATED_INPUT, "output_tokens": output, "total_tokens": STATED_INPUT + output}


def _responses_message(words: Sequence[str]) -> Document:
    part = {"type": "output_text", "text": "".join(words), "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def _responses_stream(words: Sequence[str], usage: bool) -> Stream:
    number = -1

    def event(type: str, **more: Any) -> bytes:
        nonlocal number
        number += 1
        return named_event({"type": f"response.{type}", "sequence_number": number, **more})

    whole = _responses_message(words)
    (part,) = whole["content"]
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    opening = (
        event("created", response=_response([], "in_progress", None))
        + event("output_item.added", output_index=0, item={**whole, "status": "in_progress", "content": []})
        + event("content_part.added", **at, part={**part, "text": ""})
    )
    deltas = [event("output_text.delta", **at, delta=word, logprobs=[]) for word in words]
    closing = (
        event("output_text.done", **at, text=part["text"], logprobs=[])
        + event("content_part.done", **at, part=part)
        + event("output_item.done", output_index=0, item=whole)
        + event("completed", response=_response([whole], "completed", _responses_usage(len(words))))
    )
    return Stream(opening, deltas, closing)


def _responses_error_event(document: Document, seen: int | None) -> Said:
    error = document["error"]
    said = {name: error[name] for name in ("code", "message", "param")}
    return [("error", {"type": "error", **said, "error": error, "sequence_number": seen or 0})]


# Anthropic

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    499: "invalid_request_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _anthropic_error(status: int, code: str, message: str) -> Document:
    error = {"type": _ANTHROPIC_TYPES[status], "message": message, "details": {"error_code": code}}
    return {"type": "error", "error": error}


def _anthropic_message(words: Sequence[str], **more: Any) -> Document:
    content = [{"type": "text", "text": "".join(words)}] if words else []
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "tiny", "content": content}
    return {**message, "stop_reason": None, "stop_sequence": None, **more}


def _anthropic_stream(words: Sequence[str], usage: bool) -> Stream:
    begun = {"input_tokens": STATED_INPUT, "output_tokens": 1}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    return Stream(
        named_event({"type": "message_start", "message": _anthropic_message((), usage=begun)}) + named_event(block),
        [
            named_event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
            for word in words
        ],
        named_event({"type": "content_block_stop", "index": 0})
        + named_event({"type": "message_delta", "delta": stop, "usage": {"output_tokens": len(words)}})
        + named_event({"type": "message_stop"}),
    )


def _anthropic_whole(words: Sequence[str]) -> bytes:
    usage = {"input_tokens": STATED_INPUT, "output_tokens": len(words)}
    return json_bytes(_anthropic_message(words, stop_reason="end_turn", usage=usage))


# Gemini

_GEMINI_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "INVALID_ARGUMENT",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _gemini_error(status: int, code: str, message: str) -> Document:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code, "domain": "penstock"}
    return {"error": {"code": status, "message": message, "status": _GEMINI_STATUSES[status], "details": [info]}}


def _gemini_response(text: str, output: int, finish: str | None = None) -> Document:
    candidate: Document = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    counts = {
        "promptTokenCount": STATED_INPUT,
        "candidatesTokenCount": output,
        "totalTokenCount": STATED_INPUT + output,
    }
    said = {**candidate, **({"finishReason": finish} if finish else {})}
    return {"candidates": [said], "usageMetadata": counts, "modelVersion": "tiny", "responseId": "r1"}


def _gemini_sse(words: Sequence[str], usage: bool) -> Stream:
    deltas = [data_event(_gemini_response(word, number + 1)) for number, word in enumerate(words)]
    return Stream(b"", deltas, data_event(_gemini_response("", len(words), "STOP")))


def _gemini_array(words: Sequence[str], usage: bool) -> Stream:
    deltas = [
        (b",\r\n" if number else b"[") + json_bytes(_gemini_response(word, number + 1))
        for number, word in enumerate(words)
    ]
    return Stream(b"", deltas, b",\r\n" + json_bytes(_gemini_response("", len(words), "STOP")) + b"\n]\n")


def _gemini_whole(words: Sequence[str]) -> bytes:
    return json_bytes(_gemini_response("".join(words), len(words), "STOP"))


def _ask_gemini(query: str) -> Callable[[bool, bool], Asked]:
    def ask(streamed: bool, usage: bool) -> Asked:
        method = "streamGenerateContent" if streamed else "generateContent"
        contents = [{"role": "user", "parts": [{"text": PROMPT}]}]
        return Asked(f"/v1beta/models/tiny:{method}", {"contents": contents}, query if streamed else "")

    return ask


# Ollama


def _ollama_error(status: int, code: str, message: str) -> Document:
    return {"error": f"{message} ({code})", "code": code}


def _ollama_line(text: str, **more: Any) -> bytes:
    answer = {"model": "tiny", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text}}
    return json_bytes({**answer, "done": False, **more}) + b"\n"


def _ollama_generate_line(text: str, **more: Any) -> bytes:
    return (
        json_bytes({"model": "tiny", "created_at": "2026-01-01T00:00:00Z", "response": text, "done": False, **more})
        + b"\n"
    )


def _ollama_stream(line: Callable[..., bytes]) -> Callable[[Sequence[str], bool], Stream]:
    def stream(words: Sequence[str], usage: bool) -> Stream:
        return Stream(b"", [line(word) for word in words], line("", **_ollama_end(len(words))))

    return stream


def _ollama_end(output: int) -> Document:
    return {"done": True, "done_reason": "stop", "prompt_eval_count": STATED_INPUT, "eval_count": output}


# TGI

_TGI_TYPES = {429: "overloaded", 500: "generation", 502: "generation", 503: "overloaded", 504: "generation"}


def _tgi_error(status: int, code: str, message: str) -> Document:
    return {"error": f"{message} ({code})", "error_type": _TGI_TYPES.get(status, "validation")}


def _tgi_stream(words: Sequence[str], usage: bool) -> Stream:
    def event(index: int, text: str, *, special: bool = False, **more: Any) -> bytes:
        token = {"id": index, "text": text, "logprob": -0.5, "special": special}
        return data_event({"index": index, "token": token, "generated_text": None, "details": None, **more})

    counts = {"finish_reason": "eos_token", "generated_tokens": len(words), "seed": None, "input_length": STATED_INPUT}
    whole = {"generated_text": "".join(words), "details": counts if usage else None}
    deltas = [event(number, word) for number, word in enumerate(words)]
    return Stream(b"", deltas, event(len(words), "", special=True, **whole))


def _tgi_whole(words: Sequence[str]) -> bytes:
    counts = {"finish_reason": "eos_token", "generated_tokens": len(words), "seed": None, "input_length": STATED_INPUT}
    return json_bytes({"generated_text": "".join(words), "details": {**counts, "tokens": [], "prefill": []}})


def _ask_tgi(streamed: bool, usage: bool) -> Asked:
    parameters = {"parameters": {"details": True}} if usage else {}
    return Asked("/generate_stream" if streamed else "/generate", {"inputs": PROMPT, **parameters})


# APIs that nobody knows


def _generic_error(status: int, code: str, message: str) -> Document:
    return {"error": {"message": message, "code": code, "status": status}}


def _ask_unknown(streamed: bool, usage: bool) -> Asked:
    return Asked("/speak", {"model": "tiny", "prompt": PROMPT, "stream": streamed})


def _unknown_whole(words: Sequence[str]) -> bytes:
    return json_bytes({"text": "".join(words)})


WIRES = (
    Wire(
        name="OpenAI chat completions",
        dialect="openai-chat",
        media_type=SSE,
        ask=_ask_chat,
        stream=_chat_stream,
        whole=_chat_whole,
        error=_openai_error,
        error_event=_unnamed,
        length=('"finish_reason":"length"', '"completion_tokens":2', "[DONE]"),
    ),
    Wire(
        name="OpenAI completions",
        dialect="openai-completions",
        media_type=SSE,
        ask=_ask_completions,
        stream=_completions_stream,
        whole=_completions_whole,
        error=_openai_error,
        error_event=_unnamed,
        length=('"finish_reason":"length"', '"completion_tokens":2', "[DONE]"),
    ),
    Wire(
        name="OpenAI Responses",
        dialect="openai-responses",
        media_type=SSE,
        ask=lambda streamed, usage: Asked("/v1/responses", {"model": "tiny", "input": PROMPT, "stream": streamed}),
        stream=_responses_stream,
        whole=lambda words: json_bytes(
            _response([_responses_message(words)], "completed", _responses_usage(len(words)))
        ),
        error=_openai_error,
        error_event=_responses_error_event,
        length=(
            '"type":"response.output_text.done"',
            '"type":"response.content_part.done"',
            '"type":"response.output_item.done"',
            '"incomplete_details":{"reason":"max_output_tokens"}',
        ),
    ),
    Wire(
        name="Anthropic Messages",
        dialect="anthropic",
        media_type=SSE,
        ask=lambda streamed, usage: Asked(
            "/v1/messages",
            {"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": PROMPT}], "stream": streamed},
        ),
        stream=_anthropic_stream,
        whole=_anthropic_whole,
        error=_anthropic_error,
        error_event=lambda document, seen: [("error", document)],
        length=('"type":"content_block_stop"', '"stop_reason":"max_tokens"', '"type":"message_stop"'),
        heartbeat=b'event: ping\ndata: {"type":"ping"}\n\n',
    ),
    Wire(
        name="Gemini, events",
        dialect="gemini",
        media_type=SSE,
        ask=_ask_gemini("alt=sse"),
        stream=_gemini_sse,
        whole=_gemini_whole,
        error=_gemini_error,
        error_event=_unnamed,
        length=('"finishReason":"MAX_TOKENS"',),
        heartbeat=b"\n\n",
        shown_heartbeat="blank lines",
    ),
    Wire(
        name="Gemini, array",
        dialect="gemini",
        media_type=JSON,
        ask=_ask_gemini(""),
        stream=_gemini_array,
        whole=_gemini_whole,
        error=_gemini_error,
        error_event=_unnamed,
        length=('"finishReason":"MAX_TOKENS"',),
        heartbeat=b"\n",
        shown_heartbeat="whitespace",
    ),
    Wire(
        name="Ollama chat",
        dialect="ollama",
        media_type=NDJSON,
        ask=lambda streamed, usage: Asked(
            "/api/chat", {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "stream": streamed}
        ),
        stream=_ollama_stream(_ollama_line),
        whole=lambda words: _ollama_line("".join(words), **_ollama_end(len(words))),
        error=_ollama_error,
        error_event=_unnamed,
        length=('"done":true,"done_reason":"length"',),
        heartbeat=b"",
    ),
    Wire(
        name="Ollama generate",
        dialect="ollama",
        media_type=NDJSON,
        ask=lambda streamed, usage: Asked("/api/generate", {"model": "tiny", "prompt": PROMPT, "stream": streamed}),
        stream=_ollama_stream(_ollama_generate_line),
        whole=lambda words: _ollama_generate_line("".join(words), **_ollama_end(len(words))),
        error=_ollama_error,
        error_event=_unnamed,
        length=('"done":true,"done_reason":"length"',),
        heartbeat=b"",
    ),
    Wire(
        name="TGI",
        dialect="tgi",
        media_type=SSE,
        ask=_ask_tgi,
        stream=_tgi_stream,
        whole=_tgi_whole,
        error=_tgi_error,
        error_event=_unnamed,
        length=('"finish_reason":"length","generated_tokens":2',),
    ),
    Wire(
        name="unknown, events with JSON",
        dialect="generic",
        media_type=SSE,
        ask=_ask_unknown,
        stream=lambda words, usage: Stream(b"", [data_event({"text": word}) for word in words], b"data: [DONE]\n\n"),
        whole=_unknown_whole,
        error=_generic_error,
        error_event=lambda document, seen: [("error", document)],
        length=(),
        has_terminal=False,
        states_usage=False,
    ),
    Wire(
        name="unknown, events with text",
        dialect="generic",
        media_type=SSE,
        ask=_ask_unknown,
        stream=lambda words, usage: Stream(b"", [f"data: {word}\n\n".encode() for word in words], b"data: [DONE]\n\n"),
        whole=_unknown_whole,
        error=_generic_error,
        error_event=lambda document, seen: [("error", document)],
        length=(),
        has_terminal=False,
        states_usage=False,
    ),
    Wire(
        name="unknown, lines of JSON",
        dialect="generic",
        media_type=NDJSON,
        ask=_ask_unknown,
        stream=lambda words, usage: Stream(b"", [json_bytes({"text": word}) + b"\n" for word in words], b""),
        whole=_unknown_whole,
        error=_generic_error,
        error_event=_unnamed,
        length=(),
        heartbeat=b"",
        has_terminal=False,
        states_usage=False,
    ),
    Wire(
        name="unknown, plain text",
        dialect="generic",
        media_type=TEXT,
        ask=_ask_unknown,
        stream=lambda words, usage: Stream(b"", [word.encode() for word in words], b""),
        whole=_unknown_whole,
        error=_generic_error,
        error_event=None,
        length=(),
        heartbeat=b"",
        has_terminal=False,
        states_usage=False,
    ),
)

BY_NAME: Mapping[str, Wire] = {wire.name: wire for wire in WIRES}
