"""An endpoint for embeddings that answers as it is told."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

DIMENSIONS = 16


def vector(text: str) -> list[float]:
    """Return something that depends on the text."""
    return [float(len(text)), *(float(ord(text[place % len(text)])) for place in range(DIMENSIONS - 1))]


class Endpoint:
    """Answers as `answer` says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any]], Awaitable[web.StreamResponse]] = self.fine
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        app = web.Application()
        app.router.add_post("/{path:.*}", self._handle)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def texts(self) -> list[str]:
        """All that were sent, in order."""
        return [text for asked in self.asked for text in asked["input"]]

    def says(self, body: Any, status: int = 200) -> None:
        """Answer with this from now on: JSON, or bytes as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def answer(_: dict[str, Any]) -> web.StreamResponse:
            return web.Response(body=raw, status=status, content_type="application/json")

        self.answer = answer

    async def fine(self, body: dict[str, Any]) -> web.StreamResponse:
        data = [{"index": place, "embedding": vector(text)} for place, text in enumerate(body["input"])]
        return web.json_response({"object": "list", "model": body["model"], "data": data})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.asked.append({"path": request.path, **body})
        self.headers.append(request.headers)
        return await self.answer(body)
