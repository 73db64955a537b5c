from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy import config, healthcheck
from proxy.admin import Admin
from proxy.metrics import Metrics
from proxy.values import TCPAddress, UnixAddress

Configured = Callable[[str], str]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    def write(text: str) -> str:
        file = tmp_path / "penstock.toml"
        file.write_text(text)
        return str(file)

    return write


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    """Not ready, but alive: all that a health check may ask for."""
    made = Admin(Metrics(), lambda: "draining")
    yield made
    await made.stop()


async def checked(file: str) -> int:
    return await asyncio.to_thread(healthcheck.main, file)


async def test_healthy_where_the_admin_listener_answers(admin: Admin, configured: Configured) -> None:
    await admin.start(TCPAddress("127.0.0.1", 0))
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        assert await checked(configured(f'[admin]\naddress = "{host}:{admin.port}"')) == 0


async def test_healthy_on_ipv6_and_unix_sockets(admin: Admin, configured: Configured, tmp_path: Path) -> None:
    await admin.start(TCPAddress("::1", 0))
    for host in ("[::1]", "[::]"):
        assert await checked(configured(f'[admin]\naddress = "{host}:{admin.port}"')) == 0
    await admin.stop()
    path = tmp_path / "admin.sock"
    await admin.start(UnixAddress(str(path)))
    assert await checked(configured(f'[admin]\naddress = "unix:{path}"')) == 0


def test_what_is_off_is_not_asked(configured: Configured) -> None:
    assert healthcheck.main(configured('[admin]\naddress = ""')) == 0


@pytest.mark.parametrize("text", ["", "[admin]"])
def test_the_default_address_is_asked_where_none_is_given(
    configured: Configured, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    assert healthcheck.main(configured(text)) == 1
    default = config.AdminConfig().address
    assert isinstance(default, TCPAddress)
    assert asked == [(default.host, default.port)]


def test_unhealthy_where_nobody_listens(configured: Configured, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert healthcheck.main(configured(f'[admin]\naddress = "127.0.0.1:{port}"')) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [b"HTTP/1.0 500 no\r\n\r\n", b"what?\r\n\r\n", b""])
async def test_unhealthy_where_the_answer_is_wrong(configured: Configured, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await checked(configured(f'[admin]\naddress = "127.0.0.1:{port}"')) == 1
    server.close()
    await server.wait_closed()


def test_unhealthy_where_the_file_is_missing_or_wrong(configured: Configured, tmp_path: Path) -> None:
    assert healthcheck.main(str(tmp_path / "missing.toml")) == 1
    assert healthcheck.main(configured("[admin")) == 1


async def test_it_runs_as_a_command(admin: Admin, configured: Configured) -> None:
    await admin.start(TCPAddress("127.0.0.1", 0))
    file = configured(f'[admin]\naddress = "127.0.0.1:{admin.port}"')
    command = [sys.executable, "-m", "proxy.healthcheck", file]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
