"""What of a reply goes when, in each form that a reply can have."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rigs.doubles import Loop, Reading
from rigs.matrix import Run, make_policy, make_request
from rigs.tool_wires import MESSAGES_BLOCKS, RESPONSES_ITEMS, of_block, of_item
from rigs.wires import WIRES

from policies.redaction.json_text import TextRedactor
from proxy.dialects.base import Channel, Kind
from proxy.errors import COMPLETE
from proxy.framing import Event
from proxy.messages import ResponseHead
from proxy.policy import Events
from proxy.testing import Simulation, joined, make_head, sse, texts

Begin = Callable[..., Awaitable[Simulation]]
Chunk = Callable[..., bytes]

DONE = b"data: [DONE]\n\n"
TEXT = Channel(0, Kind.TEXT, 0)
SECOND = Channel(1, Kind.TEXT, 0)
REASONING = Channel(0, Kind.REASONING, 0)
REFUSAL = Channel(0, Kind.REFUSAL, 0)
WHOLE = Channel(0, Kind.TEXT, "")


def said(events: Events) -> list[str]:
    """The texts of the events, event by event."""
    return ["".join(text for _, text in event.deltas) for event in events]


def sse_of(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def call(position: int, arguments: str, **beside: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": position, "function": {"arguments": arguments, **beside}}]}


# One channel


async def test_a_match_that_is_cut_over_events_never_leaves(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    assert said(exchange.read(chunk({"content": "Ask ann@ex"}))) == ["Ask "]
    assert exchange.read(chunk({"content": "ample.c"})) == []
    assert said(exchange.read(chunk({"content": "om, or not"}))) == ["[MAIL], or "]
    assert said(exchange.read(chunk({}, finish="stop"))) == ["not", ""]
    exchange.read(DONE)
    exchange.end()
    assert texts(exchange.delivered) == {TEXT: "Ask [MAIL], or not"}
    assert exchange.outcome == COMPLETE
    assert exchange.close() == {"MAIL": 1}


async def test_an_event_that_says_something_else_goes_without_its_text(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    (event,) = exchange.read(chunk({"role": "assistant", "content": "ann"}))
    assert event.document["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    (event,) = exchange.read(chunk({"content": ""}, beside={"usage": {"completion_tokens": 1}}))
    assert event.document["usage"] == {"completion_tokens": 1}


async def test_what_is_held_goes_into_the_event_that_ends_the_channel(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    assert exchange.read(chunk({"content": "ann"})) == []
    assert said(exchange.read(chunk({"content": "@"}, finish="stop"))) == ["ann@"]


async def test_or_before_the_end_of_all_channels(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"content": "ann"}))
    held, done = exchange.read(DONE)
    assert (held.deltas, done.raw) == ([(TEXT, "ann")], DONE)


async def test_or_at_a_clean_end(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"content": "ann"}))
    assert said(exchange.end()) == ["ann"]


@pytest.mark.parametrize("end", ["upstream_truncated", "upstream_reset", "client_gone", "deadline", "shutdown"])
async def test_it_is_dropped_at_any_other(end: str, begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"content": "Ask ann@ex"}))
    exchange.cut(end)
    assert b"ann" not in joined(exchange.delivered)
    assert texts(exchange.delivered)[TEXT] == "Ask "


async def test_a_choice_that_goes_on_after_its_end_could_complete_what_went_out(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"content": "ann"}, finish="stop"))
    exchange.read(chunk({"content": "@example.com "}))
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_unreadable"
    assert texts(exchange.delivered)[TEXT] == "ann"


async def test_it_goes_on_where_it_was_if_nothing_was_held(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"content": "number 1!"}, finish="stop") + chunk({"content": " ann@exa"}, finish=None))
    exchange.read(chunk({"content": "mple.com!"}, finish="stop") + DONE)
    assert texts(exchange.delivered) == {TEXT: "number 1! [MAIL]!"}


async def test_the_word_null_is_no_reason_to_end(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    for more in ({}, {"citations": None}):  # read as nearly all chunks are, and as the others
        exchange.read(chunk({"content": "Write ann@exa"}, finish="null", **more))
        exchange.read(chunk({"content": "mple.com. "}, finish="null", **more))
    exchange.read(DONE)
    assert texts(exchange.delivered) == {TEXT: "Write [MAIL]. Write [MAIL]. "}


async def test_a_text_of_responses_that_goes_on_after_it_was_done_is_unreadable(begin: Begin) -> None:
    exchange = await begin("openai-responses")
    for event, name, text in (
        ("delta", "delta", "ann@exa"),
        ("done", "text", "ann@exa"),
        ("delta", "delta", "mple.com "),
    ):
        place = {"item_id": "a", "output_index": 0, "content_index": 0}
        exchange.read(sse_of({"type": f"response.output_text.{event}", **place, name: text}))
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_unreadable"


async def test_in_an_api_that_nobody_knows_another_text_may_follow_an_end(begin: Begin) -> None:
    exchange = await begin("generic")
    exchange.read(sse_of({"text": "ann"}) + DONE + sse_of({"text": "bob"}) + DONE)
    assert texts(exchange.delivered)[Channel(0, Kind.TEXT, "/text")] == "annbob"


# Ends that are none


def candidate(text: str, index: int = 0, **beside: Any) -> bytes:
    content = {"role": "model", "parts": [{"text": text}]}
    return sse_of({"candidates": [{"content": content, "index": index, "finishReason": "STOP"}], **beside})


async def test_gemini_may_end_a_candidate_in_each_event(begin: Begin) -> None:
    exchange = await begin("gemini")
    assert exchange.read(candidate("Write ann@exa")) == []
    assert said(exchange.read(candidate("mple.com ok"))) == ["Write "]
    assert said(exchange.read(b": a comment waits for nothing\n\n")) == [""]
    (last,) = exchange.end()
    assert (said([last]), last.document["candidates"][0]["finishReason"]) == (["[MAIL] ok"], "STOP")


async def test_what_follows_an_end_of_gemini_with_no_text_does_not_make_it_one(begin: Begin) -> None:
    exchange = await begin("gemini")
    exchange.read(candidate("ann@exa") + candidate("4111 ", 1) + candidate("", usageMetadata={"promptTokenCount": 1}))
    exchange.read(candidate("mple.com. ") + candidate("1111 1111 1111.", 1))
    exchange.end()
    assert texts(exchange.delivered) == {TEXT: "[MAIL]. ", SECOND: "[CARD]."}


async def test_an_error_makes_an_end_of_gemini_one(begin: Begin) -> None:
    exchange = await begin("gemini")
    exchange.read(candidate("ann"))
    events = exchange.read(sse_of({"error": {"code": 500, "message": "no"}}))
    assert said(events)[0] == "ann"


async def test_an_end_that_waits_is_dropped_at_any_other_end(begin: Begin) -> None:
    exchange = await begin("gemini")
    exchange.read(candidate("ann@exa"))
    exchange.cut("upstream_reset")
    assert b"ann" not in joined(exchange.delivered)


async def test_a_long_event_that_ends_a_candidate_waits_too(begin: Begin) -> None:
    exchange = await begin("gemini")
    while_read = exchange.read(candidate("word, " * 2000 + "ann@exa")) + exchange.read(candidate("mple.com."))
    for _ in range(20):
        exchange.advance(0.0)
    exchange.end()
    assert while_read == [] or b"@exa" not in joined(while_read)
    assert texts(exchange.delivered)[TEXT] == "word, " * 2000 + "[MAIL]."


# Several


async def test_channels_do_not_mix(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"content": "ann"}) + chunk({"content": "@example.com"}, index=1))
    exchange.read(chunk({"reasoning_content": "ann@exa"}) + chunk({"refusal": "mple.com 4111 "}))
    exchange.read(chunk({"content": "@b"}) + chunk({"reasoning_content": "mple.com 1111 1111 1111 "}))
    exchange.read(chunk({"content": ".com "}, index=1) + chunk({}, index=1, finish="stop"))
    exchange.read(chunk({}, finish="stop") + DONE)
    assert texts(exchange.delivered) == {
        TEXT: "ann@b",
        SECOND: "@example.com.com ",
        REASONING: "[MAIL] 1111 1111 1111 ",
        REFUSAL: "mple.com 4111 ",
    }


async def test_the_end_of_a_choice_is_no_end_of_another(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"content": "ann"}) + chunk({"content": "bob"}, index=1))
    assert said(exchange.read(chunk({}, index=1, finish="stop"))) == ["bob", ""]
    assert said(exchange.read(chunk({"content": "@example.com "}))) == ["[MAIL] "]


async def test_tool_calls_keep_their_names_and_stay_json(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk(call(0, '{"to": "ann', name="mail")) + chunk(call(1, '{"card": 411111111', name="pay")))
    exchange.read(chunk(call(0, "\\u0040example.com\\n")) + chunk(call(1, "1111111")))
    exchange.read(chunk(call(0, '"}')) + chunk(call(1, "}")) + chunk({}, finish="tool_calls") + DONE)
    delivered = texts(exchange.delivered)
    assert json.loads(delivered[Channel(0, Kind.TOOL_ARGUMENTS, 0)]) == {"to": "[MAIL]\n"}
    assert json.loads(delivered[Channel(0, Kind.TOOL_ARGUMENTS, 1)]) == {"card": "[CARD]"}
    assert joined(exchange.delivered).count(b'"mail"') == joined(exchange.delivered).count(b'"pay"') == 1


async def test_two_pieces_of_a_channel_in_one_event(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    pieces = [{"index": 0, "function": {"arguments": part}} for part in ('{"a": "ann@e', "x.com bo")]
    exchange.read(chunk({"tool_calls": pieces}) + chunk({}, finish="tool_calls"))
    assert texts(exchange.delivered) == {Channel(0, Kind.TOOL_ARGUMENTS, 0): '{"a": "[MAIL] bo'}


# What repeats the text


async def test_a_repetition_of_the_text_so_far_says_no_more_than_the_text(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    for text, so_far in (("Ask ann@ex", "Ask ann@ex"), ("ample.com ", "Ask ann@example.com ")):
        exchange.read(chunk({"content": text}, message={"content": so_far}))
    exchange.read(chunk({"content": "bob"}, message={"content": "Ask ann@example.com bob"}, finish="stop"))
    repeated = [text for event in exchange.delivered for channel, text in event.deltas if channel.repeated]
    assert repeated == ["Ask ", "Ask [MAIL] ", "Ask [MAIL] bob"]


@pytest.mark.parametrize("name", ["logprobs", "token_ids"])
async def test_other_forms_of_a_text_that_is_held_are_not_sent_ahead(name: str, begin: Begin, chunk: Chunk) -> None:
    mirror = {"content": [{"token": "ann", "logprob": -1}]} if name == "logprobs" else [7]
    exchange = await begin()
    assert exchange.read(chunk({"content": "ann"}, **{name: mirror})) == []  # with the text
    assert exchange.read(chunk({"content": ""}, **{name: mirror})) == []  # and where it runs ahead of the text
    (event,) = exchange.read(chunk({"content": " "}, **{name: mirror}))
    assert event.document["choices"][0][name] is None


async def test_log_probabilities_stay_where_they_say_nothing_else(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    event = chunk({"content": "So it "}, logprobs={"content": [{"token": "So"}, {"token": " it "}]})
    assert joined(exchange.read(event)) == event


async def test_what_stands_beside_the_choices_is_looked_through(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    beside = {"citations": ["see ann@example.com", "ann"], "__verbose": {"content": "ann@example.com"}}
    filtered = {"hate": {"filtered": False, "severity": "safe"}, "details": [{"id": "bob@example.com"}]}
    (event,) = exchange.read(chunk({"content": "x "}, beside=beside, content_filter_results=filtered))
    document = event.document
    assert (document["citations"], document["__verbose"]) == (["see [MAIL]", "ann"], {"content": "[MAIL]"})
    assert document["choices"][0]["content_filter_results"]["details"] == [{"id": "[MAIL]"}]
    assert b"@" not in joined(exchange.delivered)


async def test_so_are_the_lines_beside_the_data(begin: Begin) -> None:
    exchange = await begin("generic")
    exchange.read(
        b": ask ann@example.com\r\n\r\n: ping\n\nid: 7 ann@example.com\nevent: x\nretry: 5\ndata: {}\nann@example.com: y\n\n"
    )
    assert joined(exchange.delivered) == (
        b": ask [MAIL]\r\n\r\n: ping\n\nid: 7 [MAIL]\nevent: x\nretry: 5\ndata: {}\n[MAIL]: y\n\n"
    )


async def test_and_in_each_of_many_events_that_are_alike_but_for_their_text(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    for line in (b": ask ann@example.com\n", b": ask\n", b"id: ann@example.com\n", b""):
        for word in ("so ", "it ", "goes ", "on ", "ann@example.com "):
            exchange.read(line + chunk({"content": word}))
        exchange.read(b": ann@example.com\n" + chunk({"content": "now "}))
    assert texts(exchange.delivered)[TEXT] == "so it goes on [MAIL] now " * 4
    assert b"ann" not in joined(exchange.delivered)
    assert joined(exchange.delivered).count(b"[MAIL]\n") == 14


async def test_and_where_somebody_who_has_read_the_event_added_them(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    alike = [exchange.read(chunk({"content": word}))[0] for word in ("so ", "it ", "goes ", "on ")]
    template = alike[-1].parsed.template
    assert template is not None
    read = template.event(alike[-1].stream, "ann@example.com ")
    changed = Event(b": ann@example.com\n" + read.raw, read.stream, read.parsed)
    left = exchange.stream.on_events([changed], 0.0)
    assert isinstance(left, list)
    assert joined(left) == b": [MAIL]\n" + chunk({"content": "[MAIL] "})


async def test_bytes_that_are_no_text_in_a_comment_stay(begin: Begin) -> None:
    exchange = await begin()
    exchange.read(b": \xff ann@example.com\n\n: \xff\n\n")
    assert joined(exchange.delivered) == b": \xff [MAIL]\n\n: \xff\n\n"


CITED = [
    {"type": "url_citation", "url_citation": {"url": f"https://{site}.example/ann", "title": site}} for site in "ab"
]


@pytest.mark.parametrize(
    "beside",
    [
        [{"annotations": [it]} for it in CITED],
        [{"audio": {"id": "a", "data": data}} for data in ("UklGRann", "QB8Aann=")],
        [{"context": {"citations": [{"content": "by ann", "url": "https://x.example/ann"}], "intent": "ann"}}] * 2,
        [{"images": [{"image_url": {"url": "data:image/png;base64," + "iVBORann" * 9}}]}] * 2,
        [{"reasoning_details": [{"type": "reasoning.text", "format": "ann", "signature": "EqQBann"}]}] * 2,
        [{"channel": "ann"}] * 2,
    ],
    ids=lambda it: next(iter(it[0])),
)
async def test_what_is_whole_in_its_chunk_is_not_torn_apart(beside: list[Any], begin: Begin, chunk: Chunk) -> None:
    """Though it ends as what is looked for begins."""
    exchange = await begin()
    said_beside = [chunk(delta) for delta in beside]
    exchange.read(chunk({"content": "by ann"}) + b"".join(said_beside) + chunk({}, finish="stop") + DONE)
    assert [event.raw for event in exchange.delivered if event.raw in said_beside] == said_beside
    assert texts(exchange.delivered)[TEXT] == "by ann"


async def test_a_match_in_what_is_whole_is_replaced(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"annotations": [{"url_citation": {"url": "x ann@example.com"}}]}) + DONE)
    assert exchange.delivered[0].document["choices"][0]["delta"]["annotations"] == [
        {"url_citation": {"url": "x [MAIL]"}}
    ]


async def test_details_of_reasoning_go_on_as_the_reasoning_does(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    pieces = ("of ann@", "example.com now")
    details = [{"reasoning": text, "reasoning_details": [{"text": text, "index": 0}]} for text in pieces]
    exchange.read(b"".join(map(chunk, details)) + chunk({}, finish="stop") + DONE)
    assert set(texts(exchange.delivered).values()) == {"of [MAIL] now"}


def thoughts(events: Events) -> dict[str, str]:
    """What clients have of the reasoning in the end, by the place where they look for it; "either": where they take what a
    chunk has under `reasoning_content`, or else under `reasoning`."""
    deltas = [event.document["choices"][0]["delta"] for event in events if event.document]
    details = [it for delta in deltas for it in delta.get("reasoning_details", ())]
    return {
        "reasoning": "".join(delta.get("reasoning") or "" for delta in deltas),
        "either": "".join(delta.get("reasoning_content") or delta.get("reasoning") or "" for delta in deltas),
        "details": "".join(it["text"] for it in details),
    }


async def test_reasoning_that_is_said_in_two_places_is_held_and_let_go_in_both(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    for text in ("of ann@", "example.com", " or ann"):
        exchange.read(chunk({"reasoning": text, "reasoning_content": text, "reasoning_details": [{"text": text}]}))
    exchange.read(chunk({"content": "Hello"}) + chunk({}, finish="stop") + DONE)
    assert set(thoughts(exchange.delivered).values()) == {"of [MAIL] or ann"}


@pytest.mark.parametrize(
    ("said", "let_go"),
    [
        # One place has what the other has not yet, so what goes of the same words differs.
        ([{"reasoning": "ann@example"}, {"reasoning": ".com or ann", "reasoning_content": ".com or ann"}],
         {"reasoning": "[MAIL] or ann", "reasoning_content": ".com or ann"}),
        ([{"reasoning_content": "ann@example"}, {"reasoning": ".com or ann", "reasoning_content": ".com or ann"}],
         {"reasoning": ".com or ann", "reasoning_content": "[MAIL] or ann"}),
        # And of different words the same: nothing.
        ([{"reasoning": "ann", "reasoning_content": "bob"}], {"reasoning": "ann", "reasoning_content": "bob"}),
    ],
)  # fmt: skip
async def test_nor_do_two_places_have_to_say_the_same(
    said: list[dict[str, str]], let_go: dict[str, str], begin: Begin, chunk: Chunk
) -> None:
    exchange = await begin()
    exchange.read(b"".join(map(chunk, said)) + chunk({}, finish="stop") + DONE)
    exchange.end()
    assert exchange.outcome == COMPLETE
    deltas = [event.document["choices"][0]["delta"] for event in exchange.delivered if event.document]
    assert {place: "".join(delta.get(place, "") for delta in deltas) for place in let_go} == let_go


async def test_details_of_reasoning_are_one_text_whether_the_reasoning_stands_beside_them_or_not(
    begin: Begin, chunk: Chunk
) -> None:
    """OpenRouter leaves it out of some chunks."""
    exchange = await begin()
    exchange.read(chunk({"reasoning": "of ann@", "reasoning_details": [{"text": "of ann@", "index": 0}]}))
    exchange.read(chunk({"reasoning_details": [{"text": "example.com or b", "index": 0}]}))
    exchange.read(chunk({"reasoning": "y ann", "reasoning_details": [{"text": "y ann", "index": 0}]}))
    exchange.read(chunk({}, finish="stop") + DONE)
    assert thoughts(exchange.delivered)["details"] == "of [MAIL] or by ann"


@pytest.mark.parametrize(
    "delta",
    [
        lambda text: {"thinking_blocks": [{"type": "thinking", "thinking": text}], "reasoning_content": text},
        lambda text: {"provider_specific_fields": {"thinking_blocks": [{"thinking": text}]}},
        lambda text: {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}]},
        lambda text: {"content_list": [{"type": "text", "text": text}]},
    ],
    ids=["litellm", "litellm-fields", "databricks", "snowflake"],
)
async def test_a_nested_text_goes_on_where_it_has_the_name_of_one(
    delta: Callable[[str], Any], begin: Begin, chunk: Chunk
) -> None:
    exchange = await begin()
    exchange.read(chunk(delta("of ann@exam")) + chunk(delta("ple.com, by ann")) + chunk({}, finish="stop") + DONE)
    went = {text for channel, text in texts(exchange.delivered).items() if not str(channel.index).endswith("/type")}
    assert went == {"of [MAIL], by ann"}


async def test_the_parts_of_a_content_are_one_text(begin: Begin, chunk: Chunk) -> None:
    """Mistral has a list in some chunks, with a reference before or behind the text, and a text in others."""
    exchange = await begin()
    part, reference = {"type": "text", "text": "of ann@exam"}, {"type": "reference", "reference_ids": [1]}
    exchange.read(chunk({"content": [reference, part]}) + chunk({"content": "ple.com, by ann"}))
    exchange.read(chunk({}, finish="stop") + DONE)
    assert texts(exchange.delivered) == {TEXT: "of [MAIL], by ann"}


def of_a_part(event: str, number: int, **more: Any) -> bytes:
    return sse_of({"type": f"response.{event}", "item_id": "i", "output_index": 0, "content_index": number, **more})


@pytest.mark.parametrize("event", ["output_text", "reasoning_text"])
@pytest.mark.parametrize("last", [2, 3])
async def test_a_text_goes_on_in_the_next_part_where_its_own_has_not_ended(event: str, last: int, begin: Begin) -> None:
    """vLLM counts `content_index` up with each delta."""
    exchange = await begin("openai-responses")
    for number, text in enumerate(("by ann@exam", "ple.com", " or ann")):
        exchange.read(of_a_part(f"{event}.delta", number, delta=text))
    exchange.read(of_a_part(f"{event}.done", last, text="by ann@example.com or ann"))
    *deltas, done = (event.document for event in exchange.delivered)
    assert "".join(document["delta"] for document in deltas) == done["text"] == "by [MAIL] or ann"


async def test_a_part_whose_text_has_ended_does_not_go_on_in_the_next(begin: Begin) -> None:
    exchange = await begin("openai-responses")
    for number in (0, 1):
        exchange.read(of_a_part("output_text.delta", number, delta="by ann"))
        exchange.read(of_a_part("output_text.done", number, text="by ann"))
    assert texts(exchange.delivered) == {
        Channel(0, Kind.TEXT, f"0/content/{number}", repeated): "by ann"
        for number in (0, 1)
        for repeated in (False, True)
    }


# Unknown shapes


@pytest.mark.parametrize("event", [sse, lambda text: b"data: " + text.encode() + b"\n\n"], ids=["documents", "texts"])
async def test_events_that_each_say_all_so_far_are_refused(event: Callable[[str], bytes], begin: Begin) -> None:
    """Put together they would be another text, in which nothing is found."""
    exchange = await begin("generic")
    whole = "Take 1111 2222 3333 4444 of it"
    for end in (3, 7, 12, 20, 24, len(whole)):
        exchange.read(event(whole[:end]))
    assert exchange.outcome is not None
    assert (exchange.outcome.source, exchange.outcome.details) == ("redaction", "redaction_unreadable")
    assert b"4444" not in joined(exchange.delivered)


async def test_a_match_with_which_they_begin_is_not_joined_to_itself(begin: Begin) -> None:
    exchange = await begin("generic")
    assert said(exchange.read(sse("1111222233334444"))) == [""]
    exchange.read(sse("1111222233334444 it is"))
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_unreadable"
    assert b"4444" not in joined(exchange.delivered)


@pytest.mark.parametrize(
    "pieces",
    [
        ["by ", "by an", " by ann "],
        ["- ", "- -", "- - -", "- - - -", "- - - - -"],
        ["Step 1", "Step 10", "Step 2", "Step 20"],
        ["Loading", "Loading.", "Loading..", "Loading..."],
        ["abcd", "abcd", "abcde", "abcde"],
    ],
)
async def test_pieces_that_begin_alike_are_still_pieces(pieces: list[str], begin: Begin) -> None:
    exchange = await begin("generic")
    exchange.read(sse(*pieces))
    exchange.end()
    assert exchange.outcome == COMPLETE
    assert texts(exchange.delivered) == {Channel(0, Kind.TEXT, "/text"): "".join(pieces)}


async def test_events_that_each_say_all_so_far_pass_where_the_unknown_does(begin: Begin) -> None:
    exchange = await begin("generic", on_unknown="pass")
    exchange.read(sse("Hello", "Hello my", "Hello my dear", "Hello my dear all"))
    exchange.end()
    assert exchange.outcome == COMPLETE


async def test_what_is_held_of_a_text_goes_in_an_event_of_the_same_name(begin: Begin) -> None:
    """A client that listens to `output` hears of no other."""
    exchange = await begin("generic")
    exchange.read(b"event: output\nid: 1\ndata: by\n\nevent: output\nid: 2\ndata:  ann\n\nevent: done\ndata: {}\n\n")
    assert joined(exchange.delivered[-2:]) == b"event: output\ndata: ann\n\nevent: done\ndata: {}\n\n"


@pytest.mark.parametrize(
    "document",
    [
        {"type": "tool-input-available", "toolCallId": "c", "toolName": "f", "input": {"who": "ann"}},
        {"type": "tool-output-available", "toolCallId": "c", "output": {"who": "ann"}},
        {"type": "data-person", "id": "p", "data": {"who": "ann"}},
        {"type": "error", "errorText": "by ann"},
        {"type": "start", "messageId": "m", "messageMetadata": {"who": "ann"}},
    ],
)
async def test_a_part_that_its_api_says_at_once_is_whole(document: dict[str, Any], begin: Begin) -> None:
    exchange = await begin("generic")
    raw = sse_of(document)
    assert joined(exchange.read(raw)) == raw
    assert b"[MAIL]" in joined(exchange.read(raw.replace(b"ann", b"ann@example.com")))
    assert b"example" not in joined(exchange.delivered)


async def test_a_text_may_begin_in_what_other_apis_call_a_start(begin: Begin) -> None:
    exchange = await begin("generic")
    exchange.read(sse_of({"type": "start", "text": "Ask ann@exa"}) + sse_of({"type": "more", "text": "mple.com, now"}))
    exchange.end()
    assert "".join(said(exchange.delivered)) == "startAsk more[MAIL], now"


async def test_data_that_may_come_in_pieces_is_held_like_a_text(begin: Begin) -> None:
    exchange = await begin("generic")
    for beside in ({}, {"id": "p", "transient": True}):
        raw = sse_of({"type": "data-word", "data": "ann", **beside})
        assert exchange.read(raw) != [raw]
        assert b'"ann"' not in joined(exchange.delivered)


@pytest.mark.parametrize(
    ("deltas", "ends"),
    [
        (
            [{"type": "text-delta", "id": "t1", "delta": "by ann"}],
            [{"type": "text-end", "id": "t1"}, {"type": "finish"}],
        ),
        ([{"event": "message", "task_id": "t", "answer": "by ann"}], [{"event": "message_end", "task_id": "t"}]),
        ([{"content": "by ann", "stop": False}], [{"content": "", "stop": True, "stop_type": "eos"}]),
        ([{"is_finished": False, "text": "by ann"}], [{"is_finished": True, "finish_reason": "COMPLETE"}]),
    ],
)
async def test_what_is_held_goes_before_the_event_that_says_that_something_ended(
    deltas: list[Any], ends: list[Any], begin: Begin
) -> None:
    exchange = await begin("generic")
    (delta,) = deltas
    exchange.read(b"".join(map(sse_of, [*deltas, *ends])))
    first, second, *others = [event.document for event in exchange.delivered]
    assert others == ends
    (name,) = [name for name, value in delta.items() if value == "by ann"]
    assert (first, second) == ({**delta, name: "by "}, {**delta, name: "ann"})


async def test_or_in_it(begin: Begin) -> None:
    exchange = await begin("generic")
    exchange.read(sse_of({"text": "by ann"}) + sse_of({"text": "@example.com ann", "done": True}))
    assert [event.document["text"] for event in exchange.delivered] == ["by ", "[MAIL] ann"]


async def test_an_end_in_the_event_field(begin: Begin) -> None:
    exchange = await begin("generic")
    exchange.read(sse_of({"content": "by ann"}) + b"event: end\n\n")
    assert [event.raw for event in exchange.delivered][-2:] == [b'data: {"content":"ann"}\n\n', b"event: end\n\n"]


async def test_data_in_base64_passes_in_streams_too(begin: Begin) -> None:
    images = [sse_of({"type": "image.partial", "b64_json": letter * 200 + "ann"}) for letter in "AB"]
    exchange = await begin("generic")
    exchange.read(b"".join(images))
    assert joined(exchange.delivered) == b"".join(images)


async def test_a_word_of_an_unknown_api_is_whole_in_each_event(begin: Begin) -> None:
    exchange = await begin("generic")
    events = [{"type": "content_delta", "delta": {"type": "ann", "text": text}} for text in ("x ann", "@example.com ")]
    exchange.read(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events))
    assert [event.document["type"] for event in exchange.delivered] == ["content_delta"] * 2
    assert [event.document["delta"]["text"] for event in exchange.delivered] == ["x ", "[MAIL] "]


async def test_a_chunk_of_another_shape_in_a_chat(begin: Begin) -> None:
    exchange = await begin()
    exchange.read(b'data: {"note": "x ann"}\n\ndata: {"note": "@example.com bob"}\n\n' + DONE)
    assert texts(exchange.delivered) == {Channel(0, Kind.TEXT, "/note"): "x [MAIL] bob"}


@pytest.mark.parametrize("name", ["model", "role", "type", "object"])
async def test_a_continuation_repeats_nothing_that_was_not_looked_at(name: str, begin: Begin) -> None:
    document = json.dumps({name: "ann@example.com", "text": "bob"}).encode()
    exchange = await begin("generic")
    exchange.read(b"event: ann@example.com\ndata: " + document + b"\n\n" + DONE)
    assert b"ann" not in joined(exchange.delivered)
    held = exchange.delivered[1]
    assert held.raw.startswith(b"event: [MAIL]\n")
    assert held.document == {name: "[MAIL]", "text": "bob"}
    assert exchange.close() == {"MAIL": 2}


async def test_nor_does_one_beside_a_type_of_the_model_s_own(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    exchange.read(chunk({"note": {"type": "ann@example.com", "text": "bob"}}) + chunk({}, finish="stop") + DONE)
    assert b"ann" not in joined(exchange.delivered)
    assert texts(exchange.delivered)[Channel(0, Kind.TEXT, "/note/text")] == "bob"


async def test_what_waits_is_bounded_in_bytes(begin: Begin) -> None:
    exchange = await begin("generic")
    numbers = [0] * 250_000  # which cannot be taken out
    for number in range(40):
        exchange.read(b"data: " + json.dumps({"n": numbers, f"t{number}": "ann"}).encode() + b"\n\n")
        exchange.advance(0)
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_budget"


# Long events

MANY = "ann@example.com " * 5000


def of_a_line(text: str) -> bytes:
    return b"event: x\n: " + text.encode() + b"\ndata: {}\n\n"


@pytest.mark.parametrize(
    ("dialect", "content_type", "body", "turns"),
    [
        ("openai-chat", "application/json", json.dumps({"choices": [{"message": {"content": MANY}}]}).encode(), 9),
        (
            "openai-chat",
            "text/event-stream",
            b"data: " + json.dumps({"error": {"message": MANY}}).encode() + b"\n\n",
            9,
        ),
        ("generic", "application/x-ndjson", json.dumps([MANY]).encode() + b"\n", 9),
        ("generic", "application/json", json.dumps(["ann@example.com"] * 5000).encode(), 9),
        ("generic", "text/event-stream", of_a_line(MANY), 9),
        ("generic", "text/event-stream", sse("ann@example.com ") * 2000, 5),
    ],
)
async def test_much_at_once_is_read_in_turns(
    dialect: str, content_type: str, body: bytes, turns: int, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call reads more than some characters; what came after waits, the end too."""
    read = 0
    feed = TextRedactor._feed

    def counted(self: TextRedactor, text: str) -> str:
        nonlocal read
        read += len(text)
        return feed(self, text)

    monkeypatch.setattr(TextRedactor, "_feed", counted)
    exchange = await begin(dialect, content_type)
    taken = 0
    hook = exchange.chain.links[0].on_events

    def turn(events: Events, now: float) -> Any:
        nonlocal read, taken
        read, taken = 0, taken + 1
        verdict = hook(events, now)  # type: ignore[misc]
        assert read <= 2 * 8192
        return verdict

    exchange.chain.links[0].on_events = turn
    exchange.chain._bind()
    exchange.read(body)
    exchange.end()
    exchange.advance(0)
    assert taken >= turns
    assert b"ann" not in joined(exchange.delivered)
    assert joined(exchange.delivered).count(b"[MAIL]") in (2000, 5000)
    assert exchange.outcome == COMPLETE


