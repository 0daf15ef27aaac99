"""Late counts: into the row that has none and into the roll-ups, once, in the transaction of all the rest."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from inferwatch.record import LateCount, Outcome, RequestRecord, TokenSource
from inferwatch_collectors.ledger.base import LedgerError
from inferwatch_collectors.ledger.sqlite_store import SqliteStore
from inferwatch_collectors.ledger.usage import KEY_COLUMNS, LEVELS, SUMS, UNKNOWN

FOR_EVER_NS = 1 << 62
HUNG_UP = {
    "outcome": Outcome.CLIENT_ABORT, "token_source": TokenSource.NONE, "prompt_tokens": None, "completion_tokens": None,
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(str(path), retention_ns=FOR_EVER_NS, max_rows=1_000_000)
    try:
        yield store
    finally:
        store.close()


def late_of(record: RequestRecord, prompt: int | None = 11, completion: int | None = 40, **more: Any) -> LateCount:
    return LateCount(
        request_id=record.request_id,
        wall_ns=record.wall_ns,
        tenant=record.tenant,
        model=record.model,
        operation=record.operation,
        outcome=record.outcome,
        prompt_tokens=prompt,
        completion_tokens=completion,
        **more,
    )


def totals(path: Path) -> list[dict[str, int]]:
    """All sums of each level; they are the same in each."""
    with contextlib.closing(sqlite3.connect(path)) as reader:
        sums = ", ".join(f"sum({name})" for name in SUMS)
        rows = [reader.execute(f"SELECT {sums} FROM {level.table}").fetchone() for level in LEVELS]
    return [{name: value for name, value in zip(SUMS, row, strict=True) if value} for row in rows]


def test_into_the_row(path: Path, frames: Any) -> None:
    """The record reads back with the counts and where they come from, and so do the columns."""
    record = frames.record(1, **HUNG_UP)
    with opened(path) as store:
        store.commit([frames.record(2), record], [])
        store.commit([], [], late=[late_of(record, price_nanodollars=70)])
        expected = replace(
            record,
            prompt_tokens=11,
            completion_tokens=40,
            token_source=TokenSource.ENGINE_COUNTERS,
            price_nanodollars=70,
        )
        assert store.recent(2) == [expected, frames.record(2)]
    with contextlib.closing(sqlite3.connect(path)) as reader:
        row = reader.execute(
            "SELECT prompt_tokens, completion_tokens, token_source FROM requests WHERE request_id = ?",
            (record.request_id,),
        ).fetchone()
    assert row == (11, 40, "engine_counters")


ESTIMATED = HUNG_UP | {"token_source": TokenSource.CHUNK_ESTIMATE, "completion_tokens": 3}


@pytest.mark.parametrize("price", [None, 30])
def test_into_a_row_with_an_estimate(path: Path, frames: Any, price: int | None) -> None:
    """A stream that was cut keeps what was seen of it: the count adds what is more, once, in row and roll-ups alike."""
    record = frames.record(1, **ESTIMATED, price_nanodollars=price)
    late = late_of(record, estimated_tokens=3, price_nanodollars=70)
    with opened(path) as store:
        store.commit([record], [])
        store.commit([], [], late=[late, late])
        store.commit([], [], late=[late])
        (found,) = store.recent(1)
    assert (found.prompt_tokens, found.completion_tokens) == (11, 43)
    assert (found.token_source, found.price_nanodollars) == (TokenSource.ENGINE_COUNTERS, 70 + (price or 0))
    expected = {
        "requests": 1, "prompt_tokens": 11, "completion_tokens": 43, "price_nanodollars": 70 + (price or 0),
        "duration_us": 500_000,
    }  # fmt: skip
    assert totals(path) == [expected] * len(LEVELS)


def test_an_estimate_beside_the_engines_prompt_stands(path: Path, frames: Any) -> None:
    """Of Anthropic's streams the prompt is known: they were not waiting for anything."""
    record = frames.record(1, **ESTIMATED | {"prompt_tokens": 9})
    with opened(path) as store:
        store.commit([record], [], late=[late_of(record)])
        assert store.recent(1) == [record]


def test_into_the_roll_ups(path: Path, frames: Any) -> None:
    """Tokens and price are added where the request was counted, which is then neither uncounted nor unpriced."""
    record = frames.record(1, **HUNG_UP)
    with opened(path) as store:
        store.commit([record], [])
        assert [(each["uncounted"], each["unpriced"]) for each in totals(path)] == [(1, 1)] * len(LEVELS)
        store.commit([], [], late=[late_of(record, price_nanodollars=70)])
    expected = {
        "requests": 1, "prompt_tokens": 11, "completion_tokens": 40, "price_nanodollars": 70, "duration_us": 500_000,
    }  # fmt: skip
    assert totals(path) == [expected] * len(LEVELS)


def test_in_one_transaction(path: Path, frames: Any) -> None:
    """A record and its late count may come together; if the transaction fails neither is there."""
    record = frames.record(1, **HUNG_UP)
    with opened(path) as store:
        with pytest.raises(LedgerError):
            store.commit([record], [("metric", b"", object())], late=[late_of(record)])  # type: ignore[list-item]
        assert store.recent(1) == []
        assert totals(path) == [{}] * len(LEVELS)
        store.commit([record], [], late=[late_of(record)])
        assert store.recent(1)[0].completion_tokens == 40


@pytest.mark.parametrize("together", [True, False])
def test_once(path: Path, frames: Any, *, together: bool) -> None:
    """What comes twice, in one transaction or in two, counts once."""
    record = frames.record(1, **HUNG_UP)
    first, again = late_of(record), late_of(record, 99, 99)
    with opened(path) as store:
        store.commit([record], [], late=[first, again] if together else [first])
        store.commit([], [], late=[again])
        assert store.recent(1)[0].completion_tokens == 40
    assert [each["completion_tokens"] for each in totals(path)] == [40] * len(LEVELS)


def test_a_row_with_counts_keeps_them(path: Path, frames: Any) -> None:
    """What the engine said in its answer stands."""
    record = frames.record(1)
    with opened(path) as store:
        store.commit([record], [], late=[late_of(record)])
        assert store.recent(1) == [record]
    assert [each["completion_tokens"] for each in totals(path)] == [3] * len(LEVELS)


def test_a_count_that_cannot_be_compared(path: Path, frames: Any) -> None:
    """One of the two may stay unknown."""
    record = frames.record(1, **HUNG_UP)
    with opened(path) as store:
        store.commit([record], [], late=[late_of(record, prompt=None)])
        found = store.recent(1)[0]
        assert (found.prompt_tokens, found.completion_tokens) == (None, 40)


def test_a_row_that_is_gone(path: Path, frames: Any) -> None:
    """Its tokens are in the sums of its tenant, as of an unknown request; no request is taken for counted."""
    with opened(path) as store:
        store.commit([frames.record(1, **HUNG_UP)], [], late=[late_of(frames.record(2, **HUNG_UP))])
    assert [(each["uncounted"], each["completion_tokens"]) for each in totals(path)] == [(1, 40)] * len(LEVELS)
    with contextlib.closing(sqlite3.connect(path)) as reader:
        keys = reader.execute(
            f"SELECT {', '.join(KEY_COLUMNS)} FROM usage_day JOIN usage_keys USING (key) WHERE completion_tokens > 0"
        ).fetchall()
    assert keys == [("acme", "qwen", "chat", "", "", UNKNOWN, "")]
