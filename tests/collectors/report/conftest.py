"""A ledger with a few days of known requests, and prices to go with it."""

import contextlib
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from inferwatch.price_book import PriceBook
from inferwatch.price_rates import Rates
from inferwatch.record import Outcome, RequestRecord, Share
from inferwatch.settings.prices import PriceRule
from inferwatch_collectors.ledger.sqlite_store import SqliteStore
from inferwatch_collectors.report.building import PriceBasis

FIRST = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
DAY_NS = 86_400 * 10**9


class Shop:
    """A ledger being filled."""

    def __init__(self, path: Path, frames: Any) -> None:
        self.path = path
        self._frames = frames
        self._number = 0
        self.now_s = (FIRST + dt.timedelta(days=3)).timestamp()

    @contextlib.contextmanager
    def store(self) -> Iterator[SqliteStore]:
        store = SqliteStore(str(self.path), retention_ns=1 << 62, max_rows=1 << 40)
        try:
            yield store
        finally:
            store.close()

    def record(self, day: int = 0, **changes: Any) -> RequestRecord:
        self._number += 1
        fixed = {"wall_ns": int(FIRST.timestamp()) * 10**9 + day * DAY_NS + self._number}
        record: RequestRecord = self._frames.record(self._number, **fixed | changes)
        return record

    def fill(self, *records: RequestRecord, gpu_nanodollars: int | None = 10, idle_nanodollars: int = 0) -> None:
        shares = [
            Share(request_id=record.request_id, wall_ns=0, gpu_nanodollars=gpu_nanodollars, energy_uj=3_600_000)
            for record in records
        ]
        if idle_nanodollars:
            shares.append(Share(wall_ns=int(FIRST.timestamp()) * 10**9, gpu_nanodollars=idle_nanodollars))
        with self.store() as store:
            store.commit(records, [], shares)

    def sample(self) -> None:
        """Three tenants over three days, with waste, a price on most, and idle time."""
        aborted = {"outcome": Outcome.CLIENT_ABORT, "stream": True, "response_bytes": 9}
        self.fill(
            self.record(0, tenant="acme", user="u1", feature="search", price_nanodollars=1_000, cached_tokens=4),
            self.record(0, tenant="acme", user="u2", feature="chat", price_nanodollars=2_000),
            self.record(1, tenant="acme", user="u1", feature="chat", price_nanodollars=500, **aborted),
            self.record(1, tenant="beta", user="u1", model="llama", price_nanodollars=None),
            self.record(2, tenant="gamma", finish_reasons=("length",), price_nanodollars=40, completion_tokens=100),
            idle_nanodollars=50,
        )


class Offer:
    """A list price: a dollar per million tokens of any kind."""

    name = "elsewhere/big"
    as_of = dt.date(2026, 1, 1)
    rates = Rates.of(input=Decimal(1), cached_input=None, output=Decimal(1))


@pytest.fixture
def shop(tmp_path: Path, frames: Any) -> Shop:
    return Shop(tmp_path / "ledger.sqlite3", frames)


@pytest.fixture
def basis() -> PriceBasis:
    rule = PriceRule(model="qwen", input=Decimal(2), cached_input=Decimal("0.5"), output=Decimal(8))
    return PriceBasis(PriceBook([rule]), [Offer()])


@pytest.fixture
def sampled(shop: Shop) -> Shop:
    """The sample is in the ledger."""
    shop.sample()
    return shop
