"""GPUs: lost, failing, or held back so that users notice. A hot card that serves everybody in time wakes nobody."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group, Record
from alerts.src.promises import PROMISES
from alerts.src.slo import le

_CARD: Final = f'{HOST}, gpu="0", uuid="GPU-1", gpu_model="NVIDIA H100"'
_LABELS: Final = {
    **HOST_LABELS,
    "gpu": "0",
    "uuid": "GPU-1",
    "gpu_model": "NVIDIA H100",
}

# 48, 63, 64, 94, 95: memory; 74: NVLink; 79: off the bus; 119, 120: the card's firmware; 61, 62: its microcontroller.
# 13, 31, 43 and others are mostly the program's own fault.
HARDWARE_XIDS: Final = "48|61|62|63|64|74|79|94|95|119|120"

# What holds clocks down and is no choice of the engine: sync_boost and application clocks are set by people.
HELD_BACK: Final = "sw_thermal|hw_thermal|hw_power_brake|sw_power_cap"

SLOW_TOKENS: Final = "instance:inferwatch_slow_tokens:ratio_rate10m"

LOST: Final = Alert(
    name="InferwatchGPULost",
    severity="page",
    expr='inferwatch_gpu_up{uuid!=""} == 0',
    for_="2m",
    within="5m",
    summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} does not answer: its users get errors, or will soon",
    dashboard="inferwatch-engine",
    fires=(Case(series={f"inferwatch_gpu_up{{{_CARD}}}": "1x10 0x20"}, at="20m", labels=_LABELS),),
    silent=(
        Case(series={f"inferwatch_gpu_up{{{_CARD}}}": "1x10 0 1x20"}, at="12m", says="one reading missed"),
        Case(
            series={'inferwatch_gpu_up{job="inferwatch", instance="h", gpu="", uuid="", gpu_model=""}': "0x30"},
            at="20m",
            says="a host without a GPU",
        ),
    ),
)

XID: Final = Alert(
    name="InferwatchGPUXid",
    severity="ticket",
    expr=f'increase(inferwatch_gpu_xid_errors_total{{xid=~"{HARDWARE_XIDS}"}}[1h]) > 0',
    for_="0s",
    summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} reports a fault (Xid {{ $labels.xid }}): "
    "users may lose their answers",
    dashboard="inferwatch-engine",
    keep="1h",
    fires=(
        Case(
            series={f'inferwatch_gpu_xid_errors_total{{{_CARD}, xid="94"}}': "0x10 1x30"},
            at="20m",
            labels={**_LABELS, "xid": "94"},
            says="memory",
        ),
    ),
    silent=(
        Case(
            series={f'inferwatch_gpu_xid_errors_total{{{_CARD}, xid="13"}}': "0x10 1x30"},
            at="20m",
            says="a program that read where it may not",
        ),
    ),
)

ECC: Final = Alert(
    name="InferwatchGPUMemoryErrors",
    severity="ticket",
    # The metric has a label of the name that an alert's own has.
    expr='sum without (severity) (increase(inferwatch_gpu_ecc_errors_total{severity="uncorrected"}[1h])) > 0',
    for_="0s",
    summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} has memory errors that it cannot correct: "
    "answers break off",
    dashboard="inferwatch-engine",
    keep="1h",
    fires=(
        Case(
            series={f'inferwatch_gpu_ecc_errors_total{{{_CARD}, severity="uncorrected"}}': "0x10 2x30"},
            at="20m",
            labels=_LABELS,
        ),
    ),
    silent=(
        Case(
            series={f'inferwatch_gpu_ecc_errors_total{{{_CARD}, severity="corrected"}}': "0x10 2x30"},
            at="20m",
            says="corrected ones, which is what ECC is for",
        ),
    ),
)

RESET: Final = Alert(
    name="InferwatchGPUNeedsReset",
    severity="ticket",
    expr="inferwatch_gpu_row_remap_pending == 1 or inferwatch_gpu_page_retirement_pending == 1",
    for_="5m",
    summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} must be reset soon, or users will meet its bad memory",
    dashboard="inferwatch-engine",
    fires=(Case(series={f"inferwatch_gpu_row_remap_pending{{{_CARD}}}": "1x30"}, at="20m", labels=_LABELS),),
    silent=(Case(series={f"inferwatch_gpu_row_remap_pending{{{_CARD}}}": "0x30"}, at="20m"),),
)

REPLACE: Final = Alert(
    name="InferwatchGPUNeedsReplacing",
    severity="ticket",
    expr="inferwatch_gpu_row_remap_failed == 1",
    for_="5m",
    summary="GPU {{ $labels.gpu }} of {{ $labels.instance }} is out of spare memory: it will fail users again",
    dashboard="inferwatch-engine",
    fires=(Case(series={f"inferwatch_gpu_row_remap_failed{{{_CARD}}}": "1x30"}, at="20m", labels=_LABELS),),
    silent=(Case(series={f"inferwatch_gpu_row_remap_failed{{{_CARD}}}": "0x30"}, at="20m"),),
)


def _held_back(seconds: str, slow: str, reason: str = "hw_thermal") -> dict[str, str]:
    """Return a card's throttled seconds beside its host's tokens: 6,000 a minute, so many of them slow."""
    model = f'{HOST}, model="m", tenant="t", operation="chat"'
    bound = le(PROMISES.slos["itl"].threshold_s or 0)
    return {
        f'inferwatch_gpu_clock_event_seconds_total{{{_CARD}, reason="{reason}"}}': seconds,
        f"inferwatch_inter_token_latency_seconds_count{{{model}}}": "0+6000x60",
        f'inferwatch_inter_token_latency_seconds_bucket{{{model}, le="{bound}"}}': slow,
    }


THROTTLED: Final = Alert(
    name="InferwatchGPUThrottledUsersSlow",
    severity="ticket",
    expr=f"""
        sum by (job, instance, gpu, uuid, gpu_model) (
          rate(inferwatch_gpu_clock_event_seconds_total{{reason=~"{HELD_BACK}"}}[10m])
        ) > 0.25
        and on (job, instance)
        {SLOW_TOKENS} > {3 * (1 - (PROMISES.slos["itl"].objective or 0)):.10g}
    """,
    for_="5m",
    summary="Answers from {{ $labels.instance }} are slow while heat or power holds GPU {{ $labels.gpu }} back",
    value="held back for {{ $value | humanizePercentage }} of the time",
    dashboard="inferwatch-engine",
    fires=(
        Case(
            series=_held_back("0+30x60", "0+5400x60"),
            at="40m",
            labels=_LABELS,
            value="held back for 50% of the time",
        ),
    ),
    silent=(
        Case(series=_held_back("0+30x60", "0+6000x60"), at="40m", says="hot, but nobody waits"),
        Case(series=_held_back("0+1x60", "0+5400x60"), at="40m", says="slow for another reason"),
        Case(
            series=_held_back("0+30x60", "0+5400x60", reason="sync_boost"),
            at="40m",
            says="clocks held by choice",
        ),
    ),
)


def group() -> Group:
    bound = le(PROMISES.slos["itl"].threshold_s or 0)
    return Group(
        name="gpu",
        about="GPUs: lost, failing, or held back so that users notice.",
        records=(
            Record(
                record=SLOW_TOKENS,
                expr=f"""
                    1 -
                    sum by (job, instance) (rate(inferwatch_inter_token_latency_seconds_bucket{{le="{bound}"}}[10m]))
                    /
                    sum by (job, instance) (rate(inferwatch_inter_token_latency_seconds_count[10m]))
                """,
            ),
        ),
        alerts=(LOST, XID, ECC, RESET, REPLACE, THROTTLED),
    )
