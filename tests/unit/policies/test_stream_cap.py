"""So many at the same time: never more, none lost, whoever leaves when, and whatever becomes of the store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic import ValidationError
from rigs.simulated_time import simulated

from policies.stream_cap import StreamCap, StreamCapConfig, StreamCapStream
from proxy.assembly import PolicyHost
from proxy.errors import COMPLETE, Outcome, OutcomeKind, StateError
from proxy.identity import Identity
from proxy.messages import Reply, Request
from proxy.metrics import Metrics
from proxy.policy import PolicyStream
from proxy.state_memory import MemoryStore
from proxy.testing import FakeHost, Simulation, check_policy, make_request

LEASE_S = 30.0


def now() -> float:
    return asyncio.get_running_loop().time()


class RemoteStore:
    """The leases of a store that takes `delay_s()` to be reached, and as long to answer; it can be down, and lose all."""

    def __init__(self, delay_s: Callable[[], float] = lambda: 0.0) -> None:
        self.down = False
        self.renewals: list[int] = []  # how many leases in each
        self.asked = 0  # for a slot
        self._delay_s = delay_s
        self._keys: set[str] = set()
        self.lose_everything()

    def lose_everything(self) -> None:
        self._memory = MemoryStore(clock=now)

    async def slots(self) -> int:
        """Those taken, under all keys."""
        return sum([await self._memory.held(key) for key in self._keys])

    async def acquire(
        self, key: str, cap: int, holder: str, ttl_s: float, *, waited_s: float = 0.0, keep_s: float = 0.0
    ) -> bool:
        self._keys.add(key)
        self.asked += 1
        await self._travel()
        taken = await self._memory.acquire(key, cap, holder, ttl_s, waited_s=waited_s, keep_s=keep_s)
        try:
            await self._travel()
        except BaseException:  # as the contract has it: cancelled or too late, it holds nothing
            await self._memory.release(key, holder)
            raise
        return taken

    async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
        self.renewals.append(len(leases))
        await self._travel()
        renewed = await self._memory.renew(leases, ttl_s)
        await self._travel()
        return renewed

    async def release(self, key: str, holder: str) -> None:
        await self._travel()
        await self._memory.release(key, holder)
        await self._travel()

    async def _travel(self) -> None:
        await asyncio.sleep(self._delay_s())
        if self.down:
            raise StateError("down")


class Exchange(Simulation):
    """One that holds a slot, and is told of background work as by the relay."""

    def __init__(self, policy: StreamCap, stream: PolicyStream, request: Request) -> None:
        super().__init__(policy, stream, request)
        stream._poke = lambda stream: self.chain.poke(stream, now())


class Process:
    """One process's policy. Leaving it is a graceful stop."""

    def __init__(self, store: RemoteStore | None = None, **keys: Any) -> None:
        self.store = store or RemoteStore()
        self.metrics = Metrics()
        self.host = PolicyHost("cap", self.metrics, self.store)
        self.policy = StreamCap(StreamCapConfig(**{"cap": 2, "lease_s": LEASE_S, "per": "key", **keys}), self.host)

    async def __aenter__(self) -> Process:
        await self.policy.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.host.drain(5.0)
        await self.policy.stop()

    async def ask(self, key_id: str = "alice") -> Exchange | Reply:
        request = make_request()
        request.identity = Identity(key_id=key_id)
        answer = await self.policy.admit(request)
        if isinstance(answer, Reply):
            return answer
        exchange = Exchange(self.policy, answer, request)
        exchange.start()
        return exchange

    async def begin(self, key_id: str = "alice") -> Exchange:
        exchange = await self.ask(key_id)
        assert isinstance(exchange, Exchange)
        return exchange

    async def is_refused(self, key_id: str = "alice") -> bool:
        exchange = await self.ask(key_id)
        if isinstance(exchange, Exchange):
            exchange.close()
        return isinstance(exchange, Reply)

    def ask_later(self, key_id: str = "alice") -> asyncio.Task[Exchange | Reply]:
        return asyncio.get_running_loop().create_task(self.ask(key_id))

    def count(self, name: str) -> int:
        _, body = self.metrics.expose("text/plain")
        lines = [
            line.split() for line in body.decode().splitlines() if line.startswith(f"penstock_policy_{name}_total{{")
        ]
        return int(float(lines[0][1])) if lines else 0

    def assert_forgotten(self) -> None:
        """Of exchanges that are over nothing is kept."""
        assert not self.policy._admitted
        assert not self.policy._queues
        assert not self.policy._returning