async def test_another_exchange_is_served_while_a_long_reply_is_read() -> None:
    """Through the relay, on one loop: an event of the other goes out while nothing of the long reply has."""
    loop, wire = Loop(), WIRES[0]
    policy = make_policy({"use": "redaction"}, loop)
    long, other = (Run([policy], loop, make_request(wire, streamed=streamed)) for streamed in (False, True))
    for run in (long, other):
        await run.admit()
    body = json.dumps({"choices": [{"message": {"content": MANY * 13}}]}).encode()
    assert len(body) > 1_000_000
    long.respond(Reading("application/json", headers={"Content-Length": str(len(body))}))
    other.respond(Reading())
    long.reading.feed(body)
    long.reading.eof()
    loop.turn()
    for word in ("Then ", "as ", "now. "):
        other.reading.feed(sse_of({"choices": [{"index": 0, "delta": {"content": word}}]}))
        assert word.encode() in other.client.body
        assert long.client.body == b""
        assert loop.turn()
    while loop.turn():
        pass
    await long.settle()
    assert long.client.body.count(b"[EMAIL]") == 5000 * 13
    assert long.relay.outcome == COMPLETE
    other.relay.client_gone()
    await other.settle()


@pytest.mark.parametrize("end", ["upstream_truncated", "client_gone", "deadline"])
async def test_an_end_while_a_long_event_is_read(end: str, begin: Begin) -> None:
    exchange = await begin("generic", "application/x-ndjson")
    exchange.read(json.dumps([MANY]).encode() + b"\n")
    assert exchange.delivered == []
    exchange.cut(end)
    exchange.advance(0)
    assert b"ann" not in joined(exchange.delivered)
    assert exchange.outcome is not None
    exchange.close()


