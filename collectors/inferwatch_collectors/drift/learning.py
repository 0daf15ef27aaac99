"""On the way to a reference: what is counted of each feature until it is pinned.

A feature is learnt in two steps, from different requests, so that the bins do not depend on what is counted in them:
the first EDGE_VOTES values (kept in memory until then, never written down) make the edges, the rest is counted. Beside
the counts there are the sums of scores by hour of the week (see `hourly`). The values are a thousand bytes, and so is
what is counted, of which there is nothing before they are gone.

When it is pinned, `fit` makes of that the *profile* (see `profile`) and the *core* distribution p: mixed over the hours
of the reference by exponential tilts of p, it gives the counts.

Pure.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from math import sqrt
from typing import Final

import msgspec

from inferwatch_collectors.drift import hourly
from inferwatch_collectors.drift.betting import MAX_SCORE, STEPS
from inferwatch_collectors.drift.bins import cut, eighths, tilt
from inferwatch_collectors.drift.features import Kind
from inferwatch_collectors.drift.hourly import HALVINGS
from inferwatch_collectors.drift.profile import FLAT, STEP, Profile, profile_of
from inferwatch_collectors.drift.reference import Pinned, check_bins
from inferwatch_collectors.drift.written import Count, Edges

# Values that make the edges: a 2 % quantile is then the fifth value. Edges need not be good, only fixed.
EDGE_VOTES: Final = 256

_MIDDLE: Final = 128  # a byte's

# The edge of every flag, and its scores of 0 and 1: one of each, of all that are learnt.
_FLAG: Final = (array("d", (0.5,)), bytes((_MIDDLE, STEPS + _MIDDLE)))

# Rounds of the deconvolution, which gains a digit in two or three.
ROUNDS: Final = 12


class LearningState(msgspec.Struct, array_like=True):
    """What is written down of a feature whose edges are known; before that, nothing is."""

    kind: Kind
    edges: Edges
    scores: tuple[int, ...]  # in eighths
    counts: tuple[Count, ...]
    sums: bytes
    votes: bytes  # empty: in every vote


class Learning:
    """One feature on its way to a reference, when its edges are known."""

    __slots__ = ("_packed", "_sums", "_votes", "counts", "edges", "kind")

    def __init__(self, kind: Kind, edges: "array[float]", packed: bytes, *, partial: bool) -> None:
        """`packed`: scores, in eighths above -_MIDDLE. `partial`: not every request has the feature, and which do may
        depend on the hour."""
        self.kind = kind
        self.edges = edges
        self._packed = packed
        self.counts = array("I", bytes(4 * len(packed)))
        self._sums = hourly.nothing("h")  # of scores, in eighths
        self._votes = hourly.nothing("H") if partial else None

    @classmethod
    def of_flag(cls, *, partial: bool = False) -> "Learning":
        """Return a flag's, which needs no values."""
        return cls(Kind.FLAG, *_FLAG, partial=partial)

    @classmethod
    def of_values(cls, values: Sequence[float], *, partial: bool = False) -> "Learning":
        """Return a quantity's, by its first finite values, of 32 bits."""
        edges, scores = cut(values)
        return cls(Kind.QUANTITY, array("d", edges), _packed(eighths(scores)), partial=partial)

    @property
    def scores(self) -> tuple[float, ...]:
        """The score of each bin."""
        return tuple((each - _MIDDLE) / STEPS for each in self._packed)

    @property
    def votes(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def take(self, value: float, hour: int) -> None:
        """Take a finite value, seen in this hour of the week (0: Monday, midnight to one)."""
        place = bisect_left(self.edges, value)
        counts, sums = self.counts, self._sums
        counts[place] = turn = counts[place] + 1
        score = self._packed[place] - _MIDDLE
        try:
            if sums[HALVINGS]:
                hourly.add(sums, hour, score, turn)
            else:  # nearly always; fifty calls a vote are 3 µs
                sums[hour] += score
        except OverflowError:
            hourly.add(sums, hour, score, turn)
        if self._votes is not None:
            hourly.add(self._votes, hour, 1, turn)

    def pin(self, joint: Sequence[int]) -> Pinned | None:
        """Return the reference of this feature; None if nothing was counted. `joint`: votes by hour of the week."""
        if not self.votes:
            return None
        sums = [each / STEPS for each in hourly.whole(self._sums)]
        votes = joint if self._votes is None else hourly.whole(self._votes)
        return fit(self.kind, tuple(self.edges), self.scores, self.counts, sums, votes)

    def state(self) -> LearningState:
        """Return it to be written down."""
        votes = b"" if self._votes is None else self._votes.tobytes()
        return LearningState(
            self.kind,
            tuple(self.edges),
            tuple(each - _MIDDLE for each in self._packed),
            tuple(self.counts),
            self._sums.tobytes(),
            votes,
        )

    @classmethod
    def of(cls, state: LearningState, kind: Kind, joint: Sequence[int]) -> "Learning":
        """Return what was written down of a feature of this kind. `joint`: all votes by hour of the week.

        Raises:
            ValueError: it does not fit together.
        """
        check_bins(state.edges, state.scores, state.counts)
        if state.kind is not kind or sum(state.counts) > sum(joint):
            raise ValueError("a lesson that does not fit together")
        bins = (array("d", state.edges), _packed(state.scores))
        found = cls(kind, *(_FLAG if bins == _FLAG else bins), partial=bool(state.votes))
        found.counts = array("I", state.counts)
        found._sums = hourly.of("h", state.sums)
        hourly.check(found._sums, [round(MAX_SCORE * STEPS) * each for each in joint])
        if state.votes:
            found._votes = hourly.of("H", state.votes)
            hourly.check(found._votes, joint)
        return found


def _packed(scores: Sequence[int]) -> bytes:
    """Return scores in eighths, a byte each."""
    return bytes(score + _MIDDLE for score in scores)


def fit(
    kind: Kind,
    edges: tuple[float, ...],
    scores: tuple[float, ...],
    counts: Sequence[int],
    sums: Sequence[float],
    votes: Sequence[int],
) -> Pinned:
    """Return the reference that these counts make. Sums of scores and votes are by hour of the week.

    A feature that nearly every vote has may be told the votes of all: they are taken in proportion.
    """
    seen = sum(counts)
    total = seen + len(counts)
    pooled = [(count + 1) / total for count in counts]
    mean = sum(share * score for share, score in zip(pooled, scores, strict=True))
    variance = sum(share * (score - mean) ** 2 for share, score in zip(pooled, scores, strict=True))
    part = seen / max(1, sum(votes))
    in_hours = [round(each * part) for each in votes]
    found = profile_of(sums, in_hours, sum(sums) / max(1, seen), variance, seen - max(counts))
    core = tuple(pooled) if found is FLAT else _core(pooled, scores, found, votes, mean, sqrt(variance))
    return Pinned(kind, edges, scores, tuple(counts), found, core)


def _core(
    pooled: Sequence[float],
    scores: Sequence[float],
    profile: Profile,
    votes: Sequence[int],
    mean: float,
    unit: float,
) -> tuple[float, ...]:
    """Return the distribution whose tilts, mixed as the reference's hours were, give the pooled one."""
    mixture: dict[float, float] = {}
    total = sum(votes) or 1
    for hour, count in enumerate(votes):
        offset = round(profile.at(hour) / (4 * STEP)) * (4 * STEP)  # twenty of them are enough
        mixture[offset] = mixture.get(offset, 0.0) + count / total
    core = list(pooled)
    for _ in range(ROUNDS):
        mixed = [0.0] * len(core)
        for offset, weight in mixture.items():
            tilted = tilt(core, scores, mean + offset * unit)
            mixed = [have + weight * share for have, share in zip(mixed, tilted, strict=True)]
        core = [share * want / have for share, want, have in zip(core, pooled, mixed, strict=True)]
        whole = sum(core)
        core = [share / whole for share in core]
    return tuple(core)
