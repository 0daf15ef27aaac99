"""Watching the watcher: whoever trusts these alerts must hear when they cannot be trusted."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group

_WORKER: Final = f'{HOST}, worker="0"'
_WORKER_LABELS: Final = {**HOST_LABELS, "worker": "0"}

# What the collector's bounds cut off and somebody will miss on a bill or a graph. Left out: lines of the request log,
# peers that speak another protocol, and helpers of the watch for unusual spending.
_LOSSES: Final = "ledger_records|ledger_shares|ledger_late|spool_torn|spool_bad|unsure|unwatched_requests|plain_replies"


def _counted(
    name: str, expr: str, metric: str, summary: str, *, for_: str, dashboard: str = "inferwatch-fleet", label: str = ""
) -> Alert:
    """Return a ticket for a counter that should stand still; `label` is one of its series'."""
    key, _, value = label.partition("=")
    kept = key and f", {key})" in expr
    labels = {**HOST_LABELS, **({key: value} if kept else {})}
    own = f', {key}="{value}"' if key else ""
    series = f"{metric}{{{HOST}{own}}}"
    return Alert(
        name=name,
        severity="ticket",
        expr=expr,
        for_=for_,
        keep="15m",
        summary=summary,
        value="{{ $value | humanize }}",
        dashboard=dashboard,
        fires=(Case(series={series: "0+6x60"}, at="45m", labels=labels, value="90"),),
        silent=(Case(series={series: "7x60"}, at="45m", says="something, long ago"),),
    )


DOWN: Final = Alert(
    name="InferwatchDown",
    severity="page",
    # Whatever the scrape job is called: it is one of ours if it ever told its version.
    expr="""
        up == 0
        and on (job, instance)
        last_over_time(inferwatch_build_info[1d])
    """,
    for_="3m",
    within="5m",
    summary="Nobody sees whether users of {{ $labels.instance }} are served: its Inferwatch does not answer",
    dashboard="inferwatch-fleet",
    fires=(
        Case(
            series={f"up{{{HOST}}}": "1x10 0x20", f'inferwatch_build_info{{{HOST}, version="1"}}': "1x10"},
            at="20m",
            labels=HOST_LABELS,
        ),
    ),
    silent=(
        Case(
            series={f"up{{{HOST}}}": "1x10 0 1x20", f'inferwatch_build_info{{{HOST}, version="1"}}': "1x10 _ 1x20"},
            at="12m",
            says="a collector that was restarted",
        ),
        Case(series={'up{job="node", instance="host1:9100"}': "0x30"}, at="20m", says="another exporter"),
    ),
)

ABSENT: Final = Alert(
    name="InferwatchAbsent",
    severity="page",
    expr="absent(inferwatch_build_info)",
    for_="10m",
    within="15m",
    summary="Nobody sees whether any user is served: Prometheus scrapes no Inferwatch at all",
    dashboard="inferwatch-fleet",
    fires=(Case(series={}, at="20m"),),
    silent=(Case(series={f'inferwatch_build_info{{{HOST}, version="1"}}': "1x30"}, at="20m"),),
)

RELAY_LAG: Final = Alert(
    name="InferwatchRelayLag",
    severity="page",
    # Its own delay is the one that no latency here shows: times are taken when bytes arrive.
    expr="min_over_time(inferwatch_relay_event_loop_lag_seconds[5m]) > 0.25",
    for_="2m",
    within="8m",
    summary="Inferwatch itself delays all answers of {{ $labels.instance }}: "
    "its relay {{ $labels.worker }} is overloaded",
    value="{{ $value | humanizeDuration }} late",
    dashboard="inferwatch-oncall",
    fires=(
        Case(
            series={f"inferwatch_relay_event_loop_lag_seconds{{{_WORKER}}}": "0.5x30"},
            at="20m",
            labels=_WORKER_LABELS,
            value="500ms late",
        ),
    ),
    silent=(
        Case(
            series={
                f"inferwatch_relay_event_loop_lag_seconds{{{_WORKER}}}": "0.01 0.01 0.9 0.01 0.01 0.01 0.9 0.01x30"
            },
            at="8m",
            says="peaks",
        ),
    ),
)

RELAY_RESTARTS: Final = Alert(
    name="InferwatchRelayRestarts",
    severity="ticket",
    expr="sum by (job, instance) (increase(inferwatch_relay_restarts_total[1h])) > 2.5",
    for_="0s",
    summary="Users of {{ $labels.instance }} lose their answers: Inferwatch's relays die and are restarted",
    dashboard="inferwatch-fleet",
    fires=(
        Case(series={f"inferwatch_relay_restarts_total{{{_WORKER}}}": "0x5 0+1x5 5x30"}, at="30m", labels=HOST_LABELS),
    ),
    silent=(Case(series={f"inferwatch_relay_restarts_total{{{_WORKER}}}": "0x5 1x40"}, at="30m", says="a deployment"),),
)

COLLECTOR_RESTARTS: Final = Alert(
    name="InferwatchCollectorRestarts",
    severity="ticket",
    expr="changes(inferwatch_start_time_seconds[1h]) > 2",
    for_="0s",
    summary="Numbers of {{ $labels.instance }} have holes: its collector dies again and again "
    "(requests are not touched)",
    dashboard="inferwatch-fleet",
    fires=(
        Case(series={f"inferwatch_start_time_seconds{{{HOST}}}": "1 1 5 5 9 9 13 13x30"}, at="20m", labels=HOST_LABELS),
    ),
    silent=(Case(series={f"inferwatch_start_time_seconds{{{HOST}}}": "1x10 5x30"}, at="20m", says="once"),),
)

