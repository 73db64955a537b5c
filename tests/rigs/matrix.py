"""The matrix: each dialect (`wires.py`) under each chain of policies, streamed and whole, to each end. What is expected of a
cell is stated here, `play` plays it in simulated time through a real relay, and the README shows it: `python -m rigs.matrix`
(with `PYTHONPATH=.:tests`) writes it there anew.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from proxy.attachment import Attachment
from proxy.chain import Chain, Link
from proxy.dialects import DIALECTS
from proxy.dialects.base import Channel, Delta
from proxy.errors import COMPLETE, Outcome, OutcomeKind, Problem, UpstreamError, UpstreamTruncated
from proxy.framing import Framing
from proxy.identity import digest
from proxy.messages import Headers, Reply, Request, ResponseHead
from proxy.policy import Encoder, Policy, PolicyStream, Scope
from proxy.registry import Registry, Unusable
from proxy.relay import Relay
from proxy.simulation import FakeHost

from .doubles import Client, Loop, Reading, StreamLimits
from .voices import KINDS, VOICES
from .wires import JSON, STATED_OUTPUT, WIRES, WORDS, Said, Stream, Wire

KEY = "sk-matrix"
SILENCE_S = 20.0
"""In the middle of every reply: long enough for a heartbeat, not for a timeout."""
_TIMEOUT_S = 25.0
_HEARTBEAT_S = 15.0
SECRET = ("Mail\tann@exa", "mple.org", " or so.")
"""Its first word is not held back, for the same reason as in `WORDS`."""
HARMLESS = "Mail\t"
REDACTED = f"{HARMLESS}[EMAIL] or so."
_LIMITS = StreamLimits(event_bytes=1 << 20, reply_bytes=1 << 20, pause_bytes=1 << 20)
BEFORE = 2
"""Texts that come before what goes wrong."""

CLEAN, CUT, RESET, TRUNCATION, NO_TERMINAL, TIMEOUT, GONE, REFUSED = (
    "complete",
    "cut at the token limit",
    "reset",
    "truncated",
    "broken off unsaid",
    "timeout",
    "client gone",
    "refused",
)
_OTHERS_DOING = (CLEAN, RESET, TRUNCATION, NO_TERMINAL, GONE)

Table = Mapping[str, Any]

_AUTH: Table = {"use": "auth", "keys": [{"id": "alice", "sha256": digest(KEY).hex()}]}
_RATE: Table = {"use": "request_rate", "windows": [{"requests": 1, "window_s": 60}]}
_CAP: Table = {"use": "stream_cap", "cap": 1}
_IDLE: Table = {"use": "idle_timeout", "silence_s": _TIMEOUT_S}
_HEART: Table = {"use": "heartbeat", "interval_s": _HEARTBEAT_S}
_COMPRESSION: Table = {"use": "compression", "min_bytes": 0}


def _budget(tokens: int, what: str = "output", **more: Any) -> Table:
    window = {"tokens": tokens, "window_s": more.pop("window_s", "total"), "what": what}
    return {"use": "token_limit", "per": "all", "windows": [window], **more}


_PACE = _budget(STATED_OUTPUT + 2, window_s=60, on_exhausted="pace", pace_at_most_s=300.0)
_BUDGETS = {CUT: _budget(BEFORE), REFUSED: _budget(1, "input")}
_ROOMY = _budget(1000)
_REDACTION: Table = {"use": "redaction"}
_READERS = ("redaction", "token_limit")
"""Who reads every reply."""


class Refusal(NamedTuple):
    source: str
    status: int
    code: str
    message: str | None = None


@dataclass(frozen=True)
class ChainRow:
    """A chain of policies, and the ends that a reply can come to under it."""

    name: str
    policies: tuple[Table, ...]
    ends: tuple[str, ...] = _OTHERS_DOING
    refusal: Refusal | None = None

    def tables(self, end: str) -> list[Table]:
        """As they stand in the file; a budget is as large as the end needs it."""
        return [_BUDGETS.get(end, _ROOMY) if table is _ROOMY else table for table in self.policies]

    @property
    def paced(self) -> bool:
        return _PACE in self.policies

    def has(self, policy: str) -> bool:
        return any(table["use"] == policy for table in self.policies)

    @property
    def metered(self) -> bool:
        return self.has("token_limit")


_NO_KEY = Refusal(
    "auth", 401, "unauthorized", "An API key is needed, such as in the field `Authorization: Bearer KEY`."
)

CHAINS = (
    ChainRow("no policy", ()),
    ChainRow("`auth`", (_AUTH,), (*_OTHERS_DOING, REFUSED), _NO_KEY),
    ChainRow("`request_rate`", (_RATE,), (*_OTHERS_DOING, REFUSED), Refusal("request_rate", 429, "request_rate")),
    ChainRow("`stream_cap`", (_CAP,), (*_OTHERS_DOING, REFUSED), Refusal("stream_cap", 429, "stream_cap")),
    ChainRow("`idle_timeout`", (_IDLE,), (*_OTHERS_DOING, TIMEOUT)),
    ChainRow("`redaction`", (_REDACTION,)),
    ChainRow("`token_limit`", (_ROOMY,), (*_OTHERS_DOING, CUT, REFUSED), Refusal("token_limit", 429, "token_limit")),
    ChainRow("`token_limit`, paced", (_PACE, _HEART), (CLEAN,)),
    ChainRow("`heartbeat`", (_HEART,)),
    ChainRow("`compression`", (_COMPRESSION,)),
    ChainRow(
        "all of them",
        (_AUTH, _RATE, _CAP, _IDLE, _REDACTION, _ROOMY, _HEART, _COMPRESSION),
        (*_OTHERS_DOING, CUT, TIMEOUT, REFUSED),
        _NO_KEY,
    ),
)


class Cell(NamedTuple):
    wire: Wire
    chain: ChainRow
    streamed: bool
    end: str

    def __str__(self) -> str:
        return f"{self.wire.name}, {self.chain.name}, {'streamed' if self.streamed else 'whole'}, {self.end}"

    @property
    def read(self) -> bool:
        """Some policy reads the reply's events."""
        speaks = self.streamed and self.wire.error_event is not None
        return any(map(self.chain.has, _READERS)) or (self.chain.has("heartbeat") and speaks)

    @property
    def body(self) -> bytes:
        """All that the model server says, as the client is to see it."""
        return _upstream(self).body if self.streamed else self.wire.whole(WORDS)

    @property
    def heartbeat(self) -> bytes:
        return self.wire.heartbeat if self.streamed and self.chain.has("heartbeat") else b""


