"""OpenAI chat completions, and what the servers that speak it make of them."""

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


def chunk(delta: Any, **more: Any) -> bytes:
    document = {"id": "c1", "choices": [{"index": 0, "delta": delta, **more}]}
    return b"data: " + json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def ends_of(events: Iterable[Event]) -> list[Channel]:
    return [end for event in events for end in event.ends]


def beside(place: str) -> Channel:
    """Of a string that is whole in its chunk."""
    return Channel(0, Kind.TEXT, f"/{place}", repeated=True)


def name(place: str) -> Channel:
    return beside(f"{place}/name")


# Streams


def test_a_stream(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("openai-chat"), "llama_cpp/chat.sse")
    joined = join(events)
    assert list(joined) == [TEXT]
    assert ends_of(events) == [Channel(0, None, None), EVERY_CHANNEL]
    assert [event.usage for event in events if event.usage] == [Usage(14, 12)]
    assert all(event.known for event in events)


@pytest.mark.parametrize("value", [b'"\xff"', b"NaN", b"[" * 2000 + b"]" * 2000], ids=["utf-8", "nan", "deep"])
def test_a_usage_that_is_no_json_where_nobody_looks_is_not_understood(open_stream: Open, value: bytes) -> None:
    usage = b'"usage":{"prompt_tokens":1,"completion_tokens":2,"x":%b}' % value
    event = open_stream("openai-chat").event(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],%b}\n\n' % usage)
    assert (event.known, list(event.deltas)) == (False, [])


@pytest.mark.parametrize(
    ("before", "choices"),
    [(b"event: a\n", ()), (b"id: 7\n", ()), (b": a\n", ()), (b"", ({"index": 1, "delta": {"content": ""}},))],
    ids=["event", "id", "comment", "choice"],
)
def test_what_stands_beside_a_text_is_not_said_again_with_more_of_it(
    open_stream: Open, before: bytes, choices: tuple[object, ...]
) -> None:
    stream = open_stream("openai-chat")
    for text in ("first", "second", "third"):  # by then it is known what they have in common
        document = {"choices": [{"index": 0, "delta": {"content": text}}, *choices]}
        event = stream.event(before + b"data: " + json.dumps(document).encode() + b"\n\n")
        assert list(event.deltas) == [(TEXT, text)]
        continued = event.continuation(TEXT, "more")
    assert before not in continued.raw or not before
    assert json.loads(continued.raw.split(b"data: ")[1])["choices"] == [{"index": 0, "delta": {"content": "more"}}]


def test_two_choices_interleaved(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("openai-chat"), "llama_cpp/chat_n2.sse")
    assert set(join(events)) == {TEXT, Channel(1, Kind.TEXT, 0)}
    assert sorted(ends_of(events)[:-1]) == [Channel(0, None, None), Channel(1, None, None)]
    assert ends_of(events)[-1] == EVERY_CHANNEL


def test_a_character_that_a_token_cut_is_text_as_it_came(open_stream: Open, play: Play, join: Join) -> None:
    joined = join(play(open_stream("openai-chat"), "llama_cpp/chat_cut_character.sse"))
    assert "\N{REPLACEMENT CHARACTER}" in joined[TEXT]


def test_tool_calls(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("openai-chat"), "written/openai_chat_tools.sse")
    assert join(events) == {
        Channel(0, Kind.TOOL_ARGUMENTS, 0): '{"city":"Zürich \\u0041"}',
        Channel(0, Kind.TOOL_ARGUMENTS, 1): '{"zone":"CET"}',
        name("tool_calls/0/function"): "get_weatherget_time",
    }
    assert ends_of(events) == [Channel(0, None, None), EVERY_CHANNEL]


def test_a_refusal(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("openai-chat"), "written/openai_chat_refusal.sse")
    assert join(events) == {Channel(0, Kind.REFUSAL, 0): "I cannot help with that."}
    assert events[-2].usage == Usage(9, 6)


def test_reasoning(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("openai-chat"), "written/deepseek_chat_reasoning.sse")
    assert join(events) == {Channel(0, Kind.REASONING, 0): "Two and two.", TEXT: "Four."}


def test_empty_deltas_and_usage_in_every_chunk(open_stream: Open, play: Play, join: Join) -> None:
    events = play(open_stream("openai-chat"), "written/vllm_chat_usage.sse")
    assert join(events) == {TEXT: "One two three"}
    assert [event.usage.output_tokens for event in events if event.usage] == [0, 2, 3, 4, 5, 5]


