"""Which dialect a path speaks."""

from __future__ import annotations

import pytest

from proxy.dialects import DIALECTS, check_call, choose
from proxy.errors import RequestError
from proxy.testing import make_request


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "openai-chat"),
        ("/v1/chat/completions/", "openai-chat"),
        ("/some/prefix/chat/completions", "openai-chat"),
        ("/openai/deployments/my-model/chat/completions", "openai-chat"),
        ("/v1/completions", "openai-completions"),
        ("/openai/deployments/my-model/completions", "openai-completions"),
        ("/v1/responses", "openai-responses"),
        ("/v1/messages", "anthropic"),
        ("/v1beta/openai/chat/completions", "openai-chat"),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", "gemini"),
        ("/v1/models/gemini-2.5-flash%3AgenerateContent", "gemini"),
        ("/v1/projects/p/locations/l/publishers/google/models/m:generateContent", "gemini"),
        ("/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict", "anthropic"),
        ("/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict", "generic"),
        ("/v1/projects/p/locations/l/endpoints/7:streamRawPredict", "generic"),
        ("/prefix/v1beta/models", "gemini"),
        ("/v1beta/models/gemini-2.5-flash", "gemini"),
        ("/v1beta/tunedModels/t:countTokens", "gemini"),
        ("/v1/models", "generic"),
        ("/v1beta/interactions", "generic"),
        ("/api/chat", "ollama"),
        ("/prefix/api/generate/", "ollama"),
        ("/api/pull", "generic"),
        ("/generate_stream", "tgi"),
        ("/prefix/generate", "tgi"),
        ("/v1/embeddings", "generic"),
        ("/v1/mychat/completions", "openai-completions"),
        ("/v1/notcompletions", "generic"),
        ("/", "generic"),
    ],
)
def test_auto_asks_in_order(path: str, name: str) -> None:
    assert choose("auto", path).name == name


@pytest.mark.parametrize("name", DIALECTS)
def test_a_named_dialect_is_taken_whatever_the_path(name: str) -> None:
    assert choose(name, "/v1/chat/completions") is DIALECTS[name]
    assert choose(name, "/v1/chat/completions").name == name


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        choose("no-such-dialect", "/")


CHAT = "/v1/chat/completions"
CALL = '{"model": "m", "stream": true}'


def check(body: bytes, dialect: str = "openai-chat", path: str = CHAT) -> None:
    request = make_request(dialect=DIALECTS[dialect])
    request.body = body
    check_call(request, path)


@pytest.mark.parametrize(
    "body",
    [
        CALL.encode(), b"", b"{}", b' {"messages": []} ', b'{"model": null, "stream": null}',
        b'{"stream": false, "n": 1e999, "messages": [{"content": "\\ud83d"}]}',
    ],
)  # fmt: skip
def test_what_can_be_a_call(body: bytes) -> None:
    check(body)


@pytest.mark.parametrize(
    "body",
    [
        CALL.encode("utf-16"), CALL.encode("utf-16-le"), CALL.encode("utf-8-sig"), b"{", b"[1, 2]", b'"m"', b"7", b"null",
        b'{"model": "\xff"}', b'{"model": "m", "temperature": NaN}', b'{"model": 7}', b'{"model": ["m"]}',
        b'{"stream": 1}', b'{"stream": 0}', b'{"stream": "true"}', b'{"stream": []}', b"[" * 9000, b"a=1&b=2",
    ],
)  # fmt: skip
def test_what_a_server_might_read_and_we_cannot_is_no_call(body: bytes) -> None:
    for dialect, path in (("openai-chat", CHAT), ("openai-completions", "/v1/completions")):
        with pytest.raises(RequestError) as raised:
            check(body, dialect, path)
        assert raised.value.details == "malformed_body"
    check(body, "generic")  # nothing is known of its shape
    check(body, path="/v1/files")  # that is no call
