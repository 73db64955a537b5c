"""The store in a real Redis: what every store does, what holds for many at once, and every way in which Redis can fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trustme
from limits.aio.storage import RedisStorage
from redis.exceptions import ResponseError
from rigs.redis import RedisServer, running
from rigs.stores import BEHAVIOURS, DAY, MINUTE, TOTAL, Behaviour, RedisWorld, grant, remaining, short
from rigs.waiting import until, until_answered, within_limit

from proxy.config import StateConfig
from proxy.errors import StateError
from proxy.secrets import Secret
from proxy.state import Grant, Short, Store
from proxy.state_redis import RedisStore

PATIENT_MS = 20_000
IMPATIENT_MS = 300
LEASE_S = 60.0
ANNA = ["--user", "anna", "on", ">Zanzibar", "~*", "+@all"]


@contextlib.asynccontextmanager
async def opened(table: StateConfig) -> AsyncIterator[RedisStore]:
    store = RedisStore(table)
    try:
        await store.start()
        yield store
    finally:
        await store.stop()


@pytest.fixture
async def store(redis: RedisServer) -> AsyncIterator[RedisStore]:
    """A store in this test's own server, that waits for an answer only so long."""
    async with opened(redis.config(timeout_ms=IMPATIENT_MS)) as store:
        await once_it_answers(store)
        yield store


async def once_it_answers(store: Store) -> None:
    """A machine that is busy may be too slow for an impatient store, once."""

    async def answers() -> bool:
        with contextlib.suppress(StateError):
            await store.take("warm", [DAY, TOTAL], 0)
            await store.held("warm")
            return True
        return False

    await until_answered(answers, bool, "an answer from Redis")


async def no_answer(store: Store) -> None:
    """Return once a question has had none for as long as the store waits: so long other questions are on their way."""
    with pytest.raises(StateError):
        await store.take("cold", [DAY], 0)


async def eventually(store: Store, key: str, *left: int) -> None:
    """So much remains of the minute and in all, and no slot is taken, once what is on its way has arrived."""

    async def remain() -> tuple[int, ...]:
        with contextlib.suppress(StateError):
            return (*await remaining(store, key, MINUTE, TOTAL), await store.held(key))
        return ()

    await until_answered(remain, lambda found: found == (*left, 0), f"{left} units left, no slot taken")


def age_ms(redis: RedisServer, taken: Grant) -> float:
    seconds, microseconds = redis.admin.time()
    return (seconds - taken.taken_at) * 1000 + microseconds / 1000


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[], bool] = lambda: True
) -> None:
    while data := await reader.read(65536):
        if passes():
            writer.write(data)
    writer.close()