async def test_a_long_event_that_stops_the_stream(begin: Begin) -> None:
    exchange = await begin("generic", "application/x-ndjson", actions={"MAIL": "stop"})
    exchange.read(b'["so "]\n' + json.dumps(["x " * 20000 + "ann@example.com "]).encode() + b"\n")
    exchange.advance(0)
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_stopped"
    assert joined(exchange.delivered).startswith(b'["so "]\n')
    assert b"x x" not in joined(exchange.delivered)


async def test_a_long_event_does_not_count_as_bytes_that_wait(begin: Begin) -> None:
    exchange = await begin("generic", "application/x-ndjson")
    exchange.read(json.dumps(["x " * 520_000]).encode() + b"\n")
    exchange.read(json.dumps(["x " * 50_000]).encode() + b"\n")
    exchange.end()
    exchange.advance(0)
    assert exchange.outcome == COMPLETE


async def test_more_channels_than_can_be_kept(begin: Begin) -> None:
    exchange = await begin("generic")
    exchange.read(b"data: " + json.dumps({str(number): "a" for number in range(5000)}).encode() + b"\n\n")
    exchange.advance(0)
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_budget"


async def test_what_follows_the_word_that_ends_a_stream_is_text(begin: Begin) -> None:
    exchange = await begin("generic")
    exchange.read(b"retry: ann@example.com\ndata: [DONE] ann@example.com\n\n" + DONE)
    assert b"ann" not in joined(exchange.delivered)


