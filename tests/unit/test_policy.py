from __future__ import annotations

import inspect
import math

import pytest
from pydantic import ValidationError

from proxy import identity
from proxy.dialects.base import Call
from proxy.dialects.generic import Generic
from proxy.errors import COMPLETE
from proxy.framing import Event
from proxy.messages import Headers, Request, ResponseHead
from proxy.policy import (
    API_VERSION,
    Encoder,
    Ending,
    Pause,
    Policy,
    PolicyConfig,
    PolicyStream,
    Scope,
    Sees,
    Stage,
    Stop,
)
from proxy.simulation import FakeHost


class BrakeConfig(PolicyConfig):
    seconds: float = 1.0
    words: tuple[str, ...] = ()


class Brake(Policy[BrakeConfig]):
    stage = Stage.PACE
    Config = BrakeConfig


def test_stages_stand_in_the_order_of_the_contract() -> None:
    assert [stage.name for stage in sorted(Stage)] == [
        "ADMIT", "GUARD", "TRANSFORM", "METER", "PACE", "RECORD", "RESTORE", "KEEPALIVE", "ENCODE",
    ]  # fmt: skip


def test_who_sees_more_sees_less_too() -> None:
    assert Sees.NOTHING < Sees.ACTIVITY < Sees.EVENTS


# Verdicts


def test_a_pause_is_told_in_full() -> None:
    passed, rest = [Event(b"a", Generic().open(ResponseHead(200), Call()))], [Event(b"b", None)]  # type: ignore[arg-type]
    pause = Pause(1.5, passed, rest)
    assert (pause.seconds, pause.passed, pause.rest) == (1.5, passed, rest)


def test_a_stop_is_an_error_without_events_where_nothing_else_is_said() -> None:
    stop = Stop("budget")
    assert (stop.reason, stop.ending, stop.events, stop.message) == ("budget", Ending.ERROR, [], None)
    assert stop.headers is None
    stop.events.append(Event(b"a", None))  # type: ignore[arg-type]
    assert Stop("budget").events == []


def test_a_stop_can_say_how_it_is_to_look() -> None:
    events = [Event(b"a", None)]  # type: ignore[arg-type]
    headers = {"Retry-After": "7"}
    stop = Stop("budget", Ending.LENGTH, events, message="No tokens are left.", headers=headers)
    assert (stop.ending, stop.events, stop.message) == (Ending.LENGTH, events, "No tokens are left.")
    assert stop.headers == headers


# Config


def test_a_config_has_defaults_and_is_frozen() -> None:
    config = BrakeConfig()
    assert (config.seconds, config.words) == (1.0, ())
    assert config.state_answers_within_s == math.inf
    assert (config.needs, list(config.tells), list(config.watched)) == ({}, [], [])
    with pytest.raises(ValidationError, match="frozen"):
        config.seconds = 2.0


@pytest.mark.parametrize("given", [{"second": 1.0}, {"seconds": "1.0"}, {"seconds": True}, {"words": "all"}])
def test_a_config_is_strict(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BrakeConfig.model_validate(given)


class LimitConfig(PolicyConfig):
    per: identity.Per = "identity"


@pytest.mark.parametrize("per", ["key", "tenant", "subject"])
def test_a_limit_needs_to_know_what_it_counts_by(per: identity.Per) -> None:
    assert LimitConfig(per=per).needs == {"per": per}


@pytest.mark.parametrize("per", ["identity", "client", "model", "route", "upstream", "all"])
def test_some_things_are_always_known(per: identity.Per) -> None:
    assert LimitConfig(per=per).needs == {}


# What is not overridden does nothing


async def test_a_policy_stays_out_by_default() -> None:
    host = FakeHost()
    policy = Brake(BrakeConfig(), host)
    request = Request(id="1", method="GET", path="/", headers=Headers(), dialect=Generic())
    assert (policy.config.seconds, policy.host) == (1.0, host)
    assert (policy.api, policy.scope, policy.sees) == (API_VERSION, Scope.EXCHANGE, Sees.NOTHING)
    assert not policy.may_bypass
    assert not policy.needs_body
    await policy.start()
    assert await policy.admit(request) is None
    await policy.stop()


def test_a_stream_passes_everything_by_default() -> None:
    stream, events = PolicyStream(), [Event(b"a", None)]  # type: ignore[arg-type]
    stream.on_start(1.0)
    assert stream.wake_at is None
    assert stream.on_response(ResponseHead(200)) is None
    stream.on_activity(2.0)
    stream.on_reading(False, 3.0)
    assert stream.on_events(events, 4.0) is events
    assert stream.on_timer(5.0) == stream.on_end(6.0) == stream.on_cut(7.0) == []
    stream.close(COMPLETE)
    assert stream.facts() == {}


def test_an_encoder_must_say_what_it_does() -> None:
    encoder = Encoder()
    with pytest.raises(NotImplementedError):
        encoder.on_response(ResponseHead(200), streaming=True)
    with pytest.raises(NotImplementedError):
        encoder.encode(b"a", flush=True)
    with pytest.raises(NotImplementedError):
        encoder.finish()
    encoder.close(COMPLETE)
    assert encoder.facts() == {}


@pytest.mark.parametrize("contract", [PolicyStream, Policy, Encoder])
def test_every_hook_is_documented(contract: type) -> None:
    hooks = {
        name: hook for name, hook in vars(contract).items() if inspect.isfunction(hook) and not name.startswith("_")
    }
    assert len(hooks) >= 3
    assert [name for name, hook in hooks.items() if not hook.__doc__ and name != "facts"] == []
