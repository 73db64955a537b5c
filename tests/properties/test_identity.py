"""No two who are to be counted apart are counted together, whatever they are called, and whatever they call themselves."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import identity, state
from proxy.identity import Identity, Per
from proxy.testing import make_request

PARTS = ["a", "b", "/", "%", "2F", ":", "#", "\n", "\0", "\ud800", "é"]
NAMES = st.lists(st.sampled_from(PARTS), max_size=4).map("".join) | st.text()
CLIENTS = st.sampled_from(["", "192.0.2.7", "192.0.2.8", "2001:db8::1", "2001:db8:0:1::1", "a/b", "key:a"])
IDENTITIES = st.builds(Identity, NAMES, NAMES, NAMES, CLIENTS)


def who_counts(per: Per, who: Identity) -> tuple[str, ...]:
    """By what the two are told apart, as plainly as it can be said."""
    if per == "identity":
        per = "subject" if who.subject else "key" if who.key_id else "client"
    return {
        "subject": ("subject", who.tenant, who.subject),
        "key": ("key", who.tenant, who.key_id),
        "tenant": ("tenant", who.tenant),
        "client": ("client", who.client),
    }[per]


def store_key(per: Per, who: Identity) -> str:
    request = make_request()
    request.identity = who
    return state.key("limit", identity.of(per, request))


@pytest.mark.parametrize(
    "per", [per for per in get_args(get_args(Per)[0]) if per not in ("model", "route", "upstream", "all")]
)
@given(one=IDENTITIES, other=IDENTITIES)
def test_two_share_a_count_only_where_they_are_the_same(per: Per, one: Identity, other: Identity) -> None:
    same = who_counts(per, one) == who_counts(per, other)
    assert (store_key(per, one) == store_key(per, other)) == same


@given(IDENTITIES)
def test_kinds_never_meet(who: Identity) -> None:
    kinds: list[Per] = ["key", "tenant", "subject", "client", "all"]
    assert len({store_key(per, who) for per in kinds}) == len(kinds)
