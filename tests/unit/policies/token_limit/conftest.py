"""What the tests of `token_limit` have in common: budgets on the memory store, in the time of a `FakeHost`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from policies.token_limit import TokenLimit, TokenLimitConfig
from policies.token_limit.account import Account
from policies.token_limit.budget import Budget, TokenWindow
from policies.token_limit.hand import Hand
from proxy import state
from proxy.errors import StateError
from proxy.simulation import make_request
from proxy.state import Grant, Short, Window
from proxy.state_memory import MemoryStore
from proxy.testing import FakeHost, Simulation

LIMIT = 10_000

MakeLimit = Callable[..., TokenLimit]
Begin = Callable[..., Awaitable[Simulation]]
Charged = Callable[..., Awaitable[int]]


@pytest.fixture
def host() -> Iterator[FakeHost]:
    host = FakeHost("token_limit")
    yield host
    for work, _ in host._spawned:
        work.close()


@pytest.fixture
def make_limit(host: FakeHost) -> MakeLimit:
    """`make_limit(1000, window_s=60, lease_tokens=10)`: a limit with one window, or with `windows` as they stand in a file."""

    def make(tokens: int = 1000, *, window_s: int | str = "total", what: str = "both", **keys: Any) -> TokenLimit:
        windows = keys.pop("windows", [{"tokens": tokens, "window_s": window_s, "what": what}])
        config = TokenLimitConfig.model_validate({"per": "all", "windows": tuple(windows), **keys}, strict=False)
        return TokenLimit(config, host)

    return make


@pytest.fixture
def charged(host: FakeHost) -> Charged:
    """`await charged("output")`: the tokens of this kind that are charged just now."""

    async def charged(what: str = "both", window_s: int | None = None) -> int:
        window = Window(state.MOST, window_s)
        (level,) = await host.state.levels(state.key("token_limit", what, "all"), [window])
        return state.MOST - level.remaining

    return charged


@pytest.fixture
def begin(make_limit: MakeLimit) -> Begin:
    """An exchange with a prompt of one token under a limit, its reply about to come."""

    async def begin(limit: TokenLimit | int = 1000, **keys: Any) -> Simulation:
        policy = make_limit(limit, **keys) if isinstance(limit, int) else limit
        exchange = await Simulation.admit(policy, make_request("Hi"))
        exchange.start()
        exchange.respond()
        return exchange

    return begin


def windows(*given: dict[str, Any]) -> list[TokenWindow]:
    return [TokenWindow(**{"tokens": LIMIT, "window_s": "total", **window}) for window in given or ({},)]


class Bank:
    """A budget, and what the store has charged for it."""

    def __init__(self, host: FakeHost, *given: dict[str, Any], lease_tokens: int = 256) -> None:
        self.host = host
        self.budget = Budget(host, windows(*given), lease_tokens)
        self.hands: dict[str, Hand] = {}

    def account(self, who: str = "all", most_output: int | None = None) -> Account:
        return Account(self.budget, self.hands, who, most_output)

    async def open(self, input_tokens: int = 10, **keys: Any) -> Account:
        account = self.account(**keys)
        assert await account.open(input_tokens) is None
        return account

    async def use(self, account: Account, output_tokens: int) -> None:
        """Have so many covered, in all, however often the store must be asked for it."""
        while missing := account.cover(output_tokens, self.host.now):
            assert await account.hand.hold(missing) is None

    async def close(self, account: Account, input_tokens: int, output_tokens: int) -> None:
        account.close(input_tokens, output_tokens)
        await self.host.run_spawned()

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
def make_bank(host: FakeHost) -> Callable[..., Bank]:
    """`make_bank({"tokens": 100}, lease_tokens=10)`: a budget with these windows, 10,000 in all if not said otherwise."""
    return lambda *given, **keys: Bank(host, *given, **keys)


@pytest.fixture
def bank(host: FakeHost) -> Bank:
    return Bank(host)


@pytest.fixture
def slow(host: FakeHost) -> Slow:
    store = host.state = Slow()
    return store
