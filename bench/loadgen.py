"""Builds the load generator (load/*.c) and runs one measurement with it. Starts processes."""

from __future__ import annotations

import enum
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

WARM_S = 0.5
TIME_LIMIT_S = 60.0  # beyond a measurement's own length; the load generator ends itself sooner, with a reason
SPARE_FILES = 200  # open files beside those of streams
STOLEN_LIMIT = 0.01  # of a measurement: above it, CPU times and latencies are partly those of the host's other guests

SOURCES = Path(__file__).parent / "load"
LIBRARIES = {  # coding: a header file, the library, Debian's package
    "gzip": ("zlib.h", "-lz", "zlib1g-dev"),
    "zstd": ("zstd.h", "-lzstd", "libzstd-dev"),
    "br": ("brotli/decode.h", "-lbrotlidec", "libbrotli-dev"),
}


class BenchError(Exception):
    """A measurement that could not be made, or would not have been honest. The text is for the person who runs it."""


class MissingError(BenchError):
    """Something is not installed, or not allowed. The text names it."""


class Mode(enum.Enum):
    """How the load is offered. In this order: memory is told by a process that has not done anything before."""

    HOLD = "hold"
    SERIAL = "serial"
    SATURATED = "saturated"
    PACED = "paced"
    CROWD = "crowd"
    FLOOD = "flood"
    TINY = "tiny"
    HUGE = "huge"
    BYTES = "bytes"
    UNREAD = "unread"


class Load(NamedTuple):
    """A mode in the words of load/main.c."""

    word: str
    streams: int  # serial: exchanges, the first 20 to warm up
    events_per_s: int = 50  # of each stream; flood: of the one that is paced
    base_streams: int = 0  # memory is looked at with so many open, and with all
    flood: str = "events"  # what it is of

    @property
    def open_files(self) -> int:
        """On either side of a proxy, and in it."""
        return (2 if self.word == "serial" else 2 * self.streams) + SPARE_FILES


LOADS: Mapping[Mode, Load] = {
    Mode.HOLD: Load("paced", 550, 5, base_streams=50),
    Mode.SERIAL: Load("serial", 420),
    Mode.SATURATED: Load("saturated", 100),
    Mode.PACED: Load("paced", 100, 50),
    Mode.CROWD: Load("paced", 4000, 1),
    Mode.FLOOD: Load("flood", 65, 200),
    Mode.TINY: Load("flood", 17, 200, flood="tiny"),
    Mode.HUGE: Load("flood", 17, 200, flood="huge"),
    Mode.BYTES: Load("flood", 17, 200, flood="bytes"),
    Mode.UNREAD: Load("flood", 17, 200, flood="unread"),
}


class Percentiles(msgspec.Struct, frozen=True):
    """Microseconds."""

    p50: float
    p90: float
    p99: float
    max: float


class Measurement(msgspec.Struct, frozen=True):
    """One run of the load generator against one server.

    `events` are those that arrived in the measured window (in serial mode: the exchanges), `bytes` what they took on
    the wire, `cpu_ns` the CPU time of the measured processes, `own_busy` the share of its core that the load generator
    itself used, `lag_us` how much later than planned it sent. `waited` is the share of the window in which the measured
    processes could have run but somebody else had their core, `own_waited` the same of the load generator, and
    `stolen` the share of the run for which the machine's host ran others on one of the two cores. `stream_kib` is what
    one more open stream takes of the measured processes' memory, `turn_us` the longest turn of their event loops, where
    it is known.
    """

    events: int
    bytes: int
    seconds: float
    cpu_ns: int
    waited: float
    own_busy: float
    own_waited: float
    stolen: float = 0.0
    latency_us: Percentiles | None = None
    ttft_us: Percentiles | None = None
    lag_us: Percentiles | None = None
    stream_kib: float | None = None
    turn_us: float | None = None

    @property
    def cpu_us_per_event(self) -> float:
        return self.cpu_ns / 1e3 / self.events

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds


class LoadGenerator:
    """The built program and the listening socket of its mock upstream, which stays the same for all measurements.

    Use it as a context manager. Raises `BenchError` where the program cannot be built. `codings` are those that it can
    decode.
    """

    def __init__(self, directory: Path, core: int) -> None:
        self._program = directory / "loadgen"
        self._core = core
        self.codings = self._build()

    def __enter__(self) -> LoadGenerator:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.upstream_port: int = self._listener.getsockname()[1]
        self.upstream_url = f"http://127.0.0.1:{self.upstream_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def measure(
        self,
        mode: Mode,
        port: int,
        *,
        pids: Sequence[int] = (),
        headers: Sequence[str] = (),
        coding: str | None = None,
        seconds: float,
    ) -> Measurement:
        """Stream from `port` on loopback and measure; `pids` are the processes whose CPU time counts, `headers` request
        header lines, `coding` what is asked for and has to come. Raises `BenchError`."""
        load, listener = LOADS[mode], self._listener.fileno()
        command = [str(self._program), f"--mode={load.word}", f"--listen-fd={listener}", f"--port={port}"]
        command += [f"--streams={load.streams}", f"--base-streams={load.base_streams}", f"--rate={load.events_per_s}"]
        command += [f"--flood={load.flood}"]
        command += [f"--warm-s={WARM_S}", f"--seconds={seconds}"] + ([f"--coding={coding}"] if coding else [])
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
            raise BenchError(done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}")
        return msgspec.json.decode(done.stdout, type=Measurement)

    def _build(self) -> frozenset[str]:
        compiler = shutil.which("cc")
        if compiler is None:
            raise MissingError("a C compiler, cc, is missing (Debian: gcc, libc6-dev)")
        codings = frozenset(coding for coding, (header, _, _) in LIBRARIES.items() if _includes(compiler, header))
        command = [compiler, "-O2", "-std=gnu11", "-o", str(self._program), *map(str, sorted(SOURCES.glob("*.c")))]
        for coding in sorted(codings):
            command += [f"-DWITH_{coding.upper()}", LIBRARIES[coding][1]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"the load generator cannot be built:\n{done.stderr}")
        return codings


def _includes(compiler: str, header: str) -> bool:
    command = [compiler, "-fsyntax-only", "-include", header, "-x", "c", os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
