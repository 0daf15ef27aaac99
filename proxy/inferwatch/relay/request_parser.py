"""llhttp, and what it lets through but we do not: the one place that decides what a well-formed request is.

llhttp is strict by default and none of its leniencies is ever switched on. It has no opinion on Host, on versions
other than 1.0 and 1.1, and on transfer codings before `chunked`; those are refused here. Its callbacks can neither stop
it nor tell where it is, so that a read may hold several requests: it is fed in small slices, which bounds how many can
be parsed ahead.
"""

from collections import deque
from typing import Final

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from inferwatch.relay.client_request import Request
from inferwatch.relay.heads import Header, RequestHead

# A request of 30 bytes becomes a kilobyte of objects: at most this much is turned into them before it is their turn.
SLICE_BYTES: Final = 16 * 1024

# A body may come in chunks of a byte, and each piece kept is an object: pieces are joined up to this size.
PIECE_BYTES: Final = 4096

_VERSIONS: Final = {"1.1": True, "1.0": False}

WEBSOCKET: Final = b"websocket"

# llhttp takes them for RTSP, of which it does not tell us.
_NOT_HTTP: Final = frozenset(
    {
        b"ANNOUNCE",
        b"DESCRIBE",
        b"FLUSH",
        b"GET_PARAMETER",
        b"PAUSE",
        b"PLAY",
        b"RECORD",
        b"REDIRECT",
        b"SETUP",
        b"SET_PARAMETER",
        b"TEARDOWN",
    }
)


class MalformedError(Exception):
    """What came is not a well-formed HTTP request. The message says what is wrong with it."""


