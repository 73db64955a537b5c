"""The store in memory: what every store does, and that its memory is bounded."""

from __future__ import annotations

import tracemalloc

import pytest
from rigs.stores import BEHAVIOURS, DAY, MINUTE, TOTAL, Behaviour, MemoryWorld, remaining

from proxy.errors import StateError
from proxy.state import Grant, Window, key
from proxy.state_memory import MemoryStore


def counters_kept(store: MemoryStore) -> int:
    """The most entries that anything in it has."""
    everything = [held for counters in store.counters.values() for held in vars(counters).values()]
    return max((len(held) for held in everything if hasattr(held, "__len__")), default=0)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
async def test_as_every_store(behaviour: Behaviour) -> None:
    await behaviour(MemoryWorld())


def test_other_processes_do_not_see_it() -> None:
    assert not MemoryStore.shared


async def test_two_stores_have_nothing_in_common() -> None:
    one, other = MemoryStore(), MemoryStore()
    await one.start()
    await one.take("a", [MINUTE], 100)
    assert await remaining(other, "a", MINUTE) == [100]
    await one.stop()


async def test_counters_that_have_expired_leave_no_trace() -> None:
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    sizes = []
    for second in range(1000):
        now = float(second)
        for number in range(20):
            await store.take(f"limit/{second}-{number}", [Window(10, 10)], 1)
        sizes.append(counters_kept(store))
    assert max(sizes) <= 20 * 21  # a count is needed for two windows


async def test_after_a_flood_they_get_fewer_with_each_new_one() -> None:
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    for number in range(1000):
        await store.take(f"limit/flood-{number}", [MINUTE], 1)
    now = 121.0
    for number in range(400):
        await store.take(f"limit/later-{number}", [MINUTE], 1)
    assert counters_kept(store) == 400


async def test_a_full_store_refuses_new_counters_and_keeps_those_it_has() -> None:
    now = 0.0
    store = MemoryStore(max_keys=4, clock=lambda: now)
    first = await store.take("limit/a", [MINUTE, TOTAL], 10)
    await store.take("limit/b", [MINUTE], 10)
    with pytest.raises(StateError, match="no room") as raised:
        await store.take("limit/c", [MINUTE, DAY, TOTAL], 10)
    assert raised.value.details == "state_unavailable"
    assert await remaining(store, "limit/c", MINUTE, DAY, TOTAL) == [100, 1000, 5000]  # the first was given back
    await store.take("limit/c", [MINUTE], 10)
    with pytest.raises(StateError):
        await store.charge("limit/d", [MINUTE], 10)
    assert isinstance(await store.take("limit/a", [MINUTE, TOTAL], 10), Grant)
    assert isinstance(first, Grant)
    await store.give_back(first, 10)
    assert await remaining(store, "limit/a", MINUTE, TOTAL) == [90, 4990]
    now = 121.0
    assert isinstance(await store.take("limit/d", [MINUTE], 10), Grant)


async def test_what_one_policy_keeps_leaves_the_others_their_room() -> None:
    store = MemoryStore(max_keys=10)
    for number in range(10):
        await store.take(key("tokens", "model", f"made-up-{number}"), [TOTAL], 1)
    with pytest.raises(StateError):
        await store.take(key("tokens", "model", "another"), [TOTAL], 1)
    for number in range(10):
        assert isinstance(await store.take(key("rate", f"client-{number}"), [MINUTE], 1), Grant)


async def test_what_is_given_back_leaves_no_trace() -> None:
    """However often: a client whose requests all fail takes up nothing."""
    now = 0.0
    store = MemoryStore(max_keys=10, clock=lambda: now)
    for number in range(10_000):
        taken = await store.take(f"limit/made-up-{number % 5000}", [MINUTE, DAY, TOTAL], 10)
        assert isinstance(taken, Grant)
        await store.give_back(taken, 10)
        assert await remaining(store, taken.key, MINUTE, DAY, TOTAL) == [100, 1000, 5000]
        await store.take(taken.key, [TOTAL], 0)
        assert counters_kept(store) < 100
    assert isinstance(await store.take("limit/a", [MINUTE], 10), Grant)
    for now in range(0, 1000, 10):
        await store.take(f"limit/{now}", [Window(10, 10)], 1)
    assert counters_kept(store) <= 4


async def test_a_flood_of_identities_takes_so_much_memory_and_no_more() -> None:
    """Whatever they call themselves. `config.example.toml` states the bytes of a counter."""
    now, most, flood = 0.0, 4000, 20_000
    store = MemoryStore(max_keys=most, clock=lambda: now)
    refused = 0
    tracemalloc.start()
    try:
        for number in range(flood):
            try:
                await store.take(key("limit", f"model:{number}" + "\n" * 1000), [Window(10, 60)], 1)
            except StateError:
                refused += 1
        in_use, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (counters_kept(store), refused) == (most, flood - most)
    assert in_use < 350 * most
    now = 121.0
    for number in range(most):
        await store.take(key("limit", f"later-{number}"), [Window(10, 60)], 1)
    assert counters_kept(store) == most  # nothing is left of the flood


async def test_refusals_and_refunds_make_no_counters() -> None:
    store = MemoryStore()
    for number in range(100):
        await store.take(f"limit/a-{number}", [MINUTE], 101)
        await store.levels(f"limit/a-{number}", [MINUTE, TOTAL])
        await store.give_back(Grant(f"limit/a-{number}", (MINUTE, TOTAL), 1, 0.0), 1)
    assert not counters_kept(store)


async def test_leases_that_nobody_asks_for_again_leave_no_trace() -> None:
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    for second in range(1000):
        now = float(second)
        assert await store.acquire(f"a-{second}", 1, "x", 10.0)
    assert len(store.leases) <= 11
    now = 2000.0
    for _ in range(3):
        assert await store.acquire("b", 1, "x", 10.0)
    assert list(store.leases) == ["b"]
    await store.release("b", "x")
    assert not store.leases


async def test_places_that_nobody_asks_for_again_leave_no_trace() -> None:
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    for second in range(100):
        now = float(second)
        assert not await store.acquire(f"a-{second}", 0, "x", 10.0, keep_s=10.0)
    assert len(store.lines) <= 11
    now = 2000.0
    for _ in range(3):
        assert not await store.acquire("b", 0, "x", 10.0, keep_s=10.0)
    assert list(store.lines) == ["b"]
    await store.release("b", "x")
    assert not store.lines


async def test_what_is_refused_leaves_no_lease() -> None:
    store = MemoryStore()
    for number in range(100):
        assert not await store.acquire(f"a-{number}", 0, "x", 10.0)
        assert await store.renew([(f"b-{number}", "x")], 10.0) == [False]
    assert not store.leases


async def test_time_is_its_own() -> None:
    """By default a clock that nobody sets: it counts from the start of the machine, and windows begin where they will."""
    store = MemoryStore()
    taken = await store.take("a", [Window(10, 10**9), TOTAL], 10)
    assert isinstance(taken, Grant)
    await store.give_back(taken, 10)
    assert await remaining(store, "a", Window(10, 10**9), TOTAL) == [10, 5000]
