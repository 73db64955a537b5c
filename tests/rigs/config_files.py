"""Configuration files, or parts of them, as text."""

from __future__ import annotations

MINIMAL = """
[listeners.main]
address = "127.0.0.1:8080"
[upstreams.model]
url = "http://127.0.0.1:8000"
[routes.all]
upstream = "model"
"""

HEARTBEAT = '[[policy]]\nuse = "heartbeat"\n'
ROUTE = '[routes.other]\nupstream = "model"\n'
KEY = f'keys = [{{ id = "alice", sha256 = "{"0" * 64}" }}]\n'
