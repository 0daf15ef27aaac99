"""The roll-ups in SQLite: brought up to date in the transaction that commits the requests, so they cannot differ.

A key is written once and has a small number from then on. Numbers are remembered here; a transaction that is rolled
back takes its new keys with it, so `forget` must follow.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from inferwatch.record import LateCount, RequestRecord, Share
from inferwatch_collectors.ledger.usage import (
    KEY_COLUMNS,
    LEVELS,
    NS_PER_S,
    SUMS,
    USER_DAY,
    Key,
    Level,
    Tally,
    folded,
    key_of,
    key_of_late,
    key_of_share,
    without_user,
)

# About 300 bytes each, 15 MB. One that is not remembered costs a look-up of some 10 µs.
MAX_KNOWN_KEYS: Final = 50_000

# SQLite allows 32,766 parameters; statements of this size compile once and stay in the statement cache.
IDS_PER_QUERY: Final = 500

# Rows of the older schema are taken up in steps of this many, for the sake of memory.
BACKFILL_STEP_ROWS: Final = 5_000

_COLUMNS: Final = ", ".join(KEY_COLUMNS)
_INSERT_KEY: Final = f"INSERT OR IGNORE INTO usage_keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours
_FIND_KEY: Final = f"SELECT key FROM usage_keys WHERE ({_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours
_KEY_OF_ID: Final = f"SELECT {_COLUMNS} FROM usage_keys WHERE key = ?"  # noqa: S608 - ours
_FIND_OWNERS: Final = """
    SELECT requests.request_id, requests.seq, requests.wall_ns, requests.key, shares.seq IS NOT NULL
    FROM requests JOIN usage_keys ON usage_keys.key = requests.key LEFT JOIN shares ON shares.seq = requests.seq
    WHERE requests.request_id IN (%s)
"""
_OLDER: Final = "SELECT seq, record FROM requests WHERE seq > ? ORDER BY seq LIMIT ?"
_INSERT_SHARE: Final = "INSERT INTO shares (seq, gpu_nanodollars, energy_uj) VALUES (?, ?, ?)"


def _upsert(level: Level) -> str:
    marks = ", ".join("?" * (2 + len(SUMS)))
    sums = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
    return f"""
        INSERT INTO {level.table} (start_s, key, {", ".join(SUMS)}) VALUES ({marks})
        ON CONFLICT (start_s, key) DO UPDATE SET {sums}
    """  # noqa: S608 - names of our own


def _delete(level: Level) -> str:
    oldest = f"SELECT start_s, key FROM {level.table} WHERE start_s <= ? LIMIT ?"  # noqa: S608 - names of our own
    return f"DELETE FROM {level.table} WHERE (start_s, key) IN ({oldest})"  # noqa: S608 - names of our own


_UPSERTS: Final = tuple((level, _upsert(level)) for level in LEVELS)

_DELETE: Final = {level: _delete(level) for level in LEVELS}

# Days are kept longest and users' days as long as requests at least (the configuration sees to it): a key that neither
# has, nobody has. A scan of both, once a day.
_DELETE_KEYS: Final = """
    DELETE FROM usage_keys
    WHERE key NOT IN (SELECT key FROM usage_day) AND key NOT IN (SELECT key FROM usage_user_day)
