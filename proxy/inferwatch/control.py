"""The channel between the supervisor and a child: one JSON object a line over an inherited socket pair.

Down: `{"config": …}` (first message, and after each reload), `{"drain": true}`, `{"stop": true}`, `{"reloaded":
error}`. Up: `{"ready": true}`, `{"beat": n}`, `{"reload": true}`. When the other end is gone the channel ends: a
child without a supervisor drains and exits, so nothing outlives its parent.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

# A configuration is a few kilobytes; a longer line is not ours.
MAX_LINE_BYTES: Final = 1024 * 1024

Message = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> "Channel":
        """Wrap a connected socket."""
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE_BYTES)
        return cls(reader, writer)

    def send(self, message: Message) -> None:
        """Send without waiting; messages are small and few. A dead peer is noticed by the reading side."""
        if not self._writer.is_closing():
            self._writer.write(_encode(message) + b"\n")

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the other end sends, until it is gone."""
        while True:
            try:
                line = await self._reader.readline()
            except (ConnectionError, ValueError):
                return
            if not line:
                return
            try:
                yield _decode(line)
            except msgspec.DecodeError:
                continue

    def close(self) -> None:
        self._writer.close()
