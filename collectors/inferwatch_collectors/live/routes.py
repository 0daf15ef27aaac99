"""The live page over HTTP: its files, the frames as server-sent events, the history as JSON.

Nothing on the page comes from another host, and the browser is told to let nothing through that would.
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final

from aiohttp import web

from inferwatch_collectors.access import Access
from inferwatch_collectors.doorkeeper import admits
from inferwatch_collectors.live.service import FRAME_S, MEMORY_MINUTES, LiveService

STATIC: Final = Path(__file__).with_name("static")

# Each holds a connection and is sent some ten kilobytes a second.
MAX_VIEWERS: Final = 16

_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class LivePage:
    """The routes of the page."""

    def __init__(self, service: LiveService, access: Access | None = None) -> None:
        self._service = service
        self._access = access or Access()
        # Read once, at the first visit: some 60 kB.
        self._files: dict[str, tuple[bytes, str]] = {}
        self._viewers = 0

    def routes(self) -> list[web.RouteDef]:
        """Return the page's routes but `/` itself, which the admin port shares with its index for programs."""
        return [
            web.get("/live/events", self._events),
            web.get("/live/history", self._history),
            web.get("/live/frame", self._frame),
            web.get("/live/streams", self._streams),
            web.get("/live/alerts", self._alerts),
            web.get("/live/{name:[A-Za-z0-9._/-]+}", self._file),
        ]

    async def page(self) -> web.Response:
        """Return the page."""
        return await self._answer("index.html")

    async def _file(self, request: web.Request) -> web.Response:
        return await self._answer(request.match_info["name"])

    async def _answer(self, name: str) -> web.Response:
        if not self._files:
            self._files = await asyncio.to_thread(_read_files)
        found = self._files.get(name)
        if found is None:
            return web.Response(status=404, text="there is no such file\n", headers=_HEADERS)
        body, content_type = found
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)

    async def _history(self, request: web.Request) -> web.Response:
        try:
            minutes = float(request.query.get("minutes", "15"))
        except ValueError:
            minutes = 0.0
        if not self._service.has(minutes):
            words = f"minutes: expected a number up to {MEMORY_MINUTES:.0f}, or 1440, 10080, 43200 of a Prometheus\n"
            return web.Response(status=400, text=words)
        return web.Response(
            body=await self._service.history(minutes), content_type="application/json", headers=_HEADERS
        )

    async def _frame(self, _: web.Request) -> web.Response:
        frame = self._service.frame(time.monotonic_ns(), time.time())
        return web.Response(body=frame, content_type="application/json", headers=_HEADERS)

    async def _alerts(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._service.alerts(), content_type="application/json", headers=_HEADERS)

    async def _streams(self, _: web.Request) -> web.Response:
        body = self._service.streams(time.monotonic_ns())
        return web.Response(body=body, content_type="application/json", headers=_HEADERS)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._viewers >= MAX_VIEWERS:
            return web.Response(status=503, text=f"{MAX_VIEWERS} pages are open\n")
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        self._viewers += 1
        try:
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                while admits(self._access, request):  # a session ends, a token is changed
                    frame = self._service.frame(time.monotonic_ns(), time.time())
                    await response.write(b"data: " + frame + b"\n\n")
                    await asyncio.sleep(FRAME_S)
        finally:
            self._viewers -= 1
        return response


def _read_files() -> dict[str, tuple[bytes, str]]:
    found = {}
    for path in STATIC.rglob("*"):
        if path.is_file() and path.suffix in _TYPES:
            found[path.relative_to(STATIC).as_posix()] = (path.read_bytes(), _TYPES[path.suffix])
    return found
