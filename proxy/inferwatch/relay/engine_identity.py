"""Who answers: some GETs that every engine takes without a key or refuses without harm, and what they give away.

Asked in an order in which the commonest engine is known after two. `engines.Profile.known_by` says the same in words.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec

from inferwatch.engines import LLAMACPP, OLLAMA, SGLANG, TGI, TRANSFORMERS, TRITON, TRTLLM, UNKNOWN, VLLM

VERSION: Final = b"/version"
MODELS: Final = b"/v1/models"
INFO: Final = b"/info"
OLLAMA_VERSION: Final = b"/api/version"
TRITON_METADATA: Final = b"/v2"
HEALTH: Final = b"/health"

_OWNERS: Final = {
    "vllm": VLLM.name,
    "sglang": SGLANG.name,
    "tensorrt_llm": TRTLLM.name,
    "llamacpp": LLAMACPP.name,
    "library": OLLAMA.name,
}

_decode: Final = msgspec.json.Decoder(dict[str, object]).decode


class Answer(NamedTuple):
    """What came for a GET. `headers` by lower-case name."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def content(self) -> dict[str, object]:
        """The JSON object in the body of a success, else {}."""
        if self.status != 200:
            return {}
        try:
            return _decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}


async def identify(get: Callable[[bytes], Awaitable[Answer]]) -> str | None:
    """Return the name of a profile; None while the engine is still starting. What `get` raises goes through."""
    version = await get(VERSION)
    if version.status >= 500:
        return None
    if version.headers.get(b"server", b"").lower().startswith(b"llama.cpp"):
        return LLAMACPP.name
    owner = _OWNERS.get(_owner((await get(MODELS)).content))
    if owner is not None:
        return owner
    if _is_version(version.content):  # an API that needs a key does not show its models
        return VLLM.name
    info = (await get(INFO)).content
    if "router" in info and "max_total_tokens" in info:
        return TGI.name
    if _is_version((await get(OLLAMA_VERSION)).content):
        return OLLAMA.name
    if (await get(TRITON_METADATA)).content.get("name") == "triton":
        return TRITON.name
    health = await get(HEALTH)
    if health.content == {"status": "ok"} and b"x-request-id" in health.headers:
        return TRANSFORMERS.name
    return UNKNOWN.name


def _is_version(content: dict[str, object]) -> bool:
    return set(content) == {"version"} and isinstance(content["version"], str)


def _owner(models: dict[str, object]) -> str:
    """Return who owns the first model of a list."""
    data = models.get("data")
    first = data[0] if isinstance(data, list) and data else None
    owner = first.get("owned_by") if isinstance(first, dict) else None
    return owner if isinstance(owner, str) else ""
