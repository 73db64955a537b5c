"""One exchange's relay between a reply and a client that are both stand-ins, in simulated time: each way through, and
each end of rule 8 (docs/chain.md), before and after the head was sent."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from rigs.doubles import Client, Hooks, Loop, Reading, Shout, StreamLimits, in_turn, raising

from proxy.attachment import Attachment
from proxy.chain import Chain, Link
from proxy.dialects.base import Call, Dialect, DialectStream
from proxy.dialects.generic import Generic
from proxy.dialects.openai_chat import OpenAIChat
from proxy.errors import (
    COMPLETE,
    FAULTS,
    Outcome,
    OutcomeKind,
    Problem,
    UpstreamError,
    UpstreamGarbage,
    UpstreamTruncated,
)
from proxy.framing import Event
from proxy.intake import TURN_BYTES, TURN_EVENTS
from proxy.messages import Headers, Reply, ResponseHead
from proxy.policy import Encoder, Ending, Events, Pause, PolicyStream, Sees, Stage, Stop, Verdict
from proxy.relay import Relay
from proxy.testing import make_request, sse
from proxy.turns import Turns

A, B, C = sse("a"), sse("b"), sse("c")
DOCUMENT = b'{"text": "whole"}'
JSON = "application/json"
SSE = "text/event-stream"
LIMITS = StreamLimits()


def link(stream: PolicyStream, sees: Sees = Sees.EVENTS, stage: Stage = Stage.TRANSFORM, name: str = "policy") -> Link:
    return Link(name, stage, sees, stream)


def heart(stream: PolicyStream) -> Link:
    return link(stream, stage=Stage.KEEPALIVE, name="heart")


def comment(text: str = "ping") -> Event:
    stream = Generic().open(ResponseHead(200, Headers({"Content-Type": SSE})), Call())
    return stream.event(b": %s\n\n" % text.encode())


class Scene:
    """A relay with everything around it. `exchange` and `attachment` are the links of the two chains."""

    def __init__(
        self,
        *exchange: Link,
        attachment: Sequence[Link] = (),
        encoder: Encoder | None = None,
        dialect: Dialect | None = None,
        method: str = "POST",
        reading: Reading | None = None,
        beside: Scene | None = None,
    ) -> None:
        self.loop = Loop() if beside is None else beside.loop
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.turns = Turns(loop, self.loop.time) if beside is None else beside.turns
        self.client = Client()
        self.reading = reading or Reading()
        self.links = [*exchange, *attachment]
        self.encoder = encoder
        self.chain = Chain(exchange, LIMITS.pause_bytes)
        named = None if encoder is None else ("squeeze", encoder)
        self.attachment = Attachment(Chain(attachment, LIMITS.pause_bytes), named, self.client)
        self.relay = Relay(
            make_request(method=method, dialect=dialect),
            self.chain,
            self.attachment,
            LIMITS,
            loop,
            lambda: self.loop.now,
            self.turns,
        )

    def begin(self, *reads: bytes) -> Scene:
        """Admitted and answered, with these reads."""
        self.relay.start()
        self.relay.respond(self.reading)
        self.reading.feed(*reads)
        return self

    @property
    def outcome(self) -> Outcome | None:
        return self.relay.outcome

    def assert_released(self, outcome: Outcome, how: str) -> None:
        """The exchange has this outcome, the client this end, and nothing is held any more."""
        assert (self.relay.outcome, self.client.end_of_body) == (outcome, how)
        assert self.relay.done.result() == outcome
        assert not self.loop.pending
        if "attach" in self.reading.calls:
            assert self.reading.closed
        for each in self.links:
            assert isinstance(each.stream, Hooks)
            assert each.stream.outcome == outcome  # a second `close` would have failed
        if isinstance(self.encoder, Shout):
            assert self.encoder.closed == [outcome]


def error_code(body: bytes) -> str:
    """Of a local reply."""
    code = json.loads(body)["error"]["code"]
    assert isinstance(code, str)
    return code


# The ways through


def test_bytes_pass_untouched_where_no_policy_sees_events() -> None:
    fields = {"Content-Length": "99", "ETag": '"x"', "Content-Encoding": "br", "Set-Cookie": "a=b"}
    scene = Scene(reading=Reading(headers=fields)).begin(b"any", b"\xff\x00", b"bytes")
    scene.reading.eof()
    assert scene.client.writes == [b"any", b"\xff\x00", b"bytes"]
    assert scene.client.head is scene.reading.head
    assert fields.items() <= dict(scene.client.head.headers).items()
    assert (scene.relay.upstream_bytes, scene.attachment.written, scene.relay.events) == (10, 10, 0)
    scene.assert_released(COMPLETE, "end")


def test_a_head_waits_only_for_what_came_with_it() -> None:
    scene = Scene().begin()
    assert scene.client.head is scene.reading.head
    assert scene.client.flushed


def test_a_policy_that_sees_nothing_or_activity_leaves_the_bytes_alone() -> None:
    blind, watcher = Hooks(), Hooks()
    scene = Scene(link(blind, Sees.NOTHING), link(watcher, Sees.ACTIVITY)).begin(b"one", b"two")
    scene.reading.eof()
    assert scene.client.writes == [b"one", b"two"]
    assert blind.told == ["start", "response", "end", "close"]
    assert watcher.told == ["start", "response", "activity", "activity", "end", "close"]


def test_an_attachments_stream_hears_of_activity_too() -> None:
    watcher = Hooks()
    Scene(attachment=[link(watcher, Sees.ACTIVITY, Stage.RESTORE)]).begin(b"one")
    assert watcher.told == ["start", "response", "activity"]


def test_events_reach_the_policies_whole_and_the_client_once_a_read() -> None:
    seen: list[list[bytes]] = []

    def look(events: Events, now: float) -> Events:
        seen.append([event.raw for event in events])
        return events

    scene = Scene(link(Hooks(events=look))).begin(A + B[:4], B[4:], B[:1], B[1:-1], B[-1:] + C + A)
    scene.reading.eof()
    assert seen == [[A], [B], [B, C, A]]
    assert scene.client.writes == [A, B, B + C + A]
    assert scene.relay.events == 5
    scene.assert_released(COMPLETE, "end")


def test_events_pass_the_exchanges_chain_and_then_the_attachments() -> None:
    order: list[str] = []

    def note(name: str) -> Callable[[Events, float], Events]:
        def on_events(events: Events, now: float) -> Events:
            order.append(name)
            return events

        return on_events

    last = link(Hooks(events=note("attachment")), stage=Stage.RESTORE)
    Scene(link(Hooks(events=note("exchange"))), attachment=[last]).begin(A)
    assert order == ["exchange", "attachment"]


def test_what_is_said_of_exact_bytes_goes_where_policies_read_events() -> None:
    exact = {"Content-Length": "99", "ETag": '"x"', "Content-Digest": "sha-256=:x:", "Accept-Ranges": "bytes"}
    scene = Scene(link(Hooks()), reading=Reading(headers={**exact, "X-Other": "stays"})).begin()
    assert set(scene.client.head.headers) == {"Content-Type", "X-Other"}


def test_policies_are_given_the_dialects_stream_only_where_they_see_events() -> None:
    streams: list[DialectStream | None] = []

    def look(head: ResponseHead) -> None:
        streams.append(head.stream)

    Scene(link(Hooks(response=look), Sees.ACTIVITY)).begin()
    Scene(link(Hooks(response=look), Sees.EVENTS)).begin()
    assert streams[0] is None
    assert streams[1] is not None


def test_an_event_that_the_end_of_the_body_leaves_unfinished_is_passed_on() -> None:
    scene = Scene(link(Hooks())).begin(A, b'data: {"text": "b"}\n')
    scene.reading.eof()
    assert scene.client.body == A + b'data: {"text": "b"}\n'
    scene.assert_released(COMPLETE, "end")


def test_what_a_policy_held_is_released_at_the_clean_end() -> None:
    held: Events = []

    def hold(events: Events, now: float) -> Events:
        held.extend(events)
        return []

    scene = Scene(link(Hooks(events=hold, end=lambda now: held))).begin(A, B)
    assert scene.client.writes == []
    scene.reading.eof()
    assert scene.client.writes == [A + B]


def test_other_bodies_reach_policies_a_read_at_a_time() -> None:
    scene = Scene(link(hooks := Hooks()), reading=Reading("application/octet-stream")).begin(b"\x00", b"\x01")
    scene.reading.eof()
    assert scene.client.writes == [b"\x00", b"\x01"]
    assert hooks.told.count("events") == 2


# Content codings


def test_a_coded_body_is_decoded_for_policies() -> None:
    fields = {"Content-Encoding": "gzip", "ETag": '"x"'}
    coded = gzip.compress(A + B)
    scene = Scene(link(Hooks()), reading=Reading(headers=fields)).begin(*(bytes([byte]) for byte in coded))
    scene.reading.eof()
    assert scene.client.body == A + B
    assert set(scene.client.head.headers) == {"Content-Type"}
    scene.assert_released(COMPLETE, "end")


def test_a_coded_whole_body_goes_out_decoded_and_loses_its_etag() -> None:
    fields = {"Content-Encoding": "gzip", "ETag": '"x"', "Content-Length": "40"}
    scene = Scene(link(Hooks()), reading=Reading(JSON, headers=fields)).begin(gzip.compress(DOCUMENT))
    scene.reading.eof()
    assert scene.client.body == DOCUMENT
    assert dict(scene.client.head.headers) == {"Content-Type": JSON, "Content-Length": str(len(DOCUMENT))}


def test_a_coding_that_nobody_here_can_read_is_refused() -> None:
    scene = Scene(link(Hooks()), reading=Reading(headers={"Content-Encoding": "lzma2"}))
    scene.relay.start()
    scene.relay.respond(scene.reading)
    assert (scene.client.status, error_code(scene.client.body)) == (502, "upstream_coding")
    scene.assert_released(Outcome.of("upstream_coding"), "end")
    assert scene.reading.closed


def test_a_body_that_is_not_in_its_coding() -> None:
    scene = Scene(link(Hooks()), reading=Reading(headers={"Content-Encoding": "gzip"})).begin(b"not gzip")
    assert b'"code":"upstream_coding"' in scene.client.body
    scene.assert_released(Outcome.of("upstream_coding"), "end")


def test_a_coded_body_that_ends_too_early_is_truncated() -> None:
    scene = Scene(link(Hooks()), reading=Reading(headers={"Content-Encoding": "gzip"})).begin(gzip.compress(A)[:-4])
    scene.reading.eof()
    scene.assert_released(Outcome.of("upstream_truncated"), "end")
    assert b'"code":"upstream_truncated"' in scene.client.body


def test_a_read_with_very_many_events_is_given_in_turns() -> None:
    """Else one stream of tiny events, or one small coded read, keeps all others of the process waiting."""
    for headers, read in (({}, A * 1000), ({"Content-Encoding": "gzip"}, gzip.compress(A * 1000))):
        seen: list[int] = []

        def look(events: Events, now: float, seen: list[int] = seen) -> Events:
            seen.append(len(events))
            return events

        scene = Scene(link(Hooks(events=look)), reading=Reading(headers=headers)).begin(read)
        assert (seen, scene.reading.calls[-1]) == ([TURN_EVENTS], "pause")
        scene.reading.eof()  # it came with the read, and waits behind what is in it
        assert scene.outcome is None
        while scene.loop.turn():
            pass
        assert max(seen) == TURN_EVENTS
        assert scene.client.body == A * 1000
        scene.assert_released(COMPLETE, "end")


@pytest.mark.parametrize("before", [(), (A, B)])
def test_after_a_read_of_a_flood_the_others_have_their_turn(before: tuple[bytes, ...]) -> None:
    """Else the loop goes on to read the same upstream, as long as there is anything."""
    scene = Scene().begin(*before, b"x" * TURN_BYTES)
    assert scene.reading.paused
    assert scene.loop.turn()
    assert not scene.reading.paused
    scene.reading.feed(b"x" * (TURN_BYTES - 1))
    assert not scene.reading.paused
    assert len(scene.client.body) == len(b"".join(before)) + 2 * TURN_BYTES - 1


def test_of_several_floods_one_is_read_in_a_turn() -> None:
    """However many there are: what they bring in one turn of the loop is what one read brings."""
    first = Scene()
    scenes = [first, *(Scene(beside=first) for _ in range(3))]
    for scene in scenes:
        scene.begin(b"x" * TURN_BYTES)
    for number in (*range(4), *range(4)):
        assert first.loop.turn()
        assert [scene.reading.paused for scene in scenes].index(False) == number
        assert sum(not scene.reading.paused for scene in scenes) == 1
        scenes[number].reading.feed(b"x" * TURN_BYTES)
    assert [len(scene.client.body) for scene in scenes] == [3 * TURN_BYTES] * 4


def test_a_flood_that_a_policy_held_waits_for_its_turn_when_the_policy_lets_go() -> None:
    """Else those that one event lets go, such as tokens for all of a key, would all be read at once."""
    left = flood = TURN_BYTES // len(A) + 1

    def hold_the_last(events: Events, now: float) -> Verdict:
        nonlocal left
        left -= len(events)
        if left:
            return [] if left > 0 else [comment("released")]
        return Pause(1000, [], [comment("held")])

    hooks = Hooks(events=hold_the_last)
    scene = Scene(link(hooks)).begin(A * flood)
    while scene.loop.turn():
        pass
    assert scene.reading.paused
    scene.relay.poke(hooks)
    assert scene.client.body == b": released\n\n"
    assert scene.reading.paused
    scene.loop.turn()
    assert not scene.reading.paused


@pytest.mark.parametrize("sees", Sees)
def test_a_read_that_fills_the_clients_buffer_is_the_last_until_it_drains(sees: Sees) -> None:
    scene = Scene(link(Hooks(), sees)).begin(A, B)
    scene.client.on_write = scene.relay.unwritable
    scene.reading.feed(C)
    assert scene.reading.paused
    assert scene.loop.pending
    scene.client.on_write = lambda: None
    scene.relay.writable()
    assert not scene.reading.paused
    assert scene.client.body == A + B + C


def test_who_watches_the_upstream_is_told_of_each_read_though_nobody_sees_events() -> None:
    scene = Scene(link(hooks := Hooks(), Sees.ACTIVITY), attachment=[link(beat := Hooks(), Sees.ACTIVITY)])
    scene.begin(A, B, C)
    assert hooks.told.count("activity") == beat.told.count("activity") == 3
    assert scene.client.body == A + B + C


def test_a_client_that_is_slow_by_then_is_waited_for() -> None:
    scene = Scene().begin(b"x" * TURN_BYTES)
    scene.relay.unwritable()
    scene.loop.turn()
    assert scene.reading.paused
    scene.relay.writable()
    assert scene.reading.paused  # it stands in the line again, as a flood does
    scene.loop.turn()
    assert not scene.reading.paused


def test_a_slow_client_is_waited_for_between_turns() -> None:
    scene = Scene(link(Hooks()))
    scene.client.on_write = scene.relay.unwritable
    scene.begin(A * 1000)
    assert not scene.loop.turn()
    assert scene.client.body == A * TURN_EVENTS
    scene.client.on_write = lambda: None
    scene.relay.writable()
    while scene.loop.turn():
        pass
    assert scene.client.body == A * 1000
    assert scene.reading.calls[-1] == "resume"


def test_an_error_far_into_a_read_comes_after_what_stands_before_it() -> None:
    scene = Scene(link(Hooks())).begin(A * 600 + b"data: " + b"x" * LIMITS.event_bytes)
    scene.reading.eof()
    while scene.loop.turn():
        pass
    assert scene.client.body.startswith(A * 600 + b"event: error\n")
    scene.assert_released(Outcome.of("event_too_large"), "end")


def test_turns_that_are_due_after_the_end_do_nothing() -> None:
    scene = Scene(link(Hooks())).begin(A * 1000)
    scene.relay.client_gone()
    written = scene.client.body
    scene.loop.turn()
    assert scene.client.body == written


# Whole bodies


def test_a_whole_body_waits_for_its_end_and_then_has_its_length() -> None:
    fields = {"ETag": '"x"', "Content-Length": "17"}
    scene = Scene(link(Hooks()), reading=Reading(JSON, headers=fields)).begin(DOCUMENT[:5], DOCUMENT[5:])
    assert scene.client.calls == []
    scene.reading.eof()
    assert scene.client.calls == [("head", 200), ("write", DOCUMENT), ("end", None)]
    assert scene.client.head.headers["Content-Length"] == str(len(DOCUMENT))
    assert scene.client.head.headers["ETag"] == '"x"'
    scene.assert_released(COMPLETE, "end")


def test_a_whole_body_that_was_changed_loses_its_etag() -> None:
    def shorten(events: Events, now: float) -> Events:
        (event,) = events
        changed = event.with_deltas([(channel, "w") for channel, _ in event.deltas])
        return [changed] if changed is not None else []

    scene = Scene(link(Hooks(events=shorten)), reading=Reading(JSON, headers={"ETag": '"x"'})).begin(DOCUMENT)
    scene.reading.eof()
    assert scene.client.body == b'{"text":"w"}'
    assert dict(scene.client.head.headers) == {"Content-Type": JSON, "Content-Length": "12"}


def test_an_empty_whole_body() -> None:
    scene = Scene(link(Hooks()), reading=Reading(JSON)).begin()
    scene.reading.eof()
    assert scene.client.head.headers["Content-Length"] == "0"
    scene.assert_released(COMPLETE, "end")


def test_a_whole_body_over_the_limit() -> None:
    scene = Scene(link(Hooks()), reading=Reading(JSON)).begin(b"x" * LIMITS.reply_bytes, b"x")
    assert (scene.client.status, error_code(scene.client.body)) == (502, "event_too_large")
    scene.assert_released(Outcome.of("event_too_large"), "end")


def test_a_stop_replaces_a_whole_body() -> None:
    stop = Hooks(events=lambda events, now: Stop("too_rude", message="No.", headers={"Retry-After": "7"}))
    scene = Scene(link(stop), reading=Reading(JSON, headers={"X-Inside": "1"})).begin(DOCUMENT)
    scene.reading.eof()
    assert scene.client.status == 403
    assert json.loads(scene.client.body) == {"error": {"message": "No.", "code": "too_rude", "status": 403}}
    assert "X-Inside" not in scene.client.head.headers
    assert scene.client.head.headers["Retry-After"] == "7"
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "too_rude"), "end")


def test_a_whole_body_that_breaks_off_is_a_local_reply() -> None:
    scene = Scene(link(Hooks()), reading=Reading(JSON)).begin(DOCUMENT[:5])
    scene.reading.fail(UpstreamTruncated())
    assert (scene.client.status, error_code(scene.client.body)) == (502, "upstream_truncated")
    scene.assert_released(Outcome.of("upstream_truncated"), "end")


def test_a_whole_body_does_not_wait_for_heartbeats_that_it_cannot_have() -> None:
    scene = Scene(attachment=[heart(Hooks())], reading=Reading(JSON, headers={"Content-Length": "17"}))
    scene.begin(DOCUMENT[:5])
    assert scene.client.writes == [DOCUMENT[:5]]
    assert scene.client.head.headers["Content-Length"] == "17"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204), ("POST", 304)])
@pytest.mark.parametrize("content_type", [SSE, JSON])
def test_a_reply_without_a_body_is_only_a_head(method: str, status: int, content_type: str) -> None:
    fields = {"Content-Length": "17", "ETag": '"x"'}
    scene = Scene(link(hooks := Hooks()), method=method, reading=Reading(content_type, status, fields)).begin()
    assert scene.client.status == status
    # The length would be that of a body that no policy has been through (RFC 9110 §8.6).
    assert dict(scene.client.head.headers) == {"Content-Type": content_type, "ETag": '"x"'}
    scene.reading.eof()
    assert "events" not in hooks.told
    scene.assert_released(COMPLETE, "end")


def test_a_reply_without_a_body_is_no_stream() -> None:
    scene = Scene(method="HEAD", encoder=(encoder := Shout(declines=True))).begin()
    assert encoder.streaming is False
    scene.reading.fail(UpstreamError())
    assert scene.client.writes == []
    scene.assert_released(Outcome.of("upstream_reset"), "abort")


def test_a_length_without_a_body_stays_where_no_policy_would_read_it() -> None:
    scene = Scene(method="HEAD", reading=Reading(JSON, headers={"Content-Length": "17"})).begin()
    assert scene.client.head.headers["Content-Length"] == "17"


# Ends: the upstream's


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError(),
        UpstreamTruncated(),
        UpstreamGarbage(),
        UpstreamError("", "upstream_unreachable"),
        UpstreamError("", "connect_timeout"),
    ],
    ids=lambda error: error.details,
)
def test_the_upstream_fails_before_the_head(error: UpstreamError) -> None:
    hooks = Hooks()
    scene = Scene(link(hooks))
    scene.relay.start()
    scene.relay.cut(error.details)
    assert error_code(scene.client.body) == error.details
    assert scene.client.status == Problem.of(error.details).status
    assert hooks.told == ["start", "cut", "close"]
    scene.assert_released(Outcome.of(error.details), "end")


@pytest.mark.parametrize("sees", Sees)
def test_the_upstream_fails_between_two_events(sees: Sees) -> None:
    scene = Scene(link(hooks := Hooks(), sees)).begin(A, B)
    scene.reading.fail(UpstreamError())
    assert scene.client.body.startswith(A + B + b"event: error\ndata: ")
    assert b'"code":"upstream_reset"' in scene.client.body
    assert hooks.told[-2:] == ["cut", "close"]
    scene.assert_released(Outcome.of("upstream_reset"), "end")


def test_an_event_that_broke_off_is_not_passed_on_by_those_who_read_it() -> None:
    scene = Scene(link(Hooks())).begin(A, B[:9])
    scene.reading.fail(UpstreamError())
    assert scene.client.body.startswith(A + b"event: error\n")


UNREADABLE = {
    "in the middle of an event": (Reading(), [A, B[:9]]),
    "in a coded body": (Reading(headers={"Content-Encoding": "gzip"}), [A]),
    "with a length": (Reading(headers={"Content-Length": "1000"}), [A]),
    "of another type": (Reading("application/octet-stream"), [A]),
    "in the middle of a line": (Reading("application/x-ndjson"), [b"{}\n", b"{"]),
}


@pytest.mark.parametrize(("reading", "reads"), UNREADABLE.values(), ids=list(UNREADABLE))
def test_a_body_that_passes_unread_is_cut_off_where_no_word_would_be_understood(
    reading: Reading, reads: list[bytes]
) -> None:
    scene = Scene(reading=reading).begin(*reads)
    scene.reading.fail(UpstreamError())
    assert scene.client.body == b"".join(reads)
    scene.assert_released(Outcome.of("upstream_reset"), "abort")


def test_a_stream_that_passes_unread_can_be_ended_in_words_before_its_first_event() -> None:
    scene = Scene().begin()
    scene.reading.fail(UpstreamError())
    assert scene.client.body.startswith(b"event: error\n")
    scene.assert_released(Outcome.of("upstream_reset"), "end")


def test_opaque_bytes_are_cut_off_also_where_policies_read_them() -> None:
    scene = Scene(link(Hooks()), reading=Reading("application/octet-stream")).begin(b"\x00")
    scene.reading.fail(UpstreamError())
    scene.assert_released(Outcome.of("upstream_reset"), "abort")


def test_a_body_that_ends_with_the_connection_in_the_middle_of_an_event_is_truncated() -> None:
    scene = Scene(link(Hooks()), reading=Reading(ends_with_connection=True)).begin(A, B[:9])
    scene.reading.eof()
    assert scene.client.body.startswith(A + b"event: error\n")
    scene.assert_released(Outcome.of("upstream_truncated"), "end")


def test_a_body_that_ends_with_the_connection_between_events_is_complete() -> None:
    scene = Scene(link(Hooks()), reading=Reading(ends_with_connection=True)).begin(A, B, b"\n")
    scene.reading.eof()
    assert scene.client.body == A + B + b"\n"
    scene.assert_released(COMPLETE, "end")


@pytest.mark.parametrize(
    ("reading", "reads"),
    [
        (Reading(ends_with_connection=True), (A, B[:9])),
        (Reading("application/x-ndjson", ends_with_connection=True), (b"{}\n", b"{")),
        (Reading(JSON, ends_with_connection=True), (DOCUMENT[:9],)),
        (Reading(headers={"Content-Encoding": "gzip"}, ends_with_connection=True), (gzip.compress(A)[:9],)),
    ],
    ids=["an event", "a line", "a document", "a coding"],
)
def test_what_nobody_reads_is_not_complete_in_the_middle_of(reading: Reading, reads: tuple[bytes, ...]) -> None:
    scene = Scene(reading=reading).begin(*reads)
    scene.reading.eof()
    assert scene.client.body == b"".join(reads)
    scene.assert_released(Outcome.of("upstream_truncated"), "abort")


def test_what_nobody_reads_is_complete_at_its_end_or_where_it_cannot_be_told() -> None:
    for reading, body in (
        (Reading(ends_with_connection=True), A + B),
        (Reading(JSON, ends_with_connection=True), DOCUMENT),
        (Reading("text/plain", ends_with_connection=True), b'{"'),
        (Reading(headers={"Content-Encoding": "lzma2"}, ends_with_connection=True), b"{"),
    ):
        scene = Scene(reading=reading).begin(body)
        scene.reading.eof()
        assert scene.client.body == body
        scene.assert_released(COMPLETE, "end")


def test_a_part_that_was_asked_for_is_not_cut_off() -> None:
    scene = Scene(reading=Reading(JSON, 206, ends_with_connection=True)).begin(DOCUMENT[:9])
    scene.reading.eof()
    scene.assert_released(COMPLETE, "end")


def test_a_reply_without_a_body_has_none_that_could_be_cut() -> None:
    scene = Scene(method="HEAD", reading=Reading(ends_with_connection=True), dialect=OpenAIChat()).begin()
    scene.reading.eof()
    scene.assert_released(COMPLETE, "end")


def test_a_whole_reply_that_ends_with_the_connection_before_its_end_is_an_error() -> None:
    scene = Scene(link(Hooks()), reading=Reading(JSON, ends_with_connection=True)).begin(DOCUMENT[:9])
    scene.reading.eof()
    assert (scene.client.status, error_code(scene.client.body)) == (502, "upstream_truncated")
    scene.assert_released(Outcome.of("upstream_truncated"), "end")


def test_an_event_over_the_limit() -> None:
    scene = Scene(link(Hooks())).begin(A, b"data: " + b"x" * LIMITS.event_bytes)
    assert scene.client.body.startswith(A + b"event: error\n")
    scene.assert_released(Outcome.of("event_too_large"), "end")


# Ends: the client's


def test_the_client_leaves_before_the_head() -> None:
    scene = Scene(link(hooks := Hooks()), attachment=[heart(beat := Hooks())])
    scene.relay.start()
    scene.relay.client_gone()
    assert scene.client.calls == []
    assert hooks.told == beat.told == ["start", "cut", "close"]
    scene.assert_released(Outcome.of("client_gone"), "")


def test_the_client_leaves_in_the_middle() -> None:
    hooks = Hooks(cut=lambda now: [comment()], wake_at=2000.0)
    scene = Scene(link(hooks), attachment=[heart(Hooks())], encoder=Shout()).begin(A)
    scene.relay.client_gone()
    assert scene.client.calls[-1] == ("write", A.upper() + b"|")
    scene.assert_released(Outcome.of("client_gone"), "")


def test_a_client_that_does_not_read_is_dropped_after_its_time() -> None:
    scene = Scene(link(hooks := Hooks()), attachment=[heart(beat := Hooks())]).begin(A)
    scene.relay.unwritable()
    scene.loop.advance(LIMITS.write_stall_s - 0.1)
    assert scene.outcome is None
    scene.loop.advance(0.2)
    assert hooks.told[-2:] == beat.told[-2:] == ["cut", "close"]
    scene.assert_released(Outcome.of("write_stall"), "reset")


def test_a_client_that_reads_again_gets_new_time() -> None:
    scene = Scene().begin(A)
    for _ in range(3):
        scene.relay.unwritable()
        scene.loop.advance(LIMITS.write_stall_s - 1)
        scene.relay.writable()
        scene.loop.advance(LIMITS.write_stall_s + 1)
    assert scene.outcome is None


# Ends: policies


@pytest.mark.parametrize(
    ("ending", "last"), [(Ending.LENGTH, b'"finish_reason":"length"'), (Ending.ERROR, b'"code":"enough"')]
)
def test_a_stop_in_a_stream_is_put_in_the_dialects_words(ending: Ending, last: bytes) -> None:
    chunk = b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    hooks = Hooks(events=lambda events, now: Stop("enough", ending, events))
    scene = Scene(link(hooks), dialect=OpenAIChat()).begin(chunk)
    assert scene.client.body.startswith(chunk + b"data: ")
    assert last in scene.client.body
    assert hooks.told[-2:] == ["events", "close"]
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "enough"), "end")


def test_a_stop_before_the_head_is_a_local_reply() -> None:
    hooks = Hooks(timer=lambda now: Stop("first_byte_timeout", headers={"Retry-After": "7"}), wake_at=1005.0)
    scene = Scene(link(hooks))
    scene.relay.start()
    scene.loop.advance(5)
    assert (scene.client.status, error_code(scene.client.body)) == (504, "first_byte_timeout")
    assert scene.client.head.headers["Retry-After"] == "7"
    scene.assert_released(Outcome.of("first_byte_timeout", "policy"), "end")


@pytest.mark.parametrize("sees", Sees)
def test_a_timeout_in_the_stream(sees: Sees) -> None:
    hooks = Hooks(timer=lambda now: Stop("upstream_silence"), wake_at=1005.0)
    scene = Scene(link(hooks, sees)).begin(A)
    scene.loop.advance(5)
    assert b'"code":"upstream_silence"' in scene.client.body
    scene.assert_released(Outcome.of("upstream_silence", "policy"), "end")


def test_a_stop_of_an_attachments_policy() -> None:
    hooks = Hooks(events=lambda events, now: Stop("enough"))
    scene = Scene(link(before := Hooks()), attachment=[link(hooks, stage=Stage.RESTORE)]).begin(A)
    assert before.told == ["start", "response", "activity", "events", "close"]
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "enough"), "end")


def test_the_ending_passes_what_records_and_restores() -> None:
    record, restore = Hooks(), Hooks()
    scene = Scene(
        link(Hooks(events=lambda events, now: Stop("enough"))),
        link(record, stage=Stage.RECORD),
        attachment=[link(restore, stage=Stage.RESTORE)],
    ).begin(A)
    assert record.told == restore.told == ["start", "response", "activity", "cut", "events", "close"]
    assert scene.client.body.startswith(b"event: error\n")


def test_a_terminal_that_was_delivered_is_not_followed_by_an_ending() -> None:
    done = b"data: [DONE]\n\n"
    scene = Scene(link(Hooks())).begin(A, done)
    scene.reading.fail(UpstreamError())
    assert scene.client.body == A + done
    scene.assert_released(Outcome.of("upstream_reset"), "end")


CRASHES: dict[str, tuple[Hooks, Sees]] = {
    "on_events": (Hooks(events=raising), Sees.EVENTS),
    "on_activity": (Hooks(activity=raising), Sees.ACTIVITY),
    "on_timer": (Hooks(timer=raising, wake_at=1001.0), Sees.NOTHING),
}


@pytest.mark.parametrize(("hooks", "sees"), CRASHES.values(), ids=list(CRASHES))
def test_a_policy_that_raises_in_a_stream(hooks: Hooks, sees: Sees) -> None:
    scene = Scene(link(hooks, sees)).begin()
    if sees is not Sees.NOTHING:
        scene.reading.feed(A)
    scene.loop.advance(1)
    assert b'"code":"policy_error"' in scene.client.body
    assert [name for name, _ in scene.relay.errors] == ["policy"]
    scene.assert_released(Outcome.of("policy_error", "policy"), "end")


@pytest.mark.parametrize("hooks", [Hooks(start=raising), Hooks(response=raising)], ids=["on_start", "on_response"])
@pytest.mark.parametrize("part", ["exchange", "attachment"])
def test_a_policy_that_raises_before_the_head(hooks: Hooks, part: str) -> None:
    hooks = Hooks(start=hooks.start, response=hooks.response)
    links = [link(hooks, stage=Stage.RESTORE)]
    scene = Scene(*links) if part == "exchange" else Scene(attachment=links)
    scene.relay.start()
    scene.relay.respond(scene.reading)
    assert (scene.client.status, error_code(scene.client.body)) == (500, "policy_error")
    assert {name for name, _ in scene.relay.errors} == {"policy"}
    scene.assert_released(Outcome.of("policy_error", "policy"), "end")


def test_what_policies_raise_while_they_are_closed_is_kept_for_the_log() -> None:
    hooks = Hooks()
    scene = Scene(link(hooks), encoder=Shout(raises_in="close")).begin()
    scene.reading.eof()
    assert [name for name, _ in scene.relay.errors] == ["squeeze"]
    scene.assert_released(COMPLETE, "end")


# Ends: the encoder's


@pytest.mark.parametrize("sees", Sees)
def test_an_encoder_codes_what_leaves_once_a_read(sees: Sees) -> None:
    scene = Scene(link(Hooks(), sees), encoder=(encoder := Shout())).begin(A, B)
    scene.reading.eof()
    assert scene.client.body == A.upper() + b"|" + B.upper() + b"|."
    assert encoder.streaming
    scene.assert_released(COMPLETE, "end")


def test_a_whole_reply_is_coded_without_flushes() -> None:
    scene = Scene(link(Hooks()), encoder=(encoder := Shout()), reading=Reading(JSON)).begin(DOCUMENT)
    scene.reading.eof()
    assert scene.client.body == DOCUMENT.upper() + b"."
    assert encoder.streaming is False


def test_an_ending_is_coded_too() -> None:
    scene = Scene(encoder=Shout()).begin(A)
    scene.reading.fail(UpstreamError())
    assert b"EVENT: ERROR\n" in scene.client.body
    assert scene.client.body.endswith(b"|.")


@pytest.mark.parametrize("hook", ["encode", "finish"])
@pytest.mark.parametrize("sees", Sees)
def test_an_encoder_that_raises_in_the_body(hook: str, sees: Sees) -> None:
    scene = Scene(link(hooks := Hooks(), sees), encoder=Shout(raises_in=hook)).begin(A)
    if scene.outcome is None:
        scene.reading.eof()
    assert [name for name, _ in scene.relay.errors] == ["squeeze"]
    assert hooks.told[-1] == "close"
    scene.assert_released(Outcome.of("policy_error", "squeeze"), "abort")


def test_an_encoder_that_raises_at_the_last_event_of_the_end() -> None:
    last = Hooks(end=lambda now: [comment()])
    after = Hooks(end=lambda now: [comment()])
    scene = Scene(link(last), attachment=[heart(after)], encoder=Shout(raises_in="encode")).begin()
    scene.reading.eof()
    scene.assert_released(Outcome.of("policy_error", "squeeze"), "abort")


def test_an_encoder_that_raises_at_the_words_before_a_read() -> None:
    """A policy fails at the read's arrival, what a later one says to that cannot be coded: the read goes nowhere."""
    fails, speaks = Hooks(activity=raising), Hooks(cut=lambda now: [comment()])
    scene = Scene(link(fails, Sees.ACTIVITY), link(speaks, Sees.ACTIVITY), encoder=Shout(raises_in="encode")).begin(A)
    scene.assert_released(Outcome.of("policy_error", "squeeze"), "abort")


