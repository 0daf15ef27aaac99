"""Made-up tenants for `bench.anomalies`: what each spends in five minutes, and the requests it makes."""

import math
import random
from collections.abc import Callable
from typing import Final

from inferwatch_collectors.anomalies.spend import BUCKET_S, BUCKETS_PER_HOUR
from inferwatch_collectors.wall_time import HOUR_S, HOURS_OF_WEEK, hour_of_week

# A Monday's midnight, in hours since 1970.
MONDAY: Final = 20_001 * 24 - 24 * ((20_001 + 3) % 7)
BUCKETS_PER_WEEK: Final = HOURS_OF_WEEK * BUCKETS_PER_HOUR

# (hour since 1970, bucket of the hour) -> spent; called in order.
Spender = Callable[[int, int], int]

# Nano-dollars of one request, on average.
REQUEST: Final = 1_000_000


def _requests(rng: random.Random, mean: float) -> int:
    """Return what about `mean` requests cost: Poisson, each of lognormal size."""
    if mean <= 0:
        return 0
    count = int(max(0.0, rng.gauss(mean, math.sqrt(mean)) + 0.5)) if mean > 30 else _poisson(rng, mean)
    if count > 30:  # the sum of many is normal; exp(1) - 1 is the squared variation of a lognormal of sigma 1
        return int(max(0.0, rng.gauss(count, math.sqrt(count * 1.72))) * REQUEST)
    return int(sum(rng.lognormvariate(-0.5, 1) for _ in range(count)) * REQUEST)


def _poisson(rng: random.Random, mean: float) -> int:
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


class _Lucky:
    """Days and hours that rise and fall together."""

    def __init__(self, rng: random.Random, day: float, hour: float) -> None:
        self._rng, self._sigmas = rng, (day, hour)
        self._at = (-1, -1)
        self._luck = [1.0, 1.0]

    def at(self, hour: int) -> float:
        for place, unit in enumerate((hour // 24, hour)):
            if self._at[place] != unit:
                sigma = self._sigmas[place]
                self._luck[place] = math.exp(self._rng.gauss(-sigma * sigma / 2, sigma))
        self._at = (hour // 24, hour)
        return self._luck[0] * self._luck[1]


def flat(rng: random.Random) -> Spender:
    """A service: the same day and night."""
    luck = _Lucky(rng, 0.1, 0.1)
    return lambda hour, _: _requests(rng, 20 * luck.at(hour))


def business(rng: random.Random) -> Spender:
    """People at work: nine to six on weekdays, next to nothing otherwise; days and hours differ."""
    luck = _Lucky(rng, 0.25, 0.4)

    def spend(hour: int, _: int) -> int:
        of_week = hour_of_week(hour)
        rate = (30 if 9 <= of_week % 24 < 18 else 1.5) * (1.0 if of_week < 120 else 0.1)
        return _requests(rng, rate * luck.at(hour))

    return spend


def cycle(rng: random.Random) -> Spender:
    """Customers around the clock: a wave each day, less at the weekend, 3 % more each week."""
    luck = _Lucky(rng, 0.2, 0.2)

    def spend(hour: int, _: int) -> int:
        of_week = hour_of_week(hour)
        wave = 1 + 0.8 * math.sin(2 * math.pi * (of_week % 24 - 9) / 24)
        growth = math.exp(0.03 * (hour - MONDAY) / HOURS_OF_WEEK)
        return _requests(rng, 20 * wave * (1.0 if of_week < 120 else 0.6) * growth * luck.at(hour))

    return spend


def bursty(rng: random.Random) -> Spender:
    """A team that runs something every few hours, for as long as it takes: most hours are empty."""
    left, rate = 0, 0.0

    def spend(_: int, __: int) -> int:
        nonlocal left, rate
        if left <= 0 and rng.random() < BUCKET_S / (6 * HOUR_S):
            left = 1 + int(rng.expovariate(1 / 9))  # 45 minutes on average
            rate = 60 * rng.lognormvariate(-0.32, 0.8)
        left -= 1
        return _requests(rng, rate if left >= 0 else 0.2)

    return spend


def weekend(rng: random.Random) -> Spender:
    """A quiet service with a job each Saturday night: thirty times as much for some 4 hours, from 1 to 3 o'clock."""
    begin, end = 0.0, 0.0

    def spend(hour: int, bucket: int) -> int:
        nonlocal begin, end
        of_week = hour_of_week(hour)
        if of_week == 120 and bucket == 0:
            begin = hour + 1 + 2 * rng.random()
            end = begin + 4 * rng.lognormvariate(-0.03, 0.25)
        now = hour + bucket / BUCKETS_PER_HOUR
        return _requests(rng, 150 if begin <= now < end else 5)

    return spend


def sparse(rng: random.Random) -> Spender:
    """Somebody who tries something now and then: sessions of a few requests, twice a day."""
    left = 0

    def spend(_: int, __: int) -> int:
        nonlocal left
        if left <= 0 and rng.random() < BUCKET_S / (12 * HOUR_S):
            left = 1 + int(rng.expovariate(1 / 3))
        left -= 1
        return _requests(rng, 1.5) if left >= 0 else 0

    return spend


TENANTS: Final = {
    "flat": flat,
    "business": business,
    "cycle": cycle,
    "bursty": bursty,
    "weekend": weekend,
    "sparse": sparse,
}
