"""The SQLite file: all or nothing, once, bounded, and never silently broken."""

import contextlib
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferwatch.record import ErrorType, Outcome, TokenClass
from inferwatch_collectors.ledger import sqlite_store
from inferwatch_collectors.ledger.base import LedgerError, LedgerFault, LedgerInUseError
from inferwatch_collectors.ledger.schema import MIGRATIONS
from inferwatch_collectors.ledger.sqlite_store import IN_MEMORY, RETENTION_STEP_ROWS, SqliteStore, fault_of

FOR_EVER_NS = 1 << 62


@contextlib.contextmanager
def opened(path: Path, **changes: Any) -> Iterator[SqliteStore]:
    store = SqliteStore(str(path), **{"retention_ns": FOR_EVER_NS, "max_rows": 1_000_000} | changes)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def test_a_record_comes_back_as_it_was(path: Path, frames: Any) -> None:
    """Every field of a record outlives the process that wrote it."""
    record = frames.record(
        1,
        outcome=Outcome.STREAM_ERROR,
        error=ErrorType.ENGINE_EVENT,
        cached_tokens=0,
        ttft_s=0.125,
        first_token=TokenClass.REASONING,
        finish_reasons=("stop", "length"),
        user="u",
    )
    with opened(path) as store:
        store.commit([record], [])
    with opened(path) as store:
        assert store.recent(10) == [record]


def test_columns_tell_unknown_from_zero(path: Path, frames: Any) -> None:
    """A count that nobody reported is NULL, a reported 0 is 0, and labels are plain text to SQL."""
    with opened(path) as store:
        store.commit([frames.record(1, cached_tokens=0, prompt_tokens=None)], [])
    with contextlib.closing(sqlite3.connect(path)) as reader:
        row = reader.execute("SELECT outcome, token_source, cached_tokens, prompt_tokens FROM requests").fetchone()
    assert row == ("ok", "final_usage", 0, None)


def test_newest_first(path: Path, frames: Any) -> None:
    """`recent` gives the last committed, newest first, and no more than asked for."""
    with opened(path) as store:
        store.commit([frames.record(number) for number in range(5)], [])
        assert [record.wall_ns % 100 for record in store.recent(3)] == [4, 3, 2]


def test_an_id_has_one_row(path: Path, frames: Any) -> None:
    """A record that comes again leaves the first as it was."""
    with opened(path) as store:
        store.commit([frames.record(1, tenant="first")], [])
        store.commit([frames.record(1, tenant="second"), frames.record(2)], [])
        assert {(record.wall_ns % 10, record.tenant) for record in store.recent(9)} == {(1, "first"), (2, "acme")}


def test_metric_rows_are_replaced_and_removed(path: Path) -> None:
    """The last value of a series is kept; an empty one removes the series."""
    with opened(path) as store:
        store.commit([], [("a", b"1", b"old"), ("b", b"1", b"kept")])
        store.commit([], [("a", b"1", b"new"), ("a", b"2", b"other")])
        store.commit([], [("a", b"2", b"")])
        assert sorted(store.load_metrics()) == [("a", b"1", b"new"), ("b", b"1", b"kept")]


def test_records_and_counters_together_or_not_at_all(path: Path, frames: Any) -> None:
    """When the disk is full in mid-transaction, neither the records nor the counters of it are there."""
    with opened(path, max_bytes=200_000) as store:
        store.commit([frames.record(0)], [("tokens", b"", b"1")])
        with pytest.raises(LedgerError) as caught:
            store.commit([frames.record(n, model="m" * 1000) for n in range(1, 500)], [("tokens", b"", b"500")])
        assert caught.value.fault is LedgerFault.FULL
        assert len(store.recent(1000)) == 1
        assert store.load_metrics() == [("tokens", b"", b"1")]
        store.commit([frames.record(1)], [("tokens", b"", b"2")])
        assert len(store.recent(1000)) == 2


def test_seen_asks_in_parts(path: Path, frames: Any) -> None:
    """More ids than fit into one query are looked up all the same."""
    records = [frames.record(number) for number in range(0, 3000, 2)]
    with opened(path) as store:
        store.commit(records, [])
        asked = [frames.record(number).request_id for number in range(3000)]
        assert store.seen(asked) == {record.request_id for record in records}
        assert store.seen([]) == set()


