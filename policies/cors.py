"""`cors`: lets the web pages of chosen origins use the API (WHATWG Fetch §3.2, the CORS protocol).

The proxy alone decides: preflights are answered here, the upstream's own `Access-Control-*` fields are replaced, and
an origin that is allowed is not shown to the upstream, some of which (Ollama) refuse those they do not know. Put it
first: a preflight carries no credentials, and a page can read the refusals of later policies only.

An origin that is not allowed: its preflight is refused with 403, so that the access log and a person with curl see why
(to the browser any reply without the fields says the same); its other requests pass, as they would without this policy,
and the browser keeps the reply from the page. The origin "null" (sandboxed frames, `file:`) is nobody's, so no list can
allow it; `["*"]` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from proxy.fields import add_vary
from proxy.messages import Headers, Reply, Request, ResponseHead
from proxy.policy import Host, Policy, PolicyConfig, PolicyStream, Scope, Sees, Stage
from proxy.values import TCHARS, Count, Token

_LABELS = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://(?:(?:\*\.)?{_LABELS}|\[[0-9a-f:.]+\])(?::[0-9]+)?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LIST = re.compile(rf"{TCHARS}(?:[ \t]*,[ \t]*{TCHARS})*")

_EXPOSED = (
    "X-Request-Id", "Request-Id", "Retry-After", "Retry-After-Ms", "X-Should-Retry", "RateLimit", "RateLimit-Policy",
    "X-RateLimit-Limit-Requests", "X-RateLimit-Remaining-Requests", "X-RateLimit-Reset-Requests",
    "X-RateLimit-Limit-Tokens", "X-RateLimit-Remaining-Tokens", "X-RateLimit-Reset-Tokens",
)  # fmt: skip


def _origin(text: str) -> str:
    """An origin as browsers write it: lower-case, without its scheme's default port."""
    text = text.lower()
    if text == "*":
        return text
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise ValueError(
            'must be scheme://host[:port] without a path, with "*." for any leading labels, or "*" for all'
        )
    return text.removesuffix(_DEFAULT_PORTS.get(match[1], ""))


def _permitted(listed: Sequence[str], asked: str) -> str:
    """The whole list; for "*" what was `asked` for, because the wildcard itself would leave out `Authorization`."""
    if "*" not in listed:
        return ", ".join(listed)
    return asked if _LIST.fullmatch(asked) else ""


Origin = Annotated[str, AfterValidator(_origin)]


class CorsConfig(PolicyConfig):
    allow_origins: tuple[Origin, ...] = Field(min_length=1)  # exact, "https://*.example.com", or "*" alone
    allow_methods: tuple[Token, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")  # "*": any
    allow_headers: tuple[Token, ...] = ("*",)  # any: SDKs send many of their own, and change them
    expose_headers: tuple[Token, ...] = _EXPOSED
    allow_credentials: bool = False  # cookies and HTTP authentication; API keys do not need it
    allow_private_network: bool = False  # pages from public addresses may reach a private one
    max_age_s: Count = 7200  # Chromium remembers a preflight no longer

    @model_validator(mode="after")
    def _wildcards(self) -> CorsConfig:
        if "*" in self.allow_origins and len(self.allow_origins) > 1:
            raise ValueError('has "*" among other `allow_origins`, which it makes useless')
        if self.allow_credentials and "*" in self.allow_origins:
            raise ValueError('has `allow_credentials` for "*": any web page could act in the name of its visitor')
        if self.allow_credentials and "*" in self.expose_headers:
            raise ValueError('has `expose_headers` "*", which with `allow_credentials` is no wildcard to browsers')
        return self


class Cors(Policy[CorsConfig]):
    stage = Stage.ADMIT
    scope = Scope.ATTACHMENT
    sees = Sees.NOTHING
    Config = CorsConfig

    def __init__(self, config: CorsConfig, host: Host) -> None:
        super().__init__(config, host)
        self._any = config.allow_origins == ("*",)
        self._listed = re.compile(
            "|".join(re.escape(origin).replace(r"\*", _LABELS) for origin in config.allow_origins)
        )

    async def admit(self, request: Request) -> PolicyStream | Reply:
        origin = request.headers.get("Origin")
        grant = self._grant(origin)
        if origin is not None and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return self._preflight(request.headers, grant)
        if grant:
            request.headers.popall("Origin", None)
            if self.config.expose_headers:
                grant["Access-Control-Expose-Headers"] = ", ".join(self.config.expose_headers)
        return CorsStream(grant, varies=not self._any)

    def _grant(self, origin: str | None) -> dict[str, str]:
        """The fields that every reply to a page of `origin` has; none where it is not allowed.

        Where any origin will do they do not depend on it, and stand on all replies, so that caches can share them.
        """
        if self._any:
            return {"Access-Control-Allow-Origin": "*"}
        if origin is None or not self._listed.fullmatch(origin):
            return {}
        credentials = {"Access-Control-Allow-Credentials": "true"} if self.config.allow_credentials else {}
        return {"Access-Control-Allow-Origin": origin, **credentials}

    def _preflight(self, asked: Headers, grant: Mapping[str, str]) -> Reply:
        headers = Headers(grant)
        if not self._any:
            add_vary(headers, "Origin")
        if not grant:
            return Reply(403, details="cors_origin", message="This origin may not use the API.", headers=headers)
        config = self.config
        if methods := _permitted(config.allow_methods, asked["Access-Control-Request-Method"]):
            headers["Access-Control-Allow-Methods"] = methods
        if names := _permitted(config.allow_headers, asked.get("Access-Control-Request-Headers", "")):
            headers["Access-Control-Allow-Headers"] = names
        headers["Access-Control-Max-Age"] = str(config.max_age_s)
        if config.allow_private_network and asked.get("Access-Control-Request-Private-Network") == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"
        return Reply(204, details="cors_preflight", headers=headers, body=b"")


class CorsStream(PolicyStream):
    """Puts `grant` in the place of whatever the upstream says about CORS."""

    def __init__(self, grant: Mapping[str, str], *, varies: bool) -> None:
        self._grant = grant
        self._varies = varies

    def on_response(self, head: ResponseHead) -> None:
        headers = head.headers
        for name in {name for name in headers if name.lower().startswith("access-control-")}:
            headers.popall(name, None)
        headers.update(self._grant)
        if self._varies:
            add_vary(headers, "Origin")
