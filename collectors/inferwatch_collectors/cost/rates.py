"""Token prices as integers. They live in `inferwatch.price_rates`, since the relay reserves by the same prices."""

from inferwatch.price_rates import (
    GENERATES_NOTHING,
    MILLION,
    NANO,
    NO_OPERATION,
    Rates,
    divide_half_even,
    has_something_to_price,
    nanodollars,
)

__all__ = [
    "GENERATES_NOTHING",
    "MILLION",
    "NANO",
    "NO_OPERATION",
    "Rates",
    "divide_half_even",
    "has_something_to_price",
    "nanodollars",
]
