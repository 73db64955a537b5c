"""A policy of somebody else's: installed as a distribution of its own, found by its entry point, run by the real proxy.

Its source is in tests/third_party."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs import raw_upstream
from rigs.penstock import configuration, run, toml
from rigs.raw_client import connect, post
from rigs.raw_upstream import RawUpstream, reply
from rigs.waiting import LIMIT_S

from proxy.testing import FakeHost, check_policy

SOURCE = Path(__file__).parents[1] / "third_party"
MODULE = "penstock_example_policy"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the distribution, as it would into an environment.

    It is built from a copy, for setuptools builds beside the source, and without isolation, which would download it."""
    folder = tmp_path_factory.mktemp("third_party")
    source, target = folder / "source", folder / "site"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, source], check=True, timeout=2 * LIMIT_S)
    return target


@pytest.fixture
def site(installed: Path, tmp_path: Path) -> Path:
    """A copy of the installation, to be spoilt."""
    return shutil.copytree(installed, tmp_path / "site")


def penstock(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, with `site` among the folders in which Python looks for distributions."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=False,
    )


def written(folder: Path, **keys: object) -> Path:
    path = folder / "penstock.toml"
    path.write_text(toml({**configuration("http://127.0.0.1:8000"), "policy": [{"use": "example_disclosure", **keys}]}))
    return path


def test_it_is_listed_with_its_keys(installed: Path) -> None:
    result = penstock(installed, "policies")
    assert result.returncode == 0
    listed = result.stdout.partition("example_disclosure")[2].partition("\n\n")[0].splitlines()
    assert listed == [
        "  (penstock-example-policy 0.1.0)",
        "    marks replies as written by a model, and counts their events for the access log.",
        '    stage METER, scope EXCHANGE, sees EVENTS, on_error = "bypass" allowed',
        '        header = "X-Content-Origin"  # text; the header field that is set on replies',
        '        value = "model"  # text; what it says',
    ]


def test_it_can_be_used(installed: Path, tmp_path: Path) -> None:
    result = penstock(installed, "check", "--config", written(tmp_path, header="X-Origin"))
    assert (result.returncode, result.stderr) == (0, "")
    assert "(example_disclosure)" in result.stdout


def test_its_keys_are_checked_like_any_others(installed: Path, tmp_path: Path) -> None:
    config = written(tmp_path, heder="X-Origin", value=5)
    result = penstock(installed, "check", "--config", config)
    assert result.returncode == 2
    assert result.stderr.splitlines()[:2] == [
        f"{config}: [policy[1] (example_disclosure)] value: must be text, not a whole number",
        f"{config}: [policy[1] (example_disclosure)] heder: unknown key (did you mean 'header'?)",
    ]


SPOILT = {
    "another version of the contract": (
        "api: ClassVar[int] = 1",
        "api: ClassVar[int] = 2",
        f"{MODULE}:Disclosure is made for version 2 of the policy API; this is version 1",
    ),
    "an import that raises": (
        "from pydantic import Field",
        "raise RuntimeError('no licence found')",
        "cannot be imported: RuntimeError: no licence found",
    ),
    "an import of what is not there": (
        "from pydantic import Field",
        "import no_such_library",
        "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'",
    ),
    "a class of another name": (
        "class Disclosure(",
        "class Revelation(",
        f"cannot be imported: AttributeError: module '{MODULE}' has no attribute 'Disclosure'",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), SPOILT.values(), ids=SPOILT)
def test_spoilt(site: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    module = site / f"{MODULE}.py"
    text = module.read_text()
    assert old in text
    module.write_text(text.replace(old, new))
    shutil.rmtree(site / "__pycache__", ignore_errors=True)

    config = written(tmp_path)
    result = penstock(site, "check", "--config", config)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    first = result.stderr.splitlines()[0]
    assert first.startswith(f"{config}: [policy[1] (example_disclosure)] use: penstock-example-policy 0.1.0")
    assert first.endswith(message)

    listed = penstock(site, "policies")
    assert listed.returncode == 0
    assert "cannot be used: penstock-example-policy 0.1.0" in listed.stdout
    assert "heartbeat  (penstock " in listed.stdout


def test_uninstalled_again(tmp_path: Path) -> None:
    config = written(tmp_path)
    result = penstock(tmp_path, "check", "--config", config)
    assert result.returncode == 2
    assert result.stderr.splitlines()[0] == (
        f"{config}: [policy[1] (example_disclosure)] use: no policy of this name is installed"
    )


async def test_it_does_its_work_in_the_real_proxy(installed: Path, upstream: RawUpstream, tmp_path: Path) -> None:
    events = b"".join(raw_upstream.CHAT_EVENTS)
    upstream.script = raw_upstream.replies(reply(events, "Content-Type: text/event-stream"))
    tables = {**configuration(upstream.url), "policy": [{"use": "example_disclosure", "value": "a model"}]}
    with run(tables, tmp_path, PYTHONPATH=str(installed)) as proxy:
        async with connect(proxy.address) as client:
            answer = await client.exchange(post("/v1/chat/completions", b"{}"))
        record = await proxy.log.find()
    assert answer.body == events
    assert answer.head.get("X-Content-Origin") == "a model"
    assert record["facts"]["example_disclosure"] == {"events": len(raw_upstream.CHAT_EVENTS)}


@pytest.fixture
def importable(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(installed)
    yield
    sys.modules.pop(MODULE, None)


async def test_it_keeps_the_contract(importable: None) -> None:
    import penstock_example_policy as example

    await check_policy(lambda host: example.Disclosure(example.DisclosureConfig(), host), expected=str)
    assert example.Disclosure(example.DisclosureConfig(), FakeHost()).config.header == "X-Content-Origin"
