"""A second set of labelled texts, tests/fixtures/redaction/blind.jsonl: written after the public documentation of each format
without a look at the engine. Its letters are rotated by 13, so that scanners of secrets pass it by.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FILE = Path(__file__).parents[1] / "fixtures" / "redaction" / "blind.jsonl"

PHONE = "phone"


class BlindCase(NamedTuple):
    """`match` must not be left of `text`; a clean text has none, and no `entity`."""

    entity: str | None
    text: str
    match: str


def cases() -> Iterator[BlindCase]:
    for line in _FILE.read_text().splitlines():
        case = json.loads(line)
        text, match = (codecs.decode(case.get(name, ""), "rot13") for name in ("text", "match"))
        yield BlindCase(case["entity"], text, match)
