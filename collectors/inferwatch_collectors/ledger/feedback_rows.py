"""Votes in SQLite: one row for each request that somebody voted on, beside the requests' own rows.

A row outlives its request's only by as much as the vote came later.
"""

import sqlite3
from typing import Final

from inferwatch_collectors.ledger.packing import Shapes
from inferwatch_collectors.ledger.vote import Asked, Thumb, Vote

_COLUMNS: Final = "request_id, wall_ns, tenant, model, variant, thumb, score, label, comment"

_UPSERT: Final = f"""
    INSERT INTO feedback ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (request_id) DO UPDATE SET wall_ns = excluded.wall_ns, thumb = excluded.thumb, score = excluded.score,
        label = excluded.label, comment = excluded.comment, variant = coalesce(excluded.variant, variant)
"""  # noqa: S608 - names of our own

_AGED: Final = "SELECT vote FROM feedback WHERE wall_ns < ? ORDER BY wall_ns LIMIT ?"


def asked(connection: sqlite3.Connection, shapes: Shapes, request_id: str) -> Asked | None:
    """Return whose request this was, None if there is no row of it."""
    query = "SELECT tenant, model, operation, record FROM requests WHERE request_id = ?"
    row = connection.execute(query, (request_id,)).fetchone()
    return None if row is None else Asked(row[0], row[1], row[2], str(shapes.value(row[3], "engine_model") or ""))


def keep(connection: sqlite3.Connection, vote: Vote) -> Vote | None:
    """Make it the request's vote; return the one before. Within a transaction of the caller's."""
    query = f"SELECT {_COLUMNS} FROM feedback WHERE request_id = ?"  # noqa: S608 - names of our own
    row = connection.execute(query, (vote.request_id,)).fetchone()
    connection.execute(
        _UPSERT,
        (
            *(vote.request_id, vote.wall_ns, vote.tenant, vote.model, vote.variant),
            *(str(vote.thumb), vote.score, vote.label, vote.comment),
        ),
    )
    return None if row is None else vote_of(row)


def vote_of(row: tuple[str, int, str, str, str | None, str, float | None, str, str]) -> Vote:
    """Return what a row holds."""
    request_id, wall_ns, tenant, model, variant, thumb, score, label, comment = row
    return Vote(
        request_id=request_id,
        wall_ns=wall_ns,
        tenant=tenant,
        model=model,
        variant=variant,
        thumb=Thumb(thumb),
        score=score,
        label=label,
        comment=comment,
    )


def retain(connection: sqlite3.Connection, before_ns: int, max_rows: int, limit: int) -> int:
    """Delete up to `limit` votes that are too old, and as many that are too many. Within a transaction."""
    aged = f"DELETE FROM feedback WHERE vote IN ({_AGED})"  # noqa: S608 - ours
    gone = connection.execute(aged, (before_ns, limit)).rowcount
    first, last = connection.execute("SELECT min(vote), max(vote) FROM feedback").fetchone()
    if first is not None and last + 1 - first > max_rows:
        end = min(last + 1 - max_rows, first + limit)
        gone += connection.execute("DELETE FROM feedback WHERE vote < ?", (end,)).rowcount
    return gone
