"""A store counts as its plainest description does, whatever is taken, charged and given back, and whenever.

`Model` keeps nothing but a list of what was charged and when. Times are multiples of a quarter of a second and windows
powers of two seconds long, so that no rounding hides a difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from math import floor
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage

from proxy.state import Grant, Window, key
from proxy.state_memory import MemoryStore

T = TypeVar("T")

WINDOWS = (Window(20, 16), Window(50, 64), Window(200, None))
START_S = 2.0**30
QUARTERS = st.sampled_from([0, 0, 1, 3, 4, 17, 32, 63, 64, 65, 128, 255, 256, 600])
AMOUNTS = st.integers(0, 25)
CHOICES = st.sets(st.sampled_from(range(len(WINDOWS))), min_size=1).map(sorted)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), CHOICES, AMOUNTS),
        st.tuples(st.just("charge"), CHOICES, AMOUNTS),
        st.tuples(st.just("give_back"), st.integers(0, 30), AMOUNTS),
        st.tuples(st.just("wait"), st.none(), QUARTERS),
    ),
    max_size=60,
)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of what does not wait for anything, so that nothing can come between."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("it waited")


@dataclass
class Charged:
    window: Window
    at: float
    amount: int


class Model:
    def __init__(self) -> None:
        self.charges: list[Charged] = []

    def charge(self, windows: list[Window], amount: int, now: float) -> None:
        self.charges += [Charged(window, now, amount) for window in windows]

    def give_back(self, windows: tuple[Window, ...], taken_at: float, amount: int) -> None:
        for window in windows:
            left = amount
            for charged in self.charges:
                if charged.window == window and _number(window, charged.at) == _number(window, taken_at):
                    refund = min(left, charged.amount)
                    charged.amount -= refund
                    left -= refund

    def counted(self, window: Window, now: float) -> int:
        number = _number(window, now)
        of_numbers = {0: 0, -1: 0}
        for charged in self.charges:
            age = _number(window, charged.at) - number
            if charged.window == window and age in of_numbers:
                of_numbers[age] += charged.amount
        if window.seconds is None:
            return of_numbers[0]
        in_view = 1 - now / window.seconds % 1
        return floor(of_numbers[-1] * in_view) + of_numbers[0]


def _number(window: Window, at: float) -> int:
    return 0 if window.seconds is None else floor(at / window.seconds)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_it_counts_as_the_model_does(steps: list[tuple[str, Any, int]]) -> None:
    now = START_S
    store, model = MemoryStore(clock=lambda: now), Model()
    grants: list[Grant] = []
    for step, which, amount in steps:
        if step == "wait":
            now += amount / 4
        elif step == "charge":
            windows = [WINDOWS[number] for number in which]
            at_once(store.charge("a", windows, amount))
            model.charge(windows, amount, now)
        elif step == "give_back" and grants:
            grant = grants[which % len(grants)]
            at_once(store.give_back(grant, amount))
            model.give_back(grant.windows, grant.taken_at, amount)
        elif step == "take":
            windows = [WINDOWS[number] for number in which]
            full = [window for window in windows if model.counted(window, now) + amount > window.limit]
            taken = at_once(store.take("a", windows, amount))
            if isinstance(taken, Grant):
                assert not full
                grants.append(taken)
                model.charge(windows, amount, now)
            else:
                assert full[0] == taken.level.window
        for level in at_once(store.levels("a", WINDOWS)):
            assert level.remaining == max(0, level.window.limit - model.counted(level.window, now))
            assert level.reset_s is None or level.reset_s >= 0


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_who_waits_as_long_as_he_is_told_is_granted_and_not_before(steps: list[tuple[str, Any, int]]) -> None:
    """With nobody else about. A hundredth of a second before, the answer is still no."""
    now = START_S
    store = MemoryStore(clock=lambda: now)
    for step, which, amount in steps:
        if step == "wait":
            now += amount / 4
        elif step in ("charge", "take"):
            windows = [WINDOWS[number] for number in which if WINDOWS[number].seconds is not None][:1]
            taken = at_once(store.take("a", windows, amount))
            if not isinstance(taken, Grant):
                if taken.retry_after_s is None:
                    assert amount > windows[0].limit
                    at_once(store.charge("a", windows, amount))
                    continue
                now += taken.retry_after_s - 0.01
                assert not isinstance(at_once(store.take("a", windows, amount)), Grant)
                now += 0.01
                assert isinstance(at_once(store.take("a", windows, amount)), Grant)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(QUARTERS, AMOUNTS), max_size=40))
def test_it_grants_what_the_library_grants(steps: list[tuple[int, int]]) -> None:
    """The library's own storage in memory, with its clock set."""
    now = START_S
    store, window = MemoryStore(clock=lambda: now), WINDOWS[0]
    assert window.seconds is not None

    async def compare() -> None:
        nonlocal now
        library = MemoryStorage()
        for quarters, amount in steps:
            now += quarters / 4
            granted = await library.acquire_sliding_window_entry("a", window.limit, window.seconds or 0, amount)
            assert isinstance(await store.take("a", [window], amount), Grant) == granted

    with mock.patch("limits.aio.storage.memory.time", SimpleNamespace(time=lambda: now)):
        asyncio.run(compare())


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "acquire", "renew", "release", "wait"]),
            st.sampled_from("vwxyz"),
            st.integers(0, 30),
        ),
        max_size=60,
    )
)
def test_leases_are_held_by_no_more_than_the_cap_and_end_in_time(steps: list[tuple[str, str, int]]) -> None:
    now, cap = 0.0, 3
    store = MemoryStore(clock=lambda: now)
    model: dict[str, float] = {}
    for step, holder, seconds in steps:
        now += seconds if step == "wait" else 0
        model = {name: expires_at for name, expires_at in model.items() if expires_at > now}
        if step == "acquire":
            free = holder in model or len(model) < cap
            assert at_once(store.acquire("a", cap, holder, seconds + 1)) == free
            if free:
                model[holder] = now + seconds + 1
        elif step == "renew":
            assert at_once(store.renew([("a", holder)], seconds + 1)) == [holder in model]
            if holder in model:
                model[holder] = now + seconds + 1
        elif step == "release":
            at_once(store.release("a", holder))
            model.pop(holder, None)
        assert at_once(store.held("a")) == len(model) <= cap


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_different_parts_make_different_keys_that_are_short_and_plain(one: list[str], other: list[str]) -> None:
    assert (key(*one) == key(*other)) == (one == other)
    assert len(key(*one)) <= 65 * len(one)
    assert key(*one).isascii()
    assert "{" not in key(*one)
    assert key(*one).isprintable()
