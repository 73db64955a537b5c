"""Which replies are coded, and how they are described; `tests/properties/test_compression.py` decodes what is coded."""

import zlib
from typing import Any

import brotli
import pytest
import zstandard
from multidict import CIMultiDict
from pydantic import ValidationError

from policies.compression import Compression, CompressionConfig, CompressionEncoder, negotiate
from proxy.errors import COMPLETE
from proxy.fields import weights
from proxy.messages import ResponseHead
from proxy.testing import FakeHost, check_policy, make_request

ALL = ("gzip", "zstd", "br")
DECODERS = {
    "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress,
    "br": lambda: brotli.Decompressor().process,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
}


async def encoder(accept: str | None = "gzip", method: str = "POST", request_headers=(), **keys) -> CompressionEncoder:
    headers = {**dict(request_headers), **({} if accept is None else {"Accept-Encoding": accept})}
    made = await Compression(CompressionConfig(**keys), FakeHost()).admit(make_request(method=method, headers=headers))
    assert isinstance(made, CompressionEncoder)
    return made


def make(status: int = 200, /, **fields: str) -> ResponseHead:
    headers = CIMultiDict({"Content-Type": "text/event-stream"})
    headers.update({name.replace("_", "-"): value for name, value in fields.items()})
    return ResponseHead(status, headers)


@pytest.mark.parametrize("coding", ALL)
async def test_the_contract(coding: str) -> None:
    await check_policy(
        lambda host: Compression(CompressionConfig(), host),
        request=lambda text: make_request(text, headers={"Accept-Encoding": coding}),
    )


# What is asked for


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("br, zstd", "zstd"),
        ("br", "br"),
        ("gzip;q=0.5, br;q=0.8", "br"),
        ("gzip;q=0, br;q=0.001", "br"),
        ("*", "gzip"),
        ("*;q=0.1, gzip;q=0", "zstd"),
        ("br, *;q=0", "br"),
        ("gzip, identity", "gzip"),
        ("gzip;q=0.5, identity;q=0.4", "gzip"),
        ("identity;q=0, gzip", "gzip"),
        ("", None),
        ("identity", None),
        ("deflate", None),
        ("x-gzip2", None),
        ("gzip;q=0", None),
        ("gzip;q=0.0, *;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("*;q=0.5, gzip;q=0.3, br;q=0.3, zstd;q=0.3", None),
        ("identity;q=0", None),
        ("gzip;q=much", None),
    ],
)
def test_negotiation(accept: str, expected: object) -> None:
    assert negotiate(weights([accept]), ALL) == expected


def test_the_operator_chooses_among_equals() -> None:
    assert negotiate(weights(["gzip, br, zstd"]), ("br", "gzip")) == "br"
    assert negotiate(weights(["zstd"]), ("br", "gzip")) is None


async def test_without_accept_encoding_nothing_is_coded() -> None:
    head = make()
    assert not (await encoder(None)).on_response(head, streaming=True)
    assert "Content-Encoding" not in head.headers


# Which replies


@pytest.mark.parametrize(
    "media_type",
    [
        "text/event-stream",
        "Text/HTML; charset=utf-8",
        "application/json",
        "application/x-ndjson",
        "application/problem+json",
    ],
)
async def test_what_is_worth_coding(media_type: str) -> None:
    assert (await encoder()).on_response(make(Content_Type=media_type), streaming=True)


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, {"Content_Type": "audio/mpeg"}),
        (200, {"Content_Type": "application/octet-stream"}),
        (200, {"Content_Type": ""}),
        (200, {"Content_Type": "textual/plain"}),
        (200, {"Content_Encoding": "gzip"}),
        (200, {"Content_Encoding": "identity, br"}),
        (200, {"Cache_Control": "public, No-Transform"}),
        (206, {"Content_Range": "bytes 0-1/5000"}),
        (200, {"Content_Range": "bytes 0-1/5000"}),
        (206, {}),
        (204, {}),
        (304, {}),
        (101, {}),
    ],
)
async def test_what_is_left_as_it_is(status: int, fields: dict[str, str]) -> None:
    head = make(status, **fields, Content_Length="5000", ETag='"a"')
    before = head.headers.copy()
    assert not (await encoder()).on_response(head, streaming=False)
    assert head.headers == before


@pytest.mark.parametrize(
    ("length", "streaming", "coded"),
    [("1023", False, False), ("1024", False, True), (None, False, True), ("10", True, True), (None, True, True)],
)
async def test_small_whole_replies_are_not_worth_it(length: str | None, streaming: bool, coded: bool) -> None:
    head = make() if length is None else make(Content_Length=length)
    assert (await encoder()).on_response(head, streaming=streaming) is coded
    assert ("Vary" in head.headers) is coded


async def test_no_reply_to_head_is_coded() -> None:
    head = make()
    assert not (await encoder(method="HEAD")).on_response(head, streaming=False)
    assert head.headers["Vary"] == "Accept-Encoding"


async def test_a_client_can_forbid_it() -> None:
    request = make_request(headers={"Accept-Encoding": "gzip", "Cache-Control": "no-cache, no-transform"})
    assert await Compression(CompressionConfig(), FakeHost()).admit(request) is None


async def test_content_types_are_the_operators() -> None:
    keys = {"content_types": ("application/*", "text/csv")}
    assert (await encoder(**keys)).on_response(make(Content_Type="application/anything"), streaming=True)
    assert not (await encoder(**keys)).on_response(make(), streaming=True)


