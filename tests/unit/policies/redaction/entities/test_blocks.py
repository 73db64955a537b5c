"""Blocks: long ones are swallowed, and what follows one without an end is not."""

from __future__ import annotations

from collections.abc import Callable

from rigs import redaction_cases as cases

from policies.redaction.scanner import Scanner

Redact = Callable[[str], str]


def test_long_secrets_commit_early_and_are_swallowed(scanner: Scanner) -> None:
    for case in cases.positives():
        if case.entity not in ("PRIVATE_KEY", "JWT"):
            continue
        redactor = scanner.redactor(lambda entity, found: "#")
        held = []
        for character in case.text[: case.end]:
            redactor.feed(character)
            held.append(redactor.held)
        assert max(held) < 320
        assert held[-1] <= 40  # what may still be the marker of the end


def test_a_key_without_its_end_is_swallowed_up_to_what_cannot_stand_in_one(redact: Redact) -> None:
    text = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA75ZgHq1fD3Ld\n```\nThat was it."
    assert redact(text) == "[PRIVATE_KEY]```\nThat was it."
