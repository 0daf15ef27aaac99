"""Takes in what relays wrote to disk while there was no collector.

A spool file is a run of tap messages: batches of opens and closes, `<boot>-<n>.spool` while its relay writes to it and
`….ready` when it is handed over. A `.spool` is taken when its relay is dead: not connected, and the file not touched
for DEAD_AFTER_S. The tail of a file may be torn (the relay was killed while it wrote); what is whole before it counts.
A file goes when its requests are committed; one that makes no sense is put aside as `.bad` for people to look at.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from inferwatch import tap
from inferwatch.tap import Batch, FrameError, Hello
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.ledger.journal import COMMIT_RECORDS, Journal
from inferwatch_collectors.open_requests import Link
from inferwatch_collectors.tap_server import digest

_log: Final = logging.getLogger(__name__)

SCAN_INTERVAL_S: Final = 1.0

# A living relay reconnects every second.
DEAD_AFTER_S: Final = 60.0

# Longest wait for one commit; after it the file stays, and is taken again (its requests are known then).
COMMIT_TIMEOUT_S: Final = 30.0

# Requests from files that may wait for a commit: so that an hour's worth does not crowd out the living traffic.
MAX_WAITING: Final = 10 * COMMIT_RECORDS


class TornError(Exception):
    """The file ends in the middle of a message."""


class SpoolReader:
    """Looks into the spool folder and books what it finds."""

    def __init__(
        self, folder: Path, booking: Booking, journal: Journal, *, connected_boots: Callable[[], set[str]]
    ) -> None:
        self._folder = folder
        self._booking = booking
        self._journal = journal
        self._connected_boots = connected_boots
        self._started_s = time.monotonic()
        self.files = 0
        self.torn = 0
        self.bad = 0

    async def run(self) -> None:
        """Scan for ever."""
        while True:
            await self.scan()
            await asyncio.sleep(SCAN_INTERVAL_S)

    async def scan(self) -> None:
        """Take in every file that is due, one after the other. With a failing ledger there is no point."""
        for path in await asyncio.to_thread(self._due, self._connected_boots()):
            if self._journal.failing:
                return
            await self._take(path)

    def _due(self, connected: set[str]) -> list[Path]:
        try:
            ready = sorted(self._folder.glob("*.ready"))
            if time.monotonic() - self._started_s < DEAD_AFTER_S:
                return ready
            written = sorted(self._folder.glob("*.spool"))
            return ready + [path for path in written if boot_of(path) not in connected and _is_old(path)]
        except OSError as error:
            _log.warning("spool_unreadable path=%s reason=%s", self._folder, error)
            return []

    async def _take(self, path: Path) -> None:
        link = Link(Hello(tap.PROTOCOL_VERSION, -1, 0, boot_of(path)), time.monotonic_ns())
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except OSError:
            return  # its relay has just renamed it
        bad = False
        try:
            messages = _messages(file)
            while (batch := await asyncio.to_thread(next, messages, None)) is not None:
                await digest(self._booking, self._journal, link, batch)
                if self._journal.waiting > MAX_WAITING:
                    await self._journal.flush(COMMIT_TIMEOUT_S)
        except TornError:
            self.torn += 1
            _log.warning("spool_torn path=%s", path)
        except FrameError as error:
            bad = True
            self.bad += 1
            _log.error("spool_bad path=%s reason=%s", path, error)
        finally:
            size = await asyncio.to_thread(_size_and_close, file)
            self._booking.drop(link)
        if await self._journal.flush(COMMIT_TIMEOUT_S):
            await asyncio.to_thread(_put_away, path, size, bad=bad)
            self.files += 1


def boot_of(path: Path) -> str:
    """Return the boot in the name of a spool file."""
    return path.stem.partition("-")[0]


def _messages(file: IO[bytes]) -> Iterator[Batch]:
    """Yield the batches of a spool file.

    Raises:
        TornError: the last one is not whole.
        FrameError: something else is in it.
    """
    while header := file.read(tap.LENGTH.size):
        if len(header) < tap.LENGTH.size:
            raise TornError
        (length,) = tap.LENGTH.unpack(header)
        if length > tap.MAX_MESSAGE_BYTES:
            raise FrameError(f"message of {length} bytes, expected no more than {tap.MAX_MESSAGE_BYTES}")
        payload = file.read(length)
        if len(payload) < length:
            raise TornError
        for message in tap.collector_side().feed(header + payload):
            if not isinstance(message, Batch):
                raise FrameError(f"{type(message).__name__} in a spool file")
            yield message


def _size_and_close(file: IO[bytes]) -> int:
    """Return how far the file was read."""
    with file:
        return file.tell()


def _put_away(path: Path, size: int, *, bad: bool) -> None:
    """Delete what was booked, unless its relay turns out to live and has written on."""
    try:
        if bad:
            path.rename(path.with_suffix(".bad"))
        elif path.stat().st_size <= size:
            path.unlink()
    except OSError as error:
        _log.warning("spool_not_removed path=%s reason=%s", path, error)


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > DEAD_AFTER_S
    except FileNotFoundError:  # handed over in this moment
        return False
