"""The store's values as OpenTelemetry's metrics: under its names where there is a twin, under ours elsewhere.

Sums and histograms are cumulative, as the store's are, and go on after a restart; so their start is that of the books.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from inferwatch_collectors import metric_store
from inferwatch_collectors import metrics as m
from inferwatch_collectors.metric_store import LabelValues, MetricStore
from inferwatch_collectors.metrics import Kind, TokenType

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE

UNITS: Final = {
    "seconds": "s", "bytes": "By", "tokens": "{token}", "ratio": "1", "watts": "W", "joules": "J", "celsius": "Cel",
    "hertz": "Hz", "dollars": "{USD}",
}  # fmt: skip

ATTRIBUTES: Final = {
    "model": "gen_ai.request.model",
    "operation": "gen_ai.operation.name",
    "error_type": "error.type",
    "uuid": "hw.id",
    "gpu_model": "hw.model",
    "vendor": "hw.vendor",
    "driver_version": "hw.driver_version",
    "severity": "error.type",
    "direction": "network.io.direction",
}

# What OpenTelemetry has as a sum that goes up and down.
_LEVELS: Final = frozenset({"hw.gpu.memory.usage", "hw.gpu.memory.limit", "hw.status"})

# A counter of all tokens and a histogram of tokens per request have one twin: the histogram is it.
_OWN_NAME: Final = frozenset({m.TOKENS.name})

_TOKEN_TYPES: Final = {m.REQUEST_PROMPT_TOKENS.name: "input", m.REQUEST_COMPLETION_TOKENS.name: "output"}

# Names that OpenTelemetry's next GenAI conventions have in place of v1.41's: two histograms for one with an attribute,
# and counters of all tokens, which v1.41 has not.
OPT_IN: Final = "gen_ai_latest_experimental"
_LATEST: Final = {
    m.REQUEST_PROMPT_TOKENS.name: "gen_ai.client.inference.operation.input_tokens",
    m.REQUEST_COMPLETION_TOKENS.name: "gen_ai.client.inference.operation.output_tokens",
}
_LATEST_TOKENS: Final = {
    TokenType.PROMPT: "gen_ai.client.inference.usage.input_tokens",
    TokenType.CACHED: "gen_ai.client.inference.usage.cache_read.input_tokens",
    TokenType.COMPLETION: "gen_ai.client.inference.usage.output_tokens",
    TokenType.REASONING: "gen_ai.client.inference.usage.reasoning.output_tokens",
}
_TOKEN_TYPE: Final = m.TOKENS.labels.index("type")
# Engines do not tell the tokens of texts from those of images.
_MODALITY: Final[dict[str, str | int]] = {"gen_ai.token.modality": "unknown"}


def wants_latest(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the standard variable asks for names newer than v1.41."""
    return OPT_IN in [word.strip() for word in environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")]


class MetricsMaker:
    """Makes what is exported from a store."""

    def __init__(
        self,
        store: MetricStore,
        resource: Resource,
        scope: InstrumentationScope,
        *,
        start_ns: int,
        common: Callable[[], dict[str, str | int]],
        latest: bool = False,
    ) -> None:
        """`common` returns attributes of all GenAI metrics. `start_ns`: Unix time since when sums are counted."""
        self._store = store
        self._resource = resource
        self._scope = scope
        self._start_ns = start_ns
        self._common = common
        self._latest = latest
        self._told: set[metric_store.Exemplar] = set()  # by the last collection: an exemplar is told once
        self._telling: set[metric_store.Exemplar] = set()

    def data(self, now_ns: int) -> tuple[MetricsData, int]:
        """Return all that is known at Unix time `now_ns`, and of how many series. On the loop's thread."""
        by_name: dict[str, Metric] = {}
        common = self._common()
        count = 0
        for family in self._store.families():
            metric = family.metric
            named: dict[str, list[Any]] = {}
            for series in family.sorted():
                point = self._point(metric, series, now_ns, common)
                if point is not None:
                    named.setdefault(self._name(metric, series.labels), []).append(point)
            for name, points in named.items():
                count += len(points)
                before = by_name.get(name)  # two of ours may be one of theirs, told apart by an attribute
                every = points if before is None else [*before.data.data_points, *points]
                by_name[name] = Metric(name, metric.documentation, _unit(metric), _data(metric, name, every))
        self._told, self._telling = self._telling, set()
        scoped = ScopeMetrics(self._scope, list(by_name.values()), self._scope.schema_url or "")
        return MetricsData([ResourceMetrics(self._resource, [scoped], self._scope.schema_url or "")]), count

    def _name(self, metric: m.Metric, labels: LabelValues) -> str:
        if self._latest and metric.name in _LATEST:
            return _LATEST[metric.name]
        if self._latest and metric is m.TOKENS:
            return _LATEST_TOKENS[TokenType(labels[_TOKEN_TYPE])]
        if metric.semconv and metric.name not in _OWN_NAME:
            return metric.semconv
        return "inferwatch." + metric.family.removeprefix("inferwatch_")

    def _point(
        self, metric: m.Metric, series: Any, now_ns: int, common: Mapping[str, str | int]
    ) -> NumberDataPoint | HistogramDataPoint | None:
        attributes = _attributes(metric, series.labels, common, latest=self._latest)
        if isinstance(series, metric_store.Histogram):
            return HistogramDataPoint(
                attributes,
                self._start_ns,
                now_ns,
                sum(series.counts),
                series.sum,
                tuple(series.counts),
                series.bounds,
                # The store does not know the extremes; the encoder leaves out what is None.
                cast("float", None),
                cast("float", None),
                exemplars=self._exemplars(series),
            )
        if series.value is None:
            return None
        value = series.value if metric.scale == 1 else series.value / metric.scale
        return NumberDataPoint(attributes, self._start_ns if metric.kind is Kind.COUNTER else now_ns, now_ns, value)

    def _exemplars(self, histogram: metric_store.Histogram) -> list[Exemplar]:
        """Return what was observed since the last collection: the latest of each bucket."""
        self._telling.update(histogram.exemplars.values())
        return [
            Exemplar({}, each.value, int(each.wall_s * 1e9), int(each.span_id, 16), int(each.trace_id, 16))
            for each in histogram.exemplars.values()
            if each.span_id and each not in self._told
        ]


def _unit(metric: m.Metric) -> str:
    return UNITS.get(metric.unit, metric.unit and f"{{{metric.unit}}}")


def _data(metric: m.Metric, name: str, points: list[Any]) -> Any:
    if metric.kind is Kind.HISTOGRAM:
        return Histogram(points, _CUMULATIVE)
    if metric.kind is Kind.COUNTER:
        return Sum(points, _CUMULATIVE, is_monotonic=True)
    return Sum(points, _CUMULATIVE, is_monotonic=False) if name in _LEVELS else Gauge(points)


def _attributes(
    metric: m.Metric, labels: Iterable[str], common: Mapping[str, str | int], *, latest: bool
) -> dict[str, str | int]:
    twin = metric.semconv if metric.name not in _OWN_NAME else ""
    found: dict[str, str | int] = {}
    for name, value in zip(metric.labels, labels, strict=True):
        found[ATTRIBUTES.get(name, f"inferwatch.{name}")] = value
    if latest and metric is m.TOKENS:
        del found["inferwatch.type"]  # it is in the name
        found |= {**common, **_MODALITY}
    elif twin.startswith("hw."):
        found["hw.type"] = "gpu"
        if twin == "hw.status":
            found["hw.state"] = "ok"
        if metric.name == m.GPU_MEMORY_TEMPERATURE.name:
            found["hw.name"] = "memory"
    elif twin.startswith("gen_ai."):
        found |= common
        if metric.name in _TOKEN_TYPES and not latest:
            found["gen_ai.token.type"] = _TOKEN_TYPES[metric.name]
    return found
