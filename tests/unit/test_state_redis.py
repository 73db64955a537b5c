"""The store in Redis without a server: who is not there is not waited for, and what is told of it.

What it does with one is shown in tests/integration/test_state_redis.py."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rigs.stores import MINUTE, TOTAL

from proxy.config import StateConfig
from proxy.errors import StateError
from proxy.state import Grant
from proxy.state_redis import RedisStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisStore]:
    """Nobody has ever listened where it looks for a server."""
    store = RedisStore(StateConfig(url=f"unix://{tmp_path}/redis.sock"), patience_s=0.05)
    await store.start()
    yield store
    await store.stop()


async def test_every_method_says_so(store: RedisStore) -> None:
    for question in (
        store.take("a", [MINUTE, TOTAL], 10),
        store.give_back(Grant("a", (MINUTE,), 10, 1.0), 10),
        store.charge("a", [MINUTE], 10),
        store.levels("a", [MINUTE]),
        store.acquire("a", 1, "x", 10.0),
        store.renew([("a", "x")], 10.0),
        store.release("a", "x"),
        store.held("a"),
    ):
        with pytest.raises(StateError, match="the state store is unavailable: ConnectionError") as raised:
            await question
        assert raised.value.details == "state_unavailable"


async def test_it_is_logged_once_in_a_while(store: RedisStore, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        with pytest.raises(StateError):
            await store.held("a")
    records = [*caplog.get_records("setup"), *caplog.records]
    assert [record.levelno for record in records] == [logging.ERROR]
    assert records[0].message.startswith("the state store is unavailable: ConnectionError: ")


async def test_before_the_start_and_after_the_stop(tmp_path: Path) -> None:
    store = RedisStore(StateConfig(url=f"unix://{tmp_path}/redis.sock"))
    await store.stop()
    with pytest.raises(StateError, match="not started"):
        await store.held("a")
    await store.start()
    await store.stop()
    await store.stop()
    with pytest.raises(StateError, match="not started"):
        await store.held("a")


def test_other_processes_see_it() -> None:
    assert RedisStore.shared