@pytest.mark.parametrize("reading", [Reading(), Reading(JSON)], ids=["stream", "whole"])
def test_an_encoder_that_raises_at_the_head(reading: Reading) -> None:
    scene = Scene(link(Hooks()), encoder=Shout(raises_in="on_response"), reading=reading).begin()
    if scene.outcome is None:
        reading.eof()
    assert (scene.client.status, error_code(scene.client.body)) == (500, "policy_error")
    scene.assert_released(Outcome.of("policy_error", "squeeze"), "end")


# Ends: our own


def test_shutdown_before_the_head() -> None:
    scene = Scene(link(Hooks()))
    scene.relay.start()
    scene.relay.cut("shutdown")
    assert (scene.client.status, error_code(scene.client.body)) == (503, "shutdown")
    scene.assert_released(Outcome.of("shutdown"), "end")


def test_shutdown_in_the_stream() -> None:
    scene = Scene(link(Hooks())).begin(A)
    scene.relay.cut("shutdown")
    assert b'"code":"shutdown"' in scene.client.body
    scene.assert_released(Outcome.of("shutdown"), "end")


def pausing() -> Hooks:
    """It lets nothing through for a day."""
    return Hooks(events=lambda events, now: Pause(86400, [], events))


@pytest.mark.parametrize("part", ["exchange", "attachment"])
def test_an_end_of_the_upstream_waits_behind_a_pause_and_shutdown_does_not(part: str) -> None:
    paused = link(pausing(), stage=Stage.RESTORE)
    scene = Scene(paused) if part == "exchange" else Scene(attachment=[paused])
    scene.begin(A)
    scene.reading.eof()
    assert scene.outcome is None
    scene.relay.cut("shutdown")
    assert scene.client.body.startswith(b"event: error\n")
    scene.assert_released(Outcome.of("shutdown"), "end")


