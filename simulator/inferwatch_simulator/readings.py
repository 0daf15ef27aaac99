"""Numbers for people from two scrapes of `/metrics`: rates and quantiles of what happened in between. Pure."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


class Scrape(NamedTuple):
    """One exposition: sample name -> labels -> value, and when it was taken."""

    at_s: float
    samples: Mapping[str, Mapping[Labels, float]]


def parse(text: str, at_s: float) -> Scrape:
    """Read the Prometheus text format."""
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return Scrape(at_s, samples)


def total(scrape: Scrape, name: str, **where: str) -> float:
    """Sum of the series of `name` that carry the labels in `where`."""
    wanted = set(where.items())
    return sum(value for labels, value in scrape.samples.get(name, {}).items() if wanted <= labels)


def rate(old: Scrape, new: Scrape, name: str, **where: str) -> float:
    """Increase per second between the two; a restart (a counter that fell) counts from zero, as in Prometheus."""
    before, after = total(old, name, **where), total(new, name, **where)
    seconds = new.at_s - old.at_s
    return (after - before if after >= before else after) / seconds if seconds > 0 else 0.0


def values(scrape: Scrape, name: str, label: str) -> list[str]:
    """Values of `label` on the series of `name`, sorted."""
    return sorted({value for labels in scrape.samples.get(name, {}) for key, value in labels if key == label})


def quantile(old: Scrape, new: Scrape, name: str, q: float, **where: str) -> float | None:
    """Quantile of a histogram's observations between the two scrapes, by linear interpolation within the bucket.

    None if there were none. The last bucket has no upper bound: then its lower bound is returned, as Prometheus does.
    """
    counts = _bucket_increase(old, new, name + "_bucket", set(where.items()))
    if not counts or counts[-1][1] <= 0:
        return None
    rank = q * counts[-1][1]
    lower, below = 0.0, 0.0
    for bound, cumulative in counts:
        if cumulative >= rank:
            if math.isinf(bound):
                return lower
            inside = cumulative - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, cumulative
    return lower


def _bucket_increase(old: Scrape, new: Scrape, name: str, wanted: set[tuple[str, str]]) -> list[tuple[float, float]]:
    increase: dict[float, float] = {}
    before = old.samples.get(name, {})
    for labels, value in new.samples.get(name, {}).items():
        if wanted <= labels:
            bound = float(dict(labels)["le"])
            earlier = before.get(labels, 0.0)
            increase[bound] = increase.get(bound, 0.0) + (value - earlier if value >= earlier else value)
    return sorted(increase.items())
