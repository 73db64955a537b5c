"""The text that scanners are warmed with."""

from __future__ import annotations

from policies.redaction.common import COMMON
from policies.redaction.entities import entities
from policies.redaction.entity import Entity
from policies.redaction.scanner import Scanner


def test_it_has_prose_code_and_numbers_and_something_to_find() -> None:
    found = set()

    def replace(entity: Entity, text: str) -> str:
        found.add(entity.name)
        return ""

    Scanner(entities()).redact(COMMON, replace)
    assert {"EMAIL", "CARD", "IPV4", "PHONE"} <= found
    for part in (" the ", "Monday", "1. **", "def ", "\n\n", "\u201c"):
        assert part in COMMON
