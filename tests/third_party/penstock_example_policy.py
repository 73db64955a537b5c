"""`example_disclosure`: marks replies as written by a model, and counts their events for the access log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from proxy.messages import Request, ResponseHead
from proxy.policy import Events, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage

FieldName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")]
FieldValue = Annotated[str, Field(pattern=r"^[!-~]([ -~]*[!-~])?$")]


class DisclosureConfig(PolicyConfig):
    header: FieldName = Field("X-Content-Origin", description="the header field that is set on replies")
    value: FieldValue = Field("model", description="what it says")


class Disclosure(Policy[DisclosureConfig]):
    api: ClassVar[int] = 1  # the version it was written for: stated here, not inherited, so that a later one is noticed
    stage: ClassVar[Stage] = Stage.METER
    scope: ClassVar[Scope] = Scope.EXCHANGE
    sees: ClassVar[Sees] = Sees.EVENTS
    may_bypass: ClassVar[bool] = True
    Config = DisclosureConfig

    async def admit(self, request: Request) -> PolicyStream:
        return DisclosureStream(self.config)


class DisclosureStream(PolicyStream):
    def __init__(self, config: DisclosureConfig) -> None:
        self._config = config
        self._events = 0

    def on_response(self, head: ResponseHead) -> None:
        if not head.local:  # what the proxy says itself was not written by a model
            head.headers[self._config.header] = self._config.value

    def on_events(self, events: Events, now: float) -> Events:
        self._events += len(events)
        return events

    def facts(self) -> Mapping[str, int | str]:
        return {"events": self._events}
