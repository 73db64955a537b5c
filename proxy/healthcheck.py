"""I/O. The container's HEALTHCHECK: asks /healthz on the admin listener that the configuration file names.

`python -m proxy.healthcheck [FILE]`: exit status 0 where it answers 200, or where the file turns the admin listener
off; 1 otherwise. Runs every few seconds beside the proxy, so it imports nothing but the standard library.
"""

from __future__ import annotations

import http.client
import socket
import sys
import tomllib
from pathlib import Path

CONFIG = "/etc/penstock/penstock.toml"
DEFAULT_ADDRESS = "127.0.0.1:9090"
TIMEOUT_S = 3.0

_ANY_TO_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what the proxy listens on, seen from within


def main(file: str = CONFIG) -> int:
    """The exit status; what is wrong goes to stderr."""
    try:
        address = tomllib.loads(Path(file).read_text()).get("admin", {}).get("address", DEFAULT_ADDRESS)
        if address == "":
            return 0
        with _connect(address) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            response = http.client.HTTPResponse(connection)
            response.begin()
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"unhealthy: {error}", file=sys.stderr)
        return 1
    if response.status != http.HTTPStatus.OK:
        print(f"unhealthy: status {response.status}", file=sys.stderr)
        return 1
    return 0


def _connect(address: str) -> socket.socket:
    """To an `[admin] address`, which the running proxy found to be valid."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT_S)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return socket.create_connection((_ANY_TO_LOOPBACK.get(host, host), int(port)), TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
