"""The reference: how each feature fell into its bins when all was as it should be. Counts only; no value, no text.

How it comes to be is in `learning`: a *profile* (see `profile`), and a *core* distribution over the bins.

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
* What was seen too rarely for a profile may come up to RARE_TIMES as often at some hours, if there is a rhythm at all.

Pure.
"""

from array import array
from collections.abc import Collection, Sequence
from itertools import pairwise
from math import exp, isfinite, log, sqrt
from statistics import NormalDist
from typing import Annotated, Final

import msgspec

from inferwatch_collectors.drift.betting import (
    FLAG_STAKES,
    MAX_SCORE,
    PARTS,
    QUANTITY_STAKES,
    SHIFTS,
    SPREADS,
    STEPS,
    Row,
    flag_row,
    quantity_row,
)
from inferwatch_collectors.drift.bins import eighths, oftener, tilt
from inferwatch_collectors.drift.features import Kind
from inferwatch_collectors.drift.profile import EVENTS_PER_CELL, FLAT, HOURS, HOURS_OF_WEEK, MAX_ERROR, Profile
from inferwatch_collectors.drift.written import Count, Edges, Share

# Of what was never seen, so many times as often may be its rhythm; of what was seen nearly often enough, hardly more.
RARE_TIMES: Final = 3.0

# The logarithm of what one second's player must grow by to be a signal of one stream: 20 weeks of seconds, 18 bets and
# a weight of 1/13 make e**21.
GROWTH: Final = 21.0

# What a signal needs at most, if nobody says: 520 weeks of sixteen models that are probed.
DEFAULT_BAR_WEEKS: Final = 520.0 * 16

# Of so many features one may seem to have a rhythm.
STEADY_PARTS: Final = 8

# What the tolerance is to each bet on a quantity, beside the shift of the mean: its part in s² / sqrt(2). Of what is
# far so many standard deviations more spread make so much more, and a bet on it costs 1 and what it gets there.
SPREAD_STAKES: Final = (
    *(0.0 for _ in SHIFTS),
    *(abs(stake) for stake in SPREADS),
    *(part * shift * shift / sqrt(2) for part, shift in PARTS),
)
FAR_STAKE: Final = (MAX_SCORE * MAX_SCORE - 1) / sqrt(2)

# By how much shares of 32 bits may not be 1 in all.
CORE_OFF: Final = 1e-3

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
    most_weeks: float

    @classmethod
    def of(cls, bets: int, *, risk: float, tolerance: float, bar_weeks: float = DEFAULT_BAR_WEEKS) -> "Terms":
        """Return the terms under which any of `bets` prices is too low with probability `risk` at most.

        `bar_weeks`: the most evidence that a signal may ever need. Each bet alone can come to twice that, with its
        stake and its feature's weight taken off. It is not let grow beyond, because it would take the longer to go
        when the change is over: a bet on a shift by d loses d² / 2 of its logarithm a vote, so that with a ceiling ten
        times as high one on 0.1 takes 460 votes more, one on 0.5 takes 18.
        """
        return cls(NormalDist().inv_cdf(1 - risk / max(1, bets)), tolerance, 2 * bar_weeks)


class PinnedState(msgspec.Struct, array_like=True):
    """What is written down of a pinned feature."""

    kind: Kind
    edges: Edges
    scores: tuple[int, ...]  # in eighths
    counts: tuple[Count, ...]
    profile: bytes
    profile_error: Annotated[float, msgspec.Meta(ge=0.0, le=MAX_ERROR)]
    core: tuple[Share, ...]


