"""Every outcome of the closed list has its log line: one exchange, one line, one outcome."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rigs import raw_upstream
from rigs.penstock import Penstock, Record, StartPenstock, configuration, run, side_by_side
from rigs.raw_client import RawClient, connect, get, post
from rigs.raw_upstream import CHAT_EVENTS, STREAM_HEAD, RawUpstream, Script, chunk

from proxy.errors import OutcomeKind

pytestmark = pytest.mark.aiohttp_paths

POLICIES = (
    {"use": "rig_refuse", "name": "refuse"},
    {"use": "idle_timeout", "name": "hurry", "first_byte_s": 0.1},
    {"use": "rig_watch", "name": "watch"},
    {"use": "rig_stop", "name": "stop"},
    {"use": "rig_stop", "name": "stop-with-length", "events": 2, "ending": "length"},
    {"use": "rig_stop", "name": "stop-with-error", "events": 2, "ending": "error"},
    {"use": "rig_raise", "name": "raise-in-admit", "hook": "admit"},
    {"use": "rig_raise", "name": "raise-in-on_response", "hook": "on_response"},
    {"use": "rig_raise", "name": "raise-in-on_events", "hook": "on_events"},
)
"""Each is the whole chain of a route with its own name; the route "none" has none."""


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock) -> Penstock:
    chains = [{**policy, "routes": [policy["name"]]} for policy in POLICIES]
    names = [str(policy["name"]) for policy in POLICIES]
    return penstock(side_by_side("none", *names), {"policy": chains, "log": {"level": "debug"}})


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
    route: str
    logged: dict[str, Any]
    client: Callable[[RawClient], Awaitable[None]] = read


STREAM = raw_upstream.streams(*CHAT_EVENTS)
BEGUN = STREAM_HEAD + chunk(CHAT_EVENTS[0])
GARBAGE = raw_upstream.then_closes(b"what?\r\n\r\n")
ENDS = {
    OutcomeKind.COMPLETE: End(STREAM, "none", {"details": "", "source": "", "status": 200}),
    OutcomeKind.STOPPED: End(STREAM, "stop", {"details": "enough", "source": "stop", "status": 200}),
    OutcomeKind.REFUSED: End(STREAM, "refuse", {"details": "rig_refused", "source": "refuse", "status": 429}),
    OutcomeKind.UPSTREAM_ERROR: End(
        raw_upstream.then_closes(b""), "none", {"details": "upstream_reset", "status": 502}
    ),
    OutcomeKind.UPSTREAM_TRUNCATED: End(
        raw_upstream.then_closes(BEGUN), "none", {"details": "upstream_truncated", "status": 200}
    ),
    OutcomeKind.UPSTREAM_GARBAGE: End(GARBAGE, "none", {"details": "upstream_garbage", "status": 502}),
    OutcomeKind.CLIENT_GONE: End(raw_upstream.then_stalls(BEGUN), "none", {"details": "client_gone"}, leave),
    OutcomeKind.TIMEOUT: End(
        raw_upstream.then_stalls(b""), "hurry", {"details": "first_byte_timeout", "source": "hurry", "status": 504}
    ),
    OutcomeKind.POLICY_ERROR: End(
        STREAM, "raise-in-on_events", {"details": "policy_error", "source": "raise-in-on_events", "status": 200}
    ),
}


@pytest.mark.parametrize(("kind", "end"), ENDS.items(), ids=[kind.name for kind in ENDS])
async def test_outcome_is_logged_once(proxy: Penstock, upstream: RawUpstream, kind: OutcomeKind, end: End) -> None:
    upstream.script = end.script
    target = f"/{end.route}/v1/chat/completions?key=secret"
    async with connect(proxy.address) as client:
        await client.send(post(target, b'{"stream":true}', f"X-Request-Id: {kind.value}"))
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


async def test_line_of_an_ordinary_exchange(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = STREAM
    async with connect(proxy.address) as client:
        target = "/watch/v1/chat/completions?user=x"
        await client.exchange(post(target, b'{"stream":true}', "X-Request-Id: ordinary"))
    record: Record = await proxy.log.find(id="ordinary")
    body = b"".join(CHAT_EVENTS)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert 0 <= record["ttft_ms"] <= record["duration_ms"]
    expected = {
        "id": "ordinary",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/watch/v1/chat/completions",
        "route": "watch",
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


READERS = ("none", "watch", "stop", "raise-in-admit", "raise-in-on_response", "raise-in-on_events")


@pytest.mark.parametrize("route", READERS)
async def test_content_never_reaches_a_log(proxy: Penstock, upstream: RawUpstream, route: str) -> None:
    secret = "a-very-private-text"
    upstream.script = raw_upstream.then_resets(STREAM_HEAD + chunk(raw_upstream.chat_event(secret) * 2))
    async with connect(proxy.address) as client:
        target = f"/{route}/v1/chat/completions?q={secret}"
        body = b'{"stream":true,"user":"%b"}' % secret.encode()
        await client.send(post(target, body, f"X-Request-Id: private-{route}", f"Cookie: {secret}"))
        await client.read_head()
        await proxy.log.find(id=f"private-{route}")
    assert secret not in proxy.output


async def test_log_lines_cannot_be_forged(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.exchange(get('/a%0A{"outcome":"forged"}', 'X-Request-Id: x","outcome":"forged'))
        await client.exchange(get("/%22,%22outcome%22:%22forged"))
    await proxy.log.find(path="/%22,%22outcome%22:%22forged")
    assert "forged" not in [record["outcome"] for record in proxy.log.records]


async def test_access_log_can_be_turned_off(upstream: RawUpstream, tmp_path: Path) -> None:
    with run(configuration(upstream.url, {"log": {"access": False}}), tmp_path) as proxy:
        async with connect(proxy.address) as client:
            assert (await client.exchange(get("/"))).status == 200
    assert proxy.log.records == []  # it has ended, so whatever it had to say it has said


@pytest.mark.parametrize("ending", ["length", "error"])
async def test_stop_in_the_dialects_words(proxy: Penstock, upstream: RawUpstream, ending: str) -> None:
    upstream.script = STREAM
    async with connect(proxy.address) as client:
        answer = await client.exchange(post(f"/stop-with-{ending}/v1/chat/completions", b'{"stream":true}'))
    events = [event for event in answer.body.split(b"\n\n") if event]
    assert [event + b"\n\n" for event in events[:2]] == list(CHAT_EVENTS[:2])
    if ending == "length":
        assert b'"finish_reason":"length"' in events[2]
        assert events[-1] == b"data: [DONE]"
    else:
        assert b'"error"' in events[2]
        assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("hook", ["admit", "on_response", "on_events"])
async def test_policy_that_raises_lets_nothing_through(proxy: Penstock, upstream: RawUpstream, hook: str) -> None:
    body = b'{"choices": "blabla"}'
    upstream.script = raw_upstream.replies(raw_upstream.reply(body, "Content-Type: application/json"))
    async with connect(proxy.address) as client:
        answer = await client.exchange(post(f"/raise-in-{hook}/v1/chat/completions", b"{}"))
    assert answer.status == 500
    assert b"blabla" not in answer.body
    assert b"mistake" not in answer.body
    assert (upstream.requests == []) is (hook == "admit")
