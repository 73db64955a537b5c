"""I/O. What leaves the process as log lines: the access log (stdout, one per exchange), the operational log (stderr).

Both are JSON, one object a line, and both go through a `LineWriter`: a bounded queue and one thread, so that a reader
that stopped reading can never stop the event loop. What does not fit is dropped and counted. Lines hold no content, no
query string and no secret, and are plain ASCII, so that nothing a client sends can forge a line or steer a terminal.

Several workers write to the same stdout and stderr. Their lines never mix: each is one `write` of at most PIPE_BUF bytes,
which a pipe takes whole or not at all (pipe(7)), as files do with writes of any size; what is too long is shortened.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import select
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec

from .errors import OutcomeKind, fault

QUEUE_LINES = 10_000
MAX_TEXT = 1024  # characters of any one text in a line: a path may be as long as the request line's limit allows
MAX_LINE_BYTES = 4096  # PIPE_BUF on Linux; the line's end included
STDOUT, STDERR = 1, 2

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")


@dataclass(slots=True, kw_only=True)
class Record:
    """What is said of one exchange once it has ended.

    `time` is when its head had arrived, in seconds since the epoch (the line says it in ISO 8601, UTC). `path` comes
    without the query. `status` is what the client was sent, 0 where it was sent nothing. `ttft_ms` is None where no
    content was delivered. `facts` holds what each policy stream said of itself, by the policy's name.
    """

    time: float
    id: str
    client: str
    method: str
    path: str
    route: str
    upstream: str
    dialect: str
    status: int
    outcome: OutcomeKind
    source: str
    details: str
    ttft_ms: float | None
    duration_ms: float
    events: int
    request_bytes: int
    upstream_bytes: int
    downstream_bytes: int
    facts: Mapping[str, Mapping[str, int | str]] = field(default_factory=dict)


class LineWriter(Generic[ItemT]):
    """Writes items to a file descriptor, one line each, from a thread of its own.

    `encode` runs on that thread. `lost` is told of every item that could not be written, with the reason; it may be
    called from any thread.
    """

    def __init__(
        self, fd: int, encode: Callable[[ItemT], str], lost: Callable[[str], None], *, capacity: int = QUEUE_LINES
    ) -> None:
        self._fd = fd
        self._encode = encode
        self._lost = lost
        self._queue: queue.Queue[ItemT | None] = queue.Queue(capacity)
        self._thread: threading.Thread | None = None

    def start(self, name: str) -> None:
        # A daemon, so that a reader who never reads again cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: ItemT) -> bool:
        """Queue `item`; False where the queue is full and the item is lost. Never blocks."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self._lost("the queue is full")
            return False
        return True

    def stop(self, timeout_s: float) -> None:
        """Write what is queued and end the thread; give up after `timeout_s`. Blocks. Does nothing unless started."""
        if self._thread is None:
            return
        give_up = time.monotonic() + timeout_s
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(max(0.0, give_up - time.monotonic()))
        self._thread = None

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(self._encode(item).encode("ascii") + b"\n")
            except Exception as error:  # whatever a line's trouble is, the lines after it must be written
                self._lost(type(error).__name__)

    def _write(self, data: bytes) -> None:
        # os.write, not sys.stdout: a thread that is stuck in a buffered file takes the interpreter's shutdown with it.
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # a terminal or pipe that another process made non-blocking
                select.select((), (self._fd,), ())


