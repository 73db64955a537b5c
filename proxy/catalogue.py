"""What `penstock policies` says of the policies that are installed: where each may stand, and its keys. Pure."""

from __future__ import annotations

import enum
import json
import sys
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .registry import PolicyClass, Registry, Unusable
from .secrets import Secret

_WORDS: dict[object, str] = {
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
    Secret: '"env:NAME" or "file:/path"',
}
_LISTS = (frozenset, list, set, tuple)


def catalogue(registry: Registry) -> Iterator[str]:
    """A paragraph for each policy; one that cannot be used says why."""
    for name in registry.names:
        yield f"{name}  ({registry.origin(name)})"
        loaded = registry.load(name)
        if isinstance(loaded, Unusable):
            yield f"    cannot be used: {loaded.message}"
        else:
            yield from _policy(name, loaded)
        yield ""


def _policy(name: str, policy: PolicyClass) -> Iterator[str]:
    summary = (policy.__doc__ or sys.modules[policy.__module__].__doc__ or "").strip().partition("\n")[0]
    if summary:
        yield f"    {summary.removeprefix(f'`{name}`: ')}"
    bypass = ', on_error = "bypass" allowed' if policy.may_bypass else ""
    yield f"    stage {policy.stage.name}, scope {policy.scope.name}, sees {policy.sees.name}{bypass}"
    for key, field in policy.Config.model_fields.items():
        description = f"; {field.description}" if field.description else ""
        yield f"        {field.alias or key}{_default(field)}  # {words(field.annotation)}{description}"


def _default(field: FieldInfo) -> str:
    """As in TOML; nothing for a key that is simply not there by default."""
    if field.is_required():
        return " (required)"
    default = field.get_default(call_default_factory=True)
    return "" if default is None else f" = {json.dumps(default, default=_plain)}"


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset | set) else str(value)


def words(annotation: Any) -> str:
    """What a key of this type takes, in the words of TOML."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return words(arguments[0])
    if origin is Literal:
        return " | ".join(json.dumps(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(words(branch) for branch in arguments if branch is not types.NoneType)
    if origin in _LISTS:
        return f"list of {words(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{ {', '.join(annotation.model_fields)} }}"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " | ".join(json.dumps(member.value) for member in annotation)
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
