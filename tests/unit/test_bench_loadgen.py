"""The load generator is built, measures in each of its modes, and gives up where a figure would not be honest."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench import loadgen, machine
from bench.loadgen import LOADS, BenchError, Load, LoadGenerator, MissingError, Mode

SMALL: Mapping[Mode, Load] = {
    Mode.HOLD: Load("paced", 12, 50, base_streams=4),
    Mode.SERIAL: Load("serial", 24),
    Mode.SATURATED: Load("saturated", 10),
    Mode.PACED: Load("paced", 10, 100),
    Mode.CROWD: Load("paced", 40, 20),
    Mode.FLOOD: Load("flood", 5, 200),
    Mode.TINY: Load("flood", 5, 200, flood="tiny"),
    Mode.HUGE: Load("flood", 3, 200, flood="huge"),
    Mode.BYTES: Load("flood", 5, 200, flood="bytes"),
    Mode.UNREAD: Load("flood", 5, 200, flood="unread"),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> LoadGenerator:
    if shutil.which("cc") is None:
        pytest.skip("needs cc")
    return LoadGenerator(tmp_path_factory.mktemp("loadgen"), machine.pick_cores().load)


@pytest.fixture
def generator(program: LoadGenerator, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadGenerator]:
    monkeypatch.setattr(loadgen, "LOADS", SMALL)
    monkeypatch.setattr(loadgen, "WARM_S", 0.05)
    with program:
        yield program


@pytest.mark.parametrize("mode", Mode)
def test_each_mode_measures_what_it_is_for(generator: LoadGenerator, mode: Mode) -> None:
    """Against its own mock upstream; the process that is looked at is this one, which waits."""
    found = generator.measure(mode, generator.upstream_port, pids=[os.getpid()], seconds=0.2)
    assert found.ttft_us is not None
    assert 0 < found.ttft_us.p50 <= found.ttft_us.max
    if mode is Mode.SERIAL:
        assert found.events == SMALL[mode].streams - 20
        assert found.latency_us is None
    else:
        assert found.events > 0
        assert found.latency_us is not None
        assert 0 < found.latency_us.p50 <= found.latency_us.p99 <= found.latency_us.max
        assert 0.2 <= found.seconds < 5
    assert (found.stream_kib is not None) is (mode is Mode.HOLD)
    assert found.bytes > 240
    assert 0 < found.own_busy <= 1.1


def test_paced_events_are_as_many_as_were_planned(generator: LoadGenerator) -> None:
    found = generator.measure(Mode.PACED, generator.upstream_port, seconds=0.5)
    assert found.events == pytest.approx(10 * 100 * found.seconds, rel=0.3)


def test_a_server_that_is_not_there_is_told(generator: LoadGenerator) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(BenchError, match="cannot connect to port"):
            generator.measure(Mode.PACED, bound.getsockname()[1], seconds=0.1)


def test_a_reply_without_the_coding_that_was_asked_for_is_no_measurement(generator: LoadGenerator) -> None:
    for coding in sorted(generator.codings):
        with pytest.raises(BenchError, match=f"expected the coding {coding}"):
            generator.measure(Mode.PACED, generator.upstream_port, coding=coding, seconds=0.1)
    with pytest.raises(BenchError, match="what decodes lzma"):
        generator.measure(Mode.PACED, generator.upstream_port, coding="lzma", seconds=0.1)


def test_a_process_that_is_gone_is_told(generator: LoadGenerator) -> None:
    with pytest.raises(BenchError, match="process 999999999 is gone"):
        generator.measure(Mode.PACED, generator.upstream_port, pids=[999999999], seconds=0.1)


def test_without_a_compiler_nothing_can_be_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="cc"):
        LoadGenerator(tmp_path, 0)


def test_a_mode_needs_files_for_both_ends_of_each_stream() -> None:
    assert LOADS[Mode.CROWD].open_files > 2 * 4000
    assert LOADS[Mode.SERIAL].open_files < 1024


def test_as_many_open_files_as_may_be_had() -> None:
    assert machine.allow_open_files() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
