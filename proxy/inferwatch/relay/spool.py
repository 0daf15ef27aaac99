"""Where finished requests go that nobody has acknowledged: a file beside the ledger.

Each is copied there at once while there is no collector, or when the connection to it breaks; those that memory has no
room for are only there.

The file is a run of tap messages, `<boot>-<n>.spool`; handed over, it is renamed to `.ready`. Making a message and
writing it happens in one thread, in order, so that neither a slow disk nor a crowd of requests delays a token.

What the thread made of a message comes back to the loop, and all accounts are kept there: a message counts by the size
it may have until it is written, and by its own from then on. The queue to the thread is bounded more narrowly than the
file: it is memory.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Final

log = logging.getLogger(__name__)

# Waiting for the thread, by the sizes they may have: some 40,000 requests, seconds of its work. More is a hung disk.
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024


class Copy:
    """A message whose requests are in memory as well, until each is forgotten there."""

    __slots__ = ("failed", "only_here")

    def __init__(self) -> None:
        self.failed = False  # it is in no file
        self.only_here = 0  # requests


class SpoolWriter:
    """Appends messages for the collector to find. For one loop; `_append` and `_rename` are its thread's."""

    def __init__(self, folder: Path, boot: str, max_bytes: int) -> None:
        self._folder = folder
        self._boot = boot
        self._max_bytes = max_bytes
        self._max_queued_bytes = min(max_bytes, MAX_QUEUED_BYTES)
        self._bytes = 0  # of the present file, with what is queued for it
        self._queued_bytes = 0  # for it, and for those before
        self._handed_over = 0  # files
        self._used = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._number = 0
        self._file: IO[bytes] | None = None
        self.failing = False  # the disk has refused something of the present file
        self.lost = 0  # requests that the disk or a fault of ours has cost

    def put(self, make: Callable[[], bytes], size: int, requests: int, copy: Copy | None = None) -> bool:
        """Queue one message, which the thread makes; False if there is no room for it.

        `size`: how many bytes it may have. If the disk refuses, or `make` does, `requests` are counted as lost; of a
        `copy`, those that are no longer in memory.
        """
        if not self.takes(size):
            return False
        self._bytes += size
        self._queued_bytes += size
        self._used = True
        done = asyncio.wrap_future(self._thread.submit(self._append, make))
        done.add_done_callback(partial(self._appended, self._handed_over, size, requests, copy))
        return True

    def takes(self, size: int) -> bool:
        """Whether there is room for a message that may have so many bytes."""
        has_room = self._bytes + size <= self._max_bytes and self._queued_bytes + size <= self._max_queued_bytes
        return has_room and not self.failing

    async def drained(self) -> None:
        """Wait until what is queued now is written, and counts by what it came to."""
        await asyncio.wrap_future(self._thread.submit(lambda: None))

    def _appended(
        self, file: int, size: int, requests: int, copy: Copy | None, done: "asyncio.Future[int | None]"
    ) -> None:
        written: int | None = 0
        if (error := done.exception()) is None:
            written = done.result()
        else:  # a fault of ours; its text may quote a request
            log.error("spool_fault type=%s", type(error).__name__)
        self._queued_bytes -= size
        if file == self._handed_over:
            self._bytes += (written or 0) - size
            self.failing |= written is None
        if written:
            return
        if copy is None:
            self.lost += requests
        else:
            copy.failed = True
            self.lost += copy.only_here

    def hand_over(self) -> None:
        """Give the file to the collector, and begin another the next time."""
        if self._used:
            self._used = self.failing = False  # another file is another try
            self._bytes = 0
            self._handed_over += 1
            self._thread.submit(self._rename)

    async def close(self) -> None:
        """Write out and hand over."""
        self.hand_over()
        await self.drained()
        self._thread.shutdown(wait=False)

    def _append(self, make: Callable[[], bytes]) -> int | None:
        """Return how many bytes were written: 0 if there is no room after all, None if the disk refuses."""
        message = make()
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = self._path("spool").open("ab", buffering=0)
            start = self._file.seek(0, os.SEEK_END)  # not where a part that was cut off again has ended
            if start + len(message) > self._max_bytes:
                return 0
            if self._file.write(message) == len(message):
                return len(message)
            self._file.truncate(start)  # the disk is full: half a message would make the rest unreadable
        except OSError:
            pass
        return None

    def _rename(self) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
            self._path("spool").rename(self._path("ready"))
        self._file = None
        self._number += 1

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._boot}-{self._number}.{suffix}"
