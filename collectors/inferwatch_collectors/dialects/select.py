"""Which dialect an answer speaks: a pure function of method, path and content type.

Paths are recognised by their end, since gateways, reverse proxies and Azure put things in front:
`/v1/chat/completions`, `/openai/v1/chat/completions`, `/openai/deployments/NAME/chat/completions`. The route is the
canonical path; the set is closed.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from inferwatch_collectors.dialects.anthropic import ANTHROPIC_MESSAGES
from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.dialects.by_shape import API_CHAT, BARE_COMPLETIONS, GENERATE, INVOCATIONS
from inferwatch_collectors.dialects.cohere import COHERE_CHAT
from inferwatch_collectors.dialects.llamacpp import LLAMACPP_NATIVE
from inferwatch_collectors.dialects.ollama import OLLAMA_EMBED, OLLAMA_GENERATE
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS
from inferwatch_collectors.dialects.openai_responses import OPENAI_RESPONSES
from inferwatch_collectors.dialects.pooling import CLASSIFY, EMBEDDINGS, POOLING, RERANK, SCORE
from inferwatch_collectors.dialects.transcription import TRANSCRIPTION
from inferwatch_collectors.dialects.triton import TRITON_GENERATE
from inferwatch_collectors.dialects.unknown import UNKNOWN

OTHER_ROUTE: Final = "other"

# end of the path -> (route, who reads the answer to a POST). In a path with several of these ends the longest counts.
_READ: Final[dict[str, tuple[str, Dialect]]] = {
    "chat/completions": ("/v1/chat/completions", OPENAI_CHAT),
    "v1/completions": ("/v1/completions", OPENAI_COMPLETIONS),
    "completions": ("/v1/completions", BARE_COMPLETIONS),
    "responses": ("/v1/responses", OPENAI_RESPONSES),
    "responses/compact": ("/v1/responses/compact", OPENAI_RESPONSES),
    "v1/messages": ("/v1/messages", ANTHROPIC_MESSAGES),
    "v1/chat/completions/batch": ("/v1/chat/completions/batch", OPENAI_CHAT),
    "cohere/v2/chat": ("/cohere/v2/chat", COHERE_CHAT),
    "inference/v1/generate": ("/inference/v1/generate", OPENAI_COMPLETIONS),
    "": ("/", GENERATE),
    "generate": ("/generate", GENERATE),
    "generate_stream": ("/generate_stream", GENERATE),
    "invocations": ("/invocations", INVOCATIONS),
    "vertex": ("/vertex", INVOCATIONS),
    "vertex_generate": ("/vertex_generate", INVOCATIONS),
    "completion": ("/completion", LLAMACPP_NATIVE),
    "infill": ("/infill", LLAMACPP_NATIVE),
    "api/generate": ("/api/generate", OLLAMA_GENERATE),
    "api/chat": ("/api/chat", API_CHAT),
    "api/embed": ("/api/embed", OLLAMA_EMBED),
    "api/embeddings": ("/api/embeddings", OLLAMA_EMBED),
    "embeddings": ("/v1/embeddings", EMBEDDINGS),
    "embedding": ("/embedding", EMBEDDINGS),
    "embed": ("/embed", EMBEDDINGS),
    "v2/embed": ("/v2/embed", EMBEDDINGS),
    "encode": ("/encode", EMBEDDINGS),
    "rerank": ("/rerank", RERANK),
    "v1/rerank": ("/v1/rerank", RERANK),
    "v2/rerank": ("/v2/rerank", RERANK),
    "reranking": ("/v1/rerank", RERANK),
    "score": ("/score", SCORE),
    "v1/score": ("/v1/score", SCORE),
    "generative_scoring": ("/generative_scoring", SCORE),
    "classify": ("/classify", CLASSIFY),
    "v1/classify": ("/classify", CLASSIFY),
    "pooling": ("/pooling", POOLING),
    "audio/transcriptions": ("/v1/audio/transcriptions", TRANSCRIPTION),
    "audio/translations": ("/v1/audio/translations", TRANSCRIPTION),
}

# Routes that are only timed: they generate nothing, or nothing that can be read here.
_TIMED: Final[dict[str, tuple[str, Dialect]]] = {
    route.removeprefix("/"): (route, UNKNOWN)
    for route in (
        "/v1/chat/completions/render",
        "/v1/completions/render",
        "/v1/responses/input_tokens",
        "/v1/messages/count_tokens",
        "/v1/messages/batches",
        "/v1/realtime",
        "/v1/models",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/api/tags",
        "/api/show",
        "/api/ps",
        "/api/version",
        "/api/pull",
        "/tokenize",
        "/detokenize",
        "/chat_tokenize",
        "/tokenizer_info",
        "/apply-template",
        "/props",
        "/slots",
        "/info",
        "/health",
        "/ping",
        "/load",
        "/metrics",
        "/version",
        "/docs",
        "/openapi.json",
    )
}

# Paths with a name in the midst. Triton's, by their end; one model's page and one response's, whatever follows.
_TRITON: Final = "/v2/models/"
_TRITON_READ: Final[dict[str, tuple[str, Dialect]]] = {
    "generate": ("/v2/models/{model}/generate", TRITON_GENERATE),
    "generate_stream": ("/v2/models/{model}/generate_stream", TRITON_GENERATE),
    "infer": ("/v2/models/{model}/infer", UNKNOWN),
}
_PAGES: Final = (("/v1/models/", "/v1/models"), ("/v1/responses/", "/v1/responses"))

_BY_END: Final = _TIMED | _READ

_LONGEST_END: Final = max(end.count("/") for end in _BY_END) + 1

ROUTES: Final = frozenset(route for route, _ in (*_BY_END.values(), *_TRITON_READ.values())) | {OTHER_ROUTE}

SSE: Final = "sse"
NDJSON: Final = "ndjson"
JSON: Final = "json"
NEITHER: Final = ""

# Framings that bring an answer piece by piece.
STREAMED: Final = frozenset({SSE, NDJSON})

_FRAMINGS: Final = {
    "text/event-stream": SSE,
    "application/x-ndjson": NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonlines": NDJSON,
    "application/json": JSON,
}


class Selection(NamedTuple):
    """How to read an answer.

    Attributes:
        route: canonical path, one of ROUTES.
        dialect: who reads it; UNKNOWN reads nothing.
        framing: SSE, NDJSON, JSON or NEITHER.
    """

    route: str
    dialect: Dialect
    framing: str


@lru_cache(maxsize=1024)  # twice for each request, nearly always the same; bounded, because clients choose paths
def choose(method: str, path: str, content_type: str, asked_stream: bool) -> Selection:
    """Return how to read the answer to `method` `path` (without query) that came as `content_type`.

    With no content type, because the engine gives none or its head is not known, what the client asked for decides.
    """
    route, dialect = _route(path)
    if method != "POST":
        dialect = UNKNOWN  # the same path with GET or DELETE lists, fetches or removes: nothing is generated
    media_type = content_type.partition(";")[0].strip().lower()
    if not media_type:
        framing = SSE if asked_stream else JSON
    else:
        framing = _FRAMINGS.get(media_type) or (JSON if media_type.endswith("+json") else NEITHER)
    return Selection(route, dialect, framing)


def _route(path: str) -> tuple[str, Dialect]:
    if not path:  # what came was no request; "/" is a route
        return OTHER_ROUTE, UNKNOWN
    segments = path.strip("/").rsplit("/", _LONGEST_END)[-_LONGEST_END:]
    if _TRITON in path and segments[-1] in _TRITON_READ:
        return _TRITON_READ[segments[-1]]
    for start in range(len(segments)):
        found = _BY_END.get("/".join(segments[start:]))
        if found is not None:
            return found
    # A model's name may hold slashes.
    return next(((route, UNKNOWN) for inside, route in _PAGES if inside in path), (OTHER_ROUTE, UNKNOWN))
