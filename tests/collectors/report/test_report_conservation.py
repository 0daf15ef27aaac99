"""Σ by tenant = Σ by user = Σ by feature = Σ by model = Σ by day = all, and with idle the bill: to the nano-dollar."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch.record import LateCount, Outcome, RequestRecord, Share, TokenSource
from inferwatch_collectors.ledger.sqlite_store import SqliteStore
from inferwatch_collectors.report.building import PriceBasis, build
from inferwatch_collectors.report.figures import Line
from inferwatch_collectors.report.query import DIMENSIONS, Query
from inferwatch_collectors.report.reading import reading, usage

BASE_NS = 1_772_323_200 * 10**9  # 2026-03-01
DAY_NS = 86_400 * 10**9

AMOUNTS = st.none() | st.integers(0, 10**15)
REQUESTS = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(["a", "b"]),
        "user": st.sampled_from(["", "u", "v"]),
        "feature": st.sampled_from(["", "search", "chat"]),
        "model": st.sampled_from(["m", "n"]),
        "at_ns": st.integers(0, 3 * DAY_NS - 1),
        "price": AMOUNTS,
        "gpu": AMOUNTS,
        "energy": AMOUNTS,
        "hung_up": st.booleans(),
        "has_row": st.integers(0, 4).map(bool),  # one in five lost its row: a disk was full for too long
    }
)
SUMMED = ("requests", "prompt_tokens", "completion_tokens", "price_nanodollars", "gpu_nanodollars", "energy_uj")


def record_of(number: int, drawn: dict[str, Any]) -> RequestRecord:
    counts: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": 7, "token_source": TokenSource.FINAL_USAGE}
    if drawn["hung_up"]:
        counts = {"outcome": Outcome.CLIENT_ABORT}
    fixed: dict[str, Any] = {"outcome": Outcome.OK, "price_nanodollars": None if drawn["hung_up"] else drawn["price"]}
    return RequestRecord(
        request_id=f"r{number}",
        wall_ns=BASE_NS + drawn["at_ns"],
        **{name: drawn[name] for name in ("tenant", "user", "feature", "model")},
        operation="chat",
        route="chat",
        method="POST",
        stream=False,
        status=200,
        duration_s=1.0,
        **fixed | counts,
    )


def share_of(number: int, drawn: dict[str, Any]) -> Share:
    names = {name: drawn[name] for name in ("tenant", "user", "feature", "model")}
    wall_ns = BASE_NS + drawn["at_ns"]
    return Share(
        request_id=f"r{number}", wall_ns=wall_ns, gpu_nanodollars=drawn["gpu"], energy_uj=drawn["energy"], **names
    )


def late_of(number: int, drawn: dict[str, Any]) -> LateCount:
    return LateCount(
        request_id=f"r{number}",
        wall_ns=BASE_NS + drawn["at_ns"],
        **{name: drawn[name] for name in ("tenant", "user", "feature", "model")},
        operation="chat",
        outcome=Outcome.CLIENT_ABORT,
        prompt_tokens=3,
        completion_tokens=4,
        price_nanodollars=drawn["price"],
    )


def added(lines: tuple[Line, ...], name: str) -> int:
    return sum(getattr(line, name) or 0 for line in lines)


@settings(max_examples=40, deadline=None)
@given(drawn=st.lists(REQUESTS, max_size=12), idle=st.lists(st.integers(0, 10**15), max_size=3), top=st.integers(1, 9))
def test_every_table_is_the_total(drawn: list[dict[str, Any]], idle: list[int], top: int) -> None:
    """Whatever was asked by whom, hung up on, or has lost its row: it is in each table once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        store = SqliteStore(str(path), retention_ns=1 << 62, max_rows=1 << 40)
        numbered = list(enumerate(drawn))
        store.commit([record_of(*each) for each in numbered if each[1]["has_row"]], [])
        nobodys = [Share(wall_ns=BASE_NS + place * DAY_NS, gpu_nanodollars=cost) for place, cost in enumerate(idle)]
        shares = [share_of(*each) for each in numbered]
        store.commit([], [], [*shares, *nobodys], [late_of(*each) for each in numbered if each[1]["hung_up"]])
        store.close()
        start_s = BASE_NS // 10**9
        query = Query(start_s=start_s, end_s=start_s + 3 * 86_400, by=DIMENSIONS, top=top)
        with reading(path) as connection:
            report = build(query, usage(connection, query), PriceBasis())
    assert report.total.requests == sum(each["has_row"] for each in drawn)
    assert (report.total.gpu_nanodollars or 0) == sum(each["gpu"] or 0 for each in drawn)
    assert (report.total.energy_uj or 0) == sum(each["energy"] or 0 for each in drawn)
    priced = [each["price"] or 0 for each in drawn if each["has_row"] or each["hung_up"]]
    assert added((report.total,), "price_nanodollars") <= sum(priced)
    assert report.idle is not None
    assert (report.idle.gpu_nanodollars or 0) == sum(idle)
    for name in SUMMED:
        for dimension in DIMENSIONS:
            assert added(report.tables[dimension], name) == added((report.total,), name), (name, dimension)
