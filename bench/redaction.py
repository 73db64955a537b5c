"""What redaction costs: `python -m bench.redaction [--check]`. One process, no sockets; a minute.

All default entities are on, and text comes in deltas of four characters, as from a model. Times are multiples of
`orjson.loads` of one chat chunk of 250 bytes, measured in the same run: only such a ratio can be compared between machines.
Medians are of calls timed one by one, the timer's own cost taken off; means and worst deltas are CPU time, so that they
are the code's doing and not the scheduler's. The first stream after `warm` stands apart from the steady state: what a
text is the first to need is built there.

Exit status: 0; with `--check`, 1 if a figure misses its limit.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any, NamedTuple

import orjson

from policies.redaction.entities import entities
from policies.redaction.entity import Entity, dictionary
from policies.redaction.scanner import Scanner

CHUNK = (
    b'{"id":"chatcmpl-9f8b7c6d5e4f3a2b1c0d","object":"chat.completion.chunk","created":1719000000,'
    b'"model":"gpt-4o-mini-2024-07-18","system_fingerprint":"fp_0f03d4f0ee",'
    b'"choices":[{"index":0,"delta":{"content":" hel"},"logprobs":null,"finish_reason":null}]}'
)
# The beginning of "Alice's Adventures in Wonderland" (Lewis Carroll, 1865), which is in the public domain.
PROSE = (Path(__file__).parent / "prose.txt").read_text(encoding="utf-8")
DELTA = 4
ROUNDS = 20
HOSTILE_CHARACTERS = 4_000
WORDS = 10_000


class Figure(NamedTuple):
    """One line of what is printed; without a limit it is only worth knowing."""

    what: str
    value: float
    unit: str
    limit: float | None = None


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description="What redaction costs.")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a figure misses its limit")
    check = parser.parse_args().check
    missed = False
    for figure in figures():
        over = figure.limit is not None and figure.value > figure.limit
        missed |= over
        limit = "" if figure.limit is None else f"   at most {figure.limit:g}{'   MISSED' if over else ''}"
        print(f"{figure.what:52} {figure.value:9.2f} {figure.unit:10}{limit}", flush=True)
    return 1 if missed and check else 0


def figures() -> Iterable[Figure]:
    """All figures, in the order in which they are printed."""
    began = time.perf_counter()
    scanner = Scanner(entities())
    compiled = time.perf_counter()
    scanner.warm()
    yield Figure("compile", compiled - began, "s", 2.0)
    yield Figure("warm", time.perf_counter() - compiled, "s")

    parse = parsing()
    first = mean_cost(scanner, PROSE)
    costs, held = stream(scanner, PROSE)
    held.sort()
    yield Figure("orjson.loads of one chunk, mean", parse.mean / 1e3, "us")
    yield Figure("prose, a delta, median", median(costs) / parse.median, "x", 4.0)
    yield Figure("prose, a delta, mean", mean(mean_cost(scanner, PROSE) for _ in range(ROUNDS)) / parse.mean, "x", 8.0)
    yield Figure("prose, a delta, mean of the first stream", first / parse.mean, "x", 8.0)
    yield Figure("prose, a delta, median", median(costs) / 1e3, "us")
    yield Figure("prose, held, mean", mean(held), "characters", 3.5)
    yield Figure("prose, held, p99", held[len(held) * 99 // 100], "characters", 20.0)

    for name, text in hostile().items():
        yield Figure(f"{name}, a delta, mean of the first stream", mean_cost(scanner, text) / parse.mean, "x", 100.0)
        yield Figure(f"{name}, the worst delta of a fresh scanner", worst_ms(text), "ms", 5.0)

    found = [dictionary("WORD", random_words()), *entities()]
    began = time.perf_counter()
    large = Scanner(found)
    yield Figure(f"{WORDS} words beside them, compile", time.perf_counter() - began, "s", 2.0)
    large.warm()
    cost = mean(mean_cost(large, PROSE) for _ in range(ROUNDS))
    yield Figure(f"{WORDS} words beside them, prose, a delta, mean", cost / parse.mean, "x", 8.0)
    yield Figure("memory, warm", memory_mib(entities()), "MiB")
    yield Figure(f"{WORDS} words beside them, memory, warm", memory_mib(found), "MiB")


def hostile() -> dict[str, str]:
    """Texts that keep the entities' hopes up."""
    chance = Random(4)

    def of(characters: str) -> str:
        return "".join(chance.choice(characters) for _ in range(HOSTILE_CHARACTERS))

    def again(text: str) -> str:
        return (text * HOSTILE_CHARACTERS)[:HOSTILE_CHARACTERS]

    return {
        "digits": of("0123456789"),
        "digits and separators": of("0123456789  --.."),
        "one digit": again("4"),
        "sk- again and again": again("sk-"),
        "a.a-a_ again and again": again("a.a-a_"),
        "almost addresses": again("a.b@c.d-e_f@"),
        "hexadecimal and colons": of("0123456789abcdef:::"),
        "base64": of("ABCDEFabcdefghijkl0123456789+/="),
        "nothing but matches": "".join(f"u{n}@mail{n}.example.com 4111 1111 1111 1111 " for n in range(100)),
        "never the same character": "".join(chr(0x4E00 + n) for n in range(HOSTILE_CHARACTERS)),
    }


