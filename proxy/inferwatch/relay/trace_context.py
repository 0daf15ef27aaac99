"""W3C trace context: our own span goes between the caller's and the engine's.

The engine's span must be a child of ours, so its parent id is replaced; trace id, flags and `tracestate` stay the
caller's. The sampled flag is not touched: with `-00` vLLM makes no span at all, and that is the caller's decision. A
header that is not valid is passed on as it came.
"""

import re
import secrets
from typing import NamedTuple

_TRACEPARENT = re.compile(rb"^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})((?:-.*)?)$")


class TraceContext(NamedTuple):
    """Ids in hex. `header` is the line for the engine."""

    trace_id: str
    span_id: str
    parent_span_id: str
    header: bytes
    sampled: bool = True


def join(traceparent: bytes) -> TraceContext | None:
    """Return the context with our span in it, or None if the header is invalid."""
    match = _TRACEPARENT.match(traceparent.strip())
    if match is None:
        return None
    version, trace_id, parent, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest) or not int(trace_id, 16) or not int(parent, 16):
        return None
    return _context(trace_id.decode(), parent.decode(), flags)


def mint() -> TraceContext:
    """Return a new, sampled trace."""
    return _context(secrets.token_hex(16), "", b"01")


def _context(trace_id: str, parent: str, flags: bytes) -> TraceContext:
    span_id = secrets.token_hex(8)
    header = f"traceparent: 00-{trace_id}-{span_id}-{flags.decode()}\r\n".encode()
    return TraceContext(trace_id, span_id, parent, header, sampled=bool(int(flags, 16) & 1))
