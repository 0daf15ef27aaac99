"""Takes finished requests, tells when a tenant does what it never did: gauges of evidence, a count and a line a signal.

* **When.** `record` adds to the open bucket and looks at the request itself; `tick` closes buckets. Wall time decides
  which hour of the week it is. A bucket in which this process began or the clock jumped was not seen whole, and is
  neither judged nor learnt, nor is its hour. Requests of a backlog belong to hours that are over: they are left out.
* **In small pieces.** When a bucket ends, the sums of all tenants are put aside at once; judging them, some 20 µs each,
  is spread over the ticks that follow, so that no answer waits for it.
* **Rate.** All tenants and kinds together give a false signal once in `weeks_per_false_alarm`: each alone must have
  evidence worth tenants x kinds times as much (the union bound). The gauges show evidence after that division.
* **Bounds.** Labels go through the cardinality guard; tenants not admitted are followed together as `other`. Above
  `max_tenants` the one that was silent for the longest is forgotten, and counted. Runs are bounded in `runs`.

Time is given by the caller, who calls `tick` twice a second; between two ticks it stands still.
"""

import logging
from collections import deque
from typing import Final

from inferwatch import canary
from inferwatch.record import RequestRecord
from inferwatch.settings.anomalies import Anomalies
from inferwatch_collectors import metrics as m
from inferwatch_collectors.anomalies.evidence import WEEK_S, Signal
from inferwatch_collectors.anomalies.loops import AGENT_LOOP, Loops
from inferwatch_collectors.anomalies.memory import Memory
from inferwatch_collectors.anomalies.requests import HUGE_PROMPTS
from inferwatch_collectors.anomalies.spend import BUCKET_S, BUCKETS_PER_HOUR, FIVE_MINUTES, HOUR, Terms
from inferwatch_collectors.anomalies.storms import RETRY_STORM, Storms
from inferwatch_collectors.anomalies.tenant import DOLLARS, TOKENS, Closed, Tenant
from inferwatch_collectors.cardinality import DAY_S, CardinalityGuard
from inferwatch_collectors.metric_store import MetricStore

_log: Final = logging.getLogger(__name__)

KINDS: Final = (HOUR, FIVE_MINUTES, HUGE_PROMPTS, RETRY_STORM, AGENT_LOOP)

# Judged in one tick: a millisecond.
PER_TICK: Final = 50

# Names looked up without asking the guard again; clients choose them, so it is bounded, and emptied each bucket.
MAX_NAMES: Final = 4096

# A record of more than this before the last tick comes from a backlog, and belongs to another bucket.
LATE_S: Final = 60.0
NS_PER_S: Final = 1_000_000_000

HIDE_BEFORE_S: Final = 60.0

# Spending below this part of what all tenants of the unit spend together is no surprise to who pays for them all.
MATERIAL_SHARE: Final = 0.01