def test_a_stream_without_done_ends_its_choice(open_stream: Open, play: Play) -> None:
    events = play(open_stream("openai-chat"), "written/transformers_chat.sse")
    assert ends_of(events) == [Channel(0, None, None)]


def test_halves_of_surrogate_pairs(open_stream: Open, play: Play, join: Join) -> None:
    """They are two texts that join to one character, also when a policy puts both into one event."""
    stream = open_stream("openai-chat")
    events = play(stream, "written/utf16_chat.sse")
    assert join(events)[TEXT].encode("utf-16", "surrogatepass").decode("utf-16") == "fine 😀 café"
    rewritten = events[1].with_deltas([(TEXT, "".join(text for event in events for _, text in event.deltas))])
    assert rewritten is not None
    assert json.loads(rewritten.raw[6:])["choices"][0]["delta"]["content"] == "fine 😀 café"


@pytest.mark.parametrize(
    ("delta", "deltas"),
    [
        ({"content": "a", "role": "assistant"}, [(TEXT, "a")]),
        ({"content": ""}, []),
        ({"content": None}, []),
        ({}, []),
        (None, []),
        ({"reasoning": "r"}, [(Channel(0, Kind.REASONING, 1), "r")]),
        ({"content": "a", "reasoning": "r"}, [(TEXT, "a"), (Channel(0, Kind.REASONING, 1), "r")]),
        ({"reasoning": "r", "content": "a"}, [(Channel(0, Kind.REASONING, 1), "r"), (TEXT, "a")]),
        (
            {"reasoning": "r", "reasoning_content": "r"},  # as vLLM has it
            [(Channel(0, Kind.REASONING, 1, repeated=True, grows=True), "r"), (Channel(0, Kind.REASONING, 0), "r")],
        ),
        (
            {"reasoning": "r", "reasoning_content": "other"},
            [(Channel(0, Kind.REASONING, 1), "r"), (Channel(0, Kind.REASONING, 0), "other")],
        ),
        (
            {"function_call": {"name": "f", "arguments": "{"}},
            [(name("function_call"), "f"), (Channel(0, Kind.TOOL_ARGUMENTS, "function_call"), "{")],
        ),
        (
            {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
            [(name("tool_calls/0/function"), "f"), (Channel(0, Kind.TOOL_ARGUMENTS, 0), "{")],
        ),
        (
            {"tool_calls": [{"index": 4, "custom": {"name": "f", "input": "x"}}]},
            [(name("tool_calls/0/custom"), "f"), (Channel(0, Kind.TOOL_ARGUMENTS, 4), "x")],
        ),
        ({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, [(name("tool_calls/0/function"), "f")]),
        (
            {"tool_calls": [{"index": n, "function": {"arguments": str(n)}} for n in (2, 1)]},
            [(Channel(0, Kind.TOOL_ARGUMENTS, 2), "2"), (Channel(0, Kind.TOOL_ARGUMENTS, 1), "1")],
        ),
        (
            {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": {"name": "x"}}}]},
            [(name("tool_calls/0/function"), "f"), (Channel(0, Kind.TOOL_ARGUMENTS, 0), '{"name":"x"}')],
        ),
        (
            {"tool_calls": [{"custom": {"input": ["x", 4]}}], "function_call": {"arguments": {"a": 4}}},
            [
                (Channel(0, Kind.TOOL_ARGUMENTS, 0), '["x",4]'),
                (Channel(0, Kind.TOOL_ARGUMENTS, "function_call"), '{"a":4}'),
            ],
        ),
        (
            {"content": [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": [{"text": "t"}]}]},
            [(TEXT, "a"), (Channel(0, Kind.TEXT, "/content/1/thinking/0/text"), "t")],
        ),
        (
            {"content": [{"type": "refusal", "refusal": "no"}]},
            [(Channel(0, Kind.REFUSAL, 0), "no")],
        ),
        (
            {"role": "assistant", "content": "a", "audio": {"transcript": "b"}},
            [(TEXT, "a"), (Channel(0, Kind.TEXT, "/audio/transcript"), "b")],
        ),
        ({"note": "n", "channel": "c"}, [(Channel(0, Kind.TEXT, "/note"), "n"), (beside("channel"), "c")]),
        (
            {"audio": {"id": "i", "data": "d"}, "annotations": [{"url": "u", "text": "v"}], "note": {"said": "t"}},
            [
                (beside(at), text)
                for at, text in (
                    ("audio/id", "i"),
                    ("audio/data", "d"),
                    ("annotations/0/url", "u"),
                    ("annotations/0/text", "v"),
                    ("note/said", "t"),
                )
            ],
        ),
        (  # as Mistral has it
            {"content": [{"type": "reference"}, {"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]},
            [(TEXT, "a"), (Channel(0, Kind.REFUSAL, 0), "b")],
        ),
        (  # as Databricks has it
            {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]}]},
            [
                (Channel(0, Kind.TEXT, "/content/0/summary/0/type", repeated=True), "summary_text"),
                (Channel(0, Kind.TEXT, "/content/0/summary/0/text"), "t"),
            ],
        ),
        (  # as LiteLLM has it
            {"reasoning_content": "r", "thinking_blocks": [{"type": "thinking", "thinking": "r", "signature": "s"}]},
            [
                (Channel(0, Kind.REASONING, 0), "r"),
                (beside("thinking_blocks/0/type"), "thinking"),
                (Channel(0, Kind.REASONING, "/thinking_blocks/0/thinking", repeated=True, grows=True), "r"),
                (beside("thinking_blocks/0/signature"), "s"),
            ],
        ),
        (
            {"tool_calls": [{"index": 1, "id": "c", "extra_content": {"google": {"thought_signature": "s"}}}]},
            [(beside("tool_calls/0/extra_content/google/thought_signature"), "s")],
        ),
        (
            {"reasoning": "r", "reasoning_details": [{"index": 3, "text": "r", "format": "f"}, {"summary": "s"}]},
            [
                (Channel(0, Kind.REASONING, 1), "r"),
                (Channel(0, Kind.REASONING, "/reasoning_details/3/text", repeated=True, grows=True), "r"),
                (beside("reasoning_details/0/format"), "f"),
                (Channel(0, Kind.REASONING, "/reasoning_details/1/summary", repeated=True, grows=True), "s"),
            ],
        ),
        (
            {"reasoning_details": [{"text": "r", "signature": "s"}]},
            [
                (Channel(0, Kind.REASONING, "/reasoning_details/0/text"), "r"),
                (beside("reasoning_details/0/signature"), "s"),
            ],
        ),
        ("bare", [(Channel(0, Kind.TEXT, ""), "bare")]),
    ],
)
def test_where_the_texts_of_a_chunk_are(delta: Any, deltas: list[Any], open_stream: Open) -> None:
    """Also what no document describes is a text: unseen, it would pass every policy."""
    event = open_stream("openai-chat").event(chunk(delta))
    assert event.deltas == deltas
    if deltas:
        upper = [(channel, text.upper() + "é") for channel, text in deltas]
        rewritten = event.with_deltas(upper)
        assert rewritten is not None
        assert rewritten.deltas == upper
        assert open_stream("openai-chat").event(rewritten.raw).deltas == upper


@pytest.mark.parametrize("finish_reason", [None, ""])
def test_what_does_not_end_a_choice(finish_reason: str | None, open_stream: Open) -> None:
    assert list(open_stream("openai-chat").event(chunk({}, finish_reason=finish_reason)).ends) == []


def test_a_choice_without_a_number_is_numbered_by_its_place(open_stream: Open) -> None:
    raw = b'data: {"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"},"finish_reason":"stop"}]}\n\n'
    event = open_stream("openai-chat").event(raw)
    assert event.deltas == [(TEXT, "a"), (Channel(1, Kind.TEXT, 0), "b")]
    assert event.ends == [Channel(1, None, None)]


def test_a_text_where_completions_have_theirs_is_seen(open_stream: Open) -> None:
    event = open_stream("openai-chat").event(chunk({"content": "a"}, text="b"))
    assert event.deltas == [(TEXT, "a"), (Channel(0, Kind.TEXT, ""), "b")]


def test_a_message_beside_a_delta_repeats_the_reply(open_stream: Open) -> None:
    event = open_stream("openai-chat").event(chunk({"content": "lo"}, message={"role": "a", "content": "hello"}))
    assert event.deltas == [(TEXT, "lo"), (TEXT._replace(repeated=True), "hello")]


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"error":{"message":"overloaded","code":500}}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],"error":{"message":"overloaded"}}\n\n',
    ],
)
def test_an_error_of_the_upstream_ends_everything_and_is_text(raw: bytes, open_stream: Open) -> None:
    event = open_stream("openai-chat").event(raw)
    assert event.deltas == [(Channel(0, Kind.TEXT, "/error/message"), "overloaded")]
    assert event.ends == [EVERY_CHANNEL]
    rewritten = event.with_deltas([(event.deltas[0][0], "busy")])
    assert rewritten is not None
    assert rewritten.raw == raw.replace(b"overloaded", b"busy")


