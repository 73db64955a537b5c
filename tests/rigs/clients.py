"""The SDKs for Python, unmodified, as programs use them: made once, and asked for the texts of a reply."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

import anthropic
import ollama
import openai
from google import genai
from google.genai import errors, types
from huggingface_hub import AsyncInferenceClient
from huggingface_hub import errors as hugging_face_errors
from langchain_openai import ChatOpenAI

MESSAGES: Any = [{"role": "user", "content": "hello"}]


class Clients:
    """Of the APIs below a URL. TGI's is at `/tgi`, its route one with `dialect = "tgi"`: what the client posts to is `/`."""

    def __init__(self, url: str, connections: Any) -> None:
        options: Any = {"api_key": "none", "max_retries": 0}
        gemini = types.HttpOptions(base_url=url, api_version="v1beta")
        self.url = url
        self.http = connections
        self.openai = openai.AsyncOpenAI(base_url=f"{url}/v1", http_client=connections, **options)
        self.anthropic = anthropic.AsyncAnthropic(base_url=url, http_client=connections, **options)
        self.google = genai.Client(api_key="none", http_options=gemini).aio
        self.ollama = ollama.AsyncClient(host=url)
        self.hugging_face = AsyncInferenceClient(f"{url}/tgi", token="none")
        self.langchain = ChatOpenAI(
            model="tiny", base_url=f"{url}/v1", stream_usage=False, http_async_client=connections, **options
        )


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Clients]:
    """Clients whose connections live as long."""
    async with openai.DefaultAsyncHttpxClient() as connections:
        clients = Clients(url, connections)
        async with clients.google:
            yield clients


Texts = AsyncGenerator[str, None]
"""The texts of a reply as they come, none of them empty. Closing it leaves the stream."""


async def _openai_chat(clients: Clients, streamed: bool) -> Texts:
    asked: Any = {"model": "tiny", "messages": MESSAGES}
    if not streamed:
        yield (await clients.openai.chat.completions.create(**asked)).choices[0].message.content or ""
        return
    async with await clients.openai.chat.completions.create(**asked, stream=True) as stream:
        async for part in stream:
            if part.choices and part.choices[0].delta.content:
                yield part.choices[0].delta.content


async def _openai_completions(clients: Clients, streamed: bool) -> Texts:
    asked: Any = {"model": "tiny", "prompt": "hello"}
    if not streamed:
        yield (await clients.openai.completions.create(**asked)).choices[0].text
        return
    async with await clients.openai.completions.create(**asked, stream=True) as stream:
        async for part in stream:
            if part.choices and part.choices[0].text:
                yield part.choices[0].text


async def _openai_responses(clients: Clients, streamed: bool) -> Texts:
    asked: Any = {"model": "tiny", "input": "hello"}
    if not streamed:
        yield (await clients.openai.responses.create(**asked)).output_text
        return
    async with await clients.openai.responses.create(**asked, stream=True) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta


async def _anthropic(clients: Clients, streamed: bool) -> Texts:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 9}
    if not streamed:
        yield (await clients.anthropic.messages.create(**asked)).content[0].text
        return
    async with clients.anthropic.messages.stream(**asked) as stream:
        async for text in stream.text_stream:
            yield text


async def _google_genai(clients: Clients, streamed: bool) -> Texts:
    asked: Any = {"model": "tiny", "contents": "hello"}
    if not streamed:
        yield (await clients.google.models.generate_content(**asked)).text or ""
        return
    try:
        async for part in await clients.google.models.generate_content_stream(**asked):
            if part.text:
                yield part.text
    except GeneratorExit:
        await clients.google.aclose()  # nothing else ends the connection of a stream that is left
        raise


async def _ollama_chat(clients: Clients, streamed: bool) -> Texts:
    if not streamed:
        yield (await clients.ollama.chat("tiny", MESSAGES)).message.content or ""
        return
    stream: Any = await clients.ollama.chat("tiny", MESSAGES, stream=True)
    async with aclosing(stream):
        async for part in stream:
            if part.message.content:
                yield part.message.content


