"""`redaction` as it is configured, and what it does to requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from policies.redaction import Redaction, RedactionConfig
from policies.redaction.entities import entities
from proxy.dialects.base import Channel, Kind
from proxy.errors import ConfigProblem
from proxy.messages import Reply, Request
from proxy.testing import SAMPLE, FakeHost, Simulation, check_policy, make_head, sse, texts

Configure = Callable[..., RedactionConfig]
Problems = Callable[..., list[ConfigProblem]]
Ask = Callable[..., Request]
Begin = Callable[..., Awaitable[Simulation]]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDACTION_KEY", "sixteen bytes...")


def clean(config: RedactionConfig, text: str) -> str:
    return config.scanner.redact(text, config.writer.write)


@pytest.mark.parametrize("keys", [{}, {"requests": True}, {"action": {"mask": 4}}])
async def test_the_contract(keys: dict[str, Any], configure: Configure) -> None:
    config = configure(**keys)
    await check_policy(lambda host: Redaction(config, host), expected=lambda text: clean(config, text))
    assert clean(config, SAMPLE) != SAMPLE


async def test_the_contract_as_it_is_by_default() -> None:
    config = RedactionConfig()
    await check_policy(lambda host: Redaction(config, host), expected=lambda text: clean(config, text), rounds=5)
    assert "ann@example.org" not in clean(config, SAMPLE)


async def test_the_contract_where_a_match_stops_the_stream(configure: Configure) -> None:
    config = configure(action="stop")
    await check_policy(lambda host: Redaction(config, host), text="sk-1 and sk-12, sk-x 4111.")


async def test_the_contract_of_one_that_looks_through_requests_only(configure: Configure) -> None:
    config = configure(replies=False, requests=True)
    await check_policy(lambda host: Redaction(config, host), expected=lambda text: text)


# Configuration


def test_all_that_is_built_in_is_on_by_default() -> None:
    text = "ann@example.org 4111 1111 1111 1111"
    assert clean(RedactionConfig(), text) == "[EMAIL] [CARD]"
    assert clean(RedactionConfig(entities=("CARD",)), text) == "ann@example.org [CARD]"
    assert clean(RedactionConfig(entities=("IBAN",)), text) == text


def test_what_is_configured_goes_before_what_is_built_in() -> None:
    pattern = {"name": "OURS", "pattern": r"[a-z]{1,9}@example\.org"}
    config = RedactionConfig.model_validate_json(json.dumps({"patterns": [pattern]}))
    assert clean(config, "ann@example.org bob@example.net") == "[OURS] [EMAIL]"


def test_dictionaries(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("Red October\n\n  zebra  \n")
    given = {"name": "CODE", "words": ["falcon"], "words_file": str(tmp_path / "words"), "action": {"mask": 2}}
    config = configure(dictionaries=[given, {"name": "EXACT", "words": ["Bo"], "ignore_case": False}])
    assert clean(config, "FALCON falcons red october. Zebra Bo bo") == "****ON falcons *** *****er. ***ra [EXACT] bo"


def test_actions(configure: Configure) -> None:
    pattern = {"name": "DAY", "pattern": r"\d{4}-\d{2}", "action": "pseudonym"}
    config = configure(
        patterns=[pattern, {"name": "MAIL", "pattern": r"[a-z]{1,9}@x"}],
        actions={"MAIL": {"mask": 0}}, placeholder="<{entity}>", pseudonym_key="env:REDACTION_KEY",
        entities=["CARD"],
    )  # fmt: skip
    text = clean(config, "ann@x 2024-02 4111111111111111")
    assert text.startswith("***@* DAY_")
    assert text.endswith(" <CARD>")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"replies": False}, "neither `replies` nor `requests`"),
        ({"entities": ["EMIAL"]}, "entities: there is no EMIAL (did you mean EMAIL?)"),
        ({"entities": ["zzz"]}, "must match the pattern"),
        ({"regions": ["XX"]}, "XX"),
        ({"action": "pseudonym"}, 'needs `pseudonym_key = "env:NAME"`'),
        ({"actions": {"MAIL": "pseudonym"}}, 'needs `pseudonym_key = "env:NAME"`'),
        ({"actions": {"MIAL": "stop"}}, "actions: there is no MIAL (did you mean MAIL?)"),
        ({"actions": {"QQQ": "stop"}}, "actions: there is no QQQ; there are"),
        ({"action": "shout"}, 'must be "placeholder", "pseudonym" or "stop"'),
        ({"action": {"mask": -1}}, "must be at least 0"),
        (
            {"entities": ["PRIVATE_KEY"], "actions": {"PRIVATE_KEY": {"mask": 4}}},
            "PRIVATE_KEY is replaced before all of it has come",
        ),
        ({"patterns": [{"name": "X", "pattern": "a{1,3}("}]}, "X: "),
        ({"patterns": [{"name": "X", "pattern": "a+"}]}, "X: unbounded repetition"),
        ({"patterns": [{"name": "X", "pattern": "(?:[ab]{0,200}a[ab]{14})c"}]}, "X: "),
        ({"patterns": [{"name": "x", "pattern": "a"}]}, "must match the pattern"),
        ({"dictionaries": [{"name": "X"}]}, "the dictionary X has no words"),
        ({"dictionaries": [{"name": "X", "words_file": "words"}]}, "must be an absolute path"),
        ({"dictionaries": [{"name": "X", "words_file": "/no/such/file"}]}, "cannot be read"),
        ({"placeholder": "a\nb"}, "must be printable"),
        ({"placeholder": " "}, "must be printable, of 1 to 64 characters"),
        ({"placeholder": "ann@example.com"}, "is itself something that would be found"),
        ({"patterns": []}, "has nothing to look for"),
        ({"pseudonym_key": "env:SHORT_KEY"}, "pseudonym_key: must have 16 bytes at least"),
        ({"pseudonym_key": "k3y"}, "must be a reference"),
        ({"regions": ["US", "UK"]}, 'regions: "UK" is no code of ISO 3166 (did you mean "GB"?)'),
        ({"entities": ["CARD", "EMAIL"]}, "CARD is the name of a built-in entity: choose another, or leave that out"),
        (
            {"entities": None, "patterns": [], "dictionaries": [{"name": "EMAIL", "words": ["a"]}]},
            "EMAIL is the name of",
        ),
    ],
)
def test_what_is_wrong_is_said_when_the_configuration_is_read(
    keys: dict[str, Any], message: str, problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT_KEY", "fifteen bytes..")
    assert any(message in str(problem) for problem in problems(**keys))


async def test_a_warm_scanner_is_there_before_the_first_request(configure: Configure) -> None:
    policy = Redaction(configure(), FakeHost())
    await policy.start()
    assert not policy.needs_body
    assert Redaction(configure(requests=True), FakeHost()).needs_body


def test_all_that_is_built_in_is_described() -> None:
    described = (Path(__file__).parents[4] / "docs" / "redaction.md").read_text()
    assert [entity.name for entity in entities(("US",)) if f"| `{entity.name}` |" not in described] == []


# Counting


async def test_what_was_found_is_counted_by_entity(configure: Configure, ask: Ask) -> None:
    host = FakeHost("redaction")
    request = ask({"messages": [{"role": "user", "content": "ann@example.com sk-1234"}]}, "generic")
    exchange = await Simulation.admit(Redaction(configure(requests=True), host), request)
    exchange.start()
    exchange.respond()
    exchange.read(sse("ann@example.com ", "bob@example.com "))
    assert exchange.close() == {"MAIL": 2, "request.MAIL": 1, "request.KEY": 1}
    assert host.counts == {
        ("redactions", "MAIL", "reply"): 2, ("redactions", "MAIL", "request"): 1, ("redactions", "KEY", "request"): 1,
    }  # fmt: skip


# Requests

CHAT = {
    "model": "ann@example.com",
    "temperature": 0.10,
    "messages": [
        {"role": "system", "content": "You are ann@example.com."},
        {"role": "user", "content": [
            {"type": "text", "text": "bob@example.com"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,sk/12345"}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "ann@example.com", "type": "function", "function": {
                "name": "f", "arguments": "{\"to\": \"ann\\u0040example.com\"}",
            }},
        ]},
        {"role": "tool", "tool_call_id": "ann@example.com", "content": "{\"card\": 4111111111111111}"},
    ],
    "user": "ann@example.com",
}  # fmt: skip


async def admit(config: RedactionConfig, request: Request) -> object:
    return await Redaction(config, FakeHost()).admit(request)


async def test_every_text_of_a_call_is_looked_through(configure: Configure, ask: Ask) -> None:
    request = ask(CHAT)
    assert request.call.texts  # read before, so that later policies could see old ones
    await admit(configure(requests=True), request)
    document = json.loads(request.body or b"")
    system, user, assistant, tool = document["messages"]
    assert system["content"] == "You are [MAIL]."
    assert [part.get("text") for part in user["content"]] == ["[MAIL]", None]
    assert user["content"][1] == CHAT["messages"][1]["content"][1]  # type: ignore[index]
    (called,) = assistant["tool_calls"]
    assert (called["id"], json.loads(called["function"]["arguments"])) == ("ann@example.com", {"to": "[MAIL]"})
    assert (tool["tool_call_id"], json.loads(tool["content"])) == ("ann@example.com", {"card": "[CARD]"})
    assert (document["model"], document["user"]) == ("ann@example.com", "[MAIL]")
    assert b'"temperature":0.1' in (request.body or b"")
    assert "You are [MAIL]." in request.call.texts


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        ("openai-completions", {"model": "m", "prompt": ["ann@example.com", "x"], "suffix": "bob@example.com"}),
        ("generic", {"model": "m", "input": [{"q": {"name": "ann@example.com"}}], "instructions": "bob@example.com"}),
        ("generic", "ann@example.com"),
        ("generic", ["ann@example.com"]),
        ("generic", {"url": "data:;base64,x ann@example.com", "note": "A" * 600 + " ann@example.com"}),
        (
            "openai-chat",
            {"metadata": {"user_id": "ann@example.com"}, "tools": [{"parameters": {"type": "bob@example.com"}}]},
        ),
        ("openai-responses", {"prompt": {"id": "p", "variables": {"name": "x", "id": "ann@example.com"}}}),
        ("anthropic", {"messages": [{"content": [{"type": "tool_use", "input": {"type": "ann@example.com"}}]}]}),
        (
            "ollama",
            {"messages": [{"images": ["ann@example.com"], "tool_calls": [{"arguments": {"id": "ann@example.com"}}]}]},
        ),
        ("gemini", {"contents": [{"parts": [{"inlineData": {"mimeType": "text/plain", "data": "ann@example.com"}}]}]}),
        ("gemini", {"contents": [{"parts": [{"functionCall": {"args": {"id": "ann@example.com"}}}]}]}),
        ("gemini", {"contents": [{"parts": [{"functionCall": {"args": {"ann@example.com": 1}}}]}]}),
        ("gemini", {"contents": [{"parts": [{"functionResponse": {"response": {"ann@example.com": 1}}}]}]}),
        ("gemini", {"contents": [{"parts": [{"functionResponse": {"name": "ann@example.com"}}]}]}),
        ("ollama", {"messages": [{"tool_calls": [{"function": {"arguments": {"ann@example.com": 1}}}]}]}),
        ("ollama", {"messages": [{"tool_calls": [{"function": {"name": "ann@example.com"}}]}]}),
        ("ollama", {"messages": [{"role": "tool", "tool_name": "ann@example.com"}]}),
        ("anthropic", {"messages": [{"content": [{"type": "tool_use", "input": {"ann@example.com": 1}}]}]}),
        ("anthropic", {"messages": [{"content": [{"type": "tool_use", "name": "ann@example.com"}]}]}),
        ("openai-chat", {"messages": [{"tool_calls": [{"function": {"arguments": {"ann@example.com": 1}}}]}]}),
        ("openai-chat", {"messages": [{"name": "ann@example.com", "content": "x"}]}),
        ("openai-responses", {"metadata": {"ann@example.com": "x"}}),
    ],
)
async def test_in_any_dialect(dialect: str, document: Any, configure: Configure, ask: Ask) -> None:
    request = ask(document, dialect)
    await admit(configure(requests=True), request)
    assert b"@" not in (request.body or b"")
    assert b"[MAIL]" in (request.body or b"")


@pytest.mark.parametrize(
    ("dialect", "document", "redacted"),
    [
        (
            "anthropic",
            {"messages": [{"content": [{"type": "tool_use", "input": {"n": 4111111111111111}}]}]},
            {"messages": [{"content": [{"type": "tool_use", "input": {"n": "[CARD]"}}]}]},
        ),
        (
            "gemini",
            {"contents": [{"parts": [{"functionResponse": {"response": {"n": [4111111111111111, 1.5]}}}]}]},
            {"contents": [{"parts": [{"functionResponse": {"response": {"n": ["[CARD]", 1.5]}}}]}]},
        ),
    ],
)
async def test_numbers_in_what_tools_are_given_and_give(
    dialect: str, document: Any, redacted: Any, configure: Configure, ask: Ask
) -> None:
    request = ask(document, dialect)
    await admit(configure(requests=True), request)
    assert json.loads(request.body or b"") == redacted


async def test_a_text_in_base64(configure: Configure, ask: Ask) -> None:
    file = {"mimeType": "text/plain", "data": base64.b64encode(b"Ask ann@example.com").decode()}
    request = ask({"contents": [{"parts": [{"inlineData": file}]}]}, "gemini")
    await admit(configure(requests=True), request)
    (part,) = json.loads(request.body or b"")["contents"][0]["parts"]
    assert base64.b64decode(part["inlineData"]["data"]) == b"Ask [MAIL]"


async def test_of_repeated_names_the_last_one_is_what_the_model_gets(configure: Configure, ask: Ask) -> None:
    request = ask(b'{"messages":[{"content":"ann@example.com","content":"so"}]}')
    await admit(configure(requests=True), request)
    assert request.body == b'{"messages":[{"content":"so"}]}'


async def test_a_value_stands_behind_its_name(configure: Configure, ask: Ask) -> None:
    keys: dict[str, Any] = {"entities": ["SECRET"], "patterns": []}
    request = ask({"tools": [{"env": {"api_key": "hunter2hunter2XYZ9kq", "note": "hunter2hunter2XYZ9kq"}}]})
    await admit(configure(requests=True, **keys), request)
    (tool,) = json.loads(request.body or b"")["tools"]
    assert tool["env"] == {"api_key": "[SECRET]", "note": "hunter2hunter2XYZ9kq"}


async def test_a_request_in_which_nothing_is_found_stays_as_it_is(configure: Configure, ask: Ask) -> None:
    body = b'{ "messages" : [{"content": "so\\u0020what"}],  "n": 1.0, "x": [] }'
    request = ask(body)
    await admit(configure(requests=True), request)
    assert request.body == body
    quiet = ask(json.dumps(CHAT).encode())
    await admit(configure(), quiet)
    assert quiet.body == json.dumps(CHAT).encode()


async def test_a_long_text_is_read_in_turns(configure: Configure, ask: Ask) -> None:
    text = "ann@example.com " * 5000
    request = ask({"prompt": text})
    await admit(configure(requests=True), request)
    assert json.loads(request.body or b"")["prompt"] == "[MAIL] " * 5000


@pytest.mark.parametrize("body", [b"\xff\xd8 image", b"--x\r\nann@example.com", b"[" * 100 + b'"ann"' + b"]" * 100])
async def test_a_request_that_cannot_be_read(body: bytes, configure: Configure, ask: Ask) -> None:
    reply = await admit(configure(requests=True), ask(body))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.details) == (415, "redaction_unreadable")
    assert not isinstance(await admit(configure(requests=True, on_unknown="pass"), ask(body)), Reply)


async def test_a_request_without_a_body(configure: Configure, ask: Ask) -> None:
    request = ask()
    request.body = None
    assert not isinstance(await admit(configure(requests=True), request), Reply)


async def test_a_request_that_must_not_go_to_the_model(configure: Configure, ask: Ask) -> None:
    reply = await admit(configure(requests=True, action="stop"), ask(CHAT))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.details) == (403, "redaction_stopped")


async def test_pseudonyms_are_noted_in_the_request_and_nowhere_else(configure: Configure, ask: Ask) -> None:
    keys = {"requests": True, "action": "pseudonym", "pseudonym_key": "env:REDACTION_KEY"}
    request = ask({"prompt": "ann@example.com, bob@example.com, ann@example.com"}, "generic")
    exchange = await Simulation.admit(Redaction(configure(**keys), FakeHost()), request)
    ann, bob = request.pseudonyms
    assert request.pseudonyms == {ann: "ann@example.com", bob: "bob@example.com"}
    assert json.loads(request.body or b"") == {"prompt": f"{ann}, {bob}, {ann}"}
    exchange.start()
    exchange.respond(make_head(request))
    exchange.read(sse(f"{ann} ann@example.com eve@example.com "))
    (text,) = texts(exchange.delivered).values()
    assert text.startswith(f"{ann} {ann} MAIL_")
    assert len(request.pseudonyms) == 2
    assert Channel(0, Kind.TEXT, "/text") in texts(exchange.delivered)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (
            {"patterns": [{"name": "X", "pattern": "a1"}, {"name": "X", "pattern": "b2", "action": "stop"}]},
            "two tables",
        ),
        ({"patterns": [{"name": "X", "pattern": "a1"}], "dictionaries": [{"name": "X", "words": ["b"]}]}, "two tables"),
        (
            {"patterns": [{"name": "X", "pattern": "a1", "action": "stop"}], "actions": {"X": "placeholder"}},
            "say it once",
        ),
        ({"patterns": [{"name": "X", "pattern": "[[:alpha:]]{3}"}]}, "[:alpha:] is no class"),
        ({"patterns": [{"name": "X", "pattern": "a1", "before": "[x[:^digit:]]"}]}, "[:^digit:] is no class"),
        ({"placeholder": "<{name}>"}, "there is {entity}"),
        ({"placeholder": "<{}>"}, "there is {entity}"),
        ({"dictionaries": [{"name": "X", "words": ["a", "  "]}]}, "more than spaces"),
        ({"action": "mask"}, "{ mask = 4 }"),
        ({"actions": {"MAIL": "mask"}}, "{ mask = 4 }"),
    ],
)
def test_what_would_not_mean_what_it_says(
    keys: dict[str, Any], reason: str, problems: Callable[..., list[ConfigProblem]]
) -> None:
    assert reason in "; ".join(map(str, problems(**keys)))


IN_REQUESTS: list[tuple[str, Any]] = [
    ("openai-chat", {"user_id": "ann@example.com", "status": "ann@example.com", "event": "ann@example.com"}),
    ("openai-chat", {"end_user_id": "ann@example.com", "safety_identifier": "ann@example.com"}),
    ("openai-chat", {"prompt_cache_key": "ann@example.com", "user": "ann@example.com"}),
    ("ollama", {"format": "ann@example.com", "name": "ann@example.com"}),
    ("ollama", {"format": {"properties": {"a": {"description": "ann@example.com"}}, "title": "ann@example.com"}}),
    ("gemini", {"contents": [{"parts": [{"fileData": {"fileUri": "https://x.com/ann@example.com"}}]}]}),
    ("gemini", {"contents": [{"parts": [{"file_data": {"file_uri": "https://x.com/ann@example.com"}}]}]}),
]


@pytest.mark.parametrize(("dialect", "document"), IN_REQUESTS)
async def test_who_asks_is_looked_at_wherever_it_stands(
    dialect: str, document: Any, configure: Configure, ask: Ask
) -> None:
    request = ask(document, dialect)
    await Redaction(configure(requests=True), FakeHost("redaction")).admit(request)
    assert b"ann@" not in (request.body or b"")
    assert b"[MAIL]" in (request.body or b"")


async def test_an_identifier_that_the_server_gave_out_stays(configure: Configure, ask: Ask) -> None:
    document = {"previous_response_id": "sk-1234", "messages": [{"role": "tool", "tool_call_id": "sk-1234"}]}
    request = ask(document)
    await Redaction(configure(requests=True), FakeHost("redaction")).admit(request)
    assert json.loads(request.body or b"") == document
