"""Drift: evidence that the traffic or the model is not what it was, and by how much."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

DRIFT_EVIDENCE: Final = Metric(
    name="inferwatch_drift_evidence",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model", "tenant", "direction"),
    help="Evidence that prompts, answers or their pace are unlike the reference, in weeks.",
    measured="An alert at W or more, of any sum of these, is false at most once in W weeks, over all models, tenants "
    "and features together. "
    "Absent while the reference is learnt, and while the engine does not say what it is.",
)
DRIFT_DETECTED: Final = Metric(
    name="inferwatch_drift_detected",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model", "tenant"),
    help="1 from when the evidence reached drift.weeks_per_false_alarm until it is gone, else 0.",
    measured="Absent while the reference is learnt.",
)
DRIFT_DETECTED_TOGETHER: Final = Metric(
    name="inferwatch_drift_detected_together",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=(),
    help="1 from when all that are not detected alone reached drift.weeks_per_false_alarm together, until it is gone.",
    measured="The sum of their evidence, looked at every 30 s. `inferwatch report --drift` says who has most of it, "
    "and what moved. Absent while nobody is judged.",
)
DRIFT_SIGNALS: Final = Metric(
    name="inferwatch_drift_signals_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("model", "tenant"),
    help="Times that the evidence reached drift.weeks_per_false_alarm.",
    measured="Once for each episode, with a line in the log that says what moved.",
)
DRIFT_JUDGING: Final = Metric(
    name="inferwatch_drift_judging",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model", "tenant"),
    help="1 if there is a reference and requests are judged by it, 0 while it is learnt.",
    measured="0 also while the engine does not say which version it is, as it did before, and while requests come of "
    "which none has voted for twelve hours. "
    "Absent for who is not followed: above drift.max_streams, or folded into `other`.",
)
DRIFT_REFERENCE_VOTES: Final = Metric(
    name="inferwatch_drift_reference_votes",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model", "tenant"),
    help="Requests in the reference, or so far on the way to it.",
    measured="One of each session, at most drift.votes_per_hour.",
)
DRIFT_FEATURES_OFF: Final = Metric(
    name="inferwatch_drift_features_off",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model", "tenant"),
    help="Features that are not judged, because the reference has too few values of them; those of embeddings "
    "while they are learnt, too.",
    measured="Their names are in `inferwatch report --drift`.",
)
DRIFT_ENGINE_CHANGES: Final = Metric(
    name="inferwatch_drift_engine_changes_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("model", "tenant", "result"),
    help="Times that the engine changed: another version, other weights, another length of context.",
    measured="As it says itself. `learning`: a reference of it is being learnt; `used_again`: there was one. "
    "`inferwatch report --drift` and a line in the log say what it was and is.",
)
DRIFT_EMBEDDINGS: Final = Metric(
    name="inferwatch_drift_embeddings_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("result",),
    help="Prompts that were to be embedded, by what came of them.",
    measured="ok; not sent: capped (drift.embeddings.per_minute), dropped (too many wait, or for too long), paused "
    "(the endpoint failed a while ago), redact (personal data could not be looked for), no_port, token (it cannot be "
    "read); sent in vain: refused (401, 403, 429), unserved (404), down (502, 503, 504), status (any other), "
    "connect, timeout, too_large, malformed, not_a_number; fault (of ours). All but ok vote without an embedding.",
)
DRIFT_EMBEDDINGS_OFF: Final = Metric(
    name="inferwatch_drift_embeddings_off",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("reason",),
    help="1 while nothing comes of the embeddings of prompts.",
    measured="Reasons: those of drift_embeddings_total, three calls in a row. Absent while they come, and without "
    "drift.embeddings.url.",
)
DRIFT_PSI: Final = Metric(
    name="inferwatch_drift_psi",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model", "tenant", "drift_feature"),
    help="Population stability index of the last thousand votes or so against the reference.",
    measured="An effect size, not evidence: it is above 0 by chance alone, the more so with few votes.",
)
DRIFT_WASSERSTEIN: Final = Metric(
    name="inferwatch_drift_wasserstein",
    kind=Kind.GAUGE,
    group=Group.DRIFT,
    labels=("model", "tenant", "drift_feature"),
    help="How far the last thousand votes or so are from the reference, in standard deviations.",
    measured="Wasserstein distance of normal scores; of a yes-or-no the difference of its shares. An effect size.",
)
