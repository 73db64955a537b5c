"""The scripts as texts; what they do is shown in a real server (tests/integration/test_state_redis.py)."""

from __future__ import annotations

import hashlib

import pytest
from limits.aio.storage.redis.bridge import RedisBridge

from proxy import state_scripts
from proxy.state_scripts import Script

SCRIPTS = {name: script for name, script in vars(state_scripts).items() if isinstance(script, Script)}


def test_a_script_is_called_by_the_hash_that_redis_gives_it() -> None:
    script = Script("local a = 1", "return a")
    assert script.source == "local a = 1\nreturn a"
    assert script.name == hashlib.sha1(b"local a = 1\nreturn a", usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("name", ["TAKE", "CHARGE", "LEVELS"])
def test_the_windows_are_the_library_s(name: str) -> None:
    for source in (RedisBridge.SCRIPT_ACQUIRE_SLIDING_WINDOW, RedisBridge.SCRIPT_SLIDING_WINDOW):
        text = source.decode() if isinstance(source, bytes) else source
        assert text in SCRIPTS[name].source


def test_no_two_scripts_are_the_same() -> None:
    assert len({script.name for script in SCRIPTS.values()}) == len(SCRIPTS) == 9
