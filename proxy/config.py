"""Strict TOML to frozen objects: `load` gives a whole `Config`, or a `ConfigError` with every problem in the file.

Nothing is converted, no unknown key is passed over. A policy's own keys are held against the policy's `Config` class in
the same way. Units stand in the names of keys: `_s`, `_bytes`. Each key is explained in config.example.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from .aiohttp_paths import Wanted
from .coherence import incoherences
from .dialects import AUTO, DIALECTS
from .errors import ConfigError, ConfigProblem
from .filewatch import WatchedFile
from .policy import PolicyConfig
from .problems import ModelT, check, listed, nearest, quoted
from .registry import COMMON_KEYS, Placed, PolicyClass, PolicyTable, Registry, Unusable, check_order
from .secrets import Secret, reason
from .values import (
    MEMORY,
    Address,
    CAFile,
    Count,
    HostName,
    IPNetwork,
    MisspeltError,
    Name,
    OptionalAddress,
    PathPrefix,
    Positive,
    Seconds,
    SecondsOrZero,
    StateUrl,
    Table,
    TCPAddress,
    Url,
    check_name,
)

MAX_FILE_BYTES = 1 << 20
MAX_WORKERS = 256
NO_TEXTS: Mapping[str, str] = MappingProxyType({})


def _dialect(given: str) -> str:
    if given != AUTO and given not in DIALECTS:
        raise MisspeltError(f"must be one of {listed((AUTO, *DIALECTS))}", nearest(given, (AUTO, *DIALECTS)))
    return given


class ListenerConfig(Table):
    """`[listeners.NAME]`"""

    address: Address


class AdminConfig(Table):
    """`[admin]`: /healthz, /readyz and /metrics. `address` None: off (written as "")."""

    address: OptionalAddress = TCPAddress("127.0.0.1", 9090)


class ServerConfig(Table):
    """`[server]`"""

    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    hang_s: SecondsOrZero = 30.0
    drain_s: SecondsOrZero = 30.0
    trusted_proxies: Count = 0
    trusted_from: tuple[IPNetwork, ...] = ()
    aiohttp: Wanted = "auto"

    @model_validator(mode="after")
    def _networks_have_a_use(self) -> ServerConfig:
        if self.trusted_from and not self.trusted_proxies:
            raise ValueError(
                "has `trusted_from`, but `trusted_proxies = 0`: nobody is believed; how many hops are trusted?"
            )
        return self


class Limits(Table):
    """`[limits]`: what one client, and one model server, can take of this process."""

    request_line_bytes: Positive = 8190
    header_field_bytes: Positive = 16384
    header_fields: Positive = 128
    body_bytes: Positive = 33554432
    reply_bytes: Positive = 33554432
    event_bytes: Positive = 1048576
    pause_bytes: Positive = 1048576
    write_buffer_bytes: Positive = 65536
    head_s: Seconds = 10.0
    body_s: Seconds = 30.0
    write_stall_s: Seconds = 30.0
    keepalive_s: Seconds = 75.0
    connections: Positive = 10000
    connections_per_ip: Count = 0


class StateConfig(Table):
    """`[state]`: where counters and leases are kept."""

    url: StateUrl = MEMORY
    username: str | None = None
    password: Secret | None = None
    ca_file: CAFile | None = None
    prefix: Name = "penstock"
    timeout_ms: Positive = 250
    connections: Positive = 16
    max_keys: Positive = 1000000

    @model_validator(mode="after")
    def _keys_have_a_use(self) -> StateConfig:
        if self.url == MEMORY and (self.username is not None or self.password is not None):
            raise ValueError(f'has a `username` or `password`, but its `url` is "{MEMORY}"')
        if self.ca_file is not None and not self.url.startswith("rediss://"):
            raise ValueError(
                'has a `ca_file`, but its `url` does not begin with "rediss://": nothing would be encrypted'
            )
        if self.url != MEMORY and find_spec("redis") is None:
            raise ValueError('needs the Redis client for its `url`, an extra: pip install "penstock[redis]"')
        return self


class LogConfig(Table):
    """`[log]`"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool = True


class UpstreamConfig(Table):
    """`[upstreams.NAME]`: one model server."""

    url: Url
    credential: Secret | None = None
    credential_header: Literal["authorization", "x-api-key", "x-goog-api-key", "api-key", "query:key"] = "authorization"
    connect_s: Seconds = 5.0
    pool_idle_s: Seconds = 4.0
    connections: Count = 0
    ca_file: CAFile | None = None
    preserve_host: bool = False

    @model_validator(mode="after")
    def _certificates_have_a_use(self) -> UpstreamConfig:
        if self.ca_file is not None and self.url.startswith("http://"):
            raise ValueError('has a `ca_file`, but its `url` is "http://": nothing would be encrypted or verified')
        return self


