"""From an engine's own names to ours. Pure: text in, one reading out, None for what it does not tell."""

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from inferwatch_collectors.engine.names import ENGINES, MIRRORED_RANKS, WANTED, Source, Term, Total
from inferwatch_collectors.engine.parse import Sample, Samples, parse


class EngineReading(msgspec.Struct, frozen=True, kw_only=True):
    """One scrape. Counts are the engine's own, since its own start; `prompt_tokens` includes the cached ones."""

    engine: str  # as in `names.ENGINES`
    requests_running: int | float | None = None
    requests_waiting: int | float | None = None
    kv_cache_usage_ratio: int | float | None = None  # 0 to 1; of the fullest instance
    preemptions: int | float | None = None
    prefix_cache_queries: int | float | None = None  # tokens looked up
    prefix_cache_hits: int | float | None = None  # tokens found
    prompt_tokens: int | float | None = None
    cached_tokens: int | float | None = None
    completion_tokens: int | float | None = None
    started_s: int | float | None = None  # Unix time at which the counts began

    @property
    def idle(self) -> bool:
        """Whether it says that it has nothing to do; an engine that does not say is taken to."""
        return not self.requests_running and not self.requests_waiting


# What is counted since the engine's start, as opposed to what is so at present.
COUNTS: Final = (
    "preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
)


def read(body: bytes) -> EngineReading | None:
    """Return what an engine's `/metrics` says; None if it is of no engine that we know.

    Raises:
        ParseError: the text is broken.
    """
    return normalise(parse(body, WANTED))


def normalise(samples: Samples) -> EngineReading | None:
    """The same from samples."""
    best: dict[str, int | float] = {}
    engine = ""
    for names in ENGINES:
        found = {field: _first(samples, sources) for field, sources in names.sources.items()}
        known = {field: value for field, value in found.items() if value is not None}
        # The start time is no engine's own.
        if len(known.keys() - {"started_s"}) > len(best.keys() - {"started_s"}):
            best, engine = known, names.engine
    if best.get("kv_cache_usage_ratio", 0) > 1:
        del best["kv_cache_usage_ratio"]
    return msgspec.convert({"engine": engine, **best}, EngineReading) if engine else None


def _first(samples: Samples, alternatives: Iterable[Source]) -> int | float | None:
    for source in alternatives:
        if isinstance(source, Total):
            parts = [_sum(_series(samples, term)) for term in source.terms]
            value = None if None in parts else sum(part for part in parts if part is not None)
        else:
            value = max((sample.value for sample in _series(samples, source.term)), default=None)
        if value is not None:
            return _sane(value)
    return None


def _series(samples: Samples, term: Term) -> list[Sample]:
    return [
        sample
        for sample in samples.get(term.name, ())
        if all(sample.labels.get(label) == value for label, value in term.where)
    ]


def _sum(series: list[Sample]) -> float | None:
    """Add up the series, those of ranks that mirror each other once; None if there are none."""
    instances: dict[frozenset[tuple[str, str]], float] = {}
    for sample in series:
        key = frozenset(item for item in sample.labels.items() if item[0] not in MIRRORED_RANKS)
        instances[key] = max(sample.value, instances.get(key, -math.inf))
    return sum(instances.values()) if instances else None


def _sane(value: float) -> int | float | None:
    """Return `value` as an integer where it is one, None if it is no quantity at all."""
    if not 0 <= value < math.inf:
        return None
    return int(value) if value == int(value) else value
