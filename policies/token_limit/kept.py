"""Replies that the model server keeps: what was charged for each, so that no token of it is charged twice.

An OpenAI response that is written in the background is answered before anything is written, and handed out later: in part
or in whole, streamed or not, as often as somebody asks for it. What is charged for it, in all, is the most that any of
these exchanges has stated or delivered.

How much that is by now stands in the state store, in windows that are as wide as what is claimed. They are `REMEMBERED_S`
long: what is asked for again much later is charged again, bit by bit as the windows slide.
"""

from __future__ import annotations

from proxy import state
from proxy.errors import StateError
from proxy.policy import Host
from proxy.state import Grant, Window

from .account import Account

REMEMBERED_S = 86_400


class Kept:
    """One of them, by the id under which it can be asked for. `input_tokens` and `output_tokens` are what was charged for it
    when `look` was called."""

    def __init__(self, host: Host, reply_id: str) -> None:
        self.input_tokens = self.output_tokens = 0
        self._state = host.state
        self._keys = [state.key(host.name, kind, reply_id) for kind in ("kept-input", "kept-output")]

    async def look(self) -> None:
        """Raises `StateError`."""
        window = Window(state.MOST, REMEMBERED_S)
        levels = [(await self._state.levels(key, [window]))[0] for key in self._keys]
        self.input_tokens, self.output_tokens = (state.MOST - level.remaining for level in levels)

    def beyond(self, input_tokens: int, output_tokens: int) -> tuple[int, int]:
        """What of these was not charged by then."""
        return max(0, input_tokens - self.input_tokens), max(0, output_tokens - self.output_tokens)

    async def settle(self, account: Account, input_tokens: int, output_tokens: int) -> None:
        """Close `account` with what of these nobody was charged for, whoever asked meanwhile."""
        asked, answered = self._keys
        charged = most_input, most_output = self.beyond(input_tokens, output_tokens)
        try:
            charged = (
                await self._claim(asked, input_tokens, most_input),
                await self._claim(answered, output_tokens, most_output),
            )
        except StateError:  # to close an account has more patience; rather twice than never
            pass
        finally:
            account.close(*charged)

    async def _claim(self, key: str, tokens: int, wanted: int) -> int:
        """How many of the first so many `tokens` were not claimed yet, `wanted` at most. Raises `StateError`."""
        while wanted > 0:
            answer = await self._state.take(key, [Window(tokens, REMEMBERED_S)], wanted)
            if isinstance(answer, Grant):
                break
            wanted = min(wanted - 1, answer.level.remaining)
        return wanted