@pytest.mark.parametrize(
    "document", [{"object": "ping", "text": "x"}, ["x"], {"choices": {"a": "x"}}, {"choices": ["x"]}]
)
def test_json_of_another_shape_is_all_text(document: Any, open_stream: Open) -> None:
    event = open_stream("openai-chat").event(b"data: " + json.dumps(document).encode() + b"\n\n")
    assert "x" in [text for _, text in event.deltas]
    assert list(event.ends) == []


@pytest.mark.parametrize("data", [b"hello", b"{", b'{"choices":[{"index":0,"delta":{"content":"\xff"}}]}'])
def test_what_is_no_json_is_unknown(data: bytes, open_stream: Open) -> None:
    event = open_stream("openai-chat").event(b"data: " + data + b"\n\n")
    assert (list(event.deltas), event.known) == ([], False)


def test_usage_of_the_wrong_type_counts_as_not_said(open_stream: Open) -> None:
    event = open_stream("openai-chat").event(
        b'data: {"choices":[],"usage":{"prompt_tokens":"9","completion_tokens":2}}\n\n'
    )
    assert event.usage == Usage(None, 2)
    assert open_stream("openai-chat").event(b'data: {"choices":[],"usage":7}\n\n').usage is None


@pytest.mark.parametrize("raw", [b": c\n\n", b"data: \n\n", b"event: ping\n\n", b"\n\n"])
def test_what_has_no_data_says_nothing(raw: bytes, open_stream: Open) -> None:
    event = open_stream("openai-chat").event(raw)
    assert (list(event.deltas), list(event.ends), event.known) == ([], [], True)


