"""Fields of a multipart form (RFC 7578): what a request with a file says beside the file.

Read as python-multipart does, with which engines do: the boundary begins the body, lines end with CRLF, and of a
repeated field the last counts. Files, and what goes on behind the bytes at hand, are skipped by searching for the
boundary.
"""

import re
from typing import Final

# RFC 2046 allows 70.
MAX_BOUNDARY_BYTES: Final = 256
# An API's form has some twenty fields, a part's head some 100 bytes, a name of a model less.
MAX_PARTS: Final = 64
MAX_HEAD_BYTES: Final = 1024
MAX_VALUE_BYTES: Final = 1024

_TYPE: Final = re.compile(rb"\s*multipart/form-data\s*(?:;|\Z)", re.IGNORECASE)
_BOUNDARY: Final = re.compile(rb';\s*boundary=(?:"((?:[^"\\]|\\.)*+)"|([^;\s"]++))', re.IGNORECASE)
_DISPOSITION: Final = re.compile(rb"(?:\A|\r\n)content-disposition:\s*form-data\s*(;[^\r\n]*+)", re.IGNORECASE)
_PARAMETER: Final = re.compile(rb';\s*([!-:<>-~]++)=(?:"((?:[^"\\]|\\.)*+)"|([^;\s"]*+))')
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)


def boundary_of(content_type: bytes) -> bytes | None:
    """Return the boundary that a Content-Type names; None if it is none of a form."""
    if _TYPE.match(content_type) is None:
        return None
    found = _BOUNDARY.search(content_type)
    boundary = _text(found[1], found[2]) if found else b""
    return boundary if 0 < len(boundary) <= MAX_BOUNDARY_BYTES else None


def fields(body: bytes, boundary: bytes) -> dict[str, str] | None:
    """Return the short fields in the beginning of a form, without files; None if it is none."""
    delimiter = b"--" + boundary
    at = len(body) - len(body.lstrip(b"\r\n"))
    if not body.startswith(delimiter, at):
        return None
    found: dict[str, str] = {}
    separator = b"\r\n" + delimiter
    at += len(delimiter)
    for _ in range(MAX_PARTS):
        start = body.find(b"\r\n", at, at + MAX_HEAD_BYTES)
        if start < 0 or body.startswith(b"--", at):
            break
        head_end = body.find(b"\r\n\r\n", start, start + MAX_HEAD_BYTES)
        if head_end < 0:
            break
        end = body.find(separator, head_end + 2)
        if end < 0:
            break
        name = _name(body[start + 2 : head_end])
        if name and end - head_end - 4 <= MAX_VALUE_BYTES:
            found[name] = body[head_end + 4 : end].decode("utf-8", "replace")
        at = end + len(separator)
    return found


def _name(head: bytes) -> str:
    """Return the name of a field; "" of a file, or of what is no part of a form."""
    disposition = _DISPOSITION.search(head)
    if disposition is None:
        return ""
    parameters = {name.lower(): _text(quoted, token) for name, quoted, token in _PARAMETER.findall(disposition[1])}
    return "" if b"filename" in parameters else parameters.get(b"name", b"").decode("utf-8", "replace")


def _text(quoted: bytes | None, token: bytes | None) -> bytes:
    return _ESCAPED.sub(rb"\1", quoted) if quoted else token or b""