def cells() -> Iterator[Cell]:
    """Every one. A whole reply that is broken off unsaid is complete as far as anybody can tell."""
    for wire, chain, streamed in itertools.product(WIRES, CHAINS, (True, False)):
        for end in chain.ends:
            yield Cell(wire, chain, streamed, end)
    reading = [chain for chain in CHAINS if any(map(chain.has, _READERS)) and not chain.paced]
    for wire, chain, streamed in itertools.product(VOICES, reading, (True, False)):
        for end in (CLEAN, CUT, RESET):  # what is said is of no account to how the others end
            if end in chain.ends:
                yield Cell(wire, chain, streamed, end)


class Expected(NamedTuple):
    """What the client is to see, and the log."""

    status: int | None
    """None: it gets no head."""
    delivered: bytes
    """Of the body, what came from the model server, and heartbeats."""
    ending: Said | tuple[str, ...]
    """Then what the proxy says: these events; or as many as there are texts here, each with one of them in it."""
    how: str
    """How the body ends: "end", "abort" (the client can tell that it is not complete) or "" (there is no client)."""
    outcome: Outcome


def expected(cell: Cell) -> Expected:
    """What has to come of a cell."""
    wire, chain, streamed, end = cell
    if end == REFUSED:
        assert chain.refusal is not None
        source, status, code, message = chain.refusal
        return _local(cell, status, code, Outcome(OutcomeKind.REFUSED, source, code), message)
    if end == CLEAN or (end == NO_TERMINAL and streamed and not wire.has_terminal):
        return Expected(200, _delivered(cell), [], "end", COMPLETE)
    if end == GONE:
        silent = not streamed and cell.read
        body = b"" if silent else _delivered(cell)
        return Expected(None if silent else 200, body, [], "", Outcome(OutcomeKind.CLIENT_GONE, "", "client_gone"))
    if end == CUT:
        outcome = Outcome(OutcomeKind.STOPPED, "token_limit", "token_limit")
        if not streamed:
            return _local(cell, 429, "token_limit", outcome)
        if wire.length:
            return Expected(200, _delivered(cell), wire.length, "end", outcome)
        return _broken(cell, 429, "token_limit", outcome)
    return _broken(cell, *_FAULTS[end])


