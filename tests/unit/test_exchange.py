"""One request to its one outcome: admission in order, the body where it is asked for, the asking and what interrupts it."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
from rigs.doubles import Client, Hooks, Reading, Shout, StreamLimits

from proxy.dialects import choose
from proxy.errors import COMPLETE, Outcome, OutcomeKind, RequestError, UpstreamError
from proxy.exchange import Exchange, Place, Route
from proxy.messages import Chunks, Headers, Reply, Request
from proxy.policy import Encoder, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage, Stop
from proxy.sink import Informational, on_informational
from proxy.testing import FakeHost, make_request, sse
from proxy.upstream import Upstream

LIMITS = StreamLimits()

Answer = PolicyStream | Encoder | Reply | None
Admit = Callable[[Request], Awaitable[Answer]]


class Door(Policy[PolicyConfig]):
    """A policy whose `admit` is the test's."""

    stage = Stage.GUARD

    def __init__(self, admit: Admit, *, needs_body: bool) -> None:
        super().__init__(PolicyConfig(), FakeHost())
        self._admit = admit
        self.needs_body = needs_body

    async def admit(self, request: Request) -> Answer:
        return await self._admit(request)


class AttachmentDoor(Door):
    scope = Scope.ATTACHMENT


class ReadingDoor(Door):
    sees = Sees.EVENTS


class ReadingAttachmentDoor(ReadingDoor):
    scope = Scope.ATTACHMENT


def gives(answer: object) -> Admit:
    async def admit(request: Request) -> Answer:
        return cast(Answer, answer)

    return admit


async def refuses(request: Request) -> Answer:
    return Reply(429, details="not_today")


async def fails(request: Request) -> Answer:
    raise KeyError("the author's mistake")


async def never(request: Request) -> Answer:
    raise AssertionError("this policy should not have been asked")


def place(
    admit: Admit | PolicyStream,
    name: str = "policy",
    *,
    kind: type[Door] = Door,
    needs_body: bool = False,
    bypass: bool = False,
) -> Place:
    policy = kind(gives(admit) if isinstance(admit, PolicyStream) else admit, needs_body=needs_body)
    return Place(name, policy, bypass)


class Model:
    """An upstream that answers with `answer` once that is set."""

    name = "model"

    def __init__(self) -> None:
        self.answer: asyncio.Future[Reading] = asyncio.get_running_loop().create_future()
        self.asked: list[tuple[Request, str, bool]] = []
        self.informational: Informational | None = None
        self.interrupted = False
        self.begun = asyncio.Event()

    async def open(self, request: Request, path: str, *, identity: bool) -> Reading:
        self.asked.append((request, path, identity))
        self.informational = on_informational.get()
        self.begun.set()
        try:
            return await asyncio.shield(self.answer)
        except asyncio.CancelledError:
            self.interrupted = True
            raise


class Scene:
    """An exchange between a client and an upstream that are stand-ins."""

    def __init__(self, *places: Place, request: Request | None = None, rewrite: str | None = None) -> None:
        self.model = Model()
        self.client = Client()
        self.reading = Reading()
        route = Route("all", "/", (), "auto", rewrite, cast(Upstream, self.model), places)
        self.exchange = Exchange(request or make_request(), route, self.client, LIMITS)

    def start(self) -> asyncio.Task[Outcome]:
        return asyncio.create_task(self.exchange.run())

    async def asking(self) -> asyncio.Task[Outcome]:
        """Up to where the upstream has been asked."""
        task = self.start()
        await self.model.begun.wait()
        return task

    async def streaming(self) -> asyncio.Task[Outcome]:
        """Up to where one event has come."""
        task = await self.asking()
        self.model.answer.set_result(self.reading)
        while "attach" not in self.reading.calls:
            await asyncio.sleep(0)
        self.reading.feed(sse("a"))
        return task

    def error_code(self) -> str:
        code = json.loads(self.client.body)["error"]["code"]
        assert isinstance(code, str)
        return code


class Body:
    """A request body that says which of its parts were read."""

    def __init__(self, *parts: bytes | RequestError) -> None:
        self._parts = parts
        self.read = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            await asyncio.sleep(0)
            if isinstance(part, RequestError):
                raise part
            self.read += 1
            yield part


def with_body(*parts: bytes | RequestError, **headers: str) -> tuple[Request, Body]:
    request, body = (
        make_request(headers={name.replace("_", "-"): value for name, value in headers.items()}),
        Body(*parts),
    )
    request.body = None
    request.chunks = body.chunks()
    return request, body


# Admission


