"""aiohttp's low-level server, set up for us. Public API only: two methods of its connection handler are overridden."""

import asyncio
import logging
from typing import Any, Final, cast

from aiohttp import web

from inferwatch.relay import errors
from inferwatch.relay.done import CLOSED
from inferwatch.relay.exchange import HIGH_WATER_BYTES
from inferwatch.relay.server import Relay

log = logging.getLogger(__name__)

# Between the last byte of a refusal and the close.
LINGER_S: Final = 0.5

# After a refusal, the rest of a body is read and dropped for this long, so that the client gets to read why; as nginx.
UPLOAD_LINGER_S: Final = 5.0

HTTP_BAD_REQUEST: Final = 400


class RelayProtocol(web.RequestHandler):
    """aiohttp's connection handler, but for errors of its own: they too have the engine's shape, and are booked."""

    __slots__ = ("relay",)

    relay: Relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # TLS transports would pause only at 512 kB, and a drain would not wait.
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=HIGH_WATER_BYTES)
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        transport = request.transport
        if status == HTTP_BAD_REQUEST:
            self.relay.malformed()
            if transport is not None:
                transport.write(
                    errors.reply(400, "not a well-formed HTTP request", "", keep_alive=False, with_body=True)
                )
        else:
            # A fault of ours. What has been written cannot be taken back; the record says `internal`.
            log.error("handler_fault type=%s", type(exc).__name__)
        if transport is not None:
            # Not at once: unread bytes of the client would turn the close into a reset, and that would eat our reply.
            if transport.can_write_eof():
                transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, transport.close)
        return CLOSED


class RelayServer(web.Server):
    """aiohttp's low-level server with our connection handler."""

    def __init__(self, relay: Relay) -> None:
        super().__init__(relay.handle, handler_cancellation=True)
        self._relay = relay

    def __call__(self) -> web.RequestHandler:
        limits = self._relay.config.limits  # as of now: a reload holds for new connections
        protocol = RelayProtocol(
            self,
            loop=asyncio.get_running_loop(),
            access_log=cast("Any", None),
            auto_decompress=False,
            keepalive_timeout=limits.client_idle_s,
            lingering_time=min(UPLOAD_LINGER_S, limits.client_idle_s),
            max_line_size=limits.max_header_bytes,
            max_field_size=limits.max_header_bytes,
            max_headers=limits.max_headers,
        )
        protocol.relay = self._relay
        return protocol