class AnomalyWatch:
    """All tenants. Nothing happens before the first `tick`."""

    def __init__(self, store: MetricStore, guard: CardinalityGuard, settings: Anomalies) -> None:
        self._store = store
        self._guard = guard
        self._settings = settings
        self._memory = Memory(store)
        self._tenants: dict[str, Tenant] = {}
        self._names: dict[str, Tenant] = {}
        self._storms = Storms()
        self._loops = Loops()
        self._work: deque[tuple[Tenant, Closed, int, bool]] = deque()
        self._terms: dict[str, Terms] = {}
        self._bucket: int | None = None
        self._whole = False  # the open bucket was seen from its beginning
        self._now_s = 0.0
        self._late_ns = 0
        self._bar_weeks = settings.weeks_per_false_alarm * len(KINDS)
        self._shown: set[str] = set()
        self.tenants_cut = 0
        self.late = 0

    @property
    def runs_cut(self) -> int:
        """Runs that were given up because there were too many."""
        return self._storms.runs.cut + self._loops.runs.cut

    @property
    def memos_damaged(self) -> int:
        """What an earlier life wrote down and could not be read."""
        return self._memory.damaged

    def resume(self, now_s: float) -> None:
        """Take up what an earlier life knew. Once, after the store was restored."""
        if self._settings.enabled:
            for tenant in self._memory.read(now_s, self._settings.max_tenants):
                self._tenants[tenant.label] = tenant
            self._set_bar()

    def record(self, record: RequestRecord) -> None:
        """Take a request, after it was counted. The canary's are our own: they are many, small and alike."""
        if self._bucket is None or record.tenant in canary.OWN:
            return
        now_s = self._now_s
        if record.wall_ns < self._late_ns and record.wall_ns + record.duration_s * NS_PER_S < self._late_ns:
            self.late += 1
            return
        tenant = self._names.get(record.tenant) or self._tenant(record)
        tenant.add(record, now_s)
        bar_weeks = self._bar_weeks
        prompt = record.prompt_tokens
        if prompt is not None:
            weeks = (now_s - tenant.last_request_s) / WEEK_S
            tenant.last_request_s = now_s
            known = tenant.spend.rhythm.hours >= self._settings.min_history_hours
            if signal := tenant.sizes.take(prompt, weeks, bar_weeks, known=known):
                self._tell(tenant, signal)
        if signal := self._storms.take(record, tenant.label, tenant.storms, now_s, bar_weeks):
            self._tell(tenant, signal)
        if signal := self._loops.take(record, tenant.label, tenant.lengths, now_s, bar_weeks):
            self._tell(tenant, signal)

    def tick(self, now_s: float, wall_s: float) -> None:
        """Let time pass: `now_s` of a clock that never goes back, `wall_s` Unix time."""
        if not self._settings.enabled:
            return
        self._now_s = max(now_s, self._now_s)
        self._late_ns = int((wall_s - LATE_S) * NS_PER_S)
        bucket = int(wall_s // BUCKET_S)
        if bucket != self._bucket:
            self._turn(bucket)
        for _ in range(min(PER_TICK, len(self._work))):
            self._judge(*self._work.popleft())
        self._storms.sweep(self._now_s)
        self._loops.sweep(self._now_s)

    def refresh(self) -> None:
        """Set the gauges. Right before an exposition."""
        # A little before the guard removes the series of a tenant: one set afterwards would stay for ever.
        idle_s = (self._guard.limits.idle_s or DAY_S) - HIDE_BEFORE_S
        shown = set()
        for tenant in self._tenants.values():
            if self._now_s - tenant.seen_s <= idle_s:
                shown.add(tenant.label)
                self._show(tenant)
        for label in self._shown - shown:
            self._hide(label)
        self._shown = shown

    # --- tenants

    def _tenant(self, record: RequestRecord) -> Tenant:
        label = self._guard.labels(record.model, record.tenant, record.operation, now_s=self._now_s).tenant
        tenant = self._tenants.get(label)
        if tenant is None:
            if len(self._tenants) >= self._settings.max_tenants:
                self._forget_one()
            tenant = self._tenants[label] = Tenant(label, self._now_s)
            self._set_bar()
        if len(self._names) >= MAX_NAMES:
            self._names.clear()
        self._names[record.tenant] = tenant
        return tenant

    def _forget_one(self) -> None:
        label = min(self._tenants, key=lambda each: self._tenants[each].seen_s)
        del self._tenants[label]
        self._names.clear()
        self._memory.forget(label)
        self.tenants_cut += 1

    def _set_bar(self) -> None:
        self._bar_weeks = self._settings.weeks_per_false_alarm * self._parts()
        self._terms = {unit: self._terms_of(unit) for unit in (DOLLARS, TOKENS)}

    def _parts(self) -> int:
        return len(KINDS) * max(1, len(self._tenants))

    def _terms_of(self, unit: str) -> Terms:
        level = sum(each.spend.rhythm.level for each in self._tenants.values() if each.unit == unit)
        settings = self._settings
        return Terms(settings.tolerance, settings.min_history_hours, self._bar_weeks, MATERIAL_SHARE * level)

    # --- buckets

    def _turn(self, bucket: int) -> None:
        """Close the bucket, if it was seen whole, and open `bucket`."""
        closing = self._bucket
        followed = closing is not None and bucket == closing + 1
        while self._work:  # a bucket is six hundred ticks long: only a clock that jumps leaves any
            self._judge(*self._work.popleft())
        if followed and self._whole:
            assert closing is not None
            hour, place = divmod(closing, BUCKETS_PER_HOUR)
            self._set_bar()
            self._work.extend(
                (tenant, tenant.turn(), hour, place == BUCKETS_PER_HOUR - 1) for tenant in self._tenants.values()
            )
        else:
            for tenant in self._tenants.values():
                tenant.missed()
        self._names.clear()  # the guard may have retired some
        self._whole = followed
        self._bucket = bucket

    def _judge(self, tenant: Tenant, closed: Closed, hour: int, last: bool) -> None:
        for signal in tenant.bucket(closed, hour, last=last, terms=self._terms):
            self._tell(tenant, signal)
        if last and self._tenants.get(tenant.label) is tenant:
            self._memory.write(tenant)

    # --- telling

    def _tell(self, tenant: Tenant, signal: Signal) -> None:
        self._store.counter(m.SPEND_ANOMALY_SIGNALS, (tenant.label, signal.kind)).add()
        _log.warning(
            "unusual_spending tenant=%s kind=%s evidence_weeks=%.3g %s",
            tenant.label,
            signal.kind,
            signal.weeks / self._parts(),
            signal.facts,
        )

    def _show(self, tenant: Tenant) -> None:
        gauge, label, parts = self._store.gauge, tenant.label, self._parts()
        spend = tenant.spend
        judged = spend.rhythm.hours >= self._settings.min_history_hours
        for kind, weeks in (
            (HOUR, spend.hourly.evidence.weeks if judged else None),
            (FIVE_MINUTES, spend.fast.evidence.weeks if judged else None),
            (HUGE_PROMPTS, tenant.sizes.evidence.weeks if judged and tenant.sizes.judged else None),
            (RETRY_STORM, tenant.storms.weeks),
            (AGENT_LOOP, tenant.lengths.habit.weeks if tenant.lengths.judged else None),
        ):
            gauge(m.SPEND_ANOMALY_EVIDENCE, (label, kind)).set(None if weeks is None else weeks / parts)
        scale = m.NANO if tenant.unit == DOLLARS else 1
        for unit in (DOLLARS, TOKENS):
            known = tenant.unit == unit
            last, expected = (spend.last_hour, spend.expected_hour) if known else (None, None)
            gauge(m.SPEND_LAST_HOUR, (label, unit)).set(None if last is None else last / scale)
            gauge(m.SPEND_EXPECTED_HOUR, (label, unit)).set(None if expected is None else expected / scale)

    def _hide(self, label: str) -> None:
        for metric in (m.SPEND_ANOMALY_EVIDENCE, m.SPEND_LAST_HOUR, m.SPEND_EXPECTED_HOUR):
            for labels in self._store.series(metric):
                if labels[0] == label:
                    self._store.gauge(metric, labels).set(None)
