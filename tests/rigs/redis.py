"""A real redis-server (or valkey-server) with a folder of its own, that can be killed, started again and stopped short."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from proxy.config import StateConfig

_START_LIMIT_S = 20.0
PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """It listens on a Unix socket; `options` may let it listen elsewhere, too. Nothing is kept across a restart."""

    def __init__(self, folder: Path, *options: str) -> None:
        if PROGRAM is None:
            pytest.skip("redis-server is not installed")
        self._socket = folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        own = ["--port", "0", "--unixsocket", str(self._socket), "--dir", str(folder), "--save", ""]
        self._command = [PROGRAM, *own, *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = Redis(unix_socket_path=str(self._socket), retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        limit = time.monotonic() + _START_LIMIT_S
        while not self._answers():
            assert self._process.poll() is None, f"redis-server ended at once, exit status {self._process.returncode}"
            assert time.monotonic() < limit, f"redis-server was not ready within {_START_LIMIT_S:.0f} s"
            time.sleep(0.005)

    def kill(self) -> None:
        """As `kill -9` does, without a farewell to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.admin.connection_pool.disconnect()

    def stall(self) -> None:
        """It takes connections and bytes, and does nothing with them until `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def calls(self, command: str = "evalsha") -> int:
        """How often a command was called, since the start or `CONFIG RESETSTAT`."""
        stats: dict[str, Any] = self.admin.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))

    def config(self, **changes: Any) -> StateConfig:
        return StateConfig(url=self.url, **changes)

    def _answers(self) -> bool:
        try:
            self.admin.ping()
        except AuthenticationError:
            return True
        except RedisConnectionError:
            return False
        return True


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server that is ready, and gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    assert len(os.fsencode(folder / "redis.sock")) < 108, "too long a path for a Unix socket"
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
