"""Whether a part may reach into aiohttp, and what the log is told where it may not."""

from __future__ import annotations

import pytest

from proxy.aiohttp_paths import fits


def does() -> None:
    """All that it needs is there."""


def does_not() -> None:
    raise ImportError("a name is gone")


def must_not_be_asked() -> None:
    raise AssertionError("what is not wanted is not even looked at")


def test_what_fits_is_used_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert fits("auto", "upstream side", does)
    assert caplog.records == []


def test_what_does_not_fit_is_not_used_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    assert not fits("auto", "upstream side", does_not)
    (record,) = caplog.records
    assert (record.levelname, "a name is gone" in record.getMessage()) == ("WARNING", True)
    fields = {"event": "aiohttp_unknown", "part": "upstream side", "reason": "a name is gone"}
    assert record.__dict__["fields"] == fields


def test_what_is_not_wanted_is_not_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    assert not fits("portable", "upstream side", must_not_be_asked)
    assert caplog.records == []
