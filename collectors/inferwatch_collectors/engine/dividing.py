"""Dividing a whole number by weights, none getting more than its bound. Pure; integers only."""

from collections.abc import Sequence


def divide(total: int, weights: Sequence[int], bounds: Sequence[int]) -> list[int]:
    """Return whole shares of `total`, as near to the weights as the bounds allow.

    Who is above its bound by its weight gets the bound, and the rest is divided among the others; what is left over by
    rounding down goes to the largest remainders. The shares add up to `total`, or to all bounds if that is less.
    A weight of 0 is taken as the least there is. `total`, weights and bounds are not negative.
    """
    shares = [0] * len(weights)
    weighed = [max(1, weight) for weight in weights]
    unfilled = [index for index, bound in enumerate(bounds) if bound > 0]
    rest = total
    while rest and unfilled:
        whole = sum(weighed[index] for index in unfilled)
        full = [index for index in unfilled if rest * weighed[index] >= bounds[index] * whole]
        if not full:
            _by_largest_remainder(shares, rest, unfilled, weighed, whole)
            break
        for index in full:
            shares[index] = bounds[index]
            rest -= bounds[index]
        unfilled = [index for index in unfilled if not shares[index]]
    return shares


def _by_largest_remainder(shares: list[int], rest: int, among: list[int], weights: list[int], whole: int) -> None:
    remainders: list[tuple[int, int]] = []
    left = rest
    for index in among:
        shares[index], remainder = divmod(rest * weights[index], whole)
        left -= shares[index]
        remainders.append((-remainder, index))  # among equals the earlier
    for _, index in sorted(remainders)[:left]:
        shares[index] += 1


def beyond(total: int, weights: Sequence[int], known: Sequence[int]) -> list[int]:
    """Return weights by which to divide `total` among those who have had what is `known` of them beside it.

    As if all of it were divided by `weights`: who has had its part by then weighs nothing.
    """
    if not any(known):
        return list(weights)
    whole, weight = total + sum(known), max(1, sum(weights))
    return [max(0, whole * each - had * weight) for each, had in zip(weights, known, strict=True)]


def in_copies(shares: Sequence[int], copies: Sequence[int], bounds: Sequence[int]) -> list[int]:
    """Return whole numbers of what was counted in `copies`, as near to `shares` as that goes.

    An engine that counts a prompt for each of n answers has counted a multiple of n for that request. What does not fit
    one request is offered to the others, the most copies first; the sum of the results times their copies is that of
    `shares`, or a little less.
    """
    single = [share // times for share, times in zip(shares, copies, strict=True)]
    rest = sum(shares) - sum(one * times for one, times in zip(single, copies, strict=True))
    for index in sorted(range(len(single)), key=lambda index: -copies[index]):
        times = copies[index]
        more = min(rest // times, bounds[index] // times - single[index])
        if more > 0:
            single[index] += more
            rest -= more * times
    return single
