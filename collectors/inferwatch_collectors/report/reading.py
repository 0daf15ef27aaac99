"""The ledger as a reader sees it: a connection that cannot write, a snapshot, and sums grouped by SQLite.

WAL lets a reader and the writer go on side by side. A reader that stays long only makes the WAL grow; a report takes
some hundred milliseconds.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from inferwatch_collectors.ledger.packing import DAMAGED, Shapes
from inferwatch_collectors.ledger.schema import MIGRATIONS
from inferwatch_collectors.ledger.usage import DAY, IDLE, LEVELS, NS_PER_S, SUMS, USER_DAY
from inferwatch_collectors.report.figures import Opinion
from inferwatch_collectors.report.query import Query, Segment

# Another writer never locks readers out in WAL mode; a checkpoint at closing does for a moment.
BUSY_TIMEOUT_S: Final = 5.0

# SQLite sorts within its cache; with the default of 2 MB it would go to temporary files for half a million sums.
CACHE_KIB: Final = 64 * 1024

_TOTALS: Final = ", ".join(f"sum({name})" for name in SUMS)
_RENAMED: Final = ", ".join(f"sum({name}) AS {name}" for name in SUMS)


class ReadError(Exception):
    """The ledger cannot be read; one line that names the file."""


class Group(NamedTuple):
    """What was added up of one tenant, feature, model, outcome and reason of waste on one day (UTC)."""

    day_s: int
    tenant: str
    feature: str
    model: str
    outcome: str
    waste: str
    sums: Sequence[int]


class User(NamedTuple):
    """What was added up of one user of one tenant."""

    tenant: str
    user: str
    sums: Sequence[int]


class Usage(NamedTuple):
    """The answer to a query."""

    groups: list[Group]
    users: list[User]  # empty if they were not asked for
    oldest_s: int | None  # the oldest sum of the finest level that was asked; None: there is none
    opinions: tuple[Opinion, ...] = ()


@contextlib.contextmanager
def reading(path: Path, *, snapshot: bool = True) -> Iterator[sqlite3.Connection]:
    """Open the ledger for reading; with `snapshot` all that is read is of one moment.

    Raises:
        ReadError: there is none, it cannot be read, or it is of another version.
    """
    if not path.is_file():
        raise ReadError(f"{path}: there is no ledger; --state-dir or --config name the folder that `serve` writes into")
    try:
        # mode=ro, not immutable: the collector writes meanwhile.
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S)
        ) as connection:
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("PRAGMA temp_store = MEMORY")
            if snapshot:
                connection.execute("BEGIN")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != len(MIGRATIONS):
                raise ReadError(f"{path}: its schema is {version}, this version reads {len(MIGRATIONS)}")
            yield connection
    except sqlite3.Error as error:
        raise ReadError(f"{path}: {error}") from None


def usage(connection: sqlite3.Connection, query: Query) -> Usage:
    """Return the sums that `query` asks for."""
    segments = query.segments()
    source, values = _source(segments, query.tenant)
    names = "tenant, feature, model, outcome, waste"
    groups = connection.execute(
        f"SELECT start_s / {DAY.seconds} * {DAY.seconds} AS day, {names}, {_TOTALS} FROM ({source}) "  # noqa: S608 - ours
        f"JOIN usage_keys USING (key) GROUP BY day, {names} ORDER BY day, {names}",
        values,
    )
    users: list[User] = []
    if "user" in query.by:
        source, values = _source([Segment(USER_DAY, query.start_s, query.end_s)], query.tenant)
        # Grouped by number first: joining every cell with its key's texts would take several times as long.
        rows = connection.execute(
            f"SELECT tenant, user, {_TOTALS} FROM (SELECT key, {_RENAMED} FROM ({source}) GROUP BY key) "  # noqa: S608
            "JOIN usage_keys USING (key) WHERE outcome != ? GROUP BY tenant, user ORDER BY tenant, user",
            [*values, IDLE],
        )
        users = [User(row[0], row[1], row[2:]) for row in rows]
    finest = min((segment.level for segment in segments), key=LEVELS.index)
    (oldest_s,) = connection.execute(f"SELECT min(start_s) FROM {finest.table}").fetchone()  # noqa: S608 - ours
    return Usage([Group._make((*row[:6], row[6:])) for row in groups], users, oldest_s, _opinions(connection, query))


def _opinions(connection: sqlite3.Connection, query: Query) -> tuple[Opinion, ...]:
    """Return the votes of the span. Those that came before their request was over have its variant from its row."""
    span = (query.start_s * NS_PER_S, query.end_s * NS_PER_S, query.tenant, query.tenant)
    where = "f.wall_ns >= ? AND f.wall_ns < ? AND (? IS NULL OR f.tenant = ?)"
    sums = "count(*), sum(f.thumb = 'up'), sum(f.thumb = 'down'), count(f.score), total(f.score)"
    known = connection.execute(
        f"SELECT f.model, f.variant, {sums} FROM feedback f WHERE {where} AND f.variant IS NOT NULL "  # noqa: S608 - ours
        "GROUP BY f.model, f.variant",
        span,
    )
    early = connection.execute(
        f"SELECT f.model, r.record, 1, f.thumb = 'up', f.thumb = 'down', f.score IS NOT NULL, coalesce(f.score, 0) "  # noqa: S608
        f"FROM feedback f LEFT JOIN requests r USING (request_id) WHERE {where} AND f.variant IS NULL",
        span,
    )
    found: dict[tuple[str, str], list[float]] = {}
    for model, variant, *figures in known:
        found[model, variant] = figures
    shapes = Shapes.read(connection)
    for model, blob, *figures in early:
        variant = "" if blob is None else _variant(shapes, blob)
        have = found.get((model, variant), [0.0] * len(figures))
        found[model, variant] = [old + new for old, new in zip(have, figures, strict=True)]
    opinions = (
        Opinion(
            model=model,
            variant=variant,
            votes=int(votes),
            up=int(up),
            down=int(down),
            score=score / scored if scored else None,
        )
        for (model, variant), (votes, up, down, scored, score) in found.items()
    )
    return tuple(sorted(opinions, key=lambda each: (-each.votes, each.model, each.variant)))


def _variant(shapes: Shapes, blob: bytes) -> str:
    try:
        return str(shapes.value(blob, "engine_model") or "")
    except DAMAGED:
        raise ReadError("the ledger: a row of its requests is damaged") from None


def _source(segments: Sequence[Segment], tenant: str | None) -> tuple[str, list[int | str]]:
    parts = []
    values: list[int | str] = []
    columns = ", ".join(("start_s", "key", *SUMS))
    only = "" if tenant is None else " AND key IN (SELECT key FROM usage_keys WHERE tenant = ?)"
    for segment in segments:
        table = segment.level.table
        parts.append(f"SELECT {columns} FROM {table} WHERE start_s >= ? AND start_s < ?{only}")  # noqa: S608 - ours
        values += [segment.start_s, segment.end_s, *([] if tenant is None else [tenant])]
    return " UNION ALL ".join(parts), values
