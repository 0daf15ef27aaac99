"""A plain reply that may be an array of replies, one for each prompt."""

from typing import Final

import msgspec

from inferwatch_collectors.dialects.base import MAX_CHOICES, Observation
from inferwatch_collectors.dialects.content import BAD_JSON

_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def whole_replies(observation: Observation, body: bytes) -> list[bytes]:
    """Return the replies in `body`: the elements of an array, up to MAX_CHOICES, or `body` itself."""
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        return [body]
    try:
        return [bytes(raw) for raw in _decode_list(body)[:MAX_CHOICES]]
    except BAD_JSON:
        observation.malformed += 1
        observation.lossy = True
        return []
