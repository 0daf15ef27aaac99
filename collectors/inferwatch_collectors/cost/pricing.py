"""Pricing as part of booking: puts the price into a record, and counts prices and comparisons.

Two steps, both without I/O and in one breath with the booking of the record: `priced` before it goes anywhere, `count`
together with the other counters, so that the ledger's sums and the counters are the same sums.

Without price rules the basis `price` is off, and that nothing has a price is not counted.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import Final, NamedTuple

from msgspec.structs import replace

from inferwatch.config import ConfigError
from inferwatch.price_book import NO_TOKENS, PriceBook
from inferwatch.price_rates import has_something_to_price
from inferwatch.record import LateCount, RequestRecord
from inferwatch.settings.prices import Prices
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import RequestLabels
from inferwatch_collectors.cost.catalogue import Comparison, comparisons
from inferwatch_collectors.metric_store import Counter, MetricStore

_log: Final = logging.getLogger(__name__)


class PriceLists(NamedTuple):
    """All that `prices` in the configuration says, ready to be asked."""

    book: PriceBook
    compared: Sequence[Comparison]


def read(prices: Prices) -> PriceLists:
    """Compile the price rules and read the catalogue. Blocking; on a loop use `read_in_thread`.

    Raises:
        ConfigError: naming the key.
    """
    return PriceLists(PriceBook(prices.rules), comparisons(prices))


async def read_in_thread(prices: Prices) -> PriceLists:
    """The same as `read`, for a running loop."""
    return await asyncio.to_thread(read, prices)


class Pricing:
    """Prices records and keeps the counters of it. Everything on the event loop's thread."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self.lists = PriceLists(PriceBook(), ())
        self._book = self.lists.book
        self._compared: list[tuple[Comparison, Counter]] = []

    def use(self, lists: PriceLists) -> None:
        """Price what is booked from now on by `lists`; what was booked keeps its price.

        After the store has been restored: the series of entries that are no longer compared go.
        """
        names = {(comparison.name,) for comparison in lists.compared}
        gone = {labels for labels in self._store.series(m.COMPARISON_DOLLARS) if labels not in names}
        self._store.retire(("catalogue_entry",), gone)
        self.lists, self._book = lists, lists.book
        self._compared = []
        for comparison in lists.compared:
            midnight = datetime.combine(comparison.as_of, time.min, UTC)
            self._store.gauge(m.COMPARISON_PRICE_TIMESTAMP, (comparison.name,)).set(midnight.timestamp())
            self._compared.append((comparison, self._store.counter(m.COMPARISON_DOLLARS, (comparison.name,))))

    async def take_up(self, prices: Prices) -> None:
        """Use what a configuration says; with a catalogue that cannot be read, the rules alone."""
        try:
            lists = await read_in_thread(prices)
        except ConfigError as error:
            # The supervisor has checked it; the file was changed since.
            _log.error("prices_not_compared reason=%s", error)
            lists = PriceLists(PriceBook(prices.rules), ())
        self.use(lists)

    def priced(self, record: RequestRecord) -> RequestRecord:
        """Return `record` with its price, or as it is if it has none."""
        price = self._book.price(record) if self._book else None
        return record if price is None else replace(record, price_nanodollars=price)

    def count(self, record: RequestRecord, labels: RequestLabels) -> None:
        """Count a record that has been through `priced`, once."""
        reason = ""
        if record.price_nanodollars is not None:
            self._store.counter(m.COST_DOLLARS, (*labels, m.BASIS_PRICE)).add(record.price_nanodollars)
        elif self._book:
            reason = self._book.why_unpriced(record)
        for comparison, counter in self._compared:
            cost = comparison.cost(record)
            if cost is not None:
                counter.add(cost)
            elif not self._book and has_something_to_price(record):
                reason = NO_TOKENS
        if reason:
            self._store.counter(m.UNPRICED_REQUESTS, (labels.model, reason)).add()

    def late(self, late: LateCount, labels: RequestLabels) -> LateCount:
        """Price and count what became known of a record that lacked counts; return it with its price.

        What had a price by then costs what it comes to more. That it was counted as unpriced cannot be taken back.
        """
        counted = _stand_in(late)
        uncounted = replace(counted, prompt_tokens=None, completion_tokens=late.estimated_tokens or None)
        price = _more(self._book.price(counted), self._book.price(uncounted)) if self._book else None
        if price is not None:
            self._store.counter(m.COST_DOLLARS, (*labels, m.BASIS_PRICE)).add(price)
        for comparison, counter in self._compared:
            cost = _more(comparison.cost(counted), comparison.cost(uncounted))
            if cost is not None:
                counter.add(cost)
        return late if price is None else replace(late, price_nanodollars=price)


def _more(now: int | None, before: int | None) -> int | None:
    """Return what has been added, None if nothing has."""
    return now if now is None or before is None else (now - before) or None


def _stand_in(late: LateCount) -> RequestRecord:
    """Return the record as far as it matters for its price."""
    completion = late.completion_tokens
    if late.estimated_tokens:
        completion = late.estimated_tokens + (completion or 0)
    return RequestRecord(
        request_id=late.request_id,
        wall_ns=late.wall_ns,
        tenant=late.tenant,
        model=late.model,
        operation=late.operation,
        route="",
        method="",
        stream=False,
        outcome=late.outcome,
        status=0,
        prompt_tokens=late.prompt_tokens,
        completion_tokens=completion,
        duration_s=0.0,
    )
