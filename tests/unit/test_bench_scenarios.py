"""What the benchmark measures and configures; no process is started."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from bench import peers, penstock
from bench.loadgen import MissingError, Mode
from bench.scenarios import BATCHES, DIRECT, FULL, NGINX, SCENARIOS, batches
from proxy.config import load

UPSTREAM = 8000


def test_every_scenario_is_in_one_batch_and_every_batch_has_the_references() -> None:
    found = batches()
    assert all([scenario.name for scenario in batch][:2] == [DIRECT, NGINX] for batch in found)
    assert [s.name for batch in found for s in batch[2:]] == [s.name for s in SCENARIOS if s.batch]


def test_the_references_are_measured_in_the_modes_that_are_needed_and_can_be_had() -> None:
    ((direct, nginx, auth),) = batches(["auth"])
    assert auth.modes == nginx.modes == (Mode.SATURATED, Mode.PACED)
    assert direct.modes == (Mode.PACED,)


def test_a_scenario_can_be_chosen_by_its_name_or_its_batch() -> None:
    assert [s.name for batch in batches([FULL, "workers"]) for s in batch[2:]] == [
        FULL,
        "full,redis",
        "full,redis,2-workers",
    ]
    assert set(BATCHES) == {"core", "codings", "workers", "policies", "peers"}


def test_names_are_unique() -> None:
    names = [scenario.name for scenario in SCENARIOS] + list(BATCHES)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("policy", sorted(penstock.installed() & set(penstock.ALONE)))
def test_each_policy_alone_is_a_configuration_that_starts(policy: str, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(penstock.config(UPSTREAM, penstock.chain([policy], penstock.installed())))
    (entry,) = load(file).policies
    assert entry.use == policy


def test_the_full_chain_is_a_configuration_that_starts(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(penstock.config(UPSTREAM, penstock.chain(penstock.FULL, penstock.installed()), access_log=True))
    config = load(file)
    assert [entry.use for entry in config.policies] == [use for use in penstock.FULL if use in penstock.installed()]
    assert config.log.access


def test_of_a_chain_what_is_not_installed_is_left_out_and_alone_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert [policy["use"] for policy in penstock.chain(penstock.FULL, frozenset({"auth"}))] == ["auth"]
    monkeypatch.setattr(penstock, "installed", frozenset)
    (alone,) = (scenario for scenario in SCENARIOS if scenario.name == "redaction")
    with pytest.raises(MissingError, match="redaction"), alone.serve(UPSTREAM, tmp_path, 0):
        pass


def test_pass_through_is_configured_as_nginx_is(tmp_path: Path) -> None:
    config = tomllib.loads(penstock.config(UPSTREAM, ()))
    assert "policy" not in config
    assert config["log"]["access"] is False
    nginx = peers.nginx_config(8080, UPSTREAM, tmp_path)
    assert "access_log off;" in nginx
    assert "proxy_buffering off;" in nginx


def test_a_value_is_written_as_toml() -> None:
    value = {"keys": [{"id": 'a "quoted" name', "n": 1}], "on": True, "s": 1.5, "none": []}
    assert tomllib.loads(f"value = {penstock.toml(value)}") == {"value": value}


@pytest.mark.parametrize("peer", [peers.HAPROXY, peers.CADDY, peers.ENVOY, peers.LITELLM])
def test_a_peer_listens_on_its_port_and_knows_the_upstream(peer: peers.Peer, tmp_path: Path) -> None:
    text = peer.config(8081, 8082, tmp_path) + " ".join(peer.command)
    assert "8081" in text or "{port}" in text
    assert "8082" in text


def test_a_peer_that_is_not_installed_is_named_with_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for peer in (peers.NGINX, peers.LITELLM, peers.PORTKEY_GATEWAY):
        with pytest.raises(MissingError, match=f"{peer.program} is missing .{peer.hint}"):
            peer.serve(UPSTREAM, tmp_path, 0)


def test_a_peer_of_the_cache_goes_before_one_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    own = tmp_path / "envoy" / "bin" / "envoy"
    own.parent.mkdir(parents=True)
    own.touch()
    assert peers.find("envoy") == str(own)


def test_the_packages_of_peers_are_pinned() -> None:
    bench = Path(peers.__file__).parent
    assert all("==" in (bench / f"peers-{name}.txt").read_text() for name in ("litellm", "envoy"))
    versions = json.loads((bench / "peers-portkey.json").read_text())
    assert all(version[0].isdigit() for group in ("dependencies", "overrides") for version in versions[group].values())


def test_every_peer_that_is_installed_says_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    says = '#!/bin/sh\necho "version of $0 $1" >&2\necho more >&2\n'
    for program in ("haproxy/bin/haproxy", "envoy/bin/envoy", "litellm/bin/litellm", "litellm/bin/python", "node"):
        _installed(tmp_path / program, says)
    _installed(tmp_path / "portkey" / peers.PORTKEY, "")
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said = peers.versions()
    assert said["haproxy"] == "version of haproxy -v"
    assert said["envoy"] == "version of envoy --version"
    assert said["litellm"].endswith("bin/python -c")
    assert said["portkey"].endswith("node -p")


def test_a_version_that_cannot_be_asked_for_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _installed(tmp_path / "litellm" / "bin" / "litellm", "")
    monkeypatch.setattr(peers, "CACHE", tmp_path)
    assert peers.versions()["litellm"] == "?"


def _installed(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
