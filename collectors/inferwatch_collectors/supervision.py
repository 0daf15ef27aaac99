"""The collector's end of the control channel: what the supervisor says, what it is asked, and the sign of life.

Messages carry any of `config` (a whole new configuration), `redacted` (the same for people to read), `access` (the
digests of the admin port's tokens), `status`, `reloaded` (the answer to our request), `stop`. Nothing here decides: it
is handed to the collector's `Listener`.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from inferwatch.config import Config
from inferwatch.control import Channel, Message

_log: Final = logging.getLogger(__name__)

# Supervisor's patience is 20 s.
BEAT_S: Final = 1.0


class Listener(Protocol):
    """Who is told."""

    def reconfigure(self, config: Config) -> None:
        """Take up a new configuration."""

    def admit(self, digests: Mapping[str, str]) -> None:
        """Take up other tokens for the admin port."""

    def take_status(self, status: Mapping[str, Any]) -> None:
        """Learn how the data path is."""

    def stop(self, *, orphaned: bool) -> None:
        """Begin to stop; `orphaned`: the supervisor is gone."""


class Supervision:
    """One channel; `None` for a collector that runs without a supervisor."""

    def __init__(self, channel: Channel | None, listener: Listener, shown_config: Mapping[str, Any]) -> None:
        self._channel = channel
        self._listener = listener
        self._reloads: list[asyncio.Future[str]] = []
        self.shown_config = shown_config

    def ready(self) -> None:
        """Say that the collector serves."""
        if self._channel is not None:
            self._channel.send({"ready": True})

    async def listen(self) -> None:
        """Hear the supervisor until it is gone."""
        if self._channel is None:
            return
        async for message in self._channel.messages():
            self._take(message)
        _log.warning("supervisor_gone")
        self._listener.stop(orphaned=True)

    async def beat(self) -> None:
        """Give a sign of life for ever."""
        if self._channel is None:
            return
        beat = 0
        while True:
            beat += 1
            self._channel.send({"beat": beat})
            await asyncio.sleep(BEAT_S)

    async def ask_for_reload(self) -> str:
        """Have the configuration read anew. Returns what is wrong with it, "" if nothing."""
        if self._channel is None:
            return "there is no supervisor to ask"
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reloads.append(waiter)
        self._channel.send({"reload": True})
        return await waiter

    def close(self) -> None:
        """Leave."""
        if self._channel is not None:
            self._channel.close()

    def _take(self, message: Message) -> None:
        if "redacted" in message:
            self.shown_config = message["redacted"]
        if "config" in message:
            self._listener.reconfigure(msgspec.convert(message["config"], Config))
        if "access" in message:
            self._listener.admit(message["access"])
        if "status" in message:
            self._listener.take_status(message["status"])
        if "reloaded" in message:
            for waiter in self._reloads:
                if not waiter.done():
                    waiter.set_result(message["reloaded"])
            self._reloads.clear()
        if message.get("stop"):
            self._listener.stop(orphaned=False)
