"""The ledger's rows for other programs: requests one by one, or the sums of one level; CSV, JSON or Parquet.

Rows are read a page at a time, each page in a snapshot of its own: memory is bounded by a page, and the collector's
write-ahead log is not kept from being folded back while a long export runs.
"""

import csv
import datetime as dt
import json
import os
import sqlite3
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

import msgspec

from inferwatch.record import RequestRecord
from inferwatch_collectors.ledger.packing import DAMAGED, Shapes
from inferwatch_collectors.ledger.usage import KEY_COLUMNS, LEVELS, NS_PER_S, SUMS, Level
from inferwatch_collectors.report.outfile import whole
from inferwatch_collectors.report.query import Query, QueryError
from inferwatch_collectors.report.reading import ReadError
from inferwatch_collectors.report.rendering import inert

EXPORTS: Final = ("requests", "usage")
EXPORT_FORMATS: Final = ("csv", "json", "parquet")

# About 10 MB as objects, some 100 ms of reading.
PAGE_ROWS: Final = 5_000

# What a request was charged of the machine, beside the record's own fields.
_SHARE: Final = {"gpu_nanodollars": int, "energy_uj": int}

_REQUESTS: Final = """
    SELECT requests.seq, requests.wall_ns, requests.record, shares.gpu_nanodollars, shares.energy_uj
    FROM requests LEFT JOIN shares ON shares.seq = requests.seq
    WHERE requests.wall_ns >= ? AND requests.wall_ns < ? AND (? IS NULL OR requests.tenant = ?)
        AND (requests.wall_ns, requests.seq) > (?, ?)
    ORDER BY requests.wall_ns, requests.seq LIMIT ?
"""

Row = Sequence[Any]
Columns = Mapping[str, type]


class ExportError(Exception):
    """It cannot be exported; one line that says why."""


class Source(typing.NamedTuple):
    """Columns and their types (str, int, float, bool or list), and the rows in pages."""

    columns: Columns
    pages: Iterator[list[Row]]


def requests(connection: sqlite3.Connection, query: Query) -> Source:
    """Return the requests that arrived in the span, oldest first, each with its share of the machine."""
    hints = typing.get_type_hints(RequestRecord)
    columns = {name: _plain_type(hints[name]) for name in RequestRecord.__struct_fields__} | _SHARE
    return Source(columns, _request_pages(connection, query))


