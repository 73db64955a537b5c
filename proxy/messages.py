"""Requests, response heads and local replies: plain data between the host, the policies and the upstream side.

Knows no HTTP framework. Header fields are `multidict.CIMultiDict`: names compare without case, order and repetition are
kept.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from multidict import CIMultiDict, MultiMapping

from .errors import Problem
from .identity import Identity

if TYPE_CHECKING:
    from .dialects.base import Call, Dialect, DialectStream

Headers = CIMultiDict[str]
Fields = MultiMapping[str]
"""Header fields that are only read."""

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # the name of a header field (RFC 9110 §5.6.2)

# RFC 9110 §7.6.1 and the fields that were hop-by-hop before it; `Connection` can name more.
HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
# What says something about the exact bytes of a body, and is wrong once a policy changed one of them.
BYTE_EXACT = frozenset(
    ("content-length", "etag", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges")
)


def tokens(values: Iterable[str]) -> list[str]:
    """The lower-cased elements of comma-separated fields, such as all the `Connection` fields of one message."""
    return [part for value in values for item in value.split(",") if (part := item.strip().lower())]


def end_to_end(headers: Mapping[str, str]) -> Headers:
    """A copy without the fields that end at this hop (RFC 9110 §7.6.1)."""
    kept = CIMultiDict(headers)
    if "Connection" in kept:
        for name in tokens(kept.getall("Connection")):
            kept.popall(name, None)
    drop(kept, HOP_BY_HOP)
    return kept


def drop(headers: Headers, names: frozenset[str]) -> None:
    """Take out the fields of these names, in lower case."""
    for name in names.intersection(map(str.lower, headers)):  # mostly there are none
        headers.popall(name, None)


@lru_cache(512)  # the same few names, again and again
def _is_token(name: str) -> bool:
    return TOKEN.fullmatch(name) is not None


def head_bytes(start: str, headers: Headers, *, errors: str = "strict") -> bytes:
    """A message's head as it goes over the wire (RFC 9112 §2.1); `errors` is what becomes of bytes that are no UTF-8 and
    stand as surrogates. Raises ValueError for what would break the head (RFC 9110 §5.5)."""
    if not all(map(_is_token, headers)):
        raise ValueError("the name of a header field is no token")
    lines = [start, *map(": ".join, headers.items())]
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise ValueError("a header field contains a line break")
    return text.encode("utf-8", errors) + b"\r\n\r\n"


class Chunks(AsyncIterator[bytes]):
    """A request's body on its way, where the host knows how much of it is here already."""

    __slots__ = ()

    def whole(self) -> bytes | None:
        """All that was not yet iterated over, if the end has come: then it is, now. Raises `RequestError`."""
        return None


class Request:
    """One request, as admitted policies see and edit it; later policies and the upstream see the edits.

    `path` is normalised and still percent-encoded, `query` the raw text after "?" (both as they will be sent upstream,
    below the route's `rewrite`). `body` is the whole decoded body where a policy of the route asked for it
    (`needs_body`), else None and the body is streamed from `chunks`. `identity` is the client's address until a policy
    knows more. `fronted`: the request came through the trusted proxies, whose word on the client is believed. `pseudonyms`
    has what policies wrote into the body in place of what the client sent: pseudonym to original, for this exchange only.
    """

    __slots__ = (
        "_call", "body", "chunks", "client", "dialect", "fronted", "headers", "host", "id", "identity", "method", "path",
        "pseudonyms", "query", "route", "scheme", "upstream", "usage_hidden_by",
    )  # fmt: skip

    def __init__(
        self,
        *,
        id: str,
        method: str,
        path: str,
        headers: Headers,
        dialect: Dialect,
        query: str = "",
        scheme: str = "http",
        host: str = "",
        client: str = "",
        fronted: bool = False,
        route: str = "",
        upstream: str = "",
        body: bytes | None = None,
        chunks: AsyncIterator[bytes] | None = None,
    ) -> None:
        self.id = id
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.scheme = scheme
        self.host = host
        self.client = client
        self.fronted = fronted
        self.identity = Identity(client=client)
        self.route = route
        self.upstream = upstream
        self.dialect = dialect
        self.body = body
        self.chunks = chunks
        self.usage_hidden_by: object = None
        self.pseudonyms: dict[str, str] = {}
        self._call: Call | None = None

    @property
    def call(self) -> Call:
        """What the client asks of the model, read by its dialect: model, stream flag, output limit, number of choices.

        Parsed at most once. Where the body is not there (no policy of the route `needs_body`) or is no model call, the
        fields are their neutral defaults.
        """
        if self._call is None:
            self._call = self.dialect.read_call(self)
            if self.usage_hidden_by is not None:
                self._call.wants_usage = False
        return self._call

    def ask_for_usage(self, hider: object) -> None:
        """Have the upstream state its usage in a stream whose client does not ask for it. `hider` keeps it from the client
        (`DialectStream.without_usage`) as long as it is `usage_hidden_by`: where several policies ask, the last one does,
        so that those before it see the usage too. Only where the body is there (`needs_body`)."""
        call = self.call
        if self.usage_hidden_by is not None or self.dialect.ask_for_usage(self):
            self.usage_hidden_by = hider
            self._call = call

    def replace_body(self, body: bytes) -> None:
        """Send `body` upstream instead. Only where the body was there (`needs_body`)."""
        if self.body is None:
            raise ValueError("the body of this request is streamed; set needs_body on the policy")
        self.body = body
        self._call = None


class ResponseHead:
    """Status and header fields of a reply on its way downstream; policies edit `headers` in place.

    `local` heads were made by the proxy. `stream` is the dialect stream of the reply's events, or None where no policy
    of the exchange sees events (then the body passes untouched).
    """

    __slots__ = ("headers", "local", "reason", "status", "stream")

    def __init__(
        self,
        status: int,
        headers: Headers | None = None,
        *,
        reason: str = "",
        local: bool = False,
        stream: DialectStream | None = None,
    ) -> None:
        self.status = status
        self.headers = CIMultiDict() if headers is None else headers
        self.reason = reason
        self.local = local
        self.stream = stream


class Reply:
    """A local reply: an answer made by the proxy instead of the upstream.

    With `body` None the dialect words the error body for `details` and `message`, with the status that `errors.FAULTS`
    gives to `details` where `status` is None.
    """

    __slots__ = ("body", "details", "headers", "problem", "status")

    def __init__(
        self,
        status: int | None = None,
        *,
        details: str,
        message: str | None = None,
        headers: Mapping[str, str] | Headers | None = None,
        body: bytes | None = None,
    ) -> None:
        self.problem = Problem.of(details, message, status)
        self.status = self.problem.status
        self.details = details
        self.headers: Headers = CIMultiDict(headers or {})
        self.body = body
