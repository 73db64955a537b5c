"""A client whose buffer is full, in simulated time."""

from __future__ import annotations

from rigs.doubles import Client

from proxy.attachment import Attachment
from proxy.chain import Chain
from proxy.stall import StallWatch

LIMIT_S = 30.0


class Slow:
    """A client to whom 1000 bytes were written, none of which it has taken; at 100 its buffer was full."""

    def __init__(self) -> None:
        self.client = Client()
        self.client.unsent = 1000
        attachment = Attachment(Chain([], 1000), None, self.client)
        attachment.written = 1000
        self.watch = StallWatch(attachment, LIMIT_S)
        self.watch.begin(100.0)


def test_a_client_that_takes_nothing_for_so_long_is_given_up() -> None:
    slow = Slow()
    assert slow.watch.due_at == 130.0
    assert not slow.watch.is_over(129.9)
    assert slow.watch.is_over(130.0)


def test_one_that_takes_a_little_has_as_long_again() -> None:
    slow = Slow()
    slow.client.unsent -= 1
    assert not slow.watch.is_over(131.0)
    assert slow.watch.due_at == 161.0
    assert not slow.watch.is_over(160.0)
    assert slow.watch.is_over(161.0)


def test_one_that_reads_is_not_watched_until_its_buffer_is_full_again() -> None:
    slow = Slow()
    slow.watch.end()
    assert slow.watch.due_at is None
    assert not slow.watch.is_over(1000.0)
    slow.watch.begin(1000.0)
    assert slow.watch.due_at == 1030.0
    assert not slow.watch.is_over(1029.0)
