"""Who a request counts for, and that nobody counts for anybody else."""

from __future__ import annotations

from typing import get_args

import pytest

from proxy import identity, state
from proxy.identity import Identity, Per
from proxy.messages import Request
from proxy.testing import make_request

EVERYTHING = Identity("alice", "acme", "user-7", "192.0.2.7")


def request(who: Identity = EVERYTHING, route: str = "chat") -> Request:
    made = make_request()
    made.identity = who
    made.route = route
    made.upstream = "vllm"
    return made


@pytest.mark.parametrize(
    ("per", "name"),
    [
        ("identity", "subject:acme/user-7"),
        ("key", "key:acme/alice"),
        ("tenant", "tenant:acme"),
        ("subject", "subject:acme/user-7"),
        ("client", "client:192.0.2.7"),
        ("model", "model:test"),
        ("route", "route:chat"),
        ("upstream", "upstream:vllm"),
        ("all", "all"),
    ],
)
def test_each_kind_has_a_name_of_its_own(per: Per, name: str) -> None:
    assert identity.of(per, request()) == name


def test_these_are_all_kinds() -> None:
    names = [identity.of(per, request()) for per in get_args(get_args(Per)[0]) if per != "identity"]
    assert len(set(names)) == len(names) == 8


@pytest.mark.parametrize(
    ("who", "name"),
    [
        (EVERYTHING, "subject:acme/user-7"),
        (Identity(key_id="alice", tenant="acme", client="192.0.2.7"), "key:acme/alice"),
        (Identity(key_id="alice", client="192.0.2.7"), "key:alice"),
        (Identity(subject="user-7", client="192.0.2.7"), "subject:/user-7"),
        (Identity(client="192.0.2.7"), "client:192.0.2.7"),
        (Identity(), "client:"),
    ],
)
def test_the_most_specific_that_is_known(who: Identity, name: str) -> None:
    assert identity.of("identity", request(who)) == name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Identity(key_id="a"), Identity(subject="a")),
        (Identity(key_id="192.0.2.7"), Identity(client="192.0.2.7")),
        (Identity(tenant="acme", subject="a"), Identity(tenant="corp", subject="a")),
        (Identity(tenant="acme", key_id="a"), Identity(tenant="corp", key_id="a")),
        (Identity(tenant="acme", key_id="a"), Identity(key_id="a")),
        (Identity(tenant="acme/a", subject="b"), Identity(tenant="acme", subject="a/b")),
        (Identity(tenant="acme", subject="a"), Identity(subject="acme/a")),
        (Identity(tenant="acme", key_id="a"), Identity(key_id="acme/a")),
        (Identity(subject="x" * 200 + "1"), Identity(subject="x" * 200 + "2")),
        (Identity(subject="a\nb"), Identity(subject="a b")),
    ],
)
def test_nobody_counts_for_another(one: Identity, other: Identity) -> None:
    keys = {state.key("policy", identity.of("identity", request(who))) for who in (one, other)}
    assert len(keys) == 2


@pytest.mark.parametrize("per", ["key", "tenant", "subject"])
def test_those_who_have_none_share_one_count(per: Per) -> None:
    names = {identity.of(per, request(Identity(client=client))) for client in ("192.0.2.7", "192.0.2.8")}
    assert len(names) == 1
    assert identity.of(per, request()) not in names


@pytest.mark.parametrize(
    ("client", "name"),
    [
        ("2001:db8:1:2:3:4:5:6", "client:2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "client:2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "client:2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "client:192.0.2.7"),
        ("", "client:"),
        ("not an address", "client:not an address"),
    ],
)
def test_addresses_that_one_client_can_choose_from_count_as_one(client: str, name: str) -> None:
    assert identity.of("client", request(Identity(client=client))) == name


def test_a_request_without_a_model_counts_as_such() -> None:
    made = request()
    made.replace_body(b"not JSON")
    assert identity.of("model", made) == "model:"


def test_until_more_is_known_it_is_the_address() -> None:
    made = make_request()
    assert made.identity == Identity(client=made.client)


def test_the_digest_is_what_sha256sum_prints() -> None:
    assert identity.digest("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
