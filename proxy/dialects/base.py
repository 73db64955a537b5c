"""What a dialect is: one provider's wire format, as data and pure functions.

A `Dialect` is stateless and shared. It reads requests (`read_call`), words local replies (`error_body`) and opens one
`DialectStream` per exchange, which is fixed before any policy sees an event. The stream makes `Event`s out of frames,
sees what was *delivered*, and from that makes the ending of a stream that the proxy ends itself.

Channels keep texts apart that must never mix: `Channel(choice, kind, index)`. An event `ends` channels; None in a
channel's field there means "every": `EVERY_CHANNEL` ends them all.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from ..errors import Problem

if TYPE_CHECKING:
    from ..framing import Event, Framer, Framing
    from ..messages import Request, ResponseHead
    from ..policy import Ending
    from .documents import Slot
    from .template import Template


class Kind(enum.Enum):
    """What a text is to the client."""

    TEXT = "text"
    REASONING = "reasoning"
    REFUSAL = "refusal"
    TOOL_ARGUMENTS = "tool-arguments"

    __hash__ = object.__hash__  # the enum's own runs in Python, and policies key their state by channel


class Channel(NamedTuple):
    """`choice` is the answer's index (n > 1), `index` the position of a part or tool call within it.

    For JSON of unknown shape `index` is the JSON pointer (RFC 6901) of the string. What stands below a place has its index
    with the pointer from there ("2/action/query"), and ends with it.

    A `repeated` text says again what other events add piece by piece (the Responses API's `*.done` events), or stands
    beside what the model says (a citation, a content filter's words). It is whole in its event and ends with it: whoever
    changes texts changes it too, on its own; whoever counts them skips it. One that `grows` is said again piece by piece,
    as what it repeats is: it goes on in later events like any other."""

    choice: int | None
    kind: Kind | None
    index: int | str | None  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a channel
    repeated: bool = False
    grows: bool = False

    @property
    def steady(self) -> Channel:
        """The same, whether or not this event says its text twice: one that grows is `repeated` only in those that do."""
        return self._replace(repeated=False, grows=False) if self.grows else self

    def covers(self, other: Channel) -> bool:
        """Whether `other` is one of the channels that this (possibly "every") channel names."""
        return (
            (self.choice is None or self.choice == other.choice)
            and (self.kind is None or self.kind is other.kind)
            and (self.index is None or self.index == other.index or self._is_above(other.index))
        )

    def _is_above(self, index: int | str | None) -> bool:
        return isinstance(index, str) and index.startswith(f"{self.index}/")


class AfterEnd(enum.Enum):
    """What a text is that follows an event that ended its channel."""

    NOTHING = "nothing"  # that this API sends
    NEW = "new"  # another text in the same place
    SAME = "same"  # the same text: servers are known that end a choice in each of its events


EVERY_CHANNEL = Channel(None, None, None)

Delta = tuple[Channel, str]


class Usage(NamedTuple):
    """Token counts as the upstream stated them, unchecked. None: not stated."""

    input_tokens: int | None
    output_tokens: int | None


class Parsed(msgspec.Struct, gc=False):
    """What a dialect reads in one event.

    `deltas` has no empty texts. `choices` are the answers that the event speaks of, also where it adds no text to them.
    `known` is False for a shape that the dialect does not know: a policy that has to see the text then fails closed.
    `mirrored`: it says texts of the model again in other forms (tokens with their probabilities), maybe ahead of the
    texts themselves, or has members that are hidden by others of the same name: see `DialectStream.without_mirrors`.
    `template`: where in the event its one text stands, if that is known.
    """

    deltas: Sequence[Delta] = ()
    ends: Sequence[Channel] = ()
    usage: Usage | None = None
    choices: Sequence[int] = ()
    known: bool = True
    mirrored: bool = False
    template: Template | None = None


class Call:
    """What a request asks of the model. Neutral defaults where it does not say or is no model call.

    `texts` are all that the model is to read, also descriptions of tools; `token_ids` counts what is no text any more.
    `kept_id`: the request is for no new reply, but about one that the upstream keeps under this id. `resumes`: of that, for
    the events after one that the client has."""

    __slots__ = (
        "choices", "document", "kept_id", "max_output_tokens", "model", "resumes", "stream", "texts", "token_ids",
        "wants_usage",
    )  # fmt: skip

    def __init__(
        self,
        *,
        model: str | None = None,
        stream: bool = False,
        choices: int = 1,
        max_output_tokens: int | None = None,
        wants_usage: bool = False,
        texts: Sequence[str] = (),
        token_ids: int = 0,
        document: Any = None,
        kept_id: str | None = None,
        resumes: bool = False,
    ) -> None:
        self.model = model
        self.stream = stream
        self.choices = choices
        self.max_output_tokens = max_output_tokens
        self.wants_usage = wants_usage
        self.texts = texts
        self.token_ids = token_ids
        self.document = document
        self.kept_id = kept_id
        self.resumes = resumes


class DialectStream(Protocol):
    """One exchange's reply in one dialect. Created with the reply's head, before its first event."""

    framing: Framing
    """SSE, NDJSON, JSON (one event: the whole body) or OPAQUE (each read is an event)."""

    def framer(self, max_event_bytes: int) -> Framer:
        """A fresh framer for the reply's body."""

    def event(self, raw: bytes) -> Event:
        """The event with these bytes: one complete frame, its terminator included."""

    def parse(self, raw: bytes) -> Parsed:
        """Read an event. Never raises: what is not understood is `Parsed(known=False)`."""

    def document(self, raw: bytes) -> Any:
        """The JSON document that an event carries, None where it carries none. Decoded anew at each call."""

    def rewrite(self, event: Event, deltas: Sequence[Delta]) -> Event | None:
        """`event` with its texts replaced: `deltas` has one entry per entry of `event.deltas`, in that order, and not all
        of them are the same.

        None where nothing is left worth sending: every text is empty and the event carries nothing else."""

    def continuable(self, event: Event, deltas: Sequence[Delta]) -> Event:
        """`event` with these texts, none of them empty, to be continued later and never to be sent itself."""

    def continuation(self, event: Event, channel: Channel, text: str) -> Event:
        """A new event that adds `text` to `channel`, one of `event`'s, and repeats nothing that `event` said once.

        What was held back of an event that went out without it (a tool call's first, with its id and name) follows in
        such an event: clients join what they get, so that a name said twice would be doubled. Raises ValueError where
        `event` has no such channel or is a whole body."""

    def joined(self, continuations: list[Event]) -> list[Event]:
        """Continuations of one event, in as few events as this API can say them in."""

    def without_mirrors(self, event: Event) -> Event | None:
        """`event` without what says texts in other forms (`Parsed.mirrored`), but where that says exactly the texts that
        the event itself has, and of members with the same name only with the last; None where nothing is left worth sending."""

    def comment(self) -> Event | None:
        """An event that clients of this dialect ignore (a heartbeat), or None where there is no such thing. To be
        delivered between the events that were delivered already and the next one."""

    def delivered(self, events: Sequence[Event]) -> None:
        """Told of every batch on its way downstream, in order: identifiers, open choices, terminals. May still put right
        in an event's `raw`, in place, what only the order of delivery decides: the separators of a JSON array, what
        repeats in other forms a text that was changed in an earlier event."""

    terminates: bool
    """A complete reply ends its channels in its last events: one that only broke off can be told from it."""

    after_end: AfterEnd
    """What a text is that comes after the end of its channel."""

    finished: bool
    """The reply's own terminal was delivered: nothing may follow."""

    counted: Usage | None
    """What a policy has counted, for the ending of a stream whose client asked for usage. None: nobody counts."""

    kept_as: str | None
    """The id under which the upstream writes on and hands out the reply, whatever becomes of this exchange, as far as the
    events read so far say that it does."""

    def without_usage(self, event: Event) -> Event | None:
        """`event` as it would be, had the request not asked for usage; None where it would not be."""

    def ending(self, ending: Ending, problem: Problem) -> list[Event]:
        """The last events of a stream that the proxy ends itself; empty once `finished`, and where the framing has no
        words for an end (OPAQUE): then only a connection cut off can tell the client."""


class Dialect(Protocol):
    """One provider's wire format."""

    name: str

    def matches(self, path: str) -> bool:
        """Whether requests to this normalised path speak the dialect (`dialect = "auto"` asks in order)."""

    def speaks(self, document: Any) -> bool:
        """Whether a reply whose first JSON document is this one is of this API (where the path has told nothing)."""

    def read_call(self, request: Request) -> Call:
        """Read `request.body`. Never raises."""

    def request_texts(self, root: list[Any]) -> Iterable[Slot]:
        """Where a request's document, `root[0]`, has its texts: all strings but the API's own words, identifiers and
        binary data. A slot just given may be written to. Raises ValueError where they nest too deeply to be found."""

    def ask_for_usage(self, request: Request) -> bool:
        """Change `request.body`, which must be there, so that the reply's events state the usage. False, and no change:
        they will anyhow, or this API has no such switch."""

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        """Content type and body of a local reply, worded so that this API's SDK raises its own error class and finds
        `problem.details` in it."""

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        """The stream for a reply with this head. The content type decides the framing."""
