"""Made-up traffic in which nothing changes but what changes every day: five kinds of it, seeded.

A stream is two weeks of REQUESTS requests each: one to learn from, one to judge. All features of the product are in it,
correlated as those of real requests are (four things that nobody sees drive them all): lengths, shares of which most
are 0 nearly always, and yes-or-no's of 1 to 5 %.

    iid       nothing but chance
    cycle     a day and a week of +-30 % in every feature and in the number of requests; half of the streams as waves,
    half in
              business hours with a step at either end
    sessions  ten requests in a row are of one session and alike (intra-class correlation 0.3)
    dominant  ten tenants, each unlike the others; one of them is 60 to 95 % of the traffic, changing by the day
    churn     thirty tenants that come and go, for a day or so each time, each unlike the others
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.stats import norm

from inferwatch_collectors.drift.features import Feature, Kind, features
from inferwatch_collectors.drift.profile import HOURS_OF_WEEK

REQUESTS: Final = 50_000
KINDS: Final = ("iid", "cycle", "sessions", "dominant", "churn")

CYCLE: Final = float(np.log(1.3))
SESSION: Final = 10
ALIKE: Final = 0.3
TENANTS_APART: Final = 0.5  # standard deviations between tenants
DRIVERS: Final = 4

# Where most values are 0: the share of them, by the end of the feature's name.
ATOMS: Final = {
    "accented": 0.9, "cyrillic": 0.995, "cjk": 0.997, "other_script": 0.999, "symbols": 0.3, "newlines": 0.4,
    "digits": 0.3,
    "german": 0.6, "french": 0.6, "spanish": 0.6, "italian": 0.6, "portuguese": 0.6, "dutch": 0.6,
}  # fmt: skip
FLAGS: Final = {
    "finish_length": 0.05, "finish_tool_calls": 0.02, "finish_other": 0.002, "empty": 0.01, "abandoned": 0.03,
    "refusal": 0.02, "loop": 0.0, "json": 0.99, "tool_json": 0.99,
}  # fmt: skip

FEATURES: Final[tuple[Feature, ...]] = features(text=True)
COLUMNS: Final = tuple(range(len(FEATURES)))


class Stream(NamedTuple):
    """Two weeks of one stream; arrays by request."""

    values: Any  # float32 [requests, features]
    hour: Any  # of the week
    week: Any  # 0: to learn from, 1: to judge
    tenant: Any
    votes: Any  # bool: the first of its session


def of_kind(kind: str, seed: int, columns: Sequence[int] = COLUMNS, requests: int = REQUESTS) -> Stream:
    """Return the stream of this kind with this seed, of these features alone."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    total = 2 * requests
    business = seed % 2 == 1
    cycle = _cycle(business)
    if kind == "cycle":
        rate = np.exp(cycle)
        hour_of = np.sort(rng.choice(HOURS_OF_WEEK, size=(2, requests), p=rate / rate.sum()), axis=1)
    else:
        hour_of = np.tile(np.arange(requests) * HOURS_OF_WEEK // requests, (2, 1))
    hour = hour_of.reshape(-1)
    week = np.repeat([0, 1], requests)
    latent = latent_of(rng, total, columns)
    votes = np.ones(total, bool)
    tenant = np.zeros(total, int)
    if kind == "cycle":
        loads = rng.uniform(-1, 1, len(columns)) * [_hazard(FEATURES[column]) for column in columns]
        latent += cycle[hour][:, None] * loads[None, :].astype(np.float32)
    elif kind == "sessions":
        session = np.arange(total) // SESSION
        shared = latent_of(rng, total // SESSION + 1, columns)
        latent = np.sqrt(1 - ALIKE) * latent + np.sqrt(ALIKE) * shared[session]
        votes = np.arange(total) % SESSION == 0
    elif kind == "dominant":
        tenant = _dominant(rng, total)
    elif kind == "churn":
        tenant = _churn(rng, total)
    if kind in ("dominant", "churn"):
        apart = rng.normal(0, TENANTS_APART, (tenant.max() + 1, len(columns))).astype(np.float32)
        latent += apart[tenant]
    return Stream(shaped(latent, columns), hour, week, tenant, votes)


def latent_of(rng: Any, size: int, columns: Sequence[int] = COLUMNS) -> Any:
    """Return standard normal variables, [size, columns]: half of each is what nobody sees and all share."""
    mix = np.random.default_rng(7).normal(0, 1, (DRIVERS, len(FEATURES)))
    mix *= np.sqrt(0.5) / np.linalg.norm(mix, axis=0)
    shared = rng.standard_normal((size, DRIVERS), dtype=np.float32) @ mix[:, list(columns)].astype(np.float32)
    return shared + np.float32(np.sqrt(0.5)) * rng.standard_normal((size, len(columns)), dtype=np.float32)


def shaped(latent: Any, columns: Sequence[int] = COLUMNS) -> Any:
    """Return the features that these normal variables stand for. Lengths stay logarithms: bins do not mind."""
    values = latent.copy()
    for place, column in enumerate(columns):
        feature = FEATURES[column]
        if feature.kind is Kind.FLAG:
            values[:, place] = latent[:, place] > norm.isf(FLAGS[feature.name])
        else:
            atom = ATOMS.get(feature.name.split("_", 1)[-1])
            if atom is not None:
                values[:, place] = np.maximum(0, latent[:, place] - norm.ppf(atom))
    return values


def _hazard(feature: Feature) -> float:
    """Return what a shift must be divided by so that what is rare comes exp(shift) times as often, not more."""
    rare = FLAGS[feature.name] if feature.kind is Kind.FLAG else 1 - ATOMS.get(feature.name.split("_", 1)[-1], 0.0)
    if not 0 < rare < 0.5:
        return 1.0
    return float(min(1.0, rare / norm.pdf(norm.isf(rare))))


def _cycle(business: bool) -> Any:
    hours = np.arange(HOURS_OF_WEEK)
    day, of_day = hours // 24, hours % 24
    if business:
        at_work = (day < 5) & (of_day >= 8) & (of_day < 18)
        return CYCLE * np.where(at_work, 1.0, -1.0)
    return CYCLE * (np.sin(2 * np.pi * of_day / 24) + np.sin(2 * np.pi * hours / HOURS_OF_WEEK))


def _dominant(rng: Any, total: int) -> Any:
    tenant = np.zeros(total, int)
    for start in range(0, total, total // 14):
        stop = min(total, start + total // 14)
        share = rng.uniform(0.6, 0.95)
        others = rng.dirichlet(np.ones(9))
        # In bursts of twenty or so: who comes stays for a while.
        bursts = rng.choice(10, size=stop - start, p=[share, *(others * (1 - share))])
        lengths = rng.geometric(1 / 20, size=stop - start)
        tenant[start:stop] = np.repeat(bursts, lengths)[: stop - start]
    return tenant


def _churn(rng: Any, total: int) -> Any:
    """Tenants that are there for about a day and away for about as long; who is new in the second week was never
    learnt."""
    slots = 14 * 4
    weight = rng.lognormal(0, 1, 30)
    present = np.zeros((30, slots), bool)
    for tenant in range(30):
        on, slot = rng.random() < 0.5, 0
        while slot < slots:
            length = 1 + rng.poisson(3)
            present[tenant, slot : slot + length] = on
            on, slot = not on, slot + length
    present[0] |= ~present.any(axis=0)
    tenants = np.empty(total, int)
    size = -(-total // slots)
    for slot in range(slots):
        start, stop = slot * size, min(total, (slot + 1) * size)
        share = weight * present[:, slot]
        tenants[start:stop] = rng.choice(30, size=max(0, stop - start), p=share / share.sum())
    return tenants
