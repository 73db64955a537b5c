"""The words that all dialects share."""

from __future__ import annotations

import pytest

from proxy.dialects.base import EVERY_CHANNEL, Channel, Kind, Parsed

TEXT = Channel(0, Kind.TEXT, 0)


@pytest.mark.parametrize(
    ("named", "covered"),
    [
        (EVERY_CHANNEL, True),
        (Channel(0, None, None), True),
        (Channel(None, Kind.TEXT, None), True),
        (TEXT, True),
        (Channel(1, None, None), False),
        (Channel(0, Kind.REASONING, None), False),
        (Channel(0, Kind.TEXT, 1), False),
        (Channel(0, Kind.TEXT, "0"), False),
        (Channel(0, None, "0/a"), False),
    ],
)
def test_which_channels_a_channel_names(named: Channel, covered: bool) -> None:
    assert named.covers(TEXT) is covered


def test_a_place_names_what_stands_below_it() -> None:
    below = Channel(0, Kind.TEXT, "2/action/query")
    assert Channel(0, None, 2).covers(below)
    assert Channel(0, None, "2/action").covers(below)
    assert not Channel(0, None, "2/act").covers(below)
    assert not Channel(0, None, 20).covers(below)
    assert not below.covers(Channel(0, Kind.TEXT, "2/action"))


def test_a_text_that_grows_is_the_same_where_it_is_said_once() -> None:
    again = TEXT._replace(repeated=True, grows=True)
    assert again.steady == TEXT.steady == TEXT
    whole = TEXT._replace(repeated=True)
    assert whole.steady == whole


def test_channels_are_keys() -> None:
    repeated = TEXT._replace(repeated=True)
    state = {TEXT: 1, repeated: 2}
    assert state[Channel(0, Kind("text"), 0)] == 1
    assert state[Channel(0, Kind.TEXT, 0, repeated=True)] == 2


def test_what_says_nothing_is_known_to_say_nothing() -> None:
    parsed = Parsed()
    assert (parsed.deltas, parsed.ends, parsed.usage, parsed.choices, parsed.known) == ((), (), None, (), True)
