"""Counting tokens. Pure, offline, behind a small interface.

    deltas    a delta of a stream is a token: the cheap default. One delta is usually, not always, one token, so what the
              upstream states as its usage corrects it. A whole text is estimated by its length, and so is a delta that
              is longer than a token can be. Of JSON of unknown shape, where ids and types are texts too, all short texts of
              an event are one token.
    o200k     OpenAI's vocabularies, exactly, for the models that use them and as a yardstick for all others. Need the
    cl100k    extra `penstock[tokens]`, which carries them in its wheel.

A stream's text comes in pieces that do not end where tokens do: counted piece by piece it would be 1.6 times as many. So a
`Tally` counts what each channel has said so far, and goes over nothing again that no continuation can change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Literal, Protocol

from .dialects.base import Channel, Delta

Tokenizer = Literal["deltas", "o200k", "cl100k"]

BYTES_PER_TOKEN = 4
"""What a token stands for where nothing better is known; about right for English and code."""

_TOKEN_BYTES = 64  # but for runs of white space and the like, no token is longer
_SHORT = _TOKEN_BYTES // 4  # characters that are a token at most, however many bytes UTF-8 has for them

_ENCODINGS = {"o200k": "o200k_base", "cl100k": "cl100k_base"}
_SAMPLE_CHARACTERS = 16384  # of a prompt, say, are tokenized: random letters take 1 µs each, and block the process
_LONGEST_TAIL = 1024  # characters without a seam; then one is made, which may cost a token
_MOST_CHANNELS = 256  # of one reply that are counted as they grow; of more, each text stands alone

# Where one piece of text ends whatever follows, in the patterns by which both encodings cut text before they look for
# tokens: between a letter or digit and white space or a punctuation mark that no pattern joins to it (an apostrophe is one).
_SEAM = re.compile(
    r"(?s).*[^\W_](?=[\s.,:;!?()\[\]{}<>=\"\u2026\u3001-\u3003\u3008-\u3011\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f])"
)


class Tally(Protocol):
    """Counts one reply as it grows."""

    def add(self, deltas: Sequence[Delta]) -> int:
        """Count these too; returns the tokens of the reply so far. Repeated texts (`Channel.repeated`) are not counted.

        Two pieces can make one token of what were two, so that the result may be less than before."""


class Counter(Protocol):
    """One way to count."""

    def estimate(self, texts: Iterable[str]) -> int:
        """The tokens of whole texts. Of very long ones only the beginning is looked at."""

    def tally(self) -> Tally:
        """A fresh one, for one reply."""


def installed(tokenizer: Tokenizer) -> bool:
    """Whether `counter(tokenizer)` has what it needs."""
    return tokenizer not in _ENCODINGS or find_spec("splintr") is not None


@cache
def counter(tokenizer: Tokenizer) -> Counter:
    """The counter of this name. The first one of a vocabulary takes 0.2 s and 33 MB. Raises ImportError."""
    if tokenizer not in _ENCODINGS:
        return DeltaCounter()
    from splintr import Tokenizer as Splintr

    # Text that looks like a special token is text: who writes "<|endoftext|>" has made no end of a text.
    encode = Splintr.from_pretrained(_ENCODINGS[tokenizer]).encode_ordinary
    return ExactCounter(lambda text: len(encode(text)))


class DeltaCounter:
    """A delta is a token, if it can be one."""

    def estimate(self, texts: Iterable[str]) -> int:
        return sum(_by_size(len(text.encode(errors="replace"))) for text in texts)

    def tally(self) -> Tally:
        return _DeltaTally()


def _by_size(size: int) -> int:
    return -(-size // BYTES_PER_TOKEN)


class _DeltaTally:
    def __init__(self) -> None:
        self._total = 0

    def add(self, deltas: Sequence[Delta]) -> int:
        unknown = False
        for channel, text in deltas:
            if channel.repeated:
                continue
            tokens = 1 if len(text) <= _SHORT else _of_delta(text)
            index = channel.index
            if type(index) is str and tokens == 1 and index.startswith("/"):
                unknown = True
            else:
                self._total += tokens
        if unknown:
            self._total += 1
        return self._total


def _of_delta(text: str) -> int:
    size = len(text.encode(errors="replace"))
    return 1 if size <= _TOKEN_BYTES else _by_size(size)


class ExactCounter:
    """`count` gives the tokens of a text."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count

    def count(self, text: str) -> int:
        try:
            return self._count(text)
        except UnicodeEncodeError:  # half a surrogate pair: each stands for a character that was cut
            return self._count(text.encode(errors="replace").decode())

    def estimate(self, texts: Iterable[str]) -> int:
        left = _SAMPLE_CHARACTERS
        counted = looked_at = in_all = 0
        for text in texts:
            in_all += len(text)
            if left:
                sample = text[:left]
                left -= len(sample)
                looked_at += len(sample)
                counted += self.count(sample)
        return counted if looked_at == in_all else counted * in_all // looked_at

    def tally(self) -> Tally:
        return _ExactTally(self.count)


class _ExactTally:
    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._growing: dict[Channel, _Growing] = {}
        self._total = 0

    def add(self, deltas: Sequence[Delta]) -> int:
        for channel, text in deltas:
            if channel.repeated:
                continue
            growing = self._growing.get(channel)
            if growing is None:
                growing = _Growing()
                if len(self._growing) < _MOST_CHANNELS:
                    self._growing[channel] = growing
            self._total += growing.add(text, self._count)
        return self._total


class _Growing:
    """One channel's text: of all before its tail the tokens are known."""

    __slots__ = ("tail", "tail_tokens")

    def __init__(self) -> None:
        self.tail = ""
        self.tail_tokens = 0

    def add(self, text: str, count: Callable[[str], int]) -> int:
        """How many tokens more than before there are with `text`."""
        tail, before, settled = self.tail + text, self.tail_tokens, 0
        seam = _SEAM.match(tail)
        end = seam.end() if seam else len(tail) if len(tail) > _LONGEST_TAIL else 0
        if end:
            settled = count(tail[:end])
            tail = tail[end:]
        self.tail = tail
        self.tail_tokens = count(tail) if tail else 0
        return settled + self.tail_tokens - before