_FAULTS = {
    RESET: (502, "upstream_reset", Outcome(OutcomeKind.UPSTREAM_ERROR, "", "upstream_reset")),
    TRUNCATION: (502, "upstream_truncated", Outcome(OutcomeKind.UPSTREAM_TRUNCATED, "", "upstream_truncated")),
    NO_TERMINAL: (502, "upstream_truncated", Outcome(OutcomeKind.UPSTREAM_TRUNCATED, "", "upstream_truncated")),
    TIMEOUT: (504, "upstream_silence", Outcome(OutcomeKind.TIMEOUT, "idle_timeout", "upstream_silence")),
}


def _local(cell: Cell, status: int, code: str, outcome: Outcome, message: str | None = None) -> Expected:
    document = cell.wire.error(status, code, message or Problem.of(code).message)
    return Expected(status, b"", [(None, document)], "end", outcome)


def _broken(cell: Cell, status: int, code: str, outcome: Outcome) -> Expected:
    """An error: in a stream its event, if one can be said; of a whole reply a local one, if its head was not sent."""
    wire = cell.wire
    if not cell.streamed and cell.read:
        return _local(cell, status, code, outcome)
    if not cell.streamed or wire.error_event is None or (wire.array and not cell.read):
        return Expected(200, _delivered(cell), [], "abort", outcome)
    document = wire.error(status, code, Problem.of(code).message)
    begun = _upstream(cell)
    seen = len(wire.said(begun.opening)) + BEFORE if cell.read else None
    return Expected(200, _delivered(cell), wire.error_event(document, seen), "end", outcome)


def _upstream(cell: Cell, *, asked: bool = False) -> Stream:
    """The model server's stream; `asked`: as it is where the proxy has asked for the usage."""
    return cell.wire.stream(WORDS, cell.end == CUT or (asked and cell.chain.metered))


