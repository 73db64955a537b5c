"""I/O. Several workers: one process that starts them, replaces those that crash, and answers on the admin listener.

    penstock run ── supervisor.py ──┬── worker 1: its own sockets (SO_REUSEPORT) ── clients
                    admin listener  ├── worker 2
                                    └── ...             each at the other end of a channel (worker.py)

No byte of an exchange passes here: a supervisor in trouble is no client's trouble, and a worker that crashes takes along
its own exchanges only. One whose event loop stands still, so that it would keep its exchanges and its share of the new
clients for ever, is killed. A worker is a new interpreter (multiprocessing's "spawn"), not a fork: what replaces a crashed one
would else be a copy of this process's event loop, threads and locks, in whatever state they are in. Each gets the
configuration as it was read at the start; only what a secret's reference leads to is read again, and the files that may be
edited while the process runs (filewatch.py), of which the supervisor keeps what was right for a worker that finds them spoilt.

SIGTERM or SIGINT drains every worker, a second one ends them at once. SIGHUP is reserved. Workers drain by themselves when
this process is gone, however it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import socket
from collections import Counter
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess

from prometheus_client import CollectorRegistry, ProcessCollector

from .accesslog import configure_logging
from .admin import Admin
from .config import Config
from .filewatch import LOOK_EVERY_S
from .listening import Reserved
from .merging import Family, Merged, Snapshot, snapshot
from .values import TCPAddress, UnixAddress
from .worker import SIGNALS, Assignment, Channel, Drain, Draining, End, Message, Ping, Ready, Serve, Tell, Told, work

logger = logging.getLogger(__name__)

_SCRAPE_S = 2.0  # for workers to tell their metrics; well below the ten seconds that Prometheus gives a scrape
_GRACE_S = 30.0  # beyond the drain's limit: for endings to be written, leases given back, logs flushed
_PINGS = 4  # in `hang_s`, to a worker that answers none of them before it is killed
_LAST_WORDS_S = 1.0  # for what a worker that has ended told last to be read

_STARTING, _READY, _DRAINING = "starting", "ready", "draining"
_SPAWN = multiprocessing.get_context("spawn")


class Backoff:
    """How long to wait before a worker is replaced: not at all the first time, then twice as long each time."""

    FIRST_S = 0.5
    MOST_S = 30.0
    SOUND_S = 60.0
    """A worker that served this long was sound: all begins anew."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def ended(self, served_s: float) -> float:
        """Seconds to wait, after a worker that had served for `served_s` (0: it was never ready)."""
        wait_s = 0.0 if served_s >= self.SOUND_S else self._next_s
        self._next_s = min(wait_s * 2, self.MOST_S) or self.FIRST_S
        return wait_s


