"""Asks an endpoint for embeddings, bounded in time and bytes: somebody else's, or the engine through our own data port,
as a tenant of our own, so that it is counted and charged, once.
"""

import asyncio
import logging
from typing import Final

import aiohttp
import msgspec

from inferwatch import __version__, canary
from inferwatch.config import ConfigError
from inferwatch.secret_file import bearer, variable
from inferwatch.settings.embeddings import OWN, Embeddings
from inferwatch_collectors.embeddings.sketch import MAX_DIMENSIONS, MIN_DIMENSIONS

_log: Final = logging.getLogger(__name__)

PATH: Final = "/v1/embeddings"

# Eight vectors of 8,192 coordinates in twenty characters each are 1.3 MB.
MAX_REPLY_BYTES: Final = 2 * 1024 * 1024

# Status -> value of the label `result`; any other is `status`.
_STATUS: Final = {
    401: "refused",
    403: "refused",
    404: "unserved",
    429: "refused",
    502: "down",
    503: "down",
    504: "down",
}

# The reasons with which nothing comes of a call: values of the label `result`.
REASONS: Final = (
    "connect",
    "timeout",
    "refused",
    "unserved",
    "down",
    "status",
    "too_large",
    "malformed",
    "no_port",
    "token",
    "redact",
)

_FILE_KEY: Final = "drift.embeddings.token_file"


class EmbeddingError(Exception):
    """Nothing came of a call. `reason` is one of REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Item(msgspec.Struct, gc=False):
    embedding: list[float]
    index: int | None = None


class _Reply(msgspec.Struct, gc=False):
    data: list[_Item]
    model: str | None = None


_decode: Final = msgspec.json.Decoder(_Reply).decode


class Embedded(msgspec.Struct, gc=False):
    """What an endpoint made of some texts."""

    model: str  # as it calls itself, or as it was asked for
    vectors: list[list[float]]  # one for each text, in their order, all of one size


def read(body: bytes, asked: int, model: str) -> Embedded:
    """Return the vectors of a reply to `asked` texts. `model`: what was asked for, if the reply does not say.

    Raises:
        EmbeddingError: `malformed`: it is not JSON, not of that many vectors, or not of one usable size.
    """
    try:
        reply = _decode(body)
    except (ValueError, RecursionError):  # what msgspec raises; NaN is no JSON
        raise EmbeddingError("malformed") from None
    items = reply.data
    if all(item.index is not None for item in items):
        items = sorted(items, key=lambda item: item.index or 0)
        if [item.index for item in items] != list(range(asked)):
            raise EmbeddingError("malformed")
    sizes = {len(item.embedding) for item in items}
    if len(items) != asked or len(sizes) != 1 or not MIN_DIMENSIONS <= sizes.pop() <= MAX_DIMENSIONS:
        raise EmbeddingError("malformed")
    return Embedded(reply.model or model, [item.embedding for item in items])


class Endpoint:
    """One client session. One call at a time."""

    def __init__(self, settings: Embeddings, own_url: str, *, secret: bytes) -> None:
        """`own_url` of our data port, "" if its port is not known."""
        self._settings = settings
        self._headers = {"content-type": "application/json", "user-agent": f"inferwatch-embeddings/{__version__}"}
        base = settings.url.rstrip("/")
        self.is_own = base in (OWN, own_url.rstrip("/"))
        if self.is_own:
            base = own_url
            self._headers[canary.HEADER] = canary.proof(secret, canary.EMBEDDINGS_TENANT)
        self._url = base + PATH if base else ""
        if key := variable(settings.key_env):
            self._headers["authorization"] = f"Bearer {key}"
        elif settings.key_env:
            _log.warning("key_missing key=drift.embeddings.key_env variable=%s", settings.key_env)
        self._session: aiohttp.ClientSession | None = None

    async def embed(self, texts: list[str]) -> Embedded:
        """Return a vector for each text.

        Raises:
            EmbeddingError: nothing came of it.
        """
        if not self._url:
            raise EmbeddingError("no_port")
        body = msgspec.json.encode({"model": self._settings.model, "input": texts})
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                # Read anew for each call: it may be changed while we run.
                token = await asyncio.to_thread(bearer, _FILE_KEY, self._settings.token_file)
                status, data = await self._post(body, token)
        except TimeoutError:
            raise EmbeddingError("timeout") from None
        except ConfigError:
            raise EmbeddingError("token") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise EmbeddingError("connect") from None
        if status != 200:
            raise EmbeddingError(_STATUS.get(status, "status"))
        return read(data, len(texts), self._settings.model)

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: bytes, token: dict[str, str]) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Our own port has a certificate for the name that clients use.
                connector=aiohttp.TCPConnector(limit=1, ssl=not self.is_own),
            )
        async with self._session.post(self._url, data=body, headers=token, allow_redirects=False) as reply:
            data = bytearray()
            async for piece in reply.content.iter_any():
                data += piece
                if len(data) > MAX_REPLY_BYTES:
                    raise EmbeddingError("too_large")
            return reply.status, bytes(data)
