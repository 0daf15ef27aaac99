"""Asks the engine for one token, through our own data port, as the tenant of the canary: so it is admitted, counted and
charged like anybody, and once.
"""

import asyncio
import logging
from typing import Any, Final

import aiohttp
import msgspec

from inferwatch import __version__, canary
from inferwatch.config import reachable_address
from inferwatch.settings.canary import Canary
from inferwatch_collectors.canary.logprobs import UnreadableError, read

_log: Final = logging.getLogger(__name__)

PATHS: Final = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

# One token with twenty others beside it is 2 kB.
MAX_REPLY_BYTES: Final = 64 * 1024

# Status -> value of the label `result`; any other is `status`.
_STATUS: Final = {404: "unserved", 429: "refused", 502: "down", 503: "down", 504: "down"}

VLLM: Final = "vllm"


def data_url(host: str, port: int, *, tls: bool) -> str:
    """Return where our data port can be reached from here; "" if its port is not known."""
    if not port:
        return ""
    name, port = reachable_address("listen", f"{host}:{port}")
    return f"{'https' if tls else 'http'}://{f'[{name}]' if ':' in name else name}:{port}"


def body_of(settings: Canary, model: str, prompt: str, engine: str) -> dict[str, Any]:
    """Return the request. `engine`: what is known of it, or ""; nothing is sent that it may refuse."""
    body: dict[str, Any] = {"model": model, "max_tokens": 1, "temperature": 0}
    if settings.api == "chat":
        body |= {
            "messages": [{"role": "user", "content": prompt}],
            "logprobs": True,
            "top_logprobs": settings.top_logprobs,
        }
    else:
        body |= {"prompt": prompt, "logprobs": settings.top_logprobs}
    if settings.priority and engine == VLLM:
        body["priority"] = settings.priority
    return body


class Asker:
    """One client session with our data port. One question at a time."""

    def __init__(self, settings: Canary, url: str, *, secret: bytes, key: str) -> None:
        """`url` of the data port; `key` of the engine, or ""."""
        self._settings = settings
        self._url = url + PATHS[settings.api]
        self._headers = {canary.HEADER: canary.proof(secret), "user-agent": f"inferwatch-canary/{__version__}"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        elif settings.enabled and settings.key_env:
            _log.warning("key_missing key=canary.key_env variable=%s", settings.key_env)
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, model: str, prompt: str, engine: str) -> dict[str, float]:
        """Return token -> log-probability.

        Raises:
            UnreadableError: nothing came of it; `reason` says what.
        """
        body = msgspec.json.encode(body_of(self._settings, model, prompt, engine))
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                status, data = await self._post(body)
        except TimeoutError:
            raise UnreadableError("timeout") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise UnreadableError("connect") from None
        if status != 200:
            raise UnreadableError(_STATUS.get(status, "status"))
        return read(data, self._settings.api, self._settings.top_logprobs)

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers | {"content-type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=None),
                # It is our own port on this host: its certificate is for the name that clients use. Nobody's trust is
                # read from files for that, on the loop.
                connector=aiohttp.TCPConnector(limit=1, ssl=False),
            )
        async with self._session.post(self._url, data=body, allow_redirects=False) as reply:
            data = bytearray()
            async for piece in reply.content.iter_any():
                data += piece
                if len(data) > MAX_REPLY_BYTES:
                    raise UnreadableError("too_large")
            return reply.status, bytes(data)
