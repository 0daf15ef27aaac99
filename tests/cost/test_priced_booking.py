"""Prices on the way from a relay's frames to the ledger."""

from decimal import Decimal

import pytest

from inferwatch.config import ConfigError
from inferwatch.record import RequestRecord
from inferwatch.settings.prices import PriceRule, Prices
from inferwatch.tap import Batch, Close, Head, Hello, Open
from inferwatch_collectors import metrics as m
from inferwatch_collectors.booking import Booking
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.cost import pricing
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.recorder import Recorder

BOOT = "b007"
USAGE = (
    b'{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200,"prompt_tokens_details":{"cached_tokens":400}}'
)
REPLY = b'{"id":"c","object":"chat.completion","model":"qwen","choices":[{"index":0,"message":{},"finish_reason":"stop"}],"usage":%b}'


def booked(prices: Prices, *, model: str = "qwen") -> tuple[list[RequestRecord], MetricStore]:
    """Send one finished request through booking; return what the ledger would take, and the counters."""
    store = MetricStore()
    recorder = Recorder(store, CardinalityGuard())
    recorder.pricing.use(pricing.read(prices))
    taken: list[RequestRecord] = []
    booking = Booking(recorder, taken.append)
    link = booking.connect(Hello(protocol=1, worker=0, pid=1, boot=BOOT), 0)
    opened = Open(
        id=1,
        request_id=f"{BOOT}00000001",
        wall_ns=1_782_864_000_000_000_000,
        arrival_ns=1_000,
        sent_ns=2_000,
        method="POST",
        path="/v1/chat/completions",
        tenant="acme",
        model=model,
        stream=False,
        asked_usage=False,
        choices=1,
        headers={},
        body=b"{}",
        body_bytes=2,
    )
    reply = REPLY % USAGE
    head = Head(1, 3_000, 200, {"content-type": "application/json"})
    close = Close(id=1, stamp_ns=900_000, outcome="ok", error="", status=200, reads=1, response_bytes=len(reply))
    batch = Batch(0, [opened], [head], [(1, 4_000, reply)], [close])
    for _ in booking.apply(link, batch, frozenset(), 1_000_000):
        pass
    return taken, store


def test_the_ledger_gets_the_price_and_the_counter_the_same() -> None:
    """600 at 1 $, 400 cached at 0.10 $, 200 at 2 $ per million."""
    rule = PriceRule(model="qwen", input=Decimal(1), cached_input=Decimal("0.1"), output=Decimal(2))

    (record,), store = booked(Prices(rules=(rule,), compare=("groq/gpt-oss-120b",)))

    assert record.price_nanodollars == 600_000 + 40_000 + 400_000
    assert store.counter(m.COST_DOLLARS, ("qwen", "acme", "chat", "price")).value == record.price_nanodollars
    assert store.counter(m.COMPARISON_DOLLARS, ("groq/gpt-oss-120b",)).value == 600 * 150 + 400 * 75 + 200 * 600


def test_a_model_without_a_price_is_booked_without_one() -> None:
    """And counted, under the model's own name."""
    (record,), store = booked(Prices(rules=(PriceRule(model="llama", input=Decimal(1), output=Decimal(2)),)))

    assert record.price_nanodollars is None
    assert store.counter(m.UNPRICED_REQUESTS, ("qwen", "no_price")).value == 1


def test_prices_are_off_until_they_are_configured() -> None:
    """A collector without `prices` books as before."""
    (record,), store = booked(Prices())

    assert record.price_nanodollars is None
    assert store.series(m.COST_DOLLARS) == store.series(m.UNPRICED_REQUESTS) == []


def test_an_entry_that_is_not_there_is_refused_before_anything_is_changed() -> None:
    """`read` fails; what `use` was told before goes on."""
    with pytest.raises(ConfigError, match=r"prices\.compare\[0\]: `x/y` is not in the catalogue"):
        booked(Prices(compare=("x/y",)))
