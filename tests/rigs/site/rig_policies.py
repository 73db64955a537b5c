"""Policies that only tests want: one that looks at everything, three that end exchanges in the ways policies can, and one
that tells which process it lives in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from proxy.messages import Reply, Request, ResponseHead
from proxy.policy import Ending, Events, Policy, PolicyConfig, PolicyStream, Sees, Stage, Stop, Verdict


class WatchConfig(PolicyConfig):
    needs_body: bool = Field(False, description="Ask for the whole request body.")


class WatchStream(PolicyStream):
    """Parses every event and changes nothing."""

    def __init__(self) -> None:
        self._characters = 0

    def on_events(self, events: Events, now: float) -> Verdict:
        self._characters += sum(len(text) for event in events for _, text in event.deltas)
        return events

    def facts(self) -> Mapping[str, int | str]:
        return {"characters": self._characters}


class Watch(Policy[WatchConfig]):
    stage = Stage.TRANSFORM
    sees = Sees.EVENTS
    Config = WatchConfig

    @property
    def needs_body(self) -> bool:  # type: ignore[override]
        return self.config.needs_body

    async def admit(self, request: Request) -> PolicyStream:
        return WatchStream()


class StopAfterConfig(PolicyConfig):
    events: int = Field(1, description="How many events pass.")
    reason: str = Field("enough", description="The reason of the stop.")
    ending: Literal["length", "error"] = Field("length", description="How it looks to the client.")


class StopAfterStream(PolicyStream):
    def __init__(self, config: StopAfterConfig) -> None:
        self._left = config.events
        self._config = config

    def on_events(self, events: Events, now: float) -> Verdict:
        passed, rest = events[: self._left], events[self._left :]
        self._left -= len(passed)
        return Stop(self._config.reason, Ending(self._config.ending), passed) if rest else events


class StopAfter(Policy[StopAfterConfig]):
    stage = Stage.TRANSFORM
    sees = Sees.EVENTS
    Config = StopAfterConfig

    async def admit(self, request: Request) -> PolicyStream:
        return StopAfterStream(self.config)


class RaiseInConfig(PolicyConfig):
    hook: Literal["admit", "on_response", "on_events"] = Field("on_events", description="Where it raises.")


class RaiseInStream(PolicyStream):
    def __init__(self, hook: str) -> None:
        self._hook = hook

    def on_response(self, head: ResponseHead) -> Reply | None:
        if self._hook == "on_response" and not head.local:
            raise RuntimeError("the author's mistake")
        return None

    def on_events(self, events: Events, now: float) -> Verdict:
        raise RuntimeError("the author's mistake")


class RaiseIn(Policy[RaiseInConfig]):
    stage = Stage.TRANSFORM
    sees = Sees.EVENTS
    Config = RaiseInConfig

    async def admit(self, request: Request) -> PolicyStream:
        if self.config.hook == "admit":
            raise RuntimeError("the author's mistake")
        return RaiseInStream(self.config.hook)


class RefuseConfig(PolicyConfig):
    status: int = Field(429, description="The status of the refusal.")


class Refuse(Policy[RefuseConfig]):
    stage = Stage.ADMIT
    Config = RefuseConfig

    async def admit(self, request: Request) -> Reply:
        return Reply(self.config.status, details="rig_refused", message="Not today.", headers={"Retry-After": "7"})


class WorkerConfig(PolicyConfig):
    crash_while: str = Field("", description="A file; as long as it exists, a process that starts crashes.")


class WorkerStream(PolicyStream):
    def on_response(self, head: ResponseHead) -> Reply | None:
        head.headers["X-Pid"] = str(os.getpid())
        return None


class Worker(Policy[WorkerConfig]):
    stage = Stage.TRANSFORM
    Config = WorkerConfig

    async def start(self) -> None:
        if os.path.exists(self.config.crash_while):
            os._exit(7)

    async def admit(self, request: Request) -> PolicyStream:
        return WorkerStream()
