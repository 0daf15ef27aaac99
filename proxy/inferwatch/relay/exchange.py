"""One request on its way through the relay: the reply is written to the client as the engine's reads come in.

Nothing waits meanwhile. The owner is called when there is something to decide: the reply is over, a reused connection
turned out to be dead, the engine refused our edit, or it switched protocols. Chunks of a stream call nobody.
"""

import asyncio
import time
from typing import Final, NamedTuple, Protocol

from inferwatch.record import ErrorType
from inferwatch.relay import heads
from inferwatch.relay.cutting import Cutting
from inferwatch.relay.lane import Lane
from inferwatch.relay.observer import Observer
from inferwatch.relay.upstream import Connection, Header
from inferwatch.relay.usage_filter import Fingerprint
from inferwatch.settings.traffic import Upstream

# Unsent bytes per client above which the engine's socket is paused: as much as asyncio's own default, two hundred
# events.
HIGH_WATER_BYTES: Final = 64 * 1024

# A connection that died idle shows it within a round trip. Later, sending again would do the work twice.
STALE_NS: Final = 1_000_000_000

# What engines say to a body they do not accept; 422 where fields are checked strictly.
REFUSALS: Final = frozenset({400, 422})

LAST_CHUNK: Final = b"0\r\n"


class Refusal(NamedTuple):
    """We refuse the request as the client's fault."""

    status: int
    message: str
    error: ErrorType
    retry_after_s: int = 0  # of a budget
    spent: bool = False  # it is of no use to try before then


class Owner(Protocol):
    """Who decides what becomes of a request."""

    def settled(self) -> None:
        """There is something to decide."""


