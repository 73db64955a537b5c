"""I/O. A small model server to try the proxy on, and to test it against.

It speaks OpenAI chat completions and completions the way real servers do, streamed word by word or whole, and answers
with one of a few short texts of its own. The same request always gets the same text. A word counts as a token.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import signal
import sys
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from . import listening
from .values import Address, TCPAddress, UnixAddress

MODEL = "penstock-demo"
PACE_S = 0.04
MAX_CHOICES = 16
MAX_BODY_BYTES = 8 * 1024 * 1024

TEXTS = (
    "A penstock is the gate that a miller lifts to let the river into the mill. Too little water and the stones stand "
    "still; too much and the wheel runs away. Most of the craft lies in the hand on the gate.",
    "The tide came in over the flats without a sound, filling one footprint after another, until the whole walk from "
    "the lighthouse was a row of small round mirrors. In each of them stood a piece of the evening.",
    "To make a good broth, be slow. Put bones, an onion and a bay leaf into cold water, bring it up until a single "
    "bubble breaks, and keep it there. After three hours, salt. After four, call someone you like.",
    "On the night train everybody was a stranger until the heating failed. By the second station there was one "
    "blanket, one flask and one long story; by the fifth, no one could remember whose they had been.",
    "Sort by the letter when you have few words, by the hash when you have many, and by hand when you have time. The "
    "last is the only one that makes you read them.",
    "Swifts sleep on the wing. They climb at dusk, high above the roofs, fold the day away and glide with half a mind "
    "awake. In the morning they are still there, only further out, as if the sky had kept their place.",
)


class InvalidRequestError(Exception):
    """What was asked cannot be done; told to the client in OpenAI's words."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for. `seeds` has one entry per choice: what its text is picked by."""

    model: str
    seeds: Sequence[int]
    prompt_tokens: int
    max_tokens: int | None
    stream: bool
    include_usage: bool

    def answer(self, choice: int) -> tuple[list[str], str]:
        """The words of one choice and its finish reason."""
        words = re.findall(r"\S+\s*", TEXTS[self.seeds[choice] % len(TEXTS)])
        if self.max_tokens is not None and self.max_tokens < len(words):
            return words[: self.max_tokens], "length"
        return words, "stop"


class Chat:
    """Chat completions: where their texts stand in the JSON."""

    object, chunk_object, id_prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def prompts(self, document: dict[str, Any]) -> list[str]:
        """The texts to answer. Raises `InvalidRequestError`."""
        messages = document.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
            raise InvalidRequestError("'messages' must be a list of at least one message.", "messages")
        return ["\n".join(_text(message.get("content")) for message in messages)]

    def whole(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> dict[str, Any] | None:
        """What comes before a choice's first word."""
        return {"delta": {"role": "assistant", "content": ""}}

    def piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}


