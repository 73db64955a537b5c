"""A model server that misbehaves: the client is told, in its dialect, and never takes a part for the whole."""

from __future__ import annotations

import gzip
import json

import pytest
from rigs import faults, raw_upstream
from rigs.aiohttp_paths import told
from rigs.faults import Misbehaviour
from rigs.penstock import Penstock, StartPenstock, Tables
from rigs.raw_client import RawClient, connect, get, post
from rigs.raw_upstream import CHAT_EVENTS, LAST_CHUNK, STREAM_HEAD, RawUpstream, chunk, reply
from rigs.wire import NO_BODY_STATUS, details

from proxy.errors import FAULTS

pytestmark = pytest.mark.aiohttp_paths

READING = {"policy": [{"use": "rig_watch"}], "limits": {"event_bytes": 100_000}}


@pytest.fixture(scope="module", params=[{}, READING], ids=["pass-through", "reading"])
def chain(request: pytest.FixtureRequest) -> Tables:
    """What happens to a reply must not depend on whether a policy reads it, but for the phrase behind its status."""
    tables: Tables = request.param
    return tables


@pytest.fixture(scope="module")
def proxy(penstock: StartPenstock, chain: Tables) -> Penstock:
    return penstock(chain)


async def ask(client: RawClient, request_id: str) -> None:
    await client.send(post("/v1/chat/completions", b'{"stream": true}', f"X-Request-Id: {request_id}"))


@pytest.mark.parametrize("name", faults.BEFORE_THE_HEAD)
async def test_before_the_head(
    proxy: Penstock, upstream: RawUpstream, aiohttp_path: str, name: str, request: pytest.FixtureRequest
) -> None:
    misbehaviour = faults.BEFORE_THE_HEAD[name]
    upstream.script = misbehaviour.script
    async with connect(proxy.address) as client:
        await ask(client, f"{id(request.node)}")
        answer = await client.reply()
        assert answer.status == 502
        assert details(answer) == misbehaviour.details
        error = json.loads(answer.body)["error"]
        assert FAULTS[misbehaviour.details].message in error["message"]
        if told(aiohttp_path, f"{name}: the connection is closed", True):
            upstream.script = raw_upstream.then_closes(reply(b"fine"))
            await ask(client, "after")  # the client did nothing wrong: its connection lives on
            assert (await client.reply()).body == b"fine"
            await upstream.idle()  # and what was left of the bad connection is closed
        else:
            assert upstream.connections[0].is_open
    record = await proxy.log.find(id=f"{id(request.node)}")
    assert (record["outcome"], record["details"], record["status"]) == (misbehaviour.outcome, misbehaviour.details, 502)


@pytest.mark.parametrize("name", faults.IN_THE_BODY)
async def test_in_the_body(
    proxy: Penstock, upstream: RawUpstream, aiohttp_path: str, name: str, request: pytest.FixtureRequest
) -> None:
    script, *known = faults.IN_THE_BODY[name]
    misbehaviour = Misbehaviour(script, *told(aiohttp_path, name, known))
    await _is_visibly_incomplete(proxy, upstream, misbehaviour, f"{id(request.node)}")


async def _is_visibly_incomplete(proxy: Penstock, upstream: RawUpstream, fault: Misbehaviour, request_id: str) -> None:
    upstream.script = fault.script
    async with connect(proxy.address) as client:
        await ask(client, request_id)
        try:
            answer = await client.reply()
        except (EOFError, ConnectionError):
            answer = None  # the transfer itself is visibly cut
        if answer is not None:
            told = answer.body if answer.status == 502 else answer.body.rpartition(b"data: ")[2]
            assert FAULTS[fault.details].message in json.loads(told)["error"]["message"]
            assert b"[DONE]" not in answer.body
    await upstream.idle()
    record = await proxy.log.find(id=request_id)
    assert (record["outcome"], record["details"]) == (fault.outcome, fault.details)


async def test_what_came_before_the_fault_is_delivered(
    proxy: Penstock, upstream: RawUpstream, aiohttp_path: str
) -> None:
    upstream.script = raw_upstream.then_resets(STREAM_HEAD + chunk(CHAT_EVENTS[0]) + chunk(CHAT_EVENTS[1]))
    async with connect(proxy.address) as client:
        await ask(client, "partial")
        answer = await client.reply()
    first, second, ending = answer.body.split(b"\n\n")[:3]
    assert [first + b"\n\n", second + b"\n\n"] == list(CHAT_EVENTS[:2])
    code = json.loads(ending.removeprefix(b"data: "))["error"]["code"]
    assert code == told(aiohttp_path, "resets, in the ending", "upstream_reset")


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, 529])
async def test_errors_of_the_upstream_pass_as_they_are(
    proxy: Penstock, upstream: RawUpstream, chain: Tables, status: int
) -> None:
    body = b'{"error": {"message": "no", "type": "t", "param": null, "code": null}}'
    fields = ("Content-Type: application/json", "Retry-After: 3")
    upstream.script = raw_upstream.replies(reply(body, *fields, status=f"{status} Because"))
    async with connect(proxy.address) as client:
        await ask(client, f"status-{status}")
        answer = await client.reply()
    assert (answer.status, answer.body) == (status, body)
    assert (answer.reason == "Because") == (chain is not READING)  # of which no policy sees the phrase
    assert answer.head.get("Retry-After") == "3"
    record = await proxy.log.find(id=f"status-{status}")
    assert (record["outcome"], record["status"]) == ("complete", status)