def stream(scanner: Scanner, text: str) -> tuple[list[float], list[int]]:
    """For each delta of `text`: the nanoseconds it took, and the characters held after it."""
    redactor = scanner.redactor(placeholder)
    feed, clock, off = redactor.feed, time.perf_counter_ns, timer()
    costs, held = [], []
    for at in range(0, len(text), DELTA):
        delta = text[at : at + DELTA]
        began = clock()
        feed(delta)
        costs.append(clock() - began - off)
        held.append(redactor.held)
    redactor.finish()
    return costs, held


def mean_cost(scanner: Scanner, text: str) -> float:
    """Nanoseconds of CPU time for a delta of `text`, on average."""
    deltas = [text[at : at + DELTA] for at in range(0, len(text), DELTA)]
    feed = scanner.redactor(placeholder).feed
    began = time.thread_time_ns()
    for delta in deltas:
        feed(delta)
    return (time.thread_time_ns() - began) / len(deltas)


def memory_mib(found: list[Entity] | tuple[Entity, ...]) -> float:
    """What a warm scanner holds in memory."""
    tracemalloc.start()
    scanner = Scanner(found)
    scanner.warm()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return held / 2**20


def worst_ms(text: str) -> float:
    """The CPU time of the worst delta that a scanner sees which has never seen anything like it."""
    scanner = Scanner(entities())
    scanner.warm()
    gc.collect()
    feed = scanner.redactor(placeholder).feed
    worst = 0
    for at in range(0, len(text), DELTA):
        delta = text[at : at + DELTA]
        began = time.thread_time_ns()
        feed(delta)
        worst = max(worst, time.thread_time_ns() - began)
    return worst / 1e6


class Parsing(NamedTuple):
    """Nanoseconds of one `orjson.loads`: call by call, and CPU time of many."""

    median: float
    mean: float


def parsing() -> Parsing:
    """What everything is compared with."""
    calls = 20_000
    one_by_one = median(timed(orjson.loads, CHUNK, calls)) - timer()
    began = time.thread_time_ns()
    for _ in range(calls):
        orjson.loads(CHUNK)
    return Parsing(one_by_one, (time.thread_time_ns() - began) / calls)


def timer() -> float:
    """Nanoseconds that timing costs itself."""
    return median(timed(len, "", 2_000)) - 20  # of which a call of `len` is this much


def timed(call: Callable[[Any], object], argument: object, times: int) -> list[int]:
    """Nanoseconds of each of so many calls."""
    clock = time.perf_counter_ns
    taken = []
    for _ in range(times):
        began = clock()
        call(argument)
        taken.append(clock() - began)
    return taken


def random_words() -> list[str]:
    """As many different words as a large dictionary has, of the letters and lengths of names."""
    chance = Random(5)
    words: set[str] = set()
    while len(words) < WORDS:
        words.add("".join(chance.choice("aaeeiioulnrstmdkbgvz") for _ in range(chance.randint(5, 11))).title())
    return sorted(words)


def placeholder(entity: Entity, text: str) -> str:
    return f"[{entity.name}]"


if __name__ == "__main__":
    sys.exit(main())
