"""Run llama.cpp's own HTTP server (the `xllamacpp` wheel carries it) on the tiny model, as a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from . import tiny_model

_START_LIMIT_S = 60.0


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The base URL of a server that is ready."""
    command = [sys.executable, "-m", "rigs.llama", str(tiny_model.path())]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        _wait_until_healthy(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _wait_until_healthy(url: str, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise RuntimeError(f"llama.cpp's server ended at once, exit status {process.returncode}")
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(f"{url}/health") as reply:
            if reply.status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"llama.cpp's server at {url} was not ready within {_START_LIMIT_S:.0f} s")


def _serve(model: str) -> None:
    import xllamacpp  # type: ignore[import-untyped]

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {tiny_model.NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 16384
    params.n_parallel = 4
    params.n_predict = 512
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.use_jinja = True
    params.warmup = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])


if __name__ == "__main__":
    _serve(sys.argv[1])