"""


class UsageTables:
    """The keys and the three levels. Every call belongs into a transaction of the caller's."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[Key, int] = {}
        self._plain: dict[int, int] = {}  # id of a key -> id of the same without its user

    def forget(self) -> None:
        """The transaction was rolled back: what was learnt in it is not there."""
        self._known.clear()
        self._plain.clear()

    def key_id(self, record: RequestRecord) -> int:
        """Return the number of the request's key."""
        key = key_of(record)
        return self._known.get(key) or self._learn(key)

    def settle(self, shares: Sequence[Share], tally: Tally) -> None:
        """Write the shares that are new, and count them where their requests are counted."""
        owners = self._owners(share.request_id for share in shares if share.request_id)
        rows: list[tuple[int, int | None, int | None]] = []
        for share in shares:
            if share.request_id not in owners:
                key = key_of_share(share)
                tally.add_share(share, share.wall_ns, self._known.get(key) or self._learn(key))
                continue
            owner, owners[share.request_id] = owners[share.request_id], None
            if owner is not None:
                rows.append((owner.seq, share.gpu_nanodollars, share.energy_uj))
                tally.add_share(share, owner.wall_ns, owner.key_id)
        self._connection.executemany(_INSERT_SHARE, rows)

    def unknown_id(self, late: LateCount) -> int:
        """Return the number of the key for late counts whose request has no row."""
        key = key_of_late(late)
        return self._known.get(key) or self._learn(key)

    def write(self, tally: Tally) -> None:
        """Add the sums to all levels."""
        if not tally.minutes:
            return
        plain_ids = {key_id: self._plain_id(key_id) for _, key_id in tally.minutes}
        for level, statement in _UPSERTS:
            self._connection.executemany(statement, folded(tally.minutes, level, plain_ids))

    def retain(self, wall_ns: int, keep_ns: Mapping[str, int], limit: int) -> int:
        """Delete up to `limit` cells per level that ended longer ago than `keep_ns` (by level; 0: for ever)."""
        gone = 0
        for level in LEVELS:
            if keep_ns[level.name]:
                before_s = max(-1, (wall_ns - keep_ns[level.name]) // NS_PER_S - level.seconds)
                deleted = self._connection.execute(_DELETE[level], (before_s, limit)).rowcount
                gone = max(gone, deleted)
                if level is USER_DAY and 0 < deleted < limit:  # the last step: keys that only it had go too
                    self._connection.execute(_DELETE_KEYS)
                    self.forget()
        return gone

    def backfill(self, unpack: Callable[[bytes], RequestRecord]) -> None:
        """Add up requests that were committed before there were roll-ups."""
        last = 0
        while rows := self._connection.execute(_OLDER, (last, BACKFILL_STEP_ROWS)).fetchall():
            tally = Tally()
            keyed = []
            for seq, blob in rows:
                record = unpack(blob)
                key_id = self.key_id(record)
                tally.add(record, key_id)
                keyed.append((key_id, seq))
            self._connection.executemany("UPDATE requests SET key = ? WHERE seq = ?", keyed)
            self.write(tally)
            last = rows[-1][0]

    def _owners(self, request_ids: Iterable[str]) -> dict[str, "_Owner | None"]:
        """Return the requests of these ids that have a row; None: it has its share already."""
        ids = list(request_ids)
        found: dict[str, _Owner | None] = {}
        for start in range(0, len(ids), IDS_PER_QUERY):
            part = ids[start : start + IDS_PER_QUERY]
            query = _FIND_OWNERS % ",".join("?" * len(part))
            for request_id, seq, wall_ns, key_id, settled in self._connection.execute(query, part):
                found[request_id] = None if settled else _Owner(seq, wall_ns, key_id)
        return found

    def _learn(self, key: Key) -> int:
        self._connection.execute(_INSERT_KEY, key)
        (key_id,) = self._connection.execute(_FIND_KEY, key).fetchone()
        if len(self._known) >= MAX_KNOWN_KEYS:
            self.forget()
        self._known[key] = key_id
        return int(key_id)

    def _plain_id(self, key_id: int) -> int:
        plain_id = self._plain.get(key_id)
        if plain_id is None:
            key: Key = self._connection.execute(_KEY_OF_ID, (key_id,)).fetchone()
            plain = without_user(key)
            plain_id = key_id if plain == key else self._known.get(plain) or self._learn(plain)
            if len(self._plain) >= MAX_KNOWN_KEYS:
                self._plain.clear()
            self._plain[key_id] = plain_id
        return plain_id


class _Owner(NamedTuple):
    """The request that a share belongs to."""

    seq: int
    wall_ns: int
    key_id: int
