"""A mock of every provider's API (`llmock` of npm's `@copilotkit/aimock`) that says what `aimock.json` tells it to."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_NODE_PROGRAMS = Path(__file__).parents[1] / "node" / "node_modules" / ".bin"
PROGRAM = shutil.which("llmock", path=os.pathsep.join([str(_NODE_PROGRAMS), os.environ.get("PATH", "")]))
CHUNK_CHARACTERS = 6


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The base URL of a server that is ready. Its replies come in pieces of `CHUNK_CHARACTERS`."""
    if PROGRAM is None or shutil.which("node") is None:
        pytest.skip("llmock is not installed (npm install --ignore-scripts --prefix tests/node)")
    script = Path(__file__).with_suffix(".json")
    command = [PROGRAM, "-p", "0", "-f", str(script), "-c", str(CHUNK_CHARACTERS), "--strict"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield _address(process.stdout)
    finally:
        process.terminate()
        process.communicate()


def _address(lines: Iterator[str]) -> str:
    for line in lines:
        if found := re.search(r"listening on (http://\S+)", line):
            return found[1]
    raise RuntimeError("llmock ended at once")
