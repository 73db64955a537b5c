"""`redaction`: keeps personal data and secrets out of replies and, if asked, out of prompts, while they stream.

Nothing that is part of a match ever leaves, however a text is cut into events, and nothing else is held longer than
until it is certain that it is none. docs/redaction.md says what is looked for where, and what is dropped when.

- Replies (`replies`): streams and whole ones, errors too; text, reasoning, refusals, tool arguments (which stay valid JSON).
- Requests (`requests`): every text of the call, before it goes to the model. With the action "pseudonym" and the policy
  `restore` further down, the client who sent a text finds it in the reply again.
- What cannot be read as text (sound, images, unknown encodings) is refused, unless `on_unknown` is "pass".
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator, PrivateAttr, model_validator

from proxy.dialects.documents import decode_editable, encode, key_at, repeats_names
from proxy.identity import Fact
from proxy.messages import Reply, Request
from proxy.policy import Host, Policy, PolicyConfig, PolicyStream, Sees, Stage
from proxy.problems import nearest
from proxy.secrets import Secret, read_text

from .actions import Action, Actions, Mask, StopRequested
from .cost import check_cost
from .entities import entities as default_entities
from .entity import BudgetExceeded, Entity, dictionary
from .json_text import TextRedactor
from .scanner import Replace, Scanner
from .stream import OnUnknown, TextStream, Unreadable, reason

_WORDS_FILE_BYTES = 1 << 24
_KEY_BYTES = 16  # of `pseudonym_key`, at least
_TURN_CHARACTERS = 4096  # of a request are read before other exchanges have their turn

EntityName = Annotated[str, Field(pattern="^[A-Z][A-Z0-9_]{0,63}$")]


_NAMED = re.compile(r"\{(\w*)\}")
_POSIX_CLASS = re.compile(r"\[[^\]]*(\[:\^?[a-z]{1,16}:\])")


def _placeholder(given: str) -> str:
    if not given.strip() or not given.isprintable() or len(given) > 64:
        raise ValueError("must be printable, of 1 to 64 characters")
    for name in _NAMED.findall(given):
        if name != "entity":
            raise ValueError(f"{{{name}}} is nothing that can be filled in: there is {{entity}}")
    return given


def _without_posix_classes(given: str) -> str:
    found = _POSIX_CLASS.search(given)
    if found is not None:
        raise ValueError(f"{found[1]} is no class of characters here: write out what it stands for, or \\w, \\d, \\s")
    return given


def _no_space(given: str) -> str:
    if not given.strip():
        raise ValueError("must be more than spaces")
    return given


PatternText = Annotated[str, AfterValidator(_without_posix_classes)]


def _words_file(given: object) -> tuple[str, ...]:
    if not isinstance(given, str) or not given.startswith("/"):
        raise ValueError("must be an absolute path")
    return tuple(word for line in read_text(given, _WORDS_FILE_BYTES).splitlines() if (word := line.strip()))


class PatternTable(PolicyConfig):
    """One `[[policy.patterns]]` table: a pattern of the operator's, as in `entity.py`."""

    name: EntityName
    pattern: Annotated[PatternText, Field(min_length=1)]
    before: PatternText = ""
    after: PatternText = ""
    action: Action | None = None

    def entity(self) -> Entity:
        return Entity(self.name, self.pattern, before=self.before, after=self.after)


class DictionaryTable(PolicyConfig):
    """One `[[policy.dictionaries]]` table: words, or a file with one a line."""

    name: EntityName
    words: tuple[Annotated[str, AfterValidator(_no_space)], ...] = ()
    words_file: Annotated[tuple[str, ...], PlainValidator(_words_file)] = ()
    ignore_case: bool = True
    action: Action | None = None

    def entity(self) -> Entity:
        words = self.words + self.words_file
        if not words:
            raise ValueError(f"the dictionary {self.name} has no words")
        return dictionary(self.name, words, ignore_case=self.ignore_case)


