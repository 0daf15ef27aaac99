"""Ledgers that older versions have left behind: what was under way in them is finished by this one.

`testdata/ledger/schema_2.sql` was dumped from a file that version 0.1.0 wrote before shares told user and feature:
three requests that are settled or being divided, one that has just ended, one that was hung up on, one still open.
"""

import contextlib
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from inferwatch.record import Share
from inferwatch.settings.cost import Attribution, Cost
from inferwatch.settings.energy import Energy
from inferwatch_collectors.attribution.memory import Memory
from inferwatch_collectors.attribution.meter import Meter
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.engine.hung_up import HungUps
from inferwatch_collectors.ledger.sqlite_store import SqliteStore
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.report.building import PriceBasis, build
from inferwatch_collectors.report.query import Query
from inferwatch_collectors.report.reading import reading, usage

DUMP = Path(__file__).parents[2] / "testdata" / "ledger" / "schema_2.sql"
NS = 10**9
WALL_S = 1_773_144_000  # 2026-03-10
START_S = 5_000  # of CLOCK_MONOTONIC at that time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(DUMP.read_text(encoding="utf-8"))
    return path


@pytest.fixture
def ledger(path: Path) -> Any:
    ledger = SqliteStore(str(path), retention_ns=1 << 62, max_rows=1_000_000)
    yield ledger
    ledger.close()


@pytest.fixture
def store(ledger: SqliteStore) -> MetricStore:
    store = MetricStore()
    assert store.restore(ledger.load_metrics()).discarded == ()
    return store


def test_what_is_under_way_is_taken_up_without_user_and_feature(store: MetricStore) -> None:
    """They were not written down: unknown, and nothing else is lost for it."""
    found = Memory(store).read()
    assert found is not None
    assert [each.request_id for each in found.accounts] == ["old9", "old3"]
    assert [each.request_id for each in found.ended] == ["old4", "old5"]
    assert {(each.user, each.feature) for each in [*found.accounts, *found.ended]} == {("", "")}
    hung_ups = HungUps()
    hung_ups.load(store.memo("old_hung_up").data)
    late = hung_ups.settle((True, True), rest=True, exact=True).late
    assert [(each.request_id, each.user, each.prompt_tokens, each.completion_tokens) for each in late] == [
        ("old5", "", 40, 60)
    ]


def test_old_requests_settle_under_their_users(path: Path, ledger: SqliteStore, store: MetricStore) -> None:
    """A request that has its row is charged where that says, whatever its share can tell."""
    shares: list[Share] = []
    meter = Meter(
        store, CardinalityGuard(), shares.append, cost=Cost(hourly_dollars=Decimal("3.60")), attribution=Attribution(),
        energy=Energy(),
    )  # fmt: skip
    meter.restore((START_S + 15) * NS, (WALL_S + 15) * NS)
    for second in range(16, 200):
        meter.tick((START_S + second) * NS, (WALL_S + second) * NS, [])
    ledger.commit([], store.take_dirty(), shares)
    assert {each.request_id for each in shares} == {"old3", "old4", "old5", "old9", ""}
    start_s = WALL_S - WALL_S % 86_400
    query = Query(start_s=start_s, end_s=start_s + 86_400)
    with reading(path) as connection:
        report = build(query, usage(connection, query), PriceBasis())
    users = {line.name: line.gpu_nanodollars or 0 for line in report.tables["user"]}
    features = {line.name: line.gpu_nanodollars or 0 for line in report.tables["feature"]}
    assert {name for name, cost in users.items() if cost} == {"", "u1", "u2", "u3"}
    assert sum(users.values()) == sum(features.values()) == report.total.gpu_nanodollars
    open_one = sum(share.gpu_nanodollars or 0 for share in shares if share.request_id == "old9")
    assert users[""] == open_one + sum(share.gpu_nanodollars or 0 for share in shares if share.request_id == "old4")
