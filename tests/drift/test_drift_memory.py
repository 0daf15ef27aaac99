"""A stream's own size: what one model and tenant cost in memory, with all features and a rhythm in each."""

import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

from inferwatch.record import RequestRecord
from inferwatch_collectors.drift.features import Direction, Feature, Kind, embedding_features, features
from inferwatch_collectors.drift.following import Followed, Heard
from inferwatch_collectors.drift.meaning import Meaning
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.trigrams import BUCKETS
from inferwatch_collectors.embeddings.sketch import BUCKETS as SKETCH_NUMBERS
from inferwatch_collectors.embeddings.sketch import Sketch

FEATURES = features(text=True)
LIMIT_BYTES = 64 * 1024
LEARNING_LIMIT_BYTES = 84 * 1024
# Of embeddings, beside it: a mean and a covariance of 64 numbers, and nine features.
EMBEDDINGS_LIMIT_BYTES = 20 * 1024
EMBEDDINGS_LEARNING_LIMIT_BYTES = 44 * 1024

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


def test_a_stream_is_small(request_of: Callable[..., RequestRecord], rng: random.Random) -> None:
    """While it is judged no more than 64 kB, whatever was learnt; in the week of learning it has sums for each hour."""
    followed = Followed("m", "acme", FEATURES, 0.0)

    def vote(number: int) -> None:
        hour = number % 168
        shift = 2.0 if hour % 24 < 12 else 0.0
        values = {
            feature.name: rng.gauss(shift, 1)
            if feature.kind is Kind.QUANTITY
            else float(rng.random() < 0.1 + shift / 4)
            for feature in FEATURES
        }
        buckets = [rng.randrange(BUCKETS) for _ in range(20)]
        record = request_of(ttft_s=1.0, gap_count=5, gap_sum_s=1.0)
        followed.vote(record, Heard(values, {Direction.PROMPT: buckets, Direction.ANSWER: buckets}), 5, 0.0, hour)

    for number in range(2_600):
        vote(number)
    learning = size_of(followed, {id(FEATURES), id(followed.of)})
    assert followed.pin(Terms.of(600, risk=0.01, tolerance=0.0), 0.0, 1.0)
    assert followed.watched is not None
    rhythmic = sum(pinned.has_profile for _, pinned in followed.watched.pinned())
    assert rhythmic > len(FEATURES) / 2
    for number in range(200):
        vote(number)
    judging = size_of(followed, {id(FEATURES), id(followed.of), id(followed.watched._places)})
    print(f"{learning} bytes while learning, {judging} while judging")
    assert judging <= LIMIT_BYTES
    assert learning <= LEARNING_LIMIT_BYTES


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
        if number in (500, 600, 800, 2_999):
            learning = max(learning, size_of(meaning, {id(of), id(meaning.of)}))
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
