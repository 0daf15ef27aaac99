"""What a client asks: a head, and as much of its body as has come. Filled by the client's connection, read by whoever
serves it."""

import asyncio
from typing import Final

from inferwatch.relay.heads import RequestHead

# Unread bytes of a streamed upload above which the client's socket is paused.
HIGH_WATER_BYTES: Final = 256 * 1024


class Request:
    """One request of a client. Trailers of its body are parsed and dropped (RFC 9110 section 6.5.1 permits it)."""

    __slots__ = ("_waiter", "body_bytes", "complete", "head", "is_11", "keep_alive", "method", "parts", "unread_bytes")

    def __init__(self, method: bytes, head: RequestHead, *, is_11: bool, keep_alive: bool) -> None:
        self.method = method
        self.head = head
        self.is_11 = is_11
        self.keep_alive = keep_alive  # what the client wishes
        self.parts: list[bytes] = []  # of the body, not yet read
        self.body_bytes = self.unread_bytes = 0
        self.complete = False
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """More has come, or the end."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> bytes:
        """Return what has come and was not read."""
        parts = self.parts
        if not parts:
            return b""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.unread_bytes = 0
        return data

    async def wait(self) -> bool:
        """Wait for more of the body; False at its end."""
        while not self.parts and not self.complete:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return bool(self.parts)


def chunk(data: bytes) -> bytes:
    """Frame a part of a body; nothing for nothing, which would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
