"""JSON as engines in Python read it: the standard library's parser takes what the one that we read with refuses.

NaN and Infinity, lone surrogates, UTF-16 and UTF-32. It takes 60 ms for a megabyte of token ids, in which other streams
would stand still: so bodies are made such that the other parser takes them, and only options are given to this one.
"""

import codecs
import json
import re
from typing import Any, Final

# What may stand before a value.
_BEFORE_VALUE: Final = (b":", b",", b"[", b" ", b"\n", b"\t", b"\r", b"-")
_FINITE: Final = ((b"NaN", b"1.0"), (b"Infinity", b"1.000000"))
# Surrogates in escapes and as such (bytes that are no UTF-8), and other characters.
_ESCAPED: Final = re.compile(rb"\\u[dD](?=[89a-fA-F])")
_RAW: Final = re.compile(rb"\xed(?=[\xa0-\xbf])")

# What a byte order mark in front decides.
_ORDERS: Final = ("utf-16", "utf-32")


def read_object(data: bytes) -> dict[str, Any] | None:
    """Return the object; None if it is none, or no JSON."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_wide(data: bytes) -> bool:
    """Tell whether it is UTF-16 or UTF-32, if it is JSON at all: no other has such a beginning."""
    return b"\0" in data[:4] or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def narrow(data: bytes) -> bytes | None:
    """Return it in UTF-8; itself if it is not wide, None if it is in no encoding."""
    if not is_wide(data):
        return data
    try:
        return data.decode(json.detect_encoding(data), "surrogatepass").encode("utf-8", "surrogatepass")
    except ValueError:
        return None


def repaired(data: bytes) -> bytes:
    """Return UTF-8 with as many bytes of what any parser takes in the place of what only Python's does.

    Itself if there is none. Texts are others then, but the members are where they were.
    """
    for odd, usual in _FINITE:
        if odd in data:
            for before in _BEFORE_VALUE:
                data = data.replace(before + odd, before + usual)
    return _RAW.sub(b"\xef", _ESCAPED.sub(rb"\\uf", data))


def end_of_wide(data: bytes) -> tuple[int, str]:
    """Return where the last brace of such an object is, and how to encode what is put before it."""
    encoding: str = json.detect_encoding(data)
    text = data.decode(encoding, "surrogatepass")
    end = text[len(text.rstrip(" \t\r\n")) - 1 :]
    if encoding in _ORDERS:
        encoding += "-le" if data.startswith(codecs.BOM_UTF16_LE) else "-be"
    return len(data) - len(end.encode(encoding)), encoding
