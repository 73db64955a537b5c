"""Whatever an operator writes, loading ends in a whole configuration or in a list of problems, and in nothing else."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.config import Config, load
from proxy.errors import ConfigError

EXAMPLE = (Path(__file__).parents[2] / "config.example.toml").read_text()

LIKELY = ["", "env:HOME", "file:/", "auto", "/", "[::1]:80", "http://h"]
texts = st.text(st.characters(codec="ascii")) | st.sampled_from(LIKELY)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
Place = tuple[str | int, ...]


def _places(node: Any, path: Place = ()) -> list[Place]:
    """The way to every table, list and value of a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, inner in items for place in _places(inner, (*path, key)))]


def _replaced(node: Any, path: Place, value: Any) -> Any:
    if not path:
        return value
    copy = node.copy()
    copy[path[0]] = _replaced(node[path[0]], path[1:], value)
    return copy


def _toml(value: Any) -> str:
    """An inline value; TOML has no null, so a key without a value stays, as a mistake of its own."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    return "" if value is None else json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def _loaded(folder: Path, text: str) -> Config | ConfigError:
    path = folder / "penstock.toml"
    path.write_text(text, newline="")
    try:
        return load(path)
    except ConfigError as error:
        return error


def _told(folder: Path, text: str) -> None:
    """An error says something, and each of its problems does."""
    loaded = _loaded(folder, text)
    if isinstance(loaded, ConfigError):
        assert loaded.problems
        assert all(problem.message for problem in loaded.problems)


EXAMPLE_DOCUMENT = tomllib.loads(EXAMPLE)
PLACES = [place for place in _places(EXAMPLE_DOCUMENT) if place]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.sampled_from(PLACES), value=values)
def test_any_value_in_any_place(tmp_path: Path, place: Place, value: Any) -> None:
    document = _replaced(EXAMPLE_DOCUMENT, place, value)
    _told(tmp_path, "\n".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in document.items()))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lines=st.lists(st.sampled_from(EXAMPLE.splitlines()), max_size=60))
def test_any_lines_of_the_example_in_any_order(tmp_path: Path, lines: list[str]) -> None:
    _told(tmp_path, "\n".join(lines))


def test_the_document_itself_survives_the_way_there(tmp_path: Path) -> None:
    text = "\n".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in EXAMPLE_DOCUMENT.items())
    assert isinstance(_loaded(tmp_path, text), Config)
