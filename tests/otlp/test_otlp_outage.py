"""An OTLP endpoint that is dead, silent, slow or refusing, before the real thing under load. In short; the ten minutes of
it, with latencies and memory, are `bench/otlp_outage.py`."""

import pytest
from bench import otlp_outage
from bench.otlp_outage import AGAIN, ILLNESSES, OFF, WELL, Outage, Plan

pytestmark = pytest.mark.timeout(300)  # ten processes are started; half a minute on two idle cores

QUEUE = 24

# Everything happens sooner than by OpenTelemetry's defaults, and the slow endpoint answers too late.
SHORT = Plan(
    well_s=1.5,
    ill_s=2.0,
    per_s=20.0,
    samples=3,
    variables={
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BSP_MAX_QUEUE_SIZE": str(QUEUE),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "8",
    },
)


@pytest.fixture(scope="module", name="outage")
def _outage() -> Outage:
    """The run. It raises if a request fails or a process is restarted."""
    return otlp_outage.run(SHORT, tell=lambda _: None)


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_every_span_is_accounted_for(outage: Outage, kind: str) -> None:
    """Taken, failed or dropped; and while the endpoint is ill, the queue has its bound."""
    (target,) = [each for each in outage.targets if each.kind == kind]
    (endpoint,) = [each for each in outage.endpoints if each.kind == kind]

    assert target.accounted() == sum(phase.requests for phase in target.phases.values()) > 0
    assert 0 < target.exported() <= endpoint.taken
    for name in ILLNESSES:
        phase = target.phases[name]
        assert phase.requests
        assert phase.spans["failed"] + phase.spans["dropped"], name
        assert phase.queued <= QUEUE
    assert sum(target.phases[name].spans["dropped"] for name in ILLNESSES)
    assert target.phases["silent"].spans["exported"] == 0
    assert target.phases["refusing"].spans["exported"] == 0


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_spans_arrive_again_without_a_restart(outage: Outage, kind: str) -> None:
    """When the endpoint is well again; the processes are those of the beginning."""
    (target,) = [each for each in outage.targets if each.kind == kind]

    assert target.phases[WELL].spans["exported"]
    assert target.phases[AGAIN].spans["exported"]
    assert target.recovered_s is not None


def test_the_report_has_every_phase(outage: Outage) -> None:
    """For each Inferwatch, the one that exports nothing included."""
    page = otlp_outage.report(outage, "")

    for name in (WELL, *ILLNESSES, AGAIN):
        assert page.count(f"| {name} | {OFF} | ") == 1
