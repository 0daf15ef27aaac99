"""Is the engine there? A TCP connection every two seconds, opened and closed.

No HTTP: an engine that is loading a model or has its queue full may be slow to answer `/health`, and each has another
path for it. Whether it accepts connections is what decides if a request can be sent at all.
"""

import asyncio
import contextlib
from typing import Final
from urllib.parse import urlsplit

from inferwatch.tasks import TaskSet

INTERVAL_S: Final = 2.0
TIMEOUT_S: Final = 1.0

_PORTS: Final = {"http": 80, "https": 443}


class UpstreamProbe:
    """Keeps `up` current for one upstream."""

    def __init__(self, url: str) -> None:
        """`url` is `http://host:port` or `https://host:port`."""
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or _PORTS.get(parts.scheme, 80)
        self.up: bool | None = None  # None: not tried yet

    @property
    def name(self) -> str:
        """`host:port`, as the label `upstream` has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            self.up = await self.probe()
            await asyncio.sleep(INTERVAL_S)

    async def probe(self) -> bool:
        """Return whether the upstream accepts a connection within TIMEOUT_S."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                _, writer = await asyncio.open_connection(self.host, self.port)
        except (OSError, UnicodeError):  # refused, unreachable, timed out; a name that cannot be resolved or encoded
            return False
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True


class UpstreamWatch:
    """The probe of the present upstream."""

    def __init__(self, url: str, tasks: TaskSet) -> None:
        self.probe = UpstreamProbe(url)
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to probe."""
        self._task = self._tasks.start(self.probe.run(), "upstream_probe")

    def use(self, url: str) -> str:
        """Probe another upstream, unless it is the same; return the name of the one that is not probed any more, or "".

        Once probing has begun.
        """
        fresh, old = UpstreamProbe(url), self.probe.name
        if fresh.name == old:
            return ""
        self.probe = fresh
        if self._task is not None:
            self._task.cancel()
        self.start()
        return old
