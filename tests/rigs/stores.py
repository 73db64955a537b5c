"""What every store does, each behaviour once: in memory and in Redis, in simulated time."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import pytest

from proxy.config import StateConfig
from proxy.state import MOST, Grant, Level, Short, Store, Window
from proxy.state_memory import MemoryStore
from proxy.state_redis import RedisStore

from .redis import RedisServer

MINUTE, DAY, TOTAL = Window(100, 60), Window(1000, 86400), Window(5000, None)
SOON_S = 0.5  # real time that may pass while a behaviour is shown


class World(Protocol):
    """A store, and time that passes when it is told to."""

    store: Store

    async def advance(self, seconds: float) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.now = 20000 * 86400.0  # here windows of any length begin, as in Redis they begin at the first use
        self.store: Store = MemoryStore(clock=lambda: self.now)

    async def advance(self, seconds: float) -> None:
        self.now += seconds


_numbers = itertools.count()

_ADVANCE = """\
local ms = tonumber(ARGV[1])
for _, key in ipairs(redis.call('keys', ARGV[2] .. ':*')) do
    local kind = redis.call('type', key).ok
    if kind == 'zset' then
        for _, member in ipairs(redis.call('zrange', key, 0, -1)) do
            redis.call('zincrby', key, -ms, member)
        end
    elseif kind == 'hash' then
        redis.call('hincrby', key, 'since', -ms)
    end
    local ms_to_live = redis.call('pttl', key)
    if ms_to_live > 0 then
        redis.call('pexpire', key, ms_to_live - ms)
    end
end
"""


class RedisWorld:
    """Time passes by everything in the server becoming older. The grants that a test holds become so on their way back."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.table = server.config(prefix=f"test-{next(_numbers)}", timeout_ms=20000)
        self.shift_s = 0.0
        self.store: Store = _ShiftedStore(self.table, self)

    async def advance(self, seconds: float) -> None:
        self.shift_s += seconds
        self._server.admin.eval(_ADVANCE, 0, round(seconds * 1000), self.table.prefix)


class _ShiftedStore(RedisStore):
    """Its clock is ahead of the server's by what was advanced."""

    def __init__(self, table: StateConfig, world: RedisWorld) -> None:
        super().__init__(table)
        self._world = world

    async def take(self, key: str, windows: Sequence[Window], amount: int) -> Grant | Short:
        taken = await super().take(key, windows, amount)
        return taken._replace(taken_at=taken.taken_at + self._world.shift_s) if isinstance(taken, Grant) else taken

    async def give_back(self, grant: Grant, amount: int) -> None:
        await super().give_back(_older(grant, self._world.shift_s), amount)


def _older(grant: Grant, seconds: float) -> Grant:
    earlier = None if grant.earlier is None else _older(grant.earlier, seconds)
    return grant._replace(taken_at=grant.taken_at - seconds, earlier=earlier)


Behaviour = Callable[[Any], Awaitable[None]]
BEHAVIOURS: list[Behaviour] = []


def _behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS.append(function)
    return function


async def grant(store: Store, key: str, windows: Sequence[Window], amount: int) -> Grant:
    """What must be granted."""
    taken = await store.take(key, windows, amount)
    assert isinstance(taken, Grant), taken
    return taken


async def short(store: Store, key: str, windows: Sequence[Window], amount: int) -> Short:
    """What must not."""
    taken = await store.take(key, windows, amount)
    assert isinstance(taken, Short), taken
    return taken


async def remaining(store: Store, key: str, *windows: Window) -> list[int]:
    return [level.remaining for level in await store.levels(key, windows)]


# Counters


@_behaviour
async def it_grants_up_to_the_limit_and_no_more(world: World) -> None:
    await grant(world.store, "a", [MINUTE], 60)
    last = await grant(world.store, "a", [MINUTE], 40)
    assert (last.key, last.windows, last.amount) == ("a", (MINUTE,), 40)
    refused = await short(world.store, "a", [MINUTE], 1)
    assert (refused.level.window, refused.level.remaining) == (MINUTE, 0)


@_behaviour
async def a_grant_tells_how_full_the_windows_are_after_it(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE, DAY, TOTAL], 30)
    assert [(level.window, level.remaining) for level in taken.levels] == [(MINUTE, 70), (DAY, 970), (TOTAL, 4970)]


