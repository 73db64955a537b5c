"""`compression`: gzip, zstd or brotli, whichever the client prefers of what it asked for (RFC 9110 §12.5.3).

A reply is one continuous coded stream, flushed once per batch, so that every event can be read when it arrives; a gzip
member or zstd frame per event breaks browsers and curl. What the upstream coded already stays as it is.

The defaults are small because every open stream pays for its coder: in memory, and in time where the coders of all
streams do not fit into the processor's cache together. Measured with chat completion chunks of 250 bytes, each flushed,
600 a stream (zlib 1.2.13, brotli 1.2.1, zstd 1.5.7; resident memory; best time of 28, one stream alone):

    gzip  level 1, window 11, memory 3     17 KiB a stream   2.2 µs an event   to 1/15.7
          level 1, window 12, memory 5     35 KiB            2.2 µs            to 1/16.0
    zstd  level 1, window 14               84 KiB            1.4 µs            to 1/14.8
    br    quality 3, window 14            311 KiB            4.3 µs            to 1/15.1
    the libraries' defaults: gzip         204 KiB            2.5 µs            to 1/16.8
                             zstd         966 KiB            1.3 µs            to 1/15.4
    br    quality 5, window 22           1522 KiB            6.4 µs            to 1/15.8
    br    quality 1                                                            to 1/1.2: hardly compresses when flushed
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import brotli  # type: ignore[import-untyped]  # has no stubs
import zstandard
from pydantic import Field

from proxy.errors import Outcome
from proxy.fields import add_vary, weights
from proxy.messages import BYTE_EXACT, Headers, Request, ResponseHead, drop, tokens
from proxy.policy import Encoder, Policy, PolicyConfig, Scope, Sees, Stage
from proxy.values import Count

MediaType = Annotated[str, Field(pattern=r"^[a-z0-9!#$&^_.+-]+/(\*|[a-z0-9!#$&^_.+-]+)$")]


class CompressionConfig(PolicyConfig):
    """Windows are 2^n bytes. gzip takes four windows a stream and 2^(`gzip_memory_level` + 9) bytes for its tables."""

    codings: tuple[Literal["gzip", "zstd", "br"], ...] = Field(("gzip", "zstd", "br"), min_length=1)  # best first
    content_types: tuple[MediaType, ...] = (
        "text/*",
        "application/json",
        "application/problem+json",
        "application/x-ndjson",
        "application/jsonl",
    )
    min_bytes: Count = 1024  # of a whole reply; a stream's length is not known
    gzip_level: Annotated[int, Field(ge=1, le=9)] = 1
    gzip_window_log: Annotated[int, Field(ge=9, le=15)] = 11
    gzip_memory_level: Annotated[int, Field(ge=1, le=9)] = 3
    zstd_level: Annotated[int, Field(ge=1, le=19)] = 1
    zstd_window_log: Annotated[int, Field(ge=10, le=23)] = 14  # RFC 9659: nobody has to decode more, Chromium does not
    brotli_quality: Annotated[int, Field(ge=0, le=11)] = 3
    brotli_window_log: Annotated[int, Field(ge=10, le=24)] = 14


class Coder(NamedTuple):
    """One library's coder, with its state, for one reply."""

    compress: Callable[[bytes], bytes]
    flush: Callable[[], bytes]
    finish: Callable[[], bytes]


IDENTITY = Coder(bytes, bytes, bytes)
"""Codes nothing and holds nothing."""


def _gzip(config: CompressionConfig) -> Coder:
    gzip_format = 16  # added to the window's logarithm, as zlib.h says
    coder = zlib.compressobj(
        config.gzip_level, zlib.DEFLATED, gzip_format + config.gzip_window_log, config.gzip_memory_level
    )
    return Coder(coder.compress, partial(coder.flush, zlib.Z_SYNC_FLUSH), coder.flush)


def _zstd(config: CompressionConfig) -> Coder:
    tables_log = config.zstd_window_log - 2  # a level's own tables are made for its own, far larger window
    parameters = zstandard.ZstdCompressionParameters.from_level(
        config.zstd_level, window_log=config.zstd_window_log, hash_log=tables_log, chain_log=tables_log
    )
    coder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return Coder(coder.compress, partial(coder.flush, zstandard.COMPRESSOBJ_FLUSH_BLOCK), coder.flush)


