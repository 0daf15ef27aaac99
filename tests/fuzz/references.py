"""What other readers make of the same bytes: h11, which is strict in its own way, and llhttp, which most servers use."""

from dataclasses import dataclass, field

import h11
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_FRAMING = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"content-length"}
)


@dataclass
class Reply:
    """A reply as somebody read it. `end`: complete, partial (broke off behind its head) or none (no head)."""

    status: int = 0
    reason: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    end: str = "none"

    @property
    def end_to_end(self) -> list[tuple[bytes, bytes]]:
        """The fields that a proxy must not touch."""
        named = {
            option.strip().lower()
            for name, value in self.fields
            if name.lower() == b"connection"
            for option in value.split(b",")
        }
        return [
            (name, value.strip(b" \t"))
            for name, value in self.fields
            if name.lower() not in _FRAMING and name.lower() not in named
        ]


class H11Reply:
    """Reads one reply with h11, fed piece by piece."""

    def __init__(self, *, is_head: bool = False) -> None:
        self.reply = Reply()
        self.done = False
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        method = "HEAD" if is_head else "GET"
        self._connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        self._connection.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> None:
        """`b""` is the end of the connection."""
        reply = self.reply
        try:
            self._connection.receive_data(data)
            while not self.done:
                event = self._connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    break
                if isinstance(event, h11.Response):
                    reply.status, reply.reason = event.status_code, bytes(event.reason)
                    reply.fields = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
                    reply.end = "partial"
                elif isinstance(event, h11.Data):
                    reply.body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    reply.end = "complete"
                    self.done = True
                elif isinstance(event, h11.ConnectionClosed):
                    self.done = True
        except h11.RemoteProtocolError:
            self.done = True
        self.done = self.done or not data


def by_h11(data: bytes, *, closed: bool, is_head: bool) -> Reply:
    """Read the first reply in `data`."""
    reader = H11Reply(is_head=is_head)
    if data:
        reader.feed(data)
    if closed and not reader.done:
        reader.feed(b"")
    return reader.reply


class _Callbacks:
    def __init__(self, parser_is_head: bool) -> None:
        self.reply = Reply()
        self.is_head = parser_is_head
        self.framed = False
        self.reason = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.parser = HttpResponseParser(self)

    def on_status(self, status: bytes) -> None:
        self.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status < 100:
            raise ValueError("no such status")
        if self.reply.end == "none" and status >= 200:
            self.reply = Reply(status, self.reason, self.fields, b"", "partial")
            self.framed = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.fields)
            if self.is_head or status in (204, 304):
                self.reply.end = "complete"
        self.reason, self.fields = b"", []

    def on_body(self, body: bytes) -> None:
        if self.reply.end == "partial":
            self.reply.body += body

    def on_message_complete(self) -> None:
        if self.reply.end == "partial" and self.framed:
            self.reply.end = "complete"


def by_llhttp(data: bytes, *, closed: bool, is_head: bool) -> Reply:
    """The same with llhttp."""
    callbacks = _Callbacks(is_head)
    try:
        callbacks.parser.feed_data(data)
    except (HttpParserError, HttpParserUpgrade):
        return callbacks.reply
    if closed and callbacks.reply.end == "partial" and not callbacks.framed:
        callbacks.reply.end = "complete"
    return callbacks.reply


@dataclass(frozen=True)
class Request:
    """A request as an engine read it."""

    method: bytes
    target: bytes
    body: bytes


def requests_by_h11(stream: bytes) -> tuple[list[Request], bool]:
    """Read all requests of a connection. The second value: whether all of it was well-formed and complete."""
    found: list[Request] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(stream)
    head: h11.Request | None = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return found, head is None and not connection.trailing_data[0]
            if isinstance(event, h11.Request):
                head, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                found.append(Request(bytes(head.method), bytes(head.target), body))
                head = None
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return found, not connection.trailing_data[0]
                connection.start_next_cycle()
            else:
                return found, False
    except h11.RemoteProtocolError:
        return found, False
