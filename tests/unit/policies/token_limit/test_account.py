"""Accounts: only what was used stays charged, and what the store had no answer for is charged when it is back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policies.token_limit.budget import Refused
from proxy.errors import StateError

MakeBank = Callable[..., Any]


async def test_what_is_covered_is_drawn_from_the_hand_once(bank: Any) -> None:
    account = await bank.open()
    assert account.cover(10, 0.0) == 0
    assert account.cover(10, 0.0) == 0
    assert account.cover(7, 0.0) == 0  # two pieces can make one token
    assert account.cover(11, 0.0) == 0
    assert account.hand.tokens == 256 - 11


async def test_what_is_not_covered_draws_nothing(bank: Any) -> None:
    account = await bank.open()
    assert account.cover(250, 0.0) == 0
    assert account.cover(300, 0.0) == 50
    assert account.hand.tokens == 6


async def test_input_and_output_are_counted_apart_or_together(make_bank: MakeBank) -> None:
    bank = make_bank({"what": "input"}, {"what": "output"}, {"window_s": 60}, {})
    account = await bank.open(100)
    assert [what for what, _ in account.levels] == ["input", "output", "both"]
    assert [await bank.charged(what) for what in ("input", "output", "both")] == [100, 256, 356]
    await bank.use(account, 300)
    await bank.close(account, 90, 300)
    assert [await bank.charged(what) for what in ("input", "output", "both")] == [90, 300, 390]
    assert await bank.charged("both", seconds=60) == 390


async def test_a_budget_of_input_alone_covers_any_output(make_bank: MakeBank) -> None:
    bank = make_bank({"what": "input", "window_s": 1})
    account = await bank.open(100)
    assert account.cover(10**9, 0.0) == 0
    await bank.close(account, 100, 5000)
    assert await bank.charged("input", seconds=1) == 100


async def test_who_counts_apart_does_not_meet(bank: Any) -> None:
    await bank.open(10_000 - 256, who="key:a")
    await bank.open(10_000 - 256, who="key:b")
    assert isinstance(await bank.account("key:a").open(1000), Refused)


@pytest.mark.parametrize("used", [(10, 0), (0, 0), (10, 256), (10, 300), (10, 700), (3, 512), (500, 3), (500, 600)])
@pytest.mark.parametrize("others", [0, 1])
async def test_only_what_was_used_stays_charged(bank: Any, slow: Any, used: tuple[int, int], others: int) -> None:
    account = await bank.open(10)
    rest = [await bank.open(1) for _ in range(others)]
    await bank.use(account, 500)
    asked = len(slow.calls)
    await bank.close(account, *used)
    assert len(slow.calls) - asked <= 1
    for other in rest:
        await bank.close(other, 1, 0)
    assert await bank.charged() == sum(used) + others
    assert bank.host.counts == {("tokens", "input"): used[0] + others, ("tokens", "output"): used[1]}


async def test_what_one_did_not_use_is_there_for_the_others(bank: Any) -> None:
    first, second = await bank.open(0), await bank.open(0)
    await bank.use(first, 250)
    first.close(0, 10)
    assert second.cover(246, 0.0) == 0
    await bank.close(second, 0, 246)
    assert await bank.charged() == 256


async def test_what_was_used_beyond_the_limit_is_charged(make_bank: MakeBank) -> None:
    bank = make_bank({"tokens": 300})
    account = await bank.open(10)
    await bank.close(account, 10, 5000)
    assert await bank.charged() == 5010


async def test_one_question_for_each_kind_settles_it(make_bank: MakeBank, slow: Any) -> None:
    bank = make_bank({"what": "input"}, {"window_s": 60})
    account = await bank.open(10)
    await bank.use(account, 700)
    slow.calls.clear()
    await bank.close(account, 5, 650)
    assert slow.calls == ["give_back", "give_back"]
    assert (await bank.charged("input"), await bank.charged(seconds=60)) == (5, 655)


async def test_where_all_was_used_the_store_is_not_asked(slow: Any, bank: Any) -> None:
    account = await bank.open(10)
    await bank.use(account, 256)
    await bank.close(account, 10, 256)
    assert slow.calls == ["take"]


async def test_nothing_is_remembered_of_those_who_have_left(bank: Any) -> None:
    accounts = [await bank.open(who=f"key:{number % 3}") for number in range(9)]
    assert {who: len(hand.users) for who, hand in bank.hands.items()} == {"key:0": 3, "key:1": 3, "key:2": 3}
    for account in accounts:
        await bank.close(account, 0, 0)
    assert not bank.hands
    assert await bank.charged(who="key:0") == 0


# --- the state store is down


@pytest.mark.parametrize("kinds", [({},), ({"what": "input"}, {"what": "output"})])
async def test_what_cannot_be_given_back_is_counted(
    make_bank: MakeBank, slow: Any, kinds: tuple[dict[str, Any], ...]
) -> None:
    bank = make_bank(*kinds)
    account = await bank.open(10)
    await bank.use(account, 200)
    slow.down_from = 0
    await bank.close(account, 10, 200)
    assert bank.host.counts["lost_tokens",] == 56


async def test_what_cannot_be_charged_is_counted(slow: Any, bank: Any) -> None:
    account = await bank.open(10)
    slow.down_from = 0
    await bank.close(account, 10, 300)
    assert bank.host.counts["lost_tokens",] == 44


async def test_what_was_assumed_while_it_was_down_is_charged_when_it_is_back(slow: Any, bank: Any) -> None:
    slow.down_from = 0
    account = bank.account()
    with pytest.raises(StateError):
        await account.open(10)
    account.assume(1)
    assert account.cover(256, 0.0) == 0
    account.assume(300)
    assert account.cover(556, 0.0) == 0
    assert account.cover(557, 0.0) == 1
    slow.down_from = 1000
    await bank.close(account, 10, 40)
    assert await bank.charged() == 50
