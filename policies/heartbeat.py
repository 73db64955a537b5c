"""`heartbeat`: breaks every long silence of a stream, lest a load balancer or client take the connection for a dead one.

With what the clients of the dialect ignore: a comment (WHATWG HTML §9.2.7 advises one every 15 seconds or so), the `ping` of
Anthropic's API, whitespace in Gemini's. Streams in lines of JSON have no such thing, and get none: their clients fail on blank
lines. Only at event boundaries, and only while nothing else is written.

With `before_first_byte_s` the reply to a request for a stream opens before the upstream has answered, as server-sent events
with status 200: what goes wrong from then on can only be said in an error event of the dialect. Where the dialect cannot open
so (Ollama's lines, Gemini's arrays), the upstream's head is waited for. Not for APIs that nobody knows whose streams are lines.
"""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict

from proxy.dialects.base import DialectStream
from proxy.framing import Event
from proxy.messages import Request, ResponseHead
from proxy.policy import Events, Host, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage
from proxy.values import Seconds, SecondsOrZero


class HeartbeatConfig(PolicyConfig):
    interval_s: Seconds = 15.0
    before_first_byte_s: SecondsOrZero = 0.0  # 0: wait for the upstream's head


class Heartbeat(Policy[HeartbeatConfig]):
    stage = Stage.KEEPALIVE
    scope = Scope.ATTACHMENT
    sees = Sees.EVENTS
    may_bypass = True
    Config = HeartbeatConfig

    def __init__(self, config: HeartbeatConfig, host: Host) -> None:
        super().__init__(config, host)
        self.needs_body = config.before_first_byte_s > 0  # it says whether a stream is asked for

    async def admit(self, request: Request) -> PolicyStream:
        early = None
        if self.config.before_first_byte_s and request.call.stream:
            head = ResponseHead(200, CIMultiDict({"Content-Type": "text/event-stream"}), local=True)
            early = request.dialect.open(head, request.call).comment()
        return HeartbeatStream(self.config, early)


class HeartbeatStream(PolicyStream):
    """`early` is what may open the reply before there is a head; None: nothing may."""

    def __init__(self, config: HeartbeatConfig, early: Event | None) -> None:
        self._interval_s = config.interval_s
        self._silence_s = config.interval_s if early is None else config.before_first_byte_s
        self._early = early
        self._reply: DialectStream | None = None
        self._written_at = 0.0
        self._sent = 0

    def on_start(self, now: float) -> None:
        self._written_at = now
        self.wake_at = now + self._silence_s

    def on_response(self, head: ResponseHead) -> None:
        self._early = None
        self._silence_s = self._interval_s
        if head.stream is not None and head.stream.framing.streaming:
            # When this is, is not told: the silence counts on from the start. Rather too soon than too late.
            self._reply = head.stream
        else:
            self.wake_at = None

    def on_events(self, events: Events, now: float) -> Events:
        self._written_at = now
        return events

    def on_timer(self, now: float) -> Events:
        due = self._written_at + self._silence_s
        if now < due:
            self.wake_at = due
            return []
        self._written_at = now
        self.wake_at = now + self._silence_s
        comment = self._comment()
        if comment is None:
            return []
        self._sent += 1
        return [comment]

    def _comment(self) -> Event | None:
        if self._reply is None:
            return self._early
        return None if self._reply.finished else self._reply.comment()

    def facts(self) -> Mapping[str, int | str]:
        return {"sent": self._sent} if self._sent else {}