class Here(Chunks):
    """A request body that came with its head, or of which some is still to come."""

    def __init__(self, body: bytes | None) -> None:
        self._body = body

    def whole(self) -> bytes | None:
        return self._body

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration if self._body is None else AssertionError("there is nothing to wait for")


@pytest.mark.parametrize("body", [b"{}", b"", None])
async def test_a_body_that_is_here_is_not_waited_for(body: bytes | None) -> None:
    request = make_request()
    request.body, request.chunks = None, Here(body)
    await Scene(place(Hooks(), needs_body=True), request=request).asking()
    assert (request.body, request.chunks) == (body or b"", None)


async def test_policies_are_asked_in_order_and_then_the_upstream() -> None:
    order: list[str] = []

    def asked(name: str, answer: Answer) -> Admit:
        async def admit(request: Request) -> Answer:
            order.append(name)
            request.headers.add("X-Seen-By", name)
            return answer

        return admit

    streams = Hooks(), Hooks(), Hooks()
    scene = Scene(
        place(asked("first", streams[0]), "first"),
        place(asked("out", None), "out"),
        place(asked("cors", streams[1]), "cors", kind=AttachmentDoor),
        place(asked("last", streams[2]), "last", kind=ReadingDoor),
        rewrite="/base",
    )
    task = await scene.streaming()
    scene.reading.eof()
    assert await task == COMPLETE
    assert order == ["first", "out", "cors", "last"]
    ((request, path, identity),) = scene.model.asked
    assert request.headers.getall("X-Seen-By") == order
    assert (path, identity) == ("/base/v1/chat/completions", True)
    assert scene.client.body == sse("a")
    assert scene.exchange.chain is not None
    assert [link.name for link in scene.exchange.chain.links] == ["first", "last"]
    assert all(stream.outcome == COMPLETE for stream in streams)
    assert scene.exchange.errors == []


@pytest.mark.parametrize(("kind", "identity"), [(Door, False), (ReadingDoor, True), (ReadingAttachmentDoor, True)])
async def test_the_upstream_is_asked_for_identity_only_where_events_are_seen(kind: type[Door], identity: bool) -> None:
    scene = Scene(place(Hooks(), kind=kind))
    task = await scene.streaming()
    assert scene.model.asked[0][2] is identity
    scene.reading.eof()
    await task


async def test_a_refusal_ends_admission() -> None:
    streams, encoder = (Hooks(), Hooks()), Shout()
    scene = Scene(
        place(streams[0]),
        place(streams[1], kind=AttachmentDoor),
        place(gives(encoder), "squeeze"),
        place(refuses, "caps"),
        place(never),
    )
    outcome = Outcome(OutcomeKind.REFUSED, "caps", "not_today")
    assert await scene.start() == outcome
    assert scene.client.status == 429
    assert scene.model.asked == []
    assert (streams[0].told, streams[1].told) == (["close"], ["response", "close"])
    assert encoder.closed == [outcome]


async def test_a_policy_that_fails_to_admit_closes_the_door() -> None:
    stream = Hooks()
    scene = Scene(place(stream), place(fails, "auth"), place(never))
    assert await scene.start() == Outcome(OutcomeKind.POLICY_ERROR, "auth", "policy_error")
    assert (scene.client.status, scene.error_code()) == (500, "policy_error")
    assert [(name, type(exc)) for name, exc in scene.exchange.errors] == [("auth", KeyError)]
    assert stream.told == ["close"]


@pytest.mark.parametrize("admit", [fails, gives("nonsense")])
async def test_a_policy_that_fails_to_admit_can_be_gone_without(admit: Admit) -> None:
    scene = Scene(place(admit, "heart", bypass=True))
    task = await scene.streaming()
    scene.reading.eof()
    assert await task == COMPLETE
    assert [name for name, _ in scene.exchange.errors] == ["heart"]


async def test_an_answer_that_is_none_is_a_failure() -> None:
    scene = Scene(place(gives(True), "auth"))
    assert await scene.start() == Outcome(OutcomeKind.POLICY_ERROR, "auth", "policy_error")


async def test_the_client_leaves_during_admission() -> None:
    waiting = asyncio.Event()

    async def admit(request: Request) -> Answer:
        waiting.set()
        await asyncio.Event().wait()
        return None

    scene = Scene(place(stream := Hooks()), place(admit), place(never))
    task = scene.start()
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.told == ["close"]
    assert stream.outcome == Outcome.of("client_gone")
    assert (scene.client.calls, scene.model.asked) == ([], [])


