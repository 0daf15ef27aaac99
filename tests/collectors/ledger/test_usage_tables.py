"""Roll-ups are the sums of records and shares: after any commits, repetitions, failures, restarts and deletions."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch.record import Outcome, RequestRecord, Share
from inferwatch_collectors.ledger import schema, usage_tables
from inferwatch_collectors.ledger.base import LedgerError
from inferwatch_collectors.ledger.sqlite_store import SqliteStore
from inferwatch_collectors.ledger.usage import (
    DAY,
    HOUR,
    KEY_COLUMNS,
    LEVELS,
    MINUTE,
    SUMS,
    USER_DAY,
    Key,
    Level,
    Tally,
    key_of,
    key_of_share,
    without_user,
)

DAY_NS = 86_400 * 10**9
FOR_EVER_NS = 1 << 62
BASE_NS = 1_700_000_000 * 10**9

Sums = dict[tuple[int, Key], list[int]]


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


def rolled_up(path: Path, level: Level) -> Sums:
    query = f"SELECT start_s, {', '.join((*KEY_COLUMNS, *SUMS))} FROM {level.table} JOIN usage_keys USING (key)"
    with contextlib.closing(sqlite3.connect(path)) as reader:
        rows = reader.execute(query).fetchall()
    width = 1 + len(KEY_COLUMNS)
    found = {(row[0], row[1:width]): list(row[width:]) for row in rows}
    assert len(found) == len(rows)
    return found


def added_up(records: list[RequestRecord], shares: list[tuple[Share, int, Key]], level: Level) -> Sums:
    """The same from scratch: one cell a record or share, added one by one."""
    sums: Sums = {}

    def add(wall_ns: int, key: Key, tally: Tally) -> None:
        start_s = wall_ns // (level.seconds * 10**9) * level.seconds
        at = (start_s, key if level.with_user else without_user(key))
        (cell,) = tally.minutes.values()
        sums[at] = [old + new for old, new in zip(sums.get(at, [0] * len(SUMS)), cell, strict=True)]

    for record in records:
        tally = Tally()
        tally.add(record, 0)
        add(record.wall_ns, key_of(record), tally)
    for share, wall_ns, key in shares:
        tally = Tally()
        tally.add_share(share, wall_ns, 0)
        add(wall_ns, key, tally)
    return sums


def test_minutes_hours_and_days(path: Path, frames: Any) -> None:
    """A request is in its minute, hour and day without its user, and in its user's day."""
    with opened(path) as store:
        store.commit([frames.record(n, user=f"u{n}", wall_ns=BASE_NS + n * 10**9) for n in range(4)], [])
    *spans, users = (rolled_up(path, level) for level in LEVELS)
    for span in spans:
        assert [(key[3], cell[0]) for (_, key), cell in span.items()] == [("", 4)]
    assert sorted(key[3] for _, key in users) == ["u0", "u1", "u2", "u3"]


def test_a_share_goes_to_its_request(path: Path, frames: Any) -> None:
    """It is added where the request was, whatever the share says of tenant and time; told again it changes nothing."""
    record = frames.record(1, user="u", feature="f")
    share = Share(request_id=record.request_id, wall_ns=5, tenant="other", gpu_nanodollars=70, energy_uj=8)
    with opened(path) as store:
        store.commit([record], [])
        store.commit([], [], [share])
        store.commit([], [], [share, share])
    assert rolled_up(path, USER_DAY) == added_up([record], [(share, record.wall_ns, key_of(record))], USER_DAY)
    with contextlib.closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT seq, gpu_nanodollars, energy_uj FROM shares").fetchall() == [(1, 70, 8)]


def test_a_share_and_its_request_in_one_commit(path: Path, frames: Any) -> None:
    """The order in which they were handed over does not matter within a transaction."""
    record = frames.record(1)
    with opened(path) as store:
        store.commit([record], [], [Share(request_id=record.request_id, wall_ns=0, gpu_nanodollars=1)])
    assert {key[5]: cell[SUMS.index("gpu_nanodollars")] for (_, key), cell in rolled_up(path, HOUR).items()} == {
        "ok": 1
    }