@pytest.mark.parametrize("part", ["exchange", "attachment"])
def test_the_second_end_of_two_changes_nothing(part: str) -> None:
    paused = link(
        Hooks(events=lambda events, now: Pause(10, [], events) if now < 1010 else events), stage=Stage.RESTORE
    )
    scene = Scene(paused) if part == "exchange" else Scene(attachment=[paused])
    scene.begin(A)
    scene.reading.fail(UpstreamTruncated())
    scene.relay.cut("upstream_reset")
    assert scene.client.body == b""
    scene.loop.advance(10)
    assert scene.client.body.startswith(A + b"event: error\n")
    scene.assert_released(Outcome.of("upstream_truncated"), "end")


class Broken(Generic):
    """A dialect with a bug."""

    def __init__(self, *, error_body: bool = True) -> None:
        self._also_in_words = error_body

    def open(self, head: ResponseHead, call: Call) -> DialectStream:
        raise KeyError("the dialect's own mistake")

    def error_body(self, problem: Problem) -> tuple[str, bytes]:
        if self._also_in_words:
            raise KeyError("another")
        return super().error_body(problem)


def test_a_fault_of_our_own_before_the_head() -> None:
    scene = Scene(link(Hooks()), dialect=Broken(error_body=False)).begin()
    assert (scene.client.status, error_code(scene.client.body)) == (500, "internal_error")
    assert [(where, type(exc)) for where, exc in scene.relay.errors] == [("relay", KeyError)]
    scene.assert_released(Outcome.of("internal_error", "relay"), "end")
    assert scene.reading.closed


