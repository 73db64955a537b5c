"""Who is let in and as whom, and that no key, good or bad, goes on from here."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from policies.auth import Auth, AuthConfig, Key, Keyring
from proxy.filewatch import WatchedFile
from proxy.identity import Identity
from proxy.messages import Headers, Reply, Request
from proxy.policy import PolicyStream
from proxy.problems import check
from proxy.testing import FakeHost, Simulation, check_policy, make_request

ALICE, BOB, STRANGER = "sk-alice-4711", "sk-bob-4712", "sk-stranger"
PLACES = ["Authorization", "x-api-key", "x-goog-api-key", "api-key", "?key="]


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


KEYS = (Key(id="alice", sha256=sha256(ALICE), tenant="acme"), Key(id="bob", sha256=sha256(BOB)))


def auth(now: float = 0.0, **keys: Any) -> Auth:
    return Auth(AuthConfig(**{"keys": KEYS, **keys}), FakeHost(), wall_clock=lambda: now)


def sent(*fields: tuple[str, str], query: str = "", fronted: bool = False) -> Request:
    request = make_request()
    request.headers = Headers([("Content-Type", "application/json"), *fields])
    request.query = query
    request.fronted = fronted
    request.identity = Identity(client="192.0.2.7")
    return request


def with_key(key: str, place: str = "Authorization") -> Request:
    if place == "?key=":
        return sent(query=f"alt=sse&key={key}")
    return sent((place, f"Bearer {key}" if place == "Authorization" else key))


async def refused(policy: Auth, request: Request) -> Reply:
    reply = await policy.admit(request)
    assert isinstance(reply, Reply)
    assert reply.details == "unauthorized"
    assert reply.body is None  # the dialect words it
    return reply


async def admitted(policy: Auth, request: Request) -> Identity:
    assert not isinstance(await policy.admit(request), Reply)
    return request.identity


async def test_the_contract() -> None:
    def request(text: str) -> Request:
        return make_request(text, headers={"Authorization": f"Bearer {ALICE}"})

    await check_policy(lambda host: Auth(AuthConfig(keys=KEYS), host), request=request, expected=lambda text: text)


# Keys


@pytest.mark.parametrize("place", PLACES)
async def test_a_key_is_found_where_each_provider_has_it(place: str) -> None:
    assert await admitted(auth(), with_key(ALICE, place)) == Identity("alice", "acme", "", "192.0.2.7")
    assert await admitted(auth(), with_key(BOB, place)) == Identity("bob", "", "", "192.0.2.7")


@pytest.mark.parametrize("value", [f"bearer {ALICE}", f"BEARER   {ALICE}", f"Bearer {ALICE} "])
async def test_the_scheme_is_read_generously(value: str) -> None:
    assert (await admitted(auth(), sent(("authorization", value)))).key_id == "alice"


@pytest.mark.parametrize("query", [f"key={ALICE}", "key=sk%2Dalice%2D4711", "%6Bey=sk-alice-4711"])
async def test_a_key_in_the_query_is_decoded(query: str) -> None:
    assert (await admitted(auth(), sent(query=query))).key_id == "alice"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", [ALICE, STRANGER])
@pytest.mark.parametrize("choice", ["refuse", "anonymous"])
async def test_no_key_goes_on(place: str, key: str, choice: str) -> None:
    request = with_key(key, place)
    answer = await auth(unknown=choice).admit(request)
    assert key not in f"{request.headers} {request.query} {request.identity}"
    assert request.headers == Headers({"Content-Type": "application/json"})
    assert request.query == ("alt=sse" if place == "?key=" else "")
    if isinstance(answer, Reply):
        assert key not in f"{answer.headers} {answer.problem}"


async def test_what_else_is_in_the_query_stays_as_it_was() -> None:
    request = sent(query=f"a=%2f&key={ALICE}&&keys=1&b&KEY=2")
    await admitted(auth(), request)
    assert request.query == "a=%2f&&keys=1&b&KEY=2"


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Bearer ", "", ALICE])
async def test_another_scheme_is_no_key_and_does_not_go_on(value: str) -> None:
    request = sent(("Authorization", value))
    await refused(auth(), request)
    assert "Authorization" not in request.headers


async def test_the_same_key_in_two_places_is_one() -> None:
    request = sent(("Authorization", f"Bearer {ALICE}"), ("x-api-key", ALICE), query=f"key={ALICE}")
    assert (await admitted(auth(), request)).key_id == "alice"


@pytest.mark.parametrize(
    "request_",
    [
        sent(("Authorization", f"Bearer {ALICE}"), ("x-api-key", BOB)),
        sent(("x-api-key", ALICE), ("x-api-key", BOB)),
        sent(("x-api-key", ALICE), query=f"key={STRANGER}"),
        sent(query=f"key={ALICE}&key={BOB}"),
    ],
)
async def test_different_keys_are_refused(request_: Request) -> None:
    reply = await refused(auth(unknown="anonymous", missing="anonymous"), request_)
    assert reply.status == 400
    assert reply.headers["WWW-Authenticate"] == 'Bearer error="invalid_request"'  # RFC 6750 §3.1


@pytest.mark.parametrize(
    "request_",
    [
        sent(("x-api-key", "a\tb")),
        sent(("x-api-key", "caf\u00e9")),
        sent(("x-api-key", "\udc80")),  # bytes that are no UTF-8
        sent(("x-api-key", "x" * 513)),
        sent(("x-api-key", "x" * 1_000_000)),
        sent(query="key=a%00b"),
        sent(query="key=a%0d%0ab"),
        sent(query="key=%ff"),
        sent(query="key=+"),
    ],
)
async def test_what_cannot_be_a_key_is_refused(request_: Request) -> None:
    reply = await refused(auth(unknown="anonymous", missing="anonymous"), request_)
    assert reply.status == 401
    assert "too long" in reply.problem.message


async def test_a_missing_key() -> None:
    reply = await refused(auth(), sent())
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer" in reply.problem.message
    assert await admitted(auth(missing="anonymous"), sent()) == Identity(client="192.0.2.7")


async def test_an_unknown_key() -> None:
    reply = await refused(auth(missing="anonymous"), with_key(STRANGER))
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert "not known" in reply.problem.message
    assert await admitted(auth(unknown="anonymous"), with_key(STRANGER)) == Identity(client="192.0.2.7")


async def test_a_key_expires() -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    keys = (Key(id="alice", sha256=sha256(ALICE), expires=end),)
    at = end.timestamp()
    assert (await admitted(auth(at - 1, keys=keys), with_key(ALICE))).key_id == "alice"
    reply = await refused(auth(at, keys=keys), with_key(ALICE))
    assert "expired" in reply.problem.message
    assert await admitted(auth(at, keys=keys, unknown="anonymous"), with_key(ALICE)) == Identity(client="192.0.2.7")


def test_keys_are_found_among_many_that_begin_alike() -> None:
    keys = [Key(id=f"k{number}", sha256=f"{sha256(ALICE)[:60]}{number:04x}") for number in range(100)]
    ring = Keyring([*keys[:50], *KEYS, *keys[50:]])
    assert ring.find(ALICE) == KEYS[0]
    assert ring.find(STRANGER) is None


async def test_the_log_is_told_the_names_and_never_a_key() -> None:
    stream = await auth().admit(with_key(ALICE))
    assert isinstance(stream, PolicyStream)
    assert stream.facts() == {"key": "alice", "tenant": "acme"}
    stream = await auth().admit(with_key(BOB))
    assert isinstance(stream, PolicyStream)
    assert stream.facts() == {"key": "bob"}


async def test_somebody_anonymous_costs_nothing() -> None:
    assert await auth(missing="anonymous").admit(sent()) is None


async def test_the_reply_passes_untouched() -> None:
    exchange = await Simulation.admit(auth(), with_key(ALICE))
    exchange.start()
    assert exchange.respond() is None
    assert exchange.read(b"data: x\n\n")[0].raw == b"data: x\n\n"


# The word of a front


def named(*subjects: str, fronted: bool = True, key: str = "") -> Request:
    fields = [("X-User", subject) for subject in subjects]
    return sent(*fields, *([("x-api-key", key)] if key else []), fronted=fronted)


async def test_a_trusted_front_says_who_it_is() -> None:
    policy = auth(identity_header="x-user")
    assert await admitted(policy, named("ann@example.org")) == Identity(subject="ann@example.org", client="192.0.2.7")
    both = await admitted(policy, named("ann@example.org", key=ALICE))
    assert both == Identity("alice", "acme", "ann@example.org", "192.0.2.7")


async def test_nobody_else_is_believed() -> None:
    request = named("ann@example.org", fronted=False)
    await refused(auth(identity_header="X-User"), request)
    assert "X-User" not in request.headers
    request = named("ann@example.org", fronted=False)
    policy = auth(identity_header="X-User", missing="anonymous")
    assert await admitted(policy, request) == Identity(client="192.0.2.7")
    assert "X-User" not in request.headers


async def test_what_the_front_says_does_not_go_on() -> None:
    request = named("ann@example.org")
    await admitted(auth(identity_header="X-User"), request)
    assert "X-User" not in request.headers


async def test_without_the_key_of_the_configuration_it_is_a_field_like_others() -> None:
    request = named("ann@example.org")
    await refused(auth(), request)
    assert request.headers["X-User"] == "ann@example.org"


@pytest.mark.parametrize("subjects", [(), ("",)])
async def test_a_front_that_says_nothing(subjects: tuple[str, ...]) -> None:
    await refused(auth(identity_header="X-User"), named(*subjects))


async def test_a_subject_does_not_make_a_wrong_key_right() -> None:
    await refused(auth(identity_header="X-User"), named("ann@example.org", key=STRANGER))


@pytest.mark.parametrize("subjects", [("ann", "bob"), ("", "bob"), ("a\x00b",), ("\udc80",), ("x" * 257,)])
async def test_a_subject_that_cannot_be_used_is_refused(subjects: tuple[str, ...]) -> None:
    policy = auth(identity_header="X-User", missing="anonymous")
    reply = await refused(policy, named(*subjects))
    assert reply.status == 401
    assert "identity" in reply.problem.message


async def test_names_need_not_be_ascii() -> None:
    assert (await admitted(auth(identity_header="X-User"), named("José Müller"))).subject == "José Müller"


# The configuration


def problems(given: object) -> list[str]:
    found = check(AuthConfig, given, "policy")
    assert isinstance(found, list)
    return [str(problem) for problem in found]


def test_entries_as_toml_has_them() -> None:
    moment = datetime(2030, 12, 31, 23, 59, 59, tzinfo=UTC)
    config = check(AuthConfig, {"keys": [{"id": "a", "sha256": "0" * 64, "expires": moment}]}, "policy")
    assert isinstance(config, AuthConfig)
    assert config.keys == (Key(id="a", sha256="0" * 64, expires=moment),)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": "a"}, "keys[1].sha256: is missing"),
        ({"id": "a b", "sha256": "0" * 64}, "keys[1].id: must be 1 to 64 letters"),
        ({"id": "a", "sha256": ALICE}, "keys[1].sha256: must be the SHA-256 of a key"),
        ({"id": "a", "sha256": "A" * 64}, "keys[1].sha256: must be the SHA-256 of a key"),
        ({"id": "a", "sha256": "0" * 64, "tenant": ""}, "keys[1].tenant: must be 1 to 64 letters"),
        ({"id": "a", "sha256": "0" * 64, "expires": "2030-12-31"}, "keys[1].expires: must be a date and time"),
        ({"id": "a", "sha256": "0" * 64, "expires": "2030-12-31T00:00:00"}, "keys[1].expires: must be a date and time"),
        ({"id": "a", "sha256": "0" * 64, "expires": 7}, "keys[1].expires: must be a date and time"),
        ({"id": "a", "sha256": "0" * 64, "expire": "x"}, "keys[1].expire: unknown key"),
    ],
)
def test_mistakes_in_an_entry(entry: dict[str, Any], message: str) -> None:
    (problem,) = problems({"keys": [entry]})
    assert message in problem
    assert ALICE not in problem


def test_keys_differ() -> None:
    one, other = {"id": "a", "sha256": "0" * 64}, {"id": "b", "sha256": "1" * 64}
    assert "same id: a" in problems({"keys": [one, other | {"id": "a"}]})[0]
    assert "same key under several ids: a, b" in problems({"keys": [one, other | {"sha256": "0" * 64}]})[0]


@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key", "", "X User", "X-User:"])
def test_a_header_that_cannot_name_anybody(header: str) -> None:
    with pytest.raises(ValidationError):
        AuthConfig(identity_header=header)


def write(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "keys.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


async def test_keys_in_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f'keys = [\n  {{ id = "carol", sha256 = "{sha256(STRANGER)}", expires = 2030-12-31T23:59:59Z }},\n]\n',
    )
    config = check(AuthConfig, {"keys_file": path}, "policy")
    assert isinstance(config, AuthConfig)
    assert isinstance(config.keys_file, WatchedFile)
    assert config.watched == (config.keys_file,)
    assert AuthConfig(keys=KEYS).watched == ()
    assert (await admitted(auth(keys_file=config.keys_file), with_key(STRANGER))).key_id == "carol"
    assert (await admitted(auth(keys_file=config.keys_file), with_key(ALICE))).key_id == "alice"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("keys = [", ["is not valid TOML"]),
        (b"keys = '\xff'", ["is not text"]),
        ("", ["keys: is missing"]),
        ("keys = []\nkey = 1\n", ["key: unknown key (did you mean 'keys'?)"]),
        ('[[keys]]\nid = "a"\n[[keys]]\nid = 7\nsha256 = "x"\n', ["keys[1].sha256", "keys[2].id", "keys[2].sha256"]),
        ("keys = " + "[" * 100_000, ["is nested too deeply"]),
    ],
)
def test_all_mistakes_in_a_file_are_told(tmp_path: Path, text: str | bytes, messages: list[str]) -> None:
    path = write(tmp_path, text)
    (problem,) = problems({"keys_file": path})
    assert problem.startswith("[policy] keys_file: ")
    for message in [path, *messages]:
        assert message in problem


@pytest.mark.parametrize("path", ["keys.toml", "", "/nowhere/keys.toml", 7])
def test_a_file_that_cannot_be_read(path: object) -> None:
    assert problems({"keys_file": path})[0].startswith("[policy] keys_file: ")


def test_keys_differ_also_from_those_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, f'keys = [{{ id = "alice", sha256 = "{"0" * 64}" }}]')
    entry = {"id": "alice", "sha256": "1" * 64}
    assert "same id: alice" in problems({"keys": [entry], "keys_file": path})[0]


@pytest.mark.parametrize(
    "keys",
    [
        {"keys": KEYS},
        {"identity_header": "X-User"},
        {"missing": "anonymous"},
        {"unknown": "anonymous"},
    ],
)
def test_somebody_must_get_in(keys: dict[str, Any]) -> None:
    AuthConfig(**keys)
    (problem,) = problems({})
    assert problem.startswith("[policy] lets nobody in")
    assert "penstock hash-key" in problem


def test_what_it_tells_and_needs(tmp_path: Path) -> None:
    assert set(AuthConfig(keys=KEYS).tells) == {"key", "tenant"}
    assert set(AuthConfig(keys=KEYS[1:]).tells) == {"key"}  # no key has a tenant
    assert set(AuthConfig(missing="anonymous").tells) == set()
    front = AuthConfig(identity_header="X-User")
    assert (set(front.tells), front.needs) == ({"subject"}, {"identity_header": "front"})
    assert AuthConfig(keys=KEYS).needs == {}
    in_file = check(AuthConfig, {"keys_file": write(tmp_path, "keys = []")}, "policy")
    assert isinstance(in_file, AuthConfig)
    assert set(in_file.tells) == {"key", "tenant"}  # as soon as somebody writes them there


# A keys file that is edited


def keys_file(*keys: str) -> str:
    return "\n".join(f'[[keys]]\nid = "{key}"\nsha256 = "{sha256(key)}"' for key in keys) or "keys = []"


def edit(path: str, text: str) -> None:
    """By putting another file in its place."""
    new = Path(path).with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def reading(path: str, context: dict[str, str] | None = None) -> tuple[Auth, WatchedFile[tuple[Key, ...]]]:
    config = check(AuthConfig, {"keys_file": path}, "policy", context=context)
    assert isinstance(config, AuthConfig)
    assert config.keys_file is not None
    return Auth(config, FakeHost()), config.keys_file


async def test_a_key_that_is_taken_out_of_the_file_is_good_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy, file = reading(path := write(tmp_path, keys_file(ALICE, BOB)))
    assert (await admitted(policy, with_key(BOB))).key_id == BOB
    edit(path, keys_file(ALICE, STRANGER))
    with caplog.at_level("INFO"):
        await policy.renew(file)
    await refused(policy, with_key(BOB))
    assert (await admitted(policy, with_key(STRANGER))).key_id == STRANGER
    assert "2 keys" in caplog.text
    assert sha256(STRANGER) not in caplog.text


@pytest.mark.parametrize("text", ["keys = [", f'[[keys]]\nid = "a"\nsha256 = "{BOB}"', keys_file(BOB, BOB)])
async def test_a_file_that_is_not_right_changes_nothing(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy, file = reading(path := write(tmp_path, keys_file(ALICE)))
    edit(path, text)
    for _ in range(2):
        await policy.renew(file)
    assert (await admitted(policy, with_key(ALICE))).key_id == ALICE
    await refused(policy, with_key(BOB))
    (told,) = caplog.messages
    assert "goes on with the keys that it has" in told
    if text != keys_file(BOB, BOB):  # where the ids are named
        assert BOB not in told
    edit(path, keys_file(BOB))
    await policy.renew(file)
    assert (await admitted(policy, with_key(BOB))).key_id == BOB


async def test_keys_that_clash_with_those_of_the_configuration_change_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, keys_file(STRANGER))
    inline = {"id": "alice", "sha256": sha256(ALICE)}
    config = check(AuthConfig, {"keys": [inline], "keys_file": path}, "policy")
    assert isinstance(config, AuthConfig)
    assert config.keys_file is not None
    policy = Auth(config, FakeHost())
    edit(path, keys_file(ALICE))
    await policy.renew(config.keys_file)
    assert (await admitted(policy, with_key(ALICE))).key_id == "alice"
    assert (await admitted(policy, with_key(STRANGER))).key_id == STRANGER


async def test_a_process_that_starts_while_the_file_is_spoilt_knows_the_keys_of_before(tmp_path: Path) -> None:
    path = write(tmp_path, "keys = [")
    policy, _ = reading(path, context={path: keys_file(ALICE)})
    assert (await admitted(policy, with_key(ALICE))).key_id == ALICE
    assert "not valid TOML" in problems({"keys_file": path})[0]


async def test_a_fault_of_ours_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy, file = reading(path := write(tmp_path, keys_file(ALICE)))
    with monkeypatch.context() as patch:
        patch.setattr(file, "look", lambda: 1 / 0)
        await policy.renew(file)
    assert "ZeroDivisionError" in caplog.text
    edit(path, keys_file(BOB))
    await policy.renew(file)
    assert (await admitted(policy, with_key(BOB))).key_id == BOB


async def test_the_file_is_watched_from_start_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.auth.LOOK_EVERY_S", 0.001)
    policy, _ = reading(path := write(tmp_path, keys_file(ALICE)))
    await policy.start()
    edit(path, keys_file(BOB))
    async with asyncio.timeout(20):
        while isinstance(await policy.admit(with_key(BOB)), Reply):
            await asyncio.sleep(0)
    await policy.stop()
    assert len(asyncio.all_tasks()) == 1


async def test_without_a_file_nothing_runs() -> None:
    policy = auth()
    await policy.start()
    assert len(asyncio.all_tasks()) == 1
    await policy.stop()
