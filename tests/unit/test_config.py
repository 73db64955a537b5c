"""A right file becomes frozen objects with the stated defaults; a wrong one is refused with all that is wrong in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError
from rigs.config_files import HEARTBEAT, KEY, MINIMAL, ROUTE

from policies.heartbeat import Heartbeat, HeartbeatConfig
from proxy.config import MAX_FILE_BYTES, Config, load, parse
from proxy.dialects import DIALECTS
from proxy.errors import ConfigError
from proxy.values import TCPAddress, UnixAddress

Install = Callable[..., Path]


def test_the_smallest_file_and_its_defaults(read: Callable[[str], Config]) -> None:
    config = read(MINIMAL)
    assert config.listeners["main"].address == TCPAddress("127.0.0.1", 8080)
    assert config.admin.address == TCPAddress("127.0.0.1", 9090)
    assert (config.server.workers, config.server.drain_s, config.server.trusted_proxies) == (1, 30.0, 0)
    assert (config.server.hang_s, config.server.aiohttp) == (30.0, "auto")
    assert config.limits.model_dump() == {
        "request_line_bytes": 8190,
        "header_field_bytes": 16384,
        "header_fields": 128,
        "body_bytes": 33554432,
        "reply_bytes": 33554432,
        "event_bytes": 1048576,
        "pause_bytes": 1048576,
        "write_buffer_bytes": 65536,
        "head_s": 10.0,
        "body_s": 30.0,
        "write_stall_s": 30.0,
        "keepalive_s": 75.0,
        "connections": 10000,
        "connections_per_ip": 0,
    }
    assert (config.log.level, config.log.access) == ("info", True)
    assert config.upstreams["model"].model_dump() == {
        "url": "http://127.0.0.1:8000",
        "credential": None,
        "credential_header": "authorization",
        "connect_s": 5.0,
        "pool_idle_s": 4.0,
        "connections": 0,
        "ca_file": None,
        "preserve_host": False,
    }
    assert config.routes["all"].model_dump() == {
        "path": "/",
        "hosts": (),
        "upstream": "model",
        "dialect": "auto",
        "rewrite": None,
    }
    assert config.policies == ()


def test_a_full_file(read: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_API_KEY", "sk-1")
    config = read("""
        [listeners.main]
        address = "[::1]:0"
        [listeners.socket]
        address = "unix:/run/penstock.sock"
        [admin]
        address = ""
        [server]
        drain_s = 0
        [upstreams.model]
        url = "https://models.example.com/base/"
        credential = "env:MODEL_API_KEY"
        credential_header = "x-api-key"
        [routes.chat]
        path = "/v1/chat"
        hosts = ["a.example.com", "b.example.com"]
        upstream = "model"
        rewrite = "/v2"
        [routes.rest]
        upstream = "model"
        [[policy]]
        use = "cors"
        allow_origins = ["*"]
        [[policy]]
        use = "heartbeat"
        name = "slow-heartbeat"
        routes = ["rest"]
        on_error = "bypass"
        interval_s = 60
        """)
    assert [str(listener.address) for listener in config.listeners.values()] == ["[::1]:0", "unix:/run/penstock.sock"]
    assert isinstance(config.listeners["socket"].address, UnixAddress)
    assert config.admin.address is None
    assert config.server.drain_s == 0.0
    upstream = config.upstreams["model"]
    assert upstream.url == "https://models.example.com/base"
    assert upstream.credential is not None
    assert upstream.credential.get_secret_value() == "sk-1"
    assert config.routes["chat"].hosts == ("a.example.com", "b.example.com")
    assert [entry.name for entry in config.policies] == ["cors", "slow-heartbeat"]
    heartbeat = config.policies[1]
    assert (heartbeat.use, heartbeat.routes, heartbeat.on_error) == ("heartbeat", frozenset({"rest"}), "bypass")
    assert heartbeat.policy_class is Heartbeat
    assert isinstance(heartbeat.config, HeartbeatConfig)
    assert heartbeat.config.interval_s == 60.0
    assert [entry.name for entry in config.chain("chat")] == ["cors"]
    assert [entry.name for entry in config.chain("rest")] == ["cors", "slow-heartbeat"]


def test_nothing_of_it_can_be_changed(read: Callable[[str], Config]) -> None:
    config = read(MINIMAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.policies = ()  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.limits.head_s = 1.0
    with pytest.raises(TypeError):
        config.routes["other"] = config.routes["all"]  # type: ignore[index]


COMPRESSION = '[[policy]]\nuse = "compression"\n'

MISTAKES: dict[str, tuple[str, list[str]]] = {
    # tables
    "empty file": (
        "",
        [
            "[listeners] at least one table [listeners.NAME] is needed",
            "[upstreams] at least one table [upstreams.NAME] is needed",
            "[routes] at least one table [routes.NAME] is needed",
        ],
    ),
    "unknown table": (MINIMAL + "[limit]\nhead_s = 1.0", ["[limit] unknown table (did you mean 'limits'?)"]),
    "unknown list of tables": (MINIMAL + "[[policies]]", ["[policies] unknown table (did you mean 'policy'?)"]),
    "unknown table like no other": (MINIMAL + '["a b"]', ['["a b"] unknown table']),
    "key above all tables": ("nope = 1" + MINIMAL, ["nope: stands above all tables, where no key belongs"]),
    "key above its table": (
        "drain_s = 1.0" + MINIMAL,
        ["drain_s: stands above all tables, where no key belongs (did you mean '[server]'?)"],
    ),
    "no table but a value": ("log = 5" + MINIMAL, ["[log] must be a table, not a whole number"]),
    "nameless listener": (
        MINIMAL.replace("[listeners.main]", "[listeners]"),
        ["[listeners] address: must stand in a table with a name, such as [listeners.main]"],
    ),
    "listeners as a list": (
        MINIMAL.replace("[listeners.main]", "[[listeners]]"),
        ["[listeners] at least one table [listeners.NAME] is needed"],
    ),
    "name with a space": (
        MINIMAL.replace("listeners.main", 'listeners."the main"'),
        [
            '[listeners."the main"] the name must be 1 to 64 letters, digits, dots, hyphens or underscores, '
            "a letter or digit first"
        ],
    ),
    # keys
    "unknown key": (MINIMAL + "[limits]\nhead = 1.0", ["[limits] head: unknown key (did you mean 'head_s'?)"]),
    "unknown key like no other": (
        MINIMAL + "[log]\nxyz = 1",
        ["[log] xyz: unknown key; there are access, level"],
    ),
    "missing key": (MINIMAL.replace("url", "# url"), ["[upstreams.model] url: is missing"]),
    "text for a number": (MINIMAL + '[limits]\nhead_s = "1"', ["[limits] head_s: must be a number, not text"]),
    "zero where there is no zero": (MINIMAL + "[limits]\nhead_s = 0", ["[limits] head_s: must be greater than 0"]),
    "negative": (MINIMAL + "[server]\ndrain_s = -1.0", ["[server] drain_s: must be at least 0"]),
    "no worker": (MINIMAL + "[server]\nworkers = 0", ["[server] workers: must be at least 1"]),
    "too many workers": (MINIMAL + "[server]\nworkers = 1000", ["[server] workers: must be at most 256"]),
    "not a number": (MINIMAL + "[limits]\nhead_s = nan", ["[limits] head_s: must be a finite number"]),
    "infinite": (MINIMAL + "[server]\ndrain_s = inf", ["[server] drain_s: must be a finite number"]),
    "half a connection": (
        MINIMAL + "[limits]\nconnections = 0.5",
        ["[limits] connections: must be a whole number, not a number with a decimal point"],
    ),
    "nearly a choice": (
        MINIMAL + '[log]\nlevel = "warn"',
        ['[log] level: must be "debug", "info", "warning" or "error" (did you mean \'warning\'?)'],
    ),
    # addresses, upstreams
    "no address": (
        MINIMAL.replace("127.0.0.1:8080", "8080"),
        ['[listeners.main] address: must be "host:port" with a port from 0 to 65535, "[v6]:port" or "unix:/path"'],
    ),
    "two listeners on one address": (
        MINIMAL + '[listeners.other]\naddress = "127.0.0.1:8080"\n[admin]\naddress = "127.0.0.1:8080"',
        [
            "[listeners.other] address: is the address of [listeners.main] already",
            "[admin] address: is the address of [listeners.main] already",
            "[admin] address: is the address of [listeners.other] already",
        ],
    ),
    "password in a URL": (
        MINIMAL.replace("http://127", "http://user:hunter2@127"),
        ['[upstreams.model] url: must not hold a user or password; put a key into `credential = "env:NAME"`'],
    ),
    "credential in plain": (
        MINIMAL.replace("[routes.all]", 'credential = "sk-12345678"\n[routes.all]'),
        [
            '[upstreams.model] credential: must be a reference, "env:NAME" or "file:/path"; '
            "the secret itself is never written here"
        ],
    ),
    "credential that is not there": (
        MINIMAL.replace("[routes.all]", 'credential = "env:PENSTOCK_TEST_NOT_SET"\n[routes.all]'),
        ["[upstreams.model] credential: environment variable PENSTOCK_TEST_NOT_SET is not set"],
    ),
    "certificates that are not there": (
        MINIMAL.replace("http:", "https:").replace("[routes.all]", 'ca_file = "/nonexistent/ca.pem"\n[routes.all]'),
        ["[upstreams.model] ca_file: cannot be read: no such file or directory"],
    ),
    # routes
    "unknown upstream": (
        MINIMAL.replace('upstream = "model"', 'upstream = "modle"'),
        ["[routes.all] upstream: there is no table [upstreams.modle] (did you mean 'model'?)"],
    ),
    "upstream like no other": (
        MINIMAL.replace('upstream = "model"', 'upstream = "xyz"'),
        ["[routes.all] upstream: there is no table [upstreams.xyz]; there are model"],
    ),
    "path with a slash too many": (
        MINIMAL + 'path = "/v1/"',
        ["[routes.all] path: must be written in its normal form (did you mean '/v1'?)"],
    ),
    "two routes for all": (
        MINIMAL + ROUTE,
        ["[routes.other] path: takes the same requests as [routes.all]: same path, same host"],
    ),
    "two routes for one host": (
        MINIMAL + 'hosts = ["a", "b"]\n' + ROUTE + 'hosts = ["c", "b"]',
        ["[routes.other] path: takes the same requests as [routes.all]: same path, same host"],
    ),
    "unknown dialect": (
        MINIMAL + 'dialect = "opnai-chat"',
        [
            f"[routes.all] dialect: must be one of {', '.join(sorted(['auto', *DIALECTS]))} "
            "(did you mean 'openai-chat'?)",
        ],
    ),
    # policies
    "policy in single brackets": (
        MINIMAL + '[policy]\nuse = "cors"',
        ["[policy] must be a list of tables, each under a [[policy]] in double brackets"],
    ),
    "policies that are no tables": (
        "policy = [1]" + MINIMAL,
        ["[policy] must be a list of tables, each under a [[policy]] in double brackets"],
    ),
    "policy without a use": (MINIMAL + "[[policy]]\ninterval_s = 1", ["[policy[1]] use: is missing"]),
    "use that is no text": (MINIMAL + "[[policy]]\nuse = 1", ["[policy[1]] use: must be text, not a whole number"]),
    "unknown policy": (
        MINIMAL + '[[policy]]\nuse = "hartbeat"',
        ["[policy[1] (hartbeat)] use: no policy of this name is installed (did you mean 'heartbeat'?)"],
    ),
    "unknown key of a policy": (
        MINIMAL + HEARTBEAT + "interval = 5.0",
        ["[policy[1] (heartbeat)] interval: unknown key (did you mean 'interval_s'?)"],
    ),
    "misspelt common key": (
        MINIMAL + HEARTBEAT + 'on_eror = "close"',
        ["[policy[1] (heartbeat)] on_eror: unknown key (did you mean 'on_error'?)"],
    ),
    "policy key of the wrong type": (
        MINIMAL + HEARTBEAT + "interval_s = true",
        ["[policy[1] (heartbeat)] interval_s: must be a number, not true or false"],
    ),
    "policy key that is missing": (
        MINIMAL + '[[policy]]\nuse = "cors"',
        ["[policy[1] (cors)] allow_origins: is missing"],
    ),
    "unknown route": (
        MINIMAL + HEARTBEAT + 'routes = ["all", "al"]',
        ["[policy[1] (heartbeat)] routes[2]: there is no table [routes.al] (did you mean 'all'?)"],
    ),
    "no routes": (
        MINIMAL + HEARTBEAT + "routes = []",
        ["[policy[1] (heartbeat)] routes: must have 1 or more items"],
    ),
    "routes that are no text": (
        MINIMAL + HEARTBEAT + "routes = [1]",
        ["[policy[1] (heartbeat)] routes[1]: must be text, not a whole number"],
    ),
    "one name twice": (
        MINIMAL + HEARTBEAT + HEARTBEAT,
        ["[policy[2] (heartbeat)] name: must differ from the name of policy[1] (heartbeat)"],
    ),
    "name of another": (
        MINIMAL + HEARTBEAT + COMPRESSION + 'name = "heartbeat"',
        ["[policy[2] (heartbeat)] name: must differ from the name of policy[1] (heartbeat)"],
    ),
    "policy name with a line break": (
        MINIMAL + HEARTBEAT + 'name = "a\\nb"',
        [
            '[policy[1] ("a\\nb")] name: must be 1 to 64 letters, digits, dots, hyphens or underscores, '
            "a letter or digit first"
        ],
    ),
    "bypass of what must not be bypassed": (
        MINIMAL + COMPRESSION + 'on_error = "bypass"',
        ['[policy[1] (compression)] on_error: must be "close": this policy holds, changes or stops what passes'],
    ),
    "two encoders": (
        MINIMAL + COMPRESSION + COMPRESSION + 'name = "more"',
        [
            "[policy[2] (more)] a second policy at stage ENCODE on one route, "
            "after policy[1] (compression); there can be only one"
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(problems: Callable[[str], list[str]], text: str, expected: list[str]) -> None:
    told = problems(text)
    assert told == expected
    assert not any("hunter2" in message or "sk-12345678" in message for message in told)


def test_wrong_order(problems: Callable[[str], list[str]]) -> None:
    (told,) = problems(MINIMAL + HEARTBEAT + '[[policy]]\nuse = "idle_timeout"\n')
    first, *stages = told.splitlines()
    assert first.startswith(
        "[policy[2] (idle_timeout)] stands after policy[1] (heartbeat), but stage GUARD (watches what"
    )
    assert [line.split()[0] for line in stages[1:]][:2] == ["ADMIT", "GUARD"]


def test_order_counts_within_a_route(read: Callable[[str], Config], problems: Callable[[str], list[str]]) -> None:
    routes = MINIMAL + 'path = "/a"\n' + ROUTE
    late, early = HEARTBEAT + 'routes = ["all"]\n', '[[policy]]\nuse = "idle_timeout"\nroutes = ["other"]\n'
    assert len(read(routes + late + early).policies) == 2
    assert len(problems(routes + HEARTBEAT + early)) == 1


CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBiDCCAS2gAwIBAgIUMeShlVZaIcg/H4RxqtqoZcnSu7EwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNcGVuc3RvY2stdGVzdDAgFw0yNjExMjMwOTA1NDJaGA8yMTI2
MTAzMDA5MDU0MlowGDEWMBQGA1UEAwwNcGVuc3RvY2stdGVzdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABLEKetEFQOQSEWRkS1sXnjer1UQmLSxZNBolefmXMMmd
f+/z1zZJJO1RBGcpw9TbILu2YEQGAJQtXN7WBaymwmqjUzBRMB0GA1UdDgQWBBTo
Gf6mS3AwoPAL50Nx43AFOv85QzAfBgNVHSMEGDAWgBToGf6mS3AwoPAL50Nx43AF
Ov85QzAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQDxBtjlJF53
QmoGBAhXefNyCZ9yX0W2ibU72i/r1eFRiAIhAMmZHh5l+IPXhBeemJ89yxOn/+ok
d04MrEv4ymchhi7I
-----END CERTIFICATE-----
"""


