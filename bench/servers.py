"""Starts and stops the proxies under test, each a process of its own, pinned to one core. Starts processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .loadgen import BenchError, MissingError

START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0
POLL_S = 0.02


class Server(NamedTuple):
    """A running server on loopback, and the processes whose CPU time is its."""

    port: int
    pids: tuple[int, ...] = ()


@contextlib.contextmanager
def run_nginx(config: Callable[[int], str], directory: Path, core: int) -> Iterator[Server]:
    """nginx with the configuration that `config` makes for a port."""
    nginx = shutil.which("nginx")
    if nginx is None:
        raise MissingError("nginx is missing (Debian: nginx-light)")
    port = _free_port()
    file, log = directory / "nginx.conf", directory / "nginx.log"
    file.write_text(config(port), encoding="utf-8")
    with _run([nginx, "-p", str(directory), "-c", str(file)], log, core) as process:
        _wait_until(lambda: _accepts(port), process, log)
        yield Server(port, (process.pid,))


@contextlib.contextmanager
def run_penstock(config: str, directory: Path, core: int) -> Iterator[Server]:
    """Penstock, started as an operator starts it; the configuration lets it choose the port of its one listener."""
    file, log = directory / "penstock.toml", directory / "penstock.log"
    file.write_text(config, encoding="utf-8")
    with _run([sys.executable, "-m", "proxy", "run", "--config", str(file)], log, core) as process:
        _wait_until(lambda: _logged(log, "ready") is not None, process, log)
        listening = _logged(log, "listening")
        if listening is None:
            raise BenchError(f"penstock is ready but says nowhere on which port:\n{_tail(log)}")
        yield Server(int(listening["address"].rpartition(":")[2]), (process.pid,))


@contextlib.contextmanager
def _run(command: list[str], log: Path, core: int) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=sink, preexec_fn=lambda: os.sched_setaffinity(0, {core})
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_LIMIT_S
    while not condition():
        if process.poll() is not None or time.monotonic() > limit:
            raise BenchError(f"{log.stem} did not start:\n{_tail(log)}")
        time.sleep(POLL_S)


def _free_port() -> int:
    """A port that was free a moment ago: nginx cannot choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _logged(log: Path, event: str) -> dict[str, Any] | None:
    """The first line of a log of JSON lines that tells of `event`."""
    for line in log.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("event") == event:
                return entry
    return None


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
