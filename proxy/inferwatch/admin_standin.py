"""Answers on the admin port while the collector is away: `/healthz` by the data path, everything else 503.

Liveness must not depend on the observing side: a probe that fails because the collector restarts would restart the
traffic.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

# A probe's request is a few hundred bytes and comes at once.
MAX_REQUEST_BYTES: Final = 8192
READ_TIMEOUT_S: Final = 2.0
# Probes and scrapers are a handful; what is above this must not use up the descriptors that a restart needs.
MAX_OPEN: Final = 64


# A connection that was just accepted is made known to its server two turns of the loop later. Closed in between, the
# server would drop it without a word, and whoever asked would wait for ever.
TURNS_TO_ATTACH: Final = 3


class StandIn:
    """A minimal HTTP/1.1 responder on a listening socket that belongs to somebody else."""

    def __init__(self, listener: socket.socket, alive: Callable[[], bool]) -> None:
        self._listener = listener
        self._alive = alive
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Begin to answer."""
        if self._server is None:
            self._server = await asyncio.start_server(self._answer, sock=self._listener.dup(), limit=MAX_REQUEST_BYTES)

    async def stop(self) -> None:
        """Leave the socket to the collector."""
        server, self._server = self._server, None
        if server is None:
            return
        loop = asyncio.get_running_loop()
        for sock in server.sockets:
            loop.remove_reader(sock.fileno())
        for _ in range(TURNS_TO_ATTACH):
            await asyncio.sleep(0)
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > MAX_OPEN:
                return
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].partition(b"?")[0]
            status, body = self._reply(path)
            writer.write(
                b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (status, len(body), body)
            )
            await writer.drain()
        except (TimeoutError, ConnectionError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open -= 1
            writer.close()

    def _reply(self, path: bytes) -> tuple[bytes, bytes]:
        if path == b"/healthz" and self._alive():
            return b"200 OK", b'{"status":"ok","collector":"restarting"}\n'
        return b"503 Service Unavailable", b'{"status":"unavailable","collector":"restarting"}\n'