async def test_choices_whose_numbers_are_strings_do_not_mix(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    for one, other in zip("ann@example.com ", "0123456789012345", strict=True):
        exchange.read(b"".join(chunk({"content": text}, index=n) for n, text in (("0", one), ("1", other))))  # type: ignore[arg-type]
    assert texts(exchange.delivered)[TEXT] == "[MAIL] "


async def test_events_in_another_charset(begin: Begin) -> None:
    exchange = await begin("generic", "text/event-stream; charset=iso-8859-1")
    assert exchange.outcome is None
    assert exchange.stream.on_response(make_head(exchange.request, "text/event-stream; charset=utf-16")) is not None
    assert exchange.stream.on_response(make_head(exchange.request, "text/event-stream; charset=UTF-8")) is None
    exchange = await begin("generic")
    exchange.read(sse("ann@example.com ").decode().encode("utf-16-le") + b"\n\n")
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_unreadable"


async def test_what_cannot_be_read_ends_the_stream(begin: Begin) -> None:
    exchange = await begin()
    exchange.read(sse("ok ") + b"data: \xff\n\n" + sse("more"))
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_unreadable"
    assert b"more" not in joined(exchange.delivered)


async def test_or_passes_where_that_is_configured(begin: Begin) -> None:
    exchange = await begin(on_unknown="pass")
    exchange.read(b"data: \xff\n\n" + sse("ann@example.com "))
    assert joined(exchange.delivered).startswith(b"data: \xff\n\n")
    assert b"ann" not in joined(exchange.delivered)


@pytest.mark.parametrize("content_type", ["", "image/png", "audio/mpeg", "text/html; charset=utf-16"])
async def test_bytes_that_are_no_text_are_refused_before_they_come(content_type: str, begin: Begin) -> None:
    exchange = await begin()
    head = make_head(exchange.request, content_type)
    answer = exchange.chain.response(head)
    assert answer is not None
    assert (answer[1].status, answer[1].details) == (502, "redaction_unreadable")
    empty = make_head(exchange.request, content_type, headers={"Content-Length": "0"})
    assert exchange.chain.response(empty) is None
    passing = await begin(on_unknown="pass")
    assert passing.chain.response(make_head(passing.request, content_type)) is None


async def test_a_reply_without_a_body(begin: Begin) -> None:
    exchange = await begin()
    assert exchange.chain.response(ResponseHead(204)) is None


# Other forms of replies


async def test_lines_of_json(begin: Begin) -> None:
    exchange = await begin("generic", "application/x-ndjson")
    body = b"".join(
        json.dumps({"model": "m", "text": text}).encode() + b"\n" for text in ("x ann", "@example.com", " bob")
    )
    exchange.read(body[:50])
    exchange.read(body[50:])
    exchange.end()
    assert texts(exchange.delivered)[Channel(0, Kind.TEXT, "/text")] == "x [MAIL] bob"
    assert all(json.loads(line)["model"] in ("m", "") for line in joined(exchange.delivered).splitlines())


async def test_plain_text_cut_anywhere(begin: Begin) -> None:
    body = "é ann@example.com é bob".encode()
    for size in (1, 2, 3, len(body)):
        exchange = await begin("generic", "text/plain; charset=utf-8", status=500)
        for at in range(0, len(body), size):
            exchange.read(body[at : at + size])
        exchange.end()
        assert joined(exchange.delivered).decode() == "é [MAIL] é bob"


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions", "generic"])
async def test_an_error_of_the_upstreams(dialect: str, begin: Begin) -> None:
    exchange = await begin(dialect, "application/json", status=429)
    exchange.read(b'{"error": {"message": "ann@example.com has no quota", "code": 1.50}}')
    exchange.end()
    assert joined(exchange.delivered) == b'{"error":{"message":"[MAIL] has no quota","code":1.50}}'


async def test_a_whole_reply(begin: Begin) -> None:
    arguments = json.dumps({"to": "ann@example.com", "n": 4111111111111111})
    message = {
        "content": "ann@example.com",
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": arguments}}],
    }
    unchanged = {"index": 1, "message": {"content": "ann"}, "logprobs": {"content": [{"token": "ann"}]}}
    exchange = await begin("openai-chat", "application/json")
    body = {"choices": [{"index": 0, "message": message, "logprobs": {"content": [{"token": "ann@"}]}}, unchanged]}
    exchange.read(json.dumps(body).encode())
    exchange.end()
    first, second = json.loads(joined(exchange.delivered))["choices"]
    assert first["message"]["content"] == "[MAIL]"
    assert json.loads(first["message"]["tool_calls"][0]["function"]["arguments"]) == {"to": "[MAIL]", "n": "[CARD]"}
    assert (first["logprobs"], second) == (None, unchanged)


async def test_an_answer_that_is_json_stays_json(begin: Begin, chunk: Chunk) -> None:
    answer = json.dumps({"note": "x\nann@example.com\n", "mail": "bob@example.com"})
    exchange = await begin()
    exchange.read(b"".join(chunk({"content": character}) for character in answer) + chunk({}, finish="stop"))
    assert json.loads(texts(exchange.delivered)[TEXT]) == {"note": "x\n[MAIL]\n", "mail": "[MAIL]"}


async def test_many_strings_and_much_base64_in_a_whole_reply(begin: Begin) -> None:
    data = "sk-12345" * 100
    exchange = await begin("generic", "application/json")
    exchange.read(json.dumps({"b64_json": data, "list": [f"sk-{number}" for number in range(995, 6000)]}).encode())
    exchange.end()
    exchange.advance(0)
    document = json.loads(joined(exchange.delivered))
    assert document["b64_json"] == data
    assert document["list"] == ["sk-995", "sk-996", "sk-997", "sk-998", "sk-999"] + ["[KEY]"] * 5000


# What a model fills in, and what it calls


def anthropic(type: str, **more: Any) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **more})}\n\n".encode()


