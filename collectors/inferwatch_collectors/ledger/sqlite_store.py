"""The SQLite file, synchronous: every statement the ledger runs. All of it belongs to one thread, see `sqlite`.

WAL with `synchronous=NORMAL`: a commit is in the page cache when it returns, so it outlives `kill -9` of this process;
a power cut may take the last commits but never leaves half of one. A corrupt file is moved aside, never repaired and
never deleted: whoever bills by it will want to look at it. An advisory lock keeps a second collector out, because
metric rows are absolute values and two writers would overwrite each other's; readers (reports, backups) need none.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from inferwatch.record import LateCount, RequestRecord, Share
from inferwatch_collectors.ledger import feedback_rows
from inferwatch_collectors.ledger.base import GONE, LedgerError, LedgerFault, LedgerInUseError, MetricRow
from inferwatch_collectors.ledger.late_rows import add_late
from inferwatch_collectors.ledger.packing import Shapes
from inferwatch_collectors.ledger.schema import (
    DELETE_METRIC,
    INSERT_REQUEST,
    MIGRATIONS,
    UPSERT_METRIC,
    USAGE_VERSION,
    request_row,
)
from inferwatch_collectors.ledger.usage import DAY, HOUR, MINUTE, USER_DAY, Tally
from inferwatch_collectors.ledger.usage_tables import IDS_PER_QUERY, UsageTables
from inferwatch_collectors.ledger.vote import Asked, Vote

_log: Final = logging.getLogger(__name__)

IN_MEMORY: Final = ":memory:"

# Another program (a backup, a report) may hold the file for a moment. Longer than this is a fault to be counted.
BUSY_TIMEOUT_MS: Final = 1000

# A predecessor that was told to stop may still be at its last commit.
LOCK_WAIT_S: Final = 5.0

# One step of retention: some 10 ms of writing, so that a commit never waits long behind it.
RETENTION_STEP_ROWS: Final = 1000

AGED: Final = "SELECT seq FROM requests WHERE wall_ns < ? ORDER BY wall_ns LIMIT ?"

# After an outage a transaction may have very many records; no more than this many are unpacked at a time.
INSERT_STEP_ROWS: Final = 2_000

# The WAL grows while a reader holds a snapshot; afterwards it is cut down to this.
WAL_LIMIT_BYTES: Final = 16 * 1024 * 1024

_FAULTS: Final = {
    sqlite3.SQLITE_FULL: LedgerFault.FULL,
    sqlite3.SQLITE_READONLY: LedgerFault.READ_ONLY,
    sqlite3.SQLITE_BUSY: LedgerFault.LOCKED,
    sqlite3.SQLITE_LOCKED: LedgerFault.LOCKED,
    sqlite3.SQLITE_CORRUPT: LedgerFault.CORRUPT,
    sqlite3.SQLITE_NOTADB: LedgerFault.CORRUPT,
    sqlite3.SQLITE_IOERR: LedgerFault.IO,
    sqlite3.SQLITE_CANTOPEN: LedgerFault.IO,
}


def fault_of(error: sqlite3.Error) -> LedgerFault:
    """Map SQLite's (extended) result code to the closed set."""
    code = getattr(error, "sqlite_errorcode", None)
    return LedgerFault.OTHER if code is None else _FAULTS.get(code & 0xFF, LedgerFault.OTHER)


