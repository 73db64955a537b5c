"""`token_limit`: budgets of tokens that streams cannot overrun, for each key, tenant, client, model, route, upstream,
or in all.

- At admission an estimate of the input is reserved, and a lease of output tokens where the process has none in hand for
  this party, however many the request asks for. A request that finds no room is refused (429), with the fields of
  draft-ietf-httpapi-ratelimit-headers.
- All exchanges of a party in a process draw from one hand of leased tokens (`hand.py`). An event is delivered if the hand
  covers its tokens as the configured counter counts them; never else. The next lease is fetched in the background when half
  of the last is used; one that is older than the shortest window is not used any more. An event for which there is none
  waits until the store has answered, also one that alone is more than a lease; if the budget has no room for it,
  `on_exhausted` says what happens: "cut" ends the stream as that API's own output limit would, where the state is shared
  after a second in which other processes may give something back; "pace" lets it wait for the window to slide, if that
  takes no longer than `pace_at_most_s`, and cuts it else.
- At the end the exchange is settled: to the usage that the upstream states, where it is believable, else to the counter.
  What was not used is given back. What the upstream states beyond that is charged, and may overfill the windows: the
  tokens were spent. Nothing is charged for a reply that is an error, nor where the upstream did not answer at all, unless
  the client left or a time limit ended it: then the prompt is charged, which may have been worked on.
- A reply that is no stream is one event. It counts as much as its usage says and, if there is no room for it, is kept from
  the client (429), but charged as it was stated: the model has written it. With "pace" it waits, as above.

What cannot be read as text (sound, images, what is not in its dialect) counts by its size, a token for each four bytes.
Requests without a body (a list of models) are let through, but for those that ask for a reply which the model server has
written in the background: each of its tokens is charged once, to whom it is handed out first (`kept.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from proxy import identity, tokens
from proxy.errors import StateError
from proxy.messages import Reply, Request
from proxy.policy import Host, Policy, PolicyConfig, PolicyStream, Sees, Stage
from proxy.values import Positive, Seconds

from .account import Account
from .budget import Budget, TokenWindow
from .hand import Hand
from .kept import Kept
from .stream import TokenLimitStream, refusal_fields


def _countable(tokenizer: tokens.Tokenizer) -> tokens.Tokenizer:
    if not tokens.installed(tokenizer):
        raise ValueError('needs the extra "tokens" (pip install "penstock[tokens]"); "deltas" does not')
    return tokenizer


def _lengths_differ(windows: Sequence[TokenWindow]) -> Sequence[TokenWindow]:
    if len({(window.what, window.window_s) for window in windows}) < len(windows):
        raise ValueError("must not have two windows of the same length that count the same")
    return windows


class TokenLimitConfig(PolicyConfig):
    per: identity.Per = "identity"
    windows: Annotated[tuple[TokenWindow, ...], Field(min_length=1), AfterValidator(_lengths_differ)]
    lease_tokens: Positive = 256
    on_exhausted: Literal["cut", "pace"] = "cut"
    pace_at_most_s: Seconds = 60.0
    tokenizer: Annotated[tokens.Tokenizer, AfterValidator(_countable)] = "deltas"
    ask_for_usage: bool = True
    on_state_error: Literal["refuse", "allow"] = "refuse"


class TokenLimit(Policy[TokenLimitConfig]):
    stage = Stage.METER
    sees = Sees.EVENTS
    needs_state = True
    needs_body = True
    Config = TokenLimitConfig

    def __init__(self, config: TokenLimitConfig, host: Host) -> None:
        super().__init__(config, host)
        self._budget = Budget(host, config.windows, config.lease_tokens, paced=config.on_exhausted == "pace")
        self._hands: dict[str, Hand] = {}  # of those who have exchanges here just now

    async def start(self) -> None:
        tokens.counter(self.config.tokenizer)  # which takes a while the first time

    async def admit(self, request: Request) -> PolicyStream | Reply | None:
        call = request.call
        if call.kept_id is not None:
            return await self._admit_again(request, Kept(self.host, call.kept_id))
        if not request.body:
            return None
        counter = tokens.counter(self.config.tokenizer)
        prompt_tokens = max(1, counter.estimate(call.texts) + call.token_ids)
        most = None if call.max_output_tokens is None else call.max_output_tokens * call.choices
        account = Account(self._budget, self._hands, identity.of(self.config.per, request), most)
        admitted = False
        try:
            refusal = await self._open(account, prompt_tokens)
            if refusal is not None:
                return refusal
            stream = TokenLimitStream(self.config, self.host, account, counter, prompt_tokens, request)
            if self.config.ask_for_usage:
                request.ask_for_usage(stream)
            admitted = True
            return stream
        finally:
            if not admitted:
                account.close(0, 0)

    async def _admit_again(self, request: Request, kept: Kept) -> PolicyStream | Reply:
        """For a reply that is kept. There is no prompt, and as long as nothing is handed out nothing needs room."""
        try:
            await kept.look()
        except StateError as error:
            self._budget.count_error(1)
            if self.config.on_state_error == "refuse":
                return Reply(details=error.details)
        who = identity.of(self.config.per, request)
        account = Account(self._budget, self._hands, who, None, covered=kept.output_tokens)
        counter = tokens.counter(self.config.tokenizer)
        return TokenLimitStream(self.config, self.host, account, counter, 0, request, kept)

    async def _open(self, account: Account, prompt_tokens: int) -> Reply | None:
        try:
            refused = await account.open(prompt_tokens)
        except StateError as error:
            if self.config.on_state_error == "refuse":
                return Reply(details=error.details)
            account.assume(1)
            return None
        if refused is None:
            return None
        return Reply(details="token_limit", headers=refusal_fields(self.host.name, refused))
