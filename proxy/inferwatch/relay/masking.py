"""What of a finished request may lie on disk until a collector takes it: how it was counted, nothing of what was said.

Only for the spool; over the socket everything goes as it came. A masked text has the length it had, so that what reads
it sees the same body.
"""

import re
import time
from typing import Final

import msgspec

from inferwatch.tap import Batch, Close, Open

# What the client wrote there it wrote for somebody else.
_NOBODYS_HEADERS: Final = frozenset({"content-type", "content-encoding", "traceparent", "anthropic-version"})

# A segment of a path that is one of an API's own words; others are ids, names of models, or anything.
_WORD: Final = re.compile(r"[a-z][a-z_-]{0,31}|v\d[a-z0-9]{0,7}|")

# Members that say how an answer ended and what kind of event it is. The arguments of a tool may have members of the
# same names, so only the APIs' own words are kept: how it ended, what state it is in, and what kind of thing.
_KEPT: Final = frozenset({b"finish_reason", b"stop_reason", b"done_reason", b"type", b"object", b"status", b"role"})
_VALUE: Final = re.compile(
    rb"|stop|length|abort|error|repetition|load|unload|eos_token|end_turn|max_tokens|stop_sequence|pause_turn|refusal"
    rb"|compaction|tool_use|tool_calls|function_call|content_filter|model_context_window_exceeded"
    rb"|queued|in_progress|completed|incomplete|failed|cancelled"
    rb"|assistant|message|text|thinking|list|embedding|ping|text_completion|chat\.completion(?:\.chunk)?"
    rb"|message_(?:start|delta|stop)|content_block_(?:start|delta|stop)|(?:text|thinking|input_json|signature)_delta"
    rb"|response(?:\.[a-z_.]{1,60})?"
)

_STRING: Final = re.compile(rb'"((?:[^"\\]|\\.)*)("?)(\s*:)?')
_FIELD: Final = re.compile(rb"(?:event|retry): ?[a-z_.0-9]{0,40}|data: ?\[DONE\]|:?")


# A number that may be somebody's, as in the arguments of a tool; no count of tokens is as long.
_LONG_NUMBER: Final = re.compile(rb"(?<![\d.])\d{9,}(?![\d.])")


def masked_batch(batch: Batch) -> Batch:
    """Return what is written of finished requests. For a thread: after each of them others may run."""
    closes = []
    for frame in batch.closes:
        closes.append(masked_close(frame))
        time.sleep(0)  # some 50 us of work behind the interpreter's lock
    return Batch(batch.seq, list(map(masked_open, batch.opens)), [], [], closes, None)


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
        parts.append(_numbers(text[end : match.start()]))
        end = match.end()
        if match[3] is not None:
            name = inner
            parts.append(match[0])
            continue
        kept = name in _KEPT and _VALUE.fullmatch(inner)
        parts.append(b'"' + (inner if kept else b" " * len(inner)) + match[2])
        name = b""
    parts.append(_numbers(text[end:]))
    return b"".join(parts)


def _numbers(text: bytes) -> bytes:
    return _LONG_NUMBER.sub(lambda match: b"1" + b"0" * (len(match[0]) - 1), text)
