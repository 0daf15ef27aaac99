"""sketch: what is kept of an embedding keeps angles, depends on the key, and is nothing for what is no direction."""

import random
from math import inf, nan, sqrt

import pytest

from inferwatch_collectors.embeddings.sketch import BUCKETS, MAX_DIMENSIONS, MAX_PLANS, MIN_DIMENSIONS, Sketcher

KEY = b"a secret of the installation"


def gauss(rng: random.Random, size: int) -> list[float]:
    return [rng.gauss(0, 1) for _ in range(size)]


def dot(left: tuple[float, ...], right: tuple[float, ...]) -> float:
    return sum(one * other for one, other in zip(left, right, strict=True))


def numbers(sketcher: Sketcher, vector: list[float]) -> tuple[float, ...]:
    found = sketcher.numbers(vector)
    assert found is not None
    assert len(found) == BUCKETS
    return found


@pytest.mark.parametrize("size", [MIN_DIMENSIONS, 384, 1023, MAX_DIMENSIONS])
def test_angles_are_kept_on_average(size: int) -> None:
    """Over many keys the product of two sketches is that of the two vectors, whatever their length."""
    rng = random.Random(size)
    left = gauss(rng, size)
    right = [0.6 * one + 0.8 * other for one, other in zip(left, gauss(rng, size), strict=True)]
    cosine = dot(tuple(left), tuple(right)) / sqrt(dot(tuple(left), tuple(left)) * dot(tuple(right), tuple(right)))
    found = []
    for key in range(40):
        sketcher = Sketcher(b"key number %016d" % key)
        found.append(dot(numbers(sketcher, left), numbers(sketcher, [3.0 * each for each in right])))
    assert sum(found) / len(found) == pytest.approx(cosine, abs=4 / sqrt(BUCKETS * len(found)))


def test_without_the_key_it_is_another() -> None:
    """The same key gives the same; another one something unrelated. So do the marks of where sketches come from."""
    vector = gauss(random.Random(1), 256)
    mine, theirs = Sketcher(KEY), Sketcher(KEY[::-1])
    assert numbers(mine, vector) == numbers(Sketcher(KEY), vector)
    assert abs(dot(numbers(mine, vector), numbers(theirs, vector))) < 0.5
    sources = {
        mine.source("a", 256),
        mine.source("b", 256),
        mine.source("a", 384),
        theirs.source("a", 256),
        mine.source("a\ud800", 256),
    }
    assert len(sources) == 5
    with pytest.raises(ValueError, match="expected at least 16"):
        Sketcher(b"short")


@pytest.mark.parametrize("odd", [nan, inf, -inf, 1e200])
def test_what_has_no_direction_is_nothing(odd: float) -> None:
    """NaN, infinities, what overflows, and a vector of zeros."""
    sketcher = Sketcher(KEY)
    vector = gauss(random.Random(1), 64)
    vector[5] = odd
    assert sketcher.numbers(vector) is None
    assert sketcher.numbers([0.0] * 64) is None


def test_an_endpoint_that_changes_its_size_does_not_fill_the_memory() -> None:
    """Only a few projections are kept."""
    sketcher = Sketcher(KEY)
    for size in range(8, 8 + 5 * MAX_PLANS):
        assert sketcher.numbers([1.0] * size) is not None
        assert len(sketcher._plans) <= MAX_PLANS
