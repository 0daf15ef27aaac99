"""Request and reply heads as bytes: what is passed on, what ends at us.

Order, case and repetition of header fields are kept; nothing is added to a reply (no Server, no Date, no Via): a client
must not be able to tell that we are here.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

Header = tuple[bytes, bytes]

# RFC 9110 section 7.6.1. Framing (Content-Length, Transfer-Encoding) is written anew on each side, Expect is answered
# by us, and request trailers are not passed on.
_REQUEST_ENDS_HERE: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_REPLY_ENDS_HERE: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)

OURS: Final = b"x-inferwatch-"

# Mirrored to the collector: what dialects and later sinks need. Never Authorization, cookies or anything unknown.
MIRRORED_REQUEST_HEADERS: Final = frozenset(
    {
        b"anthropic-version",
        b"content-encoding",
        b"content-type",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"x-request-id",
    }
)
_NOT_MIRRORED_REPLY_HEADERS: Final = frozenset({b"set-cookie", b"date", b"server"})

# Names and values of one reply that are mirrored; an engine sends some 500 bytes.
MAX_MIRRORED_HEAD_BYTES: Final = 8192
# Of a field that does not fit, its end: vLLM's `metadata` has 100 bytes for each vector, and then the usage.
MIRRORED_END_BYTES: Final = 1024


# Field names seen lately, as they came, with what is to be known of them: a client sends the same twenty names with
# every request, and to lower, sort and decode them each time is a third of what a head costs. Bounded, because anybody
# may send new ones.
MAX_REMEMBERED: Final = 1024
MAX_REMEMBERED_BYTES: Final = 64

_PASSED, _MIRRORED, _ENDS_HERE, _OURS = range(4)

_NONE: Final[Mapping[bytes, bytes]] = {}

_requests: dict[bytes, tuple[bytes, str, int]] = {}  # name -> lower-case name, the same as text, its kind
_replies: dict[bytes, tuple[bytes, str, int]] = {}


def _learn_request(name: bytes) -> tuple[bytes, str, int]:
    lower = name.lower()
    kind = _PASSED
    if lower in _REQUEST_ENDS_HERE:
        kind = _ENDS_HERE
    elif lower.startswith(OURS):
        kind = _OURS
    elif lower in MIRRORED_REQUEST_HEADERS:
        kind = _MIRRORED
    return _remember(_requests, name, lower, kind)


def _learn_reply(name: bytes) -> tuple[bytes, str, int]:
    lower = name.lower()
    kind = _MIRRORED
    if lower in _REPLY_ENDS_HERE:
        kind = _ENDS_HERE
    elif lower in _NOT_MIRRORED_REPLY_HEADERS:
        kind = _PASSED
    return _remember(_replies, name, lower, kind)


def _remember(
    names: dict[bytes, tuple[bytes, str, int]], name: bytes, lower: bytes, kind: int
) -> tuple[bytes, str, int]:
    known = (lower, lower.decode("latin-1"), kind)
    if len(name) <= MAX_REMEMBERED_BYTES:
        if len(names) >= MAX_REMEMBERED:
            names.clear()
        names[name] = known
    return known


class RequestHead:
    """One pass over the fields of a request."""

    __slots__ = (
        "chunked",
        "codings",
        "expects_continue",
        "forwarded",
        "hosts",
        "length_field",
        "mirrored",
        "named",
        "ours",
        "path",
        "target",
        "trace_line",
        "upgrade",
    )

    def __init__(self, target: bytes, raw_headers: Iterable[Header]) -> None:
        self.target = target
        self.path = path_of(target)
        self.forwarded: list[Header] = []
        self.named: dict[bytes, bytes] = {}  # lower-case name -> first value, of what is passed on
        self.ours: Mapping[bytes, bytes] = _NONE  # x-inferwatch-…, without the prefix
        self.mirrored: dict[str, str] = {}
        self.upgrade = b""
        self.trace_line = b""  # our own traceparent, when it replaces the client's
        self.expects_continue = False
        self.hosts = 0
        self.length_field = b""  # Content-Length as it came
        self.codings: tuple[bytes, ...] = ()  # Transfer-Encoding
        self.chunked = False
        options: list[bytes] = []  # of Connection
        for field in raw_headers:
            lower, text, kind = _requests.get(field[0]) or _learn_request(field[0])
            if kind <= _MIRRORED:
                self.forwarded.append(field)
                if lower == b"host":
                    self.hosts += 1
                if lower not in self.named:
                    self.named[lower] = field[1]
                    if kind == _MIRRORED:
                        self.mirrored[text] = field[1].decode("latin-1")
                else:
                    self._goes_on(lower, field[1])
            elif kind == _OURS:
                self.ours = {**self.ours, lower.removeprefix(OURS): field[1].strip()}
            elif lower == b"connection":
                options += [option.strip().lower() for option in field[1].split(b",")]
            else:
                self._ends_here(lower, field[1])
        if self.upgrade and b"upgrade" not in options:
            self.upgrade = b""
        if options and not self.named.keys().isdisjoint(options):
            self.without(*options)
            for name in options:
                self.named.pop(name, None)  # a Host, say: the engine gets one all the same

    def _goes_on(self, name: bytes, value: bytes) -> None:
        """Lists may come in pieces."""
        if name == b"tracestate":
            self.mirrored["tracestate"] += "," + value.decode("latin-1")
        elif name == b"accept-encoding":
            self.named[name] += b", " + value

    def _ends_here(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self.length_field = value
        elif name == b"transfer-encoding":
            self.codings += (value,)
        elif name == b"upgrade":
            self.upgrade = value.strip()
        elif name == b"expect":
            self.expects_continue = value.strip().lower() == b"100-continue"

    @property
    def length(self) -> int:
        """Bytes of body that Content-Length announces; only for a field that has been checked."""
        return int(self.length_field or 0)

    def without(self, *names: bytes) -> None:
        """Do not pass these on (lower-case names)."""
        self.forwarded = [field for field in self.forwarded if field[0].lower() not in names]

    def instead(self, name: bytes, value: bytes) -> None:
        """Pass on one such field (lower-case name), where the first of them stood."""
        first = next(field for field in self.forwarded if field[0].lower() == name)
        changed = [(field[0], value) if field is first else field for field in self.forwarded]
        self.forwarded = [field for field in changed if field[0].lower() != name or field[1] is value]
        self.named[name] = value


def request(
    method: bytes,
    target: bytes,
    head: RequestHead,
    *,
    host: bytes,
    replace_host: bool,
    without: frozenset[bytes],
    extra: bytes,
) -> bytes:
    """Serialise the request head for the engine. `extra` holds complete header lines (framing, trace context).

    `host` is the engine's own: sent when the client named none (HTTP/1.0), or instead of the client's.
    """
    start = b"%b %b HTTP/1.1\r\n" % (method, target)
    if b"host" not in head.named:
        start += b"Host: %b\r\n" % host
    fields = head.forwarded
    if without:
        fields = [field for field in fields if field[0].lower() not in without]
    if replace_host:
        fields = [(name, host if name.lower() == b"host" else value) for name, value in fields]
    return start + b"".join([b"%b: %b\r\n" % field for field in fields]) + extra + b"\r\n"


def reply(status: int, reason: bytes, headers: list[Header], *, drop_length: bool, extra: bytes) -> bytes:
    """Serialise a reply head for the client."""
    lines, _ = reply_lines(headers, drop_length=drop_length)
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, reason, lines, extra)


def reply_lines(headers: list[Header], *, drop_length: bool) -> tuple[bytes, bool]:
    """Return the fields for the client, and whether they tell the body's length."""
    lines = []
    has_length = False
    options: list[bytes] = []
    for field in headers:
        lower, _, kind = _replies.get(field[0]) or _learn_reply(field[0])
        if kind == _ENDS_HERE:
            if lower == b"connection":
                options += [option.strip().lower() for option in field[1].split(b",")]
            continue
        if lower == b"content-length":
            if drop_length:
                continue
            has_length = True
        lines.append(b"%b: %b\r\n" % field)
    if options and not {name.lower() for name, _ in headers}.isdisjoint(options):
        return reply_lines([field for field in headers if field[0].lower() not in options], drop_length=drop_length)
    return b"".join(lines), has_length


