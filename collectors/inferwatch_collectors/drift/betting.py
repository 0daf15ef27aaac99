"""The bets of a drift detector: what is staked on which change, and what the evidence is worth.

An e-detector (Shin, Ramdas and Rinaldo, "E-detectors", NEJSDS 2022), of the Shiryaev-Roberts kind, as in
`anomalies.evidence`. There the null is "no more than expected"; here it is "this feature falls into its bins as it
did in the reference":

* A feature is cut into bins, and each bin b has a score s(b): about what a normal variable would show there, or for a
  flag 0 and 1. Who bets on a change of some kind k gets row_k(b) = exp(tilt of s(b)) for what was seen, and pays the
  mean of that under the reference, `price_k`: if nothing has changed, row_k / price_k is 1 on average or less, given
  all that was before.
* At every vote a new player comes in with as much as time has passed. What all have together is on average at most the
  time since the start. So evidence of W weeks comes on average no sooner than after W weeks if nothing has changed, and
  within W/20 weeks in one of twenty such streams at most, however often one looks (Doob).
* The mean over kinds of change and over features, with stakes that sum to 1, is as valid as each.

What is not exact: a price is an estimate. `reference.prices` makes it too high rather than too low, and says how sure.

Rows are shared by all features (scores are rounded to an eighth), so that a feature's own state is a few hundred bytes.
What players have is kept in 32-bit floats: an error of 1e-7 a vote is nothing beside the prices'.

Pure.
"""

from collections.abc import Sequence
from functools import cache
from math import exp, sqrt
from statistics import NormalDist
from typing import Final

# What is bet on, of a quantity in standard deviations: it moved, or spread out. The best bet on a shift of d is d,
# and any between d/2 and 2d gains; below half of the smallest nothing ever grows, which is a tolerance of its own.
SHIFTS: Final = (0.1, -0.1, 0.25, -0.25, 0.5, -0.5, 0.7, -0.7, 1.0, -1.0)
SPREADS: Final = (0.4, -0.4)

# Or a part of the traffic is of another kind: so much of it has moved, by so much. Where a tenth has moved by 1.5, such
# a bet grows twice as fast as the best on a shift of all.
PARTS: Final = ((0.1, 1.5), (0.1, -1.5))

# Or what hardly any request of the reference had comes so many times as often: words of another language. What is
# farther out than this is beyond the extreme of the values that made the edges (see `bins.cut`).
FAR: Final = 2.75
FAR_TIMES: Final = (10.0, 100.0)  # either side

QUANTITY_BETS: Final = len(SHIFTS) + len(SPREADS) + len(PARTS) + 2 * len(FAR_TIMES)

# Of a flag: it comes so many times as often (as odds). More bets on more: what is bad is a flag that comes oftener.
RATIOS: Final = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 0.6, 0.3)

# How much of what is staked on a quantity is staked on each. A change by a quarter of a standard deviation is the least
# that people call one, and takes the longest to find: most on that; less on what moved by a tenth, spread out, or
# moved in part.
_STAKES: Final = (
    1,
    1,
    5,
    5,
    *(2,) * (len(SHIFTS) - 4),
    *(1,) * (len(SPREADS) + len(PARTS)),
    *(2,) * 2 * len(FAR_TIMES),
)
QUANTITY_STAKES: Final = tuple(stake / sum(_STAKES) for stake in _STAKES)
FLAG_STAKES: Final = (1 / len(RATIOS),) * len(RATIOS)

# One value must not decide: at the largest stake on a shift a score of 3 is worth a factor of 12. Of what is far it
# takes five in thirty votes.
MAX_SCORE: Final = 3.0
STEPS: Final = 8  # scores are rounded to 1/STEPS

# No bet of any configuration needs more for a signal (see `reference.Terms`): 520 weeks of 10,000 streams, from the
# least bet on the least of all features, 1/129 of the stakes. A power of two is the same in 32 bits, which end at 3e38.
CEILING_WEEKS: Final = 2.0**40
# Evidence that has been lost for good is not carried below what a float can hold.
FLOOR_WEEKS: Final = 1e-30

WEEK_S: Final = 7 * 24 * 3600

Row = tuple[float, ...]


def normal_scores(counts: tuple[int, ...]) -> tuple[float, ...]:
    """Return for each bin what a standard normal variable has in the middle of it, rounded and bounded."""
    total = sum(counts) + 0.5 * len(counts)
    scores, below = [], 0.0
    for count in counts:
        share = (count + 0.5) / total
        score = NormalDist().inv_cdf(below + share / 2)
        scores.append(round(max(-MAX_SCORE, min(MAX_SCORE, score)) * STEPS) / STEPS)
        below += share
    return tuple(scores)


@cache
def quantity_row(score: float) -> Row:
    """Return what each bet on a quantity gets when a value of this score is seen."""
    spread = (score * score - 1.0) / sqrt(2.0)
    return (
        *(exp(shift * score) for shift in SHIFTS),
        *(exp(step * spread) for step in SPREADS),
        *(1.0 - part + part * exp(shift * score - shift * shift / 2) for part, shift in PARTS),
        *(times if score > FAR else 1.0 for times in FAR_TIMES),
        *(times if score < -FAR else 1.0 for times in FAR_TIMES),
    )


@cache
def flag_row(score: float) -> Row:
    """Return what each bet on a flag gets: its ratio if it is up (score 1), its stake if it is not (0)."""
    return RATIOS if score else (1.0,) * len(RATIOS)


BETS: Final = max(QUANTITY_BETS, len(RATIOS))


def bet(
    held: Sequence[float], row: Row, prices: Sequence[float], passed_weeks: float, ceiling_weeks: float = CEILING_WEEKS
) -> list[float]:
    """Return what all that bet on one feature have after something was seen: each gets `row / price`.

    `held`: what they had; newcomers bring the time that has passed. `prices` are positive and finite. Nobody has more
    than `ceiling_weeks`.
    """
    if passed_weeks < 0.0:
        passed_weeks = 0.0  # a clock that jumped: no time for nobody
    found = [
        FLOOR_WEEKS if (now := (have + passed_weeks) * get / price) < FLOOR_WEEKS else now
        for have, get, price in zip(held, row, prices, strict=True)
    ]
    return [min(have, ceiling_weeks) for have in found] if max(found) > ceiling_weeks else found
