"""The list of top-level domains: what must be in it, in which forms."""

from __future__ import annotations

import pytest

from policies.redaction.tlds import TOP_LEVEL_DOMAINS


@pytest.mark.parametrize("name", ["com", "org", "de", "museum", "xn--p1ai", "рф", "中国", "test", "internal", "onion"])
def test_a_top_level_domain_is_known(name: str) -> None:
    assert name in TOP_LEVEL_DOMAINS


@pytest.mark.parametrize("name", ["", "COM", "transpose", "py3", "0", "x"])
def test_what_is_none_is_not_in_it(name: str) -> None:
    assert name not in TOP_LEVEL_DOMAINS


def test_it_is_the_whole_root_zone() -> None:
    assert len([name for name in TOP_LEVEL_DOMAINS if name.isascii() and len(name) == 2]) > 240
    assert len(TOP_LEVEL_DOMAINS) > 1500
