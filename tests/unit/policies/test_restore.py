"""`restore`: pseudonyms of this request, and no others, become what the client sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policies.redaction.actions import pseudonym
from policies.restore import Restore, RestoreConfig
from proxy.dialects import choose
from proxy.dialects.base import Channel, Kind
from proxy.messages import Request
from proxy.testing import FakeHost, Simulation, check_policy, joined, make_head, make_request, sse, texts

ANN = pseudonym(b"key", "EMAIL", "ann")
BOB = pseudonym(b"key", "EMAIL", "bob")
EVE = pseudonym(b"key", "EMAIL", "eve")
ORIGINALS = {ANN: "ann@example.com", BOB: 'Bob "the\nbuilder"'}


def ask(text: str = "", dialect: str = "generic") -> Request:
    request = make_request(text, dialect=choose(dialect, "/"))
    request.pseudonyms.update(ORIGINALS)
    return request


async def begin(dialect: str = "generic", content_type: str = "text/event-stream") -> Simulation:
    request = ask(dialect=dialect)
    policy = Restore(RestoreConfig(), FakeHost("restore"))
    await policy.start()
    exchange = await Simulation.admit(policy, request)
    exchange.start()
    exchange.respond(make_head(request, content_type))
    return exchange


async def test_the_contract() -> None:
    def restored(text: str) -> str:
        return text.replace(ANN, ORIGINALS[ANN])

    text = f"It is {ANN}, not {EVE} or EMAIL_ab, EMAIL_"
    await check_policy(lambda host: Restore(RestoreConfig(), host), request=ask, text=text, expected=restored)


async def test_a_pseudonym_cut_over_events_is_put_back() -> None:
    exchange = await begin()
    for character in f"To {ANN}: {EVE}.":
        exchange.read(sse(character))
    exchange.end()
    assert list(texts(exchange.delivered).values()) == [f"To ann@example.com: {EVE}."]
    assert exchange.close() == {"restored": 1}


async def test_arguments_stay_json() -> None:
    exchange = await begin("openai-chat")
    arguments = json.dumps({"to": BOB, ANN: [1]})
    for number, character in enumerate(arguments):
        call: dict[str, Any] = {"index": 0, "function": {"arguments": character, **({} if number else {"name": "f"})}}
        document = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
        exchange.read(b"data: " + json.dumps(document).encode() + b"\n\n")
    exchange.read(b"data: [DONE]\n\n")
    given = texts(exchange.delivered)[Channel(0, Kind.TOOL_ARGUMENTS, 0)]
    assert json.loads(given) == {"to": ORIGINALS[BOB], "ann@example.com": [1]}


async def test_a_whole_reply() -> None:
    exchange = await begin("openai-chat", "application/json")
    exchange.read(json.dumps({"choices": [{"index": 0, "message": {"content": f"{ANN} and {BOB}"}}]}).encode())
    exchange.end()
    (choice,) = json.loads(joined(exchange.delivered))["choices"]
    assert choice["message"]["content"] == f"ann@example.com and {ORIGINALS[BOB]}"


@pytest.mark.parametrize("content_type", ["image/png", ""])
async def test_what_is_no_text_passes(content_type: str) -> None:
    exchange = await begin(content_type=content_type)
    exchange.read(b"\xff" + ANN.encode())
    exchange.end()
    assert joined(exchange.delivered) == b"\xff" + ANN.encode()


async def test_it_stays_out_where_nothing_was_replaced() -> None:
    assert await Restore(RestoreConfig(), FakeHost()).admit(make_request()) is None


async def test_what_is_held_at_a_cut_does_not_come_with_the_ending() -> None:
    exchange = await begin("openai-chat")
    exchange.read(b'data: {"choices":[{"index":0,"delta":{"content":"x ' + ANN[:10].encode() + b'"}}]}\n\n')
    exchange.cut("deadline")
    assert "".join(texts(exchange.delivered).values()).startswith("x ")
    assert b"EMAIL" not in joined(exchange.delivered)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"{ANN}{ANN}", "ann@example.comann@example.com"),
        (f"MY_{ANN}: {EVE}", f"MY_ann@example.com: {EVE}"),
        (ANN.replace("_", r"\_"), "ann@example.com"),
        (f"_{ANN}_ **{ANN}**", "_ann@example.com_ **ann@example.com**"),
        (f"{ANN}abc {ANN}1", f"{ANN}abc {ANN}1"),
        (f"MY_{EVE} {EVE}", f"MY_{EVE} {EVE}"),
    ],
)
async def test_what_stands_beside_a_pseudonym(said: str, told: str) -> None:
    exchange = await begin()
    for character in said:
        exchange.read(sse(character))
    exchange.end()
    assert list(texts(exchange.delivered).values()) == [told]
