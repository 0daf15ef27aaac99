"""lax_values: numbers and booleans as vLLM reads them."""

import math
from typing import Any

import pytest

from inferwatch.relay.lax_values import is_false, is_true, whole


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", "on", "T", "True", "y", "YES"], ids=repr)
def test_what_is_true(value: Any) -> None:
    """And not false."""
    assert (is_true(value), is_false(value)) == (True, False)


@pytest.mark.parametrize("value", [False, 0, 0.0, -0.0, "0", "OFF", "f", "False", "n", "no"], ids=repr)
def test_what_is_false(value: Any) -> None:
    """And not true."""
    assert (is_true(value), is_false(value)) == (False, True)


@pytest.mark.parametrize("value", [None, 2, -1, 0.5, math.nan, "", " true", "truthy", [], [True], {}], ids=repr)
def test_what_is_neither(value: Any) -> None:
    """It is refused."""
    assert (is_true(value), is_false(value)) == (False, False)


@pytest.mark.parametrize(
    ("value", "number"),
    [(7, 7), ("7", 7), (" 7 ", 7), (7.0, 7), (-7, 0), (0.5, 0), (True, 0), ("9" * 19, 0), ("²", 0), (math.inf, 0)],
    ids=repr,
)
def test_whole_numbers(value: Any, number: int) -> None:
    """Positive ones; anything else is none."""
    assert whole(value) == number
