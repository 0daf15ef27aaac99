"""The reference: how each feature fell into its bins when all was as it should be. Counts only; no value, no text.

A feature is learnt in two steps, from different requests, so that the bins do not depend on what is counted in them:
the first EDGE_VOTES values (kept in memory until then, never written down) make the edges, the rest is counted. Beside
the counts it keeps the sums of scores by hour of the week.

When it is pinned, `fit` makes of that the *profile* (see `profile`) and the *core* distribution p: mixed over the hours
of the reference by exponential tilts of p, it gives the counts.

At any hour the distribution is then the core tilted to that hour's mean, and `prices` are the means of the bets' rows
under it, made dearer by four things:
* The reference is a sample. With `z` by Bonferroni over all features and bets, the true mean is above
  mean + z sd / sqrt(m) + z² range / (3 m) with probability `risk` at most for all of them together. That is the normal
  approximation, and Bernstein's term with it for what is rare, with every bin counted once more than it was seen.
  In a stream without a rhythm less is enough where it is less: with a price too low by e (of the true mean), a player
  that should grow by exp(GROWTH) as often as one in exp(GROWTH) does so exp(GROWTH e / gain) times as often (Wald), and
  e is normal with variance v / m; a price higher by GROWTH v / (2 gain m) makes that 1 on average over references.
* The profile is an estimate: by its standard error.
* The tolerance: a shift of so many standard deviations is of no interest.
* What was seen too rarely for a profile may come up to RARE_TIMES as often at some hours.

Pure.
"""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Sequence
from math import exp, inf, isfinite, log, nextafter, sqrt
from statistics import NormalDist
from typing import Final

import msgspec

from inferwatch_collectors.drift.betting import (
    MAX_SCORE,
    SHIFTS,
    SPREADS,
    STEPS,
    Row,
    flag_row,
    normal_scores,
    quantity_row,
)
from inferwatch_collectors.drift.features import Kind
from inferwatch_collectors.drift.profile import EVENTS_PER_CELL, FLAT, HOURS, HOURS_OF_WEEK, STEP, Profile, profile_of

# Values that make the edges: a 2 % quantile is then the fifth value. Edges need not be good, only fixed.
EDGE_VOTES: Final = 256
QUANTILES: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
# So much of one lowest value is a bin of its own, apart from what may come below it.
ATOM_SHARE: Final = 0.05

# Of what was never seen, so many times as often may be its rhythm; of what was seen nearly often enough, hardly more.
RARE_TIMES: Final = 3.0

# The logarithm of what one second's player must grow by to be a signal of one stream: 20 weeks of seconds, 12 bets and
# a weight of 1/13 make e**21.
GROWTH: Final = 21.0

# Of so many features one may seem to have a rhythm.
STEADY_PARTS: Final = 8

# Rounds of the deconvolution, which gains a digit in two or three.
ROUNDS: Final = 12

# What the tolerance is to each bet on a quantity, beside the shift of the mean.
SPREAD_STAKES: Final = (*(0.0 for _ in SHIFTS), *(abs(stake) for stake in SPREADS))


# By kind and score, in eighths above -MAX_SCORE: shared by all features of all streams.
_MIDDLE: Final = round(MAX_SCORE * STEPS)
_ROWS: Final = {
    kind: tuple(row((eighth - _MIDDLE) / STEPS) for eighth in range(2 * _MIDDLE + 1))
    for kind, row in ((Kind.QUANTITY, quantity_row), (Kind.FLAG, flag_row))
}


class Terms(msgspec.Struct, frozen=True):
    """How sure the prices must be."""

    z: float
    tolerance: float

    @classmethod
    def of(cls, bets: int, *, risk: float, tolerance: float) -> "Terms":
        """Return the terms under which any of `bets` prices is too low with probability `risk` at most."""
        return cls(NormalDist().inv_cdf(1 - risk / max(1, bets)), tolerance)


class PinnedState(msgspec.Struct, array_like=True):
    """What is written down of a pinned feature."""

    kind: str
    edges: tuple[float, ...]
    scores: tuple[int, ...]  # in eighths
    counts: tuple[int, ...]
    profile: bytes
    profile_error: float
    core: tuple[float, ...]


