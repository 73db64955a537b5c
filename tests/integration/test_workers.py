"""Several workers: one address, one /metrics, one command to end them; and a crash is the crash of one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx
import pytest
from rigs.penstock import Penstock, check, configuration, run
from rigs.raw_client import RawClient, connect, get, post
from rigs.raw_upstream import CHAT_EVENTS, LAST_CHUNK, Held, RawUpstream
from rigs.waiting import until

LIVES = {"use": "rig_worker"}
TWO = {"server": {"workers": 2, "drain_s": 600.0}, "policy": [LIVES]}
CHAT = post("/v1/chat/completions", b'{"stream":true}', "Connection: close")
COMPLETE = 'penstock_exchanges_total{outcome="complete",route="all",status_class="2xx",upstream="model"}'

Start = Callable[..., Penstock]


@pytest.fixture
def start(upstream: RawUpstream, tmp_path: Path) -> Iterator[Start]:
    """A proxy of the test's own with two workers, if not said otherwise: it ends with the test."""
    with ExitStack() as stack:
        yield lambda *layers: stack.enter_context(run(configuration(upstream.url, TWO, *layers), tmp_path))


async def workers(proxy: Penstock, started: int = 2) -> list[int]:
    """The process ids of the workers that serve, once `started` have been ready since the beginning."""
    await until(lambda: len(proxy.events("worker_ready")) >= started, f"{started} workers")
    ended = {line["pid"] for line in proxy.events("worker_ended")}
    return [line["pid"] for line in proxy.events("worker_ready") if line["pid"] not in ended]


async def told(proxy: Penstock, path: str) -> tuple[int, str]:
    async with httpx.AsyncClient(base_url=proxy.admin_url) as client:
        answer = await client.get(path)
    return answer.status_code, answer.text


async def metrics(proxy: Penstock) -> dict[str, float]:
    _, text = await told(proxy, "/metrics")
    samples = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


async def served_by(client: RawClient) -> int:
    """The process id of the worker, from the head that is the next to read."""
    return int((await client.read_head()).get("X-Pid") or "0")


@contextlib.asynccontextmanager
async def streams(proxy: Penstock, pids: list[int]) -> AsyncIterator[dict[int, RawClient]]:
    """A running stream at each of the workers `pids`, by which a client is served is the kernel's choice."""
    async with AsyncExitStack() as stack:
        clients: dict[int, RawClient] = {}
        while set(clients) != set(pids):
            client = await stack.enter_async_context(connect(proxy.address))
            await client.send(CHAT)
            clients[await served_by(client)] = client
            await client.read_until(CHAT_EVENTS[0])
        yield clients


async def finishes(client: RawClient) -> None:
    """Its stream goes on to its own end."""
    assert (await client.read_to_end()).endswith(CHAT_EVENTS[-1] + b"\r\n" + LAST_CHUNK)


async def begins_to_drain(proxy: Penstock, count: int = 2) -> None:
    await until(lambda: len(proxy.events("draining", logger="proxy.serving")) >= count, "the start of the drain")