class RequestParser:
    """Turns a client's bytes into requests, in order. One per connection."""

    __slots__ = (
        "_fields",
        "_head_only_bytes",
        "_line_bytes",
        "_max_bytes",
        "_max_fields",
        "_parser",
        "_resumes",
        "_spans",
        "_target",
        "request",
        "requests",
    )

    def __init__(self, requests: deque[Request], *, max_field_bytes: int, max_fields: int) -> None:
        self.requests = requests  # a request is appended when its head is complete
        self.request: Request | None = None  # the one whose body is being read
        self._max_bytes = max_field_bytes
        self._max_fields = max_fields
        self._target = b""
        self._fields: list[Header] = []
        self._line_bytes = 0  # of a line that is not complete
        self._head_only_bytes = 0  # of a body's framing since its last byte
        self._spans = False  # the head came in several slices
        self._resumes = False  # the head is ours, see `_without_upgrade`
        self._parser = HttpRequestParser(self)

    @property
    def is_inside(self) -> bool:
        """Whether something has begun and is not complete."""
        return self.request is not None or bool(self._target)

    def feed(self, data: bytes) -> bytes:
        """Parse, up to the end of a slice in which a request ended. Returns what was not looked at.

        Raises:
            MalformedError: no more can be made of this connection; requests before the fault are in `requests`.
        """
        while data:
            piece, data = (data, b"") if len(data) <= SLICE_BYTES else (data[:SLICE_BYTES], data[SLICE_BYTES:])
            was_inside = self.request
            body_bytes = was_inside.body_bytes if was_inside is not None else 0
            try:
                self._parser.feed_data(piece)
            except HttpParserUpgrade as upgrade:
                rest = piece[upgrade.args[0] :] + data
                if self._stands():
                    return rest
                data = self._without_upgrade() + rest
                continue
            except HttpParserCallbackError as error:
                if isinstance(error.__context__, MalformedError):
                    raise error.__context__ from None
                raise  # a fault of ours
            except HttpParserError as error:
                raise MalformedError(str(error)) from None
            if self._target:
                self._watch_head(piece)
            elif self.request is not None and self.request is was_inside:
                self._watch_framing(len(piece), self.request.body_bytes - body_bytes)
            if self.requests and self.requests[0].complete:
                return data
        return b""

    # bounds on what llhttp keeps to itself until it is complete

    def _watch_head(self, piece: bytes) -> None:
        """Bound a head that is not complete, and in it the line that is not: nobody else sees that before it is."""
        self._spans = True
        end = piece.rfind(b"\n")
        self._line_bytes = self._line_bytes + len(piece) if end < 0 else len(piece) - end - 1
        if self._line_bytes > self._max_bytes + SLICE_BYTES:  # it may have begun behind a body
            raise MalformedError("line too long")
        self._check_fields(self._fields)

    def _check_fields(self, fields: list[Header]) -> None:
        if len(fields) > self._max_fields:
            raise MalformedError("too many fields")
        if self._spans or self._max_bytes < SLICE_BYTES:  # else none can be too long
            for name, value in fields:
                if len(name) + len(value) > self._max_bytes:
                    raise MalformedError("field too long")

    def _watch_framing(self, size: int, body_bytes: int) -> None:
        """Bound chunk extensions and trailers."""
        self._head_only_bytes = 0 if body_bytes else self._head_only_bytes + size
        if self._head_only_bytes > self._max_bytes:
            raise MalformedError("framing of the body too long")

    # upgrades

    def _stands(self) -> bool:
        """Whether what follows the head is not HTTP, or may not be."""
        request = self.requests[-1]
        if request.method == b"CONNECT":
            return True
        has_body = request.head.chunked or request.head.length
        if request.head.upgrade.lower() == WEBSOCKET and not has_body:
            self._parser = HttpRequestParser(self)  # should the engine decline
            return True
        # A proxy may ignore an upgrade, and so the engines do; Java's client offers h2c with its first POST.
        request.head.upgrade = b""
        return False

    def _without_upgrade(self) -> bytes:
        """llhttp stops at any offer to upgrade. Begin anew, with a head that has only the framing, all checked."""
        self._parser = HttpRequestParser(self)
        request = self.requests[-1]
        if request.head.chunked:
            framing = b"Transfer-Encoding: chunked"
        elif request.head.length:
            framing = b"Content-Length: %d" % request.head.length
        else:
            return b""
        request.complete = False
        self.request = request
        self._resumes = True
        close = b"" if request.keep_alive else b"Connection: close\r\n"
        return b"POST / HTTP/1.1\r\n%b\r\n%b\r\n" % (framing, close)

    # httptools callbacks

    def on_url(self, url: bytes) -> None:
        if self._resumes:
            return
        self._target += url
        if len(self._target) > self._max_bytes:
            raise MalformedError("request line too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        fields, self._fields = self._fields, []
        self._check_fields(fields)
        self._line_bytes = self._head_only_bytes = 0
        self._spans = False
        if self._resumes:
            self._resumes = False
            return
        parser = self._parser
        is_11 = _VERSIONS.get(parser.get_http_version())
        method = parser.get_method()
        if is_11 is None or method in _NOT_HTTP:
            raise MalformedError("not HTTP/1.1")
        head = RequestHead(self._target, fields)
        if head.hosts != 1 and (is_11 or head.hosts):
            raise MalformedError("not one Host")
        if head.codings:
            _check_codings(head, is_11=is_11)
        if not parser.should_upgrade():
            head.upgrade = b""
        self._target = b""
        self.request = request = Request(method, head, is_11=is_11, keep_alive=parser.should_keep_alive())
        self.requests.append(request)

    def on_body(self, data: bytes) -> None:
        request = self.request
        assert request is not None
        parts = request.parts
        if parts and len(parts[-1]) + len(data) <= PIECE_BYTES:
            parts[-1] += data
        else:
            parts.append(data)
        request.body_bytes += len(data)
        request.unread_bytes += len(data)

    def on_message_complete(self) -> None:
        request, self.request = self.request, None
        if self._fields:  # trailers
            self._check_fields(self._fields)
            self._fields = []
        assert request is not None
        request.complete = True


def _check_codings(head: RequestHead, *, is_11: bool) -> None:
    """RFC 9112 section 6.1: a coding we do not undo must not be hidden from the engine; HTTP/1.0 has none."""
    if head.length_field or not is_11 or len(head.codings) > 1 or head.codings[0].strip(b" \t").lower() != b"chunked":
        raise MalformedError("Transfer-Encoding")
    head.chunked = True
