"""What `token_limit` has with the state store: an account for each exchange, from its reservation to its settlement.

Rule of this file: all that was ever granted to an account is charged or given back in `settle`, whatever happened. Output is
leased: little at a time, so that nobody holds much more than he uses, but enough that the next lease is there before the
last is used up. A lease that its holder dies with stays charged.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from proxy import state
from proxy.errors import StateError
from proxy.policy import Host, PolicyConfig
from proxy.state import Grant, Level, Short, Store, Window
from proxy.values import Positive

SMALL_LEASE_TOKENS = 64
"""No lease is smaller while there is so much for each stream; with smaller ones the store would be asked too often."""

_LEASES_IN_A_WINDOW = 8  # at least: of a small budget each lease is small, or a few streams would hold all of it

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


class Budget:
    """The windows of one policy, and its metrics."""

    def __init__(self, host: Host, windows: Sequence[TokenWindow], lease_tokens: int) -> None:
        self.host = host
        self.count_tokens = host.counter("tokens", "Tokens charged, by kind: input, output.", ("kind",))
        self.count_error = host.counter("state_errors", "Requests and leases that the state store had no answer for.")
        self.count_lost = host.counter("lost_tokens", "Tokens that could neither be charged nor given back.")
        kinds: dict[What, list[Window]] = {}
        for window in windows:
            seconds = None if window.window_s == "total" else window.window_s
            kinds.setdefault(window.what, []).append(Window(window.tokens, seconds))
        self.pots = [Pot(what, tuple(kinds[what])) for what in kinds]
        of_output = [window for pot in self.pots if pot.what != "input" for window in pot.windows]
        self.shortest_s = min((window.seconds for window in of_output if window.seconds is not None), default=math.inf)
        smallest = min((window.limit for window in of_output), default=lease_tokens)
        self.counts_output = bool(of_output)
        self.lease_tokens = min(lease_tokens, max(SMALL_LEASE_TOKENS, smallest // _LEASES_IN_A_WINDOW))
        self.parties: dict[str, Party] = {}
        """Those for whom accounts are open, in this process."""


@dataclass(slots=True)
class Party:
    """Somebody who is counted for, while he has accounts open. `room` is how many output tokens the windows had left when
    they were last looked at."""

    accounts: int = 0
    room: int = state.MOST

    def share(self) -> int:
        """How much of the room one account may lease, so that something is left for those who come."""
        if self.room >= SMALL_LEASE_TOKENS * self.accounts:
            return max(SMALL_LEASE_TOKENS, self.room // (2 * self.accounts))
        return max(1, self.room // (self.accounts + 1))


class Refused(NamedTuple):
    """The window that has no room, and what it counts."""

    short: Short
    what: What


class Account:
    """One exchange's tokens. `leased` is how many output tokens it may deliver in all; `most_output` how many it can need
    (None: not known).

    `open` it once, then `renew`; `close` it once, also after an `open` that failed. What raises `StateError` has reserved
    nothing."""

    def __init__(self, budget: Budget, who: str, most_output: int | None) -> None:
        self.leased = 0 if budget.counts_output else state.MOST
        self.levels: list[tuple[What, Sequence[Level]]] = []
        """How full the windows were when something was last granted."""
        self._budget = budget
        self._store: Store = budget.host.state
        self._who = who
        self._party = budget.parties.setdefault(who, Party())
        self._party.accounts += 1
        self._most_output = most_output
        self._pots = [(pot, state.key(budget.host.name, pot.what, who), list[Grant]()) for pot in budget.pots]
        self.lasts_s = budget.shortest_s
        """For how long a lease may be used: then the window that it was charged in has gone by."""
        self.scarce = False
        """The last lease was smaller than one is where there is enough."""
        self._lock = asyncio.Lock()
        self._closed = False

    @property
    def wants_more(self) -> bool:
        """Whether the exchange may need more than is leased."""
        return self._most_output is None or self.leased < self._most_output

    async def open(self, input_tokens: int) -> Refused | None:
        """Reserve the input and a first lease."""
        return await self._reserve(input_tokens, 1)

    async def renew(self, least: int) -> Refused | None:
        """One more lease, of `least` tokens or more."""
        async with self._lock:
            return None if self._closed else await self._reserve(0, least)

    def assume(self, least: int) -> None:
        """A lease without the store, which has no answer; what is used of it is charged when the account is settled."""
        if not self._closed:
            self.leased += max(least, self._lease_size())

    def forget(self, used: int) -> None:
        """What is left of the leases counts no more, though it is still given back."""
        self.leased = min(self.leased, used)

    def close(self, input_tokens: int, output_tokens: int) -> int:
        """Settle to what was really used, in the background; how much of what is reserved was not."""
        self._closed = True
        self._party.accounts -= 1
        if not self._party.accounts:
            del self._budget.parties[self._who]
        unused = [
            sum(grant.amount for grant in grants) - pot.amount(input_tokens, output_tokens)
            for pot, _, grants in self._pots
        ]
        self._budget.count_tokens(input_tokens, "input")
        self._budget.count_tokens(output_tokens, "output")
        if any(unused) or self._lock.locked():
            self._budget.host.spawn(self._settle(input_tokens, output_tokens))
        return max(0, *unused)

    # Leases

    async def _reserve(self, input_tokens: int, least: int) -> Refused | None:
        wanted = max(least, self._lease_size()) if self._budget.counts_output else 0
        while (refused := await self._take(input_tokens, wanted)) is not None:
            if wanted <= least or refused.what == "input":
                return refused
            wanted = max(least, min(wanted - 1, self._lease_size()))
        self.scarce = wanted < self._full_lease()
        self.leased += wanted
        return None

    def _lease_size(self) -> int:
        return min(self._full_lease(), self._party.share())

    def _full_lease(self) -> int:
        size = self._budget.lease_tokens
        return size if self._most_output is None else max(1, min(size, self._most_output - self.leased))

    async def _take(self, input_tokens: int, output_tokens: int) -> Refused | None:
        """Reserve in all pots, in order, or in none."""
        taken: list[Grant | None] = []
        try:
            for pot, key, _ in self._pots:
                amount = pot.amount(input_tokens, output_tokens)
                granted = await self._store.take(key, pot.windows, amount) if amount else None
                if isinstance(granted, Short):
                    self._party.room = granted.level.remaining - pot.amount(input_tokens, 0)
                    await self._undo(taken)
                    return Refused(granted, pot.what)
                taken.append(granted)
        except BaseException as error:  # also a client that leaves
            if taken:
                self._budget.host.spawn(self._undo(taken))
            if isinstance(error, StateError):
                self._budget.count_error(1)
            raise
        self.levels = []
        for (pot, _, grants), granted in zip(self._pots, taken, strict=True):
            if granted is not None:
                self.levels.append((pot.what, granted.levels))
                grants.append(granted._replace(levels=()))  # a long stream has very many
        of_output = (level.remaining for what, levels in self.levels if what != "input" for level in levels)
        self._party.room = min(of_output, default=state.MOST)
        return None

    async def _undo(self, taken: list[Grant | None]) -> None:
        while taken:
            grant = taken.pop()
            if grant is not None:
                await self._give_back(grant, grant.amount)

    # Settlement

    async def _settle(self, input_tokens: int, output_tokens: int) -> None:
        async with self._lock:  # a lease that is on its way is waited for
            for pot, key, grants in self._pots:
                unused = sum(grant.amount for grant in grants) - pot.amount(input_tokens, output_tokens)
                if unused < 0:
                    await self._charge(key, pot.windows, -unused)
                while unused > 0:
                    grant = grants.pop()
                    part = min(grant.amount, unused)
                    unused -= part
                    await self._give_back(grant, part)

    async def _charge(self, key: str, windows: Sequence[Window], amount: int) -> None:
        try:
            await self._store.charge(key, windows, amount)
        except StateError:
            self._budget.count_lost(amount)

    async def _give_back(self, grant: Grant, amount: int) -> None:
        try:
            await self._store.give_back(grant, amount)
        except StateError:
            self._budget.count_lost(amount)