class RouteConfig(Table):
    """`[routes.NAME]`: which requests go to which upstream. `hosts` empty: all; `rewrite` None: the path is kept."""

    path: PathPrefix = "/"
    hosts: tuple[HostName, ...] = ()
    upstream: str
    dialect: Annotated[str, AfterValidator(_dialect)] = AUTO
    rewrite: PathPrefix | None = None


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One `[[policy]]` table with its class and its own keys. `label` is how messages name it; `routes` None: all of them."""

    label: str
    use: str
    name: str
    routes: frozenset[str] | None
    on_error: Literal["close", "bypass"]
    policy_class: PolicyClass
    config: PolicyConfig


@dataclass(frozen=True, slots=True)
class Config:
    """One whole, checked configuration file. `policies` is in the order of the file.

    `file` and `data` are what it was read from: `parse` makes the same of them in another process."""

    file: str
    data: bytes = field(repr=False)
    listeners: Mapping[str, ListenerConfig]
    admin: AdminConfig
    server: ServerConfig
    limits: Limits
    state: StateConfig
    log: LogConfig
    upstreams: Mapping[str, UpstreamConfig]
    routes: Mapping[str, RouteConfig]
    policies: tuple[PolicyEntry, ...]

    def chain(self, route: str) -> tuple[PolicyEntry, ...]:
        """The policies of `route`, in order."""
        return tuple(entry for entry in self.policies if entry.routes is None or route in entry.routes)

    @property
    def watched(self) -> tuple[WatchedFile[Any], ...]:
        """The files of all policies that are read again when they change."""
        return tuple(file for entry in self.policies for file in entry.config.watched)


def load(path: str | Path) -> Config:
    """Read and check a configuration file. Raises `ConfigError` with all that is wrong in it."""
    return parse(str(path), _read(Path(path)))


def parse(file: str, data: bytes, last_right: Mapping[str, str] = NO_TEXTS) -> Config:
    """Check a configuration file that has been read. Raises `ConfigError` with all that is wrong in it.

    `last_right` are texts of watched files (`WatchedFile.text`), by path, for those that have been spoilt meanwhile."""
    loader = _Loader(_document(file, data), Registry.scan(), last_right)
    loader.unknown_tables()
    loader.route_references()
    config = Config(
        file=file,
        data=data,
        listeners=loader.named("listeners", ListenerConfig),
        admin=loader.single("admin", AdminConfig),
        server=loader.single("server", ServerConfig),
        limits=loader.single("limits", Limits),
        state=loader.single("state", StateConfig),
        log=loader.single("log", LogConfig),
        upstreams=loader.named("upstreams", UpstreamConfig),
        routes=loader.named("routes", RouteConfig),
        policies=loader.policies(),
    )
    problems = [
        *loader.problems,
        *incoherences(config, chains_known=not any(map(_is_of_chains, loader.problems))),
    ]
    if problems:
        raise ConfigError(file, problems)
    return config


def _wrong(file: str, message: str) -> ConfigError:
    """The whole file is wrong."""
    return ConfigError(file, [ConfigProblem("", "", message)])


def _read(path: Path) -> bytes:
    """Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _wrong(str(path), f"cannot be read: {reason(error)}") from None
    if len(data) > MAX_FILE_BYTES:
        raise _wrong(str(path), f"is larger than {MAX_FILE_BYTES} bytes")
    return data


