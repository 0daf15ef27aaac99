"""Pricing while booking: the price in the record, and what is counted of it."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from inferwatch.record import LateCount, Outcome, RequestRecord
from inferwatch.settings.prices import PriceRule, Prices
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import RequestLabels
from inferwatch_collectors.cost.pricing import PriceLists, Pricing, read, read_in_thread
from inferwatch_collectors.exposition import Exposition
from inferwatch_collectors.metric_store import MetricStore

Record = Callable[..., RequestRecord]
Rule = Callable[..., PriceRule]

LABELS = RequestLabels("qwen3-8b", "acme", "chat")


def pricing(rules: Sequence[PriceRule] = (), compare: Sequence[str] = ()) -> tuple[MetricStore, Pricing]:
    store = MetricStore()
    made = Pricing(store)
    made.use(read(Prices(rules=tuple(rules), compare=tuple(compare))))
    return store, made


def book(made: Pricing, record: RequestRecord) -> RequestRecord:
    record = made.priced(record)
    made.count(record, LABELS)
    return record


def values(store: MetricStore, metric: m.Metric) -> dict[tuple[str, ...], Any]:
    """Return label values -> value of a counter's series, 0 left out."""
    found = {labels: store.counter(metric, labels).value for labels in store.series(metric)}
    return {labels: value for labels, value in found.items() if value}


def test_the_price_is_in_the_record_and_in_the_counter(rule: Rule, record: Record) -> None:
    """The same nano-dollars, under the labels of the request and the basis."""
    store, made = pricing([rule()])

    booked = book(made, record())

    assert booked.price_nanodollars == 1_400_000
    assert values(store, m.COST_DOLLARS) == {(*LABELS, "price"): 1_400_000}
    assert values(store, m.UNPRICED_REQUESTS) == {}


UNCOUNTED = {
    "prompt_tokens": None, "cached_tokens": None, "completion_tokens": None, "reasoning_tokens": None,
    "outcome": Outcome.CLIENT_ABORT,
}  # fmt: skip


def late_of(record: RequestRecord) -> LateCount:
    return LateCount(
        request_id=record.request_id,
        wall_ns=record.wall_ns,
        tenant=record.tenant,
        model=record.model,
        operation=record.operation,
        outcome=record.outcome,
        prompt_tokens=1000,
        completion_tokens=200,
    )


def test_a_late_count_is_priced_and_compared(rule: Rule, record: Record) -> None:
    """Tokens that became known after the record are priced as of the request's day, for counter and ledger alike."""
    store, made = pricing([rule()], ["groq/gpt-oss-120b"])
    booked = book(made, record(**UNCOUNTED))
    assert booked.price_nanodollars is None

    late = made.late(late_of(booked), LABELS)

    assert late.price_nanodollars == 1_400_000
    assert values(store, m.COST_DOLLARS) == {(*LABELS, "price"): 1_400_000}
    counted = book(made, record(**UNCOUNTED | {"prompt_tokens": 1000, "completion_tokens": 200}))
    assert counted.price_nanodollars == 1_400_000
    (compared,) = values(store, m.COMPARISON_DOLLARS).values()
    assert compared % 2 == 0, "the same for a late count as for one in time"


@pytest.mark.parametrize(
    ("input_price", "booked_nanodollars", "late_nanodollars"),
    [(1, None, 1_400_000), (0, 300_000, 100_000)],  # 1,000 x 1 + 200 x 2; 150 x 2, and then 50 x 2
)
def test_a_late_count_beside_an_estimate(
    rule: Rule, record: Record, input_price: int, booked_nanodollars: int | None, late_nanodollars: int
) -> None:
    """In all it costs what it would have cost in time: the whole, if it had no price, or what came to more."""
    store, made = pricing([rule(input=input_price)], ["groq/gpt-oss-120b"])
    booked = book(made, record(**UNCOUNTED | {"completion_tokens": 150}))
    assert booked.price_nanodollars == booked_nanodollars
    late = made.late(replace(late_of(booked), completion_tokens=50, estimated_tokens=150), LABELS)
    assert late.price_nanodollars == late_nanodollars
    assert values(store, m.COST_DOLLARS) == {(*LABELS, "price"): (booked_nanodollars or 0) + late_nanodollars}
    (compared,) = values(store, m.COMPARISON_DOLLARS).values()
    book(made, record(**UNCOUNTED | {"prompt_tokens": 1000, "completion_tokens": 200}))
    assert values(store, m.COMPARISON_DOLLARS) == {("groq/gpt-oss-120b",): 2 * compared}


