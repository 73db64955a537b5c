"""What becomes of a match: a placeholder, a mask, a pseudonym, or the end of the stream.

A pseudonym is `NAME_` and twelve letters from a to p: 48 bits of an HMAC-SHA-256 of the name and the text. Letters only,
so that it is not itself taken for a number; the same text has the same pseudonym wherever the key is the same.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from proxy.policy import PolicyConfig
from proxy.secrets import Secret

from .entity import Entity

PSEUDONYM = Entity("PSEUDONYM", r"[A-Z](?:[A-Z0-9]|\\?_){0,63}\\?_[a-p]{12}", before=r"[A-Z\d]", after=r"[a-z\d]")
"""What a pseudonym looks like, as a thing to find: also where another stands before it, or its `_` are escaped as Markdown has
it, but not in a longer word."""

_LETTERS = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")
_LENGTH = 12


class StopRequested(Exception):
    """A match whose action is to end the stream. Says which entity, never the text."""


class Mask(PolicyConfig):
    """Asterisks for all letters and digits but the last `mask`, of which no more than half are kept."""

    mask: Annotated[int, Field(ge=0, le=16)]


def _worded(given: object) -> object:
    if given == "mask":
        raise ValueError("is written { mask = 4 }: how many characters stay")
    return given


Action: TypeAlias = Annotated[Literal["placeholder", "pseudonym", "stop"] | Mask, BeforeValidator(_worded)]


def mask(text: str, keep: int) -> str:
    """`text` with an asterisk for each letter and digit but the last `keep`, or the last half where that is fewer."""
    left = sum(map(str.isalnum, text))
    keep = min(keep, left // 2)
    masked = []
    for character in text:
        hidden = character.isalnum()
        if hidden:
            hidden = left > keep
            left -= 1
        masked.append("*" if hidden else character)
    return "".join(masked)


def pseudonym(key: bytes, name: str, text: str) -> str:
    """The pseudonym of `text`, which was found as the entity `name`."""
    digest = hmac.digest(key, f"{name}\0{text}".encode(errors="surrogatepass"), hashlib.sha256)
    return f"{name}_{digest.hex().encode().translate(_LETTERS)[:_LENGTH].decode()}"


class Actions:
    """The action of each entity, by name."""

    def __init__(
        self, default: Action, special: Mapping[str, Action], placeholder: str, pseudonym_key: Secret | None
    ) -> None:
        self._default = default
        self._special = special
        self._placeholder = placeholder
        self._key = b"" if pseudonym_key is None else pseudonym_key.get_secret_value().encode()

    @property
    def makes_pseudonyms(self) -> bool:
        return "pseudonym" in (self._default, *self._special.values())

    def of(self, entity: Entity) -> Action:
        """What happens to matches of `entity`. One that commits is replaced before all of it is there: the default can
        only be a placeholder for it, if it is not to stop."""
        special = self._special.get(entity.name)
        if special is not None:
            return special
        return "placeholder" if entity.swallow and self._default != "stop" else self._default

    def write(self, entity: Entity, text: str, pseudonyms: dict[str, str] | None = None) -> str:
        """What to write for `text`; a pseudonym is noted in `pseudonyms` with it. Raises `StopRequested`."""
        action = self.of(entity)
        if isinstance(action, Mask):
            return mask(text, action.mask)
        if action == "pseudonym":
            written = pseudonym(self._key, entity.name, text)
            if pseudonyms is not None:
                pseudonyms[written] = text
            return written
        if action == "stop":
            raise StopRequested(entity.name)
        return self._placeholder.replace("{entity}", entity.name)