FILLED = {"ann@example.com": [4111111111111111, 1.5, {"to": "bob@example.com"}]}
REDACTED = '{"[MAIL]":["[CARD]",1.5,{"to":"[MAIL]"}]}'
BLOCK = {"type": "tool_use", "id": "t", "name": "ann@example.com", "input": FILLED}
CALL = {"name": "ann@example.com", "arguments": FILLED}
ANSWER = {"candidates": [{"content": {"parts": [{"functionCall": {"name": "ann@example.com", "args": FILLED}}]}}]}
ITEM = {"type": "function_call", "id": "i", "name": "ann@example.com", "arguments": FILLED}


@pytest.mark.parametrize(
    ("dialect", "content_type", "body"),
    [
        ("anthropic", "application/json", json.dumps({"type": "message", "content": [BLOCK]}).encode()),
        ("anthropic", "text/event-stream", anthropic("content_block_start", index=0, content_block=BLOCK)),
        ("gemini", "application/json", json.dumps(ANSWER).encode()),
        ("gemini", "text/event-stream", b"data: " + json.dumps(ANSWER).encode() + b"\n\n"),
        ("ollama", "application/json", json.dumps({"message": {"tool_calls": [{"function": CALL}]}}).encode()),
        ("ollama", "application/x-ndjson", json.dumps({"message": {"tool_calls": [{"function": CALL}]}}).encode() + b"\n"),
        ("openai-chat", "application/json", json.dumps({"choices": [{"message": {"function_call": CALL}}]}).encode()),
        ("openai-chat", "text/event-stream", sse_of({"choices": [{"delta": {"tool_calls": [{"function": CALL}]}}]})),
        ("openai-completions", "application/json", json.dumps({"choices": [{"message": {"function_call": CALL}}]}).encode()),
        ("openai-responses", "application/json", json.dumps({"output": [ITEM]}).encode()),
        ("openai-responses", "text/event-stream", sse_of({"type": "response.output_item.added", "item": ITEM})),
        ("openai-responses", "text/event-stream", sse_of({"type": "response.output_item.done", "item": ITEM})),
        (
            "openai-responses",
            "text/event-stream",
            sse_of({"type": "response.function_call_arguments.done", "item_id": "i", **CALL}),
        ),
    ],
)  # fmt: skip
async def test_names_and_numbers_of_tools_arguments_and_the_names_of_tools(
    dialect: str, content_type: str, body: bytes, begin: Begin
) -> None:
    exchange = await begin(dialect, content_type)
    exchange.read(body)
    exchange.end()
    delivered = joined(exchange.delivered)
    assert REDACTED.encode() in delivered
    assert b'"name":"[MAIL]"' in delivered
    assert delivered.count(b"[MAIL]") == 3
    assert b"@" not in delivered


