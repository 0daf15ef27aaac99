"""The canary probe: is the model that answers still the same?"""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

CANARY_EVIDENCE: Final = Metric(
    name="inferwatch_canary_evidence",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model",),
    help="Evidence that the model answers fixed prompts unlike its reference, in weeks.",
    measured="An alert at W or more is false at most once in W weeks, over all models. Users have no part in it: it is "
    "the model, its quantisation, the engine or the driver. Absent while the reference is learnt.",
)
CANARY_DETECTED: Final = Metric(
    name="inferwatch_canary_detected",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model",),
    help="1 from when the evidence reached canary.weeks_per_false_alarm until it is gone, else 0.",
    measured="Absent while the reference is learnt.",
)
CANARY_SIGNALS: Final = Metric(
    name="inferwatch_canary_signals_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("model",),
    help="Times that the evidence reached canary.weeks_per_false_alarm.",
    measured="Once for each episode, with a line in the log that says by how much, and what else changed.",
)
CANARY_JUDGING: Final = Metric(
    name="inferwatch_canary_judging",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model",),
    help="1 while replies come and are judged by a reference, 0 while it is learnt or none come.",
    measured="None come: for ten turns and a minute. Absent with canary.enabled: false, and for a model that never "
    "answered.",
)
CANARY_OFF: Final = Metric(
    name="inferwatch_canary_off",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("reason",),
    help="1 while nothing comes of the canary's probes.",
    measured="Reasons: those of canary_probes_total, three times in a row; and unstable: no token of any prompt is "
    "usual, so nothing can be compared. Absent while replies come.",
)
CANARY_PROBES: Final = Metric(
    name="inferwatch_canary_probes_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("model", "result"),
    help="Probes, by what came of them.",
    measured="ok; not sent: busy (requests wait in the engine), draining, down (it accepts no connections), no_model "
    "(it lists none), no_port; sent in vain: refused (429), unserved (404), status (any other), connect, timeout, "
    "too_large, malformed, no_logprobs, not_a_number.",
)
CANARY_REFERENCE_REPLIES: Final = Metric(
    name="inferwatch_canary_reference_replies",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model",),
    help="Replies in the reference, or so far on the way to it.",
    measured="Of all prompts together.",
)
CANARY_DISTANCE: Final = Metric(
    name="inferwatch_canary_distance_nats",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model",),
    help="By how much log-probabilities of the next token differ from the reference: median of the last 32 replies.",
    measured="An effect size, not evidence.",
)
CANARY_USUAL: Final = Metric(
    name="inferwatch_canary_usual_distance_nats",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model",),
    help="The same when nothing has changed, as it was seen while the reference was learnt.",
    measured="Floating point, batches and kernels: what is within twice of it is no change.",
)
