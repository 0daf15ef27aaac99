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
from pathlib import Path
from typing import Final

from inferwatch.record import RequestRecord
from inferwatch_collectors.ledger.base import GONE, LedgerError, LedgerFault, LedgerInUseError, MetricRow
from inferwatch_collectors.ledger.schema import (
    DELETE_METRIC,
    INSERT_REQUEST,
    MIGRATIONS,
    UPSERT_METRIC,
    decode_record,
    request_row,
)

_log: Final = logging.getLogger(__name__)

IN_MEMORY: Final = ":memory:"

# Another program (a backup, a report) may hold the file for a moment. Longer than this is a fault to be counted.
BUSY_TIMEOUT_MS: Final = 1000

# A predecessor that was told to stop may still be at its last commit.
LOCK_WAIT_S: Final = 5.0

# One step of retention: some 10 ms of writing, so that a commit never waits long behind it.
RETENTION_STEP_ROWS: Final = 1000

DELETE_AGED: Final = """
    DELETE FROM requests WHERE seq IN (SELECT seq FROM requests WHERE wall_ns < ? ORDER BY wall_ns LIMIT ?)
"""

# SQLite allows 32,766 parameters; statements of this size compile once and stay in the statement cache.
IDS_PER_QUERY: Final = 500

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

    def __init__(self, path: str, *, retention_ns: int, max_rows: int, max_bytes: int = 0) -> None:
        """Open or create the file; `IN_MEMORY` gives one that dies with the process.

        Raises:
            LedgerInUseError: another writer holds it.
            LedgerError: it cannot be opened or written.
        """
        self._path = path
        self._retention_ns = retention_ns
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

    def commit(self, records: Sequence[RequestRecord], metric_rows: Sequence[MetricRow]) -> None:
        """Write all of it in one transaction."""
        with self._guarded() as connection, _transaction(connection):
            connection.executemany(INSERT_REQUEST, map(request_row, records))
            connection.executemany(UPSERT_METRIC, [row for row in metric_rows if row[2] != GONE])
            connection.executemany(DELETE_METRIC, [row[:2] for row in metric_rows if row[2] == GONE])

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

    def load_metrics(self) -> list[MetricRow]:
        """Return every row of metric_state."""
        with self._guarded() as connection:
            return connection.execute("SELECT family, labels, value FROM metric_state").fetchall()

    def recent(self, count: int) -> list[RequestRecord]:
        """Return the newest `count` records."""
        with self._guarded() as connection:
            rows = connection.execute("SELECT record FROM requests ORDER BY seq DESC LIMIT ?", (count,)).fetchall()
        return [decode_record(row[0]) for row in rows]

    def retain(self, wall_ns: int) -> int:
        """Delete up to RETENTION_STEP_ROWS of the oldest rows over either limit."""
        with self._guarded() as connection:
            first, last = connection.execute("SELECT min(seq), max(seq) FROM requests").fetchone()
            if first is None:
                return 0
            surplus_end = min(last + 1 - self._max_rows, first + RETENTION_STEP_ROWS)
            with _transaction(connection):
                aged = connection.execute(DELETE_AGED, (wall_ns - self._retention_ns, RETENTION_STEP_ROWS)).rowcount
                surplus = connection.execute("DELETE FROM requests WHERE seq < ?", (surplus_end,)).rowcount
            return aged + surplus

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
            self._migrate(connection)
        except (sqlite3.Error, LedgerError):
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection):  # also proves that the file can be written
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                message = f"{self._path}: schema {version} is from a newer version; this one knows {len(MIGRATIONS)}"
                raise LedgerError(LedgerFault.OTHER, message)
            for script in MIGRATIONS[version:]:
                for statement in filter(str.strip, script.split(";")):
                    connection.execute(statement)
            # Written even when nothing changed: reading alone would not notice a read-only file.
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

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


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already; a second ROLLBACK would hide the first error.
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


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
