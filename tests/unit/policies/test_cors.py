"""What a browser sees: preflights, other requests, local replies; after the algorithms of WHATWG Fetch."""

from typing import Any

import pytest
from multidict import CIMultiDict
from pydantic import ValidationError

from policies.cors import Cors, CorsConfig
from proxy.messages import Reply, ResponseHead
from proxy.testing import FakeHost, Simulation, check_policy, make_head, make_request

APP = "https://app.example.com"


def cors(*origins: str, **keys) -> Cors:
    return Cors(CorsConfig(allow_origins=origins or (APP,), **keys), FakeHost())


async def preflight(policy: Cors, origin: str | None = APP, method: str = "POST", **asked: str) -> Reply:
    headers = {"Access-Control-Request-Method": method}
    if origin is not None:
        headers["Origin"] = origin
    headers |= {f"Access-Control-Request-{name.replace('_', '-')}": value for name, value in asked.items()}
    reply = await policy.admit(make_request(method="OPTIONS", headers=headers))
    assert isinstance(reply, Reply)
    return reply


async def respond(policy: Cors, origin: str | None = APP, **upstream: str) -> CIMultiDict[str]:
    """The header fields of a reply to a page of `origin`."""
    exchange = await Simulation.admit(policy, make_request(headers={"Origin": origin} if origin else {}))
    exchange.start()
    head = make_head(exchange.request, headers={name.replace("_", "-"): value for name, value in upstream.items()})
    assert exchange.respond(head) is None
    return head.headers


def granted(headers) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("Access-Control-")}


async def test_the_contract() -> None:
    await check_policy(lambda host: Cors(CorsConfig(allow_origins=(APP,)), host), expected=lambda text: text)


# Origins


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://App.Example.com:443", "https://app.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("https://*.example.com", "https://a.example.com"),
        ("https://*.example.com", "https://a.b-1.example.com"),
        ("https://*.example.com:8443", "https://a.example.com:8443"),
        ("*", "https://anything.example"),
        ("*", "null"),
    ],
)
async def test_allowed(listed: str, origin: str | None) -> None:
    assert (await respond(cors(listed), origin))["Access-Control-Allow-Origin"] in (origin, "*")


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        ("https://app.example.com", "http://app.example.com"),
        ("https://app.example.com", "https://app.example.com:8443"),
        ("https://app.example.com", "https://app.example.com.evil.test"),
        ("https://app.example.com", "https://appxexample.com"),
        ("https://app.example.com", "https://APP.example.com"),  # no browser writes it so
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://.example.com"),
        ("https://*.example.com", "https://evil-example.com"),
        ("https://*.example.com", "https://a.example.com:8443"),
        ("https://*.example.com", "https://evil.test/.example.com"),
        ("https://*.example.com", "https://evil.test:1.example.com"),
        ("https://*.example.com", "https://evil@a.example.com"),
        ("https://*.example.com", "https://a.example.com\n"),
        ("https://*.example.com", "null"),
        ("https://*.example.com", ""),
    ],
)
async def test_not_allowed(listed: str, origin: str | None) -> None:
    headers = await respond(cors(listed), origin or None)
    assert granted(headers) == {}
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "keys",
    [
        {"allow_origins": ()},
        {"allow_origins": ("null",)},
        {"allow_origins": ("app.example.com",)},
        {"allow_origins": ("https://app.example.com/",)},
        {"allow_origins": ("https://app.example.com/chat",)},
        {"allow_origins": ("https://user@app.example.com",)},
        {"allow_origins": ("https://*",)},
        {"allow_origins": ("https://a.*.example.com",)},
        {"allow_origins": ("https://*app.example.com",)},
        {"allow_origins": ("*", APP)},
        {"allow_origins": ("*",), "allow_credentials": True},
        {"allow_origins": (APP,), "allow_credentials": True, "expose_headers": ("*",)},
        {"allow_origins": (APP,), "allow_headers": ("X-A, X-B",)},
        {"allow_origins": (APP,), "expose_headers": ("X-A\r\nX-B: 1",)},
        {"allow_origins": (APP,), "max_age_s": -1},
    ],
)
def test_what_cannot_be_meant_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CorsConfig(**keys)


# Preflights


async def test_a_preflight_is_answered_here() -> None:
    reply = await preflight(cors(), Headers="authorization,content-type, x-stainless-os")
    assert (reply.status, reply.body, reply.details) == (204, b"", "cors_preflight")
    assert dict(reply.headers) == {
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": "authorization,content-type, x-stainless-os",
        "Access-Control-Max-Age": "7200",
        "Vary": "Origin",
    }


