"""Header field values that policies read or merge (RFC 9110 §5.6.1, §12.4.2, §12.5.5). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .messages import Headers, tokens

_WEIGHTED = re.compile(r"([^\s;]+)(?:\s*;\s*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")


def weights(values: Iterable[str]) -> dict[str, float]:
    """The elements of a message's `Accept-Encoding` (or -Language ...) fields, lower-case, each with its weight.

    0.0 means "not acceptable". What is malformed is left out, as if it had not been asked for.
    """
    found = (_WEIGHTED.fullmatch(item) for item in tokens(values))
    return {match[1]: float(match[2] or 1) for match in found if match}


def append(headers: Headers, name: str, *elements: str) -> None:
    """Add to a field that is a list; it is one line afterwards."""
    if name in headers:
        elements = (*headers.popall(name), *elements)
    headers[name] = ", ".join(filter(None, elements))


def add_vary(headers: Headers, name: str) -> None:
    """Say once that the reply depends on the request field `name`; what the upstream said stays, "*" says it all."""
    known = tokens(headers.getall("Vary")) if "Vary" in headers else ()
    if "*" not in known and name.lower() not in known:
        append(headers, "Vary", name)
