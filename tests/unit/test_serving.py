"""The life of a process that serves: how it begins, drains and is hurried. (As a process: tests/integration/test_drain.py.)"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from proxy import serving
from proxy.errors import PenstockError
from proxy.server import Server


class Double:
    """A server that notes what is asked of it; it drains until `drained` is set."""

    def __init__(self, start: Callable[[], Awaitable[None]] | None = None) -> None:
        self.notes: list[str] = []
        self.drained = asyncio.Event()
        self._start = start

    async def start(self) -> None:
        self.notes.append("start")
        if self._start is not None:
            await self._start()

    async def drain(self) -> None:
        self.notes.append("drain")
        await self.drained.wait()
        self.notes.append("drained")

    async def cut(self) -> None:
        self.notes.append("cut")

    async def stop(self) -> None:
        self.notes.append("stop")


async def begun(double: Double, monkeypatch: pytest.MonkeyPatch) -> Server | None:
    monkeypatch.setattr(serving, "Server", lambda config, listen: double)
    return await serving.begin(cast(Any, None))


async def test_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    double = Double()
    assert cast(Any, await begun(double, monkeypatch)) is double
    assert double.notes == ["start"]


@pytest.mark.parametrize(
    "error", [OSError("address in use"), RuntimeError("no"), PenstockError("no", "internal_error")]
)
async def test_what_cannot_start_says_why_and_is_stopped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def fail() -> None:
        raise error

    double = Double(fail)
    assert await begun(double, monkeypatch) is None
    assert double.notes == ["start", "stop"]
    assert f"cannot start: {error}" in caplog.text


async def test_it_drains_before_it_stops() -> None:
    double = Double()
    double.drained.set()
    await serving.finish(cast(Server, double), serving.Stopping())
    assert double.notes == ["drain", "drained", "stop"]


async def test_a_second_signal_cuts_what_still_runs() -> None:
    double, stopping = Double(), serving.Stopping()
    stopping.ask()
    assert stopping.drain.is_set()
    assert not stopping.at_once.is_set()
    finishing = asyncio.ensure_future(serving.finish(cast(Server, double), stopping))
    stopping.ask()
    await finishing
    assert double.notes == ["drain", "cut", "stop"]


async def test_what_nobody_handles_is_logged_without_its_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await begun(Double(), monkeypatch)
    loop = asyncio.get_running_loop()
    with caplog.at_level(logging.ERROR):
        loop.call_exception_handler({"message": "in a callback", "exception": ValueError("a secret")})
        loop.call_exception_handler({"message": "in passing"})
    assert "in a callback: ValueError" in caplog.text
    assert "in passing: no exception" in caplog.text
    assert "secret" not in caplog.text


def test_a_loop_gives_back_the_result() -> None:
    async def main() -> int:
        return 3

    assert serving.run_loop(main()) == 3
