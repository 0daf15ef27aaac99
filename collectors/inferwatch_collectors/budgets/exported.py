"""What accounts show on /metrics, and their forecasts.

Users are never labels, so accounts of a budget whose `per` names users have no series; all accounts are counted by
state. Of each budget the fullest MAX_SHOWN accounts are shown: those are what somebody would look for.
"""

from collections import defaultdict
from collections.abc import Iterable
from heapq import nlargest
from typing import Final

from inferwatch_collectors import metrics as m
from inferwatch_collectors.budgets.account import Account
from inferwatch_collectors.budgets.forecast import forecast
from inferwatch_collectors.cardinality import sanitize
from inferwatch_collectors.metric_store import LabelValues, MetricStore
from inferwatch_collectors.metrics import Metric

# Of each budget. Some 15 series each.
MAX_SHOWN: Final = 100

# A forecast takes a millisecond or two; one is made each second, and each account's about once a minute.
FORECAST_INTERVAL_S: Final = 60.0

STATES: Final = ("ok", "warned", "spent")


class Exported:
    """Sets gauges, and takes back those of accounts that are not shown any more."""

    def __init__(self, store: MetricStore) -> None:
        self._store = store
        self._shown: dict[tuple[str, LabelValues], Metric] = {}

    def show(self, accounts: Iterable[Account], now_s: float) -> None:
        """Bring all gauges up to date."""
        before, self._shown = self._shown, {}
        by_rule: defaultdict[str, list[Account]] = defaultdict(list)
        for account in accounts:
            by_rule[account.rule.name].append(account)
        for name, all_of_it in by_rule.items():
            self._count(name, all_of_it)
            period, settings = all_of_it[0].spending.period, all_of_it[0].rule.settings
            self._set(m.BUDGET_PERIOD, (name,), period.end_s - period.start_s if period else settings.window_s)
            if "user" in all_of_it[0].rule.settings.per:
                continue
            shown = all_of_it
            if len(shown) > MAX_SHOWN:
                shown = nlargest(MAX_SHOWN, all_of_it, key=lambda each: each.spent_by_all)
            for account in shown:
                self._account(account, now_s)
        for key, metric in before.items():
            if key not in self._shown:
                self._store.gauge(metric, key[1]).set(None)

    def forecast_one(self, accounts: Iterable[Account], now_s: float) -> None:
        """Renew the oldest forecast, if one is old."""
        due = [each for each in accounts if each.spending.period is not None and "user" not in each.rule.settings.per]
        oldest = min(due, key=lambda each: each.forecast_s, default=None)
        if oldest is None or now_s - oldest.forecast_s < FORECAST_INTERVAL_S:
            return
        oldest.forecast_s = now_s
        period, own, by_all = oldest.spending.period, oldest.spent, oldest.spent_by_all
        if period is not None and by_all > own == 0:
            oldest.forecast = None  # how the others spend their hours, nobody tells us
        elif period is not None:
            hours = oldest.spending.buckets
            oldest.forecast = forecast(
                # The others are taken to spend as we do, as behind a load balancer.
                hours if by_all == own else {hour: amount * by_all // own for hour, amount in hours.items()},
                first_hour=oldest.spending.first_bucket,
                now_s=now_s,
                spent=by_all,
                end_s=period.end_s,
                limit=oldest.rule.limit,
            )

    def _count(self, name: str, accounts: list[Account]) -> None:
        counts = dict.fromkeys(STATES, 0)
        for account in accounts:
            spent = account.spent_by_all >= account.rule.limit
            counts["spent" if spent else "warned" if account.warned else "ok"] += 1
        for state, count in counts.items():
            self._set(m.BUDGET_ACCOUNTS, (name, state), count)

    def _account(self, account: Account, now_s: float) -> None:
        rule, settings = account.rule, account.rule.settings
        values = dict(zip(settings.per, account.values, strict=True))
        named = [sanitize(values[key]) if values.get(key) else "" for key in ("tenant", "feature", "model")]
        labels = (rule.name, *named)
        in_unit = (*labels, settings.unit)
        if settings.unit == "dollars":
            self._set(m.BUDGET_LIMIT_DOLLARS, labels, rule.plain(rule.limit))
            self._set(m.BUDGET_SPENT_DOLLARS, labels, rule.plain(account.spent_by_all))
        else:
            self._set(m.BUDGET_LIMIT, in_unit, rule.plain(rule.limit))
            self._set(m.BUDGET_SPENT, in_unit, rule.plain(account.spent_by_all))
        if account.slot >= 0:
            self._set(m.BUDGET_RESERVED, (*in_unit, "expected"), rule.plain(account.reserved.expected))
            self._set(m.BUDGET_RESERVED, (*in_unit, "high"), rule.plain(account.reserved.worst))
        if account.lease is not None:
            self._set(m.BUDGET_ELSEWHERE, in_unit, rule.plain(account.elsewhere))
            if account.lease.ceiling is not None:
                self._set(m.BUDGET_LEASE, in_unit, rule.plain(max(0, account.lease.ceiling - account.spent)))
        for percent in settings.warn_percent:
            reached = account.spent_by_all * 100 >= rule.limit * percent
            self._set(m.BUDGET_THRESHOLD, (*labels, str(percent)), int(reached))
        self._forecast(account, labels, now_s)

    def _forecast(self, account: Account, labels: LabelValues, now_s: float) -> None:
        known = account.forecast
        if known is None:
            return
        limit = account.rule.limit
        for bound, amount in (("low", known.low), ("expected", known.expected), ("high", known.high)):
            self._set(m.BUDGET_FORECAST_RATIO, (*labels, bound), amount / limit)
        for bound, at_s in (("expected", known.exhausted_s), ("high", known.exhausted_early_s)):
            if at_s is not None:
                self._set(m.BUDGET_EXHAUSTION, (*labels, bound), max(0.0, at_s - now_s))

    def _set(self, metric: Metric, labels: LabelValues, value: float) -> None:
        self._store.gauge(metric, labels).set(value)
        self._shown[metric.name, labels] = metric
