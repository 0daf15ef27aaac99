"""Request and reply heads as bytes: what is passed on, what ends at us.

Order, case and repetition of header fields are kept; nothing is added to a reply (no Server, no Date, no Via): a client
must not be able to tell that we are here.
"""

from collections.abc import Iterable
from typing import Final

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
    {b"content-type", b"content-encoding", b"user-agent", b"x-request-id", b"traceparent", b"anthropic-version"}
)
_NOT_MIRRORED_REPLY_HEADERS: Final = frozenset({b"set-cookie", b"date", b"server"})

# Names and values of one reply that are mirrored; an engine sends some 500 bytes.
MAX_MIRRORED_HEAD_BYTES: Final = 8192


class RequestHead:
    """One pass over the fields of a request."""

    __slots__ = ("expects_continue", "forwarded", "mirrored", "named", "ours", "path", "trace_line", "upgrade")

    def __init__(self, target: str, raw_headers: Iterable[Header]) -> None:
        self.path = path_of(target)
        self.forwarded: list[Header] = []
        self.named: dict[bytes, bytes] = {}  # lower-case name -> first value, of what is passed on
        self.ours: dict[bytes, bytes] = {}  # x-inferwatch-…, without the prefix
        self.mirrored: dict[str, str] = {}
        self.upgrade = b""
        self.trace_line = b""  # our own traceparent, when it replaces the client's
        self.expects_continue = False
        connection_options: list[bytes] = []
        for field in raw_headers:
            name = field[0].lower()
            value = field[1]
            if name in _REQUEST_ENDS_HERE:
                if name == b"connection":
                    connection_options += [option.strip().lower() for option in value.split(b",")]
                elif name == b"upgrade":
                    self.upgrade = value
                elif name == b"expect":
                    self.expects_continue = value.strip().lower() == b"100-continue"
            elif name.startswith(OURS):
                self.ours[name.removeprefix(OURS)] = value
            else:
                self.forwarded.append(field)
                if name not in self.named:
                    self.named[name] = value
                    if name in MIRRORED_REQUEST_HEADERS:
                        self.mirrored[name.decode("latin-1")] = value.decode("latin-1")
        if b"upgrade" not in connection_options:
            self.upgrade = b""
        named = [option for option in connection_options if option in self.named]
        if named:
            self.forwarded = [field for field in self.forwarded if field[0].lower() not in named]

    def without(self, *names: bytes) -> None:
        """Do not pass these on (lower-case names)."""
        self.forwarded = [field for field in self.forwarded if field[0].lower() not in names]


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
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target)]
    if b"host" not in head.named:
        lines.append(b"Host: %b\r\n" % host)
    for name, value in head.forwarded:
        lower = name.lower()
        if lower in without:
            continue
        shown = host if replace_host and lower == b"host" else value
        lines.append(b"%b: %b\r\n" % (name, shown))
    lines.append(extra)
    lines.append(b"\r\n")
    return b"".join(lines)


def reply(status: int, reason: bytes, headers: list[Header], *, drop_length: bool, extra: bytes) -> bytes:
    """Serialise a reply head for the client."""
    ends_here = _REPLY_ENDS_HERE
    for name, value in headers:
        if name.lower() == b"connection" and value.lower() not in (b"close", b"keep-alive", b"upgrade"):
            ends_here = ends_here.union(option.strip().lower() for option in value.split(b","))
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason)]
    for name, value in headers:
        lower = name.lower()
        if lower in ends_here or (drop_length and lower == b"content-length"):
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(extra)
    lines.append(b"\r\n")
    return b"".join(lines)


def mirrored_reply(headers: list[Header]) -> dict[str, str]:
    """Return what the collector gets to see of a reply head."""
    seen: dict[str, str] = {}
    size = 0
    for name, value in headers:
        lower = name.lower()
        size += len(name) + len(value)
        if size > MAX_MIRRORED_HEAD_BYTES:
            break
        if lower not in _NOT_MIRRORED_REPLY_HEADERS:
            seen[lower.decode("latin-1")] = value.decode("latin-1")
    return seen


def origin_form(target: str) -> bytes:
    """Return the request target as a path: an absolute URI loses scheme and authority (RFC 9112 section 3.2.2)."""
    raw = target.encode("utf-8", "surrogateescape")
    if raw.startswith(b"/") or raw == b"*":
        return raw
    scheme, separator, rest = raw.partition(b"://")
    if not separator or not scheme.isalpha():
        return b"/" + raw
    slash = rest.find(b"/")
    if slash < 0:
        query = rest.find(b"?")
        return b"/" if query < 0 else b"/" + rest[query:]
    return rest[slash:]


def path_of(target: str) -> str:
    """Return the path of a request target, without the query string."""
    path = target.partition("?")[0]
    if path.startswith("/") and path.isascii():
        return path
    return origin_form(path).decode("utf-8", "replace")  # no lone surrogates: they cannot be written anywhere
