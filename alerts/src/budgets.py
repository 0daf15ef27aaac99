"""Money: budgets that run out, and spending that nobody planned.

Not here, on purpose: "more than 1 × over three days". It fires for nearly every tenant who ends the month within its
budget (98 to 100 % of them, measured), since nobody spends at an even rate. A straight-line forecast is no better. What
is here is the forecast by the account's own hours of the week, and of that the lower bound.

What was spent in an hour is the present value less the smallest of the hour: right within a period, too little (never
too much) across its end, and not fooled when an estimate is corrected downwards, as `increase` would be.
"""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group, Record

USED: Final = "account:inferwatch_budget_used:ratio"

_ACCOUNT: Final = f'{HOST}, budget="acme-month", tenant="acme", feature="", model=""'
_LABELS: Final = {**HOST_LABELS, "budget": "acme-month", "tenant": "acme"}
_MONTH_S: Final = 2_592_000


def _spending(spent: str, *, period_s: int = _MONTH_S, limit: str = "720x500") -> dict[str, str]:
    """Return a budget of 720 dollars a month: a dollar an hour, spent evenly."""
    return {
        f"inferwatch_budget_spent_dollars{{{_ACCOUNT}}}": spent,
        f"inferwatch_budget_limit_dollars{{{_ACCOUNT}}}": limit,
        f'inferwatch_budget_period_seconds{{{HOST}, budget="acme-month"}}': f"{period_s}x500",
    }


# A budget of a day is ordinarily used up in its busy hours; its notices come in time.
_SHORTEST_S: Final = 604_800


def _burn(window: str) -> str:
    """Return how many times faster than evenly an account spent, in any unit."""
    hours_s = {"5m": 300, "30m": 1_800, "1h": 3_600, "6h": 21_600}[window]
    return f"""
        (
          (inferwatch_budget_spent_dollars - min_over_time(inferwatch_budget_spent_dollars[{window}]))
          / inferwatch_budget_limit_dollars
          or
          (inferwatch_budget_spent - min_over_time(inferwatch_budget_spent[{window}]))
          / inferwatch_budget_limit
        )
        * on (job, instance, budget) group_left ()
        (inferwatch_budget_period_seconds >= {_SHORTEST_S})
        / {hours_s}
    """


_BURN: Final = "account:inferwatch_budget_burn_rate"

# As of a service level's, but for the slow pair: whoever spends evenly is within the budget.
_WINDOWS: Final = (("1h", "5m", "14.4", "2m", "10m"), ("6h", "30m", "6", "5m", "3h"))


def _burn_alert(long: str, short: str, factor: str, for_: str, within: str) -> Alert:
    fast = factor == "14.4"
    per_minute = (20 if fast else 8) / 60
    minutes = 90 if fast else 420
    runaway = f"100+{per_minute:.6f}x500"
    return Alert(
        name="InferwatchBudgetBurn",
        severity="page",
        team="finance",
        expr=f"""
            {_BURN}:{long} > {factor}
            and
            {_BURN}:{short} > {factor}
        """,
        for_=for_,
        within=within,
        summary="{{ $labels.tenant }} spends its budget {{ $labels.budget }} many times faster than planned; "
        "when it is gone its users are refused",
        value="{{ $value | humanize }} times the even rate",
        dashboard="inferwatch-tenants",
        labels={"window": long},
        fires=(
            Case(
                series=_spending(runaway),
                at=f"{minutes}m",
                labels=_LABELS,
                value="20 times the even rate" if fast else "8 times the even rate",
                says="a runaway",
            ),
        ),
        silent=(
            Case(
                series=_spending(f"100+{per_minute:.6f}x500", period_s=86_400), at=f"{minutes}m", says="a day's budget"
            ),
            Case(series=_spending("100+0.05x500"), at=f"{minutes}m", says="three times, as on a Monday morning"),
            Case(series=_spending(f"100+{per_minute:.6f}x60 _x0 120+0x400"), at="420m", says="it was, hours ago"),
            Case(
                series=_spending(f"700+0.0167x{minutes - 3} 0+0.0167x60"),
                at=f"{minutes}m",
                says="the month ends and the next begins",
            ),
        ),
    )


