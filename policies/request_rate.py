"""`request_rate`: so many requests a minute, an hour, a day, for each key, tenant, client, model, route, upstream, or in all.

Counted are requests, when they are let in; one that is refused here is not, and none is ever given back. Windows slide
(`proxy.state`). Every reply says what is left in the fields of draft-ietf-httpapi-ratelimit-headers, a refusal (429) also
when to come again. Behind `auth`, if it counts by what only `auth` knows. With `per = "model"` the request's body is read
first; a client that makes up names has a count for each, and so a limit by model protects models, not the proxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from proxy import identity, ratelimit, state
from proxy.errors import StateError
from proxy.fields import append
from proxy.messages import Headers, Reply, Request, ResponseHead
from proxy.policy import Host, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage
from proxy.state import Level, Short, Window
from proxy.values import Positive


class RequestWindow(PolicyConfig):
    """At most so many `requests` in any `window_s` seconds."""

    requests: Annotated[int, Field(gt=0, le=state.MOST)]
    window_s: Positive


def _lengths_differ(windows: tuple[RequestWindow, ...]) -> tuple[RequestWindow, ...]:
    if len({window.window_s for window in windows}) < len(windows):
        raise ValueError("must not have two windows of the same length")
    return windows


class RequestRateConfig(PolicyConfig):
    per: identity.Per = "identity"
    windows: Annotated[tuple[RequestWindow, ...], Field(min_length=1), AfterValidator(_lengths_differ)]
    on_state_error: Literal["refuse", "allow"] = "refuse"


class RequestRate(Policy[RequestRateConfig]):
    stage = Stage.ADMIT
    scope = Scope.ATTACHMENT  # a client that comes back for its stream makes a request, too
    sees = Sees.NOTHING
    needs_state = True
    Config = RequestRateConfig

    def __init__(self, config: RequestRateConfig, host: Host) -> None:
        super().__init__(config, host)
        self.needs_body = config.per == "model"
        self._windows = tuple(Window(window.requests, window.window_s) for window in config.windows)
        self._count_state_error = host.counter("state_errors", "Requests that the state store had no answer for.")

    async def admit(self, request: Request) -> PolicyStream | Reply | None:
        key = state.key(self.host.name, identity.of(self.config.per, request))
        try:
            taken = await self.host.state.take(key, self._windows, 1)
        except StateError as error:
            self._count_state_error(1)
            return None if self.config.on_state_error == "allow" else Reply(details=error.details)
        if isinstance(taken, Short):
            return self._refusal(taken)
        return RequestRateStream(self._fields(taken.levels))

    def _refusal(self, short: Short) -> Reply:
        headers = self._fields([short.level])
        ratelimit.retry_after(headers, short.retry_after_s)
        return Reply(details="request_rate", headers=headers)

    def _fields(self, levels: Sequence[Level]) -> Headers:
        headers = Headers()
        ratelimit.name_windows(headers, self.host.name, self._windows)
        ratelimit.state_levels(headers, self.host.name, levels)
        return headers


class RequestRateStream(PolicyStream):
    """Puts the fields on the reply."""

    def __init__(self, fields: Headers) -> None:
        self._fields = fields

    def on_response(self, head: ResponseHead) -> None:
        for name, value in self._fields.items():
            append(head.headers, name, value)
