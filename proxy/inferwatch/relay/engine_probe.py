"""Which engine is behind us, as far as the relay must know: what may it be asked for?

Asked once when the engine comes up, and again after it was unreachable (another engine, or another version, may be
there). A request that comes before the answer is known waits for it briefly: one round trip, once in the life of an
engine.
"""

import asyncio
import logging
from typing import Final

from inferwatch.engines import AUTO, Profile, profile_of
from inferwatch.record import ErrorType
from inferwatch.relay.engine_identity import Answer, identify
from inferwatch.relay.pool import ConnectError, Pool
from inferwatch.relay.upstream import Connection, Header
from inferwatch.relay.usage_filter import NO_FINGERPRINT, Fingerprint

log = logging.getLogger(__name__)

# vLLM takes a minute to load a model; asking once a second costs nothing and misses little.
RETRY_S: Final = 1.0
REPLY_TIMEOUT_S: Final = 5.0
# How long a first request may wait for the answer; a loopback round trip is under a millisecond.
FIRST_REQUEST_WAIT_S: Final = 0.25
MAX_REPLY_BYTES: Final = 64 * 1024


class Engine:
    """What is known of the engine."""

    def __init__(self, configured: str) -> None:
        self._configured = configured
        self.name = "" if configured == AUTO else configured
        self.fingerprint = Fingerprint()
        self._known = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        if self.name:
            self._known.set()

    @property
    def profile(self) -> Profile:
        """What is known of engines of its kind."""
        return profile_of(self.name)

    @property
    def put_back(self) -> Fingerprint:
        """What finish events get back when usage is taken out."""
        return self.fingerprint if self.profile.fingerprint else NO_FINGERPRINT

    @property
    def is_known(self) -> bool:
        """Whether there is an answer, or nobody waits for one any more."""
        return self._known.is_set()

    async def known(self) -> None:
        """Wait a moment for the first answer."""
        if not self._known.is_set():
            try:
                async with asyncio.timeout(FIRST_REQUEST_WAIT_S):
                    await self._known.wait()
            except TimeoutError:
                # The engine is slow to say who it is: go on without asking it for anything, and do not wait again.
                self._known.set()

    def unreachable(self) -> None:
        """A connection failed: whoever answers next may be another."""
        self.fingerprint.value = None
        self._wanted.set()

    async def run(self, pool: Pool) -> None:
        """Find out, and again whenever the engine was gone."""
        if self._configured != AUTO:
            return
        while True:
            await self._wanted.wait()
            answer = await self._ask(pool)
            if answer is None:
                await asyncio.sleep(RETRY_S)
                continue
            self._wanted.clear()
            if answer != self.name:
                log.info("engine_detected name=%s", answer)
            self.name = answer
            self._known.set()

    async def _ask(self, pool: Pool) -> str | None:
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                return await identify(lambda path: fetch(pool, path))
        except (ConnectError, ConnectionError, TimeoutError):
            return None


class _Answer:
    """A sink that gathers a small reply."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.data = bytearray()

    def informational(self, status: int, reason: bytes, headers: list[Header]) -> None:
        pass

    def head(self, stamp_ns: int, status: int, reason: bytes, headers: list[Header], has_body: bool) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}

    def upgraded(self, stamp_ns: int, reason: bytes, headers: list[Header], rest: bytes) -> None:
        self.failed(ErrorType.UPSTREAM_PROTOCOL)

    def read_done(self) -> None:
        pass

    def lane(self) -> None:
        pass

    def body(self, stamp_ns: int, data: bytes) -> None:
        if len(self.data) < MAX_REPLY_BYTES:
            self.data += data

    def complete(self, trailers: list[Header]) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def failed(self, error: ErrorType) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(error.value))

    def stale(self) -> None:
        self.failed(ErrorType.UPSTREAM_RESET)


async def fetch(pool: Pool, path: bytes) -> Answer:
    """GET `path` from the engine on a connection of its own.

    Raises:
        ConnectError, ConnectionError: no connection, or no proper reply.
    """
    connection: Connection = await pool.connect()
    # Whoever took it from the pool before we come to abort it would wait for ever.
    connection.is_single = True
    answer = _Answer()
    try:
        connection.begin(answer)
        connection.write(
            b"GET %b HTTP/1.1\r\nHost: %b:%d\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
            % (path, pool.host.encode(), pool.port)
        )
        await answer.done
    finally:
        connection.abort()
    return Answer(answer.status, answer.headers, bytes(answer.data))
