from __future__ import annotations

import io
import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.accesslog import MAX_LINE_BYTES, MAX_TEXT, AccessLog, JSONHandler, Record, access_line
from proxy.errors import FAULTS, OutcomeKind


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "time": 1_800_000_000.25,
        "id": "0190-a",
        "client": "192.0.2.7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "route": "chat",
        "upstream": "model",
        "dialect": "openai_chat",
        "status": 200,
        "outcome": OutcomeKind.COMPLETE,
        "source": "",
        "details": "",
        "ttft_ms": 12.3456,
        "duration_ms": 345.6789,
        "events": 7,
        "request_bytes": 11,
        "upstream_bytes": 22,
        "downstream_bytes": 33,
        "facts": {"heartbeat": {"sent": 2}},
    }
    return Record(**{**fields, **changes})


class Pipe:
    def __init__(self) -> None:
        read, write = os.pipe()
        self.reader = io.FileIO(read, "r")
        self.writer = io.FileIO(write, "w")
        self.fd = write

    def fill(self) -> int:
        """Write until nothing more fits; how much that was."""
        written = 0
        os.set_blocking(self.fd, False)
        while (size := self.writer.write(b"#" * 4096)) is not None:
            written += size
        os.set_blocking(self.fd, True)
        return written

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.reader.read(min(size, 65536)))

    def line(self) -> dict[str, Any]:
        """The next line, waited for."""
        found = json.loads(self.reader.readline())
        assert isinstance(found, dict)
        return found

    def end(self) -> bytes:
        """Close the writing side; what was still to be read."""
        self.writer.close()
        return self.reader.read()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = Pipe()
    with ends.reader, ends.writer:
        yield ends


class Drops:
    """Counts, and can be waited for."""

    def __init__(self) -> None:
        self.count = 0
        self.any = threading.Event()

    def __call__(self) -> None:
        self.count += 1
        self.any.set()


def test_a_line_says_all_of_its_exchange() -> None:
    assert json.loads(access_line(record())) == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "id": "0190-a",
        "client": "192.0.2.7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "route": "chat",
        "upstream": "model",
        "dialect": "openai_chat",
        "status": 200,
        "outcome": "complete",
        "source": "",
        "details": "",
        "ttft_ms": 12.346,
        "duration_ms": 345.679,
        "events": 7,
        "request_bytes": 11,
        "upstream_bytes": 22,
        "downstream_bytes": 33,
        "facts": {"heartbeat": {"sent": 2}},
    }


def test_an_exchange_without_content_has_no_ttft() -> None:
    assert json.loads(access_line(record(ttft_ms=None)))["ttft_ms"] is None


@pytest.mark.parametrize("details", FAULTS)
def test_the_level_is_that_of_the_fault(details: str) -> None:
    level = json.loads(access_line(record(details=details)))["level"]
    assert level == logging.getLevelName(FAULTS[details].level).lower()


def test_nothing_that_a_client_sent_can_forge_a_line_or_steer_a_terminal() -> None:
    path = '/\n{}\r\x1b[2J\x7f\x9b2J\u2028\u202e\udcff"'
    line = access_line(record(path=path))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["path"] == path


@pytest.mark.parametrize("text", ["plain", "\x7f", "\u202e", "\udcff"])
def test_every_line_is_written_in_the_same_form(text: str) -> None:
    """Those that are short and plain are encoded by another library."""
    line = access_line(record(path=text, ttft_ms=None, duration_ms=0.5, facts={"p": {"n": 1, "key": "v"}}))
    assert line == json.dumps(json.loads(line), separators=(",", ":"))


def test_texts_are_bounded() -> None:
    line = json.loads(access_line(record(path="/" * 9000, method="M" * 9000, facts={"p": {"key": "v" * 9000}})))
    assert line["path"] == "/" * MAX_TEXT + "..."
    assert line["method"] == "M" * MAX_TEXT + "..."
    assert line["facts"]["p"]["key"] == "v" * MAX_TEXT + "..."


TOO_LONG = {
    "a text that is long once it is escaped": {"path": "\x00" * 9000},
    "many texts": dict.fromkeys(("id", "client", "method", "path", "route", "upstream", "details"), "t" * 9000),
    "many facts": {"facts": {"p": {str(number): "f" for number in range(9000)}}},
    "many policies": {"facts": {str(number): {"key": "f"} for number in range(9000)}},
    "long facts of many policies": {
        "facts": {str(policy): {str(number): "\x00" * 90 for number in range(90)} for policy in range(90)}
    },
    "a fact with a long name": {"facts": {"p": {"k" * 9000: 1}}},
    "all of it": {
        **dict.fromkeys(("id", "client", "method", "path", "route", "upstream", "details"), "\x00" * 9000),
        "facts": {"p" * 9000: {"k" * 9000: "\x00" * 9000}},
    },
}


@pytest.mark.parametrize("changes", TOO_LONG.values(), ids=TOO_LONG)
def test_a_pipe_takes_every_line_whole(changes: dict[str, Any]) -> None:
    line = access_line(record(**changes))
    assert len(line) < MAX_LINE_BYTES <= select.PIPE_BUF
    assert "..." in line, "what is cut is seen to be cut"
    whole, cut = json.loads(access_line(record())), json.loads(line)
    assert list(cut) == list(whole)
    assert cut["status"] == whole["status"]


def test_a_line_that_is_not_too_long_is_not_cut() -> None:
    facts = {"p": {str(number): "f" * 50 for number in range(40)}}
    assert json.loads(access_line(record(facts=facts)))["facts"] == facts


def test_a_query_does_not_reach_the_log() -> None:
    assert "secret" not in access_line(record(path="/v1beta/models?key=secret"))


