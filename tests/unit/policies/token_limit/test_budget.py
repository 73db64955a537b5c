"""Accounts: what is reserved is used or given back, and nobody holds so much that others are refused without need."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from policies.token_limit.budget import Account, Budget, Refused, TokenWindow
from proxy import state
from proxy.errors import StateError
from proxy.state import Grant, Short, Window
from proxy.state_memory import MemoryStore
from proxy.testing import FakeHost

LIMIT = 10_000


def windows(*given: dict[str, Any]) -> list[TokenWindow]:
    return [TokenWindow(**{"tokens": LIMIT, "window_s": "total", **window}) for window in given or ({},)]


class Bank:
    """A budget, and what the store has charged for it."""

    def __init__(self, host: FakeHost, *given: dict[str, Any], lease_tokens: int = 256) -> None:
        self.host = host
        self.budget = Budget(host, windows(*given), lease_tokens)

    def account(self, who: str = "all", most_output: int | None = None) -> Account:
        return Account(self.budget, who, most_output)

    async def open(self, input_tokens: int = 10, **keys: Any) -> Account:
        account = self.account(**keys)
        assert await account.open(input_tokens) is None
        return account

    async def close(self, account: Account, input_tokens: int, output_tokens: int) -> int:
        unused = account.close(input_tokens, output_tokens)
        await self.host.run_spawned()
        return unused

    async def charged(self, what: str = "both", who: str = "all", seconds: int | None = None) -> int:
        key = state.key(self.host.name, what, who)
        (level,) = await self.host.state.levels(key, [Window(state.MOST, seconds)])
        return state.MOST - level.remaining


class Slow(MemoryStore):
    """Keeps those waiting who ask it anything from the call number `slow_from` on, until the `gate` opens; and has no
    answer for them from the call number `down_from` on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.gate = asyncio.Event()
        self.slow_from = self.down_from = 1000

    async def _answer(self, call: str) -> None:
        number = len(self.calls)
        self.calls.append(call)
        if number >= self.slow_from:
            await self.gate.wait()
        if number >= self.down_from:
            raise StateError("down")

    async def take(self, key: str, windows: Sequence[Window], amount: int) -> Grant | Short:
        await self._answer("take")
        return await super().take(key, windows, amount)

    async def give_back(self, grant: Grant, amount: int) -> None:
        await self._answer("give_back")
        await super().give_back(grant, amount)

    async def charge(self, key: str, windows: Sequence[Window], amount: int) -> None:
        await self._answer("charge")
        await super().charge(key, windows, amount)


@pytest.fixture
def bank(host: FakeHost) -> Bank:
    return Bank(host)


@pytest.fixture
def slow(host: FakeHost) -> Slow:
    store = host.state = Slow()
    return store


# --- opening


async def test_the_input_and_a_lease_are_reserved(bank: Bank) -> None:
    account = await bank.open(100)
    assert account.leased == 256
    assert await bank.charged() == 356


@pytest.mark.parametrize(("most", "leased"), [(None, 256), (1_000_000_000, 256), (40, 40), (0, 1)])
async def test_no_more_is_leased_than_can_be_used(bank: Bank, most: int | None, leased: int) -> None:
    account = await bank.open(most_output=most)
    assert account.leased == leased
    assert account.wants_more is (most is None or most > leased)


@pytest.mark.parametrize(("limit", "leased"), [(2048, 256), (1024, 128), (600, 75), (300, 64), (64, 27)])
async def test_of_a_small_budget_a_lease_is_small(host: FakeHost, limit: int, leased: int) -> None:
    account = await Bank(host, {"tokens": limit}).open(10)
    assert account.leased == leased


async def test_input_and_output_are_counted_apart_or_together(host: FakeHost) -> None:
    bank = Bank(host, {"what": "input"}, {"what": "output"}, {"window_s": 60}, {})
    account = await bank.open(100)
    assert [what for what, _ in account.levels] == ["input", "output", "both"]
    assert [await bank.charged(what) for what in ("input", "output", "both")] == [100, 256, 356]
    assert await bank.charged("both", seconds=60) == 356
    assert await account.renew(1) is None
    assert [await bank.charged(what) for what in ("input", "output", "both")] == [100, 512, 612]
    assert await bank.close(account, 90, 300) == 222
    assert [await bank.charged(what) for what in ("input", "output", "both")] == [90, 300, 390]


async def test_a_budget_of_input_alone_needs_no_leases(host: FakeHost) -> None:
    bank = Bank(host, {"what": "input", "window_s": 1})
    account = await bank.open(100)
    assert account.leased >= 1 << 40
    assert account.lasts_s == float("inf")
    await bank.close(account, 100, 5000)
    assert await bank.charged("input", seconds=1) == 100


