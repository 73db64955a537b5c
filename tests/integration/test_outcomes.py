"""Every outcome of the closed list has its log line: one exchange, one line, one outcome."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, Record, StartPenstock
from rigs.raw_client import RawClient, connect, get, post
from rigs.raw_upstream import CHAT_EVENTS, STREAM_HEAD, RawUpstream, Script, chunk

from proxy.errors import OutcomeKind

STREAM = raw_upstream.streams(*CHAT_EVENTS)


async def read(client: RawClient) -> None:
    """Take the whole reply."""
    await client.reply()


async def leave(client: RawClient) -> None:
    """Go away in the middle of it."""
    await client.read_until(CHAT_EVENTS[0])
    client.close()


class End(NamedTuple):
    """How to bring an exchange to an end, and what the log has to say of it."""

    script: Script
    policies: list[dict[str, Any]]
    logged: dict[str, Any]
    client: Callable[[RawClient], Awaitable[None]] = read


def policy(use: str, **keys: Any) -> list[dict[str, Any]]:
    return [{"use": use, **keys}]


ENDS = {
    OutcomeKind.COMPLETE: End(STREAM, [], {"details": "", "source": "", "status": 200}),
    OutcomeKind.STOPPED: End(
        STREAM, policy("rig_stop", name="limit"), {"details": "enough", "source": "limit", "status": 200}
    ),
    OutcomeKind.REFUSED: End(
        STREAM, policy("rig_refuse", name="door"), {"details": "rig_refused", "source": "door", "status": 429}
    ),
    OutcomeKind.UPSTREAM_ERROR: End(raw_upstream.then_closes(b""), [], {"details": "upstream_reset", "status": 502}),
    OutcomeKind.UPSTREAM_TRUNCATED: End(
        raw_upstream.then_closes(STREAM_HEAD + chunk(CHAT_EVENTS[0])),
        [],
        {"details": "upstream_truncated", "status": 200},
    ),
    OutcomeKind.UPSTREAM_GARBAGE: End(
        raw_upstream.then_closes(b"what?\r\n\r\n"), [], {"details": "upstream_garbage", "status": 502}
    ),
    OutcomeKind.CLIENT_GONE: End(
        raw_upstream.then_stalls(STREAM_HEAD + chunk(CHAT_EVENTS[0])), [], {"details": "client_gone"}, leave
    ),
    OutcomeKind.TIMEOUT: End(
        raw_upstream.then_stalls(b""),
        policy("idle_timeout", first_byte_s=0.1),
        {"details": "first_byte_timeout", "source": "idle_timeout", "status": 504},
    ),
    OutcomeKind.POLICY_ERROR: End(
        STREAM, policy("rig_raise", name="broken"), {"details": "policy_error", "source": "broken", "status": 200}
    ),
}


@pytest.mark.parametrize(("kind", "end"), ENDS.items(), ids=lambda value: getattr(value, "name", ""))
async def test_outcome_is_logged_once(
    penstock: StartPenstock, upstream: RawUpstream, kind: OutcomeKind, end: End
) -> None:
    proxy = penstock({"policy": end.policies})
    upstream.script = end.script
    async with connect(proxy.address) as client:
        await client.send(post("/v1/chat/completions?key=secret", b'{"stream":true}', f"X-Request-Id: {kind.value}"))
        await end.client(client)
    record = await proxy.log.find(id=kind.value)
    assert record["outcome"] == kind.value
    assert {key: record[key] for key in end.logged} == end.logged
    await is_alone(proxy, kind.value)


async def is_alone(proxy: Penstock, request_id: str) -> None:
    """The line is the only one: whatever would still come has come once another exchange has been logged."""
    async with connect(proxy.address) as client:
        await client.exchange(get("/\\", "X-Request-Id: after-" + request_id))
    await proxy.log.find(id="after-" + request_id)
    assert [record["id"] for record in proxy.log.records].count(request_id) == 1


def test_every_outcome_is_covered() -> None:
    elsewhere = {OutcomeKind.SHUTDOWN}  # test_drain: it ends the process
    assert ENDS.keys() | elsewhere == set(OutcomeKind)


async def test_line_of_an_ordinary_exchange(penstock: StartPenstock, upstream: RawUpstream) -> None:
    upstream.script = STREAM
    proxy = penstock({"policy": policy("rig_watch", name="watch")})
    async with connect(proxy.address) as client:
        await client.exchange(post("/v1/chat/completions?user=x", b'{"stream":true}', "X-Request-Id: ordinary"))
    record: Record = await proxy.log.find(id="ordinary")
    body = b"".join(CHAT_EVENTS)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert 0 <= record["ttft_ms"] <= record["duration_ms"]
    expected = {
        "id": "ordinary",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "route": "all",
        "upstream": "model",
        "status": 200,
        "outcome": "complete",
        "events": len(CHAT_EVENTS),
        "request_bytes": len(b'{"stream":true}'),
        "upstream_bytes": len(body),
        "downstream_bytes": len(body),
        "facts": {"watch": {"characters": len("one two three")}},
    }
    assert {key: record[key] for key in expected} == expected


async def test_content_never_reaches_a_log(penstock: StartPenstock, upstream: RawUpstream) -> None:
    secret = "a-very-private-text"
    upstream.script = raw_upstream.then_resets(STREAM_HEAD + chunk(raw_upstream.chat_event(secret)))
    for policies in ([], policy("rig_watch"), policy("rig_raise", hook="on_events"), policy("rig_raise", hook="admit")):
        proxy = penstock({"policy": policies, "log": {"level": "debug"}})
        async with connect(proxy.address) as client:
            request = post(f"/v1/chat/completions?q={secret}", b'{"stream":true,"user":"%b"}' % secret.encode())
            await client.send(request)
            await client.read_head()
        await proxy.log.find(path="/v1/chat/completions")
        assert secret not in proxy.output


async def test_log_lines_cannot_be_forged(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({})
    async with connect(proxy.address) as client:
        await client.exchange(get('/a%0A{"outcome":"forged"}', 'X-Request-Id: x","outcome":"forged'))
        await client.exchange(get("/%22,%22outcome%22:%22forged"))
    await proxy.log.find(path="/%22,%22outcome%22:%22forged")
    assert "forged" not in [record["outcome"] for record in proxy.log.records]


async def test_access_log_can_be_turned_off(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"log": {"access": False}})
    async with connect(proxy.address) as client:
        await client.exchange(get("/"))
    assert proxy.log.records == []


@pytest.mark.parametrize("ending", ["length", "error"])
async def test_stop_in_the_dialects_words(penstock: StartPenstock, upstream: RawUpstream, ending: str) -> None:
    upstream.script = raw_upstream.streams(*CHAT_EVENTS)
    proxy = penstock({"policy": policy("rig_stop", events=2, ending=ending)})
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b'{"stream":true}'))
    events = [event for event in answer.body.split(b"\n\n") if event]
    assert [event + b"\n\n" for event in events[:2]] == list(CHAT_EVENTS[:2])
    if ending == "length":
        assert b'"finish_reason":"length"' in events[2]
        assert events[-1] == b"data: [DONE]"
    else:
        assert b'"error"' in events[2]
        assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("hook", ["admit", "on_response", "on_events"])
async def test_policy_that_raises_lets_nothing_through(
    penstock: StartPenstock, upstream: RawUpstream, hook: str
) -> None:
    upstream.script = raw_upstream.replies(
        raw_upstream.reply(b'{"choices": "blabla"}', "Content-Type: application/json")
    )
    proxy = penstock({"policy": policy("rig_raise", hook=hook)})
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b"{}"))
    assert answer.status == 500
    assert b"blabla" not in answer.body
    assert b"mistake" not in answer.body
    assert (upstream.requests == []) is (hook == "admit")
