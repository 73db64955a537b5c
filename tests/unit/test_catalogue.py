"""The list of policies says of each where it may stand and what its keys are, and of a broken one what is wrong."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from proxy.catalogue import catalogue, words
from proxy.registry import Registry
from proxy.secrets import Secret

Install = Callable[..., Path]

BRAKE = '''
"""`brake`: slows things down.

The rest is not shown."""

from typing import Literal
from pydantic import BaseModel, Field
from proxy.policy import Policy, PolicyConfig, Stage

class BrakeConfig(PolicyConfig):
    mode: Literal["soft", "hard"]
    strength: float = Field(0.5, description="1 is a full stop")
    tags: tuple[str, ...] = ("a", "b")
    only: frozenset[int] = frozenset((2, 1))
    names: list[str] = Field(default_factory=list)
    quiet: bool = False
    note: str | None = None
    called: int = Field(1, alias="known-as")

class Brake(Policy[BrakeConfig]):
    stage = Stage.PACE
    may_bypass = True
    Config = BrakeConfig
'''


def _paragraphs() -> dict[str, list[str]]:
    text = "\n".join(catalogue(Registry.scan()))
    return {paragraph.partition("  ")[0]: paragraph.splitlines() for paragraph in text.strip().split("\n\n")}


def test_a_policy_with_keys_of_every_kind(install: Install) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=BRAKE)
    assert _paragraphs()["brake"] == [
        "brake  (acme 1.0)",
        "    slows things down.",
        '    stage PACE, scope EXCHANGE, sees NOTHING, on_error = "bypass" allowed',
        '        mode (required)  # "soft" | "hard"',
        "        strength = 0.5  # number; 1 is a full stop",
        '        tags = ["a", "b"]  # list of text',
        "        only = [1, 2]  # list of whole number",
        "        names = []  # list of text",
        "        quiet = false  # true or false",
        "        note  # text",
        "        known-as = 1  # whole number",
    ]


def test_a_class_may_speak_for_itself(install: Install) -> None:
    source = BRAKE.replace("    stage =", '    """Brakes."""\n    stage =')
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=source)
    assert _paragraphs()["brake"][1] == "    Brakes."


def test_one_without_words_and_keys(install: Install) -> None:
    source = """
from proxy.policy import Policy, PolicyConfig, Stage

class Brake(Policy[PolicyConfig]):
    stage = Stage.PACE
    Config = PolicyConfig
"""
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=source)
    assert _paragraphs()["brake"] == ["brake  (acme 1.0)", "    stage PACE, scope EXCHANGE, sees NOTHING"]


def test_one_that_cannot_be_used_is_listed_with_the_reason(install: Install) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake="raise RuntimeError('no licence')")
    paragraphs = _paragraphs()
    assert paragraphs["brake"] == [
        "brake  (acme 1.0)",
        "    cannot be used: acme 1.0 cannot be imported: RuntimeError: no licence",
    ]
    assert {"cors", "heartbeat"} <= set(paragraphs)


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    y: int


TYPES: list[tuple[Any, str]] = [
    (bool, "true or false"),
    (int, "whole number"),
    (float, "number"),
    (str, "text"),
    (Secret, '"env:NAME" or "file:/path"'),
    (Secret | None, '"env:NAME" or "file:/path"'),
    (Annotated[int, Field(gt=0)], "whole number"),
    (float | Literal["auto"], 'number or "auto"'),
    (tuple[Annotated[str, Field(min_length=1)], ...], "list of text"),
    (Colour, '"red"'),
    (tuple[Point, ...], "list of { x, y }"),
    (dict[str, int], "dict"),
    (Path, "Path"),
]


@pytest.mark.parametrize(("annotation", "expected"), TYPES)
def test_types_in_words(annotation: Any, expected: str) -> None:
    assert words(annotation) == expected
