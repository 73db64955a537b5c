"""The default entities as a scanner finds them, with the national telephone numbers of a few regions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policies.redaction.entities import entities
from policies.redaction.scanner import Scanner


@pytest.fixture(scope="session")
def scanner() -> Scanner:
    return Scanner(entities(["US", "GB", "DE"]))


@pytest.fixture(scope="session")
def redact(scanner: Scanner) -> Callable[[str], str]:
    """A text with the name of each entity in its place."""
    return lambda text: scanner.redact(text, lambda entity, found: f"[{entity.name}]")