def test_what_is_too_old_goes_in_steps(path: Path, frames: Any) -> None:
    """Retention by age deletes the oldest, at most a step at a time, and nothing that is young enough."""
    old, young = 2 * RETENTION_STEP_ROWS + 5, 7
    with opened(path, retention_ns=1000) as store:
        store.commit([frames.record(n, wall_ns=10) for n in range(old)], [])
        store.commit([frames.record(old + n, wall_ns=5000) for n in range(young)], [])
        steps = [store.retain(5500) for _ in range(4)]
        assert steps == [RETENTION_STEP_ROWS, RETENTION_STEP_ROWS, 5, 0]
        assert len(store.recent(10_000)) == young


def test_an_old_request_that_ended_late_goes_too(path: Path, frames: Any) -> None:
    """Age counts from arrival, whatever order requests ended in; a clock that was wrong does not stop retention."""
    with opened(path, retention_ns=1000) as store:
        store.commit([frames.record(1, wall_ns=9_999_999), frames.record(2, wall_ns=10)], [])
        assert store.retain(5500) == 1
        assert [record.wall_ns for record in store.recent(9)] == [9_999_999]


def test_no_more_rows_than_allowed(path: Path, frames: Any) -> None:
    """Retention by number keeps the newest `max_rows`."""
    with opened(path, max_rows=10) as store:
        store.commit([frames.record(number) for number in range(25)], [])
        assert store.retain(0) == 15
        assert store.retain(0) == 0
        assert [record.wall_ns % 100 for record in store.recent(99)] == list(range(24, 14, -1))


@pytest.mark.parametrize("days", [999_999, 10**12])
def test_a_retention_of_ages_keeps_everything(path: Path, frames: Any, days: int) -> None:
    """It begins before what SQLite can count, which is no fault of the ledger's."""
    keep_ns = days * 86_400 * 10**9
    with opened(path, retention_ns=keep_ns, hour_retention_ns=keep_ns, day_retention_ns=keep_ns) as store:
        store.commit([frames.record(1, wall_ns=10)], [])
        assert store.retain(1_800_000_000 * 10**9) == 0
        assert len(store.recent(9)) == 1


def test_nothing_to_delete_in_an_empty_ledger(path: Path) -> None:
    """Retention of nothing is nothing."""
    with opened(path) as store:
        assert store.retain(1 << 62) == 0


def test_only_our_user_reads_it(path: Path, frames: Any) -> None:
    """The file and its journals are closed to others."""
    with opened(path) as store:
        store.commit([frames.record(1)], [])
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("ledger*")}
    assert len(modes) >= 3
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_corrupt_file_is_moved_aside(path: Path, frames: Any, content: bytes, caplog: Any) -> None:
    """What cannot be read is kept beside a fresh ledger, and the log says so."""
    path.write_bytes(content)
    with opened(path) as store:
        assert store.epoch == 1
        store.commit([frames.record(1)], [])
        assert len(store.recent(9)) == 1
    (aside,) = path.parent.glob("ledger.sqlite3.corrupt-*")
    assert aside.read_bytes() == content
    assert "ledger_corrupt" in caplog.text


def test_corruption_in_mid_life_begins_a_fresh_ledger(path: Path, frames: Any) -> None:
    """The call that finds it fails and changes nothing; the next one finds a ledger that works, of a new epoch."""
    with opened(path) as store:
        store.commit([frames.record(number) for number in range(200)], [("tokens", b"", b"1")])
    with opened(path) as store:
        damaged = bytearray(path.read_bytes())
        damaged[100:] = b"\xa5" * (len(damaged) - 100)
        path.write_bytes(damaged)
        with pytest.raises(LedgerError) as caught:
            store.commit([frames.record(n, model="x" * 3000) for n in range(1000, 1100)], [])
        assert caught.value.fault is LedgerFault.CORRUPT
        assert store.epoch == 1
        assert store.durable
        store.commit([frames.record(1000)], [])
        assert len(store.recent(9)) == 1
        assert store.load_metrics() == []


def test_a_ledger_of_a_newer_version_is_left_alone(path: Path) -> None:
    """An older program neither reads nor changes what it does not know."""
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="newer version"), opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as reader:
        assert reader.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
        assert reader.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert len(before) == path.stat().st_size


def test_migrations_run_once(path: Path, frames: Any) -> None:
    """Opening an up-to-date file changes neither its version nor its rows."""
    for number in range(3):
        with opened(path) as store:
            store.commit([frames.record(number)], [])
    with contextlib.closing(sqlite3.connect(path)) as reader:
        assert reader.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert reader.execute("SELECT count(*) FROM requests").fetchone() == (3,)


