"""What the tables of a configuration must agree on: checks that need more than one of them. Pure.

Each gives what is wrong, as the problems of one table are given: by table, key and message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from .errors import ConfigProblem
from .identity import Fact
from .problems import quoted
from .values import MEMORY, TCPAddress, UnixAddress

if TYPE_CHECKING:
    from .config import Config, RouteConfig


def incoherences(config: Config, *, chains_known: bool) -> Iterator[ConfigProblem]:
    """All that is wrong between the tables of `config`. Not `chains_known`: what its policies tell cannot be judged, as
    some of them, or what stands before them, could not be read."""
    if chains_known:
        yield from _untold(config)
    yield from _same_addresses(config)
    yield from _same_requests(config.routes)
    yield from _unshared(config)
    yield from _impatient(config)


def _same_addresses(config: Config) -> Iterator[ConfigProblem]:
    places = [(f"listeners.{quoted(name)}", listener.address) for name, listener in config.listeners.items()]
    if config.admin.address is not None:
        places.append(("admin", config.admin.address))
    for (first, one), (second, other) in combinations(places, 2):
        if one == other and not (isinstance(one, TCPAddress) and one.port == 0):
            yield ConfigProblem(second, "address", f"is the address of [{first}] already")


def _same_requests(routes: Mapping[str, RouteConfig]) -> Iterator[ConfigProblem]:
    for (first, one), (second, other) in combinations(routes.items(), 2):
        if one.path == other.path and (set(one.hosts) & set(other.hosts) or not (one.hosts or other.hosts)):
            message = f"takes the same requests as [routes.{quoted(first)}]: same path, same host"
            yield ConfigProblem(f"routes.{quoted(second)}", "path", message)


_TELLERS: Mapping[Fact, str] = {
    "key": "`auth`, or another policy that knows API keys,",
    "tenant": "`auth` with keys that have a `tenant`, or another policy that knows tenants,",
    "subject": "`auth` with an `identity_header`, or another policy that knows people,",
    "pseudonyms": '`redaction` with `requests = true` and the action "pseudonym", or another policy that makes them,',
}


def _untold(config: Config) -> Iterator[ConfigProblem]:
    """Policies that need to know of a client what nobody before them tells."""
    found: dict[tuple[str, str], ConfigProblem] = {}
    for route in config.routes:
        chain = config.chain(route)
        told: set[Fact] = {"front"} if _knows_its_fronts(config) else set()
        for place, entry in enumerate(chain):
            for key, fact in entry.config.needs.items():
                if fact not in told:
                    late = [other.label for other in chain[place:] if fact in other.config.tells]
                    message = _front_unknown(config) if fact == "front" else _teller_missing(fact, route, late)
                    found.setdefault((entry.name, key), ConfigProblem(entry.label, key, message))
            told.update(entry.config.tells)
    yield from found.values()


def _knows_its_fronts(config: Config) -> bool:
    """Whether a trusted proxy can be told from any other client."""
    on_unix = all(isinstance(listener.address, UnixAddress) for listener in config.listeners.values())
    return config.server.trusted_proxies > 0 and (bool(config.server.trusted_from) or on_unix)


def _front_unknown(config: Config) -> str:
    if not config.server.trusted_proxies:
        return (
            "is never believed while `trusted_proxies` of [server] is 0: set it to the number of your proxies in front"
        )
    return (
        "would be believed of anyone who sends an X-Forwarded-For: name the addresses of your proxies in `trusted_from` of "
        "[server], or listen on Unix sockets only"
    )


def _teller_missing(fact: Fact, route: str, late: Sequence[str]) -> str:
    if late:
        return f"needs to know the {fact}, which {late[0]} tells only after it on route {quoted(route)}: put it before"
    return f"needs to know the {fact}, which nobody tells on route {quoted(route)}: put {_TELLERS[fact]} before it"


def _unshared(config: Config) -> Iterator[ConfigProblem]:
    policies = [quoted(entry.name) for entry in config.policies if entry.policy_class.needs_state]
    if config.server.workers > 1 and config.state.url == MEMORY and policies:
        message = (
            f"with `workers = {config.server.workers}` these policies need a state that all of them share, such as "
            f'"redis://127.0.0.1:6379": {", ".join(policies)}'
        )
        yield ConfigProblem("state", "url", message)


def _impatient(config: Config) -> Iterator[ConfigProblem]:
    if config.state.url == MEMORY:  # which answers at once
        return
    for entry in config.policies:
        most_ms = entry.config.state_answers_within_s * 1000
        if config.state.timeout_ms > most_ms:
            message = f"must be at most {int(most_ms)}: policy {quoted(entry.name)}, as it is set, cannot wait longer"
            yield ConfigProblem("state", "timeout_ms", message)