def usage(connection: sqlite3.Connection, level: Level, query: Query) -> Source:
    """Return the sums of one level: those whose span begins within the one asked for.

    Raises:
        QueryError: none begins there.
    """
    if -(-query.start_s // level.seconds) * level.seconds >= query.end_s:
        span = f"{_minute(query.start_s)} until before {_minute(query.end_s)}"
        finer = ", ".join(each.name for each in LEVELS if each.seconds < level.seconds)
        raise QueryError(f"level: no {level.name} begins from {span}; finer: {finer}")
    columns = {"start_s": int, **dict.fromkeys(KEY_COLUMNS, str), **dict.fromkeys(SUMS, int)}
    return Source(columns, _usage_pages(connection, level, query))


def level_named(name: str) -> Level:
    """Return the level of this name, one of LEVELS."""
    return next(level for level in LEVELS if level.name == name)


def write(source: Source, format: str, out: Path | None) -> int:  # noqa: A002 - the word of the flag
    """Write all rows to `out`, or to stdout. Returns how many.

    Raises:
        ExportError: the file cannot be written, or the format needs something that is not installed.
    """
    if out is None:
        if format == "parquet":
            raise ExportError("parquet is not for a terminal: give --out FILE")
        return _write_text(source, format, sys.stdout)
    if format == "parquet" and out.is_fifo():
        raise ExportError(f"parquet is not for a pipe: {out}")
    try:
        with whole(out) as path:
            if format == "parquet":
                return _write_parquet(source, path)
            with path.open("w", encoding="utf-8", newline="") as file:
                return _write_text(source, format, file)
    except OSError as error:
        raise ExportError(f"{out}: {error.strerror or error}") from None


def _minute(at_s: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y-%m-%dT%H:%M}"


def _request_pages(connection: sqlite3.Connection, query: Query) -> Iterator[list[Row]]:
    shapes = Shapes.read(connection)
    start_ns, end_ns = query.start_s * NS_PER_S, query.end_s * NS_PER_S
    at = (start_ns - 1, 0)
    while rows := _fetched(connection, _REQUESTS, (start_ns, end_ns, query.tenant, query.tenant, *at, PAGE_ROWS)):
        at = (rows[-1][1], rows[-1][0])
        yield [
            (*msgspec.to_builtins(msgspec.structs.astuple(_record(shapes, seq, blob))), *share)
            for seq, _, blob, *share in rows
        ]


def _record(shapes: Shapes, seq: int, blob: bytes) -> RequestRecord:
    try:
        return shapes.unpack(blob)
    except DAMAGED:
        raise ReadError(f"the ledger: row {seq} of its requests is damaged") from None


def _usage_pages(connection: sqlite3.Connection, level: Level, query: Query) -> Iterator[list[Row]]:
    names = ", ".join((*KEY_COLUMNS, *SUMS))
    statement = (
        f"SELECT start_s, key, {names} FROM {level.table} JOIN usage_keys USING (key) "  # noqa: S608 - names of our own
        "WHERE start_s >= ? AND start_s < ? AND (? IS NULL OR tenant = ?) AND (start_s, key) > (?, ?) "
        "ORDER BY start_s, key LIMIT ?"
    )
    span = (query.start_s, query.end_s, query.tenant, query.tenant)
    at = (query.start_s - 1, 0)
    while rows := _fetched(connection, statement, (*span, *at, PAGE_ROWS)):
        at = rows[-1][:2]
        yield [(row[0], *row[2:]) for row in rows]


def _fetched(connection: sqlite3.Connection, query: str, values: Sequence[int | str | None]) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise ReadError(f"the ledger: {error}") from None


def _write_text(source: Source, format: str, file: TextIO) -> int:  # noqa: A002 - the word of the flag
    return (_write_csv if format == "csv" else _write_json)(source, file)


def _write_csv(source: Source, file: TextIO) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(source.columns)
    count = 0
    for page in source.pages:
        writer.writerows([_csv_value(value) for value in row] for row in page)
        count += len(page)
    return count


def _csv_value(value: object) -> object:
    if isinstance(value, str):
        return inert(value)
    return ";".join(map(str, value)) if isinstance(value, list | tuple) else value


def _write_json(source: Source, file: TextIO) -> int:
    """One array, one object a line: a JSON document, and yet to be read line by line."""
    names = list(source.columns)
    count = 0
    file.write("[")
    for page in source.pages:
        for row in page:
            file.write(",\n" if count else "\n")
            file.write(json.dumps(dict(zip(names, row, strict=True)), separators=(",", ":"), ensure_ascii=False))
            count += 1
    file.write("\n]\n")
    return count


class _ParquetWriter(Protocol):
    def write_table(self, table: object) -> None: ...
    def close(self) -> None: ...


def _write_parquet(source: Source, path: Path) -> int:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra: 150 MB that nobody else needs
        from pyarrow.parquet import ParquetWriter  # noqa: PLC0415
    except ImportError:
        raise ExportError("parquet needs pyarrow: pip install 'inferwatch[parquet]'") from None
    kinds = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        list: pa.list_(pa.string()),
    }
    schema = pa.schema([(name, kinds[kind]) for name, kind in source.columns.items()])
    writer: _ParquetWriter = ParquetWriter(os.fspath(path), schema)
    count = 0
    try:
        for page in source.pages:
            arrays = [
                pa.array(column, type=field.type) for column, field in zip(zip(*page, strict=True), schema, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(page)
    finally:
        writer.close()
    return count


def _plain_type(hint: Any) -> type:
    """Return str, int, float, bool or list for the annotation of a record's field."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    if typing.get_origin(hint) is tuple:
        return list
    for kind in (bool, int, float, str):
        if isinstance(hint, type) and issubclass(hint, kind):
            return kind
    raise TypeError(f"a record has a field of type {hint}, which cannot be exported")
