"""The connection to Redis: one at a time, every wait bounded, and nothing sent twice behind our back.

redis-py is an extra (`inferwatch[redis]`), so it is imported here alone, when there is something to connect to.
"""

import asyncio
from typing import Any, Final

import msgspec

from inferwatch import __version__
from inferwatch.settings.sharing import Redis
from inferwatch_collectors.budgets import bank
from inferwatch_collectors.budgets.bank import Answer, Request

# Values of the label `reason`.
TIMEOUT: Final = "timeout"
CONNECTION: Final = "connection"
REFUSED: Final = "refused"
ANSWER: Final = "answer"
FENCED: Final = "fenced"
REASONS: Final = (TIMEOUT, CONNECTION, REFUSED, ANSWER, FENCED)


class LinkError(Exception):
    """There was no answer that can be used. The message is one of REASONS, never the address."""


class RedisLink:
    """An open connection."""

    def __init__(self, client: Any, script: str, settings: Redis, run: str) -> None:
        self._client = client
        self._script = script
        self._settings = settings
        self.run = run
        """Names the life of the server: another one may have forgotten something."""

    @staticmethod
    async def open(url: str, settings: Redis) -> "RedisLink":
        """Connect.

        Raises:
            LinkError: it is not possible.
        """
        client = await asyncio.to_thread(_client, url, settings)  # the first time it is imported, which takes long
        try:
            server = await _bounded(client.info("server"), settings.timeout_s)
            script = await _bounded(client.script_load(bank.SCRIPT), settings.timeout_s)
        except BaseException:
            await _close(client)
            raise
        return RedisLink(client, script, settings, str(server.get("run_id", "")))

    async def exchange(self, request: Request, accounts: tuple[str, ...]) -> Answer:
        """Say something, and hear what Redis says.

        Raises:
            LinkError: there is no answer in time. What was said may have been heard. This connection is of no more use.
        """
        keys = bank.keys(self._settings.namespace, accounts)
        call = self._client.evalsha(self._script, len(keys), *keys, bank.encode(request), self.run)
        data = await _bounded(call, self._settings.timeout_s)
        try:
            return bank.decode(data)
        except (msgspec.DecodeError, TypeError):
            raise LinkError(ANSWER) from None

    async def close(self) -> None:
        """Let go of it."""
        await _close(self._client)


def _client(url: str, settings: Redis) -> Any:
    """Return a client that has not connected yet. Blocking."""
    import redis.asyncio  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {}
    if settings.tls_ca_file and url.startswith("rediss:"):
        options["ssl_ca_certs"] = settings.tls_ca_file
    return redis.asyncio.Redis.from_url(
        url,
        protocol=2,
        single_connection_client=True,
        retry=Retry(NoBackoff(), 0),  # what was not answered may have been done
        socket_connect_timeout=settings.timeout_s,
        client_name="inferwatch",
        # Without, redis-py looks for its own version on disk with each connection.
        driver_info=redis.DriverInfo("inferwatch", lib_version=__version__),
        **options,
    )


async def _bounded(call: Any, timeout_s: float) -> Any:
    from redis import exceptions  # noqa: PLC0415

    try:
        async with asyncio.timeout(timeout_s):
            return await call
    except (TimeoutError, exceptions.TimeoutError):
        raise LinkError(TIMEOUT) from None
    except (exceptions.AuthenticationError, exceptions.NoPermissionError):
        raise LinkError(REFUSED) from None
    except (exceptions.ConnectionError, OSError, EOFError):
        raise LinkError(CONNECTION) from None
    except (exceptions.RedisError, ValueError):
        raise LinkError(ANSWER) from None


async def _close(client: Any) -> None:
    from redis import exceptions  # noqa: PLC0415

    try:
        async with asyncio.timeout(1.0):
            await client.aclose()
    except (exceptions.RedisError, OSError, TimeoutError):
        return  # it was broken already