def test_certificates_need_tls(
    read: Callable[[str], Config], problems: Callable[[str], list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(CERTIFICATE)
    text = MINIMAL.replace("[routes.all]", f'ca_file = "{path}"\n[routes.all]')
    assert read(text.replace("http:", "https:")).upstreams["model"].ca_file == str(path)
    assert problems(text) == [
        '[upstreams.model] has a `ca_file`, but its `url` is "http://": nothing would be encrypted or verified'
    ]


STATES: dict[str, tuple[str, str]] = {
    "a password for nobody": (
        'password = "env:REDIS_PASSWORD"',
        '[state] has a `username` or `password`, but its `url` is "memory://"',
    ),
    "a user of nothing": ('username = "anna"', '[state] has a `username` or `password`, but its `url` is "memory://"'),
    "certificates without TLS": (
        'url = "redis://127.0.0.1:6379"\nca_file = "{ca_file}"',
        '[state] has a `ca_file`, but its `url` does not begin with "rediss://": nothing would be encrypted',
    ),
}


@pytest.mark.parametrize(("text", "expected"), STATES.values(), ids=STATES)
def test_keys_of_the_state_that_have_no_use(
    problems: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "Quito-1147")
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    text = text.replace("{ca_file}", str(tmp_path / "ca.pem"))
    assert problems(f"{MINIMAL}[state]\n{text}") == [expected]


def test_redis_needs_its_client(
    read: Callable[[str], Config], problems: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = MINIMAL + '[state]\nurl = "redis://127.0.0.1:6379/1"'
    assert read(text).state.url == "redis://127.0.0.1:6379/1"
    monkeypatch.setattr("proxy.config.find_spec", lambda name: None if name == "redis" else pytest.fail(name))
    assert problems(text) == ['[state] needs the Redis client for its `url`, an extra: pip install "penstock[redis]"']
    assert read(MINIMAL).state.url == "memory://"


def test_networks_of_fronts_without_fronts(problems: Callable[[str], list[str]]) -> None:
    (told,) = problems(MINIMAL + '[server]\ntrusted_from = ["10.0.0.0/8"]')
    assert told.startswith("[server] has `trusted_from`, but `trusted_proxies = 0`")


def test_watched_files(read: Callable[[str], Config], tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(KEY)
    config = read(MINIMAL + f'[[policy]]\nuse = "auth"\nkeys_file = "{path}"\n')
    (file,) = config.watched
    assert (file.path, file.text) == (str(path), KEY)
    path.write_text("keys = [")
    (again,) = parse(config.file, config.data, {file.path: file.text}).watched
    assert again.value == file.value
    with pytest.raises(ConfigError):
        parse(config.file, config.data)
    assert read(MINIMAL).watched == ()


def test_all_mistakes_at_once_each_with_the_file(read: Callable[[str], Config], tmp_path: Path) -> None:
    text = """
        [listners.main]
        [limits]
        head_s = 0
        boddy_s = 1
        [upstreams.model]
        url = "127.0.0.1"
        [routes.all]
        path = "v1"
        upstream = "modle"
        [[policy]]
        use = "compression"
        gzip_level = 10
        [[policy]]
        use = "heartbeat"
        interval_s = 0
        routes = ["al"]
        """
    with pytest.raises(ConfigError) as raised:
        read(text)
    lines = [line for line in str(raised.value).splitlines() if not line.startswith("    ")]
    file = tmp_path / "penstock.toml"
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [
        "[listners] unknown table (did you mean 'listeners'?)",
        "[routes.all] upstream",
        "[listeners] at least one table [listeners.NAME] is needed",
        "[limits] head_s",
        "[limits] boddy_s",
        "[upstreams.model] url",
        "[routes.all] path",
        "[policy[1] (compression)] gzip_level",
        "[policy[2] (heartbeat)] routes[1]",
        "[policy[2] (heartbeat)] interval_s",
    ]
    assert all(line.startswith(f"{file}: ") for line in lines)


def test_policies_with_wrong_keys_are_still_put_in_order(problems: Callable[[str], list[str]]) -> None:
    told = problems(MINIMAL + HEARTBEAT + 'interval_s = 0\n[[policy]]\nuse = "idle_timeout"\nnope = 1')
    assert [message.partition("]:")[0].partition(" s")[0] for message in told][-1] == "[policy[2] (idle_timeout)]"
    assert len(told) == 3


def test_a_policy_that_cannot_be_used(problems: Callable[[str], list[str]], install: Install) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake="class Brake: api = 2")
    assert problems(MINIMAL + '[[policy]]\nuse = "brake"\nanything = 1') == [
        "[policy[1] (brake)] use: acme 1.0: acme_brake:Brake is made for version 2 of the policy API; this is version 1"
    ]


def test_a_policy_whose_config_raises(problems: Callable[[str], list[str]], install: Install) -> None:
    source = """
import re
from pydantic import field_validator
from proxy.policy import Policy, PolicyConfig, Stage

class BrakeConfig(PolicyConfig):
    pattern: str

    @field_validator("pattern")
    @classmethod
    def compiles(cls, value: str) -> str:
        re.compile(value)
        return value

class Brake(Policy[BrakeConfig]):
    stage = Stage.GUARD
    Config = BrakeConfig
"""
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=source)
    assert problems(MINIMAL + '[[policy]]\nuse = "brake"\npattern = "("') == [
        "[policy[1] (brake)] BrakeConfig failed to read the keys: error: "
        "missing ), unterminated subpattern at position 0"
    ]


FILES: dict[str, tuple[bytes, str]] = {
    "a value is missing": (b"[log]\nlevel =\n", "is not valid TOML: Invalid value (at line 2, column 8)"),
    "a table twice": (b"[log]\n[log]\n", "is not valid TOML: Cannot declare ('log',) twice (at line 2, column 5)"),
    "a key twice": (b"[log]\na = 1\na = 2\n", "is not valid TOML: Cannot overwrite a value (at line 3, column 6)"),
    "never closed": (b'a = "', "is not valid TOML: Unterminated string (at end of document)"),
    "a number too far": (
        b"a = " + b"9" * 5000,
        "is not a configuration: it holds a number that is too long to read",
    ),
    "brackets without end": (b"a = " + b"[" * 10000, "is not a configuration: its values are nested too deeply"),
    "another encoding": (b"[log]\n# gr\xfc\xdfe\n", "is not UTF-8 text (at line 2)"),
    "a program": (b"\x7fELF\x02\x01\x01\x00\xff", "is not UTF-8 text (at line 1)"),
    "too large": (b"#" * (MAX_FILE_BYTES + 1), f"is larger than {MAX_FILE_BYTES} bytes"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "penstock.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert str(raised.value) == f"{path}: {message}"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    load(path)


def test_another_process_can_make_the_same_of_it(read: Callable[[str], Config]) -> None:
    config = read(MINIMAL)
    assert config.data == MINIMAL.encode()
    assert parse(config.file, config.data) == config
    assert "127.0.0.1:8000" not in repr(config).split("listeners")[0], "its text is not shown"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "nope.toml", "no such file or directory"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigError) as raised:
            load(str(path))
        assert str(raised.value) == f"{path}: cannot be read: {reason}"


def test_the_original_error_with_the_values_is_not_carried_along(read: Callable[[str], Config]) -> None:
    with pytest.raises(ConfigError) as raised:
        read(MINIMAL.replace("[routes.all]", 'credential = "sk-12345678"\n[routes.all]'))
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
