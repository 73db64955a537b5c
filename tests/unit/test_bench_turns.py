"""The longest turn of an event loop, as a library that is preloaded into its process tells it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import turns
from bench.loadgen import MissingError
from bench.servers import logged_port, run
from bench.turns import TurnWatch

WAITS = """
import os, select, time
poll = select.epoll()
poll.poll(0)
until = time.monotonic() + 0.02
while time.monotonic() < until:
    pass
poll.poll(0)
"""

FORKS = f"""
import os
if os.fork():
    os.wait()
else:
    exec({WAITS!r})
"""

SERVES = """
import select, time
select.epoll().poll(0)
until = time.monotonic() + 0.02
while time.monotonic() < until:
    pass
select.epoll().poll(0)
print('{"event": "listening", "address": "127.0.0.1:80"}\\n{"event": "ready"}', flush=True)
time.sleep(60)
"""


@pytest.fixture
def watch(tmp_path: Path) -> TurnWatch:
    if shutil.which("cc") is None:
        pytest.skip("needs cc")
    return TurnWatch(tmp_path)


@pytest.mark.parametrize("program", [WAITS, FORKS], ids=["itself", "a-child"])
def test_the_longest_time_between_two_waits_is_told(watch: TurnWatch, program: str) -> None:
    assert watch.longest_us is None
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **watch.environment}, check=True)
    assert watch.longest_us is not None
    assert watch.longest_us >= 20_000


def test_what_was_forgotten_does_not_count(watch: TurnWatch) -> None:
    subprocess.run([sys.executable, "-c", WAITS], env={**os.environ, **watch.environment}, check=True)
    watch.forget()
    assert watch.longest_us is None


def test_who_never_waits_has_no_turns(watch: TurnWatch) -> None:
    subprocess.run([sys.executable, "-c", ""], env={**os.environ, **watch.environment}, check=True)
    assert watch.longest_us is None


def test_every_server_is_watched(watch: TurnWatch, tmp_path: Path) -> None:
    own = tmp_path / "server"
    own.mkdir()
    with run([sys.executable, "-c", SERVES], own, min(os.sched_getaffinity(0)), port=logged_port) as server:
        assert server.turns is not None
        assert server.turns.longest_us is not None
        assert server.turns.longest_us >= 20_000


def test_without_a_compiler_it_is_said_what_is_missing(
    watch: TurnWatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    turns._library.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="C compiler"):
        TurnWatch(tmp_path)
