"""Fixtures of the dialects' tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from multidict import CIMultiDict

from proxy.dialects import choose
from proxy.dialects.base import Call, Channel, DialectStream
from proxy.framing import Event
from proxy.messages import Request, ResponseHead

FIXTURES = Path(__file__).parents[2] / "fixtures"

Open = Callable[..., DialectStream]
Play = Callable[..., list[Event]]
Join = Callable[[Iterable[Event]], dict[Channel, str]]
Ask = Callable[..., Call]
Serve = Callable[..., str]


@pytest.fixture
def open_stream() -> Open:
    """`open_stream("openai-chat", "application/json", call)`: a reply's stream."""

    def open_stream(dialect: str, content_type: str = "text/event-stream", call: Call | None = None) -> DialectStream:
        head = ResponseHead(200, CIMultiDict({"Content-Type": content_type}))
        return choose(dialect, "/").open(head, call or Call())

    return open_stream


@pytest.fixture
def play() -> Play:
    """`play(stream, "llama_cpp/chat.sse")`: the events of a fixture, or of bytes."""

    def play(stream: DialectStream, body: str | bytes) -> list[Event]:
        data = (FIXTURES / body).read_bytes() if isinstance(body, str) else body
        framer = stream.framer(1 << 20)
        frames = framer.feed(data)
        rest = framer.finish()
        return [stream.event(raw) for raw in (*frames, *([rest] if rest else ()))]

    return play


@pytest.fixture
def join() -> Join:
    """`join(events)`: the text of each channel."""

    def join(events: Iterable[Event]) -> dict[Channel, str]:
        joined: dict[Channel, str] = {}
        for event in events:
            for channel, text in event.deltas:
                joined[channel] = joined.get(channel, "") + text
        return joined

    return join


@pytest.fixture
def ask() -> Ask:
    """`ask("openai-chat", b"{...}", path="/v1/chat/completions")`: what the dialect reads in a request."""

    def ask(dialect: str, body: bytes | None, path: str = "/") -> Call:
        chosen = choose(dialect, path)
        return chosen.read_call(
            Request(id="1", method="POST", path=path, headers=CIMultiDict(), dialect=chosen, body=body)
        )

    return ask


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(200, "text/event-stream", b"...")`: the address of a server that answers everything so."""
    with ExitStack() as stack:

        def serve(status: int, content_type: str, body: bytes) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_POST(self) -> None:
                    self.rfile.read(int(self.headers["Content-Length"]))
                    self.send_response(status)
                    self.send_header("Content-Type", content_type)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *args: object) -> None:
                    """Says nothing."""

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/v1"

        yield serve