async def test_a_number_of_arguments_in_pieces(begin: Begin) -> None:
    piece = {"jsonPath": "$.ann@example.com", "numberValue": 4111111111111111}
    part = {"functionCall": {"partialArgs": [piece]}}
    exchange = await begin("gemini")
    exchange.read(sse_of({"candidates": [{"content": {"parts": [part]}}]}))
    assert b'[{"jsonPath":"$[MAIL]","numberValue":"[CARD]"}]' in joined(exchange.delivered)


async def test_a_text_in_base64(begin: Begin) -> None:
    file = {"mimeType": "text/plain", "data": base64.b64encode(b"Ask ann@example.com").decode()}
    exchange = await begin("gemini")
    exchange.read(sse_of({"candidates": [{"content": {"parts": [{"inlineData": file}]}}]}))
    assert base64.b64encode(b"Ask [MAIL]") in joined(exchange.delivered)


async def test_a_value_stands_behind_its_name(begin: Begin) -> None:
    exchange = await begin("generic", "application/json", entities=["SECRET"], patterns=[])
    exchange.read(json.dumps({"api_key": "hunter2hunter2XYZ9kq", "note": ["hunter2hunter2XYZ9kq"]}).encode())
    exchange.end()
    assert json.loads(joined(exchange.delivered)) == {"api_key": "[SECRET]", "note": ["hunter2hunter2XYZ9kq"]}


