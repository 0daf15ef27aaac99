"""The clients' side of a relay: the listening socket and all connections that came from it."""

import asyncio
import socket
import ssl
from typing import Final

from inferwatch.relay.client_connection import ClientConnection
from inferwatch.relay.server import Relay

# Connections that wait to be accepted while a worker starts or is busy for a moment; the kernel caps it at somaxconn.
BACKLOG: Final = 4096


class Listener:
    """Accepts connections and knows them all."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.connections: set[ClientConnection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve those who connect to `sock`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ClientConnection(self), sock=sock, ssl=tls, backlog=BACKLOG)

    def close(self) -> None:
        """Accept nobody any more."""
        if self._server is not None:
            self._server.close()

    def sweep(self, now_s: float) -> None:
        """Enforce the clients' deadlines; called about once a second."""
        for connection in list(self.connections):
            connection.sweep(now_s)

    def drain(self) -> None:
        """Close every connection when it has no request open."""
        for connection in list(self.connections):
            connection.drain()

    def cut(self) -> None:
        """Close every connection now."""
        for connection in list(self.connections):
            connection.cut()
