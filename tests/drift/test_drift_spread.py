"""spread: points are seen as those that were learnt, and what is written down is the same again."""

import random
from math import sqrt

import pytest

from inferwatch_collectors.drift.spread import MIN_VARIANCE, Moments, Spread

SIZE = 6


def points(rng: random.Random, count: int, shift: float = 0.0) -> list[list[float]]:
    """Return points that are long in one direction and thin in another."""
    found = []
    for _ in range(count):
        base = [rng.gauss(0, 1) for _ in range(SIZE)]
        found.append([shift + 3 * base[0], 3 * base[0] + 0.1 * base[1], *(0.5 * each for each in base[2:])])
    return found


def learnt(of: list[list[float]]) -> Spread:
    moments = Moments(SIZE)
    for point in of:
        moments.take(point)
    return moments.spread()


def test_what_was_learnt_is_of_variance_1_in_every_direction(rng: random.Random) -> None:
    """But for the part of the covariance that is taken to be even; and its mean is 0."""
    known = points(rng, 4_000, shift=5.0)
    spread = learnt(known)
    seen = [spread.whitened(point) for point in known]
    for place in range(SIZE):
        values = [point[place] for point in seen]
        mean = sum(values) / len(values)
        assert mean == pytest.approx(0, abs=0.01)
        assert 0.1 < sqrt(sum((each - mean) ** 2 for each in values) / len(values)) <= 1.05


def test_a_small_step_where_nobody_stood_is_far(rng: random.Random) -> None:
    """A step across the thin direction is farther than a long one along the others."""
    spread = learnt(points(rng, 4_000))

    def far(point: list[float]) -> float:
        return sqrt(sum(each * each for each in spread.whitened(point)))

    along, across = [3.0, 3.0, 0, 0, 0, 0], [1.5, -1.5, 0, 0, 0, 0]
    assert far(across) > 2 * far(along)


def test_points_that_are_all_alike_are_no_fault() -> None:
    """Nothing is divided by nothing; noise of floating point is not far."""
    spread = learnt([[0.3] * SIZE for _ in range(100)])
    assert spread.whitened([0.3] * SIZE) == pytest.approx([0.0] * SIZE, abs=1e-3)
    assert max(map(abs, spread.whitened([0.3 + sqrt(MIN_VARIANCE) / 10] * SIZE))) < 1


def test_it_is_written_down_and_read(rng: random.Random) -> None:
    """The same, and 4 bytes for each number."""
    spread = learnt(points(rng, 500))
    data = spread.state()
    assert len(data) == 4 * (SIZE + SIZE * (SIZE + 1) // 2)
    point = [0.1, -0.2, 0.3, 0.4, -0.5, 0.6]
    assert Spread.of(data, SIZE).whitened(point) == spread.whitened(point)


@pytest.mark.parametrize("data", [b"", b"\0" * 108, b"\0" * 104, b"\xff" * 108, b"\0" * 107])
def test_what_is_no_spread_is_refused(data: bytes) -> None:
    """Of another size, or with what no factor has on its diagonal."""
    with pytest.raises(ValueError):  # noqa: PT011 - array's own words for the last
        Spread.of(data, SIZE)
