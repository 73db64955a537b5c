"""`penstock run` and `penstock check` with good, bad and unlucky configurations."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from rigs.penstock import check, configuration

GOOD = configuration("http://127.0.0.1:9")

BAD = """
[listeners.main]
adress = "127.0.0.1:0"
[listeners.other]
address = "nowhere"
[upstreams.model]
url = "ftp://127.0.0.1:9"
credential = "sk-this-is-a-secret"
[limits]
body_bytes = "much"
[routes.all]
path = "/v1/../admin"
upstream = "modle"
[[policy]]
use = "hartbeat"
[[policy]]
use = "idle_timeout"
first_byte = 3
[colour]
"""


def test_good_configuration(tmp_path: Path) -> None:
    done = check(GOOD, tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("verb", ["check", "run"])
def test_every_problem_is_told_and_nothing_starts(tmp_path: Path, verb: str) -> None:
    done = check(BAD, tmp_path, verb)
    assert done.returncode == 2
    for place, suggestion in [
        ("[listeners.main] adress", "address"),
        ("[listeners.other] address", ""),
        ("[upstreams.model] url", ""),
        ("[upstreams.model] credential", ""),
        ("[limits] body_bytes", ""),
        ("[routes.all] path", ""),
        ("[routes.all] upstream", "model"),
        ("hartbeat", "heartbeat"),
        ("first_byte", "first_byte_s"),
        ("colour", ""),
    ]:
        lines = [line for line in done.stderr.splitlines() if place in line]
        assert lines, f"nothing about {place} in:\n{done.stderr}"
        assert "penstock.toml" in lines[0]
        assert suggestion in lines[0]
    assert "sk-this-is-a-secret" not in done.stdout + done.stderr
    assert "listening" not in done.stderr


@pytest.mark.parametrize("text", ["[listeners.main", "\x00", "a = \n"])
def test_what_is_no_toml(tmp_path: Path, text: str) -> None:
    done = check(text, tmp_path)
    assert done.returncode == 2
    assert "penstock.toml" in done.stderr
    assert "Traceback" not in done.stderr


def test_stages_in_the_wrong_order(tmp_path: Path) -> None:
    chain = [{"use": "heartbeat"}, {"use": "cors", "allow_origins": ["*"]}]
    done = check({**GOOD, "policy": chain}, tmp_path)
    assert done.returncode == 2
    assert "cors" in done.stderr
    assert "heartbeat" in done.stderr


def test_missing_secret(tmp_path: Path) -> None:
    model = {"url": "http://127.0.0.1:9", "credential": "env:PENSTOCK_TEST_KEY_THAT_IS_NOT_SET"}
    done = check({**GOOD, "upstreams": {"model": model}}, tmp_path, "run")
    assert done.returncode == 2
    assert "PENSTOCK_TEST_KEY_THAT_IS_NOT_SET" in done.stderr


@pytest.mark.parametrize("table", ["listeners", "admin"])
def test_address_in_use(tmp_path: Path, table: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = {"address": f"127.0.0.1:{taken.getsockname()[1]}"}
        done = check({**GOOD, table: {"main": address} if table == "listeners" else address}, tmp_path, "run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert '"event":"ready"' not in done.stderr