def test_a_fault_of_our_own_that_leaves_no_words() -> None:
    scene = Scene(link(Hooks()), dialect=Broken()).begin()
    assert len(scene.relay.errors) == 2
    assert (scene.client.status, scene.client.body) == (500, b"")
    assert scene.client.head.headers["Proxy-Status"] == 'penstock; details="internal_error"'
    scene.assert_released(Outcome.of("internal_error", "relay"), "end")


def test_a_policy_that_spoils_every_head_does_not_keep_the_client_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(head: ResponseHead) -> None:
        head.headers["X-Bad"] = "a\r\nb"

    scene = Scene(attachment=[link(Hooks(response=spoil), stage=Stage.ADMIT)])
    send = scene.client.send_head

    def refuse_the_spoilt(head: ResponseHead) -> None:
        if "X-Bad" in head.headers:
            raise ValueError("a line break")
        send(head)

    monkeypatch.setattr(scene.client, "send_head", refuse_the_spoilt)
    scene.begin()
    assert (scene.client.status, scene.client.body) == (500, b"")
    scene.assert_released(Outcome.of("internal_error", "relay"), "end")


def test_a_fault_of_our_own_in_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(link(Hooks())).begin(A)
    monkeypatch.setattr(Chain, "feed", raising)
    scene.reading.feed(B)
    assert scene.client.body == A
    scene.assert_released(Outcome.of("internal_error", "relay"), "abort")


