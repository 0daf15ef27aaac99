"""One JSON line on stdout per finished request: metadata only.

A reader of stdout may stop reading, and then a write blocks for as long as it likes. So a thread writes, the queue to
it is bounded in bytes, and what does not fit is dropped and counted: the ledger has every request, the log only helps.
"""

import asyncio
import os
import queue
import select
import threading
from typing import Final

import msgspec
from msgspec.structs import replace

from inferwatch.record import RequestRecord
from inferwatch_collectors import phases

# Some 6,000 lines, a few seconds of heavy traffic.
MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024

# Lines are handed to the thread together: waking it costs more than writing a line.
FLUSH_INTERVAL_S: Final = 0.1
FLUSH_LINES: Final = 256

_encode: Final = msgspec.json.Encoder().encode

_BEGIN: Final = b'{"event":"request",'

_END: Final = None


class LineWriter:
    """Writes to a file descriptor without ever blocking the caller."""

    def __init__(self, fd: int, max_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._fd = fd
        self._max_bytes = max_bytes
        # Bounded by `_queued_bytes`; a limit on the number of blocks would say nothing about memory.
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_bytes = 0
        self.dropped = 0
        # A daemon: a blocked stdout must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="line-writer", daemon=True)
        self._thread.start()

    def write(self, lines: list[bytes]) -> None:
        """Queue whole lines, all or none of them."""
        block = b"".join(lines)
        with self._lock:
            if self._queued_bytes + len(block) > self._max_bytes:
                self.dropped += len(lines)
                return
            self._queued_bytes += len(block)
        self._queue.put(block)

    def close(self, timeout_s: float) -> None:
        """Wait for what is queued, but not longer than `timeout_s`. Blocks: not for the event loop."""
        self._queue.put(_END)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (block := self._queue.get()) is not _END:
            try:
                self._write_all(block)
            except OSError:  # nobody reads any more; whoever comes later finds the lines in the ledger
                with self._lock:
                    self.dropped += block.count(b"\n")
            with self._lock:
                self._queued_bytes -= len(block)

    def _write_all(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # somebody who shares the descriptor has made it non-blocking
                select.select([], [self._fd], [])


class RequestLog:
    """Collects lines and hands them on in blocks."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer
        self._lines: list[bytes] = []

    def add(self, record: RequestRecord) -> None:
        """Log one request. Needs a running loop."""
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_INTERVAL_S, self.flush)
        self._lines.append(line(record))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Hand on what there is."""
        if self._lines:
            self._writer.write(self._lines)
            self._lines = []


def line(record: RequestRecord) -> bytes:
    """Return the log line of `record`: all of it that is set, but who the user is and which session it was.

    Added are the phases of its time that took any.
    """
    spent_s = {phases.PHASES[place]: spent_ns / 1e9 for place, spent_ns in phases.spent(record) if spent_ns}
    if record.user or record.session:
        record = replace(record, user="", session="")  # the default, which is not written
    return b"".join((_BEGIN, _encode(record)[1:-1], b',"phases_s":', _encode(spent_s), b"}\n"))
