"""The relay's end of the tap: batches of frames to the collector, never a wait.

Three things pile up here, each bounded:

* copies of replies (`reads`): above `max_pending_bytes`, or without a collector, they are dropped and counted;
* finished requests that the collector has not acknowledged, or is still to be told of again: kept for resending, and
  above `max_pending_closes` moved to the spool file, from which the collector takes them when it is back. Without a
  collector each is copied there at once, and what it had not acknowledged when the connection broke: should we be
  killed before it is back, nobody else knows of them (told twice, they are booked once);
* bytes in the socket's write buffer: while they are above the same bound, batches wait.

Opens, heads and closes of requests are never dropped but for one case, a full spool, and that is counted in `lost`.
"""

import asyncio
import itertools
import logging
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import msgspec

from inferwatch import tap
from inferwatch.relay.observer import MAX_LOGGED_FAULTS, Observer
from inferwatch.relay.outbox import CLOSED, READ_OVERHEAD_BYTES, Outbox
from inferwatch.relay.spool import Copy, SpoolWriter
from inferwatch.relay.telling import Entry, encoded, has_copy, resent, spooled_bytes, written
from inferwatch.settings.traffic import Tap

log = logging.getLogger(__name__)

# Reconnect quickly after a restart, which takes the collector half a second, but do not spin.
RECONNECT_MIN_S: Final = 0.05
RECONNECT_MAX_S: Final = 0.25

# Under load a batch is sent before its time: encoding and copying more than this at once would hold up a stream.
FLUSH_BYTES: Final = 256 * 1024

# Closes per spool write: large enough to be rare, small enough to be short.
SPOOL_BATCH: Final = 500

# Told again in one go, some 7 us each: between two such batches streams go on.
RESEND_BATCH: Final = 100

# In place of the number of the batch that told of a request: no acknowledgement reaches it.
UNSENT: Final = sys.maxsize


