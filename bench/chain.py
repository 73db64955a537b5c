"""What a policy costs in the chain: `python -m bench.chain`. A hot loop over recorded chunks, in one process, no sockets.

Each row is one chain, from the bytes of a read to the bytes of a write as in the relay: frames, events, policies, what the
dialect has to know of the delivered. The ratio is to the same chain without the policy, measured in the same round;
reported are medians of the rounds. In its place, with cold caches, work costs four to five times what it costs here.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from policies.idle_timeout import IdleTimeout, IdleTimeoutConfig
from policies.token_limit import TokenLimit, TokenLimitConfig
from policies.token_limit.budget import TokenWindow
from proxy import demo
from proxy.chain import Chain, Link
from proxy.dialects.openai_chat import OpenAIChat
from proxy.errors import COMPLETE
from proxy.messages import Request
from proxy.policy import Policy, PolicyStream
from proxy.simulation import FakeHost, make_head, make_request
from proxy.tokens import Tokenizer, installed

_EVENTS = 4000  # of one exchange
_HOLD_BYTES = _EVENT_BYTES = 1 << 20
_WITHOUT = "without"


class Cost(NamedTuple):
    """Microseconds: of an event, and of all that is done once for an exchange (admission, head, settlement)."""

    event_us: float
    exchange_us: float


class _Host(FakeHost):
    """Background work is done when the loop has a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[Coroutine[Any, Any, None]] = []

    def spawn(self, work: Coroutine[Any, Any, None], stream: PolicyStream | None = None) -> None:
        self.due.append(work)

    async def work(self) -> None:
        for work in self.due:
            await work
        self.due.clear()


def rows() -> dict[str, TokenLimitConfig | None]:
    """The limit of each chain, by the chain's name; None: the chain without one."""

    def limit(tokenizer: Tokenizer, *windows_s: int) -> TokenLimitConfig:
        windows = tuple(TokenWindow(tokens=1 << 40, window_s=seconds) for seconds in windows_s)
        return TokenLimitConfig(windows=windows, tokenizer=tokenizer)

    found: dict[str, TokenLimitConfig | None] = {_WITHOUT: None, "token_limit, deltas": limit("deltas", 60)}
    found["token_limit, deltas, three windows"] = limit("deltas", 60, 3600, 86400)
    if installed("o200k"):
        found["token_limit, o200k"] = limit("o200k", 60)
    return found


def recorded(count: int) -> list[bytes]:
    """So many events of a chat stream, one a read, without its end."""
    wish = demo.Wish("demo", range(1), 10, None, stream=True, include_usage=False)
    said = list(demo.events(demo.Chat(), wish))[1:-2]
    return list(itertools.islice(itertools.cycle(said), count))


async def measure(limit: TokenLimitConfig | None, reads: Sequence[bytes]) -> Cost:
    """Play one exchange with `reads` through a chain that watches the upstream's silence, and has `limit` if there is one."""
    host = _Host()
    policies: list[Policy[Any]] = [IdleTimeout(IdleTimeoutConfig(), host)]
    if limit is not None:
        policies.append(TokenLimit(limit, host))
        await policies[-1].start()
    started = time.perf_counter()
    request = make_request(dialect=OpenAIChat())
    chain = Chain([await _link(policy, request) for policy in policies], _HOLD_BYTES)
    head = make_head(request)
    chain.start(0.0)
    chain.response(head)
    stream = head.stream
    assert stream is not None
    framer = stream.framer(_EVENT_BYTES)
    written = 0
    first = time.perf_counter()
    for read in reads:
        chain.activity(0.0)
        events = chain.feed([stream.event(frame) for frame in framer.feed(read)], 0.0)
        stream.delivered(events)
        written += len(b"".join([event.raw for event in events]))
        if host.due:
            await host.work()
    last = time.perf_counter()
    chain.close(COMPLETE)
    await host.work()
    ended = time.perf_counter()
    assert written == sum(map(len, reads)), "something was held back"
    return Cost((last - first) * 1e6 / len(reads), (first - started + ended - last) * 1e6)


async def _link(policy: Policy[Any], request: Request) -> Link:
    stream = await policy.admit(request)
    assert isinstance(stream, PolicyStream)
    return Link(policy.host.name, policy.stage, policy.sees, stream)


def table(rounds: Sequence[Mapping[str, Cost]]) -> str:
    """A line for each chain: medians of the rounds, and of the ratios within each."""
    lines = [f"{'chain':<40}{'µs an event':>12}{'ratio':>8}{'µs an exchange':>16}"]
    for name in rounds[0]:
        event_us = statistics.median(costs[name].event_us for costs in rounds)
        exchange_us = statistics.median(costs[name].exchange_us for costs in rounds)
        ratio = statistics.median(costs[name].event_us / costs[_WITHOUT].event_us for costs in rounds)
        lines.append(f"{name:<40}{event_us:>12.2f}{ratio:>8.2f}{exchange_us:>16.0f}")
    return "\n".join(lines)


async def run(round_count: int, events: int = _EVENTS) -> list[dict[str, Cost]]:
    """Every round measures every chain once, after one that is not counted."""
    reads = recorded(events)
    measured = [{name: await measure(limit, reads) for name, limit in rows().items()} for _ in range(round_count + 1)]
    return measured[1:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chain", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="each measures every chain once (default 15)")
    print(table(asyncio.run(run(max(1, parser.parse_args().rounds)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
