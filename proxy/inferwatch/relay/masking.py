"""What of a finished request may lie on disk until a collector takes it: how it was counted, nothing of what was said.

Only for the spool; over the socket everything goes as it came. A masked text has the length it had, so that what reads
it sees the same body.
"""

import re
from typing import Final

import msgspec

from inferwatch.tap import Close, Open

# What the client wrote there it wrote for somebody else.
_NOBODYS_HEADERS: Final = frozenset({"content-type", "content-encoding", "traceparent", "anthropic-version"})

# A segment of a path that is one of an API's own words; others are ids, names of models, or anything.
_WORD: Final = re.compile(r"[a-z][a-z_-]{0,31}|v\d[a-z0-9]{0,7}|")

# Members that say how an answer ended and what kind of event it is; their values are the API's own words.
_KEPT: Final = frozenset({b"finish_reason", b"stop_reason", b"done_reason", b"type", b"object", b"status", b"role"})
_VALUE: Final = re.compile(rb"[a-z_.]{0,40}")

_STRING: Final = re.compile(rb'"((?:[^"\\]|\\.)*)("?)(\s*:)?')
_FIELD: Final = re.compile(rb"(?:event|retry): ?[a-z_.0-9]{0,40}|data: ?\[DONE\]|:?")


def masked_open(frame: Open) -> Open:
    """Return what is written of a request's head."""
    segments = [segment if _WORD.fullmatch(segment) else "-" for segment in frame.path.split("/")]
    headers = {name: value for name, value in frame.headers.items() if name in _NOBODYS_HEADERS}
    return msgspec.structs.replace(frame, path="/".join(segments), headers=headers, body=b"")


def masked_close(frame: Close) -> Close:
    """Return what is written of its end."""
    if not frame.tail:
        return frame
    return msgspec.structs.replace(frame, tail=masked(frame.tail, whole=len(frame.tail) >= frame.response_bytes))


def masked(tail: bytes, *, whole: bool) -> bytes:
    """Return the end of a body without its texts; b"" where it cannot be told what is one."""
    if whole and tail.lstrip()[:1] in (b"{", b"["):
        return _json(tail)
    lines = tail.split(b"\n")
    if not whole:
        lines = lines[1:]  # it begins in the midst of something
    return b"\n".join(map(_line, lines))


def _line(line: bytes) -> bytes:
    bare = line.rstrip(b"\r")
    start = 6 if bare.startswith(b"data: ") else 5 if bare.startswith(b"data:") else 0
    if _FIELD.fullmatch(bare):
        return line
    return line[:start] + _json(line[start:]) if bare[start : start + 1] in (b"{", b"[") else b""


def _json(text: bytes) -> bytes:
    """Return JSON with blanks in place of its strings, but for names of members and a few of their values."""
    parts: list[bytes] = []
    end, name = 0, b""
    for match in _STRING.finditer(text):
        inner = match[1]
        parts.append(text[end : match.start()])
        end = match.end()
        if match[3] is not None:
            name = inner
            parts.append(match[0])
            continue
        kept = name in _KEPT and _VALUE.fullmatch(inner)
        parts.append(b'"' + (inner if kept else b" " * len(inner)) + match[2])
        name = b""
    parts.append(text[end:])
    return b"".join(parts)
