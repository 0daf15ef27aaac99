"""After a 101: bytes both ways, nothing looked at. The way back is in `upstream.Connection`."""

from typing import Final

from inferwatch.relay.upstream import Connection

# Unsent bytes towards the engine above which a tunnel is cut: uploads through a WebSocket come in frames that are
# answered.
MAX_UNSENT_BYTES: Final = 16 * 1024 * 1024


class Tunnel:
    """Where a client's bytes go once HTTP is over. When the engine's side ends, it closes the client's."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def feed(self, data: bytes) -> None:
        """Pass on."""
        transport = self._connection.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            transport.abort()
            return
        transport.write(data)

    def end(self) -> None:
        """The client says no more."""
        self._connection.transport.close()
