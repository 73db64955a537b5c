"""So many requests, and what the fields say of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest
from pydantic import ValidationError

from policies.request_rate import RequestRate, RequestRateConfig
from proxy.errors import StateError
from proxy.identity import Identity
from proxy.messages import Reply
from proxy.policy import PolicyStream, Scope
from proxy.state import Window
from proxy.state_memory import MemoryStore
from proxy.testing import FakeHost, Simulation, check_policy, make_head, make_request

MINUTE = {"requests": 3, "window_s": 60}


class Down(MemoryStore):
    async def take(self, key: str, windows: Sequence[Window], amount: int) -> NoReturn:
        raise StateError("no answer")


class Rig:
    """A policy and its host, whose clock stands still until it is moved."""

    def __init__(self, *windows: dict[str, int], store: MemoryStore | None = None, **keys: Any) -> None:
        self.host = FakeHost("rate")
        if store is not None:
            self.host.state = store
        self.policy = RequestRate(RequestRateConfig(windows=windows or (MINUTE,), **keys), self.host)

    async def ask(self, client: str = "192.0.2.7", **identity: str) -> PolicyStream | Reply | None:
        request = make_request()
        request.identity = Identity(client=client, **identity)
        return await self.policy.admit(request)

    async def is_let_in(self, client: str = "192.0.2.7", **identity: str) -> bool:
        return not isinstance(await self.ask(client, **identity), Reply)

    async def refusal(self) -> Reply:
        reply = await self.ask()
        assert isinstance(reply, Reply)
        return reply


async def test_the_contract() -> None:
    config = RequestRateConfig(windows=({"requests": 10**6, "window_s": 60},), per="all")
    await check_policy(lambda host: RequestRate(config, host), expected=lambda text: text)


async def test_so_many_and_no_more_until_the_window_has_slid() -> None:
    rig = Rig()
    assert [await rig.is_let_in() for _ in range(5)] == [True, True, True, False, False]
    reply = await rig.refusal()
    assert (reply.status, reply.details, reply.body) == (429, "request_rate", None)
    rig.host.now += int(reply.headers["Retry-After"])
    assert await rig.is_let_in()


async def test_coming_sooner_than_told_is_in_vain() -> None:
    rig = Rig()
    while await rig.is_let_in():
        pass
    rig.host.now += int((await rig.refusal()).headers["Retry-After"]) - 2
    assert not await rig.is_let_in()


async def test_what_was_refused_was_not_counted() -> None:
    rig = Rig({"requests": 3, "window_s": 60}, {"requests": 6, "window_s": 3600})
    for _ in range(100):
        await rig.ask()
    rig.host.now += 120
    assert [await rig.is_let_in() for _ in range(4)] == [True, True, True, False]


async def test_every_window_must_have_room() -> None:
    rig = Rig({"requests": 3, "window_s": 1}, {"requests": 4, "window_s": 3600})
    assert [await rig.is_let_in() for _ in range(4)] == [True, True, True, False]
    rig.host.now += 2
    assert [await rig.is_let_in() for _ in range(2)] == [True, False]
    assert (await rig.refusal()).headers["RateLimit"].startswith('"rate-3600s";r=0;')


async def test_everybody_has_a_count_of_their_own() -> None:
    rig = Rig({"requests": 1, "window_s": 60})
    assert await rig.is_let_in("192.0.2.7")
    assert await rig.is_let_in("192.0.2.8")
    assert await rig.is_let_in("192.0.2.7", key_id="alice")
    assert not await rig.is_let_in("192.0.2.8")
    assert not await rig.is_let_in("192.0.2.9", key_id="alice")


async def test_policies_of_different_names_count_apart() -> None:
    rig, other = Rig({"requests": 1, "window_s": 60}), Rig({"requests": 1, "window_s": 60})
    other.host.state = rig.host.state
    other.host.name = "other"
    assert await rig.is_let_in()
    assert await other.is_let_in()


@pytest.mark.parametrize("per", ["all", "route", "tenant"])
async def test_what_is_shared_is_counted_together(per: str) -> None:
    rig = Rig({"requests": 1, "window_s": 60}, per=per)
    assert await rig.is_let_in("192.0.2.7")
    assert not await rig.is_let_in("192.0.2.8")


async def test_models_are_read_from_the_body_and_only_then_it_is_waited_for() -> None:
    assert not Rig().policy.needs_body
    rig = Rig({"requests": 1, "window_s": 60}, per="model")
    assert rig.policy.needs_body

    async def ask(model: str) -> bool:
        request = make_request()
        request.replace_body(json.dumps({"model": model}).encode())
        return not isinstance(await rig.policy.admit(request), Reply)

    assert [await ask("large"), await ask("small"), await ask("large")] == [True, True, False]


# Fields


async def test_every_reply_says_what_is_left() -> None:
    rig = Rig({"requests": 3, "window_s": 60}, {"requests": 50, "window_s": 3600})
    exchange = await Simulation.admit(rig.policy)
    exchange.start()
    head = make_head(exchange.request, headers={"RateLimit": '"upstream";r=9'})
    assert exchange.respond(head) is None
    assert head.headers["RateLimit-Policy"] == '"rate-60s";q=3;w=60, "rate-3600s";q=50;w=3600'
    upstream, minute, hour = head.headers["RateLimit"].split(", ")
    assert upstream == '"upstream";r=9'
    assert minute.startswith('"rate-60s";r=2;t=')
    assert hour.startswith('"rate-3600s";r=49;t=')


async def test_the_proxys_own_replies_say_it_too() -> None:
    assert RequestRate.scope is Scope.ATTACHMENT  # or it would be shown the upstream's only
    exchange = await Simulation.admit(Rig().policy)
    head = make_head(exchange.request, status=401, local=True)
    exchange.respond(head)
    assert head.headers["RateLimit"].startswith('"rate-60s";r=2;')


async def test_a_refusal_says_which_window_is_full_and_no_earlier_time_than_its_end() -> None:
    rig = Rig({"requests": 3, "window_s": 60}, {"requests": 50, "window_s": 3600})
    for _ in range(3):
        await rig.ask()
    headers = (await rig.refusal()).headers
    assert headers["RateLimit-Policy"] == '"rate-60s";q=3;w=60, "rate-3600s";q=50;w=3600'
    window, until = headers["RateLimit"].split(";t=")
    assert window == '"rate-60s";r=0'
    assert int(headers["Retry-After"]) >= int(until)


# The store


async def test_a_store_that_is_down() -> None:
    rig = Rig(store=Down())
    reply = await rig.refusal()
    assert (reply.status, reply.details) == (503, "state_unavailable")
    assert rig.host.counts[("state_errors",)] == 1


async def test_a_store_that_is_down_may_let_all_in() -> None:
    rig = Rig(store=Down(), on_state_error="allow")
    assert [await rig.ask() for _ in range(9)] == [None] * 9
    assert rig.host.counts[("state_errors",)] == 9


# The configuration


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"windows": ()},
        {"windows": ({"requests": 0, "window_s": 60},)},
        {"windows": ({"requests": 2**60, "window_s": 60},)},
        {"windows": ({"requests": 1, "window_s": 0},)},
        {"windows": ({"requests": 1},)},
        {"windows": ({"requests": 1, "window_s": 60}, {"requests": 2, "window_s": 60})},
        {"windows": (MINUTE,), "per": "user"},
        {"windows": (MINUTE,), "on_state_error": "ignore"},
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RequestRateConfig(**keys)
