"""What is right in an edited file takes effect, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.filewatch import WatchedFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    write(path, "1")
    return path


def write(path: Path, text: str) -> None:
    """As an editor does it: later than whatever was written before."""
    later_ns = path.stat().st_mtime_ns + 1_000_000 if path.exists() else 0
    path.write_text(text)
    if later_ns:
        os.utime(path, ns=(later_ns, later_ns))


def watch(path: Path, last_right: str | None = None) -> WatchedFile[int]:
    return WatchedFile(str(path), int, 100, last_right)


def test_what_it_holds(path: Path) -> None:
    file = watch(path)
    assert (file.value, file.text, file.path) == (1, "1", str(path))
    assert not file.look()


def test_a_change_takes_effect_once(path: Path) -> None:
    file = watch(path)
    write(path, "2")
    assert file.look()
    assert (file.value, file.text) == (2, "2")
    assert not file.look()


def test_another_file_in_its_place(path: Path) -> None:
    file = watch(path)
    other = path.with_suffix(".new")
    write(other, "2")
    stamp = path.stat().st_mtime_ns
    os.utime(other, ns=(stamp, stamp))  # one that was written at the same time
    other.replace(path)
    assert file.look()
    assert file.value == 2


def test_what_is_only_touched_is_not_another(path: Path) -> None:
    file = watch(path)
    write(path, "1")
    assert not file.look()


@pytest.mark.parametrize("spoilt", ["one", "1" * 101])
def test_what_is_not_right_is_told_once_and_changes_nothing(path: Path, spoilt: str) -> None:
    file = watch(path)
    write(path, spoilt)
    with pytest.raises(ValueError, match=r"invalid literal|larger than"):
        file.look()
    assert (file.value, file.text) == (1, "1")
    assert not file.look()
    write(path, "3")
    assert file.look()
    assert file.value == 3


def test_a_file_that_is_gone_for_a_while(path: Path) -> None:
    file = watch(path)
    path.unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        file.look()
    assert not file.look()
    assert file.value == 1
    write(path, "2")
    assert file.look()


def test_what_could_not_be_read_once_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = watch(path)
    write(path, "2")

    def fail(*_: object) -> str:
        raise ValueError("cannot be read: too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("proxy.filewatch.read_text", fail)
        with pytest.raises(ValueError, match="too many"):
            file.look()
        assert not file.look()
    assert file.look()
    assert file.value == 2


@pytest.mark.parametrize("last_right", [None, "one"])
def test_at_first_something_must_be_right(path: Path, last_right: str | None) -> None:
    write(path, "one")
    with pytest.raises(ValueError, match="invalid literal"):
        watch(path, last_right)


@pytest.mark.parametrize("gone", [False, True])
def test_what_was_right_before_it_was_spoilt(path: Path, gone: bool) -> None:
    if gone:
        path.unlink()
    else:
        write(path, "one")
    file = watch(path, last_right="1")
    assert (file.value, file.text) == (1, "1")
    with pytest.raises(ValueError, match=r"invalid literal|cannot be read"):
        file.look()
    write(path, "2")
    assert file.look()
    assert file.value == 2


def test_what_is_right_now_is_preferred_to_what_was(path: Path) -> None:
    assert watch(path, last_right="7").value == 1
