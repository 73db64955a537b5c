"""API keys, and the word of a trusted front, on the wire: who is let in, and that no key goes anywhere."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest
from rigs.penstock import Penstock, StartPenstock, configuration, run, side_by_side
from rigs.raw_client import connect, get
from rigs.raw_upstream import CHAT_EVENTS, RawUpstream, streams
from rigs.waiting import until

KEY, WRONG = "sk-alice-0123456789", "sk-wrong-9876543210"
ENTRY = {"id": "alice", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "tenant": "acme"}
AUTH: dict[str, Any] = {"policy": [{"use": "auth", "keys": [ENTRY]}], "log": {"level": "debug"}}
EACH_ONCE = {"use": "request_rate", "windows": [{"requests": 1, "window_s": 86400}]}


@pytest.fixture
def proxy(penstock: StartPenstock) -> Penstock:
    return penstock(AUTH)


async def test_the_openai_client_with_a_key_and_without(proxy: Penstock, upstream: RawUpstream) -> None:
    upstream.script = streams(*CHAT_EVENTS)
    for key in (WRONG, KEY):
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=key, max_retries=0) as client:
            asked = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
            if key == WRONG:
                with pytest.raises(openai.AuthenticationError) as caught:
                    await asked
                assert caught.value.code == "unauthorized"
                assert caught.value.response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
            else:
                assert [part async for part in await asked]


@pytest.mark.parametrize("place", ["Authorization: Bearer ", "x-api-key: ", "x-goog-api-key: ", "api-key: ", "?key="])
async def test_no_key_goes_on_or_into_the_log(proxy: Penstock, upstream: RawUpstream, place: str) -> None:
    name = "".join(filter(str.isalpha, place))
    for key, id in ((WRONG, f"wrong-{name}"), (KEY, f"right-{name}")):
        target, fields = (f"/v1/x?n=1&key={key}", []) if place == "?key=" else ("/v1/x?n=1", [place + key])
        async with connect(proxy.address) as client:
            answer = await client.exchange(get(target, *fields, f"X-Request-Id: {id}"))
        assert key not in str(answer)
        record = await proxy.log.find(id=id)
        assert record["outcome"] == ("refused" if key == WRONG else "complete")
    request = await upstream.request()
    assert request.target == "/v1/x?n=1"
    assert KEY not in str(request)
    assert KEY not in proxy.output
    assert WRONG not in proxy.output
    async with connect(proxy.addresses["admin"]) as client:
        assert KEY not in str(await client.exchange(get("/metrics")))


@pytest.mark.parametrize(
    "field",
    ["x-api-key: k\xe9y", "x-api-key: a\tb", "x-api-key: a b", f"x-api-key: {'x' * 513}", f"api-key: {'x' * 8000}",
     "?key=a%00b", "?key=a%0d%0aX-Real-IP:%201.1.1.1", "?key=%ff", "?key=" + "x" * 5000, "Authorization: Bearer \xff\xfe"],
    ids=lambda field: field[:24],
)  # fmt: skip
async def test_what_cannot_be_a_key_is_refused_and_goes_nowhere(
    proxy: Penstock, upstream: RawUpstream, field: str
) -> None:
    target, fields = (f"/{field}", []) if field.startswith("?") else ("/", [field])
    async with connect(proxy.address) as client:
        answer = await client.exchange(get(target, *fields))
        assert answer.status == 401
        assert "too long, or has characters that no key has" in answer.body.decode()
        assert (await client.exchange(get("/", f"x-api-key: {KEY}"))).status == 200  # the connection goes on
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("byte", ["\0", "\x01", "\x1b", "\x7f"])
async def test_control_characters_in_a_field_are_no_http(proxy: Penstock, upstream: RawUpstream, byte: str) -> None:
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("/", f"x-api-key: a{byte}b"))).status in (400, 401)
    assert not upstream.requests


async def test_the_same_name_in_two_tenants_is_two_keys(penstock: StartPenstock, upstream: RawUpstream) -> None:
    keys = {tenant: f"sk-of-{tenant}-0123456789" for tenant in ("acme", "corp")}
    auths = [
        {
            "use": "auth",
            "name": tenant,
            "routes": [tenant],
            "keys": [{"id": "admin", "sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": tenant}],
        }
        for tenant, key in keys.items()
    ]
    proxy = penstock(side_by_side(*keys), {"policy": [*auths, EACH_ONCE]})
    for status in (200, 429):
        for tenant, key in keys.items():
            async with connect(proxy.address) as client:
                assert (await client.exchange(get(f"/{tenant}/", f"x-api-key: {key}"))).status == status


async def test_the_access_log_names_the_key(proxy: Penstock, upstream: RawUpstream) -> None:
    async with connect(proxy.address) as client:
        await client.exchange(get("/", f"x-api-key: {KEY}", "X-Request-Id: named"))
    record = await proxy.log.find(id="named")
    assert record["facts"]["auth"] == {"key": "alice", "tenant": "acme"}


async def test_keys_in_a_file(penstock: StartPenstock, upstream: RawUpstream, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f'keys = [\n  {{ id = "alice", sha256 = "{ENTRY["sha256"]}" }},\n]\n')
    proxy = penstock({"policy": [{"use": "auth", "keys_file": str(path)}]})
    async with connect(proxy.address) as client:
        assert (await client.exchange(get("/", f"api-key: {KEY}"))).status == 200


def _entries(*keys: str) -> str:
    return "\n".join(f'[[keys]]\nid = "{key}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"' for key in keys)


async def _answers(proxy: Penstock, key: str, times: int = 8) -> set[int]:
    """What requests with this key are answered, each on a connection of its own, so that every worker is asked."""
    statuses = set()
    for _ in range(times):
        async with connect(proxy.address) as client:
            statuses.add((await client.exchange(get("/", f"api-key: {key}"))).status)
    return statuses


def said(proxy: Penstock, words: str) -> int:
    return sum(words in line for line in proxy.operational_log)


async def test_an_edited_keys_file_holds_in_all_workers_and_a_spoilt_one_in_none(
    upstream: RawUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(_entries(KEY, "sk-bob"))
    tables = {"policy": [{"use": "auth", "keys_file": str(path)}, {"use": "rig_worker"}], "server": {"workers": 2}}
    with run(configuration(upstream.url, tables), tmp_path) as proxy:
        await until(lambda: len(proxy.events("worker_ready")) == 2, "two workers")
        assert await _answers(proxy, "sk-bob") == {200}
        path.write_text(_entries(KEY))
        await until(lambda: len(proxy.events("file_changed")) == 1, "the supervisor knows")
        await until(lambda: said(proxy, ": 1 keys") == 2, "both workers know")
        assert await _answers(proxy, "sk-bob") == {401}
        assert await _answers(proxy, KEY) == {200}
        path.write_text(_entries(KEY, "sk-bob")[:-10])
        await until(lambda: said(proxy, "goes on with the keys") == 2, "both complain")
        os.kill(proxy.events("worker_ready")[0]["pid"], signal.SIGKILL)
        await until(lambda: len(proxy.events("worker_ready")) == 3, "another worker")
        assert await _answers(proxy, KEY) == {200}
        assert await _answers(proxy, "sk-bob") == {401}
        path.write_text(_entries("sk-bob", "sk-carol"))
        await until(lambda: said(proxy, ": 2 keys") == 2, "both workers know")
        assert await _answers(proxy, "sk-bob") == {200}
        assert await _answers(proxy, KEY) == {401}
        assert hashlib.sha256(KEY.encode()).hexdigest() not in proxy.output


async def test_nobody_but_the_front_is_believed(penstock: StartPenstock, upstream: RawUpstream) -> None:
    policies = [{"use": "auth", "identity_header": "X-User"}]
    proxy = penstock({"policy": policies, "server": {"trusted_proxies": 1, "trusted_from": ["192.0.2.0/24"]}})
    async with connect(proxy.address) as client:
        assert (await client.exchange(_named("ann", "192.0.2.7"))).status == 401
    assert upstream.requests == []
    assert (await proxy.log.find(status=401))["client"] == "127.0.0.1"


def _named(user: str, forwarded_for: str | None) -> bytes:
    return get("/", f"X-User: {user}", *([] if forwarded_for is None else [f"X-Forwarded-For: {forwarded_for}"]))


async def test_a_trusted_front_names_its_users(penstock: StartPenstock, upstream: RawUpstream) -> None:
    policies = [{"use": "auth", "identity_header": "X-User"}, EACH_ONCE]
    proxy = penstock({"policy": policies, "server": {"trusted_proxies": 1, "trusted_from": ["127.0.0.0/8"]}})
    async with connect(proxy.address) as client:
        statuses = [
            (await client.exchange(_named(user, "192.0.2.7"))).status for user in ("ann", "bob", "ann", "bob", "carol")
        ]
        assert statuses == [200, 200, 429, 429, 200]
        assert (await client.exchange(_named("dave", None))).status == 401  # it came past the front
    assert (await upstream.request()).head.get("X-User") is None


async def test_without_one_nobody_chooses_whom_to_count_for(penstock: StartPenstock, upstream: RawUpstream) -> None:
    policies = [{"use": "auth", "identity_header": "X-User", "missing": "anonymous"}, EACH_ONCE]
    proxy = penstock({"policy": policies, "server": {"trusted_proxies": 1, "trusted_from": ["192.0.2.0/24"]}})
    async with connect(proxy.address) as client:
        statuses = [(await client.exchange(_named(f"u{n}", f"192.0.2.{n}"))).status for n in range(3)]
    assert statuses == [200, 429, 429]
    assert (await upstream.request()).head.get("X-User") is None
