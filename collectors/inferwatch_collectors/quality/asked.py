"""What was asked: what is the same of two requests if a prompt is sent again. Pure."""

from typing import Final

import msgspec

from inferwatch.tap import Open
from inferwatch_collectors.dialects.content import BAD_JSON

# Of a longer body the beginning and the length are compared.
MAX_HASHED_BYTES: Final = 65_536
# Who asks again may ask for another throw of the dice, more tokens, or a stream: it is the same prompt.
_HOW: Final = frozenset({
    "temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "n", "best_of", "stream", "stream_options",
    "logprobs", "top_logprobs", "logit_bias", "frequency_penalty", "presence_penalty", "repetition_penalty",
    "max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "parameters", "options", "metadata",
})  # fmt: skip
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def asked(opened: Open) -> bytes:
    """Return what is the same if a prompt is sent again: the body without what says only how to answer.

    Of a body that is longer, or no object, the length and the beginning.
    """
    body = opened.body
    if len(body) == opened.body_bytes <= MAX_HASHED_BYTES:
        try:
            members = _members(body).items()
            return b"\0".join(b"%s\0%s" % (name.encode(), raw) for name, raw in members if name not in _HOW)
        except BAD_JSON:
            pass
    return b"%d\0" % opened.body_bytes + body[:MAX_HASHED_BYTES]