# What tools say beside the model

SAID_BY_TOOLS = [
    *(pytest.param("openai-responses", list(of_item(*item)), id=item[0]) for item in RESPONSES_ITEMS.items()),
    *(pytest.param("anthropic", list(of_block(*block)), id=name) for name, block in MESSAGES_BLOCKS.items()),
]


@pytest.mark.parametrize(("dialect", "events"), SAID_BY_TOOLS)
async def test_what_comes_whole_stays_in_its_event(dialect: str, events: list[bytes], begin: Begin) -> None:
    """Though any word might become a match, and would be held back if it went on."""
    exchange = await begin(dialect)
    for event in events:
        delivered = exchange.read(event)
        assert (joined(delivered), len(delivered)) == (event, 1)


@pytest.mark.parametrize(("dialect", "events"), SAID_BY_TOOLS)
async def test_and_is_redacted_there(dialect: str, events: list[bytes], begin: Begin) -> None:
    """Every text of the tools ends with what is a match only if it is whole."""
    exchange = await begin(dialect)
    for event in events:
        asked = json.loads(event.partition(b"data: ")[2])
        secret, clean = (filled(asked, end) for end in (" sk-12345", " [KEY]"))
        (delivered,) = exchange.read(sse_of(secret))
        assert json.loads(delivered.raw.partition(b"data: ")[2]) == clean


def filled(value: Any, end: str, name: str = "") -> Any:
    """A document with `end` behind each of its texts."""
    if isinstance(value, dict):
        return {name: filled(item, end, name) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, end, name) for item in value]
    is_word = name in WORDS_OF_TOOLS or not isinstance(value, str) or value[:1] in ("", "{")
    return value if is_word else value + end


WORDS_OF_TOOLS = {
    "call_id", "container_id", "encrypted_content", "encrypted_index", "file_id", "id", "item_id", "model", "object", "role",
    "server_label", "status", "stop_reason", "tool_use_id", "type",
}  # fmt: skip


# Repeated names

TWICE = '"ann@example.com","{0}":'
DELTA = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%s}}'


@pytest.mark.parametrize("last", ['"SO"', '"\\u0022\\u0022SO\\u0022\\u0022"'])
@pytest.mark.parametrize(
    ("dialect", "content_type", "body"),
    [
        ("openai-chat", "text/event-stream", 'data: {"choices":[{"index":0,"delta":{"content":%s}}]}\n\n'),
        ("openai-chat", "application/json", '{"choices":[{"message":{"content":%s}}]}'),
        ("openai-completions", "text/event-stream", 'data: {"choices":[{"index":0,"content":%s,"text":"SO"}]}\n\n'),
        ("openai-responses", "text/event-stream", 'data: {"type":"response.output_text.delta","content":1,"delta":%s}\n\n'),
        ("openai-responses", "application/json", '{"output":[{"type":"message","content":[{"content":%s}]}]}'),
        ("anthropic", "text/event-stream", f"event: x\ndata: {DELTA}\n\n"),
        ("anthropic", "application/json", '{"type":"message","content":[{"type":"text","content":%s}]}'),
        ("gemini", "text/event-stream", 'data: {"candidates":[{"content":{"parts":[{"content":%s}]}}]}\n\n'),
        ("gemini", "application/json", '{"candidates":[{"content":{"parts":[{"content":%s}]}}]}'),
        ("ollama", "application/x-ndjson", '{"message":{"content":%s},"done":true}\n'),
        ("tgi", "text/event-stream", 'data: {"token":{"content":%s}}\n\n'),
        ("generic", "text/event-stream", 'data: {"content":%s}\n\n'),
        ("generic", "application/json", '[{"content":%s}]'),
        ("generic", "application/x-ndjson", '{"content":%s}\n'),
    ],
)  # fmt: skip
async def test_of_repeated_names_only_the_last_passes(
    dialect: str, content_type: str, body: str, last: str, begin: Begin
) -> None:
    name = "delta" if "output_text" in body else "text" if "text_delta" in body else "content"
    exchange = await begin(dialect, content_type)
    exchange.read((body % (TWICE.format(name) + last)).encode())
    exchange.end()
    assert b"ann" not in joined(exchange.delivered)
    assert b"SO" in joined(exchange.delivered)


async def test_nor_do_they_once_the_form_of_events_is_known(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin()
    for word in ("so ", "it ", "goes "):
        exchange.read(chunk({"content": word}))
    exchange.read(chunk({"content": "SO"}).replace(b'"SO"', b'"ann@example.com", "content": "on "'))
    exchange.read(chunk({"content": "ON"}).replace(b'{"content"', b'{"content": "ann@example.com", "content"'))
    assert b"ann" not in joined(exchange.delivered)
    assert texts(exchange.delivered)[TEXT] == "so it goes on ON"


# Log probabilities


def entry(token: str, **more: Any) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, **more}