@_behaviour
async def it_charges_all_windows_or_none(world: World) -> None:
    small = Window(10, None)
    refused = await short(world.store, "a", [MINUTE, DAY, small], 11)
    assert refused.level.window == small
    assert await remaining(world.store, "a", MINUTE, DAY, small) == [100, 1000, 10]
    refused = await short(world.store, "a", [small, MINUTE, DAY], 11)
    assert refused.level.window == small
    refused = await short(world.store, "a", [TOTAL, DAY, MINUTE], 101)
    assert refused.level.window == MINUTE
    assert await remaining(world.store, "a", MINUTE, DAY, TOTAL) == [100, 1000, 5000]


@_behaviour
async def the_first_window_that_is_short_is_named(world: World) -> None:
    refused = await short(world.store, "a", [MINUTE, Window(50, 3600)], 1000)
    assert refused.level.window == MINUTE


@_behaviour
async def keys_and_lengths_have_counters_of_their_own(world: World) -> None:
    await grant(world.store, "a", [MINUTE], 100)
    await grant(world.store, "a", [Window(100, 61)], 100)
    await grant(world.store, "a/60", [MINUTE], 100)
    await grant(world.store, "b", [MINUTE], 100)


@_behaviour
async def a_limit_that_is_changed_applies_to_what_was_used(world: World) -> None:
    await grant(world.store, "a", [MINUTE, TOTAL], 60)
    lower, higher, total = Window(50, 60), Window(200, 60), Window(60, None)
    assert await remaining(world.store, "a", lower, higher, total) == [0, 140, 0]


@_behaviour
async def more_than_the_limit_is_never_granted(world: World) -> None:
    for amount in (101, MOST, 10**30):
        assert (await short(world.store, "a", [MINUTE], amount)).retry_after_s is None
    assert await remaining(world.store, "a", MINUTE) == [100]


@_behaviour
async def nothing_is_granted_while_there_is_not_too_much(world: World) -> None:
    await grant(world.store, "a", [MINUTE, TOTAL], 0)
    await grant(world.store, "a", [MINUTE], 100)
    await grant(world.store, "a", [MINUTE], 0)
    await world.store.charge("a", [MINUTE], 1)
    await short(world.store, "a", [MINUTE], 0)


@_behaviour
async def a_negative_amount_is_a_mistake(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE], 10)
    with pytest.raises(ValueError, match="negative"):
        await world.store.take("a", [MINUTE], -1)
    with pytest.raises(ValueError, match="negative"):
        await world.store.charge("a", [MINUTE], -1)
    with pytest.raises(ValueError, match="negative"):
        await world.store.give_back(taken, -1)
    assert await remaining(world.store, "a", MINUTE) == [90]


@_behaviour
async def a_window_slides(world: World) -> None:
    await grant(world.store, "a", [MINUTE], 100)
    await world.advance(90)  # the first half of it is out of view
    assert await remaining(world.store, "a", MINUTE) in ([50], [51])
    await short(world.store, "a", [MINUTE], 60)
    await grant(world.store, "a", [MINUTE], 50)
    await world.advance(120)
    assert await remaining(world.store, "a", MINUTE) == [100]


@_behaviour
async def a_total_stays(world: World) -> None:
    await grant(world.store, "a", [TOTAL], 5000)
    await world.advance(10 * 365 * 86400)
    refused = await short(world.store, "a", [TOTAL], 1)
    assert refused == Short(Level(TOTAL, 0, None), None)


@_behaviour
async def what_is_given_back_can_be_taken_again(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE, DAY, TOTAL], 80)
    await world.store.give_back(taken, 50)
    assert await remaining(world.store, "a", MINUTE, DAY, TOTAL) == [70, 970, 4970]
    await grant(world.store, "a", [MINUTE], 70)
    await short(world.store, "a", [MINUTE], 1)


@_behaviour
async def a_refund_never_goes_below_zero(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE, TOTAL], 10)
    for _ in range(3):
        await world.store.give_back(taken, 10)
    await world.store.give_back(taken, 10**15)
    assert await remaining(world.store, "a", MINUTE, TOTAL) == [100, 5000]
    await grant(world.store, "a", [MINUTE], 100)
    await short(world.store, "a", [MINUTE], 1)


@_behaviour
async def a_refund_goes_to_the_window_that_it_was_taken_from(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE], 100)
    await world.advance(75)
    await grant(world.store, "a", [MINUTE], 20)  # 75 of the first 100 are still in view
    await world.store.give_back(taken, 60)  # 40 were spent, of which 30 are in view
    assert await remaining(world.store, "a", MINUTE) in ([50], [51])


@_behaviour
async def a_refund_that_comes_before_the_window_was_used_again(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE], 100)
    await world.advance(90)
    await world.store.give_back(taken, 100)
    assert await remaining(world.store, "a", MINUTE) == [100]


