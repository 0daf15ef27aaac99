"""Rows for other programs: whole, in order, a page at a time, in three formats."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from inferwatch.record import RequestRecord
from inferwatch_collectors.ledger.usage import DAY, SUMS, USER_DAY
from inferwatch_collectors.report import export
from inferwatch_collectors.report.export import ExportError, Source
from inferwatch_collectors.report.query import Query, QueryError
from inferwatch_collectors.report.reading import reading

START_S, END_S = 1_772_300_000, 1_773_000_000


SPAN = Query(start_s=START_S, end_s=END_S)


def written(shop: Any, name: str, out: Path, what: str = "requests", query: Query = SPAN) -> int:
    with reading(shop.path, snapshot=False) as connection:
        if what == "requests":
            source = export.requests(connection, query)
        else:
            source = export.usage(connection, export.level_named(what), query)
        return export.write(source, name, out)


def test_json(shop: Any, tmp_path: Path) -> None:
    """One array, one object a line; every field of a record and its share; unknown is null."""
    shop.sample()
    out = tmp_path / "out.json"
    assert written(shop, "json", out) == 5
    rows = json.loads(out.read_text())
    assert list(rows[0]) == [*RequestRecord.__struct_fields__, "gpu_nanodollars", "energy_uj"]
    assert [row["tenant"] for row in rows] == ["acme", "acme", "acme", "beta", "gamma"]
    assert (rows[0]["cached_tokens"], rows[1]["cached_tokens"], rows[0]["gpu_nanodollars"]) == (4, None, 10)
    assert rows[4]["finish_reasons"] == ["length"]
    assert all(json.loads(line.rstrip(",")) for line in out.read_text().splitlines()[1:-1])


def test_csv(shop: Any, tmp_path: Path) -> None:
    """A header and a row each; unknown is empty, and a formula is none."""
    shop.fill(shop.record(feature="=1+1", finish_reasons=("stop", "length"), prompt_tokens=None))
    out = tmp_path / "out.csv"
    written(shop, "csv", out)
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["feature"], row["finish_reasons"], row["prompt_tokens"]) == ("'=1+1", "stop;length", "")


def test_parquet(shop: Any, tmp_path: Path) -> None:
    """Typed columns, nulls for what is unknown, and the same rows."""
    shop.sample()
    out = tmp_path / "out.parquet"
    assert written(shop, "parquet", out) == 5
    table = pyarrow.parquet.read_table(out)
    assert table.schema.field("wall_ns").type == pa.int64()
    assert table.schema.field("duration_s").type == pa.float64()
    assert table.schema.field("stream").type == pa.bool_()
    assert table.schema.field("finish_reasons").type == pa.list_(pa.string())
    assert table.column("cached_tokens").to_pylist() == [4, None, None, None, None]
    assert table.column("outcome").to_pylist()[2] == "client_abort"


def test_parquet_without_pyarrow(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra; without it the message says what to install, and no file is left."""
    shop.sample()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ExportError, match=r"pip install 'inferwatch\[parquet\]'"):
        written(shop, "parquet", tmp_path / "out.parquet")
    assert [file.name for file in tmp_path.iterdir() if "out" in file.name] == []


def test_parquet_is_not_for_a_terminal() -> None:
    """It needs a file."""
    with pytest.raises(ExportError, match="--out FILE"):
        export.write(Source({}, iter([])), "parquet", None)


def test_parquet_is_not_for_a_pipe(shop: Any, tmp_path: Path) -> None:
    """It is written with jumps; one line says so, and the pipe is still there."""
    shop.sample()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ExportError, match="parquet is not for a pipe"):
        written(shop, "parquet", pipe)
    assert pipe.is_fifo()


@pytest.mark.parametrize("what", ["requests", "user_day"])
def test_pages_join(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """However small the pages, each row is there once, also those of one and the same moment."""
    monkeypatch.setattr(export, "PAGE_ROWS", 3)
    moment_ns = 1_772_366_400 * 10**9
    shop.fill(*(shop.record(wall_ns=moment_ns + n // 5, user=f"u{n}") for n in range(20)))
    out = tmp_path / "out.json"
    assert written(shop, "json", out, what) == 20
    assert {row["user"] for row in json.loads(out.read_text())} == {f"u{n}" for n in range(20)}


def test_the_span_is_kept(shop: Any, tmp_path: Path) -> None:
    """The first moment is in, the last is not."""
    shop.fill(*(shop.record(wall_ns=at_s * 10**9) for at_s in (START_S - 1, START_S, END_S - 1, END_S)))
    assert written(shop, "csv", tmp_path / "out.csv") == 2


@pytest.mark.parametrize("what", ["requests", "minute", "day", "user_day"])
def test_rows_of_one_tenant(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """None of another's, over all pages."""
    monkeypatch.setattr(export, "PAGE_ROWS", 1)
    shop.sample()
    out = tmp_path / "out.json"
    written(shop, "json", out, what, Query(start_s=START_S, end_s=END_S, tenant="acme"))
    rows = json.loads(out.read_text())
    assert {row["tenant"] for row in rows} == {"acme"}
    assert sum(row.get("requests", 1) for row in rows) == 3


def test_a_span_in_which_no_sum_begins(shop: Any, tmp_path: Path) -> None:
    """Is refused: no rows would look like no use. With a beginning in it, it is none to refuse."""
    shop.sample()
    noon = 1_772_366_400
    message = "level: no day begins from 2026-03-01T11:00 until before 2026-03-01T13:00; finer: minute, hour"
    with pytest.raises(QueryError, match=message):
        written(shop, "csv", tmp_path / "out.csv", "day", Query(start_s=noon - 3_600, end_s=noon + 3_600))
    midnight = noon + 43_200
    assert written(shop, "csv", tmp_path / "out.csv", "day", Query(start_s=midnight, end_s=midnight + 60)) > 0
    with pytest.raises(QueryError):
        written(shop, "csv", tmp_path / "out.csv", "day", Query(start_s=midnight - 60, end_s=midnight))


def test_sums(shop: Any, tmp_path: Path) -> None:
    """Cells of one level with their key; days are without users, users' days with them."""
    shop.sample()
    written(shop, "json", tmp_path / "day.json", DAY.name)
    written(shop, "json", tmp_path / "user.json", USER_DAY.name)
    days, users = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("day", "user"))
    assert {row["user"] for row in days} == {""}
    assert {row["user"] for row in users} == {"", "u1", "u2"}
    for name in SUMS:
        assert sum(row[name] for row in days) == sum(row[name] for row in users)


def test_nothing_to_export(shop: Any, tmp_path: Path) -> None:
    """An empty ledger gives an empty array and a header."""
    with shop.store():
        pass
    for name in export.EXPORT_FORMATS:
        assert written(shop, name, tmp_path / f"out.{name}") == 0
    assert json.loads((tmp_path / "out.json").read_text()) == []
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_folder_that_is_not_there(shop: Any, tmp_path: Path) -> None:
    """What cannot be written is named."""
    shop.sample()
    with pytest.raises(ExportError, match=r"nowhere/out\.csv: No such file"):
        written(shop, "csv", tmp_path / "nowhere" / "out.csv")


def test_the_collector_goes_on_meanwhile(shop: Any, tmp_path: Path) -> None:
    """An export under way neither holds up a commit nor sees half of it."""
    shop.fill(*(shop.record() for _ in range(4)))
    with reading(shop.path, snapshot=False) as connection, shop.store() as store:
        source = export.requests(connection, SPAN)
        first = next(source.pages)
        store.commit([shop.record()], [])
        assert len(first) + sum(len(page) for page in source.pages) == 5
