"""Configurations of Penstock: pass-through, each policy alone, and the full chain. Pure text."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

API_KEY = "sk-bench"  # what the load generator sends
ORIGIN = "http://localhost:3000"
_PLENTY = 1 << 40  # no limit is met: what is measured is what it costs to look

ALONE: Mapping[str, Mapping[str, Any]] = {
    "auth": {"keys": [{"id": "bench", "sha256": hashlib.sha256(API_KEY.encode()).hexdigest()}]},
    "cors": {"allow_origins": [ORIGIN]},
    "request_rate": {"windows": [{"requests": _PLENTY, "window_s": 60}]},
    "stream_cap": {"cap": 1_000_000},
    "idle_timeout": {},
    "redaction": {},
    "token_limit": {"windows": [{"tokens": _PLENTY, "window_s": 60}]},
    "heartbeat": {},
    "compression": {},
}
"""Every policy with its settings, in the order of a chain; what is not set is its default."""

FULL = ("auth", "stream_cap", "idle_timeout", "redaction", "token_limit", "heartbeat", "compression")


def installed() -> frozenset[str]:
    """The policies that a configuration may use."""
    return frozenset(entry.name for entry in importlib.metadata.entry_points(group="penstock.policies"))


def chain(names: Sequence[str], available: frozenset[str]) -> list[dict[str, Any]]:
    """The tables of these policies, without those that are not installed."""
    return [{"use": name, **ALONE[name]} for name in names if name in available]


def config(
    upstream_port: int,
    policies: Sequence[Mapping[str, Any]],
    *,
    access_log: bool = False,
    workers: int = 1,
    state: str = "memory://",
) -> str:
    """One route to the mock upstream through `policies`. Metrics are always counted; here nobody asks for them."""
    tables = "".join(
        "\n[[policy]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in policy.items()) for policy in policies
    )
    return f"""\
[listeners.main]
address = "127.0.0.1:0"

[admin]
address = ""

[server]
workers = {workers}

[state]
url = {toml(state)}

[log]
access = {toml(access_log)}

[upstreams.mock]
url = "http://127.0.0.1:{upstream_port}"

[routes.all]
path = "/"
upstream = "mock"
{tables}"""


def toml(value: object) -> str:
    """A string, number, boolean, list or table of them, on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)
