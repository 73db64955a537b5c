"""Elements of a streamed JSON array, and what stands around them."""

from __future__ import annotations

import pytest

from proxy.dialects.arrays import in_place, is_bare, read_data, with_data, write

RAWS = [
    (b"[{}", b"{}"),
    (b" \r\n[ {}", b"{}"),
    (b"\n,\r\n{}", b"{}"),
    (b"{} \n", b"{}"),
    (b"[[1]", b"[1]"),
    (b"\n]", b"]"),
    (b"[]\n", b"]"),
    (b" \n", b""),
    (b"", b""),
    (b"[1,{}", b"1,{}"),
]


@pytest.mark.parametrize(("raw", "data"), RAWS)
def test_the_element_is_what_stands_behind_the_separator(raw: bytes, data: bytes) -> None:
    assert read_data(raw) == data
    assert with_data(raw, data) == raw


def test_what_stands_around_another_element_stays() -> None:
    assert with_data(b"\n,\r\n{} \n", b'{"a":1}') == b'\n,\r\n{"a":1} \n'


@pytest.mark.parametrize(
    ("raw", "first", "placed"),
    [
        (b"[{}", True, b"[{}"),
        (b"[{}", False, b",{}"),
        (b"\n,\r\n{}", True, b"\n[\r\n{}"),
        (b"\n,\r\n{}", False, b"\n,\r\n{}"),
        (b"{}", False, b",{}"),
        (b"\n]\n", False, b"\n]\n"),
        (b"\n]\n", True, b"\n[]\n"),
        (b"[]", True, b"[]"),
        (b"\n", True, b"\n"),
    ],
)
def test_an_element_comes_with_the_separator_of_its_place(raw: bytes, first: bool, placed: bytes) -> None:
    assert in_place(raw, first=first) == placed


def test_a_new_element_follows_another() -> None:
    assert write(b"{}") == b",\n{}"


@pytest.mark.parametrize(
    ("raw", "bare"), [(b"{}", True), (b"[{}", False), (b",{}", False), (b"]", False), (b" ", False)]
)
def test_an_element_without_a_separator_belongs_to_no_array(raw: bytes, bare: bool) -> None:
    assert is_bare(raw) is bare
