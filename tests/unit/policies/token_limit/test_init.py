"""The policy: its keys, who is let in, and what is said to those who are not."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import ValidationError

from policies.token_limit import TokenLimit, TokenLimitConfig
from proxy import state, tokens
from proxy.dialects.openai_chat import OpenAIChat
from proxy.errors import FAULTS, Outcome, OutcomeKind, StateError
from proxy.messages import Reply, Request
from proxy.policy import PolicyStream
from proxy.problems import check
from proxy.simulation import make_head
from proxy.state import Window
from proxy.state_memory import MemoryStore
from proxy.testing import FakeHost, check_policy, make_request

MakeLimit = Callable[..., TokenLimit]
Charged = Callable[..., Awaitable[int]]

WINDOW = {"tokens": 1000, "window_s": 60}


def make_config(**keys: Any) -> TokenLimitConfig:
    read = check(TokenLimitConfig, {"windows": [WINDOW], **keys}, "policy")
    assert isinstance(read, TokenLimitConfig), read
    return read


def problems(**keys: Any) -> str:
    found = check(TokenLimitConfig, {"windows": [WINDOW], **keys}, "policy")
    assert isinstance(found, list)
    return "\n".join(map(str, found))


class Down(MemoryStore):
    async def take(self, *_: object) -> Any:
        raise StateError("down")

    give_back = charge = take


def refused(answer: object) -> Reply:
    assert isinstance(answer, Reply)
    return answer


# --- the contract


@pytest.mark.parametrize("tokenizer", ["deltas", "o200k"])
@pytest.mark.parametrize("on_exhausted", ["cut", "pace"])
async def test_the_contract(tokenizer: str, on_exhausted: str) -> None:
    config = make_config(windows=[{"tokens": 10**9, "window_s": 60}], tokenizer=tokenizer, on_exhausted=on_exhausted)
    await check_policy(lambda host: TokenLimit(config, host), expected=lambda text: text, rounds=10)


async def test_the_contract_with_leases_of_one_token() -> None:
    config = make_config(lease_tokens=1)
    await check_policy(lambda host: TokenLimit(config, host), expected=lambda text: text, rounds=5)


@pytest.mark.parametrize("details", ["token_limit", "state_unavailable"])
def test_the_reasons_are_known(details: str) -> None:
    assert FAULTS[details].outcome is OutcomeKind.STOPPED
    assert FAULTS[details].status in (429, 503)


# --- keys


def test_the_defaults() -> None:
    config = make_config()
    assert config.windows[0].what == "both"
    assert (config.per, config.lease_tokens, config.on_exhausted, config.tokenizer) == (
        "identity",
        256,
        "cut",
        "deltas",
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"windows": []}, "1 or more"),
        ({"windows": [{"tokens": 0, "window_s": 60}]}, "greater than 0"),
        ({"windows": [{"tokens": 1 << 49, "window_s": 60}]}, "at most"),
        ({"windows": [{"tokens": 10, "window_s": 0}]}, "greater than 0"),
        ({"windows": [{"tokens": 10, "window_s": "ever"}]}, '"total"'),
        ({"windows": [{"tokens": 10, "window_s": 60, "what": "bytes"}]}, '"input", "output" or "both"'),
        ({"windows": [WINDOW, WINDOW]}, "two windows of the same length"),
        ({"lease_tokens": 0}, "greater than 0"),
        ({"on_exhausted": "wait"}, '"cut" or "pace"'),
        ({"per": "user"}, '"identity"'),
        ({"tokenizer": "gpt2"}, '"o200k"'),
        ({"on_state_error": "ignore"}, '"refuse" or "allow"'),
    ],
)
def test_what_is_wrong_is_told(keys: dict[str, Any], message: str) -> None:
    assert message in problems(**keys)


def test_windows_of_the_same_length_may_count_different_tokens() -> None:
    assert len(make_config(windows=[{**WINDOW, "what": what} for what in ("input", "output", "both")]).windows) == 3


def test_a_tokenizer_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "find_spec", lambda name: None)
    assert "penstock[tokens]" in problems(tokenizer="o200k")
    with pytest.raises(ValidationError):
        TokenLimitConfig.model_validate({"windows": (), "tokenizer": "o200k"})


async def test_the_vocabulary_is_loaded_before_the_first_request(host: FakeHost) -> None:
    tokens.counter.cache_clear()
    await TokenLimit(make_config(tokenizer="cl100k"), host).start()
    assert tokens.counter.cache_info().misses == 1
    assert "splintr" in sys.modules


# --- admission


async def test_the_prompt_is_estimated(make_limit: MakeLimit, charged: Charged) -> None:
    limit = make_limit(what="input")
    assert isinstance(await limit.admit(make_request("x" * 400, dialect=OpenAIChat())), PolicyStream)
    assert await charged("input") == 100


async def test_the_prompt_is_counted_where_there_is_a_tokenizer(make_limit: MakeLimit, charged: Charged) -> None:
    limit = make_limit(what="input", tokenizer="o200k")
    assert isinstance(await limit.admit(make_request("x" * 400, dialect=OpenAIChat())), PolicyStream)
    assert await charged("input") == 50


async def test_a_prompt_without_text_is_at_least_a_token(make_limit: MakeLimit) -> None:
    limit = make_limit(1, what="input")
    assert isinstance(await limit.admit(make_request("", dialect=OpenAIChat())), PolicyStream)
    assert refused(await limit.admit(make_request("", dialect=OpenAIChat()))).status == 429


ABSURD = [
    "1000000000000", "1" + "0" * 30, "1" + "0" * 5000, "-1", "-1" + "0" * 30, "1e308", "1e999", "-1e999", "1.5", "-0.0",
    '"many"', '"10"', "true", "null", "{}", "[1]",
]  # fmt: skip


@pytest.mark.parametrize("given", ABSURD, ids=lambda given: given[:8])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n"])
async def test_absurd_limits_of_the_output_reserve_nothing_absurd(
    make_limit: MakeLimit, charged: Charged, name: str, given: str
) -> None:
    request = make_request(dialect=OpenAIChat())
    request.replace_body(
        b'{"messages": [{"role": "user", "content": "Hi"}], "%s": %s}' % (name.encode(), given.encode())
    )
    stream = await make_limit(10_000, what="output").admit(request)
    assert isinstance(stream, PolicyStream)
    assert request.call.texts == ["Hi"], "it was read"
    assert await charged("output") == 256


@pytest.mark.parametrize(("max_tokens", "n", "reserved"), [("0", "1", 1), ("2", "1" + "0" * 30, 256), ("7", "-3", 7)])
async def test_the_output_limit_is_for_each_answer(
    make_limit: MakeLimit, charged: Charged, max_tokens: str, n: str, reserved: int
) -> None:
    request = make_request(dialect=OpenAIChat())
    request.replace_body(b'{"max_tokens": %s, "n": %s}' % (max_tokens.encode(), n.encode()))
    assert isinstance(await make_limit(10_000, what="output").admit(request), PolicyStream)
    assert await charged("output") == reserved


async def test_a_small_output_limit_reserves_no_more(make_limit: MakeLimit, charged: Charged) -> None:
    request = make_request(dialect=OpenAIChat())
    request.replace_body(b'{"max_tokens": 7, "n": 3}')
    assert isinstance(await make_limit(10_000, what="output").admit(request), PolicyStream)
    assert await charged("output") == 21


async def test_requests_without_a_body_are_let_through(make_limit: MakeLimit) -> None:
    request = make_request(method="GET", path="/v1/models")
    request.body = b""
    assert await make_limit(1).admit(request) is None


async def test_each_is_counted_by_itself(host: FakeHost) -> None:
    limit = TokenLimit(make_config(per="client"), host)
    for client in ("192.0.2.1", "192.0.2.2"):
        request = make_request()
        request.identity = type(request.identity)(client=client)
        assert isinstance(await limit.admit(request), PolicyStream)
    key = state.key(host.name, "both", "client:192.0.2.1")
    (level,) = await host.state.levels(key, [Window(1000, 60)])
    assert 0 < 1000 - level.remaining < 200


async def test_what_a_client_calls_itself_is_no_way_to_anothers_budget(host: FakeHost) -> None:
    limit = TokenLimit(make_config(per="model"), host)
    names = ["a", "a\x00", "a/b", "a\n", "\ud83d", "b" * 10_000]
    for name in names:
        request = make_request(dialect=OpenAIChat())
        request.call.model = name
        assert isinstance(await limit.admit(request), PolicyStream)
    for name in names:
        (level,) = await host.state.levels(state.key(host.name, "both", f"model:{name}"), [Window(1000, 60)])
        assert 1000 - level.remaining == 125 + 2


# --- refusals


async def test_a_refusal_says_when_to_come_again(make_limit: MakeLimit, host: FakeHost) -> None:
    limit = make_limit(100, window_s=60)
    host.now = 30.0  # half a window is over, so that all of it counts for 30 s
    while isinstance(reply := await limit.admit(make_request("x" * 40, dialect=OpenAIChat())), PolicyStream):
        pass
    reply = refused(reply)
    assert (reply.status, reply.details) == (429, "token_limit")
    assert 30 <= int(reply.headers["Retry-After"]) <= 60
    assert reply.headers["RateLimit-Policy"] == '"token_limit-60s";q=100;qu="tokens";w=60'
    assert reply.headers["RateLimit"].startswith('"token_limit-60s";r=')
    status, body = reply.status, OpenAIChat().error_body(reply.problem)[1]
    assert status == 429
    assert b'"code":"token_limit"' in body


async def test_where_there_will_never_be_room_nobody_is_told_to_come_again(make_limit: MakeLimit) -> None:
    reply = refused(await make_limit(10, window_s=60, what="input").admit(make_request("x" * 400)))
    assert "Retry-After" not in reply.headers
    assert reply.headers["X-Should-Retry"] == "false"
    assert reply.headers["RateLimit"].startswith('"token_limit-input-60s";r=10')


async def test_a_refused_request_holds_nothing(make_limit: MakeLimit, host: FakeHost, charged: Charged) -> None:
    windows = [{"tokens": 50, "window_s": 60, "what": "input"}, {"tokens": 1000, "window_s": 60}]
    limit = make_limit(windows=windows)
    assert isinstance(await limit.admit(make_request("x" * 400)), Reply)
    await host.run_spawned()
    assert await charged("both", 60) == 0


async def test_who_was_refused_is_forgotten(make_limit: MakeLimit) -> None:
    limit = make_limit(1)
    assert isinstance(await limit.admit(make_request("x" * 400)), Reply)
    assert not limit._hands


async def test_an_admission_that_fails_holds_nothing(make_limit: MakeLimit, host: FakeHost, charged: Charged) -> None:
    class Broken(OpenAIChat):
        def ask_for_usage(self, request: Request) -> bool:
            raise RuntimeError("on purpose")

    limit = make_limit()
    with pytest.raises(RuntimeError):
        await limit.admit(make_request(dialect=Broken()))
    await host.run_spawned()
    assert await charged() == 0
    assert not limit._hands


async def test_an_admitted_reply_says_what_is_left(make_limit: MakeLimit) -> None:
    limit = make_limit(windows=[WINDOW, {"tokens": 300, "window_s": "total", "what": "output"}])
    request = make_request(dialect=OpenAIChat())
    stream = await limit.admit(request)
    assert isinstance(stream, PolicyStream)
    head = make_head(request, headers={"RateLimit": '"theirs";r=1'})
    stream.on_response(head)
    assert head.headers.getall("RateLimit-Policy") == [
        '"token_limit-60s";q=1000;qu="tokens";w=60, "token_limit-output";q=300;qu="tokens"'
    ]
    assert head.headers["RateLimit"].startswith('"theirs";r=1, "token_limit-60s";r=961;t=')
    assert head.headers["RateLimit"].endswith(', "token_limit-output";r=263')


# --- the state store is down


@pytest.mark.parametrize("on_state_error", ["refuse", "allow"])
async def test_a_store_that_is_down(make_limit: MakeLimit, host: FakeHost, on_state_error: str) -> None:
    host.state = Down()
    answer = await make_limit(on_state_error=on_state_error).admit(make_request())
    if on_state_error == "allow":
        assert isinstance(answer, PolicyStream)
    else:
        assert (refused(answer).status, refused(answer).details) == (503, "state_unavailable")
    assert host.counts["state_errors",] == 1


# --- usage


def usage_is_asked_for(request: Request) -> bool:
    return b'"include_usage":true' in (request.body or b"")


async def test_the_upstream_is_asked_for_usage(make_limit: MakeLimit) -> None:
    request = make_request(dialect=OpenAIChat())
    stream = await make_limit().admit(request)
    assert usage_is_asked_for(request)
    assert request.usage_hidden_by is stream
    assert not request.call.wants_usage


async def test_the_last_of_several_limits_hides_it(make_limit: MakeLimit) -> None:
    request = make_request(dialect=OpenAIChat())
    streams = [await make_limit().admit(request) for _ in range(2)]
    assert request.usage_hidden_by is streams[-1]


@pytest.mark.parametrize("how", ["off", "not a stream", "the client asks"])
async def test_where_it_is_not_asked_for_nothing_is_hidden(make_limit: MakeLimit, how: str) -> None:
    request = make_request(stream=how != "not a stream", dialect=OpenAIChat())
    if how == "the client asks":
        request.replace_body(b'{"stream": true, "stream_options": {"include_usage": true}}')
    body = request.body
    stream = await make_limit(ask_for_usage=how != "off").admit(request)
    assert isinstance(stream, PolicyStream)
    assert request.body == body
    assert request.usage_hidden_by is None


async def test_a_stream_that_never_began_costs_nothing(make_limit: MakeLimit, host: FakeHost, charged: Charged) -> None:
    stream = await make_limit().admit(make_request())
    assert isinstance(stream, PolicyStream)
    stream.close(Outcome(OutcomeKind.REFUSED, "other", "request_rate"))
    await host.run_spawned()
    assert await charged() == 0