def test_money_of_a_request_without_a_row_is_kept(path: Path) -> None:
    """A share that finds no request, and idle time, are in the sums all the same."""
    with opened(path) as store:
        store.commit([], [], [Share(request_id="gone", wall_ns=BASE_NS, tenant="acme", gpu_nanodollars=3)])
        store.commit([], [], [Share(wall_ns=BASE_NS, gpu_nanodollars=4), Share(wall_ns=BASE_NS, gpu_nanodollars=5)])
    gpu = SUMS.index("gpu_nanodollars")
    assert {(key[0], key[5]): cell[gpu] for (_, key), cell in rolled_up(path, MINUTE).items()} == {
        ("acme", "unknown"): 3,
        ("", "idle"): 9,
    }


def test_more_keys_than_are_remembered(path: Path, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was forgotten is looked up again, not made a second time."""
    monkeypatch.setattr(usage_tables, "MAX_KNOWN_KEYS", 3)
    records = [frames.record(n, user=f"u{n % 10}", feature=f"f{n % 3}") for n in range(60)]
    with opened(path) as store:
        for start in range(0, 60, 15):
            store.commit(records[start : start + 15], [])
    for level in LEVELS:
        assert rolled_up(path, level) == added_up(records, [], level)


def test_sums_outlive_the_requests(path: Path, frames: Any) -> None:
    """Deleting requests, by age or number, leaves hours and days as they were; minutes go with the requests."""
    records = [frames.record(n, wall_ns=BASE_NS + n * DAY_NS) for n in range(10)]
    shares = [Share(request_id=record.request_id, wall_ns=0, gpu_nanodollars=9) for record in records]
    with opened(path, retention_ns=3 * DAY_NS, max_rows=2) as store:
        store.commit(records, [], shares)
        for _ in range(3):
            store.retain(BASE_NS + 10 * DAY_NS)
        assert len(store.recent(99)) == 2
    settled = [(share, record.wall_ns, key_of(record)) for share, record in zip(shares, records, strict=True)]
    for level in (HOUR, DAY, USER_DAY):
        assert rolled_up(path, level) == added_up(records, settled, level)
    assert rolled_up(path, MINUTE) == added_up(records[7:], settled[7:], MINUTE)
    with contextlib.closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT count(*) FROM shares").fetchone() == (2,)


def test_hours_and_days_go_when_they_are_told_to(path: Path, frames: Any) -> None:
    """Each level has its own age; keys that no day has any more are deleted too."""
    records = [frames.record(n, tenant=f"t{n}", wall_ns=BASE_NS + n * DAY_NS) for n in range(10)]
    with opened(path, retention_ns=DAY_NS, hour_retention_ns=3 * DAY_NS + 1, day_retention_ns=5 * DAY_NS + 1) as store:
        store.commit(records, [])
        for _ in range(3):
            store.retain(BASE_NS + 9 * DAY_NS)
        assert [len(rolled_up(path, level)) for level in LEVELS] == [2, 4, 6, 4]
        store.commit([frames.record(99, tenant="t0", wall_ns=BASE_NS + 9 * DAY_NS)], [])
    assert len(rolled_up(path, DAY)) == 7


def test_an_older_file_is_added_up_when_it_is_opened(path: Path, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of the schema without roll-ups are in them afterwards, and take shares like any other."""
    monkeypatch.setattr(usage_tables, "BACKFILL_STEP_ROWS", 7)
    records = [frames.record(n, tenant=f"t{n % 3}", wall_ns=BASE_NS + n * 10**12) for n in range(20)]
    columns = "request_id, wall_ns, tenant, model, operation, outcome, status, error, token_source, duration_s, record"
    with contextlib.closing(sqlite3.connect(path)) as older:
        for statement in filter(str.strip, schema.MIGRATIONS[0].split(";")):
            older.execute(statement)
        for record in records:
            row = schema.request_row(record, msgspec.msgpack.encode(record), 0)
            older.execute(
                f"INSERT INTO requests ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row[:8], row[12], row[13], row[15]),
            )
        older.execute("PRAGMA user_version = 1")
        older.commit()
    share = Share(request_id=records[3].request_id, wall_ns=0, gpu_nanodollars=1)
    with opened(path) as store:
        assert len(store.recent(99)) == 20
        store.commit([], [], [share])
    for level in LEVELS:
        assert rolled_up(path, level) == added_up(records, [(share, records[3].wall_ns, key_of(records[3]))], level)


# --- the property


NUMBERS = st.integers(0, 11)
RECORDS = st.builds(
    dict,
    number=NUMBERS,
    tenant=st.sampled_from(["a", "b"]),
    user=st.sampled_from(["", "u", "v"]),
    outcome=st.sampled_from([Outcome.OK, Outcome.CLIENT_ABORT]),
    wall_ns=st.sampled_from([BASE_NS, BASE_NS + 61 * 10**9, BASE_NS + 4000 * 10**9, BASE_NS + DAY_NS]),
    prompt_tokens=st.none() | st.integers(0, 9),
    price_nanodollars=st.none() | st.integers(0, 10**9),
)
SHARES = st.tuples(
    st.none() | NUMBERS,
    st.sampled_from([BASE_NS, BASE_NS + 3601 * 10**9]),
    st.none() | st.integers(0, 10**9),
    st.none() | st.integers(0, 10**9),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["commit", "commit", "commit", "fail", "reopen", "retain"]),
        st.lists(RECORDS, max_size=6),
        st.lists(SHARES, max_size=4),
    ),
    max_size=12,
)


