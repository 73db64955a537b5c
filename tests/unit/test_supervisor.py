from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rigs.waiting import until

from proxy import supervisor
from proxy.config import Config, parse
from proxy.merging import Family
from proxy.supervisor import Backoff, Supervisor
from proxy.worker import Assignment, Drain, Draining, End, Message, Ping, Pong, Ready, Told

CONFIG = b"""
[listeners.main]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[server]
workers = 2
drain_s = 0.0
[upstreams.model]
url = "http://127.0.0.1:8000"
[routes.all]
upstream = "model"
"""


def waits(*served_s: float) -> list[float]:
    backoff = Backoff()
    return [backoff.ended(each) for each in served_s]


def test_the_first_is_replaced_at_once_and_each_wait_is_twice_as_long() -> None:
    assert waits(0, 0, 0, 0, 0) == [0.0, 0.5, 1.0, 2.0, 4.0]


def test_the_wait_is_bounded() -> None:
    assert waits(*([0.0] * 100))[-50:] == [Backoff.MOST_S] * 50


def test_a_worker_that_served_long_enough_begins_anew() -> None:
    assert waits(0, 0, 0, Backoff.SOUND_S, 0, 0) == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]


def test_a_worker_that_served_a_little_does_not() -> None:
    assert waits(*([Backoff.SOUND_S - 1] * 4)) == [0.0, 0.5, 1.0, 2.0]


class Staff:
    """Workers that do what the test says."""

    def __init__(self) -> None:
        self.hired: list[FakeWorker] = []
        self.configs: list[Config] = []
        self.another = asyncio.Event()

    async def start(self, assignment: Assignment, config: Config) -> FakeWorker:
        self.hired.append(FakeWorker(assignment))
        self.configs.append(config)
        self.another.set()
        return self.hired[-1]

    async def reach(self, count: int) -> list[FakeWorker]:
        """All that were ever hired, once they are `count`."""
        async with asyncio.timeout(20):
            while len(self.hired) < count:
                self.another.clear()
                await self.another.wait()
        return self.hired


