"""Fixtures of the tests of `redaction` and `restore`: an exchange in any dialect, and what leaves it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from policies.redaction import Redaction, RedactionConfig
from proxy.dialects import choose
from proxy.errors import ConfigProblem
from proxy.messages import Request
from proxy.problems import check
from proxy.testing import FakeHost, Simulation, make_head, make_request

Configure = Callable[..., RedactionConfig]
Begin = Callable[..., Awaitable[Simulation]]
Chunk = Callable[..., bytes]
Ask = Callable[..., Request]


FEW = {
    "entities": [],
    "patterns": [
        {"name": "KEY", "pattern": r"sk-\d{4,8}", "before": r"\w", "after": r"\w"},
        {"name": "MAIL", "pattern": r"[a-z.]{1,20}@[a-z]{1,10}\.com", "before": r"[\w.]"},
        {"name": "CARD", "pattern": r"\d{4}(?: ?\d{4}){3}", "before": r"\d", "after": r"\d"},
    ],
}
"""Things to find of which a test can say what becomes of them."""


@pytest.fixture
def configure() -> Configure:
    """`configure(action="stop")`: a configuration as it is read from a file. AssertionError with what is wrong with it."""

    def configure(**keys: Any) -> RedactionConfig:
        found = check(RedactionConfig, {**FEW, **keys}, "redaction")
        if not isinstance(found, RedactionConfig):
            raise AssertionError("; ".join(map(str, found)))
        return found

    return configure


@pytest.fixture
def problems() -> Callable[..., list[ConfigProblem]]:
    """`problems(action="shout")`: what is wrong with a configuration."""

    def problems(**keys: Any) -> list[ConfigProblem]:
        found = check(RedactionConfig, {**FEW, **keys}, "redaction")
        assert isinstance(found, list), "nothing is wrong"
        return found

    return problems


@pytest.fixture
def ask() -> Ask:
    """`ask({"messages": []}, "openai-chat")`: a request with this document, or these bytes."""

    def ask(document: Any = None, dialect: str = "openai-chat", content_type: str = "application/json") -> Request:
        request = make_request(dialect=choose(dialect, "/"), headers={"Content-Type": content_type})
        if document is not None:
            request.replace_body(document if isinstance(document, bytes) else json.dumps(document).encode())
        return request

    return ask


@pytest.fixture
def begin(configure: Configure, ask: Ask) -> Begin:
    """`await begin("openai-chat", "application/json", status=500, action="stop")`: an exchange whose reply's head came."""

    async def begin(
        dialect: str = "openai-chat", content_type: str = "text/event-stream", status: int = 200, **keys: Any
    ) -> Simulation:
        request = ask(dialect=dialect)
        exchange = await Simulation.admit(Redaction(configure(**keys), FakeHost("redaction")), request)
        exchange.start()
        exchange.respond(make_head(request, content_type, status=status))
        return exchange

    return begin


@pytest.fixture
def chunk() -> Chunk:
    """`chunk({"content": "a"}, index=1, finish="stop")`: an event of a chat completion."""

    def chunk(
        delta: Any = None, *, index: int = 0, finish: str | None = None, beside: Any = None, **choice: Any
    ) -> bytes:
        said = {"index": index, "delta": delta or {}, "finish_reason": finish, **choice}
        document = {"id": "c1", "object": "chat.completion.chunk", "choices": [said], **(beside or {})}
        return b"data: " + json.dumps(document).encode() + b"\n\n"

    return chunk
