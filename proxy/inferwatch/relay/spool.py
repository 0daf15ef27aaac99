"""Where finished requests go when there is no collector and memory is full: a file beside the ledger.

The file is a run of tap messages, `<boot>-<n>.spool`; handed over, it is renamed to `.ready`. Making a message and
writing it happens in one thread, in order, so that neither a slow disk nor a crowd of requests delays a token; the
queue to that thread is bounded by the size limit of the file.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)


class SpoolWriter:
    """Appends messages for the collector to find."""

    def __init__(self, folder: Path, boot: str, max_bytes: int) -> None:
        self._folder = folder
        self._boot = boot
        self._max_bytes = max_bytes
        self._bytes = 0
        self._number = 0
        self._used = False
        self._file: IO[bytes] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self.failing = False  # the disk has refused something of the present file
        self.lost = 0  # requests that the disk refused

    def put(self, make: Callable[[], bytes], size: int, requests: int) -> bool:
        """Queue one message, which the thread makes; False if there is no room for it.

        `size`: how many bytes it may have. `requests` are counted as lost if the disk refuses, or `make` does.
        """
        if self._bytes + size > self._max_bytes or self.failing:
            return False
        self._bytes += size
        self._used = True
        self._thread.submit(self._append, make, requests).add_done_callback(partial(self._appended, requests))
        return True

    def _appended(self, requests: int, done: Future[None]) -> None:
        if (error := done.exception()) is not None:  # a fault of ours; its text may quote a request
            self.lost += requests
            log.error("spool_fault type=%s", type(error).__name__)

    def hand_over(self) -> None:
        """Give the file to the collector, and begin another the next time."""
        if self._used:
            self._used = False
            self._thread.submit(self._rename)

    async def close(self) -> None:
        """Write out and hand over."""
        self.hand_over()
        done: Future[None] = self._thread.submit(lambda: None)
        await asyncio.wrap_future(done)
        self._thread.shutdown(wait=False)

    def _append(self, make: Callable[[], bytes], requests: int) -> None:
        message = make()
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = self._path("spool").open("ab", buffering=0)
            start = self._file.tell()
            if self._file.write(message) == len(message):
                return
            self._file.truncate(start)  # the disk is full: half a message would make the rest unreadable
        except OSError:
            pass
        self.failing = True
        self.lost += requests

    def _rename(self) -> None:
        self.failing = False  # another file is another try
        self._bytes = 0
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
            self._path("spool").rename(self._path("ready"))
        self._file = None
        self._number += 1

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._boot}-{self._number}.{suffix}"
