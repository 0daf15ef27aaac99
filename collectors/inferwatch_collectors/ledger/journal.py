"""From finished requests to commits: batching, retrying, and telling when what is durable.

`add` counts a position up; `committed` follows it. A relay's batch may be acknowledged once `committed` has reached the
position noted after that batch was applied. Each transaction carries every record added so far together with the metric
rows as they are at that moment, so a restart finds counters that include exactly the records it finds.

When the ledger fails (a full disk, above all), records wait here and are tried again with growing pauses, and nothing
is acknowledged. They wait packed, so that hours fit into memory, and go in one transaction once there is space again.
The wait is bounded: above `max_waiting` the oldest records lose their row (counted in `lost`); the counters, which are
absolute values and few, still include them and reach the disk with the next commit that succeeds.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol

from inferwatch.record import LateCount, RequestRecord, Share
from inferwatch_collectors.ledger.backlog import Backlog
from inferwatch_collectors.ledger.base import Ledger, LedgerError, MetricRow

_log: Final = logging.getLogger(__name__)

# Together they bound how long a relay keeps a finished request and how much one `kill -9` makes it send again. A commit
# costs 0.8 ms whatever is in it (counters, roll-ups, pages of the WAL): four a second are not felt, ten are.
COMMIT_INTERVAL_S: Final = 0.25
COMMIT_RECORDS: Final = 500

# Counters that changed without a finished request (token gaps of long streams) are written this often.
METRICS_INTERVAL_S: Final = 5.0

# A look-up that fails is tried again after these pauses; the relay's batch waits for it.
LOOKUP_PAUSES_S: Final = (0.1, 0.5, 2.0)

RETRY_FIRST_S: Final = 0.2
RETRY_MAX_S: Final = 10.0

# A failing disk fails ten times a second at first; one line a minute says as much.
LOG_INTERVAL_S: Final = 60.0

# About 0.2 kB each, packed: 100 MB, or almost three hours without a disk at 50 requests a second.
MAX_WAITING_RECORDS: Final = 500_000


class DurableValues(Protocol):
    """The counters, as far as a commit is concerned; see `metric_store.MetricStore`."""

    def take_dirty(self) -> list[MetricRow]:
        """Hand out what changed since the last call."""

    def put_back(self, rows: Iterable[MetricRow]) -> None:
        """Take `rows` as not written."""

    def touch_all(self) -> None:
        """Take everything as changed."""


class Journal:
    """The one place that calls `Ledger.commit`."""

    def __init__(self, ledger: Ledger, values: DurableValues, *, max_waiting: int = MAX_WAITING_RECORDS) -> None:
        """Everything counted in `values` because of a record must be so before `add` of it returns to the loop."""
        self._ledger = ledger
        self._values = values
        self._max_waiting = max_waiting
        self._epoch = ledger.epoch
        self._waiting = Backlog(RequestRecord, max_waiting)
        self._shares = Backlog(Share, max_waiting)
        self._late = Backlog(LateCount, max_waiting)
        self._flushes: list[asyncio.Future[bool]] = []
        self._some = asyncio.Event()
        self._due = asyncio.Event()
        self._closing = asyncio.Event()
        self._logged_at_s: float | None = None
        self.position = 0
        self.committed = 0
        self.lost = 0
        self.lost_shares = 0
        self.lost_late = 0
        self.unsure = 0
        self.commits = 0
        self.failing = False
        self.commit_failures = 0
        self.listeners: list[Callable[[], None]] = []

    def add(self, record: RequestRecord) -> None:
        """Take a finished request; it is durable once `committed` reaches today's `position`."""
        self._waiting.append(record)
        self.position += 1
        count = len(self._waiting)
        if count == 1:
            self._some.set()
        elif count >= COMMIT_RECORDS and not self._due.is_set():
            self._due.set()
        if count > 2 * self._max_waiting:  # a commit hangs: nobody else cuts meanwhile
            self._cut()

    def add_share(self, share: Share) -> None:
        """Take what a request, or nobody, was charged of the machine.

        It goes with the next commit, beside the metric rows of that moment; no acknowledgement depends on it.
        """
        self._shares.append(share)
        self._some.set()

    def add_late(self, late: LateCount) -> None:
        """Take what became known of a request that was added without counts; it goes as a share does."""
        self._late.append(late)
        self._some.set()

    @property
    def waiting(self) -> int:
        """Records that are not durable yet, those of a commit under way not counted."""
        return len(self._waiting)

    async def seen(self, request_ids: Collection[str]) -> set[str]:
        """Return those of `request_ids` that the ledger has. If it cannot be asked it is taken to have none.

        The ledger itself still refuses a second row; what may then be wrong is a counter, and `unsure` says how often.
        """
        for pause_s in (*LOOKUP_PAUSES_S, None):
            try:
                return await self._ledger.seen(request_ids) if request_ids else set()
            except LedgerError as error:
                self._log_fault(error)
                if pause_s is not None:
                    await _wait(self._closing, pause_s)
        self.unsure += len(request_ids)
        return set()

    async def flush(self, timeout_s: float) -> bool:
        """Commit what there is now; return whether that succeeded within `timeout_s`.

        While the ledger is failing it returns at once: a caller cannot make a disk better by insisting.
        """
        if self.failing:
            return False
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flushes.append(done)
        self._some.set()
        self._due.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            return False

    async def run(self) -> None:
        """Commit whenever something is due, until `close`; the last commit has everything."""
        pause_s = RETRY_FIRST_S
        while True:
            closing = self._closing.is_set()
            if await self._commit():
                pause_s = RETRY_FIRST_S
                if closing:
                    return
                await self._until_due()
            elif closing:
                return
            else:
                await _wait(self._closing, pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)

    def close(self) -> None:
        """Let `run` make one last commit and return."""
        self._closing.set()
        self._some.set()
        self._due.set()

    async def _until_due(self) -> None:
        if not await _wait(self._some, METRICS_INTERVAL_S):
            return
        if len(self._waiting) < COMMIT_RECORDS:
            await _wait(self._due, COMMIT_INTERVAL_S)

    async def _commit(self) -> bool:
        self._some.clear()
        self._due.clear()
        flushes, self._flushes = self._flushes, []
        records = self._waiting.take()
        shares = self._shares.take()
        late = self._late.take()
        position = self.position
        if self._ledger.epoch != self._epoch:
            self._epoch = self._ledger.epoch
            self._values.touch_all()
        rows = self._values.take_dirty()
        try:
            if records or rows or shares or late:
                await self._ledger.commit(records, rows, shares, late)
                self.commits += 1
        except LedgerError as error:
            self._waiting.put_back(records)
            self._shares.put_back(shares)
            self._late.put_back(late)
            self._values.put_back(rows)
            self.failing = True
            self.commit_failures += 1
            self._log_fault(error)
            self._cut()
            ok = False
        else:
            ok = True
            self._recovered()
            self.committed = position
            for listener in self.listeners:
                listener()
        for flush in flushes:
            if not flush.done():
                flush.set_result(ok)
        if self._waiting or self._flushes or self._closing.is_set():
            self._some.set()
        return ok

    def _cut(self) -> None:
        self.lost += self._waiting.cut()
        self.lost_shares += self._shares.cut()
        self.lost_late += self._late.cut()

    def _log_fault(self, error: LedgerError) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._logged_at_s is None or now_s - self._logged_at_s >= LOG_INTERVAL_S:
            self._logged_at_s = now_s
            _log.error("ledger_failed fault=%s waiting=%d reason=%s", error.fault.value, len(self._waiting), error)

    def _recovered(self) -> None:
        if self.failing:
            self.failing = False
            self._logged_at_s = None
            _log.warning("ledger_recovered lost=%d", self.lost)


async def _wait(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
