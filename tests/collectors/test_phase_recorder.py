"""What is counted of the phases of finished requests."""

from typing import Any

import pytest

from inferwatch.record import Outcome, TimingSource
from inferwatch_collectors import metrics as m
from inferwatch_collectors.cardinality import OTHER, CardinalityGuard, Limits
from inferwatch_collectors.metric_store import MetricStore
from inferwatch_collectors.metrics import Metric
from inferwatch_collectors.phases import PHASES
from inferwatch_collectors.recorder import Recorder


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(MetricStore(), CardinalityGuard(Limits(idle_s=10)))


def spent_ns(recorder: Recorder) -> dict[tuple[str, ...], float]:
    """Nanoseconds by tenant and phase: the store holds them whole."""
    store = recorder.store
    return {labels: store.counter(m.TENANT_PHASE, labels).value for labels in store.series(m.TENANT_PHASE)}


def observed(recorder: Recorder) -> dict[tuple[str, ...], tuple[int, float]]:
    store = recorder.store
    found = {labels: store.histogram(m.REQUEST_PHASE, labels) for labels in store.series(m.REQUEST_PHASE)}
    return {labels: (histogram.count, histogram.sum) for labels, histogram in found.items()}


def test_each_known_phase_is_counted(recorder: Recorder, frames: Any) -> None:
    """By model as a histogram, by tenant as a sum; what is not known makes no series."""
    recorder.finished(frames.record(1, sent_s=0.1, ttft_s=0.3, stalled_s=0.05), now_s=0)
    expected = {"proxy": 0.1, "wait": 0.2, "decode": 0.15, "engine": 0.0, "client": 0.05}
    assert spent_ns(recorder) == {("acme", phase): round(spent_s * 1e9) for phase, spent_s in expected.items()}
    assert observed(recorder) == {
        ("qwen", phase): (1, pytest.approx(spent_s)) for phase, spent_s in expected.items()
    }  # fmt: skip


def test_sums_are_exact(recorder: Recorder, frames: Any) -> None:
    """However many requests: the phases of a tenant sum to its durations, to the nanosecond."""
    for number in range(1000):
        times = {"queue_s": 0.01, "prefill_s": 0.02, "timing_source": TimingSource.ENGINE_BODY} if number % 2 else {}
        recorder.finished(frames.record(number, duration_s=0.1 + number / 1e9, sent_s=0.001, **times), now_s=0)
    assert sum(spent_ns(recorder).values()) == 1000 * 100_000_000 + sum(range(1000))


@pytest.mark.parametrize("changes", [{"sent_s": None}, {"operation": OTHER}], ids=str)
def test_what_was_not_the_engines_work_is_left_out(recorder: Recorder, frames: Any, changes: dict[str, Any]) -> None:
    """A request that never reached it, and routes that generate nothing, would drown the rest."""
    recorder.finished(frames.record(1, **{"sent_s": 0.1} | changes), now_s=0)
    assert (spent_ns(recorder), observed(recorder)) == ({}, {})


def test_those_who_gave_up_are_counted(recorder: Recorder, frames: Any) -> None:
    """Without them a slow engine would look fast."""
    ended = {"outcome": Outcome.CLIENT_ABORT, "first_token_missing": "client_abort", "stream": True}
    recorder.finished(frames.record(1, sent_s=0.1, **ended), now_s=0)
    assert spent_ns(recorder)["acme", "wait"] == 400_000_000


def test_seconds_are_exposed() -> None:
    """The store's nanoseconds are divided where they are shown."""
    assert m.TENANT_PHASE.scale == 10**9


def test_retired_series_begin_anew(recorder: Recorder, frames: Any) -> None:
    """A combination that was idle lets go of its series; if it comes back they begin at 0, and count."""
    recorder.finished(frames.record(1, sent_s=0.1), now_s=0)
    recorder.tick(now_s=100)
    assert (spent_ns(recorder), observed(recorder)) == ({}, {})
    recorder.finished(frames.record(2, sent_s=0.2), now_s=101)
    assert spent_ns(recorder)["acme", "proxy"] == 200_000_000
    assert observed(recorder)["qwen", "proxy"] == (1, 0.2)


@pytest.mark.parametrize("metric", [m.REQUEST_PHASE, m.TENANT_PHASE], ids=lambda metric: metric.name)
def test_series_are_bounded(metric: Metric) -> None:
    """A model or a tenant has one series for each phase, and nothing else multiplies them."""
    assert len(PHASES) == 8
    assert set(metric.labels) - {"phase"} in ({"model"}, {"tenant"})


def test_what_is_inferred_says_so() -> None:
    """Nobody takes an overlap for a proof."""
    for metric in (m.PREFILL_BLOCKED, m.NEIGHBOUR_DELAY):
        assert "upper bound" in metric.measured
        assert "no proof" in metric.measured