async def test_folded_field_is_unfolded_or_refused(proxy: Penstock, upstream: RawUpstream) -> None:
    """RFC 9112 §5.2: it may be garbage or a space, but no client is sent the fold."""
    upstream.script = raw_upstream.then_closes(reply(b"{}", "X-Folded: one\r\n two", "X-Next: 1"))
    async with connect(proxy.address) as client:
        await ask(client, "folded")
        answer = await client.reply()
    if answer.status == 200:
        assert (answer.head.get("X-Folded") or "").split() == ["one", "two"]
        assert answer.head.get("X-Next") == "1"
    else:
        assert details(answer) == "upstream_garbage"
    assert b"\r\n two" not in client.received


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "application/octet-stream", ""])
async def test_body_that_is_not_what_its_type_says(proxy: Penstock, upstream: RawUpstream, kind: str) -> None:
    body = b"\xff\xfe this is \x00 neither SSE nor JSON {"
    upstream.script = raw_upstream.replies(reply(body, *([f"Content-Type: {kind}"] if kind else [])))
    async with connect(proxy.address) as client:
        await ask(client, f"odd-{kind}")
        answer = await client.reply()
    assert answer.body == body
    assert answer.status not in NO_BODY_STATUS


async def test_refused_connection(penstock: StartPenstock, upstream_port_closed: int) -> None:
    proxy = penstock({"upstreams": {"model": {"url": f"http://127.0.0.1:{upstream_port_closed}"}}})
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/v1/chat/completions", "X-Request-Id: nobody"))
    assert (answer.status, details(answer)) == (502, "upstream_unreachable")
    assert str(upstream_port_closed).encode() not in answer.body
    assert (await proxy.log.find(id="nobody"))["outcome"] == "upstream_error"


async def test_name_that_does_not_resolve(penstock: StartPenstock) -> None:
    proxy = penstock({"upstreams": {"model": {"url": "http://model.invalid"}}})
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/"))
    assert (answer.status, details(answer)) == (502, "upstream_unreachable")
    assert b"model.invalid" not in answer.body


@pytest.mark.parametrize("misbehaviour", faults.UNREADABLE.values(), ids=faults.UNREADABLE)
async def test_what_cannot_be_read_is_not_passed_blind(
    penstock: StartPenstock, upstream: RawUpstream, misbehaviour: Misbehaviour, request: pytest.FixtureRequest
) -> None:
    await _is_visibly_incomplete(penstock(READING), upstream, misbehaviour, f"{id(request.node)}")


@pytest.mark.parametrize("delimited", ["length", "chunked"])
async def test_coding_that_came_unasked_is_undone_for_a_reader(
    penstock: StartPenstock, upstream: RawUpstream, delimited: str
) -> None:
    body = b"".join(CHAT_EVENTS)
    coded = gzip.compress(body, mtime=0)
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    whole = reply(coded, faults.EVENT_STREAM, "Content-Encoding: gzip", 'ETag: "x"')
    in_chunks = head + b"".join(chunk(coded[start : start + 7]) for start in range(0, len(coded), 7)) + LAST_CHUNK
    upstream.script = raw_upstream.replies(whole if delimited == "length" else in_chunks)
    async with connect(penstock(READING).address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b"{}", "Accept-Encoding: gzip"))
    assert answer.body == body
    assert answer.head.get("Content-Encoding") is None
    assert answer.head.get("ETag") is None
    assert (await upstream.request()).head.get("Accept-Encoding") == "identity"


async def test_whole_reply_over_the_limit_is_not_kept_for_a_reader(
    penstock: StartPenstock, upstream: RawUpstream
) -> None:
    upstream.script = raw_upstream.replies(reply(b'{"x": "%b"}' % (b"x" * 5000), "Content-Type: application/json"))
    proxy = penstock({"policy": [{"use": "rig_watch"}], "limits": {"reply_bytes": 4000}})
    async with connect(proxy.address) as client:
        answer = await client.exchange(post("/v1/chat/completions", b"{}"))
    assert (answer.status, details(answer)) == (502, "event_too_large")