async def test_a_refusal_of_the_hosts_own() -> None:
    exchange = Exchange(make_request(), None, client := Client(), LIMITS)
    assert exchange.refuse(Reply(details="no_route"), "parser") == Outcome.of("no_route", "parser")
    assert (client.status, client.end_of_body) == (404, "end")


# The request body


async def test_the_body_is_left_alone_where_nobody_needs_it() -> None:
    request, body = with_body(b"{}")
    scene = Scene(place(Hooks()), request=request)
    await scene.asking()
    assert (request.body, body.read) == (None, 0)
    assert request.chunks is not None


async def test_the_body_is_read_when_the_first_who_needs_it_is_reached() -> None:
    request, body = with_body(b'{"model": ', b'"m"}')
    seen: list[tuple[int, bytes | None]] = []

    async def look(request: Request) -> Answer:
        seen.append((body.read, request.body))
        return None

    scene = Scene(place(look), place(look, needs_body=True), place(look, needs_body=True), request=request)
    await scene.asking()
    assert seen == [(0, None), (2, b'{"model": "m"}'), (2, b'{"model": "m"}')]
    assert request.chunks is None
    assert request.call.model == "m"


async def test_a_refusal_spares_the_body() -> None:
    request, body = with_body(b"{}")
    await Scene(place(refuses), place(never, needs_body=True), request=request).start()
    assert body.read == 0


async def test_a_request_without_a_body_has_an_empty_one() -> None:
    request = make_request(method="GET")
    request.body = None
    await Scene(place(Hooks(), needs_body=True), request=request).asking()
    assert request.body == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_coded_body_is_decoded(coding: str) -> None:
    plain = b"{}" * 500
    coded = gzip.compress(plain) if coding == "gzip" else zlib.compress(plain)
    request, _ = with_body(coded[:9], coded[9:], Content_Encoding=coding)
    await Scene(place(Hooks(), needs_body=True), request=request).asking()
    assert request.body == plain
    assert "Content-Encoding" not in request.headers


BAD_BODIES = {
    "too large": (with_body(b"x" * LIMITS.body_bytes, b"x"), "body_too_large"),
    "announced too large": (with_body(b"x", Content_Length="2001"), "body_too_large"),
    "too large decoded": (with_body(gzip.compress(b"x" * 2001), Content_Encoding="gzip"), "body_too_large"),
    "in an unknown coding": (with_body(b"x", Content_Encoding="br"), "unsupported_coding"),
    "in two codings": (with_body(b"x", Content_Encoding="gzip, gzip"), "unsupported_coding"),
    "not in its coding": (with_body(b"not gzip", Content_Encoding="gzip"), "malformed_body"),
    "cut off in its coding": (with_body(gzip.compress(b"x")[:-1], Content_Encoding="gzip"), "malformed_body"),
    "too slow": (with_body(b"x", RequestError("", "body_timeout")), "body_timeout"),
    "badly framed": (with_body(b"x", RequestError("", "malformed_body")), "malformed_body"),
}


@pytest.mark.parametrize(("given", "details"), BAD_BODIES.values(), ids=list(BAD_BODIES))
async def test_a_body_that_cannot_be_let_in(given: tuple[Request, Body], details: str) -> None:
    request, _ = given
    stream = Hooks()
    scene = Scene(place(stream), place(never, needs_body=True), request=request)
    assert await scene.start() == Outcome.of(details, "parser")
    assert scene.error_code() == details
    assert (stream.told, scene.model.asked) == (["close"], [])


@pytest.mark.parametrize("needs_body", [False, True])
async def test_a_call_that_cannot_be_read_is_refused_where_somebody_has_to_read_it(needs_body: bool) -> None:
    request, _ = with_body('{"model": "m"}'.encode("utf-16"))
    request.dialect = choose("openai-chat", "/")
    scene = Scene(place(Hooks(), needs_body=needs_body), request=request)
    if needs_body:
        async with asyncio.timeout(5):
            assert await scene.start() == Outcome.of("malformed_body", "parser")
        assert json.loads(scene.client.body)["error"]["type"] == "invalid_request_error"
    else:
        await scene.asking()


async def test_codings_in_two_fields_are_two_codings() -> None:
    request, _ = with_body(gzip.compress(b"x"), Content_Encoding="gzip")
    request.headers.add("Content-Encoding", "br")
    scene = Scene(place(never, needs_body=True), request=request)
    assert (await scene.start()).details == "unsupported_coding"


async def test_an_announced_body_over_the_limit_is_refused_by_length_where_nobody_reads_it() -> None:
    request, body = with_body(b"x", Content_Length="2001")
    scene = Scene(place(stream := Hooks()), request=request)
    assert await scene.start() == Outcome.of("body_too_large", "parser")
    assert (scene.model.asked, body.read, stream.told[-1]) == ([], 0, "close")


