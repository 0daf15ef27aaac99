"""The engine's side of the relay: one protocol on httptools. Idle ones are in the `pool`.

A connection serves one sink at a time. Everything happens inside `data_received`: the read is stamped, parsed, and
handed to the sink, which writes it to the client at once; no task wakes up for a chunk of a stream.

httptools knows neither HEAD nor the end of a body that ends with the connection, so both are decided here. A new parser
is made for each request: it costs a microsecond and nothing of one reply can leak into the next.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from inferwatch.record import ErrorType
from inferwatch.relay.lane import Lane

if TYPE_CHECKING:
    from inferwatch.relay.pool import Pool

Header = tuple[bytes, bytes]

# An engine's head is a few hundred bytes; this only stops a runaway peer from filling memory before the head is
# complete.
MAX_HEAD_BYTES: Final = 1024 * 1024

# Unsent bytes of a tunnel towards the client above which it is cut: nothing in it can be paused message by message.
MAX_TUNNEL_BYTES: Final = 16 * 1024 * 1024

SWITCHING_PROTOCOLS: Final = 101

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})

NO_BODY_STATUS: Final = frozenset({204, 304})


class Sink(Protocol):
    """Who receives a reply. The calls come in this order; nothing follows `complete`, `failed` or `stale`."""

    def informational(self, status: int, reason: bytes, headers: list[Header]) -> None:
        """A 1xx other than 100 and 101."""

    def head(self, stamp_ns: int, status: int, reason: bytes, headers: list[Header], has_body: bool) -> None:
        """The final head."""

    def upgraded(self, stamp_ns: int, reason: bytes, headers: list[Header], rest: bytes) -> None:
        """101: the connection is the sink's from now on; `rest` came right behind the head."""

    def body(self, stamp_ns: int, data: bytes) -> None:
        """One read's worth of body."""

    def read_done(self) -> None:
        """The read that completed the head is through."""

    def lane(self) -> Lane | None:
        """Between two chunks: who takes reads that are one chunk instead of `body`, if it wants them."""

    def complete(self, trailers: list[Header]) -> None:
        """The reply ended in good form."""

    def failed(self, error: ErrorType) -> None:
        """The connection broke, or what came was not HTTP."""

    def stale(self) -> None:
        """A reused connection died before any byte of the reply: the request may be sent again."""


