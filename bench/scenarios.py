"""What is measured: one row a scenario. Names are stable: the reference and the README know them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import peers, penstock
from .loadgen import MissingError, Mode
from .servers import Server, logged_port, run

DIRECT = "direct"
NGINX = "nginx"
REFERENCES = (DIRECT, NGINX)  # measured in every batch: without them there is nothing to compare with
PASS_THROUGH = "pass-through"
FULL = "full"
REDIS = "full,redis"
TWO_WORKERS = "full,redis,2-workers"
LITELLM = "litellm"
CODINGS = ("gzip", "zstd", "br")

EVENTS = (Mode.SATURATED, Mode.PACED)
STREAMS = (Mode.HOLD, Mode.SERIAL, *EVENTS)


Serve = Callable[[int, Path, int], AbstractContextManager[Server]]
"""(port of the mock upstream, directory of its own, core) -> the server, running while the context is open. Raises
`BenchError`."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table.

    Those of one `batch` are measured in one go, together with the references. `headers` are request header lines beyond
    those that every scenario sends, with `{upstream}` for the mock upstream's URL; replies have to come in `coding`."""

    name: str
    what: str
    batch: str
    serve: Serve
    modes: tuple[Mode, ...] = EVENTS
    headers: tuple[str, ...] = ()
    coding: str | None = None


def _direct(upstream_port: int, directory: Path, core: int) -> AbstractContextManager[Server]:
    return nullcontext(Server(upstream_port))


@contextmanager
def _penstock(
    upstream_port: int,
    directory: Path,
    core: int,
    *,
    policies: Sequence[str] = (),
    access_log: bool = False,
    workers: int = 1,
    state: str = "memory://",
) -> Iterator[Server]:
    """Started as an operator starts it. Of a chain, what is not installed is left out; not so of a single policy."""
    available = penstock.installed()
    if len(policies) == 1 and not available.issuperset(policies):
        raise MissingError(f"the policy {policies[0]} is not installed")
    file = directory / "penstock.toml"
    chain = penstock.chain(policies, available)
    text = penstock.config(upstream_port, chain, access_log=access_log, workers=workers, state=state)
    file.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "proxy", "run", "--config", str(file)]
    with run(command, directory, core, port=logged_port) as server:
        yield server


@contextmanager
def _with_redis(upstream_port: int, directory: Path, core: int, *, workers: int) -> Iterator[Server]:
    """The full chain on a Redis beside it on its core; Redis's own CPU time is not counted."""
    own = directory / "redis"
    own.mkdir()
    with peers.REDIS.serve(upstream_port, own, core) as redis:
        state = f"redis://127.0.0.1:{redis.port}"
        with _penstock(
            upstream_port, directory, core, policies=penstock.FULL, access_log=True, workers=workers, state=state
        ) as server:
            yield server


def _alone(policy: str) -> Scenario:
    headers = (f"Origin: {penstock.ORIGIN}",) if policy == "cors" else ()
    return Scenario(
        policy, f"penstock with {policy} alone", "policies", partial(_penstock, policies=[policy]), headers=headers
    )


def _full(name: str, what: str, batch: str, modes: tuple[Mode, ...], coding: str | None = None) -> Scenario:
    serve = partial(_penstock, policies=penstock.FULL, access_log=True)
    return Scenario(name, what, batch, serve, modes, coding=coding)


SCENARIOS = (
    # saturated, it would only measure the load generator
    Scenario(DIRECT, "no proxy: what the others add to", "", _direct, (Mode.SERIAL, Mode.PACED)),
    Scenario(
        NGINX,
        "proxy_buffering off, one process, upstream kept alive, no access log",
        "",
        peers.NGINX.serve,
        tuple(Mode),
    ),
    Scenario(PASS_THROUGH, "penstock without policies, no access log", "core", _penstock, tuple(Mode)),
    _full(FULL, f"penstock with {', '.join(penstock.FULL)}, access log on", "core", tuple(Mode)),
    Scenario(REDIS, "the same, its state in Redis", "workers", partial(_with_redis, workers=1)),
    Scenario(TWO_WORKERS, "the same with two workers, on one core", "workers", partial(_with_redis, workers=2)),
    *(
        _full(f"{FULL}+{coding}", f"the full chain to a client that asks for {coding}", "codings", STREAMS, coding)
        for coding in CODINGS
    ),
    *(
        Scenario(
            coding,
            f"penstock with compression alone, asked for {coding}",
            "codings",
            partial(_penstock, policies=["compression"]),
            coding=coding,
        )
        for coding in CODINGS
    ),
    *(_alone(policy) for policy in penstock.ALONE if policy != "compression"),
    Scenario(
        "access-log",
        "penstock without policies, access log on",
        "policies",
        partial(_penstock, access_log=True),
        (Mode.SERIAL,),
    ),
    Scenario("haproxy", "one thread, http-no-delay", "peers", peers.HAPROXY.serve, STREAMS),
    Scenario("envoy", "one worker thread", "peers", peers.ENVOY.serve, STREAMS),
    Scenario("caddy", "flush_interval -1, GOMAXPROCS=1", "peers", peers.CADDY.serve, STREAMS),
    Scenario(
        "portkey",
        "Portkey's gateway, no plugins",
        "peers",
        peers.PORTKEY_GATEWAY.serve,
        STREAMS,
        headers=("x-portkey-provider: openai", "x-portkey-custom-host: {upstream}/v1"),
    ),
    # the paced load is more than it can take, and so many streams take it minutes to open
    Scenario(LITELLM, "LiteLLM's bare proxy", "peers", peers.LITELLM.serve, (Mode.SERIAL, Mode.SATURATED)),
)
BATCHES = tuple(dict.fromkeys(scenario.batch for scenario in SCENARIOS if scenario.batch))


def batches(only: Sequence[str] = ()) -> list[list[Scenario]]:
    """What is measured in one go: the references, in the modes that are needed, and the scenarios of a batch.

    `only` names scenarios or batches; by default all."""
    found = []
    for batch in BATCHES:
        own = [s for s in SCENARIOS if s.batch == batch and (not only or s.name in only or batch in only)]
        if own:
            found.append([*(_for(reference, own) for reference in SCENARIOS if reference.name in REFERENCES), *own])
    return found


def _for(reference: Scenario, others: Sequence[Scenario]) -> Scenario:
    needed = {mode for other in others for mode in other.modes}
    modes = tuple(mode for mode in reference.modes if mode in needed)
    return Scenario(reference.name, reference.what, reference.batch, reference.serve, modes)
