"""JSON as engines in Python read it: the standard library's parser takes what the one that we read with refuses.

NaN and Infinity, lone surrogates, UTF-16 and UTF-32. It is several times slower, so it is asked only after the other.
"""

import json
from typing import Any, Final

# Enough to see whether an object begins; what begins with more blanks is read to see it.
_BEGINNING_BYTES: Final = 64


def read_object(data: bytes) -> dict[str, Any] | None:
    """Return the object; None if it is none, or no JSON."""
    try:
        beginning = data[:_BEGINNING_BYTES].decode(json.detect_encoding(data), "ignore").lstrip("\ufeff \t\r\n")
        found = json.loads(data) if beginning[:1] in ("", "{") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_utf8(data: bytes) -> bool:
    """Tell whether ASCII may be spliced into what has been read."""
    return json.detect_encoding(data).startswith("utf-8")


def printable(text: str) -> str:
    """Return it without lone surrogates: they cannot be written anywhere."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
