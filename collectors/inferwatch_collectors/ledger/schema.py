"""The SQLite schema as data: MIGRATIONS[n] takes a file from `user_version` n to n + 1. Never edit a released one.

`requests.seq` grows with each row and the oldest rows go first, so `max(seq) - min(seq) + 1` is the number of rows (or
a few more) without counting them. The columns are what people group and filter by; `record` is the whole RequestRecord.
"""

from typing import Final

import msgspec

from inferwatch.record import RequestRecord

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
)

INSERT_REQUEST: Final = """
    INSERT OR IGNORE INTO requests (request_id, wall_ns, tenant, model, operation, outcome, status, error,
        prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, token_source, duration_s, ttft_s, record)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

UPSERT_METRIC: Final = """
    INSERT INTO metric_state (family, labels, value) VALUES (?, ?, ?)
    ON CONFLICT (family, labels) DO UPDATE SET value = excluded.value
"""

DELETE_METRIC: Final = "DELETE FROM metric_state WHERE family = ? AND labels = ?"

_encode: Final = msgspec.msgpack.Encoder().encode
decode_record: Final = msgspec.msgpack.Decoder(RequestRecord).decode

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
]


def request_row(record: RequestRecord) -> RequestRow:
    """Return the parameters of INSERT_REQUEST. Plain strings: sqlite3 binds a subclass of str the slow way."""
    return (
        record.request_id,
        record.wall_ns,
        record.tenant,
        record.model,
        record.operation,
        record.outcome.value,
        record.status,
        record.error.value,
        record.prompt_tokens,
        record.cached_tokens,
        record.completion_tokens,
        record.reasoning_tokens,
        record.token_source.value,
        record.duration_s,
        record.ttft_s,
        _encode(record),
    )
