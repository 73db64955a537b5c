from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from proxy import worker
from proxy.merging import Family
from proxy.worker import Channel, Drain, Draining, End, Message, Ping, Pong, Ready, Serve, Tell, Told, encode

TOLD = Told([Family("n", "A number.", "counter", "", [("n_total", {"route": "all"}, float("inf"))])])
MESSAGES: list[Message] = [
    Serve("penstock.toml", b"\x00\xff", {"/keys.toml": "keys = []"}),
    Ping(), Tell(), Drain(), End(), Ready(), Pong(), Draining(), TOLD,
]  # fmt: skip


class Ends:
    """Both ends of a channel; the supervisor's as the bare socket, too."""

    def __init__(self, supervisor: Channel, worker: Channel, wire: socket.socket) -> None:
        self.supervisor = supervisor
        self.worker = worker
        self.wire = wire


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    one, other = socket.socketpair()
    made = Ends(await Channel.over(one), await Channel.over(other), one)
    yield made
    await made.supervisor.close()
    await made.worker.close()


async def test_messages_arrive_as_they_were_sent_and_in_order(ends: Ends) -> None:
    for message in MESSAGES:
        ends.supervisor.send(message)
    assert [await ends.worker.receive() for _ in MESSAGES] == MESSAGES


async def test_a_message_may_come_byte_by_byte() -> None:
    reader = asyncio.StreamReader()
    channel = Channel(reader, None)  # type: ignore[arg-type]
    receiving = asyncio.ensure_future(channel.receive())
    for byte in encode(TOLD):
        assert not receiving.done()
        reader.feed_data(bytes((byte,)))
        await asyncio.sleep(0)
    assert await receiving == TOLD


async def test_after_the_other_end_is_closed_there_is_nothing_to_receive_and_sending_does_nothing(ends: Ends) -> None:
    ends.worker.send(Ready())
    await ends.worker.close()
    assert await ends.supervisor.receive() == Ready()
    assert await ends.supervisor.receive() is None
    for _ in range(3):
        ends.supervisor.send(Drain())
    await ends.supervisor.close()
    ends.supervisor.send(End())


async def test_half_a_message_is_none(ends: Ends) -> None:
    await asyncio.get_running_loop().run_in_executor(None, socket.socket.send, ends.wire.dup(), encode(TOLD)[:-1])
    await ends.supervisor.close()
    assert await ends.worker.receive() is None


def test_metrics_that_are_too_many_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_MESSAGE_BYTES", 10)
    assert encode(TOLD) == encode(Told(None))
