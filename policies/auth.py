"""`auth`: who a request is from, by its API key or by the word of a trusted front; refuses those who have neither.

A key is looked for where the providers' own clients put it: `Authorization: Bearer`, x-api-key (Anthropic),
x-goog-api-key and ?key= (Gemini), api-key (Azure). It is taken out of the request there, good or bad, so that it never
reaches the model server, which gets its own from `[upstreams.NAME]`. Two different keys are refused, since whoever reads
only one of the places would believe another than we do. `Authorization` with any other scheme is no key.

`identity_header` names the field in which a front that authenticates clients says who they are. It is believed only of
requests that came through `[server] trusted_proxies` and from `trusted_from`, and then does instead of a key; from all
others it is dropped.

An edited `keys_file` takes effect within some two seconds, in every process: a key that was taken out lets nobody in any
more. While it is not right, what it last held that was stays in force, in a worker that starts meanwhile, too.

Put it before everything that counts by key, tenant or subject, and after `cors`. Two keys may share a tenant. Keys are
kept as SHA-256 (`proxy.identity.digest` says why that is enough); `penstock hash-key` makes one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, model_validator

from proxy.filewatch import LOOK_EVERY_S, WatchedFile
from proxy.forwarding import CREDENTIAL_FIELDS, take_credentials
from proxy.identity import Fact, Identity, digest
from proxy.messages import Reply, Request
from proxy.policy import Host, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage
from proxy.problems import check
from proxy.values import Name, Token

logger = logging.getLogger(__name__)

_KEYS_FILE_BYTES = 1 << 24  # some 100,000 keys
_KEY = re.compile(r"[!-~]{1,512}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUBJECT_CHARACTERS = 256
_BUCKET_BYTES = 2  # of a digest


def _sha256(given: str) -> str:
    if not _SHA256.fullmatch(given):  # perhaps the key itself, so it is not repeated
        raise ValueError("must be the SHA-256 of a key, 64 hexadecimal digits; `penstock hash-key` prints both")
    return given


def _moment(given: object) -> datetime:
    """TOML's date-times arrive as text."""
    try:
        moment = datetime.fromisoformat(str(given))
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise ValueError("must be a date and time with its offset, such as 2030-12-31T23:59:59Z")
    return moment


class Key(PolicyConfig):
    """One entry of `keys`."""

    id: Name  # what it is called in logs and limits
    sha256: Annotated[str, AfterValidator(_sha256)]
    tenant: Name | None = None
    expires: Annotated[datetime, PlainValidator(_moment)] | None = None


class _KeysTable(PolicyConfig):
    keys: tuple[Key, ...]


KeysFile = WatchedFile[tuple[Key, ...]]


def _keys_file(given: object, info: ValidationInfo) -> KeysFile:
    if isinstance(given, WatchedFile):
        return given
    if not isinstance(given, str) or not given.startswith("/"):
        raise ValueError("must be an absolute path")
    others = info.data.get("keys", ())
    last_right = (info.context or {}).get(given)
    return WatchedFile(given, lambda text: _read_keys(given, text, others), _KEYS_FILE_BYTES, last_right)


def _read_keys(path: str, text: str, others: Sequence[Key]) -> tuple[Key, ...]:
    """The keys in a keys file. Raises ValueError, also where they do not differ from the `others`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"file {path} is not valid TOML: {error}") from None
    except RecursionError:
        raise ValueError(f"file {path} is nested too deeply") from None
    table = check(_KeysTable, document, path)
    if isinstance(table, list):
        raise ValueError("\n".join(["is a file with mistakes:", *(f"    {problem}" for problem in table)]))
    _differing((*others, *table.keys))
    return table.keys


def _differing(keys: Sequence[Key]) -> Sequence[Key]:
    ids = _repeated(key.id for key in keys)
    if ids:
        raise ValueError(f"has several keys with the same id: {', '.join(ids)}")
    digests = _repeated(key.sha256 for key in keys)
    if digests:
        same = sorted(key.id for key in keys if key.sha256 in digests)
        raise ValueError(f"has the same key under several ids: {', '.join(same)}")
    return keys


def _repeated(values: Iterable[str]) -> list[str]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def _identity_header(given: str) -> str:
    if given.lower() in (name.lower() for name in CREDENTIAL_FIELDS):
        raise ValueError("must not be a field in which clients send API keys")
    return given


class AuthConfig(PolicyConfig):
    keys: Annotated[tuple[Key, ...], AfterValidator(_differing)] = ()
    keys_file: Annotated[KeysFile, PlainValidator(_keys_file)] | None = Field(None, description="an absolute path")
    missing: Literal["refuse", "anonymous"] = "refuse"
    unknown: Literal["refuse", "anonymous"] = "refuse"  # expired keys too
    identity_header: Annotated[Token, AfterValidator(_identity_header)] | None = None

    @property
    def all_keys(self) -> tuple[Key, ...]:
        return self.keys + (self.keys_file.value if self.keys_file is not None else ())

    @property
    def needs(self) -> Mapping[str, Fact]:
        return {} if self.identity_header is None else {"identity_header": "front"}

    @property
    def tells(self) -> Collection[Fact]:
        told: list[Fact] = ["subject"] if self.identity_header is not None else []
        if self.keys or self.keys_file is not None:
            told.append("key")
        if self.keys_file is not None or any(key.tenant for key in self.keys):
            told.append("tenant")
        return told

    @property
    def watched(self) -> Sequence[KeysFile]:
        return () if self.keys_file is None else (self.keys_file,)

    @model_validator(mode="after")
    def _somebody_gets_in(self) -> AuthConfig:
        if not self.tells and self.missing == self.unknown == "refuse":
            raise ValueError(
                "lets nobody in: it has neither `keys` nor a `keys_file` nor an `identity_header`; `penstock hash-key` makes a "
                'key, and `missing = "anonymous"` lets requests in without one'
            )
        return self


class Keyring:
    """Finds a key by its digest, in a time that tells nothing of the digests that are kept but their first bytes."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._buckets: dict[bytes, list[tuple[bytes, Key]]] = {}
        for key in keys:
            kept = bytes.fromhex(key.sha256)
            self._buckets.setdefault(kept[:_BUCKET_BYTES], []).append((kept, key))

    def find(self, credential: str) -> Key | None:
        asked = digest(credential)
        found = None
        for kept, key in self._buckets.get(asked[:_BUCKET_BYTES], ()):
            if hmac.compare_digest(kept, asked):
                found = key
        return found


