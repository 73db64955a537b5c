"""Builds loadgen.c and runs one measurement with it. Starts processes."""

from __future__ import annotations

import enum
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

STREAMS = 100
EVENTS_PER_S = 50  # of each stream
EXCHANGES = 120  # of one serial measurement, its warm-up included
WARM_S = 0.5
TIME_LIMIT_S = 60.0  # beyond a measurement's own length; loadgen ends itself sooner, with a reason

SOURCE = Path(__file__).with_name("loadgen.c")


class BenchError(Exception):
    """A measurement that could not be made, or would not have been honest. The text is for the person who runs it."""


class MissingError(BenchError):
    """Something is not installed. The text names it."""


class Mode(enum.Enum):
    """How the load is offered; the words of loadgen.c."""

    PACED = "paced"
    SATURATED = "saturated"
    SERIAL = "serial"


class Percentiles(msgspec.Struct, frozen=True):
    """Microseconds."""

    p50: float
    p90: float
    p99: float
    max: float


class Measurement(msgspec.Struct, frozen=True):
    """One run of loadgen against one server.

    `events` are those that arrived in the measured window (in serial mode: the exchanges), `bytes` what they took on
    the wire, `cpu_ns` the CPU time of the measured processes, `own_busy` the share of its core that loadgen itself
    used, `lag_us` how much later than planned it sent. `waited` is the share of the window in which the measured
    processes could have run but somebody else had their core, `own_waited` the same of loadgen.
    """

    events: int
    bytes: int
    seconds: float
    cpu_ns: int
    waited: float
    own_busy: float
    own_waited: float
    coded_streams: int
    latency_us: Percentiles | None = None
    ttft_us: Percentiles | None = None
    lag_us: Percentiles | None = None

    @property
    def cpu_us_per_event(self) -> float:
        return self.cpu_ns / 1e3 / self.events


class LoadGenerator:
    """The built program and the listening socket of its mock upstream, which stays the same for all measurements.

    Use it as a context manager. Raises `BenchError` where the program cannot be built.
    """

    def __init__(self, directory: Path, core: int) -> None:
        self._program = directory / "loadgen"
        self._core = core
        self.decodes_gzip = self._build()

    def __enter__(self) -> LoadGenerator:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.upstream_port: int = self._listener.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def measure(
        self, mode: Mode, port: int, *, pids: Sequence[int] = (), headers: Sequence[str] = (), seconds: float
    ) -> Measurement:
        """Stream from `port` on loopback and measure; `pids` are the processes whose CPU time counts, `headers` request
        header lines. Raises `BenchError`."""
        listener = self._listener.fileno()
        command = [str(self._program), f"--mode={mode.value}", f"--listen-fd={listener}", f"--port={port}"]
        command += [f"--streams={EXCHANGES if mode is Mode.SERIAL else STREAMS}", f"--rate={EVENTS_PER_S}"]
        command += [f"--warm-s={WARM_S}", f"--seconds={seconds}"]
        command += [f"--header={line}" for line in headers] + [f"--pid={pid}" for pid in pids]
        try:
            done = subprocess.run(
                command,
                pass_fds=(listener,),
                preexec_fn=lambda: os.sched_setaffinity(0, {self._core}),
                capture_output=True,
                timeout=seconds + TIME_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchError("the load generator hangs") from None
        if done.returncode:
            raise BenchError(done.stderr.decode(errors="replace").strip())
        return msgspec.json.decode(done.stdout, type=Measurement)

    def _build(self) -> bool:
        """Compile; whether it can decode gzip, for which zlib's development files have to be there."""
        compiler = shutil.which("cc")
        if compiler is None:
            raise MissingError("a C compiler, cc, is missing (Debian: gcc, libc6-dev)")
        command = [compiler, "-O2", "-std=gnu11", "-o", str(self._program), str(SOURCE)]
        if subprocess.run([*command, "-DWITH_ZLIB", "-lz"], capture_output=True, check=False).returncode == 0:
            return True
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"the load generator cannot be built:\n{done.stderr}")
        return False
