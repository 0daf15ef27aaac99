"""The table: names, labels and bounds are a public contract."""

import re
from itertools import pairwise

import pytest

from inferwatch.record import Outcome
from inferwatch_collectors import metrics
from inferwatch_collectors.metrics import BY_NAME, LABELS, REQUEST, TABLE, Kind, Metric
from inferwatch_collectors.verdict import FIRST_TOKEN_MISSING_REASONS

# OpenTelemetry semantic conventions v1.41, docs/gen-ai/gen-ai-metrics.md
DURATION_1_41 = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
SEMCONV_BOUNDS = {
    "gen_ai.server.request.duration": DURATION_1_41,
    "gen_ai.server.time_to_first_token": (
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
    "gen_ai.server.time_per_output_token": (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
    "gen_ai.client.token.usage": (
        *(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
    ),
}

UNITS = ("seconds", "bytes", "tokens", "dollars", "joules", "grams", "watts", "celsius", "hertz")

every_metric = pytest.mark.parametrize("metric", TABLE, ids=lambda metric: metric.name)


def test_public_names_are_there() -> None:
    """The names that the design promises, with the labels that it promises, are in the table."""
    promised = {
        "inferwatch_requests_total": (*REQUEST, "outcome"),
        "inferwatch_requests_in_flight": REQUEST,
        "inferwatch_request_duration_seconds": REQUEST,
        "inferwatch_time_to_first_token_seconds": REQUEST,
        "inferwatch_inter_token_latency_seconds": REQUEST,
        "inferwatch_time_per_output_token_seconds": REQUEST,
        "inferwatch_first_token_missing_total": (*REQUEST, "reason"),
        "inferwatch_tokens_total": (*REQUEST, "type"),
        "inferwatch_tokens_by_source_total": ("model", "source", "type"),
        "inferwatch_wasted_tokens_total": (*REQUEST, "reason"),
        "inferwatch_request_prompt_tokens": REQUEST,
        "inferwatch_request_completion_tokens": REQUEST,
    }
    assert {name: BY_NAME[name].labels for name in promised} == promised


def test_names_are_unique() -> None:
    """No two rows share a name, nor a family name, which differs only by `_total`."""
    assert len({metric.family for metric in TABLE}) == len(TABLE)


@every_metric
def test_name_follows_the_conventions(metric: Metric) -> None:
    """Prefix, `_total` on counters alone, the unit before it, and characters that need no escaping."""
    assert re.fullmatch(r"inferwatch_[a-z][a-z0-9_]*[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.unit in ("", *UNITS, "ratio")
    assert f"_{metric.unit}" in metric.name
    for unit in UNITS:
        assert unit != metric.name.removesuffix("_total").rsplit("_", 1)[-1] or metric.unit == unit


@every_metric
def test_every_label_is_explained(metric: Metric) -> None:
    """A label outside the list of explained labels does not get in; none occurs twice; `le` is Prometheus' own."""
    assert set(metric.labels) <= set(LABELS)
    assert len(set(metric.labels)) == len(metric.labels)
    assert "le" not in metric.labels


@every_metric
def test_help_is_one_line(metric: Metric) -> None:
    """Help is a sentence in one line, so that `# HELP` needs no escaping."""
    assert metric.help.endswith(".")
    assert "\n" not in metric.documentation
    assert "\\" not in metric.documentation


@every_metric
def test_only_histograms_have_buckets(metric: Metric) -> None:
    """A histogram has ascending positive bounds and a reason for them; nothing else has buckets."""
    assert (metric.buckets is not None) == (metric.kind is Kind.HISTOGRAM)
    if metric.buckets is not None:
        bounds = metric.buckets.bounds
        assert list(bounds) == sorted(set(bounds))
        assert bounds[0] > 0
        assert metric.buckets.reason


@pytest.mark.parametrize(
    "metric", [each for each in TABLE if each.semconv and each.buckets], ids=lambda metric: metric.name
)
def test_bounds_contain_those_of_the_opentelemetry_twin(metric: Metric) -> None:
    """So the twin's cumulative counts are some of ours, exactly."""
    assert metric.buckets is not None
    assert set(SEMCONV_BOUNDS[metric.semconv]) <= set(metric.buckets.bounds)


def test_time_to_first_token_is_fine_where_targets_are_set() -> None:
    """Between 60 ms and 5 s no bound is more than twice the one before; the range is 1 ms to over a minute."""
    bounds = metrics.TTFT_BUCKETS.bounds
    steps = [upper / lower for lower, upper in pairwise(bounds) if 0.06 <= lower < 5.0]
    assert max(steps) <= 2.0
    assert bounds[0] == 0.001
    assert bounds[-1] > 60


def test_series_per_combination_stay_bounded() -> None:
    """One combination of model, tenant and operation has at most 180 series: the limits were chosen by that."""
    values = {"outcome": 6, "type": 4, "reason": 8, "basis": 2}

    def series(metric: Metric) -> int:
        own = 1 if metric.buckets is None else len(metric.buckets.bounds) + 3
        for label in set(metric.labels) - set(REQUEST):
            own *= values[label]
        return own

    assert sum(series(metric) for metric in TABLE if set(REQUEST) <= set(metric.labels)) <= 180


def test_every_reason_is_explained() -> None:
    """The closed set of the label `reason` stands in the help of its metrics."""
    for reason in FIRST_TOKEN_MISSING_REASONS:
        assert re.search(rf"\b{reason}\b", metrics.FIRST_TOKEN_MISSING.measured)
    for reason in (*(outcome.value for outcome in Outcome if outcome is not Outcome.OK), "no_answer"):
        assert re.search(rf"\b{reason}\b", metrics.WASTED_TOKENS.measured)


def test_unit_is_exposed_only_where_openmetrics_allows_it() -> None:
    """`# UNIT` needs a family name that ends in the unit."""
    assert metrics.TOKENS.exposed_unit == "tokens"
    assert metrics.CLIENT_STALL.exposed_unit == "seconds"
    assert metrics.TOKENS_BY_SOURCE.exposed_unit == ""
    assert metrics.REQUESTS.exposed_unit == ""
