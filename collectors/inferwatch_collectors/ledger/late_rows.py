"""Late counts in SQLite: put into the rows of their requests, and added to the roll-ups where those are counted.

A row that has the engine's counts is left as it is: so a late count that comes twice counts once.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from inferwatch.record import LateCount, RequestRecord, TokenSource, lacks_count
from inferwatch_collectors.ledger.packing import Shapes
from inferwatch_collectors.ledger.usage import Tally
from inferwatch_collectors.ledger.usage_tables import IDS_PER_QUERY, UsageTables

_FIND: Final = "SELECT request_id, seq, wall_ns, key, token_source, record FROM requests WHERE request_id IN (%s)"
_UPDATE: Final = (
    "UPDATE requests SET prompt_tokens = ?, completion_tokens = ?, token_source = ?, record = ? WHERE seq = ?"
)

# Rows with the engine's counts have others.
_UNTOLD: Final = frozenset({TokenSource.NONE.value, TokenSource.CHUNK_ESTIMATE.value})

_Row = tuple[int, int, int, str, bytes]  # seq, wall_ns, key, token_source, record


def add_late(
    connection: sqlite3.Connection, late: Sequence[LateCount], shapes: Shapes, usage: UsageTables, tally: Tally
) -> None:
    """Write `late` to the rows that lack counts. Within a transaction of the caller's."""
    rows = _rows(connection, [each.request_id for each in late])
    changed: list[tuple[int | None, int | None, str, bytes, int]] = []
    for each in late:
        row = rows.get(each.request_id)
        if row is None:
            tally.add_late(each, each.wall_ns, usage.unknown_id(each))
            continue
        seq, wall_ns, key_id, source, blob = row
        before = shapes.unpack(blob) if source in _UNTOLD else None
        if before is None or not lacks_count(before):
            continue
        record = with_late(before, each)
        packed = shapes.pack(record)
        source = record.token_source.value
        changed.append((record.prompt_tokens, record.completion_tokens, source, packed, seq))
        rows[each.request_id] = (seq, wall_ns, key_id, source, packed)
        tally.add_late(each, wall_ns, key_id, before)
    connection.executemany(_UPDATE, changed)


def with_late(record: RequestRecord, late: LateCount) -> RequestRecord:
    """Return the record as it is known now."""
    return replace(
        record,
        prompt_tokens=late.prompt_tokens,
        completion_tokens=_added(record.completion_tokens, late.completion_tokens),
        token_source=TokenSource.ENGINE_COUNTERS,
        price_nanodollars=_added(record.price_nanodollars, late.price_nanodollars),
    )


def _added(one: int | None, other: int | None) -> int | None:
    return one if other is None else (one or 0) + other


def _rows(connection: sqlite3.Connection, request_ids: Sequence[str]) -> dict[str, _Row]:
    found: dict[str, _Row] = {}
    for start in range(0, len(request_ids), IDS_PER_QUERY):
        part = request_ids[start : start + IDS_PER_QUERY]
        for request_id, *row in connection.execute(_FIND % ",".join("?" * len(part)), part):
            seq, wall_ns, key_id, source, blob = row
            found[request_id] = (seq, wall_ns, key_id, source, blob)
    return found
