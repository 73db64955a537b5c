"""Every way in which an exchange can end, and every exception: one screen each.

The tree says whose fault it was; foreign exceptions (aiohttp, ssl, OSError) are translated once, at the border
(`upstream.py`, `server.py`), and never travel further in:

    PenstockError
    ├── ConfigError          the operator's: lists every problem found, the process does not start
    ├── RequestError         the client's: what it sent cannot be let in
    ├── UpstreamError        the model server's
    │   ├── UpstreamTruncated    EOF too early
    │   └── UpstreamGarbage      not HTTP, not decodable, not within the limits
    │       └── EventTooLarge    it may stand behind good events of the same read
    ├── StateError           the state store's: down, or slower than its bound
    └── PolicyError          ours or a policy author's: a policy raised or broke the contract

`FAULTS` is the one table from a fault's machine-readable `details` to the status a client sees when the head has not
been sent yet, the outcome that is logged, the log level and the sentence a person reads.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class OutcomeKind(enum.Enum):
    """How an exchange ended: exactly one of these, the first of simultaneous ends (docs/chain.md, rule 8)."""

    COMPLETE = "complete"
    STOPPED = "stopped"
    REFUSED = "refused"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TRUNCATED = "upstream_truncated"
    UPSTREAM_GARBAGE = "upstream_garbage"
    CLIENT_GONE = "client_gone"
    TIMEOUT = "timeout"
    POLICY_ERROR = "policy_error"
    SHUTDOWN = "shutdown"


class Fault(NamedTuple):
    """One row of `FAULTS`. An `outcome` STOPPED is REFUSED where it is a policy's answer at admission."""

    status: int
    outcome: OutcomeKind
    level: int
    message: str


_K = OutcomeKind
_I, _W, _E = logging.INFO, logging.WARNING, logging.ERROR

FAULTS: dict[str, Fault] = {
    # what the client sent
    "malformed_request": Fault(400, _K.REFUSED, _I, "The request is not valid HTTP/1.1."),
    "malformed_path": Fault(400, _K.REFUSED, _I, "The request path is not valid or is ambiguous."),
    "malformed_body": Fault(
        400, _K.REFUSED, _I, "The request body is not framed or encoded as its headers say, or is no call of this API."
    ),
    "head_timeout": Fault(408, _K.REFUSED, _I, "The request head did not arrive in time."),
    "body_timeout": Fault(408, _K.REFUSED, _I, "The request body did not arrive in time."),
    "body_too_large": Fault(413, _K.REFUSED, _I, "The request body is larger than this proxy accepts."),
    "uri_too_long": Fault(414, _K.REFUSED, _I, "The request target is longer than this proxy accepts."),
    "unsupported_coding": Fault(415, _K.REFUSED, _I, "The request body has a content coding that cannot be read here."),
    "expectation_failed": Fault(417, _K.REFUSED, _I, "The only expectation supported is 100-continue."),
    "unknown_host": Fault(421, _K.REFUSED, _I, "No route is configured for this host."),
    "head_too_large": Fault(431, _K.REFUSED, _I, "The request head is larger than this proxy accepts."),
    "no_route": Fault(404, _K.REFUSED, _I, "No route is configured for this path."),
    "method_refused": Fault(405, _K.REFUSED, _I, "This method is not passed on."),
    "upgrade_refused": Fault(501, _K.REFUSED, _I, "This protocol upgrade is not configured."),
    "transfer_coding": Fault(501, _K.REFUSED, _I, "This transfer coding is not supported."),
    "too_many_connections": Fault(503, _K.REFUSED, _W, "Too many connections are open; try again later."),
    "draining": Fault(503, _K.REFUSED, _I, "This server is shutting down; try again."),
    "unauthorized": Fault(401, _K.REFUSED, _I, "A valid API key is needed."),
    # what it used up; in the middle of a stream the same is a policy's stop
    "request_rate": Fault(429, _K.STOPPED, _I, "Too many requests; try again later."),
    "stream_cap": Fault(429, _K.STOPPED, _I, "Too many requests at the same time; try again later."),
    "token_limit": Fault(429, _K.STOPPED, _I, "The token budget is used up; try again later."),
    "state_unavailable": Fault(503, _K.STOPPED, _W, "The limits of this server cannot be checked; try again later."),
    # what must not pass
    "redaction_stopped": Fault(
        403, _K.STOPPED, _I, "The text contains something that this proxy does not let through."
    ),
    "redaction_unreadable": Fault(
        502, _K.STOPPED, _I, "The model server's answer has a form that cannot be checked here."
    ),
    "redaction_budget": Fault(500, _K.POLICY_ERROR, _E, "The text costs more to check than it may."),
    # what the model server did
    "upstream_unreachable": Fault(502, _K.UPSTREAM_ERROR, _W, "The model server could not be reached."),
    "upstream_tls": Fault(502, _K.UPSTREAM_ERROR, _W, "The model server's certificate could not be verified."),
    "upstream_reset": Fault(502, _K.UPSTREAM_ERROR, _W, "The model server closed the connection before it was done."),
    "upstream_status": Fault(502, _K.UPSTREAM_ERROR, _W, "The model server answered with an error."),
    "upstream_truncated": Fault(502, _K.UPSTREAM_TRUNCATED, _W, "The model server's answer ended too early."),
    "upstream_garbage": Fault(502, _K.UPSTREAM_GARBAGE, _W, "The model server's answer could not be understood."),
    "upstream_coding": Fault(502, _K.UPSTREAM_GARBAGE, _W, "The model server's answer has an unreadable coding."),
    "event_too_large": Fault(502, _K.UPSTREAM_GARBAGE, _W, "The model server sent an event over the size limit."),
    # time
    "connect_timeout": Fault(504, _K.TIMEOUT, _W, "The model server did not accept the connection in time."),
    "first_byte_timeout": Fault(504, _K.TIMEOUT, _W, "The model server did not begin to answer in time."),
    "upstream_silence": Fault(504, _K.TIMEOUT, _W, "The model server fell silent in the middle of its answer."),
    "deadline": Fault(504, _K.TIMEOUT, _W, "The exchange took longer than allowed."),
    "write_stall": Fault(408, _K.TIMEOUT, _I, "The client stopped reading."),
    # everything else
    "stopped": Fault(403, _K.STOPPED, _I, "A policy of this proxy ended the exchange."),
    "policy_error": Fault(
        500, _K.POLICY_ERROR, _E, "A policy of this proxy failed; nothing unchecked was let through."
    ),
    "pause_overflow": Fault(500, _K.POLICY_ERROR, _E, "A policy held more of the stream than its limit allows."),
    "internal_error": Fault(500, _K.POLICY_ERROR, _E, "This proxy failed."),
    "client_gone": Fault(499, _K.CLIENT_GONE, _I, "The client closed the connection."),
    "shutdown": Fault(503, _K.SHUTDOWN, _I, "This server is shutting down; try again."),
}


