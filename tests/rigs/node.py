"""Programs in `tests/node`, each a client of npm's that is asked in JSON lines what it makes of an API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .waiting import within_limit

FOLDER = Path(__file__).parents[1] / "node"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Driver:
    """A running program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def read(self) -> dict[str, Any]:
        """Its next line."""
        said: dict[str, Any] = json.loads(self._stdout.readline() or '{"ended": true}')
        return said

    async def ask(self, **request: Any) -> dict[str, Any]:
        """What it answers."""
        self._stdin.write(json.dumps(request) + "\n")
        self._stdin.flush()
        return await within_limit(asyncio.to_thread(self.read), f"an answer to {request}")


@contextlib.contextmanager
def driver(script: str, *modules: str, arguments: tuple[str, ...] = ()) -> Iterator[Driver]:
    """`tests/node/SCRIPT`. The test that asks for it is left out where node or one of these modules is not installed."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    for module in modules:
        if not (FOLDER / "node_modules" / module).is_dir():
            pytest.skip(f"npm's {module} is not installed (npm install --ignore-scripts --prefix tests/node)")
    command = ["node", str(FOLDER / script), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Driver(process)
    finally:
        process.terminate()
        process.communicate()
