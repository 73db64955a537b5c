"""What is written down is complete and true: the example configuration, and a test file for each source file."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from proxy.config import (
    AdminConfig,
    Limits,
    ListenerConfig,
    LogConfig,
    RouteConfig,
    ServerConfig,
    StateConfig,
    UpstreamConfig,
    load,
)
from proxy.registry import COMMON_KEYS, DISTRIBUTION, PolicyTable, Registry, Unusable

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.toml"

_COMMENTED_OUT = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)
_COMMENTED_TABLE = re.compile(r"^# \[\[policy\]\]\n(?:# .*\n)+", re.MULTILINE)

SINGLE: dict[str, type[BaseModel]] = {
    "admin": AdminConfig,
    "server": ServerConfig,
    "limits": Limits,
    "state": StateConfig,
    "log": LogConfig,
}
NAMED: dict[str, type[BaseModel]] = {"listeners": ListenerConfig, "upstreams": UpstreamConfig, "routes": RouteConfig}


def _example() -> str:
    """The example, with the policies of which it only shows how they would stand there."""
    return _COMMENTED_TABLE.sub(lambda table: re.sub("^# ", "", table[0], flags=re.MULTILINE), EXAMPLE.read_text())


def _tables() -> Iterator[tuple[str, dict[str, Any], dict[str, Any], type[BaseModel]]]:
    """(name, as it stands, with the keys that are commented out, model) of each table of the example."""
    text = _example()
    stands, whole = tomllib.loads(text), tomllib.loads(_COMMENTED_OUT.sub("", text))
    for name, model in SINGLE.items():
        yield name, stands.pop(name), whole[name], model
    for kind, model in NAMED.items():
        for name, table in stands.pop(kind).items():
            yield f"{kind}.{name}", table, whole[kind][name], model
    registry = Registry.scan()
    for table, every in zip(stands.pop("policy"), whole["policy"], strict=True):
        policy = registry.load(table["use"])
        assert not isinstance(policy, Unusable)
        yield f"policy {table['use']}", _own(table), _own(every), policy.Config
    assert stands == {}, "a table that no model stands for"


def _own(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in COMMON_KEYS}


TABLES = list(_tables())
NAMES = [name for name, *_ in TABLES]


def _default(model: BaseModel | type[BaseModel], key: str) -> Any:
    """As TOML has it: lists for tuples, text for addresses."""
    field = next(field for name, field in model.model_fields.items() if key in (name, field.alias))
    default = field.get_default(call_default_factory=True)
    return str(default) if hasattr(default, "port") else TypeAdapter(type(default)).dump_python(default, mode="json")


@pytest.mark.parametrize(("stands", "every", "model"), [row[1:] for row in TABLES], ids=NAMES)
def test_every_key_is_in_the_example_and_no_other(
    stands: dict[str, Any], every: dict[str, Any], model: type[BaseModel]
) -> None:
    assert set(every) == {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize(("stands", "every", "model"), [row[1:] for row in TABLES], ids=NAMES)
def test_every_key_of_the_example_has_its_default(
    stands: dict[str, Any], every: dict[str, Any], model: type[BaseModel]
) -> None:
    for name, field in model.model_fields.items():
        key = field.alias or name
        if field.is_required():
            assert key in stands
        elif field.get_default(call_default_factory=True) is None:
            assert key not in stands, f"{key} has no default, so it is to be commented out"
        else:
            assert stands[key] == _default(model, key)


def test_the_common_keys_of_policies_are_in_the_example() -> None:
    tables = tomllib.loads(_COMMENTED_OUT.sub("", _example()))["policy"]
    assert set(PolicyTable.model_fields) == {key for table in tables for key in table if key in COMMON_KEYS}
    assert {table.get("on_error", "close") for table in tables} == {"close"}


def test_every_policy_that_comes_with_penstock_is_in_the_example() -> None:
    registry = Registry.scan()
    own = {name for name in registry.names if registry.origin(name).startswith(f"{DISTRIBUTION} ")}
    assert own == {name.removeprefix("policy ") for name in NAMES if name.startswith("policy ")}


def test_every_key_of_the_example_says_why() -> None:
    for line in _example().splitlines():
        if re.match(r"(# )?[a-z_]+ = ", line):
            assert re.search(r"  # \S.{8,}", line), line


def test_the_example_is_a_configuration() -> None:
    config = load(EXAMPLE)
    assert [entry.name for entry in config.chain("default")] == ["cors", "idle_timeout", "heartbeat", "compression"]
    assert str(config.listeners["main"].address) == "127.0.0.1:8080"
    assert config.upstreams["demo"].url == "http://127.0.0.1:8000"


def test_the_policies_that_are_commented_out_stand_where_they_could(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSEUDONYM_KEY", "sixteen bytes...")
    path = tmp_path / "whole.toml"
    entry = f'{{ id = "alice", sha256 = "{"0" * 64}" }}'
    text = _example()
    for default, needed in (
        ("keys = []", f"keys = [{entry}]"),  # without any nobody would get in
        ("requests = false  #", "requests = true  #"),  # and without pseudonyms there would be nothing to restore
        ('action = "placeholder"', 'action = "pseudonym"'),
        ("# pseudonym_key", "pseudonym_key"),
    ):
        assert text.count(default) == 1
        text = text.replace(default, needed)
    path.write_text(text)
    assert load(path).policies


README_TOML = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
ROUTE = """\
[listeners.main]
address = "127.0.0.1:0"
[upstreams.vllm]
url = "http://127.0.0.1:8000"
[routes.all]
upstream = "vllm"
"""


@pytest.mark.parametrize("text", README_TOML, ids=lambda text: text.splitlines()[1])
def test_every_configuration_in_the_readme_works_as_pasted(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that only show policies, below a route."""
    monkeypatch.setenv("VLLM_API_KEY", "sk-1")
    monkeypatch.setenv("PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")
    path = tmp_path / "penstock.toml"
    tables = tomllib.loads(text)
    path.write_text(text if "routes" in tables else ROUTE + text)
    assert len(load(path).chain("all")) == len(tables["policy"])


def test_the_readme_shows_how_to_limit() -> None:
    used = [table["use"] for text in README_TOML for table in tomllib.loads(text)["policy"]]
    assert {"auth", "request_rate", "stream_cap", "token_limit"} <= set(used)


def test_the_readme_has_every_policy() -> None:
    registry = Registry.scan()
    listed = re.findall(r"^\| `([a-z_]+)` \| ([A-Z]+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    for name, stage in listed:
        policy = registry.load(name)
        assert not isinstance(policy, Unusable)
        assert policy.stage.name == stage
    assert {name for name, _ in listed} == {
        name.removeprefix("policy ") for name in NAMES if name.startswith("policy ")
    }


def _test_file(source: Path) -> Path:
    folder = source.parent.relative_to("proxy") if source.parts[0] == "proxy" else source.parent
    return Path("tests/unit") / folder / f"test_{source.stem.strip('_')}.py"


def _has_code(path: Path) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in ast.parse(path.read_text()).body)


def test_every_source_file_has_its_test_file() -> None:
    sources = [path.relative_to(ROOT) for folder in ("proxy", "policies") for path in (ROOT / folder).rglob("*.py")]
    expected = {source: _test_file(source) for source in sorted(sources) if _has_code(ROOT / source)}
    missing = [f"{source} has no {test}" for source, test in expected.items() if not (ROOT / test).is_file()]
    assert missing == []
