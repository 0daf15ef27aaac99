"""The engine's figures as series of our own.

Gauges are set, and unset when a scrape fails. Counters are mirrored by their growth, so that they survive a restart of
either side: what was last read is kept in a memo, which is committed in the same transaction as the counters. If we
restart, the next scrape adds what the engine counted meanwhile; if the engine restarts, it adds what that has counted
since its start.

A restart is known by the start time of the engine's process. Where there is none, a count that fell is a restart, for
that count. Where the start time says that the process is the same, a count that fell lost a series (an instance was
taken away), and is followed from there without adding anything.
"""

from typing import Final

import msgspec

from inferwatch_collectors import metrics as m
from inferwatch_collectors.engine.normalise import COUNTS, EngineReading
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import Metric, TokenType

MEMO: Final = "engine_raw"

# prometheus_client computes the start time from the boot time, which moves when the clock is set; a new process is
# some seconds younger.
SAME_START_S: Final = 1.0

_GAUGES: Final = (
    ("requests_running", m.ENGINE_REQUESTS_RUNNING),
    ("requests_waiting", m.ENGINE_REQUESTS_WAITING),
    ("kv_cache_usage_ratio", m.ENGINE_KV_CACHE_USAGE),
)

_COUNTERS: Final[dict[str, tuple[Metric, tuple[str, ...]]]] = {
    "preemptions": (m.ENGINE_PREEMPTIONS, ()),
    "prefix_cache_queries": (m.ENGINE_PREFIX_CACHE_QUERIES, ()),
    "prefix_cache_hits": (m.ENGINE_PREFIX_CACHE_HITS, ()),
    "prompt_tokens": (m.ENGINE_TOKENS, (TokenType.PROMPT.value,)),
    "cached_tokens": (m.ENGINE_TOKENS, (TokenType.CACHED.value,)),
    "completion_tokens": (m.ENGINE_TOKENS, (TokenType.COMPLETION.value,)),
}


class _Raw(msgspec.Struct, array_like=True):
    """What was last read."""

    started_s: float | None = None
    counts: dict[str, int | float] = {}


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Raw).decode


class Mirror:
    """One engine's series."""

    def __init__(self, store: MetricStore, upstream: str) -> None:
        self._store = store
        self._upstream = upstream
        self._memo = store.memo(MEMO, (upstream,))
        self._raw = _Raw()
        self._engine = ""

    def resume(self) -> None:
        """Take up what an earlier life read last, from the restored store."""
        if self._memo.data:
            try:
                self._raw = _decode(self._memo.data)
            except msgspec.DecodeError:
                # Then the engine's counts come a second time: a spike once, rather than no start.
                self._memo.set(b"")

    def take(self, reading: EngineReading) -> bool:
        """Bring the series up to date. Return whether the engine was found to have begun anew."""
        self._show(reading)
        for field, metric in _GAUGES:
            self._store.gauge(metric, (self._upstream,)).set(getattr(reading, field))
        before, known = self._raw, bool(self._raw.counts)
        anew = self._begun_anew(reading)
        same_process = before.started_s is not None and reading.started_s is not None and not anew
        counts: dict[str, int | float] = {} if anew else dict(before.counts)
        fell = False
        for field in COUNTS:
            value: int | float | None = getattr(reading, field)
            if value is None:
                continue
            last = counts.get(field, 0)
            if value < last:
                fell = True
                last = value if same_process else 0
            counts[field] = value
            metric, labels = _COUNTERS[field]
            self._store.counter(metric, (self._upstream, *labels)).add(value - last)
        restarted = known and (anew or (fell and not same_process))
        self._store.counter(m.ENGINE_RESTARTS, (self._upstream,)).add(int(restarted))
        started_s = reading.started_s if reading.started_s is not None else before.started_s
        self._raw = _Raw(started_s, counts)
        self._memo.set(_encode(self._raw))
        return restarted

    def unknown(self) -> None:
        """The engine could not be read: what it does at present is not known."""
        for _, metric in _GAUGES:
            self._store.gauge(metric, (self._upstream,)).set(None)
        self._show(None)

    def tokens(self, kind: TokenType) -> int | None:
        """Return the mirrored count of tokens of one type; None if the engine does not tell it."""
        if kind.value not in {
            labels[1] for labels in self._store.series(m.ENGINE_TOKENS) if labels[0] == self._upstream
        }:
            return None
        return int(self._store.counter(m.ENGINE_TOKENS, (self._upstream, kind.value)).value)

    def _begun_anew(self, reading: EngineReading) -> bool:
        before_s, now_s = self._raw.started_s, reading.started_s
        return before_s is not None and now_s is not None and abs(now_s - before_s) > SAME_START_S

    def _show(self, reading: EngineReading | None) -> None:
        engine = reading.engine if reading is not None else ""
        if self._engine and engine != self._engine:
            self._store.gauge(m.ENGINE_INFO, (self._upstream, self._engine)).set(None)
        self._engine = engine
        if engine:
            self._store.gauge(m.ENGINE_INFO, (self._upstream, engine)).set(1)
