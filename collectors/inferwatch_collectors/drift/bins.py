"""Bins and what falls into them: edges, and distributions over bins that are tilted, mixed and compared. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from math import exp, inf, log, nextafter
from typing import Final

from inferwatch_collectors.drift.betting import STEPS, normal_scores

QUANTILES: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)

# Values that make edges have 32 bits, those that are looked up have 64: what is rounded to the same is one value.
HALF_STEP: Final = 2.0**-24  # of the value, from one 32-bit float to the next
LEAST_HALF_STEP: Final = 2.0**-150


def cut(values: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the edges that these finite values, of 32 bits, make, ascending, and the score of each bin.

    Bin i is above edge i - 1, up to edge i (`bisect_left`). The first is below all of these values and the last above:
    they are farther out than `betting.FAR`, if there are EDGE_VOTES values. What the values were before they were
    rounded is in the same bins.
    """
    ordered = sorted(values)
    last = len(ordered) - 1
    upper = {ordered[round(share * last)] for share in QUANTILES} | {ordered[last]}
    lowest = nextafter(ordered[0] - _half_step(ordered[0]), -inf)
    edges = sorted({lowest, *(value + _half_step(value) for value in upper)})
    counts = [0] * (len(edges) + 1)
    for value in ordered:
        counts[bisect_left(edges, value)] += 1
    return tuple(edges), normal_scores(tuple(counts))


def _half_step(value: float) -> float:
    return max(abs(value) * HALF_STEP, LEAST_HALF_STEP)


def eighths(scores: Sequence[float]) -> tuple[int, ...]:
    """Return scores as they are kept."""
    return tuple(round(score * STEPS) for score in scores)


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


def oftener(shares: Sequence[float], times: float) -> tuple[float, ...]:
    """Return the distribution with all but the commonest bin `times` as often, but no more than half of the time."""
    usual = max(range(len(shares)), key=lambda place: shares[place])
    rest = 1 - shares[usual]
    times = min(times, 0.5 / rest) if 0 < rest < 0.5 else 1.0
    return tuple(1 - times * rest if place == usual else times * share for place, share in enumerate(shares))


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
