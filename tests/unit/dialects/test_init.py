"""Which dialect a path speaks."""

from __future__ import annotations

import pytest

from proxy.dialects import DIALECTS, choose


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
