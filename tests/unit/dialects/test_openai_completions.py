"""OpenAI completions, the API before chat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from proxy.dialects.base import EVERY_CHANNEL, Call, Channel, DialectStream, Kind, Usage
from proxy.framing import Event

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]
Ask = Callable[..., Call]

TEXT = Channel(0, Kind.TEXT, 0)


def chunk(**choice: Any) -> bytes:
    return b"data: " + json.dumps({"id": "c1", "choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


def test_a_stream(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("openai-completions"), "llama_cpp/completions.sse")
    assert list(join(events)) == [TEXT]
    assert [end for event in events for end in event.ends] == [Channel(0, None, None), EVERY_CHANNEL]
    assert [event.usage for event in events if event.usage] == [Usage(2, 12)]


def test_a_whole_reply(open_stream: Open, play: Play, join: Join) -> None:
    (event,) = play(open_stream("openai-completions", "application/json"), "llama_cpp/completions.json")
    assert list(join([event])) == [TEXT]
    assert event.ends == (EVERY_CHANNEL,)
    assert event.usage == Usage(2, 12)


def test_several_choices_in_one_chunk(open_stream: Open) -> None:
    document = {"choices": [{"index": 1, "text": "a"}, {"index": 0, "text": "b", "finish_reason": "stop"}]}
    event = open_stream("openai-completions").event(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert event.deltas == [(Channel(1, Kind.TEXT, 0), "a"), (TEXT, "b")]
    assert event.ends == [Channel(0, None, None)]


@pytest.mark.parametrize("name", ["delta", "message"])
def test_the_fields_of_chat_are_texts_too(name: str, open_stream: Open) -> None:
    """Nothing goes unseen because a server speaks the other of the two APIs."""
    event = open_stream("openai-completions").event(chunk(**{name: {"content": "a"}}, text="b"))
    assert event.deltas == [(Channel(0, Kind.TEXT, f"/{name}/content"), "a"), (TEXT, "b")]
    rewritten = event.with_deltas([(channel, "x") for channel, _ in event.deltas])
    assert rewritten is not None
    assert rewritten.document["choices"] == [{"index": 0, name: {"content": "x"}, "text": "x"}]


def test_what_is_nested_there_is_whole_but_for_what_is_known_to_go_on(open_stream: Open) -> None:
    delta = {"annotations": [{"url": "u"}], "tool_calls": [{"function": {"arguments": "{"}}]}
    event = open_stream("openai-completions").event(chunk(delta=delta, text="b"))
    assert [channel.repeated for channel, _ in event.deltas] == [True, False, False]


@pytest.mark.parametrize("text", [None, "", 7])
def test_a_choice_without_text(text: Any, open_stream: Open) -> None:
    event = open_stream("openai-completions").event(chunk(text=text))
    assert (list(event.deltas), event.known) == ([], True)


def test_rewriting(open_stream: Open) -> None:
    stream = open_stream("openai-completions")
    event = stream.event(chunk(text="a", logprobs={"tokens": ["a"]}, finish_reason=None))
    rewritten = event.with_deltas([(TEXT, "b")])
    assert rewritten is not None
    assert rewritten.document["choices"] == [{"index": 0, "text": "b", "logprobs": None, "finish_reason": None}]
    assert event.with_deltas([(TEXT, "")]) is None
    last = stream.event(chunk(text="a", finish_reason="stop")).with_deltas([(TEXT, "")])
    assert last is not None
    assert last.ends == [Channel(0, None, None)]


def test_continuing(open_stream: Open) -> None:
    stream = open_stream("openai-completions")
    continued = stream.event(chunk(text="a", finish_reason="stop", logprobs={})).continuation(TEXT, "b")
    assert continued.document == {"id": "c1", "object": "text_completion", "choices": [{"index": 0, "text": "b"}]}
    assert stream.parse(continued.raw).deltas == [(TEXT, "b")]


def test_other_content_types_are_generic(open_stream: Open) -> None:
    event = open_stream("openai-completions", "text/plain").event(b"hello")
    assert event.deltas == [(Channel(0, Kind.TEXT, ""), "hello")]


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [('"a"', ["a", "z"]), ('["a","b"]', ["a", "b", "z"]), ("[1,2]", ["z"]), ("[[1],[2]]", ["z"]), ("null", ["z"])],
)
def test_what_a_request_asks(prompt: str, texts: list[str], ask: Ask) -> None:
    body = b'{"model":"m","prompt":%s,"suffix":"z","stream":true,"n":2,"max_tokens":5}' % prompt.encode()
    call = ask("openai-completions", body)
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("m", True, 2, 5)
    assert call.texts == texts


def test_a_prompt_that_nests_too_deeply_has_no_texts(ask: Ask) -> None:
    body = b'{"model":"m","prompt":' + b"[" * 70 + b'"x"' + b"]" * 70 + b"}"
    call = ask("openai-completions", body)
    assert (call.model, call.texts) == ("m", [])


@pytest.mark.parametrize(
    ("prompt", "token_ids"),
    [('"a"', 0), ("[1,2]", 2), ("[[1],[2,3]]", 3), ('["a",1,true,null,{}]', 1), ("[]", 0), ("7", 0), ("[[[1]]]", 0)],
)
def test_a_prompt_of_token_ids(prompt: str, token_ids: int, ask: Ask) -> None:
    assert ask("openai-completions", b'{"prompt":%s}' % prompt.encode()).token_ids == token_ids