# Rewriting


def test_a_text_is_replaced_in_place(open_stream: Open) -> None:
    """Whatever else the chunk says stays byte for byte: spaces, the spelling of numbers and escapes."""
    raw = b'data: { "created": 1.50, "model": "\\u00e9", "choices": [{"index": 0, "delta": {"content": "a\\n\xc3\xa9"}}]}\n\n'
    event = open_stream("openai-chat").event(raw)
    rewritten = event.with_deltas([(TEXT, 'say "b"')])
    assert rewritten is not None
    assert rewritten.raw == raw.replace(b'"a\\n\xc3\xa9"', b'"say \\"b\\""')
    assert rewritten.deltas == [(TEXT, 'say "b"')]


@pytest.mark.parametrize("text", ["index", "delta", "c1", "é", "assistant"])
def test_only_the_text_is_replaced_and_not_its_like_elsewhere(text: str, open_stream: Open) -> None:
    spelling = json.dumps(text).encode()  # é as an escape, which is not how it is looked for
    raw = b'data: {"id":"c1","model":"\xc3\xa9","choices":[{"index":0,"delta":{"content":' + spelling + b"}}]}\n\n"
    rewritten = open_stream("openai-chat").event(raw).with_deltas([(TEXT, "new")])
    assert rewritten is not None
    before, after = json.loads(raw[6:]), json.loads(rewritten.raw[6:])
    assert after.pop("choices") == [{"index": 0, "delta": {"content": "new"}}]
    assert after == {"id": before["id"], "model": "é"}


@pytest.mark.parametrize("name", ["logprobs", "token_ids"])
def test_what_mirrors_a_text_goes_with_it(name: str, open_stream: Open, play: Play) -> None:
    """Log probabilities and token ids are the same text in other forms: they would give away what was replaced."""
    event = open_stream("openai-chat").event(chunk({"content": "secret"}, **{name: ["secret"]}))
    for text in ("*", ""):
        rewritten = event.with_deltas([(TEXT, text)])
        if text:
            assert rewritten is not None
            assert rewritten.document["choices"][0][name] is None
        else:
            assert rewritten is None
    assert event.with_deltas([(TEXT, "secret")]) is event


