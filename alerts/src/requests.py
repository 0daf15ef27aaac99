"""Requests: what a service level cannot see, because nothing finishes."""

from typing import Final

from alerts.src.alert import HOST, HOST_LABELS, Alert, Case, Group, Record
from alerts.src.shapes import grown, share

from inferwatch import canary

# Which instance serves which model: models that somebody got an answer of, not names that somebody made up.
SERVES: Final = "instance_model:inferwatch_serves:bool"

_MODEL: Final = f'{HOST}, model="m", tenant="t", operation="chat"'
_LABELS: Final = {**HOST_LABELS, "model": "m"}

NO_TOKENS: Final = Alert(
    name="InferwatchNoTokens",
    severity="page",
    expr="""
        min_over_time(instance_model:inferwatch_requests_in_flight:sum[5m]) > 0
        unless on (job, instance, model)
        sum by (job, instance, model) (rate(inferwatch_inter_token_latency_seconds_count[5m])) > 0
        unless on (job, instance, model)
        sum by (job, instance, model) (rate(inferwatch_requests_total{outcome="ok"}[5m])) > 0
        unless on (job, instance)
        sum by (job, instance) (rate(inferwatch_engine_tokens_total{type="completion"}[5m])) > 0
    """,
    for_="2m",
    within="8m",
    summary="Requests to {{ $labels.model }} hang: nobody on {{ $labels.instance }} has got a token for minutes",
    dashboard="inferwatch-oncall",
    fires=(
        Case(
            series={
                f"inferwatch_requests_in_flight{{{_MODEL}}}": "0x5 3+0x30",
                f"inferwatch_inter_token_latency_seconds_count{{{_MODEL}}}": "0+600x5 3000+0x30",
                f'inferwatch_requests_total{{{_MODEL}, outcome="ok"}}': "0+10x5 50+0x30",
                f'inferwatch_engine_tokens_total{{{HOST}, upstream="e", type="completion"}}': "0+600x5 3000+0x30",
            },
            at="18m",
            labels=_LABELS,
            says="the engine stands still in the midst of traffic",
        ),
    ),
    silent=(
        Case(
            series={
                f"inferwatch_requests_in_flight{{{_MODEL}}}": "1+0x40",
                f"inferwatch_inter_token_latency_seconds_count{{{_MODEL}}}": "0+0x40",
                f'inferwatch_requests_total{{{_MODEL}, outcome="ok"}}': "0+0x40",
                f'inferwatch_engine_tokens_total{{{HOST}, upstream="e", type="completion"}}': "0+600x40",
            },
            at="30m",
            says="one long plain reply, of which only the engine's counter tells",
        ),
        Case(
            series={
                f"inferwatch_requests_in_flight{{{_MODEL}}}": "0+0x40",
                f'inferwatch_requests_total{{{_MODEL}, outcome="ok"}}': "50+0x40",
            },
            at="30m",
            says="nobody asks for anything",
        ),
        Case(
            series={
                f"inferwatch_requests_in_flight{{{_MODEL}}}": "20+0x40",
                f"inferwatch_inter_token_latency_seconds_count{{{_MODEL}}}": "0+6000x40",
            },
            at="30m",
            says="ordinary traffic",
        ),
    ),
)


def _abandoned(given_up: str, begun: str) -> dict[str, str]:
    return {
        f'inferwatch_first_token_missing_total{{{_MODEL}, reason="client_abort"}}': given_up,
        f"inferwatch_time_to_first_token_seconds_count{{{_MODEL}}}": begun,
    }


_GIVEN_UP: Final = grown('inferwatch_first_token_missing_total{reason="client_abort"}', "10m")

CLIENTS_GIVE_UP: Final = Alert(
    name="InferwatchClientsGiveUp",
    severity="page",
    expr=f"""
        (
          {_GIVEN_UP}
          /
          (
            {_GIVEN_UP}
            +
            {grown("inferwatch_time_to_first_token_seconds_count", "10m")}
          )
        ) > 0.5
        and
        {_GIVEN_UP} >= 20
    """,
    for_="5m",
    within="15m",
    summary="More than half of the users of {{ $labels.model }} hang up before they see a first token",
    value="{{ $value | humanizePercentage }} of the streams of the last 10 minutes",
    dashboard="inferwatch-oncall",
    fires=(
        Case(
            series=_abandoned("0+9x40", "0+3x40"),
            at="30m",
            labels={"model": "m"},
            value="75% of the streams of the last 10 minutes",
        ),
    ),
    silent=(
        Case(series=_abandoned("0+3x40", "0+9x40"), at="30m", says="a quarter: people who type on"),
        Case(series=_abandoned("0+1x40", "0+0x40"), at="30m", says="ten streams in ten minutes"),
        Case(series=_abandoned("0+9x10 90+0x30", "0+3x40"), at="30m", says="it was, a while ago"),
    ),
)

