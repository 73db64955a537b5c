import json
from typing import Any

import pytest
from pydantic import ValidationError

from policies.heartbeat import Heartbeat, HeartbeatConfig
from proxy.messages import ResponseHead
from proxy.policy import Policy
from proxy.testing import FakeHost, Simulation, check_policy, joined, make_head, make_request, sse

COMMENT = b": keep-alive\n\n"


def heartbeat(interval_s: float = 15.0, before_first_byte_s: float = 0.0) -> Policy:
    return Heartbeat(HeartbeatConfig(interval_s=interval_s, before_first_byte_s=before_first_byte_s), FakeHost())


async def begin(policy: Policy, *, stream: bool = True) -> Simulation:
    exchange = await Simulation.admit(policy, make_request(stream=stream))
    exchange.start()
    return exchange


@pytest.mark.parametrize("before_first_byte_s", [0.0, 2.0])
async def test_the_contract(before_first_byte_s: float) -> None:
    config = HeartbeatConfig(before_first_byte_s=before_first_byte_s)
    await check_policy(lambda host: Heartbeat(config, host), expected=lambda text: text)


async def test_a_comment_in_every_interval_of_silence() -> None:
    exchange = await begin(heartbeat())
    exchange.respond()
    exchange.read(sse("Hello"))
    assert exchange.advance(14.9) == []
    assert joined(exchange.advance(0.1)) == COMMENT
    assert exchange.advance(14.9) == []
    assert joined(exchange.advance(30.1)) == 3 * COMMENT
    exchange.read(sse(" again"))
    assert exchange.advance(14.9) == []
    assert joined(exchange.delivered) == sse("Hello") + 4 * COMMENT + sse(" again")
    exchange.end()
    assert exchange.close() == {"sent": 4}


async def test_none_while_events_come() -> None:
    exchange = await begin(heartbeat())
    exchange.respond()
    for _ in range(100):
        exchange.read(sse("a"))
        assert exchange.advance(14.9) == []
    exchange.end()
    assert exchange.close() == {}


async def test_only_between_events() -> None:
    exchange = await begin(heartbeat())
    exchange.respond()
    start, end = sse("Hello")[:9], sse("Hello")[9:]
    exchange.read(start)
    exchange.advance(15.0)
    exchange.read(end)
    assert joined(exchange.delivered) == COMMENT + sse("Hello")


async def test_a_reply_whose_events_do_not_begin_is_kept_alive_too() -> None:
    exchange = await begin(heartbeat())
    exchange.advance(14.0)
    exchange.respond()
    assert joined(exchange.advance(15.0)) == COMMENT  # never later than an interval after the head


async def test_nothing_before_the_head_unless_configured() -> None:
    exchange = await begin(heartbeat())
    assert exchange.advance(1000.0) == []


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson", "text/plain"])
async def test_what_has_no_comments_is_left_alone(content_type: str) -> None:
    exchange = await begin(heartbeat())
    exchange.respond(make_head(exchange.request, content_type))
    exchange.read(json.dumps({"text": "Hello"}).encode())
    assert exchange.advance(1000.0) == []


async def test_a_local_reply_is_left_alone() -> None:
    exchange = await begin(heartbeat(before_first_byte_s=2.0))
    exchange.respond(ResponseHead(429, local=True))
    assert exchange.advance(1000.0) == []


async def test_nothing_after_the_last_event() -> None:
    exchange = await begin(heartbeat())
    exchange.respond()
    exchange.read(sse("Hello") + b"data: [DONE]\n\n")
    assert exchange.advance(1000.0) == []


# Before the first byte


async def test_the_reply_opens_early() -> None:
    exchange = await begin(heartbeat(before_first_byte_s=2.0))
    assert exchange.advance(1.9) == []
    assert joined(exchange.advance(0.1)) == COMMENT
    assert exchange.advance(14.9) == []
    assert joined(exchange.advance(0.1)) == COMMENT
    exchange.respond()
    exchange.read(sse("Hello"))
    assert exchange.advance(14.9) == []
    assert joined(exchange.advance(0.1)) == COMMENT


async def test_it_does_not_where_the_upstream_is_in_time() -> None:
    exchange = await begin(heartbeat(before_first_byte_s=2.0))
    exchange.advance(1.9)
    exchange.respond()
    assert exchange.advance(13.0) == []
    assert joined(exchange.advance(0.1)) == COMMENT


async def test_it_does_not_where_no_stream_was_asked_for() -> None:
    exchange = await begin(heartbeat(before_first_byte_s=2.0), stream=False)
    assert exchange.advance(1000.0) == []


def test_only_then_the_body_is_needed() -> None:
    assert heartbeat(before_first_byte_s=2.0).needs_body
    assert not heartbeat().needs_body


@pytest.mark.parametrize("keys", [{"interval_s": 0.0}, {"interval_s": -1.0}, {"before_first_byte_s": -1.0}])
def test_seconds_are_positive(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HeartbeatConfig(**keys)