def test_one_writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second collector on the same file is refused; when the first is gone, the next may come."""
    monkeypatch.setattr(sqlite_store, "LOCK_WAIT_S", 0.0)
    with opened(path), pytest.raises(LedgerInUseError, match="held by another collector"), opened(path):
        pass
    with opened(path) as store:
        assert store.durable


def test_a_reader_with_a_lock_delays_and_does_not_break(
    path: Path, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another program holds the write lock commits fail as `locked`; afterwards they work."""
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_MS", 10)
    with opened(path) as store, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError) as caught:
            store.commit([frames.record(1)], [])
        assert caught.value.fault is LedgerFault.LOCKED
        other.execute("ROLLBACK")
        store.commit([frames.record(1)], [])
        assert len(store.recent(9)) == 1


def test_locked_at_the_start_is_in_use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody else has locked is not replaced by one in memory: waiting for it loses nothing."""
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_MS", 10)
    with opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerInUseError, match="locked by another program"), opened(path):
            pass


def test_an_unusable_folder_is_an_error(tmp_path: Path) -> None:
    """A folder that cannot be made is reported with its path."""
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="file/ledger"), opened(tmp_path / "file" / "ledger.sqlite3"):
        pass


def test_in_memory(frames: Any) -> None:
    """Without a path it works the same and says that it does not last."""
    with opened(Path(IN_MEMORY)) as store:
        store.commit([frames.record(1)], [("a", b"", b"1")])
        assert not store.durable
        assert store.seen([frames.record(1).request_id]) == {frames.record(1).request_id}


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (sqlite3.SQLITE_FULL, LedgerFault.FULL),
        (sqlite3.SQLITE_READONLY_DBMOVED, LedgerFault.READ_ONLY),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, LedgerFault.LOCKED),
        (sqlite3.SQLITE_CORRUPT_INDEX, LedgerFault.CORRUPT),
        (sqlite3.SQLITE_NOTADB, LedgerFault.CORRUPT),
        (sqlite3.SQLITE_IOERR_FSYNC, LedgerFault.IO),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, LedgerFault.OTHER),
        (None, LedgerFault.OTHER),
    ],
)
def test_faults_are_a_closed_set(code: int | None, fault: LedgerFault) -> None:
    """Extended result codes fall under their primary one; what is not known is `other`."""
    error = sqlite3.OperationalError("x")
    if code is not None:
        error.sqlite_errorcode = code
    assert fault_of(error) is fault


def test_a_disk_that_takes_nothing_more(path: Path) -> None:
    """A write that the system refuses fails the commit as a whole; when there is room again the same commit works."""
    script = """
        import resource, sys
        from inferwatch.record import Outcome, RequestRecord
        from inferwatch_collectors.ledger.base import LedgerError
        from inferwatch_collectors.ledger.sqlite_store import SqliteStore

        store = SqliteStore(sys.argv[1], retention_ns=1 << 62, max_rows=10**6)
        records = [
            RequestRecord(request_id=str(n), wall_ns=n, tenant="t", model="m" * 500, operation="chat", route="other",
                          method="POST", stream=False, outcome=Outcome.OK, status=200, duration_s=1.0)
            for n in range(1000)
        ]
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            store.commit(records, [("tokens", b"", b"1")])
        except LedgerError as error:
            print(error.fault)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        print(len(store.recent(9999)), len(store.load_metrics()))
        store.commit(records, [("tokens", b"", b"1")])
        print(len(store.recent(9999)), len(store.load_metrics()))
        store.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split("\n")
    assert output[0] in {"io", "full"}
    assert output[1:3] == ["0 0", "1000 1"]


def full_disk(_: sqlite3.Connection) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


def test_a_full_disk_at_the_start(path: Path, frames: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """A ledger that is there is opened on a full disk too, and takes commits once there is space; not one in memory."""
    with opened(path) as store:
        store.commit([frames.record(0)], [("tokens", b"", b"1")])
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store.Shapes, "written", full_disk)
        store = SqliteStore(str(path), retention_ns=FOR_EVER_NS, max_rows=10)
    assert store.durable
    assert store.load_metrics() == [("tokens", b"", b"1")]
    assert "ledger_full" in caplog.text
    store.commit([frames.record(1)], [])
    assert store.recent(9) == [frames.record(1), frames.record(0)]
    store.close()


def test_a_full_disk_before_there_is_a_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was never made cannot be waited for."""
    monkeypatch.setattr(sqlite_store.Shapes, "written", full_disk)
    with pytest.raises(LedgerError, match="disk is full"), opened(path):
        pass