class Exchange:
    """The reply side of one request; implements `upstream.Sink`."""

    __slots__ = (
        "_chunked",
        "_fingerprint",
        "_head",
        "_paused_ns",
        "_tells_id",
        "arrival_ns",
        "blocked",
        "client_11",
        "client_keep_alive",
        "closed",
        "connection",
        "cutting",
        "edit_refused",
        "edited",
        "error",
        "finished",
        "head_ns",
        "head_written",
        "is_head_request",
        "observer",
        "offered_ns",
        "owner",
        "refusal",
        "resumed_ns",
        "retried",
        "sent_ns",
        "stalled_ns",
        "status",
        "transport",
        "tunnel_rest",
        "well_ended",
        "went_stale",
    )

    def __init__(
        self,
        observer: Observer,
        transport: asyncio.Transport,
        *,
        arrival_ns: int,
        is_head_request: bool,
        client_11: bool,
        client_keep_alive: bool,
        fingerprint: Fingerprint,
        tells_id: bool = False,
    ) -> None:
        """`tells_id`: the client is told our id of its request."""
        self.observer = observer
        self.transport = transport
        self._fingerprint = fingerprint
        self._tells_id = tells_id
        self.arrival_ns = arrival_ns
        self.is_head_request = is_head_request
        self.client_11 = client_11
        self.client_keep_alive = client_keep_alive
        self.connection: Connection | None = None
        self.owner: Owner | None = None
        self._chunked = False
        self._head = b""  # of the reply, until it is known whether body came with it
        self._paused_ns = 0
        self.sent_ns = self.head_ns = self.resumed_ns = self.stalled_ns = 0
        self.offered_ns = 0  # since then the engine has not taken what it was sent of a streamed body
        self.status = 0
        self.head_written = self.retried = self.closed = False
        self.refusal: Refusal | None = None  # while a large body was being passed on
        self.finished = self.blocked = self.went_stale = False
        self.edited = False  # the engine got a body that is not quite the client's
        self.edit_refused = False  # and did not like it
        self.well_ended = False  # by us, so that the client's connection may go on
        self.cutting: Cutting | None = None  # told to: the stream is to end with its next event
        self.error = ErrorType.NONE
        self.tunnel_rest: bytes | None = None  # set by a 101

    def _write(self, data: bytes) -> None:
        """Write, unless the client is about to be gone: a transport that is closing warns."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def _settled(self) -> None:
        if self.owner is not None:
            self.owner.settled()

    # upstream.Sink

    def informational(self, status: int, reason: bytes, headers: list[Header]) -> None:
        if self.client_11:
            self._write(heads.reply(status, reason, headers, drop_length=False, extra=b""))

    def head(self, stamp_ns: int, status: int, reason: bytes, headers: list[Header], has_body: bool) -> None:
        if self.edited and status in REFUSALS:
            self._refuse_edit()
            return
        self.head_ns = stamp_ns
        self.status = status
        edited = self.observer.head(stamp_ns, status, headers, self._fingerprint)
        if not self.observer.is_stream:
            self.cutting = None  # an error, say: it is whole or nothing
        lines, framed = heads.reply_lines(headers, drop_length=edited)
        extra = b""
        if has_body and not framed:
            if self.client_11:
                self._chunked = True
                extra = b"Transfer-Encoding: chunked\r\n"
            else:
                self.client_keep_alive = False  # to HTTP/1.0 the end of the connection is the end of the body
        if not self.client_keep_alive:
            extra += b"Connection: close\r\n"
        elif not self.client_11:
            extra += b"Connection: keep-alive\r\n"
        if self._tells_id:
            extra += b"X-Inferwatch-Request-Id: %b\r\n" % self.observer.request_id.encode()
        self.head_written = True
        self._head = b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, reason, lines, extra)

    def _refuse_edit(self) -> None:
        """Drop this reply with its connection: the owner sends the client's own body."""
        self.edit_refused = True
        self.hang_up()
        self._settled()

    def read_done(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._write(head)

    def upgraded(self, stamp_ns: int, reason: bytes, headers: list[Header], rest: bytes) -> None:
        self.head_ns = stamp_ns
        self.status = 101
        self.observer.head(stamp_ns, 101, headers, self._fingerprint)
        upgrade = next((value for name, value in headers if name.lower() == b"upgrade"), b"")
        extra = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % upgrade
        self.head_written = True
        self._write(heads.reply(101, reason, headers, drop_length=False, extra=extra))
        self.tunnel_rest = rest
        self.finished = True
        self._settled()

    def body(self, stamp_ns: int, data: bytes) -> None:
        data = self.observer.body(stamp_ns, data)
        if not data:
            return
        if self.cutting is not None:
            self._shorten(self.cutting, data)
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head:  # came with this read: one write, not two
            data = self._head + data
            self._head = b""
        transport = self.transport
        if transport.is_closing():
            self.hang_up()
            return
        transport.write(data)

    def lane(self) -> Lane | None:
        """Return what ordinary reads may take from here on instead of `body`."""
        if not self._chunked or self._head or self.cutting is not None:
            return None
        return self.observer.lane(self.transport)

    def cut(self, error: ErrorType) -> None:
        """End the stream because of `error`, here if it is between two events. What is no stream goes on.

        Told for two reasons, it ends for the first.
        """
        if self.finished or self.cutting is not None or (self.head_written and not self.observer.is_stream):
            return
        self.cutting = self.observer.cutting(error)
        if self.connection is not None:
            self.connection.lane = None
        # To wait for one more event of each stream would cost a token of each.
        end = self.observer.last_words(self.cutting) if self.head_written else None
        if end is not None and not self.transport.is_closing():
            if end:
                self._write_body(end)
            self._end_cut(error, in_good_form=True)

    def _shorten(self, cutting: Cutting, data: bytes) -> None:
        """Pass on a stream that is to end, and end it where it can."""
        if self.transport.is_closing():
            self.hang_up()
            return
        data, is_end = self.observer.shorten(cutting, data)
        self.read_done()
        if data:
            self._write_body(data)
        if is_end:
            self._end_cut(cutting.error, in_good_form=cutting.in_good_form)

    def _end_cut(self, error: ErrorType, *, in_good_form: bool) -> None:
        self.hang_up()
        self.error = error
        self.finished = True
        self.observer.end()  # what it held back comes behind the end
        if self._chunked and in_good_form:
            self.well_ended = True
            self._write(LAST_CHUNK + b"\r\n")
        self._settled()

    def complete(self, trailers: list[Header]) -> None:
        if self.blocked and self.connection is not None and not self.connection.transport.is_closing():
            self.connection.transport.resume_reading()  # it is the pool's now, and must notice when it dies
        self.finished = True  # before the last words, which may fill the client's transport
        self.read_done()
        self._write_rest()
        if self._chunked:
            lines = b"".join([b"%b: %b\r\n" % field for field in trailers])
            self._write(LAST_CHUNK + lines + b"\r\n")
        self._settled()

    def failed(self, error: ErrorType) -> None:
        self.error = error
        if self.head_written:
            self.read_done()
            self._write_rest()
        self.finished = True
        self._settled()

    def stale(self) -> None:
        if time.monotonic_ns() - self.sent_ns > STALE_NS:
            # Not a connection that died idle: the engine had the request, and may have died of it.
            self.failed(ErrorType.UPSTREAM_RESET)
            return
        self.went_stale = True
        self._settled()

    # the slow client

    def block(self, now_ns: int) -> None:
        """The client's transport is full: stop reading from the engine until the client has caught up."""
        if not self.finished and self.connection is not None and not self.connection.transport.is_closing():
            self.connection.transport.pause_reading()
        self._paused_ns = now_ns
        self.blocked = True

    def unblock(self, now_ns: int) -> None:
        """The client has caught up."""
        if not self.blocked:
            return
        self.stalled_ns += now_ns - self._paused_ns
        self.resumed_ns = now_ns
        self.blocked = False
        if self.finished:
            self._settled()  # a reply is over when the client has it
        elif self.connection is not None and not self.connection.transport.is_closing():
            self.connection.transport.resume_reading()

    # ends that do not come from the engine

    def overdue(self, now_ns: int, settings: Upstream) -> ErrorType | None:
        """Return the time-out that has passed, if any."""
        if self.finished or self.connection is None:
            return None
        if now_ns - self.arrival_ns > settings.total_timeout_s * 1e9:
            return ErrorType.TOTAL_TIMEOUT
        if not self.head_ns:
            waiting = self.sent_ns and now_ns - self.sent_ns > settings.first_byte_timeout_s * 1e9
            stalled = self.offered_ns and now_ns - self.offered_ns > settings.idle_timeout_s * 1e9
            return ErrorType.FIRST_BYTE_TIMEOUT if waiting or stalled else None
        last_ns = max(self.head_ns, self.observer.last_body_ns, self.resumed_ns)
        if not self.blocked and now_ns - last_ns > settings.idle_timeout_s * 1e9:
            return ErrorType.IDLE_TIMEOUT
        return None

    def stuck(self, now_ns: int, settings: Upstream) -> bool:
        """Whether the client has taken nothing for as long as an engine may be silent."""
        return self.blocked and now_ns - self._paused_ns > settings.idle_timeout_s * 1e9

    def give_up(self, error: ErrorType) -> None:
        """A time-out: stop the engine, and let the owner tell the client."""
        if not self.finished:
            self.hang_up()
            self.failed(error)
            if self.blocked:
                self.transport.abort()  # the owner waits for a client that does not read

    def hang_up(self) -> None:
        """Close the engine's connection, so that it stops generating. A finished one is the pool's again."""
        connection, self.connection = self.connection, None
        if connection is not None and (not self.finished or self.tunnel_rest is not None):
            connection.abort()

    def _write_rest(self) -> None:
        rest = self.observer.end()
        if rest and self.head_written:
            self._write_body(rest)

    def _write_body(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