def mirrored_reply(headers: list[Header]) -> dict[str, str]:
    """Return what the collector gets to see of a reply head."""
    seen: dict[str, str] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if size > MAX_MIRRORED_HEAD_BYTES:
            size -= len(value)
            value = value[-MIRRORED_END_BYTES:]  # noqa: PLW2901 - the rest of it is not for the mirror
            size += len(value)
            if size > MAX_MIRRORED_HEAD_BYTES + MIRRORED_END_BYTES:
                break
        _, text, kind = _replies.get(name) or _learn_reply(name)
        if kind != _PASSED:
            seen[text] = value.decode("latin-1")
    return seen


def origin_form(target: bytes) -> bytes:
    """Return the request target as a path: an absolute URI loses scheme and authority (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/") or target == b"*":
        return target
    scheme, separator, rest = target.partition(b"://")
    if not separator or not scheme.isalpha():
        return b"/" + target
    authority = len(rest.partition(b"?")[0].partition(b"/")[0])
    tail = rest[authority:]
    return tail if tail.startswith(b"/") else b"/" + tail


def path_of(target: bytes) -> str:
    """Return the path of a request target as engines route by it: without query and fragment, its escapes decoded.

    For decisions only: the target is passed on as it came. `/v1/chat/complet%69ons` generates like its plain spelling.
    """
    path = target.partition(b"?")[0]
    return _known_path(path) if len(path) <= MAX_REMEMBERED_BYTES else _path(path)


def _path(path: bytes) -> str:
    if not path.startswith(b"/"):
        path = origin_form(path)
    text = path.partition(b"#")[0].decode("utf-8", "replace")  # no lone surrogates: they cannot be written anywhere
    return unquote(text)


_known_path = lru_cache(maxsize=MAX_REMEMBERED)(_path)
