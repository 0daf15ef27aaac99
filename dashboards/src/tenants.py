"""Tenants and cost: who spends what, what it would cost elsewhere, and who runs out when."""

from typing import Final

from dashboards.src.panels import (
    BAD,
    FAIR,
    GOOD,
    HOST,
    MODEL,
    REQUEST,
    TENANT,
    Board,
    Query,
    Row,
    bars,
    counted,
    rows_of,
    series,
    stack,
    stat,
    total,
    value,
)

_ACCOUNT: Final = f'{HOST}, tenant=~"$tenant|"'
_BY_ACCOUNT: Final = "budget, tenant, feature, model"
_MACHINE: Final = (
    f'(sum(increase(inferwatch_cost_dollars_total{{{HOST}, basis="gpu"}}[$__range])) '
    f"+ sum(increase(inferwatch_idle_cost_dollars_total{{{HOST}}}[$__range])))"
)
_ALL_TOKENS: Final = f'sum(increase(inferwatch_tokens_total{{{HOST}, type=~"prompt|completion"}}[$__range]))'
_USED_STEPS: Final = ((0, GOOD), (0.8, FAIR), (1, BAD))

_SPEND: Final = Row(
    "What it costs",
    (
        stat(
            "Spent, by price list",
            counted("inferwatch_cost_dollars_total", f'{REQUEST}, basis="price"'),
            "currencyUSD",
            "In the time shown, of the tenants and models chosen above.",
        ),
        stat(
            "Hardware, idle included",
            Query(_MACHINE),
            "currencyUSD",
            "What the machines cost in the time shown: the bill.",
        ),
        stat(
            "Idle share",
            Query(f"sum(increase(inferwatch_idle_cost_dollars_total{{{HOST}}}[$__range])) / {_MACHINE}"),
            "percentunit",
            "Of the hardware's cost: what was paid for and used by nobody.",
            steps=((0, GOOD), (0.5, FAIR), (0.8, BAD)),
        ),
        stat(
            "A million tokens cost",
            Query(f"{_MACHINE} / {_ALL_TOKENS} * 1e6"),
            "currencyUSD",
            "All of the hardware, idle time included, over all prompt and completion tokens.",
        ),
        bars(
            "Paid for itself",
            Query(
                "sum by (catalogue_entry) "
                f"(increase(inferwatch_comparison_dollars_total{{{HOST}}}[$__range])) / on () group_left () {_MACHINE}",
                "{{catalogue_entry}}",
            ),
            "none",
            "What the same tokens would have cost there, over what the hardware did. Break-even is 1.",
            width=8,
            height=4,
            steps=((0, BAD), (1, GOOD)),
        ),
        stack(
            "Spending by tenant",
            Query(
                f'sum by (tenant) (rate(inferwatch_cost_dollars_total{{{REQUEST}, basis="price"}}[$__rate_interval])) '
                "* 3600",
                "{{tenant}}",
            ),
            "currencyUSD",
            "Dollars an hour by the price list.",
            width=12,
        ),
        stack(
            "The bill by tenant",
            (
                Query(
                    f'sum by (tenant) (rate(inferwatch_cost_dollars_total{{{REQUEST}, basis="gpu"}}[$__rate_interval]))'
                    " * 3600",
                    "{{tenant}}",
                ),
                Query(f"sum(rate(inferwatch_idle_cost_dollars_total{{{HOST}}}[$__rate_interval])) * 3600", "idle"),
            ),
            "currencyUSD",
            "Dollars an hour of what the machines cost, divided by who used them. With idle it is all of it.",
            width=12,
        ),
        series(
            "The same tokens elsewhere",
            (
                Query(
                    "sum by (catalogue_entry) "
                    f"(rate(inferwatch_comparison_dollars_total{{{HOST}}}[$__rate_interval])) * 3600",
                    "{{catalogue_entry}}",
                ),
                Query(
                    f'(sum(rate(inferwatch_cost_dollars_total{{{HOST}, basis="gpu"}}[$__rate_interval])) '
                    f"+ sum(rate(inferwatch_idle_cost_dollars_total{{{HOST}}}[$__rate_interval]))) * 3600",
                    "own hardware",
                ),
            ),
            "currencyUSD",
            "Dollars an hour at list prices of others, beside the hardware's.",
        ),
        series(
            "Age of the prices",
            Query(
                f"time() - max by (catalogue_entry) (inferwatch_comparison_price_timestamp_seconds{{{HOST}}})",
                "{{catalogue_entry}}",
            ),
            "s",
            "Since the day on which each was the price. Comparisons with old ones flatter the hardware.",
        ),
        series(
            "Not in these sums",
            (
                counted("inferwatch_unpriced_requests_total", MODEL, "reason"),
                counted("inferwatch_attribution_cut_total", HOST, "reason"),
                counted("inferwatch_unobserved_seconds_total", HOST, legend="seconds nobody watched"),
            ),
            "short",
            "In the time shown: requests without a price; seconds and requests divided without a count; time in which no "
            "collector ran.",
        ),
        stat(
            "Weight of a prompt token",
            Query(f"max(inferwatch_learned_prefill_weight{{{HOST}}})"),
            "none",
            "In completion tokens, as learnt from this traffic: by it the bill is divided, with "
            "attribution.weights: learned. After five busy minutes.",
        ),
    ),
)

