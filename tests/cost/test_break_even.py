"""Break-even: how many tokens an hour make own hardware the cheaper one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferwatch_collectors.cost.break_even import tokens_per_hour

DOLLAR = 10**9

amount = st.integers(0, 10**15)


def test_the_hardware_is_paid_for_by_so_many_tokens() -> None:
    """2 $ an hour against 0.50 $ per million tokens: 4 million an hour."""
    assert (
        tokens_per_hour(hardware_nanodollars_per_hour=2 * DOLLAR, tokens=1_000_000, comparison_nanodollars=DOLLAR // 2)
        == 4_000_000
    )


def test_what_tokens_cost_here_puts_the_point_off() -> None:
    """Energy of 0.10 $ per million leaves 0.40 $ of the 0.50 $ to pay for the hardware."""
    assert (
        tokens_per_hour(
            hardware_nanodollars_per_hour=2 * DOLLAR,
            tokens=1_000_000,
            comparison_nanodollars=DOLLAR // 2,
            own_nanodollars=DOLLAR // 10,
        )
        == 5_000_000
    )


@pytest.mark.parametrize(("tokens", "comparison", "own"), [(0, 0, 0), (0, 5, 0), (10, 0, 0), (10, 5, 5), (10, 5, 6)])
def test_where_no_number_is_enough_there_is_no_number(tokens: int, comparison: int, own: int) -> None:
    """No traffic to take the mix from, or nothing saved by it: absent, not 0 and not infinite."""
    assert (
        tokens_per_hour(
            hardware_nanodollars_per_hour=DOLLAR, tokens=tokens, comparison_nanodollars=comparison, own_nanodollars=own
        )
        is None
    )


def test_hardware_that_costs_nothing_is_the_cheaper_one_from_the_start() -> None:
    """0 tokens are enough."""
    assert tokens_per_hour(hardware_nanodollars_per_hour=0, tokens=10, comparison_nanodollars=5) == 0


@pytest.mark.parametrize(
    "negative", ["hardware_nanodollars_per_hour", "tokens", "comparison_nanodollars", "own_nanodollars"]
)
def test_negative_amounts_are_refused(negative: str) -> None:
    """They are somebody's mistake."""
    amounts = {"hardware_nanodollars_per_hour": 1, "tokens": 1, "comparison_nanodollars": 1, "own_nanodollars": 0}

    with pytest.raises(ValueError, match="amounts cannot be negative"):
        tokens_per_hour(**amounts | {negative: -1})


@given(amount, st.integers(1, 10**12), st.integers(1, 10**15), amount)
def test_at_the_point_it_pays_and_one_token_before_it_does_not(
    hardware: int, tokens: int, comparison: int, own: int
) -> None:
    """Exactly, without floats."""
    point = tokens_per_hour(
        hardware_nanodollars_per_hour=hardware,
        tokens=tokens,
        comparison_nanodollars=comparison + own,
        own_nanodollars=own,
    )

    assert point is not None
    assert point * comparison >= hardware * tokens
    assert point == 0 or (point - 1) * comparison < hardware * tokens
