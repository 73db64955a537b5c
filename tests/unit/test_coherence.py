"""Tables that are right by themselves and do not go together are refused, and only those."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.config_files import HEARTBEAT, KEY, MINIMAL, ROUTE

from proxy.config import Config

Install = Callable[..., Path]


def test_routes_that_only_look_alike(read: Callable[[str], Config]) -> None:
    read(MINIMAL + 'hosts = ["a"]\n' + ROUTE)
    read(MINIMAL + 'hosts = ["a"]\n' + ROUTE + 'hosts = ["b"]')
    read(MINIMAL + 'path = "/a"\n' + ROUTE)


def test_free_ports_are_not_the_same_address(read: Callable[[str], Config]) -> None:
    read(MINIMAL.replace("8080", "0") + '[listeners.other]\naddress = "127.0.0.1:0"\n[admin]\naddress = "127.0.0.1:0"')


NEEDY = """
from proxy.policy import Policy, PolicyConfig, Stage

class Brake(Policy):
    stage = Stage.ADMIT
    Config = PolicyConfig
    needs_state = True
"""


def test_several_workers_need_a_state_that_they_share(
    read: Callable[[str], Config], problems: Callable[[str], list[str]], install: Install
) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=NEEDY)
    policies = '[[policy]]\nuse = "brake"\n[[policy]]\nuse = "brake"\nname = "second"\n' + HEARTBEAT
    workers, redis = "[server]\nworkers = 3\n", '[state]\nurl = "redis://127.0.0.1:6379"\n'
    assert problems(MINIMAL + workers + policies) == [
        "[state] url: with `workers = 3` these policies need a state that all of them share, such as "
        '"redis://127.0.0.1:6379": brake, second'
    ]
    for text in (policies, redis + workers + policies, workers + HEARTBEAT):
        read(MINIMAL + text)


PATIENT = """
from proxy.policy import Policy, PolicyConfig, Stage

class BrakeConfig(PolicyConfig):
    patience_s: float = 0.5

    @property
    def state_answers_within_s(self) -> float:
        return self.patience_s

class Brake(Policy):
    stage = Stage.ADMIT
    Config = BrakeConfig
    needs_state = True
