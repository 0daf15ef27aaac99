"""After a 101: bytes both ways, nothing looked at."""

from typing import Final

from inferwatch.relay.upstream import Connection

# Unsent bytes towards the engine above which a tunnel is cut: uploads through a WebSocket come in frames that are
# answered.
MAX_UNSENT_BYTES: Final = 16 * 1024 * 1024


class ClientTunnel:
    """What aiohttp feeds with the client's bytes once HTTP is over (its "payload parser" after an upgrade)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass on. Returns (connection over?, rest)."""
        transport = self._connection.transport
        if transport.is_closing():
            return True, b""
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            transport.abort()  # its end ends the client's side, too
            return True, b""
        transport.write(bytes(data))
        return False, b""

    def feed_eof(self) -> None:
        """The client is gone."""
        self._connection.transport.close()