def test_a_head_that_cannot_be_sent_is_a_fault_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(link(Hooks()))
    send = scene.client.send_head

    def refuse_the_first(head: ResponseHead) -> None:
        if not head.local:
            raise ValueError("a line break")
        send(head)

    monkeypatch.setattr(scene.client, "send_head", refuse_the_first)
    scene.begin()
    assert (scene.client.status, error_code(scene.client.body)) == (500, "internal_error")
    scene.assert_released(Outcome.of("internal_error", "relay"), "end")


def test_everything_is_released_although_the_source_cannot_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(link(hooks := Hooks())).begin(A)
    monkeypatch.setattr(scene.reading, "close", raising)
    scene.reading.eof()
    assert scene.relay.done.result() == hooks.outcome == COMPLETE
    assert [where for where, _ in scene.relay.errors] == ["relay"]


# A reply that opens before the upstream has answered


def early_beat(*, until_s: float = 3.0) -> Hooks:
    """A heart that beats once, before the upstream's head."""
    return Hooks(timer=lambda now: [comment()], wake_at=1000.0 + until_s)


def opened_early(*exchange: Link, encoder: Encoder | None = None, reading: Reading | None = None) -> Scene:
    scene = Scene(*exchange, attachment=[heart(early_beat())], encoder=encoder, reading=reading)
    scene.relay.start()
    scene.loop.advance(3)
    assert scene.client.calls == [("head", 200), ("write", b": ping\n\n" if encoder is None else b": PING\n\n|")]
    return scene


