"""Traffic or a model that is not what it was: a ticket, because it may be false once in twenty weeks, and nobody is
hurt yet. And a detector that is off: nobody would notice."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group

_MODEL: Final = f'{HOST}, model="m", tenant="acme"'
_LABELS: Final = {**HOST_LABELS, "model": "m", "tenant": "acme"}

# Of one stream: prompts, answers and pace are parts of one evidence.
_STREAM: Final = "sum by (job, instance, model, tenant) (inferwatch_drift_evidence)"


def _evidence(tenant: str, direction: str) -> str:
    return f'inferwatch_drift_evidence{{{HOST}, model="m", tenant="{tenant}", direction="{direction}"}}'


DRIFT: Final = Alert(
    name="InferwatchDrift",
    severity="ticket",
    # The rule decides how often it may be wrong, not the sidecar: this one and the next, together, once in so many
    # weeks at most, because whatever either of them sees is part of one sum over everything.
    expr=f"{_STREAM} >= 20",
    for_="10m",
    keep="1h",
    summary="Users of {{ $labels.model }} ({{ $labels.tenant }}) no longer ask, or get, what they used to",
    value="evidence worth {{ $value | humanize }} weeks without a false alarm",
    dashboard="inferwatch-quality",
    fires=(
        Case(
            series={_evidence("acme", "answer"): "0.1x30 2 30 400x60"},
            at="60m",
            labels=_LABELS,
            value="evidence worth 400 weeks without a false alarm",
            says="answers changed",
        ),
        Case(
            series={_evidence("acme", "answer"): "12x90", _evidence("acme", "prompt"): "13x90"},
            at="60m",
            labels=_LABELS,
            value="evidence worth 25 weeks without a false alarm",
            says="prompts and answers, neither of them enough",
        ),
    ),
    silent=(
        Case(
            series={_evidence("acme", "answer"): "4x90", _evidence("acme", "prompt"): "12x90"},
            at="60m",
            says="what chance brings in some weeks",
        ),
        Case(
            series={f"inferwatch_drift_judging{{{_MODEL}}}": "0x90"},
            at="60m",
            says="a reference is being learnt",
        ),
        Case(
            series={_evidence(f"t{number}", "answer"): "6x90" for number in range(5)},
            at="60m",
            says="five tenants, none of them alone",
        ),
    ),
)

TOGETHER: Final = Alert(
    name="InferwatchDriftTogether",
    severity="ticket",
    # The sum over streams is the mean of what they have: each is divided by their number. Those that are a ticket of
    # their own are left out, or one of them would hide all others for as long as nobody pins it.
    expr=f"sum by (job, instance) ({_STREAM} < 20) >= 20",
    for_="10m",
    keep="1h",
    summary="Users of many models or tenants no longer ask, or get, quite what they used to: none of them alone",
    value="evidence worth {{ $value | humanize }} weeks without a false alarm",
    dashboard="inferwatch-quality",
    fires=(
        Case(
            series={_evidence(f"t{number}", "answer"): "0.1x30 1 6x60" for number in range(5)},
            at="60m",
            labels=HOST_LABELS,
            value="evidence worth 30 weeks without a false alarm",
            says="another model, a little in each tenant",
        ),
        Case(
            series={_evidence(f"t{number}", "answer"): "6x90" for number in range(5)}
            | {_evidence("acme", "answer"): "400x90"},
            at="60m",
            labels=HOST_LABELS,
            value="evidence worth 30 weeks without a false alarm",
            says="beside one that has drifted long since",
        ),
    ),
    silent=(
        Case(
            series={_evidence("acme", "answer"): "400x90", _evidence("other", "answer"): "5x90"},
            at="60m",
            says="one alone has drifted, which is a ticket of its own",
        ),
        Case(
            series={_evidence(f"t{number}", "answer"): "3x90" for number in range(5)},
            at="60m",
            says="what chance brings in some weeks",
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

BLIND: Final = Alert(
    name="InferwatchDriftBlind",
    severity="ticket",
    # A week is learnt; who has not enough votes by then has a few more days.
    expr="inferwatch_drift_judging == 0",
    for_="10d",
    summary="Nobody would notice if answers of {{ $labels.model }} for {{ $labels.tenant }} changed: "
    "there is no reference yet, or nobody votes",
    dashboard="inferwatch-quality",
    fires=(
        Case(
            series={f"inferwatch_drift_judging{{{_MODEL}}}": "0x14600"},
            at="14500m",
            labels={**HOST_LABELS, "model": "m", "tenant": "acme"},
            says="ten days",
        ),
    ),
    silent=(
        Case(
            series={f"inferwatch_drift_judging{{{_MODEL}}}": "0x10080 1x5000"}, at="14500m", says="a week of learning"
        ),
    ),
)

CANARY_OFF: Final = Alert(
    name="InferwatchCanaryOff",
    severity="ticket",
    # An engine that is down, or drained, is told by others.
    expr='max by (job, instance) (inferwatch_canary_off{reason!~"down|draining"}) == 1',
    # Busy hours end; a deployment without log-probabilities does not. Replies in between begin it anew.
    for_="6h",
    summary="Nobody would notice if users were answered by another model: nothing comes of the canary's probes",
    dashboard="inferwatch-quality",
    fires=(
        Case(
            series={f'inferwatch_canary_off{{{HOST}, reason="no_logprobs"}}': "1x500"},
            at="400m",
            labels=HOST_LABELS,
            says="an engine that gives no log-probabilities",
        ),
        Case(
            series={
                f'inferwatch_canary_off{{{HOST}, reason="busy"}}': "1x200 _x300",
                f'inferwatch_canary_off{{{HOST}, reason="timeout"}}': "_x200 1x300",
            },
            at="400m",
            labels=HOST_LABELS,
            says="one reason after the other",
        ),
    ),
    silent=(
        Case(
            series={f'inferwatch_canary_off{{{HOST}, reason="busy"}}': "1x300 _x60 1x300"},
            at="640m",
            says="a busy afternoon and a busy night",
        ),
        Case(
            series={f'inferwatch_canary_off{{{HOST}, reason="down"}}': "1x500"},
            at="400m",
            says="an engine that is down",
        ),
    ),
)

CANARY_BLIND: Final = Alert(
    name="InferwatchCanaryBlind",
    severity="ticket",
    # A day is learnt; eight models at one probe a minute take six.
    # Who is not asked any more, under a name of before, need not be judged.
    expr="""
        inferwatch_canary_judging == 0
        and on (job, instance, model)
        sum by (job, instance, model) (increase(inferwatch_canary_probes_total[1d])) > 0
    """,
    for_="8d",
    summary="Nobody would notice if users of {{ $labels.model }} were answered by another model: the canary has no "
    "reference, or gets no replies",
    dashboard="inferwatch-quality",
    fires=(
        Case(
            series={
                f"inferwatch_canary_judging{{{_CANARY}}}": "0x12000",
                f'inferwatch_canary_probes_total{{{_CANARY}, result="unserved"}}': "0+1x12000",
            },
            at="11900m",
            labels={**HOST_LABELS, "model": "m"},
            says="eight days",
        ),
    ),
    silent=(
        Case(
            series={
                f"inferwatch_canary_judging{{{_CANARY}}}": "0x8640 1x3360",
                f'inferwatch_canary_probes_total{{{_CANARY}, result="ok"}}': "0+1x12000",
            },
            at="11900m",
            says="six days of learning",
        ),
        Case(
            series={
                f"inferwatch_canary_judging{{{_CANARY}}}": "1x60 0x14000",
                f'inferwatch_canary_probes_total{{{_CANARY}, result="ok"}}': "0+1x60 60x14000",
            },
            at="13900m",
            says="a name of before",
        ),
    ),
)


def group() -> Group:
    return Group(
        name="drift",
        about="Traffic or a model that is not what it was, and detectors that are off.",
        alerts=(DRIFT, TOGETHER, MODEL_CHANGED, BLIND, CANARY_OFF, CANARY_BLIND),
    )