def test_a_late_count_of_what_had_its_price_adds_none(rule: Rule, record: Record) -> None:
    """Where only the request has a price, it was priced without its tokens."""
    store, made = pricing([rule(input=0, output=0, per_request="0.5")])
    booked = book(made, record(**UNCOUNTED))

    assert made.late(late_of(booked), LABELS).price_nanodollars is None
    assert values(store, m.COST_DOLLARS) == {(*LABELS, "price"): 500_000_000}


def test_without_rules_a_late_count_has_no_price(record: Record) -> None:
    """Nothing is priced and nothing is counted."""
    store, made = pricing()
    assert made.late(late_of(record(**UNCOUNTED)), LABELS).price_nanodollars is None
    assert values(store, m.COST_DOLLARS) == {}


def test_the_exposition_shows_dollars(rule: Rule, record: Record) -> None:
    """0.0014 $, and the dollars it would have been."""
    store, made = pricing([rule()], ["groq/gpt-oss-120b"])
    book(made, record())

    text = Exposition(store).render()[0].decode()

    assert (
        'inferwatch_cost_dollars_total{basis="price",model="qwen3-8b",operation="chat",tenant="acme"} 0.0014\n' in text
    )
    assert 'inferwatch_comparison_dollars_total{catalogue_entry="groq/gpt-oss-120b"} 0.00024\n' in text


@pytest.mark.parametrize(
    ("changes", "reason"), [({"model": "llama"}, "no_price"), ({"completion_tokens": None}, "no_tokens")]
)
def test_what_has_no_price_is_counted_by_reason(
    rule: Rule, record: Record, changes: dict[str, Any], reason: str
) -> None:
    """And has none in the record: absent, not 0."""
    store, made = pricing([rule(model="qwen*")])

    assert book(made, record(**changes)).price_nanodollars is None
    assert values(store, m.UNPRICED_REQUESTS) == {("qwen3-8b", reason): 1}
    assert store.series(m.COST_DOLLARS) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "other", "prompt_tokens": None, "completion_tokens": None},
        {"outcome": Outcome.REJECTED, "prompt_tokens": None, "completion_tokens": None},
    ],
)
def test_what_nobody_would_bill_is_not_missing_a_price(rule: Rule, record: Record, changes: dict[str, Any]) -> None:
    """Health checks and refused requests."""
    store, made = pricing([rule()], ["groq/gpt-oss-120b"])

    book(made, record(**changes))

    assert values(store, m.UNPRICED_REQUESTS) == {}


def test_a_free_request_has_a_price_of_zero(rule: Rule, record: Record) -> None:
    """Which is a series, and no missing price."""
    store, made = pricing([rule(input=0, output=0)])

    assert book(made, record()).price_nanodollars == 0
    assert store.series(m.COST_DOLLARS) == [(*LABELS, "price")]
    assert values(store, m.UNPRICED_REQUESTS) == {}


def test_without_rules_nothing_is_priced_and_nothing_is_missing(record: Record) -> None:
    """The basis is off."""
    store, made = pricing()

    assert book(made, record()) == record()
    assert store.series(m.COST_DOLLARS) == []
    assert values(store, m.UNPRICED_REQUESTS) == {}


def test_each_comparison_has_its_sum(record: Record) -> None:
    """Without a price of our own, too."""
    store, made = pricing(compare=["groq/gpt-oss-120b", "openai/gpt-5"])

    for _ in range(3):
        book(made, record())

    assert values(store, m.COMPARISON_DOLLARS) == {
        ("groq/gpt-oss-120b",): 3 * (600 * 150 + 400 * 75 + 200 * 600),
        ("openai/gpt-5",): 3 * (600 * 1250 + 400 * 125 + 200 * 10_000),
    }


