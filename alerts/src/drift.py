"""Traffic or a model that is not what it was. A ticket: it may be false once in twenty weeks, and nobody is hurt
yet."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group

_MODEL: Final = f'{HOST}, model="m", tenant="acme"'
_LABELS: Final = {
    **HOST_LABELS,
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

_CANARY: Final = f'{HOST}, model="m"'

MODEL_CHANGED: Final = Alert(
    name="InferwatchModelChanged",
    severity="ticket",
    expr="inferwatch_canary_evidence >= 20",
    # Evidence goes by itself when the model is as before again: a deployment that is rolled back tells nobody.
    for_="10m",
    keep="1h",
    summary="Users of {{ $labels.model }} are answered by another model than before: its weights, quantisation, engine "
    "or driver changed",
    value="evidence worth {{ $value | humanize }} weeks without a false alarm",
    dashboard="inferwatch-quality",
    fires=(
        Case(
            series={f"inferwatch_canary_evidence{{{_CANARY}}}": "0.01x30 3 900x60"},
            at="60m",
            labels={**HOST_LABELS, "model": "m"},
            value="evidence worth 900 weeks without a false alarm",
            says="other weights under the same name",
        ),
    ),
    silent=(
        Case(
            series={f"inferwatch_canary_evidence{{{_CANARY}}}": "0.01x20 900x5 0.01x60"},
            at="60m",
            says="a deployment that was rolled back after five minutes",
        ),
        Case(
            series={
                f"inferwatch_canary_evidence{{{_CANARY}}}": "0.3x90",
                f'inferwatch_drift_evidence{{{_MODEL}, direction="prompt"}}': "400x90",
            },
            at="60m",
            says="users who ask something else",
        ),
        Case(
            series={
                f"inferwatch_canary_judging{{{_CANARY}}}": "0x90",
                f'inferwatch_canary_off{{{HOST}, reason="no_logprobs"}}': "1x90",
            },
            at="60m",
            says="an engine that gives no log-probabilities",
        ),
    ),
)


def group() -> Group:
    return Group(
        name="drift",
        about="Traffic or a model that is not what it was.",
        alerts=(DRIFT, MODEL_CHANGED),
    )
