"""`restore`: puts back, for the client who sent them, what earlier policies replaced by pseudonyms in its request.

Texts, reasoning and tool arguments (which stay valid JSON), streams and whole replies. Only pseudonyms of this very
request are put back; what the client sent is known to the exchange alone and is stored nowhere. The policies that log,
count or record stand before this one and see pseudonyms only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from proxy.identity import Fact
from proxy.messages import Request
from proxy.policy import Host, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage

from .redaction.actions import PSEUDONYM
from .redaction.entity import Entity
from .redaction.scanner import Scanner
from .redaction.stream import TextStream


def _beginnings(text: str) -> Iterator[int]:
    """Where in a match a pseudonym may begin: the model may have put words in capitals before it (`MY_EMAIL_...`)."""
    yield 0
    yield from (at + 1 for at, character in enumerate(text) if character == "_")


class RestoreConfig(PolicyConfig):
    """It has no keys."""

    @property
    def needs(self) -> Mapping[str, Fact]:
        return {"": "pseudonyms"}


class Restore(Policy[RestoreConfig]):
    stage = Stage.RESTORE
    scope = Scope.ATTACHMENT
    sees = Sees.EVENTS
    Config = RestoreConfig

    def __init__(self, config: RestoreConfig, host: Host) -> None:
        super().__init__(config, host)
        self._scanner = Scanner([PSEUDONYM])

    async def start(self) -> None:
        self._scanner.warm()

    async def admit(self, request: Request) -> PolicyStream | None:
        originals = request.pseudonyms
        if not originals:
            return None
        counts: Counter[str] = Counter()

        def replace(entity: Entity, text: str) -> str:
            for start in _beginnings(text):
                original = originals.get(text[start:].replace("\\", ""))
                if original is not None:
                    counts["restored"] += 1
                    return text[:start] + original
            return text

        return TextStream(self._scanner, replace, "pass", counts)
