"""Traffic or a model that is not what it was. A ticket: it may be false once in twenty weeks, and nobody is hurt
yet."""

from typing import Final

from alerts.src.alert import Alert, Case, Group

_MODEL: Final = 'job="inferwatch", instance="host1:9480", model="m", tenant="acme"'
_LABELS: Final = {
    "job": "inferwatch",
    "instance": "host1:9480",
    "model": "m",
    "tenant": "acme",
    "direction": "answer",
}

DRIFT: Final = Alert(
    name="InferwatchDrift",
    severity="ticket",
    # The rule decides how often it may be wrong, not the sidecar: once in so many weeks at most.
    expr="inferwatch_drift_evidence >= 20",
    for_="10m",
    keep="1h",
    summary="Users of {{ $labels.model }} ({{ $labels.tenant }}) no longer ask, or get, what they used to: "
    "{{ $labels.direction }}",
    value="evidence worth {{ $value | humanize }} weeks without a false alarm",
    dashboard="inferwatch-quality",
    fires=(
        Case(
            series={f'inferwatch_drift_evidence{{{_MODEL}, direction="answer"}}': "0.1x30 2 30 400x60"},
            at="60m",
            labels=_LABELS,
            value="evidence worth 400 weeks without a false alarm",
            says="answers changed",
        ),
    ),
    silent=(
        Case(
            series={
                f'inferwatch_drift_evidence{{{_MODEL}, direction="answer"}}': "4x90",
                f'inferwatch_drift_evidence{{{_MODEL}, direction="prompt"}}': "12x90",
            },
            at="60m",
            says="what chance brings in some weeks",
        ),
        Case(
            series={f"inferwatch_drift_judging{{{_MODEL}}}": "0x90"},
            at="60m",
            says="a reference is being learnt",
        ),
    ),
)


def group() -> Group:
    return Group(
        name="drift",
        about="Traffic or a model that is not what it was.",
        alerts=(DRIFT,),
    )