_BUDGETS: Final = Row(
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

_SHARED: Final = Row(
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
                value("inferwatch_budget_redis_up", HOST, "instance", how="min", legend="{{instance}}"),
                value(
                    "inferwatch_budget_redis_frozen", HOST, "instance", how="max", legend="{{instance}} lends nothing"
                ),
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
                total("inferwatch_budget_redis_exchanges_total", HOST, "instance", legend="{{instance}} answers"),
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

_UNUSUAL: Final = Row(
    "Unusual",
    (
        series(
            "Evidence",
            value("inferwatch_spend_anomaly_evidence", TENANT, "tenant, kind", how="max"),
            "short",
            "How rarely chance would do this, in weeks. 4 and more is told.",
            steps=((0, GOOD), (4, BAD)),
        ),
        series(
            "Last hour, and what was to be expected",
            (
                value("inferwatch_spend_last_hour", TENANT, "tenant, unit", legend="{{tenant}} {{unit}}"),
                value("inferwatch_spend_expected_hour", TENANT, "tenant, unit", legend="{{tenant}} {{unit}} expected"),
            ),
            "short",
            "By the tenant's own hours of the week; expected after two weeks.",
        ),
        series(
            "Signals",
            counted("inferwatch_spend_anomaly_signals_total", TENANT, "tenant, kind"),
            "short",
            "Episodes in the time shown.",
        ),
    ),
)

_USE: Final = Row(
    "Use and waste",
    (
        stack(
            "Tokens by tenant",
            total("inferwatch_tokens_total", f'{REQUEST}, type=~"prompt|completion"', "tenant"),
            "short",
            "Prompt and completion, a second.",
        ),
        stack(
            "Wasted tokens by tenant",
            total("inferwatch_wasted_tokens_total", REQUEST, "tenant, reason"),
            "short",
            "Completion tokens a second of answers that nobody got in full.",
        ),
        series(
            "Cached share of prompts",
            Query(
                f'sum by (tenant) (rate(inferwatch_tokens_total{{{REQUEST}, type="cached"}}[$__rate_interval])) / '
                f'sum by (tenant) (rate(inferwatch_tokens_total{{{REQUEST}, type="prompt"}}[$__rate_interval]))',
                "{{tenant}}",
            ),
            "percentunit",
            "Prompt tokens that the engine had seen before. A client that changes the beginning of its prompts pays twice.",
            most=1,
        ),
        series(
            "Captured",
            value("inferwatch_capture_ratio", HOST, "upstream, type", how="min"),
            "percentunit",
            "Share of the engine's tokens that are on somebody's bill. Below 1: somebody goes around the proxy.",
        ),
        stack(
            "Tokens on nobody's bill",
            total("inferwatch_unbooked_tokens_total", HOST, "reason"),
            "short",
            "A second. bypass: fetched around the proxy.",
        ),
        stack(
            "Energy by tenant",
            (
                total("inferwatch_energy_joules_total", REQUEST, "tenant"),
                total("inferwatch_idle_energy_joules_total", HOST, legend="idle"),
            ),
            "watt",
            "Joules a second of the GPUs' own counters, divided by who used them.",
        ),
        stat(
            "Joules a token",
            Query(
                f"sum(increase(inferwatch_energy_joules_total{{{HOST}}}[$__range])) / {_ALL_TOKENS}",
            ),
            "joule",
            "Without idling.",
            width=6,
        ),
        stat(
            "CO2e",
            Query(
                f"sum(increase(inferwatch_co2e_grams_total{{{HOST}}}[$__range])) "
                f"+ sum(increase(inferwatch_idle_co2e_grams_total{{{HOST}}}[$__range]))"
            ),
            "massg",
            "Grams in the time shown, idling included, at the grid's intensity of each hour.",
            width=6,
        ),
        bars(
            "CO2e by tenant",
            Query(
                f"topk(5, sum by (tenant) (increase(inferwatch_co2e_grams_total{{{REQUEST}}}[$__range])))", "{{tenant}}"
            ),
            "massg",
            "Grams in the time shown, the five largest.",
            width=12,
            height=4,
        ),
    ),
)

BOARD: Final = Board(
    uid="inferwatch-tenants",
    about="Who spends what, what it would cost elsewhere, and who runs out when.",
    rows=(_SPEND, _BUDGETS, _SHARED, _UNUSUAL, _USE),
    last="now-24h",
)
