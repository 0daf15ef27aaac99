"""Where points lie: their mean and covariance, learnt once, and how far another point is from them (Mahalanobis).

A point is *whitened* by it: moved by the mean, and turned and stretched so that those it was learnt from have a
standard deviation of about 1 in every direction. A direction in which they hardly differed weighs as much as any
other, which is why a subject nobody asked about before is seen: most of what it adds is in such directions.

Pure.
"""

from array import array
from collections.abc import Sequence
from math import isfinite, sqrt
from operator import mul
from typing import Final

# Of the covariance so much is taken to be alike in all directions: 512 points do not tell the smallest of 64.
EVEN_SHARE: Final = 0.05

# Of vectors of length 1: closer together than a third of a hundredth is the floating point of who made them.
MIN_VARIANCE: Final = 1e-5


class Moments:
    """Sums over points, on the way to a `Spread`: 17 kB for 64 coordinates."""

    __slots__ = ("_products", "_sums", "points")

    def __init__(self, size: int) -> None:
        self.points = 0
        self._sums = array("d", bytes(8 * size))
        self._products = [array("d", bytes(8 * (place + 1))) for place in range(size)]  # the lower triangle

    def take(self, point: Sequence[float]) -> None:
        """Add a point."""
        self.points += 1
        for place, value in enumerate(point):
            self._sums[place] += value
            have = self._products[place]
            self._products[place] = array("d", [each + value * other for each, other in zip(have, point, strict=False)])

    def spread(self) -> "Spread":
        """Return what was learnt, of one point or more."""
        mean = [each / self.points for each in self._sums]
        covariance = [
            [each / self.points - mean[place] * mean[other] for other, each in enumerate(row)]
            for place, row in enumerate(self._products)
        ]
        even = sum(max(0.0, row[-1]) for row in covariance) / len(mean)
        rows: list[list[float]] = []
        for place, row in enumerate(covariance):  # Cholesky's factor, row by row
            found: list[float] = []
            for other in range(place):
                product = sum(map(mul, found, rows[other]))
                found.append(((1 - EVEN_SHARE) * row[other] - product) / rows[other][other])
            left = (1 - EVEN_SHARE) * row[place] + EVEN_SHARE * even - sum(map(mul, found, found))
            found.append(sqrt(max(MIN_VARIANCE, left)))
            rows.append(found)
        return Spread(array("f", mean), array("f", [each for row in rows for each in row]))


class Spread:
    """Mean and covariance, as a factor of it: 8 kB for 64 coordinates."""

    __slots__ = ("_factor", "_mean")

    def __init__(self, mean: "array[float]", factor: "array[float]") -> None:
        """`factor`: Cholesky's of the covariance, its lower triangle row by row."""
        self._mean = mean
        self._factor = factor

    def whitened(self, point: Sequence[float]) -> list[float]:
        """Return the point as those that were learnt see it."""
        found: list[float] = []
        factor, start = self._factor, 0
        for value, mean in zip(point, self._mean, strict=True):
            end = start + len(found)
            found.append((value - mean - sum(map(mul, factor[start:end], found))) / factor[end])
            start = end + 1
        return found

    def state(self) -> bytes:
        """Return it to be written down."""
        return self._mean.tobytes() + self._factor.tobytes()

    @classmethod
    def of(cls, state: bytes, size: int) -> "Spread":
        """Return what was written down of `size` coordinates.

        Raises:
            ValueError: it is of another size, or holds what no factor does.
        """
        known = array("f")
        known.frombytes(state)
        if len(known) != size + size * (size + 1) // 2:
            raise ValueError(f"{len(known)} numbers for {size} coordinates")
        factor = known[size:]
        if not all(map(isfinite, known)) or min(factor[place * (place + 3) // 2] for place in range(size)) <= 0:
            raise ValueError("a factor that is none")
        return cls(known[:size], factor)
