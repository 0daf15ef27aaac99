"""Who is exported: by trace id, and whatever failed or was slow."""

import random

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from otlp_records import Make

from inferwatch.config import ConfigError
from inferwatch.record import Outcome
from inferwatch.settings.otlp import Otlp, TenantSampling
from inferwatch_collectors.otlp.sampling import Sampler, kept


def ids(count: int) -> list[str]:
    chance = random.Random(1)
    return [f"{chance.getrandbits(128):032x}" for _ in range(count)]


def test_a_share_is_that_of_opentelemetrys_own_sampler(record: Make) -> None:
    """Of two thousand traces the same are kept as by any other service with that ratio."""
    sampler = Sampler(Otlp(sample_ratio=0.25), {})
    theirs = TraceIdRatioBased(0.25)

    kept_here = {each for each in ids(2000) if sampler.takes(record(trace_id=each, parent_span_id=""))}

    assert kept_here == {
        each for each in ids(2000) if theirs.should_sample(None, int(each, 16), "").decision.is_sampled()
    }
    assert 400 < len(kept_here) < 600


def test_what_failed_or_was_slow_is_always_taken(record: Make) -> None:
    """Also where nothing else is, and where the caller does not sample."""
    sampler = Sampler(Otlp(sample_ratio=0.0, always_slower_s=5.0), {})

    assert not sampler.takes(record())
    assert not sampler.takes(record(outcome=Outcome.CLIENT_ABORT))
    for outcome in (Outcome.UPSTREAM_ERROR, Outcome.STREAM_ERROR, Outcome.REJECTED, Outcome.INTERRUPTED):
        assert sampler.takes(record(outcome=outcome, trace_sampled=False))
    assert sampler.takes(record(duration_s=5.1))
    neither = Sampler(Otlp(sample_ratio=0.0, always_slower_s=0.0, always_errors=False), {})
    assert not neither.takes(record(outcome=Outcome.UPSTREAM_ERROR, duration_s=99.0))


def test_a_tenant_may_have_a_share_of_its_own(record: Make) -> None:
    """More or less than the rest."""
    sampler = Sampler(Otlp(sample_ratio=0.0, tenants=(TenantSampling(tenant="acme", sample_ratio=1.0),)), {})

    assert sampler.takes(record())
    assert not sampler.takes(record(tenant="beta"))


def test_a_caller_that_does_not_sample_is_heeded(record: Make) -> None:
    """By its flag in `traceparent`; a trace that began here has no such caller."""
    sampler = Sampler(Otlp(sample_ratio=1.0), {})

    assert not sampler.takes(record(trace_sampled=False))
    assert sampler.takes(record(trace_sampled=True))
    assert sampler.takes(record(parent_span_id=""))


@pytest.mark.parametrize(
    ("name", "argument", "of_sampled", "of_unsampled", "of_none"),
    [
        ("", "", True, False, True),
        ("always_on", "", True, True, True),
        ("always_off", "", False, False, False),
        ("parentbased_always_off", "", True, False, False),
        ("traceidratio", "0", False, False, False),
        ("parentbased_traceidratio", "0", True, False, False),
    ],
)
def test_the_standard_variables(
    record: Make, name: str, argument: str, of_sampled: bool, of_unsampled: bool, of_none: bool
) -> None:
    """They decide where `otlp.sample_ratio` says nothing, and mean what they mean elsewhere."""
    sampler = Sampler(Otlp(), {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})

    assert sampler.takes(record()) is of_sampled
    assert sampler.takes(record(trace_sampled=False)) is of_unsampled
    assert sampler.takes(record(parent_span_id="")) is of_none


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER is none"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, "expected a number from 0 to 1"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"}, "expected a number from 0 to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(environ: dict[str, str], reason: str) -> None:
    """In a line that names the variable."""
    with pytest.raises(ConfigError, match=reason):
        Sampler(Otlp(), environ)


def test_content_is_sampled_independently_of_the_trace() -> None:
    """Of the traces that a small ratio keeps, a share of their own has content."""
    taken = [each for each in ids(4000) if int(each[16:], 16) < 2**62]

    share = sum(kept(each, 0.5) for each in taken) / len(taken)

    assert 0.4 < share < 0.6
    assert not any(kept(each, 0.0) for each in taken)
    assert all(kept(each, 1.0) for each in taken)
