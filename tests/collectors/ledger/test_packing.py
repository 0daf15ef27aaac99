"""Rows of any version read back: names are kept once a file, and every row knows under which it was written."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from inferwatch.record import ErrorType, Outcome, TokenClass
from inferwatch_collectors.ledger.packing import FIELDS, Shapes
from inferwatch_collectors.ledger.schema import MIGRATIONS


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as made:
        made.executescript("".join(MIGRATIONS))
        yield made


def test_what_was_packed_is_unpacked(connection: sqlite3.Connection, frames: Any) -> None:
    """Every kind of field comes back as it was."""
    record = frames.record(
        1,
        outcome=Outcome.STREAM_ERROR,
        error=ErrorType.ENGINE_EVENT,
        first_token=TokenClass.REASONING,
        finish_reasons=("stop", "length"),
        cached_tokens=0,
        price_nanodollars=2**62,
        ttft_s=0.125,
    )
    shapes = Shapes.written(connection)
    assert shapes.unpack(shapes.pack(record)) == record
    assert Shapes.read(connection).unpack(shapes.pack(record)) == record


def test_names_are_written_once(connection: sqlite3.Connection, frames: Any) -> None:
    """Opening a file again adds no shape, and a row has no names."""
    for _ in range(3):
        shapes = Shapes.written(connection)
    assert connection.execute("SELECT shape, fields FROM record_shapes").fetchall() == [(1, ",".join(FIELDS))]
    assert b"duration_s" not in shapes.pack(frames.record(1))


def test_a_row_of_another_version(connection: sqlite3.Connection, frames: Any) -> None:
    """A field that is gone is left out; one that the row does not have gets its default."""
    values = msgspec.to_builtins(frames.record(1, user="u"))
    values["long_gone"] = 5
    connection.execute("INSERT INTO record_shapes VALUES (7, ?)", (",".join(values),))
    blob = msgspec.msgpack.encode((7, *values.values()))
    assert Shapes.written(connection).unpack(blob) == frames.record(1, user="u")


def test_a_row_of_the_first_schema(connection: sqlite3.Connection, frames: Any) -> None:
    """Rows with names are read as they are."""
    record = frames.record(1, feature="f")
    assert Shapes.read(connection).unpack(msgspec.msgpack.encode(record)) == record
