"""Keys, and the arithmetic of a window: what counts, what is left, when there is more."""

from __future__ import annotations

import pytest

from proxy.state import Grant, Level, Short, Usage, Window, check_amount, key

MINUTE, TOTAL = Window(100, 60), Window(100, None)


def test_plain_parts_can_be_read_in_a_key() -> None:
    assert key("token_limit", "key", "alice@example.org") == "token_limit/key/alice@example.org"
    assert key("caps", "2001:db8::1") == "caps/2001:db8::1"


@pytest.mark.parametrize(
    "part",
    [
        "",
        "a b",
        "a/b",
        "{a}",
        "a\nb",
        "a\0b",
        "#" + "0" * 32,
        "é",
        "\ud800",
        "\x7f",
        "a" * 65,
        "a" * 1_000_000,
        "*",
        "[a]",
    ],
    ids=lambda part: repr(part[:8]),
)
def test_any_other_part_is_hashed(part: str) -> None:
    made = key("caps", part)
    assert made.startswith("caps/#")
    assert len(made) == len("caps/#") + 32
    assert made.isascii()
    assert made.isprintable()


def test_different_parts_make_different_keys() -> None:
    lists = [
        ("a", "b"),
        ("a/b",),
        ("a", "b", ""),
        ("a", "", "b"),
        ("ab",),
        ("a", "B"),
        ("é",),
        ("e\u0301",),
        ("\ud800",),
    ]
    assert len({key(*parts) for parts in lists}) == len(lists)
    hashed = key("a b")
    assert key(hashed) != hashed


def test_amounts() -> None:
    check_amount(0)
    with pytest.raises(ValueError, match="cannot be negative: -1"):
        check_amount(-1)


# previous units, seconds for which they count, current units, seconds for which they do; amount; what is left, when
# more is free, when the amount fits
WINDOWS = {
    "nothing was used": ((0, 0.0, 0, 0.0), 100, 100, 0.0, 0.0),
    "some was used": ((0, 0.0, 40, 120.0), 60, 60, 60.001, 0.0),
    "one too many": ((0, 0.0, 40, 120.0), 61, 60, 60.001, 60.001),
    "two too many, and each takes 1.5 s": ((0, 0.0, 40, 120.0), 62, 60, 60.001, 61.501),
    "all of it, in the middle of the window": ((0, 0.0, 40, 90.0), 100, 60, 30.001, 88.501),
    "half of the previous window is in view": ((50, 30.0, 0, 90.0), 100, 75, 0.001, 28.801),
    "the previous one has to go": ((50, 30.0, 20, 90.0), 80, 55, 0.001, 28.801),
    "of both": ((50, 30.0, 50, 90.0), 60, 25, 0.001, 40.801),
    "more than the limit": ((0, 0.0, 0, 0.0), 101, 100, 0.0, None),
    "above the limit": ((0, 0.0, 300, 120.0), 1, 0, 100.001, 100.001),
    "nothing fits into what is above the limit": ((0, 0.0, 300, 120.0), 0, 0, 100.001, 99.801),
}


@pytest.mark.parametrize(("usage", "amount", "remaining", "reset_s", "retry_after_s"), WINDOWS.values(), ids=WINDOWS)
def test_a_window(
    usage: tuple[int, float, int, float], amount: int, remaining: int, reset_s: float, retry_after_s: float | None
) -> None:
    short = Usage(*usage).short(MINUTE, amount)
    assert (short.level.window, short.level.remaining) == (MINUTE, remaining)
    assert short.level.reset_s == pytest.approx(reset_s)
    assert short.retry_after_s == (None if retry_after_s is None else pytest.approx(retry_after_s))


def test_a_total() -> None:
    usage = Usage(0, 0.0, 70, 0.0)
    assert usage.short(TOTAL, 31) == Short(Level(TOTAL, 30, None), None)
    assert usage.short(TOTAL, 30).retry_after_s == 0.0
    assert Usage(0, 0.0, 0, 0.0).level(TOTAL) == Level(TOTAL, 100, 0.0)
    assert Usage(0, 0.0, 170, 0.0).level(TOTAL) == Level(TOTAL, 0, None)


def test_grants_that_were_made_one_after_the_other_are_given_back_last_first() -> None:
    levels = (Level(MINUTE, 1, 0.0),)
    first, second = (Grant("a", (MINUTE,), amount, at, levels) for amount, at in ((40, 1.0), (20, 2.0)))
    both = second.after(first.after(None))
    assert list(both.parts(0)) == [(0, 2.0)]
    assert list(both.parts(20)) == [(20, 2.0)]
    assert list(both.parts(21)) == [(20, 2.0), (1, 1.0)]
    assert list(both.parts(1000)) == [(20, 2.0), (980, 1.0)]  # the store gives back no more than there is
    assert both.levels == ()