class SqliteStore:
    """One open database. Make it, use it and close it in one thread."""

    def __init__(
        self,
        path: str,
        *,
        retention_ns: int,
        max_rows: int,
        max_bytes: int = 0,
        hour_retention_ns: int = 0,
        day_retention_ns: int = 0,
    ) -> None:
        """Open or create the file; `IN_MEMORY` gives one that dies with the process.

        `retention_ns` is for requests and for sums by the minute, `hour_retention_ns` for sums by the hour and those of
        users, `day_retention_ns` for sums by the day; of the last two 0 means for ever.

        Raises:
            LedgerInUseError: another writer holds it.
            LedgerError: it cannot be opened or written.
        """
        self._path = path
        self._retention_ns = retention_ns
        self._keep_ns = {
            MINUTE.name: retention_ns,
            HOUR.name: hour_retention_ns,
            USER_DAY.name: hour_retention_ns,
            DAY.name: day_retention_ns,
        }
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lock_fd = -1
        self.epoch = 0
        try:
            if path != IN_MEMORY:
                self._lock_fd = _lock(Path(path + ".lock"))
            self._connection = self._open()
        except OSError as error:
            self._unlock()
            raise LedgerError(LedgerFault.IO, f"{path}: {error.strerror}") from None
        except (LedgerError, LedgerInUseError):
            self._unlock()
            raise

    def commit(
        self,
        records: Iterable[RequestRecord],
        metric_rows: Sequence[MetricRow],
        shares: Iterable[Share] = (),
        late: Iterable[LateCount] = (),
    ) -> None:
        """Write all of it in one transaction."""
        with self._guarded() as connection, self._transaction(connection):
            tally = Tally()
            remaining = iter(records)
            while part := list(islice(remaining, INSERT_STEP_ROWS)):
                self._insert(connection, part, tally)
            owed = iter(shares)
            while due := list(islice(owed, INSERT_STEP_ROWS)):
                self._usage.settle(due, tally)
            counted = iter(late)
            while more := list(islice(counted, INSERT_STEP_ROWS)):
                add_late(connection, more, self._shapes, self._usage, tally)
            self._usage.write(tally)
            connection.executemany(UPSERT_METRIC, [row for row in metric_rows if row[2] != GONE])
            connection.executemany(DELETE_METRIC, [row[:2] for row in metric_rows if row[2] == GONE])

    def _insert(self, connection: sqlite3.Connection, records: Sequence[RequestRecord], tally: Tally) -> None:
        """Insert and count those that have no row yet."""
        key_ids = list(map(self._usage.key_id, records))
        (last,) = connection.execute("SELECT max(seq) FROM requests").fetchone()
        inserted = connection.executemany(
            INSERT_REQUEST, map(request_row, records, map(self._shapes.pack, records), key_ids)
        ).rowcount
        if inserted == len(records):
            for record, key_id in zip(records, key_ids, strict=True):
                tally.add(record, key_id)
            return
        rows = connection.execute("SELECT request_id FROM requests WHERE seq > ?", (last or 0,))
        fresh = {row[0] for row in rows}
        for record, key_id in zip(records, key_ids, strict=True):
            if record.request_id in fresh:
                fresh.remove(record.request_id)
                tally.add(record, key_id)

    def seen(self, request_ids: Iterable[str]) -> set[str]:
        """Return those ids that have a row."""
        ids = list(request_ids)
        found: set[str] = set()
        with self._guarded() as connection:
            for start in range(0, len(ids), IDS_PER_QUERY):
                part = ids[start : start + IDS_PER_QUERY]
                marks = ",".join("?" * len(part))
                query = f"SELECT request_id FROM requests WHERE request_id IN ({marks})"  # noqa: S608 - only marks
                found.update(row[0] for row in connection.execute(query, part))
        return found

    def asked(self, request_id: str) -> Asked | None:
        """Return whose request this was."""
        with self._guarded() as connection:
            return feedback_rows.asked(connection, self._shapes, request_id)

    def vote(self, vote: Vote) -> Vote | None:
        """Make it the request's vote; return the one before."""
        with self._guarded() as connection, self._transaction(connection):
            return feedback_rows.keep(connection, vote)

    def load_metrics(self) -> list[MetricRow]:
        """Return every row of metric_state."""
        with self._guarded() as connection:
            return connection.execute("SELECT family, labels, value FROM metric_state").fetchall()

    def recent(self, count: int) -> list[RequestRecord]:
        """Return the newest `count` records."""
        with self._guarded() as connection:
            rows = connection.execute("SELECT record FROM requests ORDER BY seq DESC LIMIT ?", (count,)).fetchall()
        return [self._shapes.unpack(row[0]) for row in rows]

    def retain(self, wall_ns: int) -> int:
        """Delete up to RETENTION_STEP_ROWS of the oldest rows over either limit."""
        # SQLite's integers end; nothing is older than the epoch.
        before_ns = max(0, wall_ns - self._retention_ns)
        with self._guarded() as connection:
            with self._transaction(connection):
                cells = self._usage.retain(wall_ns, self._keep_ns, RETENTION_STEP_ROWS)
                votes = feedback_rows.retain(connection, before_ns, self._max_rows, RETENTION_STEP_ROWS)
                cells = max(cells, votes)
            first, last = connection.execute("SELECT min(seq), max(seq) FROM requests").fetchone()
            if first is None:
                return cells
            surplus_end = min(last + 1 - self._max_rows, first + RETENTION_STEP_ROWS)
            aged = (before_ns, RETENTION_STEP_ROWS)
            with self._transaction(connection):
                connection.execute(f"DELETE FROM shares WHERE seq IN ({AGED})", aged)  # noqa: S608 - ours
                gone = connection.execute(f"DELETE FROM requests WHERE seq IN ({AGED})", aged).rowcount  # noqa: S608
                connection.execute("DELETE FROM shares WHERE seq < ?", (surplus_end,))
                gone += connection.execute("DELETE FROM requests WHERE seq < ?", (surplus_end,)).rowcount
            return max(gone, cells)

    def close(self) -> None:
        """Checkpoint (SQLite does so when the last connection goes), close and unlock."""
        self._connection.close()
        self._unlock()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.Error as error:
            fault = fault_of(error)
            if fault is LedgerFault.LOCKED:
                raise LedgerInUseError(f"{self._path}: locked by another program") from None
            if fault is not LedgerFault.CORRUPT:
                raise LedgerError(fault, f"{self._path}: {error}") from None
        self._move_aside()
        try:
            return self._connect()
        except sqlite3.Error as error:
            raise LedgerError(fault_of(error), f"{self._path}: {error}") from None

    def _connect(self) -> sqlite3.Connection:
        if self._path != IN_MEMORY:
            # It names users. SQLite gives its journal files the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            for pragma in (
                "journal_mode = WAL",
                "synchronous = NORMAL",
                f"journal_size_limit = {WAL_LIMIT_BYTES}",
                "temp_store = MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}")
            if self._max_bytes:
                (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
                connection.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // page_bytes)}")
            self._usage = UsageTables(connection)
            self._migrate(connection)
        except (sqlite3.Error, LedgerError):
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            message = f"{self._path}: schema {version} is from a newer version; this one knows {len(MIGRATIONS)}"
            raise LedgerError(LedgerFault.OTHER, message)
        try:
            with self._transaction(connection):  # also proves that the file can be written
                for script in MIGRATIONS[version:]:
                    for statement in filter(str.strip, script.split(";")):
                        connection.execute(statement)
                self._shapes = Shapes.written(connection)
                if 0 < version < USAGE_VERSION:
                    self._usage.backfill(self._shapes.unpack)
                # Written even when nothing changed: reading alone would not notice a read-only file.
                connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        except sqlite3.Error as error:
            # A full disk will have space again. A ledger in memory instead would acknowledge what it is going to lose.
            if version < len(MIGRATIONS) or fault_of(error) is not LedgerFault.FULL:
                raise
            self._shapes = Shapes.read(connection)
            if not self._shapes.writable:
                raise
            _log.error("ledger_full path=%s reason=%s", self._path, error)

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            self._usage.forget()
            # A full disk may have rolled back already; a second ROLLBACK would hide the first error.
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """Turn SQLite's errors into LedgerError, and begin afresh when the file turns out to be corrupt."""
        try:
            yield self._connection
        except sqlite3.Error as error:
            fault = fault_of(error)
            if fault is LedgerFault.CORRUPT and self._path != IN_MEMORY:
                self._connection.close()
                self._move_aside()
                self._connection = self._reopen()
            raise LedgerError(fault, f"{self._path}: {error}") from None

    def _reopen(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.Error as error:
            # A disk that corrupts a file may refuse the next. What works is a ledger in memory; the caller sees `path`.
            _log.error("ledger_not_durable path=%s reason=%s", self._path, error)
            self._path = IN_MEMORY
            return self._connect()

    def _move_aside(self) -> None:
        aside = f"{self._path}.corrupt-{time.time_ns() // 1_000_000_000}"
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._path + suffix, aside + suffix)  # noqa: PTH105 - the suffix is no path component
        self.epoch += 1
        _log.error("ledger_corrupt path=%s moved_to=%s", self._path, aside)

    @property
    def durable(self) -> bool:
        return self._path != IN_MEMORY

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _lock(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise LedgerInUseError(f"{path}: held by another collector") from None
            time.sleep(0.05)
        except OSError:
            os.close(fd)
            raise
        else:
            return fd
