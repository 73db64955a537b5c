"""Where an OpenAI response has its texts. What events of every type say is in `test_openai_responses.py`."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dialects.base import EVERY_CHANNEL, Channel, Kind
from proxy.dialects.openai_responses_texts import (
    BY_EVENT,
    SPOKEN,
    ends_of,
    event_texts,
    index_of,
    mirrored,
    place_of,
    response_texts,
    split_type,
)


def said(document: dict[str, Any]) -> list[tuple[Channel, str]]:
    return [(channel, slot.text) for channel, slot in event_texts(document)]


@pytest.mark.parametrize(
    ("document", "place"),
    [({"output_index": 2}, "2"), ({}, "i"), ({"output_index": None}, "i"), ({"output_index": True}, "i")],
)
def test_an_item_is_known_by_its_number_or_its_id(document: dict[str, Any], place: str) -> None:
    assert place_of(document, "i") == place


def test_a_text_is_its_items_or_its_parts() -> None:
    assert index_of(BY_EVENT["function_call_arguments"], {"content_index": 3}, "2") == "2"
    assert index_of(BY_EVENT["refusal"], {"content_index": 3}, "2") == "2/content/3"
    assert index_of(BY_EVENT["refusal"], {}, "2") == "2/content/0"


@pytest.mark.parametrize("spoken", SPOKEN, ids=lambda spoken: spoken.event)
def test_every_way_to_say_a_text_names_the_same_channel(spoken: Any) -> None:
    """Piece by piece, whole, in its part, in its item and in the response."""
    at = {"output_index": 0, "item_id": "i", "content_index": 0, "summary_index": 0}
    owner = {"type": spoken.owner, spoken.field: "x"}
    item = {"type": "message", "id": "i", spoken.parts: [owner]} if spoken.parts else {**owner, "id": "i"}
    ((channel, _),) = said({"type": f"response.{spoken.event}.delta", "delta": "x", **at})
    documents = [
        {"type": f"response.{spoken.event}.done", spoken.field: "x", **at},
        {"type": "response.output_item.done", "item": item, **at},
        {"type": "response.completed", "response": {"output": [item]}},
    ]
    for document in documents:
        assert said(document) == [(channel._replace(repeated=True), "x")]
        assert any(end.covers(channel) for end in ends_of(document))
    assert not channel.repeated
    assert [found for found, _ in response_texts({"output": [item]}, repeated=False)] == [channel]


def test_a_part_within_a_part_and_a_string_in_the_wrong_place() -> None:
    item = {"type": "message", "content": [{"type": "new", "content": [{"type": "output_text", "text": "a"}]}, "b"]}
    assert [
        (channel.index, slot.text) for channel, slot in response_texts({"output": [item, "c"]}, repeated=False)
    ] == [
        ("0/content/0/content/0", "a"),
        ("0/content/1", "b"),
        ("1", "c"),
    ]


def test_words_of_the_api_are_no_text_but_the_same_names_deeper_down_are() -> None:
    item = {"type": "file_search_call", "id": "i", "results": [{"file_id": "f", "attributes": {"id": "secret"}}]}
    assert said({"type": "response.output_item.done", "output_index": 0, "item": item}) == [
        (Channel(0, Kind.TEXT, "0/results/0/attributes/id", repeated=True), "secret")
    ]


@pytest.mark.parametrize(
    ("document", "ends"),
    [
        ({"type": "response.created"}, []),
        ({"type": "response.output_item.added", "item": {}}, []),
        ({"type": "response.completed"}, [EVERY_CHANNEL]),
        ({"type": "response.cancelled"}, [EVERY_CHANNEL]),
        ({"type": "response.new", "error": {"message": "x"}}, [EVERY_CHANNEL]),
        (
            {"type": "response.output_item.done", "item": {"id": "i", "content": 7}},
            [Channel(0, None, "i")],
        ),
        (  # whatever stands beside it
            {"type": "response.output_text.done", "output_index": 1, "item": {"id": "i"}},
            [Channel(0, Kind.TEXT, "1/content/0")],
        ),
    ],
)
def test_what_ends(document: dict[str, Any], ends: list[Channel]) -> None:
    assert list(ends_of(document)) == ends


def test_log_probabilities_wherever_they_are() -> None:
    document = {"logprobs": [1], "a": [{"logprobs": [2], "b": 3}, {"logprobs": []}]}
    assert sorted(holder["logprobs"] for holder in mirrored(document)) == [[1], [2]]


def test_the_parts_of_a_type() -> None:
    assert split_type("response.audio.transcript.delta") == ("audio.transcript", "delta")
    assert split_type("error") == ("", "error")