def test_log_probabilities_of_several_tokens_go_too(open_stream: Open) -> None:
    """Then the text as a whole is nowhere in them, but all of its parts are."""
    logprobs = {"content": [{"token": "sec", "logprob": -1.50}, {"token": "ret", "logprob": -2}]}
    rewritten = (
        open_stream("openai-chat").event(chunk({"content": "secret"}, logprobs=logprobs)).with_deltas([(TEXT, "*")])
    )
    assert rewritten is not None
    assert b"ret" not in rewritten.raw


def test_logprobs_of_another_choice_stay(open_stream: Open) -> None:
    choices = ",".join(f'{{"index":{n},"delta":{{"content":"a"}},"logprobs":{{"content":[]}}}}' for n in (0, 1))
    event = open_stream("openai-chat").event(f'data: {{"choices":[{choices}]}}\n\n'.encode())
    rewritten = event.with_deltas([(TEXT, "b"), (Channel(1, Kind.TEXT, 0), "a")])
    assert rewritten is not None
    assert [choice["logprobs"] for choice in rewritten.document["choices"]] == [None, {"content": []}]


def test_recorded_logprobs_say_nothing_of_a_replaced_text(open_stream: Open, play: Play) -> None:
    for event in play(open_stream("openai-chat"), "llama_cpp/chat_logprobs.sse"):
        for number, (_, text) in enumerate(event.deltas):
            deltas = list(event.deltas)
            deltas[number] = (deltas[number][0], "*")
            rewritten = event.with_deltas(deltas)
            assert rewritten is not None
            assert b'"logprobs":null' in rewritten.raw
            assert number or json.dumps(text).encode() not in rewritten.raw


@pytest.mark.parametrize(
    ("delta", "more"),
    [
        ({"role": "assistant", "content": "x"}, {}),
        ({"content": "x"}, {"finish_reason": "stop"}),
        ({"tool_calls": [{"index": 0, "id": "1", "function": {"arguments": "x"}}]}, {}),
        ({"content": "x"}, {"content_filter_results": {"hate": {"filtered": False}}}),
    ],
)
def test_a_chunk_without_text_passes_if_it_says_more(delta: Any, more: Any, open_stream: Open) -> None:
    event = open_stream("openai-chat").event(chunk(delta, **more))
    rewritten = event.with_deltas([(channel, "") for channel, _ in event.deltas])
    assert rewritten is not None
    assert rewritten.raw == event.raw.replace(b'"x"', b'""')
    assert list(rewritten.deltas) == []
    assert rewritten.ends == event.ends


@pytest.mark.parametrize(
    ("delta", "more"),
    [
        ({"content": "x"}, {"finish_reason": None, "logprobs": None}),
        ({"content": "x", "reasoning_content": None, "tool_calls": []}, {"content_filter_results": {}}),
        ({"tool_calls": [{"index": 3, "function": {"arguments": "x"}}]}, {}),
    ],
)
def test_a_chunk_without_text_is_withheld_if_it_says_nothing_more(delta: Any, more: Any, open_stream: Open) -> None:
    event = open_stream("openai-chat").event(chunk(delta, **more))
    assert event.with_deltas([(channel, "") for channel, _ in event.deltas]) is None


def test_padding_is_nothing_worth_sending_and_usage_is(open_stream: Open) -> None:
    stream = open_stream("openai-chat")
    body = b'data: {"id":"c","obfuscation":"xyz","usage":%s,"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
    assert stream.event(body % b"null").with_deltas([(TEXT, "")]) is None
    assert stream.event(body % b'{"prompt_tokens":1}').with_deltas([(TEXT, "")]) is not None


# Continuing


def test_what_was_held_back_of_a_tool_calls_first_chunk_follows_without_its_name(open_stream: Open) -> None:
    call = {"index": 1, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    document = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 2, "delta": {"role": "assistant", "tool_calls": [call]}, "logprobs": None}],
        "usage": {"prompt_tokens": 1},
    }
    stream = open_stream("openai-chat")
    event = stream.event(b"data: " + json.dumps(document).encode() + b"\n\n")
    channel = Channel(2, Kind.TOOL_ARGUMENTS, 1)
    continued = event.continuation(channel, '{"b')
    assert continued.deltas == [(channel, '{"b')]
    assert stream.parse(continued.raw).deltas == continued.deltas
    assert continued.document == {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 2, "delta": {"tool_calls": [{"index": 1, "type": "function", "function": {"arguments": '{"b'}}]}}
        ],
    }