def _brotli(config: CompressionConfig) -> Coder:
    coder = brotli.Compressor(quality=config.brotli_quality, lgwin=config.brotli_window_log)
    return Coder(coder.process, coder.flush, coder.finish)


_CODERS: Mapping[str, Callable[[CompressionConfig], Coder]] = {"gzip": _gzip, "zstd": _zstd, "br": _brotli}


def negotiate(accepted: Mapping[str, float], offered: Sequence[str]) -> str | None:
    """The coding that the client likes best, the first of `offered` among equals; None: identity (RFC 9110 §12.5.3).

    `accepted` as `weights` reads it. No field at all would allow any coding; here only what was asked for is sent.
    """
    anything_else = accepted.get("*", 0.0)
    best = max(offered, key=lambda coding: accepted.get(coding, anything_else))
    weight = accepted.get(best, anything_else)
    return best if weight > 0 and weight >= accepted.get("identity", anything_else) else None


class Compression(Policy[CompressionConfig]):
    stage = Stage.ENCODE
    scope = Scope.ATTACHMENT
    sees = Sees.NOTHING
    Config = CompressionConfig

    async def admit(self, request: Request) -> Encoder | None:
        headers = request.headers
        if _must_not_change(headers):
            return None
        coding = None
        if "Accept-Encoding" in headers and request.method != "HEAD":
            coding = negotiate(weights(headers.getall("Accept-Encoding")), self.config.codings)
        return CompressionEncoder(self.config, coding)


class CompressionEncoder(Encoder):
    """`coding` None: nothing is coded, but a reply that could have been says so to caches."""

    def __init__(self, config: CompressionConfig, coding: str | None) -> None:
        self._config = config
        self._coding = coding
        self._coder = IDENTITY
        self._in_bytes = self._out_bytes = 0

    def on_response(self, head: ResponseHead, *, streaming: bool) -> bool:
        if not self._worth_coding(head, streaming):
            return False
        add_vary(head.headers, "Accept-Encoding")
        if self._coding is None:
            return False
        self._coder = _CODERS[self._coding](self._config)
        _describe(head.headers, self._coding)
        return True

    def _worth_coding(self, head: ResponseHead, streaming: bool) -> bool:
        headers = head.headers
        if head.status < 200 or head.status in (204, 206, 304) or "Content-Range" in headers:
            return False
        if "Content-Encoding" in headers and set(tokens(headers.getall("Content-Encoding"))) - {"identity"}:
            return False
        if _must_not_change(headers):
            return False
        if not streaming and int(headers.get("Content-Length", self._config.min_bytes)) < self._config.min_bytes:
            return False
        media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        subtypes = media_type.partition("/")[0] + "/*"
        return media_type in self._config.content_types or subtypes in self._config.content_types

    def encode(self, data: bytes, flush: bool) -> bytes:
        coder = self._coder
        coded = coder.compress(data) + coder.flush() if flush else coder.compress(data)
        self._in_bytes += len(data)
        self._out_bytes += len(coded)
        return coded

    def finish(self) -> bytes:
        last = self._coder.finish()
        self._out_bytes += len(last)
        return last

    def close(self, outcome: Outcome) -> None:
        self._coder = IDENTITY  # its memory goes with the exchange, not with the log line that is still to be written

    def facts(self) -> Mapping[str, int | str]:
        if self._coding is None or not self._out_bytes:
            return {}
        return {"coding": self._coding, "in_bytes": self._in_bytes, "out_bytes": self._out_bytes}


def _must_not_change(headers: Headers) -> bool:
    """RFC 9111 §5.2.1.6, §5.2.2.6."""
    return "Cache-Control" in headers and "no-transform" in tokens(headers.getall("Cache-Control"))


def _describe(headers: Headers, coding: str) -> None:
    """Say that the body is coded. What was said of its exact bytes goes; an ETag still holds, but weakly."""
    etag = headers.get("ETag")
    drop(headers, BYTE_EXACT)
    if etag is not None:
        headers["ETag"] = etag if etag.startswith("W/") else f"W/{etag}"
    headers["Content-Encoding"] = coding