class Connection(asyncio.Protocol):
    """One connection to the engine."""

    __slots__ = (
        "_body",
        "_body_parts",
        "_complete",
        "_drained",
        "_excess",
        "_has_body",
        "_head_bytes",
        "_header_bytes",
        "_headers",
        "_headers_done",
        "_in_chunk",
        "_is_head_request",
        "_keep_alive",
        "_parser",
        "_pool",
        "_reason",
        "_reused",
        "_sink",
        "_stamp_ns",
        "_takes_upgrade",
        "_until_eof",
        "idle_since_s",
        "is_single",
        "lane",
        "on_body",
        "transport",
        "tunnel",
        "uploading",
    )

    transport: asyncio.Transport

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._sink: Sink | None = None
        self.lane: Lane | None = None  # while the parser is between two chunks of a stream, and only then
        self._reused = False
        self._drained: asyncio.Future[None] | None = None
        self._body: list[bytes] = []
        self.on_body = self._body.append  # httptools calls it for each chunk: a bound C function is the cheapest
        self.tunnel: asyncio.Transport | None = None  # after an upgrade: the client's transport
        self.idle_since_s = 0.0
        self.uploading = False  # a streamed request body has not been sent to its end
        self.is_single = False  # for one request alone: never the pool's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's

    def begin(self, sink: Sink, *, is_head_request: bool = False, takes_upgrade: bool = False) -> None:
        """Expect the reply to a request for `sink`."""
        self._takes_upgrade = takes_upgrade
        self._body_parts = 0  # of this read that belong to the reply, once it is complete
        self._excess = False  # something followed the reply: whose it is nobody knows
        self._sink = sink
        self._is_head_request = is_head_request
        self._parser = HttpResponseParser(self)
        self._headers: list[Header] = []
        self._headers_done = self._complete = self._until_eof = self._keep_alive = False
        self._has_body = True
        self._in_chunk = True  # unknown: there may be no chunks
        self._reason = b""
        self._head_bytes = self._header_bytes = self._stamp_ns = 0

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the engine takes more of a streamed request body."""
        if self._drained is not None:
            await self._drained

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def abort(self) -> None:
        """Give the request up: the engine sees the hang-up at once and stops generating."""
        self._sink = self.lane = None
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        stamp_ns = time.monotonic_ns()
        lane = self.lane
        # The parser is where it would be behind the chunk, so it need not hear of it.
        if lane is not None and lane.take(stamp_ns, data):
            return
        self.lane = None
        if self._sink is None:
            self._received_unasked(data)
        else:
            self._parse(self._sink, stamp_ns, data)

    def _parse(self, sink: Sink, stamp_ns: int, data: bytes) -> None:
        """The long way of a read."""
        in_head = not self._headers_done
        try:
            if in_head:
                self._in_head(stamp_ns, len(data))
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            if not self._takes_upgrade:
                self._fail(ErrorType.UPSTREAM_PROTOCOL)
                return
            self._sink = None
            sink.upgraded(stamp_ns, self._reason, self._headers, data[upgrade.args[0] :])
            return
        except HttpParserError:
            if not self._complete:
                self._not_http(sink, stamp_ns)
                return
            self._excess = True  # the reply stands, but what follows it is not HTTP
        if self._sink is None:  # the sink wants nothing of this reply
            self._body.clear()
            return
        self._flush_body(sink, stamp_ns)
        if self._complete:
            if self._sink is not None:
                self._release(sink)
            return
        if in_head:
            sink.read_done()
        # Between two chunks: neither in one, nor in the line before one, of which the parser says nothing.
        if not self._in_chunk and data.endswith(b"\r\n") and self._sink is not None:
            self.lane = sink.lane()

    def _not_http(self, sink: Sink, stamp_ns: int) -> None:
        if self._sink is not None:  # what came in good form before the fault is the client's
            self._flush_body(sink, stamp_ns)
        self._fail(ErrorType.UPSTREAM_PROTOCOL)

    def _in_head(self, stamp_ns: int, size: int) -> None:
        self._stamp_ns = stamp_ns
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HttpParserError

    def _received_unasked(self, data: bytes) -> None:
        if self.tunnel is None:  # an idle connection that talks is out of step
            self.transport.abort()
            return
        self.tunnel.write(data)
        if self.tunnel.get_write_buffer_size() > MAX_TUNNEL_BYTES:
            self.transport.abort()

    def _flush_body(self, sink: Sink, stamp_ns: int) -> None:
        parts = self._body
        if self._complete and len(parts) > self._body_parts:
            self._excess = True
            del parts[self._body_parts :]
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            sink.body(stamp_ns, data)

    def _release(self, sink: Sink) -> None:
        """The reply is complete: keep the connection for the next request, if both sides may."""
        self._sink = None
        trailers, self._headers = self._headers, []
        # With half a request behind it, a connection would take the next request for the other half.
        if self._keep_alive and not self._excess and not self.uploading and not self.is_single:
            self._pool.put(self)
        else:
            self.transport.close()
        sink.complete(trailers)

    def _fail(self, error: ErrorType) -> None:
        sink, self._sink = self._sink, None
        self.transport.abort()
        if sink is not None:
            sink.failed(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        self.resume_writing()
        if self.tunnel is not None:
            if self.tunnel.get_write_buffer_size() > MAX_TUNNEL_BYTES:
                self.tunnel.abort()  # closing would wait for a client that does not read
            else:
                self.tunnel.close()
        sink, self._sink, self.lane = self._sink, None, None
        if sink is None:
            return
        if self._headers_done and self._until_eof and exc is None:
            sink.complete([])
        elif self._reused and self._head_bytes == 0:
            sink.stale()
        else:
            sink.failed(ErrorType.UPSTREAM_RESET)

    # httptools callbacks; behind the end of the reply they note that there is more, and drop it

    def on_message_begin(self) -> None:
        if self._complete:
            self._excess = True

    def on_status(self, status: bytes) -> None:
        if not self._complete:
            self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEAD_BYTES:  # trailers: the head itself is bounded as it is read
            raise OverflowError
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        sink = self._sink
        if self._complete or sink is None:
            self._excess = True
            return
        status = self._parser.get_status_code()
        if status < 100:
            raise HttpParserError  # no client could read it
        if status == SWITCHING_PROTOCOLS:
            return  # feed_data raises HttpParserUpgrade next
        headers, self._headers = self._headers, []
        if 100 <= status < 200:
            if status != 100:  # our own 100 Continue has been sent long ago
                sink.informational(status, self._reason, headers)
            return
        self._headers_done = True
        self._has_body = not (self._is_head_request or status in NO_BODY_STATUS)
        self._until_eof = self._has_body and not _is_framed(headers)
        sink.head(self._stamp_ns, status, self._reason, headers, self._has_body)
        if not self._has_body:
            # The parser would wait for the body that Content-Length announces; the reply is over here.
            self._end(keep_alive=self._parser.should_keep_alive())

    def on_chunk_header(self) -> None:
        self._in_chunk = True

    def on_chunk_complete(self) -> None:
        self._in_chunk = False

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self._headers_done:
            # Only here: behind this callback llhttp has forgotten how the message was framed.
            self._end(keep_alive=not self._until_eof and self._parser.should_keep_alive())
        elif self._parser.get_status_code() != SWITCHING_PROTOCOLS:  # an informational reply; the final one follows
            self._headers = []
            self._reason = b""

    def _end(self, *, keep_alive: bool) -> None:
        self._complete = True
        self._keep_alive = keep_alive
        self._body_parts = len(self._body)


def _is_framed(headers: list[Header]) -> bool:
    for name, _ in headers:  # noqa: SIM110 - once per reply; a generator costs more than the loop
        if name.lower() in _FRAMING:
            return True
    return False