class Mirror(asyncio.Protocol):
    """One per relay process. Also the protocol of its current connection."""

    def __init__(self, settings: Tap, *, worker: int, socket_path: Path, spool_dir: Path) -> None:
        self._settings = settings
        self._worker = worker
        self._socket_path = socket_path
        self.boot = secrets.token_hex(8)
        self._ids = itertools.count(1)
        self._seq = itertools.count(1)
        self._spool = SpoolWriter(spool_dir, self.boot, settings.max_spool_bytes)

        self._opens: list[tap.Open] = []
        self._heads: list[tap.Head] = []
        self._closes: list[tap.Close] = []
        self._closed_observers: list[Observer] = []
        self.outbox = Outbox()
        self._flush_due = False

        self._open: dict[int, Observer] = {}
        self._unacked: deque[Entry] = deque()
        self._untold: deque[Entry] = deque()  # what a new collector has still to be told of, before those
        self._transport: asyncio.Transport | None = None
        self._reader = tap.relay_side()
        self._lost_connection = asyncio.Event()
        self._acked = asyncio.Event()
        self._closing = False
        self._resend_due = False  # the next of them are on their way
        self._behind = False  # the collector has missed what was kept while it took nothing
        self._resent_seq = 0  # the last batch that told again of finished requests
        self._acked_seq = 0
        self._uncopied_bytes = 0  # the first message that the spool had no room for a copy of; 0: none
        self.on_connected: Callable[[], None] = lambda: None
        self.on_cut: Callable[[tap.Cut], None] = lambda _: None
        self.flush_interval_s = settings.flush_interval_s

        self.dropped_bytes = 0
        self.dropped_reads = 0
        self.spooled = 0
        self._refused = 0
        self.observer_errors = 0

    # what observers say

    def next_id(self) -> tuple[int, str]:
        """Return the id of a new request on this connection, and its id for ever."""
        number = next(self._ids)
        return number, f"{self.boot}{number:08x}"

    def opened(self, observer: Observer, frame: tap.Open) -> None:
        self._open[observer.id] = observer
        if self.outbox.pending_bytes > self._settings.max_pending_bytes:
            self.dropped_bytes += len(frame.body)
            frame = msgspec.structs.replace(frame, body=b"")
        self._opens.append(frame)
        self.outbox.pending_bytes += len(frame.body) + READ_OVERHEAD_BYTES
        if not self._flush_due:
            self._schedule()

    def head(self, observer: Observer, frame: tap.Head) -> None:
        self._heads.append(frame)
        if not self._flush_due:
            self._schedule()

    @property
    def has_room(self) -> bool:
        """Whether there is a collector, and room for a copy."""
        return self._transport is not None and self.outbox.pending_bytes <= self._settings.max_pending_bytes

    def read(self, observer: Observer, stamp_ns: int, data: bytes) -> None:
        """Copy one read of a reply, or drop it."""
        if not self.make_room():
            self._drop(observer, stamp_ns, len(data))
            return
        observer.gap_marked = False
        self.outbox.reads.append((observer.id, stamp_ns, data))
        self.outbox.pending_bytes += len(data) + READ_OVERHEAD_BYTES

    def make_room(self) -> bool:
        """Send what has gathered if it is much, see to it that the rest will be sent; return whether to add to it."""
        if self.outbox.pending_bytes > FLUSH_BYTES:
            self.flush()
        if not self.has_room:
            return False
        self._schedule()
        self.outbox.bound_bytes = min(FLUSH_BYTES, self._settings.max_pending_bytes)
        return True

    def closed(self, observer: Observer, frame: tap.Close) -> None:
        self._open.pop(observer.id, None)
        self._closes.append(frame)
        self._closed_observers.append(observer)
        if not self._flush_due:
            self._schedule()

    def _drop(self, observer: Observer, stamp_ns: int, size: int) -> None:
        self.dropped_bytes += size
        self.dropped_reads += 1
        observer.dropped_bytes += size
        if not observer.gap_marked and self._transport is not None:
            observer.gap_marked = True
            self.outbox.reads.append((observer.id, stamp_ns, b""))

    # sending

    def _schedule(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_later(self.flush_interval_s, self._flush_on_time)

    def _flush_on_time(self) -> None:
        self._flush_due = False
        self.outbox.bound_bytes = CLOSED
        self.flush()

    def flush(self, stats: tap.Stats | None = None) -> None:
        """Send what has gathered. Without a collector only closes are kept."""
        transport = self._transport
        if transport is None:
            self._keep_without_collector()
            return
        if transport.get_write_buffer_size() > self._settings.max_pending_bytes:
            # It is there but takes nothing. Keep what would be kept without it, and tell it anew when it wakes up.
            self._keep_without_collector()
            self._behind = True
            self._schedule()
            return
        if self._behind:
            self._behind = False
            self._resend()
        if stats is not None:
            self._hand_over()
        if not (self._opens or self._heads or self.outbox.reads or self._closes or stats):
            return
        seq = next(self._seq)
        data = self._encoded(tap.Batch(seq, self._opens, self._heads, self.outbox.reads, self._closes, stats))
        for observer, frame in zip(self._closed_observers, self._closes, strict=True):
            self._unacked.append((seq, None, observer, frame))
        self._start_afresh()
        transport.write(data)
        self._spool_above_bound()

    def _encoded(self, batch: tap.Batch) -> bytes:
        data, is_whole = encoded(batch)
        self.observer_errors += not is_whole
        return data

    def _start_afresh(self) -> None:
        self._opens, self._heads, self._closes, self._closed_observers = [], [], [], []
        self.outbox.reads = []
        self.outbox.pending_bytes = 0

    def _keep_without_collector(self) -> None:
        """Opens and heads are made again from the observers that are still open; reads are lost and counted already."""
        finished = zip(self._closed_observers, self._closes, strict=True)
        fresh: list[Entry] = [(UNSENT, None, observer, frame) for observer, frame in finished]
        if self._transport is None:
            if self._uncopied_bytes and self._spool.takes(self._uncopied_bytes):
                fresh = [*self._unacked, *fresh]
                self._unacked.clear()
                self._uncopied_bytes = 0
            fresh = self._copied(fresh)
        self._unacked.extend(fresh)
        for read in self.outbox.reads:
            if (still_open := self._open.get(read[0])) is not None:
                still_open.dropped_bytes += len(read[2])
            self.dropped_bytes += len(read[2])
            self.dropped_reads += 1
        self._start_afresh()
        self._spool_above_bound()

    def _spool_above_bound(self) -> None:
        while len(self._unacked) + len(self._untold) > self._settings.max_pending_closes:
            self._spool_oldest()

    def _spool_oldest(self) -> None:
        """Leave some to the disk: of those first that the collector has not even been told of."""
        entries: list[Entry] = []
        for kept in (self._untold, self._unacked):
            entries += [kept.popleft() for _ in range(min(SPOOL_BATCH - len(entries), len(kept)))]
        fresh = [entry for entry in entries if entry[1] is None]
        refused = 0 if not fresh or self._write_down(fresh) else len(fresh)
        for _, copy, _, _ in entries:
            if copy is not None:
                copy.only_here += 1
                refused += copy.failed
        self.spooled += len(entries) - refused
        self._refused += refused
        if refused:
            log.error("spool_full lost_requests=%d", self.lost)

    def _copied(self, entries: list[Entry]) -> list[Entry]:
        """Write finished requests down that stay in memory as well: those that have no copy in the file yet.

        Those that the disk takes come back marked.
        """
        kept = [entry for entry in entries if has_copy(entry)]
        fresh = [entry for entry in entries if not has_copy(entry)]
        for start in range(0, len(fresh), SPOOL_BATCH):
            part, made = fresh[start : start + SPOOL_BATCH], Copy()
            copy = made if self._write_down(part, made) else None
            if copy is None:  # tried again when there is room
                self._uncopied_bytes = self._uncopied_bytes or spooled_bytes(part)
            kept += [(seq, copy, observer, frame) for seq, _, observer, frame in part]
        return kept

    def _write_down(self, entries: list[Entry], copy: Copy | None = None) -> bool:
        """Have them written to the spool, without what was said; False if it is full. A `copy`: they stay in memory."""
        loop = asyncio.get_running_loop()

        def make() -> bytes:  # in the spool's thread
            data, is_whole, faults = written(entries)
            if faults or not is_whole:
                loop.call_soon_threadsafe(self._count_faults, faults, is_whole)
            return data

        return self._spool.put(make, spooled_bytes(entries), len(entries), copy)

    def _count_faults(self, faults: list[str], is_whole: bool) -> None:
        self.observer_errors += not is_whole
        for name in faults:
            self.observer_errors += 1
            if self.observer_errors <= MAX_LOGGED_FAULTS:
                log.error("observer_fault stage=mask type=%s", name)

    # the connection

    async def run(self) -> None:
        """Keep a connection to the collector, for as long as the relay lives."""
        delay_s = RECONNECT_MIN_S
        while not self._closing:
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda: self, str(self._socket_path))
            except OSError:
                delay_s = min(delay_s * 2, RECONNECT_MAX_S)
                await asyncio.sleep(delay_s)
                continue
            connected_s = time.monotonic()
            await self._lost_connection.wait()
            if time.monotonic() - connected_s > RECONNECT_MAX_S:
                delay_s = RECONNECT_MIN_S
            await asyncio.sleep(delay_s)  # one that hangs up at once must not be called in a loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._closing:  # too late
            transport.close()
            return
        self._keep_without_collector()
        self._transport = writer = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of asyncio's
        self._reader = tap.relay_side()
        self._lost_connection.clear()
        self._behind = False
        writer.write(tap.encode(tap.Hello(tap.PROTOCOL_VERSION, self._worker, os.getpid(), self.boot)))
        self._resend()
        self._hand_over()
        self.on_connected()

    def _resend(self) -> None:
        """Tell a new collector (or the same, after a broken connection) all it may not know."""
        self._untold.extend(self._unacked)
        self._unacked.clear()
        if not self._resend_due:
            self._resend_more()
        opens = [observer.open_frame(resumed=True) for observer in self._open.values()]
        if opens and self._transport is not None:
            self._transport.write(self._encoded(tap.Batch(next(self._seq), opens, [], [], [])))

    def _resend_more(self) -> None:
        """Tell of some requests that are over, and of the next ones when the loop has been round."""
        self._resend_due = False
        transport = self._transport
        if transport is None or not self._untold:
            return
        loop = asyncio.get_running_loop()
        if transport.get_write_buffer_size() > self._settings.max_pending_bytes:
            self._resend_due = True
            loop.call_later(self.flush_interval_s, self._resend_more)
            return
        self._resent_seq = seq = next(self._seq)
        part = list(itertools.islice(self._untold, RESEND_BATCH))
        data = self._encoded(resent(seq, part))  # a fault in it leaves them where they are
        for _, copy, observer, frame in part:
            self._untold.popleft()
            self._unacked.append((seq, copy, observer, frame))
        if self._untold:
            self._resend_due = True
            loop.call_soon(self._resend_more)
        transport.write(data)

    def _hand_over(self) -> None:
        """Give the spool file to the collector, once it has booked what it was told again.

        In the file is less of the same requests; whichever it takes first is booked.
        """
        if self._acked_seq >= self._resent_seq and not self._untold:
            self._spool.hand_over()

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if isinstance(message, tap.Ack):
                unacked = self._unacked
                while unacked and unacked[0][0] <= message.seq:
                    unacked.popleft()
                waited, self._acked_seq = self._acked_seq < self._resent_seq, message.seq
                if waited:
                    self._hand_over()
                self._acked.set()
            elif isinstance(message, tap.Cut):
                self.on_cut(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.outbox.bound_bytes = CLOSED
        for observer in self._open.values():
            observer.gap_marked = False
        self._uncopied_bytes = 0
        self._unacked = deque(self._copied([*self._untold, *self._unacked]))
        self._untold.clear()
        self._lost_connection.set()

    # the end

    async def close(self, timeout_s: float) -> None:
        """Send everything, wait for the acknowledgement, say goodbye; spool what is left."""
        deadline_s = time.monotonic() + timeout_s
        self.flush()
        while (self._unacked or self._untold) and (left_s := deadline_s - time.monotonic()) > 0:
            self._acked.clear()
            try:
                await asyncio.wait_for(self._acked.wait(), min(left_s, 0.1))
            except TimeoutError:
                self.flush()
        self._closing = True
        self._keep_without_collector()
        transport, self._transport = self._transport, None  # from here on nothing is told
        self.outbox.bound_bytes = CLOSED
        while self._unacked or self._untold:
            await self._spool.drained()  # its queue is smaller than what may be left
            self._spool_oldest()
        await self._spool.close()
        if transport is not None:
            transport.write(tap.encode(tap.Bye()))
            transport.close()
        self._lost_connection.set()

    @property
    def lost(self) -> int:
        """Finished requests that found neither memory nor disk."""
        return self._refused + self._spool.lost

    @property
    def open_requests(self) -> int:
        return len(self._open)

    @property
    def pending_bytes(self) -> int:
        buffered = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self.outbox.pending_bytes + buffered
