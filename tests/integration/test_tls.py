"""https upstreams: certificates are verified, and a failure says so without giving anything away."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme
from rigs.penstock import Penstock, StartPenstock
from rigs.raw_client import connect, get
from rigs.raw_upstream import RawUpstream, UpstreamConnection, reply
from rigs.wire import details

from proxy.errors import FAULTS

pytestmark = pytest.mark.aiohttp_paths


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


class TLSUpstream:
    """Answers every request with the server name that the client asked for."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.sni_callback = self._note_name
        certificate.configure_cert(self._context)
        self._name = ""

    def _note_name(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self._name = name or ""

    async def __aenter__(self) -> TLSUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(self._name.encode(), "Connection: close"))
        await writer.drain()
        writer.close()


@pytest.fixture
async def localhost(authority: trustme.CA) -> AsyncIterator[TLSUpstream]:
    async with TLSUpstream(authority.issue_cert("localhost")) as upstream:
        yield upstream


async def test_trusted_certificate(penstock: StartPenstock, localhost: TLSUpstream, ca_file: str) -> None:
    proxy = penstock({"upstreams": {"model": {"url": f"https://localhost:{localhost.port}", "ca_file": ca_file}}})
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/"))
    assert (answer.status, answer.body) == (200, b"localhost")


async def is_told_of_tls(proxy: Penstock) -> None:
    async with connect(proxy.address) as client:
        answer = await client.exchange(get("/", "X-Request-Id: untrusted"))
    assert (answer.status, details(answer)) == (502, "upstream_tls")
    assert b"CERTIFICATE" not in answer.body.upper().replace(FAULTS["upstream_tls"].message.upper().encode(), b"")
    record = await proxy.log.find(id="untrusted")
    assert (record["outcome"], record["details"]) == ("upstream_error", "upstream_tls")


async def test_certificate_of_an_unknown_authority(penstock: StartPenstock, localhost: TLSUpstream) -> None:
    await is_told_of_tls(penstock({"upstreams": {"model": {"url": f"https://localhost:{localhost.port}"}}}))


async def test_certificate_for_another_name(penstock: StartPenstock, localhost: TLSUpstream, ca_file: str) -> None:
    model = {"url": f"https://127.0.0.1:{localhost.port}", "ca_file": ca_file}
    await is_told_of_tls(penstock({"upstreams": {"model": model}}))


async def test_upstream_without_tls(penstock: StartPenstock, upstream: RawUpstream, ca_file: str) -> None:
    async def speak_plainly(connection: UpstreamConnection) -> None:
        await connection.send(reply(b"", status="400 Bad Request"))
        await connection.ended()

    upstream.script = speak_plainly
    model = {"url": f"https://127.0.0.1:{upstream.port}", "ca_file": ca_file}
    await is_told_of_tls(penstock({"upstreams": {"model": model}}))
