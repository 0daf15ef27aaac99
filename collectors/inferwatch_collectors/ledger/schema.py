"""The SQLite schema as data: MIGRATIONS[n] takes a file from `user_version` n to n + 1. Never edit a released one.

`requests.seq` grows with each row and the oldest rows go first, so `max(seq) - min(seq) + 1` is the number of rows (or
a few more) without counting them. The columns are what people group and filter by; `record` is the whole of it
(see `packing`).
`usage_*` are the roll-ups (see `usage`); `shares` has the same `seq` as its request; `feedback` has one row for each
request that was voted on.
"""

from typing import Final

from inferwatch.record import RequestRecord

# One cell of the roll-ups; what the sums mean is in `usage.SUMS`. Spelt out: a released schema never changes.
_CELL: Final = """
        start_s INTEGER NOT NULL,
        key INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        uncounted INTEGER NOT NULL,
        unpriced INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL,
        price_nanodollars INTEGER NOT NULL,
        duration_us INTEGER NOT NULL,
        shares INTEGER NOT NULL,
        uncosted INTEGER NOT NULL,
        unmetered INTEGER NOT NULL,
        gpu_nanodollars INTEGER NOT NULL,
        energy_uj INTEGER NOT NULL,
        PRIMARY KEY (start_s, key)
"""

MIGRATIONS: Final = (
    """
    CREATE TABLE requests (
        seq INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL UNIQUE,
        wall_ns INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        operation TEXT NOT NULL,
        outcome TEXT NOT NULL,
        status INTEGER NOT NULL,
        error TEXT NOT NULL,
        prompt_tokens INTEGER,
        cached_tokens INTEGER,
        completion_tokens INTEGER,
        reasoning_tokens INTEGER,
        token_source TEXT NOT NULL,
        duration_s REAL NOT NULL,
        ttft_s REAL,
        record BLOB NOT NULL
    );
    CREATE INDEX requests_by_time ON requests (wall_ns);
    CREATE TABLE metric_state (
        family TEXT NOT NULL,
        labels BLOB NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (family, labels)
    ) WITHOUT ROWID;
    """,
    f"""
    CREATE TABLE record_shapes (shape INTEGER PRIMARY KEY, fields TEXT NOT NULL UNIQUE);
    CREATE TABLE usage_keys (
        key INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        operation TEXT NOT NULL,
        user TEXT NOT NULL,
        feature TEXT NOT NULL,
        outcome TEXT NOT NULL,
        waste TEXT NOT NULL,
        UNIQUE (tenant, model, operation, user, feature, outcome, waste)
    );
    ALTER TABLE requests ADD COLUMN key INTEGER REFERENCES usage_keys (key);
    CREATE TABLE shares (seq INTEGER PRIMARY KEY, gpu_nanodollars INTEGER, energy_uj INTEGER);
    CREATE TABLE usage_minute ({_CELL}) WITHOUT ROWID;
    CREATE TABLE usage_hour ({_CELL}) WITHOUT ROWID;
    CREATE TABLE usage_day ({_CELL}) WITHOUT ROWID;
    CREATE TABLE usage_user_day ({_CELL}) WITHOUT ROWID;
    """,
    """
    CREATE TABLE feedback (
        vote INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL UNIQUE,
        wall_ns INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        variant TEXT,
        thumb TEXT NOT NULL,
        score REAL,
        label TEXT NOT NULL,
        comment TEXT NOT NULL
    );
    CREATE INDEX feedback_by_time ON feedback (wall_ns);
    """,
)

# With this version came the roll-ups: requests of an older file are added up when it is opened.
USAGE_VERSION: Final = 2

INSERT_REQUEST: Final = """
    INSERT OR IGNORE INTO requests (request_id, wall_ns, tenant, model, operation, outcome, status, error,
        prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, token_source, duration_s, ttft_s, record,
        key)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

UPSERT_METRIC: Final = """
    INSERT INTO metric_state (family, labels, value) VALUES (?, ?, ?)
    ON CONFLICT (family, labels) DO UPDATE SET value = excluded.value
"""

DELETE_METRIC: Final = "DELETE FROM metric_state WHERE family = ? AND labels = ?"

RequestRow = tuple[
    str,
    int,
    str,
    str,
    str,
    str,
    int,
    str,
    int | None,
    int | None,
    int | None,
    int | None,
    str,
    float,
    float | None,
    bytes,
    int,
]


def request_row(record: RequestRecord, packed: bytes, key_id: int) -> RequestRow:
    """Return the parameters of INSERT_REQUEST. Plain strings: sqlite3 binds a subclass of str the slow way.

    `_value_`, because before Python 3.12 `value` is a function.
    """
    return (
        record.request_id,
        record.wall_ns,
        record.tenant,
        record.model,
        record.operation,
        record.outcome._value_,
        record.status,
        record.error._value_,
        record.prompt_tokens,
        record.cached_tokens,
        record.completion_tokens,
        record.reasoning_tokens,
        record.token_source._value_,
        record.duration_s,
        record.ttft_s,
        packed,
        key_id,
    )