def fault(details: str) -> Fault:
    """The row of `details`; a policy's own reason that has no row is one of the policy's stops."""
    return FAULTS.get(details) or FAULTS["stopped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one exchange ended. `source` is who ended it (a policy's name, "parser" ...), `details` why."""

    kind: OutcomeKind
    source: str = ""
    details: str = ""

    @classmethod
    def of(cls, details: str, source: str = "") -> Outcome:
        """The outcome that `FAULTS` gives to `details`."""
        return cls(fault(details).outcome, source, details)


COMPLETE = Outcome(OutcomeKind.COMPLETE)


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault as a client is told of it; the dialect puts it into its own words. Holds nothing of the upstream's internals."""

    status: int
    details: str
    message: str

    @classmethod
    def of(cls, details: str, message: str | None = None, status: int | None = None) -> Problem:
        row = fault(details)
        return cls(status or row.status, details, message or row.message)


class PenstockError(Exception):
    """The root. `details` is a key of `FAULTS`."""

    details = "internal_error"

    def __init__(self, message: str = "", details: str | None = None) -> None:
        super().__init__(message)
        if details is not None:
            self.details = details


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing wrong with the configuration, told so that the operator can find and mend it."""

    table: str  # "upstreams.model", "policy[2] (heartbeat)"; "" for the whole file
    key: str  # "" where the table itself is wrong
    message: str
    suggestion: str = ""  # the nearest valid key or value

    def __str__(self) -> str:
        place = f"[{self.table}] " if self.table else ""
        key = f"{self.key}: " if self.key else ""
        hint = f" (did you mean {self.suggestion!r}?)" if self.suggestion else ""
        return f"{place}{key}{self.message}{hint}"


class ConfigError(PenstockError):
    """Every problem found in one configuration file."""

    def __init__(self, file: str, problems: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.file = file
        self.problems = tuple(problems)


class RequestError(PenstockError):
    """The client's fault."""

    details = "malformed_request"


class UpstreamError(PenstockError):
    """The model server's fault: unreachable, or a connection that broke (abort)."""

    details = "upstream_reset"


class UpstreamTruncated(UpstreamError):
    """The connection ended in good order, the answer did not."""

    details = "upstream_truncated"


class UpstreamGarbage(UpstreamError):
    """Bytes that are no answer."""

    details = "upstream_garbage"


class EventTooLarge(UpstreamGarbage):
    """An event is over the limit in bytes; `before` are the frames that the same bytes completed before it."""

    details = "event_too_large"

    def __init__(self, limit: int, before: Sequence[bytes] = ()) -> None:
        super().__init__(f"an event is over the limit of {limit} bytes")
        self.before = before


class StateError(PenstockError):
    """The state store is down or slower than its bound: what was asked of it may or may not have happened."""

    details = "state_unavailable"


class PolicyError(PenstockError):
    """A policy raised, or returned what the contract does not know."""

    details = "policy_error"