# Asking the upstream


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamError("", "upstream_unreachable"), Outcome.of("upstream_unreachable")),
        (RequestError("", "body_timeout"), Outcome.of("body_timeout", "parser")),
    ],
)
async def test_what_goes_wrong_in_the_asking_is_told_to_the_client(error: Exception, outcome: Outcome) -> None:
    scene = Scene(place(stream := Hooks()))
    task = await scene.asking()
    scene.model.answer.set_exception(error)
    assert await task == outcome
    assert scene.error_code() == outcome.details
    assert stream.told == ["start", "cut", "close"]
    assert scene.exchange.relay is not None
    assert scene.exchange.relay.on_finished is None


async def test_a_fault_of_our_own_in_the_asking_ends_the_exchange() -> None:
    scene = Scene(place(stream := Hooks()))
    task = await scene.asking()
    scene.model.answer.set_exception(RuntimeError("session is closed"))
    assert await task == Outcome.of("internal_error", "relay")
    assert (scene.client.status, scene.error_code()) == (500, "internal_error")
    assert stream.outcome == Outcome.of("internal_error", "relay")
    assert [where for where, _ in scene.exchange.errors] == ["relay"]


async def test_the_asking_is_interrupted_when_the_exchange_ends() -> None:
    stream = Hooks(timer=lambda now: Stop("first_byte_timeout"), wake_at=0.0)
    scene = Scene(place(stream))
    task = await scene.asking()
    assert await task == Outcome.of("first_byte_timeout", "policy")
    assert scene.model.interrupted
    assert (scene.client.status, task.cancelling()) == (504, 0)


async def test_an_exchange_that_ends_at_its_start_asks_nobody() -> None:
    def start(now: float) -> None:
        raise KeyError("the author's mistake")

    scene = Scene(place(Hooks(start=start)))
    assert (await scene.start()).details == "policy_error"
    assert scene.model.asked == []


async def test_the_client_leaves_while_the_upstream_is_silent() -> None:
    scene = Scene(place(stream := Hooks()))
    task = await scene.asking()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.model.interrupted
    assert stream.outcome == Outcome.of("client_gone")
    assert scene.client.calls == []


async def test_a_timeout_and_a_lost_client_at_once_are_the_first_of_them() -> None:
    scene = Scene(place(stream := Hooks()))
    task = await scene.asking()
    assert scene.exchange.relay is not None
    scene.exchange.relay.cut("first_byte_timeout")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.exchange.relay.outcome == stream.outcome == Outcome.of("first_byte_timeout")


async def test_interim_replies_find_their_way_only_while_the_upstream_is_asked() -> None:
    told: list[int] = []
    scene = Scene()
    scene.client.send_informational = lambda head: told.append(head.status)  # type: ignore[method-assign]
    task = await scene.asking()
    assert scene.model.informational is not None
    scene.model.informational(103, Headers())
    assert told == [103]
    scene.model.answer.set_exception(UpstreamError("gone", "upstream_reset"))
    await task
    assert on_informational.get() is None
    scene.model.informational(103, Headers())  # of a connection that keeps the context in which it was opened
    assert told == [103]


async def test_the_request_is_on_its_way_before_the_relay_begins_and_nothing_is_lost_meanwhile() -> None:
    told: list[object] = []
    stream = Hooks()
    scene = Scene(place(stream))
    scene.client.send_informational = lambda head: told.append(head.status)  # type: ignore[method-assign]
    ask = scene.model.open

    async def open(request: Request, path: str, *, identity: bool) -> Reading:
        told.append(scene.exchange.relay)
        told.append(list(stream.told))
        assert stream._poke is not None
        stream._poke(stream)
        informational = on_informational.get()
        assert informational is not None
        informational(103, Headers())
        return await ask(request, path, identity=identity)

    scene.model.open = open  # type: ignore[method-assign]
    task = await scene.streaming()
    assert told == [None, ["start"], 103]
    assert stream.told[:3] == ["start", "timer", "response"]
    scene.reading.eof()
    assert await task == COMPLETE


async def test_an_answer_that_is_there_at_once_is_delivered() -> None:
    scene = Scene(place(stream := Hooks()))
    scene.model.answer.set_result(scene.reading)

    async def open(request: Request, path: str, *, identity: bool) -> Reading:
        return scene.reading

    scene.model.open = open  # type: ignore[method-assign]
    task = scene.start()
    while "attach" not in scene.reading.calls:
        await asyncio.sleep(0)
    scene.reading.eof()
    assert await task == COMPLETE
    assert stream.told.count("start") == 1