async def _ollama_generate(clients: Clients, streamed: bool) -> Texts:
    if not streamed:
        yield (await clients.ollama.generate("tiny", "hello")).response or ""
        return
    stream: Any = await clients.ollama.generate("tiny", "hello", stream=True)
    async with aclosing(stream):
        async for part in stream:
            if part.response:
                yield part.response


async def _hugging_face(clients: Clients, streamed: bool) -> Texts:
    if not streamed:
        yield (await clients.hugging_face.text_generation("hello", details=True)).generated_text
        return
    stream: Any = await clients.hugging_face.text_generation("hello", details=True, stream=True)
    async with aclosing(stream):
        async for part in stream:
            if not part.token.special:
                yield part.token.text


async def _langchain(clients: Clients, streamed: bool) -> Texts:
    if not streamed:
        yield (await clients.langchain.ainvoke("hello")).text
        return
    stream: Any = clients.langchain.astream("hello")
    async with aclosing(stream):
        async for part in stream:
            if part.text:
                yield part.text


class Client(NamedTuple):
    """One API of one SDK. `wire` is its name in `wires`. `raises`: of what class its errors are at a status, and with `None`
    in a stream."""

    wire: str
    texts: Callable[[Clients, bool], Texts]
    raises: dict[int | None, type[Exception]]


_OPENAI: dict[int | None, type[Exception]] = {
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    413: openai.APIStatusError,
    429: openai.RateLimitError,
    **dict.fromkeys((502, 503, 504), openai.InternalServerError),
    None: openai.APIError,
}
_ANTHROPIC: dict[int | None, type[Exception]] = {
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    413: anthropic.APIStatusError,
    429: anthropic.RateLimitError,
    **dict.fromkeys((502, 503, 504), anthropic.InternalServerError),
    None: anthropic.APIStatusError,
}
_GEMINI: dict[int | None, type[Exception]] = {
    **dict.fromkeys((401, 403, 413, 429), errors.ClientError),
    **dict.fromkeys((502, 503, 504, None), errors.ServerError),
}
_OLLAMA: dict[int | None, type[Exception]] = dict.fromkeys(
    (401, 403, 413, 429, 502, 503, 504, None), ollama.ResponseError
)
_TGI: dict[int | None, type[Exception]] = {
    **dict.fromkeys((401, 403, 413), hugging_face_errors.ValidationError),
    **dict.fromkeys((429, 503), hugging_face_errors.OverloadedError),
    **dict.fromkeys((502, 504, None), hugging_face_errors.GenerationError),
}

CLIENTS: dict[str, Client] = {
    "openai, chat": Client("OpenAI chat completions", _openai_chat, _OPENAI),
    "openai, completions": Client("OpenAI completions", _openai_completions, _OPENAI),
    "openai, responses": Client("OpenAI Responses", _openai_responses, _OPENAI),
    "anthropic": Client("Anthropic Messages", _anthropic, _ANTHROPIC),
    "google-genai": Client("Gemini, events", _google_genai, _GEMINI),
    "ollama, chat": Client("Ollama chat", _ollama_chat, _OLLAMA),
    "ollama, generate": Client("Ollama generate", _ollama_generate, _OLLAMA),
    "huggingface_hub": Client("TGI", _hugging_face, _TGI),
    "langchain-openai": Client("OpenAI chat completions", _langchain, _OPENAI),
}


def status_of(error: BaseException | None) -> int | None:
    """The status that an SDK's error tells, by whatever name; of the error that caused it, where it tells none itself."""
    while error is not None:
        response = getattr(error, "response", None)
        for holder, name in ((error, "status_code"), (error, "code"), (response, "status_code")):
            if isinstance(found := getattr(holder, name, None), int):
                return found
        error = error.__cause__
    return None


def said_by(error: BaseException) -> str:
    """All that a program can see of an SDK's error."""
    body = getattr(error, "body", None) or getattr(error, "details", None)
    cause = getattr(error.__cause__, "response", None)
    return f"{error} {body} {'' if cause is None else cause.text}"
