"""Gemini: requests, which stream reads a reply, and the words of an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from proxy.dialects import DIALECTS
from proxy.dialects.gemini import Gemini
from proxy.errors import Problem
from proxy.framing import Framing
from proxy.messages import Request, ResponseHead


def make_request(body: bytes | None, method: str, query: str = "", model: str = "models/gemini-2.5-flash") -> Request:
    path = f"/prefix/v1beta/{model}{method}"
    return Request(
        id="1", method="POST", path=path, query=query, headers=CIMultiDict(), dialect=DIALECTS["gemini"], body=body
    )


REQUEST: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "s"}]},
    "contents": [
        {"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "A" * 64}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": ["b"]}}, "thoughtSignature": "no"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"y": "c"}}}]},
    ],
    "generationConfig": {"maxOutputTokens": 20, "candidateCount": 2},
}


def test_a_request() -> None:
    call = make_request(json.dumps(REQUEST).encode(), ":streamGenerateContent").call
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("gemini-2.5-flash", True, 2, 20)
    assert call.texts == ["s", "a", "f", '{"x":["b"]}', "f", '{"y":"c"}']
    assert call.document == REQUEST


def test_a_request_in_the_other_spelling() -> None:
    body = {
        "system_instruction": {"parts": {"text": "s"}},
        "contents": {"parts": [{"text": "a"}]},
        "generation_config": {"max_output_tokens": 20, "candidate_count": 2},
    }
    call = make_request(json.dumps(body).encode(), "%3AgenerateContent").call
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("gemini-2.5-flash", False, 2, 20)
    assert call.texts == ["s", "a"]


@pytest.mark.parametrize("body", [None, b"", b"{", b"[1]", b'{"generationConfig":7,"contents":[1,"%s"]}' % (b"[" * 70)])
def test_what_is_no_model_call_still_has_its_path(body: bytes | None) -> None:
    call = make_request(body, ":streamGenerateContent", model="models/a%2Fb").call
    assert (call.model, call.stream, call.choices, call.max_output_tokens) == ("a/b", True, 1, None)


def test_contents_that_nest_too_deeply_have_no_texts() -> None:
    deep = "[" * 70 + '"x"' + "]" * 70
    assert make_request(b'{"contents":[%s]}' % deep.encode(), ":generateContent").call.texts == []


def test_the_texts_of_a_request_can_be_changed_where_they_stand() -> None:
    """What somebody said, whatever he calls it; not words and data, nor the names that tools are declared with."""
    tools = [{"functionDeclarations": [{"name": "f", "description": "say", "parameters": {"type": "OBJECT"}}]}]
    said = {"functionResponse": {"name": "f", "response": {"name": "say"}}}
    file = {"inlineData": {"mimeType": "text/plain", "data": "YcOp"}}
    root = [{**REQUEST, "tools": tools, "contents": [{"role": "user", "parts": [{"text": "say"}, said, file]}]}]
    slots = list(Gemini().request_texts(root))
    assert [slot.text for slot in slots] == ["s", "say", "f", '{"name":"say"}', "aé", "say", "OBJECT"]
    slots[4].put("né")
    assert file["inlineData"]["data"] == "bsOp"
    slots[1].put("new")
    assert root[0]["contents"][0]["parts"][0]["text"] == "new"


def test_usage_need_not_be_asked_for() -> None:
    request = make_request(json.dumps(REQUEST).encode(), ":streamGenerateContent")
    assert not DIALECTS["gemini"].ask_for_usage(request)
    event = (
        DIALECTS["gemini"]
        .open(head_of("text/event-stream"), request.call)
        .event(b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n\n')
    )
    assert DIALECTS["gemini"].open(head_of("text/event-stream"), request.call).without_usage(event) is event


def head_of(content_type: str, *, status: int = 200, local: bool = False) -> ResponseHead:
    return ResponseHead(status, CIMultiDict({"Content-Type": content_type}), local=local)


@pytest.mark.parametrize(
    ("query", "content_type", "status", "framing"),
    [
        ("alt=sse", "text/event-stream", 200, Framing.SSE),
        ("", "application/json; charset=UTF-8", 200, Framing.JSON_ARRAY),
        ("", "application/json", 400, Framing.JSON),
        ("key=x&%24alt=sse", "text/event-stream", 200, Framing.SSE),
        ("", "text/plain", 200, Framing.OPAQUE),
    ],
)
def test_the_reply_decides_on_the_framing(query: str, content_type: str, status: int, framing: Framing) -> None:
    call = make_request(None, ":streamGenerateContent", query).call
    assert DIALECTS["gemini"].open(head_of(content_type, status=status), call).framing is framing


def test_a_stream_opens_early_only_where_events_are_asked_for() -> None:
    """The client that waits for an array would be given events else."""
    early = head_of("text/event-stream", local=True)
    for query, opens in (("alt=sse", True), ("$alt=sse", True), ("", False), ("alt=json", False)):
        stream = DIALECTS["gemini"].open(early, make_request(None, ":streamGenerateContent", query).call)
        assert (stream.comment() is not None) is opens


@pytest.mark.parametrize(
    ("details", "status"),
    [
        ("unauthorized", "UNAUTHENTICATED"),
        ("body_too_large", "INVALID_ARGUMENT"),
        ("token_limit", "RESOURCE_EXHAUSTED"),
        ("upstream_reset", "UNAVAILABLE"),
        ("draining", "UNAVAILABLE"),
        ("policy_error", "INTERNAL"),
    ],
)
def test_an_error_body(details: str, status: str) -> None:
    content_type, body = DIALECTS["gemini"].error_body(Problem.of(details))
    error = json.loads(body)["error"]
    assert content_type == "application/json"
    assert (error["code"], error["status"]) == (Problem.of(details).status, status)
    assert error["details"][0]["reason"] == details
