"""How many tokens a request allows its answer. Read from the bytes: prompts may be megabytes, and most are read once.

Inside JSON strings quotes are escaped, so what is found is a key; one in a nested object would be taken too, and the
largest counts: who asks wants a bound.
"""

import re
from typing import Final

_BEGIN: Final = b'"max_'

# OpenAI's three names, and that of TGI and Transformers.
_LIMIT: Final = re.compile(rb'"max_(?:completion_|output_|new_)?tokens"\s*:\s*(\d{1,9})(?!\d)')

# A body says it once, twice at most. One that is full of such keys is nobody's request.
_MAX_KEYS: Final = 8


def answer_limit(body: bytes) -> int | None:
    """Return the most tokens that each answer to `body` may have; None if it does not say, or is not there."""
    limit: int | None = None
    at = body.find(_BEGIN)
    for _ in range(_MAX_KEYS):
        if at < 0:
            break
        found = _LIMIT.match(body, at)
        if found is not None:
            # Engines make one token where 0 are asked for.
            limit = max(limit or 1, int(found[1]))
        at = body.find(_BEGIN, at + 1)
    return limit
