"""What was delivered of a response, and how it is said again at its end."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dialects import openai_responses_record
from proxy.dialects.base import Channel, Kind, Usage
from proxy.dialects.openai_responses_record import MAX_KEPT_BYTES, Record
from proxy.dialects.openai_responses_texts import BY_EVENT

ANSWER = Channel(0, Kind.TEXT, "0/content/0")
MESSAGE = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
PART = {"type": "output_text", "text": "", "annotations": []}
PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def note(record: Record, type: str, size: int = 100, **more: Any) -> None:
    record.note(f"response.{type}", {"type": f"response.{type}", **more}, size)


@pytest.fixture
def record() -> Record:
    """Of a response with one message, of which one part was begun."""
    record = Record()
    note(record, "created", response={"id": "resp_1", "model": "m", "output": [], "usage": None})
    note(record, "output_item.added", output_index=0, item={**MESSAGE})
    note(record, "content_part.added", **PLACE, part={**PART})
    return record


def end(record: Record, usage: Usage | None = None, *, fresh: bool = False) -> list[dict[str, Any]]:
    return list(record.incomplete("m", usage, fresh=fresh))


def output(record: Record) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = end(record)[-1]["response"]["output"]
    return items


def test_a_text_that_goes_on_in_parts_that_never_began_is_one(record: Record) -> None:
    for number, text in enumerate(("Hel", "lo", " you"), 1):
        record.add(BY_EVENT["output_text"], Channel(0, Kind.TEXT, f"0/content/{number}"), text)
    (item,) = output(record)
    assert item["content"] == [{**PART, "text": "Hello you"}]


def test_a_part_that_has_ended_is_not_gone_on_with(record: Record) -> None:
    record.add(BY_EVENT["output_text"], ANSWER, "Hello")
    note(record, "output_text.done", **PLACE, text="Hello")
    record.add(BY_EVENT["output_text"], Channel(0, Kind.TEXT, "0/content/1"), "you")
    assert [part["text"] for part in output(record)[0]["content"]] == ["Hello", "you"]


def test_an_open_part_is_closed_with_all_that_was_delivered(record: Record) -> None:
    for text in ("Hel", "lo"):
        record.add(BY_EVENT["output_text"], ANSWER, text)
    part = {**PART, "text": "Hello"}
    item = {**MESSAGE, "status": "incomplete", "content": [part]}
    *closing, last = end(record)
    assert closing == [
        {"type": "response.output_text.done", **PLACE, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **PLACE, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]
    assert (last["type"], last["response"]["id"], last["response"]["output"]) == (
        "response.incomplete",
        "resp_1",
        [item],
    )


def test_what_is_closed_is_not_closed_again(record: Record) -> None:
    record.add(BY_EVENT["output_text"], ANSWER, "Hello")
    note(record, "output_text.done", **PLACE, text="Hello")
    assert next(event["type"] for event in end(record)) == "response.content_part.done"


def test_a_part_that_is_done_stays_as_it_was_said(record: Record) -> None:
    record.add(BY_EVENT["output_text"], ANSWER, "Hello")
    note(record, "output_text.done", **PLACE, text="Hello")
    note(record, "content_part.done", **PLACE, part={**PART, "text": "Hello", "annotations": [1]})
    closing, _ = end(record)
    assert closing["item"]["content"] == [{**PART, "text": "Hello", "annotations": [1]}]


def test_an_item_that_is_done_stays_as_it_was_said(record: Record) -> None:
    item = {**MESSAGE, "status": "completed", "content": [{**PART, "text": "Hello"}]}
    note(record, "output_item.done", output_index=0, item=item)
    record.add(BY_EVENT["output_text"], ANSWER, "too late")
    (last,) = end(record)
    assert last["response"]["output"] == [item]


def test_items_keep_their_order_and_the_open_one_is_closed(record: Record) -> None:
    note(record, "output_item.added", output_index=1, item={"id": "fc_1", "type": "function_call", "arguments": ""})
    record.add(BY_EVENT["function_call_arguments"], Channel(0, Kind.TOOL_ARGUMENTS, "1"), '{"a')
    note(record, "output_item.done", output_index=0, item={**MESSAGE, "status": "completed"})
    items = output(record)
    assert [item["id"] for item in items] == ["msg_1", "fc_1"]
    assert items[1] == {"id": "fc_1", "type": "function_call", "arguments": '{"a', "status": "incomplete"}


def test_a_text_that_was_only_said_whole_is_repeated(record: Record) -> None:
    note(record, "output_text.done", **PLACE, text="Hello")
    assert output(record)[0]["content"][0]["text"] == "Hello"


def test_annotations_stay_with_their_part(record: Record) -> None:
    note(record, "output_text.annotation.added", **PLACE, annotation={"type": "file_path"})
    assert output(record)[0]["content"][0]["annotations"] == [{"type": "file_path"}]


def test_a_part_that_was_never_added_is_not_done(record: Record) -> None:
    note(record, "output_text.done", **PLACE, text="")
    record.add(BY_EVENT["output_text"], Channel(0, Kind.TEXT, "0/content/1"), "more")
    said = [event["type"] for event in end(record)]
    assert said.count("response.content_part.done") == 1
    assert [part["text"] for part in output(record)[0]["content"]] == ["", "more"]


def test_an_item_added_twice_keeps_its_text(record: Record) -> None:
    record.add(BY_EVENT["output_text"], ANSWER, "Hello")
    note(record, "output_item.added", output_index=0, item={**MESSAGE})
    assert output(record)[0]["content"][0]["text"] == "Hello"


def test_what_belongs_to_no_item_is_not_repeated() -> None:
    record = Record()
    record.add(BY_EVENT["output_text"], ANSWER, "Hello")
    note(record, "content_part.added", **PLACE, part={**PART})
    assert output(record) == []


@pytest.mark.parametrize(
    ("type", "more"),
    [
        ("content_part.added", {"part": {"type": ["odd"]}}),
        ("output_text.annotation.added", {"content_index": 7}),
        ("new_thing.done", {"text": "x"}),
        ("output_text.done", {"text": 7}),
    ],
)
def test_strange_events_change_no_text(type: str, more: dict[str, Any], record: Record) -> None:
    note(record, type, **{**PLACE, **more})
    assert [part["text"] for part in output(record)[0]["content"]] == [""]


def test_a_response_of_which_nothing_was_delivered_is_begun() -> None:
    created, last = end(Record(), fresh=True)
    assert (created["type"], last["type"]) == ("response.created", "response.incomplete")
    assert created["response"]["id"] == last["response"]["id"]
    assert (created["response"]["status"], last["response"]["status"]) == ("in_progress", "incomplete")


def test_the_usage_that_was_counted() -> None:
    usage = end(Record(), Usage(7, 5))[-1]["response"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 5, 12)


# The bound


def test_over_the_bound_nothing_is_kept(record: Record) -> None:
    record.add(BY_EVENT["output_text"], ANSWER, "x" * MAX_KEPT_BYTES)
    note(record, "output_item.added", output_index=1, item={**MESSAGE, "id": "msg_2"})
    (last,) = end(record)
    assert last["type"] == "response.incomplete"
    assert "output" not in last["response"]


def test_a_text_that_is_said_again_counts_once(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_responses_record, "MAX_KEPT_BYTES", 1500)
    for number in range(2):
        place = {**PLACE, "output_index": number}
        note(record, "output_item.added", output_index=number, item={**MESSAGE})
        record.add(BY_EVENT["output_text"], ANSWER._replace(index=f"{number}/content/0"), "x" * 500)
        note(record, "output_text.done", 500, **place, text="x" * 500)
        note(record, "content_part.done", 500, **place, part=PART)
        note(record, "output_item.done", 600, output_index=number, item=MESSAGE)
    assert len(output(record)) == 2
