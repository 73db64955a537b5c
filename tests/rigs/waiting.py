"""Waiting for a condition, never for a duration. The limit only decides when a test is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT_S = 20.0
_POLL_S = 0.005


async def within_limit(awaitable: Awaitable[T], what: str, limit_s: float = LIMIT_S) -> T:
    """The result of `awaitable`; AssertionError saying that `what` did not happen, where it takes too long."""
    try:
        return await asyncio.wait_for(awaitable, limit_s)
    except TimeoutError:
        raise AssertionError(f"waited {limit_s:.0f} s in vain: {what}") from None


async def until(condition: Callable[[], T | None], what: str) -> T:
    """The first true value of `condition`."""
    limit = time.monotonic() + LIMIT_S
    while not (value := condition()):
        if time.monotonic() > limit:
            raise AssertionError(f"waited {LIMIT_S:.0f} s in vain: {what}")
        await asyncio.sleep(_POLL_S)
    return value


async def until_answered(ask: Callable[[], Awaitable[T]], is_it: Callable[[T], bool], what: str) -> T:
    """The first answer that it is."""

    async def answered() -> T:
        while not is_it(answer := await ask()):
            await asyncio.sleep(_POLL_S)
        return answer

    return await within_limit(answered(), what)
