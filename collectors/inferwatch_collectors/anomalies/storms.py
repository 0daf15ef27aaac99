"""Retry storms: the same request fails, and is sent again, and again, many times a minute.

No content is kept, so *the same request* is inferred: tenant, model and the length of the body in bytes are equal.
Different requests of one length look the same; they matter here only if they all fail within seconds of each other.
The token count is no part of it, as it is not known of most that fail.

A run is a row of failures, each within GAP_S of the one before. An answer in full ends it. Clients of the usual
libraries try three times, and wait longer from try to try, so the first BEGIN failures say nothing.

Pure.
"""

from typing import Final

from inferwatch.record import Outcome, RequestRecord
from inferwatch_collectors.anomalies.evidence import Signal
from inferwatch_collectors.anomalies.runs import Habit, Run, Runs

RETRY_STORM: Final = "retry_storm"

# Retrying libraries double their pause up to some seconds; who asks less often than this harms nobody.
GAP_S: Final = 10.0

# Two libraries on top of each other, with three tries each, give nine.
BEGIN: Final = 9

# Before a tenant has shown how long its clients keep trying: every other one gives up at each further failure.
CHANCE: Final = 0.5
PRIOR: Final = 10.0

# What nobody could use. Giving up waiting and asking again is the usual storm; our own death is not the client's fault.
FAILURES: Final = frozenset({Outcome.CLIENT_ABORT, Outcome.UPSTREAM_ERROR, Outcome.STREAM_ERROR, Outcome.REJECTED})

# Runs ended for being silent, in one sweep.
SWEEP: Final = 256

_Key = tuple[str, str, int]


class Storms:
    """The failing requests of all tenants."""

    def __init__(self) -> None:
        self.runs: Runs[_Key, Run] = Runs()

    def take(self, record: RequestRecord, label: str, habit: Habit, now_s: float, bar_weeks: float) -> Signal | None:
        """Take a request of the tenant `label` that ended at `now_s`. Return a signal that begins with it."""
        if record.outcome not in FAILURES:
            if self.runs and record.outcome is Outcome.OK:
                self.runs.end((label, record.model, record.request_bytes))
            return None
        key = (label, record.model, record.request_bytes)
        run = self.runs.get(key)
        if run is None or now_s - run.last_s > GAP_S:
            self.runs.begin(key, Run(habit, BEGIN, now_s))
            return None
        if not run.step(now_s, bar_weeks):
            return None
        facts = (
            f"failures={run.steps} request_bytes={record.request_bytes} outcome={record.outcome.value} "
            f"last_request={record.request_id}"
        )
        return Signal(RETRY_STORM, run.weeks, facts)

    def sweep(self, now_s: float) -> None:
        """End what has been silent."""
        self.runs.expire(now_s - GAP_S, SWEEP)


def new_habit(now_s: float) -> Habit:
    """Return the habit of a tenant of which nothing is known."""
    return Habit(now_s, CHANCE, PRIOR)