@_behaviour
async def a_refund_to_a_window_that_is_over_changes_nothing(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE, TOTAL], 80)
    await world.advance(150)
    await grant(world.store, "a", [MINUTE], 90)
    await world.store.give_back(taken, 80)
    assert await remaining(world.store, "a", MINUTE, TOTAL) == [10, 5000]


@_behaviour
async def what_was_taken_bit_by_bit_is_given_back_at_once(world: World) -> None:
    """What was taken last first, each to its own window."""
    first = await grant(world.store, "a", [MINUTE, TOTAL], 40)
    await world.advance(70)
    second = await grant(world.store, "a", [MINUTE, TOTAL], 20)
    third = await grant(world.store, "a", [MINUTE, TOTAL], 10)
    await world.store.give_back(
        third.after(second.after(first)), 45
    )  # 25 of the first are spent: no more than 21 in view
    (left, in_all) = await remaining(world.store, "a", MINUTE, TOTAL)
    assert 79 <= left <= 80
    assert in_all == 4975


@_behaviour
async def what_was_never_taken_cannot_be_given_back(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE], 1)
    await world.store.give_back(taken._replace(key="b"), 1)
    assert await remaining(world.store, "b", MINUTE) == [100]


@_behaviour
async def a_charge_goes_above_the_limit(world: World) -> None:
    await grant(world.store, "a", [MINUTE, TOTAL], 90)
    await world.store.charge("a", [MINUTE, TOTAL], 30)
    assert await remaining(world.store, "a", MINUTE, TOTAL) == [0, 4880]
    refused = await short(world.store, "a", [MINUTE], 1)
    await world.advance(66)  # a tenth of the 120 is out of view: not enough
    await short(world.store, "a", [MINUTE], 1)
    assert refused.retry_after_s is not None
    await world.advance(refused.retry_after_s - 66)
    await grant(world.store, "a", [MINUTE], 1)


@_behaviour
async def charges_without_end_overflow_nothing(world: World) -> None:
    for _ in range(100):
        await world.store.charge("a", [MINUTE, TOTAL], 10**40)
    assert await remaining(world.store, "a", MINUTE, TOTAL) == [0, 0]
    await short(world.store, "a", [TOTAL], 1)
    await world.advance(120)
    assert await remaining(world.store, "a", MINUTE) == [100]


@_behaviour
async def a_limit_can_be_very_large(world: World) -> None:
    largest = Window(MOST, 60)
    await grant(world.store, "a", [largest], MOST - 1)
    assert await remaining(world.store, "a", largest) == [1]
    await short(world.store, "a", [largest], 2)
    await grant(world.store, "a", [largest], 1)


@_behaviour
async def after_the_time_that_it_tells_the_same_amount_is_granted(world: World) -> None:
    for number, (first_s, wait_s, amount) in enumerate([(0, 0, 1), (0, 0, 100), (30, 0, 40), (0, 70, 30), (0, 80, 95)]):
        key = f"retry-{number}"
        await grant(world.store, key, [MINUTE], 50)
        await world.advance(first_s)
        await grant(world.store, key, [MINUTE], 50)
        await world.advance(wait_s)
        await world.store.charge(key, [MINUTE], 60)
        refused = await short(world.store, key, [MINUTE], amount)
        assert refused.retry_after_s is not None
        await world.advance(refused.retry_after_s - SOON_S)
        await short(world.store, key, [MINUTE], amount)
        await world.advance(SOON_S)
        await grant(world.store, key, [MINUTE], amount)


@_behaviour
async def it_tells_when_more_is_free(world: World) -> None:
    assert [level.reset_s for level in await world.store.levels("a", [MINUTE, TOTAL])] == [0.0, 0.0]
    await grant(world.store, "a", [MINUTE, TOTAL], 100)
    minute, total = await world.store.levels("a", [MINUTE, TOTAL])
    assert total.reset_s is None
    assert minute.reset_s is not None
    assert 60 - SOON_S < minute.reset_s < 61
    await world.advance(minute.reset_s)
    assert await remaining(world.store, "a", MINUTE) == [1]


@_behaviour
async def a_clock_that_jumps_leaves_every_count_in_bounds(world: World) -> None:
    taken = await grant(world.store, "a", [MINUTE, TOTAL], 60)
    await world.store.acquire("a", 1, "x", 10.0)
    for jump_s in (-45, -100_000, 100_045, 1e8, -1e8):
        await world.advance(jump_s)
        for level in await world.store.levels("a", [MINUTE, TOTAL]):
            assert 0 <= level.remaining <= level.window.limit
            assert level.reset_s is None or level.reset_s >= 0
        await world.store.take("a", [MINUTE], 30)
        await world.store.give_back(taken, 60)
        assert await world.store.held("a") in (0, 1)


