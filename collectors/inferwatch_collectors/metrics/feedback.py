"""Feedback: what users say of answers."""

from typing import Final

from inferwatch_collectors.metrics.base import Group, Kind, Metric

FEEDBACK_VOTES: Final = Metric(
    name="inferwatch_feedback_votes_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("model", "tenant", "thumb"),
    help="Requests on which somebody voted.",
    measured="Each once, under its first vote; when somebody changes their mind the report knows. thumb: up, down, or "
    "none where only a score was given. 0 from the first request of a model and tenant on.",
)
FEEDBACK_CALLS: Final = Metric(
    name="inferwatch_feedback_calls_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("result",),
    help="Calls of POST /feedback.",
    measured="taken: a request's first vote; replaced: another one after it; repeated: the same again; unknown: no "
    "such request here, or not any more; invalid; refused: not the token; busy; failed: the ledger cannot write.",
)
FEEDBACK_COMMENTS: Final = Metric(
    name="inferwatch_feedback_comments_total",
    kind=Kind.COUNTER,
    group=Group.DRIFT,
    labels=("result",),
    help="Comments that came with votes.",
    measured="kept: as privacy.content says; dropped: it says none; failed: it could not be looked at in time.",
)