def test_every_channel_of_every_fixture_can_be_continued(open_stream: Open, play: Play) -> None:
    stream = open_stream("openai-chat")
    for name in ("openai_chat_tools", "openai_chat_refusal", "deepseek_chat_reasoning", "vllm_chat_usage"):
        for event in play(stream, f"written/{name}.sse"):
            for channel, _ in event.deltas:
                if channel.repeated:
                    continue
                continued = event.continuation(channel, "more")
                assert stream.parse(continued.raw).deltas == [(channel, "more")]
                assert (list(continued.ends), continued.usage) == ([], None)


def test_what_a_chunk_says_twice_goes_on_in_one_chunk(open_stream: Open) -> None:
    stream = open_stream("openai-chat")
    thought = {"role": "assistant", "reasoning": "a", "reasoning_content": "a", "reasoning_details": [{"text": "a"}]}
    event = stream.event(chunk(thought))
    continued = [event.continuation(channel, "b") for channel, _ in event.deltas]
    (one,) = stream.joined(continued)
    assert one.document["choices"] == [
        {"index": 0, "delta": {"reasoning": "b", "reasoning_content": "b", "reasoning_details": [{"text": "b"}]}}
    ]
    assert one.deltas == stream.parse(one.raw).deltas == [(channel, "b") for channel, _ in event.deltas]
    assert stream.joined(continued[:1]) == continued[:1]


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [{"index": number, "delta": {"content": "a"}} for number in (0, 1)]},
        {"choices": [{"delta": {"tool_calls": [{"index": n, "function": {"arguments": "a"}} for n in (0, 1)]}}]},
        {"choices": [], "error": {"message": "a", "param": "a"}},
        {"choices": ["a"], "more": "a"},
        {"choices": [None], "more": ["a", "a"]},
        {"choices": {"a": "a"}, "more": "a"},
    ],
)
def test_what_one_chunk_cannot_say_goes_on_in_two(document: Any, open_stream: Open) -> None:
    stream = open_stream("openai-chat")
    event = stream.event(b"data: " + json.dumps(document).encode() + b"\n\n")
    continued = [event.continuation(channel, "b") for channel, _ in event.deltas]
    assert len(continued) == 2
    assert stream.joined(continued) == continued


def test_the_text_of_an_error_goes_on_in_an_error(open_stream: Open) -> None:
    event = open_stream("openai-chat").event(b'data: {"choices":[],"error":{"message":"x","type":"t","code":1}}\n\n')
    continued = event.continuation(event.deltas[0][0], "y")
    assert continued.document == {"choices": [], "error": {"message": "y", "type": "t", "code": 1}}


def test_an_error_that_says_nothing_any_more_still_ends_the_stream(open_stream: Open) -> None:
    event = open_stream("openai-chat").event(b'data: {"choices":[],"error":{"message":"x"}}\n\n')
    rewritten = event.with_deltas([(event.deltas[0][0], "")])
    assert rewritten is not None
    assert rewritten.document == {"choices": [], "error": {"message": ""}}


# Whole replies


@pytest.mark.parametrize(
    ("fixture", "channels"),
    [
        ("llama_cpp/chat.json", {TEXT}),
        ("llama_cpp/chat_n2.json", {TEXT, Channel(1, Kind.TEXT, 0)}),
        ("written/openai_chat_tools.json", {name("tool_calls/0/function"), Channel(0, Kind.TOOL_ARGUMENTS, 0)}),
    ],
)
def test_a_whole_reply(fixture: str, channels: set[Channel], open_stream: Open, play: Play, join: Join) -> None:
    (event,) = play(open_stream("openai-chat", "application/json; charset=utf-8"), fixture)
    assert set(join([event])) == channels
    assert event.ends == (EVERY_CHANNEL,)
    assert event.usage is not None
    rewritten = event.with_deltas([(channel, "new") for channel, _ in event.deltas])
    assert rewritten is not None
    assert set(join([rewritten]).values()) == {"new"}
    assert rewritten.document["usage"] == event.document["usage"]


