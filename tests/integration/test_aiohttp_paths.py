"""Which of its two ways to a model server the proxy takes, as a process; what both do stands in the marked modules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rigs import raw_upstream
from rigs.penstock import configuration, run
from rigs.raw_client import connect, post
from rigs.raw_upstream import CHAT_EVENTS, RawUpstream

ANOTHER_AIOHTTP = """
import aiohttp.http
del aiohttp.http.RawResponseMessage
"""


@pytest.mark.parametrize(
    ("aiohttp", "wanted", "warnings"),
    [(ANOTHER_AIOHTTP, "auto", 1), (ANOTHER_AIOHTTP, "portable", 0), ("", "auto", 0)],
    ids=["another aiohttp", "another aiohttp, as is known", "the one that is known"],
)
async def test_streams_pass_whatever_aiohttp_is_there(
    upstream: RawUpstream, tmp_path: Path, aiohttp: str, wanted: str, warnings: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(aiohttp)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    upstream.script = raw_upstream.streams(*CHAT_EVENTS)
    tables = configuration(upstream.url, {"server": {"aiohttp": wanted}})
    with run(tables, tmp_path, PYTHONPATH=path) as proxy:
        async with connect(proxy.address) as client:
            answer = await client.exchange(post("/v1/chat/completions", b'{"stream":true}'))
        assert answer.body == b"".join(CHAT_EVENTS)
    told = proxy.events("aiohttp_unknown")
    assert [(line["level"], line["part"]) for line in told] == [("warning", "upstream side")] * warnings
    assert all("RawResponseMessage" in line["reason"] for line in told)
