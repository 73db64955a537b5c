"""The command line: what it prints where, and the exit status. No mistake of the operator's ends in a traceback."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from proxy import __main__ as command_line
from proxy.__main__ import main
from proxy.config import Config

Install = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

TWO_ROUTES = """
[listeners.main]
address = "127.0.0.1:8080"
[listeners.v6]
address = "[::1]:8080"
[upstreams.model]
url = "http://127.0.0.1:8000"
[routes.chat]
path = "/v1/chat"
hosts = ["a.example", "b.example"]
upstream = "model"
[routes.rest]
upstream = "model"
[[policy]]
use = "idle_timeout"
routes = ["chat"]
[[policy]]
use = "heartbeat"
name = "pulse"
routes = ["chat"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "penstock.toml"
    path.write_text(TWO_ROUTES)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.toml"
    path.write_text(TWO_ROUTES + "intervall_s = 1\n[log]\nlevel = 5\n")
    return path


def _server(monkeypatch: pytest.MonkeyPatch, run: Callable[[Config], int], name: str = "serving") -> None:
    module = ModuleType(f"proxy.{name}")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_check_shows_the_chain_of_each_route(config: Path, capsys: Capture) -> None:
    assert main(["check", "--config", str(config)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"OK: {config}",
        "    listener main: 127.0.0.1:8080",
        "    listener v6: [::1]:8080",
        "    admin: 127.0.0.1:9090",
        "    route chat: /v1/chat on a.example, b.example -> http://127.0.0.1:8000 (idle_timeout, pulse)",
        "    route rest: / on any host -> http://127.0.0.1:8000 (no policy)",
    ]


def test_check_with_the_admin_listener_off(config: Path, capsys: Capture) -> None:
    config.write_text(TWO_ROUTES + '[admin]\naddress = ""\n')
    assert main(["check", "--config", str(config)]) == 0
    assert "    admin: off" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_broken_file_is_told_whole_and_nothing_starts(
    verb: str, broken: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _server(monkeypatch, lambda _: pytest.fail("the server was started"))
    assert main([verb, "--config", str(broken)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f'{broken}: [log] level: must be "debug", "info", "warning" or "error"',
        f"{broken}: [policy[2] (pulse)] intervall_s: unknown key (did you mean 'interval_s'?)",
        f"penstock: 2 problems in {broken}; nothing was started",
    ]


def test_a_single_problem_is_one(config: Path, capsys: Capture) -> None:
    missing = config.with_name("missing.toml")
    assert main(["check", "--config", str(missing)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{missing}: cannot be read: no such file or directory",
        f"penstock: 1 problem in {missing}; nothing was started",
    ]


def test_run_gives_the_configuration_to_the_server(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Config] = []

    def run(loaded: Config) -> int:
        given.append(loaded)
        return 7

    _server(monkeypatch, run)
    assert main(["run", "--config", str(config)]) == 7
    assert [list(loaded.routes) for loaded in given] == [["chat", "rest"]]


def test_run_gives_several_workers_a_supervisor(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _server(monkeypatch, lambda _: pytest.fail("the lone server was started"))
    _server(monkeypatch, lambda loaded: loaded.server.workers, "supervisor")
    config.write_text(TWO_ROUTES + "[server]\nworkers = 3\n")
    assert main(["run", "--config", str(config)]) == 3


def test_a_key_for_a_client(capsys: Capture) -> None:
    assert main(["hash-key", "alice", "--tenant", "acme"]) == 0
    key, entry = capsys.readouterr().out.splitlines()
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert tomllib.loads(f"keys = [{entry}]") == {"keys": [{"id": "alice", "sha256": digest, "tenant": "acme"}]}
    assert re.fullmatch(r"penstock-[\w-]{43}", key)  # 256 bits


def test_keys_are_random_and_need_no_tenant(capsys: Capture) -> None:
    for _ in range(2):
        assert main(["hash-key", "alice"]) == 0
    one, entry, other, _ = capsys.readouterr().out.splitlines()
    assert one != other
    assert tomllib.loads(f"keys = [{entry}]")["keys"][0].keys() == {"id", "sha256"}


def test_a_key_needs_a_name_that_limits_and_logs_can_have(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["hash-key", "alice smith"])
    assert ended.value.code == 2
    assert "must be 1 to 64 letters" in capsys.readouterr().err


def test_an_address_in_use(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def run(_: Config) -> int:
        raise OSError(98, "address already in use")

    _server(monkeypatch, run)
    assert main(["run", "--config", str(config)]) == 1
    assert capsys.readouterr().err == "penstock: [Errno 98] address already in use\n"


def test_interrupted(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def run(_: Config) -> int:
        raise KeyboardInterrupt

    _server(monkeypatch, run)
    assert main(["run", "--config", str(config)]) == 130
    assert capsys.readouterr().err == ""


def test_policies_lists_what_is_installed(install: Install, capsys: Capture) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake="Brake = None")
    assert main(["policies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "    cannot be used: acme 1.0: acme_brake:Brake is not a subclass of proxy.policy.Policy" in lines
    assert "        interval_s = 15.0  # number" in lines
    assert lines[-1].startswith("Every [[policy]] table also takes")


@pytest.mark.parametrize(
    ("arguments", "address"), [([], "127.0.0.1:8000"), (["--listen", "127.0.0.1:0"], "127.0.0.1:0")]
)
def test_demo(arguments: list[str], address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listened: list[str] = []
    monkeypatch.setattr("proxy.demo.main", lambda listen: listened.append(listen) or 5)
    assert main(["demo", *arguments]) == 5
    assert listened == [address]


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"penstock {importlib.metadata.version('penstock')}\n"


def test_version_of_what_is_not_installed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "DISTRIBUTION", "penstock-from-nowhere")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == "penstock-from-nowhere (not installed)\n"


MISUSES = [
    [],
    ["start"],
    ["run"],
    ["check"],
    ["check", "--conf", "x"],
    ["run", "--config", "x", "y"],
    ["policies", "x"],
]


@pytest.mark.parametrize("arguments", MISUSES, ids=" ".join)
def test_misuse(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith("usage: penstock")


@pytest.mark.parametrize("verb", ["run", "check"])
def test_a_distribution_that_takes_our_packages_is_told_before_anything_else(
    verb: str, install: Install, config: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _server(monkeypatch, lambda _: pytest.fail("the server was started"))
    install("proxy.py", {}, proxy="")
    assert main([verb, "--config", str(config)]) == 2
    assert capsys.readouterr().err.startswith(
        "penstock: the distribution proxy.py installs a top-level package `proxy`"
    )


def test_a_reader_that_leaves_early_is_no_mistake() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "proxy", "policies"]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")


def test_as_a_process(broken: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "proxy", "check", "--config", str(broken)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == f"penstock: 2 problems in {broken}; nothing was started"
