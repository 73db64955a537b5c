"""`idle_timeout`: ends exchanges whose upstream has fallen silent, or that take too long altogether.

Three limits, each off at 0, each with its own reason: the first byte of the reply's body (for a whole reply that is all
of the generation), silence between two reads after it, and a deadline that nothing resets. The first two measure the
upstream, so they do not run while the proxy itself is not reading: a slow client is not the model server's fault.
"""

from __future__ import annotations

import math

from proxy.messages import Request
from proxy.policy import Events, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage, Stop
from proxy.values import SecondsOrZero


class IdleTimeoutConfig(PolicyConfig):
    first_byte_s: SecondsOrZero = 600.0  # the official SDKs give up then: nobody waits for it any longer
    silence_s: SecondsOrZero = 120.0
    deadline_s: SecondsOrZero = 0.0


class IdleTimeout(Policy[IdleTimeoutConfig]):
    stage = Stage.GUARD
    scope = Scope.EXCHANGE
    sees = Sees.ACTIVITY
    Config = IdleTimeoutConfig

    async def admit(self, request: Request) -> PolicyStream | None:
        config = self.config
        if not (config.first_byte_s or config.silence_s or config.deadline_s):
            return None
        return IdleTimeoutStream(config)


class IdleTimeoutStream(PolicyStream):
    """A read costs a time stamp; all reckoning is left to the timer, which nothing but itself ever re-arms."""

    def __init__(self, config: IdleTimeoutConfig) -> None:
        self._first_byte_s = config.first_byte_s or math.inf
        self._silence_s = config.silence_s or math.inf
        self._deadline_s = config.deadline_s or math.inf
        self._deadline = math.inf
        self._waiting_since = 0.0
        self._begun = False
        self._reading = True

    def on_start(self, now: float) -> None:
        self._waiting_since = now
        self._deadline = now + self._deadline_s
        self._sleep(now)

    def on_activity(self, now: float) -> None:
        self._waiting_since = now
        self._begun = True

    def on_reading(self, reading: bool, now: float) -> None:
        self._waiting_since = now
        self._reading = reading

    def on_timer(self, now: float) -> Events | Stop:
        if now >= self._deadline:
            return Stop("deadline")
        if self._reading and now >= self._waiting_since + (self._silence_s if self._begun else self._first_byte_s):
            return Stop("upstream_silence" if self._begun else "first_byte_timeout")
        self._sleep(now)
        return []

    def _sleep(self, now: float) -> None:
        """Until the soonest moment at which any limit can be over, also one that begins to run only after `now`."""
        since = self._waiting_since if self._reading else now
        next_read = since + self._silence_s if self._begun else min(since + self._first_byte_s, now + self._silence_s)
        soonest = min(next_read, self._deadline)
        self.wake_at = soonest if soonest < math.inf else None
