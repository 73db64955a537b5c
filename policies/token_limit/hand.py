"""The hand: the output tokens that this process has leased for one party, and that none of its exchanges has used yet.

All exchanges of a party draw from the one hand of their process, so that none is cut or refused while another sits on
tokens that it may never use; and the store is asked once for all of them. What is in a hand is charged in the store already:
drawing only says who used it. A lease is so large that the next one is there before it is used up, and so small that little
is out of reach of other processes. A lease that its holder dies with stays charged.

Rule of this file: what was ever granted is in the hand, drawn from it, or on its way back.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from proxy import state
from proxy.errors import StateError
from proxy.state import Grant, Level, Short

from .budget import SMALL_LEASE_TOKENS, Budget, Refused, What

Grants = tuple[Grant | None, ...]
"""What one question was granted, for each pot of the budget; None where it was not asked."""

_PROMPT_S = 1.0  # of the store

STEP_S = 0.25
"""Where little comes free at a time, the store is asked no more often."""

_LEASES_TO_HALVE = 32
"""So many leases in a row that nobody had to wait for show that a flood is over, and the next are half as large. Where the
large ones are needed still, somebody waits for one lease in so many, and it grows back at once."""


class User(Protocol):
    """An exchange that draws from a hand."""

    @property
    def still_to_come(self) -> float:
        """How many more tokens it may need; infinite where nobody knows."""


class _Lease(NamedTuple):
    tokens: int
    until: float  # monotonic seconds: then the window that it was charged in has gone by
    grants: Grants


class Hand:
    """What one party has in hand. `tokens` may be drawn now."""

    def __init__(self, budget: Budget, who: str) -> None:
        self.tokens = 0
        self.users: set[User] = set()
        self.levels: Sequence[tuple[What, Sequence[Level]]] = ()
        """How full the windows were when something was last granted."""
        self.low = 0
        """With so few left it is time to `refill_in_time`."""
        self.stale_at = math.inf
        """When the oldest lease is to be dropped."""
        self._budget = budget
        self._keys = [state.key(budget.host.name, pot.what, who) for pot in budget.pots]
        self._leases: deque[_Lease] = deque()  # the oldest is drawn from first; together not less than `tokens`
        self._in_leases = 0
        self._newest: Grants = ()  # of the last lease, for what comes back when all have been used
        self._full = budget.lease_tokens  # what a lease is where there is plenty; more, once somebody had to wait
        self._since_wait = 0  # the leases since then, or since `_full` was halved
        self._room = state.MOST  # what the windows had left when they were last looked at
        self._ask_at = 0.0  # and not before this
        self._asking = False
        self._scarce = False  # what is left limits the size of a lease
        self._lock = asyncio.Lock()

    # Drawing

    def draw(self, tokens: int, now: float) -> bool:
        """Take `tokens` out, all or nothing; whether they were there."""
        if now >= self.stale_at:
            self._drop_stale(now)
        if tokens > self.tokens:
            return False
        self.tokens -= tokens
        return True

    def take(self, tokens: int) -> int:
        """Take up to `tokens` out; how many."""
        taken = min(tokens, self.tokens)
        self.tokens -= taken
        return taken

    def put_back(self, tokens: int) -> None:
        """What was drawn has not been used after all."""
        if self._leases:
            newest = self._leases.pop()
            self._leases.append(newest._replace(tokens=newest.tokens + tokens))
            self._in_leases += tokens
            self.tokens += tokens
        else:  # they are all too old: of use only to longer windows
            self._budget.host.spawn(self._give_back([(tokens, self._newest)]))

    def take_all(self) -> list[tuple[int, Grants]]:
        """Empty the hand; what was in it, the newest last, is the caller's to give back."""
        taken, over = [], self._in_leases - self.tokens
        for lease in self._leases:
            used = min(lease.tokens, over)
            over -= used
            taken.append((lease.tokens - used, lease.grants))
        self._leases.clear()
        self._in_leases = self.tokens = 0
        self.stale_at = math.inf
        return taken

    def _drop_stale(self, now: float) -> None:
        stale = []
        while self._leases and self._leases[0].until <= now:
            lease = self._leases.popleft()
            over = self._in_leases - self.tokens
            self._in_leases -= lease.tokens
            if (unused := lease.tokens - over) > 0:
                stale.append((unused, lease.grants))
                self.tokens -= unused
        self._full = self._budget.lease_tokens  # one that outlasts a window was large enough
        self.stale_at = self._leases[0].until if self._leases else math.inf
        if stale:
            self._budget.host.spawn(self._give_back(stale))

    # Leasing

    def refill_in_time(self, now: float) -> None:
        """Fetch the next lease in the background, if it is time for it."""
        if self.tokens <= self.low and not self._asking and now >= self._ask_at and self._to_come() > self.tokens:
            self._asking = True
            self._budget.host.spawn(self._refill())

    def may_be_asked_in_s(self, now: float) -> float:
        return max(0.0, self._ask_at - now)

    async def _refill(self) -> None:
        try:
            async with self._lock:
                if not self.users or self.tokens > self.low:  # somebody who had to wait was first
                    return
                if not isinstance(await self._lease(0, 1), Refused):
                    return
        except StateError:
            pass  # it is counted; whoever needs a token before the store is back asks again
        finally:
            self._asking = False
        self.low = self.low // 2 or -1  # not again with the next event; when none are left, an event waits

    async def hold(self, tokens: int) -> Refused | None:
        """Have at least so many in hand. Raises `StateError`; then nothing was reserved."""
        async with self._lock:  # another exchange's lease may be enough for all
            if not self.users or self.tokens >= tokens:
                return None
            # Streams that come in floods use up a small lease within one read, and the others wait with them.
            self._full = min(2 * self._full, self._budget.largest_lease_tokens)
            self._since_wait = 0
            answer = await self._lease(0, tokens - self.tokens)
            return answer if isinstance(answer, Refused) else None

    async def admit(self, input_tokens: int) -> Refused | Grants:
        """Reserve the input of an exchange, with a lease unless there is enough in hand. Raises `StateError`; then nothing
        was reserved."""
        async with self._lock:
            least = 1 if self._budget.counts_output and self.tokens <= self.low else 0
            answer = await self._lease(input_tokens, least)
            if not isinstance(answer, Refused) or not self.tokens or answer.what == "input":
                return answer
            if answer.what == "output":  # what is in hand has to do for one more
                return await self._lease(input_tokens, 0)
            await self._first(self._give_back(self.take_all()))  # the input fits perhaps, if nothing is kept in hand
            return await self._lease(input_tokens, 1)

    async def _lease(self, input_tokens: int, least: int) -> Refused | Grants:
        """Take `input_tokens` and, where `least` is not 0, a lease of at least so many."""
        wanted = max(least, self._lease_size()) if least else 0
        while isinstance(taken := await self._take(input_tokens, wanted), Refused):
            if wanted <= least or taken.what == "input":
                return taken
            wanted = max(least, min(wanted - 1, self._lease_size()))
        if wanted:
            self._add(wanted, taken)
        return taken

    def _add(self, tokens: int, grants: Grants) -> None:
        now = self._budget.host.clock()
        self._since_wait += 1
        if self._since_wait > _LEASES_TO_HALVE:
            self._full = max(self._full // 2, self._budget.lease_tokens)
            self._since_wait = 0
        self._newest = grants
        self.low = tokens // 2
        self._ask_at = now + STEP_S if self._budget.paced and self._scarce else 0.0
        self._leases.append(_Lease(tokens, now + self._budget.shortest_s, grants))
        self._in_leases += tokens
        self.tokens += tokens
        while self._in_leases - self._leases[0].tokens >= self.tokens:
            self._in_leases -= self._leases.popleft().tokens
        self.stale_at = self._leases[0].until

    def _lease_size(self) -> int:
        share = self._room // 2  # something is left for other processes
        if self._room >= SMALL_LEASE_TOKENS * len(self.users):
            share = max(SMALL_LEASE_TOKENS, share)
        full = self._full if self._newest else self._budget.first_lease_tokens
        self._scarce = share < min(full, self._budget.lease_tokens)
        return int(max(1, min(full, share, self._to_come() - self.tokens)))

    async def _first(self, giving_back: Coroutine[Any, Any, None]) -> None:
        """Give back before anything else is asked for; in the background where the store takes long, or whoever asks leaves
        meanwhile."""
        giving = asyncio.ensure_future(giving_back)
        try:
            await asyncio.wait((giving,), timeout=_PROMPT_S)
        finally:
            if not giving.done():
                self._budget.host.spawn(_until_done(giving))

    def _to_come(self) -> float:
        return sum(user.still_to_come for user in self.users)

    async def _take(self, input_tokens: int, output_tokens: int) -> Refused | Grants:
        """Reserve in all pots, in order, or in none."""
        taken: list[Grant | None] = []
        try:
            for pot, key in zip(self._budget.pots, self._keys, strict=True):
                amount = pot.amount(input_tokens, output_tokens)
                granted = await self._budget.host.state.take(key, pot.windows, amount) if amount else None
                if isinstance(granted, Short):
                    self._room = granted.level.remaining - pot.amount(input_tokens, 0)
                    if any(taken):
                        await self._first(self._undo(taken))
                    return Refused(granted, pot.what)
                taken.append(granted)
        except BaseException as error:  # also a client that leaves
            if taken:
                self._budget.host.spawn(self._undo(taken))
            if isinstance(error, StateError):
                self._budget.count_error(1)
            raise
        self.levels = [
            (pot.what, granted.levels)
            for pot, granted in zip(self._budget.pots, taken, strict=True)
            if granted is not None
        ]
        of_output = [level.remaining for what, levels in self.levels if what != "input" for level in levels]
        self._room = min(of_output, default=self._room)
        return tuple(granted and granted._replace(levels=()) for granted in taken)

    async def _undo(self, taken: list[Grant | None]) -> None:
        while taken:
            grant = taken.pop()
            if grant is not None:
                await self._refund(grant, grant.amount)

    # Giving back

    @property
    def is_empty(self) -> bool:
        """Nothing is in it, and nothing on its way into it."""
        return not self.tokens and not self._lock.locked()

    async def settle_all(self, input_tokens: int, reserved: Grants, output_tokens: int) -> None:
        """The end of the last exchange: `settle`, with all that is in the hand. A lease that is on its way goes back with
        the rest."""
        async with self._lock:
            await self.settle(input_tokens, reserved, output_tokens, self.take_all())

    async def settle(
        self, input_tokens: int, reserved: Grants, output_tokens: int, returned: Iterable[tuple[int, Grants]]
    ) -> None:
        """The end of an exchange: its reservation was `input_tokens` too large, it has used `output_tokens` that nobody
        leased, and `returned` was taken out of the hand. One question for each pot."""
        returned = list(returned)
        back = sum(tokens for tokens, _ in returned)
        for place, pot in enumerate(self._budget.pots):
            unused = pot.amount(input_tokens, back - output_tokens)
            if unused > 0:
                parts = [(input_tokens, reserved), *returned] if pot.what != "output" else returned
                if pot.what == "input":
                    parts = parts[:1]
                await self._refund_parts(place, parts, unused)
            elif unused < 0:
                try:
                    await self._budget.host.state.charge(self._keys[place], pot.windows, -unused)
                except StateError:
                    self._budget.count_lost(-unused)

    async def _give_back(self, returned: Sequence[tuple[int, Grants]]) -> None:
        await self.settle(0, (), 0, returned)

    async def _refund_parts(self, place: int, parts: Iterable[tuple[int, Grants]], tokens: int) -> None:
        """Refund so many `tokens` of what these parts have charged in one pot, the last first."""
        whole: Grant | None = None
        for amount, grants in parts:
            grant = grants[place] if grants else None
            if grant is not None and amount > 0:
                whole = grant._replace(amount=amount).after(whole)
        if whole is not None:
            await self._refund(whole, tokens)

    async def _refund(self, grant: Grant, tokens: int) -> None:
        try:
            await self._budget.host.state.give_back(grant, tokens)
        except StateError:
            self._budget.count_lost(tokens)


async def _until_done(work: asyncio.Future[None]) -> None:
    await work
