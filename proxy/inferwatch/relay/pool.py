"""The pool of idle connections to the engine, and how a new one is made."""

import asyncio
import contextlib
import errno
import ssl
import time
from collections import deque

from inferwatch.record import ErrorType
from inferwatch.relay.upstream import Connection


class ConnectError(Exception):
    """No connection to the engine. `error` says why, for the record and the reply."""

    def __init__(self, error: ErrorType) -> None:
        super().__init__(error.value)
        self.error = error


class Pool:
    """Idle connections to one engine, the youngest first: the old ones then grow idle and are closed.

    There is no limit on the number in use: the engine queues, and only it can do so well.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        max_idle: int,
        idle_s: float,
        connect_timeout_s: float,
    ) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        name = f"[{host}]" if ":" in host else host
        default = 443 if tls else 80
        self.authority = (name if port == default else f"{name}:{port}").encode()
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._connect_timeout_s = connect_timeout_s
        self._idle: deque[Connection] = deque()
        self.connects = 0
        self.connect_errors = 0

    @property
    def idle(self) -> int:
        return len(self._idle)

    def take(self) -> Connection | None:
        """Return an idle connection, or None."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                connection._reused = True  # noqa: SLF001 - the pool is the other half of the connection
                return connection
        return None

    async def connect(self) -> Connection:
        """Open a new connection.

        Raises:
            ConnectError: refused, unreachable, not resolvable, bad TLS, or too slow; or no file descriptor left here.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self.host, self.port, ssl=self._tls
                )
        except TimeoutError:
            self.connect_errors += 1
            raise ConnectError(ErrorType.CONNECT_TIMEOUT) from None
        except OSError as error:  # includes ssl.SSLError and socket.gaierror
            if error.errno in (errno.EMFILE, errno.ENFILE):  # says nothing of the engine
                raise ConnectError(ErrorType.OUT_OF_FILES) from None
            self.connect_errors += 1
            raise ConnectError(ErrorType.CONNECT_FAILED) from None
        self.connects += 1
        return connection

    def put(self, connection: Connection) -> None:
        """Take a connection back after a complete reply."""
        if len(self._idle) >= self._max_idle or connection.transport.is_closing():
            connection.transport.close()
            return
        connection.idle_since_s = time.monotonic()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """The connection died."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def sweep(self, now_s: float) -> None:
        """Close what has been idle for too long."""
        while self._idle and now_s - self._idle[0].idle_since_s > self._idle_s:
            self._idle.popleft().transport.close()

    def close(self) -> None:
        """Close what is idle, and whatever comes back: nobody takes or sweeps it any more."""
        self._max_idle = 0
        while self._idle:
            self._idle.pop().transport.close()
