"""The ledger in a SQLite file: an asynchronous front for `SqliteStore`, with one thread behind it.

One thread, because SQLite has one writer anyway and a queue of one keeps the order; never the loop's thread, because a
disk may take seconds over a commit. When the file cannot be opened the ledger lives in memory: it still removes
duplicates and answers `recent`, and `durable` says that nothing will outlive the process.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

from inferwatch.record import LateCount, RequestRecord, Share
from inferwatch_collectors.ledger.base import LedgerError, MetricRow
from inferwatch_collectors.ledger.sqlite_store import IN_MEMORY, SqliteStore
from inferwatch_collectors.ledger.vote import Asked, Vote

_log: Final = logging.getLogger(__name__)

FILE_NAME: Final = "ledger.sqlite3"

DAY_NS: Final = 24 * 3600 * 1_000_000_000

# Without a disk the rows live in this process: enough for `recent` and for what relays may send again, 10 MB at most.
IN_MEMORY_ROWS: Final = 10_000

T = TypeVar("T")


class SqliteLedger:
    """See `ledger.base.Ledger`."""

    def __init__(self, executor: ThreadPoolExecutor, store: SqliteStore, fault: str = "") -> None:
        self.fault = fault
        self._executor = executor
        self._store = store

    @classmethod
    async def open(
        cls,
        state_dir: Path | None,
        *,
        retention_days: float = 35,
        hour_retention_days: float = 400,
        day_retention_days: float = 0,
        max_rows: int = 5_000_000,
        max_bytes: int = 0,
    ) -> Self:
        """Open `ledger.sqlite3` in `state_dir`; None, or a directory that cannot be used, gives one in memory.

        `max_bytes` bounds the file (0: the disk does). Retentions are those of `settings.observing.Ledger`.

        Raises:
            LedgerInUseError: another collector writes there.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        keep = {
            "retention_ns": int(retention_days * DAY_NS),
            "hour_retention_ns": int(hour_retention_days * DAY_NS),
            "day_retention_ns": int(day_retention_days * DAY_NS),
        }

        def make() -> tuple[SqliteStore, str]:
            fault = "there is no state folder"
            if state_dir is not None:
                path = str(state_dir / FILE_NAME)
                try:
                    return SqliteStore(path, max_rows=max_rows, max_bytes=max_bytes, **keep), ""
                except LedgerError as error:
                    fault = str(error)
                    _log.error("ledger_not_durable path=%s reason=%s", path, error)
            return SqliteStore(IN_MEMORY, max_rows=min(max_rows, IN_MEMORY_ROWS), **keep), fault

        try:
            store, fault = await asyncio.get_running_loop().run_in_executor(executor, make)
        except BaseException:
            executor.shutdown(wait=False)
            raise
        return cls(executor, store, fault)

    @property
    def durable(self) -> bool:
        return self._store.durable

    @property
    def epoch(self) -> int:
        return self._store.epoch

    async def commit(
        self,
        records: Iterable[RequestRecord],
        metric_rows: Sequence[MetricRow],
        shares: Iterable[Share] = (),
        late: Iterable[LateCount] = (),
    ) -> None:
        await self._run(lambda: self._store.commit(records, metric_rows, shares, late))

    async def seen(self, request_ids: Iterable[str]) -> set[str]:
        return await self._run(lambda: self._store.seen(request_ids))

    async def asked(self, request_id: str) -> Asked | None:
        return await self._run(lambda: self._store.asked(request_id))

    async def vote(self, vote: Vote) -> Vote | None:
        return await self._run(lambda: self._store.vote(vote))

    async def load_metrics(self) -> list[MetricRow]:
        return await self._run(self._store.load_metrics)

    async def recent(self, count: int) -> list[RequestRecord]:
        return await self._run(lambda: self._store.recent(count))

    async def retain(self, wall_ns: int) -> int:
        return await self._run(lambda: self._store.retain(wall_ns))

    async def close(self) -> None:
        await self._run(self._store.close)
        self._executor.shutdown(wait=False)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
