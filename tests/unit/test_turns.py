"""Whose turn it is, in simulated time. What a stream does with its turn is test_relay.py's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from rigs.doubles import Loop

from proxy.turns import TURN_S, Turns


class Line:
    """Streams that wait for their turn; `had` is who had one. Each turn takes as long as `takes`."""

    def __init__(self, takes: float = 0.0) -> None:
        self.loop = Loop()
        self.takes = takes
        self.had: list[str] = []
        self.turns = Turns(cast(asyncio.AbstractEventLoop, self.loop), self.loop.time)

    def stream(self, name: str, times: int = 1) -> Callable[[], None]:
        def go_on() -> None:
            nonlocal times
            self.had.append(name)
            self.loop.now += self.takes
            times -= 1
            if times:
                self.turns.wait(go_on)

        return go_on


def test_nobody_has_a_turn_at_once_or_without_waiting() -> None:
    line = Line()
    assert not line.loop.turn()
    line.turns.wait(line.stream("a"))
    assert line.had == []
    line.loop.turn()
    assert line.had == ["a"]
    assert not line.loop.turn()


def test_who_waits_again_has_the_next_turn_behind_the_others() -> None:
    line = Line()
    for name in "abc":
        line.turns.wait(line.stream(name, 2))
    line.loop.turn()
    assert line.had == ["a", "b", "c"]
    line.loop.turn()
    assert line.had == ["a", "b", "c"] * 2
    assert not line.loop.turn()


def test_a_turn_of_the_loop_is_over_in_time_and_nobody_loses_a_place() -> None:
    line = Line(TURN_S * 0.6)
    for name in "abcde":
        line.turns.wait(line.stream(name, 2))
    turns = []
    while line.loop.turn():
        turns.append("".join(line.had))
        line.had.clear()
    assert turns == ["ab", "cd", "ea", "bc", "de"]


def test_a_bit_of_work_that_takes_longer_is_the_only_one() -> None:
    line = Line(TURN_S * 5)
    for name in "ab":
        line.turns.wait(line.stream(name))
    line.loop.turn()
    assert line.had == ["a"]
    line.loop.turn()
    assert line.had == ["a", "b"]


def test_one_that_is_let_read_is_the_last_of_a_turn() -> None:
    line = Line()

    def reads() -> None:
        line.had.append("read")
        line.turns.lets_read()

    for go_on in (line.stream("a"), reads, reads, line.stream("b")):
        line.turns.wait(go_on)
    turns = []
    while line.loop.turn():
        turns.append(line.had.copy())
        line.had.clear()
    assert turns == [["a", "read"], ["read"], ["b"]]


def test_who_is_let_read_between_two_turns_takes_nobody_s() -> None:
    line = Line()
    for name in "ab":
        line.turns.wait(line.stream(name))
    line.turns.lets_read()
    line.loop.turn()
    assert line.had == ["a", "b"]


def test_one_that_fails_does_not_take_the_others_turn() -> None:
    line = Line()

    def fails() -> None:
        raise KeyError("a mistake of ours")

    line.turns.wait(fails)
    line.turns.wait(line.stream("b"))
    with pytest.raises(KeyError):
        line.loop.turn()
    line.loop.turn()
    assert line.had == ["b"]
