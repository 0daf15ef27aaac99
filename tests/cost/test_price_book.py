"""The price book: which rule is for which request."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch import price_book as prices
from inferwatch.price_book import NO_PRICE, NO_TOKENS, PriceBook
from inferwatch.record import RequestRecord
from inferwatch.settings.prices import PriceRule

Record = Callable[..., RequestRecord]
Rule = Callable[..., PriceRule]

DAY_NS = prices.NS_PER_DAY


def dollars_per_million(book: PriceBook, model: str, tenant: str = "acme", wall_ns: int = 0) -> int | None:
    """Return the whole dollars that input costs."""
    rates = book.rates(model, tenant, wall_ns)
    return None if rates is None else rates.input // 10**9


@pytest.mark.parametrize(
    ("pattern", "model", "matches"),
    [
        ("qwen3-8b", "qwen3-8b", True),
        ("qwen3-8b", "qwen3-8b-awq", False),
        ("qwen3-8b", "Qwen3-8B", False),
        ("qwen3.8b", "qwen3-8b", False),
        ("qwen*", "qwen3-8b", True),
        ("qwen*", "my-qwen", False),
        ("*/Llama-3.?-70B*", "meta-llama/Llama-3.3-70B-Instruct", True),
        ("llama-[34]*", "llama-4-scout", True),
        ("llama-[34]*", "llama-2", False),
        ("*", "", True),
        ("*", "two\nlines", True),
        ("qwen", "qwen\n", False),
    ],
)
def test_a_rule_is_for_a_model_or_a_pattern_of_models(rule: Rule, pattern: str, model: str, matches: bool) -> None:
    """Case counts, a dot is a dot, and nothing may follow."""
    assert (PriceBook([rule(model=pattern)]).rates(model, "acme", 0) is not None) is matches


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("model", "tenant", "expected"),
    [
        ("qwen3-8b", "acme", 1),  # of the tenant, exact
        ("qwen3-32b", "acme", 2),  # of the tenant, a pattern: wins over everybody's exact one
        ("qwen3-8b", "globex", 3),  # everybody's, exact
        ("qwen3-coder", "globex", 4),  # everybody's, the longer pattern
        ("qwen2", "globex", 5),
        ("llama", "globex", 6),
    ],
)
def test_the_most_particular_rule_wins(rule: Rule, order: int, model: str, tenant: str, expected: int) -> None:
    """Tenant before everybody, exact before pattern, longer before shorter; the order in the file does not matter."""
    rules = [
        rule(model="qwen3-8b", tenant="acme", input=1),
        rule(model="*", tenant="acme", input=2),
        rule(model="qwen3-8b", input=3),
        rule(model="qwen3-32b", input=3),
        rule(model="qwen3*", input=4),
        rule(model="qwen*", input=5),
        rule(model="*", input=6),
    ]

    assert dollars_per_million(PriceBook(rules[::order]), model, tenant) == expected


def test_of_two_patterns_with_as_many_letters_the_first_in_the_file_wins(rule: Rule) -> None:
    """Somebody has to."""
    book = PriceBook([rule(model="*-8b", input=1), rule(model="qwe*", input=2)])

    assert dollars_per_million(book, "qwen3-8b") == 1


@pytest.mark.parametrize(
    ("wall_ns", "expected"),
    [
        (10 * DAY_NS - 1, None),
        (10 * DAY_NS, 1),
        (20 * DAY_NS - 1, 1),
        (20 * DAY_NS, 2),
        (10_000 * DAY_NS, 2),
    ],
)
def test_a_price_begins_and_ends_at_midnight_utc(rule: Rule, wall_ns: int, expected: int | None) -> None:
    """The first day is in, the day of `valid_until` is the next price's."""
    book = PriceBook(
        [
            rule(input=1, valid_from="1970-01-11", valid_until="1970-01-21"),
            rule(input=2, valid_from="1970-01-21"),
        ]
    )

    assert dollars_per_million(book, "qwen3-8b", wall_ns=wall_ns) == expected


