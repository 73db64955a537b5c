"""Fixtures of the unit tests."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from rigs.raw_upstream import RawUpstream, listen

from proxy.config import Config, load
from proxy.errors import ConfigError

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install("acme", {"brake": "acme_brake:Brake"}, acme_brake="source ...")`: a distribution called acme, version
    1.0, with these entry points and modules, for as long as the test runs. Returns the folder it is in."""
    installed: list[str] = []
    known = set(sys.modules)

    def install(distribution: str, policies: Mapping[str, str], /, **modules: str) -> Path:
        installed.extend(modules)
        site = tmp_path / f"site-{distribution}"
        info = site / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "top_level.txt").write_text("".join(f"{name}\n" for name in modules))
        lines = "".join(f"{name} = {value}\n" for name, value in policies.items())
        (info / "entry_points.txt").write_text(f"[penstock.policies]\n{lines}")
        for name, source in modules.items():
            (site / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        return site

    yield install
    for name in set(installed) - known:
        sys.modules.pop(name, None)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Config]:
    """Loads a file with this text."""

    def read(text: str) -> Config:
        path = tmp_path / "penstock.toml"
        path.write_text(text)
        return load(path)

    return read


@pytest.fixture
def problems(read: Callable[[str], Config]) -> Callable[[str], list[str]]:
    """What is wrong with a file that has this text."""

    def problems(text: str) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            read(text)
        return [str(problem) for problem in raised.value.problems]

    return problems


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    """This test's raw upstream."""
    with listen() as listener:
        async with RawUpstream(listener) as server:
            yield server
