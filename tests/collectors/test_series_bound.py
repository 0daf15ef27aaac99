"""10,000 tenants and 50 models: how many series a scrape has, against what docs/topics/memory-and-bounds.md says."""

import itertools
import re
from pathlib import Path

from inferwatch.record import Outcome, RequestRecord, TokenClass, TokenSource
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import CardinalityGuard
from inferwatch_collectors.exposition import Exposition
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.recorder import Recorder

TENANTS, MODELS = 10_000, 50
PAGE = Path(__file__).parents[2] / "docs" / "topics" / "memory-and-bounds.md"


def a_request(number: int, tenant: int, model: int) -> RequestRecord:
    """A stream of which everything is known, so that it has as many series as a request can have."""
    outcome = Outcome.OK if number % 20 else Outcome.CLIENT_ABORT
    return RequestRecord(
        request_id=f"r{number}",
        wall_ns=1_700_000_000_000_000_000,
        tenant=f"tenant-{tenant}",
        model=f"model-{model}",
        operation="chat",
        route="chat",
        method="POST",
        stream=True,
        outcome=outcome,
        status=200,
        prompt_tokens=100,
        cached_tokens=64,
        completion_tokens=40,
        reasoning_tokens=10,
        token_source=TokenSource.FINAL_USAGE,
        choices=1,
        finish_reasons=("stop",),
        duration_s=2.0,
        ttft_s=0.5,
        ttft_answer_s=0.6,
        first_token=TokenClass.REASONING,
    )


def test_ten_thousand_tenants_and_fifty_models_stay_within_the_documented_bound() -> None:
    """Every tenant asks, five of the models each; then one model by all of them: the rest is counted as `other`."""
    documented = re.search(r"a scrape has at most ([\d,]+) series of requests", PAGE.read_text("utf-8"))
    assert documented is not None
    bound = int(documented[1].replace(",", ""))
    recorder = Recorder(MetricStore(), CardinalityGuard())
    numbers = itertools.count()
    for tenant in range(TENANTS):
        for step in range(5):
            recorder.finished(a_request(next(numbers), tenant, (tenant + step * 11) % MODELS), now_s=0)
    asked = next(numbers)
    series = sum(len(family.samples) for family in Exposition(recorder.store).collect())
    requests = sum(recorder.store.counter(m.REQUESTS, labels).value for labels in recorder.store.series(m.REQUESTS))
    assert requests == asked  # none is lost by folding
    assert any("other" in labels for labels in recorder.store.series(m.REQUESTS))
    print(f"{series} series")
    assert 10_000 < series <= bound