"""


def test_a_state_may_not_be_slower_than_policies_can_wait_for(
    read: Callable[[str], Config], problems: Callable[[str], list[str]], install: Install
) -> None:
    install("acme", {"brake": "acme_brake:Brake"}, acme_brake=PATIENT)
    policies = '[[policy]]\nuse = "brake"\n[[policy]]\nuse = "brake"\nname = "calm"\npatience_s = 0.501\n' + HEARTBEAT
    redis = '[state]\nurl = "redis://127.0.0.1:6379"\n'
    assert problems(MINIMAL + redis + "timeout_ms = 501\n" + policies) == [
        "[state] timeout_ms: must be at most 500: policy brake, as it is set, cannot wait longer"
    ]
    assert len(problems(MINIMAL + redis + "timeout_ms = 502\n" + policies)) == 2
    for text in (redis + "timeout_ms = 500\n" + policies, "[state]\ntimeout_ms = 502\n" + policies):
        read(MINIMAL + text)


RATE = '[[policy]]\nuse = "request_rate"\nwindows = [{ requests = 1, window_s = 1 }]\n'
AUTH = f'[[policy]]\nuse = "auth"\n{KEY}'
TENANT = AUTH.replace('"alice",', '"alice", tenant = "acme",')
FRONT = '[[policy]]\nuse = "auth"\nidentity_header = "X-User"\n'
REDACTION = '[[policy]]\nuse = "redaction"\nentities = ["EMAIL"]\npseudonym_key = "env:PSEUDONYM_KEY"\n'
RESTORE = '[[policy]]\nuse = "restore"\n'
NETWORK = '[server]\ntrusted_proxies = 1\ntrusted_from = ["10.0.0.0/8"]\n'
UNIX = '[server]\ntrusted_proxies = 1\n[listeners.main]\naddress = "unix:/run/penstock.sock"\n'


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (RATE + 'per = "key"', "[policy[1] (request_rate)] per: needs to know the key, which nobody tells on route all"),
        (AUTH + RATE + 'per = "tenant"', "needs to know the tenant, which nobody tells on route all: put `auth` with keys"),
        (TENANT + RATE + 'per = "subject"', "needs to know the subject, which nobody tells on route all: put `auth` with an"),
        (
            RATE + 'per = "key"\n' + AUTH,
            "[policy[1] (request_rate)] per: needs to know the key, which policy[2] (auth) tells only after it",
        ),
        (
            '[[policy]]\nuse = "stream_cap"\ncap = 1\nper = "key"\n' + AUTH.replace('"auth"', '"auth"\nname = "doors"'),
            "[policy[1] (stream_cap)] per: needs to know the key, which policy[2] (doors) tells only after it",
        ),
        (RESTORE, "[policy[1] (restore)] needs to know the pseudonyms, which nobody tells on route all: put `redaction` with"),
        (REDACTION + 'action = "pseudonym"\nrequests = false\n' + RESTORE, "needs to know the pseudonyms, which nobody tells"),
        (REDACTION + "requests = true\n" + RESTORE, "needs to know the pseudonyms, which nobody tells"),
        (FRONT, "[policy[1] (auth)] identity_header: is never believed while `trusted_proxies` of [server] is 0"),
    ],
)  # fmt: skip
def test_what_a_policy_needs_to_know_somebody_before_it_must_tell(
    problems: Callable[[str], list[str]], policies: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSEUDONYM_KEY", "sixteen bytes...")
    (told,) = problems(MINIMAL + policies)
    assert message in told


def test_it_must_be_told_on_every_route(problems: Callable[[str], list[str]]) -> None:
    other = '[routes.other]\npath = "/other"\nupstream = "model"\n'
    third = other.replace("other", "third")
    (told,) = problems(MINIMAL + other + third + AUTH.replace(KEY, f'routes = ["all"]\n{KEY}') + RATE + 'per = "key"')
    assert "nobody tells on route other: " in told


@pytest.mark.parametrize(
    "policies",
    [
        AUTH + RATE + 'per = "key"',
        TENANT + RATE + 'per = "tenant"',
        RATE + 'per = "client"',
        REDACTION + 'requests = true\naction = "pseudonym"\n' + RESTORE,
        REDACTION + 'requests = true\nactions = { EMAIL = "pseudonym" }\n' + RESTORE,
    ],
)
def test_what_is_told_can_be_used(
    read: Callable[[str], Config], policies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSEUDONYM_KEY", "sixteen bytes...")
    read(MINIMAL + policies)


def test_a_front_must_be_known_to_be_believed(
    read: Callable[[str], Config], problems: Callable[[str], list[str]]
) -> None:
    policies = FRONT + RATE + 'per = "subject"'
    (told,) = problems(MINIMAL + "[server]\ntrusted_proxies = 1\n" + policies)
    assert "identity_header: would be believed of anyone who sends an X-Forwarded-For: name" in told
    rest = MINIMAL.partition("[upstreams")[2]
    (told,) = problems(UNIX + '[listeners.second]\naddress = "127.0.0.1:0"\n[upstreams' + rest + policies)
    assert "identity_header: would be believed of anyone" in told
    read(MINIMAL + NETWORK + policies)
    read(UNIX + "[upstreams" + rest + policies)


def test_what_may_come_of_another_mistake_is_not_told(problems: Callable[[str], list[str]]) -> None:
    (told,) = problems(MINIMAL + AUTH.replace("0" * 64, "x") + RATE + 'per = "key"')
    assert "sha256" in told
    (told,) = problems(MINIMAL + NETWORK.replace("= 1", '= "1"') + FRONT)
    assert "trusted_proxies: must be a whole number" in told
