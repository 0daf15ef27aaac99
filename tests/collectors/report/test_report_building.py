"""The figures of a report: they add up, and what is not known is said and not guessed."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferwatch.price_book import PriceBook
from inferwatch.record import Outcome
from inferwatch.settings.prices import PriceRule
from inferwatch_collectors.ledger.usage import IDLE, SUMS
from inferwatch_collectors.report.building import PriceBasis, build
from inferwatch_collectors.report.figures import Line, Report
from inferwatch_collectors.report.query import Query
from inferwatch_collectors.report.reading import Group, Usage, reading, usage

DAY_S = 86_400


def reported(shop: Any, basis: PriceBasis, **parameters: str) -> Report:
    query = Query.of(parameters, shop.now_s)
    with reading(shop.path) as connection:
        return build(query, usage(connection, query), basis)


def by_name(lines: tuple[Line, ...]) -> dict[str, Line]:
    return {line.name: line for line in lines}


def test_totals(shop: Any, basis: PriceBasis) -> None:
    """Requests, tokens, price, hardware and energy are the sums of what was booked."""
    shop.sample()
    total = reported(shop, basis).total
    assert (total.requests, total.prompt_tokens, total.completion_tokens) == (5, 35, 4 * 3 + 100)
    assert (total.price_nanodollars, total.unpriced_requests) == (3_540, 1)
    assert (total.gpu_nanodollars, total.energy_uj) == (50, 5 * 3_600_000)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("tenant", ["acme", "gamma", "beta"]),
        ("user", ["u2", "u1", "", "u1"]),
        ("feature", ["chat", "search", ""]),
        ("model", ["qwen", "llama"]),
        ("day", ["2026-03-01", "2026-03-02", "2026-03-03"]),
    ],
)
def test_tables(shop: Any, basis: PriceBasis, table: str, names: list[str]) -> None:
    """Each table has the most expensive first, days in order, and adds up to the total."""
    shop.sample()
    report = reported(shop, basis)
    lines = report.tables[table]
    assert [line.name for line in lines] == names
    for field in ("requests", "prompt_tokens", "completion_tokens", "price_nanodollars", "gpu_nanodollars"):
        assert sum(getattr(line, field) or 0 for line in lines) == getattr(report.total, field)


def test_the_same_user_of_two_tenants_is_two_users(shop: Any, basis: PriceBasis) -> None:
    """A user belongs to a tenant."""
    shop.sample()
    lines = reported(shop, basis).tables["user"]
    assert {(line.tenant, line.name): line.requests for line in lines}[("beta", "u1")] == 1


def test_what_is_below_the_cut_is_one_line(shop: Any, basis: PriceBasis) -> None:
    """With `top` the rest is added up, so that the table still adds up."""
    shop.sample()
    lines = reported(shop, basis, top="1").tables["tenant"]
    assert [(line.name, line.requests, line.price_nanodollars) for line in lines] == [
        ("acme", 3, 3_500),
        ("(2 more)", 2, 40),
    ]


def test_waste(shop: Any, basis: PriceBasis) -> None:
    """What was of no use, by reason, with its tokens and its cost on both bases."""
    shop.sample()
    waste = by_name(reported(shop, basis).waste)
    assert {
        name: (line.completion_tokens, line.price_nanodollars, line.gpu_nanodollars) for name, line in waste.items()
    } == {
        "aborted": (3, 500, 10),
        "truncated": (100, 40, 10),
    }


def test_cache_savings(shop: Any, basis: PriceBasis) -> None:
    """Cached tokens times the difference of the two prices: 4 tokens at 1.5 dollars a million are 6,000 nano-dollars."""
    shop.sample()
    cache = reported(shop, basis).cache
    assert (cache.prompt_tokens, cache.cached_tokens, cache.saved_nanodollars) == (35, 4, 6_000)


def test_cache_savings_by_the_price_of_the_day(shop: Any) -> None:
    """A price that changed is the old one for days before."""
    import datetime as dt  # noqa: PLC0415

    rules = [
        PriceRule(input=Decimal(2), cached_input=Decimal(1), output=Decimal(1), valid_until=dt.date(2026, 3, 2)),
        PriceRule(input=Decimal(20), cached_input=Decimal(1), output=Decimal(1), valid_from=dt.date(2026, 3, 2)),
    ]
    shop.fill(shop.record(0, cached_tokens=1), shop.record(1, cached_tokens=1))
    assert reported(shop, PriceBasis(PriceBook(rules))).cache.saved_nanodollars == 1_000 + 19_000


def test_unpriced_cached_tokens_are_counted_apart(shop: Any, basis: PriceBasis) -> None:
    """Tokens of a model without a price save an amount that nobody knows."""
    shop.fill(shop.record(cached_tokens=2), shop.record(cached_tokens=5, model="unheard-of"))
    cache = reported(shop, basis).cache
    assert (cache.saved_nanodollars, cache.unpriced_cached_tokens) == (3_000, 5)


def test_effective_cost(shop: Any, basis: PriceBasis) -> None:
    """Hardware with its idle time over the tokens: 100 nano-dollars for 147 tokens, half of it idle."""
    shop.sample()
    effective = reported(shop, basis).effective
    assert effective is not None
    assert (effective.hardware_nanodollars, effective.tokens) == (100, 147)
    assert effective.nanodollars_per_million_tokens == round(100 * 10**6 / 147)
    assert effective.nanodollars_per_million_tokens_without_idle == round(50 * 10**6 / 147)
    assert effective.nanodollars_per_million_completion_tokens == round(100 * 10**6 / 112)
    assert effective.idle_ratio == 0.5


def test_break_even(shop: Any, basis: PriceBasis) -> None:
    """At a dollar per million 147 tokens are 147,000 nano-dollars, so one token pays for a machine of 100."""
    shop.sample()
    (each,) = reported(shop, basis).break_even
    assert (each.name, each.as_of) == ("elsewhere/big", "2026-01-01")
    assert (each.there_nanodollars, each.here_nanodollars, each.break_even_tokens) == (147_000, 100, 1)


def test_the_example_of_a_rented_gpu() -> None:
    """3.50 dollars an hour at 3,000 tokens a second and 70 % utilisation are 0.46 dollars per million tokens."""
    tokens = 3_000 * 3_600 * 7 // 10
    sums = dict.fromkeys(SUMS, 0) | {
        "requests": 1,
        "completion_tokens": tokens,
        "shares": 1,
        "gpu_nanodollars": 2_450_000_000,
    }
    idle = dict.fromkeys(SUMS, 0) | {"shares": 1, "gpu_nanodollars": 1_050_000_000}
    groups = [
        Group(0, "t", "", "m", "ok", "", list(sums.values())),
        Group(0, "", "", "", IDLE, "", list(idle.values())),
    ]
    effective = build(Query(start_s=0, end_s=DAY_S), Usage(groups, [], 0), PriceBasis()).effective
    assert effective is not None
    assert round(effective.nanodollars_per_million_tokens / 10**9, 2) == 0.46
    assert effective.idle_ratio == pytest.approx(0.3)


def test_nothing_known_is_nothing_claimed(shop: Any) -> None:
    """Without prices and without a cost of the hardware there are tokens, and notes that say what is missing."""
    shop.fill(shop.record(), shop.record(prompt_tokens=None, completion_tokens=None), gpu_nanodollars=None)
    report = reported(shop, PriceBasis())
    assert (report.total.price_nanodollars, report.total.gpu_nanodollars, report.effective) == (None, None, None)
    assert (report.cache.saved_nanodollars, report.break_even) == (None, ())
    notes = "; ".join(report.notes)
    for words in ("no prices are configured", "cost of the hardware is not known", "of 1 requests no token count"):
        assert words in notes


def test_an_empty_ledger(shop: Any, basis: PriceBasis) -> None:
    """There is a report of nothing, and it says so."""
    with shop.store():
        pass
    report = reported(shop, basis)
    assert (report.total.requests, report.waste, report.effective) == (0, (), None)
    assert "the ledger has no requests yet" in report.notes


def test_one_tenant(shop: Any, basis: PriceBasis) -> None:
    """A tenant's report has its own requests; idle time is nobody's, so what needs it is left out and named."""
    shop.sample()
    report = reported(shop, basis, tenant="acme")
    assert (report.total.requests, [line.name for line in report.tables["tenant"]]) == (3, ["acme"])
    assert (report.idle, report.effective, report.break_even) == (None, None, ())
    assert any("idle time is nobody's" in note for note in report.notes)


def test_a_part_of_a_day(shop: Any, basis: PriceBasis) -> None:
    """A span of minutes holds exactly the requests that arrived in it."""
    shop.fill(shop.record(wall_ns=1_772_366_399 * 10**9), shop.record(wall_ns=1_772_366_400 * 10**9))
    assert reported(shop, basis, **{"from": "2026-03-01T11:30", "to": "2026-03-01T12:00"}).total.requests == 1
    assert reported(shop, basis, **{"from": "2026-03-01T12:00", "to": "2026-03-01T12:01"}).total.requests == 1


def test_sums_that_are_gone_are_named(shop: Any, basis: PriceBasis) -> None:
    """A span that begins before the oldest sum says where the sums begin."""
    shop.sample()
    assert any("begin at 2026-03-01T00:00Z" in note for note in reported(shop, basis).notes)
    assert not any("begin at" in note for note in reported(shop, basis, **{"from": "2026-03-01"}).notes)


COUNTS = st.lists(st.integers(0, 10**15), min_size=len(SUMS), max_size=len(SUMS))
GROUPS = st.builds(
    Group,
    day_s=st.sampled_from([0, DAY_S]),
    tenant=st.sampled_from("ab"),
    feature=st.sampled_from(["", "f"]),
    model=st.sampled_from(["m", "n"]),
    outcome=st.sampled_from([Outcome.OK.value, Outcome.CLIENT_ABORT.value, IDLE]),
    waste=st.sampled_from(["", "aborted", "truncated"]),
    sums=COUNTS,
)


@settings(max_examples=50)
@given(groups=st.lists(GROUPS, max_size=8))
def test_money_adds_up(groups: list[Group]) -> None:
    """To the nano-dollar: each table is the total, and total and idle time are all that was charged."""
    query = Query(start_s=0, end_s=2 * DAY_S, by=("tenant", "feature", "model", "day"), top=1)
    report = build(query, Usage(groups, [], 0), PriceBasis())
    gpu, shares, uncosted = (SUMS.index(name) for name in ("gpu_nanodollars", "shares", "uncosted"))
    if all(group.sums[shares] != group.sums[uncosted] for group in groups) and report.idle is not None:
        booked = (report.total.gpu_nanodollars or 0) + (report.idle.gpu_nanodollars or 0)
        known = report.total.gpu_nanodollars is not None or not any(group.outcome != IDLE for group in groups)
        known &= report.idle.gpu_nanodollars is not None or not any(group.outcome == IDLE for group in groups)
        if known:
            assert booked == sum(group.sums[gpu] for group in groups)
    for lines in report.tables.values():
        assert sum(line.requests for line in lines) == report.total.requests
        assert sum(line.completion_tokens for line in lines) == report.total.completion_tokens
