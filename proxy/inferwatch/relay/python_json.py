"""JSON as engines in Python read it: the standard library's parser takes what the one that we read with refuses.

NaN and Infinity, lone surrogates, UTF-16 and UTF-32. It is several times slower, so it is asked only after the other.
"""

import codecs
import json
from typing import Any, Final

# Enough to see whether an object begins; what begins with more blanks is read to see it.
_BEGINNING_BYTES: Final = 64

# What a byte order mark in front decides.
_ORDERS: Final = ("utf-16", "utf-32")


def read_object(data: bytes) -> dict[str, Any] | None:
    """Return the object; None if it is none, or no JSON."""
    try:
        beginning = data[:_BEGINNING_BYTES].decode(json.detect_encoding(data), "ignore").lstrip("\ufeff \t\r\n")
        found = json.loads(data) if beginning[:1] in ("", "{") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def written(value: Any) -> bytes:
    """Return a part of what has been read as ASCII; nothing where it is nested too deep for that."""
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b""


def is_wide(data: bytes) -> bool:
    """Tell whether it is UTF-16 or UTF-32, if it is JSON at all: no other has such a beginning."""
    return b"\0" in data[:4] or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def end_of_wide(data: bytes) -> tuple[int, str]:
    """Return where the last brace of such an object is, and how to encode what is put before it."""
    encoding: str = json.detect_encoding(data)
    text = data.decode(encoding, "surrogatepass")
    end = text[len(text.rstrip(" \t\r\n")) - 1 :]
    if encoding in _ORDERS:
        encoding += "-le" if data.startswith(codecs.BOM_UTF16_LE) else "-be"
    return len(data) - len(end.encode(encoding)), encoding


def printable(text: str) -> str:
    """Return it without lone surrogates: they cannot be written anywhere."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
