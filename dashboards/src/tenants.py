"""Tenants and cost: who spends what, what it would cost elsewhere, and who runs out when."""

from typing import Final

from dashboards.src.budget_rows import BUDGETS, SHARED
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
    ratio,
    series,
    stack,
    stat,
    total,
    value,
)

_MACHINE: Final = (
    f'(sum(increase(inferwatch_cost_dollars_total{{{HOST}, basis="gpu"}}[$__range])) '
    f"+ sum(increase(inferwatch_idle_cost_dollars_total{{{HOST}}}[$__range])))"
)
_ALL_TOKENS: Final = f'sum(increase(inferwatch_tokens_total{{{HOST}, type=~"prompt|completion"}}[$__range]))'

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
            ratio(
                f'inferwatch_tokens_total{{{REQUEST}, type="cached"}}',
                f'inferwatch_tokens_total{{{REQUEST}, type="prompt"}}',
                "tenant",
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
    rows=(_SPEND, BUDGETS, SHARED, _UNUSUAL, _USE),
    last="now-24h",
)