class RedactionConfig(PolicyConfig):
    replies: bool = True
    requests: bool = False
    entities: tuple[EntityName, ...] | None = Field(None, description="which of the built-in ones; by default all")
    regions: tuple[str, ...] = ("US",)
    action: Action = "placeholder"
    actions: dict[EntityName, Action] = Field(default_factory=dict, description="action by entity")
    placeholder: Annotated[str, AfterValidator(_placeholder)] = "[{entity}]"
    pseudonym_key: Secret | None = None
    patterns: tuple[PatternTable, ...] = ()
    dictionaries: tuple[DictionaryTable, ...] = ()
    on_unknown: OnUnknown = "refuse"
    _scanner: Scanner = PrivateAttr()
    _actions: Actions = PrivateAttr()

    @property
    def scanner(self) -> Scanner:
        return self._scanner

    @property
    def writer(self) -> Actions:
        return self._actions

    @property
    def tells(self) -> Collection[Fact]:
        makes: Fact = "pseudonyms"
        return (makes,) if self.requests and self._actions.makes_pseudonyms else ()

    @model_validator(mode="after")
    def _compile(self) -> RedactionConfig:
        """All that can be wrong with what to look for is found here, so that `penstock check` says it."""
        if not self.replies and not self.requests:
            raise ValueError("has neither `replies` nor `requests` to look through")
        built_in = self._built_in()
        self._check_names(built_in)
        # The operator's go before the built-in ones where both match the same.
        found = [*(table.entity() for table in self._own), *built_in]
        if not found:
            raise ValueError("has nothing to look for: `entities` is empty, and there are no patterns or dictionaries")
        special = self._special(found)
        if self.pseudonym_key is None and "pseudonym" in (self.action, *special.values()):
            raise ValueError('needs `pseudonym_key = "env:NAME"` for the action "pseudonym"')
        key = self.pseudonym_key
        if key is not None and len(key.get_secret_value().encode()) < _KEY_BYTES:
            raise ValueError(f"pseudonym_key: must have {_KEY_BYTES} bytes at least, or it can be guessed")
        check_cost([table.entity() for table in self.patterns])
        self._scanner = Scanner(found)
        self._check_placeholder(found)
        self._actions = Actions(self.action, special, self.placeholder, self.pseudonym_key)
        return self

    @property
    def _own(self) -> tuple[PatternTable | DictionaryTable, ...]:
        return (*self.patterns, *self.dictionaries)

    def _built_in(self) -> list[Entity]:
        if "UK" in self.regions:
            raise ValueError('regions: "UK" is no code of ISO 3166 (did you mean "GB"?)')
        known = list(default_entities(self.regions))
        if self.entities is not None:
            names = {entity.name for entity in known}
            for name in self.entities:
                if name not in names:
                    raise ValueError(f"entities: there is no {name}{_meant(name, names)}")
            known = [entity for entity in known if entity.name in self.entities]
        return known

    def _check_names(self, built_in: list[Entity]) -> None:
        """Actions and counts are told apart by name."""
        taken = {
            entity.name: "a built-in entity: choose another, or leave that out of `entities`" for entity in built_in
        }
        for table in self._own:
            if table.name in taken:
                raise ValueError(f"{table.name} is the name of {taken[table.name]}")
            taken[table.name] = "two tables: their actions and counts could not be told apart"

    def _check_placeholder(self, found: list[Entity]) -> None:
        """What is written must not itself be something to find: a later policy, or the next request, would find it."""
        for entity in found:
            written = self.placeholder.replace("{entity}", entity.name)
            if self._scanner.redact(written, lambda entity, text: "") != written:
                raise ValueError(f"placeholder: {written!r} is itself something that would be found")

    def _special(self, found: list[Entity]) -> dict[str, Action]:
        """The actions of single entities."""
        committing = {entity.name for entity in found if entity.swallow}
        names = {entity.name for entity in found}
        special = dict(self.actions)
        for table in self._own:
            if table.action is not None:
                if table.name in self.actions:
                    raise ValueError(f"actions: {table.name} has its action in its own table already: say it once")
                special[table.name] = table.action
        for name, action in special.items():
            if name not in names:
                raise ValueError(f"actions: there is no {name}{_meant(name, names)}")
            if name in committing and (isinstance(action, Mask) or action == "pseudonym"):
                raise ValueError(
                    f"actions: {name} is replaced before all of it has come, so it can only be a placeholder or a stop"
                )
        return special


def _meant(name: str, names: set[str]) -> str:
    meant = nearest(name, names)
    return f" (did you mean {meant}?)" if meant else f"; there are {', '.join(sorted(names))}"


class Redaction(Policy[RedactionConfig]):
    stage = Stage.TRANSFORM
    sees = Sees.EVENTS
    Config = RedactionConfig

    def __init__(self, config: RedactionConfig, host: Host) -> None:
        super().__init__(config, host)
        self.needs_body = config.requests
        self._scanner, self._write = config.scanner, config.writer.write  # pydantic looks long for what is private
        self._count = host.counter(
            "redactions", "What was found, by entity, in requests and in replies.", ("entity", "where")
        )

    async def start(self) -> None:
        self._scanner.warm()

    async def admit(self, request: Request) -> PolicyStream | Reply | None:
        counts: Counter[str] = Counter()
        if self.config.requests and request.body:
            try:
                await self._redact_request(request, self._replace(counts, "request", request.pseudonyms))
            except Unreadable:
                message = "The request has a form that cannot be checked here."
                return Reply(415, details="redaction_unreadable", message=message)
            except (StopRequested, BudgetExceeded) as error:
                return Reply(details=reason(error))
        if self.config.replies:
            replace = self._replace(counts, "reply", None)
            return TextStream(self._scanner, replace, self.config.on_unknown, counts)
        return _RequestOnly(counts)

    def _replace(self, counts: Counter[str], where: str, pseudonyms: dict[str, str] | None) -> Replace:
        """What to write for a match, counting it."""
        write, count, prefix = self._write, self._count, "request." if where == "request" else ""

        def replace(entity: Entity, text: str) -> str:
            counts[prefix + entity.name] += 1
            count(1, entity.name, where)
            return write(entity, text, pseudonyms)

        return replace

    async def _redact_request(self, request: Request, replace: Replace) -> None:
        """Replace what is found in the request's texts; leave the body as it is where nothing is."""
        try:
            root = [decode_editable(request.body or b"")]
            slots = list(request.dialect.request_texts(root))
            changed = repeats_names(request.body or b"", root[0])  # only the last of them would be looked at
        except ValueError:
            if self.config.on_unknown == "refuse":
                raise Unreadable from None
            return
        due = _TURN_CHARACTERS
        for slot in slots:
            text, parts = slot.text, []
            redactor = TextRedactor(self._scanner, replace, key=key_at(slot.path))
            for at in range(0, len(text), _TURN_CHARACTERS):
                part = text[at : at + _TURN_CHARACTERS]
                due -= len(part)
                if due <= 0:
                    due = _TURN_CHARACTERS
                    await asyncio.sleep(0)
                parts.append(redactor.feed(part))
            parts.append(redactor.finish())
            redacted = "".join(parts)
            if redacted != text:
                changed = True
                slot.put(redacted)
        if changed:
            request.replace_body(encode(root[0]))


class _RequestOnly(PolicyStream):
    """Leaves the reply alone; says what was found in the request."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def facts(self) -> Mapping[str, int]:
        return self._counts