class Model:
    """What the ledger should have: the first record and the first share of each id."""

    def __init__(self) -> None:
        self.records: dict[str, RequestRecord] = {}
        self.settled: set[str] = set()
        self.shares: list[tuple[Share, int, Key]] = []

    def commit(self, records: list[RequestRecord], shares: list[Share]) -> None:
        for record in records:
            self.records.setdefault(record.request_id, record)
        for share in shares:
            owner = self.records.get(share.request_id)
            if owner is None:
                self.shares.append((share, share.wall_ns, key_of_share(share)))
            elif share.request_id not in self.settled:
                self.settled.add(share.request_id)
                self.shares.append((share, owner.wall_ns, key_of(owner)))


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_roll_ups_are_the_sums(steps: list[tuple[str, list[dict[str, Any]], list[Any]]]) -> None:
    """Whatever was committed, repeated, refused, or done between restarts, each level is the sum of what is there."""
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        store = SqliteStore(str(path), retention_ns=FOR_EVER_NS, max_rows=1_000_000)
        for step, fields, owed in steps:
            records = [_record(**each) for each in fields]
            shares = [
                Share(
                    request_id="" if number is None else f"r{number}", wall_ns=at, gpu_nanodollars=gpu, energy_uj=energy
                )
                for number, at, gpu, energy in owed
            ]
            if step == "commit":
                store.commit(records, [], shares)
                model.commit(records, shares)
            elif step == "fail":
                with pytest.raises(LedgerError):
                    store.commit(records, [("metric", b"", object())], shares)  # type: ignore[list-item]
            elif step == "reopen":
                store.close()
                store = SqliteStore(str(path), retention_ns=FOR_EVER_NS, max_rows=1_000_000)
            else:
                store.retain(BASE_NS)
        store.close()
        for level in LEVELS:
            assert rolled_up(path, level) == added_up(list(model.records.values()), model.shares, level)


def _record(number: int, **fields: Any) -> RequestRecord:
    fixed: dict[str, Any] = {
        "model": "m",
        "operation": "chat",
        "route": "other",
        "method": "POST",
        "stream": True,
        "status": 200,
        "duration_s": 0.1 * number,
    }
    return RequestRecord(request_id=f"r{number}", **fixed | fields)
