"""`make run`, but for the ports: config.example.toml's own may be taken where tests run."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs.waiting import LIMIT_S

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The example with ports that were free a moment ago."""
    text = (ROOT / "config.example.toml").read_text()
    with contextlib.ExitStack() as stack:
        for port in (8080, 9090, 8000):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            text = text.replace(f'127.0.0.1:{port}"', f'127.0.0.1:{listener.getsockname()[1]}"')
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    return file


@pytest.fixture
def started(config: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ROOT / "scripts" / "run_demo.py"), str(config)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with process:
        yield process
        process.terminate()
        process.wait(LIMIT_S)


def read_until(process: subprocess.Popen[str], sign: str) -> str:
    assert process.stdout is not None
    said = ""
    while sign not in said:
        line = process.stdout.readline()
        assert line, f"it ended: {said}"
        said += line
    return said


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_line_that_it_prints_streams_through_the_chain(started: subprocess.Popen[str]) -> None:
    said = read_until(started, "Ctrl-C")
    line = re.search(r"curl .*\\\n.*", said)
    assert line is not None
    streamed = subprocess.run(line[0], shell=True, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert streamed.stdout.count('"delta"') > 10
    assert streamed.stdout.endswith("data: [DONE]\n\n")
    assert '"outcome":"complete"' in read_until(started, "/v1/chat/completions")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stops_both_when_it_is_asked_to(started: subprocess.Popen[str], number: signal.Signals) -> None:
    said = read_until(started, "Ctrl-C")
    started.send_signal(number)
    assert started.wait(LIMIT_S) == 0
    for port in re.findall(r"127\.0\.0\.1:(\d+)", said):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)))


def test_it_says_which_port_is_taken_and_leaves_nothing_behind(config: Path) -> None:
    (upstream,) = re.findall(r'^url = "http://(127\.0\.0\.1:\d+)"', config.read_text(), re.MULTILINE)
    command = [sys.executable, str(ROOT / "scripts" / "run_demo.py"), str(config)]
    with socket.create_server(("127.0.0.1", int(upstream.rpartition(":")[2]))):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 1
    assert f"cannot listen on {upstream}" in done.stderr