class AccessLog:
    """One line per exchange. `dropped` is called once for each line that is lost."""

    def __init__(self, dropped: Callable[[], None], fd: int = STDOUT, *, capacity: int = QUEUE_LINES) -> None:
        self._dropped = dropped
        self._said = False
        self._lines: LineWriter[Record] = LineWriter(fd, access_line, self._lost, capacity=capacity)

    def start(self) -> None:
        self._lines.start("access-log")

    def write(self, record: Record) -> None:
        """Queue the line of `record`, which must not be changed any more. Never blocks."""
        self._lines.put(record)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Flush, for at most `timeout_s`. Blocks: call it after the last exchange."""
        self._lines.stop(timeout_s)

    def _lost(self, reason: str) -> None:
        self._dropped()
        if not self._said:
            self._said = True
            logger.warning(
                "access log lines are being dropped (%s); penstock_access_log_dropped_total counts them", reason
            )


def access_line(record: Record) -> str:
    """The line of `record`, without its end."""
    return _json(
        {
            "time": _utc(record.time),
            "level": logging.getLevelName(fault(record.details).level).lower(),
            "id": record.id,
            "client": record.client,
            "method": record.method,
            "path": record.path.partition("?")[0],  # the last door: a key in a query must not leave by it
            "route": record.route,
            "upstream": record.upstream,
            "dialect": record.dialect,
            "status": record.status,
            "outcome": record.outcome.value,
            "source": record.source,
            "details": record.details,
            "ttft_ms": None if record.ttft_ms is None else round(record.ttft_ms, 3),
            "duration_ms": round(record.duration_ms, 3),
            "events": record.events,
            "request_bytes": record.request_bytes,
            "upstream_bytes": record.upstream_bytes,
            "downstream_bytes": record.downstream_bytes,
            "facts": {policy: dict(facts) for policy, facts in record.facts.items()},
        }
    )


def configure_logging(level: str, fields: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Send the operational log of the whole process to stderr as JSON lines, each with `fields`; `level` is a name such
    as "info"."""
    logging.basicConfig(handlers=[JSONHandler(fields=fields)], level=level.upper(), force=True)


class JSONHandler(logging.Handler):
    """One JSON line per log record, through a `LineWriter`. After a loss the next line says how many.

    `fields` are in every line. A call's `extra={"fields": {...}}` adds keys to its line, for whoever reads the log by
    program.
    """

    def __init__(
        self, fd: int = STDERR, *, fields: Mapping[str, Any] = MappingProxyType({}), capacity: int = QUEUE_LINES
    ) -> None:
        super().__init__()
        self._fields = fields
        self._dropped = 0
        self._lines: LineWriter[str] = LineWriter(fd, str, self._lost, capacity=capacity)
        self._lines.start("log")

    def emit(self, record: logging.LogRecord) -> None:
        dropped = self._dropped
        try:
            line = _line(record, self._fields, dropped)
        except Exception:  # the arguments of a log call do not fit its message: said where the standard library says it
            self.handleError(record)
            return
        if self._lines.put(line):
            self._dropped -= dropped

    def close(self) -> None:
        """Flush, for at most five seconds; the standard library calls it when the interpreter exits."""
        self._lines.stop(5.0)
        super().close()

    def _lost(self, reason: str) -> None:
        self._dropped += 1


def _line(record: logging.LogRecord, fields: Mapping[str, Any], dropped: int) -> str:
    document: dict[str, Any] = {
        "time": _utc(record.created),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        **fields,
        **getattr(record, "fields", {}),
    }
    if record.exc_info:
        document["exception"] = _raised(record.exc_info[1])
    if dropped:
        document["dropped"] = dropped
    return _json(document)


def _raised(error: BaseException | None) -> list[str]:
    """Where it was raised, outermost first, and what. Not its message, which may quote what a client or model wrote."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    way = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return [*way, type(error).__name__]


def _utc(seconds: float) -> str:
    """`seconds` since the epoch as ISO 8601 in UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"


def _json(document: dict[str, Any]) -> str:
    """`document` as a line, without its end. Texts, and what is nested, are cut as far as the line's limit demands."""
    # Nearly every line is short and plain. Whatever thread encodes it, the event loop stands still meanwhile.
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # json knows more types, and writes surrogates
        short = msgspec.json.encode(document)
        if len(short) <= MAX_TEXT and short.isascii() and b"\x7f" not in short:
            return short.decode()
    for longest in (MAX_TEXT, 256, 64, 16):
        line = json.dumps({key: _cut(item, longest) for key, item in document.items()}, separators=(",", ":"))
        if len(line) < MAX_LINE_BYTES:
            return line
    return json.dumps({key: _cut(item, 0) for key, item in document.items()}, separators=(",", ":"))


def _cut(value: Any, longest: int) -> Any:
    """`value` with at most `longest` characters in a text, and fewer items in what is nested; every cut is shown."""
    items = longest // 16
    if isinstance(value, str):
        return value if len(value) <= longest else value[:longest] + "..."
    if isinstance(value, dict):
        kept = {key: _cut(item, longest) for key, item in list(value.items())[:items]}
        return kept if len(value) <= items else {**kept, "...": len(value) - items}
    if isinstance(value, list):  # of a traceback the end says most
        last = [_cut(item, longest) for item in value[max(0, len(value) - items) :]]
        return last if len(value) <= items else ["...", *last]
    return value