def _delivered(cell: Cell) -> bytes:
    if not cell.streamed:
        return cell.body if cell.end == CLEAN else cell.body[: len(cell.body) // 2]
    stream = _upstream(cell)
    begun = stream.opening + b"".join(stream.deltas[:BEFORE]) + cell.heartbeat
    return begun + b"".join(stream.deltas[BEFORE:]) + stream.closing if cell.end == CLEAN else begun


# Playing a cell


class _Host(FakeHost):
    """On the loop's time."""

    def __init__(self, name: str, loop: Loop) -> None:
        self._loop = loop
        super().__init__(name)

    def clock(self) -> float:
        return self._loop.now


@functools.cache
def _registry() -> Registry:
    return Registry.scan()


def make_policy(table: Table, loop: Loop) -> Policy[Any]:
    """The policy of one `[[policy]]` table."""
    made = _registry().load(table["use"])
    assert not isinstance(made, Unusable)
    keys = {key: value for key, value in table.items() if key != "use"}
    return made(made.Config.model_validate_json(json.dumps(keys)), _Host(table["use"], loop))


class Run:
    """One exchange through a chain of policies, from admission to its outcome."""

    def __init__(self, policies: Sequence[Policy[Any]], loop: Loop, request: Request) -> None:
        self.policies = policies
        self.loop = loop
        self.request = request
        self.client = Client()
        self.reading = Reading()
        self.relay: Relay
        self._links: list[Link] = []

    async def admit(self) -> None:
        """As `exchange.py` does."""
        links: dict[Scope, list[Link]] = {Scope.EXCHANGE: [], Scope.ATTACHMENT: []}
        encoder: tuple[str, Encoder] | None = None
        refused: tuple[Reply, str] | None = None
        for policy in self.policies:
            name = policy.host.name
            answer = await policy.admit(self.request)
            if isinstance(answer, Encoder):
                encoder = (name, answer)
            elif isinstance(answer, PolicyStream):
                links[policy.scope].append(Link(name, policy.stage, policy.sees, answer))
            elif isinstance(answer, Reply):
                refused = (answer, name)
                break
        chain, attached = (Chain(each, _LIMITS.pause_bytes) for each in links.values())
        attachment = Attachment(attached, encoder, self.client)
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.relay = Relay(self.request, chain, attachment, _LIMITS, loop, lambda: self.loop.now)
        self._links = [*links[Scope.EXCHANGE], *links[Scope.ATTACHMENT]]
        self._chain = chain
        if refused is None:
            self.relay.start()
        else:
            self.relay.refuse(*refused)

    def respond(self, reading: Reading) -> None:
        """The model server answers."""
        self.reading = reading
        self.relay.respond(reading)

    async def feed(self, *reads: bytes) -> None:
        """As much of these as somebody takes."""
        for data in reads:
            if self.relay.outcome is None:
                self.reading.feed(data)
            await self.settle()

    async def pass_time(self, seconds: float) -> None:
        until = self.loop.now + seconds
        while self.loop.now < until:
            self.loop.advance(min(1.0, until - self.loop.now))
            await self.settle()

    async def settle(self) -> None:
        """What waits for its turn, and what policies have spawned, is done."""
        while self.loop.turn() or await self._run_spawned():
            pass

    async def _run_spawned(self) -> bool:
        done = False
        for policy in self.policies:
            host = policy.host
            assert isinstance(host, FakeHost)
            for link in self._links:
                if await host.run_spawned(link.stream):
                    done = True
                    self.relay.poke(link.stream)
        return done

    def facts(self) -> Mapping[str, Mapping[str, Any]]:
        return self._chain.facts()

    @property
    def body(self) -> bytes:
        """Decoded, as far as it came."""
        if self.client.heads and "Content-Encoding" in self.client.head.headers:
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(self.client.body)
        return self.client.body


def make_request(wire: Wire, *, streamed: bool, usage: bool = False, key: str = KEY) -> Request:
    """As a client of this dialect makes it; on a route that says `dialect = "auto"`."""
    asked = wire.ask(streamed, usage)
    headers = {"Content-Type": JSON, "Accept-Encoding": "gzip", **({"Authorization": f"Bearer {key}"} if key else {})}
    return Request(
        id="matrix",
        method="POST",
        path=asked.path,
        query=asked.query,
        headers=Headers(headers),
        dialect=DIALECTS[wire.dialect],
        body=json.dumps(asked.document).encode(),
    )


async def play(cell: Cell) -> Run:
    """Through real policies and a real relay, between a model server and a client that are stand-ins."""
    wire, chain, streamed, end = cell
    loop = Loop()
    policies = [make_policy(table, loop) for table in chain.tables(end)]

    async def run(key: str = KEY) -> Run:
        run = Run(policies, loop, make_request(wire, streamed=streamed, usage=end == CUT, key=key))
        await run.admit()
        return run

    if end == REFUSED:
        assert chain.refusal is not None
        others = [] if chain.refusal.source in ("auth", "token_limit") else [await run()]  # who takes what there is
        refused = await run("" if chain.refusal is _NO_KEY else KEY)
        for other in others:
            other.relay.client_gone()
            await other.settle()
        return refused
    if chain.paced:
        other = await run()
        await _answer(other, cell)
        assert other.relay.outcome == COMPLETE
    played = await run()
    await _answer(played, cell)
    return played


async def _answer(run: Run, cell: Cell) -> None:
    wire, _, streamed, end = cell
    if streamed:
        stream = _upstream(cell, asked=True)
        first, *begun = stream.deltas[:BEFORE]
        begun = [stream.opening + first, *begun]
        rest = [*stream.deltas[BEFORE:], stream.closing]
        run.respond(Reading(wire.media_type, ends_with_connection=end == NO_TERMINAL))
    else:
        body = wire.whole(WORDS)
        begun, rest = [body[: len(body) // 2]], [body[len(body) // 2 :]]
        unsaid = end == NO_TERMINAL
        length = {} if unsaid else {"Content-Length": str(len(body))}
        run.respond(Reading(JSON, headers=length, ends_with_connection=unsaid))
    await run.feed(*begun)
    await run.pass_time(SILENCE_S)
    if end == RESET:
        run.reading.fail(UpstreamError())
    elif end == TRUNCATION:
        run.reading.fail(UpstreamTruncated())
    elif end == NO_TERMINAL:
        run.reading.eof()
    elif end == TIMEOUT:
        await run.pass_time(_TIMEOUT_S - SILENCE_S + 1.0)
    elif end == GONE:
        run.relay.client_gone()
    else:
        await run.feed(*(data for data in rest if data))
        if run.relay.outcome is None:
            run.reading.eof()
    for _ in range(300):  # a paced one takes its time
        await run.settle()
        if run.relay.outcome is not None:
            break
        await run.pass_time(1.0)
    await run.settle()


def text_of(wire: Wire, body: bytes) -> str:
    """All that a streamed body adds to the texts that the model server adds to."""
    deltas = _deltas(wire, b"".join(wire.stream(WORDS, False).deltas))
    answers = {channel for channel, _ in deltas if not channel.repeated}
    return "".join(text for channel, text in _deltas(wire, body) if channel in answers)


def texts(wire: Wire, body: bytes) -> Mapping[Channel, str]:
    """What a streamed body says in each channel."""
    merged: dict[Channel, str] = {}
    for channel, text in _deltas(wire, body):
        merged[channel] = merged.get(channel, "") + text
    return merged


def _deltas(wire: Wire, body: bytes) -> list[Delta]:
    request = make_request(wire, streamed=True)
    stream = request.dialect.open(ResponseHead(200, Headers({"Content-Type": wire.media_type})), request.call)
    framer = stream.framer(1 << 20)
    events = framer.feed(body)
    if stream.framing is Framing.JSON:  # a whole reply is an event when it is complete
        events = [framer.finish()]
    return [delta for raw in events for delta in stream.event(raw).deltas]


# The README

README = Path(__file__).parents[2] / "README.md"
_BEGIN, _END = "<!-- matrix: `PYTHONPATH=.:tests python -m rigs.matrix` -->\n", "<!-- end of the matrix -->\n"


def markdown() -> str:
    """The matrix as the README has it."""
    return "\n".join([*_dialects(), "", *_ends(), ""])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _dialects() -> Iterator[str]:
    yield _row(("API", "`dialect`", "texts", "in a silence", "cut at a token limit", "error in a stream", "usage"))
    yield "|---|---|---|---|---|---|---|"
    for wire in WIRES:
        yield _row(
            (
                wire.name,
                f"`{wire.dialect}`",
                ", ".join(("answer", *KINDS[wire.name])),
                _shown_heartbeat(wire),
                _shown_length(wire),
                _shown_error(wire),
                "as stated" if wire.states_usage else "counted",
            )
        )


def _code(text: str) -> str:
    return f"`{text.strip()}`"


def _shown_heartbeat(wire: Wire) -> str:
    if not wire.heartbeat:
        return "nothing"
    return wire.shown_heartbeat or _code(wire.heartbeat.decode().partition("\n")[0])


def _shown_length(wire: Wire) -> str:
    if wire.length:
        return " ".join(map(_code, wire.length))
    return "as an error" if wire.error_event is not None else "connection broken off"


def _shown_error(wire: Wire) -> str:
    if wire.error_event is None:
        return "connection broken off"
    ((name, document),) = wire.error_event(wire.error(504, "upstream_silence", "..."), 0)
    event = f"event: {name}, " if name is not None else ""
    error = document["error"]
    shown = (
        {key: error[key] for key in ("type", "code", "status") if key in error} if isinstance(error, dict) else error
    )
    return _code(event + json.dumps({"error": shown}))


def _ends() -> Iterator[str]:
    yield _row(
        ("the end", "a stream", "a whole reply", "outcome", "under each of these policies, and under all of them")
    )
    yield "|---|---|---|---|---|"
    every = CHAINS[-1]
    for end in every.ends:
        streamed = expected(Cell(WIRES[0], every, True, end))
        whole = _shown_end(expected(Cell(WIRES[0], every, False, end)))
        alone = [chain.name for chain in CHAINS[:-1] if end in chain.ends]
        yield _row((end, _shown_end(streamed), whole, f"`{streamed.outcome.kind.value}`", ", ".join(alone)))


def _shown_end(want: Expected) -> str:
    code = f"`{want.outcome.details}`"
    if want.outcome == COMPLETE:
        return "as it came"
    if want.how != "end":
        return "no more is said"
    if want.status != 200:
        return f"{want.status} {code}"
    return "as at the API's own limit" if isinstance(want.ending, tuple) else f"an error event, {code}"


def shown(readme: str) -> str:
    """The matrix that stands in a README."""
    return readme.partition(_BEGIN)[2].partition(_END)[0]


def main() -> None:
    readme = README.read_text()
    README.write_text(readme.replace(_BEGIN + shown(readme) + _END, _BEGIN + markdown() + _END))


if __name__ == "__main__":
    main()