@_behaviour
async def a_clock_that_is_set_back_keeps_nobody_out_for_long(world: World) -> None:
    await grant(world.store, "a", [MINUTE], 50)
    await world.advance(60)
    await grant(world.store, "a", [MINUTE], 50)
    await world.advance(-100_000)
    assert 0 <= (await remaining(world.store, "a", MINUTE))[0] <= 100
    await world.store.take("a", [MINUTE], 1)
    await world.advance(120)
    assert await remaining(world.store, "a", MINUTE) == [100]


@_behaviour
async def holders_do_not_notice_that_the_clock_was_set_back(world: World) -> None:
    assert await world.store.acquire("a", 1, "x", 10.0)
    await world.advance(-100_000)
    assert await world.store.renew([("a", "x")], 10.0) == [True]
    assert not await world.store.acquire("a", 1, "y", 10.0)
    await world.advance(11)
    assert await world.store.acquire("a", 1, "y", 10.0)
    await world.advance(-100_000)
    await world.store.release("a", "y")
    assert await world.store.held("a") == 0


# Leases


@_behaviour
async def no_more_slots_than_the_cap_are_taken(world: World) -> None:
    assert [await world.store.acquire("a", 2, holder, 60.0) for holder in "xyz"] == [True, True, False]
    assert await world.store.held("a") == 2
    assert await world.store.acquire("b", 2, "x", 60.0)


@_behaviour
async def a_slot_that_is_released_is_free(world: World) -> None:
    assert await world.store.acquire("a", 1, "x", 60.0)
    await world.store.release("a", "x")
    assert await world.store.held("a") == 0
    assert await world.store.acquire("a", 1, "y", 60.0)
    await world.store.release("a", "x")  # it has none
    await world.store.release("nobody", "x")
    assert await world.store.held("a") == 1


@_behaviour
async def who_has_a_slot_has_it_once(world: World) -> None:
    for _ in range(3):
        assert await world.store.acquire("a", 1, "x", 60.0)
    assert await world.store.held("a") == 1


@_behaviour
async def a_lease_that_is_not_renewed_ends(world: World) -> None:
    assert await world.store.acquire("a", 2, "x", 10.0)
    await world.advance(5)
    assert await world.store.acquire("a", 2, "y", 10.0)
    await world.advance(6)
    assert await world.store.held("a") == 1
    assert await world.store.acquire("a", 2, "z", 10.0)
    assert not await world.store.acquire("a", 2, "x", 10.0)


@_behaviour
async def many_leases_are_renewed_at_once(world: World) -> None:
    leases = [("a", "x"), ("a", "y"), ("b", "x")]
    for key, holder in leases:
        assert await world.store.acquire(key, 2, holder, 10.0)
    for _ in range(3):
        await world.advance(8)
        assert await world.store.renew([*leases, ("b", "y"), ("c", "x")], 10.0) == [True, True, True, False, False]
    await world.advance(11)
    assert await world.store.renew(leases, 10.0) == [False, False, False]
    assert await world.store.held("a") == 0
    assert await world.store.renew([], 10.0) == []


@_behaviour
async def leases_of_one_key_may_last_differently_long(world: World) -> None:
    assert await world.store.acquire("a", 3, "long", 100.0)
    assert await world.store.acquire("a", 3, "short", 10.0)
    assert await world.store.acquire("a", 3, "middle", 50.0)
    for wait_s, holders in ((11, 2), (40, 1), (50, 0)):
        await world.advance(wait_s)
        assert await world.store.held("a") == holders
        assert await world.store.renew([("a", "short")], 100.0) == [False]


@_behaviour
async def a_cap_that_is_lowered_lets_nobody_in_until_enough_are_gone(world: World) -> None:
    assert [await world.store.acquire("a", 3, holder, 60.0) for holder in "xyz"] == [True, True, True]
    assert not await world.store.acquire("a", 2, "new", 60.0)
    await world.store.release("a", "x")
    assert not await world.store.acquire("a", 2, "new", 60.0)
    await world.store.release("a", "y")
    assert await world.store.acquire("a", 2, "new", 60.0)


# The line


