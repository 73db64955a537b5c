"""Undoes content codings of bodies that policies must read (RFC 9110 §8.4.1): gzip and deflate, bounded.

Replies are asked for uncoded, so this is for upstreams that code all the same and for clients that send coded bodies.
Other codings are refused by the caller: nothing unread is passed on where a policy had to see it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SLICE = 65536
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class Undecodable(Exception):
    """The bytes are not in the coding that the head names."""


class Decoder:
    """One body. Raises ValueError for a coding that it does not know."""

    def __init__(self, coding: str) -> None:
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise ValueError(f"content coding {coding!r} is not supported")
        self._raw_deflate = coding == "deflate"  # RFC 9110 says zlib, some send raw deflate: found out by the first byte
        self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded text of `data`, in pieces of at most 64 KiB: the caller counts, and stops when it is too much."""
        if not self._started and data:
            self._started = True
            if self._raw_deflate and data[0] & 0x0F != 8:
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
        while data:
            if self._zlib.eof:  # gzip members may follow one another (RFC 1952 §2.2)
                self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                piece = self._zlib.decompress(data, _SLICE)
            except zlib.error:
                raise Undecodable("the body is not in its content coding") from None
            if piece:
                yield piece
            data = self._zlib.unconsumed_tail or self._zlib.unused_data

    @property
    def complete(self) -> bool:
        """Whether the coded body ended where the body did."""
        return self._zlib.eof or not self._started


def content_coding(value: str | None) -> str:
    """The coding a `Content-Encoding` field names, "" for identity and an absent field."""
    coding = (value or "").strip().lower()
    return "" if coding == "identity" else coding