def _document(file: str, data: bytes) -> dict[str, Any]:
    """The file as plain dicts and lists. Raises `ConfigError`."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _wrong(file, f"is not UTF-8 text (at line {line})") from None
    except RecursionError:
        raise _wrong(file, "is not a configuration: its values are nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise _wrong(file, f"is not valid TOML: {error}") from None
    except ValueError:  # Python's own guard against numbers of thousands of digits
        raise _wrong(file, "is not a configuration: it holds a number that is too long to read") from None


_SINGLE: Mapping[str, type[BaseModel]] = {
    "admin": AdminConfig,
    "server": ServerConfig,
    "limits": Limits,
    "state": StateConfig,
    "log": LogConfig,
}
_ROOT = ("listeners", *_SINGLE, "upstreams", "routes", "policy")


class _Loader:
    """Goes through a whole document, whatever is wrong in it, and gathers `problems`.

    What could not be read is left out of what the methods return, or stands there with its defaults.
    """

    def __init__(self, document: dict[str, Any], registry: Registry, last_right: Mapping[str, str]) -> None:
        self._document = document
        self._registry = registry
        self._last_right = last_right
        self.problems: list[ConfigProblem] = []

    def unknown_tables(self) -> None:
        for key, given in self._document.items():
            if key in _ROOT:
                continue
            if isinstance(given, dict | list):
                self._wrong(quoted(key), "", "unknown table", nearest(key, _ROOT))
            else:
                owner = next((f"[{table}]" for table, model in _SINGLE.items() if key in model.model_fields), "")
                self._wrong("", quoted(key), "stands above all tables, where no key belongs", owner)

    def single(self, table: str, model: type[ModelT]) -> ModelT:
        return self._checked(model, self._document.get(table, {}), table) or model()

    def named(self, kind: str, model: type[ModelT]) -> Mapping[str, ModelT]:
        """The tables `[kind.NAME]`, of which there must be one."""
        tables = self._tables(kind)
        if not tables:
            self._wrong(kind, "", f"at least one table [{kind}.NAME] is needed")
            return {}
        found: dict[str, ModelT] = {}
        for name, given in tables.items():
            if not isinstance(given, dict):
                self._wrong(kind, quoted(name), f"must stand in a table with a name, such as [{kind}.main]")
                continue
            table = f"{kind}.{quoted(name)}"
            try:
                check_name(name)
            except ValueError as error:
                self._wrong(table, "", f"the name {error}")
            read = self._checked(model, given, table)
            if read is not None:
                found[name] = read
        return MappingProxyType(found)

    def route_references(self) -> None:
        for name, given in self._tables("routes").items():
            if isinstance(given, dict):
                self._reference(f"routes.{quoted(name)}", "upstream", given.get("upstream"), "upstreams")

    def policies(self) -> tuple[PolicyEntry, ...]:
        tables = self._document.get("policy", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._wrong("policy", "", "must be a list of tables, each under a [[policy]] in double brackets")
            return ()
        labels = [_label(number, table) for number, table in enumerate(tables, 1)]
        self._unique_names(labels, tables)
        classes = [self._policy_class(label, table) for label, table in zip(labels, tables, strict=True)]
        entries = [self._entry(*place) for place in zip(labels, tables, classes, strict=True)]
        self.problems += check_order(
            [
                Placed(label, policy_class)
                for label, table, policy_class in zip(labels, tables, classes, strict=True)
                if policy_class is not None and _applies(table, route)
            ]
            for route in self._tables("routes")
        )
        return tuple(entry for entry in entries if entry is not None)

    def _unique_names(self, labels: Sequence[str], tables: Sequence[dict[str, Any]]) -> None:
        first: dict[object, str] = {}
        for label, table in zip(labels, tables, strict=True):
            name = table.get("name", table.get("use"))
            if isinstance(name, str) and first.setdefault(name, label) != label:
                self._wrong(label, "name", f"must differ from the name of {first[name]}")

    def _policy_class(self, label: str, table: dict[str, Any]) -> PolicyClass | None:
        use = table.get("use")
        if not isinstance(use, str):
            return None
        loaded = self._registry.load(use)
        if isinstance(loaded, Unusable):
            names = self._registry.names
            self._wrong(label, "use", loaded.message, "" if use in names else nearest(use, names))
            return None
        return loaded

    def _entry(self, label: str, given: dict[str, Any], policy_class: PolicyClass | None) -> PolicyEntry | None:
        common = {key: value for key, value in given.items() if key in COMMON_KEYS}
        own = {key: value for key, value in given.items() if key not in COMMON_KEYS}
        table = self._checked(PolicyTable, common, label)
        routes = given.get("routes")
        for number, route in enumerate(routes if isinstance(routes, list) else (), 1):
            self._reference(label, f"routes[{number}]", route, "routes")
        if policy_class is None:
            return None
        config: PolicyConfig | None = None
        try:
            config = self._checked(policy_class.Config, own, label, COMMON_KEYS)
        except Exception as error:
            model = policy_class.Config.__qualname__
            self._wrong(label, "", f"{model} failed to read the keys: {type(error).__name__}: {error}")
        if given.get("on_error") == "bypass" and not policy_class.may_bypass:
            self._wrong(label, "on_error", 'must be "close": this policy holds, changes or stops what passes')
        if table is None or config is None:
            return None
        return PolicyEntry(
            label=label,
            use=table.use,
            name=table.name or table.use,
            routes=None if table.routes is None else frozenset(table.routes),
            on_error=table.on_error,
            policy_class=policy_class,
            config=config,
        )

    def _tables(self, kind: str) -> dict[str, Any]:
        tables = self._document.get(kind)
        return tables if isinstance(tables, dict) else {}

    def _reference(self, table: str, key: str, name: object, kind: str) -> None:
        """`key` of `table` must name one of the tables `[kind.NAME]`; of another type it is reported elsewhere."""
        names = self._tables(kind)
        if isinstance(name, str) and name not in names:
            suggestion = nearest(name, names)
            known = f"; there are {listed(names)}" if names and not suggestion else ""
            self._wrong(table, key, f"there is no table [{kind}.{quoted(name)}]{known}", suggestion)

    def _checked(
        self, model: type[ModelT], given: object, table: str, other_keys: Collection[str] = ()
    ) -> ModelT | None:
        checked = check(model, given, table, other_keys, self._last_right)
        if isinstance(checked, list):
            self.problems += checked
            return None
        return checked

    def _wrong(self, table: str, key: str, message: str, suggestion: str = "") -> None:
        self.problems.append(ConfigProblem(table, key, message, suggestion))


def _label(number: int, table: dict[str, Any]) -> str:
    """How messages name a `[[policy]]` table: the first in the file is 1."""
    name = table.get("name", table.get("use"))
    return f"policy[{number}] ({quoted(name)})" if isinstance(name, str) and name else f"policy[{number}]"


def _applies(table: dict[str, Any], route: str) -> bool:
    routes = table.get("routes")
    return not isinstance(routes, list) or route in routes


def _is_of_chains(problem: ConfigProblem) -> bool:
    """Whether what is wrong leaves open what the policies of the file, and what stands before them, would tell."""
    return problem.table.startswith(("policy", "server", "listeners"))
