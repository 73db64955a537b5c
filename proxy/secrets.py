"""Secrets by reference: `"env:NAME"` or `"file:/path"` in the configuration, never the secret itself.

A `Secret` is read once, when the configuration is loaded, and shows itself to nobody who does not ask for it: not in
a log, a traceback or a message. Usable as the type of a key in any configuration model.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic_core import CoreSchema, core_schema

MAX_BYTES = 65536

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secret:
    """A secret and the reference it was read by. `repr`, `str` and formatting show the reference only."""

    __slots__ = ("_value", "reference")

    def __init__(self, reference: str, value: str) -> None:
        self.reference = reference
        self._value = value

    @classmethod
    def read(cls, reference: object) -> Secret:
        """Look the reference up.

        Raises ValueError where it is no reference, leads nowhere, or leads to what cannot be a header's value
        (RFC 9110 §5.5). The message names the reference only where it is known to be one, and never the secret.
        """
        if not isinstance(reference, str) or not reference.startswith(("env:", "file:")):
            raise ValueError('must be a reference, "env:NAME" or "file:/path"; the secret itself is never written here')
        kind, _, target = reference.partition(":")
        value = _variable(target) if kind == "env" else _content(target)
        _check(value, reference)
        return cls(reference, value)

    def get_secret_value(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        def validate(given: object) -> Secret:
            return given if isinstance(given, cls) else cls.read(given)

        return core_schema.no_info_plain_validator_function(validate)


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):  # perhaps the secret itself, so it is not repeated
        raise ValueError('what follows "env:" is not the name of an environment variable')
    value = os.environ.get(name)
    if value is None:
        raise ValueError(f"environment variable {name} is not set")
    return value


def _content(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError('what follows "file:" must be an absolute path')
    return read_text(path, MAX_BYTES).removesuffix("\n").removesuffix("\r")


def read_text(path: str, max_bytes: int) -> str:
    """What is in a file. Raises ValueError where it cannot be read, is larger, or is not UTF-8."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"file {path} cannot be read: {reason(error)}") from None
    if len(data) > max_bytes:
        raise ValueError(f"file {path} is larger than {max_bytes} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"file {path} is not text") from None


def _check(value: str, reference: str) -> None:
    if not value:
        raise ValueError(f"{reference} is empty")
    if value != value.strip():
        raise ValueError(f"{reference} begins or ends with white space")
    if not value.isascii() or not value.isprintable():
        raise ValueError(f"{reference} contains a line break or another character that a header cannot carry")


def reason(error: OSError | ValueError) -> str:
    """Why a file could not be read, in the system's words and without the path."""
    text = error.strerror if isinstance(error, OSError) else None
    return (text or str(error)).lower()
