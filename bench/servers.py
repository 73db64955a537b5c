"""Starts and stops the servers under test, each pinned to one core. Starts processes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .loadgen import BenchError
from .turns import TurnWatch

START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0
POLL_S = 0.002


class Server(NamedTuple):
    """A running server on loopback; the processes whose CPU time and memory are its; how long it took to start; its turns."""

    port: int
    pids: tuple[int, ...] = ()
    start_ms: float | None = None
    turns: TurnWatch | None = None


@contextlib.contextmanager
def run(
    command: Sequence[str],
    directory: Path,
    core: int,
    *,
    port: Callable[[Path], int | None],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """The server that `command` starts in `directory`; it has started once `port`, given its log, knows one.

    Raises `BenchError` if it does not start, with the end of its log."""
    log, turns = directory / "log", TurnWatch(directory)
    with log.open("wb") as sink:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **(environment or {}), **turns.environment},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        while (found := port(log)) is None:
            if process.poll() is not None or time.monotonic() > began + START_LIMIT_S:
                raise BenchError(f"{Path(command[0]).name} did not start:\n{_tail(log)}")
            time.sleep(POLL_S)
        start_ms = (time.monotonic() - began) * 1e3
        yield Server(found, tuple(descendants(process.pid)), start_ms, turns)
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def accepting(port: int) -> Callable[[Path], int | None]:
    """For `run`: a server of which the port is known has started once it accepts connections."""

    def look(log: Path) -> int | None:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return port
        return None

    return look


def logged_port(log: Path) -> int | None:
    """For `run`: Penstock chooses its port itself, and says when it is ready."""
    entries = _entries(log)
    if "ready" not in entries:
        return None
    return int(entries["listening"]["address"].rpartition(":")[2])


def free_port() -> int:
    """A port that was free a moment ago, for servers that cannot choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> Iterator[int]:
    """The process and all that it has started, and they."""
    yield pid
    for children in Path("/proc", str(pid), "task").glob("*/children"):
        for child in children.read_text(encoding="ascii").split():
            yield from descendants(int(child))


def _entries(log: Path) -> dict[str, dict[str, Any]]:
    """The first line of a log of JSON lines for each event."""
    found: dict[str, dict[str, Any]] = {}
    for line in log.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and "event" in entry:
                found.setdefault(entry["event"], entry)
    return found


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
