"""Routes with `dialect = "auto"` whose path says nothing: the first event of the reply tells whose it is.

Until then, and where it tells nothing, the reply is "generic"; so are the request, which has gone before it, and what the proxy
answers itself. Comments tell nothing. The framing is the content type's and stays: an API that no such reply is framed in is
not chosen.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import Problem
from ..framing import Event, Framer
from .base import AfterEnd, Call, Channel, Delta, Dialect, DialectStream, Parsed, Usage
from .generic import Generic, GenericStream

if TYPE_CHECKING:
    from ..messages import ResponseHead
    from ..policy import Ending

T = TypeVar("T")


class ByFirstEvent(Generic):
    """The dialect of replies that one of `dialects` may know again."""

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._dialects = tuple(dialects)

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        stream = super().open(head, call)
        return FirstEventStream(stream, self._dialects, head, call) if isinstance(stream, GenericStream) else stream


class _Behind(typing.Generic[T]):
    """An attribute of the stream behind a stream."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, stream: FirstEventStream, owner: type) -> T:
        value: T = getattr(stream._stream, self._name)
        return value

    def __set__(self, stream: FirstEventStream, value: T) -> None:
        setattr(stream._stream, self._name, value)


class FirstEventStream:
    """A stream that another one stands behind: the generic one, until the first event has told which."""

    def __init__(self, generic: GenericStream, dialects: Sequence[Dialect], head: ResponseHead, call: Call) -> None:
        self.framing = generic.framing
        self._generic = generic
        self._dialects = dialects
        self._head = head
        self._call = call
        self._stream: DialectStream = generic
        self._decided = False

    def event(self, raw: bytes) -> Event:
        if not self._decided and self._generic.payload(raw) is not None:
            self._decided = True
            self._stream = self._told_by(self._generic.document(raw))
        return self._stream.event(raw)

    def _told_by(self, document: Any) -> DialectStream:
        for dialect in self._dialects:
            if dialect.speaks(document):
                stream = dialect.open(self._head, self._call)
                return stream if stream.framing is self.framing else self._generic
        return self._generic

    # All else is said by the stream behind it.

    terminates = _Behind[bool]()
    after_end = _Behind[AfterEnd]()
    finished = _Behind[bool]()
    counted = _Behind[Usage | None]()
    kept_as = _Behind[str | None]()

    def framer(self, max_event_bytes: int) -> Framer:
        return self._stream.framer(max_event_bytes)

    def parse(self, raw: bytes) -> Parsed:
        return self._stream.parse(raw)

    def document(self, raw: bytes) -> Any:
        return self._stream.document(raw)

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        return self._stream.rewrite(event, deltas)

    def continuable(self, event: Event, deltas: Sequence[Delta]) -> Event:
        return self._stream.continuable(event, deltas)

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        return self._stream.continuation(event, channel, text)

    def joined(self, continuations: list[Event]) -> list[Event]:
        return self._stream.joined(continuations)

    def without_mirrors(self, event: Event) -> Event | None:
        return self._stream.without_mirrors(event)

    def comment(self) -> Event | None:
        return self._stream.comment()

    def delivered(self, events: Sequence[Event]) -> None:
        self._stream.delivered(events)

    def without_usage(self, event: Event) -> Event | None:
        return self._stream.without_usage(event)

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        return self._stream.ending(ending, problem)
