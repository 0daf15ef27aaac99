"""The caller's `tracestate`, as far as a span keeps it. The engine has all of it as it came (`relay.trace_context`).

Its members are of vendors, and nobody knows what they put there: an id, or a customer's name. So those are kept that
the configuration names, and of OpenTelemetry's own what its specification has: numbers of samplers. A header that is
not as W3C wants it says nothing, as W3C wants it.
"""

import re
from collections import OrderedDict
from collections.abc import Container, Iterator
from typing import Final

from inferwatch.tap import Open

# W3C: no more are valid.
MAX_MEMBERS: Final = 32

# W3C: as much must be passed on, by whoever passes on anything. Here it is what one request may have.
MAX_CHARS: Final = 512

# As many may be open.
MAX_OPEN: Final = 20_000

OPENTELEMETRY: Final = "ot"

Members = tuple[tuple[str, str], ...]

_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})="
    r"([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
# Threshold and randomness of consistent sampling; `p` and `r` are what they were called before.
_NUMBER: Final = re.compile(r"th:[0-9a-f]{1,14}|rv:[0-9a-f]{14}|[pr]:[0-9]{1,2}")


def kept(header: str, keys: Container[str]) -> Members:
    """Return the members of these keys, in their order; none of a header that is not valid."""
    found: dict[str, str] = {}
    for member in filter(None, (part.strip(" \t") for part in header.split(","))):
        match = _MEMBER.fullmatch(member)
        if match is None or match[1] in found or len(found) == MAX_MEMBERS:
            return ()
        found[match[1]] = match[2]
    return tuple(_within(found, keys))


def _within(members: dict[str, str], keys: Container[str]) -> Iterator[tuple[str, str]]:
    left = MAX_CHARS
    for key, value in members.items():
        if key not in keys:
            continue
        if key == OPENTELEMETRY:
            value = ";".join(filter(_NUMBER.fullmatch, value.split(";")))  # noqa: PLW2901 - what is kept of it
        size = len(key) + len(value) + 2  # with `=` and a comma
        if value and size <= left:
            left -= size
            yield key, value


class TraceStates:
    """Has what open requests came with."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = frozenset(keys)
        self._open: OrderedDict[str, Members] = OrderedDict()
        self.cut = 0  # forgotten, because there were too many

    def opened(self, opened: Open) -> None:
        """Take a request. Without a valid `traceparent` there is no trace that the header could say anything of."""
        header = opened.headers.get("tracestate")
        if header and opened.parent_span_id and (members := kept(header, self._keys)):
            self._open[opened.request_id] = members
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
                self.cut += 1

    def take(self, request_id: str) -> Members:
        """Return what is kept of a request's, and let go of it."""
        return self._open.pop(request_id, ())