COLLECTOR_LAG: Final = Alert(
    name="InferwatchCollectorBehind",
    severity="ticket",
    expr="min_over_time(inferwatch_collector_event_loop_lag_seconds[10m]) > 1",
    for_="5m",
    summary="Numbers of {{ $labels.instance }} come late, budgets too: its collector cannot keep up",
    value="{{ $value | humanizeDuration }} late",
    dashboard="inferwatch-fleet",
    fires=(
        Case(
            series={f"inferwatch_collector_event_loop_lag_seconds{{{HOST}}}": "3x40"},
            at="30m",
            labels=HOST_LABELS,
            value="3s late",
        ),
    ),
    silent=(Case(series={f"inferwatch_collector_event_loop_lag_seconds{{{HOST}}}": "3 0.1 3 3 0.1 0.1x40"}, at="10m"),),
)

NOT_DURABLE: Final = Alert(
    name="InferwatchLedgerNotDurable",
    severity="ticket",
    expr="inferwatch_ledger_durable == 0",
    for_="5m",
    summary="What tenants of {{ $labels.instance }} use may be forgotten: the ledger cannot be written",
    dashboard="inferwatch-fleet",
    fires=(Case(series={f"inferwatch_ledger_durable{{{HOST}}}": "1x10 0x20"}, at="20m", labels=HOST_LABELS),),
    silent=(Case(series={f"inferwatch_ledger_durable{{{HOST}}}": "1x10 0 1x20"}, at="14m", says="a slow disk"),),
)

RELOAD: Final = Alert(
    name="InferwatchReloadFailed",
    severity="ticket",
    expr="inferwatch_config_last_reload_successful == 0",
    for_="5m",
    summary="{{ $labels.instance }} still treats users by its old configuration: the new one has a fault",
    dashboard="inferwatch-fleet",
    fires=(
        Case(series={f"inferwatch_config_last_reload_successful{{{HOST}}}": "1x5 0x30"}, at="20m", labels=HOST_LABELS),
    ),
    silent=(Case(series={f"inferwatch_config_last_reload_successful{{{HOST}}}": "0 0 1x30"}, at="20m"),),
)

WATCHDOG: Final = Alert(
    name="InferwatchWatchdog",
    severity="none",
    expr="vector(1)",
    for_="0s",
    summary="Always firing. If it stops arriving, nobody would hear that users are hurting: alerts do not get through",
    dashboard="inferwatch-fleet",
    fires=(Case(series={}, at="1m"),),
    silent=(),
)

COUNTED: Final = (
    _counted(
        "InferwatchTapDropping",
        "sum by (job, instance) (increase(inferwatch_tap_dropped_reads_total[15m])) > 0",
        "inferwatch_tap_dropped_reads_total",
        "First-token times and gaps of {{ $labels.instance }} have holes: its collector cannot keep up (users notice "
        "nothing, tokens are counted)",
        for_="10m",
    ),
    _counted(
        "InferwatchSpooling",
        "sum by (job, instance) (increase(inferwatch_tap_spooled_total[15m])) > 0",
        "inferwatch_tap_spooled_total",
        "Bills and budgets of tenants on {{ $labels.instance }} lag behind: finished requests wait on disk for a "
        "collector",
        for_="10m",
    ),
    _counted(
        "InferwatchRequestsLost",
        "sum by (job, instance) (increase(inferwatch_tap_lost_total[15m])) > 0",
        "inferwatch_tap_lost_total",
        "Requests on {{ $labels.instance }} are on nobody's bill: there was neither memory nor disk to keep them",
        for_="0s",
    ),
    _counted(
        "InferwatchLedgerLoss",
        f'sum by (job, instance, reason) (increase(inferwatch_collector_cut_total{{reason=~"{_LOSSES}"}}[15m])) > 0',
        "inferwatch_collector_cut_total",
        "What tenants of {{ $labels.instance }} used is kept in part only: a bound was met ({{ $labels.reason }})",
        for_="0s",
        label="reason=ledger_records",
    ),
    _counted(
        "InferwatchFaults",
        """
            sum by (job, instance) (
              increase(inferwatch_relay_observer_errors_total[15m])
              or increase(inferwatch_collector_observer_errors_total[15m])
              or increase(inferwatch_request_errors_total{error_type="internal"}[15m])
            ) > 0
        """,
        "inferwatch_collector_observer_errors_total",
        "Inferwatch on {{ $labels.instance }} has a bug: users were served, some numbers of theirs are missing",
        for_="0s",
        label="stage=close",
    ),
    _counted(
        "InferwatchGPUSamplerStale",
        'sum by (job, instance) (increase(inferwatch_gpu_sampler_faults_total{reason=~"hung|died|dropped"}[15m])) > 0',
        "inferwatch_gpu_sampler_faults_total",
        "Nobody sees whether the GPUs of {{ $labels.instance }} fail users: reading them hangs or has ended",
        for_="10m",
        dashboard="inferwatch-engine",
        label="reason=hung",
    ),
    _counted(
        "InferwatchSeriesFolded",
        "sum by (job, instance, label) (increase(inferwatch_cardinality_folded_total[15m])) > 0",
        "inferwatch_cardinality_folded_total",
        "Some users of {{ $labels.instance }} are counted under `other`: there are more values of {{ $labels.label }} "
        "than its limit",
        for_="30m",
        label="label=tenant",
    ),
)


def group() -> Group:
    return Group(
        name="watching",
        about="Watching the watcher: whoever trusts these alerts must hear when they cannot be trusted.",
        alerts=(
            DOWN,
            ABSENT,
            RELAY_LAG,
            RELAY_RESTARTS,
            COLLECTOR_RESTARTS,
            COLLECTOR_LAG,
            NOT_DURABLE,
            RELOAD,
            *COUNTED,
            WATCHDOG,
        ),
    )
