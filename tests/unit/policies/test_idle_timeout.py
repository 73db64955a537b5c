import pytest
from pydantic import ValidationError

from policies.idle_timeout import IdleTimeout, IdleTimeoutConfig
from proxy.errors import FAULTS, Outcome, OutcomeKind
from proxy.testing import FakeHost, Simulation, check_policy, make_request, sse


def idle_timeout(**limits: float) -> IdleTimeout:
    return IdleTimeout(IdleTimeoutConfig(**{"first_byte_s": 0.0, "silence_s": 0.0, **limits}), FakeHost())


async def begin(**limits: float) -> Simulation:
    exchange = await Simulation.admit(idle_timeout(**limits))
    exchange.start()
    return exchange


def ended(details: str) -> Outcome:
    return Outcome(OutcomeKind.TIMEOUT, "policy", details)


async def test_the_contract() -> None:
    await check_policy(lambda host: IdleTimeout(IdleTimeoutConfig(deadline_s=900.0), host), expected=lambda text: text)


@pytest.mark.parametrize("reason", ["first_byte_timeout", "upstream_silence", "deadline"])
def test_the_reasons_are_known(reason: str) -> None:
    assert FAULTS[reason].outcome is OutcomeKind.TIMEOUT


async def test_no_first_byte() -> None:
    exchange = await begin(first_byte_s=30.0, silence_s=5.0)
    exchange.advance(10.0)
    exchange.respond()  # a head is no byte of the body
    exchange.advance(19.9)
    assert exchange.outcome is None
    exchange.advance(0.1)
    assert exchange.outcome == ended("first_byte_timeout")


async def test_silence_counts_from_the_last_read() -> None:
    exchange = await begin(first_byte_s=30.0, silence_s=5.0)
    exchange.respond()
    exchange.advance(29.0)
    for _ in range(10):
        exchange.read(b": a comment, and only half of ")
        exchange.advance(4.9)
    assert exchange.outcome is None
    left = exchange.advance(0.1)
    assert exchange.outcome == ended("upstream_silence")
    assert b"upstream_silence" in left[-1].raw


@pytest.mark.parametrize("first_byte_at", [0.5, 4.0, 5.5, 9.9])
async def test_silence_is_exact_wherever_the_first_byte_fell(first_byte_at: float) -> None:
    exchange = await begin(first_byte_s=10.0, silence_s=5.0)
    exchange.respond()
    exchange.advance(first_byte_at)
    exchange.read(sse("Hello"))
    exchange.advance(4.99)
    assert exchange.outcome is None
    exchange.advance(0.02)
    assert exchange.outcome == ended("upstream_silence")


@pytest.mark.parametrize("read", [b"", sse("Hello")])
async def test_nothing_runs_while_the_proxy_does_not_read(read: bytes) -> None:
    exchange = await begin(first_byte_s=10.0, silence_s=10.0)
    exchange.respond()
    if read:
        exchange.read(read)
    exchange.advance(9.0)
    exchange.reading(False)
    exchange.advance(1000.0)
    exchange.reading(True)
    exchange.advance(9.9)
    assert exchange.outcome is None
    exchange.advance(0.1)
    assert exchange.outcome == ended("upstream_silence" if read else "first_byte_timeout")


async def test_nothing_resets_the_deadline() -> None:
    exchange = await begin(first_byte_s=5.0, silence_s=5.0, deadline_s=20.0)
    exchange.respond()
    for _ in range(19):
        exchange.advance(1.0)
        exchange.read(sse("a"))
    exchange.reading(False)
    exchange.advance(0.9)
    assert exchange.outcome is None
    exchange.advance(0.1)
    assert exchange.outcome == ended("deadline")


async def test_a_stream_that_goes_on_is_left_alone() -> None:
    exchange = await begin(first_byte_s=5.0, silence_s=5.0)
    exchange.respond()
    for _ in range(1000):
        exchange.advance(4.9)
        exchange.read(sse("a"))
    exchange.end()
    assert exchange.outcome is not None
    assert exchange.outcome.kind is OutcomeKind.COMPLETE
    assert exchange.close() == {}


@pytest.mark.parametrize("off", ["first_byte_s", "silence_s"])
async def test_each_limit_can_be_off(off: str) -> None:
    exchange = await begin(**{"first_byte_s": 5.0, "silence_s": 5.0, off: 0.0})
    exchange.respond()
    if off == "silence_s":
        exchange.read(sse("a"))
    exchange.advance(10000.0)
    assert exchange.outcome is None


async def test_all_off_stays_out() -> None:
    assert await idle_timeout().admit(make_request()) is None


async def test_a_read_moves_no_timer() -> None:
    exchange = await begin(first_byte_s=10.0, silence_s=5.0)
    exchange.respond()
    wake_at = exchange.stream.wake_at
    exchange.advance(1.0)
    exchange.read(sse("a"))
    assert exchange.stream.wake_at == wake_at


@pytest.mark.parametrize("wrong", [-1.0, float("inf"), float("nan"), "5"])
def test_a_limit_is_a_number_of_seconds(wrong: object) -> None:
    with pytest.raises(ValidationError):
        IdleTimeoutConfig(silence_s=wrong)
