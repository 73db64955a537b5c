"""What the tests of `token_limit` have in common: budgets on the memory store, in the time of a `FakeHost`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from policies.token_limit import TokenLimit, TokenLimitConfig
from proxy import state
from proxy.simulation import make_request
from proxy.state import Window
from proxy.testing import FakeHost, Simulation

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
