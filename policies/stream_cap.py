"""`stream_cap`: so many exchanges at the same time, for each key, tenant, client, model, route, upstream, or in all.

An exchange holds a slot from its admission to its end, whatever that end is. One that finds no slot waits in a queue,
where there is one, or is refused (429). Slots are leases in the state store: each process renews all of its own together,
every third of `lease_s`, and what a process held that died is free when its leases run out.

Order: first come, first served, over all processes. Of those who wait in one process for the same slots only the first
asks the store, at least every quarter of a second; so he has a place in the store's line, by when he came, and free slots
are kept for the first in the line. Nobody who comes later gets a slot before him, and none waits longer than to his next
question; somebody behind the first of his own process may be overtaken for as long. When a process dies its place in the
line is free after `_PLACE_S`. Where nobody may wait (`queue_length = 0`), whoever finds a slot that is not kept gets it.

A lease can be lost: the store lost its data, or did not answer until the lease was about to run out, or this process
stood still. Where the store answers a slot is taken anew, if one is free. Otherwise the exchange ends with an error in
the dialect's words (`on_state_error = "refuse"`), so that the cap is exceeded only once a store has lost its data or a
process has stood still, and no longer than to the next renewal. With "allow" such exchanges go on, and while the store is
down all are let in: above the cap, until they end or find a slot. Either way it is logged and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from proxy import identity, ratelimit, state
from proxy.errors import Outcome, StateError
from proxy.messages import Headers, Reply, Request
from proxy.policy import Events, Host, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage, Stop
from proxy.values import Count, Positive, Seconds

logger = logging.getLogger(__name__)

_FIRST_RETRY_S, LONGEST_RETRY_S = 0.05, 0.25  # between two questions of the first in a queue
_PLACE_S = (
    2.0  # how long he keeps his place in the line without asking: several questions that the store is too slow for
)
_RETURN_S = 0.25  # how long the end of another exchange is waited for, which the store is being told of
_RENEWALS = 3  # in the time of a lease
_HURRY = 4  # times as many while the store does not answer


class StreamCapConfig(PolicyConfig):
    cap: Positive
    per: identity.Per = "identity"
    queue_length: Count = 0  # for each key, in each process
    queue_wait_s: Seconds = 10.0
    lease_s: Annotated[float, Field(ge=5, le=3600, allow_inf_nan=False)] = 30.0
    retry_after_s: Positive = 1
    on_state_error: Literal["refuse", "allow"] = "refuse"

    @property
    def state_answers_within_s(self) -> float:
        """As long as the pause between two attempts to renew: a stream ends before its lease does (`StreamCap._renew`)."""
        return self.lease_s / _RENEWALS / _HURRY


class StreamCap(Policy[StreamCapConfig]):
    stage = Stage.ADMIT
    scope = Scope.EXCHANGE
    sees = Sees.NOTHING
    needs_state = True
    Config = StreamCapConfig

    def __init__(self, config: StreamCapConfig, host: Host) -> None:
        super().__init__(config, host)
        self.needs_body = config.per == "model"
        self._interval_s = config.lease_s / _RENEWALS
        self._admitted: set[StreamCapStream] = set()
        self._queues: dict[str, deque[asyncio.Event]] = {}  # by key; none is empty
        self._returning: dict[str, deque[asyncio.Event]] = {}  # by key: slots whose end the store is being told of
        self._waiting = 0
        self._renewing: asyncio.Task[None] | None = None
        self._count_state_error = host.counter("state_errors", "Requests that the state store had no answer for.")
        self._count_lost = host.counter("lost_slots", "Exchanges that lost their slot and found no other.")
        host.gauge("held_slots", "Slots that exchanges of this process hold.", lambda: len(self._admitted))
        host.gauge("waiting", "Requests that wait for a slot in this process.", lambda: self._waiting)

    async def start(self) -> None:
        self._renewing = asyncio.create_task(self._keep_renewing())

    async def stop(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing

    # Admission

    async def admit(self, request: Request) -> PolicyStream | Reply:
        key = state.key(self.host.name, identity.of(self.config.per, request))
        stream = StreamCapStream(self, key, self.host.clock())
        try:
            if not await self._take_or_wait(stream):
                return self._refusal()
        except StateError as error:
            self._count_state_error(1)
            if self.config.on_state_error == "refuse":
                return Reply(details=error.details)
            stream.lost = True
        self._admitted.add(stream)  # since the slot was taken there was no await at which it could get lost
        return stream

    async def _take_or_wait(self, stream: StreamCapStream) -> bool:
        key = stream.key
        if key not in self._queues:
            if await self._take(stream):
                return True
            if key in self._returning:
                # Perhaps the client's own, which had its answer, and sent the next request, before the store was told.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RETURN_S):
                        await self._returning[key][0].wait()
                if key not in self._queues and await self._take(stream):
                    return True
        if len(self._queues.get(key, ())) >= self.config.queue_length:
            return False
        return await self._wait(stream)

    async def _take(self, stream: StreamCapStream, *, keep_s: float = 0.0) -> bool:
        asked_at = self.host.clock()
        taken = await self.host.state.acquire(
            stream.key,
            self.config.cap,
            stream.holder,
            self.config.lease_s,
            waited_s=asked_at - stream.came_at,
            keep_s=keep_s,
        )
        if taken:
            stream.held_until = asked_at + self.config.lease_s
            stream.lost = False
        return taken

    async def _wait(self, stream: StreamCapStream) -> bool:
        """Queue up. Whatever ends the wait, the place is given up, and the next in the queue told."""
        queue = self._queues.setdefault(stream.key, deque())
        look = asyncio.Event()  # set for the first in the queue: now it is the first, or a slot was given back
        queue.append(look)
        self._waiting += 1
        in_line = taken = False
        try:
            async with asyncio.timeout(self.config.queue_wait_s):
                if queue[0] is not look:
                    await look.wait()
                    look.clear()
                in_line = True
                retry_s = _FIRST_RETRY_S
                while not await self._take(stream, keep_s=_PLACE_S):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(random.uniform(retry_s / 2, retry_s)):  # noqa: S311 - no secret
                            await look.wait()
                    look.clear()
                    retry_s = min(2 * retry_s, LONGEST_RETRY_S)
            taken = True
        except TimeoutError:
            pass
        except StateError:
            in_line = False  # as far as can be known; the place runs out by itself
            raise
        finally:
            stream.waited_s = self.host.clock() - stream.came_at
            self._waiting -= 1
            if in_line and not taken:
                self.host.spawn(self._release(stream))
            queue.remove(look)
            if queue:
                queue[0].set()
            else:
                del self._queues[stream.key]
        return taken

    def _refusal(self) -> Reply:
        headers = Headers()
        window = state.Window(self.config.cap, None)
        ratelimit.name_windows(headers, self.host.name, [window], ratelimit.CONCURRENT_REQUESTS)
        ratelimit.state_levels(headers, self.host.name, [state.Level(window, 0, None)])
        ratelimit.retry_after(headers, self.config.retry_after_s)
        return Reply(details="stream_cap", headers=headers)

    # Leases

    def give_back(self, stream: StreamCapStream) -> None:
        """The exchange has ended."""
        self._admitted.remove(stream)
        returned = asyncio.Event()
        self._returning.setdefault(stream.key, deque()).append(returned)
        self.host.spawn(self._give_back(stream, returned))

    async def _give_back(self, stream: StreamCapStream, returned: asyncio.Event) -> None:
        key = stream.key
        try:
            await self._release(stream)
        finally:
            returned.set()
            self._returning[key].remove(returned)
            if not self._returning[key]:
                del self._returning[key]
            if key in self._queues:
                self._queues[key][0].set()

    async def _release(self, stream: StreamCapStream) -> None:
        try:
            await self.host.state.release(stream.key, stream.holder)
        except StateError:
            self._count_state_error(1)  # the lease runs out by itself

    async def _keep_renewing(self) -> None:
        answered = True
        while True:
            await asyncio.sleep(self._interval_s if answered else self._interval_s / _HURRY)
            answered = await self._renew()

    async def _renew(self) -> bool:
        """Renew all leases, in one batch; whether the store has answered."""
        streams = list(self._admitted)
        if not streams:
            return True
        asked_at = self.host.clock()
        lost: list[StreamCapStream] = []
        try:
            renewed = await self.host.state.renew([(it.key, it.holder) for it in streams], self.config.lease_s)
            for stream, held in zip(streams, renewed, strict=True):
                if held:
                    stream.held_until = asked_at + self.config.lease_s
                elif stream in self._admitted and not await self._retake(stream):
                    lost.append(stream)
        except StateError as error:
            self._count_state_error(1)
            reason = error.details
        except Exception as error:  # or all leases would run out unnoticed
            logger.error("policy %s cannot renew its leases: %s", self.host.name, type(error).__name__)
            reason = StateError.details
        else:
            self._lose(lost, "stream_cap")
            return True
        in_danger = self.host.clock() + 2 * self._interval_s / _HURRY  # by then the next may have no answer, too
        self._lose([stream for stream in streams if stream.held_until <= in_danger], reason)
        return False

    async def _retake(self, stream: StreamCapStream) -> bool:
        """Look for a slot in the place of one that the store does not know any more."""
        taken = await self._take(stream)
        if taken and stream not in self._admitted:  # it ended meanwhile, perhaps before the slot was taken
            await self._release(stream)
        return taken

    def _lose(self, streams: list[StreamCapStream], details: str) -> None:
        lost = [stream for stream in streams if stream in self._admitted and not stream.lost]
        if lost:
            logger.warning("policy %s: %d exchanges have lost their slots: %s", self.host.name, len(lost), details)
            self._count_lost(len(lost))
        for stream in lost:
            stream.lost = True
            if self.config.on_state_error == "refuse":
                stream.stop = Stop(details)
                self.host.spawn(asyncio.sleep(0), stream)  # its `on_timer` is called


class StreamCapStream(PolicyStream):
    """One exchange's slot. Times are in monotonic seconds; `held_until` is never later than the store's own end of the
    lease."""

    def __init__(self, policy: StreamCap, key: str, came_at: float) -> None:
        self.key = key
        self.came_at = came_at
        self.holder = os.urandom(16).hex()  # not the request's id, which clients choose: two of them would share a slot
        self.held_until = 0.0
        self.lost = False
        self.stop: Stop | None = None
        self.waited_s = 0.0
        self._policy = policy

    def on_start(self, now: float) -> None:
        if self.stop is not None:
            self.wake_at = now

    def on_timer(self, now: float) -> Events | Stop:
        return self.stop or []

    def close(self, outcome: Outcome) -> None:
        self._policy.give_back(self)

    def facts(self) -> Mapping[str, int | str]:
        return {"waited_ms": round(self.waited_s * 1000)} if self.waited_s else {}
