"""A stream's own size: what one model and tenant cost in memory, with all features and a rhythm in each."""

import random
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from inferwatch.record import RequestRecord
from inferwatch_collectors.drift.features import RECORD_FEATURES, Direction, Feature, Kind, embedding_features, features
from inferwatch_collectors.drift.following import WORD_VOTES, Followed, Heard
from inferwatch_collectors.drift.learning import EDGE_VOTES
from inferwatch_collectors.drift.meaning import Meaning
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.trigrams import BUCKETS
from inferwatch_collectors.embeddings.sketch import BUCKETS as SKETCH_NUMBERS
from inferwatch_collectors.embeddings.sketch import Sketch

FEATURES = features(text=True)
LIMIT_BYTES = 64 * 1024
# Of embeddings, beside it: a mean and a covariance of 64 numbers, and nine features.
EMBEDDINGS_LIMIT_BYTES = 20 * 1024
EMBEDDINGS_LEARNING_LIMIT_BYTES = 25 * 1024

# Objects that all streams share: code, the table of features, rows of bets.
SHARED = (type, str, Feature, Terms, Kind, Direction)


def size_of(thing: Any, seen: set[int]) -> int:
    """Return the bytes of an object and of all that it alone refers to."""
    if id(thing) in seen or isinstance(thing, SHARED):
        return 0
    seen.add(id(thing))
    parts: Iterable[Any] = ()
    if isinstance(thing, dict):
        parts = [*thing, *thing.values()]
    elif isinstance(thing, tuple | list):
        parts = thing
    elif type(thing).__module__.startswith("inferwatch"):
        names = [name for owner in type(thing).__mro__ for name in getattr(owner, "__slots__", ())]
        own = getattr(thing, "__dict__", {})
        parts = [*(getattr(thing, name) for name in names if hasattr(thing, name)), *own.values()]
        if own:
            seen.add(id(own))
            return sys.getsizeof(thing) + sys.getsizeof(own) + sum(size_of(part, seen) for part in parts)
    return sys.getsizeof(thing) + sum(size_of(part, seen) for part in parts)


class Stream:
    """One with a rhythm in every feature. Votes are numbered: number 511 is the first that is counted."""

    def __init__(self, make: Callable[..., RequestRecord], rng: random.Random) -> None:
        self.followed = Followed("m", "acme", FEATURES, 0.0)
        self._make = make
        self._rng = rng
        self._number = 0
        self.most = 0  # bytes, of all that was looked at

    def vote(self, count: int, of: Sequence[Feature] = FEATURES) -> None:
        """Let so many vote, with values of these features."""
        for _ in range(count):
            hour = self._number % 168
            shift = 2.0 if hour % 24 < 12 else 0.0
            values = {
                feature.name: self._rng.gauss(shift, 1)
                if feature.kind is Kind.QUANTITY
                else float(self._rng.random() < 0.1 + shift / 4)
                for feature in of
            }
            buckets = [self._rng.randrange(BUCKETS) for _ in range(20)]
            heard = Heard(values, {Direction.PROMPT: buckets, Direction.ANSWER: buckets})
            self.followed.vote(self._make(ttft_s=1.0, gap_count=5, gap_sum_s=1.0), heard, 5, 0.0, hour)
            self._number += 1
            if self._number % 100 == 0 or self._number % EDGE_VOTES > EDGE_VOTES - 4:
                self.most = max(self.most, self.size())

    def size(self) -> int:
        """Return how many bytes it has."""
        followed = self.followed
        stage = followed.watched or followed.lesson
        return size_of(followed, {id(FEATURES), id(followed.of), id(getattr(stage, "_places", None))})


@pytest.mark.parametrize("texts_late", [False, True], ids=["all at once", "texts last"])
def test_a_stream_is_small(request_of: Callable[..., RequestRecord], rng: random.Random, *, texts_late: bool) -> None:
    """No more than 64 kB: while it learns what words are like, has the values that make the edges (most of all, while
    the rest is counted already), counts, is judged."""
    stream = Stream(request_of, rng)
    stream.vote(WORD_VOTES)
    if texts_late:
        stream.vote(512, RECORD_FEATURES)
    stream.vote(2_100)
    followed = stream.followed
    assert followed.pin(Terms.of(600, risk=0.01, tolerance=0.0), 0.0, 1.0)
    assert followed.watched is not None
    assert not followed.watched.off
    rhythmic = sum(pinned.has_profile for _, pinned in followed.watched.pinned())
    assert rhythmic > len(FEATURES) / 2
    stream.vote(200)
    print(f"{stream.most} bytes while learning, {stream.size()} while judging")
    assert stream.size() <= LIMIT_BYTES
    assert stream.most <= LIMIT_BYTES


def test_embeddings_are_small_beside_it(rng: random.Random) -> None:
    """While sums, edges, counts are learnt, and while they are judged; with a rhythm in every feature."""
    of = embedding_features(8)
    meaning = Meaning(of, 0.0)

    def vote(number: int) -> None:
        hour = number % 168
        shift = 0.3 if hour % 24 < 12 else 0.0
        meaning.vote(Sketch("e5", tuple(rng.gauss(shift, 0.12) for _ in range(SKETCH_NUMBERS))), 0.0, hour, 0.0)

    learning = 0
    for number in range(3_000):
        vote(number)
        if number % 100 == 99 or number % EDGE_VOTES > EDGE_VOTES - 4:
            places = None if meaning.lesson is None else meaning.lesson._places
            learning = max(learning, size_of(meaning, {id(of), id(meaning.of), id(places)}))
    assert meaning.take_up(1_000, Terms.of(600, risk=0.01, tolerance=0.0), 0.0, 1.0)
    assert meaning.watched is not None
    rhythmic = sum(pinned.has_profile for _, pinned in meaning.watched.pinned())
    assert rhythmic > len(of) / 2
    for number in range(200):
        vote(number)
    judging = size_of(meaning, {id(of), id(meaning.of), id(meaning.watched._places)})
    print(f"{learning} bytes while learning, {judging} while judging")
    assert judging <= EMBEDDINGS_LIMIT_BYTES
    assert learning <= EMBEDDINGS_LEARNING_LIMIT_BYTES
