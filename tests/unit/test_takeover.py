"""Client connections that reach into aiohttp: tasks, times, and what is found out too late."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from rigs.connections import Scene, Watcher
from rigs.waiting import until

from proxy import takeover
from proxy.connection import STAYS


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene(takeover.Connection)
    yield scene
    await scene.end()


async def test_a_connection_is_idle_between_requests(scene: Scene) -> None:
    connection = scene.connect().connection
    await scene.turn()
    assert connection.idle
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not connection.idle  # nobody has looked at the request yet
    await scene.turn()
    connection.watcher = Watcher()
    assert not connection.idle
    connection.watcher = None
    assert connection.idle


async def test_a_head_is_awaited_from_the_start_and_then_from_its_first_byte(scene: Scene) -> None:
    connection = scene.connect().connection
    await scene.turn()
    scene.keeper.answer.set()
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
    assert connection.head_since is None
    await scene.turn()
    connection.data_received(b"}")  # that is the body
    await scene.turn()
    connection.data_received(b"\r\n")  # that is nothing
    assert connection.head_since is None
    connection.data_received(b"G")
    began = connection.head_since
    assert began is not None
    connection.data_received(b"ET / HTTP/1.1\r\n")
    assert connection.head_since == began
    connection.data_received(b"Host: x\r\n\r\nGET")
    assert connection.head_since is None
    await scene.turn()
    assert connection.head_since is None


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_that_is_badly_framed_is_told_to_whoever_reads_it(scene: Scene, at_once: bool) -> None:
    connection = scene.connect().connection
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    if not at_once:
        await scene.turn()
    connection.data_received(b"zz\r\n")
    await scene.turn()
    assert scene.keeper.told[1:] == ["malformed body"]


async def test_a_request_has_a_task_and_a_context_of_its_own(scene: Scene) -> None:
    seen: list[tuple[str, asyncio.Task[Any] | None]] = []
    said = contextvars.ContextVar("said", default="nothing")

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((said.get(), asyncio.current_task()))
        said.set("something")
        return STAYS

    scene.keeper.handle = handle  # type: ignore[method-assign]
    scene.serve().connect().connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    await scene.turn()
    assert [told for told, _ in seen] == ["nothing"] * 3
    assert len({task for _, task in seen}) == 3


async def test_a_connection_is_idle_from_its_answer_to_the_next_byte(scene: Scene) -> None:
    connection = scene.connect().connection
    assert connection.idle_since is None  # its first head is awaited
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await scene.turn()
    assert connection.idle_since is None
    scene.keeper.answer.set()
    await scene.turn()
    assert connection.idle_since == pytest.approx(asyncio.get_running_loop().time(), abs=60)
    connection.data_received(b"\r\n")
    assert connection.idle_since is not None
    connection.data_received(b"GET")
    assert connection.idle_since is None


async def test_a_body_that_breaks_off_while_it_is_skipped_ends_the_connection(scene: Scene) -> None:
    scene.keeper.reads = False
    scene.keeper.answer.set()
    connection = scene.serve(lingering_time=60.0).connect().connection
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n")
    await scene.turn()
    connection.data_received(b"azz\r\n")
    await until(lambda: scene.transport.end, "the end")
    assert scene.transport.end == "close"


async def test_a_body_is_read_without_asking_the_parser_for_more(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = scene.connect().connection
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    fed: list[bytes] = []
    monkeypatch.setattr(takeover.Connection, "data_received", lambda self, data: fed.append(data))
    await scene.turn()
    assert fed == []


async def test_a_body_that_comes_faster_than_it_is_read_is_read_on(scene: Scene) -> None:
    connection = scene.connect().connection
    size = 1 << 22
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * (size // 2))
    assert scene.transport.paused
    await scene.turn()
    assert not scene.transport.paused
    connection.data_received(b"x" * (size // 2))
    scene.keeper.answer.set()
    await scene.turn()
    assert connection.idle_since is not None


async def test_the_installed_aiohttp_is_as_expected() -> None:
    takeover.check()


@pytest.mark.parametrize("name", ["_handle_request", "_messages", "start"])
async def test_another_aiohttp_is_named_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(RequestHandler, name)
    with pytest.raises(RuntimeError, match=name):
        takeover.check()


@pytest.mark.parametrize(
    ("name", "another"),
    [
        ("data_received", lambda self, data: None),  # no request ever comes
        ("_handle_request", lambda self, request, started, handler: (STAYS, False)),  # cannot be awaited
        ("_make_error_handler", lambda self, error: self._request_handler),  # what is no request is handled like one
    ],
    ids=["it gives nothing", "it raises", "it gives something else"],
)
async def test_an_aiohttp_that_has_the_names_but_works_differently_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, another: Callable[..., Any]
) -> None:
    monkeypatch.setattr(RequestHandler, name, another)
    with pytest.raises(RuntimeError, match="works differently"):
        takeover.check()
