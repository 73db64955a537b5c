"""The hand: what is granted is in it, drawn from it or on its way back; and the store is asked seldom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from policies.token_limit.budget import Refused
from proxy.errors import StateError
from proxy.testing import FakeHost

MakeBank = Callable[..., Any]


async def refill(bank: Any, hand: Any) -> None:
    hand.refill_in_time(bank.host.now)
    await bank.host.run_spawned()


# --- leases


async def test_the_first_who_comes_fetches_a_lease_for_all(bank: Any, slow: Any) -> None:
    first = await bank.open(10)
    assert first.hand.tokens == 256
    assert await bank.charged() == 266
    second = await bank.open(20)
    assert second.hand is first.hand
    assert await bank.charged() == 286
    assert slow.calls == ["take", "take"]


async def test_of_output_alone_whoever_finds_enough_in_hand_asks_nobody(make_bank: MakeBank, slow: Any) -> None:
    bank = make_bank({"what": "output"})
    for _ in range(10):
        await bank.open(10)
    assert slow.calls == ["take"]


@pytest.mark.parametrize(
    ("limit", "largest"), [(1 << 40, 64 * 256), (640_000, 10_000), (10_000, 256)], ids=["plenty", "a part", "small"]
)
async def test_where_streams_had_to_wait_leases_grow(make_bank: MakeBank, limit: int, largest: int) -> None:
    bank = make_bank({"tokens": limit, "what": "output"})
    account = await bank.open()
    hand, leases = account.hand, []
    for _ in range(8):
        hand.draw(hand.tokens, 0.0)
        assert await hand.hold(1) is None
        leases.append(hand.tokens)
    assert leases == [min(256 << doubled, largest) for doubled in range(1, 9)]


async def test_a_lease_that_outlasts_its_window_was_large_enough(make_bank: MakeBank) -> None:
    bank = make_bank({"tokens": 1 << 40, "what": "output", "window_s": 60})
    account = await bank.open()
    hand = account.hand
    hand.draw(256, bank.host.now)
    assert await hand.hold(1) is None
    assert hand.tokens == 512
    hand.draw(1, bank.host.now + 61.0)
    assert hand.tokens == 0
    await bank.host.run_spawned()
    assert await hand.hold(1) is None
    assert hand.tokens == 512  # twice the usual, since somebody waited; not twice the last


async def test_a_lease_that_grew_shrinks_again_once_nobody_waits(make_bank: MakeBank, host: FakeHost) -> None:
    """Also where no window ever ends."""
    bank = make_bank({"tokens": 1 << 40, "what": "output"})
    account = await bank.open()
    hand, leases = account.hand, []
    for _ in range(3):
        hand.draw(hand.tokens, 0.0)
        assert await hand.hold(1) is None
    assert hand.tokens == 2048
    for _ in range(200):
        hand.take(hand.tokens - hand.low)
        before = hand.tokens
        await refill(bank, hand)
        leases.append(hand.tokens - before)
    assert sorted(set(leases), reverse=True) == [2048, 1024, 512, 256]
    assert leases == sorted(leases, reverse=True)
    assert min(map(leases.count, (2048, 1024, 512))) > 8  # not with the first pause
    hand.take(hand.tokens)
    assert await hand.hold(1) is None
    assert hand.tokens == 512  # and grows as before


@pytest.mark.parametrize(("most", "leased"), [(None, 256), (1_000_000_000, 256), (40, 40), (0, 1)])
async def test_no_more_is_leased_than_can_be_used(bank: Any, most: int | None, leased: int) -> None:
    account = await bank.open(most_output=most)
    assert account.hand.tokens == leased
    await refill(bank, account.hand)
    assert account.hand.tokens == leased


async def test_who_is_given_more_than_it_asked_for_may_need_any_number(bank: Any, slow: Any) -> None:
    account = await bank.open(most_output=64)
    for said in range(1, 1001):
        await bank.use(account, said)
        await refill(bank, account.hand)
    assert len(slow.calls) <= 8


async def test_the_next_lease_is_fetched_in_time(bank: Any, slow: Any) -> None:
    account = await bank.open()
    await bank.use(account, 127)
    await refill(bank, account.hand)
    assert len(slow.calls) == 1
    await bank.use(account, 128)
    hand = account.hand
    hand.refill_in_time(0.0)
    hand.refill_in_time(0.0)  # it is on its way
    await bank.host.run_spawned()
    assert (hand.tokens, slow.calls) == (384, ["take", "take"])


async def test_who_waits_has_as_much_as_is_missing(bank: Any) -> None:
    account = await bank.open()
    missing = account.cover(1000, 0.0)
    assert missing == 1000
    assert await account.hand.hold(missing) is None
    assert account.hand.tokens == 1000
    assert account.cover(1000, 0.0) == 0
    assert account.hand.tokens == 0


async def test_of_those_who_wait_one_asks_for_all(bank: Any, slow: Any) -> None:
    accounts = [await bank.open() for _ in range(5)]
    await bank.use(accounts[0], 256)
    slow.calls.clear()
    hand = accounts[0].hand
    assert await asyncio.gather(*[hand.hold(1) for _ in accounts]) == [None] * 5
    assert slow.calls == ["take"]


async def test_the_less_is_left_the_less_is_leased_and_all_of_it_is(make_bank: MakeBank) -> None:
    bank = make_bank({"tokens": 1000, "what": "output"})
    account = await bank.open(1)
    leases = [account.hand.tokens]
    for said in range(1, 1001):
        await bank.use(account, said)
        before = account.hand.tokens
        await refill(bank, account.hand)
        leases.append(account.hand.tokens - before)
    grown = [lease for lease in leases if lease]
    assert sorted(grown, reverse=True) == grown
    assert sum(grown) <= 1000
    assert isinstance(await account.hand.hold(1), Refused)


async def test_while_there_are_64_tokens_for_each_stream_no_lease_is_smaller(make_bank: MakeBank) -> None:
    bank = make_bank({"tokens": 5000, "what": "output"}, lease_tokens=1000)
    accounts = [await bank.open() for _ in range(10)]
    hand, said = accounts[0].hand, 0
    while (room := 5000 - await bank.charged("output")) >= 64 * 10:
        said += hand.tokens
        await bank.use(accounts[0], said)
        assert await hand.hold(1) is None
        assert hand.tokens >= 64 or room < 64 * 10


# --- refusals


async def test_what_is_short_is_said(make_bank: MakeBank) -> None:
    bank = make_bank({"tokens": 100, "what": "input"}, {"tokens": 100, "window_s": 60})
    refused = await bank.account().open(101)
    assert isinstance(refused, Refused)
    assert (refused.what, refused.short.retry_after_s) == ("input", None)
    assert await bank.charged("input") == 0


async def test_what_was_reserved_before_the_refusal_is_given_back(make_bank: MakeBank) -> None:
    bank = make_bank({"what": "input"}, {"tokens": 50, "what": "output"}, {"tokens": 5, "window_s": 60})
    assert await bank.account().open(10) is not None
    assert [await bank.charged(what) for what in ("input", "output")] == [0, 0]
    assert await bank.charged(seconds=60) == 0


async def test_an_input_that_finds_no_room_is_asked_for_once(make_bank: MakeBank, slow: Any) -> None:
    bank = make_bank({"tokens": 5, "what": "input"}, {"what": "output"})
    assert await bank.account().open(10) is not None
    assert slow.calls.count("take") == 1


async def test_an_input_may_use_what_is_only_in_hand(make_bank: MakeBank) -> None:
    """A key with 100 tokens is not refused because the first stream has reserved more than it uses."""
    bank = make_bank({"tokens": 100})
    first = await bank.open(1)
    await bank.use(first, 40)
    assert first.hand.tokens > 0
    await bank.open(58)
    assert await bank.charged() == 100
    assert isinstance(await bank.account().open(1), Refused)


async def test_what_is_in_hand_does_for_one_more(make_bank: MakeBank) -> None:
    bank = make_bank({"tokens": 8, "what": "output"})
    accounts = [await bank.open(1) for _ in range(12)]
    for account in accounts[:8]:
        await bank.use(account, 1)
    assert isinstance(await bank.account().open(1), Refused)


# --- leases that are too old


async def test_a_lease_is_not_used_when_its_window_has_gone_by(make_bank: MakeBank) -> None:
    bank = make_bank({"window_s": 60}, {"window_s": "total"})
    account = await bank.open(10)
    await bank.use(account, 6)
    bank.host.now += 60.0
    assert account.cover(7, bank.host.now) == 1
    assert account.hand.tokens == 0
    await bank.host.run_spawned()
    assert await bank.charged() == 16  # the longer window has it back
    await bank.use(account, 7)
    await bank.close(account, 10, 7)
    assert await bank.charged() == 17


async def test_what_comes_back_when_all_leases_are_too_old(make_bank: MakeBank) -> None:
    bank = make_bank({"window_s": 60}, {"window_s": "total"})
    account, other = await bank.open(10), await bank.open(0)
    await bank.use(account, 100)
    bank.host.now += 60.0
    assert other.cover(1, bank.host.now) == 1
    await bank.close(account, 10, 40)
    await bank.host.run_spawned()
    assert await bank.charged() == 50
    assert other.hand.tokens == 0


async def test_it_is_given_back_to_the_windows_that_it_was_taken_from(make_bank: MakeBank) -> None:
    bank = make_bank({"window_s": 60})
    account = await bank.open(44)
    bank.host.now += 59.0
    await bank.use(account, 257)
    bank.host.now += 1.0
    await bank.use(account, 258)
    await bank.close(account, 44, 258)
    bank.host.now -= 60.0
    assert await bank.charged(seconds=60) in (44 + 256, 44 + 257)


# --- what may happen meanwhile


@pytest.mark.parametrize("asked", [0, 1, 2])
async def test_a_client_that_leaves_during_admission_holds_nothing(
    make_bank: MakeBank, slow: Any, host: FakeHost, asked: int
) -> None:
    bank = make_bank({"what": "input"}, {"what": "output"}, {"tokens": 5, "window_s": 60})
    account = bank.account()
    slow.slow_from = asked
    opening = asyncio.create_task(account.open(10))
    while len(slow.calls) <= asked:
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    account.close(0, 0)
    slow.gate.set()
    await host.run_spawned()
    assert [await bank.charged(what) for what in ("input", "output")] == [0, 0]
    assert await bank.charged(seconds=60) == 0
    assert not bank.hands


async def test_a_client_that_leaves_while_the_hand_is_emptied_for_it(
    make_bank: MakeBank, slow: Any, host: FakeHost
) -> None:
    bank = make_bank({"tokens": 100})
    first = await bank.open(1)
    assert await first.hand.hold(50) is None
    slow.slow_from = len(slow.calls) + 2  # the memory store itself gives back nothing when it is short
    account = bank.account()
    opening = asyncio.create_task(account.open(95))
    while slow.calls.count("give_back") < 2:
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    account.close(0, 0)
    slow.gate.set()
    await host.run_spawned()
    assert await bank.charged() == 1


async def test_a_lease_that_comes_after_the_end_is_given_back(slow: Any, bank: Any) -> None:
    account = await bank.open(10)
    await bank.use(account, 256)
    slow.slow_from = 1
    holding = asyncio.create_task(account.hand.hold(1))
    while len(slow.calls) < 2:
        await asyncio.sleep(0)
    account.close(10, 256)
    settling = asyncio.create_task(bank.host.run_spawned())
    slow.gate.set()
    await holding
    await settling
    assert slow.calls == ["take", "take", "give_back"]
    assert await bank.charged() == 266


async def test_a_refill_that_was_on_its_way_at_the_end_asks_nobody(slow: Any, bank: Any) -> None:
    account = await bank.open(10)
    await bank.use(account, 200)
    account.hand.refill_in_time(0.0)
    account.close(10, 200)
    await bank.host.run_spawned()
    assert slow.calls == ["take", "give_back"]
    assert await bank.charged() == 210


async def test_a_store_that_is_down(slow: Any, bank: Any) -> None:
    account = await bank.open(10)
    await bank.use(account, 200)
    slow.down_from = 0
    with pytest.raises(StateError):
        await account.hand.hold(100)
    await refill(bank, account.hand)
    assert account.hand.tokens == 56
    assert bank.host.counts["state_errors",] == 2
    for said in range(201, 257):
        await bank.use(account, said)
        await refill(bank, account.hand)
    assert bank.host.counts["state_errors",] <= 10  # not with every event
    slow.down_from = 1000
    await bank.use(account, 400)
    await refill(bank, account.hand)
    assert account.hand.tokens >= 112


async def test_a_store_that_fails_in_the_middle_of_an_admission(make_bank: MakeBank, slow: Any, host: FakeHost) -> None:
    bank = make_bank({"what": "input"}, {"what": "output"})
    slow.down_from = 1
    account = bank.account()
    with pytest.raises(StateError):
        await account.open(10)
    slow.down_from = 1000
    account.close(0, 0)
    await host.run_spawned()
    assert await bank.charged("input") == 0


async def test_a_hand_keeps_no_more_leases_than_it_needs(bank: Any) -> None:
    account = await bank.open()
    for said in range(1, 5000):
        await bank.use(account, said)
        await refill(bank, account.hand)
    assert len(account.hand._leases) <= 3
    assert all(grant.levels == () and grant.earlier is None for lease in account.hand._leases for grant in lease.grants)
