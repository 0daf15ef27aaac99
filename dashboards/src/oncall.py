"""On-call triage: one page that answers: is it us, the engine, the GPU, or a client?"""

from typing import Final

from alerts.src.gpu import HARDWARE_XIDS, HELD_BACK, SLOW_TOKENS
from alerts.src.promises import PROMISES
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
    percentiles,
    rows_of,
    series,
    stack,
    stat,
    total,
    value,
)
from dashboards.src.service import BURN_STEPS

_RUNBOOK: Final = (
    ("Runbook", PROMISES.links.runbooks + "/${__data.fields.alertname}.md"),
    ("This tenant", "/d/inferwatch-tenants?var-tenant=${__data.fields.tenant}&${__url_time_range}"),
)
_ZERO_IS_GOOD: Final = ((0, GOOD), (0.001, BAD))


def _none(expr: str) -> Query:
    """No series is none of it."""
    return Query(f"({expr}) or vector(0)")


_NOW: Final = Row(
    "Who suffers",
    (
        rows_of(
            "Alerts",
            (
                Query(
                    "max by (alertname, severity, model, instance, tenant, budget) "
                    '(ALERTS{alertname=~"Inferwatch.*", alertname!="InferwatchWatchdog", alertstate="firing"}) '
                    'or on () label_replace(vector(0), "alertname", "none", "", "")',
                    "firing",
                ),
            ),
            "none",
            "What is firing; each has a runbook behind its row.",
            width=16,
            links=_RUNBOOK,
        ),
        stat(
            "Burn, last hour",
            Query('max by (slo) (model_slo:inferwatch_burn_rate:1h{model=~"$model"})', "{{slo}}"),
            "none",
            "How many times too fast each error budget is used up, of the model that is worst off.",
            width=8,
            height=8,
            steps=BURN_STEPS,
        ),
        stack(
            "Requests by outcome",
            total("inferwatch_requests_total", REQUEST, "outcome"),
            "reqps",
            "rejected and client_abort are the client's side; upstream_error and stream_error the engine's; "
            "interrupted ours.",
        ),
        percentiles(
            "Time to first token",
            "inferwatch_time_to_first_token_seconds",
            REQUEST,
            "s",
            "Points are traces: open one to see where its time went.",
        ),
        stack(
            "Where users wait",
            total("inferwatch_request_phase_seconds_sum", MODEL, "phase"),
            "s",
            "queue, prefill, decode and engine: the engine or its card; proxy: us; client: they read slowly.",
        ),
    ),
)

_US: Final = Row(
    "Is it us?",
    (
        stat(
            "Relay late by",
            Query(f"max(inferwatch_relay_event_loop_lag_seconds{{{HOST}}})"),
            "s",
            "What every token may be late through Inferwatch itself.",
            steps=((0, GOOD), (0.05, FAIR), (0.25, BAD)),
        ),
        stat(
            "Our errors",
            _none(
                'sum(rate(inferwatch_request_errors_total{error_type=~"internal|relay_died"}[5m]))'.replace(
                    "{", f"{{{MODEL}, ", 1
                )
            ),
            "reqps",
            "Requests that failed by a fault of ours.",
            steps=_ZERO_IS_GOOD,
        ),
        stat(
            "Watched",
            Query(f"count(inferwatch_build_info{{{HOST}}})"),
            "none",
            "Inferwatches that Prometheus reads.",
        ),
        series(
            "Relay: CPU and lag",
            (
                total(
                    "inferwatch_relay_cpu_seconds_total", HOST, "instance, worker", legend="{{instance}} {{worker}} CPU"
                ),
                value(
                    "inferwatch_relay_event_loop_lag_seconds",
                    HOST,
                    "instance, worker",
                    how="max",
                    legend="{{instance}} {{worker}} late",
                ),
            ),
            "s",
            "Near one CPU second a second, a relay is full.",
            width=12,
            height=6,
        ),
    ),
)

