"""Ends, errors and delivery of OpenAI's chat completions and completions, and what OpenAI's own client makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import openai
import pytest

from proxy.dialects import DIALECTS, choose
from proxy.dialects.base import Call, Channel, DialectStream, Kind, Usage
from proxy.dialects.openai_common import MAX_CHOICES
from proxy.errors import FAULTS, Problem
from proxy.framing import Event
from proxy.messages import Headers, Request
from proxy.policy import Ending

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Ask = Callable[..., Call]
Serve = Callable[..., str]

SILENCE = Problem.of("upstream_silence")
BOTH = pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions"])


def client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)


def chunk(*numbers: int, finish_reason: str | None = None, **more: Any) -> bytes:
    choices: list[dict[str, Any]] = [
        {"index": n, "delta": {}, "text": "", "finish_reason": finish_reason} for n in numbers
    ]
    document = {"id": "c1", "object": "o", "created": 7, "model": "m", "choices": choices, **more}
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def deliver(stream: DialectStream, *chunks: bytes, parsed: bool = False) -> None:
    for raw in chunks:
        event = stream.event(raw)
        if parsed:
            assert event.parsed
        stream.delivered([event])


def finishing(events: Iterable[Event]) -> list[tuple[int, str]]:
    """(choice, finish_reason) of every choice that the events name."""
    return [
        (choice["index"], choice["finish_reason"])
        for event in events
        if event.document is not None
        for choice in event.document["choices"]
    ]


# Ends


@BOTH
@pytest.mark.parametrize("parsed", [True, False])
def test_each_open_choice_ends_as_at_the_length_limit(dialect: str, parsed: bool, open_stream: Open) -> None:
    stream = open_stream(dialect)
    deliver(stream, chunk(0), chunk(1), chunk(2, 5), chunk(1, finish_reason="stop"), parsed=parsed)
    *chunks, done = stream.ending(Ending.LENGTH, SILENCE)
    assert finishing(chunks) == [(0, "length"), (2, "length"), (5, "length")]
    assert done.raw == b"data: [DONE]\n\n"
    for event in chunks:
        assert (event.document["id"], event.document["created"], event.document["model"]) == ("c1", 7, "m")
        assert event.document["object"] in ("chat.completion.chunk", "text_completion")
        assert event.ends == [Channel(event.document["choices"][0]["index"], None, None)]


@BOTH
@pytest.mark.parametrize("parsed", [True, False])
def test_it_is_what_was_delivered_that_counts(dialect: str, parsed: bool, open_stream: Open) -> None:
    stream = open_stream(dialect)
    end = stream.event(chunk(0, finish_reason="stop"))
    assert end.ends
    deliver(stream, chunk(0), parsed=parsed)
    assert finishing(stream.ending(Ending.LENGTH, SILENCE)) == [(0, "length")]


@BOTH
def test_choices_that_were_asked_for_and_never_began_end_too(dialect: str, open_stream: Open) -> None:
    stream = open_stream(dialect, call=Call(choices=3))
    deliver(stream, chunk(1), chunk(1, finish_reason="stop"))
    assert finishing(stream.ending(Ending.LENGTH, SILENCE)) == [(0, "length"), (2, "length")]


@BOTH
@pytest.mark.parametrize("parsed", [True, False])
def test_a_chunk_without_choices_does_not_name_the_reply(dialect: str, parsed: bool, open_stream: Open) -> None:
    """Azure's first chunk has an empty id and model."""
    stream = open_stream(dialect, call=Call(model="asked"))
    deliver(stream, b'data: {"id":"","model":"","choices":[],"prompt_filter_results":[]}\n\n', parsed=parsed)
    assert stream.ending(Ending.LENGTH, SILENCE)[0].document["model"] == "asked"


