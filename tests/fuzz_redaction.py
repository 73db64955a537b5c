"""Fuzz the redaction engine against its oracle: `python tests/fuzz_redaction.py --seconds 60 [--seed 1]`.

Random overlapping entities, random texts of little else than their beginnings, random cuts. Each round has a seed of its
own: what is printed for a failure makes it again with `--seed N --rounds 1`. Exit status: 0 none found; 1 found one.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import count, pairwise
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from rigs import redaction_hostile as hostile  # noqa: E402
from rigs.redaction_oracle import Oracle  # noqa: E402

from policies.redaction.entity import Entity  # noqa: E402
from policies.redaction.folding import fold  # noqa: E402
from policies.redaction.scanner import Scanner  # noqa: E402

TEXTS_A_ROUND = 20


def main() -> int:
    """Fuzz until the time, the rounds or the engine's luck is over."""
    parser = argparse.ArgumentParser(description="Fuzz the redaction engine against its oracle.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=sys.maxsize)
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    for seed in count(arguments.seed):
        if seed - arguments.seed >= arguments.rounds or time.monotonic() > until:
            print(f"{seed - arguments.seed} rounds of {TEXTS_A_ROUND} texts, nothing found")
            return 0
        fault = fuzz(seed)
        if fault:
            print(f"--seed {seed} --rounds 1: {fault}")
            return 1
    raise AssertionError("counting does not end")


def fuzz(seed: int) -> str | None:
    """One round; what is wrong, if anything is."""
    chance = Random(seed)
    entities = hostile.entities(chance)
    scanner, oracle = Scanner(entities), Oracle(entities)
    for _ in range(TEXTS_A_ROUND):
        text = hostile.text(chance, 30)
        whole = oracle.redact(text, _marked)
        cuts = [0, *sorted(chance.randint(0, len(text)) for _ in range(chance.randint(0, 8))), len(text)]
        redactor = scanner.redactor(_marked)
        sent = ""
        for start, end in pairwise(cuts):
            sent += redactor.feed(text[start:end])
            if not whole.startswith(sent):
                return f"{text!r} cut at {cuts}: sent {sent!r}, which does not begin {whole!r}; {entities}"
            if len(fold(text[end - redactor.held : end])) > scanner.width:
                return f"{text!r} cut at {cuts}: {redactor.held} held at {end}; {entities}"
        sent += redactor.finish()
        if sent != whole:
            return f"{text!r} cut at {cuts}: {sent!r}, not {whole!r}; {entities}"
    return None


def _marked(entity: Entity, text: str) -> str:
    return f"<{entity.name}:{text}>"


if __name__ == "__main__":
    sys.exit(main())
