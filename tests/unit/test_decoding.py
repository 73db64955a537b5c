from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable

import pytest

from proxy.decoding import Decoder, Undecodable, content_coding

TEXT = "".join(f"data: {i} 🌊\n\n" for i in range(2000)).encode()
SLICE = 65536


def deflated(data: bytes, wbits: int) -> bytes:
    coder = zlib.compressobj(wbits=wbits)
    return coder.compress(data) + coder.flush()


def zlibbed(data: bytes) -> bytes:
    return deflated(data, zlib.MAX_WBITS)


def raw(data: bytes) -> bytes:
    return deflated(data, -zlib.MAX_WBITS)


def decode(coding: str, reads: Iterable[bytes]) -> bytes:
    """What a whole body says; AssertionError where it did not end."""
    decoder = Decoder(coding)
    text = b"".join(piece for read in reads for piece in decoder.feed(read))
    assert decoder.complete
    return text


def single(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


CODED = [
    pytest.param("gzip", gzip.compress(TEXT), id="gzip"),
    pytest.param("x-gzip", gzip.compress(TEXT), id="x-gzip"),
    pytest.param("gzip", gzip.compress(TEXT[:7]) + gzip.compress(b"") + gzip.compress(TEXT[7:]), id="gzip members"),
    pytest.param("deflate", zlibbed(TEXT), id="zlib"),
    pytest.param("deflate", raw(TEXT), id="raw deflate"),
]


@pytest.mark.parametrize(("coding", "coded"), CODED)
def test_whole_and_byte_by_byte(coding: str, coded: bytes) -> None:
    assert decode(coding, [coded]) == TEXT
    assert decode(coding, single(coded)) == TEXT
    assert decode(coding, [b"", coded[:11], b"", coded[11:], b""]) == TEXT


@pytest.mark.parametrize(("coding", "coded"), CODED)
def test_a_body_cut_off_is_not_complete(coding: str, coded: bytes) -> None:
    for end in (1, len(coded) // 2, len(coded) - 1):
        decoder = Decoder(coding)
        assert TEXT.startswith(b"".join(decoder.feed(coded[:end])))
        assert not decoder.complete


@pytest.mark.parametrize(("coding", "coded"), [("gzip", gzip.compress(TEXT)), ("deflate", zlibbed(TEXT))])
@pytest.mark.parametrize("place", ["middle", "checksum"])
def test_a_damaged_body_is_undecodable(coding: str, coded: bytes, place: str) -> None:
    at = len(coded) // 2 if place == "middle" else len(coded) - (8 if coding == "gzip" else 4)
    with pytest.raises(Undecodable):
        decode(coding, [coded[:at] + bytes([coded[at] ^ 1]) + coded[at + 1 :]])


@pytest.mark.parametrize(
    ("coding", "coded"), [("gzip", zlibbed(TEXT)), ("deflate", gzip.compress(TEXT)), ("gzip", TEXT)]
)
def test_another_coding_than_the_head_names_is_undecodable(coding: str, coded: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(coding, [coded])


@pytest.mark.parametrize(
    ("coding", "coded"), [("gzip", gzip.compress(TEXT)), ("deflate", zlibbed(TEXT)), ("deflate", raw(TEXT))]
)
@pytest.mark.parametrize("together", [True, False])
def test_what_follows_the_coded_body_is_undecodable(coding: str, coded: bytes, together: bool) -> None:
    with pytest.raises(Undecodable):
        decode(coding, [coded + b"data: more\n\n"] if together else [coded, b"data: more\n\n"])


def test_only_gzip_has_members() -> None:
    with pytest.raises(Undecodable):
        decode("deflate", [zlibbed(TEXT), zlibbed(TEXT)])


@pytest.mark.parametrize(("coding", "code"), [("gzip", gzip.compress), ("deflate", zlibbed), ("deflate", raw)])
@pytest.mark.parametrize("size", [SLICE - 1, SLICE, SLICE + 1, SLICE + 5, 2 * SLICE, 2 * SLICE + 100, 1 << 24])
def test_a_bomb_comes_in_bounded_pieces_and_all_of_it(coding: str, code: object, size: int) -> None:
    assert callable(code)
    decoder = Decoder(coding)
    sizes = [len(piece) for piece in decoder.feed(code(bytes(size)))]
    assert max(sizes) <= SLICE
    assert sum(sizes) == size
    assert decoder.complete


def test_a_bomb_is_decoded_no_further_than_the_caller_goes_on() -> None:
    coded = gzip.compress(bytes(1 << 23))
    pieces = Decoder("gzip").feed(coded)
    assert sum(len(next(pieces)) for _ in range(4)) == 4 * SLICE


def test_each_flush_can_be_read_at_once() -> None:
    coder = zlib.compressobj(wbits=31)
    decoder = Decoder("gzip")
    for i in range(10):
        event = f"data: {i}\n\n".encode()
        assert b"".join(decoder.feed(coder.compress(event) + coder.flush(zlib.Z_SYNC_FLUSH))) == event
        assert not decoder.complete
    assert list(decoder.feed(coder.flush())) == []
    assert decoder.complete


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_an_empty_body_is_complete(coding: str) -> None:
    assert decode(coding, []) == decode(coding, [b""]) == b""


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "identity, gzip", "", "GZIP "])
def test_other_codings_are_refused(coding: str) -> None:
    with pytest.raises(ValueError, match="not supported"):
        Decoder(coding)


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        (None, ""),
        ("", ""),
        ("identity", ""),
        (" Identity ", ""),
        ("GZip", "gzip"),
        ("br", "br"),
        ("gzip, br", "gzip, br"),
    ],
)
def test_the_coding_of_a_field(value: str | None, coding: str) -> None:
    assert content_coding(value) == coding
