from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxy
from proxy import errors
from proxy.errors import (
    COMPLETE,
    FAULTS,
    ConfigError,
    ConfigProblem,
    Outcome,
    OutcomeKind,
    PenstockError,
    Problem,
    UpstreamError,
    UpstreamGarbage,
    fault,
)

SOURCES = sorted(Path(proxy.__path__[0]).rglob("*.py"))


# The table


@pytest.mark.parametrize("details", FAULTS)
def test_a_fault_is_told_in_full(details: str) -> None:
    status, outcome, level, message = FAULTS[details]
    assert 400 <= status < 600
    assert outcome is not OutcomeKind.COMPLETE
    assert level in (logging.INFO, logging.WARNING, logging.ERROR)
    assert message.endswith(".")
    assert details.isidentifier()


def test_every_outcome_but_complete_has_a_fault() -> None:
    assert {row.outcome for row in FAULTS.values()} == set(OutcomeKind) - {OutcomeKind.COMPLETE}


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        (OutcomeKind.CLIENT_GONE, logging.INFO), (OutcomeKind.STOPPED, logging.INFO),
        (OutcomeKind.UPSTREAM_ERROR, logging.WARNING), (OutcomeKind.UPSTREAM_TRUNCATED, logging.WARNING),
        (OutcomeKind.UPSTREAM_GARBAGE, logging.WARNING), (OutcomeKind.POLICY_ERROR, logging.ERROR),
    ],
)  # fmt: skip
def test_the_log_level_says_whose_fault_it_was(outcome: OutcomeKind, level: int) -> None:
    rows = {
        details: row for details, row in FAULTS.items() if details != "state_unavailable"
    }  # stopped, but not at will
    assert {row.level for row in rows.values() if row.outcome is outcome} == {level}


def named_details() -> Iterator[str]:
    """Every `details` that the proxy's source names, where a fault is made."""
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            match call.func, call.args:
                case ast.Name(id="RequestError" | "UpstreamError" | "UpstreamTruncated" | "UpstreamGarbage"), [
                    _,
                    details,
                ]:
                    stated = [details]
                case ast.Attribute(attr="cut"), [details, *_]:
                    stated = [details]
                case ast.Attribute(value=ast.Name(id="Outcome" | "Problem"), attr="of"), [details, *_]:
                    stated = [details]
                case _:
                    stated = []
            stated += [keyword.value for keyword in call.keywords if keyword.arg == "details"]
            yield from (node.value for node in stated if isinstance(node, ast.Constant) and isinstance(node.value, str))


def test_every_fault_that_the_source_names_is_in_the_table() -> None:
    named = set(named_details())
    assert len(named) > 20
    assert named <= set(FAULTS)


def test_every_fault_in_the_table_is_used() -> None:
    folders = (Path(proxy.__path__[0]), Path(proxy.__path__[0]).parent / "policies")
    used = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py") if path.name != "errors.py")
    defaults = {error.details for error in tree()} | {"stopped"}  # of exceptions, and of policies' own reasons
    assert [details for details in FAULTS if f'"{details}"' not in used and details not in defaults] == []


def test_a_policys_own_reason_is_one_of_its_stops() -> None:
    assert fault("out_of_tokens") is FAULTS["stopped"]
    assert fault("deadline") is FAULTS["deadline"]


# Outcomes and problems


def test_outcomes_are_made_from_details() -> None:
    assert Outcome.of("upstream_reset") == Outcome(OutcomeKind.UPSTREAM_ERROR, "", "upstream_reset")
    assert Outcome.of("deadline", "idle_timeout") == Outcome(OutcomeKind.TIMEOUT, "idle_timeout", "deadline")
    assert Outcome.of("out_of_tokens", "budget") == Outcome(OutcomeKind.STOPPED, "budget", "out_of_tokens")
    assert Outcome(OutcomeKind.COMPLETE) == COMPLETE


def test_a_problem_has_the_words_of_its_fault() -> None:
    row = FAULTS["body_too_large"]
    assert Problem.of("body_too_large") == Problem(413, "body_too_large", row.message)
    assert Problem.of("out_of_tokens") == Problem(403, "out_of_tokens", FAULTS["stopped"].message)


def test_a_problem_can_be_told_otherwise() -> None:
    assert Problem.of("out_of_tokens", "Come back later.", 429) == Problem(429, "out_of_tokens", "Come back later.")


# Exceptions


def tree() -> list[type[PenstockError]]:
    return [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, PenstockError)]


@pytest.mark.parametrize("error", tree())
def test_every_exception_is_on_the_map_with_a_fault_of_its_own(error: type[PenstockError]) -> None:
    assert errors.__doc__ is not None
    assert f" {error.__name__} " in errors.__doc__.replace("\n", " ")
    assert error.details in FAULTS


def test_an_exceptions_details_can_be_more_exact() -> None:
    assert UpstreamError("it broke").details == "upstream_reset"
    exact = UpstreamGarbage("too much", "event_too_large")
    assert (str(exact), exact.details, UpstreamGarbage.details) == ("too much", "event_too_large", "upstream_garbage")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ConfigProblem("", "", "cannot be read"), "cannot be read"),
        (ConfigProblem("routes.a", "", "has no upstream"), "[routes.a] has no upstream"),
        (ConfigProblem("log", "level", "is unknown", "info"), "[log] level: is unknown (did you mean 'info'?)"),
        (ConfigProblem("", "polices", "is unknown", "policy"), "polices: is unknown (did you mean 'policy'?)"),
    ],
)
def test_a_config_problem_says_where_what_and_what_instead(problem: ConfigProblem, said: str) -> None:
    assert str(problem) == said


def test_a_config_error_tells_all_problems_each_with_the_file() -> None:
    problems = [ConfigProblem("log", "level", "is unknown"), ConfigProblem("", "", "has no listeners")]
    error = ConfigError("a.toml", problems)
    assert str(error) == "a.toml: [log] level: is unknown\na.toml: has no listeners"
    assert (error.file, error.problems) == ("a.toml", tuple(problems))
