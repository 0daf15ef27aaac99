"""How a feature is now, beside how it was: effect sizes, and the figures that people are told. Pure.

A quantity can be told in three ways, each a share of requests before and now: how many have any (of what most have
none), how many are above the median of before, how many are in a tail of before. Whichever moved most is what is to be
told; of the second kind the two medians are.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from inferwatch_collectors.drift.bins import LEAST_HALF_STEP, psi
from inferwatch_collectors.drift.features import Feature, Kind

# What a tail is: so much of the reference was in it, or as near to that as there is an edge.
TAIL: Final = 0.05
# An edge is none of a tail if much more was beyond it: rather the middle.
TAIL_MOST: Final = 0.2
# An edge is near the median if about so much, at most, of the reference is between them: they are 0.15 apart.
MIDDLE_REACH: Final = 0.1
# As if each side had been seen once in so many times: no share is 0.
LEAST_SHARE: Final = 1e-3


class Split(NamedTuple):
    """The share of requests on one side of an edge."""

    edge: float
    before: float
    now: float

    @property
    def moved(self) -> float:
        """How much it is: the population stability index of a yes-or-no."""
        return psi(*((max(LEAST_SHARE, each), max(LEAST_SHARE, 1 - each)) for each in (self.before, self.now)))


class Effect(NamedTuple):
    """How a feature is now, beside how it was."""

    feature: Feature
    weeks: float  # its part of the evidence
    psi: float
    wasserstein: float  # in standard deviations; of a flag the difference of its shares
    before: float  # a flag's share, or the score of the mean
    now: float
    edges: Sequence[float]
    shares_before: Sequence[float]  # by bin
    shares_now: Sequence[float]

    @property
    def median_before(self) -> float | None:
        """Of a quantity, in its own unit; None if it is beyond the outermost edges."""
        return None if self.feature.kind is Kind.FLAG else median(self.shares_before, self.edges)

    @property
    def median_now(self) -> float | None:
        """Likewise."""
        return None if self.feature.kind is Kind.FLAG else median(self.shares_now, self.edges)

    @property
    def any(self) -> Split | None:
        """How many have any of a quantity of which most had, or have, none; else None."""
        if self.feature.kind is Kind.FLAG or not self._has_atom():
            return None
        found = self._above(1)._replace(edge=0.0)
        return found if min(found.before, found.now) <= 0.5 else None

    @property
    def middle(self) -> Split | None:
        """How many are above about the median of before; None where there is no edge near it."""
        found = min(self._splits(), key=lambda each: abs(each.before - 0.5), default=None)
        return found if found is not None and abs(found.before - 0.5) <= MIDDLE_REACH else None

    @property
    def high(self) -> Split | None:
        """How many are above nearly all of before; None where there is no such edge, or it is that of `any`."""
        return _tail(self._splits())

    @property
    def low(self) -> Split | None:
        """How many are below nearly all of before, or at the edge; likewise."""
        return _tail([Split(each.edge, 1 - each.before, 1 - each.now) for each in self._splits()])

    def _has_atom(self) -> bool:
        """Tell whether a bin has nothing but 0 in it, and is the first with anything (see `bins.cut`)."""
        return len(self.edges) > 1 and self.edges[0] < 0.0 and self.edges[1] == LEAST_HALF_STEP

    def _splits(self) -> list[Split]:
        """Return the shares above each edge, but those on either side of a bin of nothing but 0."""
        if self.feature.kind is Kind.FLAG:
            return []
        return [self._above(place) for place in range(2 * self._has_atom(), len(self.edges))]

    def _above(self, place: int) -> Split:
        """Return the share above an edge, by its place."""
        return Split(self.edges[place], sum(self.shares_before[place + 1 :]), sum(self.shares_now[place + 1 :]))


def _tail(splits: Iterable[Split]) -> Split | None:
    found = [each for each in splits if 0 < each.before <= TAIL_MOST]
    return min(found, key=lambda each: abs(each.before - TAIL), default=None)


def by_evidence(effects: Iterable[Effect]) -> list[Effect]:
    """Return those with the most evidence first; of the same, as it is shown, those that moved most."""
    return sorted(effects, key=lambda each: (float(f"{each.weeks:.3g}"), each.psi), reverse=True)


def median(shares: Sequence[float], edges: Sequence[float]) -> float | None:
    """Return about the median: between two edges in proportion; None where it is beyond the outermost."""
    below = list(accumulate(shares, initial=0.0))
    place = next((place for place in range(len(shares)) if below[place + 1] >= 0.5), len(edges))
    if place in (0, len(edges)):
        return None
    low, high = edges[place - 1], edges[place]
    if low <= 0.0 <= high and high == LEAST_HALF_STEP:  # a bin of nothing but 0
        return 0.0
    return low + (high - low) * (0.5 - below[place]) / shares[place]
