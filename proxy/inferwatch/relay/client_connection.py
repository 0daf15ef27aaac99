"""A client's connection: bytes in, requests served one after the other, and an orderly end.

Strategy. One request is served at a time, the first of `_requests`. While it is whole and being served, further bytes
are held back unparsed up to MAX_HELD_BYTES, then the socket is paused. No task and no timer belongs to a connection: it
has one deadline, by the moment's state, at which `Listener.sweep` finds it about once a second:

* idle, or with half a head or half a body: `client_idle_s`, then it is closed, or refused with a 408;
* lingering: what the client still sends is dropped for a while after our last word, because unread bytes would turn the
  close into a reset, and that would eat the reply;
* closing: a client that does not take the last bytes is cut off.

A client that hangs up is noticed in `connection_lost`, and its request ended in the same call.
"""

import asyncio
import math
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from inferwatch.record import ErrorType
from inferwatch.relay import errors
from inferwatch.relay.client_request import HIGH_WATER_BYTES as UPLOAD_BYTES
from inferwatch.relay.client_request import Request
from inferwatch.relay.exchange import HIGH_WATER_BYTES, Refusal
from inferwatch.relay.handling import Handling
from inferwatch.relay.request_parser import MalformedError, RequestParser
from inferwatch.relay.tunnel import Tunnel

if TYPE_CHECKING:
    from inferwatch.relay.listener import Listener

# After a refusal, the rest of a body is read and dropped for this long, so that the client gets to read why; as nginx.
UPLOAD_LINGER_S: Final = 5.0

# The same when nothing more is expected.
LINGER_S: Final = 0.5

# Pipelined bytes behind a request that is being served. With a paused socket a hang-up goes unnoticed: it should be
# seldom.
MAX_HELD_BYTES: Final = 256 * 1024

NEVER: Final = math.inf

MALFORMED_BODY: Final = Refusal(400, "the request body is not well-formed HTTP", ErrorType.MALFORMED_REQUEST)
SLOW_BODY: Final = Refusal(408, "the request body did not arrive in time", ErrorType.MALFORMED_REQUEST)


class ClientConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_broken",
        "_busy",
        "_closing",
        "_deadline_s",
        "_handling",
        "_held",
        "_in_head",
        "_lingers",
        "_listener",
        "_parser",
        "_paused",
        "_requests",
        "_tunnel",
        "is_last",
        "relay",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self.relay = listener.relay
        limits = self.relay.config.limits  # as of now: a reload holds for new connections
        self._requests: deque[Request] = deque()  # the first is being served
        self._parser = RequestParser(
            self._requests, max_field_bytes=limits.max_header_bytes, max_fields=limits.max_headers
        )
        self._handling: Handling | None = None
        self._held = b""  # not yet parsed
        self._tunnel: Tunnel | None = None
        self._broken = False  # the parser gave up, behind the requests it found
        self._in_head = False  # the deadline runs from the head's first byte
        self.is_last = False  # no request follows the one being served
        self._busy = False  # `_go_on` is at work
        self._paused = self._lingers = self._closing = False
        self._deadline_s = NEVER

    @property
    def remote(self) -> str | None:
        """The peer's address."""
        peer = self.transport.get_extra_info("peername")
        return peer[0] if isinstance(peer, tuple) else None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's
        # TLS transports would pause only at 512 kB.
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None:  # a client that lost its power never says so
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._listener.connections.add(self)
        self._await_client()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.feed(data)
        elif self._lingers or self._closing or self._broken:
            return
        elif self._held or (self._requests and self._requests[0].complete):
            self._held += data
            if len(self._held) > MAX_HELD_BYTES:
                self._pause()
        else:
            self._parse(data)
            if self._handling is None:
                self._go_on()
            else:
                self._more()

    def eof_received(self) -> bool:
        """Half a connection is none: nobody could tell a client that left from one that only stopped sending."""
        if self._tunnel is not None:
            self._tunnel.end()  # with what was said before
        else:
            self._gone()
        self._closing = True
        self._await_client()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.connections.discard(self)
        self._closing = True
        self._gone(by_fault=exc is not None and not isinstance(exc, OSError))
        self._requests.clear()
        del self._parser  # it and its callbacks hold each other

    def pause_writing(self) -> None:
        if self._handling is not None and self._tunnel is None:
            self._handling.exchange.block(time.monotonic_ns())

    def resume_writing(self) -> None:
        if self._handling is not None and self._tunnel is None:
            self._handling.exchange.unblock(time.monotonic_ns())

    # requests

    def _parse(self, data: bytes) -> None:
        """Parse until a request is whole; hold the rest."""
        try:
            self._held = self._parser.feed(data)
        except MalformedError:
            self._held = b""
            self._broken = True

    def _go_on(self) -> None:
        """Serve what is there. A request may end in here and call us again: then the loop goes on, not the stack."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._handling is None and not (self._closing or self._lingers):
                if self._held and not (self._requests and self._requests[0].complete):
                    self._parse(self._held)
                if self._requests:
                    self._begin(self._requests[0])
                elif self._broken:
                    self._refuse()
                else:
                    self._await_head()
                    break
        finally:
            self._busy = False

    def _await_head(self) -> None:
        if self._parser.is_inside and not self._in_head:
            self._in_head = True
            self._await_client()

    def _begin(self, request: Request) -> None:
        self._in_head = False
        self._handling = handling = Handling(self.relay, self, request)
        if request.complete:
            self._deadline_s = NEVER
            handling.begin()
        elif self._broken:
            handling.refuse(MALFORMED_BODY)
        else:
            self._await_client()
            handling.begin()

    def _more(self) -> None:
        """The request being served has more of its body, or was found to be malformed."""
        handling = self._handling
        assert handling is not None
        request = self._requests[0]
        if request.complete:
            self._deadline_s = NEVER
        elif self._broken:
            handling.refuse(MALFORMED_BODY)
            return
        elif handling.streams and request.unread_bytes > UPLOAD_BYTES:
            self._pause()
        else:
            self._await_client()
        handling.more()

    def done(self, *, keep_alive: bool) -> None:
        """The first request has had its reply."""
        request = self._requests.popleft()
        self._handling = None
        if not keep_alive or self.is_last or not request.complete:
            more_may_come = not request.complete or self._held or self._broken
            self._leave(UPLOAD_LINGER_S if more_may_come else 0.0)
            return
        self._await_client()
        if self._paused:
            self.read_on()
        if self._held or self._requests or self._broken:
            self._go_on()

    def switch(self, tunnel: Tunnel) -> None:
        """HTTP is over: bytes go to the engine until either side hangs up."""
        self._tunnel = tunnel
        held, self._held = self._held, b""
        if held:
            tunnel.feed(held)
        self.read_on()
        self._deadline_s = NEVER

    def _refuse(self) -> None:
        """What came is no request."""
        self.relay.malformed()
        self.transport.write(errors.reply(400, "not a well-formed HTTP request", "", keep_alive=False, with_body=True))
        self._leave(LINGER_S)

    # reading

    def _pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()
        self._deadline_s = NEVER  # it is we who do not read

    def read_on(self) -> None:
        """There is room again."""
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
            if not (self._requests and self._requests[0].complete):  # else it is not the client who is late
                self._await_client()

    def _await_client(self) -> None:
        self._deadline_s = time.monotonic() + self.relay.config.limits.client_idle_s

    # the end

    def _leave(self, linger_s: float) -> None:
        """After our last word: wait for the client to read it, then close."""
        if self._closing:
            return
        if not linger_s or self.transport.is_closing():
            self._close()
            return
        self._lingers = True
        self._held = b""
        self.read_on()
        self._deadline_s = time.monotonic() + min(linger_s, self.relay.config.limits.client_idle_s)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        self._closing = True
        self._await_client()
        self.transport.close()

    def _gone(self, *, by_fault: bool = False) -> None:
        handling, self._handling = self._handling, None
        if handling is not None:
            handling.client_gone(by_fault=by_fault)

    def sweep(self, now_s: float) -> None:
        """Enforce the deadline."""
        if now_s < self._deadline_s:
            return
        if self._closing:
            self.transport.abort()
        elif self._handling is not None:
            self._handling.refuse(SLOW_BODY)
        else:
            self._close()

    def drain(self) -> None:
        """Serve no request behind the one at work; close if there is none."""
        self.is_last = True
        if self._handling is None:
            if not self._lingers:
                self._close()
        elif not self._handling.exchange.head_written:
            self._handling.exchange.client_keep_alive = False

    def cut(self) -> None:
        """Close at once, whatever is open."""
        self._gone()
        self.transport.abort()
