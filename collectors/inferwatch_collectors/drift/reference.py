"""The reference: how each feature fell into its bins when all was as it should be. Counts only; no value, no text.

A feature is learnt in two steps, from different requests, so that the bins do not depend on what is counted in them:
the first EDGE_VOTES values (kept in memory until then, never written down) make the edges, the rest is counted.
Beside the counts it keeps the sums of scores by hour of the day and by day of the week.

When it is pinned, `fit` makes of that:
* the *profile*, hour + day, each drawn towards nothing by what is noise in it (James and Stein), or nothing if all
  may be;
* the *core* distribution p: mixed over the hours of the reference by exponential tilts of p, it gives the counts.

At any hour the distribution is then the core tilted to that hour's mean, and `prices` are the means of the bets' rows
under it, made dearer by three things:
* The reference is a sample. With `z` by Bonferroni over all features and bets, the true mean is above
  mean * (1 + z sd / sqrt(m)) + z² range / (3 m) with probability `risk` at most for all of them together. The normal
  approximation, and Bernstein's term with it for what is rare, with every bin counted once more than it was seen.
* The profile is an estimate: by its standard error.
* The tolerance: a shift of so many standard deviations is of no interest.

Pure.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from math import exp, inf, isfinite, log, nextafter, sqrt
from statistics import NormalDist
from typing import Final

import msgspec

from inferwatch_collectors.drift.betting import (
    RATIOS,
    SHIFTS,
    SPREADS,
    Row,
    flag_row,
    normal_scores,
    quantity_row,
)
from inferwatch_collectors.drift.features import Kind

# Values that make the edges: a 2 % quantile is then the fifth value. Edges need not be good, only fixed.
EDGE_VOTES: Final = 256
QUANTILES: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
# So much of one lowest value is a bin of its own, apart from what may come below it.
ATOM_SHARE: Final = 0.05

HOURS: Final = 24
DAYS: Final = 7

# A profile is believed if its spread is above what noise makes, by three standard errors of that spread.
SURE: Final = 3.0
# Means of the profile are rounded for the deconvolution: a fortieth of a standard deviation changes nothing.
PROFILE_STEP: Final = 0.05
ROUNDS: Final = 12
BACKFITS: Final = 12

# What a shift of the tolerance is to each bet on a quantity.
STAKES: Final = tuple(abs(stake) for stake in (*SHIFTS, *SPREADS))


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
    scores: tuple[float, ...]
    counts: tuple[int, ...]
    hours: tuple[float, ...]
    days: tuple[float, ...]
    profile_error: float
    core: tuple[float, ...]


class LearningState(msgspec.Struct, array_like=True):
    """What is written down of a feature whose edges are known; before that, nothing is."""

    kind: str
    edges: tuple[float, ...]
    scores: tuple[float, ...]
    counts: tuple[int, ...]
    hour_sums: tuple[float, ...]
    hour_votes: tuple[int, ...]
    day_sums: tuple[float, ...]
    day_votes: tuple[int, ...]


def bin_of(edges: Sequence[float], value: float) -> int:
    """Return the bin of a finite value: bin i is above edge i - 1, up to edge i."""
    return bisect_left(edges, value)


def cut(values: Sequence[float]) -> tuple[float, ...]:
    """Return the edges that these finite values make; they ascend."""
    ordered = sorted(values)
    last = len(ordered) - 1
    edges = sorted({ordered[round(share * last)] for share in QUANTILES})
    lowest = ordered[0]
    if edges[0] == lowest and ordered[round(ATOM_SHARE * last)] == lowest:
        edges.insert(0, nextafter(lowest, -inf))
    return tuple(edges)


class Learning:
    """One feature on its way to a reference."""

    __slots__ = ("_day_sums", "_day_votes", "_hour_sums", "_hour_votes", "_values", "counts", "edges", "kind", "scores")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._values = array("d")
        self.edges: tuple[float, ...] = ()
        self.scores: tuple[float, ...] = ()
        self.counts: list[int] = []
        self._hour_sums = array("d", bytes(8 * HOURS))
        self._day_sums = array("d", bytes(8 * DAYS))
        self._hour_votes = array("L", bytes(array("L").itemsize * HOURS))
        self._day_votes = array("L", bytes(array("L").itemsize * DAYS))
        if kind is Kind.FLAG:
            self._cut((0.5,), (0.0, 1.0))

    def _cut(self, edges: tuple[float, ...], scores: tuple[float, ...]) -> None:
        self.edges, self.scores = edges, scores
        self.counts = [0] * len(scores)

    @property
    def votes(self) -> int:
        """How many were counted."""
        return sum(self.counts)

    def take(self, value: float, hour: int) -> None:
        """Take a finite value, seen in this hour of the week (0: Monday, midnight to one)."""
        if not self.edges:
            self._values.append(value)
            if len(self._values) >= EDGE_VOTES:
                edges = cut(self._values)
                counts = [0] * (len(edges) + 1)
                for each in self._values:
                    counts[bin_of(edges, each)] += 1
                self._cut(edges, normal_scores(tuple(counts)))
                self._values = array("d")
            return
        place = bisect_left(self.edges, value)
        self.counts[place] += 1
        score = self.scores[place]
        day, of_day = divmod(hour, HOURS)
        self._hour_sums[of_day] += score
        self._hour_votes[of_day] += 1
        self._day_sums[day] += score
        self._day_votes[day] += 1

    def pin(self, joint: Sequence[int]) -> "Pinned | None":
        """Return the reference of this feature; None if nothing was counted. `joint`: votes by hour of the week."""
        if not self.edges or not self.votes:
            return None
        return fit(
            self.kind,
            self.edges,
            self.scores,
            self.counts,
            (self._hour_sums, self._hour_votes),
            (self._day_sums, self._day_votes),
            joint,
        )

    def state(self) -> LearningState:
        """Return it to be written down."""
        return LearningState(
            self.kind.value,
            self.edges,
            self.scores,
            tuple(self.counts),
            tuple(self._hour_sums),
            tuple(self._hour_votes),
            tuple(self._day_sums),
            tuple(self._day_votes),
        )

    @classmethod
    def of(cls, state: LearningState) -> "Learning":
        """Return what was written down.

        Raises:
            ValueError: it does not fit together.
        """
        found = cls(Kind(state.kind))
        if state.edges:
            sizes = {len(state.edges) + 1, len(state.scores), len(state.counts)}
            if len(sizes) != 1 or len(state.hour_sums) != HOURS or len(state.day_sums) != DAYS:
                raise ValueError("a reference that does not fit together")
            found.edges, found.scores, found.counts = state.edges, state.scores, list(state.counts)
            found._hour_sums, found._hour_votes = array("d", state.hour_sums), array("L", state.hour_votes)
            found._day_sums, found._day_votes = array("d", state.day_sums), array("L", state.day_votes)
        return found


Sums = tuple[Sequence[float], Sequence[int]]  # of scores, and how many


def fit(
    kind: Kind,
    edges: tuple[float, ...],
    scores: tuple[float, ...],
    counts: Sequence[int],
    by_hour: Sums,
    by_day: Sums,
    joint: Sequence[int],
) -> "Pinned":
    """Return the reference that these counts make. `joint`: votes by hour of the week, 168 of them."""
    total = sum(counts) + len(counts)
    pooled = [(count + 1) / total for count in counts]
    mean = sum(share * score for share, score in zip(pooled, scores, strict=True))
    variance = sum(share * (score - mean) ** 2 for share, score in zip(pooled, scores, strict=True))
    hours, days, error = _profile(by_hour, by_day, joint, mean, variance)
    core = tuple(pooled) if error == 0.0 else _core(pooled, scores, hours, days, joint, mean)
    return Pinned(kind, edges, scores, tuple(counts), hours, days, error, core)


def _profile(
    by_hour: Sums, by_day: Sums, joint: Sequence[int], mean: float, variance: float
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """Return what each hour and each day add to the mean, and the standard error of both together (0: no profile)."""
    hours, days = [0.0] * HOURS, [0.0] * DAYS
    table = [joint[day * HOURS : (day + 1) * HOURS] for day in range(DAYS)]
    in_hour = [sum(table[day][hour] for day in range(DAYS)) for hour in range(HOURS)]
    in_day = [sum(row) for row in table]
    hour_means = [(total / votes - mean) if votes else 0.0 for total, votes in zip(*by_hour, strict=True)]
    day_means = [(total / votes - mean) if votes else 0.0 for total, votes in zip(*by_day, strict=True)]
    for _ in range(BACKFITS):  # hours and days are not seen equally often together
        hours = [
            hour_means[hour] - sum(table[day][hour] * days[day] for day in range(DAYS)) / in_hour[hour]
            if in_hour[hour] and by_hour[1][hour]
            else 0.0
            for hour in range(HOURS)
        ]
        days = [
            day_means[day] - sum(table[day][hour] * hours[hour] for hour in range(HOURS)) / in_day[day]
            if in_day[day] and by_day[1][day]
            else 0.0
            for day in range(DAYS)
        ]
    hours, hour_error = _shrunk(hours, by_hour[1], variance)
    days, day_error = _shrunk(days, by_day[1], variance)
    return tuple(hours), tuple(days), sqrt(hour_error + day_error)


def _shrunk(effects: list[float], votes: Sequence[int], variance: float) -> tuple[list[float], float]:
    """Return the effects without what is noise in them, and the variance of what is left; none if all may be noise."""
    total = sum(votes)
    seen = [count for count in votes if count]
    if len(seen) < 2 or not total:
        return [0.0] * len(effects), 0.0
    noise = variance * len(seen) / total  # weighted by votes: each cell's variance / votes times its share
    spread = sum(count * effect * effect for count, effect in zip(votes, effects, strict=True)) / total
    if spread <= noise * (1 + SURE * sqrt(2 / (len(seen) - 1))):
        return [0.0] * len(effects), 0.0
    part = 1 - noise / spread
    return [effect * part for effect in effects], noise * part


def _core(
    pooled: Sequence[float],
    scores: Sequence[float],
    hours: Sequence[float],
    days: Sequence[float],
    joint: Sequence[int],
    mean: float,
) -> tuple[float, ...]:
    """Return the distribution whose tilts, mixed as the reference's hours were, give the pooled one."""
    mixture: dict[int, float] = {}
    total = sum(joint) or 1
    for place, votes in enumerate(joint):
        step = round((days[place // HOURS] + hours[place % HOURS]) / PROFILE_STEP)
        mixture[step] = mixture.get(step, 0.0) + votes / total
    core = list(pooled)
    for _ in range(ROUNDS):
        mixed = [0.0] * len(core)
        for step, weight in mixture.items():
            tilted = tilt(core, scores, mean + step * PROFILE_STEP)
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
    """The reference of one feature."""

    __slots__ = ("_days", "_error", "_hours", "core", "counts", "edges", "kind", "mean", "rows", "scores", "votes")

    def __init__(
        self,
        kind: Kind,
        edges: tuple[float, ...],
        scores: tuple[float, ...],
        counts: tuple[int, ...],
        hours: tuple[float, ...],
        days: tuple[float, ...],
        error: float,
        core: tuple[float, ...],
    ) -> None:
        self.kind = kind
        self.edges = edges
        self.scores = scores
        self.counts = counts
        self.votes = sum(counts)
        self.core = core
        self._hours, self._days, self._error = hours, days, error
        self.rows: tuple[Row, ...] = tuple((flag_row if kind is Kind.FLAG else quantity_row)(each) for each in scores)
        self.mean = sum((count + 1) * score for count, score in zip(counts, scores, strict=True)) / (
            self.votes + len(counts)
        )

    @property
    def has_profile(self) -> bool:
        """Whether it depends on the hour."""
        return self._error > 0.0

    @property
    def bets(self) -> int:
        """How many kinds of change are bet on."""
        return len(self.rows[0])

    def shares(self, hour: int) -> tuple[float, ...]:
        """Return the distribution in this hour of the week."""
        if not self.has_profile:
            return self.core
        return tilt(self.core, self.scores, self.mean + self._days[hour // HOURS] + self._hours[hour % HOURS])

    def prices(self, hour: int, terms: Terms) -> Row:
        """Return what each bet costs in this hour of the week: positive and finite."""
        shares = self.shares(hour)
        slack = terms.tolerance + self._error
        if self.kind is Kind.FLAG:
            up = shares[1]
            slack *= sqrt(up * (1 - up))
            slacks = [1 + abs(ratio - 1) * slack / (1 + (ratio - 1) * up) for ratio in RATIOS]
        else:
            slacks = [exp(stake * slack) for stake in STAKES]
        found = tuple(
            _upper([row[bet] for row in self.rows], shares, self.votes, terms.z) * slacks[bet]
            for bet in range(self.bets)
        )
        assert all(isfinite(price) and price > 0 for price in found), "a price that is no number"
        return found

    def state(self) -> PinnedState:
        """Return it to be written down."""
        return PinnedState(
            self.kind.value, self.edges, self.scores, self.counts, self._hours, self._days, self._error, self.core
        )

    @classmethod
    def of(cls, state: PinnedState) -> "Pinned":
        """Return what was written down.

        Raises:
            ValueError: it does not fit together.
        """
        sizes = {len(state.edges) + 1, len(state.scores), len(state.counts), len(state.core)}
        if len(sizes) != 1 or len(state.hours) != HOURS or len(state.days) != DAYS:
            raise ValueError("a reference that does not fit together")
        return cls(
            Kind(state.kind),
            state.edges,
            state.scores,
            state.counts,
            state.hours,
            state.days,
            state.profile_error,
            state.core,
        )


def _upper(gets: Sequence[float], shares: Sequence[float], votes: int, z: float) -> float:
    """Return what the mean of `gets` under the true distribution hardly exceeds, given that `shares` are estimates."""
    mean = sum(share * get for share, get in zip(shares, gets, strict=True))
    variance = sum(share * (get - mean) ** 2 for share, get in zip(shares, gets, strict=True))
    reach = max(gets) - min(gets)
    return mean + z * sqrt(variance / votes) + z * z * reach / (3 * votes)


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
