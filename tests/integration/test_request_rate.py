"""Request rates on the wire."""

from __future__ import annotations

from functools import partial

import openai
import pytest
from rigs.penstock import StartPenstock
from rigs.raw_client import connect, get
from rigs.raw_upstream import RawUpstream

HOUR = {"use": "request_rate", "per": "all", "windows": [{"requests": 2, "window_s": 3600}]}


async def test_the_fields_and_the_refusal(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"policy": [HOUR]})
    async with connect(proxy.address) as client:
        answers = [await client.exchange(get("/", f"X-Request-Id: rate-{number}")) for number in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    levels = [(answer.head.get("RateLimit") or "").partition(";t=")[0] for answer in answers]
    assert levels == ['"request_rate-3600s";r=1', '"request_rate-3600s";r=0', '"request_rate-3600s";r=0']
    assert {answer.head.get("RateLimit-Policy") for answer in answers} == {'"request_rate-3600s";q=2;w=3600'}
    assert 0 < int(answers[2].head.get("Retry-After") or "") <= 3600
    record = await proxy.log.find(id="rate-2")
    assert (record["outcome"], record["source"], record["details"]) == ("refused", "request_rate", "request_rate")


async def test_the_openai_client_raises_its_own_error(penstock: StartPenstock, upstream: RawUpstream) -> None:
    proxy = penstock({"policy": [{**HOUR, "per": "model"}]})  # a process of its own, which reads the body first
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        ask = partial(client.chat.completions.with_raw_response.create, messages=[{"role": "user", "content": "hi"}])
        for model in ("large", "large", "small"):
            await ask(model=model)
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(model="large")
    assert caught.value.code == "request_rate"
    assert int(caught.value.response.headers["Retry-After"]) > 0


GARBAGE = [
    "",
    ",",
    "unknown",
    "_hidden",
    "127.0.0.1:80",
    "' OR 1=1 --",
    "%00",
    "\u00ff\u00fe",
    "{{7*7}}",
    "1" * 8000,
    "a," * 4000,
]


@pytest.mark.parametrize(
    ("trusted", "own", "forged"),
    [
        (0, [], [["203.0.113.9"], ["127.0.0.9"], ["203.0.113.8, 203.0.113.9"], ["::1"]]),
        (1, ["203.0.113.9"], [["6.6.6.6, 203.0.113.9"], ["6.6.6.6", "203.0.113.9"], ["6.6.6.6,,203.0.113.9"]]),
        (
            2,
            ["203.0.113.9, 198.51.100.1"],
            [
                ["6.6.6.6, 203.0.113.9, 198.51.100.1"],
                ["6.6.6.6", "7.7.7.7, 203.0.113.9", "198.51.100.1"],
                ["203.0.113.9, 198.51.100.2"],
            ],
        ),
    ],
)
async def test_no_forged_field_makes_a_client_another(
    penstock: StartPenstock, upstream: RawUpstream, trusted: int, own: list[str], forged: list[list[str]]
) -> None:
    """`own` is what the fronts send for a client that claims nothing, `forged` for one that does. Whoever came past them, or
    says what is no address, counts by the connection's address."""
    once = {"use": "request_rate", "per": "client", "windows": [{"requests": 1, "window_s": 86400}]}
    proxy = penstock({"policy": [once], "server": {"trusted_proxies": trusted}})

    async def status(*values: str) -> int:
        async with connect(proxy.address) as client:
            return (await client.exchange(get("/", *(f"X-Forwarded-For: {value}" for value in values)))).status

    assert await status(*own) == 200
    assert [await status(*fields) for fields in forged] == [429] * len(forged)
    if trusted:
        assert await status() == 200
    fronts = ", 198.51.100.1" * (trusted - 1)
    assert [await status(value + fronts) for value in GARBAGE] == [429] * len(GARBAGE)
