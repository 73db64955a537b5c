"""Undoes content codings of bodies that policies must read (RFC 9110 §8.4.1): gzip and deflate, bounded.

Replies are asked for uncoded, so this is for upstreams that code all the same and for clients that send coded bodies.
Other codings are refused by the caller: nothing unread is passed on where a policy had to see it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SLICE = 65536
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
_GZIP = 16 + zlib.MAX_WBITS


class Undecodable(Exception):
    """The bytes are not in the coding that the head names."""


class Decoder:
    """One body. Raises ValueError for a coding that it does not know."""

    def __init__(self, coding: str) -> None:
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise ValueError(f"content coding {coding!r} is not supported")
        self._gzip = coding != "deflate"
        self._zlib: zlib._Decompress | None = None  # of the gzip member that was begun last, or of the body

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded text of `data`, in pieces of at most 64 KiB: the caller counts, and stops when it is too much."""
        piece = b""
        # After a full piece there may be more to come, also of data that is all consumed.
        while data or (len(piece) == _SLICE and not self.complete):
            if self._zlib is None or self._zlib.eof:
                self._zlib = self._begin(data[0])
            try:
                piece = self._zlib.decompress(data, _SLICE)
            except zlib.error:
                raise Undecodable("the body is not in its content coding") from None
            if piece:
                yield piece
            data = self._zlib.unconsumed_tail or self._zlib.unused_data

    def _begin(self, first: int) -> zlib._Decompress:
        if self._gzip:
            return zlib.decompressobj(_GZIP)  # members may follow one another (RFC 1952 §2.2)
        if self._zlib is not None:
            raise Undecodable("the body goes on after its content coding has ended")
        # RFC 9110 says zlib, some send raw deflate: the compression method in zlib's first byte is always 8.
        return zlib.decompressobj(_ZLIB if first & 0x0F == 8 else _RAW)

    @property
    def complete(self) -> bool:
        """Whether the coded body ended where the body did."""
        return self._zlib is None or self._zlib.eof


def content_coding(value: str | None) -> str:
    """The coding a `Content-Encoding` field names, "" for identity and an absent field."""
    coding = (value or "").strip().lower()
    return "" if coding == "identity" else coding