FORECAST: Final = Alert(
    name="InferwatchBudgetForecast",
    severity="ticket",
    team="finance",
    expr='inferwatch_budget_forecast_ratio{bound="low"} > 1',
    for_="1h",
    keep="1h",
    summary="{{ $labels.tenant }} will run out of its budget {{ $labels.budget }} before its end, even "
    "if it spends little",
    value="at least {{ $value | humanizePercentage }} of the limit at the end",
    dashboard="inferwatch-tenants",
    fires=(
        Case(
            series={f'inferwatch_budget_forecast_ratio{{{_ACCOUNT}, bound="low"}}': "1.2x120"},
            at="90m",
            labels={**_LABELS, "bound": "low"},
            value="at least 120% of the limit at the end",
        ),
    ),
    silent=(
        Case(
            series={
                f'inferwatch_budget_forecast_ratio{{{_ACCOUNT}, bound="low"}}': "0.8x120",
                f'inferwatch_budget_forecast_ratio{{{_ACCOUNT}, bound="expected"}}': "1.1x120",
                f'inferwatch_budget_forecast_ratio{{{_ACCOUNT}, bound="high"}}': "1.6x120",
            },
            at="90m",
            says="it may, or may not",
        ),
    ),
)

NOTICE: Final = Alert(
    name="InferwatchBudgetNotice",
    severity="notice",
    team="finance",
    # From 100 % on it is spent, and that is said louder.
    expr=f"""
        inferwatch_budget_threshold_reached{{percent!~"[1-9][0-9][0-9]+"}} == 1
        unless on (job, instance, budget, tenant, feature, model)
        {USED} >= 1
    """,
    for_="0s",
    summary="{{ $labels.tenant }} has used {{ $labels.percent }} % of its budget {{ $labels.budget }}",
    dashboard="inferwatch-tenants",
    fires=(
        Case(
            series={
                **_spending("600x20"),
                f'inferwatch_budget_threshold_reached{{{_ACCOUNT}, percent="80"}}': "1x20",
            },
            at="10m",
            labels={**_LABELS, "percent": "80"},
        ),
    ),
    silent=(
        Case(series={f'inferwatch_budget_threshold_reached{{{_ACCOUNT}, percent="80"}}': "0x20"}, at="10m"),
        Case(
            series={
                **_spending("720x20"),
                f'inferwatch_budget_threshold_reached{{{_ACCOUNT}, percent="80"}}': "1x20",
                f'inferwatch_budget_threshold_reached{{{_ACCOUNT}, percent="100"}}': "1x20",
            },
            at="10m",
            says="it is spent, which is another alert",
        ),
    ),
)

SPENT: Final = Alert(
    name="InferwatchBudgetSpent",
    severity="ticket",
    team="finance",
    expr=f"{USED} >= 1",
    for_="0s",
    keep="15m",
    summary="{{ $labels.tenant }} has spent its budget {{ $labels.budget }}; if it is enforced, its users are refused",
    value="{{ $value | humanizePercentage }} of the limit",
    dashboard="inferwatch-tenants",
    fires=(
        Case(series=_spending("715+1x60"), at="10m", labels=_LABELS, value="100.7% of the limit", says="dollars"),
        Case(
            series={
                f'inferwatch_budget_spent{{{_ACCOUNT}, unit="tokens"}}': "2000x20",
                f'inferwatch_budget_limit{{{_ACCOUNT}, unit="tokens"}}': "1000x20",
            },
            at="10m",
            labels={**_LABELS, "unit": "tokens"},
            value="200% of the limit",
            says="tokens",
        ),
    ),
    silent=(Case(series=_spending("700+1x15 715x60"), at="30m", says="nearly"),),
)

REFUSING: Final = Alert(
    name="InferwatchBudgetRefusing",
    severity="ticket",
    team="finance",
    # Not the same as spent: what is left may be too little for the next request.
    expr="""
        sum by (job, instance, budget) (
          increase(inferwatch_budget_decisions_total{decision=~"rejected|cut"}[15m])
        ) > 0
    """,
    for_="0s",
    keep="15m",
    summary="Users are refused, or cut off, by the budget {{ $labels.budget }}: it has no room for them",
    value="{{ $value | humanize }} requests in 15 minutes",
    dashboard="inferwatch-tenants",
    fires=(
        Case(
            series={f'inferwatch_budget_decisions_total{{{HOST}, budget="acme-month", decision="rejected"}}': "0+2x40"},
            at="30m",
            labels={**HOST_LABELS, "budget": "acme-month"},
            value="30 requests in 15 minutes",
        ),
    ),
    silent=(
        Case(
            series={
                f'inferwatch_budget_decisions_total{{{HOST}, budget="acme-month", decision="would_reject"}}': "0+2x40",
                f'inferwatch_budget_decisions_total{{{HOST}, budget="acme-month", decision="admitted"}}': "0+2x40",
            },
            at="30m",
            says="a budget that only observes",
        ),
    ),
)

