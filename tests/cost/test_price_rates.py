"""Rates: dollars as integers, and tokens times a price, to the nano-dollar."""

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch.price_rates import (
    MILLION,
    Rates,
    divide_half_even,
    has_something_to_price,
    nanodollars,
)
from inferwatch.record import Outcome, RequestRecord

Record = Callable[..., RequestRecord]

# Nano-dollars per million tokens, up to 10,000 dollars.
rate = st.integers(0, 10_000 * 10**9)
count = st.integers(0, 10_000_000)
rates = st.builds(Rates, input=rate, cached_input=rate, output=rate, reasoning=rate, per_request=rate)
usage = st.tuples(count, count, count, count)


def cost(price: Rates, tokens: tuple[int, int, int, int], requests: int = 1) -> int:
    found = price.cost(*tokens, requests)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("dollars", "expected"),
    [
        ("0", 0),
        ("0.15", 150_000_000),
        ("15", 15_000_000_000),
        ("0.003625", 3_625_000),
        ("0.000000001", 1),
        ("1E+3", 1_000_000_000_000),
        ("-0.5", -500_000_000),
        ("9999.999999999", 9_999_999_999_999),
    ],
)
def test_dollars_become_whole_nano_dollars(dollars: str, expected: int) -> None:
    """Exactly, also where the precision of Decimal's context would round."""
    with localcontext(prec=3):
        assert nanodollars(Decimal(dollars)) == expected


@pytest.mark.parametrize("dollars", ["0.0000000001", "NaN", "Infinity", "-Infinity", "sNaN"])
def test_what_is_no_whole_number_of_nano_dollars_is_refused(dollars: str) -> None:
    """Rounding a price would be a price nobody wrote."""
    with pytest.raises(ValueError, match="is not a whole number of nano-dollars"):
        nanodollars(Decimal(dollars))


@pytest.mark.parametrize(
    ("numerator", "expected"), [(0, 0), (4, 0), (5, 0), (6, 1), (14, 1), (15, 2), (16, 2), (25, 2), (35, 4)]
)
def test_a_half_goes_to_the_even_neighbour(numerator: int, expected: int) -> None:
    """Divided by 10: 0.5, 2.5 go down, 1.5, 3.5 go up."""
    assert divide_half_even(numerator, 10) == expected


@given(st.integers(0, 10**30), st.integers(1, 10**9))
def test_division_is_the_rounding_of_the_exact_quotient(numerator: int, denominator: int) -> None:
    """As Fraction rounds, which rounds half to even and exactly."""
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


def test_each_kind_of_token_has_its_price() -> None:
    """600 at 1 $, 400 cached at 0.1 $, 150 at 2 $, 50 of reasoning at 4 $ per million, and 0.001 $ for the request."""
    price = Rates.of(
        input=Decimal(1),
        cached_input=Decimal("0.1"),
        output=Decimal(2),
        reasoning=Decimal(4),
        per_request=Decimal("0.001"),
    )

    assert cost(price, (1000, 400, 200, 50)) == 600_000 + 40_000 + 300_000 + 200_000 + 1_000_000


def test_without_prices_of_their_own_cached_costs_as_input_and_reasoning_as_output() -> None:
    """The parts then do not matter."""
    price = Rates.of(input=Decimal(1), cached_input=None, output=Decimal(2))

    assert cost(price, (1000, 400, 200, 50)) == cost(price, (1000, 0, 200, 0)) == 1_400_000


def test_a_price_of_zero_is_a_price() -> None:
    """Free of charge is known; it is not the same as no price."""
    free = Rates.of(input=Decimal(1), cached_input=Decimal(0), output=Decimal(0))

    assert cost(free, (1000, 1000, 200, 50)) == 0


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [(None, 200, None), (1000, None, None), (None, None, None), (0, 0, 0)],
)
def test_a_count_that_is_not_known_leaves_the_cost_unknown(
    prompt: int | None, completion: int | None, expected: int | None
) -> None:
    """Unknown is never 0; 0 is."""
    assert (
        Rates.of(input=Decimal(1), cached_input=None, output=Decimal(2)).cost(prompt, None, completion, None)
        == expected
    )


def test_a_count_that_costs_nothing_need_not_be_known() -> None:
    """An embedding has no completion to count, and its price list says 0."""
    assert Rates.of(input=Decimal(1), cached_input=None, output=Decimal(0)).cost(1000, None, None, None) == 1_000_000