class LearningState(msgspec.Struct, array_like=True):
    """What is written down of a feature whose edges are known; before that, nothing is."""

    kind: str
    edges: tuple[float, ...]
    scores: tuple[int, ...]  # in eighths
    counts: tuple[int, ...]
    sums: bytes
    votes: bytes  # empty: in every vote


def cut(values: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the edges that these finite values make, ascending, and the score of each bin.

    Bin i is above edge i - 1, up to edge i (`bisect_left`).
    """
    ordered = sorted(values)
    last = len(ordered) - 1
    edges = sorted({ordered[round(share * last)] for share in QUANTILES})
    lowest = ordered[0]
    if edges[0] == lowest and ordered[round(ATOM_SHARE * last)] == lowest:
        edges.insert(0, nextafter(lowest, -inf))
    counts = [0] * (len(edges) + 1)
    for value in ordered:
        counts[bisect_left(edges, value)] += 1
    return tuple(edges), normal_scores(tuple(counts))


class Learning:
    """One feature on its way to a reference."""

    __slots__ = ("_eighths", "_sums", "_values", "_votes", "counts", "edges", "kind")

    def __init__(self, kind: Kind, *, partial: bool = False) -> None:
        """`partial`: not every request has it, and which do may depend on the hour."""
        self.kind = kind
        self._values: array[float] | None = array("f")  # None: they have made the edges
        self.edges: Sequence[float] = ()
        self._eighths = array("b")  # scores
        self.counts = array("I")
        self._sums = array("i", bytes(4 * HOURS_OF_WEEK))  # of scores, in eighths
        self._votes = array("I", bytes(4 * HOURS_OF_WEEK)) if partial else None
        if kind is Kind.FLAG:
            self._cut((0.5,), (0.0, 1.0))

    def _cut(self, edges: Sequence[float], scores: Sequence[float]) -> None:
        self.edges = array("d", edges)
        self._eighths = array("b", _eighths(scores))
        self.counts = array("I", bytes(4 * len(scores)))
        self._values = None

    @property
    def scores(self) -> tuple[float, ...]:
        """The score of each bin."""
        return tuple(each / STEPS for each in self._eighths)

    @property
    def votes(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def take(self, value: float, hour: int) -> None:
        """Take a finite value, seen in this hour of the week (0: Monday, midnight to one)."""
        if self._values is not None:
            self._values.append(value)
            if len(self._values) >= EDGE_VOTES:
                self._cut(*cut(self._values))
            return
        place = bisect_left(self.edges, value)
        self.counts[place] += 1
        self._sums[hour] += self._eighths[place]
        if self._votes is not None:
            self._votes[hour] += 1

    def pin(self, joint: Sequence[int]) -> "Pinned | None":
        """Return the reference of this feature; None if nothing was counted. `joint`: votes by hour of the week."""
        if self._values is not None or not self.votes:
            return None
        sums = [each / STEPS for each in self._sums]
        return fit(self.kind, tuple(self.edges), self.scores, self.counts, sums, self._votes or joint)

    def state(self) -> LearningState:
        """Return it to be written down."""
        votes = b"" if self._votes is None else self._votes.tobytes()
        return LearningState(
            self.kind.value,
            tuple(self.edges),
            tuple(self._eighths),
            tuple(self.counts),
            self._sums.tobytes(),
            votes,
        )

    @classmethod
    def of(cls, state: LearningState) -> "Learning":
        """Return what was written down.

        Raises:
            ValueError: it does not fit together.
        """
        found = cls(Kind(state.kind), partial=bool(state.votes))
        if state.edges:
            if len({len(state.edges) + 1, len(state.scores), len(state.counts)}) != 1:
                raise ValueError("a reference that does not fit together")
            found._cut(state.edges, [score / STEPS for score in state.scores])
            found.counts = array("I", state.counts)
            found._sums = _hours("i", state.sums)
            found._votes = _hours("I", state.votes) if state.votes else None
        return found


def _eighths(scores: Sequence[float]) -> tuple[int, ...]:
    return tuple(round(score * STEPS) for score in scores)


def _hours(kind: str, data: bytes) -> "array[int]":
    found = array(kind)
    found.frombytes(data)
    if len(found) != HOURS_OF_WEEK:
        raise ValueError(f"{len(found)} hours, expected {HOURS_OF_WEEK}")
    return found


def fit(
    kind: Kind,
    edges: tuple[float, ...],
    scores: tuple[float, ...],
    counts: Sequence[int],
    sums: Sequence[float],
    votes: Sequence[int],
) -> "Pinned":
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


def tilt(shares: Sequence[float], scores: Sequence[float], mean: float) -> tuple[float, ...]:
    """Return `shares` times exp(theta * score), with the theta that makes the mean score `mean`, or comes nearest."""
    theta, low, high = 0.0, min(scores), max(scores)
    margin = 1e-3 * (high - low)
    target = max(low + margin, min(high - margin, mean))
    tilted = list(shares)
    for _ in range(8):
        weights = [share * exp(theta * score) for share, score in zip(shares, scores, strict=True)]
        whole = sum(weights)
        tilted = [weight / whole for weight in weights]
        now = sum(share * score for share, score in zip(tilted, scores, strict=True))
        variance = sum(share * (score - now) ** 2 for share, score in zip(tilted, scores, strict=True))
        if abs(now - target) < 1e-6 or variance < 1e-9:
            break
        theta += max(-1.0, min(1.0, (target - now) / variance))
        theta = max(-20.0, min(20.0, theta))
    return tuple(tilted)


class Pinned:
    """The reference of one feature, packed: a stream has fifty of them."""

    __slots__ = ("_core", "_counts", "_packed", "edges", "error", "kind", "mean", "unit", "votes")

    def __init__(
        self,
        kind: Kind,
        edges: Sequence[float],
        scores: Sequence[float],
        counts: Sequence[int],
        profile: Profile,
        core: Sequence[float],
    ) -> None:
        self.kind = kind
        self.edges = array("d", edges)
        # The score of each bin, and behind them what each hour adds.
        self._packed = bytes(round(score * STEPS) + _MIDDLE for score in scores) + profile.steps
        self._counts = array("I", counts)
        self.votes = sum(counts)
        self.error = profile.error
        self._core = array("f", core) if profile.steps else None  # without a rhythm it is what was counted
        shares = self._pooled()
        self.mean = sum(share * score for share, score in zip(shares, scores, strict=True))
        self.unit = sqrt(sum(share * (score - self.mean) ** 2 for share, score in zip(shares, scores, strict=True)))

    def _pooled(self) -> tuple[float, ...]:
        whole = self.votes + len(self._counts)
        return tuple((count + 1) / whole for count in self._counts)

    @property
    def profile(self) -> Profile:
        """What the hours add."""
        return Profile(self._packed[len(self._counts) :], self.error) if self.has_profile else FLAT

    @property
    def core(self) -> tuple[float, ...]:
        """The distribution that the hours tilt."""
        return self._pooled() if self._core is None else tuple(self._core)

    @property
    def scores(self) -> tuple[float, ...]:
        """The score of each bin."""
        return tuple((each - _MIDDLE) / STEPS for each in self._packed[: len(self._counts)])

    @property
    def rows(self) -> tuple[Row, ...]:
        """What bets get, by bin."""
        return tuple(self.row(place) for place in range(len(self._counts)))

    def row(self, place: int) -> Row:
        """What bets get when a value falls into this bin."""
        return _ROWS[self.kind][self._packed[place]]

    @property
    def has_profile(self) -> bool:
        """Whether it depends on the hour."""
        return self._core is not None

    @property
    def bets(self) -> int:
        """How many kinds of change are bet on."""
        return len(self.row(0))

    def shares(self, hour: int) -> tuple[float, ...]:
        """Return the distribution in this hour of the week."""
        if not self.has_profile:
            return self.core
        return tilt(self.core, self.scores, self.mean + self.profile.at(hour) * self.unit)

    def prices(self, hour: int, terms: Terms, *, steady: bool) -> Row:
        """Return what each bet costs in this hour of the week: positive and finite. `steady`: see `is_steady`."""
        shares, scores, rows = self.shares(hour), self.scores, self.rows
        slack = terms.tolerance + self.error
        places = [shares]
        if slack > 0:  # the mean may be so much higher or lower: whatever is dearer counts
            mean = sum(share * score for share, score in zip(shares, scores, strict=True))
            places += [tilt(shares, scores, mean + side * slack * self.unit) for side in (-1, 1)]
        unknown = 1 - (self.votes - max(self._counts)) / (EVENTS_PER_CELL * HOURS)
        if unknown > 0:
            places.append(_oftener(shares, 1 + (RARE_TIMES - 1) * unknown))
        found = tuple(
            max(
                _upper(
                    [row[bet] for row in rows],
                    each,
                    self.votes,
                    terms.z,
                    by_growth=steady and not self.has_profile,
                )
                for each in places
            )
            for bet in range(self.bets)
        )
        if slack > 0 and self.kind is Kind.QUANTITY:  # and a little more spread
            found = tuple(price * exp(stake * slack) for price, stake in zip(found, SPREAD_STAKES, strict=True))
        assert all(isfinite(price) and price > 0 for price in found), "a price that is no number"
        return found

    def state(self) -> PinnedState:
        """Return it to be written down."""
        return PinnedState(
            self.kind.value,
            tuple(self.edges),
            _eighths(self.scores),
            tuple(self._counts),
            self.profile.steps,
            self.error,
            self.core,
        )

    @classmethod
    def of(cls, state: PinnedState) -> "Pinned":
        """Return what was written down.

        Raises:
            ValueError: it does not fit together.
        """
        sizes = {len(state.edges) + 1, len(state.scores), len(state.counts), len(state.core)}
        if len(sizes) != 1 or len(state.profile) not in (0, HOURS_OF_WEEK):
            raise ValueError("a reference that does not fit together")
        profile = Profile(state.profile, state.profile_error) if state.profile else FLAT
        scores = tuple(score / STEPS for score in state.scores)
        return cls(Kind(state.kind), state.edges, scores, state.counts, profile, state.core)


def _oftener(shares: Sequence[float], times: float) -> tuple[float, ...]:
    """Return the distribution with all but the commonest bin `times` as often, but no more than half of the time."""
    usual = max(range(len(shares)), key=lambda place: shares[place])
    rest = 1 - shares[usual]
    times = min(times, 0.5 / rest) if rest < 0.5 else 1.0
    return tuple(1 - times * rest if place == usual else times * share for place, share in enumerate(shares))


def is_steady(pinned: Collection[Pinned]) -> bool:
    """Tell whether the traffic has no rhythm of the week: where few features have one that is seen, the others have
    none that is not seen. A few have one by chance."""
    return sum(each.has_profile for each in pinned) * STEADY_PARTS <= len(pinned)


def _upper(gets: Sequence[float], shares: Sequence[float], votes: int, z: float, *, by_growth: bool) -> float:
    """Return the price of a bet that gets `gets`: its mean, and what is paid for `shares` being estimates."""
    mean = sum(share * get for share, get in zip(shares, gets, strict=True))
    variance = sum(share * (get - mean) ** 2 for share, get in zip(shares, gets, strict=True))
    reach = max(gets) - min(gets)
    sure = z * sqrt(variance / votes) + z * z * reach / (3 * votes)
    if not by_growth:
        return mean + sure
    # Of what is got, by the mean under the change that is bet on: how fast it grows if that is what happened.
    gain = sum(share * get / mean * log(get / mean) for share, get in zip(shares, gets, strict=True))
    if gain <= 0:
        return mean + sure
    return mean + min(sure, GROWTH * variance / (2 * mean * gain * votes))


# --- effect sizes, that people know


def psi(reference: Sequence[float], now: Sequence[float]) -> float:
    """Return the population stability index of two distributions over the same bins, all shares above 0."""
    return sum((new - old) * log(new / old) for old, new in zip(reference, now, strict=True))


def wasserstein(reference: Sequence[float], now: Sequence[float], scores: Sequence[float]) -> float:
    """Return how far one must be moved to become the other, in standard deviations of the reference."""
    moved, behind = 0.0, 0.0
    for place in range(len(scores) - 1):
        behind += now[place] - reference[place]
        moved += abs(behind) * (scores[place + 1] - scores[place])
    return moved
