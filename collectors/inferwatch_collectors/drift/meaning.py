"""What the prompts of one model and tenant are about, by their embeddings: a detector of its own beside that of
`Followed`, because not every vote has an embedding, and because another embedding model makes another reference.

Learnt in three steps, from different prompts: mean and covariance of the first SPREAD_VOTES sketches, then edges, then
counts. Of each sketch after that come how near it is to those first ones (`likeness`), and a few sums of its whitened
numbers, each a feature. Kept are mean, covariance and counts; while the first two are summed up they are not written
down, so that no file has the sketch of one prompt.

Pure: time comes from the caller.
"""

from collections.abc import Sequence
from math import sqrt
from operator import mul
from typing import Final

import msgspec

from inferwatch_collectors.drift.features import LIKENESS
from inferwatch_collectors.drift.judging import Judging
from inferwatch_collectors.drift.reference import Terms
from inferwatch_collectors.drift.spread import Moments, Spread
from inferwatch_collectors.drift.stream import Lesson, LessonState, WatchedState
from inferwatch_collectors.drift.written import Count, UnixTime
from inferwatch_collectors.embeddings.sketch import BUCKETS, Sketch

# Eight for each coordinate of a sketch.
SPREAD_VOTES: Final = 8 * BUCKETS

# One odd reply is no other model; so many sketches of another in a row are.
OTHERS: Final = 32


class MeaningState(msgspec.Struct, array_like=True):
    """What is written down."""

    source: str
    begun_s: UnixTime
    number: Count
    count: int  # numbers that an embedding is projected to
    spread: bytes  # empty: not known yet
    lesson: LessonState | None
    watched: WatchedState | None


class Meaning(Judging):
    """One of them, of `features.embedding_features`."""

    def learn_anew(self, wall_s: float) -> None:
        """Forget the reference, if there is one, and learn another one."""
        super().learn_anew(wall_s)
        self.source = ""  # whose sketches these are
        self._others = 0  # sketches of another in a row
        self._moments = Moments(BUCKETS)
        self._spread: Spread | None = None

    @property
    def votes(self) -> int:
        """How many were counted since the spread is known, or since the reference is pinned."""
        return self.watched.votes if self.watched is not None else 0 if self.lesson is None else self.lesson.votes

    def vote(self, sketch: Sketch, now_weeks: float, hour: int, wall_s: float) -> bool:
        """Take the sketch of a prompt; True if another model makes them from now on: what was known is of no use."""
        other = bool(self.source) and sketch.source != self.source
        self._others = self._others + 1 if other else 0
        if other and self._others < OTHERS:
            return False
        if other:
            self.learn_anew(wall_s)
        self.source = sketch.source
        if self._spread is None:
            self._learn(sketch.numbers, wall_s)
            return other
        values = self._values(self._spread.whitened(sketch.numbers))
        if self.watched is not None:
            self.watched.vote(values, now_weeks, hour)
        elif self.lesson is not None:
            self.lesson.vote(values, hour)
        return other

    def _learn(self, numbers: Sequence[float], wall_s: float) -> None:
        if not self._moments.points:
            self.begun_s = wall_s  # not when its stream began: embeddings may be made since yesterday
            if self.lesson is not None:
                self.lesson.learnt_s = 0.0
        self._moments.take(numbers)
        if self._moments.points >= SPREAD_VOTES:
            self._spread = self._moments.spread()
            self._moments = Moments(0)

    def _values(self, whitened: Sequence[float]) -> dict[str, float | None]:
        values: dict[str, float | None] = {LIKENESS.name: -sqrt(sum(map(mul, whitened, whitened)))}
        count = len(self.of) - 1
        for place, feature in enumerate(self.of[1:]):
            values[feature.name] = sum(whitened[place::count])
        return values

    def state(self) -> MeaningState:
        """Return it to be written down."""
        known = self._spread is not None
        return MeaningState(
            self.source if known else "",
            int(self.begun_s) if known else 0,
            self.number,
            len(self.of) - 1,
            b"" if self._spread is None else self._spread.state(),
            self.lesson.state() if known and self.lesson is not None else None,
            self.watched_state(),
        )

    def take_back(self, state: MeaningState, terms: Terms, now_weeks: float) -> None:
        """Take up what was written down.

        Raises:
            ValueError: it does not fit together.
        """
        self.number = state.number
        if not state.spread:
            return
        self._spread, self._moments = Spread.of(state.spread, BUCKETS), Moments(0)
        self.source, self.begun_s = state.source, state.begun_s
        if state.lesson is not None:
            self.lesson = Lesson.of(state.lesson, self.of)
        if state.watched is not None:
            self.resume(state.watched, terms, now_weeks)