async def test_who_counts_apart_does_not_meet(bank: Bank) -> None:
    await bank.open(LIMIT - 256, who="key:a")
    await bank.open(LIMIT - 256, who="key:b")
    assert isinstance(await bank.account("key:a").open(1), Refused)


# --- refusals


async def test_what_is_short_is_said(host: FakeHost) -> None:
    bank = Bank(host, {"tokens": 100, "what": "input"}, {"tokens": 100, "window_s": 60})
    refused = await bank.account().open(101)
    assert isinstance(refused, Refused)
    assert (refused.what, refused.short.level.window, refused.short.retry_after_s) == ("input", Window(100, None), None)
    assert await bank.charged("input") == 0


async def test_a_refusal_says_when_the_request_itself_will_fit_and_not_its_lease(host: FakeHost) -> None:
    bank = Bank(host, {"tokens": 1000, "window_s": 60})
    await bank.open(1000 - 125)
    refused = await bank.account().open(10)
    assert refused is not None
    key = state.key(host.name, "both", "all")
    short = await host.state.take(key, bank.budget.pots[0].windows, 11)
    assert isinstance(short, Short)
    assert refused.short.retry_after_s == short.retry_after_s


async def test_what_was_reserved_before_the_refusal_is_given_back(host: FakeHost) -> None:
    bank = Bank(host, {"what": "input"}, {"tokens": 50, "what": "output"}, {"tokens": 5, "window_s": 60})
    assert await bank.account().open(10) is not None
    assert [await bank.charged(what) for what in ("input", "output")] == [0, 0]
    assert await bank.charged(seconds=60) == 0


async def test_an_input_that_finds_no_room_is_asked_for_once(slow: Slow, host: FakeHost) -> None:
    bank = Bank(host, {"tokens": 5, "what": "input"}, {"what": "output"})
    assert await bank.account().open(10) is not None
    assert slow.calls.count("take") == 1


async def test_a_budget_of_input_makes_no_lease_small(host: FakeHost) -> None:
    bank = Bank(host, {"tokens": 20, "what": "input"}, {"what": "output"})
    assert [(await bank.open(10)).leased for _ in range(2)] == [256, 256]


async def test_small_budgets_admit_many(host: FakeHost) -> None:
    """A key with 200 tokens is not refused because the first stream has reserved them all."""
    bank = Bank(host, {"tokens": 200})
    accounts = [await bank.open(1) for _ in range(12)]
    assert all(account.leased for account in accounts)


async def test_the_less_is_left_the_less_is_leased(host: FakeHost) -> None:
    bank = Bank(host, {"tokens": 4000, "what": "output"})
    leases = [(await bank.open(1)).leased for _ in range(40)]
    assert leases[0] == 256
    assert sorted(leases, reverse=True) == leases
    assert leases[-1] >= 1


async def test_while_there_are_64_tokens_for_each_stream_no_lease_is_smaller(host: FakeHost) -> None:
    bank = Bank(host, {"tokens": 5000, "what": "output"}, lease_tokens=1000)
    accounts = [await bank.open() for _ in range(10)]
    while 5000 - await bank.charged("output") >= 64 * 10:
        for account in accounts:
            before, room = account.leased, 5000 - await bank.charged("output")
            assert await account.renew(1) is None
            assert account.leased - before >= 64 or room < 64 * 10


# --- renewals


async def test_a_renewal_covers_what_it_has_to(bank: Bank) -> None:
    account = await bank.open()
    assert await account.renew(1000) is None
    assert account.leased == 1256
    refused = await account.renew(LIMIT)
    assert refused is not None
    assert refused.short.retry_after_s is None
    assert account.leased == 1256


async def test_the_last_lease_ends_where_the_output_ends(bank: Bank) -> None:
    account = await bank.open(most_output=300)
    assert account.wants_more
    assert await account.renew(1) is None
    assert account.leased == 300
    assert not account.wants_more


async def test_a_closed_account_leases_nothing(bank: Bank) -> None:
    account = await bank.open()
    await bank.close(account, 10, 0)
    assert await account.renew(1) is None
    account.assume(1)
    assert account.leased == 256
    assert await bank.charged() == 10


async def test_what_is_forgotten_may_not_be_used_but_is_given_back(bank: Bank) -> None:
    account = await bank.open(10)
    account.forget(6)
    assert account.leased == 6
    account.forget(100)
    assert account.leased == 6
    assert await bank.close(account, 10, 6) == 250
    assert await bank.charged() == 16


# --- settlement


@pytest.mark.parametrize("used", [(10, 0), (0, 0), (10, 256), (10, 300), (10, 700), (3, 512), (500, 3)])
async def test_only_what_was_used_stays_charged(bank: Bank, used: tuple[int, int]) -> None:
    account = await bank.open(10)
    assert await account.renew(1) is None
    assert await account.renew(1) is None
    unused = await bank.close(account, *used)
    assert await bank.charged() == sum(used)
    assert unused == max(0, 10 + 768 - sum(used))
    assert bank.host.counts == {("tokens", "input"): used[0], ("tokens", "output"): used[1]}


