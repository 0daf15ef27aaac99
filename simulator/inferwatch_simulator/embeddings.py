"""Embeddings of texts: what a text is about, as far as its trigrams tell. The same text has the same vector everywhere.

Each trigram of bytes adds to, or takes from, one coordinate of DIMENSIONS, which a checksum says; the vector is then
brought to length 1. Texts in one language, or about one thing, have much of it in common.

No vLLM serves a model that generates beside one that embeds; this one does, so that a test needs one engine.
"""

import secrets
import time
import zlib
from math import sqrt
from typing import Any

import msgspec

from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.personas.fields import ApiError, invalid, malformed
from inferwatch_simulator.text import split

DIMENSIONS = 256
MAX_TEXTS = 2_048  # OpenAI's own limit of a list


def vector_of(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return the embedding of a text, of length 1; that of a text shorter than three characters is its padding's."""
    folded = f"  {text.lower()} ".encode("utf-8", "surrogatepass")
    found = [0.0] * dimensions
    for start in range(len(folded) - 2):
        sum_ = zlib.crc32(folded[start : start + 3])
        found[sum_ % dimensions] += 1.0 if sum_ & 0x8000_0000 else -1.0
    length = sqrt(sum(each * each for each in found))
    if not length:  # what was added was taken away again
        return [1.0, *found[1:]]
    return [each / length for each in found]


def texts_of(body: dict[str, Any], config: SimulatorConfig) -> list[str]:
    """Return what is to be embedded.

    Raises:
        ApiError: as vLLM would refuse it.
    """
    if "input" not in body:
        raise malformed("missing", "body.input", "Field required", body)
    model = body.get("model")
    if model is not None and model != config.model:
        raise ApiError(404, "NotFoundError", f"The model `{model}` does not exist.", "model")
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise malformed("string_type", "body.input", "Input should be a valid string", body["input"])
    if not all(texts) or not 0 < len(texts) <= MAX_TEXTS:
        raise invalid("The input must be non-empty texts.", "input")
    return texts


def tokens_of(texts: list[str]) -> int:
    """Return how many tokens are read."""
    return sum(len(split(text)) for text in texts)


def reply(texts: list[str], config: SimulatorConfig) -> bytes:
    """Return the body of the answer, in vLLM's order."""
    tokens = tokens_of(texts)
    return msgspec.json.encode(
        {
            "id": f"embd-{secrets.token_hex(8)}",
            "object": "list",
            "created": int(time.time()),
            "model": config.model,
            "data": [
                {"index": index, "object": "embedding", "embedding": vector_of(text)}
                for index, text in enumerate(texts)
            ],
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        }
    )
