"""What `token_limit` counts in, and what it tells the metrics: the windows of one policy, by the tokens they count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from proxy import state
from proxy.policy import Host, PolicyConfig
from proxy.state import Short, Window
from proxy.values import Positive

SMALL_LEASE_TOKENS = 64
"""No lease is smaller while there is so much for each stream; with smaller ones the store would be asked too often."""

_LEASES_IN_A_WINDOW = 8  # at least: of a small budget each lease is small, or one process would hold all of it

_MOST_GROWTH = 64  # a lease grows to so many times its size where streams had to wait for it

_GROWN_LEASES_IN_A_WINDOW = 64  # at least: no lease grows further, or a few processes would hold much of the window

What = Literal["input", "output", "both"]


class TokenWindow(PolicyConfig):
    """At most so many `tokens` of a kind in any `window_s` seconds, or ever."""

    tokens: Annotated[int, Field(gt=0, le=state.MOST)]
    window_s: Positive | Literal["total"]
    what: What = "both"


class Pot(NamedTuple):
    """The windows that count the same tokens, in the store under one key."""

    what: What
    windows: tuple[Window, ...]

    def amount(self, input_tokens: int, output_tokens: int) -> int:
        return (input_tokens if self.what != "output" else 0) + (output_tokens if self.what != "input" else 0)


class Refused(NamedTuple):
    """The window that has no room, and what it counts."""

    short: Short
    what: What


class Budget:
    """The windows of one policy, and its metrics."""

    def __init__(self, host: Host, windows: Sequence[TokenWindow], lease_tokens: int, *, paced: bool = False) -> None:
        self.host = host
        self.paced = paced
        """A stream may wait for the windows to slide."""
        self.count_tokens = host.counter("tokens", "Tokens charged, by kind: input, output.", ("kind",))
        self.count_error = host.counter("state_errors", "Requests and leases that the state store had no answer for.")
        self.count_lost = host.counter("lost_tokens", "Tokens that could neither be charged nor given back.")
        kinds: dict[What, list[Window]] = {}
        for window in windows:
            seconds = None if window.window_s == "total" else window.window_s
            kinds.setdefault(window.what, []).append(Window(window.tokens, seconds))
        self.pots = [Pot(what, tuple(kinds[what])) for what in kinds]
        of_output = [window for pot in self.pots if pot.what != "input" for window in pot.windows]
        self.counts_output = bool(of_output)
        self.shortest_s = min((window.seconds for window in of_output if window.seconds is not None), default=math.inf)
        smallest = min((window.limit for window in of_output), default=lease_tokens * _LEASES_IN_A_WINDOW)
        self.lease_tokens = min(lease_tokens, max(SMALL_LEASE_TOKENS, smallest // _LEASES_IN_A_WINDOW))
        self.first_lease_tokens = min(lease_tokens, max(1, smallest // _LEASES_IN_A_WINDOW))
        largest = min(_MOST_GROWTH * lease_tokens, smallest // _GROWN_LEASES_IN_A_WINDOW)
        self.largest_lease_tokens = max(self.lease_tokens, largest)
