"""The proxy as its users run it: a process of its own, started with a configuration file, that logs JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .aiohttp_paths import AIOHTTP_PATH
from .raw_client import Address
from .waiting import LIMIT_S, until

Record = dict[str, Any]
Tables = Mapping[str, Any]

RIG_POLICIES = Path(__file__).parent / "site"
"""A folder in which the policies that tests need are installed, as far as entry points can tell."""

# What an operator must never read in the operational log of a proxy that only met bad clients and bad upstreams.
_ACCIDENTS = ("Traceback", "never retrieved", "never awaited", "was destroyed", "Unclosed", "Unhandled", '"exception":')


def configuration(upstream_url: str, *layers: Tables) -> dict[str, Any]:
    """One upstream, one route for everything, free ports; `layers` are merged in, table by table."""
    tables: dict[str, Any] = {
        "listeners": {"main": {"address": "127.0.0.1:0"}},
        "admin": {"address": "127.0.0.1:0"},
        "server": {"aiohttp": AIOHTTP_PATH},
        "upstreams": {"model": {"url": upstream_url}},
        "routes": {"all": {"path": "/", "upstream": "model"}},
    }
    for layer in layers:
        _merge(tables, layer)
    return tables


def _merge(into: dict[str, Any], layer: Tables) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def side_by_side(*names: str) -> Tables:
    """A route for each name: requests to /NAME/... go to the upstream without /NAME. Saves a process for each chain."""
    return {"routes": {name: {"path": f"/{name}", "rewrite": "/", "upstream": "model"} for name in names}}


def toml(tables: Tables) -> str:
    """`tables` as TOML: a table is a mapping, an array of tables a list of mappings, anything else JSON could say too."""
    return "\n".join(_toml(tables, ())) + "\n"


def _toml(table: Tables, path: tuple[str, ...]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if _is_table(value)}
    yield from (f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items() if key not in inner)
    for key, value in inner.items():
        name = ".".join(json.dumps(part) for part in (*path, key))
        for entry in [value] if isinstance(value, Mapping) else value:
            yield f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]"
            yield from _toml(entry, (*path, key))


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def command(verb: str, config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "proxy", verb, "--config", str(config), *arguments]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, with `variables`, and with the rig policies where entry points are looked for."""
    paths = [str(RIG_POLICIES), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


class _Lines:
    """The lines of a pipe, read by a thread so that the process can never be stopped by a full pipe."""

    def __init__(self, pipe: IO[str]) -> None:
        self.all: list[str] = []
        self._pipe = pipe
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._pipe:
            self.all.append(line.rstrip("\n"))

    @property
    def ended(self) -> bool:
        """Nobody can write into the pipe any more."""
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join()
        self._pipe.close()


class AccessLog:
    """The access log as it grows."""

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines

    @property
    def records(self) -> list[Record]:
        return [json.loads(line) for line in self._lines.all.copy()]

    async def find(self, matches: Callable[[Record], bool] | None = None, **fields: Any) -> Record:
        """The first line for which `matches` holds and that has these `fields`, once it is there."""

        def search() -> Record | None:
            for record in self.records:
                if all(record[key] == value for key, value in fields.items()) and (matches is None or matches(record)):
                    return record
            return None

        return await until(search, f"an access log line with {fields or 'what was asked'} in {self.records[-3:]}")


class Penstock:
    """A running proxy. `run` makes one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdout = _Lines(process.stdout)
        self._stderr = _Lines(process.stderr)
        self.log = AccessLog(self._stdout)
        self.addresses: dict[str, Address] = {}
        self._expected_status = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def address(self) -> Address:
        return self.addresses["main"]

    @property
    def url(self) -> str:
        """The base URL of the main listener."""
        return "http://{}:{}".format(*self.address)

    @property
    def admin_url(self) -> str:
        return "http://{}:{}".format(*self.addresses["admin"])

    @property
    def operational_log(self) -> list[str]:
        return self._stderr.all.copy()

    @property
    def output(self) -> str:
        """All that the process has written anywhere."""
        return "\n".join((*self._stdout.all.copy(), *self._stderr.all.copy()))

    def events(self, name: str, **fields: Any) -> list[Record]:
        """The lines of the operational log that are this event, and have these `fields`."""
        wanted = {"event": name, **fields}
        lines = [json.loads(line) for line in self.operational_log if line.startswith("{")]
        return [line for line in lines if wanted.items() <= line.items()]

    @property
    def open_files(self) -> int:
        """The number of the process's file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wait_until_ready(self) -> None:
        """Read where it listens. AssertionError, with what it said, where it ended instead."""
        limit = time.monotonic() + LIMIT_S
        while not self._is_ready():
            assert self._process.poll() is None, f"it did not start: {self.output}"
            assert time.monotonic() < limit, f"it is not ready: {self.output}"
            time.sleep(0.005)

    def _is_ready(self) -> bool:
        ready = False
        for line in self.operational_log:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said.get("event") == "listening":
                    self.addresses[said["name"]] = _address(said["address"])
                ready = ready or said.get("event") == "ready"
        return ready

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End its process without notice."""
        self._process.kill()
        self._expected_status = -signal.SIGKILL

    async def gone(self) -> None:
        """Return once every process that it was made of has ended."""
        await until(lambda: self._stdout.ended and self._stderr.ended, "the end of all of the proxy's processes")

    async def exit_status(self) -> int:
        """Its exit status, once it has ended by itself."""
        await until(lambda: self._process.poll() is not None, "the end of the proxy's process")
        return self._process.returncode

    def stop(self) -> None:
        """End it as an operator does. AssertionError where it does not end well, or had an accident on its way."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the proxy did not end within {LIMIT_S:.0f} s: {self.output[-2000:]}") from None
        finally:
            self._stdout.join()
            self._stderr.join()
        accidents = [line for line in self._stderr.all if any(sign in line for sign in _ACCIDENTS)]
        assert not accidents, "the proxy had an accident:\n" + "\n".join(self.operational_log)[-5000:]
        assert self._process.returncode == self._expected_status, (
            f"exit status {self._process.returncode}: {self.output[-2000:]}"
        )


StartPenstock = Callable[..., Penstock]
"""The `penstock` fixture: layers of tables, and environment variables by name."""


def _address(text: str) -> Address:
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def run(tables: Tables, folder: Path, **variables: str) -> Iterator[Penstock]:
    """A proxy with this configuration, its file written into `folder`; stopped at the end."""
    config = folder / "penstock.toml"
    config.write_text(toml(tables))
    process = subprocess.Popen(
        command("run", config), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**variables)
    )
    penstock = Penstock(process)
    try:
        penstock.wait_until_ready()
        yield penstock
    finally:
        penstock.stop()


def check(tables: Tables | str, folder: Path, verb: str = "check") -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself on this configuration."""
    config = folder / "penstock.toml"
    config.write_text(tables if isinstance(tables, str) else toml(tables))
    arguments: Sequence[str] = command(verb, config)
    return subprocess.run(arguments, capture_output=True, text=True, timeout=LIMIT_S, env=environment())
