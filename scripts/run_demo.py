"""I/O. What `make run` does: the demo model server and, in front of it, the proxy that a configuration file describes.

    python scripts/run_demo.py config.example.toml

The file has one listener and one upstream, which is where the demo model server is started. Both run until Ctrl-C (or
SIGTERM, SIGHUP) and are stopped by their process ids, the proxy first: it drains. Exit status: 0 stopped as asked; 1
one of them ended by itself, having said why.
"""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from proxy.config import load

POLL_S = 0.1
STOP_S = 35.0  # a little more than [server] drain_s
MESSAGE = '{"model": "penstock-demo", "stream": true, "messages": [{"role": "user", "content": "Tell me something."}]}'


def main(file: str) -> int:
    config = load(file)
    (listener,) = config.listeners.values()
    (upstream,) = config.upstreams.values()
    place = urlsplit(upstream.url).netloc
    asked_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked_to_stop.set())
    with running("demo", "--listen", place) as demo, running("run", "--config", file) as proxy:
        waited_for = [f"http://{place}/health", f"http://{config.admin.address}/readyz"]
        while not asked_to_stop.wait(POLL_S):
            if demo.poll() is not None or proxy.poll() is not None:
                return 1
            if waited_for and answers(waited_for[0]):
                waited_for.pop(0)
                if not waited_for:
                    say_how(f"http://{listener.address}")
    return 0


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `penstock` command, stopped at the end. In a session of its own: a Ctrl-C is for this process to act on."""
    command = [sys.executable, "-m", "proxy", *arguments]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - its own modules, run by its own interpreter
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # whatever http_proxy says: it is this machine
    try:
        with opener.open(url, timeout=1.0):
            return True
    except (OSError, http.client.HTTPException):
        return False


def say_how(url: str) -> None:
    print(
        "\nPenstock is ready. Stream through it, from another terminal:\n\n"
        f"    curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n        -d '{MESSAGE}'\n\n"
        "Ctrl-C stops it. One access log line for each exchange follows.\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