@BOTH
def test_an_end_before_anything_was_delivered(dialect: str, open_stream: Open) -> None:
    stream = open_stream(dialect, call=Call(model="asked"))
    first, done = stream.ending(Ending.LENGTH, SILENCE)
    assert (first.document["model"], finishing([first])) == ("asked", [(0, "length")])
    assert done.raw == b"data: [DONE]\n\n"


def test_a_choice_of_which_the_client_saw_nothing_gets_its_role(open_stream: Open) -> None:
    stream = open_stream("openai-chat", call=Call(choices=2))
    deliver(stream, chunk(1))
    unseen, seen, _ = stream.ending(Ending.LENGTH, SILENCE)
    assert unseen.document["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert seen.document["choices"][0]["delta"] == {}


@BOTH
def test_no_number_of_choices_makes_us_keep_more_than_the_limit(dialect: str, open_stream: Open) -> None:
    stream = open_stream(dialect, call=Call(choices=10**12))
    deliver(stream, *(chunk(n) for n in range(1000, 1000 + 2 * MAX_CHOICES)))
    deliver(stream, *(chunk(n, finish_reason="stop") for n in range(9000, 9000 + 2 * MAX_CHOICES)))
    assert len(finishing(stream.ending(Ending.LENGTH, SILENCE))) == 2 * MAX_CHOICES


@BOTH
def test_usage_is_said_to_who_asked_for_it_where_it_is_known(dialect: str, open_stream: Open) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    for wants, delivered, found in ((True, usage, [usage]), (False, usage, []), (True, None, [])):
        stream = open_stream(dialect, call=Call(wants_usage=wants))
        deliver(stream, chunk(0, usage=delivered))
        events = stream.ending(Ending.LENGTH, SILENCE)[:-1]
        assert [event.document["usage"] for event in events if "usage" in event.document] == found
        assert [event.document["choices"] for event in events[1:]] == [[]] * len(found)


@BOTH
@pytest.mark.parametrize("parsed", [True, False])
@pytest.mark.parametrize(
    "terminal",
    [b"data: [DONE]\n\n", b'data: {"error":{"message":"x"}}\n\n', chunk(0, error={"message": "x"})],
    ids=["done", "error", "error in a chunk"],
)
def test_nothing_follows_a_terminal(dialect: str, parsed: bool, terminal: bytes, open_stream: Open) -> None:
    stream = open_stream(dialect)
    deliver(stream, chunk(0), b": c\n\n", chunk(0, finish_reason="stop"), chunk(), parsed=parsed)
    assert not stream.finished
    deliver(stream, terminal, parsed=parsed)
    assert stream.finished
    assert [stream.ending(ending, SILENCE) for ending in Ending] == [[], []]


@BOTH
def test_an_error_ending_is_one_event_without_done(dialect: str, open_stream: Open) -> None:
    (event,) = open_stream(dialect).ending(Ending.ERROR, SILENCE)
    assert event.document == {
        "error": {"message": SILENCE.message, "type": "server_error", "param": None, "code": "upstream_silence"}
    }


@BOTH
@pytest.mark.parametrize("ending", Ending)
def test_a_whole_reply_is_replaced_by_an_error(dialect: str, ending: Ending, open_stream: Open) -> None:
    stream = open_stream(dialect, "application/json")
    (event,) = stream.ending(ending, SILENCE)
    assert event.raw == DIALECTS[dialect].error_body(SILENCE)[1]
    stream.delivered([event])
    assert stream.finished
    assert stream.ending(ending, SILENCE) == []


@pytest.mark.parametrize("fixture", ["chat", "chat_n2", "chat_logprobs", "chat_cut_character", "completions"])
@pytest.mark.parametrize("parsed", [True, False])
def test_recorded_streams_end_as_what_was_delivered_of_them_says(
    fixture: str, parsed: bool, open_stream: Open, play: Play
) -> None:
    """Wherever they are cut, and whether or not a policy read their events."""
    dialect = "openai-completions" if fixture == "completions" else "openai-chat"
    call = Call(choices=2 if fixture == "chat_n2" else 1)
    length = len(play(open_stream(dialect), f"llama_cpp/{fixture}.sse"))
    for cut in range(length + 1):
        stream = open_stream(dialect, call=call)
        events = play(stream, f"llama_cpp/{fixture}.sse")[:cut]
        for event in events:
            if parsed:
                assert event.known
            stream.delivered([event])
        ended = [end.choice for event in events for end in event.ends if end.choice is not None]
        last = stream.ending(Ending.LENGTH, SILENCE)
        assert stream.finished is (cut == length)
        assert sorted(ended + [number for number, _ in finishing(last)]) == list(range(call.choices))


# What OpenAI's client makes of it


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ("malformed_request", openai.BadRequestError),
        ("no_route", openai.NotFoundError),
        ("stopped", openai.PermissionDeniedError),
        ("internal_error", openai.InternalServerError),
        ("upstream_unreachable", openai.InternalServerError),
        ("body_too_large", openai.APIStatusError),
    ],
)
@BOTH
def test_the_client_raises_its_own_errors(
    dialect: str, details: str, error: type[openai.APIStatusError], serve: Serve
) -> None:
    problem = Problem.of(details)
    content_type, body = choose(dialect, "/").error_body(problem)
    with pytest.raises(error) as caught, client(serve(problem.status, content_type, body)) as sdk:
        sdk.chat.completions.create(model="m", messages=[])
    assert (caught.value.code, caught.value.message.count(problem.message)) == (details, 1)


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (504, "server_error"),
    ],
)
@BOTH
def test_the_type_of_an_error(dialect: str, status: int, type: str) -> None:
    body = json.loads(choose(dialect, "/").error_body(Problem(status, "reason", "message"))[1])
    assert body == {"error": {"message": "message", "type": type, "param": None, "code": "reason"}}