# Nobody reads what a probe is answered.
_READ: Final = f'tenant!="{canary.TENANT}"'
_PROBE: Final = f'{HOST}, model="m", tenant="{canary.TENANT}", operation="text_completion"'

EMPTY_ANSWERS: Final = Alert(
    name="InferwatchEmptyAnswers",
    severity="ticket",
    expr=share(
        f'inferwatch_first_token_missing_total{{reason="empty", {_READ}}}',
        f'inferwatch_requests_total{{outcome="ok", {_READ}}}',
        above=0.05,
        least=20,
        window="1h",
    ),
    for_="15m",
    summary="Users of {{ $labels.model }} get answers with nothing in them, and no error",
    value="{{ $value | humanizePercentage }} of the good answers of the last hour",
    dashboard="inferwatch-service",
    fires=(
        Case(
            series={
                f'inferwatch_first_token_missing_total{{{_MODEL}, reason="empty"}}': "0+3x100",
                f'inferwatch_requests_total{{{_MODEL}, outcome="ok"}}': "0+30x100",
            },
            at="90m",
            labels={"model": "m"},
            value="10% of the good answers of the last hour",
        ),
        Case(
            series={
                f'inferwatch_first_token_missing_total{{{_MODEL}, reason="empty"}}': "0+3x100",
                f'inferwatch_requests_total{{{_MODEL}, outcome="ok"}}': "0+30x100",
                f'inferwatch_requests_total{{{_PROBE}, outcome="ok"}}': "0+60x100",
            },
            at="90m",
            labels={"model": "m"},
            value="10% of the good answers of the last hour",
            says="beside a canary",
        ),
    ),
    silent=(
        Case(
            series={
                f'inferwatch_first_token_missing_total{{{_MODEL}, reason="empty"}}': "0+1x100",
                f'inferwatch_requests_total{{{_MODEL}, outcome="ok"}}': "0+30x100",
            },
            at="90m",
            says="one in thirty",
        ),
        Case(
            series={
                f'inferwatch_first_token_missing_total{{{_PROBE}, reason="empty"}}': "0+3x100",
                f'inferwatch_requests_total{{{_PROBE}, outcome="ok"}}': "0+3x100",
                f'inferwatch_requests_total{{{_MODEL}, outcome="ok"}}': "0+30x100",
            },
            at="90m",
            says="a model whose first token ends the canary's prompts",
        ),
    ),
)


def _estimated(estimates: str, counts: str) -> dict[str, str]:
    name = "inferwatch_tokens_by_source_total"
    return {
        f'{name}{{{HOST}, model="m", source="chunk_estimate", type="completion"}}': estimates,
        f'{name}{{{HOST}, model="m", source="final_usage", type="completion"}}': counts,
    }


ESTIMATED: Final = Alert(
    name="InferwatchTokensEstimated",
    severity="ticket",
    expr=share(
        'inferwatch_tokens_by_source_total{source="chunk_estimate", type="completion"}',
        'inferwatch_tokens_by_source_total{type="completion"}',
        above=0.2,
        window="1h",
    ),
    for_="1h",
    team="finance",
    summary="Costs and budgets of {{ $labels.model }} are estimates: its engine does not say how many tokens it made",
    value="{{ $value | humanizePercentage }} of the answers' tokens of the last hour",
    dashboard="inferwatch-service",
    fires=(
        Case(series=_estimated("0+300x180", "0+700x180"), at="150m", labels={"model": "m"},
             value="30% of the answers' tokens of the last hour"),
    ),
    silent=(
        Case(series=_estimated("0+100x180", "0+900x180"), at="150m", says="those that were hung up on"),
        Case(series=_estimated("0+300x30 9000+0x150", "0+700x180"), at="150m", says="for half an hour"),
    ),
)  # fmt: skip


def group() -> Group:
    return Group(
        name="requests",
        about="What a service level cannot see, because nothing finishes.",
        records=(
            Record(
                record=SERVES,
                expr="""
                    group by (job, instance, model) (
                      inferwatch_requests_total{outcome="ok", operation!="other"} > 0
                    )
                """,
            ),
            Record(
                record="instance_model:inferwatch_requests_in_flight:sum",
                expr='sum by (job, instance, model) (inferwatch_requests_in_flight{operation!="other"})',
            ),
        ),
        alerts=(NO_TOKENS, CLIENTS_GIVE_UP, EMPTY_ANSWERS, ESTIMATED),
    )
