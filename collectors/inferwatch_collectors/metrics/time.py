"""Where the time of requests went, and whose prompts stood in front of whose requests."""

from typing import Final

from inferwatch_collectors.metrics.base import Buckets, Group, Kind, Metric

PHASE_BUCKETS: Final = Buckets(
    (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0),
    "1 to 25 ms is what a proxy and an idle queue take; 0.1 to 2.5 s is where targets are set and gets the finest "
    "steps; above it only the order of magnitude matters. Few, because each phase of each model has them.",
)

REQUEST_PHASE: Final = Metric(
    name="inferwatch_request_phase_seconds",
    kind=Kind.HISTOGRAM,
    group=Group.TIME,
    labels=("model", "phase"),
    unit="seconds",
    buckets=PHASE_BUCKETS,
    help="Time of each phase of requests of generating operations and embeddings that were with the engine.",
    measured="Observed when the request finishes, whatever its outcome. The phases of one request never overlap, "
    "and their sum is its duration. Without the engine's own numbers queue and prefill are one phase, wait, "
    "and a plain reply is all engine.",
)
TENANT_PHASE: Final = Metric(
    name="inferwatch_tenant_phase_seconds_total",
    kind=Kind.COUNTER,
    group=Group.TIME,
    labels=("tenant", "phase"),
    unit="seconds",
    scale=10**9,
    help="Time that requests of the tenant spent in each phase.",
    measured="The same requests as in request_phase_seconds. Divide by its sum over the phases for the share.",
)
PREFILL_BLOCKED: Final = Metric(
    name="inferwatch_prefill_blocked_seconds_total",
    kind=Kind.COUNTER,
    group=Group.TIME,
    labels=("model", "tenant"),
    unit="seconds",
    help="Time in which requests waited while long prompts of others were in prefill.",
    measured="Inferred from overlap, an upper bound and no proof: from when the request was sent to its first token, "
    "and its largest gap between tokens if that was out of the ordinary. Each moment counts once for a request.",
)
NEIGHBOUR_DELAY: Final = Metric(
    name="inferwatch_neighbour_delay_seconds_total",
    kind=Kind.COUNTER,
    group=Group.TIME,
    labels=("tenant", "victims"),
    unit="seconds",
    help="Time for which long prompts of the tenant stood in front of other requests, summed over those.",
    measured="The seconds of prefill_blocked_seconds_total, by who caused them: inferred from overlap, an upper bound "
    "and no proof. Where prompts overlap each has a share by its uncached tokens. "
    "Prompts below 2,048 tokens are not looked at.",
)