class Completions:
    """Completions, likewise."""

    object, chunk_object, id_prefix = "text_completion", "text_completion", "cmpl-"

    def prompts(self, document: dict[str, Any]) -> list[str]:
        prompt = document.get("prompt")
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not isinstance(prompts, list) or not prompts or not all(isinstance(item, str) for item in prompts):
            raise InvalidRequestError("'prompt' must be a string or a list of strings.", "prompt")
        return prompts

    def whole(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def opening(self) -> dict[str, Any] | None:
        return None

    def piece(self, text: str) -> dict[str, Any]:
        return {"text": text}


Surface = Chat | Completions


def app(pace_s: float = 0.0) -> web.Application:
    """The server as an aiohttp application; `pace_s` seconds pass between two words of a stream."""

    def complete(surface: Surface) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            wish = read_wish(surface, await request.read())
            if not wish.stream:
                return web.json_response(whole_reply(surface, wish))
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            await response.prepare(request)
            async for event in paced(events(surface, wish), pace_s):
                await response.write(event)
            await response.write_eof()
            return response

        return handle

    async def models(request: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "penstock"}
        return web.json_response({"object": "list", "data": [model]})

    async def health(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    application = web.Application(middlewares=[_openai_errors], client_max_size=MAX_BODY_BYTES)
    application.router.add_post("/v1/chat/completions", complete(Chat()))
    application.router.add_post("/v1/completions", complete(Completions()))
    application.router.add_get("/v1/models", models)
    application.router.add_get("/health", health)
    return application


def read_wish(surface: Surface, body: bytes) -> Wish:
    """What the request's body asks for. Raises `InvalidRequestError`."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequestError("The body of the request is not valid JSON.") from None
    if not isinstance(document, dict):
        raise InvalidRequestError("The body of the request must be a JSON object.")
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("You must provide a 'model' parameter.", "model")
    choices = _whole_number(document, "n", 1, MAX_CHOICES) or 1
    prompts = surface.prompts(document)
    if len(prompts) * choices > MAX_CHOICES:
        raise InvalidRequestError(f"At most {MAX_CHOICES} choices can be asked for.", "prompt")
    options = document.get("stream_options") or {}
    if not isinstance(options, dict):
        raise InvalidRequestError("'stream_options' must be an object.", "stream_options")
    return Wish(
        model=model,
        seeds=[zlib.crc32(prompt.encode(errors="replace")) + nth for prompt in prompts for nth in range(choices)],
        prompt_tokens=sum(len(prompt.split()) for prompt in prompts),
        max_tokens=_whole_number(document, "max_completion_tokens", 1) or _whole_number(document, "max_tokens", 1),
        stream=document.get("stream") is True,
        include_usage=options.get("include_usage") is True,
    )


def whole_reply(surface: Surface, wish: Wish) -> dict[str, Any]:
    """The reply in one piece."""
    answers = [wish.answer(choice) for choice in range(len(wish.seeds))]
    return {
        **_envelope(surface, wish, surface.object),
        "choices": [
            {"index": index, **surface.whole("".join(words)), "logprobs": None, "finish_reason": finish}
            for index, (words, finish) in enumerate(answers)
        ],
        "usage": _usage(wish, answers),
    }


def events(surface: Surface, wish: Wish) -> Iterator[bytes]:
    """The reply as SSE events, one word each, the words of several choices in turn."""
    envelope = _envelope(surface, wish, surface.chunk_object)
    if wish.include_usage:
        envelope["usage"] = None  # as OpenAI does: null in every chunk but the last

    def chunk(index: int, piece: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, **piece, "logprobs": None, "finish_reason": finish}
        return _event({**envelope, "choices": [choice]})

    answers = [wish.answer(choice) for choice in range(len(wish.seeds))]
    opening = surface.opening()
    if opening is not None:
        for index in range(len(answers)):
            yield chunk(index, opening)
    for words in itertools.zip_longest(*(words for words, _ in answers)):
        for index, word in enumerate(words):
            if word is not None:
                yield chunk(index, surface.piece(word))
    for index, (_, finish) in enumerate(answers):
        yield chunk(index, surface.piece(""), finish)
    if wish.include_usage:
        yield _event({**envelope, "choices": [], "usage": _usage(wish, answers)})
    yield b"data: [DONE]\n\n"


async def paced(made: Iterator[bytes], pace_s: float) -> AsyncIterator[bytes]:
    """What was `made`, with a pause after each event."""
    for event in made:
        yield event
        await asyncio.sleep(pace_s)


def main(listen: str) -> int:
    """Serve on `listen` ("host:port", "[v6]:port" or "unix:/path") until SIGINT or SIGTERM; returns the exit status:
    0, 1 where the address cannot be had, 2 where it is none."""
    try:
        address: TCPAddress | UnixAddress = TypeAdapter(Address).validate_python(listen)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        print(f"penstock demo: --listen {reason}", file=sys.stderr)
        return 2
    return asyncio.run(_serve(address))


async def _serve(address: TCPAddress | UnixAddress) -> int:
    runner = web.AppRunner(app(PACE_S), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        try:
            place = await listening.listen(runner, address)
        except OSError as error:
            print(f"penstock demo: cannot listen on {address}: {error.strerror}", file=sys.stderr)
            return 1
        print(f"penstock demo: the model {MODEL!r} is served on {place}", file=sys.stderr)
        done = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, done.set)
        await done.wait()
        return 0
    finally:
        await runner.cleanup()


def _event(document: dict[str, Any]) -> bytes:
    return (
        b"data: " + json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace") + b"\n\n"
    )


def _envelope(surface: Surface, wish: Wish, kind: str) -> dict[str, Any]:
    id = surface.id_prefix + secrets.token_hex(12)
    return {"id": id, "object": kind, "created": int(time.time()), "model": wish.model}


def _usage(wish: Wish, answers: list[tuple[list[str], str]]) -> dict[str, int]:
    completion = sum(len(words) for words, _ in answers)
    return {
        "prompt_tokens": wish.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": wish.prompt_tokens + completion,
    }


def _text(content: Any) -> str:
    """The text of a message: its content is a string, or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part)


def _whole_number(document: dict[str, Any], key: str, least: int, most: int | None = None) -> int | None:
    value = document.get(key)
    if value is None:
        return None
    if type(value) is not int or value < least or (most is not None and value > most):
        bound = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidRequestError(f"'{key}' must be a whole number, {bound}.", key)
    return value


@web.middleware
async def _openai_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidRequestError as error:
        return web.Response(text=_error(error.message, error.param), content_type="application/json", status=400)
    except web.HTTPException as error:  # no such path or method, body too large
        error.text, error.content_type = _error(f"{request.method} {request.path}: {error.reason}"), "application/json"
        raise


def _error(message: str, param: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}})