def test_a_reply_can_open_before_the_upstreams_head() -> None:
    scene = opened_early(link(hooks := Hooks()))
    headers = scene.client.head.headers
    assert headers["Content-Type"].startswith(SSE)
    assert headers["X-Request-Id"] == "test"
    scene.relay.respond(scene.reading)
    scene.reading.feed(A[:5], A[5:])
    scene.reading.eof()
    assert scene.client.body == b": ping\n\n" + A
    beat = scene.links[-1].stream
    assert isinstance(beat, Hooks)
    assert (beat.heads, hooks.heads) == ([(200, True)], [(200, False)])
    scene.assert_released(COMPLETE, "end")


def test_a_reply_that_opened_early_is_a_coded_stream_where_an_encoder_is() -> None:
    scene = opened_early(encoder=(encoder := Shout()))
    assert encoder.streaming
    scene.relay.respond(scene.reading)
    scene.reading.feed(A)
    assert scene.client.body == b": PING\n\n|" + A.upper() + b"|"


def test_policies_of_the_exchange_are_given_the_stream_that_opened_early() -> None:
    streams: list[DialectStream | None] = []
    scene = opened_early(link(Hooks(response=lambda head: streams.append(head.stream))))
    scene.relay.respond(scene.reading)
    assert streams == [scene.client.head.stream]
    assert streams != [None]


def test_a_coded_body_after_an_early_head_is_decoded() -> None:
    scene = opened_early(reading=Reading(headers={"Content-Encoding": "gzip"}))
    scene.relay.respond(scene.reading)
    scene.reading.feed(gzip.compress(A))
    assert scene.client.body == b": ping\n\n" + A


@pytest.mark.parametrize(
    ("reading", "details"),
    [
        (Reading(JSON, 500), "upstream_status"),
        (Reading(SSE, 404), "upstream_status"),
        (Reading(SSE, 302), "upstream_status"),
        (Reading(JSON), "upstream_garbage"),
        (Reading("application/x-ndjson"), "upstream_garbage"),
        (Reading("", 204), "upstream_garbage"),
        (Reading(headers={"Content-Encoding": "lzma2"}), "upstream_coding"),
    ],
    ids=["error", "not found", "redirect", "whole body", "other framing", "no body", "unknown coding"],
)
def test_an_answer_that_does_not_fit_an_early_head_becomes_an_error_event(reading: Reading, details: str) -> None:
    scene = opened_early(reading=reading)
    scene.relay.respond(reading)
    assert scene.client.body.startswith(b": ping\n\nevent: error\n")
    assert b'"code":"%s"' % details.encode() in scene.client.body
    assert reading.calls == ["close"]
    scene.assert_released(Outcome.of(details), "end")


def test_a_failed_attempt_after_an_early_head_becomes_an_error_event() -> None:
    scene = opened_early()
    scene.relay.cut("upstream_unreachable")
    assert b'"code":"upstream_unreachable"' in scene.client.body
    scene.assert_released(Outcome.of("upstream_unreachable"), "end")


def test_a_policys_answer_after_an_early_head_becomes_an_error_event() -> None:
    scene = opened_early(link(Hooks(response=lambda head: Reply(details="not_this_one", message="No."))))
    scene.relay.respond(scene.reading)
    assert b'"code":"not_this_one"' in scene.client.body
    assert b'"message":"No."' in scene.client.body
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "not_this_one"), "end")


def test_what_the_exchanges_policies_say_first_opens_the_reply_too() -> None:
    hooks = Hooks(timer=lambda now: [comment("first")], wake_at=1001.0)
    scene = Scene(link(hooks))
    scene.relay.start()
    scene.loop.advance(1)
    assert scene.client.body == b": first\n\n"


def test_an_answer_that_comes_after_the_end_is_not_read() -> None:
    """The exchange's part has ended; what the attachment's part holds keeps the exchange open."""
    ends = Hooks(timer=in_turn([comment("first")], Stop("enough", events=[comment("last")])), wake_at=1001.0)
    holds = Hooks(events=lambda events, now: Pause(60, [], events) if 1002 <= now < 1062 else events)
    scene = Scene(link(ends, Sees.NOTHING), attachment=[link(holds, stage=Stage.RESTORE)])
    scene.relay.start()
    scene.loop.advance(1)
    ends.wake_at = 1002.0
    scene.relay.poke(holds)
    scene.loop.advance(1)
    scene.relay.respond(scene.reading)
    scene.loop.advance(60)
    assert scene.client.body.startswith(b": first\n\n: last\n\nevent: error\n")
    assert "attach" not in scene.reading.calls
    assert scene.reading.closed
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "enough"), "end")


def test_an_upstream_that_is_in_time_keeps_its_head() -> None:
    scene = Scene(attachment=[heart(early_beat())], reading=Reading(JSON, 500)).begin(b"{}")
    assert scene.client.status == 500


# Replies of policies


def test_a_policy_answers_instead_of_the_upstream() -> None:
    hooks = Hooks(response=lambda head: Reply(429, details="later", headers={"Retry-After": "7"}))
    scene = Scene(link(hooks), attachment=[heart(seen := Hooks())]).begin()
    assert scene.client.status == 429
    assert scene.client.head.headers["Retry-After"] == "7"
    assert seen.heads == [(429, True)]
    assert scene.reading.calls == ["close"]
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "later"), "end")


def test_a_policy_of_the_attachment_answers_and_is_shown_its_own_reply() -> None:
    hooks = Hooks(response=lambda head: None if head.local else Reply(details="not_here"))
    scene = Scene(attachment=[link(hooks, Sees.NOTHING, Stage.RESTORE)]).begin()
    assert hooks.heads == [(200, False), (403, True)]
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "not_here"), "end")


def test_a_policy_of_the_attachment_answers_instead_of_a_whole_body() -> None:
    hooks = Hooks(response=lambda head: None if head.local else Reply(details="not_here"))
    scene = Scene(attachment=[link(hooks, stage=Stage.RESTORE)], reading=Reading(JSON)).begin(DOCUMENT)
    scene.reading.eof()
    assert error_code(scene.client.body) == "not_here"
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "not_here"), "end")


def test_a_refusal_passes_the_attachments_streams_made_so_far() -> None:
    cors = Hooks(response=lambda head: head.headers.update({"Access-Control-Allow-Origin": "*"}))
    scene = Scene(link(other := Hooks()), attachment=[link(cors, Sees.NOTHING, Stage.ADMIT)], encoder=Shout())
    scene.relay.refuse(Reply(429, details="too_many"), "caps")
    assert scene.client.head.headers["Access-Control-Allow-Origin"] == "*"
    assert scene.client.head.headers["Content-Encoding"] == "shout"
    assert scene.client.body.endswith(b".")
    assert b"|" not in scene.client.body  # in one piece
    assert (cors.told, other.told) == (["response", "close"], ["close"])
    scene.assert_released(Outcome(OutcomeKind.REFUSED, "caps", "too_many"), "end")


@pytest.mark.parametrize("details", ["request_rate", "stream_cap", "token_limit", "state_unavailable"])
def test_what_stops_a_stream_refuses_a_request(details: str) -> None:
    scene = Scene()
    scene.relay.refuse(Reply(details=details), "limits")
    assert (scene.client.status, error_code(scene.client.body)) == (FAULTS[details].status, details)
    scene.assert_released(Outcome(OutcomeKind.REFUSED, "limits", details), "end")
    assert Outcome.of(details).kind is OutcomeKind.STOPPED