@pytest.fixture
def port() -> int:
    """One that is free, most likely still so in a moment."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


# What every store does


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
async def test_as_every_store(behaviour: Behaviour, shared_redis: RedisServer) -> None:
    world = RedisWorld(shared_redis)
    await world.store.start()
    await behaviour(world)
    await world.store.stop()


# Its keys


async def test_the_counters_are_those_of_the_library(shared_redis: RedisServer) -> None:
    library = RedisStorage(
        f"async+redis+{shared_redis.url}",
        implementation="redispy",
        key_prefix="library:{a}",  # type: ignore[arg-type]
    )
    async with opened(shared_redis.config(prefix="library", timeout_ms=PATIENT_MS)) as store:
        taken = await grant(store, "a", [MINUTE, DAY], 30)
        assert await library.acquire_sliding_window_entry("60", 100, 60, 50)
        await store.charge("a", [MINUTE], 7)
        await store.give_back(taken, 10)
        previous, _, current, current_s = await library.get_sliding_window("60", 60)
        assert (previous, current) == (0, 30 + 50 + 7 - 10)
        assert 60 < current_s <= 120
        assert (await library.get_sliding_window("86400", 86400))[2] == 20
        assert await remaining(store, "a", MINUTE) == [23]
        assert not await library.acquire_sliding_window_entry("60", 100, 60, 24)
        await short(store, "a", [MINUTE], 24)


async def test_whatever_is_not_needed_any_more_expires(shared_redis: RedisServer) -> None:
    async with opened(shared_redis.config(prefix="expiry", timeout_ms=PATIENT_MS)) as store:
        taken = await grant(store, "a", [MINUTE, DAY, TOTAL], 30)
        await store.charge("a", [MINUTE, DAY], 30)
        await store.give_back(taken, 20)
        await store.give_back(await grant(store, "unused", [MINUTE, DAY, TOTAL], 30), 30)
        assert isinstance(await store.take("too much", [DAY, TOTAL, MINUTE], 101), Short)
        await grant(store, "nothing", [TOTAL], 0)
        await short(store, "refused", [MINUTE, TOTAL], 101)
        await store.levels("nobody", [MINUTE, TOTAL])
        for holder, ttl_s in (("x", 50.0), ("y", 10.0)):
            assert await store.acquire("a", 2, holder, ttl_s)
        assert not await store.acquire("a", 2, "z", 60.0, keep_s=20.0)
        assert await store.renew([("a", "y")], 5.0) == [True]
    admin = shared_redis.admin
    seconds_to_live = {name.decode(): admin.ttl(name) for name in admin.keys("expiry:*")}
    assert seconds_to_live.pop("expiry:{a}:total") == -1
    assert set(seconds_to_live) == {f"expiry:{{a}}:{what}" for what in ("{60}", "{86400}", "leases", "line", "leaving")}
    assert 110 < seconds_to_live["expiry:{a}:{60}"] <= 120
    assert 45 < seconds_to_live["expiry:{a}:leases"] <= 50  # as long as the longest lease in it
    assert 15 < seconds_to_live["expiry:{a}:line"] <= seconds_to_live["expiry:{a}:leaving"] <= 20


async def test_prefixes_share_nothing(shared_redis: RedisServer) -> None:
    one, other = (shared_redis.config(prefix=prefix, timeout_ms=PATIENT_MS) for prefix in ("one", "other"))
    async with opened(one) as first, opened(one) as second, opened(other) as third:
        await grant(first, "a", [MINUTE], 100)
        assert await first.acquire("a", 1, "x", LEASE_S)
        assert await remaining(second, "a", MINUTE) == [0]
        assert not await second.acquire("a", 1, "y", LEASE_S)
        assert await remaining(third, "a", MINUTE) == [100]
        assert await third.acquire("a", 1, "y", LEASE_S)


# Many at once


async def test_never_more_than_the_limit_and_all_of_the_rest_comes_back(shared_redis: RedisServer) -> None:
    """Fifty tasks in two stores take, spend and give back; what they hold and have spent is never more than the limit."""
    table = shared_redis.config(prefix="many", timeout_ms=PATIENT_MS, connections=4)
    dice = random.Random(3)
    counted = spent = granted = 0

    async def work(store: Store) -> None:
        nonlocal counted, spent, granted
        for _ in range(10):
            amount = dice.randrange(1, 30)
            taken = await store.take("a", [DAY, TOTAL], amount)
            if isinstance(taken, Grant):
                granted += 1
                counted += amount
                assert counted <= DAY.limit
                used = dice.choice((0, 0, 1, amount))
                spent += used
                counted -= amount - used
                await store.give_back(taken, amount - used)

    async with opened(table) as one, opened(table) as other:
        await asyncio.gather(*(work(store) for _ in range(25) for store in (one, other)))
        assert await remaining(one, "a", DAY, TOTAL) == [DAY.limit - spent, TOTAL.limit - spent]
    assert spent == counted
    assert granted > 50


async def test_never_more_than_the_cap(shared_redis: RedisServer) -> None:
    table = shared_redis.config(prefix="caps", timeout_ms=PATIENT_MS, connections=4)
    active = most = 0

    async def work(store: Store, holder: str) -> None:
        nonlocal active, most
        for _ in range(10):
            if await store.acquire("a", 7, holder, LEASE_S):
                active += 1
                most = max(most, active)
                await asyncio.sleep(0)
                active -= 1
                await store.release("a", holder)

    async with opened(table) as one, opened(table) as other:
        stores = [one, other] * 25
        await asyncio.gather(*(work(store, f"holder-{number}") for number, store in enumerate(stores)))
        assert await one.held("a") == 0
    assert 1 <= most <= 7


async def test_connections_are_few_and_everybody_gets_his_turn(redis: RedisServer) -> None:
    async with opened(redis.config(timeout_ms=PATIENT_MS, connections=3)) as store:
        await asyncio.gather(*(grant(store, "a", [TOTAL], 1) for _ in range(100)))
        assert await remaining(store, "a", TOTAL) == [4900]
        assert 1 <= len(redis.admin.client_list()) - 1 <= 3
    await until(lambda: len(redis.admin.client_list()) == 1, "no connection is left")


async def test_every_method_is_one_round_trip(redis: RedisServer) -> None:
    async with opened(redis.config(timeout_ms=PATIENT_MS)) as store:
        leases = [(f"key-{number % 10}", f"holder-{number}") for number in range(200)]
        calls: list[Callable[[], object]] = [
            lambda: store.take("a", [MINUTE, DAY, TOTAL], 10),
            lambda: store.take("a", [DAY, TOTAL, MINUTE], 101),
            lambda: store.give_back(Grant("a", (MINUTE, DAY, TOTAL), 10, time.time()), 10),
            lambda: store.charge("a", [MINUTE, DAY, TOTAL], 10),
            lambda: store.levels("a", [MINUTE, DAY, TOTAL]),
            lambda: store.acquire("a", 1, "x", LEASE_S),
            lambda: store.renew(leases, LEASE_S),
            lambda: store.release("a", "x"),
            lambda: store.held("a"),
        ]
        for call in calls:
            await call()  # type: ignore[misc]
        redis.admin.config_resetstat()
        for number, call in enumerate(calls, 1):
            await call()  # type: ignore[misc]
            assert redis.calls("evalsha") == number
        assert redis.calls("eval") == redis.calls("script|load") == redis.calls("ping") == 0


# Redis fails


async def test_killed_and_started_again(
    redis: RedisServer, store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await grant(store, "a", [MINUTE], 60)
    assert await store.acquire("a", 1, "x", LEASE_S)
    redis.kill()
    for _ in range(3):
        with pytest.raises(StateError):
            await store.take("a", [MINUTE], 10)
        with pytest.raises(StateError):
            await store.renew([("a", "x")], LEASE_S)
    redis.start()
    await once_it_answers(store)
    await grant(store, "a", [MINUTE], 100)  # it kept nothing
    assert await store.renew([("a", "x")], LEASE_S) == [False]
    told = [record.message for record in caplog.records if "state store" in record.message]
    assert len(told) == 2
    assert told[0].startswith("the state store is unavailable: ")
    assert told[1] == "the state store is back"


async def test_started_again_while_nobody_asked(redis: RedisServer) -> None:
    """The connections that it had are found to be dead before anything is asked through them."""
    async with opened(redis.config(timeout_ms=PATIENT_MS, connections=3)) as store:
        await asyncio.gather(*(grant(store, "a", [MINUTE], 1) for _ in range(9)))
        redis.kill()
        redis.start()
        await asyncio.gather(*(grant(store, "a", [MINUTE], 1) for _ in range(9)))
        assert await remaining(store, "a", MINUTE) == [91]


async def test_nothing_is_asked_twice() -> None:
    """A connection that breaks before the answer: it may have happened."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while data := await reader.read(65536):
            if b"EVALSHA" in data:
                asked += 1
                if asked == 2:
                    break
                writer.write(b"$-1\r\n")
            writer.write(b"+OK\r\n" * data.count(b"SETINFO"))  # the client's own introduction
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(StateConfig(url=f"redis://127.0.0.1:{port}", timeout_ms=PATIENT_MS)) as store:
        with pytest.raises(StateError):
            await store.take("a", [MINUTE], 10)
        assert asked == 2