class Pinned:
    """The reference of one feature, packed: a stream has fifty of them."""

    __slots__ = ("_core", "_counts", "_packed", "edges", "error", "kind", "votes")

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

    def _pooled(self) -> tuple[float, ...]:
        whole = self.votes + len(self._counts)
        return tuple((count + 1) / whole for count in self._counts)

    def _mean_and_unit(self) -> tuple[float, float]:
        """Return mean and standard deviation of the scores, over all hours."""
        shares, scores = self._pooled(), self.scores
        mean = _mean(shares, scores)
        return mean, sqrt(sum(share * (score - mean) ** 2 for share, score in zip(shares, scores, strict=True)))

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

    @property
    def stakes(self) -> Row:
        """The part of what is staked on this feature that is staked on each; they sum to 1."""
        return FLAG_STAKES if self.kind is Kind.FLAG else QUANTITY_STAKES

    def shares(self, hour: int) -> tuple[float, ...]:
        """Return the distribution in this hour of the week."""
        if not self.has_profile:
            return self.core
        mean, unit = self._mean_and_unit()
        return tilt(self.core, self.scores, mean + self.profile.at(hour) * unit)

    def prices(self, hour: int, terms: Terms, *, steady: bool) -> Row:
        """Return what each bet costs in this hour of the week: positive and finite. `steady`: see `is_steady`."""
        shares, scores, rows = self.shares(hour), self.scores, self.rows
        slack = terms.tolerance + self.error
        places = [shares]
        if slack > 0:  # the mean may be so much higher or lower: whatever is dearer counts
            mean, (_, unit) = _mean(shares, scores), self._mean_and_unit()
            places += [tilt(shares, scores, mean + side * slack * unit) for side in (-1, 1)]
        unknown = 1 - (self.votes - max(self._counts)) / (EVENTS_PER_CELL * HOURS)
        if unknown > 0 and not steady:
            places.append(oftener(shares, 1 + (RARE_TIMES - 1) * unknown))
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
            near, far = found[: len(SPREAD_STAKES)], found[len(SPREAD_STAKES) :]
            found = (
                *(price * exp(stake * slack) for price, stake in zip(near, SPREAD_STAKES, strict=True)),
                *(1 + (price - 1) * exp(FAR_STAKE * slack) for price in far),
            )
        assert all(isfinite(price) and price > 0 for price in found), "a price that is no number"
        return found

    def state(self) -> PinnedState:
        """Return it to be written down."""
        return PinnedState(
            self.kind,
            tuple(self.edges),
            eighths(self.scores),
            tuple(self._counts),
            self.profile.steps,
            self.error,
            self.core,
        )

    @classmethod
    def of(cls, state: PinnedState, kind: Kind) -> "Pinned":
        """Return what was written down of a feature of this kind.

        Raises:
            ValueError: it does not fit together.
        """
        check_bins(state.edges, state.scores, state.counts)
        fits = len(state.core) == len(state.counts) and len(state.profile) in (0, HOURS_OF_WEEK)
        if state.kind is not kind or not fits or not any(state.counts) or abs(1 - sum(state.core)) > CORE_OFF:
            raise ValueError("a reference that does not fit together")
        profile = Profile(state.profile, state.profile_error) if state.profile else FLAT
        scores = tuple(score / STEPS for score in state.scores)
        return cls(kind, state.edges, scores, state.counts, profile, state.core)


def check_bins(edges: Sequence[float], scores: Sequence[int], counts: Sequence[int]) -> None:
    """See that what was written down of bins fits together. Scores are in eighths.

    Raises:
        ValueError: it does not.
    """
    if len({len(edges) + 1, len(scores), len(counts)}) != 1:
        raise ValueError("bins that do not fit together")
    if not edges or any(low >= high for low, high in pairwise(edges)):
        raise ValueError("edges that do not ascend")
    if any(low > high for low, high in pairwise(scores)) or scores[0] < -_MIDDLE or scores[-1] > _MIDDLE:
        raise ValueError(f"scores that do not ascend, or are beyond {MAX_SCORE}")


def _mean(shares: Sequence[float], scores: Sequence[float]) -> float:
    return sum(share * score for share, score in zip(shares, scores, strict=True))


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