def test_a_local_reply_says_whose_it_is() -> None:
    scene = Scene()
    scene.relay.refuse(Reply(details="no_route"), "parser")
    headers = scene.client.head.headers
    assert (scene.client.status, headers["Content-Type"]) == (404, JSON)
    assert headers["Content-Length"] == str(len(scene.client.body))
    assert headers["X-Request-Id"] == "test"
    assert headers["Proxy-Status"] == 'penstock; details="no_route"'
    assert headers["Cache-Control"] == "no-store"
    assert error_code(scene.client.body) == "no_route"
    scene.assert_released(Outcome.of("no_route", "parser"), "end")


def test_a_local_reply_in_a_policys_own_words() -> None:
    scene = Scene()
    scene.relay.refuse(
        Reply(401, details="who", body=b"Who?", headers={"Content-Type": "text/plain", "Cache-Control": "private"}),
        "auth",
    )
    assert scene.client.body == b"Who?"
    assert scene.client.head.headers["Content-Type"] == "text/plain"
    assert scene.client.head.headers["Cache-Control"] == "private"


def test_a_local_reply_that_is_no_error() -> None:
    scene = Scene(attachment=[link(Hooks(), Sees.NOTHING, Stage.ADMIT)])
    scene.relay.refuse(Reply(204, details="preflight", body=b""), "cors")
    assert scene.client.calls == [("head", 204), ("end", None)]
    assert dict(scene.client.head.headers) == {"X-Request-Id": "test"}
    scene.assert_released(Outcome(OutcomeKind.COMPLETE, "cors", "preflight"), "end")


def test_a_policy_that_failed_at_admission_is_named() -> None:
    scene = Scene()
    scene.relay.refuse(Reply(details="policy_error"), "caps")
    scene.assert_released(Outcome(OutcomeKind.POLICY_ERROR, "caps", "policy_error"), "end")


def test_a_refusal_that_cannot_be_sent_is_a_fault_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(link(Hooks()))
    monkeypatch.setattr(scene.client, "send_head", raising)
    scene.relay.refuse(Reply(details="no_route"), "parser")
    scene.assert_released(Outcome.of("internal_error", "relay"), "abort")


# Slow clients


def test_a_client_that_reads_slowly_is_no_client_that_stopped() -> None:
    scene = Scene(link(Hooks())).begin(A * 10)
    scene.client.unsent = len(A * 10)
    scene.relay.unwritable()
    for _ in range(5):
        scene.client.unsent -= 1
        scene.loop.advance(LIMITS.write_stall_s)
        assert scene.outcome is None
    scene.loop.advance(LIMITS.write_stall_s)
    scene.assert_released(Outcome.of("write_stall"), "reset")


# Interim replies


def test_a_flood_of_interim_replies_is_no_answer() -> None:
    scene = Scene()
    scene.relay.start()
    for _ in range(100):
        scene.relay.informational(103, Headers({"Link": "</a>"}))
    assert [what for what, _ in scene.client.calls].count("informational") == 16
    assert scene.client.status == 502
    scene.assert_released(Outcome.of("upstream_garbage"), "end")


def test_interim_replies_are_dropped_while_the_client_does_not_read() -> None:
    scene = Scene()
    scene.relay.start()
    scene.relay.unwritable()
    scene.relay.informational(103, Headers({"Link": "</a>"}))
    assert scene.client.calls == []


def test_an_interim_reply_is_passed_on_without_what_ends_at_this_hop() -> None:
    scene = Scene()
    scene.relay.start()
    scene.relay.informational(103, Headers({"Link": "</a>", "Connection": "X-Hop", "X-Hop": "1"}))
    ((what, head),) = scene.client.calls
    assert isinstance(head, ResponseHead)
    assert (what, head.status, dict(head.headers)) == ("informational", 103, {"Link": "</a>"})


def test_an_interim_reply_that_comes_too_late_is_dropped() -> None:
    scene = opened_early()
    scene.relay.informational(103, Headers())
    assert len(scene.client.calls) == 2


def test_an_interim_reply_for_a_client_that_has_left_is_dropped() -> None:
    scene = Scene()
    scene.relay.start()
    scene.relay.client_gone()
    scene.relay.informational(103, Headers())
    assert scene.client.calls == []


def test_an_interim_reply_that_cannot_be_sent_stays_in_this_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    monkeypatch.setattr(scene.client, "send_informational", raising)
    scene.relay.informational(103, Headers())
    scene.assert_released(Outcome.of("internal_error", "relay"), "end")


# Injection


def test_what_is_injected_stands_between_events() -> None:
    beat = Hooks(timer=lambda now: [comment()], wake_at=1005.0)
    scene = Scene(attachment=[heart(beat)]).begin(A, B[:5])
    scene.loop.advance(5)
    scene.reading.feed(B[5:])
    assert scene.client.body == A + b": ping\n\n" + B


@pytest.mark.parametrize(("reading", "reads"), UNREADABLE.values(), ids=list(UNREADABLE))
def test_nothing_is_injected_into_bytes_that_nobody_reads(reading: Reading, reads: list[bytes]) -> None:
    reading = Reading(reading.head.headers["Content-Type"], headers=dict(reading.head.headers))
    scene = Scene(link(Hooks(timer=lambda now: [comment()], wake_at=1005.0), Sees.ACTIVITY), reading=reading)
    scene.begin(*reads)
    scene.loop.advance(5)
    scene.reading.eof()
    assert scene.client.body == b"".join(reads)
    scene.assert_released(COMPLETE, "end")


def test_what_background_work_brings_is_delivered_at_once() -> None:
    hooks, beat = Hooks(timer=lambda now: [comment("done")]), Hooks(timer=lambda now: [comment("beat")])
    scene = Scene(link(hooks), attachment=[heart(beat)]).begin(A)
    scene.relay.poke(hooks)
    scene.relay.poke(beat)
    assert scene.client.body == A + b": done\n\n: beat\n\n"


def test_background_work_can_end_the_stream_and_a_pause() -> None:
    hooks = Hooks(
        events=in_turn(Pause(1000, [], [comment("held")]), [comment("released")]), timer=in_turn([], Stop("enough"))
    )
    scene = Scene(link(hooks)).begin(A)
    assert scene.client.body == b""
    scene.relay.poke(hooks)
    assert scene.client.body == b": released\n\n"
    scene.relay.poke(hooks)
    scene.assert_released(Outcome(OutcomeKind.STOPPED, "policy", "enough"), "end")


# Backpressure


def test_a_slow_client_stops_the_reading_and_a_drained_buffer_resumes_it() -> None:
    scene = Scene(link(hooks := Hooks(), Sees.ACTIVITY)).begin(A)
    scene.relay.unwritable()
    assert scene.reading.paused
    scene.relay.writable()
    assert not scene.reading.paused
    assert hooks.told == ["start", "response", "activity", "not reading", "reading"]
    assert scene.reading.calls == ["attach", "pause", "resume"]


def test_a_buffer_that_fills_during_a_write_stops_the_reading_after_it() -> None:
    scene = Scene(link(Hooks())).begin(A)
    scene.client.on_write = scene.relay.unwritable
    scene.reading.feed(B)
    assert scene.client.body == A + B
    assert scene.reading.paused


def test_a_buffer_that_fills_and_drains_during_a_write_changes_nothing() -> None:
    scene = Scene(link(Hooks())).begin(A)
    scene.client.on_write = lambda: (scene.relay.unwritable(), scene.relay.writable())
    scene.reading.feed(B)
    assert scene.reading.calls == ["attach"]


def test_what_is_read_when_reading_resumes_comes_in_order() -> None:
    """Reads that waited in the parser arrive from within `resume`."""
    scene = Scene(link(Hooks())).begin(A)
    scene.relay.unwritable()
    scene.reading.on_resume = lambda: scene.reading.feed(B, C)
    scene.relay.writable()
    assert scene.client.body == A + B + C
    assert not scene.reading.paused


def test_reading_that_resumes_can_stop_again_from_within() -> None:
    scene = Scene(link(Hooks())).begin(A)
    scene.relay.unwritable()
    scene.client.on_write = scene.relay.unwritable
    scene.reading.on_resume = lambda: scene.reading.feed(B)
    scene.relay.writable()
    assert scene.client.body == A + B
    assert scene.reading.calls == ["attach", "pause", "resume", "pause"]
    scene.loop.advance(LIMITS.write_stall_s)
    scene.assert_released(Outcome.of("write_stall"), "reset")


