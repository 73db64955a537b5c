"""However events are batched, what was flushed so far can be decoded so far, by the real libraries."""

import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from policies.compression import CompressionConfig, CompressionEncoder
from proxy.messages import ResponseHead

DECODERS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress,
    "br": lambda: brotli.Decompressor().process,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
}

# Long repeats reach beyond small windows; random bytes cannot be compressed at all.
pieces = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(str.encode),
    st.integers(1, 20000).map(lambda times: b"data: Hello\n\n" * (times // 13)),
)
batches = st.lists(st.tuples(pieces, st.booleans()), max_size=12)


def coded(coding: str, batches: list[tuple[bytes, bool]], config: CompressionConfig) -> list[bytes]:
    """What each batch gives, and at last the end."""
    encoder = CompressionEncoder(config, coding)
    assert encoder.on_response(ResponseHead(200, CIMultiDict({"Content-Type": "text/event-stream"})), streaming=True)
    return [*(encoder.encode(data, flush) for data, flush in batches), encoder.finish()]


configs = st.builds(
    CompressionConfig,
    gzip_level=st.integers(1, 9),
    gzip_window_log=st.integers(9, 15),
    gzip_memory_level=st.integers(1, 9),
    zstd_level=st.integers(1, 6),
    zstd_window_log=st.integers(10, 17),
    brotli_quality=st.integers(0, 6),
    brotli_window_log=st.integers(10, 18),
)


@pytest.mark.parametrize("coding", DECODERS)
@given(batches=batches, config=configs)
@settings(deadline=None, max_examples=60)
def test_what_was_flushed_can_be_decoded(
    coding: str, batches: list[tuple[bytes, bool]], config: CompressionConfig
) -> None:
    decode = DECODERS[coding]()
    given = decoded = b""
    for (data, flush), piece in zip(batches, coded(coding, batches, config), strict=False):
        given += data
        decoded += decode(piece)
        assert given.startswith(decoded)
        if flush:
            assert decoded == given


@pytest.mark.parametrize("coding", DECODERS)
@given(batches=batches)
@settings(deadline=None, max_examples=30)
def test_whole_and_byte_by_byte_it_is_the_same_and_complete(coding: str, batches: list[tuple[bytes, bool]]) -> None:
    body = b"".join(coded(coding, batches, CompressionConfig()))
    expected = b"".join(data for data, _ in batches)
    assert DECODERS[coding]()(body) == expected
    decode = DECODERS[coding]()
    assert b"".join(decode(body[i : i + 1]) for i in range(len(body))) == expected


@given(batches=batches)
@settings(deadline=None, max_examples=30)
def test_it_is_one_stream_with_an_end(batches: list[tuple[bytes, bool]]) -> None:
    """No member or frame per event, and nothing after the end: clients that decode one only get all."""
    gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    gzip.decompress(b"".join(coded("gzip", batches, CompressionConfig())))
    assert gzip.eof
    assert gzip.unused_data == b""
    zstd = zstandard.ZstdDecompressor().decompressobj()
    zstd.decompress(b"".join(coded("zstd", batches, CompressionConfig())))
    assert zstd.eof
    assert zstd.unused_data == b""
    br = brotli.Decompressor()
    br.process(b"".join(coded("br", batches, CompressionConfig())))
    assert br.is_finished()