class Auth(Policy[AuthConfig]):
    stage = Stage.ADMIT
    scope = Scope.ATTACHMENT
    sees = Sees.NOTHING
    Config = AuthConfig

    def __init__(self, config: AuthConfig, host: Host, wall_clock: Callable[[], float] = time.time) -> None:
        super().__init__(config, host)
        self._keyring = Keyring(config.all_keys)
        self._wall_clock = wall_clock
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self.config.keys_file is not None:
            self._watching = asyncio.create_task(self._watch(self.config.keys_file))

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    async def _watch(self, file: KeysFile) -> None:
        while True:
            await self.renew(file)
            await asyncio.sleep(LOOK_EVERY_S)

    async def renew(self, file: KeysFile) -> None:
        """Take over what the keys file says now; in a thread, since it may be long and its disk slow."""
        try:
            keyring = await asyncio.to_thread(self._look, file)
        except Exception as error:  # or a key that is taken out later would be good for ever
            reason = error if isinstance(error, ValueError) else type(error).__name__
            logger.error("policy %s goes on with the keys that it has: %s", self.host.name, reason)
        else:
            if keyring is not None:
                self._keyring = keyring
                logger.info("policy %s has read %s again: %d keys", self.host.name, file.path, len(file.value))

    def _look(self, file: KeysFile) -> Keyring | None:
        return Keyring(self.config.all_keys) if file.look() else None

    async def admit(self, request: Request) -> PolicyStream | Reply | None:
        found, request.query = take_credentials(request.headers, request.query)
        sent = {credential for place, value in found if (credential := _key(place, value))}
        subject = self._take_subject(request)
        if subject is None:
            return _refuse("The identity that a proxy in front stated for this client cannot be used.")
        key = self._authenticate(sent, subject)
        if isinstance(key, Reply):
            return key
        client = request.identity.client
        if key is None:
            request.identity = Identity(subject=subject, client=client)
            return None
        request.identity = Identity(key.id, key.tenant or "", subject, client)
        return AuthStream(key)

    def _take_subject(self, request: Request) -> str | None:
        """Whom the front says the request is from; "" where it says nothing, None where that cannot be used."""
        if self.config.identity_header is None:
            return ""
        stated = request.headers.popall(self.config.identity_header, [])
        if not request.fronted or not any(stated):
            return ""
        usable = len(stated) == 1 and len(stated[0]) <= _SUBJECT_CHARACTERS and stated[0].isprintable()
        return stated[0] if usable else None

    def _authenticate(self, sent: Collection[str], subject: str) -> Key | Reply | None:
        """The key that was sent; None for somebody without one who is let in."""
        if not all(_KEY.fullmatch(credential) for credential in sent):
            return _refuse("This is no API key: it is too long, or has characters that no key has.", "invalid_token")
        if len(sent) > 1:
            return _refuse("Different API keys were sent; send one.", "invalid_request", status=400)
        if not sent:
            if subject or self.config.missing == "anonymous":
                return None
            return _refuse("An API key is needed, such as in the field `Authorization: Bearer KEY`.")
        (credential,) = sent
        key = self._keyring.find(credential)
        expired = key is not None and key.expires is not None and key.expires.timestamp() <= self._wall_clock()
        if key is not None and not expired:
            return key
        if self.config.unknown == "anonymous":
            return None
        return _refuse(f"This API key {'has expired' if expired else 'is not known'}.", "invalid_token")


class AuthStream(PolicyStream):
    """Tells the access log which key it was. Not the subject: it may be a person's name."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def facts(self) -> Mapping[str, int | str]:
        key = self._key
        return {"key": key.id, "tenant": key.tenant} if key.tenant else {"key": key.id}


def _key(place: str, value: str) -> str:
    """The API key in a field's value; "" where there is none."""
    if place != "Authorization":
        return value
    scheme, _, key = value.partition(" ")
    return key.strip(" ") if scheme.lower() == "bearer" else ""


def _refuse(message: str, error: str = "", status: int | None = None) -> Reply:
    """`error` is a code of RFC 6750 §3.1; none where the client did not try to authenticate."""
    challenge = f'Bearer error="{error}"' if error else "Bearer"
    return Reply(status, details="unauthorized", message=message, headers={"WWW-Authenticate": challenge})
