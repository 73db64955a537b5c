"""One exchange's timer, in simulated time. What rings when a whole exchange waits is test_relay.py's."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from typing import cast

import pytest
from rigs.doubles import Hooks, Loop

from proxy.chain import Chain, Link
from proxy.policy import Sees, Stage
from proxy.timer import LazyTimer
from proxy.turns import Turns


class Watch:
    """A timer for one chain of `streams`; notes when it rang."""

    def __init__(self, *streams: Hooks) -> None:
        self.loop = Loop()
        self.rang: list[float] = []
        chain = Chain([Link("policy", Stage.GUARD, Sees.NOTHING, stream) for stream in streams], 1000)
        chain.start(self.loop.now)
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.timer = LazyTimer(loop, Turns(loop, loop.time), [chain], self.ring)

    def ring(self) -> None:
        self.rang.append(self.loop.now)

    @property
    def set_to(self) -> list[float]:
        """What the loop waits for."""
        return [timer.when for timer in self.loop.pending]


@pytest.mark.parametrize("steady", [True, False])
def test_it_is_set_to_the_earliest_that_any_policy_waits_for(steady: bool) -> None:
    watch = Watch(Hooks(wake_at=1020.0), Hooks(), Hooks(wake_at=1010.0))
    watch.timer.arm(None, watch.loop.now, steady=steady)
    assert watch.set_to == [1010.0]


@pytest.mark.parametrize(("also_at", "wake_at"), [(1005.0, 1010.0), (1005.0, None), (1020.0, 1005.0)])
def test_something_else_may_be_waited_for_as_well(also_at: float, wake_at: float | None) -> None:
    watch = Watch(Hooks(wake_at=wake_at))
    watch.timer.arm(also_at, watch.loop.now, steady=False)
    assert watch.set_to == [1005.0]


@pytest.mark.parametrize("steady", [True, False])
def test_it_is_not_set_where_nothing_is_waited_for(steady: bool) -> None:
    watch = Watch(Hooks())
    watch.timer.arm(None, watch.loop.now, steady=steady)
    assert watch.loop.timers == []


@pytest.mark.parametrize("steady", [True, False])
def test_a_time_that_moves_away_leaves_it_as_it_is(steady: bool) -> None:
    stream = Hooks(wake_at=1010.0)
    watch = Watch(stream)
    for wake_at in (1010.0, 1011.0, math.inf, None):
        stream.wake_at = wake_at
        watch.timer.arm(None, watch.loop.now, steady=steady)
    assert len(watch.loop.timers) == 1
    assert watch.set_to == [1010.0]


def test_a_time_that_comes_nearer_moves_it() -> None:
    stream = Hooks(wake_at=1010.0)
    watch = Watch(stream)
    watch.timer.arm(None, watch.loop.now, steady=True)
    stream.wake_at = 1005.0
    watch.timer.arm(None, watch.loop.now, steady=True)
    assert watch.set_to == [1005.0]
    watch.loop.advance(20)
    assert watch.rang == [1005.0]


def test_it_is_armed_again_after_it_rang() -> None:
    stream = Hooks(wake_at=1010.0)
    watch = Watch(stream)
    watch.timer.arm(None, watch.loop.now, steady=True)
    watch.loop.advance(10)
    stream.wake_at = None
    watch.timer.arm(1020.0, watch.loop.now, steady=False)
    watch.loop.advance(10)
    watch.timer.arm(1015.0, watch.loop.now, steady=False)  # has passed already
    assert watch.set_to == []
    watch.loop.turn()
    assert watch.rang == [1010.0, 1020.0, 1020.0]


def test_it_does_not_ring_once_it_is_cancelled_and_keeps_nobody() -> None:
    watch = Watch(Hooks(wake_at=1010.0))
    watch.timer.arm(None, watch.loop.now, steady=True)
    watch.timer.cancel()
    watch.loop.advance(100)
    assert watch.rang == []
    timer, owner = watch.timer, weakref.ref(watch)
    gc.disable()
    try:
        del watch
        assert owner() is None
    finally:
        gc.enable()
    timer.cancel()
