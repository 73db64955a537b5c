"""What is measured: one row a scenario, and the configuration files that are made from it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .loadgen import Mode
from .servers import Server, run_nginx, run_penstock

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"

DIRECT = "direct"
NGINX = "nginx"
PASS_THROUGH = "pass-through"
ORIGIN = "Origin: http://localhost:3000"  # allowed by the example's cors policy, so that it has something to do
GZIP = "Accept-Encoding: gzip"
REFERENCES = (DIRECT, NGINX)  # measured in every run: without them there is nothing to compare with


Serve = Callable[[int, Path, int], AbstractContextManager[Server]]
"""(port of the mock upstream, directory of its own, core) -> the server, running while the context is open. Raises
`BenchError` on entry."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table. `headers` are request header lines beyond those that every scenario sends; with `gzip` the
    replies have to come compressed."""

    name: str
    what: str
    serve: Serve
    modes: tuple[Mode, ...] = tuple(Mode)
    headers: tuple[str, ...] = ()
    gzip: bool = False


def _direct(upstream_port: int, directory: Path, core: int) -> AbstractContextManager[Server]:
    return nullcontext(Server(upstream_port))


def _nginx(upstream_port: int, directory: Path, core: int) -> AbstractContextManager[Server]:
    return run_nginx(lambda port: nginx_config(port, directory, upstream_port), directory, core)


def _pass_through(upstream_port: int, directory: Path, core: int) -> AbstractContextManager[Server]:
    return run_penstock(penstock_config(upstream_port, ()), directory, core)


def _full(upstream_port: int, directory: Path, core: int) -> AbstractContextManager[Server]:
    chain = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))["policy"]
    return run_penstock(penstock_config(upstream_port, chain), directory, core)


SCENARIOS = (
    # direct and saturated would only measure the load generator
    Scenario(DIRECT, "no proxy: what the others add to", _direct, modes=(Mode.PACED, Mode.SERIAL)),
    Scenario(NGINX, "proxy_buffering off, one process, upstream kept alive, no access log", _nginx),
    Scenario(PASS_THROUGH, "penstock without policies, no access log", _pass_through),
    Scenario("full", "penstock with the chain of config.example.toml, access log on", _full, headers=(ORIGIN,)),
    Scenario("full+gzip", "the same, to a client that asks for gzip", _full, headers=(ORIGIN, GZIP), gzip=True),
)


def nginx_config(port: int, directory: Path, upstream_port: int) -> str:
    """One process, so that its CPU time is all there is; temporary files where a user who is not root may write."""
    temporary = "".join(
        f"    {what}_temp_path {directory / what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
master_process off;
pid {directory / "nginx.pid"};
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
{temporary}\
    upstream mock {{ server 127.0.0.1:{upstream_port}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def penstock_config(upstream_port: int, policies: Sequence[Mapping[str, Any]]) -> str:
    """One route to the mock upstream through `policies`, tables of strings, numbers, booleans and lists of them.

    Without policies there is no access log either: that is what nginx is set to."""
    chain = "".join(
        "\n[[policy]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in policy.items() if key != "routes")
        for policy in policies
    )
    return f"""\
[listeners.main]
address = "127.0.0.1:0"

[admin]
address = ""

[log]
access = {json.dumps(bool(policies))}

[upstreams.mock]
url = "http://127.0.0.1:{upstream_port}"

[routes.all]
path = "/"
upstream = "mock"
{chain}"""
