"""One exchange's tokens, from its reservation to its settlement.

Rule of this file: whatever an account reserved or drew is charged or given back in `close`, whatever happened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from proxy.state import Level

from .budget import Budget, Refused, What
from .hand import Grants, Hand


class Account:
    """`most_output` is how many tokens of output the exchange asks for (None: it does not say); so many of them as are
    `covered` were charged before.

    `open` it once, or not where it has no input; then `cover` what is delivered; `close` it once, also after an `open` that
    failed."""

    def __init__(
        self, budget: Budget, hands: dict[str, Hand], who: str, most_output: int | None, *, covered: int = 0
    ) -> None:
        self.levels: Sequence[tuple[What, Sequence[Level]]] = ()
        """How full the windows were at admission."""
        self._budget = budget
        self._hands = hands
        self._who = who
        self._most_output = most_output
        self._input = 0  # reserved
        self._grants: Grants = ()  # by these
        self._drawn = 0
        self._covered = covered  # drawn, or assumed while the store had no answer
        self.hand = hands.get(who) or hands.setdefault(who, Hand(budget, who))
        self.hand.users.add(self)

    @property
    def still_to_come(self) -> float:
        """What the hand is to have for it. Who was given more than it asked for may need any number."""
        if self._most_output is None or self._drawn > self._most_output:
            return math.inf
        return self._most_output - self._drawn

    async def open(self, input_tokens: int) -> Refused | None:
        """Reserve the input, and see that there is output in hand. Raises `StateError`; then nothing was reserved."""
        answer = await self.hand.admit(input_tokens)
        if isinstance(answer, Refused):
            return answer
        self._input, self._grants = input_tokens, answer
        self.levels = self.hand.levels
        return None

    def cover(self, output_tokens: int, now: float) -> int:
        """Have `output_tokens` covered, in all: how many there must be in hand first, 0 where they are covered."""
        missing = output_tokens - self._covered
        if missing <= 0 or not self._budget.counts_output:
            return 0
        hand = self.hand
        if missing <= hand.tokens and now < hand.stale_at:
            hand.tokens -= missing  # `draw`, which is one call more
        elif not hand.draw(missing, now):
            return missing
        self._drawn += missing
        self._covered = output_tokens
        return 0

    def assume(self, tokens: int) -> None:
        """Cover some more without the store, which has no answer; they are charged when the account is settled."""
        self._covered += max(tokens, self._budget.lease_tokens)

    def close(self, input_tokens: int, output_tokens: int) -> None:
        """Settle to what was really used, in the background."""
        hand = self.hand
        hand.users.remove(self)
        self._budget.count_tokens(input_tokens, "input")
        self._budget.count_tokens(output_tokens, "output")
        beyond = output_tokens - self._drawn if self._budget.counts_output else 0
        if beyond < 0:
            hand.put_back(-beyond)
            beyond = 0
        beyond -= hand.take(beyond)
        unused_input = self._input - input_tokens
        if hand.users:
            if unused_input or beyond:
                self._budget.host.spawn(hand.settle(unused_input, self._grants, beyond, ()))
            return
        del self._hands[self._who]
        if unused_input or beyond or not hand.is_empty:
            self._budget.host.spawn(hand.settle_all(unused_input, self._grants, beyond))