@_behaviour
async def who_came_first_is_served_first(world: World) -> None:
    store = world.store
    assert await store.acquire("a", 1, "holder", 60.0)
    for holder in "xyz":
        assert not await store.acquire("a", 1, holder, 60.0, keep_s=30.0)
        await world.advance(1)
    await store.release("a", "holder")
    assert not await store.acquire("a", 1, "newcomer", 60.0)
    for late in "zy":
        assert not await store.acquire("a", 1, late, 60.0, waited_s=1.5 if late == "z" else 2.5, keep_s=30.0)
    assert await store.acquire("a", 1, "x", 60.0, waited_s=3.5, keep_s=30.0)
    await store.release("a", "x")
    assert not await store.acquire("a", 1, "z", 60.0, waited_s=1.5, keep_s=30.0)
    assert await store.acquire("a", 1, "y", 60.0, waited_s=2.5, keep_s=30.0)
    await store.release("a", "y")
    assert await store.acquire("a", 1, "z", 60.0, waited_s=1.5, keep_s=30.0)
    await store.release("a", "z")
    assert await store.acquire("a", 1, "newcomer", 60.0)


@_behaviour
async def as_many_are_served_as_slots_are_free(world: World) -> None:
    store = world.store
    for holder in ("one", "two", "three"):
        assert await store.acquire("a", 3, holder, 60.0)
    for holder in "xyz":
        assert not await store.acquire("a", 3, holder, 60.0, keep_s=30.0)
        await world.advance(1)
    await store.release("a", "one")
    await store.release("a", "two")
    assert not await store.acquire("a", 3, "z", 60.0, waited_s=1.5, keep_s=30.0)
    assert await store.acquire("a", 3, "y", 60.0, waited_s=2.5, keep_s=30.0)
    assert not await store.acquire("a", 3, "z", 60.0, waited_s=1.5, keep_s=30.0)
    assert await store.acquire("a", 3, "x", 60.0, waited_s=3.5, keep_s=30.0)


@_behaviour
async def who_has_waited_longer_goes_first_though_he_asks_later(world: World) -> None:
    store = world.store
    assert await store.acquire("a", 1, "holder", 60.0)
    assert not await store.acquire("a", 1, "x", 60.0, keep_s=30.0)
    assert not await store.acquire("a", 1, "y", 60.0, waited_s=5.0, keep_s=30.0)
    await store.release("a", "holder")
    assert not await store.acquire("a", 1, "x", 60.0, keep_s=30.0)
    assert await store.acquire("a", 1, "old", 60.0, waited_s=9.0)  # and has no place yet
    await store.release("a", "old")
    assert await store.acquire("a", 1, "y", 60.0, waited_s=5.0)


@_behaviour
async def a_place_that_is_left_or_not_asked_for_in_time_is_free(world: World) -> None:
    store = world.store
    assert await store.acquire("a", 1, "holder", 600.0)
    for holder in ("leaves", "dies", "stays"):
        assert not await store.acquire("a", 1, holder, 60.0, keep_s=10.0)
        await world.advance(1)
    await world.advance(6)
    assert not await store.acquire("a", 1, "leaves", 60.0, waited_s=9.0, keep_s=10.0)
    assert not await store.acquire("a", 1, "stays", 60.0, waited_s=7.0, keep_s=10.0)
    await store.release("a", "leaves")
    await store.release("a", "holder")
    assert not await store.acquire("a", 1, "stays", 60.0, waited_s=7.0, keep_s=10.0)
    await world.advance(3)
    assert await store.acquire("a", 1, "stays", 60.0, waited_s=10.0, keep_s=10.0)
    await store.release("a", "stays")
    assert await store.acquire("a", 1, "newcomer", 60.0)


@_behaviour
async def a_clock_that_is_set_back_keeps_no_place_for_the_dead(world: World) -> None:
    store = world.store
    assert await store.acquire("a", 1, "holder", 60.0)
    assert not await store.acquire("a", 1, "dead", 60.0, waited_s=20.0, keep_s=10.0)
    await world.advance(-100_000)
    assert not await store.acquire("a", 1, "x", 60.0, waited_s=10.0, keep_s=10.0)
    await world.advance(11)
    await store.release("a", "holder")
    assert await store.acquire("a", 1, "y", 60.0, waited_s=21.0, keep_s=10.0)


@_behaviour
async def who_does_not_wait_has_no_place(world: World) -> None:
    store = world.store
    assert await store.acquire("a", 1, "holder", 60.0)
    assert not await store.acquire("a", 1, "refused", 60.0)
    await world.advance(1)
    await store.release("a", "holder")
    assert await store.acquire("a", 1, "newcomer", 60.0)