def log_probabilities(dialect: str, text: str, entries: list[dict[str, Any]]) -> bytes:
    """An event with a text and these for it."""
    if dialect == "openai-chat":
        return sse_of({"choices": [{"index": 0, "delta": {"content": text}, "logprobs": {"content": entries}}]})
    if dialect == "openai-completions":
        top = [{other["token"]: -1 for other in each.get("top_logprobs", ())} for each in entries]
        said = {"tokens": [each["token"] for each in entries], "top_logprobs": top}
        more = {
            name: value for each in entries for name, value in each.items() if name not in entry("", top_logprobs=1)
        }
        return sse_of({"choices": [{"index": 0, "text": text, "logprobs": said | more}]})
    if dialect == "openai-responses":
        return sse_of({"type": "response.output_text.delta", "output_index": 0, "delta": text, "logprobs": entries})
    if dialect == "ollama":
        return json.dumps({"message": {"content": text}, "done": False, "logprobs": entries}).encode() + b"\n"
    chosen = [{name: value for name, value in each.items() if name != "top_logprobs"} for each in entries]
    top = [{"candidates": each.get("top_logprobs", [])} for each in entries]
    said = {"chosenCandidates": chosen, "topCandidates": top}
    return sse_of({"candidates": [{"content": {"parts": [{"text": text}]}, "logprobsResult": said}]})


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-completions", "openai-responses", "ollama", "gemini"])
@pytest.mark.parametrize(
    ("entries", "stays"),
    [
        ([entry("so ", top_logprobs=[entry("the")])], True),
        ([entry("so", top_logprobs=[entry("ann@example.com")]), entry(" ")], False),
        ([entry("so "), entry("ann@example.com")], False),
        ([entry("so ", note="ann@example.com")], False),
    ],
)
async def test_log_probabilities_stay_in_any_dialect_where_they_say_nothing_else(
    dialect: str, entries: list[dict[str, Any]], stays: bool, begin: Begin
) -> None:
    exchange = await begin(dialect, "application/x-ndjson" if dialect == "ollama" else "text/event-stream")
    exchange.read(log_probabilities(dialect, "so ", entries))
    delivered = joined(exchange.delivered)
    assert b"ann" not in delivered
    assert b'so "' in delivered
    assert (b"-0.5" in delivered or b"-1" in delivered) == stays


async def test_lists_of_tokens_stay_where_they_say_nothing_else(begin: Begin) -> None:
    exchange = await begin("tgi")
    for other in ("the", "ann@example.com"):
        token, top = {"id": 1, "text": "so ", "special": False}, [{"id": 2, "text": other, "logprob": -0.5}]
        exchange.read(sse_of({"token": token, "top_tokens": top, "generated_text": None}))
    delivered = joined(exchange.delivered)
    assert b"the" in delivered
    assert b"ann" not in delivered


# Stopping


async def test_a_match_that_stops_the_stream(begin: Begin, chunk: Chunk) -> None:
    exchange = await begin(actions={"MAIL": "stop"})
    exchange.read(chunk({"content": "So "}) + chunk({"content": "ask ann@exam"}))
    exchange.read(chunk({"content": "well "}) + chunk({"content": "ask ann@example.com "}) + chunk({"content": "x "}))
    assert exchange.outcome is not None
    assert exchange.outcome.details == "redaction_stopped"
    assert texts(exchange.delivered)[TEXT] == "So ask ann@examwell "
    assert exchange.close() == {"MAIL": 1}


# Nothing found


async def test_what_says_nothing_is_byte_identical(begin: Begin, chunk: Chunk) -> None:
    quiet = [
        b": ping\n\n",
        b"\n\n",
        b"data:\n\n",
        chunk({}),
        b"event: x\r\nid: 1\r\ndata: {}\r\n\r\n",
        chunk({"content": ""}),
        DONE,
    ]
    exchange = await begin()
    exchange.read(b"".join(quiet))
    assert [event.raw for event in exchange.delivered] == quiet


# Texts said again as tokens, in shapes of others


def probabilities(text: str) -> list[dict[str, Any]]:
    return [{"id": 1, "token": text, "bytes": list(text.encode()), "logprob": -1}]


async def test_no_token_leaves_in_a_stream_of_unknown_shape(begin: Begin) -> None:
    exchange = await begin("generic")
    for text in ("Ask ann@exa", "mple.com ", "now"):
        exchange.read(sse_of({"content": text, "tokens": [7], "completion_probabilities": probabilities(text)}))
    exchange.end()
    said = joined(exchange.delivered)
    assert texts(exchange.delivered) == {Channel(0, Kind.TEXT, "/content"): "Ask [MAIL] now"}
    assert (b"tokens" in said, b"completion_probabilities" in said, b"bytes" in said) == (False, False, False)


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        ("generic", {"output": {"text": "ann@example.com", "logprobs": {"tokens": ["ann@", "exa", "mple.com"]}}}),
        ("openai-chat", {"choices": [{"message": {"content": "hi", "logprobs": {"content": [{"token": "ann@exa"}]}}}]}),
        ("openai-chat", {"choices": [], "prompt_logprobs": [{"1": {"decoded_token": "ann@exa"}}]}),
        (
            "openai-completions",
            {"choices": [{"text": "hi", "prompt_token_ids": [65, 66]}], "prompt_token_ids": [65, 66]},
        ),
    ],
)
async def test_no_token_leaves_in_a_whole_reply(dialect: str, document: Any, begin: Begin) -> None:
    exchange = await begin(dialect, "application/json")
    exchange.read(json.dumps(document).encode())
    exchange.end()
    said = joined(exchange.delivered)
    assert (b"exa" in said, b"65" in said) == (False, False)


# Forms at the edge


@pytest.mark.parametrize("charset", ["utf-7", "utf-16", "iso-8859-1"])
@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson", "text/event-stream"])
async def test_a_document_in_another_charset_is_refused(media: str, charset: str, begin: Begin) -> None:
    exchange = await begin("generic")
    reply = exchange.respond(make_head(exchange.request, f"{media}; charset={charset}"))
    assert reply is not None
    assert reply.details == "redaction_unreadable"
    assert exchange.respond(make_head(exchange.request, f"{media}; charset=UTF-8")) is None


async def test_a_last_event_without_its_blank_line_is_ended_before_what_it_held(begin: Begin, chunk: Chunk) -> None:
    for lacking in (1, 2):
        exchange = await begin()
        exchange.read(chunk({"role": "assistant", "content": "hi "}))
        last = chunk({"role": "assistant", "content": "x ann"})[:-lacking]
        exchange.read(last)  # stays with the framer, which gives it at the end
        exchange.end()
        lines = [line for line in joined(exchange.delivered).split(b"\n\n") if line]
        assert [json.loads(line.removeprefix(b"data: "))["choices"][0]["delta"]["content"] for line in lines] == [
            "hi ",
            "x ",
            "ann",
        ]


async def test_gemini_reads_the_address_of_a_file(begin: Begin) -> None:
    exchange = await begin("gemini")
    part = {"fileData": {"fileUri": "https://x.com/ann@example.com", "mimeType": "text/plain"}}
    exchange.read(sse_of({"candidates": [{"content": {"parts": [part]}}]}))
    exchange.end()
    assert b"https://x.com/[MAIL]" in joined(exchange.delivered)


async def test_an_image_of_ollama_that_is_none_is_read(begin: Begin) -> None:
    exchange = await begin("ollama", "application/x-ndjson")
    image = "iVBORw0KGgo" * 10
    exchange.read(
        json.dumps({"message": {"content": "", "images": [image, "ann@example.com"]}, "done": True}).encode() + b"\n"
    )
    (event,) = exchange.delivered
    assert event.document["message"]["images"] == [image, "[MAIL]"]