class Worker:
    """One worker process, as its supervisor sees it."""

    def __init__(self, number: int, process: SpawnProcess, channel: Channel) -> None:
        assert process.pid is not None
        self.number = number
        self.pid = process.pid
        self.state = _STARTING
        self.ready_at: float | None = None  # in the loop's time
        self.pings = 0  # since it was last heard of
        self._process = process
        self._channel = channel
        self._told: asyncio.Future[None] | None = None

    @classmethod
    async def start(cls, assignment: Assignment, config: Config) -> Worker:
        """Raises OSError where the machine has no room for one more process."""
        ours, theirs = socket.socketpair()
        process = _SPAWN.Process(target=work, args=(assignment, theirs))
        resource_tracker.ensure_running()  # which the first process would start, and unblock signals on the way
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited; the worker lets them in when it can
        try:
            process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        channel = await Channel.over(ours)
        channel.send(first_message(config))
        return cls(assignment.number, process, channel)

    @property
    def name(self) -> str:
        return f"worker-{self.number}"

    def order(self, order: Drain | End | Ping) -> None:
        self._channel.send(order)

    def kill(self) -> None:
        self._process.kill()

    def ask(self) -> asyncio.Future[None]:
        """Done once it has told its metrics, or has ended."""
        if self._told is None or self._told.done():
            self._told = asyncio.get_running_loop().create_future()
            self._channel.send(Tell())
        return self._told

    async def ended(self, heard: Callable[[Worker, Message], None]) -> int:
        """Its exit status (negative: the signal that killed it), once it has ended. `heard` gets what it says until then."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, gone.set)
        listening = asyncio.ensure_future(self._listen(heard))
        await gone.wait()
        loop.remove_reader(self._process.sentinel)
        await asyncio.wait((listening,), timeout=_LAST_WORDS_S)  # a process of its own may keep its end open
        listening.cancel()
        await self._channel.close()
        self._answered()
        self._process.join()
        status = self._process.exitcode
        self._process.close()
        assert status is not None
        return status

    async def _listen(self, heard: Callable[[Worker, Message], None]) -> None:
        while (message := await self._channel.receive()) is not None:
            if isinstance(message, Ready):
                self.state, self.ready_at = _READY, asyncio.get_running_loop().time()
            elif isinstance(message, Draining):
                self.state = _DRAINING
            heard(self, message)
            if isinstance(message, Told):
                self._answered()

    def _answered(self) -> None:
        if self._told is not None and not self._told.done():
            self._told.set_result(None)


def first_message(config: Config) -> Serve:
    """What a worker is told of the configuration."""
    return Serve(config.file, config.data, {file.path: file.text for file in config.watched})


class Supervisor:
    """Keeps `[server] workers` workers."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._reserved = Reserved()
        self._addresses: dict[str, TCPAddress | UnixAddress] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._metrics = Merged()
        self._admin = Admin(self._metrics, self._readiness, self._refresh)
        self._draining = asyncio.Event()
        self._orders: list[Drain | End] = []  # given so far, to every worker
        self._workers: dict[int, Worker] = {}  # that live, by number
        self._has_served = False
        self._restarts = 0
        self._status = 0

    async def run(self) -> int:
        """Until all workers have drained. Returns the exit status: 0 where they ended well, 1 where one did not, or where
        none could start."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):  # first: as a container's process 1 it has no default handling
            loop.add_signal_handler(signum, self._ask_to_end)
        loop.add_signal_handler(signal.SIGHUP, _say_that_hangup_is_reserved)
        try:
            await self._listen()
        except OSError as exc:
            logger.error("cannot start: %s", exc)
            self._status = 1
        else:
            watching = [asyncio.ensure_future(self._watch()), asyncio.ensure_future(self._watch_files())]
            await asyncio.gather(*(self._keep(number) for number in range(1, self._config.server.workers + 1)))
            for task in watching:
                task.cancel()
        self._reserved.close()
        await self._admin.stop()
        logger.info("stopped", extra={"fields": {"event": "stopped"}})
        return self._status

    async def _listen(self) -> None:
        """Raises OSError where an address cannot be had."""
        for name, listener in self._config.listeners.items():
            self._addresses[name] = self._reserved.reserve(listener.address)
        address = self._config.admin.address
        if address is not None:
            await self._admin.start(address)

    # Workers

    async def _keep(self, number: int) -> None:
        """Have a worker with this number until the drain."""
        backoff = Backoff()
        while not self._draining.is_set():
            served_s = await self._employ(number)
            if self._draining.is_set():
                return
            wait_s = backoff.ended(served_s)
            _say(logging.WARNING, "worker_restarts", worker=number, wait_s=wait_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), wait_s)
                return
            self._restarts += 1

    async def _employ(self, number: int) -> float:
        """One worker from its start to its end. Returns for how many seconds it served."""
        try:
            worker = await Worker.start(Assignment(number, self._addresses, self._reserved.inherited), self._config)
        except OSError as exc:
            logger.error("worker %d cannot be started: %s", number, exc)
            self._failed()
            return 0.0
        self._workers[number] = worker
        _say(logging.INFO, "worker_started", worker=number, pid=worker.pid)
        for order in self._orders:  # which came while it was started
            worker.order(order)
        status = await worker.ended(self._heard)
        del self._workers[number]
        self._metrics.end(worker.name)
        now = asyncio.get_running_loop().time()
        served_s = 0.0 if worker.ready_at is None else now - worker.ready_at
        how = {"status": status} if status >= 0 else {"signal": _signal_name(-status)}
        level = logging.ERROR if status else logging.INFO
        _say(level, "worker_ended", worker=number, pid=worker.pid, served_s=round(served_s, 3), **how)
        if status:
            self._failed()
        return served_s

    def _failed(self) -> None:
        """A worker ended badly. Where none has served yet, so would the next: the operator is to know, not to wait."""
        if self._draining.is_set():
            self._status = 1
        elif not self._has_served:
            self._status = 1
            self._drain()

    async def _watch(self) -> None:
        """Kill the workers that hang. What counts is pings, not time: while this process stands still, nobody is missed."""
        ping_s = self._config.server.hang_s / _PINGS
        while ping_s:
            await asyncio.sleep(ping_s)
            for worker in self._workers.values():
                if worker.state == _STARTING:  # it may have much to load
                    continue
                if worker.pings == _PINGS:
                    _say(logging.ERROR, "worker_hangs", worker=worker.number, pid=worker.pid)
                    worker.kill()
                worker.pings += 1
                worker.order(Ping())

    async def _watch_files(self) -> None:
        """Keep what workers to come must know. The workers look, and say what is wrong, for themselves."""
        while self._config.watched:
            await asyncio.sleep(LOOK_EVERY_S)
            for file in self._config.watched:
                with contextlib.suppress(ValueError):
                    if await asyncio.to_thread(file.look):
                        _say(logging.INFO, "file_changed", file=file.path)

    def _heard(self, worker: Worker, message: Message) -> None:
        worker.pings = 0
        if isinstance(message, Told) and message.metrics is not None:
            self._metrics.tell(worker.name, message.metrics)
        elif isinstance(message, Ready):
            _say(logging.INFO, "worker_ready", worker=worker.number, pid=worker.pid)
            if not self._has_served and not self._draining.is_set():
                self._say_ready()
            self._has_served = True

    def _say_ready(self) -> None:
        addresses = dict(self._addresses)
        admin = self._config.admin.address
        if admin is not None:
            addresses["admin"] = TCPAddress(admin.host, self._admin.port) if isinstance(admin, TCPAddress) else admin
        for name, address in addresses.items():
            _say(logging.INFO, "listening", name=name, address=str(address))
        _say(logging.INFO, "ready")

    # The end

    def _ask_to_end(self) -> None:
        if not self._draining.is_set():
            self._drain()
        elif len(self._orders) == 1:
            self._order(End(), 0.0)

    def _drain(self) -> None:
        _say(logging.INFO, "draining")
        self._draining.set()
        self._reserved.close()
        self._order(Drain(), self._config.server.drain_s)

    def _order(self, order: Drain | End, limit_s: float) -> None:
        """Workers that have not obeyed after `limit_s`, and some time of grace, are killed."""
        self._orders.append(order)
        for worker in self._workers.values():
            worker.order(order)
        asyncio.get_running_loop().call_later(limit_s + _GRACE_S, self._kill)

    def _kill(self) -> None:
        for worker in self._workers.values():
            _say(logging.ERROR, "worker_killed", worker=worker.number, pid=worker.pid)
            worker.kill()

    # The admin listener

    def _readiness(self) -> str | None:
        """Why new clients are not welcome; None where they are: one worker that serves is enough."""
        if self._draining.is_set():
            return _DRAINING
        if any(worker.state == _READY for worker in self._workers.values()):
            return None
        return "no worker is ready" if self._has_served else _STARTING

    async def _refresh(self) -> None:
        """Ask all that can answer; of one that does not in time, what it told last counts."""
        asked = [worker.ask() for worker in self._workers.values() if worker.state != _STARTING]
        if asked:
            await asyncio.wait(asked, timeout=_SCRAPE_S)
        self._metrics.tell("supervisor", [*self._own_metrics(), *snapshot(self._registry)])

    def _own_metrics(self) -> Snapshot:
        states = Counter(worker.state for worker in self._workers.values())
        return [
            Family(
                "penstock_workers",
                "Workers that live, by what they do.",
                "gauge",
                "",
                [("penstock_workers", {"state": state}, states[state]) for state in (_STARTING, _READY, _DRAINING)],
            ),
            Family(
                "penstock_worker_restarts",
                "Workers that ended before their time and were replaced.",
                "counter",
                "",
                [("penstock_worker_restarts_total", {}, self._restarts)],
            ),
        ]


def _say(level: int, event: str, **fields: object) -> None:
    """A line of the operational log for whoever reads it by program."""
    logger.log(level, event.replace("_", " "), extra={"fields": {"event": event, **fields}})


def _say_that_hangup_is_reserved() -> None:
    _say(logging.WARNING, "hangup_ignored")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)


def run(config: Config) -> int:
    """Serve with several workers until SIGTERM or SIGINT, then drain; a second signal ends at once. Returns the exit
    status."""
    configure_logging(config.log.level)
    return asyncio.run(Supervisor(config).run())