class FakeWorker:
    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.number = assignment.number
        self.name = f"worker-{self.number}"
        self.pid = 1000 + self.number
        self.state = "starting"
        self.ready_at: float | None = None
        self.pings = 0
        self.answers = False
        self.orders: list[Drain | End | Ping] = []
        self.asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._heard: Callable[[Any, Message], None] | None = None

    def order(self, order: Drain | End | Ping) -> None:
        self.orders.append(order)
        if self.answers and self._heard is not None:
            self._heard(self, Pong())

    def kill(self) -> None:
        self.end(-signal.SIGKILL)

    def ask(self) -> asyncio.Future[None]:
        return self.asked

    async def ended(self, heard: Callable[[Any, Message], None]) -> int:
        self._heard = heard
        return await self._status

    async def says(self, message: Message) -> None:
        while self._heard is None:
            await asyncio.sleep(0)
        if isinstance(message, Ready | Draining):
            self.state = "ready" if isinstance(message, Ready) else "draining"
            self.ready_at = asyncio.get_running_loop().time()
        self._heard(self, message)

    def end(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(status)


@pytest.fixture
def staff(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Staff:
    made = Staff()
    monkeypatch.setattr(supervisor.Worker, "start", made.start)
    caplog.set_level(logging.INFO)
    return made


class Running:
    def __init__(self, staff: Staff, caplog: pytest.LogCaptureFixture, config: bytes = CONFIG) -> None:
        self.staff = staff
        self.done = asyncio.ensure_future(Supervisor(parse("penstock.toml", config)).run())
        self._caplog = caplog

    def lines(self, event: str) -> list[dict[str, Any]]:
        fields = [getattr(record, "fields", {}) for record in self._caplog.records]
        return [line for line in fields if line.get("event") == event]

    async def status(self) -> int:
        async with asyncio.timeout(20):
            return await self.done

    async def told(self, path: str) -> tuple[int, str]:
        (address,) = [line["address"] for line in self.lines("listening") if line["name"] == "admin"]
        async with aiohttp.ClientSession() as client, client.get(f"http://{address}{path}") as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def running(staff: Staff, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Running]:
    """A supervisor whose two workers have been started."""
    made = Running(staff, caplog)
    await staff.reach(2)
    yield made
    made.done.cancel()
    await asyncio.wait((made.done,))


async def test_it_keeps_what_a_watched_file_held_for_the_workers_to_come(
    staff: Staff, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervisor, "LOOK_EVERY_S", 0.001)
    path = tmp_path / "keys.toml"
    path.write_text("keys = []")
    policy = f'[[policy]]\nuse = "auth"\nkeys_file = "{path}"\n'
    running = Running(staff, caplog, CONFIG + policy.encode())
    await staff.reach(2)
    config = staff.configs[0]
    (file,) = config.watched
    assert supervisor.first_message(config).last_right == {str(path): "keys = []"}
    for text, last_right in (("keys = [ ]", "keys = [ ]"), ("keys = [", "keys = [ ]"), ("keys = [  ]", "keys = [  ]")):
        path.write_text(text)
        async with asyncio.timeout(20):
            while file.text != last_right:
                await asyncio.sleep(0)
    assert supervisor.first_message(config).last_right == {str(path): "keys = [  ]"}
    async with asyncio.timeout(20):
        while len(running.lines("file_changed")) < 2:
            await asyncio.sleep(0)
    running.done.cancel()
    await asyncio.wait((running.done,))


def interrupt() -> None:
    signal.raise_signal(signal.SIGTERM)


async def test_workers_are_told_one_port_that_nobody_else_can_get(running: Running) -> None:
    one, other = running.staff.hired
    assert (one.number, other.number) == (1, 2)
    assert one.assignment.addresses == other.assignment.addresses
    address = one.assignment.addresses["main"]
    assert address.port != 0  # type: ignore[union-attr]
    with pytest.raises(OSError, match="in use"), socket.socket() as late:
        late.bind((address.host, address.port))  # type: ignore[union-attr]


async def test_it_is_ready_while_one_worker_is(running: Running) -> None:
    one, other = running.staff.hired
    await one.says(Ready())
    assert len(running.lines("ready")) == 1
    assert await running.told("/readyz") == (200, "ready\n")
    await one.says(Draining())
    assert await running.told("/readyz") == (503, "no worker is ready\n")
    await other.says(Ready())
    assert len(running.lines("ready")) == 1
    assert await running.told("/readyz") == (200, "ready\n")
    interrupt()
    while not running.lines("draining"):
        await asyncio.sleep(0)
    assert await running.told("/readyz") == (503, "draining\n")


async def test_metrics_of_all_are_on_one_page_also_of_those_that_do_not_answer(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_SCRAPE_S", 0.0)
    for worker in running.staff.hired:
        await worker.says(Ready())
        await worker.says(Told([Family("n", "A number.", "counter", "", [("n_total", {}, 2.0)])]))
    await running.staff.hired[0].says(Told(None))
    running.staff.hired[1].asked.set_result(None)
    _, text = await running.told("/metrics")
    assert "n_total 4.0\n" in text
    assert 'penstock_workers{state="ready"} 2.0\n' in text
    assert 'process_open_fds{process="supervisor"}' in text


async def test_a_worker_that_crashed_is_replaced(running: Running) -> None:
    one, _ = running.staff.hired
    await one.says(Ready())
    one.end(-signal.SIGSEGV)
    replaced = (await running.staff.reach(3))[2]
    assert replaced.number == one.number
    assert [line["signal"] for line in running.lines("worker_ended")] == ["SIGSEGV"]
    assert [line["wait_s"] for line in running.lines("worker_restarts")] == [0.0]


async def test_a_signal_that_has_no_name_is_told_by_its_number(running: Running) -> None:
    one, _ = running.staff.hired
    await one.says(Ready())
    one.end(-signal.SIGRTMIN - 1)
    await running.staff.reach(3)
    assert [line["signal"] for line in running.lines("worker_ended")] == [str(signal.SIGRTMIN + 1)]


async def test_one_that_crashes_again_is_waited_for_and_the_wait_ends_with_the_drain(running: Running) -> None:
    one, other = running.staff.hired
    await one.says(Ready())
    one.end(1)
    (await running.staff.reach(3))[2].end(1)
    while len(running.lines("worker_restarts")) < 2:
        await asyncio.sleep(0)
    assert running.lines("worker_restarts")[1]["wait_s"] == 0.5
    interrupt()
    other.end(0)
    assert await running.status() == 0
    assert len(running.staff.hired) == 3


def hanging_after(hang_s: float) -> bytes:
    return CONFIG.replace(b"[server]", b"[server]\nhang_s = %.3f" % hang_s)


async def test_a_worker_that_hangs_is_killed_and_replaced_and_only_that(
    staff: Staff, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(staff, caplog, hanging_after(0.02))
    one, other = await staff.reach(2)
    one.answers = True
    await one.says(Ready())
    await other.says(Ready())
    late = (await staff.reach(3))[2]
    assert late.number == other.number
    assert other.orders[:4] == [Ping()] * 4
    assert [line["signal"] for line in running.lines("worker_ended")] == ["SIGKILL"]
    answered = len(one.orders)
    await until(lambda: len(one.orders) >= answered + 10, "ten more orders")
    assert [line["worker"] for line in running.lines("worker_hangs")] == [other.number]
    assert late.orders == []  # it has not started yet
    interrupt()
    one.end(0)
    late.end(0)
    assert await running.status() == 0


async def test_nobody_is_watched_where_that_is_off() -> None:
    async with asyncio.timeout(20):
        await Supervisor(parse("penstock.toml", hanging_after(0.0)))._watch()


async def test_all_are_told_to_drain_and_then_to_end(running: Running) -> None:
    one, other = running.staff.hired
    await one.says(Ready())
    await other.says(Ready())
    interrupt()
    while not one.orders:
        await asyncio.sleep(0)
    assert one.orders == other.orders == [Drain()]
    for _ in range(2):
        interrupt()
    while len(one.orders) < 2:
        await asyncio.sleep(0)
    assert one.orders == other.orders == [Drain(), End()]
    one.end(0)
    other.end(0)
    assert await running.status() == 0


async def test_who_does_not_obey_is_killed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_GRACE_S", 0.0)
    one, other = running.staff.hired
    await one.says(Ready())
    other.end(0)
    interrupt()
    assert await running.status() == 1
    assert [line["worker"] for line in running.lines("worker_killed")][-1] == one.number


async def test_a_worker_that_was_being_started_hears_what_the_others_heard(
    staff: Staff, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def slowly(assignment: Assignment, config: Config) -> FakeWorker:
        starting.append(assignment.number)
        while not running.lines("draining"):
            await asyncio.sleep(0)
        return await staff.start(assignment, config)

    starting: list[int] = []
    monkeypatch.setattr(supervisor.Worker, "start", slowly)
    running = Running(staff, caplog)
    while len(starting) < 2:
        await asyncio.sleep(0)
    interrupt()
    for worker in await staff.reach(2):
        while not worker.orders:
            await asyncio.sleep(0)
        assert worker.orders == [Drain()]
        worker.end(0)
    assert await running.status() == 0


async def test_where_the_first_worker_fails_all_end(running: Running) -> None:
    one, other = running.staff.hired
    one.end(1)
    while not other.orders:
        await asyncio.sleep(0)
    other.end(0)
    assert await running.status() == 1
    assert len(running.staff.hired) == 2


async def test_where_the_machine_has_no_room_for_another_worker_it_is_tried_again_later(
    running: Running, staff: Staff, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(assignment: Assignment, config: Config) -> FakeWorker:
        monkeypatch.setattr(supervisor.Worker, "start", staff.start)
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Backoff, "FIRST_S", 0.0)
    one, _ = staff.hired
    await one.says(Ready())
    monkeypatch.setattr(supervisor.Worker, "start", fail)
    one.end(1)
    await staff.reach(3)
    assert "worker 1 cannot be started" in caplog.text


async def test_where_the_machine_has_no_room_for_the_first_worker_nothing_starts(
    staff: Staff, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(assignment: Assignment, config: Config) -> FakeWorker:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(supervisor.Worker, "start", fail)
    assert await Running(staff, caplog).status() == 1


async def test_an_address_that_cannot_be_had(staff: Staff, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}".encode()
        config = parse("penstock.toml", CONFIG.replace(b"127.0.0.1:0", place, 1))
        assert await Supervisor(config).run() == 1
    assert "in use" in caplog.text
    assert staff.hired == []
