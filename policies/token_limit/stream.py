"""One exchange under `token_limit`: counts what is delivered, has it covered in time, and says what was used in the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from proxy import ratelimit
from proxy.dialects.base import DialectStream, Parsed, Usage
from proxy.dialects.template import Template
from proxy.errors import Outcome, OutcomeKind, StateError
from proxy.framing import Event
from proxy.messages import Headers, Request, ResponseHead
from proxy.policy import Ending, Events, Host, Pause, PolicyStream, Stop, Verdict
from proxy.state import Level
from proxy.tokens import BYTES_PER_TOKEN, Counter

from .account import Account
from .budget import Refused, What
from .hand import STEP_S
from .kept import Kept

if TYPE_CHECKING:
    from . import TokenLimitConfig

_BELIEVABLE_TOKENS = 1 << 24
"""What an upstream may state for one exchange; more than any model reads or writes."""

_ANSWER_S = 1.0  # how long an event waits before the policy looks again; it is told when the store has answered
_PATIENCE_S = 1.0  # before a cut: other processes may hold tokens that they give back
_PROMPT_MAY_BE_READ = (OutcomeKind.CLIENT_GONE, OutcomeKind.TIMEOUT)


def state_levels(headers: Headers, name: str, levels: Iterable[tuple[What, Sequence[Level]]]) -> None:
    """Put the RateLimit fields for these windows on a reply."""
    for what, rows in levels:
        policy = name if what == "both" else f"{name}-{what}"
        ratelimit.name_windows(headers, policy, [level.window for level in rows], "tokens")
        ratelimit.state_levels(headers, policy, rows)


def refusal_fields(name: str, refused: Refused) -> Headers:
    """What a 429 says of the window that has no room, and when to come again."""
    short, headers = refused.short, Headers()
    state_levels(headers, name, [(refused.what, (short.level,))])
    if short.retry_after_s is None:
        headers["X-Should-Retry"] = "false"  # the SDKs of OpenAI and Anthropic obey it
    else:
        ratelimit.retry_after(headers, short.retry_after_s, short.level.reset_s)
    return headers


class TokenLimitStream(PolicyStream):
    """`prompt_tokens` is the estimate of the input that `account` has reserved, beside a first lease. `kept` is the reply that
    is asked for again, where it is."""

    def __init__(
        self,
        config: TokenLimitConfig,
        host: Host,
        account: Account,
        counter: Counter,
        prompt_tokens: int,
        request: Request,
        kept: Kept | None = None,
    ) -> None:
        self._config = config
        self._host = host
        self._account = account
        self._counter = counter
        self._prompt_tokens = prompt_tokens
        self._request = request
        self._kept = kept
        self._reply: DialectStream | None = None
        self._in_deltas = True  # the reply is a stream; else each event has whole texts
        self._hides_usage = False
        self._begun = False  # the request went to the upstream
        self._answered = False  # with anything but an error
        # Tokens
        self._tally = counter.tally()
        self._counted = 0  # of the events that were looked at, by the tally
        # And of what it cannot count, or did not see: who resumes a stream was charged for what came before.
        self._estimated = kept.output_tokens if kept is not None and request.call.resumes else 0
        self._stated = 0  # by the upstream, so far
        self._looked_at: Event | None = None  # the last one; it is offered again where it had to wait
        self._texts_only: Template | None = None  # of events that state nothing but texts
        self._bare: Template | None = None  # of events that are shown as they are
        self._delivered = 0
        self._usage = Usage(None, None)  # what the upstream states, where it is believable
        self._usage_is_final = False  # no text came after it
        self._unbelievable = False
        self._used = Usage(0, 0)
        # An event that is not covered
        self._asking = False
        self._answer: Refused | StateError | None = None  # why it gets no lease
        self._give_up_at: float | None = None  # and until when that may change
        self._cut = False

    def on_start(self, now: float) -> None:
        self._begun = True

    def on_response(self, head: ResponseHead) -> None:
        state_levels(head.headers, self._host.name, self._account.levels)
        self._answered = head.status < 400
        self._reply = head.stream
        if head.stream is not None:
            self._in_deltas = head.stream.framing.streaming
            self._hides_usage = self._in_deltas and self._request.usage_hidden_by is self

    def on_events(self, events: Events, now: float) -> Verdict:
        if not self._answered:
            return events
        account = self._account
        for place, event in enumerate(events):
            parsed = event.read or event.parsed
            template = parsed.template
            if event is self._looked_at:
                pass
            elif template is not None and template is self._texts_only:
                self._looked_at = event
                self._counted = self._tally.add(parsed.deltas)
            else:
                self._look_at(event, parsed)
            # As many tokens as were counted with this event, or as the upstream has stated with it.
            tokens = self._counted + self._estimated
            if tokens < self._stated:
                tokens = self._stated
            if missing := account.cover(tokens, now):
                return self._wait(events[:place], events[place:], missing, now)
            self._delivered = tokens
        hand = account.hand
        if hand.tokens <= hand.low:
            hand.refill_in_time(now)
        if not self._hides_usage or (template is not None and template is self._bare and len(events) == 1):
            return events
        return self._shown(events)

    def close(self, outcome: Outcome) -> None:
        prompt_tokens = output_tokens = 0
        if self._answered:
            prompt_tokens = self._usage.input_tokens or self._prompt_tokens
            output_tokens = self._usage.output_tokens or 0
            if not self._usage_is_final:
                output_tokens = max(output_tokens, self._delivered)
        elif self._begun and outcome.kind in _PROMPT_MAY_BE_READ and outcome.details != "connect_timeout":
            prompt_tokens = self._prompt_tokens
        kept = self._kept
        if kept is None and self._reply is not None and self._reply.kept_as is not None:
            kept = Kept(self._host, self._reply.kept_as)
        if kept is None:
            self._used = Usage(prompt_tokens, output_tokens)
            self._account.close(prompt_tokens, output_tokens)
        else:
            self._used = Usage(*kept.beyond(prompt_tokens, output_tokens))
            self._host.spawn(kept.settle(self._account, prompt_tokens, output_tokens))

    def facts(self) -> Mapping[str, int | str]:
        facts: dict[str, int | str] = {
            "input_tokens": self._used.input_tokens or 0,
            "output_tokens": self._used.output_tokens or 0,
            "source": "usage" if self._usage_is_final else "counted",
        }
        if self._cut:
            facts["cut"] = 1
        if self._unbelievable:
            facts["usage_ignored"] = 1
        return facts

    # Counting

    def _look_at(self, event: Event, parsed: Parsed) -> None:
        """Count an event, and note what the upstream states with it; also of one that nobody gets: the tokens were
        spent."""
        self._looked_at = event
        if self._kept is not None and not self._in_deltas and self._reply is not None and self._reply.kept_as is None:
            return  # it was not written in the background, but in the exchange that asked for it
        if parsed.usage is not None or self._usage_is_final:
            self._note_usage(parsed)
        if not parsed.known:
            self._estimated += math.ceil(len(event.raw) / BYTES_PER_TOKEN)
        elif self._in_deltas:
            self._counted = self._tally.add(parsed.deltas)
            if parsed.usage is not None and parsed.deltas:  # else it comes too late to keep anything back
                self._stated = max(self._stated, self._believed(parsed.usage).output_tokens or 0)
        else:
            self._estimated += self._tokens_of_whole(parsed)
        # One with a template is known and states no usage. After text, none that was stated before is final.
        is_alike = self._in_deltas and not self._usage_is_final
        self._texts_only = parsed.template if is_alike else None

    def _tokens_of_whole(self, parsed: Parsed) -> int:
        stated = None if parsed.usage is None else self._believed(parsed.usage).output_tokens
        if stated is not None:
            return stated
        return self._counter.estimate(text for channel, text in parsed.deltas if not channel.repeated)

    def _note_usage(self, parsed: Parsed) -> None:
        if parsed.deltas:
            self._usage_is_final = False
        if parsed.usage is not None:
            prompt_tokens, output_tokens = self._believed(parsed.usage)
            if output_tokens is not None:
                self._usage_is_final = True
            known = self._usage
            self._usage = Usage(
                known.input_tokens if prompt_tokens is None else prompt_tokens,
                known.output_tokens if output_tokens is None else output_tokens,
            )

    def _believed(self, usage: Usage) -> Usage:
        """`usage` without what cannot be: a model has read something, and written something where text was delivered."""
        prompt_tokens, output_tokens = usage
        for stated in usage:
            self._unbelievable = self._unbelievable or (stated is not None and not 0 <= stated <= _BELIEVABLE_TOKENS)
        if prompt_tokens is not None and not 0 < prompt_tokens <= _BELIEVABLE_TOKENS:
            prompt_tokens = None
        least = 0 if prompt_tokens and not self._delivered else 1
        if output_tokens is not None and not least <= output_tokens <= _BELIEVABLE_TOKENS:
            output_tokens = None
        return Usage(prompt_tokens, output_tokens)

    def _shown(self, events: Events) -> Events:
        """The events as the client is to see them."""
        if not self._hides_usage or self._reply is None:
            return events
        if len(events) == 1:
            only = self._reply.without_usage(events[0])
            template = events[0].parsed.template
            # Not where somebody has changed it: then its template is of what it was. A text alone cannot add usage.
            is_bare = only is events[0] and template is not None and template.fits(only.raw)
            self._bare = template if is_bare else None
            return events if only is events[0] else [] if only is None else [only]
        return [shown for event in events if (shown := self._reply.without_usage(event)) is not None]

    # Waiting

    def _wait(self, passed: Events, rest: Events, missing: int, now: float) -> Pause | Stop:
        """The first event of `rest` is not covered: what becomes of it is the store's answer."""
        passed = self._shown(passed)
        answer, self._answer = self._answer, None
        if answer is None:
            if (not_yet_s := self._account.hand.may_be_asked_in_s(now)) > 0:
                return Pause(not_yet_s, passed, rest)
            if not self._asking:
                self._asking = True
                self._host.spawn(self._ask(missing), self)
            return Pause(_ANSWER_S, passed, rest)
        if isinstance(answer, StateError):
            return Stop(answer.details, events=passed)
        wait_s = self._worth_waiting_s(answer, now)
        if wait_s is not None:
            return Pause(wait_s, passed, rest)
        return self._stop(answer, passed)

    def _worth_waiting_s(self, answer: Refused, now: float) -> float | None:
        """How long the event is to wait before the store is asked again; None: it is not delivered."""
        if self._config.on_exhausted == "pace":
            wait_s = answer.short.retry_after_s
            return max(wait_s, STEP_S) if wait_s is not None and wait_s <= self._config.pace_at_most_s else None
        if not self._host.state.shared:
            return None
        if self._give_up_at is None:
            self._give_up_at = now + _PATIENCE_S
        return STEP_S if now < self._give_up_at else None

    def _stop(self, answer: Refused, passed: Events) -> Stop:
        self._cut = True
        if self._reply is not None:
            self._reply.counted = Usage(self._usage.input_tokens or self._prompt_tokens, self._delivered)
        return Stop("token_limit", Ending.LENGTH, passed, headers=refusal_fields(self._host.name, answer))

    async def _ask(self, missing: int) -> None:
        """Have as many tokens in hand as are missing."""
        try:
            self._answer = await self._account.hand.hold(missing)
            if self._answer is None:
                self._give_up_at = None
        except StateError as error:
            if self._config.on_state_error == "allow":
                self._account.assume(missing)
            else:
                self._answer = error
        finally:
            self._asking = False