async def test_what_was_not_used_is_given_back_to_the_windows_that_it_was_taken_from(host: FakeHost) -> None:
    bank = Bank(host, {"window_s": 60})
    account = await bank.open(44)
    host.now += 60.0
    assert await account.renew(1) is None
    await bank.close(account, 44, 6)
    host.now -= 60.0
    assert await bank.charged(seconds=60) == 50


async def test_what_was_used_beyond_the_limit_is_charged(host: FakeHost) -> None:
    bank = Bank(host, {"tokens": 300})
    account = await bank.open(10)
    await bank.close(account, 10, 5000)
    assert await bank.charged() == 5010


async def test_what_was_leased_bit_by_bit_is_given_back_at_once(slow: Slow, host: FakeHost) -> None:
    bank = Bank(host, {"what": "input"}, {"window_s": 60})
    account = await bank.open(10)
    for _ in range(3):
        assert await account.renew(1) is None
    slow.calls.clear()
    await bank.close(account, 5, 20)
    assert slow.calls == ["give_back", "give_back"]  # for each kind of tokens that is counted
    assert (await bank.charged("input"), await bank.charged(seconds=60)) == (5, 25)


async def test_where_all_was_used_the_store_is_not_asked(slow: Slow, bank: Bank) -> None:
    account = await bank.open(10)
    await bank.close(account, 10, 256)
    assert slow.calls == ["take"]


async def test_nothing_is_remembered_of_those_who_have_left(bank: Bank) -> None:
    accounts = [await bank.open(who=f"key:{number % 3}") for number in range(9)]
    assert {who: party.accounts for who, party in bank.budget.parties.items()} == {"key:0": 3, "key:1": 3, "key:2": 3}
    for account in accounts:
        await bank.close(account, 0, 0)
    assert not bank.budget.parties


# --- what may happen meanwhile


@pytest.mark.parametrize("asked", [0, 1, 2])
async def test_a_client_that_leaves_during_admission_holds_nothing(slow: Slow, host: FakeHost, asked: int) -> None:
    bank = Bank(host, {"what": "input"}, {"what": "output"}, {"tokens": 5, "window_s": 60})
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


async def test_a_lease_that_comes_after_the_end_is_given_back(slow: Slow, bank: Bank) -> None:
    account = await bank.open(10)
    slow.slow_from = 1
    renewing = asyncio.create_task(account.renew(1))
    await asyncio.sleep(0)
    account.close(10, 256)
    settling = asyncio.create_task(bank.host.run_spawned())
    slow.gate.set()
    await renewing
    await settling
    assert await bank.charged() == 266


@pytest.mark.parametrize("kinds", [({},), ({"what": "input"}, {"what": "output"})])
async def test_a_store_that_is_down(slow: Slow, host: FakeHost, kinds: tuple[dict[str, Any], ...]) -> None:
    bank = Bank(host, *kinds)
    account = await bank.open(10)
    slow.down_from = 0
    with pytest.raises(StateError):
        await account.renew(1)
    assert account.leased == 256
    assert host.counts["state_errors",] == 1
    await bank.close(account, 10, 200)
    assert host.counts["lost_tokens",] == 56


async def test_a_store_that_is_down_when_more_is_to_be_charged(slow: Slow, bank: Bank) -> None:
    account = await bank.open(10)
    slow.down_from = 0
    await bank.close(account, 10, 300)
    assert bank.host.counts["lost_tokens",] == 44


async def test_what_was_assumed_while_it_was_down_is_charged_when_it_is_back(slow: Slow, bank: Bank) -> None:
    slow.down_from = 0
    account = bank.account()
    with pytest.raises(StateError):
        await account.open(10)
    account.assume(1)
    assert account.leased == 256
    account.assume(300)
    assert account.leased == 556
    slow.down_from = 1000
    await bank.close(account, 10, 40)
    assert await bank.charged() == 50


async def test_a_store_that_fails_in_the_middle_of_an_admission(slow: Slow, host: FakeHost) -> None:
    bank = Bank(host, {"what": "input"}, {"what": "output"})
    slow.down_from = 1
    with pytest.raises(StateError):
        await bank.account().open(10)
    slow.down_from = 1000
    await host.run_spawned()
    assert await bank.charged("input") == 0


async def test_grants_keep_nothing_that_only_the_reply_needs(bank: Bank) -> None:
    account = await bank.open()
    assert await account.renew(1) is None
    (grant,) = account._grants
    assert grant is not None
    assert grant.earlier is not None
    assert (grant.levels, grant.earlier.levels) == ((), ())