_ENGINE: Final = Row(
    "Is it the engine?",
    (
        stat(
            "Up",
            Query(f"min(inferwatch_upstream_up{{{HOST}}})"),
            "bool_on_off",
            "Whether every engine takes connections.",
            steps=((0, BAD), (1, GOOD)),
        ),
        stat(
            "Waiting",
            Query(f"sum(inferwatch_engine_requests_waiting{{{HOST}}})"),
            "none",
            "Requests in the engines' queues.",
            steps=((0, GOOD), (5, FAIR), (50, BAD)),
        ),
        stat(
            "KV cache",
            Query(f"max(inferwatch_engine_kv_cache_usage_ratio{{{HOST}}})"),
            "percentunit",
            "Of the fullest engine.",
            steps=((0, GOOD), (0.9, FAIR), (0.98, BAD)),
        ),
        series(
            "Its errors",
            Query(
                f"sum by (error_type) (rate(inferwatch_request_errors_total{{{MODEL}, error_type!~"
                '"internal|relay_died|engine_4xx|malformed_request|request_too_large|unknown_key|budget"}'
                "[$__rate_interval]))",
                "{{error_type}}",
            ),
            "reqps",
            "connect_*: away; *_timeout: it hangs; upstream_reset: it dies; engine_5xx, engine_event: it says so itself.",
            width=12,
            height=6,
        ),
    ),
)

_GPU: Final = Row(
    "Is it the GPU?",
    (
        stat(
            "Cards lost",
            Query(f'count(inferwatch_gpu_up{{{HOST}, uuid!=""}} == 0) or vector(0)'),
            "none",
            "Cards that do not answer.",
            steps=((0, GOOD), (1, BAD)),
        ),
        stat(
            "Hardware Xid, 1 h",
            _none(f'sum(increase(inferwatch_gpu_xid_errors_total{{{HOST}, xid=~"{HARDWARE_XIDS}"}}[1h]))'),
            "none",
            "Errors that the driver blames on the card.",
            steps=_ZERO_IS_GOOD,
        ),
        stat(
            "Held back",
            _none(
                "max(sum by (instance, gpu) "
                f'(rate(inferwatch_gpu_clock_event_seconds_total{{{HOST}, reason=~"{HELD_BACK}"}}[5m])))'
            ),
            "percentunit",
            "Share of time in which heat or power held the worst card's clocks down.",
            steps=((0, GOOD), (0.25, FAIR)),
        ),
        series(
            "Late tokens by host",
            Query(f"{SLOW_TOKENS}{{{HOST}}}", "{{instance}}"),
            "percentunit",
            "Share of tokens that came later than promised. One host apart from the others: its card or its engine.",
            width=12,
            height=6,
        ),
    ),
)

_CLIENT: Final = Row(
    "Is it a client?",
    (
        stat(
            "Client's errors",
            _none(
                f"sum(rate(inferwatch_request_errors_total{{{MODEL}, error_type=~"
                '"engine_4xx|malformed_request|request_too_large|unknown_key|budget"}[5m]))'
            ),
            "reqps",
            "Refused as the client's fault, or by a budget.",
        ),
        stat(
            "Hung up",
            Query(f'sum(rate(inferwatch_requests_total{{{REQUEST}, outcome="client_abort"}}[5m]))'),
            "reqps",
            "Clients that left before the end.",
        ),
        stat(
            "Unusual tenants",
            _none(f"count(inferwatch_spend_anomaly_evidence{{{TENANT}}} >= 4)"),
            "none",
            "Storms of retries, runaway agents, huge prompts, spending out of habit.",
            steps=((0, GOOD), (1, FAIR)),
        ),
        series(
            "Busiest tenants",
            Query(
                f'topk(5, sum by (tenant) (rate(inferwatch_tokens_total{{{REQUEST}, type="prompt"}}[$__rate_interval])))',
                "{{tenant}}",
            ),
            "short",
            "Prompt tokens a second. One far above its habit is the first to call.",
            width=12,
            height=6,
        ),
    ),
)

BOARD: Final = Board(
    uid="inferwatch-oncall",
    about="Is it us, the engine, the GPU, or a client?",
    rows=(_NOW, _US, _ENGINE, _GPU, _CLIENT),
    last="now-1h",
)