def test_a_policys_answer_to_the_end_of_reading_can_fill_the_buffer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client drained, a policy writes at that very moment, the buffer is full: reading does not resume."""
    scene = Scene(link(Hooks())).begin(A)
    scene.relay.unwritable()
    reading = Chain.reading

    def answers(chain: Chain, reads: bool, now: float) -> Events:
        return reading(chain, reads, now) + ([comment()] if reads and chain is scene.chain else [])

    monkeypatch.setattr(Chain, "reading", answers)
    scene.client.on_write = scene.relay.unwritable
    scene.relay.writable()
    assert scene.client.body == A + b": ping\n\n"
    assert scene.reading.calls == ["attach", "pause", "pause"]


def test_reading_that_resumes_can_reach_the_end_from_within() -> None:
    scene = Scene(link(Hooks())).begin(A)
    scene.relay.unwritable()
    scene.reading.on_resume = scene.reading.eof
    scene.relay.writable()
    scene.assert_released(COMPLETE, "end")


def test_a_client_that_is_slow_before_the_upstream_answers_stops_its_reading_at_once() -> None:
    scene = opened_early(reading=Reading(arrived=[A]))
    scene.relay.unwritable()
    scene.relay.respond(scene.reading)
    assert scene.reading.calls[-1] == "pause"  # to pause what is not attached yet does nothing
    scene.relay.writable()
    scene.reading.feed(B)
    assert scene.client.body == b": ping\n\n" + A + B
    assert not scene.reading.paused


def test_a_paused_policy_stops_the_reading_until_it_goes_on() -> None:
    hooks = Hooks(events=in_turn(Pause(2, [], [comment("held")]), [comment("released")]))
    scene = Scene(link(hooks)).begin(A)
    assert scene.reading.paused
    scene.loop.advance(2)
    assert not scene.reading.paused
    assert scene.client.body == b": released\n\n"


def test_a_slow_client_and_a_paused_policy_are_two_reasons() -> None:
    scene = Scene(link(Hooks(events=in_turn(Pause(2, [], [comment()]), [])))).begin(A)
    scene.relay.unwritable()
    scene.loop.advance(2)
    assert scene.reading.paused
    scene.relay.writable()
    assert not scene.reading.paused


def test_timers_go_on_while_the_stream_is_paused() -> None:
    beat = Hooks(timer=lambda now: [comment()], wake_at=1005.0)
    scene = Scene(link(pausing()), attachment=[heart(beat)]).begin(A)
    scene.loop.advance(5)
    assert scene.client.body == b": ping\n\n"
    assert scene.reading.paused


def test_a_policy_that_holds_too_much() -> None:
    scene = Scene(link(pausing())).begin(b"data: " + b"x" * 900 + b"\n\n", b"data: " + b"x" * 900 + b"\n\n")
    scene.assert_released(Outcome.of("pause_overflow", "policy"), "end")


# After the end


def end_in_the_stream(scene: Scene) -> None:
    scene.begin(A)
    scene.reading.eof()


def end_before_the_head(scene: Scene) -> None:
    scene.relay.start()
    scene.relay.cut("upstream_reset")


ENDS: list[Callable[[Scene], None]] = [end_in_the_stream, end_before_the_head]


@pytest.mark.parametrize("end", ENDS)
def test_nothing_reaches_anybody_after_the_outcome(end: Callable[[Scene], None]) -> None:
    scene = Scene(link(hooks := Hooks()), attachment=[heart(Hooks())], encoder=Shout())
    end(scene)
    outcome, calls, timers = scene.outcome, len(scene.client.calls), len(scene.loop.timers)
    received = scene.relay.upstream_bytes
    finished = scene.relay.on_finished = raising
    assert finished is raising
    scene.relay.feed(A)
    scene.relay.eof()
    scene.relay.failed(UpstreamError())
    scene.relay.cut("shutdown")
    scene.relay.refuse(Reply(details="draining"), "parser")
    scene.relay.unwritable()
    scene.relay.writable()
    scene.relay.poke(hooks)
    scene.relay.client_gone()
    scene.relay.informational(103, Headers())
    scene.relay.respond(late := Reading())
    scene.loop.advance(1000)
    assert scene.outcome == outcome
    assert (len(scene.client.calls), len(scene.loop.timers)) == (calls, timers)
    assert late.calls == ["close"]
    assert scene.relay.errors == []
    assert scene.relay.upstream_bytes == received


def test_whoever_waits_is_told_once_everything_is_released() -> None:
    scene = Scene(link(hooks := Hooks()))
    seen: list[tuple[Outcome | None, Outcome | None, bool]] = []
    scene.relay.on_finished = lambda: seen.append((scene.outcome, hooks.outcome, scene.relay.done.done()))
    scene.relay.start()
    scene.relay.cut("upstream_reset")
    outcome = Outcome.of("upstream_reset")
    assert seen == [(outcome, outcome, True)]


# Time


def test_no_timer_is_set_where_nobody_waits() -> None:
    scene = Scene(link(Hooks())).begin(A, B)
    assert scene.loop.timers == []


def test_one_timer_is_set_and_only_moved_forward() -> None:
    hooks = Hooks(wake_at=1010.0)
    scene = Scene(link(hooks)).begin(A)
    for later in (1020.0, 1030.0):
        hooks.wake_at = later
        scene.reading.feed(A)
    assert [timer.when for timer in scene.loop.timers] == [1010.0]
    hooks.wake_at = 1005.0
    scene.reading.feed(A)
    assert [timer.when for timer in scene.loop.pending] == [1005.0]


def test_a_timer_that_rings_too_early_is_set_again_for_the_time_that_counts() -> None:
    hooks = Hooks(wake_at=1010.0)
    scene = Scene(link(hooks)).begin()
    hooks.wake_at = 1020.0
    scene.loop.advance(10)
    assert "timer" not in hooks.told
    assert [timer.when for timer in scene.loop.pending] == [1020.0]
    scene.loop.advance(10)
    assert hooks.told[-1] == "timer"
    assert scene.loop.pending == []


# What the host is told


def test_first_content_is_the_first_delta_that_is_delivered() -> None:
    scene = Scene(link(Hooks())).begin(b": comment\n\n", b'data: {"text": ""}\n\n')
    assert scene.relay.first_content_at is None
    scene.loop.advance(2)
    scene.reading.feed(A)
    scene.loop.advance(2)
    scene.reading.feed(B)
    assert scene.relay.first_content_at == 1002.0


def test_first_content_is_not_what_stands_beside_the_reply() -> None:
    beside = b'data: {"choices":[],"prompt_filter_results":["safe"]}\n\n'
    scene = Scene(link(Hooks()), dialect=OpenAIChat()).begin(beside)
    assert scene.relay.first_content_at is None


def test_first_content_does_not_count_while_it_is_held_back() -> None:
    scene = Scene(link(Hooks(events=in_turn([], sse_events(A))))).begin(A)
    assert scene.relay.first_content_at is None
    scene.loop.advance(1)
    scene.reading.feed(B)
    assert scene.relay.first_content_at == 1001.0


def test_first_content_is_given_up_for_a_stream_that_has_none() -> None:
    scene = Scene(link(Hooks())).begin(*[b'data: {"text": ""}\n\n'] * 16)
    assert scene.relay.first_content_at is None
    scene.loop.advance(1)
    scene.reading.feed(b'data: {"text": ""}\n\n')
    assert scene.relay.first_content_at == 1001.0


def test_first_content_of_a_whole_reply_is_the_reply() -> None:
    scene = Scene(link(Hooks()), reading=Reading(JSON)).begin(DOCUMENT)
    scene.loop.advance(1)
    assert scene.relay.first_content_at is None
    scene.reading.eof()
    assert scene.relay.first_content_at == 1001.0


def test_first_content_of_what_passes_unread_is_the_first_read() -> None:
    scene = Scene().begin()
    assert scene.relay.first_content_at is None
    scene.loop.advance(1)
    scene.reading.feed(b"\x00")
    scene.loop.advance(1)
    scene.reading.feed(b"\x00")
    assert scene.relay.first_content_at == 1001.0


def sse_events(*raws: bytes) -> Events:
    stream = Generic().open(ResponseHead(200, Headers({"Content-Type": SSE})), Call())
    return [stream.event(raw) for raw in raws]
