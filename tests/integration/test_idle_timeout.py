"""`idle_timeout` over the wire: its three limits, before the head, in a stream and in a whole reply."""

from __future__ import annotations

import json
import math
import time
from functools import partial

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, StartPenstock, side_by_side
from rigs.raw_client import RawClient, connect, post
from rigs.raw_upstream import (
    CHAT_EVENTS,
    LAST_CHUNK,
    STREAM_HEAD,
    RawUpstream,
    Script,
    UpstreamConnection,
    chunk,
    reply,
)
from rigs.waiting import until
from rigs.wire import details

OFF = {"first_byte_s": 0.0, "silence_s": 0.0, "deadline_s": 0.0}
LIMIT_S = 0.5


def ask(limit: str, request_id: str, reading: bool) -> bytes:
    route = f"{limit}-reading" if reading else limit
    return post(f"/{route}/v1/chat/completions", b'{"stream":true}', f"X-Request-Id: {request_id}")


class HandToHand:
    """An upstream that sends an event whenever the client has had the one before: never silent, and never a flood."""

    def __init__(self, client: RawClient, lasts_s: float = math.inf) -> None:
        self._client = client
        self._lasts_s = lasts_s

    async def __call__(self, connection: UpstreamConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD)
        begun = time.monotonic()
        while time.monotonic() < begun + self._lasts_s:
            had = len(self._client.received)
            await connection.send_chunk(CHAT_EVENTS[0])
            await until(partial(self._goes_on, connection, had), "an event to reach the client")
        await connection.send(LAST_CHUNK)

    def _goes_on(self, connection: UpstreamConnection, had: int) -> bool:
        return len(self._client.received) > had or connection.at_end()


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    """A route for each limit, without and with a chain that reads events."""
    limits = ("first_byte_s", "silence_s", "deadline_s")
    timeouts = [
        {"use": "idle_timeout", "name": limit, **OFF, limit: LIMIT_S, "routes": [limit, f"{limit}-reading"]}
        for limit in limits
    ]
    watch = {"use": "rig_watch", "routes": [f"{limit}-reading" for limit in limits]}
    return penstock(side_by_side(*limits, *watch["routes"]), {"policy": [*timeouts, watch]})


@pytest.mark.parametrize("reading", [False, True], ids=["pass-through", "reading"])
@pytest.mark.parametrize(
    ("limit", "script", "why"),
    [
        ("first_byte_s", raw_upstream.then_stalls(b""), "first_byte_timeout"),
        ("deadline_s", raw_upstream.then_stalls(b""), "deadline"),
    ],
    ids=["first byte", "deadline"],
)
async def test_before_anything_was_sent(
    proxy: Penstock, upstream: RawUpstream, limit: str, script: Script, why: str, reading: bool
) -> None:
    upstream.script = script
    request_id = f"{why}-{reading}"
    async with connect(proxy.address) as client:
        answer = await client.exchange(ask(limit, request_id, reading))
    assert (answer.status, details(answer)) == (504, why)
    assert json.loads(answer.body)["error"]["code"] == why
    await upstream.idle()
    record = await proxy.log.find(id=request_id)
    assert (record["outcome"], record["details"], record["source"]) == ("timeout", why, limit)


@pytest.mark.parametrize("reading", [False, True], ids=["pass-through", "reading"])
@pytest.mark.parametrize(
    ("limit", "script", "why"),
    [
        ("first_byte_s", raw_upstream.then_stalls(STREAM_HEAD), "first_byte_timeout"),
        ("silence_s", raw_upstream.then_stalls(STREAM_HEAD + chunk(CHAT_EVENTS[0])), "upstream_silence"),
        ("deadline_s", None, "deadline"),
    ],
    ids=["first byte", "silence", "deadline"],
)
async def test_in_a_stream(
    proxy: Penstock, upstream: RawUpstream, limit: str, script: Script | None, why: str, reading: bool
) -> None:
    request_id = f"stream-{why}-{reading}"
    async with connect(proxy.address) as client:
        upstream.script = script or HandToHand(client)
        answer = await client.exchange(ask(limit, request_id, reading))
    assert answer.status == 200
    events = answer.body.removesuffix(b"\n\n").split(b"\n\n")
    assert json.loads(events[-1].removeprefix(b"data: "))["error"]["code"] == why
    assert b"[DONE]" not in answer.body
    await upstream.idle()
    record = await proxy.log.find(id=request_id)
    assert (record["outcome"], record["details"], record["status"]) == ("timeout", why, 200)


async def test_silence_in_a_whole_reply_that_is_read(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = raw_upstream.then_stalls(reply(b'{"choices":[]}', "Content-Type: application/json")[:-5])
    async with connect(proxy.address) as client:
        answer = await client.exchange(ask("silence_s", "whole", reading=True))
    assert (answer.status, details(answer)) == (504, "upstream_silence")
    assert b"choices" not in answer.body


async def test_stream_that_moves_is_left_alone(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        upstream.script = HandToHand(client, lasts_s=3 * LIMIT_S)
        answer = await client.exchange(ask("silence_s", "moves", reading=False))
    assert answer.body == CHAT_EVENTS[0] * answer.body.count(CHAT_EVENTS[0])
    assert (await proxy.log.find(id="moves"))["outcome"] == "complete"
