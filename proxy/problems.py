"""What is wrong with a configuration table, in plain words: pydantic's errors made into `ConfigProblem`s. Pure.

Messages never repeat a value: it may be a secret that was written to the wrong place.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .errors import ConfigProblem

ModelT = TypeVar("ModelT", bound=BaseModel)

_WORDS = {
    "missing": "is missing",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have {max_length} items at most",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} characters at most",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
"""pydantic's error types (docs: "Validation errors") in our words; any other keeps pydantic's own sentence."""

_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number with a decimal point",
    str: "text",
    list: "a list",
    dict: "a table",
}

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def check(
    model: type[ModelT], given: object, table: str, other_keys: Collection[str] = (), context: object = None
) -> ModelT | list[ConfigProblem]:
    """`given`, as the TOML parser made it, as a `model`, or all that is wrong with it.

    `other_keys` are keys that the table may have too, which somebody else reads: they can be suggestions. `context` is
    what validators find in their `ValidationInfo`.
    It is read as strict JSON: the one mode in which an array may become a tuple or a set, and text an enum's member,
    while nothing else is converted. A TOML date, which JSON has not, is the text that it was written as.
    """
    try:
        return model.model_validate_json(json.dumps(given, default=str), context=context)
    except RecursionError:
        return [ConfigProblem(table, "", "is nested too deeply")]
    except ValidationError as error:
        keys = [*other_keys, *(field.alias or name for name, field in model.model_fields.items())]
        found = [details for details in error.errors(include_url=False) if not _only_seems_short(details)]
        return _merged(_problem(details, given, table, keys) for details in found)


def _only_seems_short(details: ErrorDetails) -> bool:
    """pydantic leaves items that are wrong, and reported, out when it counts a list's items."""
    value = details["input"]
    return details["type"] == "too_short" and isinstance(value, list) and len(value) >= details["ctx"]["min_length"]


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that was probably meant, or ""."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def quoted(name: str) -> str:
    """A key or table name as TOML writes it: bare where it can be, else in quotes."""
    return name if _BARE.fullmatch(name) else json.dumps(name)


def listed(words: Iterable[str]) -> str:
    """A choice, for a message."""
    return ", ".join(sorted(words))


def _problem(details: ErrorDetails, given: object, table: str, keys: Collection[str]) -> ConfigProblem:
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    key = _key(details, given)
    if kind == "extra_forbidden":
        last = str(details["loc"][-1])
        suggestion = nearest(last, keys) if len(details["loc"]) == 1 else ""
        known = f"; there are {listed(keys)}" if len(details["loc"]) == 1 and not suggestion else ""
        return ConfigProblem(table, key, f"unknown key{known}", suggestion)
    if kind in ("value_error", "assertion_error"):
        raised = context["error"]
        return ConfigProblem(table, key, str(raised), getattr(raised, "suggestion", ""))
    message = _WORDS[kind].format_map(context) if kind in _WORDS else details["msg"]
    if kind.endswith("_type"):
        message += f", not {_KINDS.get(type(value), 'nothing')}"
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", context["expected"])
        message = message.replace("'", '"')
        return ConfigProblem(table, key, message, nearest(value, choices) if isinstance(value, str) else "")
    return ConfigProblem(table, key, message)


def _key(details: ErrorDetails, given: Any) -> str:
    """The key as the operator would look for it: `origins[2]`, items counted from 1.

    pydantic's location also has names that are not in the file, such as the branches of a union: they are left out.
    """
    key = ""
    for part in details["loc"]:
        if isinstance(part, int) and isinstance(given, list):
            key += f"[{part + 1}]"
            given = given[part]
        elif isinstance(given, dict) and (part in given or details["type"] == "missing"):
            name = quoted(str(part))
            key += f".{name}" if key else name
            given = given.get(part)
    return key


def _merged(problems: Iterable[ConfigProblem]) -> list[ConfigProblem]:
    """One problem per key: a union gives an error for each of its branches."""
    merged: dict[str, ConfigProblem] = {}
    for problem in problems:
        known = merged.get(problem.key)
        if known is None:
            merged[problem.key] = problem
        else:
            message = f"{known.message}, or {problem.message}"
            merged[problem.key] = replace(known, message=message, suggestion=known.suggestion or problem.suggestion)
    return list(merged.values())
