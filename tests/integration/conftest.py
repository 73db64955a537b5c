"""Fixtures of the integration tests. Processes are shared where sharing cannot be seen; each test has its own upstream."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from rigs import aimock as aimock_rig
from rigs import llama as llama_rig
from rigs import redis as redis_rig
from rigs.aiohttp_paths import AIOHTTP_PATH, AIOHTTP_PATHS
from rigs.penstock import Penstock, StartPenstock, Tables, configuration, run, toml
from rigs.raw_upstream import RawUpstream, listen
from rigs.redis import RedisServer


@pytest.fixture(scope="session")
def upstream_socket() -> Iterator[socket.socket]:
    """Where the raw upstream of every test listens, so that a proxy can be kept from one test to the next."""
    with listen() as listener:
        yield listener


@pytest.fixture
async def upstream(upstream_socket: socket.socket) -> AsyncIterator[RawUpstream]:
    """This test's raw upstream."""
    async with RawUpstream(upstream_socket) as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of a module that is marked `aiohttp_paths` run on each of the proxy's ways to a model server."""
    marked = metafunc.definition.get_closest_marker("aiohttp_paths") is not None
    if marked and "aiohttp_path" in metafunc.fixturenames:
        metafunc.parametrize("aiohttp_path", AIOHTTP_PATHS, indirect=True, scope="module")


@pytest.fixture(scope="module")
def aiohttp_path(request: pytest.FixtureRequest) -> str:
    """`[server] aiohttp`"""
    client: str = getattr(request, "param", AIOHTTP_PATH)
    return client


@pytest.fixture(scope="module")
def penstock(
    upstream_socket: socket.socket, aiohttp_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartPenstock]:
    """`penstock(layer, ..., NAME="value")`: a proxy before the raw upstream, with these tables and environment variables.

    Within a module the same arguments give the same process."""
    running: dict[tuple[str, ...], Penstock] = {}
    url = f"http://127.0.0.1:{upstream_socket.getsockname()[1]}"
    client = {"server": {"aiohttp": aiohttp_path}}
    with contextlib.ExitStack() as stack:

        def start(*layers: Tables, **variables: str) -> Penstock:
            tables = configuration(url, client, *layers)
            key = (toml(tables), *(f"{name}={value}" for name, value in variables.items()))
            if key not in running:
                running[key] = stack.enter_context(run(tables, tmp_path_factory.mktemp("penstock"), **variables))
            return running[key]

        yield start


@pytest.fixture(scope="session")
def upstream_port_closed() -> Iterator[int]:
    """A port on which nobody listens, and nobody else can begin to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(scope="session")
def deaf_port() -> Iterator[int]:
    """A port on which connections are neither accepted nor refused: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture(scope="session")
def llama() -> Iterator[str]:
    """The URL of a llama.cpp server."""
    with llama_rig.server() as url:
        yield url


@pytest.fixture(scope="session")
def aimock() -> Iterator[str]:
    """The URL of a mock of every provider's API."""
    with aimock_rig.server() as url:
        yield url


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis for tests that do it no harm, each with a prefix of its own for its keys."""
    with redis_rig.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """This test's own: it may be killed, stalled and flushed."""
    with redis_rig.running(tmp_path_factory.mktemp("redis")) as server:
        yield server
