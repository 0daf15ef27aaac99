"""Exact division of whole amounts: over shares, over time, over rates. Nothing is lost and nothing is made."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction


class Carry:
    """Multiplies amounts by a rate into whole numbers; what is left over goes into the next one.

    So the results, summed, are the floor of the exact sum, however the amounts were cut up.
    """

    __slots__ = ("rest",)

    def __init__(self, rest: Fraction = Fraction(0)) -> None:
        self.rest = rest

    def take(self, amount: int, rate: Fraction) -> int:
        """Return `amount` times `rate` (neither below 0), and keep what is less than 1."""
        exact = amount * rate + self.rest
        whole = exact.numerator // exact.denominator
        self.rest = exact - whole
        return whole


def divide(amount: int, weights: Sequence[int]) -> list[int]:
    """Divide `amount` in proportion to `weights`, exactly: each part is within one unit of its true share.

    Each part is the growth of a sum that is rounded down, so the parts sum to `amount`.

    Raises:
        ZeroDivisionError: no weight is above 0.
    """
    total = sum(weights)
    parts: list[int] = []
    before = weight = 0
    for each in weights:
        weight += each
        upto = amount * weight // total
        parts.append(upto - before)
        before = upto
    return parts


def spread(amount: int, start_ns: int, end_ns: int, interval_ns: int) -> Iterator[tuple[int, int]]:
    """Yield (index, part) of `amount` spread evenly over [start_ns, end_ns), cut at multiples of `interval_ns`.

    Where the time is empty, all is in the interval of `start_ns`.
    """
    first = start_ns // interval_ns
    if end_ns <= start_ns or end_ns <= (first + 1) * interval_ns:
        yield first, amount
        return
    before = 0
    duration_ns = end_ns - start_ns
    for index in range(first, (end_ns - 1) // interval_ns + 1):
        upto = amount * (min(end_ns, (index + 1) * interval_ns) - start_ns) // duration_ns
        yield index, upto - before
        before = upto


def covered_ns(spans: Iterable[tuple[int, int]], start_ns: int, end_ns: int) -> int:
    """Return how much of [start_ns, end_ns) lies in at least one of `spans`."""
    inside: list[tuple[int, int]] = []
    for low, high in spans:
        if low <= start_ns and high >= end_ns:
            return end_ns - start_ns
        if low < end_ns and high > start_ns:
            inside.append((max(low, start_ns), min(high, end_ns)))
    covered = 0
    reached = start_ns
    for low, high in sorted(inside):
        if high > reached:
            covered += high - max(low, reached)
            reached = high
    return covered