@pytest.mark.parametrize("details", ["upstream_silence", "upstream_truncated", "policy_error"])
def test_the_client_raises_where_a_stream_ends_with_an_error(
    details: str, open_stream: Open, play: Play, serve: Serve
) -> None:
    stream = open_stream("openai-chat")
    events = play(stream, "llama_cpp/chat.sse")[:3]
    stream.delivered(events)
    body = b"".join(event.raw for event in (*events, *stream.ending(Ending.ERROR, Problem.of(details))))
    with client(serve(200, "text/event-stream", body)) as sdk:
        reply = sdk.chat.completions.create(model="m", messages=[], stream=True)
        got: list[object] = []
        with pytest.raises(openai.APIError) as caught:
            got.extend(reply)
    assert len(got) == len(events)
    assert (caught.value.code, caught.value.message) == (details, FAULTS[details].message)


def test_the_client_sees_a_length_limit(open_stream: Open, play: Play, serve: Serve) -> None:
    stream = open_stream("openai-chat", call=Call(choices=2, wants_usage=True))
    events = play(stream, "llama_cpp/chat_n2.sse")[:6]
    stream.delivered(events)
    body = b"".join(event.raw for event in (*events, *stream.ending(Ending.LENGTH, SILENCE)))
    with client(serve(200, "text/event-stream", body)) as sdk:
        chunks = list(sdk.chat.completions.create(model="m", messages=[], stream=True))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [(c.index, c.finish_reason) for c in choices if c.finish_reason] == [(0, "length"), (1, "length")]
    assert {c.index for c in choices if c.delta.content} == {0, 1}


def test_the_client_reads_on_after_comments_in_a_stream_with_ids(open_stream: Open, play: Play, serve: Serve) -> None:
    stream = open_stream("openai-chat")
    body = b""
    for number, event in enumerate(play(stream, "llama_cpp/chat.sse")):
        event = stream.event(b"id: %d\n" % number + event.raw)
        comment = stream.comment()
        assert comment is not None
        body += comment.raw + event.raw
        stream.delivered([event])
    with client(serve(200, "text/event-stream", body)) as sdk:
        assert len(list(sdk.chat.completions.create(model="m", messages=[], stream=True))) == number