# What is said of them


async def test_the_head_describes_the_coded_body() -> None:
    head = make(
        Content_Encoding="identity",
        Content_Length="5000",
        ETag='"v1"',
        Content_MD5="x",
        Digest="x",
        Content_Digest="x",
        Repr_Digest="x",
        Accept_Ranges="bytes",
        Vary="Origin",
        X_Request_Id="1",
    )
    assert (await encoder()).on_response(head, streaming=False)
    assert dict(head.headers) == {
        "Content-Type": "text/event-stream",
        "Content-Encoding": "gzip",
        "ETag": 'W/"v1"',
        "Vary": "Origin, Accept-Encoding",
        "X-Request-Id": "1",
    }


async def test_a_weak_etag_stays() -> None:
    head = make(ETag='W/"v1"')
    assert (await encoder()).on_response(head, streaming=True)
    assert head.headers["ETag"] == 'W/"v1"'


async def test_an_uncoded_reply_that_could_have_been_coded_says_so_and_no_more() -> None:
    head = make(Content_Length="5000", ETag='"v1"')
    assert not (await encoder("identity")).on_response(head, streaming=False)
    assert dict(head.headers) == {
        "Content-Type": "text/event-stream",
        "Content-Length": "5000",
        "ETag": '"v1"',
        "Vary": "Accept-Encoding",
    }


# The body


@pytest.mark.parametrize("coding", ALL)
async def test_every_flush_can_be_decoded_at_once(coding: str) -> None:
    made = await encoder(coding)
    assert made.on_response(make(), streaming=True)
    decode = DECODERS[coding]()
    for number in range(100):
        event = b"data: %d\n\n" % number
        assert decode(made.encode(event, True)) == event
    assert decode(made.finish()) == b""
    made.close(COMPLETE)
    facts = made.facts()
    assert facts["coding"] == coding
    assert facts["in_bytes"] == sum(len(b"data: %d\n\n" % number) for number in range(100))


@pytest.mark.parametrize("coding", ALL)
async def test_a_stream_of_chunks_becomes_much_smaller(coding: str) -> None:
    made = await encoder(coding)
    made.on_response(make(), streaming=True)
    chunk = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":"%d"}}]}\n\n'
    for number in range(200):
        made.encode(chunk % number, True)
    facts = made.facts()
    assert 4 * int(facts["out_bytes"]) < int(facts["in_bytes"])


@pytest.mark.parametrize("coding", ALL)
async def test_without_flush_the_coder_may_wait(coding: str) -> None:
    made = await encoder(coding)
    made.on_response(make(), streaming=False)
    coded = made.encode(b"a" * 100, False) + made.encode(b"b" * 100, False)
    assert len(coded) < 20
    assert DECODERS[coding]()(coded + made.finish()) == b"a" * 100 + b"b" * 100


async def test_nothing_coded_no_facts() -> None:
    made = await encoder()
    made.close(COMPLETE)
    assert made.facts() == {}


async def test_a_coder_is_made_only_for_a_reply_and_let_go_at_the_end() -> None:
    made = await encoder()
    unused = made._coder
    made.on_response(make(), streaming=True)
    assert made._coder is not unused
    made.close(COMPLETE)
    assert made._coder is unused


async def test_windows_are_what_is_configured() -> None:
    """A decoder that allows no larger window than was configured can read it."""
    text = bytes(range(256)) * 200
    gzip = await encoder("gzip", gzip_window_log=9)
    gzip.on_response(make(), streaming=True)
    assert zlib.decompressobj(16 + 9).decompress(gzip.encode(text, True)) == text
    zstd = await encoder("zstd", zstd_window_log=10)
    zstd.on_response(make(), streaming=True)
    frame = zstd.encode(text, True) + zstd.finish()
    assert zstandard.get_frame_parameters(frame).window_size == 1 << 10


def test_the_largest_configurable_zstd_window_is_one_that_browsers_decode() -> None:
    with pytest.raises(ValidationError):
        CompressionConfig(zstd_window_log=24)


@pytest.mark.parametrize(
    "keys",
    [
        {"codings": ()},
        {"codings": ("deflate",)},
        {"content_types": ("text",)},
        {"content_types": ("Text/HTML",)},
        {"content_types": ("*/*",)},
        {"gzip_level": 0},
        {"gzip_window_log": 16},
        {"gzip_window_log": 8},
        {"brotli_quality": 12},
        {"min_bytes": -1},
    ],
)
def test_what_the_libraries_cannot_do_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CompressionConfig(**keys)


@pytest.mark.parametrize("coding", ALL)
@pytest.mark.parametrize("extreme", ["least", "most"])
async def test_every_configurable_size_works(coding: str, extreme: str) -> None:
    fields = [name for name in CompressionConfig.model_fields if name.split("_")[0] in ("gzip", "zstd", "brotli")]
    keys = {}
    for name in fields:
        bounds = {type(bound).__name__: bound for bound in CompressionConfig.model_fields[name].metadata}
        keys[name] = bounds["Ge"].ge if extreme == "least" else bounds["Le"].le
    made = await encoder(coding, **keys)
    made.on_response(make(), streaming=True)
    text = b"data: Hello, and hello again\n\n" * 100
    assert DECODERS[coding]()(made.encode(text, True)) == text
