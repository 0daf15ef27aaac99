"""Choosing the dialect from method, path and content type."""

import pytest

from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS
from inferwatch_collectors.dialects.select import JSON, NDJSON, NEITHER, OTHER_ROUTE, ROUTES, SSE, choose
from inferwatch_collectors.dialects.unknown import UNKNOWN


@pytest.mark.parametrize(
    ("path", "route", "operation"),
    [
        ("/v1/chat/completions", "/v1/chat/completions", "chat"),
        ("/v1/chat/completions/", "/v1/chat/completions", "chat"),
        ("/openai/v1/chat/completions", "/v1/chat/completions", "chat"),
        ("/openai/deployments/my-gpt/chat/completions", "/v1/chat/completions", "chat"),
        ("/chat/completions", "/v1/chat/completions", "chat"),
        ("/v1/completions", "/v1/completions", "text_completion"),
        ("/openai/deployments/chat/completions", "/v1/chat/completions", "chat"),
        ("/openai/deployments/a/completions", "/v1/completions", "text_completion"),
        ("/team/a/b/c/d/v1/completions", "/v1/completions", "text_completion"),
        ("/v1/embeddings", "/v1/embeddings", "embeddings"),
        ("/v1/chat/completions/batch", "/v1/chat/completions/batch", "chat"),
        ("/v1/responses", "/v1/responses", "chat"),
        ("/openai/responses", "/v1/responses", "chat"),
        ("/v1/responses/resp_1/cancel", "/v1/responses", "other"),
        ("/v1/responses/compact", "/v1/responses/compact", "chat"),
        ("/openai/responses/compact", "/v1/responses/compact", "chat"),
        ("/cohere/v2/chat", "/cohere/v2/chat", "chat"),
        ("/v1/responses/input_tokens", "/v1/responses/input_tokens", "other"),
        ("/v1/messages", "/v1/messages", "chat"),
        ("/anthropic/v1/messages", "/v1/messages", "chat"),
        ("/v1/threads/thread_1/messages", OTHER_ROUTE, "other"),
        ("/completions", "/v1/completions", "text_completion"),
        ("/completion", "/completion", "text_completion"),
        ("/generate", "/generate", "text_completion"),
        ("/tgi/generate_stream", "/generate_stream", "text_completion"),
        ("/v2/models/llama/generate", "/v2/models/{model}/generate", "text_completion"),
        ("/v2/models/llama/versions/3/generate_stream", "/v2/models/{model}/generate_stream", "text_completion"),
        ("/v2/models/llama/infer", "/v2/models/{model}/infer", "other"),
        ("/inference/v1/generate", "/inference/v1/generate", "text_completion"),
        ("/invocations", "/invocations", "generate_content"),
        ("/api/chat", "/api/chat", "chat"),
        ("/ollama/api/generate", "/api/generate", "text_completion"),
        ("/api/embeddings", "/api/embeddings", "embeddings"),
        ("/v2/embed", "/v2/embed", "embeddings"),
        ("/v1/rerank", "/v1/rerank", "rerank"),
        ("/rerank", "/rerank", "rerank"),
        ("/v1/score", "/v1/score", "score"),
        ("/classify", "/classify", "classify"),
        ("/pooling", "/pooling", "pooling"),
        ("/v1/audio/transcriptions", "/v1/audio/transcriptions", "transcription"),
        ("/chat_tokenize", "/chat_tokenize", "other"),
        ("/v1/messages/count_tokens", "/v1/messages/count_tokens", "other"),
        ("/v1/models", "/v1/models", "other"),
        ("/v1/models/org/name-7b", "/v1/models", "other"),
        ("", OTHER_ROUTE, "other"),  # what came was no request
        ("/health", "/health", "other"),
        ("/tokenize", "/tokenize", "other"),
        ("/metrics", "/metrics", "other"),
        ("/version", "/version", "other"),
        ("/my-completions", OTHER_ROUTE, "other"),
        ("/v1/completions/secret-user-data", OTHER_ROUTE, "other"),
        ("/", "/", "text_completion"),  # TGI's
        ("/else", OTHER_ROUTE, "other"),
    ],
)
def test_a_path_is_known_by_its_end(path: str, route: str, operation: str) -> None:
    """What stands before the known end does not matter; whole segments are compared."""
    chosen = choose("POST", path, "application/json", False)
    assert chosen.route == route
    assert chosen.dialect.operation == operation
    assert chosen.route in ROUTES


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "OPTIONS", "PUT"])
def test_only_a_post_generates(method: str) -> None:
    """The same path with another method lists or fetches: it has its route, and nothing is read."""
    chosen = choose(method, "/v1/chat/completions", "application/json", False)
    assert chosen.route == "/v1/chat/completions"
    assert chosen.dialect is UNKNOWN


@pytest.mark.parametrize(
    ("content_type", "asked_stream", "framing"),
    [
        ("text/event-stream", True, SSE),
        ("text/event-stream; charset=utf-8", True, SSE),
        ("Text/Event-Stream;charset=UTF-8", False, SSE),
        ("application/x-ndjson", False, NDJSON),
        ("application/json", True, JSON),
        ("application/json; charset=utf-8", False, JSON),
        ("application/problem+json", False, JSON),
        ("", True, SSE),
        ("", False, JSON),
        ("text/html", True, NEITHER),
        ("application/octet-stream", False, NEITHER),
    ],
)
def test_the_content_type_decides_how_a_body_is_framed(content_type: str, asked_stream: bool, framing: str) -> None:
    """What came counts; what was asked for only where the engine does not say."""
    assert choose("POST", "/v1/completions", content_type, asked_stream).framing == framing


def test_dialects_are_shared() -> None:
    """A dialect holds nothing of an answer, so that all requests may use the same one."""
    assert choose("POST", "/v1/chat/completions", "", True).dialect is OPENAI_CHAT
    assert choose("POST", "/v1/completions", "", True).dialect is OPENAI_COMPLETIONS
