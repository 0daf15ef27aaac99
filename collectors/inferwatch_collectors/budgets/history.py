"""What was spent before a budget was there: added up from the ledger, for rules that begin in mid-period. Blocking.

A snapshot of the ledger has records, roll-ups and memos of one transaction, so its mark (see `beginnings`) says which
of the charges that the meter has seen since are in it.

Sums are as exact as what is asked for allows:
* Of a calendar period all requests that arrived in it: whole hours by the hour, what is before the first of them by the
  minute, since a day in Kolkata begins at half past an hour of UTC. Users are added up by the day of UTC; for parts of
  a day their requests are read one by one.
* Of a rolling window everything within it, and of what lies across its beginning at most a minute too much (an hour
  where minutes are not kept as long): a cell goes into the bucket in which it ends, so nothing is forgotten early.
* GPU seconds come from nano-dollars, rounded down once and not for each request.
"""

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from inferwatch.budget_rules import Names, Rule
from inferwatch_collectors.budgets.spending import Spending
from inferwatch_collectors.ledger.packing import Shapes
from inferwatch_collectors.ledger.usage import DAY, HOUR, IDLE, MINUTE, NS_PER_S, USER_DAY, Level
from inferwatch_collectors.metric_series import MEMO_PREFIX, MemoState, decode_state
from inferwatch_collectors.report.reading import reading
from inferwatch_collectors.wall_time import HOUR_S

MARK: Final = "budget_mark"

# The loop's thread gets the interpreter after so many keys: they are matched in Python, some microseconds each.
KEYS_AT_ONCE: Final = 100

# SQLite asks after so many of its steps whether to go on: some milliseconds.
STEPS_AT_ONCE: Final = 100_000

# From a cell of the roll-ups, and from a row of `requests` with its row of `shares`.
_OF_CELLS: Final[dict[str, str]] = {
    "price": "price_nanodollars",
    "gpu": "gpu_nanodollars",
    "gpu_seconds": "gpu_nanodollars",
    "joules": "energy_uj",
    "tokens": "prompt_tokens + completion_tokens",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
}
_OF_ROWS: Final[dict[str, str]] = {
    "price": "price_of(record)",
    "gpu": "gpu_nanodollars",
    "gpu_seconds": "gpu_nanodollars",
    "joules": "energy_uj",
    "tokens": "ifnull(prompt_tokens, 0) + ifnull(completion_tokens, 0)",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
}

_END_S: Final = 1 << 40


class Found(msgspec.Struct):
    """What one account had spent."""

    sum: int = 0  # in the present period; of a rolling budget not used
    buckets: dict[int, int] = msgspec.field(default_factory=dict)


class Past(NamedTuple):
    """What was spent of one rule. `mark`: all charges up to this one are in it."""

    mark: int
    start_s: int  # of the present period; 0: rolling
    first_bucket: int  # all is known from there
    accounts: Mapping[tuple[str, ...], Found]


def read(ledger: Path, rule: Rule, now_s: float, stop: threading.Event) -> Past:
    """Add up what is in the ledger for `rule`, for the period or window of `now_s`.

    Raises:
        ReadError: it cannot be read now, or `stop` was set.
    """
    with reading(ledger) as connection:
        connection.set_progress_handler(stop.is_set, STEPS_AT_ONCE)
        return _Reader(connection, rule, now_s).past()


