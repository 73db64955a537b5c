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
