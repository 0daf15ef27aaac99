"""The store as text: Prometheus 0.0.4 and OpenMetrics 1.0, whichever the scraper prefers.

The formats are prometheus_client's; this file only turns series into its families. Exemplars (trace ids) go out in
OpenMetrics alone, the older format has no place for them.

Taking the families from the store is the smaller part of the work and must happen on the loop's thread, where values
change; writing them as text may happen in another: `families = list(exposition.collect())`, then `encode(families, …)`.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from math import inf
from typing import Final

from prometheus_client import Metric as PrometheusFamily
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Exemplar as PrometheusExemplar
from prometheus_client.exposition import generate_latest as encode_text
from prometheus_client.openmetrics.exposition import generate_latest as encode_openmetrics
from prometheus_client.utils import floatToGoString

from inferwatch_collectors.metric_store import Counter, Gauge, Histogram, MetricStore
from inferwatch_collectors.metrics import Kind, Metric

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# A scraper that sends a longer header does not get to make us parse it.
MAX_ACCEPT_CHARS: Final = 1024


class Exposition:
    """A prometheus_client Collector over a store. Families without a series are left out."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store

    def collect(self) -> Iterator[PrometheusFamily]:
        """Yield families in the order of the table, series in that of their label values."""
        for family in self._store.families():
            exposed = _family(family.metric, family.sorted())
            if exposed.samples:
                yield exposed

    def render(self, accept_header: str = "") -> tuple[bytes, str]:
        """Return (body, content type) for a scraper with this Accept header."""
        return encode(self.collect(), accept_header)


def encode(families: Iterable[PrometheusFamily], accept_header: str = "") -> tuple[bytes, str]:
    """Return (body, content type) of `families`, in the format that the Accept header prefers."""
    registry = _Collected(families)
    if prefers_openmetrics(accept_header):
        body: bytes = encode_openmetrics(registry)  # type: ignore[no-untyped-call]
        return body, OPENMETRICS_TYPE
    return encode_text(registry), TEXT_TYPE


def prefers_openmetrics(accept_header: str) -> bool:
    """Tell whether OpenMetrics 1.0 has a higher quality in `accept_header` than plain text.

    A wildcard gets plain text, which people can read in a browser; so does a header that makes no sense.
    """
    openmetrics = text = 0.0
    for part in accept_header[:MAX_ACCEPT_CHARS].split(","):
        media_type, *rest = (piece.strip().lower() for piece in part.split(";"))
        parameters = dict(piece.split("=", 1) for piece in rest if "=" in piece)
        quality = _quality(parameters.get("q", "1"))
        version = parameters.get("version", "")
        if media_type == "application/openmetrics-text" and version in ("", "1.0.0"):
            openmetrics = max(openmetrics, quality)
        elif media_type in ("text/plain", "text/*", "*/*") and version in ("", "0.0.4"):
            text = max(text, quality)
    return openmetrics > text or (openmetrics == text and openmetrics > 0)


class _Collected:
    """What prometheus_client's encoders take for a registry."""

    def __init__(self, families: Iterable[PrometheusFamily]) -> None:
        self._families = families

    def collect(self) -> Iterable[PrometheusFamily]:
        return self._families


def _family(metric: Metric, series: list[Counter] | list[Gauge] | list[Histogram]) -> PrometheusFamily:
    about = (metric.family, metric.documentation)
    unit = metric.exposed_unit
    if metric.kind is Kind.COUNTER:
        counters = CounterMetricFamily(*about, labels=metric.labels, unit=unit)
        for each in series:
            if isinstance(each, Counter):
                counters.add_metric(each.labels, each.value if metric.scale == 1 else each.value / metric.scale)
        return counters
    if metric.kind is Kind.GAUGE:
        gauges = GaugeMetricFamily(*about, labels=metric.labels, unit=unit)
        for each in series:
            if isinstance(each, Gauge) and each.value is not None:
                gauges.add_metric(each.labels, each.value)
        return gauges
    histograms = HistogramMetricFamily(*about, labels=metric.labels, unit=unit)
    assert metric.buckets is not None
    bounds = [_bound(bound) for bound in (*metric.buckets.bounds, inf)]
    for each in series:
        if isinstance(each, Histogram):
            histograms.add_metric(each.labels, _buckets(each, bounds), each.sum)
    return histograms


def _buckets(
    histogram: Histogram, bounds: list[str]
) -> list[tuple[str, float] | tuple[str, float, PrometheusExemplar]]:
    buckets: list[tuple[str, float] | tuple[str, float, PrometheusExemplar]] = list(
        zip(bounds, accumulate(histogram.counts), strict=True)
    )
    for index, exemplar in histogram.exemplars.items():
        bound, count = buckets[index][:2]
        shown = PrometheusExemplar({"trace_id": exemplar.trace_id}, exemplar.value, exemplar.wall_s)
        buckets[index] = (bound, count, shown)
    return buckets


def _bound(value: float) -> str:
    """Return `value` as the label `le` has it in both formats."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