def test_the_client_joins_a_tool_call_that_was_held_back_and_continued(
    open_stream: Open, play: Play, serve: Serve
) -> None:
    """Every text is taken out of its event and sent after it: ids, names and roles must be said once."""
    stream = open_stream("openai-chat")
    body = b""
    for event in play(stream, "written/openai_chat_tools.sse"):
        emptied = event.with_deltas([(channel, "") for channel, _ in event.deltas])
        body += emptied.raw if emptied is not None else b""
        body += b"".join(event.continuation(channel, text).raw for channel, text in event.deltas)
    with (
        client(serve(200, "text/event-stream", body)) as sdk,
        sdk.chat.completions.stream(model="m", messages=[]) as reply,
    ):
        message = reply.get_final_completion().choices[0].message
    assert message.role == "assistant"
    assert [(call.id, call.function.name) for call in message.tool_calls or ()] == [
        ("call_1", "get_weather"),
        ("call_2", "get_time"),
    ]
    assert [json.loads(call.function.arguments) for call in message.tool_calls or ()] == [
        {"city": "Zürich A"},
        {"zone": "CET"},
    ]


# Usage


@BOTH
def test_a_cut_says_the_usage_that_was_counted_to_who_asked_for_it(dialect: str, open_stream: Open) -> None:
    for wants, found in ((True, [{"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}]), (False, [])):
        stream = open_stream(dialect, call=Call(wants_usage=wants))
        deliver(stream, chunk(0, usage={"prompt_tokens": 3, "completion_tokens": 1}))
        stream.counted = Usage(9, 4)
        *events, _ = stream.ending(Ending.LENGTH, SILENCE)
        assert [event.document["usage"] for event in events if "usage" in event.document] == found


def without_usage(stream: DialectStream, *chunks: bytes) -> bytes:
    events = [stream.without_usage(stream.event(raw)) for raw in chunks]
    return b"".join(event.raw for event in events if event is not None)


def spaced(raw: bytes) -> bytes:
    """As Python's own `json` writes it."""
    return raw.replace(b",", b", ").replace(b'":', b'": ')


@BOTH
@pytest.mark.parametrize("spelling", [bytes, spaced])
def test_a_stream_without_usage_is_as_if_nobody_had_asked(
    dialect: str, spelling: Callable[[bytes], bytes], open_stream: Open
) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    asked = [chunk(0, usage=None), chunk(1, usage=None), chunk(usage=usage), b": a comment\n\n", b"data: [DONE]\n\n"]
    unasked = [chunk(0), chunk(1), *asked[3:]]
    got = without_usage(open_stream(dialect), *map(spelling, asked))
    assert got == b"".join(map(spelling, unasked))


@BOTH
def test_usage_beside_a_choice_is_stated_unasked_and_stays(dialect: str, open_stream: Open) -> None:
    """OpenRouter and Mistral do so, with what it cost."""
    stream = open_stream(dialect)
    event = stream.event(
        chunk(0, finish_reason="stop", usage={"prompt_tokens": 3, "completion_tokens": 1, "cost": 1.5})
    )
    assert stream.without_usage(event) is event


@pytest.mark.parametrize(
    "raw",
    [
        chunk(0),
        b'data: {"choices":[{"index":0,"delta":{"content":"usage"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":",\\"usage\\":null"}}]}\n\n',
        b'data: "usage"\n\n',
        b'data: {"choices":[],"x":{"id":1,"usage":null}}\n\n',
        b'data: {"choices":[],"x":[{"id":1,"usage":null}]}\n\n',
        b'data: {"choices":[]}\n: {"id":1,"usage":null}\n\n',
        b': {"id":1,"usage":null}\n\n',
        b'data: {"choices":[}],"usage":null}\n\n',
        b'data: {"usage" broken\n\n',
    ],
)
def test_what_is_no_usage_stays(raw: bytes, open_stream: Open) -> None:
    stream = open_stream("openai-chat")
    event = stream.event(raw)
    assert stream.without_usage(event) is event


def test_a_text_that_is_called_usage_beside_usage(open_stream: Open) -> None:
    asked = b'data: {"choices":[{"index":0,"delta":{"content":"usage"}}],"usage":null}\n\n'
    first = b'data: {"usage":null,"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    left = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
    assert without_usage(open_stream("openai-chat"), asked, first) == left % b"usage" + left % b"x"


def test_other_things_that_are_called_usage_stay(open_stream: Open) -> None:
    other = {"id": "q", "usage": None}
    assert without_usage(open_stream("openai-chat"), chunk(0, x=other, usage=None)) == chunk(0, x=other)


def test_padding_behind_usage_stays(open_stream: Open) -> None:
    """As OpenAI writes it."""
    asked, left = chunk(0, usage=None, obfuscation="aB3"), chunk(0, obfuscation="aB3")
    assert without_usage(open_stream("openai-chat"), asked) == left


def test_a_chunk_without_choices_and_usage_stays(open_stream: Open) -> None:
    """Azure's first."""
    asked = b'data: {"usage":null,"choices":[],"prompt_filter_results":[1]}\n\n'
    left = b'data: {"choices":[],"prompt_filter_results":[1]}\n\n'
    assert without_usage(open_stream("openai-chat"), asked, chunk(usage=None)) == left + chunk()


def test_of_a_real_stream_with_usage_in_every_chunk_the_last_without_choices_goes(
    open_stream: Open, play: Play
) -> None:
    stream = open_stream("openai-chat")
    events = play(stream, "written/vllm_chat_usage.sse")
    left = [shown for event in events if (shown := stream.without_usage(event)) is not None]
    assert left == [event for event in events if event.parsed.choices or not event.usage]
    assert len(left) == len(events) - 1


# Requests


def make_request(dialect: str, body: bytes) -> Request:
    return Request(id="1", method="POST", path="/", headers=Headers(), dialect=choose(dialect, "/"), body=body)


@BOTH
@pytest.mark.parametrize(
    ("body", "asks"),
    [
        (b'{"stream": true, "n": 1.50}', b'{"stream":true,"n":1.50,"stream_options":{"include_usage":true}}'),
        (b'{"stream": true, "stream_options": null}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (
            b'{"stream_options": {"include_usage": false, "x": 1}, "stream": true}',
            b'{"stream_options":{"include_usage":true,"x":1},"stream":true}',
        ),
    ],
)
def test_asking_for_usage(dialect: str, body: bytes, asks: bytes) -> None:
    request = make_request(dialect, body)
    assert request.dialect.ask_for_usage(request)
    assert request.body == asks
    assert request.dialect.read_call(request).wants_usage
    assert not request.dialect.ask_for_usage(request)
    assert request.body == asks


@BOTH
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"stream": false}', b'{"stream": true, "stream_options": 7}']
)
def test_where_usage_cannot_be_asked_for_nothing_changes(dialect: str, body: bytes) -> None:
    request = make_request(dialect, body)
    assert not request.dialect.ask_for_usage(request)
    assert request.body == body


@BOTH
@pytest.mark.parametrize("body", [None, b"", b"{", b"[1]", b"\xff", b"[" * 99_999])
def test_what_is_no_model_call_is_neutral(dialect: str, body: bytes | None, ask: Ask) -> None:
    call = ask(dialect, body)
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == (None, False, 1, None)
    assert (call.wants_usage, list(call.texts), call.document) == (False, [], None)


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":1,"stream":"true","n":"2","max_tokens":"5","stream_options":1}',
        b'{"model":[],"stream":1,"n":true,"max_tokens":true,"stream_options":{"include_usage":1}}',
        b'{"model":null,"stream":null,"n":0,"max_tokens":-1,"stream_options":null}',
        b'{"n":1.5,"max_tokens":1.5}',
    ],
)
def test_fields_of_another_type_count_as_not_said(dialect: str, body: bytes, ask: Ask) -> None:
    call = ask(dialect, body)
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == (None, False, 1, None)
    assert not call.wants_usage