async def test_lists_are_answered_with_all_they_have() -> None:
    policy = cors(allow_methods=("POST",), allow_headers=("Authorization", "Content-Type"), max_age_s=0)
    headers = (await preflight(policy, method="DELETE", Headers="x-other")).headers
    assert headers["Access-Control-Allow-Methods"] == "POST"
    assert headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
    assert headers["Access-Control-Max-Age"] == "0"


async def test_a_wildcard_repeats_what_was_asked_for() -> None:
    policy = cors(allow_methods=("*",))
    assert (await preflight(policy, method="QUERY")).headers["Access-Control-Allow-Methods"] == "QUERY"


@pytest.mark.parametrize("asked", ["x y", "x,,y", "x\x00", "x: 1", ""])
async def test_what_is_no_list_of_names_is_not_repeated(asked: str) -> None:
    assert "Access-Control-Allow-Headers" not in (await preflight(cors(), Headers=asked)).headers


async def test_credentials() -> None:
    policy = cors(allow_credentials=True)
    headers = (await preflight(policy)).headers
    assert headers["Access-Control-Allow-Origin"] == APP
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert (await respond(policy))["Access-Control-Allow-Credentials"] == "true"
    assert "Access-Control-Allow-Credentials" not in await respond(policy, "https://other.example")


async def test_a_preflight_of_another_origin_is_refused_and_grants_nothing() -> None:
    reply = await preflight(cors(), "https://other.example", Headers="authorization")
    assert (reply.status, reply.details) == (403, "cors_origin")
    assert reply.body is None  # the dialect words it
    assert dict(reply.headers) == {"Vary": "Origin"}


async def test_private_networks_only_where_configured() -> None:
    asked = {"Private_Network": "true"}
    assert "Access-Control-Allow-Private-Network" not in (await preflight(cors(), **asked)).headers
    policy = cors(allow_private_network=True)
    assert (await preflight(policy, **asked)).headers["Access-Control-Allow-Private-Network"] == "true"
    assert "Access-Control-Allow-Private-Network" not in (await preflight(policy)).headers


@pytest.mark.parametrize("headers", [{}, {"Origin": APP}, {"Access-Control-Request-Method": "POST"}])
async def test_an_ordinary_options_request_passes(headers: dict[str, str]) -> None:
    assert not isinstance(await cors().admit(make_request(method="OPTIONS", headers=headers)), Reply)


# Other requests


async def test_the_upstreams_own_fields_are_replaced() -> None:
    headers = await respond(
        cors(),
        Access_Control_Allow_Origin="",
        access_control_allow_credentials="true",
        Access_Control_Allow_Methods="*",
        Vary="Accept-Encoding",
    )
    assert granted(headers).keys() == {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
    assert headers.getall("Access-Control-Allow-Origin") == [APP]
    assert "X-Request-Id" in headers["Access-Control-Expose-Headers"]
    assert "Retry-After" in headers["Access-Control-Expose-Headers"]
    assert headers["Vary"] == "Accept-Encoding, Origin"


@pytest.mark.parametrize("origin", [None, "https://other.example"])
async def test_they_go_also_where_none_are_put_in_their_place(origin: str | None) -> None:
    headers = await respond(cors(), origin, Access_Control_Allow_Origin="*", Access_Control_Expose_Headers="X-Secret")
    assert granted(headers) == {}
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize("origin", [None, APP, "null"])
async def test_any_origin_is_said_on_every_reply_so_that_caches_can_share_it(origin: str | None) -> None:
    headers = await respond(cors("*", expose_headers=()), origin)
    assert granted(headers) == {"Access-Control-Allow-Origin": "*"}
    assert "Vary" not in headers


async def test_a_local_reply_can_be_read() -> None:
    exchange = await Simulation.admit(cors(), make_request(headers={"Origin": APP}))
    head = ResponseHead(429, local=True)
    exchange.respond(head)
    assert head.headers["Access-Control-Allow-Origin"] == APP


async def test_the_upstream_is_shown_only_origins_that_are_not_allowed() -> None:
    for origin, shown in ((APP, False), ("https://other.example", True)):
        request = make_request(headers={"Origin": origin})
        await cors().admit(request)
        assert ("Origin" in request.headers) is shown