def test_a_request_that_cannot_be_compared_is_counted_once(rule: Rule, record: Record) -> None:
    """However many comparisons there are, and whether or not there are rules."""
    for rules in ([], [rule()]):
        store, made = pricing(rules, ["groq/gpt-oss-120b", "openai/gpt-5"])

        book(made, record(prompt_tokens=None))

        assert values(store, m.UNPRICED_REQUESTS) == {("qwen3-8b", "no_tokens"): 1}


def test_a_comparison_begins_at_zero_and_says_how_old_its_price_is() -> None:
    """The first request is then a growth, and an old price can be alerted on."""
    store, _ = pricing(compare=["groq/gpt-oss-120b"])

    assert store.series(m.COMPARISON_DOLLARS) == [("groq/gpt-oss-120b",)]
    stamp = store.gauge(m.COMPARISON_PRICE_TIMESTAMP, ("groq/gpt-oss-120b",)).value
    assert stamp == datetime(2026, 7, 1, tzinfo=UTC).timestamp()


def test_a_reload_changes_what_is_booked_from_then_on(rule: Rule, record: Record) -> None:
    """What was booked keeps its price."""
    store, made = pricing([rule()])
    before = book(made, record())

    made.use(read(Prices(rules=(rule(input=2, output=4),))))
    after = book(made, record())

    assert (before.price_nanodollars, after.price_nanodollars) == (1_400_000, 2_800_000)
    assert values(store, m.COST_DOLLARS) == {(*LABELS, "price"): 4_200_000}


def test_a_comparison_that_is_no_longer_made_goes_and_the_others_go_on(record: Record) -> None:
    """A counter that stands still would look like traffic that costs nothing there."""
    store, made = pricing(compare=["groq/gpt-oss-120b", "openai/gpt-5"])
    book(made, record())

    made.use(read(Prices(compare=("openai/gpt-5",))))
    book(made, record())

    assert values(store, m.COMPARISON_DOLLARS) == {("openai/gpt-5",): 2 * (600 * 1250 + 400 * 125 + 200 * 10_000)}
    assert store.series(m.COMPARISON_PRICE_TIMESTAMP) == [("openai/gpt-5",)]


def test_sums_go_on_after_a_restart_and_those_no_longer_compared_do_not(record: Record) -> None:
    """`use` comes after the store was restored."""
    store, made = pricing(compare=["groq/gpt-oss-120b", "openai/gpt-5"])
    book(made, record())
    rows = store.take_dirty()

    again = MetricStore()
    again.restore(rows)
    made = Pricing(again)
    made.use(read(Prices(compare=("openai/gpt-5",))))
    book(made, record())

    assert values(again, m.COMPARISON_DOLLARS) == {("openai/gpt-5",): 2 * (600 * 1250 + 400 * 125 + 200 * 10_000)}


async def test_on_a_loop_the_catalogue_is_read_in_a_thread(rule: Rule) -> None:
    """A slow disk does not hold up the tap."""
    lists = await asyncio.wait_for(read_in_thread(Prices(rules=(rule(),), compare=("openai/gpt-5",))), 30)

    assert isinstance(lists, PriceLists)
    assert lists.book
    assert [each.name for each in lists.compared] == ["openai/gpt-5"]


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(0, 20_000)), max_size=30))
def test_the_counter_is_the_sum_of_the_records(requests: list[tuple[int, int]]) -> None:
    """To the nano-dollar: the ledger and the metric are the same sum."""
    store, made = pricing([PriceRule(input=Decimal("0.123456789"), output=Decimal("0.987654321"))])
    booked = 0
    for prompt, completion in requests:
        record = RequestRecord(
            request_id="r",
            wall_ns=0,
            tenant="acme",
            model="m",
            operation="chat",
            route="chat",
            method="POST",
            stream=True,
            outcome=Outcome.OK,
            status=200,
            prompt_tokens=prompt,
            completion_tokens=completion,
            duration_s=1.0,
        )
        price = book(made, record).price_nanodollars
        assert price is not None
        booked += price

    assert sum(values(store, m.COST_DOLLARS).values()) == booked
