"""One child process of the supervisor: started with inherited sockets, watched, and started again whenever it dies."""

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from inferwatch.control import Channel, Message

log = logging.getLogger(__name__)

# A child that dies at once (a broken install, a port that is gone) is not started more often than this.
RESTART_MIN_S: Final = 0.1
RESTART_MAX_S: Final = 5.0
# A child that has lived this long has proved itself: its next death is a first one again.
HEALTHY_S: Final = 10.0

# Children say every second that they are alive; one that is silent for this long hangs and is killed.
SILENCE_S: Final = 20.0


class Child:
    """One child process, started again whenever it dies."""

    def __init__(
        self,
        name: str,
        module: str,
        inherited: dict[str, socket.socket],
        first_message: Callable[[], Message],
        on_message: Callable[["Child", Message], None],
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self._module = module
        self._inherited = inherited
        self._first_message = first_message
        self._on_message = on_message
        self._on_change = on_change
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._last_sign_s = 0.0
        self._last_words: Message = {}
        self.ready = asyncio.Event()
        self.stopping = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def send(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def stop(self, message: Message) -> None:
        """Ask it to end, and do not start it again. A child that is just being started hears it, too."""
        self.stopping = True
        self._last_words = message
        self.send(message)

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _is_stopping(self) -> bool:
        return self.stopping

    async def run(self) -> None:
        """Start and restart until stopping."""
        delay_s = RESTART_MIN_S
        while not self._is_stopping():
            started_s = time.monotonic()
            try:
                code = await self._live_once()
            except OSError as error:  # no process, no descriptor, no memory: later, perhaps
                code = -1
                log.error("child_cannot_start name=%s reason=%s", self.name, error.strerror)
            self.ready.clear()
            if self._is_stopping():
                return
            self._on_change()
            delay_s = RESTART_MIN_S if time.monotonic() - started_s > HEALTHY_S else min(delay_s * 2, RESTART_MAX_S)
            log.error("child_died name=%s code=%s restart_in_s=%.1f", self.name, code, delay_s)
            await asyncio.sleep(delay_s)

    async def _live_once(self) -> int:
        with contextlib.ExitStack() as cleanup:
            ours, theirs = socket.socketpair()
            cleanup.callback(theirs.close)
            ours_guard = cleanup.enter_context(contextlib.ExitStack())
            ours_guard.callback(ours.close)
            files = {"control": theirs, **self._inherited}
            arguments = [text for key, sock in files.items() for text in (f"--{key}-fd", str(sock.fileno()))]
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                *arguments,
                pass_fds=[sock.fileno() for sock in files.values()],
                # Ctrl-C in a terminal goes to the whole group; the order of stopping is ours to decide.
                process_group=0,
            )
            ours_guard.pop_all()  # the channel's from now on
        self._channel = channel = await Channel.over(ours)
        self._last_sign_s = time.monotonic()
        channel.send(self._first_message())
        if self.stopping:
            channel.send(self._last_words)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(process))
            async for message in channel.messages():
                self._last_sign_s = time.monotonic()
                if message.get("ready"):
                    self.ready.set()
                    self._on_change()
                self._on_message(self, message)
        channel.close()
        self._channel = None
        return await process.wait()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    _ = await process.wait()
            silent_s = time.monotonic() - self._last_sign_s
            if self.running and silent_s > SILENCE_S and not self.stopping:
                log.error("child_hangs name=%s silent_s=%.0f", self.name, silent_s)
                process.kill()