async def settle() -> None:
    """Let everybody run who can, at one moment."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_contract() -> None:
    await check_policy(lambda host: StreamCap(StreamCapConfig(cap=1000), host), expected=lambda text: text)


# Slots


@simulated
async def test_so_many_and_no_more() -> None:
    async with Process(cap=3) as process:
        running = [await process.begin() for _ in range(3)]
        reply = await process.ask()
        assert isinstance(reply, Reply)
        assert (reply.status, reply.details, reply.body) == (429, "stream_cap", None)
        running.pop().close()
        running.append(await process.begin())
        assert await process.is_refused()
        for exchange in running:
            exchange.close()
    assert await process.store.slots() == 0
    process.assert_forgotten()


@simulated
async def test_a_refusal_says_what_the_cap_is() -> None:
    async with Process(cap=1, retry_after_s=7) as process:
        exchange = await process.begin()
        reply = await process.ask()
        assert isinstance(reply, Reply)
        assert dict(reply.headers) == {
            "RateLimit-Policy": '"cap";q=1;qu="concurrent-requests"',
            "RateLimit": '"cap";r=0',
            "Retry-After": "7",
        }
        exchange.close()


@simulated
async def test_everybody_has_slots_of_their_own() -> None:
    async with Process(cap=1) as process:
        alice = await process.begin("alice")
        bob = await process.begin("bob")
        assert await process.is_refused("alice")
        alice.close()
        assert await process.is_refused("bob")
        bob.close()


@simulated
async def test_requests_with_the_same_id_do_not_share_a_slot() -> None:
    async with Process(cap=2) as process:
        running = [await process.begin() for _ in range(2)]
        assert running[0].request.id == running[1].request.id
        assert await process.is_refused()
        for exchange in running:
            exchange.close()


@simulated
async def test_processes_share_the_cap() -> None:
    store = RemoteStore()
    async with Process(store, cap=2) as one, Process(store, cap=2) as other:
        running = [await one.begin(), await other.begin()]
        assert await one.is_refused()
        assert await other.is_refused()
        for exchange in running:
            exchange.close()
        await settle()
        assert await store.slots() == 0


@simulated
async def test_a_client_that_asks_again_as_soon_as_it_has_its_answer_is_not_refused() -> None:
    delay_s = 0.0
    async with Process(RemoteStore(lambda: delay_s), cap=1) as process:
        exchange = await process.begin()
        delay_s = 0.1
        exchange.close()
        await settle()
        delay_s = 0.0  # the question overtakes what the store is told of the end
        exchange = await process.begin()
        exchange.close()


@pytest.mark.parametrize("per", ["model", "key"])
def test_the_body_is_waited_for_only_where_it_names_the_model(per: str) -> None:
    policy = StreamCap(StreamCapConfig(cap=1, per=per), FakeHost())
    assert policy.needs_body is (per == "model")


# The queue


@simulated
async def test_who_came_first_is_served_first() -> None:
    async with Process(cap=1, queue_length=10, queue_wait_s=60.0) as process:
        running = await process.begin()
        order: list[int] = []

        async def wait(number: int) -> None:
            exchange = await process.begin()
            order.append(number)
            await asyncio.sleep(1.0)
            exchange.close()

        waiting = []
        for number in range(10):
            waiting.append(asyncio.get_running_loop().create_task(wait(number)))
            await settle()
        running.close()
        await asyncio.gather(*waiting)
        assert order == list(range(10))
    process.assert_forgotten()


@simulated
async def test_a_slot_that_is_given_back_is_taken_at_once() -> None:
    async with Process(cap=1, queue_length=1, queue_wait_s=60.0) as process:
        running = await process.begin()
        waiting = process.ask_later()
        await asyncio.sleep(20.0)
        running.close()
        exchange = await waiting
        assert now() == pytest.approx(20.0)
        assert isinstance(exchange, Exchange)
        assert exchange.close() == {"waited_ms": 20000}


@simulated
async def test_no_newcomer_overtakes() -> None:
    async with Process(cap=1, queue_length=5, queue_wait_s=60.0) as process:
        running = await process.begin()
        first = process.ask_later()
        await settle()
        running.close()
        second = process.ask_later()  # at the moment in which the slot is free
        exchange = await first
        assert isinstance(exchange, Exchange)
        await settle()
        assert not second.done()
        exchange.close()
        exchange = await second
        assert isinstance(exchange, Exchange)
        exchange.close()


@simulated
async def test_all_processes_have_one_line() -> None:
    """However busy the others are: who came first is served first, to within a quarter of a second."""
    store = RemoteStore(lambda: 0.001)
    order: list[int] = []
    keys = {"cap": 2, "queue_length": 50, "queue_wait_s": 600.0}

    async def wait(process: Process, number: int) -> None:
        exchange = await process.begin()
        order.append(number)
        await asyncio.sleep(1.0)
        exchange.close()

    async with Process(store, **keys) as busy, Process(store, **keys) as quiet:
        waiting = []
        for number in range(40):
            process = quiet if number % 8 == 5 else busy
            waiting.append(asyncio.get_running_loop().create_task(wait(process, number)))
            await asyncio.sleep(0.3)
        await asyncio.gather(*waiting)
        assert all(abs(place - number) <= 2 for place, number in enumerate(order))
        assert now() < 40 / 2 * 1.3 + 2
    busy.assert_forgotten()
    quiet.assert_forgotten()
    assert not store._memory.lines


@simulated
async def test_one_client_is_not_starved_by_those_of_another_process() -> None:
    store = RemoteStore(lambda: 0.001)
    served = {"busy": 0, "quiet": 0}
    keys = {"cap": 2, "queue_length": 20, "queue_wait_s": 600.0}

    async def client(process: Process, name: str) -> None:
        while now() < 60.0:
            exchange = await process.begin()
            await asyncio.sleep(0.2)
            exchange.close()
            served[name] += 1
            await asyncio.sleep(0.05)

    async with Process(store, **keys) as busy, Process(store, **keys) as quiet:
        await asyncio.gather(*(client(busy, "busy") for _ in range(6)), client(quiet, "quiet"))
    assert served["quiet"] == pytest.approx(served["busy"] / 6, rel=0.3)
    assert sum(served.values()) > 60 * 2 / 0.2 / 2  # slots are not left unused for long


@simulated
async def test_a_newcomer_that_may_not_wait_is_refused_while_others_do() -> None:
    store = RemoteStore()
    async with Process(store, cap=1, queue_length=5, queue_wait_s=60.0) as patient, Process(store, cap=1) as other:
        running = await other.begin()
        waiting = patient.ask_later()
        await asyncio.sleep(5.0)
        running.close()
        await settle()
        assert await other.is_refused()
        exchange = await waiting
        assert now() < 5.3
        assert isinstance(exchange, Exchange)
        exchange.close()
        await settle()
        assert not await other.is_refused()


@pytest.mark.parametrize("leaves", ["gives up", "is cancelled", "dies"])
def test_who_leaves_the_line_keeps_nobody_out(leaves: str) -> None:
    @simulated
    async def run() -> None:
        store = RemoteStore()
        keys = {"cap": 1, "queue_length": 5}
        one, other = Process(store, queue_wait_s=5.0, **keys), Process(store, queue_wait_s=60.0, **keys)
        running = await other.begin()
        leaving = one.ask_later()
        await asyncio.sleep(4.0)
        waiting = other.ask_later()
        await asyncio.sleep(0.5)
        if leaves == "gives up":
            assert isinstance(await leaving, Reply)
        elif leaves == "is cancelled":
            leaving.cancel()
        else:  # its last words are not heard
            one.store = RemoteStore()
            one.host.state = one.store
            leaving.cancel()
        await settle()
        running.close()
        left_at = now()
        exchange = await waiting
        assert now() - left_at < (2.3 if leaves == "dies" else 0.01)
        assert isinstance(exchange, Exchange)
        exchange.close()
        await settle()

    run()


@simulated
async def test_the_gauges() -> None:
    async with Process(cap=2, queue_length=5, queue_wait_s=60.0) as process:
        running = [await process.begin() for _ in range(2)]
        waiting = [process.ask_later() for _ in range(3)]
        await settle()
        _, page = process.metrics.expose("text/plain")
        assert 'penstock_policy_held_slots{policy="cap"} 2.0' in page.decode()
        assert 'penstock_policy_waiting{policy="cap"} 3.0' in page.decode()
        for task in waiting:
            task.cancel()
        for exchange in running:
            exchange.close()
        await settle()
        _, page = process.metrics.expose("text/plain")
        assert 'penstock_policy_held_slots{policy="cap"} 0.0' in page.decode()
        assert 'penstock_policy_waiting{policy="cap"} 0.0' in page.decode()


@simulated
async def test_the_queue_is_bounded() -> None:
    async with Process(cap=1, queue_length=2, queue_wait_s=60.0) as process:
        running = [await process.begin("alice"), await process.begin("bob")]
        waiting = [process.ask_later("alice") for _ in range(2)]
        await settle()
        assert await process.is_refused("alice")
        waiting.append(process.ask_later("bob"))  # whose queue is another
        await settle()
        assert not waiting[-1].done()
        for exchange in running:
            exchange.close()
        for task in waiting:
            answer = await task
            assert isinstance(answer, Exchange)
            answer.close()


@simulated
async def test_the_wait_is_bounded() -> None:
    async with Process(RemoteStore(lambda: 0.02), cap=1, queue_length=5, queue_wait_s=10.0) as process:
        running = await process.begin()
        began_at = now()
        waiting = [process.ask_later() for _ in range(5)]
        answers = await asyncio.gather(*waiting)
        assert [isinstance(answer, Reply) for answer in answers] == [True] * 5
        assert now() - began_at == pytest.approx(10.0, abs=0.1)
        running.close()
    process.assert_forgotten()


@simulated
async def test_who_leaves_makes_room_for_the_next() -> None:
    async with Process(cap=1, queue_length=5, queue_wait_s=60.0) as process:
        running = await process.begin()
        waiting = [process.ask_later() for _ in range(5)]
        await settle()
        for gone in (0, 2, 4):
            waiting[gone].cancel()
        await settle()
        running.close()
        for task in (waiting[1], waiting[3]):
            exchange = await task
            assert isinstance(exchange, Exchange)
            exchange.close()
    assert await process.store.slots() == 0
    process.assert_forgotten()


@simulated
async def test_a_slot_that_another_process_gave_back_is_found() -> None:
    store = RemoteStore()
    async with Process(store, cap=1) as one, Process(store, cap=1, queue_length=1, queue_wait_s=60.0) as other:
        running = await one.begin()
        waiting = other.ask_later()
        await asyncio.sleep(20.0)
        running.close()
        exchange = await waiting
        assert isinstance(exchange, Exchange)
        assert now() < 21.0
        exchange.close()


@simulated
async def test_who_finds_no_slot_asks_ever_more_seldom_and_finds_one_when_a_lease_runs_out() -> None:
    class Deaf(RemoteStore):
        async def release(self, key: str, holder: str) -> None:
            raise StateError("not heard")

    async with Process(Deaf(), cap=1, queue_length=5, queue_wait_s=60.0) as process:
        running = await process.begin()
        first, *others = [process.ask_later() for _ in range(5)]
        await settle()
        running.close()  # so that they look, and in vain
        exchange = await first
        assert LEASE_S <= now() < LEASE_S + 1.0
        assert 120 <= process.store.asked <= 260
        for task in others:
            task.cancel()
        await settle()
        assert isinstance(exchange, Exchange)
        exchange.close()
    process.assert_forgotten()
    assert process.count("state_errors") == 3  # two exchanges that ended, and one that left the line


@pytest.mark.parametrize("turns", range(25))
@pytest.mark.parametrize("queue_length", [0, 1])
def test_whenever_the_client_leaves_nothing_stays_taken(turns: int, queue_length: int) -> None:
    """Cancelled after any number of turns of the loop: before, in and after each await of an admission that at first
    finds no slot, and then one."""

    @simulated
    async def run() -> None:
        async with Process(RemoteStore(), cap=1, queue_length=queue_length, queue_wait_s=60.0) as process:
            running = await process.begin()
            admission = process.ask_later()
            for turn in range(turns):
                if turn == 8:
                    running.close()
                await asyncio.sleep(0)
            admission.cancel()
            if turns <= 8:
                running.close()
            answers = await asyncio.gather(admission, return_exceptions=True)
            if isinstance(answers[0], Exchange):
                answers[0].close()
            await settle()
            assert await process.store.slots() == 0
            process.assert_forgotten()

    run()


# Storms


class Storm:
    """Exchanges that come, wait, run, are cancelled and end at random, in two processes of one store."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.cap = self.dice.randint(1, 4)
        self.store = RemoteStore(lambda: self.dice.choice((0.0, 0.001, 0.02)))
        keys = {
            "cap": self.cap,
            "queue_length": self.dice.choice((0, 2, 20)),
            "queue_wait_s": self.dice.choice((0.01, 0.5, 20.0)),
            "lease_s": self.dice.choice((5.0, 30.0)),
        }
        self.processes = [Process(self.store, **keys) for _ in range(2)]
        self.running: dict[str, int] = {"alice": 0, "bob": 0}
        self.most = self.served = 0

    async def client(self) -> None:
        await asyncio.sleep(self.dice.uniform(0, 20))
        key_id = self.dice.choice(("alice", "bob"))
        exchange = await self.dice.choice(self.processes).ask(key_id)
        if isinstance(exchange, Reply):
            return
        self.running[key_id] += 1
        self.served += 1
        self.most = max(self.most, self.running[key_id])
        try:
            await asyncio.sleep(self.dice.choice((0.0, 0.1, 2.0, 5.0)))
            assert exchange.outcome is None
        finally:
            self.running[key_id] -= 1
            exchange.close(self.dice.choice((COMPLETE, Outcome.of("client_gone"))))

    async def leave(self, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(self.dice.uniform(0, 25))
        task.cancel()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with self.processes[0], self.processes[1]:
            clients = [loop.create_task(self.client()) for _ in range(60)]
            leavers = [loop.create_task(self.leave(task)) for task in clients if self.dice.random() < 0.4]
            for answer in await asyncio.gather(*clients, *leavers, return_exceptions=True):
                if isinstance(answer, BaseException) and not isinstance(answer, asyncio.CancelledError):
                    raise answer


@pytest.mark.parametrize("seed", range(40))
def test_in_a_storm_the_cap_holds_and_all_slots_come_back(seed: int) -> None:
    @simulated
    async def run() -> None:
        storm = Storm(seed)
        await storm.run()
        assert storm.most <= storm.cap
        assert storm.served > 0
        assert await storm.store.slots() == 0
        assert [process.count("lost_slots") for process in storm.processes] == [0, 0]
        for process in storm.processes:
            process.assert_forgotten()

    run()


# Leases


@simulated
async def test_all_leases_of_a_process_are_renewed_together() -> None:
    async with Process(cap=50) as process:
        running = [await process.begin(key_id) for key_id in ("alice", "bob") for _ in range(50)]
        await asyncio.sleep(10 * LEASE_S + 1)
        assert process.store.renewals == [100] * 30
        assert await process.store.slots() == 100
        for exchange in running:
            exchange.close()
        await asyncio.sleep(LEASE_S)
        assert len(process.store.renewals) == 30  # nothing to renew, nothing asked


@simulated
async def test_the_slots_of_a_process_that_died_are_free_after_the_lease() -> None:
    store = RemoteStore()
    dead = Process(store, cap=2)
    async with Process(store, cap=2) as process:
        for _ in range(2):
            await dead.begin()  # and never renewed, because it was never started
        await asyncio.sleep(LEASE_S - 0.1)
        assert await process.is_refused()
        await asyncio.sleep(0.2)
        assert not await process.is_refused()


@simulated
async def test_a_store_that_lost_its_data_is_told_again() -> None:
    async with Process(cap=2) as process:
        running = [await process.begin() for _ in range(2)]
        process.store.lose_everything()
        await asyncio.sleep(LEASE_S / 3 + 0.1)
        assert await process.store.slots() == 2
        assert [exchange.outcome for exchange in running] == [None, None]
        for exchange in running:
            exchange.close()
    assert await process.store.slots() == 0


@simulated
async def test_where_no_slot_is_left_the_exchange_ends_at_the_next_renewal() -> None:
    store = RemoteStore()
    async with Process(store, cap=1) as one, Process(store, cap=1) as other:
        loser = await one.begin()
        store.lose_everything()
        winner = await other.begin()
        await asyncio.sleep(LEASE_S / 3 + 0.1)
        assert loser.outcome == Outcome(OutcomeKind.STOPPED, "cap", "stream_cap")
        assert winner.outcome is None
        loser.close()
        await settle()
        assert await store.slots() == 1
        assert (one.count("lost_slots"), other.count("lost_slots")) == (1, 0)
        winner.close()


@simulated
async def test_or_goes_on_where_that_is_allowed_and_takes_a_slot_later() -> None:
    store = RemoteStore()
    allowing = Process(store, cap=1, on_state_error="allow")
    async with allowing, Process(store, cap=1) as other:
        loser = await allowing.begin()
        store.lose_everything()
        winner = await other.begin()
        await asyncio.sleep(3 * LEASE_S)
        assert loser.outcome is None
        assert allowing.count("lost_slots") == 1
        winner.close()
        await asyncio.sleep(LEASE_S / 3 + 0.1)
        assert await other.is_refused()  # the slot is the loser's again
        loser.close()
        await settle()
        assert await store.slots() == 0


@simulated
async def test_one_that_loses_its_slot_before_it_has_begun_ends_when_it_begins() -> None:
    store = RemoteStore()
    async with Process(store, cap=1) as one, Process(store, cap=1) as other:
        request = make_request()
        request.identity = Identity(key_id="alice")
        stream = await one.policy.admit(request)
        assert isinstance(stream, StreamCapStream)
        store.lose_everything()
        winner = await other.begin()
        await asyncio.sleep(LEASE_S / 3 + 0.1)
        loser = Exchange(one.policy, stream, request)
        loser.start()
        loser.advance(0.0)
        assert loser.outcome == Outcome(OutcomeKind.STOPPED, "cap", "stream_cap")
        for exchange in (loser, winner):
            exchange.close()


@simulated
async def test_one_that_ends_while_a_slot_is_looked_for_leaves_none() -> None:
    delay_s = 0.0
    async with Process(RemoteStore(lambda: delay_s), cap=1) as process:
        exchange = await process.begin()
        process.store.lose_everything()
        delay_s = 0.1
        await asyncio.sleep(LEASE_S / 3 + 0.25)  # it is known that the slot was lost, another one is asked for
        delay_s = 0.0
        exchange.close()
        await settle()
        assert process.store.asked == 2
        await asyncio.sleep(1.0)
        assert await process.store.slots() == 0
    assert process.count("lost_slots") == 0


@simulated
async def test_for_one_that_ends_while_leases_are_renewed_no_slot_is_looked_for() -> None:
    delay_s = 0.0
    async with Process(RemoteStore(lambda: delay_s), cap=1) as process:
        exchange = await process.begin()
        delay_s = 0.1
        await asyncio.sleep(LEASE_S / 3 + 0.05)
        delay_s = 0.0
        exchange.close()
        await asyncio.sleep(1.0)
        assert process.store.asked == 1
        assert await process.store.slots() == 0


@simulated
async def test_one_that_ends_before_it_could_be_ended_is_not_counted_as_lost() -> None:
    delay_s = 0.0
    store = RemoteStore(lambda: delay_s)
    async with Process(store, cap=2) as one, Process(store, cap=2) as other:
        losers = [await one.begin() for _ in range(2)]
        store.lose_everything()
        winners = [await other.begin() for _ in range(2)]
        delay_s = 0.1
        await asyncio.sleep(LEASE_S / 3 + 0.5)  # one has looked for a slot in vain, the other one is at it
        for exchange in losers:
            exchange.close()
        await asyncio.sleep(1.0)
        assert one.count("lost_slots") == 0
        for exchange in winners:
            exchange.close()


# A store that is down


@simulated
async def test_nobody_is_let_in() -> None:
    async with Process() as process:
        process.store.down = True
        reply = await process.ask()
        assert isinstance(reply, Reply)
        assert (reply.status, reply.details) == (503, "state_unavailable")
        assert process.count("state_errors") == 1
    process.assert_forgotten()


@simulated
async def test_or_all_are_and_take_their_slots_when_it_is_back() -> None:
    async with Process(cap=2, on_state_error="allow") as process:
        process.store.down = True
        running = [await process.begin() for _ in range(3)]
        await asyncio.sleep(2 * LEASE_S)
        process.store.down = False
        await asyncio.sleep(LEASE_S / 3)
        assert await process.store.slots() == 2
        assert [exchange.outcome for exchange in running] == [None] * 3
        assert process.count("lost_slots") == 0  # they had none
        for exchange in running:
            exchange.close()
    assert await process.store.slots() == 0


@simulated
async def test_those_who_wait_are_refused_when_it_goes_down() -> None:
    async with Process(cap=1, queue_length=5, queue_wait_s=60.0) as process:
        running = await process.begin()
        waiting = [process.ask_later() for _ in range(5)]
        await settle()
        process.store.down = True
        answers = await asyncio.gather(*waiting)
        assert {answer.details for answer in answers if isinstance(answer, Reply)} == {"state_unavailable"}
        assert now() < 2.0
        process.store.down = False
        running.close()
    process.assert_forgotten()


@simulated
async def test_an_outage_that_is_shorter_than_a_lease_ends_nothing() -> None:
    async with Process(cap=1) as process:
        exchange = await process.begin()
        await asyncio.sleep(LEASE_S / 3 + 0.1)  # renewed
        process.store.down = True
        await asyncio.sleep(LEASE_S / 2)
        process.store.down = False
        await asyncio.sleep(LEASE_S)
        assert exchange.outcome is None
        assert await process.store.slots() == 1
        exchange.close()


@simulated
async def test_in_a_longer_one_streams_end_before_their_slots_could_be_anothers() -> None:
    store = RemoteStore(lambda: 0.25)
    async with Process(store, cap=1) as process:
        exchange = await process.begin()
        store.down = True
        while exchange.outcome is None:
            await asyncio.sleep(0.05)
        assert exchange.outcome == Outcome(OutcomeKind.STOPPED, "cap", "state_unavailable")
        assert now() > LEASE_S * 0.75
        assert await store.slots() == 1
        assert process.count("lost_slots") == 1
        exchange.close()
        await asyncio.sleep(1.0)
    process.assert_forgotten()


@pytest.mark.parametrize("slow", ["taken", "renewed"])
def test_a_lease_counts_from_when_it_was_asked_for_not_from_the_answer(slow: str) -> None:
    @simulated
    async def run() -> None:
        delay_s = 20.0 if slow == "taken" else 0.0
        store = RemoteStore(lambda: delay_s)
        async with Process(store, cap=1, lease_s=60.0) as process:
            exchange = await process.begin()
            delay_s = 20.0 if slow == "renewed" else 0.0
            await asyncio.sleep(61.0 - now() if slow == "renewed" else 0.0)
            delay_s = 0.0
            store.down = True
            while exchange.outcome is None:
                await asyncio.sleep(0.05)
            assert await store.slots() == 1
            exchange.close()

    run()


@simulated
async def test_or_go_on_where_that_is_allowed() -> None:
    async with Process(cap=1, on_state_error="allow") as process:
        exchange = await process.begin()
        process.store.down = True
        await asyncio.sleep(10 * LEASE_S)
        assert exchange.outcome is None
        assert process.count("lost_slots") == 1
        process.store.down = False
        await asyncio.sleep(LEASE_S / 3)
        assert await process.store.slots() == 1
        process.store.down = True
        await asyncio.sleep(LEASE_S)
        assert process.count("lost_slots") == 2
        exchange.close()


@simulated
async def test_a_bug_in_the_store_does_not_end_the_renewals(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RemoteStore):
        async def renew(self, leases: Sequence[tuple[str, str]], ttl_s: float) -> list[bool]:
            if not self.renewals:
                self.renewals.append(0)
                raise RuntimeError("a secret")
            return await super().renew(leases, ttl_s)

    async with Process(Broken(), cap=1) as process:
        exchange = await process.begin()
        await asyncio.sleep(2 * LEASE_S)
        assert exchange.outcome is None
        assert await process.store.slots() == 1
        exchange.close()
    assert "RuntimeError" in caplog.text
    assert "a secret" not in caplog.text


# Life


async def test_stop_without_start() -> None:
    await StreamCap(StreamCapConfig(cap=1), FakeHost()).stop()


@simulated
async def test_stop_ends_the_renewals() -> None:
    async with Process() as process:
        await process.begin()
    await asyncio.sleep(LEASE_S)
    assert process.store.renewals == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(("lease_s", "most_s"), [(5.0, 5 / 12), (30.0, 2.5)])
def test_the_store_may_be_as_slow_as_leaves_time_to_end_what_loses_its_slot(lease_s: float, most_s: float) -> None:
    assert StreamCapConfig(cap=1, lease_s=lease_s).state_answers_within_s == pytest.approx(most_s)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"cap": 0},
        {"cap": 1, "per": "planet"},
        {"cap": 1, "queue_length": -1},
        {"cap": 1, "queue_wait_s": 0.0},
        {"cap": 1, "lease_s": 4.9},
        {"cap": 1, "lease_s": 3601.0},
        {"cap": 1, "retry_after_s": 0},
        {"cap": 1, "on_state_error": "ignore"},
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StreamCapConfig(**keys)
