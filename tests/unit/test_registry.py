"""Policies come through entry points; what is wrong with one is told in a sentence that names its distribution."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from policies.heartbeat import Heartbeat
from proxy.policy import Policy, PolicyConfig, Scope, Sees, Stage
from proxy.registry import COMMON_KEYS, STAGES, Placed, PolicyTable, Registry, Unusable, check_order, intruders

Install = Callable[..., Path]

BRAKE = """
from proxy.policy import Policy, PolicyConfig, Scope, Stage

class Config(PolicyConfig):
    strength: int = 1

class Brake(Policy[Config]):
    stage = Stage.PACE
    Config = Config
"""


def test_built_in_policies_are_installed_like_any_others() -> None:
    registry = Registry.scan()
    assert {"compression", "cors", "heartbeat", "idle_timeout"} <= set(registry.names)
    assert registry.load("heartbeat") is Heartbeat
    assert registry.origin("heartbeat").startswith("penstock ")


def test_a_third_party_policy_is_imported_only_when_it_is_asked_for(install: Install) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=BRAKE)
    registry = Registry.scan()
    assert "brake" in registry.names
    assert registry.origin("brake") == "acme 1.0"
    assert "acme_brake" not in sys.modules
    loaded = registry.load("brake")
    assert not isinstance(loaded, Unusable)
    assert (loaded.__module__, loaded.__name__) == ("acme_brake", "Brake")


def test_a_name_that_nobody_has() -> None:
    assert Registry.scan().load("hartbeat") == Unusable("no policy of this name is installed")


def test_nothing_is_installed() -> None:
    message = "no policy of this name is installed, nor any other; is penstock itself?"
    assert Registry([]).load("heartbeat") == Unusable(message)


def test_two_distributions_with_the_same_name(install: Install) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=BRAKE)
    install("bolt", {"brake": "bolt_brake:Brake"}, bolt_brake=BRAKE)
    message = "more than one policy of this name is installed, by acme 1.0, bolt 1.0; uninstall all but one"
    assert Registry.scan().load("brake") == Unusable(message)
    assert "acme_brake" not in sys.modules


def test_a_built_in_cannot_be_replaced_by_stealth(install: Install) -> None:
    install("acme", {"heartbeat": "acme_brake:Brake"}, acme_brake=BRAKE)
    loaded = Registry.scan().load("heartbeat")
    assert isinstance(loaded, Unusable)
    assert "acme 1.0, penstock " in loaded.message


BROKEN: list[tuple[str, str]] = [
    ("raise RuntimeError('no licence')", "acme 1.0 cannot be imported: RuntimeError: no licence"),
    (
        "import a_missing_library",
        "acme 1.0 cannot be imported: ModuleNotFoundError: No module named 'a_missing_library'",
    ),
    ("raise SystemExit('bye')", "acme 1.0 cannot be imported: SystemExit: bye"),
    ("def", "acme 1.0 cannot be imported: SyntaxError: invalid syntax (acme_brake.py, line 1)"),
    ("", "acme 1.0 cannot be imported: AttributeError: module 'acme_brake' has no attribute 'Brake'"),
    ("Brake = 5", "acme 1.0: acme_brake:Brake is not a subclass of proxy.policy.Policy"),
    ("class Brake: api = 2", "acme 1.0: acme_brake:Brake is made for version 2 of the policy API; this is version 1"),
    (
        BRAKE + "    api = 7\n    stage = None\n",
        "acme 1.0: acme_brake:Brake is made for version 7 of the policy API; this is version 1",
    ),
    (BRAKE + "    stage = 5\n", "acme 1.0: acme_brake:Brake has no valid `stage`"),
    (BRAKE + "    del stage\n", "acme 1.0: acme_brake:Brake has no valid `stage`"),
    (BRAKE + "    scope = 'exchange'\n", "acme 1.0: acme_brake:Brake has no valid `scope`"),
    (BRAKE + "    sees = True\n", "acme 1.0: acme_brake:Brake has no valid `sees`"),
    (
        BRAKE + "    scope = Scope.ATTACHMENT\n",
        "acme 1.0: acme_brake:Brake must have scope EXCHANGE, as all policies at stage PACE",
    ),
    (
        BRAKE + "    stage = Stage.RESTORE\n",
        "acme 1.0: acme_brake:Brake must have scope ATTACHMENT, as all policies at stage RESTORE",
    ),
    (
        BRAKE + "    Config = dict\n    sees = 1\n",
        "acme 1.0: acme_brake:Brake has no valid `sees`; "
        "it has no Config that is a subclass of proxy.policy.PolicyConfig",
    ),
    (
        BRAKE.replace("strength", "on_error"),
        "acme 1.0: acme_brake:Brake has a Config with a key that every policy table has already: on_error",
    ),
]


@pytest.mark.parametrize(("source", "message"), BROKEN)
def test_a_policy_that_cannot_be_used(install: Install, source: str, message: str) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=source)
    assert Registry.scan().load("brake") == Unusable(message)


@pytest.mark.parametrize("scope", Scope)
def test_admission_may_belong_to_the_exchange_or_to_the_attachment(install: Install, scope: Scope) -> None:
    source = BRAKE + f"    stage = Stage.ADMIT\n    scope = Scope.{scope.name}\n"
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=source)
    assert not isinstance(Registry.scan().load("brake"), Unusable)


def _policy(at: Stage) -> type[Policy[Any]]:
    class Some(Policy[PolicyConfig]):
        stage: ClassVar[Stage] = at
        sees: ClassVar[Sees] = Sees.NOTHING

    return Some


def _chain(*stages: Stage) -> list[Placed]:
    return [Placed(f"policy[{number}]", _policy(stage)) for number, stage in enumerate(stages, 1)]


def test_every_stage_has_its_reason_in_order() -> None:
    assert list(STAGES) == sorted(Stage)
    assert all(STAGES.values())


@pytest.mark.parametrize("stages", [(), (Stage.ENCODE,), tuple(Stage), (Stage.ADMIT, Stage.ADMIT, Stage.KEEPALIVE)])
def test_an_order_that_is_right(stages: tuple[Stage, ...]) -> None:
    assert check_order([_chain(*stages)]) == []


def test_a_wrong_order_says_which_stands_after_which_and_why() -> None:
    (problem,) = check_order([_chain(Stage.KEEPALIVE, Stage.GUARD, Stage.ENCODE)])
    assert problem.table == "policy[2]"
    first, title, *stages = problem.message.split("\n")
    assert first == (
        "stands after policy[1], but stage GUARD (watches what the model server really sends) comes before stage "
        "KEEPALIVE (fills the silence of this one connection, so after whatever may hold events back)"
    )
    assert title == "    the stages, in order:"
    assert [line.split()[0] for line in stages] == [stage.name for stage in Stage]
    assert stages[0] == "        ADMIT      refuses a request before anything is spent on it"


def test_each_misplaced_policy_is_told_once_and_the_stages_are_listed_once() -> None:
    chain = _chain(Stage.KEEPALIVE, Stage.GUARD, Stage.ADMIT)
    problems = check_order([chain, chain, chain[1:2]])
    assert [problem.table for problem in problems] == ["policy[2]", "policy[3]"]
    assert [problem.message.count("\n") for problem in problems] == [0, len(Stage) + 1]
    assert sum("the stages, in order" in problem.message for problem in problems) == 1


def test_routes_are_apart() -> None:
    guard, keepalive = _chain(Stage.KEEPALIVE, Stage.GUARD)
    assert check_order([[guard], [keepalive]]) == []


def test_one_encoder_at_most() -> None:
    (problem,) = check_order([_chain(Stage.ENCODE, Stage.ENCODE)])
    assert problem.table == "policy[2]"
    assert problem.message == "a second policy at stage ENCODE on one route, after policy[1]; there can be only one"


def test_the_keys_of_every_table() -> None:
    assert sorted(COMMON_KEYS) == ["name", "on_error", "routes", "use"]
    assert PolicyTable(use="x") == PolicyTable(use="x", name=None, routes=None, on_error="close")


def test_nobody_else_has_our_packages() -> None:
    assert intruders() == []


@pytest.mark.parametrize("package", ["proxy", "policies"])
def test_another_distribution_has_one_of_our_packages(install: Install, package: str) -> None:
    install("proxy.py", {}, **{package: ""})
    assert intruders() == [
        f"the distribution proxy.py installs a top-level package `{package}` too, so that Python may import either; "
        "uninstall proxy.py and install penstock again, or give penstock a virtual environment of its own"
    ]