def test_a_whole_reply_whose_text_is_gone_is_still_a_reply(open_stream: Open, play: Play) -> None:
    (event,) = play(open_stream("openai-chat", "application/json"), "llama_cpp/chat.json")
    rewritten = event.with_deltas([(TEXT, "")])
    assert rewritten is not None
    assert rewritten.document["choices"][0]["message"] == {"role": "assistant", "content": ""}


def test_an_error_reply_is_all_text(open_stream: Open, play: Play) -> None:
    (event,) = play(open_stream("openai-chat", "application/json"), "llama_cpp/chat_error.json")
    assert [channel.index for channel, _ in event.deltas] == ["/error/message", "/error/type"]
    assert event.ends == (EVERY_CHANNEL,)


def test_other_content_types_are_generic(open_stream: Open) -> None:
    assert open_stream("openai-chat", "text/plain").event(b"hello").deltas == [(Channel(0, Kind.TEXT, ""), "hello")]
    assert not open_stream("openai-chat", "audio/mpeg").event(b"hello").known


# Requests


def test_what_a_request_asks(ask: Ask) -> None:
    body = {
        "model": "m",
        "stream": True,
        "n": 3,
        "max_tokens": 10,
        "max_completion_tokens": 20,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "name": "u",
                "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "data:..."}}],
            },
            {
                "role": "assistant",
                "content": None,
                "refusal": "r",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "o"},
        ],
    }
    call = ask("openai-chat", json.dumps(body).encode())
    assert (call.model, call.stream, call.choices, call.max_output_tokens, call.wants_usage) == ("m", True, 3, 20, True)
    assert call.texts == ["s", "t", "r", "{}", "o"]
    assert call.document == body


def test_the_older_name_of_the_limit(ask: Ask) -> None:
    assert ask("openai-chat", b'{"max_tokens":7,"max_completion_tokens":null}').max_output_tokens == 7


def test_azure_names_the_model_in_the_path(ask: Ask) -> None:
    path = "/openai/deployments/my-model/chat/completions"
    assert ask("openai-chat", b"{}", path).model == "my-model"
    assert ask("openai-chat", b'{"model":"m"}', path).model == "m"
    assert ask("openai-chat", None, path).model == "my-model"


@pytest.mark.parametrize(
    "messages", ['"x"', "[1]", '[{"content":1}]', '[{"content":[1,{"text":2}]}]', "[" * 70 + '"x"' + "]" * 70]
)
def test_messages_of_another_shape_have_no_texts(messages: str, ask: Ask) -> None:
    assert ask("openai-chat", b'{"messages":' + messages.encode() + b"}").texts == []


@pytest.mark.parametrize("content", ['"a"', '""', "null", '["a"]', '[{"type":"text","text":"a"}]'])
@pytest.mark.parametrize("role", ['"user"', "1", "null", "[" * 70 + '"x"' + "]" * 70])
def test_a_plain_message_is_read_as_any_other(role: str, content: str, ask: Ask) -> None:
    plain = f'"role":{role},"content":{content}'
    bodies = [b'{"messages":[{%s}]}' % fields.encode() for fields in (plain, plain + ',"name":"n"')]
    assert ask("openai-chat", bodies[0]).texts == ask("openai-chat", bodies[1]).texts


def test_a_message_that_nests_too_deeply_is_left_out(ask: Ask) -> None:
    deep = "[" * 70 + '"x"' + "]" * 70
    assert ask("openai-chat", b'{"messages":[{"content":%s},{"content":"y"}]}' % deep.encode()).texts == ["y"]


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ('"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]', "parameters"),
        ('"functions":[{"name":"f","description":"what it does"}]', "what it does"),
        ('"response_format":{"type":"json_schema","json_schema":{"name":"s"}}', "json_schema"),
    ],
)
def test_what_a_model_is_shown_of_tools_and_schemas_is_text_too(field: str, shown: str, ask: Ask) -> None:
    said, added = ask("openai-chat", b'{"messages":[{"content":"x"}],%s}' % field.encode()).texts
    assert said == "x"
    assert shown in added


@pytest.mark.parametrize("tools", ["null", "[]", "[" * 900 + "]" * 900])
def test_no_tools_or_some_that_nobody_could_read(tools: str, ask: Ask) -> None:
    ask("openai-chat", b'{"tools":%s}' % tools.encode())