async def test_all_serve_on_one_address(start: Start, upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start({"server": {"workers": 3}})
    pids = await workers(proxy, 3)
    assert len(set(pids)) == 3
    assert proxy.pid not in pids
    async with streams(proxy, pids) as running:
        held.release.set()
        for client in running.values():
            await finishes(client)


async def test_all_serve_on_one_unix_socket(start: Start, upstream: RawUpstream, tmp_path: Path) -> None:
    held = Held(upstream)
    proxy = start({"listeners": {"main": {"address": f"unix:{tmp_path / 'socket'}"}}})
    async with streams(proxy, await workers(proxy)) as running:
        held.release.set()
        for client in running.values():
            await finishes(client)
    proxy.signal(signal.SIGTERM)
    assert await proxy.exit_status() == 0
    with pytest.raises(ConnectionError):
        async with connect(proxy.address):
            pass


async def test_a_killed_worker_costs_its_own_streams_and_is_replaced(start: Start, upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start()
    killed, other = await workers(proxy)
    async with streams(proxy, [killed, other]) as running:
        os.kill(killed, signal.SIGKILL)
        await running[killed].ended()
        assert LAST_CHUNK not in running[killed].received
        replaced = await workers(proxy, 3)
        assert killed not in replaced
        assert len(replaced) == 2
        async with streams(proxy, replaced):
            held.release.set()
            await finishes(running[other])
    (ended,) = proxy.events("worker_ended", pid=killed)
    assert ended["signal"] == "SIGKILL"
    proxy.signal(signal.SIGTERM)
    assert await proxy.exit_status() == 0


async def test_running_streams_finish_at_sigterm(start: Start, upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start()
    async with streams(proxy, await workers(proxy)) as running:
        assert await told(proxy, "/readyz") == (200, "ready\n")
        proxy.signal(signal.SIGTERM)
        await begins_to_drain(proxy)
        assert await told(proxy, "/readyz") == (503, "draining\n")
        assert (await told(proxy, "/healthz"))[0] == 200
        with pytest.raises(ConnectionError):
            async with connect(proxy.address) as late:
                await late.exchange(get("/"))
        held.release.set()
        for client in running.values():
            await finishes(client)
    assert await proxy.exit_status() == 0
    assert {line["status"] for line in proxy.events("worker_ended")} == {0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_to_all_processes_at_once_are_one_request_to_drain(
    start: Start, upstream: RawUpstream, number: signal.Signals
) -> None:
    held = Held(upstream)
    proxy = start()
    pids = await workers(proxy)
    async with streams(proxy, pids) as running:
        for pid in (*pids, proxy.pid, *pids):  # as Ctrl-C in a terminal does, and many a service manager
            os.kill(pid, number)
        await begins_to_drain(proxy)
        held.release.set()
        for client in running.values():
            await finishes(client)
    assert await proxy.exit_status() == 0


async def test_second_signal_ends_at_once(start: Start, upstream: RawUpstream) -> None:
    Held(upstream)
    proxy = start()
    async with streams(proxy, await workers(proxy)):
        proxy.signal(signal.SIGTERM)
        await begins_to_drain(proxy)
        proxy.signal(signal.SIGTERM)
        assert await proxy.exit_status() == 0


async def test_a_worker_that_is_told_to_end_drains_and_is_replaced(start: Start, upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start()
    leaving, staying = await workers(proxy)
    async with streams(proxy, [leaving, staying]) as running:
        os.kill(leaving, signal.SIGTERM)
        await begins_to_drain(proxy, 1)
        held.release.set()
        for client in running.values():
            await finishes(client)
    assert leaving not in await workers(proxy, 3)
    assert proxy.events("worker_ended", pid=leaving)[0]["status"] == 0


async def test_hangup_is_reserved(start: Start, upstream: RawUpstream) -> None:
    proxy = start()
    pids = await workers(proxy)
    for pid in (*pids, proxy.pid):
        os.kill(pid, signal.SIGHUP)
    await until(lambda: proxy.events("hangup_ignored"), "a word about the signal")
    async with connect(proxy.address) as client:
        assert await client.exchange(get("/"))
    assert not proxy.events("worker_ended")


async def test_metrics_are_sums_that_never_go_backwards(start: Start, upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start()
    killed, other = await workers(proxy)
    async with streams(proxy, [killed, other]) as running:
        shown = await metrics(proxy)
        assert shown['penstock_active_exchanges{route="all"}'] == shown["penstock_open_connections"] >= 2
        held.release.set()
        for client in running.values():
            await finishes(client)
    count = int(shown["penstock_open_connections"])
    await until(lambda: len(proxy.log.records) == count, "the ends of all exchanges")
    shown = await metrics(proxy)
    assert shown[COMPLETE] == count
    assert shown['penstock_ttft_seconds_count{route="all",upstream="model"}'] == count
    assert shown['penstock_ttft_seconds_bucket{le="+Inf",route="all",upstream="model"}'] == count
    assert shown['penstock_active_exchanges{route="all"}'] == 0
    assert shown['penstock_workers{state="ready"}'] == 2
    for process in ("worker-1", "worker-2", "supervisor"):
        assert shown[f'process_open_fds{{process="{process}"}}'] > 0

    os.kill(killed, signal.SIGKILL)
    replaced = await workers(proxy, 3)
    assert (await metrics(proxy))[COMPLETE] == count
    assert (await metrics(proxy))["penstock_worker_restarts_total"] == 1
    async with streams(proxy, replaced) as running:
        for client in running.values():
            await finishes(client)
    await until(lambda: len(proxy.log.records) >= count + 2, "the ends of all exchanges")
    assert (await metrics(proxy))[COMPLETE] == len(proxy.log.records)


async def test_a_worker_that_does_not_answer_does_not_keep_the_others_metrics(
    start: Start, upstream: RawUpstream
) -> None:
    proxy = start()
    stopped, _ = await workers(proxy)
    before = await metrics(proxy)
    os.kill(stopped, signal.SIGSTOP)
    assert set(await metrics(proxy)) == set(before)
    os.kill(stopped, signal.SIGCONT)


async def test_a_worker_that_hangs_is_killed_and_replaced(start: Start, upstream: RawUpstream) -> None:
    proxy = start({"server": {"hang_s": 3.0}})
    hanging, sound = await workers(proxy)
    os.kill(hanging, signal.SIGSTOP)
    assert sound in await workers(proxy, 3)
    assert [line["pid"] for line in proxy.events("worker_hangs")] == [hanging]
    assert [(line["pid"], line["signal"]) for line in proxy.events("worker_ended")] == [(hanging, "SIGKILL")]
    for _ in range(8):
        async with connect(proxy.address) as client:
            assert (await client.exchange(get("/"))).status == 200


async def test_a_worker_that_crashes_again_and_again_is_given_time(
    start: Start, upstream: RawUpstream, tmp_path: Path
) -> None:
    crash = tmp_path / "crash"
    proxy = start({"policy": [{**LIVES, "crash_while": str(crash)}]})
    killed, _ = await workers(proxy)
    crash.touch()
    os.kill(killed, signal.SIGKILL)
    await until(lambda: len(proxy.events("worker_restarts")) > 2, "the third restart")
    assert [line["wait_s"] for line in proxy.events("worker_restarts")][:3] == [0.0, 0.5, 1.0]
    assert {line["status"] for line in proxy.events("worker_ended") if line["pid"] != killed} == {7}
    assert await told(proxy, "/readyz") == (200, "ready\n")
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("/"))).status == 200
    crash.unlink()
    assert len(await workers(proxy, 3)) == 2


async def test_a_secret_that_is_gone_keeps_a_worker_from_its_place_until_it_is_back(
    start: Start, upstream: RawUpstream, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sk-of-the-model-server")
    proxy = start({"upstreams": {"model": {"credential": f"file:{secret}"}}})
    killed, _ = await workers(proxy)
    secret.unlink()
    os.kill(killed, signal.SIGKILL)
    await until(
        lambda: any("cannot start: [upstreams.model] credential" in line for line in proxy.operational_log), "why"
    )
    secret.write_text("sk-of-another-model-server")
    assert len(await workers(proxy, 3)) == 2
    assert "sk-of" not in proxy.output


async def test_workers_do_not_outlive_their_supervisor(start: Start, upstream: RawUpstream) -> None:
    held = Held(upstream)
    proxy = start()
    async with streams(proxy, await workers(proxy)) as running:
        proxy.kill()
        await begins_to_drain(proxy)
        held.release.set()
        for client in running.values():
            await finishes(client)
    await proxy.gone()


def test_where_no_worker_can_start_nothing_starts(tmp_path: Path) -> None:
    policy = {**LIVES, "crash_while": str(tmp_path)}
    done = check(configuration("http://127.0.0.1:9", TWO, {"policy": [policy]}), tmp_path, "run")
    assert done.returncode == 1
    assert '"event":"ready"' not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shared", [False, True])
def test_address_in_use(tmp_path: Path, shared: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=shared) as taken:
        listener = {"main": {"address": f"127.0.0.1:{taken.getsockname()[1]}"}}
        done = check(configuration("http://127.0.0.1:9", TWO, {"listeners": listener}), tmp_path, "run")
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert "worker_started" not in done.stderr
    assert "Traceback" not in done.stderr
