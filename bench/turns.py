"""The longest turn of a server's event loop, told by a library that stands before libc's `epoll_wait` (turns.c). Starts the
compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from .loadgen import BenchError, MissingError

SOURCE = Path(__file__).with_suffix(".c")
CACHE = Path(__file__).parent / ".cache"
_NS_BYTES = 8


class TurnWatch:
    """Of all processes of one server, which has to be started in `environment`. What is linked without libc tells nothing."""

    def __init__(self, directory: Path) -> None:
        """Raises `BenchError` where the library cannot be built."""
        self._file = directory / "turns"
        self.forget()
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(_library()), "BENCH_TURNS": str(self._file)}

    def forget(self) -> None:
        """From now on."""
        with self._file.open("r+b" if self._file.exists() else "xb") as file:  # the server has it mapped: not a new one
            file.write(bytes(_NS_BYTES))

    @property
    def longest_us(self) -> float | None:
        """Since it was forgotten; None where there was none."""
        return int.from_bytes(self._file.read_bytes(), sys.byteorder) / 1e3 or None


@cache
def _library() -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise MissingError("a C compiler, cc, is missing (Debian: gcc, libc6-dev)")
    CACHE.mkdir(exist_ok=True)
    made, own = CACHE / "turns.so", CACHE / f"turns-{os.getpid()}.so"
    command = [compiler, "-O2", "-std=gnu11", "-shared", "-fPIC", "-o", str(own), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{SOURCE.name} cannot be built:\n{done.stderr}")
    return own.replace(made)  # a run beside this one may have it loaded
