"""The inference server: gone, full, or used around us."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group
from alerts.src.requests import SERVES

_ENGINE: Final = f'{HOST}, upstream="e:8000"'
_LABELS: Final = {**HOST_LABELS, "upstream": "e:8000"}
_SERVED: Final = {f'inferwatch_requests_total{{{HOST}, model="m", operation="chat", outcome="ok"}}': "5+5x60"}

DOWN: Final = Alert(
    name="InferwatchEngineDown",
    severity="page",
    # With the models that it serves, so that it can silence their symptoms. An engine that has not served anybody yet
    # is still loading; if users are sent there all the same, their errors page.
    expr=f"""
        (
          inferwatch_upstream_up == 0
          unless on (job, instance) inferwatch_draining == 1
        )
        * on (job, instance) group_right (upstream) {SERVES}
    """,
    for_="2m",
    within="4m",
    summary="The engine behind {{ $labels.instance }} is down: every request to {{ $labels.model }} there fails",
    dashboard="inferwatch-oncall",
    fires=(
        Case(
            series={f"inferwatch_upstream_up{{{_ENGINE}}}": "1x10 0x30", **_SERVED},
            at="20m",
            labels={**_LABELS, "model": "m"},
            says="an engine that served a model",
        ),
    ),
    silent=(
        Case(series={f"inferwatch_upstream_up{{{_ENGINE}}}": "0x30"}, at="20m", says="it loads its model"),
        Case(
            series={f"inferwatch_upstream_up{{{_ENGINE}}}": "1x10 0x1 1x20", **_SERVED},
            at="13m",
            says="a restart of a minute",
        ),
        Case(
            series={
                f"inferwatch_upstream_up{{{_ENGINE}}}": "0x30",
                f"inferwatch_draining{{{HOST}}}": "1x30",
                **_SERVED,
            },
            at="20m",
            says="the pod is on its way out",
        ),
    ),
)

RESTARTING: Final = Alert(
    name="InferwatchEngineRestarting",
    severity="ticket",
    expr="increase(inferwatch_engine_restarts_total[1h]) > 2.5",
    for_="0s",
    summary="The engine behind {{ $labels.instance }} restarts again and again; each time users lose their answers",
    dashboard="inferwatch-engine",
    fires=(
        Case(series={f"inferwatch_engine_restarts_total{{{_ENGINE}}}": "0+0x5 0+1x5 5+0x60"}, at="30m", labels=_LABELS),
    ),
    silent=(Case(series={f"inferwatch_engine_restarts_total{{{_ENGINE}}}": "0+0x5 1+0x60"}, at="30m", says="once"),),
)

METRICS_GONE: Final = Alert(
    name="InferwatchEngineMetricsGone",
    severity="ticket",
    expr="""
        inferwatch_engine_up == 0
        and
        max_over_time(inferwatch_engine_up[1d]) == 1
        and
        inferwatch_upstream_up == 1
    """,
    for_="15m",
    summary="Nobody sees queue and KV cache of the engine behind {{ $labels.instance }}: its metrics cannot be read",
    dashboard="inferwatch-engine",
    fires=(
        Case(
            series={
                f"inferwatch_engine_up{{{_ENGINE}}}": "1x10 0x60",
                f"inferwatch_upstream_up{{{_ENGINE}}}": "1x70",
            },
            at="40m",
            labels=_LABELS,
        ),
    ),
    silent=(
        Case(
            series={f"inferwatch_engine_up{{{_ENGINE}}}": "0x70", f"inferwatch_upstream_up{{{_ENGINE}}}": "1x70"},
            at="40m",
            says="an engine that never had metrics",
        ),
        Case(
            series={
                f"inferwatch_engine_up{{{_ENGINE}}}": "1x10 0x60",
                f"inferwatch_upstream_up{{{_ENGINE}}}": "1x10 0x60",
            },
            at="40m",
            says="it is down altogether, which is another alert",
        ),
    ),
)


def _queue(waiting: str, running: str = "8x60") -> dict[str, str]:
    return {
        f"inferwatch_engine_requests_waiting{{{_ENGINE}}}": waiting,
        f"inferwatch_engine_requests_running{{{_ENGINE}}}": running,
    }


QUEUE: Final = Alert(
    name="InferwatchEngineQueue",
    severity="ticket",
    expr="""
        avg_over_time(inferwatch_engine_requests_waiting[10m]) > avg_over_time(inferwatch_engine_requests_running[10m])
        and
        min_over_time(inferwatch_engine_requests_waiting[10m]) > 5
    """,
    for_="10m",
    summary="Users of {{ $labels.instance }} stand in a queue: more requests wait for the engine than it works on",
    value="{{ $value | humanize }} waiting",
    dashboard="inferwatch-engine",
    fires=(Case(series=_queue("0x10 40x50"), at="40m", labels=_LABELS, value="40 waiting"),),
    silent=(
        Case(series=_queue("3x60", "1x60"), at="40m", says="three in a queue"),
        Case(series=_queue("0x10 40x5 0x45"), at="25m", says="a burst of five minutes"),
        Case(series=_queue("40x60", "200x60"), at="40m", says="a full batch with a short queue"),
    ),
)

KV_FULL: Final = Alert(
    name="InferwatchKVCacheFull",
    severity="ticket",
    expr="""
        avg_over_time(inferwatch_engine_kv_cache_usage_ratio[10m]) > 0.95
        and
        (
          min_over_time(inferwatch_engine_requests_waiting[10m]) > 0
          or
          increase(inferwatch_engine_preemptions_total[10m]) > 0
        )
    """,
    for_="5m",
    summary="The KV cache of the engine behind {{ $labels.instance }} is full: users wait until others have finished",
    value="{{ $value | humanizePercentage }} full",
    dashboard="inferwatch-engine",
    fires=(
        Case(
            series={f"inferwatch_engine_kv_cache_usage_ratio{{{_ENGINE}}}": "0.99x60", **_queue("4x60")},
            at="40m",
            labels=_LABELS,
            value="99% full",
        ),
    ),
    silent=(
        Case(
            series={f"inferwatch_engine_kv_cache_usage_ratio{{{_ENGINE}}}": "0.99x60", **_queue("0x60")},
            at="40m",
            says="full of what it remembers, and nobody waits",
        ),
        Case(
            series={f"inferwatch_engine_kv_cache_usage_ratio{{{_ENGINE}}}": "0.6x60", **_queue("4x60")},
            at="40m",
            says="a queue for another reason",
        ),
    ),
)

PREEMPTIONS: Final = Alert(
    name="InferwatchPreemptionStorm",
    severity="ticket",
    # Each preempted request is computed anew: at one in five, a fifth of the work and more is done twice.
    expr="""
        (
          sum by (job, instance) (increase(inferwatch_engine_preemptions_total[15m]))
          /
          sum by (job, instance) (increase(inferwatch_requests_total{outcome!="rejected", operation!="other"}[15m]))
        ) > 0.2
        and
        sum by (job, instance) (increase(inferwatch_engine_preemptions_total[15m])) >= 20
    """,
    for_="5m",
    summary="Answers from {{ $labels.instance }} stall in the middle: the engine throws work away and does it again",
    value="{{ $value | humanize }} preemptions a request",
    dashboard="inferwatch-engine",
    fires=(
        Case(
            series={f"inferwatch_engine_preemptions_total{{{_ENGINE}}}": "0+5x60", **_SERVED},
            at="40m",
            labels=HOST_LABELS,
            value="1 preemptions a request",
        ),
    ),
    silent=(
        Case(
            series={f"inferwatch_engine_preemptions_total{{{_ENGINE}}}": "0+1x60 60+0x10", **_SERVED},
            at="40m",
            says="a few",
        ),
    ),
)

CAPTURE: Final = Alert(
    name="InferwatchCaptureRatio",
    severity="ticket",
    expr="inferwatch_capture_ratio < 0.98 or inferwatch_capture_ratio > 1.02",
    for_="30m",
    summary="Tokens of {{ $labels.instance }} are on nobody's bill: somebody goes around the proxy, or "
    "we count wrongly",
    value="{{ $value | humanizePercentage }} of the engine's {{ $labels.type }} tokens",
    dashboard="inferwatch-tenants",
    fires=(
        Case(
            series={f'inferwatch_capture_ratio{{{_ENGINE}, type="completion"}}': "0.8x60"},
            at="40m",
            labels={**_LABELS, "type": "completion"},
            value="80% of the engine's completion tokens",
            says="a fifth goes around us",
        ),
        Case(
            series={f'inferwatch_capture_ratio{{{_ENGINE}, type="prompt"}}': "1.5x60"},
            at="40m",
            labels={**_LABELS, "type": "prompt"},
            value="150% of the engine's prompt tokens",
            says="we count too much",
        ),
    ),
    silent=(
        Case(series={f'inferwatch_capture_ratio{{{_ENGINE}, type="completion"}}': "0.995x60"}, at="40m"),
        Case(
            series={f'inferwatch_capture_ratio{{{_ENGINE}, type="completion"}}': "0.5x10 1x50"},
            at="40m",
            says="somebody tried something, ten minutes long",
        ),
    ),
)


def group() -> Group:
    return Group(
        name="engine",
        about="The inference server: gone, full, or used around us.",
        needs=("requests",),
        alerts=(DOWN, RESTARTING, METRICS_GONE, QUEUE, KV_FULL, PREEMPTIONS, CAPTURE),
    )