def test_where_the_particular_rule_has_run_out_the_general_one_holds(rule: Rule) -> None:
    """A discount that ends does not leave its tenant without a price."""
    book = PriceBook([rule(model="qwen3-8b", tenant="acme", input=1, valid_until="1970-01-11"), rule(input=2)])

    assert dollars_per_million(book, "qwen3-8b", wall_ns=0) == 1
    assert dollars_per_million(book, "qwen3-8b", wall_ns=10 * DAY_NS) == 2


def test_a_request_has_the_price_of_the_day_on_which_it_arrived(rule: Rule, record: Record) -> None:
    """Not of the day on which it was finished, booked, or told again after a crash."""
    book = PriceBook([rule(input=1, valid_until="2026-07-01"), rule(input=3, valid_from="2026-07-01")])
    before_midnight = record()
    after = record(wall_ns=before_midnight.wall_ns + 1)

    assert book.price(before_midnight) == 1000 * 1_000 + 200 * 2_000
    assert book.price(after) == 1000 * 3_000 + 200 * 2_000


def test_a_model_under_an_alias_has_the_price_of_what_the_engine_calls_it(rule: Rule, record: Record) -> None:
    """The name that was asked for comes first, the engine's own second."""
    book = PriceBook([rule(model="qwen3-8b", input=1), rule(model="default", input=3)])

    assert book.price(record(model="default", engine_model="qwen3-8b")) == book.price(record(model="default"))
    assert book.price(record(model="fast", engine_model="qwen3-8b")) == book.price(record())
    assert book.price(record(model="", engine_model="qwen3-8b")) == book.price(record())
    assert book.price(record(model="fast")) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "llama"}, NO_PRICE),
        ({"prompt_tokens": None}, NO_TOKENS),
        ({"completion_tokens": None}, NO_TOKENS),
        ({"model": "llama", "prompt_tokens": None}, NO_PRICE),
        ({"operation": "other", "prompt_tokens": None, "completion_tokens": None}, ""),
    ],
)
def test_what_has_no_price_has_a_reason(rule: Rule, record: Record, changes: dict[str, Any], reason: str) -> None:
    """Absent, never 0; and routes that are no work for a model are not missing one."""
    book = PriceBook([rule(model="qwen*")])

    assert book.price(record(**changes)) is None
    assert book.why_unpriced(record(**changes)) == reason


def test_a_price_per_request_is_not_for_health_checks(rule: Rule, record: Record) -> None:
    """Nor for requests that were refused."""
    book = PriceBook([rule(input=0, output=0, per_request="0.01")])

    assert book.price(record()) == 10_000_000
    assert book.price(record(operation="other", prompt_tokens=None, completion_tokens=None)) is None


def test_a_book_without_rules_is_empty(rule: Rule, record: Record) -> None:
    """Then the basis is off."""
    assert not PriceBook()
    assert PriceBook([rule()])
    assert PriceBook().price(record()) is None


def test_clients_that_invent_models_do_not_fill_memory(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is bounded, and forgetting it changes no price."""
    monkeypatch.setattr(prices, "MAX_REMEMBERED", 3)
    book = PriceBook([rule(model="m*")])

    for number in range(10):
        assert dollars_per_million(book, f"m{number}") == 1
        assert dollars_per_million(book, f"x{number}") is None
        assert len(book._remembered) <= 3


@given(st.lists(st.sampled_from(["*", "q*", "qwen*", "qwen", "*n", "?wen", "acme"]), unique=True), st.text("qwen"))
def test_remembering_changes_no_answer(patterns: list[str], model: str) -> None:
    """Asked twice, and asked anew, a book says the same."""
    rules = [
        PriceRule(model=pattern, input=Decimal(index), output=Decimal(0)) for index, pattern in enumerate(patterns)
    ]
    book = PriceBook(rules)

    first = book.rates(model, "acme", 0)

    assert book.rates(model, "acme", 0) == first == PriceBook(rules).rates(model, "acme", 0)
