"""A plain HTTP/1.1 client that keeps what other clients hide: chunk boundaries, header order, and hanging up at will.

One connection per request, with a head like that of a keep-alive client; the connection is closed after the reply.
 Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

HEAD_LIMIT = 1 << 20  # bytes; for StreamReader's separator search only, bodies are read by length


@dataclass(frozen=True)
class Request:
    """What is sent. `body` of None sends no body and no content-length."""

    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def post(cls, path: str, body: Mapping[str, Any], request_id: str | None = None) -> Request:
        """A JSON request as the official clients send it; `request_id` makes the ids in the reply repeatable."""
        headers = [("Content-Type", "application/json")]
        if request_id:
            headers.append(("X-Request-Id", request_id))
        return cls("POST", path, json.dumps(body).encode(), tuple(headers))

    def with_headers(self, more: Mapping[str, str]) -> Request:
        """The same with these headers behind its own."""
        return replace(self, headers=(*self.headers, *more.items()))

    def encode(self, host: str) -> bytes:
        """The bytes on the wire."""
        headers = [("Host", host), *self.headers]
        if self.body is not None:
            headers.append(("Content-Length", str(len(self.body))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + (self.body or b"")


@dataclass(frozen=True)
class HangUp:
    """When the client leaves: after so many seconds, so many SSE events or these bytes, whichever comes first."""

    after_s: float | None = None
    after_events: int | None = None
    after_bytes: bytes | None = None


@dataclass
class Reply:
    """What came back. `chunks`: the HTTP chunks of a chunked body, or one item; `complete`: False after a hang-up."""

    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def events(self) -> list[bytes]:
        """The SSE events of the body, each with its closing blank line."""
        parts = self.body.split(b"\n\n")
        return [part + b"\n\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def json(self) -> Any:
        return json.loads(self.body)


async def exchange(base: str, request: Request, hang_up: HangUp | None = None) -> Reply:
    """Send `request` to `base` and read the reply; with `hang_up`, close early and return what had come by then.

    Raises `OSError` or `asyncio.IncompleteReadError` when the server breaks the connection.
    """
    url = urlsplit(base)
    reply = Reply()
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=HEAD_LIMIT)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(hang_up.after_s if hang_up else None):
                writer.write(request.encode(url.netloc))
                await writer.drain()
                await _read_reply(reader, reply, request.method, hang_up or HangUp())
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return reply


async def _read_reply(reader: asyncio.StreamReader, reply: Reply, method: str, hang_up: HangUp) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")[:-2]
    _, status, reply.reason = (status_line + " ").split(" ", 2)
    reply.reason = reply.reason.strip()
    reply.status = int(status)
    reply.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    if method == "HEAD":
        reply.complete = True
        return
    if "chunked" not in (reply.header("transfer-encoding") or ""):
        length = reply.header("content-length")
        reply.chunks.append(await (reader.readexactly(int(length)) if length is not None else reader.read()))
        reply.complete = True
        return
    events = 0
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunk = (await reader.readexactly(size + 2))[:-2]
        reply.chunks.append(chunk)
        events += chunk.count(b"\n\n")
        if hang_up.after_events is not None and events >= hang_up.after_events:
            return
        if hang_up.after_bytes is not None and hang_up.after_bytes in chunk:
            return
    await reader.readuntil(b"\r\n")
    reply.complete = True