class _Reader:
    """One snapshot, one rule."""

    def __init__(self, connection: sqlite3.Connection, rule: Rule, now_s: float) -> None:
        self._connection = connection
        self._rule = rule
        self._now_s = now_s
        self._spending = Spending(rule, now_s)
        self._by_user = rule.settings.user != "*" or "user" in rule.settings.per
        self._names: list[tuple[str, ...]] = []
        self._found: defaultdict[tuple[str, ...], Found] = defaultdict(Found)

    def past(self) -> Past:
        self._choose_keys()
        period = self._spending.period
        if period is None:
            first = self._read_window()
        elif self._by_user:
            first = self._read_period_of_users(period.start_s)
        else:
            first = self._read_period(period.start_s)
        return Past(self._mark(), period.start_s if period is not None else 0, first, dict(self._found))

    def _mark(self) -> int:
        row = self._connection.execute(
            "SELECT value FROM metric_state WHERE family = ?", (MEMO_PREFIX + MARK,)
        ).fetchone()
        state = decode_state(row[0]) if row is not None else None
        return int(state.data) if isinstance(state, MemoState) and state.data else 0

    def _choose_keys(self) -> None:
        """Fill the table `wanted`: which keys are for the rule, and for which of its accounts."""
        numbers: dict[tuple[str, ...], int] = {}
        self._connection.execute("CREATE TEMP TABLE wanted (key INTEGER PRIMARY KEY, account INTEGER NOT NULL)")
        # Sums that are not of users have keys without one.
        only = "" if self._by_user else " AND user = ''"
        keys = self._connection.execute(
            f"SELECT key, tenant, user, feature, model FROM usage_keys WHERE outcome != ?{only}",  # noqa: S608 - ours
            (IDLE,),
        )
        while rows := keys.fetchmany(KEYS_AT_ONCE):
            chosen = []
            for key, *texts in rows:
                names = Names(*texts)
                if self._rule.fits(names):
                    chosen.append((key, numbers.setdefault(self._rule.values(names), len(numbers))))
            self._connection.executemany("INSERT INTO wanted VALUES (?, ?)", chosen)
            time.sleep(0)
        self._names = list(numbers)

    def _read_period(self, start_s: int) -> int:
        """Read hours for the forecast, and the present period of them; return the first hour that is known."""
        oldest_s = self._oldest_s(HOUR, self._now_s)
        first = max(self._spending.oldest_bucket, oldest_s // HOUR_S)
        whole_s = -(-start_s // HOUR_S) * HOUR_S
        for values, hour, amount in self._cells(HOUR, min(first * HOUR_S, whole_s), _END_S, HOUR_S):
            found = self._found[values]
            found.buckets[hour] = amount
            if hour * HOUR_S >= whole_s:
                found.sum += amount
        for values, _, amount in self._cells(MINUTE, start_s, whole_s, HOUR_S):
            self._found[values].sum += amount
        return first

    def _read_period_of_users(self, start_s: int) -> int:
        """Read days, and requests for the part of one; return the present hour: hours of users are not kept."""
        whole_s = -(-start_s // DAY.seconds) * DAY.seconds
        for values, _, amount in self._cells(USER_DAY, whole_s, _END_S, DAY.seconds):
            self._found[values].sum += amount
        for values, _, amount in self._rows(start_s, whole_s, HOUR_S):
            self._found[values].sum += amount
        return int(self._now_s // HOUR_S)

    def _read_window(self) -> int:
        """Read by buckets; return the first one."""
        bucket_s, first = self._spending.bucket_s, self._spending.oldest_bucket
        start_s = first * bucket_s
        if self._by_user:
            self._add(self._rows(start_s, _END_S, bucket_s))
            return first
        minutes_s = self._all_minutes_s()
        self._add(self._cells(MINUTE, max(start_s // MINUTE.seconds * MINUTE.seconds, minutes_s), _END_S, bucket_s))
        if start_s < minutes_s:
            self._add(self._cells(HOUR, start_s // HOUR_S * HOUR_S, minutes_s, bucket_s))
        return first

    def _all_minutes_s(self) -> int:
        """Return the hour from which on no minute is gone: they are kept for a shorter time than hours."""
        oldest_s = self._oldest_s(MINUTE, 0)
        hour_s = oldest_s // HOUR_S * HOUR_S
        return hour_s if self._oldest_s(HOUR, 0) >= hour_s else -(-oldest_s // HOUR_S) * HOUR_S

    def _add(self, amounts: Iterator[tuple[tuple[str, ...], int, int]]) -> None:
        present = int(self._now_s // self._spending.bucket_s)
        for values, ends_in, amount in amounts:
            buckets = self._found[values].buckets
            bucket = min(ends_in, present)  # the present minute may end in the next
            buckets[bucket] = buckets.get(bucket, 0) + amount

    def _oldest_s(self, level: Level, otherwise_s: float) -> int:
        (oldest_s,) = self._connection.execute(f"SELECT min(start_s) FROM {level.table}").fetchone()  # noqa: S608 - ours
        return int(otherwise_s) if oldest_s is None else oldest_s

    def _cells(
        self, level: Level, start_s: int, end_s: int, bucket_s: int
    ) -> Iterator[tuple[tuple[str, ...], int, int]]:
        """Yield (account, bucket in which the cell ends, amount) of cells that begin in [start_s, end_s)."""
        if start_s >= end_s:
            return
        amount = _OF_CELLS[self._rule.measured]
        rows = self._connection.execute(
            f"SELECT account, (start_s + {level.seconds - 1}) / ? AS bucket, sum({amount}) "  # noqa: S608 - ours
            f"FROM {level.table} JOIN wanted USING (key) WHERE start_s >= ? AND start_s < ? GROUP BY account, bucket",
            (bucket_s, start_s, end_s),
        )
        yield from self._named(rows)

    def _rows(self, start_s: int, end_s: int, bucket_s: int) -> Iterator[tuple[tuple[str, ...], int, int]]:
        """Yield the same of single requests that arrived in [start_s, end_s)."""
        if start_s >= end_s:
            return
        shapes = Shapes.read(self._connection)
        self._connection.create_function(
            "price_of", 1, lambda record: shapes.value(record, "price_nanodollars"), deterministic=True
        )
        amount = _OF_ROWS[self._rule.measured]
        rows = self._connection.execute(
            f"SELECT account, wall_ns / ? AS bucket, sum({amount}) FROM requests "  # noqa: S608 - ours
            "JOIN wanted USING (key) LEFT JOIN shares USING (seq) WHERE wall_ns >= ? AND wall_ns < ? "
            "GROUP BY account, bucket",
            (bucket_s * NS_PER_S, start_s * NS_PER_S, min(end_s * NS_PER_S, (1 << 63) - 1)),
        )
        yield from self._named(rows)

    def _named(self, rows: sqlite3.Cursor) -> Iterator[tuple[tuple[str, ...], int, int]]:
        for account, bucket, amount in rows:
            if amount:
                yield self._names[account], bucket, amount