# The reply


async def test_the_client_leaves_in_the_stream() -> None:
    scene = Scene(place(stream := Hooks()))
    task = await scene.streaming()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.outcome == Outcome.of("client_gone")
    assert scene.reading.closed
    assert scene.client.end_of_body == ""


async def test_a_client_that_leaves_right_after_the_last_byte_was_served() -> None:
    """It closes before the task that waits for the outcome has been woken."""
    scene = Scene(place(stream := Hooks()))
    task = await scene.streaming()
    scene.reading.eof()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scene.exchange.relay is not None
    assert scene.exchange.relay.outcome == stream.outcome == COMPLETE


async def test_the_clients_buffer_holds_up_the_reading() -> None:
    scene = Scene()
    task = await scene.streaming()
    scene.exchange.unwritable()
    assert scene.reading.paused
    scene.exchange.writable()
    assert not scene.reading.paused
    scene.reading.eof()
    await task


@pytest.mark.parametrize("drained", [True, False])
async def test_a_buffer_that_an_earlier_reply_filled_counts_too(drained: bool) -> None:
    scene = Scene()
    scene.exchange.unwritable()
    if drained:
        scene.exchange.writable()
    task = await scene.streaming()
    assert scene.reading.paused is not drained
    scene.reading.eof()
    await task


async def test_a_stream_is_told_when_its_background_work_is_done() -> None:
    scene = Scene(place(stream := Hooks()), place(cors := Hooks(), kind=AttachmentDoor))
    task = await scene.streaming()
    for each in (stream, cors):
        assert each._poke is not None
        each._poke(each)
        assert each.told[-1] == "timer"
    scene.reading.eof()
    await task


# Shutdown


async def test_shutdown_during_admission() -> None:
    waiting = asyncio.Event()

    async def admit(request: Request) -> Answer:
        waiting.set()
        await asyncio.Event().wait()
        return None

    scene = Scene(place(stream := Hooks()), place(admit))
    task = scene.start()
    await waiting.wait()
    scene.exchange.shut_down()
    assert await task == Outcome.of("shutdown")
    assert (scene.client.status, scene.error_code()) == (503, "shutdown")
    assert stream.told == ["close"]
    assert task.cancelling() == 0


async def test_a_client_that_leaves_during_the_shutdown_of_its_admission() -> None:
    waiting = asyncio.Event()

    async def admit(request: Request) -> Answer:
        waiting.set()
        await asyncio.Event().wait()
        return None

    scene = Scene(place(stream := Hooks()), place(admit))
    task = scene.start()
    await waiting.wait()
    scene.exchange.shut_down()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.told == ["close"]


async def test_shutdown_while_the_upstream_is_asked() -> None:
    scene = Scene(place(stream := Hooks()))
    task = await scene.asking()
    scene.exchange.shut_down()
    assert await task == stream.outcome == Outcome.of("shutdown")
    assert scene.client.status == 503
    assert scene.model.interrupted
    assert task.cancelling() == 0


async def test_shutdown_in_the_stream() -> None:
    scene = Scene(place(stream := Hooks()))
    task = await scene.streaming()
    scene.exchange.shut_down()
    assert await task == stream.outcome == Outcome.of("shutdown")
    assert scene.client.body.startswith(sse("a") + b"event: error\n")
    assert scene.client.end_of_body == "end"


async def test_shutdown_after_the_end_changes_nothing() -> None:
    scene = Scene()
    task = await scene.streaming()
    scene.reading.eof()
    scene.exchange.shut_down()
    assert await task == COMPLETE


# Routes


@pytest.mark.parametrize(
    ("prefix", "rewrite", "path", "sent"),
    [
        ("/", None, "/v1/models", "/v1/models"),
        ("/a", None, "/a/v1", "/a/v1"),
        ("/a", "/b", "/a/v1", "/b/v1"),
        ("/a", "/b", "/a", "/b"),
        ("/a", "/b", "/a/", "/b/"),
        ("/a", "/", "/a/v1", "/v1"),
        ("/a", "/", "/a", "/"),
        ("/", "/b", "/v1", "/b/v1"),
        ("/", "/b", "/", "/b/"),
    ],
)
def test_the_path_that_is_sent(prefix: str, rewrite: str | None, path: str, sent: str) -> None:
    route = Route("r", prefix, (), "auto", rewrite, cast(Any, None), ())
    assert route.upstream_path(path) == sent
