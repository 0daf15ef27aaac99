"""What leaves by OTLP: whoever looks for a trace must hear that there are none."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group

_LABELS: Final = {**HOST_LABELS, "signal": "traces"}
_BY: Final = "by (job, instance, signal)"


def _items(result: str) -> str:
    return f'inferwatch_otlp_items_total{{{HOST}, signal="traces", result="{result}"}}'


# In words, by the value of the label `result`.
_LOST: Final = {"failed": "lost", "dropped": "dropped"}

_QUEUE: Final = f'inferwatch_otlp_queue_items{{{HOST}, signal="traces"}}'


def _lost(name: str, result: str, why: str, *silent: Case) -> Alert:
    """Return the ticket of items that are lost in one way, again and again."""
    return Alert(
        name=name,
        severity="ticket",
        expr=f'sum {_BY} (increase(inferwatch_otlp_items_total{{result="{result}"}}[15m])) > 0',
        for_="10m",
        keep="15m",
        summary=f"Some requests on {{{{ $labels.instance }}}} have no {{{{ $labels.signal }}}}: {why} "
        "(users notice nothing)",
        value=f"{{{{ $value | humanize }}}} {_LOST[result]} in 15 minutes",
        dashboard="inferwatch-fleet",
        fires=(
            Case(
                series={_items(result): "0+6x60", _items("exported"): "0+60x60"},
                at="45m",
                labels=_LABELS,
                value=f"90 {_LOST[result]} in 15 minutes",
            ),
        ),
        silent=silent,
    )


FAILING: Final = _lost(
    "InferwatchExportFailing",
    "failed",
    "the OTLP endpoint does not take all",
    Case(series={_items("failed"): "7x60", _items("exported"): "0+60x60"}, at="45m", says="an outage, long ago"),
    Case(series={_items("failed"): "0x20 512x40", _items("exported"): "0+60x60"}, at="28m", says="a single batch"),
)

DROPPING: Final = _lost(
    "InferwatchExportDropping",
    "dropped",
    "the exporter's queue is full",
    Case(series={_items("dropped"): "7x60", _items("exported"): "0+60x60"}, at="45m", says="a burst, long ago"),
)

NOTHING: Final = Alert(
    name="InferwatchNothingExported",
    severity="ticket",
    # Something is there to be sent, and nothing arrives. Where nothing is sampled, there is nothing to be missed.
    expr=f"""
        sum {_BY} (increase(inferwatch_otlp_items_total{{result="exported"}}[15m])) == 0
        and {_BY.replace("by", "on")} (
          sum {_BY} (increase(inferwatch_otlp_items_total{{result=~"failed|dropped"}}[15m])) > 0
          or
          min_over_time(inferwatch_otlp_queue_items[15m]) > 0
        )
    """,
    for_="10m",
    keep="15m",
    summary="No request on {{ $labels.instance }} has {{ $labels.signal }}: nothing at all reaches the OTLP endpoint "
    "(users notice nothing)",
    dashboard="inferwatch-fleet",
    fires=(
        Case(
            series={_items("failed"): "0+60x60", _items("dropped"): "0+6x60", _items("exported"): "0x60"},
            at="45m",
            labels=_LABELS,
            says="an endpoint that is dead",
        ),
        Case(
            series={_items("failed"): "0x60", _items("exported"): "90x60", _QUEUE: "400x60"},
            at="45m",
            labels=_LABELS,
            says="an exporter that hangs",
        ),
    ),
    silent=(
        Case(
            series={_items("failed"): "0x60", _items("exported"): "90x60", _QUEUE: "0x60"},
            at="45m",
            says="nobody asks anything",
        ),
        Case(
            series={_items("failed"): "0+6x60", _items("exported"): "0+60x60", _QUEUE: "400x60"},
            at="45m",
            says="most arrive",
        ),
    ),
)


def group() -> Group:
    """Return the rule file."""
    return Group(
        name="traces",
        about="What leaves by OTLP: whoever looks for a trace must hear that there are none.",
        alerts=(FAILING, DROPPING, NOTHING),
    )
