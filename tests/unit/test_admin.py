from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from proxy.admin import Admin
from proxy.metrics import Metrics
from proxy.values import TCPAddress, UnixAddress

ANY_PORT = TCPAddress("127.0.0.1", 0)


class State:
    """What the process would say of itself."""

    def __init__(self) -> None:
        self.reason: str | None = "starting"

    def __call__(self) -> str | None:
        return self.reason


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def client(state: State, metrics: Metrics) -> AsyncIterator[aiohttp.ClientSession]:
    admin = Admin(metrics, state)
    await admin.start(ANY_PORT)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as session:
        yield session
    await admin.stop()


async def told(client: aiohttp.ClientSession, path: str, method: str = "GET") -> tuple[int, str]:
    async with client.request(method, path) as response:
        return response.status, await response.text()


@pytest.mark.parametrize("reason", ["starting", None, "draining"])
async def test_it_is_healthy_while_it_lives(client: aiohttp.ClientSession, state: State, reason: str | None) -> None:
    state.reason = reason
    assert await told(client, "/healthz") == (200, "ok\n")


async def test_it_is_ready_between_start_and_drain(client: aiohttp.ClientSession, state: State) -> None:
    assert await told(client, "/readyz") == (503, "starting\n")
    state.reason = None
    assert await told(client, "/readyz") == (200, "ready\n")
    state.reason = "draining"
    assert await told(client, "/readyz") == (503, "draining\n")


async def test_metrics_are_told_as_the_scraper_prefers(client: aiohttp.ClientSession, metrics: Metrics) -> None:
    metrics.connection_opened()
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "penstock_open_connections 1.0\n" in await response.text()
    async with client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await response.text()).endswith("# EOF\n")


async def test_metrics_are_refreshed_before_they_are_told(state: State, metrics: Metrics) -> None:
    async def refresh() -> None:
        metrics.connection_opened()

    admin = Admin(metrics, state, refresh)
    await admin.start(ANY_PORT)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{admin.port}") as client:
        for count in (1, 2):
            assert f"penstock_open_connections {count}.0\n" in (await told(client, "/metrics"))[1]
    await admin.stop()


@pytest.mark.parametrize("path", ["/", "/healthz/", "/healthz/more", "/v1/chat/completions"])
async def test_there_is_nothing_else(client: aiohttp.ClientSession, path: str) -> None:
    assert (await told(client, path))[0] == 404


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_it_can_only_be_read(client: aiohttp.ClientSession, state: State, path: str) -> None:
    state.reason = None
    assert await told(client, path, "HEAD") == (200, "")
    for method in ("POST", "PUT", "DELETE"):
        assert (await told(client, path, method))[0] == 405


async def test_answers_are_not_kept_and_say_nothing_of_the_server(client: aiohttp.ClientSession) -> None:
    async with client.get("/readyz") as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Server"] == "penstock"


async def test_it_listens_on_a_unix_socket(tmp_path: Path, metrics: Metrics, state: State) -> None:
    path = str(tmp_path / "admin.sock")
    admin = Admin(metrics, state)
    await admin.start(UnixAddress(path))
    assert admin.port == 0
    async with aiohttp.ClientSession("http://admin", connector=aiohttp.UnixConnector(path)) as session:
        assert await told(session, "/healthz") == (200, "ok\n")
    await admin.stop()


async def test_stop_frees_the_port_and_works_before_and_after_a_failed_start(metrics: Metrics, state: State) -> None:
    first = Admin(metrics, state)
    await first.start(ANY_PORT)
    taken = TCPAddress("127.0.0.1", first.port)
    second = Admin(metrics, state)
    await second.stop()
    with pytest.raises(OSError, match="in use"):
        await second.start(taken)
    await second.stop()
    await first.stop()
    await second.start(taken)
    await second.stop()
