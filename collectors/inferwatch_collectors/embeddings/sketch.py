"""From an embedding to a few numbers under the installation's key: what is kept of it, and for no longer than a vote.

The vector is brought to length 1, and thrown into BUCKETS sums: a keyed hash (BLAKE2b) says of each coordinate into
which, and with which sign. That is a random projection that keeps angles nearly (Weinberger et al., "Feature hashing
for large scale multitask learning", ICML 2009): the product of two sketches is on average that of the vectors. Without
the key nobody knows which coordinates are in a sum; with it there are BUCKETS equations for hundreds of unknowns.

Pure.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from math import isfinite, sqrt
from operator import itemgetter, mul
from typing import Final, NamedTuple

BUCKETS: Final = 64

# The largest models have 4,096 or 8,192 coordinates.
MAX_DIMENSIONS: Final = 8_192
MIN_DIMENSIONS: Final = 8

# An endpoint that gives another size each time does not fill the memory.
MAX_PLANS: Final = 4

_KEY_USE: Final = b"iw-drift-embed"  # blake2b's `person`: two uses of one secret give unrelated hashes
_MODEL_USE: Final = b"iw-drift-embmod"
_WORDS: Final = 32  # of two bytes, from one hash


class Sketch(NamedTuple):
    """What is kept of one embedding."""

    source: str  # which model made it, of how many coordinates, under which key: sketches of another are another thing
    numbers: tuple[float, ...]  # BUCKETS of them


class _Plan(NamedTuple):
    order: Callable[
        [Sequence[float]], tuple[float, ...]
    ]  # coordinates, bucket by bucket, those added before those taken
    edges: tuple[tuple[int, int, int], ...]  # of each bucket: begin, where those taken away begin, end


class Sketcher:
    """The secret projection. One a process; 16 bytes for each coordinate."""

    def __init__(self, key: bytes) -> None:
        """`key` is of 16 bytes or more.

        Raises:
            ValueError: it is too short.
        """
        if len(key) < 16:
            raise ValueError(f"key of {len(key)} bytes, expected at least 16")
        self._key = key[:64]
        self._plans: dict[int, _Plan] = {}

    def source(self, model: str, dimensions: int) -> str:
        """Return what tells sketches of one model from those of another, and of this key from those of another."""
        data = f"{dimensions}\0{model}".encode("utf-8", "replace")
        return hashlib.blake2b(data, digest_size=8, key=self._key, person=_MODEL_USE).hexdigest()

    def numbers(self, vector: Sequence[float]) -> tuple[float, ...] | None:
        """Return the sketch of a vector of MIN_DIMENSIONS to MAX_DIMENSIONS; None if it has no direction, or one of its
        coordinates is no number.
        """
        length = sqrt(square) if isfinite(square := sum(map(mul, vector, vector))) else 0.0
        if length <= 0:
            return None
        plan = self._plans.get(len(vector)) or self._plan(len(vector))
        values = plan.order(vector)
        return tuple(
            (sum(values[begin:middle]) - sum(values[middle:end])) / length for begin, middle, end in plan.edges
        )

    def _plan(self, dimensions: int) -> _Plan:
        halves: list[list[int]] = [[] for _ in range(2 * BUCKETS)]
        for place in range(0, dimensions, _WORDS):
            digest = hashlib.blake2b(
                place.to_bytes(4, "big"), digest_size=2 * _WORDS, key=self._key, person=_KEY_USE
            ).digest()
            for offset in range(min(_WORDS, dimensions - place)):
                word = int.from_bytes(digest[2 * offset : 2 * offset + 2], "big")
                halves[word % (2 * BUCKETS)].append(place + offset)
        ends = tuple(accumulate((len(half) for half in halves), initial=0))
        spans = list(pairwise(ends))
        edges = tuple((plus[0], plus[1], minus[1]) for plus, minus in zip(spans[::2], spans[1::2], strict=True))
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        found = self._plans[dimensions] = _Plan(itemgetter(*(place for half in halves for place in half)), edges)
        return found
