"""One model for one tenant: from a reference that is learnt, to a detector that is judged by it.

* **Learning.** Each vote is counted. With text, the first `WORD_VOTES` votes teach what its trigrams are like, and
  votes are counted after that, so that likeness is not measured with the texts it was learnt from.
* **Judging**, once pinned. Each vote moves the bets of each feature that it has a value for. A feature without a
  reference (nobody streamed while it was learnt) is off, and says so.
* **Effects.** Beside the evidence, the last thousand votes or so by bin, fading: how much it is, once it is sure that
  it is.

A value is a finite number or None; NaN and infinities are None here. Prices are made anew when the hour changes.

Pure: time comes from the caller, in weeks of a clock that never goes back, and as the hour of the week.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import isfinite
from operator import mul
from typing import Final

import msgspec

from inferwatch_collectors.drift.betting import BETS, CEILING_WEEKS, bet
from inferwatch_collectors.drift.bins import psi, wasserstein
from inferwatch_collectors.drift.effects import Effect, by_evidence
from inferwatch_collectors.drift.features import Direction, Feature, Kind
from inferwatch_collectors.drift.learning import EDGE_VOTES, Learning, LearningState
from inferwatch_collectors.drift.profile import HOURS_OF_WEEK
from inferwatch_collectors.drift.reference import Pinned, PinnedState, Terms, is_steady
from inferwatch_collectors.drift.written import Count, Span
from inferwatch_collectors.wall_time import HOUR_S

# A vote weighs half after 700 others: recent enough to be "now", enough of them for a share of 1 %.
MEMORY_VOTES: Final = 1_000.0
FADING: Final = 1.0 + 1.0 / MEMORY_VOTES
# Weights grow instead of all bins fading; they are brought back before a 32-bit float loses anything.
MAX_WEIGHT: Final = 1e6

Values = Mapping[str, float | None]


@lru_cache(maxsize=64)
def _places(features: tuple[Feature, ...]) -> Mapping[str, int]:
    """Return the place of each by name. Most streams have the same features, and share it."""
    return {feature.name: place for place, feature in enumerate(features)}


class Watched:
    """The features of one stream, judged by a reference. `weeks` is the evidence of all of them.

    What changes with each vote lies side by side in arrays for all features, BETS or bins each.
    """

    def __init__(self, pinned: Mapping[Feature, Pinned], of: Sequence[Feature], terms: Terms, now_weeks: float) -> None:
        """`of`: all that are looked at; those without a reference are off, and nothing is staked on them."""
        self._whole = sum(feature.weight for feature in pinned)
        self._features = tuple(pinned)
        self._pinned = tuple(pinned.values())
        self._places = _places(self._features)
        self.off = tuple(feature for feature in of if feature.name not in self._places)
        self._terms = terms
        self._steady = is_steady(self._pinned)
        self._hour = -1
        self._weight = 1.0
        self.votes = 0
        self._held = array("f", bytes(4 * BETS * len(pinned)))
        self._prices = array("f", self._held)
        self._at_weeks = array("d", [now_weeks]) * len(pinned)
        self._ceilings = array("f", [self._ceiling(*each) for each in pinned.items()])
        bins = [len(each.edges) + 1 for each in self._pinned]
        self._starts = array("H", accumulate(bins, initial=0))  # of each feature's bins
        self._recent = array("f", bytes(4 * sum(bins)))

    def _ceiling(self, feature: Feature, pinned: Pinned) -> float:
        """How much one bet may have: the least is then worth `most_weeks` alone."""
        return min(CEILING_WEEKS, self._terms.most_weeks * self._whole / (feature.weight * min(pinned.stakes)))

    def _of(self, place: int) -> float:
        """The evidence of one feature, by itself."""
        found: float = sum(map(mul, self._held[place * BETS : (place + 1) * BETS], self._pinned[place].stakes))
        return found

    @property
    def weeks(self) -> float:
        """What evidence there is: a false alarm at so much comes no sooner, on average, than after so many weeks."""
        return sum(feature.weight * self._of(place) for place, feature in enumerate(self._features)) / self._whole

    def weeks_by_direction(self) -> dict[Direction, float]:
        """Return the parts of the evidence."""
        found = dict.fromkeys(Direction, 0.0)
        for place, feature in enumerate(self._features):
            found[feature.direction] += feature.weight * self._of(place) / self._whole
        return found

    def weeks_by_feature(self) -> Iterator[tuple[Feature, float]]:
        """Yield the part of each in the evidence."""
        for place, feature in enumerate(self._features):
            yield feature, feature.weight * self._of(place) / self._whole

    def vote(self, values: Values, now_weeks: float, hour: int) -> None:
        """Take a request, seen in this hour of the week."""
        if hour != self._hour:
            self._turn(hour)
        self.votes += 1
        self._weight *= FADING
        if self._weight > MAX_WEIGHT:
            self._fade()
        places, held, prices, at_weeks = self._places, self._held, self._prices, self._at_weeks
        for name, value in values.items():
            place = places.get(name)
            if place is None or value is None or not isfinite(value):
                continue
            pinned = self._pinned[place]
            seen = bisect_left(pinned.edges, value)
            row = pinned.row(seen)
            start = place * BETS
            end = start + len(row)
            passed = now_weeks - at_weeks[place]
            have = bet(held[start:end], row, prices[start:end], passed, self._ceilings[place])
            held[start:end] = array("f", have)
            at_weeks[place] = now_weeks
            self._recent[self._starts[place] + seen] += self._weight

    def _turn(self, hour: int) -> None:
        first, self._hour = self._hour < 0, hour
        for place, pinned in enumerate(self._pinned):
            if first or pinned.has_profile:
                found = pinned.prices(hour, self._terms, steady=self._steady)
                self._prices[place * BETS : place * BETS + len(found)] = array("f", found)

    def _fade(self) -> None:
        self._recent = array("f", [each / self._weight for each in self._recent])
        self._weight = 1.0

    def effects(self) -> list[Effect]:
        """Return how each feature is now, those with the most evidence first."""
        hour = max(0, self._hour)
        places = range(len(self._features))
        found = [effect for place in places if (effect := self._effect(place, hour)) is not None]
        return by_evidence(found)

    def _effect(self, place: int, hour: int) -> Effect | None:
        """Return how one feature is now; None before anything was seen."""
        recent = self._recent[self._starts[place] : self._starts[place + 1]]
        total = sum(recent)
        if total <= 0:
            return None
        feature, pinned = self._features[place], self._pinned[place]
        before, scores = pinned.shares(hour), pinned.scores
        # As if each bin had been seen once in the time: no share is 0.
        least = 1.0 / MEMORY_VOTES
        now = [(each / total + least) / (1 + least * len(before)) for each in recent]
        flag = pinned.kind is Kind.FLAG
        return Effect(
            feature,
            feature.weight * self._of(place) / self._whole,
            psi(before, now),
            wasserstein(before, now, scores),
            before[1] if flag else _mean(before, scores),
            recent[1] / total if flag else _mean(now, scores),
            pinned.edges,
            before,
            tuple(each / total for each in recent),
        )

    @property
    def has_rhythm(self) -> bool:
        """Whether it depends on the hour."""
        return any(each.has_profile for each in self._pinned)

    def forget(self) -> None:
        """Nobody has anything any more: evidence begins at 0."""
        self._held = array("f", bytes(4 * len(self._held)))

    def held(self) -> dict[str, tuple[float, ...]]:
        """Return what the players of each feature have, to be written down."""
        return {
            feature.name: tuple(self._held[place * BETS : place * BETS + self._pinned[place].bets])
            for place, feature in enumerate(self._features)
        }

    def resume(self, held: Mapping[str, Sequence[float]], votes: int, now_weeks: float) -> None:
        """Take up what was written down. The time in between brought nobody anything."""
        self.votes = votes
        for name, have in held.items():
            place = self._places.get(name)
            if place is None or len(have) != self._pinned[place].bets:
                continue
            if all(0 <= each <= CEILING_WEEKS for each in have):  # NaN is not
                most = self._ceilings[place]  # it may have been higher
                self._held[place * BETS : place * BETS + len(have)] = array("f", [min(each, most) for each in have])
                self._at_weeks[place] = now_weeks

    def pinned(self) -> Iterator[tuple[Feature, Pinned]]:
        """Yield the reference of each feature."""
        return zip(self._features, self._pinned, strict=True)


class Lesson:
    """The features of one stream while its reference is learnt."""

    def __init__(self, of: Sequence[Feature]) -> None:
        self._of = of
        self._places = _places(tuple(of))
        # Of a quantity first the values that make its edges, in 32 bits: bytes have no room for more at their end, as
        # arrays have, and all of them at once are most of what a stream ever takes.
        self._learning: list[bytes | Learning] = [
            Learning.of_flag(partial=each.partial) if each.kind is Kind.FLAG else b"" for each in of
        ]
        self._joint = array("I", bytes(4 * HOURS_OF_WEEK))
        self.votes = 0
        self.learnt_s = 0.0  # for how long, by a clock that never goes back, in all lives together

    def vote(self, values: Values, hour: int) -> None:
        """Take a request, seen in this hour of the week."""
        self.votes += 1
        self._joint[hour] += 1
        places, learning = self._places, self._learning
        for name, value in values.items():
            place = places.get(name)
            if place is None or value is None or not isfinite(value):
                continue
            known = learning[place]
            if isinstance(known, Learning):
                known.take(value, hour)
            else:
                learning[place] = self._with(place, known, value)

    def _with(self, place: int, values: bytes, value: float) -> bytes | Learning:
        """Return the first values of a feature with one more, or what they make."""
        values += array("f", (value,)).tobytes()
        if len(values) < 4 * EDGE_VOTES:
            return values
        return Learning.of_values(array("f", values), partial=self._of[place].partial)

    def pin(self, least: int) -> dict[Feature, Pinned]:
        """Return the reference of every feature of which at least `least` values were counted."""
        found = {}
        for feature, learning in self._counted():
            if learning.votes >= least and (pinned := learning.pin(self._joint)) is not None:
                found[feature] = pinned
        return found

    def _counted(self) -> Iterator[tuple[Feature, Learning]]:
        """Yield the features of which edges are known."""
        for feature, known in zip(self._of, self._learning, strict=True):
            if isinstance(known, Learning):
                yield feature, known

    def state(self) -> "LessonState":
        """Return it to be written down."""
        return LessonState(
            self.votes,
            tuple(self._joint),
            {feature.name: learning.state() for feature, learning in self._counted()},
            self.learnt_s,
        )

    @classmethod
    def of(cls, state: "LessonState", of: Sequence[Feature]) -> "Lesson":
        """Return what was written down, for the features that are looked at now.

        Raises:
            ValueError: it does not fit together.
        """
        found = cls(of)
        if len(state.joint) != HOURS_OF_WEEK:
            raise ValueError(f"{len(state.joint)} hours, expected {HOURS_OF_WEEK}")
        if sum(state.joint) != state.votes:
            raise ValueError(f"{sum(state.joint)} votes in all hours, expected {state.votes}")
        found.votes, found._joint = state.votes, array("I", state.joint)
        # Of an older version it took no less than the hours that were seen.
        found.learnt_s = float(HOUR_S * sum(map(bool, state.joint))) if state.learnt_s is None else state.learnt_s
        for name, learning in state.learning.items():
            if name in found._places and learning.edges:  # an older version wrote down that it knew none
                place = found._places[name]
                found._learning[place] = Learning.of(learning, of[place].kind, state.joint)
        return found


class LessonState(msgspec.Struct, array_like=True):
    """What is written down of a `Lesson`."""

    votes: Count
    joint: tuple[Count, ...]
    learning: dict[str, LearningState]
    learnt_s: Span | None = None  # files of older versions do not have it


class WatchedState(msgspec.Struct, array_like=True):
    """What is written down of a `Watched`."""

    votes: Count
    pinned: dict[str, PinnedState]
    held: dict[str, tuple[float, ...]]


def _mean(shares: Sequence[float], scores: Sequence[float]) -> float:
    return sum(share * score for share, score in zip(shares, scores, strict=True))
