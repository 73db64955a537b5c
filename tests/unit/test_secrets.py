"""Secrets come from where their reference says, and show themselves to nobody, not even when they are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.secrets import MAX_BYTES, Secret
from proxy.values import Table

KEY = "sk-do-not-print-me"


class Holder(Table):
    secret: Secret


def test_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_API_KEY", KEY)
    secret = Secret.read("env:MODEL_API_KEY")
    assert secret.get_secret_value() == KEY
    assert secret.reference == "env:MODEL_API_KEY"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_file_without_its_final_line_break(tmp_path: Path, end: str) -> None:
    path = tmp_path / "key"
    path.write_bytes((KEY + end).encode())
    assert Secret.read(f"file:{path}").get_secret_value() == KEY


def test_shows_itself_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_API_KEY", KEY)
    holder = Holder.model_validate_json('{"secret": "env:MODEL_API_KEY"}')
    shown = [
        repr(holder),
        str(holder),
        f"{holder.secret}",
        repr(holder.secret),
        repr(vars(holder)),
    ]
    assert not any(KEY in text for text in shown)
    assert repr(holder.secret) == "Secret('env:MODEL_API_KEY')"


def test_one_that_was_read_already_is_taken_as_it_is() -> None:
    secret = Secret("env:X", KEY)
    assert Holder(secret=secret).secret is secret


PLAIN = 'must be a reference, "env:NAME" or "file:/path"; the secret itself is never written here'
WRONG: list[tuple[object, str]] = [
    (KEY, PLAIN),
    ("", PLAIN),
    (5, PLAIN),
    (f"env:{KEY}", 'what follows "env:" is not the name of an environment variable'),
    ("env:", 'what follows "env:" is not the name of an environment variable'),
    ("env:NOT_SET", "environment variable NOT_SET is not set"),
    ("env:EMPTY", "env:EMPTY is empty"),
    ("env:SPACE", "env:SPACE begins or ends with white space"),
    ("env:LINES", "env:LINES contains a line break or another character that a header cannot carry"),
    ("env:CONTROL", "env:CONTROL contains a line break or another character that a header cannot carry"),
    ("env:UMLAUT", "env:UMLAUT contains a line break or another character that a header cannot carry"),
    ("file:key", 'what follows "file:" must be an absolute path'),
    ("file:/nonexistent/key", "file /nonexistent/key cannot be read: no such file or directory"),
    ("file:/\0", "file /\0 cannot be read: embedded null byte"),
]


@pytest.mark.parametrize(("reference", "message"), WRONG)
def test_what_cannot_be_one(monkeypatch: pytest.MonkeyPatch, reference: object, message: str) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    values = {"EMPTY": "", "SPACE": KEY + " ", "LINES": "a\r\nX-Admin: 1", "CONTROL": "a\x7f", "UMLAUT": "Schlüssel"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is compared whole
        Secret.read(reference)
    assert str(raised.value) == message
    assert raised.value.__cause__ is None


FILES: list[tuple[bytes, str]] = [
    (b"", "is empty"),
    (b"\n", "is empty"),
    (b"key\n\n", "begins or ends with white space"),
    (b"\xff\xfe", "is not text"),
    (b"x" * (MAX_BYTES + 1), f"is larger than {MAX_BYTES} bytes"),
]


@pytest.mark.parametrize(("content", "message"), FILES)
def test_what_a_file_cannot_hold(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} {message}$"):
        Secret.read(f"file:{path}")


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: is a directory"):
        Secret.read(f"file:{tmp_path}")


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_API_KEY", KEY)
    secret = Secret.read("env:MODEL_API_KEY")
    os.environ["MODEL_API_KEY"] = "another"
    assert secret.get_secret_value() == KEY
