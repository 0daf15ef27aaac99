"""Fetch an engine's metrics over HTTP, within bounds, and find where they are.

Where: trtllm-serve has Prometheus text at `/prometheus/metrics`, while its `/metrics` is a JSON list that is emptied by
whoever reads it; some other tool may live on that. So that path is asked first; and an engine that has nothing there
but says in `/v1/models` that it is TensorRT-LLM is never asked for `/metrics`.
"""

import asyncio
import ssl
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from inferwatch import __version__

PATH: Final = "/metrics"
TRTLLM_PATH: Final = "/prometheus/metrics"
MODELS_PATH: Final = "/v1/models"
_TRTLLM_OWNER: Final = "tensorrt_llm"

_HEADERS: Final = {
    "accept": "text/plain;version=0.0.4",
    "accept-encoding": "identity",  # compressing costs the engine more than the loopback does
    "user-agent": f"inferwatch/{__version__}",
}

# Starlette sends from a mounted path without a slash to the one with.
MAX_REDIRECTS: Final = 2


class _Model(msgspec.Struct):
    owned_by: str = ""


class _Models(msgspec.Struct):
    data: list[_Model] = []


class ScrapeError(Exception):
    """No metrics came. `reason` is a label value: see ENGINE_SCRAPE_FAILURES."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What to scrape, and how."""

    upstream_url: str  # `http://host:port`
    url: str = ""  # the metrics themselves; "": to be found under `upstream_url`
    engine: str = "auto"  # `upstream.engine`; "vllm" has its metrics at a known path
    key: str = ""  # of the engine, if it wants one
    timeout_s: float = 4.0
    max_bytes: int = 4 * 1024 * 1024
    tls_ca_file: str = ""
    tls_verify: bool = True
    afresh: bool = False  # on a new connection each time: one that was kept may lead to who was there before


class Scraper:
    """One client session with one engine. `fetch` may not be called twice at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | bool = True
        self._found = target.url

    async def fetch(self) -> bytes:
        """Return the text.

        Raises:
            ScrapeError: there is none.
        """
        try:
            async with asyncio.timeout(self._target.timeout_s):
                if not self._found:
                    self._found = await self._locate()
                return await self._text(self._found)
        except TimeoutError:
            raise ScrapeError("timeout", f"no answer within {self._target.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # ValueError: aiohttp's, for what is no HTTP or no host name.
            raise ScrapeError("connect", type(error).__name__) from None

    async def page(self, path: str) -> tuple[int, bytes]:
        """Return status and body of another page of the engine.

        Raises:
            ScrapeError: there is no answer, or too much of it.
        """
        try:
            async with asyncio.timeout(self._target.timeout_s):
                status, _, body = await self._get(self._target.upstream_url.rstrip("/") + path)
                return status, body
        except TimeoutError:
            raise ScrapeError("timeout", f"no answer within {self._target.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ScrapeError("connect", type(error).__name__) from None

    def lost(self) -> None:
        """The engine may be another one when it comes back: look for its metrics anew."""
        self._found = self._target.url

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _locate(self) -> str:
        base = self._target.upstream_url.rstrip("/")
        if self._target.engine == "vllm":
            return base + PATH
        status, kind, _ = await self._get(base + TRTLLM_PATH)
        if status == 200 and kind.startswith("text/plain"):
            return base + TRTLLM_PATH
        status, _, body = await self._get(base + MODELS_PATH)
        if status == 200 and _owned_by_trtllm(body):
            raise ScrapeError("no_metrics", "TensorRT-LLM without `return_perf_metrics` has no Prometheus metrics")
        return base + PATH

    async def _text(self, url: str) -> bytes:
        status, kind, body = await self._get(url)
        if status != 200:
            raise ScrapeError("status", f"status {status}, expected 200")
        if not kind.startswith(("text/plain", "application/openmetrics-text")):
            raise ScrapeError("not_text", "the answer is not Prometheus text")
        return body

    async def _get(self, url: str) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        session = await self._open()
        async with session.get(url, ssl=self._tls, max_redirects=MAX_REDIRECTS) as reply:
            if reply.headers.get("content-encoding", "identity") != "identity":
                raise ScrapeError("not_text", "the answer is compressed, which was not asked for")
            body = bytearray()
            async for piece in reply.content.iter_any():
                body += piece
                if len(body) > self._target.max_bytes:
                    raise ScrapeError("too_large", f"more than {self._target.max_bytes} bytes")
            return reply.status, reply.headers.get("content-type", "").lower(), bytes(body)

    async def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            if urlsplit(self._target.url or self._target.upstream_url).scheme == "https":
                self._tls = await asyncio.to_thread(self._context)
            key = {"authorization": f"Bearer {self._target.key}"} if self._target.key else {}
            self._session = aiohttp.ClientSession(
                headers=_HEADERS | key,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # one for all requests of a scrape is set in `fetch`
                connector=aiohttp.TCPConnector(limit=1, force_close=self._target.afresh),
            )
        return self._session

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._target.tls_ca_file or None)
        if not self._target.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _owned_by_trtllm(body: bytes) -> bool:
    try:
        models = msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False
    return any(model.owned_by == _TRTLLM_OWNER for model in models)
