"""Which dialect an answer speaks: a pure function of method, path and content type.

Paths are recognised by their end, since gateways, reverse proxies and Azure put things in front:
`/v1/chat/completions`, `/openai/v1/chat/completions`, `/openai/deployments/NAME/chat/completions`. The route is the
canonical path; the set is closed.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from inferwatch_collectors.dialects.base import Dialect
from inferwatch_collectors.dialects.openai_chat import OPENAI_CHAT
from inferwatch_collectors.dialects.openai_common import Embeddings
from inferwatch_collectors.dialects.openai_completions import OPENAI_COMPLETIONS
from inferwatch_collectors.dialects.unknown import UNKNOWN

OTHER_ROUTE: Final = "other"

_EMBEDDINGS: Final = Embeddings()

# end of the path -> (route, who reads the answer to a POST)
_READ: Final[dict[str, tuple[str, Dialect]]] = {
    "chat/completions": ("/v1/chat/completions", OPENAI_CHAT),
    "completions": ("/v1/completions", OPENAI_COMPLETIONS),
    "embeddings": ("/v1/embeddings", _EMBEDDINGS),
}

# Routes that are only timed. In a path with several of these ends the longest counts.
_TIMED: Final[dict[str, tuple[str, Dialect]]] = {
    route.removeprefix("/"): (route, UNKNOWN)
    for route in (
        "/v1/chat/completions/batch",
        "/v1/chat/completions/render",
        "/v1/completions/render",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/score",
        "/v1/rerank",
        "/v1/realtime",
        "/v1/models",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/inference/v1/generate",
        "/pooling",
        "/classify",
        "/score",
        "/rerank",
        "/v2/rerank",
        "/v2/embed",
        "/invocations",
        "/generate",
        "/generate_stream",
        "/api/generate",
        "/api/chat",
        "/tokenize",
        "/detokenize",
        "/tokenizer_info",
        "/health",
        "/ping",
        "/load",
        "/metrics",
        "/version",
        "/docs",
        "/openapi.json",
    )
}

_BY_END: Final = _TIMED | _READ

_LONGEST_END: Final = max(end.count("/") for end in _BY_END) + 1

ROUTES: Final = frozenset(route for route, _ in _BY_END.values()) | {OTHER_ROUTE}

SSE: Final = "sse"
JSON: Final = "json"
NEITHER: Final = ""


class Selection(NamedTuple):
    """How to read an answer.

    Attributes:
        route: canonical path, one of ROUTES.
        dialect: who reads it; UNKNOWN reads nothing.
        framing: SSE, JSON or NEITHER.
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
    elif media_type == "text/event-stream":
        framing = SSE
    else:
        framing = JSON if media_type == "application/json" or media_type.endswith("+json") else NEITHER
    return Selection(route, dialect, framing)


def _route(path: str) -> tuple[str, Dialect]:
    segments = path.strip("/").rsplit("/", _LONGEST_END)[-_LONGEST_END:]
    for start in range(len(segments)):
        found = _BY_END.get("/".join(segments[start:]))
        if found is not None:
            return found
    # One model's page: its name may hold slashes.
    return ("/v1/models", UNKNOWN) if "/v1/models/" in path else (OTHER_ROUTE, UNKNOWN)
