"""The servers that Penstock is compared with, each set to one core, unbuffered streams and upstream connections kept alive.

nginx is the reference; Redis is here because it is started alike. What Debian does not have, `make bench-peers` puts
into .cache.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from .loadgen import MissingError
from .servers import Server, accepting, free_port, run

CACHE = Path(__file__).parent / ".cache"
PORTKEY = Path("node_modules", "@portkey-ai", "gateway", "build", "start-server.js")


class Peer(NamedTuple):
    """How a server is found, configured and started.

    `config` makes its one file from its port, the mock upstream's port and a directory of its own; `command` has
    `{program}`, `{port}`, `{file}` and `{directory}` where they belong. `hint` says where to get the program."""

    program: str
    hint: str
    file: str
    config: Callable[[int, int, Path], str]
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}
    version: tuple[str, ...] = ()  # the command that tells it, with `{program}` and the `{folder}` that it is in

    def serve(self, upstream_port: int, directory: Path, core: int) -> AbstractContextManager[Server]:
        """The server, running while the context is open. Raises `MissingError` where it is not installed."""
        found = find(self.program)
        if found is None:
            raise MissingError(f"{self.program} is missing ({self.hint})")
        port = free_port()
        file = directory / self.file
        file.write_text(self.config(port, upstream_port, directory), encoding="utf-8")
        places = {"program": found, "port": str(port), "file": str(file), "directory": str(directory)}
        command = [word.format_map(places) for word in self.command]
        environment = {name: value.format_map(places) for name, value in self.environment.items()}
        return run(command, directory, core, port=accepting(port), environment=environment)


def find(program: str) -> str | None:
    """Where a program is: in a folder of its own in .cache, or on the path."""
    if program == "portkey":
        script = CACHE / "portkey" / PORTKEY
        return str(script) if script.exists() and shutil.which("node") else None
    own = CACHE / program / "bin" / program
    return str(own) if own.exists() else shutil.which(program)


def versions() -> dict[str, str]:
    """What those that are measured say of their version, in a line; only of those that are installed."""
    said = {}
    for peer in (NGINX, HAPROXY, CADDY, ENVOY, PORTKEY_GATEWAY, LITELLM):
        found = find(peer.program)
        if found is not None:
            command = [word.format(program=found, folder=Path(found).parent) for word in peer.version]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                line = "" if done.returncode else (done.stdout + done.stderr).strip().partition("\n")[0]
            except OSError:  # what would tell it is not there
                line = ""
            said[peer.program] = line.replace(found, peer.program) or "?"  # not where it is installed
    return said


def nginx_config(port: int, upstream_port: int, directory: Path) -> str:
    """One process, so that its CPU time is all there is; temporary files where a user who is not root may write."""
    temporary = "".join(
        f"    {what}_temp_path {directory / what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
master_process off;
pid {directory / "nginx.pid"};
error_log stderr warn;
events {{ worker_connections 16384; }}
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


def haproxy_config(port: int, upstream_port: int, directory: Path) -> str:
    return f"""\
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    option http-no-delay
    timeout connect 5s
    timeout client 10m
    timeout server 10m
frontend main
    bind 127.0.0.1:{port}
    default_backend mock
backend mock
    http-reuse always
    server mock 127.0.0.1:{upstream_port}
"""


def caddy_config(port: int, upstream_port: int, directory: Path) -> str:
    return f"""\
{{
    admin off
    auto_https off
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{port} {{
    reverse_proxy 127.0.0.1:{upstream_port} {{
        flush_interval -1
    }}
}}
"""


def envoy_config(port: int, upstream_port: int, directory: Path) -> str:
    extensions = "type.googleapis.com/envoy.extensions.filters"
    return f"""\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {extensions}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          stream_idle_timeout: 0s
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route: {{cluster: mock, timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": {extensions}.http.router.v3.Router}}
  clusters:
  - name: mock
    type: STATIC
    circuit_breakers: {{thresholds: [{{max_connections: 65536, max_pending_requests: 65536, max_requests: 65536}}]}}
    load_assignment:
      cluster_name: mock
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream_port}}}}}}}
"""


def litellm_config(port: int, upstream_port: int, directory: Path) -> str:
    """The bare proxy: no keys, no database, no callbacks."""
    return f"""\
model_list:
- model_name: mock
  litellm_params:
    model: openai/mock
    api_base: http://127.0.0.1:{upstream_port}/v1
    api_key: sk-upstream
"""


def redis_config(port: int, upstream_port: int, directory: Path) -> str:
    return f"""\
bind 127.0.0.1
port {port}
save ""
"""


def nothing(port: int, upstream_port: int, directory: Path) -> str:
    """Of what is told everything by its command line and by each request."""
    return ""


NGINX = Peer(
    "nginx",
    "Debian: nginx-light",
    "nginx.conf",
    nginx_config,
    ("{program}", "-p", "{directory}", "-c", "{file}"),
    version=("{program}", "-v"),
)
HAPROXY = Peer(
    "haproxy",
    "Debian: haproxy",
    "haproxy.cfg",
    haproxy_config,
    ("{program}", "-db", "-f", "{file}"),
    version=("{program}", "-v"),
)
REDIS = Peer("redis-server", "Debian: redis-server", "redis.conf", redis_config, ("{program}", "{file}"))
CADDY = Peer(
    "caddy",
    "Debian: caddy",
    "Caddyfile",
    caddy_config,
    ("{program}", "run", "--adapter", "caddyfile", "--config", "{file}"),
    {"GOMAXPROCS": "1", "XDG_DATA_HOME": "{directory}", "XDG_CONFIG_HOME": "{directory}"},
    version=("{program}", "version"),
)
ENVOY = Peer(
    "envoy",
    "make bench-peers",
    "envoy.yaml",
    envoy_config,
    ("{program}", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", "{file}"),
    version=("{program}", "--version"),
)
PORTKEY_GATEWAY = Peer(
    "portkey",
    "make bench-peers, and node",
    "nothing",
    nothing,
    ("node", "{program}", "--port={port}", "--headless"),
    {"NODE_ENV": "production"},
    version=("node", "-p", "require('{program}/../../package.json').version"),
)
LITELLM = Peer(
    "litellm",
    "make bench-peers",
    "litellm.yaml",
    litellm_config,
    ("{program}", "--config", "{file}", "--host", "127.0.0.1", "--port", "{port}", "--telemetry", "False"),
    {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or it asks the internet for prices
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no authentication: on loopback, and cheapest
    },
    # it takes ten seconds to tell it itself
    version=("{folder}/python", "-c", "import importlib.metadata as m; print(m.version('litellm'))"),
)