def test_lines_come_in_order_and_are_flushed_at_stop(pipe: Pipe) -> None:
    drops = Drops()
    log = AccessLog(drops, pipe.fd)
    log.start()
    for number in range(100):
        log.write(record(id=str(number)))
    log.stop()
    assert [json.loads(line)["id"] for line in pipe.end().splitlines()] == [str(number) for number in range(100)]
    assert drops.count == 0


def test_a_reader_that_does_not_read_stops_nobody(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    full = pipe.fill()
    drops = Drops()
    log = AccessLog(drops, pipe.fd, capacity=2)
    log.start()
    while not drops.count:
        log.write(record(id="first"))
    for _ in range(10):
        log.write(record())
    log.stop(timeout_s=0.0)
    assert drops.count in (10, 11), "all but what its thread may still take before it is stuck"
    assert len(caplog.records) == 1, "the loss is said once"
    assert "penstock_access_log_dropped_total" in caplog.text
    pipe.skip(full)
    assert pipe.line()["id"] == "first", "what was queued is written once there is room"
    log.stop()


def test_a_pipe_that_another_process_made_non_blocking_gets_whole_lines(pipe: Pipe) -> None:
    full = pipe.fill()
    os.set_blocking(pipe.fd, False)
    log = AccessLog(Drops(), pipe.fd)
    log.start()
    written = [record(id=str(number), facts={"p": {str(key): "v" * 1000 for key in range(200)}}) for number in (1, 2)]
    for line in written:
        log.write(line)
    pipe.skip(full)
    assert [pipe.line() for _ in written] == [json.loads(access_line(line)) for line in written]
    log.stop()


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    pipe.reader.close()
    drops = Drops()
    log = AccessLog(drops, pipe.fd)
    log.start()
    log.write(record())
    log.write(record())
    log.stop()
    assert drops.count == 2
    assert [entry.getMessage() for entry in caplog.records] == [
        "access log lines are being dropped (BrokenPipeError); penstock_access_log_dropped_total counts them"
    ]


def test_a_fact_that_is_none_costs_its_own_line_only(pipe: Pipe) -> None:
    drops = Drops()
    log = AccessLog(drops, pipe.fd)
    log.start()
    log.write(record(facts={"p": {"key": object()}}))
    log.write(record(id="next"))
    log.stop()
    assert json.loads(pipe.end())["id"] == "next"
    assert drops.count == 1


def test_stop_works_without_start(pipe: Pipe) -> None:
    AccessLog(Drops(), pipe.fd).stop()
    assert pipe.end() == b""


@pytest.fixture
def logger(pipe: Pipe) -> Iterator[logging.Logger]:
    """A logger whose only handler writes JSON lines to the pipe."""
    made = logging.Logger("the.logger")
    handler = JSONHandler(pipe.fd, capacity=2)
    made.addHandler(handler)
    yield made
    handler.close()


def test_the_operational_log_is_json_with_what_the_call_adds(logger: logging.Logger, pipe: Pipe) -> None:
    logger.warning("listening on %s\n", "127.0.0.1:1", extra={"fields": {"event": "listening", "name": "main"}})
    line = pipe.line()
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "the.logger",
        "message": "listening on 127.0.0.1:1\n",
        "event": "listening",
        "name": "main",
    }


def test_an_exception_is_logged_by_its_way_and_type_only(logger: logging.Logger, pipe: Pipe) -> None:
    try:
        json.loads("content")
    except ValueError:
        logger.exception("it failed")
    line = pipe.line()
    *way, what = line["exception"]
    assert what == "JSONDecodeError"
    assert "test_an_exception_is_logged_by_its_way" in way[0]
    assert " in raw_decode" in way[-1]
    assert "content" not in json.dumps(line), "its message may quote content"


def test_of_a_long_way_to_an_exception_the_end_is_kept(logger: logging.Logger, pipe: Pipe) -> None:
    def fall(depth: int) -> None:
        if depth:
            fall(depth - 1)
        raise ValueError

    try:
        fall(200)
    except ValueError:
        logger.exception("it failed")
    way = pipe.line()["exception"]
    assert way[0] == "..."
    assert way[-2].endswith(" in fall")
    assert way[-1] == "ValueError"


def test_fields_of_the_process_are_in_every_line(pipe: Pipe) -> None:
    made = logging.Logger("the.logger")
    handler = JSONHandler(pipe.fd, fields={"worker": 2})
    made.addHandler(handler)
    made.info("first")
    made.info("second", extra={"fields": {"event": "second"}})
    handler.close()
    assert [(line["worker"], line.get("event")) for line in map(json.loads, pipe.end().splitlines())] == [
        (2, None),
        (2, "second"),
    ]


def test_a_wrong_log_call_is_told_and_survived(
    logger: logging.Logger, pipe: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.info("%d", "not a number")
    logger.info("next")
    assert pipe.line()["message"] == "next"
    assert "not a number" in capsys.readouterr().err


def test_the_next_line_says_how_many_were_lost(logger: logging.Logger, pipe: Pipe) -> None:
    full = pipe.fill()
    for _ in range(10):
        logger.info("before")
    pipe.skip(full)
    lines = [pipe.line() for _ in range(2)]
    logger.info("after")
    while lines[-1]["message"] != "after":
        lines.append(pipe.line())
    assert lines[-1]["dropped"] == 10 - (len(lines) - 1)
    logger.info("later")
    assert "dropped" not in pipe.line()


def test_configure_logging_takes_the_root_and_flushes_when_the_process_ends() -> None:
    program = """
import logging
from proxy.accesslog import configure_logging
configure_logging("info")
configure_logging("warning")
logging.getLogger("some.library").info("not this")
logging.getLogger("some.library").warning("but this")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], line["logger"], line["message"]) for line in lines] == [
        ("warning", "some.library", "but this")
    ]
    assert done.stdout == ""
