"""What the tests of the SDKs have in common: proxies before a model server, a mock and scripted upstreams; ends of streams."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from . import raw_upstream
from .penstock import Penstock, StartPenstock, Tables, side_by_side
from .raw_client import connect, post
from .raw_upstream import CHAT_EVENTS, STREAM_HEAD, RawUpstream, chunk

MOCK_SAYS = "One two three, né 😀 four five six seven."
"""What the mock answers where nothing else is asked for, in pieces of `aimock.CHUNK_CHARACTERS`."""

BODY_BYTES = 10_000
"""The longest request that the proxies here let in."""

_EVERYDAY: list[Tables] = [
    {"use": "idle_timeout", "first_byte_s": 30.0, "silence_s": 1.0},
    {"use": "heartbeat", "interval_s": 0.1},
    {"use": "compression"},
]


def before_model(penstock: StartPenstock, url: str) -> Penstock:
    """Timeouts, heartbeats and compression before llama.cpp."""
    return penstock({"policy": _EVERYDAY}, {"upstreams": {"model": {"url": url}}})


def before_script(penstock: StartPenstock) -> Penstock:
    """The same before the raw upstream; only below /v1."""
    return penstock({"policy": _EVERYDAY, "limits": {"body_bytes": BODY_BYTES}, "routes": {"all": {"path": "/v1"}}})


def before_mock(penstock: StartPenstock, url: str) -> Penstock:
    """Before the mock: a route with policies that read events and change none, one that compresses, and two with a budget of
    three tokens each."""
    limit = {"use": "token_limit", "per": "all", "windows": [{"tokens": 3, "window_s": "total", "what": "output"}]}
    limited = ("limited", "limited-too")
    policies = [
        {"use": "rig_watch", "routes": ["watched", "compressed"]},
        *({**limit, "name": route, "routes": [route]} for route in limited),
        {"use": "heartbeat", "interval_s": 0.1, "routes": ["watched"]},
        {"use": "compression", "routes": ["compressed"]},
    ]
    return penstock(
        side_by_side("watched", "compressed", *limited), {"policy": policies}, {"upstreams": {"model": {"url": url}}}
    )


def guarded(penstock: StartPenstock) -> Penstock:
    """Before the raw upstream: `plain` and `patient` have timeouts, `patient` and `calm` heartbeats."""
    policies = [
        {"use": "idle_timeout", "first_byte_s": 0.5, "silence_s": 0.5, "routes": ["plain", "patient"]},
        {"use": "rig_watch"},
        {"use": "heartbeat", "interval_s": 0.1, "before_first_byte_s": 0.1, "routes": ["patient", "calm"]},
    ]
    routes = {"routes": {"all": {"path": "/all"}}}
    limits = {"limits": {"body_bytes": BODY_BYTES}}
    return penstock(side_by_side("patient", "calm", "plain"), routes, {"policy": policies}, limits)


@contextlib.asynccontextmanager
async def calm(proxy: Penstock, upstream: RawUpstream) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """`await silence()`: returns when a stream beside, through `calm`, has had heartbeats: so long is a silence that is broken
    wherever it may be. To be entered before the upstream is given its script."""
    upstream.script = raw_upstream.then_stalls(STREAM_HEAD + chunk(CHAT_EVENTS[0]))
    async with connect(proxy.address) as beside:
        await beside.send(post("/calm/v1/chat/completions", b'{"stream": true}'))
        await beside.read_until(CHAT_EVENTS[0])

        async def silence() -> None:
            for _ in range(2):  # the first may come at once
                await beside.read_until(b": keep-alive\n\n")

        yield silence


def breaks_off(answer: int) -> Any:
    """Ends of a stream: `end` makes the script of what it has come to, `delivered` is the number of its events that came, the
    first text being in number `answer`, and `code` is the cause that a client can tell."""
    return pytest.mark.parametrize(
        ("end", "delivered", "code"),
        [
            (raw_upstream.then_closes, 0, "upstream_truncated"),
            (raw_upstream.then_closes, answer + 1, "upstream_truncated"),
            (raw_upstream.then_stalls, 1, "upstream_silence"),
            (raw_upstream.then_stalls, answer + 1, "upstream_silence"),
        ],
        ids=["closed at once", "closed", "silent at once", "silent"],
    )


STREAM_OR_WHOLE = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