UNCHECKED: Final = Alert(
    name="InferwatchBudgetUnchecked",
    severity="ticket",
    team="serving",
    expr="increase(inferwatch_budget_unchecked_total[15m]) > 0",
    for_="5m",
    summary="Requests pass {{ $labels.instance }} without a look at their budget ({{ $labels.reason }}): "
    "tenants may spend what they do not have",
    value="{{ $value | humanize }} in 15 minutes",
    dashboard="inferwatch-tenants",
    fires=(
        Case(
            series={f'inferwatch_budget_unchecked_total{{{HOST}, reason="lock"}}': "0+1x60"},
            at="30m",
            labels={**HOST_LABELS, "reason": "lock"},
            value="15 in 15 minutes",
        ),
    ),
    silent=(Case(series={f'inferwatch_budget_unchecked_total{{{HOST}, reason="lock"}}': "7x60"}, at="30m"),),
)

UNPRICED: Final = Alert(
    name="InferwatchRequestsWithoutPrice",
    severity="ticket",
    team="finance",
    expr='increase(inferwatch_unpriced_requests_total{reason="no_price"}[1h]) > 0',
    for_="30m",
    summary="Requests to {{ $labels.model }} have no price: they are missing on bills and in budgets",
    value="{{ $value | humanize }} in the last hour",
    dashboard="inferwatch-tenants",
    fires=(
        Case(
            series={f'inferwatch_unpriced_requests_total{{{HOST}, model="new", reason="no_price"}}': "0+1x120"},
            at="100m",
            labels={**HOST_LABELS, "model": "new", "reason": "no_price"},
            value="60 in the last hour",
        ),
    ),
    silent=(
        Case(
            series={f'inferwatch_unpriced_requests_total{{{HOST}, model="m", reason="no_tokens"}}': "0+1x120"},
            at="100m",
            says="requests whose tokens nobody knows",
        ),
    ),
)


def _unusual(kind: str, values: str) -> dict[str, str]:
    return {f'inferwatch_spend_anomaly_evidence{{{HOST}, tenant="acme", kind="{kind}"}}': values}


def _unusual_labels(kind: str) -> dict[str, str]:
    return {**HOST_LABELS, "tenant": "acme", "kind": kind}


# anomalies.weeks_per_false_alarm has the same default. With a higher one there, less reaches this.
_WEEKS: Final = 4

ANOMALY: Final = Alert(
    name="InferwatchSpendAnomaly",
    severity="ticket",
    team="finance",
    expr=f'inferwatch_spend_anomaly_evidence{{kind!="retry_storm"}} >= {_WEEKS}',
    for_="0s",
    keep="1h",
    summary="{{ $labels.tenant }} does what it never did ({{ $labels.kind }}): a runaway may eat its users' budget",
    value="chance would do this once in {{ $value | humanize }} weeks",
    dashboard="inferwatch-tenants",
    fires=(
        Case(
            series=_unusual("hour", "0x10 9x10"),
            at="15m",
            labels=_unusual_labels("hour"),
            value="chance would do this once in 9 weeks",
        ),
    ),
    silent=(
        Case(series=_unusual("hour", "0x10 2x10"), at="15m", says="what chance does every other week"),
        Case(series=_unusual("retry_storm", "9x20"), at="15m", says="a storm, which is another alert"),
    ),
)

RETRY_STORM: Final = Alert(
    name="InferwatchRetryStorm",
    severity="ticket",
    expr=f'inferwatch_spend_anomaly_evidence{{kind="retry_storm"}} >= {_WEEKS}',
    for_="0s",
    keep="15m",
    summary="A client of {{ $labels.tenant }} sends a failing request again and again, and takes room from other users",
    value="chance would do this once in {{ $value | humanize }} weeks",
    dashboard="inferwatch-oncall",
    fires=(
        Case(
            series=_unusual("retry_storm", "0x10 50x10"),
            at="15m",
            labels=_unusual_labels("retry_storm"),
            value="chance would do this once in 50 weeks",
        ),
    ),
    silent=(Case(series=_unusual("retry_storm", "0x10 1x10"), at="15m", says="a few tries"),),
)


def group() -> Group:
    return Group(
        name="budgets",
        about="Money: budgets that run out, and spending that nobody planned.",
        records=(
            Record(
                record=USED,
                expr="""
                    inferwatch_budget_spent_dollars / inferwatch_budget_limit_dollars
                    or
                    inferwatch_budget_spent / inferwatch_budget_limit
                """,
            ),
            *(Record(record=f"{_BURN}:{window}", expr=_burn(window)) for window in ("5m", "30m", "1h", "6h")),
        ),
        alerts=(
            *(_burn_alert(*window) for window in _WINDOWS),
            FORECAST,
            NOTICE,
            SPENT,
            REFUSING,
            UNCHECKED,
            UNPRICED,
            ANOMALY,
            RETRY_STORM,
        ),
    )
