"""What limits say in header fields, so that clients slow down by themselves: RateLimit, RateLimit-Policy, Retry-After. Pure.

Sources: draft-ietf-httpapi-ratelimit-headers-11 (fields of RFC 9651 structured values), RFC 9110 §10.2.3 (Retry-After).
Several policies, and the upstream, may each add their items to the same fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

from .fields import append
from .messages import Headers
from .state import Level, Window

REQUESTS = "requests"
CONCURRENT_REQUESTS = "concurrent-requests"
_MOST = 10**15 - 1  # RFC 9651 §3.3.1


def name_windows(headers: Headers, policy: str, windows: Iterable[Window], unit: str = REQUESTS) -> None:
    """Say which limits there are: RateLimit-Policy, an item for each window. `unit` is what is counted (§3.1.2)."""
    for window in windows:
        append(headers, "RateLimit-Policy", _item(policy, window, unit))


def state_levels(headers: Headers, policy: str, levels: Iterable[Level]) -> None:
    """Say how much is left: RateLimit, an item for each window. `t` is when there will be more, in seconds (§4.1.2)."""
    for level in levels:
        until = "" if level.reset_s is None else f";t={math.ceil(level.reset_s)}"
        append(headers, "RateLimit", f"{_name(policy, level.window)};r={min(level.remaining, _MOST)}{until}")


def retry_after(headers: Headers, *seconds: float | None) -> None:
    """Say when to come again: after the longest of `seconds`, which is never before the `t` of a window that is stated
    (§6). None: asking again will not help; nothing is said."""
    if None not in seconds:
        headers["Retry-After"] = str(max(1, *(math.ceil(wait) for wait in seconds if wait is not None)))


@lru_cache(1024)  # they come from the configuration
def _item(policy: str, window: Window, unit: str) -> str:
    kind = "" if unit == REQUESTS else f';qu="{unit}"'  # the default
    length = "" if window.seconds is None else f";w={window.seconds}"
    return f"{_name(policy, window)};q={min(window.limit, _MOST)}{kind}{length}"


@lru_cache(1024)
def _name(policy: str, window: Window) -> str:
    """One policy's windows need names of their own; a policy's name has no character that a string escapes."""
    return f'"{policy}"' if window.seconds is None else f'"{policy}-{window.seconds}s"'
