"""One client connection's part: heads are shown, coded and sent; bodies are coded and counted; all is closed once."""

from __future__ import annotations

import pytest
from rigs.doubles import Client, Hooks, Shout, raising

from proxy.attachment import Attachment, EncoderFailed
from proxy.chain import Chain, Link
from proxy.errors import COMPLETE, Outcome
from proxy.messages import Headers, Reply, ResponseHead
from proxy.policy import Encoder, Sees, Stage

TEXT = {"Content-Type": "text/plain", "Content-Length": "5"}


def head(status: int = 200, *, local: bool = False) -> ResponseHead:
    return ResponseHead(status, Headers(TEXT), local=local)


def attach(client: Client, *streams: Hooks, encoder: Encoder | None = None) -> Attachment:
    links = [Link(f"policy-{i}", Stage.RESTORE, Sees.NOTHING, stream) for i, stream in enumerate(streams)]
    return Attachment(Chain(links, 1000), None if encoder is None else ("squeeze", encoder), client)


def test_without_an_encoder_everything_passes_as_it_is() -> None:
    attachment = attach(client := Client())
    assert not attachment.opened
    assert attachment.open(head(201), streaming=True) is None
    attachment.write(b"hello", flush=True)
    attachment.write(b"you", flush=False)
    attachment.end()
    assert client.calls == [("head", 201), ("write", b"hello"), ("write", b"you"), ("end", None)]
    assert (attachment.opened, attachment.status, attachment.written) == (True, 201, 8)
    assert attachment.facts() == {}


def test_a_head_is_shown_to_the_policies_before_it_is_sent() -> None:
    stream = Hooks(response=lambda head: head.headers.update({"X-Seen": "yes"}))
    attachment = attach(client := Client(), stream)
    shown = head()
    assert attachment.show(shown) is None
    assert client.calls == []
    attachment.open(shown, streaming=False)
    assert client.head.headers["X-Seen"] == "yes"
    assert stream.heads == [(200, False)]


def test_a_policy_can_answer_instead() -> None:
    attachment = attach(client := Client(), Hooks(response=lambda head: Reply(details="no")), later := Hooks())
    answer = attachment.show(head())
    assert answer is not None
    assert (answer[0], answer[1].details) == ("policy-0", "no")
    assert (later.heads, client.calls) == ([], [])


@pytest.mark.parametrize("streaming", [True, False])
def test_the_encoder_sees_the_head_last_and_codes_the_body(streaming: bool) -> None:
    attachment = attach(client := Client(), encoder=(encoder := Shout()))
    attachment.open(head(), streaming=streaming)
    assert encoder.streaming is streaming
    assert dict(client.head.headers) == {"Content-Type": "text/plain", "Content-Encoding": "shout"}
    attachment.write(b"hello", flush=True)
    attachment.write(b"you", flush=False)
    attachment.end()
    assert client.body == b"HELLO|YOU."
    assert attachment.written == len(client.body)


def test_an_encoder_that_declines_is_only_closed() -> None:
    attachment = attach(client := Client(), encoder=(encoder := Shout(declines=True)))
    attachment.open(head(), streaming=True)
    attachment.write(b"hello", flush=True)
    attachment.end()
    attachment.close(COMPLETE)
    assert client.body == b"hello"
    assert encoder.closed == [COMPLETE]


def test_what_an_encoder_keeps_to_itself_is_not_written() -> None:
    attachment = attach(client := Client(), encoder=(encoder := Shout()))
    attachment.open(head(), streaming=True)
    encoder.encode = lambda data, flush: b""  # type: ignore[method-assign]
    attachment.write(b"hello", flush=False)
    assert client.writes == []


@pytest.mark.parametrize("hook", ["encode", "finish"])
def test_an_encoder_that_raises_in_the_body_is_named(hook: str) -> None:
    attachment = attach(client := Client(), encoder=Shout(raises_in=hook))
    attachment.open(head(), streaming=True)
    with pytest.raises(EncoderFailed) as caught:  # noqa: PT012 (either of the two raises)
        attachment.write(b"hello", flush=True)
        attachment.end()
    assert caught.value.policy == "squeeze"
    assert [(name, type(exc)) for name, exc in attachment.chain.errors] == [("squeeze", RuntimeError)]
    assert client.end_of_body == ""


def test_an_encoder_that_raises_at_the_head_is_closed_and_answered_for() -> None:
    attachment = attach(client := Client(), encoder=(encoder := Shout(raises_in="on_response")))
    answer = attachment.open(head(), streaming=True)
    assert answer is not None
    assert (answer[0], answer[1].details, client.calls) == ("squeeze", "policy_error", [])
    assert attachment.open(head(500, local=True), streaming=False) is None
    attachment.write(b"sorry", flush=False)
    attachment.close(outcome := Outcome.of("policy_error", "squeeze"))
    assert client.body == b"sorry"
    assert encoder.closed == [outcome]
    assert len(attachment.chain.errors) == 1  # it is not asked a second time


class HalfDone(Shout):
    """It raises when it has edited the head already."""

    def on_response(self, head: ResponseHead, *, streaming: bool) -> bool:
        super().on_response(head, streaming=streaming)
        raise RuntimeError("too late")


def test_an_encoder_that_raises_at_a_local_head_is_done_without() -> None:
    attachment = attach(client := Client(), encoder=HalfDone())
    assert attachment.open(head(429, local=True), streaming=False) is None
    attachment.write(b"later", flush=False)
    assert (client.status, client.body) == (429, b"later")
    assert dict(client.head.headers) == TEXT
    assert [name for name, _ in attachment.chain.errors] == ["squeeze"]


def test_a_head_that_cannot_be_sent_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    attachment = attach(client := Client())
    monkeypatch.setattr(client, "send_head", raising)
    with pytest.raises(RuntimeError):
        attachment.open(head(), streaming=True)
    assert not attachment.opened


def test_interim_replies_and_bad_ends_pass() -> None:
    attachment = attach(client := Client(), stream := Hooks(), encoder=Shout())
    attachment.send_informational(hint := ResponseHead(103))
    attachment.abort()
    assert client.calls == [("informational", hint), ("abort", None)]
    attachment = attach(client := Client())
    attachment.reset()
    assert client.calls == [("reset", None)]
    assert stream.told == []


def test_streams_and_encoder_are_closed_whatever_they_raise() -> None:
    streams = Hooks(), Hooks()
    attachment = attach(Client(), *streams, encoder=(encoder := Shout(raises_in="close")))
    outcome = Outcome.of("client_gone")
    attachment.close(outcome)
    assert [stream.outcome for stream in streams] == [outcome, outcome]
    assert encoder.closed == [outcome]
    assert [name for name, _ in attachment.chain.errors] == ["squeeze"]


def test_facts_are_those_of_the_policies_and_of_the_encoder() -> None:
    stream = Hooks()
    stream.facts = lambda: {"restored": 2}  # type: ignore[method-assign]
    assert attach(Client(), stream, encoder=Shout()).facts() == {
        "policy-0": {"restored": 2},
        "squeeze": {"coding": "shout"},
    }


def test_facts_that_raise_are_left_out() -> None:
    attachment = attach(Client(), encoder=Shout(raises_in="facts"))
    assert attachment.facts() == {}
    assert [name for name, _ in attachment.chain.errors] == ["squeeze"]