def test_parts_that_were_not_reported_have_the_full_price() -> None:
    """vLLM tells of cached tokens only if asked to: then all of the prompt is input."""
    price = Rates.of(input=Decimal(1), cached_input=Decimal("0.1"), output=Decimal(2), reasoning=Decimal(4))

    assert price.cost(1000, None, 200, None) == 1_400_000


def test_a_part_is_never_more_than_the_whole() -> None:
    """Reasoning of 11 in a completion of 10 has been seen; it is 10 of reasoning."""
    price = Rates.of(input=Decimal(1), cached_input=Decimal("0.1"), output=Decimal(2), reasoning=Decimal(4))

    assert price.cost(10, 12, 10, 11) == price.cost(10, 10, 10, 10) == 1_000 + 40_000


@given(rates, usage)
def test_no_request_costs_less_than_nothing(price: Rates, tokens: tuple[int, int, int, int]) -> None:
    """Whatever an engine reports."""
    assert cost(price, tokens) >= 0


@given(rates, usage, st.integers(0, 1000))
def test_more_tokens_never_cost_less(price: Rates, tokens: tuple[int, int, int, int], more: int) -> None:
    """More prompt or more completion, with the same parts cached and reasoned."""
    prompt, cached, completion, reasoning = tokens
    cached, reasoning = min(cached, prompt), min(reasoning, completion)

    base = cost(price, (prompt, cached, completion, reasoning))

    assert cost(price, (prompt + more, cached, completion, reasoning)) >= base
    assert cost(price, (prompt, cached, completion + more, reasoning)) >= base


@given(rates, usage)
def test_a_discount_on_cached_tokens_never_makes_them_dearer(price: Rates, tokens: tuple[int, int, int, int]) -> None:
    """If cached is cheaper than input, a hit is never dearer than a miss."""
    prompt, cached, completion, reasoning = tokens
    discounted = Rates(
        input=max(price.input, price.cached_input),
        cached_input=min(price.input, price.cached_input),
        output=price.output,
        reasoning=price.reasoning,
        per_request=price.per_request,
    )

    assert cost(discounted, (prompt, cached, completion, reasoning)) <= cost(
        discounted, (prompt, 0, completion, reasoning)
    )


@given(rates, st.lists(usage, min_size=1, max_size=20))
def test_traffic_costs_the_same_however_it_is_divided_but_for_half_a_nano_dollar_a_request(
    price: Rates, requests: list[tuple[int, int, int, int]]
) -> None:
    """The exact sum of all requests, and the sum of their rounded costs, differ by no more than their roundings."""
    whole = [(prompt, min(cached, prompt), out, min(thought, out)) for prompt, cached, out, thought in requests]
    together = tuple(sum(column) for column in zip(*whole, strict=True))

    exact = Fraction(
        (together[0] - together[1]) * price.input
        + together[1] * price.cached_input
        + (together[2] - together[3]) * price.output
        + together[3] * price.reasoning
        + len(whole) * price.per_request * MILLION,
        MILLION,
    )

    assert abs(sum(cost(price, each) for each in whole) - exact) <= Fraction(len(whole), 2)
    assert cost(price, (together[0], together[1], together[2], together[3]), len(whole)) == round(exact)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"operation": "other"}, False),
        ({"outcome": Outcome.REJECTED, "prompt_tokens": None, "completion_tokens": None}, False),
        ({"outcome": Outcome.UPSTREAM_ERROR, "prompt_tokens": None, "completion_tokens": None}, False),
        ({"outcome": Outcome.UPSTREAM_ERROR}, True),
        ({"outcome": Outcome.CLIENT_ABORT, "prompt_tokens": None, "completion_tokens": None}, True),
        ({"outcome": Outcome.INTERRUPTED, "prompt_tokens": None, "completion_tokens": None}, True),
        ({"prompt_tokens": None}, True),
    ],
)
def test_nobody_sends_a_bill_for_what_was_refused_or_is_no_work_for_a_model(
    record: Record, changes: dict[str, object], expected: bool
) -> None:
    """An answer that was cut is another matter: its tokens were made."""
    assert has_something_to_price(record(**changes)) is expected


@pytest.mark.parametrize("operation", ["embeddings", "rerank", "score", "classify", "pooling"])
def test_what_generates_nothing_has_a_completion_of_zero(record: Record, operation: str) -> None:
    """Also at the prices of a chat model, where output is dear."""
    price = Rates.of(input=Decimal(1), cached_input=None, output=Decimal(2))
    counted = record(operation=operation, cached_tokens=None, completion_tokens=None, reasoning_tokens=None)

    assert price.cost_of(counted) == 1_000_000
