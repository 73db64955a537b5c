"""What providers make of OpenAI's chat completions: read, redacted and counted as they send it. `fixtures/README.md` says
after whose documentation their replies were written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from rigs.doubles import Loop, Reading
from rigs.matrix import Run, Table, make_policy, make_request, texts
from rigs.wires import BY_NAME, JSON, SSE

from proxy.errors import COMPLETE

FIXTURES = Path(__file__).parents[1] / "fixtures" / "written"
BUDGET: Table = {"use": "token_limit", "per": "all", "windows": [{"tokens": 10_000, "window_s": "total"}]}
REDACTION: Table = {"use": "redaction"}
WIRE = BY_NAME["OpenAI chat completions"]

ANSWER, THOUGHT = "Write to ann at example dot org, please.", "She is ann at example dot org, I think."
"""What each of them says, in pieces: " at " and " dot " are some. Of a mail address they are what makes it one."""


class Provider(NamedTuple):
    file: str
    usage: tuple[int, int]
    """Of input and output, as stated."""
    thinks: bool = True


AZURE, MISTRAL, GROQ, DEEPSEEK = (9, 21), (9, 42), (9, 37), (9, 33)
PROVIDERS = [
    Provider("azure_chat_filtered.sse", AZURE, thinks=False),
    Provider("azure_chat_filtered_later.sse", AZURE, thinks=False),
    Provider("azure_chat_filtered.json", AZURE, thinks=False),
    Provider("mistral_chat_thinking.sse", MISTRAL),
    Provider("mistral_chat_thinking.json", MISTRAL),
    Provider("groq_chat_reasoning.sse", GROQ),
    Provider("groq_chat_usage_beside.sse", GROQ),
    Provider("groq_chat_reasoning.json", GROQ),
    Provider("deepseek_chat_keep_alive.sse", DEEPSEEK),
    Provider("deepseek_chat.json", DEEPSEEK),
]
EVERY_PROVIDER = pytest.mark.parametrize("provider", PROVIDERS, ids=[provider.file for provider in PROVIDERS])


async def play(provider: Provider, body: bytes, *tables: Table) -> Run:
    """This reply, through these policies, to a client that asks for the usage."""
    loop = Loop()
    streamed = provider.file.endswith(".sse")
    policies = [make_policy(table, loop) for table in tables]
    run = Run(policies, loop, make_request(WIRE, streamed=streamed, usage=True))
    await run.admit()
    run.respond(Reading(SSE if streamed else JSON))
    await run.feed(*(event + b"\n\n" for event in body.removesuffix(b"\n\n").split(b"\n\n")) if streamed else (body,))
    run.reading.eof()
    await run.settle()
    assert run.relay.outcome == COMPLETE
    return run


def said(provider: Provider, body: bytes) -> list[str]:
    """The texts of the answer and of the thoughts."""
    wire = WIRE if provider.file.endswith(".sse") else replace(WIRE, media_type=JSON)
    return [text for text in texts(wire, body).values() if text.startswith(("Write", "She"))]


@EVERY_PROVIDER
async def test_what_has_nothing_to_redact_is_equal_and_its_usage_counts(provider: Provider) -> None:
    body = (FIXTURES / provider.file).read_bytes()
    run = await play(provider, body, BUDGET)
    assert run.body == body
    run = await play(provider, body, REDACTION, BUDGET)
    assert sorted(said(provider, run.body)) == sorted([ANSWER, *[THOUGHT] * provider.thinks])
    facts = run.facts()["token_limit"]
    assert (facts["input_tokens"], facts["output_tokens"], facts["source"]) == (*provider.usage, "usage")


@EVERY_PROVIDER
async def test_what_is_redacted_is_in_no_text(provider: Provider) -> None:
    body = (FIXTURES / provider.file).read_bytes().replace(b" at ", b"@").replace(b" dot ", b".")
    run = await play(provider, body, REDACTION, BUDGET)
    redacted = [text.replace("ann at example dot org", "[EMAIL]") for text in (ANSWER, *[THOUGHT] * provider.thinks)]
    assert sorted(said(provider, run.body)) == sorted(redacted)
    assert b"@" not in run.body
    assert b"example.org" not in run.body


@EVERY_PROVIDER
async def test_without_its_usage_the_texts_count(provider: Provider) -> None:
    body = (FIXTURES / provider.file).read_bytes().replace(b'"completion_tokens"', b'"of_output"')
    body = body.replace(b'"total_tokens"', b'"of_all"')
    facts = (await play(provider, body, BUDGET)).facts()["token_limit"]
    assert facts["source"] == "counted"
    least = len(ANSWER) // 4 if provider.file.endswith(".json") else 8
    assert least * (1 + provider.thinks) <= facts["output_tokens"] <= 3 * least * (1 + provider.thinks)
