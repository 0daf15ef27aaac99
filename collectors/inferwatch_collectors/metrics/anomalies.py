"""Unusual spending: evidence that a tenant does what it never did, and what was expected of it."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

SPEND_ANOMALY_EVIDENCE: Final = Metric(
    name="inferwatch_spend_anomaly_evidence",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=("tenant", "kind"),
    help="Evidence that a tenant's spending or requests are unlike its own past, in weeks.",
    measured="An alert at W or more is false at most once in W weeks, over all tenants and kinds together. "
    "Absent while there is too little history; 0 when a signal has ended.",
)
SPEND_ANOMALY_SIGNALS: Final = Metric(
    name="inferwatch_spend_anomaly_signals_total",
    kind=Kind.COUNTER,
    group=Group.BUDGETS,
    labels=("tenant", "kind"),
    help="Times that the evidence reached anomalies.weeks_per_false_alarm.",
    measured="Once for each episode, with a line in the log that says what was seen.",
)
SPEND_LAST_HOUR: Final = Metric(
    name="inferwatch_spend_last_hour",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=("tenant", "unit"),
    help="What a tenant spent in the last whole hour.",
    measured="Dollars of basis price, or tokens for a tenant without prices, of the requests that finished in it.",
)
SPEND_EXPECTED_HOUR: Final = Metric(
    name="inferwatch_spend_expected_hour",
    kind=Kind.GAUGE,
    group=Group.BUDGETS,
    labels=("tenant", "unit"),
    help="What was to be expected of a tenant in the last whole hour.",
    measured="From its own past at this hour of the week, the hours beside it included. "
    "Absent while there is too little history.",
)
