"""Entry points to policy classes: what is installed, whether it can be used, and where it may stand.

Built-in policies come through the same entry-point group as everybody else's. Only what a configuration names is
imported. A policy that cannot be used is an `Unusable` with the sentence that an operator needs, not an exception.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import Field

from .errors import ConfigProblem
from .policy import API_VERSION, Policy, PolicyConfig, Scope, Sees, Stage
from .values import Name, Table

GROUP = "penstock.policies"
DISTRIBUTION = "penstock"
PACKAGES = ("policies", "proxy")


class PolicyTable(Table):
    """The keys that every `[[policy]]` table has beside the policy's own. `routes` None: all of them."""

    use: str
    name: Name | None = None
    routes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    on_error: Literal["close", "bypass"] = "close"


COMMON_KEYS = frozenset(PolicyTable.model_fields)

PolicyClass: TypeAlias = type[Policy[Any]]

STAGES: Mapping[Stage, str] = {
    Stage.ADMIT: "refuses a request before anything is spent on it",
    Stage.GUARD: "watches what the model server really sends",
    Stage.TRANSFORM: "changes text before anything counts, paces or records it",
    Stage.METER: "counts what is delivered",
    Stage.PACE: "decides when events go on, no longer what is in them",
    Stage.RECORD: "keeps exactly what any client of the exchange may be sent",
    Stage.RESTORE: "puts back what only this one client may see, so after anything is recorded",
    Stage.KEEPALIVE: "fills the silence of this one connection, so after whatever may hold events back",
    Stage.ENCODE: "turns events into coded bytes, in which no other policy could read",
}
"""The order in which policies may stand, and why each stage stands where it does."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Instead of a class: why there is none, in words for the operator."""

    message: str


class Registry:
    """The policies that were installed when it was made; see `scan`."""

    def __init__(self, entry_points: Iterable[EntryPoint]) -> None:
        self._found: dict[str, list[EntryPoint]] = {}
        for entry_point in entry_points:
            self._found.setdefault(entry_point.name, []).append(entry_point)

    @classmethod
    def scan(cls) -> Registry:
        """Everything that this Python environment has in the group; imports none of it."""
        return cls(importlib.metadata.entry_points(group=GROUP))

    @property
    def names(self) -> list[str]:
        return sorted(self._found)

    def origin(self, name: str) -> str:
        """The distribution, or distributions, that `name` comes from: "penstock 1.2.3"."""
        return ", ".join(sorted({_distribution(entry_point) for entry_point in self._found[name]}))

    def load(self, name: str) -> PolicyClass | Unusable:
        """Import the class that `name` stands for and hold it against the contract."""
        found = self._found.get(name)
        if found is None:
            itself = "" if self._found else f", nor any other; is {DISTRIBUTION} itself?"
            return Unusable(f"no policy of this name is installed{itself}")
        origin = self.origin(name)
        if len(found) > 1:
            return Unusable(f"more than one policy of this name is installed, by {origin}; uninstall all but one")
        try:
            loaded = found[0].load()
        except (Exception, SystemExit) as error:
            return Unusable(f"{origin} cannot be imported: {type(error).__name__}: {error}")
        faults = list(_faults(loaded))
        if faults:
            return Unusable(f"{origin}: {found[0].value} {'; it '.join(faults)}")
        checked: PolicyClass = loaded
        return checked


def _distribution(entry_point: EntryPoint) -> str:
    dist = entry_point.dist
    return f"{dist.name} {dist.version}" if dist else "an unnamed distribution"


def _faults(loaded: Any) -> Iterator[str]:
    """What keeps `loaded` from being a policy of this version of the contract; one version error hides the rest."""
    api = getattr(loaded, "api", API_VERSION)
    if api != API_VERSION:
        yield f"is made for version {api} of the policy API; this is version {API_VERSION}"
        return
    if not (isinstance(loaded, type) and issubclass(loaded, Policy)):
        yield "is not a subclass of proxy.policy.Policy"
        return
    if not isinstance(getattr(loaded, "stage", None), Stage):
        yield "has no valid `stage`"
    elif not isinstance(loaded.scope, Scope):
        yield "has no valid `scope`"
    elif loaded.stage >= Stage.RESTORE and loaded.scope is not Scope.ATTACHMENT:
        yield f"must have scope ATTACHMENT, as all policies at stage {loaded.stage.name}"
    elif Stage.ADMIT < loaded.stage < Stage.RESTORE and loaded.scope is not Scope.EXCHANGE:
        yield f"must have scope EXCHANGE, as all policies at stage {loaded.stage.name}"
    if not isinstance(loaded.sees, Sees):
        yield "has no valid `sees`"
    config = getattr(loaded, "Config", None)
    if not (isinstance(config, type) and issubclass(config, PolicyConfig)):
        yield "has no Config that is a subclass of proxy.policy.PolicyConfig"
        return
    taken = sorted(COMMON_KEYS & {field.alias or name for name, field in config.model_fields.items()})
    if taken:
        yield f"has a Config with a key that every policy table has already: {', '.join(taken)}"


class Placed(NamedTuple):
    """A policy in a chain: `table` is how a message names it."""

    table: str
    policy_class: PolicyClass


def check_order(chains: Iterable[Sequence[Placed]]) -> list[ConfigProblem]:
    """What is wrong with the order of the policies, given each route's in the order of the file.

    Nothing is ever sorted silently: the chain is what the operator reads. What is wrong on several routes is told once.
    """
    misplaced: dict[str, ConfigProblem] = {}
    doubled: dict[str, ConfigProblem] = {}
    for chain in chains:
        latest: Placed | None = None
        for placed in chain:
            stage = placed.policy_class.stage
            if latest is None or stage > latest.policy_class.stage:
                latest = placed
            elif stage < latest.policy_class.stage:
                message = (
                    f"stands after {latest.table}, but stage {stage.name} ({STAGES[stage]}) "
                    f"comes before stage {latest.policy_class.stage.name} ({STAGES[latest.policy_class.stage]})"
                )
                misplaced.setdefault(placed.table, ConfigProblem(placed.table, "", message))
            elif stage is Stage.ENCODE:
                message = f"a second policy at stage ENCODE on one route, after {latest.table}; there can be only one"
                doubled.setdefault(placed.table, ConfigProblem(placed.table, "", message))
    problems = [*doubled.values(), *misplaced.values()]
    if misplaced:
        problems[-1] = replace(problems[-1], message=f"{problems[-1].message}\n{_ORDER}")
    return problems


_ORDER = "\n".join(("    the stages, in order:", *(f"        {stage.name:<9}  {why}" for stage, why in STAGES.items())))


def intruders() -> list[str]:
    """A sentence for each other distribution that installs a top-level package named as one of ours."""
    owners = importlib.metadata.packages_distributions()
    return [
        f"the distribution {other} installs a top-level package `{package}` too, so that Python may import either; "
        f"uninstall {other} and install {DISTRIBUTION} again, or give {DISTRIBUTION} a virtual environment of its own"
        for package in PACKAGES
        for other in sorted(set(owners.get(package, ())) - {DISTRIBUTION})
    ]
