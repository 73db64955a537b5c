"""What is read of a request before any policy: its target, what no route can allow, its body. Pure but for the body."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiohttp import HttpVersion, StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import TransferEncodingError
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from proxy.downstream import ClientReply
from proxy.errors import RequestError
from proxy.messages import Headers
from proxy.receiving import Body, Counted, check, target_of


def received(
    method: str = "GET", target: str = "/v1", *fields: tuple[str, str], version: tuple[int, int] = (1, 1)
) -> Any:
    return make_mocked_request(method, target, CIMultiDict(fields), version=HttpVersion(*version))


HOST = ("Host", "proxy.test")


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        ("/v1?a=b?c", "proxy.test", "/v1", "a=b?c"),
        ("/", "proxy.test", "/", ""),
        ("*", "proxy.test", "*", ""),
        ("http://other.test/v1?a=b", "other.test", "/v1", "a=b"),
        ("http://other.test:81", "other.test:81", "/", ""),
        ("http://other.test?a=/b", "other.test", "/", "a=/b"),
        ("/v1?to=http://other.test/", "proxy.test", "/v1", "to=http://other.test/"),
    ],
)
def test_the_host_of_an_absolute_target_counts(target: str, host: str, path: str, query: str) -> None:
    assert target_of(received("GET", target, HOST)) == (host, path, query)


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (received("TRACE", "/", HOST), "method_refused"),
        (received("GET", "/", HOST, version=(0, 9)), "malformed_request"),
        (received("GET", "/"), "malformed_request"),
        (received("GET", "/", HOST, HOST), "malformed_request"),
        (received("GET", "/", ("Host", "user@proxy.test")), "malformed_request"),
        (received("POST", "/", HOST, ("Transfer-Encoding", "chunked"), version=(1, 0)), "malformed_request"),
        (received("POST", "/", HOST, ("Transfer-Encoding", "gzip, chunked")), "transfer_coding"),
        (received("GET", "/", HOST, ("Connection", "Upgrade"), ("Upgrade", "websocket")), "upgrade_refused"),
        (received("GET", "/", HOST, ("Connection", "Upgrade"), ("Upgrade", "h2c")), None),
        (received("POST", "/", HOST, ("Expect", "the-unexpected")), "expectation_failed"),
        (received("POST", "/", HOST, ("Expect", "100-Continue")), None),
        (received("POST", "/", HOST, ("Transfer-Encoding", "chunked")), None),
        (received("GET", "/", version=(1, 0)), None),
    ],
)
def test_what_no_route_can_allow_is_refused(request_: Any, refusal: str | None) -> None:
    found = None
    try:
        check(request_, Headers(request_.headers), request_.headers.get("Host", ""))
    except RequestError as error:
        found = error.details
    assert found == refusal


class Reply:
    """Notes that the client was told to go on."""

    continued = False

    def continue_(self) -> None:
        self.continued = True


class Upload:
    """A request whose body is fed by hand."""

    def __init__(self, *fields: tuple[str, str]) -> None:
        loop = asyncio.get_running_loop()
        protocol = BaseProtocol(loop)
        protocol.connection_made(asyncio.Transport())
        self.payload = StreamReader(protocol, 2**16, loop=loop)
        self.request = make_mocked_request("POST", "/v1", CIMultiDict((HOST, *fields)), payload=self.payload)
        self.reply = Reply()
        self.counted = Counted()

    def body(self, limit_bytes: int = 10, limit_s: float = 5.0) -> Body:
        return Body(self.request, cast(ClientReply, self.reply), limit_bytes, limit_s, self.counted)

    async def refusal(self, **limits: Any) -> str:
        with pytest.raises(RequestError) as caught:
            async for _ in self.body(**limits):
                pass
        return caught.value.details


async def test_a_body_comes_as_it_arrives_and_is_counted() -> None:
    upload = Upload()
    upload.payload.feed_data(b"abc")
    body = upload.body()
    assert await anext(body) == b"abc"
    upload.payload.feed_data(b"de")
    upload.payload.feed_eof()
    assert [chunk async for chunk in body] == [b"de"]
    assert upload.counted.bytes == 5
    assert not upload.reply.continued


async def test_a_body_can_be_taken_whole_once_it_is() -> None:
    upload = Upload(("Expect", "100-continue"))
    upload.payload.feed_data(b"abc")
    body = upload.body()
    assert body.whole() is None
    upload.payload.feed_data(b"de")
    upload.payload.feed_eof()
    assert body.whole() == b"abcde"
    assert (upload.counted.bytes, upload.reply.continued) == (5, False)


@pytest.mark.parametrize(("data", "error"), [(b"x" * 11, "body_too_large"), (b"x", "malformed_body")])
async def test_a_whole_body_can_be_too_large_or_broken(data: bytes, error: str) -> None:
    upload = Upload()
    upload.payload.feed_data(data)
    upload.payload.feed_eof()
    if error == "malformed_body":
        upload.payload.set_exception(TransferEncodingError("no chunk"))
    with pytest.raises(RequestError) as caught:
        upload.body().whole()
    assert caught.value.details == error


async def test_a_client_that_waits_is_told_to_go_on() -> None:
    upload = Upload(("Expect", "100-continue"))
    upload.payload.feed_eof()
    assert [chunk async for chunk in upload.body()] == []
    assert upload.reply.continued


async def test_a_body_over_the_limit_ends_there() -> None:
    upload = Upload()
    upload.payload.feed_data(b"x" * 11)
    assert await upload.refusal() == "body_too_large"


async def test_a_body_that_does_not_come() -> None:
    assert await Upload().refusal(limit_s=0.0) == "body_timeout"


async def test_a_body_that_breaks_off() -> None:
    upload = Upload()
    upload.payload.set_exception(TransferEncodingError("not a chunk"))
    assert await upload.refusal() == "malformed_body"