async def test_it_need_not_be_there_at_the_start(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with opened(server.config(timeout_ms=IMPATIENT_MS)) as store:
        with pytest.raises(StateError):
            await store.take("a", [MINUTE], 10)
        server.start()
        try:
            await once_it_answers(store)
            await grant(store, "a", [MINUTE], 10)
        finally:
            server.kill()


async def test_scripts_that_it_forgot(redis: RedisServer, store: RedisStore) -> None:
    for _ in range(3):
        redis.admin.script_flush()
        taken = await grant(store, "a", [MINUTE, TOTAL], 60)
        redis.admin.script_flush()
        await store.give_back(taken, 60)
        assert await remaining(store, "a", MINUTE, TOTAL) == [100, 5000]


async def test_flushed_in_the_middle(redis: RedisServer, store: RedisStore) -> None:
    """What was taken before is counted nowhere; giving it back must not hide what was taken since."""
    before = await grant(store, "a", [MINUTE, TOTAL], 60)
    assert await store.acquire("a", 1, "x", LEASE_S)
    await until(lambda: age_ms(redis, before) > 10, "more time than the clocks' slack")
    redis.admin.flushall()
    since = await grant(store, "a", [MINUTE, TOTAL], 90)
    await store.give_back(before, 60)
    assert await remaining(store, "a", MINUTE, TOTAL) == [10, 4910]
    await store.give_back(since, 90)
    assert await remaining(store, "a", MINUTE, TOTAL) == [100, 5000]
    assert await store.renew([("a", "x")], LEASE_S) == [False]
    await store.release("a", "x")
    assert await store.held("a") == 0


async def test_slower_than_the_bound(redis: RedisServer, store: RedisStore) -> None:
    """Nobody waits; and what is taken by what nobody waited for comes back when Redis does."""
    await grant(store, "a", [MINUTE, TOTAL], 10)
    redis.stall()
    questions = [store.take("a", [MINUTE, TOTAL], 10) for _ in range(5)]
    questions += [store.acquire("a", 9, f"holder-{number}", LEASE_S) for number in range(5)]
    answers = await asyncio.gather(*questions, return_exceptions=True)
    assert all(isinstance(answer, StateError) for answer in answers)
    assert any(f"no answer within {IMPATIENT_MS} ms" in str(answer) for answer in answers)
    redis.go_on()
    await eventually(store, "a", 90, 4990)


async def test_while_it_is_known_not_to_answer_nobody_waits(redis: RedisServer, store: RedisStore) -> None:
    redis.stall()
    with pytest.raises(StateError, match=f"no answer within {IMPATIENT_MS} ms"):
        await store.take("a", [MINUTE], 10)
    began_at = time.monotonic()
    for _ in range(200):
        with pytest.raises(StateError, match="no answer within"):
            await store.take("a", [MINUTE], 10)
    assert time.monotonic() - began_at < IMPATIENT_MS / 1000
    redis.go_on()
    await once_it_answers(store)
    await eventually(store, "a", 100, 5000)


async def test_connections_that_lead_nowhere_are_left(redis: RedisServer) -> None:
    """As when a server's address goes to another, and what is sent to the first is lost."""
    deaf: list[bool] = []  # a connection that was made before is

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_unix_connection(redis.url.removeprefix("unix://"))
        before = not deaf
        await asyncio.gather(pump(reader, there[1], lambda: not (before and deaf)), pump(there[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, opened(StateConfig(url=url, timeout_ms=IMPATIENT_MS, connections=1)) as store:
        await once_it_answers(store)
        deaf.append(True)
        settling = asyncio.ensure_future(store.charge("a", [TOTAL], 1))
        await asyncio.sleep(0)
        answers = await asyncio.gather(*(store.take("a", [TOTAL], 1) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(answer, StateError) for answer in answers)
        with pytest.raises(StateError):  # nobody can say whether that was done
            await within_limit(settling, "a StateError")
        await once_it_answers(store)
        await grant(store, "a", [TOTAL], 1)


async def test_what_settles_is_patient(redis: RedisServer, store: RedisStore) -> None:
    taken = await grant(store, "a", [MINUTE, TOTAL], 60)
    assert await store.acquire("a", 1, "x", LEASE_S)
    redis.stall()
    settling = [
        asyncio.ensure_future(settled)
        for settled in (store.give_back(taken, 60), store.charge("a", [MINUTE], 30), store.release("a", "x"))
    ]
    with pytest.raises(StateError):
        await store.take("a", [MINUTE], 1)
    settling.append(asyncio.ensure_future(store.charge("a", [TOTAL], 500)))  # when it is known not to answer
    await no_answer(store)
    assert not any(task.done() for task in settling)
    redis.go_on()
    await within_limit(asyncio.gather(*settling), "what was to be settled")
    await eventually(store, "a", 70, 4500)  # once what was taken without an answer is back as well


async def test_also_where_nobody_listens_for_a_while(redis: RedisServer, store: RedisStore) -> None:
    redis.kill()
    charged = asyncio.ensure_future(store.charge("a", [MINUTE], 30))
    await no_answer(store)
    assert not charged.done()
    redis.start()
    await within_limit(charged, "a charge")
    assert await remaining(store, "a", MINUTE) == [70]


async def test_but_not_for_ever(redis: RedisServer) -> None:
    store = RedisStore(redis.config(timeout_ms=IMPATIENT_MS), patience_s=0.1)
    await store.start()
    redis.stall()
    with pytest.raises(StateError):
        await within_limit(store.charge("a", [MINUTE], 30), "a StateError")
    redis.go_on()
    await store.stop()


async def test_a_holder_who_asked_again_keeps_what_he_got_the_second_time(
    redis: RedisServer, store: RedisStore
) -> None:
    async with opened(redis.config(timeout_ms=PATIENT_MS)) as patient:
        await once_it_answers(patient)
        redis.stall()
        with pytest.raises(StateError):
            await store.acquire("a", 1, "x", LEASE_S)
        again = asyncio.ensure_future(patient.acquire("a", 1, "x", LEASE_S / 2))
        await no_answer(store)  # meanwhile it is on its way
        redis.go_on()
        assert await again
        await store.stop()  # when it has undone what came too late
        assert await patient.held("a") == 1


async def test_more_questions_than_connections_while_it_is_slow(redis: RedisServer) -> None:
    async with opened(redis.config(timeout_ms=IMPATIENT_MS, connections=2)) as store:
        await once_it_answers(store)
        redis.stall()
        answers = await asyncio.gather(*(store.take("a", [TOTAL], 1) for _ in range(50)), return_exceptions=True)
        assert all(isinstance(answer, StateError) for answer in answers)
        redis.go_on()
        await eventually(store, "a", 100, 5000)


async def test_cancelled_while_it_is_slow(redis: RedisServer, store: RedisStore) -> None:
    taken = await grant(store, "a", [MINUTE, TOTAL], 10)
    async with opened(redis.config(timeout_ms=PATIENT_MS)) as patient:
        await once_it_answers(patient)
        redis.stall()
        asked = [
            asyncio.ensure_future(patient.take("a", [MINUTE, TOTAL], 10)),
            asyncio.ensure_future(patient.acquire("a", 9, "x", LEASE_S)),
            asyncio.ensure_future(patient.give_back(taken, 10)),  # this is done all the same
        ]
        await no_answer(store)  # meanwhile some of it is on its way
        for task in asked:
            task.cancel()
        await asyncio.wait(asked)
        assert all(task.cancelled() for task in asked)
        redis.go_on()
        await eventually(store, "a", 100, 5000)


async def test_cancelled_at_any_moment(shared_redis: RedisServer) -> None:
    """Also when the answer is there already and the task has not seen it yet."""
    async with opened(shared_redis.config(prefix="cancel", timeout_ms=PATIENT_MS)) as store:
        for steps in range(40):
            for question in (store.take("a", [MINUTE, TOTAL], 10), store.acquire("a", 100, f"x-{steps}", LEASE_S)):
                task = asyncio.ensure_future(question)
                for _ in range(steps):
                    await asyncio.sleep(0)
                if task.done():
                    answer = await task
                    await (
                        store.give_back(answer, 10) if isinstance(answer, Grant) else store.release("a", f"x-{steps}")
                    )
                else:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                        raise AssertionError("a cancellation was swallowed")
        await eventually(store, "a", 100, 5000)


async def test_stopped_while_it_does_not_answer(redis: RedisServer) -> None:
    async with opened(redis.config(timeout_ms=IMPATIENT_MS)) as store:
        await once_it_answers(store)
        redis.stall()
        with pytest.raises(StateError):
            await store.take("a", [MINUTE], 10)
    redis.go_on()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_what_is_on_its_way_at_the_stop_arrives(redis: RedisServer, store: RedisStore) -> None:
    async with opened(redis.config(timeout_ms=PATIENT_MS)) as other:
        taken = await grant(other, "a", [MINUTE, TOTAL], 10)
        leaving = asyncio.ensure_future(other.give_back(taken, 10))
        await asyncio.sleep(0)
        leaving.cancel()
    assert await remaining(store, "a", MINUTE, TOTAL) == [100, 5000]


async def test_nobody_takes_the_connection(deaf_port: int) -> None:
    async with opened(StateConfig(url=f"redis://127.0.0.1:{deaf_port}", timeout_ms=IMPATIENT_MS)) as store:
        with pytest.raises(StateError):
            await within_limit(store.take("a", [MINUTE], 10), "a StateError")


async def test_nobody_listens(upstream_port_closed: int) -> None:
    async with opened(StateConfig(url=f"redis://127.0.0.1:{upstream_port_closed}/3", timeout_ms=PATIENT_MS)) as store:
        with pytest.raises(StateError, match=r"(?i)connect"):
            await store.take("a", [MINUTE], 10)


async def test_what_is_not_redis() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(StateConfig(url=f"redis://127.0.0.1:{port}", timeout_ms=PATIENT_MS)) as store:
        with pytest.raises(StateError):
            await store.take("a", [MINUTE], 10)


async def test_an_error_of_the_server_quotes_no_key(redis: RedisServer, store: RedisStore) -> None:
    redis.admin.set("penstock:{secret}:leases", "not a set")
    with pytest.raises(StateError) as raised:
        await store.held("secret")
    assert "secret" not in str(raised.value)
    assert isinstance(raised.value.__cause__, ResponseError)
    await grant(store, "a", [MINUTE], 10)


# A server that cannot be used, or not any more


async def test_a_server_that_becomes_a_replica_is_left_for_the_new_master(tmp_path: Path, port: int) -> None:
    """The address stays, and idle connections lead to the old one."""
    with running(tmp_path / "a", "--port", str(port)) as old, running(tmp_path / "b") as new:
        now_there = old

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_unix_connection(now_there.url.removeprefix("unix://"))
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, opened(StateConfig(url=url, timeout_ms=PATIENT_MS)) as store:
            await asyncio.gather(*(grant(store, "a", [TOTAL], 1) for _ in range(5)))
            now_there = new
            old.admin.replicaof("127.0.0.1", "1")
            with pytest.raises(StateError, match="ReadOnlyError: You can't write against a read only replica"):
                await store.take("a", [TOTAL], 1)
            await store.charge("a", [TOTAL], 7)
            await asyncio.gather(*(grant(store, "a", [TOTAL], 1) for _ in range(5)))
            assert await remaining(store, "a", TOTAL) == [4988]


async def test_a_replica_at_the_start_is_told_and_used_once_it_is_a_master(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis.admin.replicaof("127.0.0.1", "1")
    async with opened(redis.config(timeout_ms=IMPATIENT_MS)) as store:
        with pytest.raises(StateError, match=r"MasterDownError|ReadOnlyError"):
            await store.held("a")
        assert "the state store is unavailable" in caplog.text
        redis.admin.replicaof("no", "one")
        await once_it_answers(store)
        await grant(store, "a", [MINUTE], 10)


async def test_redis_cluster_is_refused(tmp_path: Path) -> None:
    said = "the server is in cluster mode, which is not supported"
    with running(tmp_path, "--cluster-enabled", "yes") as server:
        for last_slot in (8191, 16383):  # when it has some of the slots, and all
            server.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", last_slot - 8191, last_slot)
            with pytest.raises(StateError, match=said):
                async with opened(server.config(timeout_ms=PATIENT_MS)):
                    pass


# Passwords, databases, TLS


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Secret]:
    def make(value: str) -> Secret:
        monkeypatch.setenv("REDIS_PASSWORD", value)
        return Secret.read("env:REDIS_PASSWORD")

    return make


async def test_a_password(tmp_path: Path, secret: Callable[[str], Secret], caplog: pytest.LogCaptureFixture) -> None:
    with running(tmp_path, "--requirepass", "Quito-1147", *ANNA) as server:
        async with opened(server.config(timeout_ms=PATIENT_MS, password=secret("Quito-1147"))) as store:
            await grant(store, "a", [MINUTE], 60)
        async with opened(server.config(timeout_ms=PATIENT_MS, username="anna", password=secret("Zanzibar"))) as store:
            assert await remaining(store, "a", MINUTE) == [40]
        for changes in ({}, {"password": secret("Lima-2258")}, {"username": "bert", "password": secret("Quito-1147")}):
            with pytest.raises(StateError, match=r"Authentication required|invalid username-password pair") as raised:
                async with opened(server.config(timeout_ms=PATIENT_MS, **changes)):
                    pass
            assert all(word not in f"{raised.value}{caplog.text}" for word in ("Quito", "Lima"))


async def test_a_user_who_may_not_run_scripts(tmp_path: Path, secret: Callable[[str], Secret]) -> None:
    with running(tmp_path, *ANNA, "-@scripting") as server, pytest.raises(StateError, match="NoPermissionError"):
        async with opened(server.config(timeout_ms=PATIENT_MS, username="anna", password=secret("Zanzibar"))):
            pass


async def test_databases_of_one_server(tmp_path: Path, port: int) -> None:
    with running(tmp_path, "--port", str(port)):
        first, second = (
            StateConfig(url=f"redis://127.0.0.1:{port}{path}", timeout_ms=PATIENT_MS) for path in ("", "/5")
        )
        async with opened(first) as one, opened(second) as other:
            await grant(one, "a", [MINUTE], 100)
            await grant(other, "a", [MINUTE], 100)


async def test_tls(tmp_path: Path, port: int) -> None:
    authority = trustme.CA()
    ca_file, certificate = tmp_path / "ca.pem", tmp_path / "certificate.pem"
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(ca_file)]
    options += ["--tls-cert-file", str(certificate), "--tls-key-file", str(certificate)]

    def through(host: str, ca_file: Path | None) -> AbstractAsyncContextManager[RedisStore]:
        given = None if ca_file is None else str(ca_file)
        return opened(StateConfig(url=f"rediss://{host}:{port}", ca_file=given, timeout_ms=PATIENT_MS))

    with running(tmp_path, *options):
        async with through("localhost", ca_file) as store:
            await grant(store, "a", [MINUTE], 10)
        for host, known in (("localhost", None), ("127.0.0.1", ca_file)):
            async with through(host, known) as store:
                with pytest.raises(StateError, match=r"(?i)certificate"):
                    await store.take("a", [MINUTE], 10)
