"""The seam between an upstream and the relay knows no HTTP framework, nor does what lies between it and the policies."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.sink import on_informational


@pytest.mark.parametrize("module", ["proxy.sink", "proxy.exchange", "proxy.relay", "proxy.testing"])
def test_it_runs_in_another_host(module: str) -> None:
    script = f"import sys, {module}; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_nobody_hears_of_interim_replies_unless_he_asks() -> None:
    assert on_informational.get() is None