# What stands beside the texts, and what repeats them


@BOTH
def test_strings_beside_the_choices_are_texts_of_their_own(dialect: str, open_stream: Open) -> None:
    document = {
        "id": "c", "system_fingerprint": "f", "obfuscation": "o", "citations": ["a", {"url": "b"}], "usage": {"x": "c"},
        "choices": [{
            "index": 3, "finish_reason": "stop", "logprobs": {"tokens": ["t"]},
            "content_filter_results": {"hate": {"severity": "safe"}},
        }],
    }  # fmt: skip
    event = open_stream(dialect).event(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert event.deltas == [
        (Channel(3, Kind.TEXT, "/content_filter_results/hate/severity", repeated=True), "safe"),
        (Channel(0, Kind.TEXT, "/citations/0", repeated=True), "a"),
        (Channel(0, Kind.TEXT, "/citations/1/url", repeated=True), "b"),
    ]
    changed = event.with_deltas([(channel, "") for channel, _ in event.deltas])
    assert changed is not None
    assert changed.document["citations"] == ["", {"url": ""}]


@BOTH
@pytest.mark.parametrize(
    ("mirror", "stays"),
    [
        ({"logprobs": None}, True),
        ({"logprobs": {"content": [{"token": "so"}, {"token": " it"}]}}, True),
        ({"logprobs": {"tokens": ["so", " it"], "text_offset": [0, 2]}}, True),
        ({"logprobs": {"content": [{"token": "so"}, {"token": " it"}, {"token": " is"}]}}, False),
        ({"logprobs": {"content": [{"token": "so"}], "refusal": [7]}}, False),
        ({"logprobs": "so it"}, False),
        ({"token_ids": [1, 2]}, False),
    ],
)
def test_what_repeats_a_text_stays_where_it_says_nothing_else(
    dialect: str, mirror: dict[str, Any], stays: bool, open_stream: Open
) -> None:
    choice = {"index": 0, "delta": {"content": "so it"}, "text": "so it", **mirror}
    choice.pop("text" if dialect == "openai-chat" else "delta")
    stream = open_stream(dialect)
    event = stream.event(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    without = stream.without_mirrors(event)
    assert without is not None
    assert (without is event) is stays
    assert event.parsed.mirrored or stays
    (name,) = mirror
    assert stays or without.document["choices"][0][name] is None
    assert without.deltas == event.deltas


@BOTH
def test_an_event_that_only_repeats_is_not_worth_sending(dialect: str, open_stream: Open) -> None:
    stream = open_stream(dialect)
    ahead = stream.event(
        chunk(0).replace(b'"finish_reason":null', b'"logprobs":{"tokens":["zq"]},"finish_reason":null')
    )
    assert stream.without_mirrors(ahead) is None
    last = stream.event(ahead.raw.replace(b"null", b'"stop"'))
    without = stream.without_mirrors(last)
    assert without is not None
    assert without.ends == last.ends
    assert b"zq" not in without.raw


@BOTH
def test_a_document_of_another_shape_is_continued_with_all_but_its_texts(dialect: str, open_stream: Open) -> None:
    event = open_stream(dialect).event(b'event: e\ndata: {"note": "a", "n": 1, "x": "b"}\n\n')
    note = Channel(0, Kind.TEXT, "/note")
    continued = event.continuation(note, "c")
    assert continued.raw == b'event: e\ndata: {"note":"c","n":1,"x":""}\n\n'
    assert continued.deltas == [(note, "c")]
