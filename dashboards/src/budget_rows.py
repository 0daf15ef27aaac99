"""Rows of the board of tenants: budgets, and those that several hosts share."""

from typing import Final

from dashboards.src.panels import (
    BAD,
    FAIR,
    GOOD,
    HOST,
    Query,
    Row,
    bars,
    counted,
    rows_of,
    series,
    stack,
    total,
    value,
)

_ACCOUNT: Final = f'{HOST}, tenant=~"$tenant|"'
_BY_ACCOUNT: Final = "budget, tenant, feature, model"
_USED_STEPS: Final = ((0, GOOD), (0.8, FAIR), (1, BAD))

BUDGETS: Final = Row(
    "Budgets",
    (
        rows_of(
            "Accounts",
            (
                Query(f"max by ({_BY_ACCOUNT}) (account:inferwatch_budget_used:ratio{{{_ACCOUNT}}})", "used"),
                Query(
                    f'max by ({_BY_ACCOUNT}) (inferwatch_budget_forecast_ratio{{{_ACCOUNT}, bound="low"}})', "at least"
                ),
                Query(
                    f'max by ({_BY_ACCOUNT}) (inferwatch_budget_forecast_ratio{{{_ACCOUNT}, bound="high"}})', "at most"
                ),
            ),
            "percentunit",
            "What is used of each limit, and what will be at the end of the period (80 % of the time between these).",
            steps=_USED_STEPS,
        ),
        series(
            "Used",
            value("account:inferwatch_budget_used:ratio", _ACCOUNT, "budget, tenant", how="max"),
            "percentunit",
            "Of the limit. It begins at 0 with each period.",
            steps=_USED_STEPS,
        ),
        series(
            "Forecast",
            value("inferwatch_budget_forecast_ratio", _ACCOUNT, "budget, tenant, bound", how="max"),
            "percentunit",
            "By the account's own hours of the week. Above 1 even for low: a ticket.",
            steps=((0, GOOD), (1, BAD)),
        ),
        series(
            "Spent in",
            value("inferwatch_budget_exhaustion_seconds", _ACCOUNT, "budget, tenant, bound", how="min"),
            "s",
            "Until the limit is reached, where it will be within the period.",
        ),
        series(
            "Dollars spent and limits",
            (
                value(
                    "inferwatch_budget_spent_dollars", _ACCOUNT, "budget, tenant", legend="{{budget}} {{tenant}} spent"
                ),
                value(
                    "inferwatch_budget_limit_dollars", _ACCOUNT, "budget, tenant", legend="{{budget}} {{tenant}} limit"
                ),
            ),
            "currencyUSD",
            "Of budgets in dollars.",
        ),
        series(
            "Other units spent and limits",
            (
                value(
                    "inferwatch_budget_spent", _ACCOUNT, "budget, tenant, unit", legend="{{budget}} {{tenant}} {{unit}}"
                ),
                value("inferwatch_budget_limit", _ACCOUNT, "budget, tenant, unit", legend="{{budget}} limit"),
            ),
            "short",
            "Of budgets in tokens, GPU seconds or joules.",
        ),
        series(
            "Held by open requests",
            value("inferwatch_budget_reserved", _ACCOUNT, "budget, tenant, bound"),
            "short",
            "In the budget's unit, beside what is spent. high: the most they can need.",
        ),
        stack(
            "Decisions",
            total("inferwatch_budget_decisions_total", HOST, "budget, decision"),
            "reqps",
            "rejected: users are refused; cut: streams ended; would_reject: would have been, if it were enforced.",
        ),
        bars(
            "Accounts by state",
            value("inferwatch_budget_accounts", HOST, "budget, state"),
            "short",
            "Also of budgets by user, which have no series of their own.",
        ),
        series(
            "Passed unchecked",
            counted("inferwatch_budget_unchecked_total", HOST, "reason"),
            "short",
            "In the time shown. Should stay at 0.",
        ),
        rows_of(
            "Lines crossed",
            (
                Query(
                    f"max by (budget, tenant, percent) (inferwatch_budget_threshold_reached{{{_ACCOUNT}}})", "reached"
                ),
            ),
            "none",
            "1 where so many percent are spent.",
            width=12,
        ),
        series(
            "Burn rate",
            value("account:inferwatch_budget_burn_rate:1h", _ACCOUNT, "budget, tenant", how="max"),
            "none",
            "How many times faster than evenly the limit was spent within the hour, of budgets of a week and more. The "
            "dashed lines are where a page is sent: 14.4, or 6 for six hours.",
            width=12,
            steps=((0, GOOD), (6, FAIR), (14.4, BAD)),
        ),
    ),
)

SHARED: Final = Row(
    "Budgets of several hosts",
    (
        series(
            "Spent at other hosts",
            value("inferwatch_budget_elsewhere", _ACCOUNT, "instance, budget, tenant", how="max"),
            "short",
            "In the budget's unit, as each host knows it; a part of what is shown as spent.",
        ),
        series(
            "Lent",
            value("inferwatch_budget_lease", _ACCOUNT, "instance, budget, tenant", how="max"),
            "short",
            "What each host may still spend before it is lent more, in the budget's unit.",
        ),
        series(
            "Redis answers",
            (
                value("inferwatch_budget_redis_up", HOST, "instance", how="min"),
                value("inferwatch_budget_redis_frozen", HOST, "instance", how="max", what="lends nothing"),
            ),
            "bool_on_off",
            "Without it each host goes on with what it was lent. After its restart it lends nothing for a lease.",
        ),
        series(
            "Silence of Redis",
            value("inferwatch_budget_redis_silence_seconds", HOST, "instance", how="max"),
            "s",
            "So old is what each host knows of the others.",
        ),
        series(
            "Accounts to be told",
            value("inferwatch_budget_redis_unreported_accounts", HOST, "instance", how="max"),
            "short",
            "After an outage it falls to 0 within some reports.",
        ),
        stack(
            "Talk with Redis",
            (
                total("inferwatch_budget_redis_exchanges_total", HOST, "instance", what="answers"),
                total("inferwatch_budget_redis_failures_total", HOST, "instance, reason"),
            ),
            "reqps",
            "No request waits for it. fenced, again and again: two hosts have copies of one ledger.",
        ),
        series(
            "Outages",
            counted("inferwatch_budget_redis_outages_total", HOST, "instance"),
            "short",
            "In the time shown, however many tries failed.",
        ),
    ),
    closed=True,
)
